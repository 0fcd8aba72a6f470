//! The machine.

mod begun;
mod time;

pub use time::Timeouts;

use crate::lines::{Kind, Span};
use crate::modes::{Call, Read};
use crate::output::{Mark, Opener, Output};
use crate::queue::{self, Entry, Inside, Queue, What};
use crate::{
    Decoded, Encoder, EnterAnswer, Error, Excerpt, Fault, Invalid, LeaveAnswer, Limits, LineDecoder, LineTooLong, Mode,
    Pending, Protocol, Reason, Rejected, RequestId, Setting, StreamUnchanged,
};
use alloc::{boxed::Box, vec::Vec};
use begun::Begun;
use core::{fmt, hash, time::Duration};
use time::Times;

/// What happened, in the order of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event<P: Protocol> {
    /// A request was answered.
    Reply {
        /// The request.
        id: RequestId,
        /// Its answer.
        reply: P::Reply,
    },
    /// A request or an enter was refused, and the connection stays in step.
    Refused {
        /// The request or enter.
        id: RequestId,
        /// How the server said no.
        refusal: P::Refusal,
    },
    /// The server rang.
    Notification(P::Notification),
    /// Notification mode was entered.
    Entered {
        /// The enter.
        id: RequestId,
    },
    /// Notification mode has ended.
    Left {
        /// The enter whose mode ended.
        id: RequestId,
        /// Whether [`leave`](ClientState::leave) had been called before the frame that ended it was received.
        asked: bool,
        /// The enter was refused after all, when it had already taken effect here. (MPD's ACK to `idle`)
        refusal: Option<P::Refusal>,
    },
    /// The connection ended before this request or enter was answered.
    Lost {
        /// The request or enter.
        id: RequestId,
        /// Whether its first octet had been written ([`advance_output`](ClientState::advance_output) passed it). If
        /// not, the server has not seen it: it is safe to ask again elsewhere, provided that no more
        /// [`output`](ClientState::output) of this connection is written.
        sent: bool,
    },
    /// The connection has ended between frames. Told once, last.
    Closed,
}

/// The client side of one connection: octets go in, events and octets come out.
///
/// It performs no I/O, reads no clock and spawns nothing. Drive it with one loop:
///
/// 1. [`poll_event`](Self::poll_event) until `Ok(None)`;
/// 2. write [`output`](Self::output) as far as the socket takes it, and tell [`advance_output`](Self::advance_output);
/// 3. read, and pass it to [`receive`](Self::receive), or [`receive_eof`](Self::receive_eof) at the end. With
///    [`Timeouts`], wait no longer than [`poll_timeout`](Self::poll_timeout) says, and tell
///    [`handle_timeout`](Self::handle_timeout) when that has come.
///
/// The calls of the application, [`request`](Self::request), [`enter`](Self::enter) and [`leave`](Self::leave), may come
/// at any time, several before any answer: they only append to the output.
///
/// # Secrets
/// A password that was asked with is not shown by `Debug`, but neither is it erased once it is written. It stays in the
/// memory of the output, where it was put and where that was when it grew, until something else is put there. (To erase it
/// for certain takes `unsafe`.) Who must not leave it there takes an allocator that erases what is given back, and calls
/// [`shrink_to_fit`](Self::shrink_to_fit) after the login.
pub struct ClientState<P: Protocol> {
    protocol: P,
    limits: Limits,

    lines: LineDecoder,
    expect: Expect,
    /// What is not complete though a frame was. Nothing is kept for none.
    begun: Option<Box<Begun>>,
    /// Octets received so far: where the unread ones end.
    received: u64,

    /// What is outstanding.
    queue: Queue<P::Subscription, P::Note>,
    /// The server is in notification mode, as far as frames have been read. The first change of mode in the queue, if
    /// there is one, is then a leave, else an enter.
    inside: Option<Inside<P::Subscription, P::Note>>,
    /// Octets the leave of the last enter will take.
    leave_octets: usize,

    output: Output,
    /// The second event of the frame decoded last.
    second: Option<SecondOf<P>>,
    times: Option<Box<Times>>,
    end: End,
}

type SecondOf<P> = Second<<P as Protocol>::Reply, <P as Protocol>::Refusal, <P as Protocol>::Notification>;

/// What the next octets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Expect {
    /// A line that begins something.
    Begin,
    /// A line, after so many octets of the same thing, for which so many more are reserved. It had begun when this entry
    /// and those behind it were not asked or not sent.
    Line { held: usize, reserved: usize, hides_from: RequestId },
    /// So many raw octets, likewise.
    Raw { held: usize, reserved: usize, hides_from: RequestId, octets: usize },
    /// Nothing, until the stream has changed.
    NewStream,
}

impl Expect {
    fn held(self) -> usize {
        match self {
            Expect::Begin | Expect::NewStream => 0,
            Expect::Line { held, .. } | Expect::Raw { held, .. } => held,
        }
    }

    fn reserved(self) -> usize {
        match self {
            Expect::Begin | Expect::NewStream => 0,
            Expect::Line { reserved, .. } | Expect::Raw { reserved, .. } => reserved,
        }
    }

    fn hides_from(self) -> Option<RequestId> {
        match self {
            Expect::Begin | Expect::NewStream => None,
            Expect::Line { hides_from, .. } | Expect::Raw { hides_from, .. } => Some(hides_from),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Second<R, F, N> {
    Notification(N),
    Reply {
        id: RequestId,
        reply: R,
    },
    Refused {
        id: RequestId,
        refusal: F,
    },
    /// The answer before ended the mode of this enter. It shows once this is polled.
    Ended {
        id: RequestId,
        asked: bool,
    },
}

/// Where to go back to if not all of several things can be asked.
struct Checkpoint {
    output: Mark,
    queue: queue::Mark,
    leave_octets: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum End {
    Open,
    /// The stream has ended; what was received before is still being decoded.
    Eof,
    /// Lost for each entry, then this error for ever, or Closed.
    Over(Option<Error>),
    Told,
}

impl<P: Protocol> ClientState<P> {
    /// A connection that has just been made, with the protocol's own limits.
    #[must_use]
    pub fn new(protocol: P) -> Self {
        Self::with_limits(protocol, P::LIMITS)
    }

    /// A connection that has just been made.
    #[must_use]
    pub fn with_limits(protocol: P, limits: Limits) -> Self {
        let mut state = ClientState {
            protocol,
            limits,
            lines: LineDecoder::new(P::TERMINATOR, limits.line),
            expect: Expect::Begin,
            begun: None,
            received: 0,
            queue: Queue::new(),
            inside: None,
            leave_octets: 0,
            output: Output::default(),
            second: None,
            times: None,
            end: End::Open,
        };
        state.set_timeouts(P::TIMEOUTS);
        if P::GREETING {
            let id = state.push(What::Greeting, 0);
            state.output.close_gate(Opener::Greeting, id.next());
        }
        state
    }

    // What the application wants.

    /// Asks. The request has exactly one outcome: [`Event::Reply`], [`Event::Refused`] or [`Event::Lost`] with this id.
    ///
    /// To give up on it, forget the id: its event still comes.
    ///
    /// # Errors
    /// The request comes back with the [`Reason`], and nothing was sent.
    pub fn request(&mut self, request: P::Request) -> Result<RequestId, Rejected<P::Request>> {
        match self.try_request(&request) {
            Ok(id) => Ok(id),
            Err(reason) => Err(Rejected { value: request, reason }),
        }
    }

    #[inline]
    fn try_request(&mut self, request: &P::Request) -> Result<RequestId, Reason> {
        let asked = self.may_ask(Call::Request)?;
        // While an enter may still be refused, or an answer end the mode, the request may reach the server in either.
        let in_normal = asked != Mode::Notification || self.may_end_mode();
        let in_mode = matches!(asked, Mode::Entering | Mode::Notification);
        if (in_normal && !self.protocol.allows(request, Setting::Normal))
            || (in_mode && !self.protocol.allows(request, Setting::Notification))
        {
            return Err(Reason::NotAllowed(asked));
        }
        let (entries, octets) = self.reserved(asked);
        self.room_for_entries(1, entries)?;
        let (mark, starts_at) = (self.output.mark(), self.output.end());
        let note = self.encode(mark, |protocol, id, out| protocol.encode_request(id, request, out))?;
        if self.protocol.changes_stream(&note) && self.is_outstanding() {
            self.output.back_to(mark);
            return Err(Reason::Invalid(Invalid::new("a change of the stream is asked for alone")));
        }
        self.room_for_octets(mark, octets)?;
        Ok(self.push(What::Request(note), starts_at))
    }

    /// Whether something is, that the application asked.
    fn is_outstanding(&self) -> bool {
        let greets = matches!(self.queue.front(), Some(Entry { what: What::Greeting, .. }));
        self.inside.is_some() || self.queue.len() > usize::from(greets)
    }

    /// Whether the stream may have to be changed before anything else is asked. Nothing is behind the request for it.
    fn is_stream_changing(&self) -> bool {
        match self.queue.back().map(|entry| &entry.what) {
            Some(What::Request(note)) => self.protocol.changes_stream(note),
            Some(_) => false,
            None => self.expect == Expect::NewStream,
        }
    }

    /// Whether the mode may end, or has ended, by an answer that is not polled.
    fn may_end_mode(&self) -> bool {
        self.queue.may_end_mode() || matches!(self.second, Some(Second::Ended { .. }))
    }

    /// Asks for notification mode. It has exactly one of [`Event::Entered`], [`Event::Refused`] and [`Event::Lost`] with
    /// this id; after `Entered`, at most one [`Event::Left`] with it. The place of its leave is reserved with it.
    ///
    /// # Errors
    /// The subscription comes back with the [`Reason`], and nothing was sent. Entering is allowed when
    /// [`asked_mode`](Self::asked_mode) is `Normal` or `Leaving`.
    pub fn enter(&mut self, subscription: P::Subscription) -> Result<RequestId, Rejected<P::Subscription>> {
        match self.try_enter(&subscription) {
            Ok((note, starts_at)) => Ok(self.push(What::Enter(subscription, note), starts_at)),
            Err(reason) => Err(Rejected { value: subscription, reason }),
        }
    }

    fn try_enter(&mut self, subscription: &P::Subscription) -> Result<(P::Note, u64), Reason> {
        self.may_ask(Call::Enter)?;
        self.room_for_entries(2, 0)?;
        let mark = self.output.mark();
        let encoded = self.encode_enter(subscription)?;
        self.room_for_octets(mark, self.leave_octets)?;
        Ok(encoded)
    }

    fn encode_enter(&mut self, subscription: &P::Subscription) -> Result<(P::Note, u64), Reason> {
        let (mark, starts_at) = (self.output.mark(), self.output.end());
        let note = self.encode(mark, |protocol, id, out| protocol.encode_enter(id, subscription, out))?;
        // Its leave can never be refused room: measure it now.
        let enters_until = self.output.mark();
        let id = self.queue.next_id();
        self.protocol.encode_leave(id.next(), subscription, &mut Encoder::new(&mut self.output, None));
        self.leave_octets = self.output.octets_since(enters_until);
        self.output.back_to(enters_until);
        Ok((note, starts_at))
    }

    /// Asks for normal mode: `true` if after this a leave is outstanding. There is nothing to wait for and nothing to
    /// retry: where the enter must be confirmed first, the wish is remembered until then.
    ///
    /// `false` in the [`asked_mode`](Self::asked_mode)s `Normal` and `Closed`: there is nothing to leave.
    pub fn leave(&mut self) -> bool {
        let asked = self.asked_mode();
        if asked.asked(Call::Leave).is_none() {
            return asked == Mode::Leaving;
        }
        let last = self.queue.last_change().and_then(|id| self.queue.get(self.queue.find(id)?));
        let entered = match (last, &self.inside) {
            (Some(Entry { id, what: What::Enter(subscription, _), .. }), _) => Some((*id, subscription)),
            (_, Some(Inside { id, subscription, .. })) => Some((*id, subscription)),
            _ => None,
        };
        let Some((enter, subscription)) = entered else { return false };
        let gated = asked == Mode::Entering && self.protocol.changes().enter == EnterAnswer::Own;
        let (mark, starts_at, id) = (self.output.mark(), self.output.end(), self.queue.next_id());
        if gated {
            self.output.close_gate(Opener::Enter(enter), id);
        }
        let note = self.protocol.encode_leave(id, subscription, &mut Encoder::new(&mut self.output, None));
        self.output.seal(mark);
        self.push(What::Leave { note, void: false }, starts_at);
        true
    }

    /// Leaves the mode, asks, and enters it again, in one write: the way to fetch what a notification announced. All of
    /// it is asked or nothing; where there is no mode to leave, only the rest. The ids are the request's and the enter's.
    ///
    /// # Errors
    /// Both values come back with the [`Reason`], and nothing was sent.
    #[allow(clippy::type_complexity, reason = "two ids for two values")]
    pub fn ring(
        &mut self,
        request: P::Request,
        subscription: P::Subscription,
    ) -> Result<(RequestId, RequestId), Rejected<(P::Request, P::Subscription)>> {
        let before = self.checkpoint();
        self.leave();
        let rung = self.try_request(&request).and_then(|id| Ok((id, self.try_enter(&subscription)?)));
        match rung {
            Ok((id, (note, starts_at))) => Ok((id, self.push(What::Enter(subscription, note), starts_at))),
            Err(reason) => {
                self.roll_back(before);
                Err(Rejected { value: (request, subscription), reason })
            }
        }
    }

    /// Leaves the mode, asks several things, and enters it again, in one write. For each request, from the first on, its id
    /// or why it cannot be asked, and the id of the enter, unless none of them could be asked: then nothing was sent. Where
    /// there is no room for all of them with the enter, it is fewer, at least half of what there is room for.
    ///
    /// # Errors
    /// The subscription comes back with the [`Reason`], and nothing was sent: there is no room for the first of them with
    /// the enter, or the enter is not allowed or not valid.
    #[allow(clippy::type_complexity, reason = "an id for each value")]
    pub fn ring_all(
        &mut self,
        requests: &[P::Request],
        subscription: P::Subscription,
    ) -> Result<(Vec<Result<RequestId, Reason>>, Option<RequestId>), Rejected<P::Subscription>> {
        let mut most = requests.len();
        loop {
            let before = self.checkpoint();
            self.leave();
            let (mut verdicts, mut asked) = (Vec::new(), 0);
            let mut reason = Reason::TooManyPending;
            for request in requests.iter().take(most) {
                match self.try_request(request) {
                    Err(no_room @ (Reason::TooManyPending | Reason::OutputFull)) => {
                        reason = no_room;
                        break;
                    }
                    verdict => {
                        asked += usize::from(verdict.is_ok());
                        verdicts.push(verdict);
                    }
                }
            }
            if asked > 0 {
                match self.try_enter(&subscription) {
                    Ok((note, starts_at)) => {
                        let enter = self.push(What::Enter(subscription, note), starts_at);
                        return Ok((verdicts, Some(enter)));
                    }
                    Err(why) => reason = why,
                }
            }
            self.roll_back(before);
            if asked == 0 && !verdicts.is_empty() {
                return Ok((verdicts, None));
            }
            // With fewer of them there may be room for the enter.
            most = verdicts.len() / 2;
            if most == 0 || !matches!(reason, Reason::TooManyPending | Reason::OutputFull) {
                return Err(Rejected { value: subscription, reason });
            }
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { output: self.output.mark(), queue: self.queue.mark(), leave_octets: self.leave_octets }
    }

    /// Takes back what was asked since the checkpoint, with nothing polled or written between.
    fn roll_back(&mut self, to: Checkpoint) {
        self.output.back_to(to.output);
        self.queue.back_to(to.queue);
        self.leave_octets = to.leave_octets;
    }

    /// The mode in which this may be asked.
    #[inline]
    fn may_ask(&self, call: Call) -> Result<Mode, Reason> {
        match self.asked_mode() {
            Mode::Closed => Err(Reason::Closed),
            _ if self.is_stream_changing() => {
                Err(Reason::Invalid(Invalid::new("nothing can be asked before the stream has changed")))
            }
            mode => mode.asked(call).map(|_| mode).ok_or(Reason::NotAllowed(mode)),
        }
    }

    /// The entries and octets kept free for the leave of the last enter.
    #[inline]
    fn reserved(&self, asked: Mode) -> (usize, usize) {
        match asked.asked(Call::Leave) {
            Some(_) => (1, self.leave_octets),
            None => (0, 0),
        }
    }

    fn room_for_entries(&self, entries: usize, reserved: usize) -> Result<(), Reason> {
        if self.queue.len() + reserved + entries <= self.limits.pending {
            return Ok(());
        }
        Err(if entries > self.limits.pending { Reason::TooLarge } else { Reason::TooManyPending })
    }

    #[inline]
    fn encode(
        &mut self,
        mark: Mark,
        encode: impl FnOnce(&P, RequestId, &mut Encoder<'_>) -> Result<P::Note, Invalid>,
    ) -> Result<P::Note, Reason> {
        let id = self.queue.next_id();
        let encoded = encode(&self.protocol, id, &mut Encoder::new(&mut self.output, Some(id)));
        match encoded {
            Ok(_) => self.output.seal(mark),
            Err(_) => self.output.back_to(mark),
        }
        encoded.map_err(Reason::Invalid)
    }

    /// Takes back what was put since the `mark` if with it and what is `reserved` the output would be too large.
    fn room_for_octets(&mut self, mark: Mark, reserved: usize) -> Result<(), Reason> {
        // What was put is a part of what waits.
        if self.output.waiting() + reserved <= self.limits.output {
            return Ok(());
        }
        let alone = self.output.octets_since(mark) + reserved;
        let reason = if alone > self.limits.output { Reason::TooLarge } else { Reason::OutputFull };
        self.output.back_to(mark);
        Err(reason)
    }

    #[inline(always)]
    fn push(&mut self, what: What<P::Subscription, P::Note>, starts_at: u64) -> RequestId {
        // The end of the stream counts as an octet: what is asked after it was not asked before it.
        let received_before = self.received + u64::from(matches!(self.end, End::Eof));
        let may_end_mode = match &what {
            What::Request(note) | What::Probe(note) => self.protocol.may_end_mode(note),
            What::Greeting | What::Enter(..) | What::Leave { .. } | What::Answered { .. } => false,
        };
        self.queue.push(what, received_before, starts_at, may_end_mode)
    }

    // What the wire says.

    /// Stores what was read. Decoding happens in [`poll_event`](Self::poll_event), one event at a time. Call that until
    /// `Ok(None)` before the next `receive`: the memory held is then bounded by the [`Limits`] and `bytes`.
    #[inline]
    pub fn receive(&mut self, bytes: &[u8]) {
        if matches!(self.end, End::Open) {
            self.received += bytes.len() as u64;
            self.lines.push(bytes);
            if let Some(times) = &mut self.times {
                times.heard |= !bytes.is_empty();
            }
        }
    }

    /// The stream has ended, also by a transport error. Nothing is received after it.
    pub fn receive_eof(&mut self) {
        if matches!(self.end, End::Open) {
            self.end = End::Eof;
        }
    }

    /// The stream has been changed as the answer allowed that was polled last ([`Protocol::changes_stream`]): what is
    /// received from now on came over the new one.
    ///
    /// Call it before the new stream is spoken over, TLS' handshake included. Adapters give the state and the stream out,
    /// and go on with the state over the new stream.
    ///
    /// # Errors
    /// [`StreamUnchanged`]: do not change it. If anything was received behind that answer, the connection is over
    /// ([`Error::Injected`]).
    pub fn stream_changed(&mut self) -> Result<(), StreamUnchanged> {
        match &self.end {
            End::Open if self.expect != Expect::NewStream => return Err(StreamUnchanged::NotAllowed),
            End::Open if self.lines.unread().is_empty() => {
                self.expect = Expect::Begin;
                return Ok(());
            }
            End::Open => self.finish(Some(Error::Injected)),
            End::Eof | End::Over(_) | End::Told => {}
        }
        Err(match &self.end {
            End::Over(Some(error)) => StreamUnchanged::Failed(error.clone()),
            End::Open | End::Eof | End::Over(None) | End::Told => StreamUnchanged::Closed,
        })
    }

    /// The next event, or `Ok(None)` until more is received or asked.
    ///
    /// At the end of the connection: first what was decodable, then [`Event::Lost`] for each request and unconfirmed
    /// enter in the order asked, then either [`Event::Closed`] once and `Ok(None)` for ever, or the same error every
    /// time.
    ///
    /// # Errors
    /// The connection is over: see [`Error`].
    #[inline]
    pub fn poll_event(&mut self) -> Result<Option<Event<P>>, Error> {
        match self.poll_known_notification() {
            Some(notification) => Ok(Some(Event::Notification(notification))),
            None => self.poll_other(),
        }
    }

    fn poll_other(&mut self) -> Result<Option<Event<P>>, Error> {
        if self.queue.is_empty() {
            // When octets come one at a time, nearly every call ends here: wait for the rest of a line.
            if self.second.is_none() && matches!(self.end, End::Open) && !self.is_timed_out() {
                if let Ok(None) = self.find_frame() {
                    self.lines.shrink();
                    return Ok(None);
                }
            }
        } else if let Some(event) = self.known_answer() {
            return Ok(Some(event));
        }
        self.poll_any()
    }

    /// The next event if it is one that is known whole. A driver tries this before [`poll_event`](Self::poll_event): an
    /// event that shares the way through the memory of each layer with all others costs more than its decoding.
    #[doc(hidden)]
    #[inline(always)]
    pub fn poll_known(&mut self) -> Option<Event<P>> {
        if self.queue.is_empty() {
            self.poll_known_notification().map(Event::Notification)
        } else {
            self.known_answer()
        }
    }

    /// Likewise a notification. What is known whole needs no search for its end. A limit that it might exceed is the general
    /// way's to judge.
    #[doc(hidden)]
    #[inline(always)]
    pub fn poll_known_notification(&mut self) -> Option<P::Notification> {
        if self.inside.is_none() || !self.queue.is_empty() || !self.is_at_begin() {
            return None;
        }
        if let Some((octets, notification)) = self.protocol.known_line(self.lines.unread()) {
            if octets > self.limits.line {
                return None;
            }
            self.lines.skip(octets);
            return Some(notification);
        }
        let mut frame = self.lines.arrived(self.limits.line.min(self.limits.answer));
        let notification = self.protocol.known_push(&mut frame)?;
        frame.skip();
        Some(notification)
    }

    /// Likewise the answer that comes first, where nothing else can.
    #[inline(always)]
    fn known_answer(&mut self) -> Option<Event<P>> {
        let Entry { id, what: What::Request(note), received_before, .. } = self.queue.front()? else { return None };
        // The answer to a request whose rest waits behind a gate has more to do.
        if self.inside.is_some() || self.output.has_gates() || !self.is_at_begin() || self.begun.is_some() {
            return None;
        }
        let unread = self.lines.unread();
        let (octets, reply) = self.protocol.known_answer(note, unread)?;
        // An answer does not precede its question.
        let ends_at = self.received - unread.len() as u64 + octets as u64;
        if octets > self.limits.line || ends_at <= *received_before {
            return None;
        }
        let id = *id;
        self.lines.skip(octets);
        self.queue.pop_request();
        Some(Event::Reply { id, reply })
    }

    /// What comes next begins something.
    #[inline]
    fn is_at_begin(&self) -> bool {
        self.expect == Expect::Begin && self.second.is_none()
    }

    /// A time has come that is not judged yet.
    #[inline]
    fn is_timed_out(&self) -> bool {
        self.times.as_ref().is_some_and(|times| times.came.is_some())
    }

    fn poll_any(&mut self) -> Result<Option<Event<P>>, Error> {
        loop {
            if self.second.is_some() {
                return Ok(self.take_second());
            }
            if self.is_over() {
                return self.poll_end();
            }
            let found = self.find_frame();
            let read = self.octets_read();
            let ends_at = match found {
                Ok(Some(span)) => Some(read + span.total as u64),
                Ok(None) if matches!(self.end, End::Eof) => Some(self.received + 1),
                Ok(None) => None,
                Err(_) => Some(read + self.lines.too_long_at() as u64),
            };
            if !self.queue.is_empty() {
                if let Some(event) = self.confirm_silent(ends_at) {
                    return Ok(Some(event));
                }
            }
            match (found, ends_at) {
                (Ok(None), None) => match self.times.as_mut().and_then(|times| times.came.take()) {
                    Some(now) => self.judge(now),
                    None => {
                        self.lines.shrink();
                        return Ok(None);
                    }
                },
                (Ok(None), Some(_)) => self.end_of_stream(),
                (Ok(Some(_)) | Err(_), _) if self.expect == Expect::NewStream => self.finish(Some(Error::Injected)),
                (Ok(Some(span)), ends_at) => match self.decode(span, ends_at.unwrap_or(self.received)) {
                    Ok(Some(event)) => return Ok(Some(event)),
                    Ok(None) => {}
                    Err(error) => self.finish(Some(error)),
                },
                (Err(error), _) => self.finish(Some(error.into())),
            }
        }
    }

    fn take_second(&mut self) -> Option<Event<P>> {
        Some(match self.second.take()? {
            Second::Notification(notification) => Event::Notification(notification),
            Second::Reply { id, reply } => Event::Reply { id, reply },
            Second::Refused { id, refusal } => Event::Refused { id, refusal },
            Second::Ended { id, asked } => self.end_mode(id, asked, None),
        })
    }

    fn find_frame(&mut self) -> Result<Option<Span>, LineTooLong> {
        match self.expect {
            Expect::Begin | Expect::Line { .. } | Expect::NewStream => self.lines.find_line(),
            Expect::Raw { octets, .. } => {
                Ok((self.lines.unread().len() >= octets).then_some(Span { content: octets, total: octets }))
            }
        }
    }

    /// Confirms a change that has no answer, before the frame that ends at `ends_at` is read. A frame that had arrived
    /// when the change was asked for is read first.
    fn confirm_silent(&mut self, ends_at: Option<u64>) -> Option<Event<P>> {
        let front = self.queue.front()?;
        let due = |entry: &Entry<_, _>| ends_at.is_none_or(|ends_at| ends_at > entry.received_before);
        let changes = self.protocol.changes();
        match &front.what {
            What::Enter(..) if changes.enter == EnterAnswer::Silent && due(front) => self.enter_mode(0),
            What::Leave { .. } if changes.leave == LeaveAnswer::Silent => {
                let next = self.queue.second()?;
                let confirms = matches!(next.what, What::Enter(..)) && due(next);
                if confirms { self.leave_mode() } else { None }
            }
            _ => None,
        }
    }

    /// Decodes one frame: an event, nothing to tell, or the end of the connection.
    fn decode(&mut self, span: Span, ends_at: u64) -> Result<Option<Event<P>>, Error> {
        let visible = self.visible(ends_at);
        let continuation = self.continuation(visible);
        let kind = if matches!(self.expect, Expect::Raw { .. }) { Kind::Raw } else { Kind::Line };
        let mut frame = self.lines.frame(span.content, kind);
        let pending = Pending {
            queue: &self.queue,
            visible,
            inside: self.inside.as_ref(),
            continuation,
            changes: self.protocol.changes(),
        };
        let decoded = self.protocol.decode(&mut frame, &pending);
        let applied = decoded.and_then(|decoded| self.apply(decoded, span, visible));
        let result = applied.map_err(|fault| {
            let excerpt = || Excerpt::of(self.lines.unread().get(..span.content).unwrap_or_default());
            match fault {
                Fault::Violation(rule) => Error::Violation { rule, frame: excerpt() },
                Fault::GreetingRefused => Error::GreetingRefused(excerpt()),
                Fault::TooLong => Error::AnswerTooLong { limit: self.limits.answer },
            }
        });
        self.lines.skip(span.total);
        result
    }

    /// How many entries, from the front, a frame that ends at `ends_at` may be about.
    fn visible(&self, ends_at: u64) -> usize {
        let mut visible = self.queue.asked_at(ends_at);
        let gate = self.output.first_gate().map(|gate| gate.hides_from);
        for hides_from in [gate, self.expect.hides_from()].into_iter().flatten() {
            visible = visible.min(self.queue.place_of(hides_from));
        }
        visible
    }

    /// What a frame is, for the table, and which entry of the queue it is about.
    fn classify(&self, decoded: &Decoded<P>, visible: usize) -> (Read, usize) {
        let of = |at: usize| self.queue.get(at).map(|entry| (at, &entry.what));
        let own_enter = self.protocol.changes().enter == EnterAnswer::Own;
        match decoded {
            Decoded::Notification(_) | Decoded::PartNotification(_) => (Read::Notification, 0),
            Decoded::Reply { id, .. } | Decoded::Refused { id, .. } => match self.find(*id, visible).and_then(of) {
                Some((at, What::Request(_) | What::Probe(_))) => (Read::Answer, at),
                Some((at, What::Enter(..))) if own_enter && matches!(decoded, Decoded::Refused { .. }) => {
                    (Read::Refused, at)
                }
                Some((at, What::Leave { .. })) => (Read::LeaveRefused, at),
                _ => (Read::Stray, 0),
            },
            Decoded::Probed { id, .. } => match self.find(*id, visible).and_then(of) {
                Some((at, What::Probe(_))) => (Read::Answer, at),
                _ => (Read::Stray, 0),
            },
            Decoded::Entered => match self.first_change(visible, Mode::Entering) {
                Some(at) if own_enter => (Read::Entered, at),
                _ => (Read::Stray, 0),
            },
            Decoded::Left => match (self.queue.first_void(), self.first_change(visible, Mode::Leaving)) {
                (Some(void), _) => self.find(void, visible).map_or((Read::Stray, 0), |at| (Read::Void, at)),
                (None, Some(at)) => (Read::Left, at),
                (None, None) => (Read::Stray, 0),
            },
            Decoded::Ended { .. } => (Read::Ended, 0),
            Decoded::Greeting if self.output.first_gate().is_some_and(|gate| gate.opener == Opener::Greeting) => {
                (Read::Answer, 0)
            }
            Decoded::Continue | Decoded::Respond { .. } if self.continuation(visible).is_some() => (Read::Answer, 0),
            Decoded::Greeting | Decoded::Continue | Decoded::Respond { .. } => (Read::Stray, 0),
            Decoded::Part { id, .. } => match self.find(*id, visible).and_then(of) {
                Some((at, What::Request(_) | What::Probe(_))) => (Read::Answer, at),
                Some((at, What::Enter(..))) if own_enter => (Read::Answer, at),
                Some((at, What::Leave { .. })) if self.protocol.changes().leave == LeaveAnswer::Own => {
                    (Read::Answer, at)
                }
                _ => (Read::Stray, 0),
            },
            // Pieces and signs of life are legal in every open mode, and keep it.
            Decoded::More { .. } | Decoded::Reserve { .. } | Decoded::Nothing => (Read::Notification, 0),
        }
    }

    /// Does what follows from a frame: an event, or nothing to tell.
    fn apply(&mut self, decoded: Decoded<P>, span: Span, visible: usize) -> Result<Option<Event<P>>, Fault> {
        let expected = self.expect;
        self.expect = Expect::Begin;
        let (read, at) = self.classify(&decoded, visible);
        if self.mode().after(read).is_none() {
            return Err(Fault::Violation("an answer that nobody waits for here"));
        }
        Ok(match decoded {
            Decoded::More { raw } => {
                self.expect = self.more(expected, span.total, visible, raw, 0)?;
                None
            }
            Decoded::Reserve { octets } => {
                self.expect = self.more(expected, span.total, visible, None, octets)?;
                None
            }
            Decoded::Nothing => None,
            Decoded::Part { id, kept, raw } => {
                let octets = expected.held() + span.total;
                self.begun.get_or_insert_default().part(id, octets, kept);
                // This frame is complete: what it announces is another one.
                let announced = self.more(Expect::Begin, 0, visible, raw, 0)?;
                self.expect = if raw.is_some() { announced } else { Expect::Begin };
                None
            }
            Decoded::Greeting => {
                self.output.open_gate();
                self.queue.pop_front();
                None
            }
            Decoded::Continue => {
                self.output.open_gate();
                None
            }
            Decoded::Respond { response } => {
                if self.output.waiting().saturating_add(response.len()) > self.limits.output {
                    return Err(Fault::Violation("challenges come faster than their answers can be written"));
                }
                self.output.put_before_gate(&response);
                None
            }
            Decoded::Notification(notification) => Some(Event::Notification(notification)),
            Decoded::PartNotification(notification) => {
                if self.inside.is_some() {
                    self.begun.get_or_insert_default().notification(expected.held() + span.total);
                }
                Some(Event::Notification(notification))
            }
            Decoded::Reply { id, reply, ends_mode } => {
                let ended = match &self.inside {
                    Some(inside) if ends_mode => {
                        Some(Second::Ended { id: inside.id, asked: self.leave_asked(visible) })
                    }
                    _ => None,
                };
                let told = self.is_told(at);
                if let Some(Entry { what: What::Request(note), .. }) = self.queue.get(at) {
                    if self.protocol.changes_stream(note) {
                        self.expect = Expect::NewStream;
                    }
                }
                if let Some(left) = self.answer(at, id) {
                    self.second = told.then_some(Second::Reply { id, reply });
                    return Ok(Some(left));
                }
                self.second = ended;
                told.then_some(Event::Reply { id, reply })
            }
            Decoded::Refused { id, refusal } => {
                let told = self.is_told(at);
                if read == Read::Refused {
                    self.refuse_enter(at, id);
                } else if let Some(left) = self.answer(at, id) {
                    self.second = told.then_some(Second::Refused { id, refusal });
                    return Ok(Some(left));
                }
                told.then_some(Event::Refused { id, refusal })
            }
            Decoded::Probed { id, news } => {
                if let Some(left) = self.answer(at, id) {
                    self.second = news.map(Second::Notification);
                    return Ok(Some(left));
                }
                news.map(Event::Notification)
            }
            Decoded::Entered => self.enter_mode(at),
            Decoded::Left if read == Read::Void => {
                self.take_out(at);
                None
            }
            Decoded::Left => self.leave_mode(),
            Decoded::Ended { refusal } => {
                let asked = self.leave_asked(visible);
                self.inside.as_ref().map(|inside| inside.id).map(|id| self.end_mode(id, asked, refusal))
            }
        })
    }

    /// What is expected after so many octets more of something, if the limit allows it.
    fn more(
        &self,
        expected: Expect,
        octets: usize,
        visible: usize,
        raw: Option<u64>,
        reserve: u64,
    ) -> Result<Expect, Fault> {
        let held = expected.held() + octets;
        let in_memory = |octets| usize::try_from(octets).unwrap_or(usize::MAX);
        let octets = in_memory(raw.unwrap_or(0));
        let reserved = expected.reserved().saturating_add(in_memory(reserve));
        let kept = self.begun.as_ref().map_or(0, |begun| begun.kept());
        if held.saturating_add(reserved).saturating_add(octets).saturating_add(kept) > self.limits.answer {
            return Err(Fault::TooLong);
        }
        let first_hidden = || self.queue.from(visible).next().map_or(self.queue.next_id(), |entry| entry.id);
        let hides_from = expected.hides_from().unwrap_or_else(first_hidden);
        Ok(match raw {
            Some(_) => Expect::Raw { held, reserved, hides_from, octets },
            None => Expect::Line { held, reserved, hides_from },
        })
    }

    /// Whether the answer to the entry at `at` is told: not that to a probe.
    fn is_told(&self, at: usize) -> bool {
        self.queue.get(at).is_some_and(|entry| !matches!(entry.what, What::Probe(_)))
    }

    fn find(&self, id: RequestId, visible: usize) -> Option<usize> {
        self.queue.find(id).filter(|at| *at < visible)
    }

    /// The first change of mode, if it is of this kind and among the visible entries.
    fn first_change(&self, visible: usize, kind: Mode) -> Option<usize> {
        (self.mode() == kind).then(|| self.find(self.queue.first_change()?, visible))?
    }

    /// The request whose rest waits for the server's continuation.
    fn continuation(&self, visible: usize) -> Option<RequestId> {
        match self.output.first_gate()?.opener {
            Opener::Continuation(id) => self.find(id, visible).map(|_| id),
            Opener::Greeting | Opener::Enter(_) => None,
        }
    }

    /// Whether a leave of the present mode is among the visible entries.
    fn leave_asked(&self, visible: usize) -> bool {
        self.first_change(visible, Mode::Leaving).is_some()
    }

    /// Nothing of the answer to the entry at `at` is to come any more.
    fn take_out(&mut self, at: usize) -> Option<Entry<P::Subscription, P::Note>> {
        let entry = self.queue.remove(at)?;
        self.end_begun(|begun| begun.end_answer(entry.id));
        Some(entry)
    }

    fn end_begun(&mut self, end: impl FnOnce(&mut Begun)) {
        if let Some(begun) = &mut self.begun {
            end(begun);
            if begun.is_empty() {
                self.begun = None;
            }
        }
    }

    /// The request at `at` was answered: the Left that this proves, if a silent leave was asked before it.
    fn answer(&mut self, at: usize, id: RequestId) -> Option<Event<P>> {
        let proves = self.protocol.changes().leave == LeaveAnswer::Silent && self.leave_asked(at);
        self.take_out(at);
        self.output.drop_gated(Opener::Continuation(id));
        if proves { self.leave_mode() } else { None }
    }

    /// The enter at `at` was confirmed.
    fn enter_mode(&mut self, at: usize) -> Option<Event<P>> {
        let Entry { id, what: What::Enter(subscription, note), .. } = self.take_out(at)? else { return None };
        self.inside = Some(Inside { id, subscription, note });
        self.output.drop_gated(Opener::Continuation(id));
        self.output.open_gate_of(Opener::Enter(id));
        Some(Event::Entered { id })
    }

    /// The enter at `at` is gone, and with it the leave that waited for it, unseen.
    fn refuse_enter(&mut self, at: usize, id: RequestId) {
        self.take_out(at);
        self.output.drop_gated(Opener::Continuation(id));
        if self.output.drop_gated(Opener::Enter(id)) {
            let leave = self.queue.first_change().and_then(|id| self.queue.find(id));
            leave.and_then(|at| self.take_out(at));
        }
    }

    /// The first leave was confirmed.
    fn leave_mode(&mut self) -> Option<Event<P>> {
        let at = self.first_change(usize::MAX, Mode::Leaving)?;
        let Inside { id, .. } = self.inside.take()?;
        self.take_out(at);
        self.end_begun(Begun::end_group);
        Some(Event::Left { id, asked: true, refusal: None })
    }

    /// The mode ended without an answer to its leave. If there is one on its way, it has become void: its answer, if it
    /// has one of its own, is absorbed when it comes.
    fn end_mode(&mut self, id: RequestId, asked: bool, refusal: Option<P::Refusal>) -> Event<P> {
        if let Some(at) = self.first_change(usize::MAX, Mode::Leaving) {
            if self.protocol.changes().leave == LeaveAnswer::Own {
                self.queue.make_void(at);
            } else {
                self.take_out(at);
            }
        }
        self.inside = None;
        self.end_begun(Begun::end_group);
        Event::Left { id, asked, refusal }
    }

    fn end_of_stream(&mut self) {
        let begun = self.begun.as_ref().map_or(0, |begun| begun.octets());
        let octets = begun + (self.expect.held() + self.lines.unread().len()) as u64;
        self.finish(match self.expect {
            Expect::Begin | Expect::NewStream if octets == 0 => None,
            Expect::NewStream => Some(Error::Injected),
            Expect::Begin | Expect::Line { .. } | Expect::Raw { .. } => Some(Error::UnexpectedEof { octets }),
        });
    }

    fn finish(&mut self, error: Option<Error>) {
        if let Some(Mode::Closed) = self.mode().after(Read::End) {
            self.lines = LineDecoder::new(P::TERMINATOR, 0);
            self.begun = None;
            self.end = End::Over(error);
        }
    }

    fn poll_end(&mut self) -> Result<Option<Event<P>>, Error> {
        self.inside = None;
        let refreshing = self.refreshing();
        while let Some(Entry { id, what, starts_at, .. }) = self.queue.pop_front() {
            if matches!(what, What::Request(_) | What::Enter(..)) && Some(id) != refreshing {
                return Ok(Some(Event::Lost { id, sent: self.output.is_written(starts_at) }));
            }
        }
        match &self.end {
            End::Over(Some(error)) => Err(error.clone()),
            End::Over(None) => {
                self.end = End::Told;
                Ok(Some(Event::Closed))
            }
            End::Open | End::Eof | End::Told => Ok(None),
        }
    }

    // What the wire should be told.

    /// What can be written now; empty if there is nothing, or if the next octets wait for the server
    /// ([`is_gated`](Self::is_gated)).
    ///
    /// It changes only by [`advance_output`](Self::advance_output), by calls of the application, which append, and by
    /// [`poll_event`](Self::poll_event), which may append what waited for the server. What was once visible stays.
    #[must_use]
    #[inline]
    pub fn output(&self) -> &[u8] {
        self.output.window()
    }

    /// So many octets of [`output`](Self::output) were written; more than there are counts as all.
    pub fn advance_output(&mut self, written: usize) {
        self.output.advance(written);
    }

    /// Whether there are octets that cannot be written before a frame was read: before the greeting, before a leave
    /// whose enter must be confirmed, or inside a request that the server must let continue.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.output.held() > 0
    }

    /// The mode as the application sees it: the first change asked for and not yet confirmed by a polled event, else
    /// the settled mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.queue.changes() {
            _ if self.is_over() => Mode::Closed,
            0 => self.settled(),
            _ => self.change(true),
        }
    }

    /// The mode the server will be in once it has read everything asked so far: the last change asked for, else the
    /// settled mode. What may be sent is judged by this alone.
    #[must_use]
    pub fn asked_mode(&self) -> Mode {
        match self.queue.changes() {
            _ if self.is_over() => Mode::Closed,
            0 => self.settled(),
            // They alternate.
            changes => self.change(changes % 2 == 1),
        }
    }

    /// The first change of mode, or one of the other kind.
    fn change(&self, like_the_first: bool) -> Mode {
        if self.inside.is_some() == like_the_first { Mode::Leaving } else { Mode::Entering }
    }

    fn is_over(&self) -> bool {
        matches!(self.end, End::Over(_) | End::Told)
    }

    fn settled(&self) -> Mode {
        if self.inside.is_some() { Mode::Notification } else { Mode::Normal }
    }

    /// Whether this request or enter is still to have its outcome.
    #[must_use]
    pub fn is_pending(&self, id: RequestId) -> bool {
        let told_next = match &self.second {
            Some(Second::Reply { id, .. } | Second::Refused { id, .. }) => Some(*id),
            Some(Second::Notification(_) | Second::Ended { .. }) | None => None,
        };
        told_next == Some(id) || self.queue.find(id).is_some()
    }

    /// The protocol, with what it has learnt from the frames read.
    #[must_use]
    pub fn protocol(&self) -> &P {
        &self.protocol
    }

    /// What was received and is not decoded. Before a change to TLS (STARTTLS) it must be empty.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.lines.unread()
    }

    /// How much a peer, or a caller, can make this connection hold.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Octets received so far that are decoded: for a driver to know how many an event took.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn octets_read(&self) -> u64 {
        self.received - self.lines.unread().len() as u64
    }

    /// Gives back the buffers that hold nothing now: for a connection that will be idle. It starts without any, and an
    /// idle one needs none. While something is pending, what a large batch needed is kept for the next one. Takes constant
    /// time.
    pub fn shrink_to_fit(&mut self) {
        let idle = self.queue.is_empty();
        self.lines.shrink_to_fit();
        self.output.shrink_to_fit(idle);
        self.queue.shrink_to_fit();
    }

    /// What decides all that follows: absolute positions and search progress do not.
    #[allow(clippy::type_complexity, reason = "a tuple, named nowhere else")]
    fn live(
        &self,
    ) -> (
        (&P, Limits, &LineDecoder, (Expect, &Option<Box<Begun>>), (RequestId, usize)),
        (&Option<Inside<P::Subscription, P::Note>>, Mode, Mode, (usize, usize)),
        (&Output, &Option<SecondOf<P>>, &End),
        impl Eq + hash::Hash,
    ) {
        (
            (
                &self.protocol,
                self.limits,
                &self.lines,
                (self.expect, &self.begun),
                (self.queue.next_id(), self.queue.len()),
            ),
            (&self.inside, self.mode(), self.asked_mode(), self.reserved(self.asked_mode())),
            (&self.output, &self.second, &self.end),
            self.live_times(),
        )
    }

    /// The queue, its positions relative to what is unread and to what is unwritten.
    #[allow(clippy::type_complexity, reason = "a tuple, named nowhere else")]
    fn live_queue(
        &self,
    ) -> impl Iterator<Item = (RequestId, &What<P::Subscription, P::Note>, u64, Option<u64>, Option<Duration>)> {
        let read = self.octets_read();
        self.queue.iter().map(move |entry| {
            let unread_before = entry.received_before.saturating_sub(read);
            let unwritten_before = self.output.unwritten_before(entry.starts_at);
            (entry.id, &entry.what, unread_before, unwritten_before, entry.due)
        })
    }
}

impl<P> Clone for ClientState<P>
where
    P: Protocol + Clone,
    P::Reply: Clone,
    P::Refusal: Clone,
    P::Notification: Clone,
{
    fn clone(&self) -> Self {
        ClientState {
            protocol: self.protocol.clone(),
            limits: self.limits,
            lines: self.lines.clone(),
            expect: self.expect,
            begun: self.begun.clone(),
            received: self.received,
            queue: self.queue.clone(),
            inside: self.inside.clone(),
            leave_octets: self.leave_octets,
            output: self.output.clone(),
            second: self.second.clone(),
            times: self.times.clone(),
            end: self.end.clone(),
        }
    }
}

/// Equal by what is still live: two connections that will behave alike are equal, however they came there.
impl<P> PartialEq for ClientState<P>
where
    P: Protocol + PartialEq,
    P::Reply: PartialEq,
    P::Refusal: PartialEq,
    P::Notification: PartialEq,
{
    fn eq(&self, other: &Self) -> bool {
        self.live() == other.live() && self.live_queue().eq(other.live_queue())
    }
}

impl<P> Eq for ClientState<P>
where
    P: Protocol + Eq,
    P::Reply: Eq,
    P::Refusal: Eq,
    P::Notification: Eq,
{
}

impl<P> hash::Hash for ClientState<P>
where
    P: Protocol + hash::Hash,
    P::Reply: hash::Hash,
    P::Refusal: hash::Hash,
    P::Notification: hash::Hash,
{
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.live().hash(state);
        self.live_queue().for_each(|entry| entry.hash(state));
    }
}

/// Octets on their way are counted, not shown.
impl<P: Protocol + fmt::Debug> fmt::Debug for ClientState<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientState")
            .field("protocol", &self.protocol)
            .field("mode", &self.mode())
            .field("asked_mode", &self.asked_mode())
            .field("pending", &self.queue.iter().map(|entry| entry.id).collect::<Vec<_>>())
            .field("input", &self.lines)
            .field("output", &self.output)
            .finish_non_exhaustive()
    }
}
