//! How much a peer, or a caller, can make the machine hold.

/// Limits of one connection, all of them on by default.
///
/// [`ClientState::new`](crate::ClientState::new) takes those of the protocol,
/// [`Protocol::LIMITS`](crate::Protocol::LIMITS); [`ClientState::with_limits`](crate::ClientState::with_limits) takes
/// yours. What the machine asks by itself ([`Timeouts`](crate::Timeouts)) is never refused: a probe, a leave and an enter
/// at a time have places of their own.
///
/// ```
/// use sonnette::{ClientState, Limits, board::Board};
///
/// let state = ClientState::with_limits(Board::silent(), Limits::new().with_line(80).with_pending(8));
/// # let _ = state;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limits {
    /// Octets of one line without its terminator. More is [`Error::LineTooLong`](crate::Error::LineTooLong).
    ///
    /// 16,384: what Twisted's `LineReceiver` allows, which the servers of the notice board are written with.
    pub line: usize,
    /// Octets of an unfinished frame, and of the parts that are kept of unfinished answers, all together; checked when a
    /// length is announced. More is [`Error::AnswerTooLong`](crate::Error::AnswerTooLong).
    ///
    /// What is allocated for them may be three times as much: a buffer that grows has room for twice what is in it, and is
    /// there beside the one before until it is filled; a literal of IMAP is copied out of it. For values of Redis it is what
    /// is counted, the places of values in arrays included, but for a long one that comes in many reads.
    ///
    /// 1 MiB: a long listing or a cover picture fits, and a thousand hostile servers fit in 1 GiB.
    pub answer: usize,
    /// Requests and changes of mode that are asked and not answered; an enter counts twice, since it reserves the
    /// place of its leave. More is [`Reason::TooManyPending`](crate::Reason::TooManyPending).
    ///
    /// What is answered before others that were asked earlier leaves its place behind until half of the places are such, so
    /// there may be twice as many places.
    ///
    /// 1,024: far more than are ever on their way at once, and what the notice board has pending takes 64 KiB.
    pub pending: usize,
    /// Octets that wait to be written, with what gates hold back. More is
    /// [`Reason::OutputFull`](crate::Reason::OutputFull).
    ///
    /// 64 KiB: some thousands of requests. What a socket does not take would only wait here instead of in the caller.
    pub output: usize,
}

impl Limits {
    /// The limits of the notice board.
    #[must_use]
    pub const fn new() -> Self {
        Limits { line: 16_384, answer: 1024 * 1024, pending: 1_024, output: 64 * 1024 }
    }

    /// Sets [`line`](Self::line), in octets.
    #[must_use]
    pub const fn with_line(mut self, octets: usize) -> Self {
        self.line = octets;
        self
    }

    /// Sets [`answer`](Self::answer), in octets.
    #[must_use]
    pub const fn with_answer(mut self, octets: usize) -> Self {
        self.answer = octets;
        self
    }

    /// Sets [`pending`](Self::pending), a count.
    #[must_use]
    pub const fn with_pending(mut self, count: usize) -> Self {
        self.pending = count;
        self
    }

    /// Sets [`output`](Self::output), in octets.
    #[must_use]
    pub const fn with_output(mut self, octets: usize) -> Self {
        self.output = octets;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}
