//! What has been asked and not answered.

use core::{fmt, time::Duration};

/// Names one request or one change of mode of a connection. Ids ascend in the order asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl RequestId {
    pub(crate) const FIRST: Self = RequestId(1);

    /// At a billion requests a second the ids last for five hundred years.
    pub(crate) const fn next(self) -> Self {
        RequestId(self.0.wrapping_add(1))
    }

    /// The number behind it, for a protocol that puts it on the wire (an IMAP tag).
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The id with this number, for a protocol that reads it from the wire.
    #[must_use]
    pub const fn from_wire(number: u64) -> Self {
        RequestId(number)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An entry of the queue of what is outstanding; `S` is the protocol's Subscription, `N` its Note.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry<S, N> {
    pub(crate) id: RequestId,
    pub(crate) what: What<S, N>,
    /// How many octets had been received when it was asked. A frame that ended at or before that point cannot concern
    /// it.
    pub(crate) received_before: u64,
    /// Where its octets begin in the output. Once that is written, the server may have acted on it.
    pub(crate) starts_at: u64,
    /// When its answer is overdue.
    pub(crate) due: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What<S, N> {
    Greeting,
    Request(N),
    /// A question of the machine's own.
    Probe(N),
    Enter(S, N),
    Leave {
        note: N,
        void: bool,
    },
}

/// The confirmed enter of the mode the server is in, as read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inside<S, N> {
    pub(crate) id: RequestId,
    pub(crate) subscription: S,
    pub(crate) note: N,
}
