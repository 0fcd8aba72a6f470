//! What a protocol must be able to say, and what it is shown.

use crate::output::Encoder;
use crate::queue::{Entry, Inside, Queue, What};
use crate::{Frame, Invalid, Limits, RequestId, Terminator, Timeouts};
use alloc::vec::Vec;
use core::{fmt, hash};

/// One protocol: how requests and changes of mode are written, and what each frame means.
///
/// It sees no socket, clock or buffer, and decides nothing about modes: it says what a frame *is*, the machine says
/// what follows from it. To write one: name the types; say how the changes of mode are answered
/// ([`changes`](Self::changes)); write requests, enter and leave through the [`Encoder`], which refuses what could put a line
/// of its own on the wire; and in [`decode`](Self::decode) say of each frame whom it answers, or that it rings, looking at
/// what is [`Pending`]. Limits, frames in pieces, the queue, the modes and the end of the stream are the machine's.
///
/// Encoding takes `&self`; state of the protocol's own changes only in
/// [`decode`](Self::decode), so a rejected request leaves no trace. What the answer of a request needs (its kind, how
/// many confirmations it has) is the [`Note`](Self::Note), kept in the queue with it.
///
/// ```
/// use sonnette::{
///     Asked, Changes, ClientState, Decoded, Encoder, EnterAnswer, Event, Fault, Frame, Invalid, LeaveAnswer, Pending,
///     Protocol, RequestId, Terminator,
/// };
///
/// /// `time` is answered by one line, or `no REASON`; `watch` and `unwatch` by `done`; `tick` rings.
/// struct Clock;
///
/// impl Protocol for Clock {
///     type Request = ();
///     type Subscription = ();
///     type Reply = String;
///     type Refusal = String;
///     type Notification = ();
///     type Note = ();
///
///     const TERMINATOR: Terminator = Terminator::Lf;
///
///     fn changes(&self) -> Changes {
///         Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own }
///     }
///     fn encode_request(&self, _: RequestId, _: &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
///         out.put(b"time\n");
///         Ok(())
///     }
///     fn encode_enter(&self, _: RequestId, _: &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
///         out.put(b"watch\n");
///         Ok(())
///     }
///     fn encode_leave(&self, _: RequestId, _: &(), out: &mut Encoder<'_>) {
///         out.put(b"unwatch\n");
///     }
///     fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
///         let line = String::from_utf8_lossy(frame);
///         Ok(match (&*line, pending.awaiting()) {
///             ("tick", _) => Decoded::Notification(()),
///             ("done", Some(Asked::Enter { .. })) => Decoded::Entered,
///             ("done", Some(Asked::Leave { .. })) => Decoded::Left,
///             (text, Some(Asked::Request { id, .. })) => match text.strip_prefix("no ") {
///                 Some(reason) => Decoded::Refused { id, refusal: reason.into() },
///                 None => Decoded::reply(id, text.into()),
///             },
///             _ => return Err(Fault::Violation("a line nobody asked for")),
///         })
///     }
/// }
///
/// let mut state = ClientState::new(Clock);
/// let id = state.request(()).unwrap();
/// let watch = state.enter(()).unwrap();
/// state.receive(b"12:00\ndone\ntick\n");
/// assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id: i, reply })) if i == id && reply == "12:00"));
/// assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { id })) if id == watch));
/// assert!(matches!(state.poll_event(), Ok(Some(Event::Notification(())))));
/// assert!(matches!(state.poll_event(), Ok(None)));
/// ```
pub trait Protocol: Sized {
    /// What the application asks.
    type Request;
    /// What notification mode is entered with: channels, subsystems, or nothing.
    type Subscription: Clone + fmt::Debug + Eq + hash::Hash;
    /// An answer.
    type Reply;
    /// The server said no, or gave an answer of the wrong kind while the stream stays in step.
    type Refusal;
    /// What the server pushes.
    type Notification;
    /// What is kept with a request or a change of mode until it is answered.
    type Note: Clone + fmt::Debug + Eq + hash::Hash;

    /// What ends a line.
    const TERMINATOR: Terminator;

    /// What [`ClientState::new`](crate::ClientState::new) limits.
    const LIMITS: Limits = Limits::new();

    /// What [`ClientState::new`](crate::ClientState::new) sets to be overdue; by default nothing is.
    const TIMEOUTS: Timeouts = Timeouts::OFF;

    /// Whether the server speaks first. Nothing is sent before its greeting was read.
    const GREETING: bool = false;

    /// Whether clients may leave the mode and enter it again of their own accord: after the server has ended it, and to ask
    /// through a shared handle what it does not allow. Not where what happens meanwhile is lost. (Redis)
    const REENTERS: bool = true;

    /// How changes of mode are answered; the same throughout a connection.
    fn changes(&self) -> Changes;

    /// Whether `request` may be sent in this mode of the server; by default in normal mode alone.
    fn allows(&self, request: &Self::Request, setting: Setting) -> bool {
        let _ = request;
        setting == Setting::Normal
    }

    /// Whether the answer to this request may end the mode ([`Decoded::Reply`]). Until it is read the server may be in
    /// either mode, and what is asked must be allowed in both.
    fn may_end_mode(&self, note: &Self::Note) -> bool {
        let _ = note;
        false
    }

    /// Whether the answer to this request ends the stream as it is: what follows is spoken over another one, see
    /// [`ClientState::stream_changed`](crate::ClientState::stream_changed). It is asked alone: while nothing else is
    /// outstanding, and nothing is asked behind it before it is refused, or the stream has changed. (STARTTLS)
    fn changes_stream(&self, note: &Self::Note) -> bool {
        let _ = note;
        false
    }

    /// Writes a request whose id is `id`.
    ///
    /// # Errors
    /// [`Invalid`] if the protocol cannot express it.
    fn encode_request(
        &self,
        id: RequestId,
        request: &Self::Request,
        out: &mut Encoder<'_>,
    ) -> Result<Self::Note, Invalid>;

    /// Writes the entering of notification mode.
    ///
    /// # Errors
    /// [`Invalid`] if the protocol cannot express it.
    fn encode_enter(
        &self,
        id: RequestId,
        subscription: &Self::Subscription,
        out: &mut Encoder<'_>,
    ) -> Result<Self::Note, Invalid>;

    /// Writes the leaving of the mode that `subscription` entered. It cannot fail; its length is reserved when the mode
    /// is entered, so it must not grow until it is sent.
    fn encode_leave(&self, id: RequestId, subscription: &Self::Subscription, out: &mut Encoder<'_>) -> Self::Note;

    /// Writes a question of no interest to anybody, whose answer proves that the server lives, if there is one that may
    /// be asked in this mode of the server; by default there is none, and nothing may be written. In the mode it must
    /// change nothing there.
    ///
    /// Its answer is decoded like that to any request, and not told. If asking makes the server forget what it would
    /// otherwise notify of, say that with [`Decoded::Probed`].
    fn encode_probe(&self, id: RequestId, setting: Setting, out: &mut Encoder<'_>) -> Option<Self::Note> {
        let _ = (id, setting, out);
        None
    }

    /// Says what a frame means, given what is pending.
    ///
    /// # Errors
    /// A [`Fault`] ends the connection. What a peer sends must not make it panic.
    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault>;

    /// A fast path: if `input` begins with a whole known line that is a notification, its length with the terminator
    /// and what it means. Asked only in the mode with nothing pending; must say what [`decode`](Self::decode) would.
    fn known_line(&mut self, input: &[u8]) -> Option<(usize, Self::Notification)> {
        let _ = input;
        None
    }

    /// Likewise, for a notification of one frame or of many with values to be cut out of it. Before it is cut, its length
    /// with the terminators is told by [`Frame::truncate`]; without that, all that has arrived is taken for it. `input` goes
    /// as far as the limits allow a line and an answer to go.
    fn known_push(&mut self, input: &mut Frame<'_>) -> Option<Self::Notification> {
        let _ = input;
        None
    }

    /// A fast path: if `input` begins with the whole answer to a request of which `note` was noted, and that is a line that
    /// is no refusal, its length with the terminator and what it means. Asked only where the server is in normal mode, as
    /// read, and of what was asked first; must do what [`decode`](Self::decode) would.
    fn known_answer(&mut self, note: &Self::Note, input: &[u8]) -> Option<(usize, Self::Reply)> {
        let _ = (note, input);
        None
    }
}

/// How a protocol's changes of mode are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Changes {
    /// How entering is answered.
    pub enter: EnterAnswer,
    /// How leaving is answered.
    pub leave: LeaveAnswer,
}

/// How entering notification mode is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EnterAnswer {
    /// Not at all: it is confirmed once all that was asked before it has been answered. (MPD `idle`)
    Silent,
    /// By a frame: [`Decoded::Entered`] or [`Decoded::Refused`]. (IMAP's `+`, Redis' confirmations)
    Own,
}

/// How leaving notification mode is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaveAnswer {
    /// Not at all: it is confirmed by the first answer to a request asked after it, or, if what was asked next is an
    /// enter, by that enter.
    Silent,
    /// By a frame of its own: [`Decoded::Left`]. (Redis' confirmations)
    Own,
    /// By the late answer of the enter, [`Decoded::Ended`], which also comes when the server ends the mode by itself.
    /// (MPD's `OK` to `idle`, IMAP's tagged answer to IDLE)
    ByEnter,
}

/// The two settled modes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// Requests and replies.
    Normal,
    /// The server pushes.
    Notification,
}

/// What a frame means.
///
/// An id names the entry of the queue that the frame answers; the machine checks that it is there and that the mode
/// allows it.
#[derive(Debug)]
pub enum Decoded<P: Protocol> {
    /// A piece of a frame, which what follows completes: nothing else can come between. It is kept, and counted against
    /// [`Limits::answer`], until the frame is complete. (A literal of IMAP, a value of Redis)
    More {
        /// So many raw octets follow; a line if `None`.
        raw: Option<u64>,
    },
    /// As `More`, with a line to follow, for what announces values that take so many octets of memory beside those read:
    /// they are counted too, at once. (Redis: an array of so many values)
    Reserve {
        /// Octets.
        octets: u64,
    },
    /// Complete, but nothing to tell: a sign of life.
    Nothing,
    /// A frame of the answer to this request, enter or leave, but not the last. Notifications and answers to others may come
    /// before the next one; the stream must not end before the last.
    Part {
        /// What it answers. The late answer of an enter that is confirmed ([`LeaveAnswer::ByEnter`]) has no parts.
        id: RequestId,
        /// Whether the protocol keeps it: then it counts against [`Limits::answer`] until `id` is answered, with what it
        /// keeps for others.
        kept: bool,
        /// So many raw octets follow at once, as the next frame; if `None`, whatever comes.
        raw: Option<u64>,
    },
    /// The greeting.
    Greeting,
    /// The server's go-ahead for the rest of a request, see [`Encoder::await_continuation`].
    Continue,
    /// The server's challenge to a request whose rest waits for its continuation, and the octets of our response. They go
    /// out in front of that rest, which waits on. (SASL) They count against [`Limits::output`]: it is a violation to
    /// challenge faster than they can be written.
    Respond {
        /// The response, whole lines.
        response: Vec<u8>,
    },
    /// The server rang.
    Notification(P::Notification),
    /// The server rang, and goes on about it: the stream must not end before the mode does. (MPD: the `changed:` lines
    /// before `OK`) Outside the mode it is a `Notification`.
    PartNotification(P::Notification),
    /// The answer to a request.
    Reply {
        /// The request.
        id: RequestId,
        /// Its answer.
        reply: P::Reply,
        /// Whether it also ended the mode. (Redis: the last UNSUBSCRIBE, RESET)
        ends_mode: bool,
    },
    /// A request, or an enter with an answer of its own, was refused.
    Refused {
        /// The request or enter.
        id: RequestId,
        /// How the server said no.
        refusal: P::Refusal,
    },
    /// The answer to a probe ([`Protocol::encode_probe`]), which took news away: they are told here.
    Probed {
        /// The probe.
        id: RequestId,
        /// What the server would have notified of, had it not been asked.
        news: Option<P::Notification>,
    },
    /// The first unconfirmed enter was confirmed ([`EnterAnswer::Own`]).
    Entered,
    /// The first leave was confirmed ([`LeaveAnswer::Own`]).
    Left,
    /// The mode has ended, asked for or not ([`LeaveAnswer::ByEnter`]); also the late refusal of an enter.
    Ended {
        /// How the server said no, if it did.
        refusal: Option<P::Refusal>,
    },
}

impl<P: Protocol> Decoded<P> {
    /// The answer to a request, which leaves the mode as it is.
    pub const fn reply(id: RequestId, reply: P::Reply) -> Self {
        Decoded::Reply { id, reply, ends_mode: false }
    }
}

/// Why a frame ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It breaks this rule: [`Error::Violation`](crate::Error::Violation).
    Violation(&'static str),
    /// It is a greeting that refuses the connection: [`Error::GreetingRefused`](crate::Error::GreetingRefused).
    GreetingRefused,
    /// It announces more than [`Limits::answer`] allows: [`Error::AnswerTooLong`](crate::Error::AnswerTooLong).
    TooLong,
}

/// A length or a number of values as decimal digits, or a violation of this `rule`; one that fits no integer fits no limit
/// either.
#[cfg(any(feature = "imap", feature = "mpd", feature = "redis"))]
pub(crate) fn length(digits: &[u8], rule: &'static str) -> Result<u64, Fault> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Violation(rule));
    }
    core::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Fault::TooLong)
}

/// What a frame may be about: everything asked before it was received and not yet answered, in the order asked.
///
/// An entry asked after the frame had arrived, or not yet sent because a gate holds it back, is not shown: an answer
/// never precedes its question. Of a frame that comes in pieces the first one decides.
pub struct Pending<'a, P: Protocol> {
    pub(crate) queue: &'a Queue<P::Subscription, P::Note>,
    pub(crate) visible: usize,
    pub(crate) inside: Option<&'a Inside<P::Subscription, P::Note>>,
    pub(crate) continuation: Option<RequestId>,
    pub(crate) changes: Changes,
}

/// One entry of the queue.
pub enum Asked<'a, P: Protocol> {
    /// The server's greeting.
    Greeting,
    /// A request, or a probe of the machine's own.
    Request {
        /// Its id.
        id: RequestId,
        /// What was noted when it was encoded.
        note: &'a P::Note,
    },
    /// An enter that is not confirmed.
    Enter {
        /// Its id.
        id: RequestId,
        /// What is entered with it.
        subscription: &'a P::Subscription,
        /// What was noted when it was encoded.
        note: &'a P::Note,
    },
    /// A leave.
    Leave {
        /// Its id, which no event shows.
        id: RequestId,
        /// What was noted when it was encoded.
        note: &'a P::Note,
        /// The mode it leaves has ended already. Its own answer is still to come.
        void: bool,
    },
}

impl<'a, P: Protocol> Pending<'a, P> {
    /// Whether the server is in notification mode, as far as it has been read.
    #[must_use]
    pub fn in_mode(&self) -> bool {
        self.inside.is_some()
    }

    /// The confirmed enter of the mode the server is in: its late answer may be still to come.
    #[must_use]
    pub fn inside(&self) -> Option<Asked<'a, P>> {
        let Inside { id, subscription, note } = self.inside?;
        Some(Asked::Enter { id: *id, subscription, note })
    }

    /// The first entry that has an answer of its own. A [`LeaveAnswer::ByEnter`] protocol looks whether it is
    /// [`in_mode`](Self::in_mode) first: the late answer of the confirmed enter comes before these.
    #[must_use]
    pub fn awaiting(&self) -> Option<Asked<'a, P>> {
        self.iter().find(|asked| match asked {
            Asked::Greeting | Asked::Request { .. } => true,
            Asked::Enter { .. } => self.changes.enter == EnterAnswer::Own,
            Asked::Leave { .. } => self.changes.leave == LeaveAnswer::Own,
        })
    }

    /// All entries, in the order asked.
    pub fn iter(&self) -> impl Iterator<Item = Asked<'a, P>> {
        self.queue.before(self.visible).filter_map(asked)
    }

    /// The entries that are not shown, in the order asked: what they ask was not sent when the frame was.
    pub fn hidden(&self) -> impl Iterator<Item = Asked<'a, P>> {
        self.queue.from(self.visible).filter_map(asked)
    }

    /// The entry with this id, found by binary search.
    #[must_use]
    pub fn get(&self, id: RequestId) -> Option<Asked<'a, P>> {
        let at = self.queue.find(id).filter(|at| *at < self.visible)?;
        self.queue.get(at).and_then(asked)
    }

    /// The request whose rest waits for the server's continuation.
    #[must_use]
    pub fn continuation(&self) -> Option<RequestId> {
        self.continuation
    }
}

impl<P: Protocol> Clone for Asked<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Protocol> Copy for Asked<'_, P> {}

impl<P: Protocol> fmt::Debug for Asked<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Greeting => f.write_str("Greeting"),
            Asked::Request { id, .. } => write!(f, "Request {id}"),
            Asked::Enter { id, .. } => write!(f, "Enter {id}"),
            Asked::Leave { id, void, .. } => write!(f, "{}Leave {id}", if *void { "void " } else { "" }),
        }
    }
}

#[inline]
fn asked<P: Protocol>(entry: &Entry<P::Subscription, P::Note>) -> Option<Asked<'_, P>> {
    let id = entry.id;
    Some(match &entry.what {
        What::Greeting => Asked::Greeting,
        What::Request(note) | What::Probe(note) => Asked::Request { id, note },
        What::Enter(subscription, note) => Asked::Enter { id, subscription, note },
        What::Leave { note, void } => Asked::Leave { id, note, void: *void },
        What::Answered { .. } => return None,
    })
}

impl<P: Protocol> fmt::Debug for Pending<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("inside", &self.inside)
            .field("visible", &self.iter().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
