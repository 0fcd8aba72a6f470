use sonnette::Protocol;
use sonnette::board::{Board, Notification};

/// Callbacks for `run`.
pub trait Handler<P: Protocol> {
    /// The server rang.
    fn notification(&mut self, notification: P::Notification);

    /// Asked after each notification: whether `run` returns now. By default it never does.
    fn is_done(&self) -> bool {
        false
    }
}

/// The talk's callbacks: one for each kind of news, and one that is missing is ignored.
pub trait BoardHandler {
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

impl<H: BoardHandler> Handler<Board> for H {
    fn notification(&mut self, notification: Notification) {
        match notification {
            Notification::Random => self.random_available(),
            Notification::Classified => self.classified_available(),
            Notification::Other(name) => self.other_available(&name),
        }
    }

    fn is_done(&self) -> bool {
        BoardHandler::is_done(self)
    }
}
