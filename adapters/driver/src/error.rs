use sonnette::{Reason, RequestId};
use std::fmt::Write;
use std::sync::Arc;
use std::{error, fmt, io};

/// Why a call of a client failed; `R` is the refusal of the protocol.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error<R> {
    /// The connection has ended.
    Ended(End),
    /// The connection ended before this request or enter was answered.
    Lost {
        /// Whether its first octet had been written. If not, the server has not seen it: it is safe to ask again.
        sent: bool,
        /// How the connection ended.
        end: End,
    },
    /// The server refused the request or the change of mode. The connection goes on.
    Refused(R),
    /// The request was not sent. The connection goes on.
    Rejected(Reason),
    /// A timeout of the stream expired. Nothing is lost: the call can be repeated, and the outcome of a request that was
    /// asked can be waited for again by its id. (That of an enter, by entering again.)
    TimedOut {
        /// The request or enter that was waited for.
        id: Option<RequestId>,
    },
    /// The call was interrupted by another thread. Nothing is lost, as with a timeout.
    Interrupted {
        /// The request or enter that was waited for.
        id: Option<RequestId>,
    },
    /// More events came, while the caller waited for another one, than are kept. Nothing is lost: take them, then wait
    /// for the outcome again by its id.
    BacklogFull {
        /// The request or enter that was waited for.
        id: Option<RequestId>,
    },
    /// Nothing is known of this request: it was answered already, or given up by asking another one.
    UnknownRequest(RequestId),
}

/// How a connection ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum End {
    /// The server closed it, between frames.
    Closed,
    /// The server broke the protocol or a limit, or the stream ended in the middle of an answer.
    Failed(sonnette::Error),
    /// The stream failed.
    Io(Arc<io::Error>),
    /// This side gave it up: the task of a shared connection was dropped.
    Abandoned,
}

impl<R> From<End> for Error<R> {
    fn from(end: End) -> Self {
        Error::Ended(end)
    }
}

impl<R> Error<R> {
    /// The same, for a call that waits for the outcome of `id`.
    pub(crate) fn waiting_for(self, id: RequestId) -> Self {
        match self {
            Error::TimedOut { .. } => Error::TimedOut { id: Some(id) },
            Error::Interrupted { .. } => Error::Interrupted { id: Some(id) },
            Error::BacklogFull { .. } => Error::BacklogFull { id: Some(id) },
            other => other,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed => f.write_str("the server closed the connection"),
            End::Failed(error) => error.fmt(f),
            End::Io(error) => write!(f, "the connection failed: {error}"),
            End::Abandoned => f.write_str("the connection was given up"),
        }
    }
}

impl error::Error for End {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            End::Closed | End::Abandoned => None,
            End::Failed(error) => Some(error),
            End::Io(error) => Some(error),
        }
    }
}

impl<R: fmt::Debug> fmt::Display for Error<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ended(end) => end.fmt(f),
            Error::Lost { sent: true, end } => write!(f, "{end}, before it answered"),
            Error::Lost { sent: false, end } => write!(f, "{end}, before the request was sent"),
            Error::Refused(refusal) => {
                f.write_str("the server refused: ")?;
                // What a server said may be long; the whole of it is in the value.
                let mut start = Start { f, left: 120 };
                match write!(start, "{refusal:?}") {
                    Err(_) if start.left == 0 => f.write_str("..."),
                    written => written,
                }
            }
            Error::Rejected(reason) => write!(f, "not sent: {reason}"),
            Error::TimedOut { .. } => f.write_str("timed out"),
            Error::Interrupted { .. } => f.write_str("interrupted"),
            Error::BacklogFull { .. } => f.write_str("too many events wait to be taken"),
            Error::UnknownRequest(id) => write!(f, "nothing is known of the request {id}"),
        }
    }
}

/// The first characters of what is written.
struct Start<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl Write for Start<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.f.write_char(character)?;
        }
        Ok(())
    }
}

impl<R: fmt::Debug> error::Error for Error<R> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Error::Ended(end) | Error::Lost { end, .. } => Some(end),
            Error::Rejected(reason) => Some(reason),
            _ => None,
        }
    }
}

/// What a [`Transport`](crate::Transport) returns, inside a `WouldBlock`, from a read that another thread interrupted.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt;

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted by another thread")
    }
}

impl error::Error for Interrupt {}

impl From<Interrupt> for io::Error {
    fn from(interrupt: Interrupt) -> Self {
        io::Error::new(io::ErrorKind::WouldBlock, interrupt)
    }
}
