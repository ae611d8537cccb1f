//! The body of a response, which is part of the task that handles the request.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::count::task::Counted;

pin_project! {
    /// The body of a response of a [`TaskNameService`](super::TaskNameService).
    pub struct NamedBody<B> {
        // First, so that the task ends before the body's destructor runs.
        task: Option<Counted>,
        // The number of bytes to come: a server may drop the body after the last one without polling it again.
        left: Option<u64>,
        #[pin]
        body: B,
    }
}

impl<B> NamedBody<B> {
    pub(crate) fn new(body: B, task: Option<Counted>, length: Option<u64>) -> Self {
        NamedBody { task, left: length, body }
    }
}

impl<B> std::fmt::Debug for NamedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamedBody").finish_non_exhaustive()
    }
}

impl<B: Body> Body for NamedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(task) = this.task else { return this.body.poll_frame(context) };
        let poll = |context: &mut Context<'_>| {
            let frame = this.body.as_mut().poll_frame(context);
            let is_last = match &frame {
                Poll::Ready(Some(Ok(frame))) => {
                    count_down(this.left, frame);
                    *this.left == Some(0) || this.body.is_end_stream()
                }
                Poll::Ready(None | Some(Err(_))) => true,
                Poll::Pending => false,
            };
            (frame, is_last)
        };
        task.poll(context, poll, |(_, is_last)| *is_last).0
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn count_down<D: bytes::Buf>(left: &mut Option<u64>, frame: &Frame<D>) {
    if let (Some(left), Some(data)) = (left, frame.data_ref()) {
        *left = left.saturating_sub(data.remaining() as u64);
    }
}
