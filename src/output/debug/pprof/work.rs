//! Runs work that takes long on its own thread, until the client is gone.

use std::convert::Infallible;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::util::thread as background;

/// The client that waits for the work.
pub(super) struct Client(Receiver<Infallible>);

impl Client {
    /// Waits for some time, or until the client is gone. Returns true if it is still there.
    pub(super) fn wait(&self, time: Duration) -> bool {
        self.0.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }
}

/// Returns the result of work on a new thread, or nothing if the thread cannot be started or panics. The server drops the
/// future when the client is gone, and the thread then sees that.
///
/// A thread instead of Tokio's timers and blocking pool, because a router can be part of any application: its runtime may
/// have no timers, and no free thread in its pool.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce(&Client) -> T + Send + 'static,
) -> Option<T> {
    let (_client, gone) = mpsc::channel();
    let (sender, result) = oneshot::channel();
    let run = move || {
        // Without a receiver, the client is gone.
        let _ = sender.send(work(&Client(gone)));
    };
    background::spawn(thread::Builder::new().name("runtime-profile".into()), run).ok()?;
    result.await.ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn the_result_of_the_thread_is_returned() {
        let name = runtime().block_on(on_thread(|_| thread::current().name().map(str::to_owned)));
        assert_eq!(name.flatten().as_deref(), Some("runtime-profile"));
    }

    #[test]
    fn a_panic_is_no_result() {
        assert_eq!(runtime().block_on(on_thread(|_| -> u8 { panic!("on purpose") })), None);
    }

    #[test]
    fn waiting_ends_when_the_client_is_gone() {
        let (sender, ended) = mpsc::channel();
        let start = Instant::now();
        let work = move |client: &Client| sender.send(client.wait(Duration::from_secs(600))).unwrap();
        runtime().block_on(async {
            let mut waiting = Box::pin(on_thread(work));
            // One poll starts the thread.
            std::future::poll_fn(|context| {
                let _ = waiting.as_mut().poll(context);
                std::task::Poll::Ready(())
            })
            .await;
        });
        assert_eq!(ended.recv(), Ok(false), "the client is gone");
        assert!(start.elapsed() < Duration::from_secs(600));
    }
}
