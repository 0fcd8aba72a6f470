//! What can go wrong: the peer's fault ends the connection, the caller's is handed back.

use crate::{LineTooLong, Mode};
use alloc::vec::Vec;
use core::{error, fmt};

/// The connection is over: the peer broke the protocol or a limit, the stream ended where it must not, or a time is up.
///
/// [`ClientState::poll_event`](crate::ClientState::poll_event) returns it after everything that was decodable before it
/// and a `Lost` for each request, and the same again from then on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The stream ended inside a frame or a started answer.
    UnexpectedEof {
        /// How many octets of it had arrived.
        octets: u64,
    },
    /// A line exceeds [`Limits::line`](crate::Limits::line).
    LineTooLong(LineTooLong),
    /// What is kept of answers that are not complete exceeds [`Limits::answer`](crate::Limits::answer).
    AnswerTooLong {
        /// The limit, in octets.
        limit: usize,
    },
    /// The server refused the connection in its greeting, with these first octets of it.
    GreetingRefused(Excerpt),
    /// The peer sent what the protocol does not allow here.
    Violation {
        /// The rule that was broken.
        rule: &'static str,
        /// The first octets of the frame that broke it.
        frame: Excerpt,
    },
    /// Octets came behind the answer after which the stream was to be changed. Whoever put them there wanted them to be
    /// taken for ones that came over the new stream. (STARTTLS: CVE-2011-0411)
    Injected,
    /// The server did not greet in time
    /// ([`set_greeting_timeout`](crate::ClientState::set_greeting_timeout)).
    GreetingTimeout,
    /// An answer did not come within [`Timeouts::reply`](crate::Timeouts::reply).
    ReplyTimeout,
    /// Nothing was received for [`Timeouts::silence`](crate::Timeouts::silence), nor for as long again after the server
    /// was probed.
    SilenceTimeout,
}

impl From<LineTooLong> for Error {
    fn from(error: LineTooLong) -> Self {
        Error::LineTooLong(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::UnexpectedEof { octets } => {
                write!(f, "the connection ended in the middle of an answer, after {octets} octets of it")
            }
            Error::LineTooLong(error) => write!(f, "the server sent {error}"),
            Error::AnswerTooLong { limit } => write!(f, "the server sent an answer of more than {limit} octets"),
            Error::GreetingRefused(line) => write!(f, "the server refused the connection: {line:?}"),
            Error::Injected => f.write_str("octets were injected in front of the change of the stream"),
            Error::GreetingTimeout => f.write_str("the server did not greet in time"),
            Error::ReplyTimeout => f.write_str("the server did not answer in time"),
            Error::SilenceTimeout => f.write_str("the server has fallen silent"),
            Error::Violation { rule, frame } => write!(f, "the server broke the protocol: {rule}: {frame:?}"),
        }
    }
}

impl error::Error for Error {}

/// So many octets say enough to recognise a frame, and a hostile one cannot fill a log.
const EXCERPT: usize = 64;

/// The first octets of a frame, at most 64.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Excerpt(Vec<u8>);

impl Excerpt {
    pub(crate) fn of(frame: &[u8]) -> Self {
        Excerpt(frame.iter().copied().take(EXCERPT).collect())
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// Why the stream must not be changed ([`ClientState::stream_changed`](crate::ClientState::stream_changed)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamUnchanged {
    /// No answer has allowed it, or it was not polled yet. The connection goes on over the stream as it is.
    NotAllowed,
    /// The connection has ended.
    Closed,
    /// The connection is over, for this reason.
    Failed(Error),
}

impl fmt::Display for StreamUnchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamUnchanged::NotAllowed => f.write_str("the server has not allowed the stream to be changed"),
            StreamUnchanged::Closed => f.write_str("the connection has ended"),
            StreamUnchanged::Failed(error) => error.fmt(f),
        }
    }
}

impl error::Error for StreamUnchanged {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            StreamUnchanged::Failed(error) => Some(error),
            StreamUnchanged::NotAllowed | StreamUnchanged::Closed => None,
        }
    }
}

/// A call that the machine did not carry out: the value comes back, and nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejected<T> {
    /// What the caller passed.
    pub value: T,
    /// Why it was not taken.
    pub reason: Reason,
}

/// Why a call was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The protocol does not allow this in the mode the server will be in once it has read everything asked so far.
    NotAllowed(Mode),
    /// The connection has ended.
    Closed,
    /// [`Limits::pending`](crate::Limits::pending) is reached. Poll events, then ask again.
    TooManyPending,
    /// [`Limits::output`](crate::Limits::output) is reached. Write the output, then ask again.
    OutputFull,
    /// This alone, or with the leave that must still fit behind it, exceeds a limit: waiting does not help.
    TooLarge,
    /// The protocol cannot express this value.
    Invalid(Invalid),
}

/// Why a protocol cannot express a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Invalid(&'static str);

impl Invalid {
    /// A value is not valid, for this reason.
    #[must_use]
    pub const fn new(why: &'static str) -> Self {
        Invalid(why)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl error::Error for Invalid {}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotAllowed(mode) => write!(f, "not allowed while the mode asked for is {mode:?}"),
            Reason::Closed => f.write_str("the connection has ended"),
            Reason::TooManyPending => f.write_str("too many requests are pending"),
            Reason::OutputFull => f.write_str("too much output waits to be written"),
            Reason::TooLarge => f.write_str("larger than the limits will ever allow"),
            Reason::Invalid(why) => write!(f, "not a valid value: {why}"),
        }
    }
}

impl error::Error for Reason {}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected: {}", self.reason)
    }
}

impl<T: fmt::Debug> error::Error for Rejected<T> {}
