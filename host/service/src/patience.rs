//! Outages of stores during requests that wait (`run`, `runs watch`, `retry`, `resume`). Such a request does not fail:
//! it gives one notice, repeats its operation each second, and gives another notice when the store answers.

use std::time::{Duration, Instant};

use dovetail_core::blobs::{Store, StoreErrorKind};
use dovetail_flow::{FlowError, Shutdown};

use crate::Notice;

/// The pause between two attempts at an operation on a store that does not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the shutdown is checked during the pause.
const ROUND: Duration = Duration::from_millis(200);

/// Repeats operations on stores until the store answers or the session is shut down.
pub(crate) struct Patience<'a> {
    shutdown: &'a Shutdown,
    tell: &'a dyn Fn(Notice),
    /// The store that does not answer, if there is one. The inner value is None if the error names no store.
    silent: Option<Option<Store>>,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(shutdown: &'a Shutdown, tell: &'a dyn Fn(Notice)) -> Self {
        Self { shutdown, tell, silent: None }
    }

    /// The result of `question`. None if the store does not answer and the session was shut down.
    pub(crate) fn ask<T>(
        &mut self,
        mut question: impl FnMut() -> Result<T, FlowError>,
    ) -> Result<Option<T>, FlowError> {
        loop {
            match question() {
                Err(FlowError::Store(error)) if error.kind == StoreErrorKind::Unavailable => {
                    if self.silent.replace(error.store).is_none() {
                        let (operation, cause) = (&error.operation, error.source.as_ref());
                        let cause = cause.map_or_else(String::new, ToString::to_string);
                        (self.tell)(Notice::StoreSilent { operation: operation.clone(), cause });
                    }
                    if !self.pause() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
                Ok(answer) => {
                    if let Some(store) = self.silent.take() {
                        (self.tell)(Notice::StoreAnswers(store));
                    }
                    return Ok(Some(answer));
                }
            }
        }
    }

    /// Waits before the next attempt. False if the session was shut down.
    fn pause(&self) -> bool {
        let until = Instant::now() + AGAIN;
        while Instant::now() < until && !self.shutdown.draining() {
            std::thread::sleep(ROUND);
        }
        !self.shutdown.draining()
    }
}

/// A sentence for people, such as `the queue answers`.
pub(crate) fn answering(store: Option<Store>) -> &'static str {
    match store {
        Some(Store::Queue) => "the queue answers",
        Some(Store::Records) => "the store of the records answers",
        Some(Store::Blobs) => "the blob store answers",
        None => "the store answers",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_core::blobs::StoreError;
    use std::sync::Mutex;

    fn error(kind: StoreErrorKind) -> FlowError {
        StoreError::new(kind, "read a run", "connection refused").of(Store::Records).into()
    }

    #[test]
    fn an_outage_is_told_once_and_outlasted() {
        let (shutdown, notices) = (Shutdown::default(), Mutex::new(Vec::new()));
        let tell = |notice: Notice| notices.lock().unwrap().push(notice.to_string());
        let mut patience = Patience::new(&shutdown, &tell);
        let mut left = 2;
        let answer = patience.ask(|| {
            left -= 1;
            if left >= 0 { Err(error(StoreErrorKind::Unavailable)) } else { Ok("state") }
        });
        assert_eq!(answer.unwrap(), Some("state"));
        assert!(patience.ask(|| Ok(())).unwrap().is_some());
        let notices = notices.lock().unwrap();
        assert_eq!(
            notices[..],
            [
                "could not read a run (connection refused); the run is recorded, and this command goes on waiting for \
                 it",
                "the store of the records answers again"
            ]
        );
    }

    #[test]
    fn any_other_error_ends_it_and_so_does_the_user() {
        let (shutdown, tell) = (Shutdown::default(), |_| ());
        let mut patience = Patience::new(&shutdown, &tell);
        for kind in [StoreErrorKind::Corrupt, StoreErrorKind::Newer, StoreErrorKind::Missing] {
            assert!(patience.ask::<()>(|| Err(error(kind))).is_err(), "{kind:?}");
        }
        shutdown.drain();
        assert!(patience.ask::<()>(|| Err(error(StoreErrorKind::Unavailable))).unwrap().is_none());
        // The shutdown does not discard an answer.
        assert_eq!(patience.ask(|| Ok(1)).unwrap(), Some(1));
    }
}
