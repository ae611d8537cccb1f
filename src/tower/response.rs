//! The handling of a request until its response has a head.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use pin_project_lite::pin_project;

use super::body::NamedBody;
use super::name::RequestName;
use crate::count::task::{self, Counted};

pin_project! {
    /// The future of a [`TaskNameService`](super::TaskNameService).
    #[must_use = "a future does nothing unless it is polled"]
    pub struct ResponseFuture<F> {
        // First, so that the task ends before the future's destructor runs. `None` once the body has it.
        task: Option<Counted>,
        candidate: Option<Box<str>>,
        is_head: bool,
        #[pin]
        future: F,
    }
}

impl<F> ResponseFuture<F> {
    pub(crate) fn new(name: RequestName, is_head: bool, call: impl FnOnce() -> F) -> Self {
        let task = Some(Counted::new(name.name));
        ResponseFuture { task, candidate: name.candidate, is_head, future: call() }
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<NamedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let is_head = *this.is_head;
        let ends_here = |result: &Poll<F::Output>| match result {
            Poll::Ready(Ok(response)) => is_head || response.body().is_end_stream(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        let result = match this.task {
            Some(task) => task.poll(context, |context| this.future.poll(context), ends_here),
            None => this.future.poll(context),
        };
        let response = ready!(result)?;
        if let Some(method) = this.candidate.take()
            && is_implemented(&response)
        {
            task::name_of_str(&method);
        }
        let task = this.task.take();
        // A task that has ended has nothing to wait for.
        let length = if task.as_ref().is_some_and(Counted::has_ended) { None } else { length(&response) };
        Poll::Ready(Ok(response.map(|body| NamedBody::new(body, task, length))))
    }
}

/// Returns the length of the body if it is known. A body that is in memory knows it itself, faster than the header is found.
fn length<R: Body>(response: &Response<R>) -> Option<u64> {
    let header = || response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    response.body().size_hint().exact().or_else(header)
}

/// Returns whether a gRPC service knows the method that this answers.
fn is_implemented<R>(response: &Response<R>) -> bool {
    let unimplemented = response.headers().get("grpc-status").is_some_and(|status| status == "12");
    response.status().is_success() && !unimplemented
}
