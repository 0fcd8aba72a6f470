//! The notice board: the talk's verbs and callbacks.

use crate::{Driver, Error, Transport};
use bytes::Bytes;
use sonnette::Protocol;
use sonnette::board::{Board, Notification, Refusal, Reply, Request};

/// The talk's callbacks: one for each kind of news, and one that is missing is ignored.
pub trait Handler {
    /// There is a new random number.
    fn random_available(&mut self) {}

    /// There is a new classified ad.
    fn classified_available(&mut self) {}

    /// There is news of a kind that this version does not know.
    fn other_available(&mut self, name: &[u8]) {
        let _ = name;
    }

    /// Asked after each notification: whether `run` returns now. By default it never does.
    fn is_done(&self) -> bool {
        false
    }
}

impl<H: Handler> crate::Handler<Board> for H {
    fn notification(&mut self, notification: Notification) {
        match notification {
            Notification::Random => self.random_available(),
            Notification::Classified => self.classified_available(),
            Notification::Other(name) => self.other_available(&name),
        }
    }

    fn is_done(&self) -> bool {
        Handler::is_done(self)
    }
}

type Result<T> = std::result::Result<T, Error<<Board as Protocol>::Refusal>>;

/// The talk's verbs.
impl<T: Transport> Driver<Board, T> {
    /// Asks for the random number.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::Refused`] if the answer is not a number.
    pub async fn random(&mut self) -> Result<i64> {
        match self.call(Request::Random).await? {
            Reply::Random(number) => Ok(number),
            Reply::Classified(text) => Err(wrong_kind(text)),
        }
    }

    /// Asks for the classified ad.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn classified(&mut self) -> Result<Bytes> {
        match self.call(Request::Classified).await? {
            Reply::Classified(text) => Ok(text),
            Reply::Random(number) => Err(wrong_kind(number.to_string().into())),
        }
    }

    /// Enters notification mode.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub async fn notify(&mut self) -> Result<()> {
        self.enter(()).await.map(drop)
    }

    /// Leaves notification mode.
    ///
    /// # Errors
    /// As [`leave`](Self::leave).
    pub async fn stop_notify(&mut self) -> Result<()> {
        self.leave().await
    }

    /// Waits for the next notification.
    ///
    /// # Errors
    /// As [`next_notification`](Self::next_notification).
    pub async fn wait_notification(&mut self) -> Result<Option<Notification>> {
        self.next_notification().await
    }
}

fn wrong_kind(line: Bytes) -> Error<Refusal> {
    Error::Refused(Refusal::WrongKind(line))
}
