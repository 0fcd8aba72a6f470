//! Sessions of a notice-board client, played under observation.
//!
//! [`Observed`] holds a client beside the plainest reading of the rules there is: all input kept, lines
//! searched anew each time, one list of what is outstanding. Before each poll it says what must come, after each call
//! it says what every view must show. It knows the notice board alone, and no speed.
//!
//! A [`Session`] is a list of what is done to a client, whoever answers it: [`hostile`] ones are random, an [`Honest`]
//! one is recorded while the client talks to `board::ServerState` through two byte pipes.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sonnette::board::{Board, Notification, Refusal, Reply, Request, ServerState};
use sonnette::{ClientState, Error, Event, Limits, LineTooLong, Mode, Reason, RequestId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

pub(crate) type Checked<T = ()> = Result<T, TestCaseError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    Silent,
    Acknowledged,
}

impl Dialect {
    pub(crate) fn board(self) -> Board {
        match self {
            Dialect::Silent => Board::silent(),
            Dialect::Acknowledged => Board::acknowledged(),
        }
    }
}

/// Cells of the two tables of `Mode` (what was read or called, in which mode) and crossings (no mode).
pub(crate) type Reached = BTreeSet<(Dialect, &'static str, Option<Mode>)>;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Octets(pub(crate) Vec<u8>);

impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// What is done to a client.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Request(Request),
    Enter,
    Leave,
    Receive(Octets),
    Eof,
    Write(usize),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted(RequestId),
    Rejected,
    Leaving(bool),
    /// What is written after so many Lost does not count for their `sent`.
    Wrote {
        octets: usize,
        lost: usize,
    },
    Done,
}

/// Operations, and how many events are polled after each.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) dialect: Dialect,
    pub(crate) limits: Limits,
    pub(crate) ops: Vec<(Op, usize)>,
}

/// When events are polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polls {
    /// As the session says.
    Scripted,
    /// All there are, after every operation.
    Always,
    /// All there are, after the last operation.
    AtTheEnd,
}

/// What a session came to.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) events: Vec<Event<Board>>,
    pub(crate) error: Option<Error>,
    /// Of each operation.
    pub(crate) answers: Vec<Answer>,
    /// All octets written and writable.
    pub(crate) wire: Vec<u8>,
    pub(crate) reached: Reached,
}

impl Session {
    /// Plays the session and, behind it, the end of the stream.
    pub(crate) fn play(&self, polls: Polls) -> Checked<Played> {
        let mut client = Observed::new(self.dialect, self.limits);
        let way = Way { polls, writes: true };
        let answers = self.ops.iter().map(|(op, polls)| client.step(op, *polls, way)).collect::<Result<_, _>>()?;
        client.played(answers)
    }

    pub(crate) fn with_ops(&self, ops: impl IntoIterator<Item = (Op, usize)>) -> Session {
        Session { ops: ops.into_iter().collect(), ..*self }
    }

    /// All that is received.
    pub(crate) fn input(&self) -> Vec<u8> {
        let received = self.ops.iter().filter_map(|(op, _)| match op {
            Op::Receive(Octets(octets)) => Some(&octets[..]),
            _ => None,
        });
        received.collect::<Vec<_>>().concat()
    }

    /// The same, but the stream ends after so many octets.
    pub(crate) fn cut(&self, after: usize) -> Session {
        let mut left = Some(after);
        self.with_ops(self.ops.iter().flat_map(|(op, polls)| match (op, left) {
            (Op::Receive(Octets(octets)), Some(some)) if octets.len() >= some => {
                left = None;
                vec![(Op::Receive(Octets(octets[..some].to_vec())), *polls), (Op::Eof, *polls)]
            }
            (Op::Receive(Octets(octets)), Some(some)) => {
                left = Some(some - octets.len());
                vec![(op.clone(), *polls)]
            }
            _ => vec![(op.clone(), *polls)],
        }))
    }
}

/// How a session is played: when events are polled, and whether anything is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) polls: Polls,
    pub(crate) writes: bool,
}

/// Plays a session in two ways with the same results: an operation whose results differ is left out of both.
pub(crate) fn play_alike(session: &Session, ways: [Way; 2]) -> Checked<[Played; 2]> {
    let writes_alike = ways[0].writes == ways[1].writes;
    let mut clients = ways.map(|_| Observed::new(session.dialect, session.limits));
    for (op, polls) in &session.ops {
        let before = match op {
            Op::Receive(_) | Op::Eof => None,
            Op::Request(_) | Op::Enter | Op::Leave | Op::Write(_) => Some(clients.clone()),
        };
        let [a, b] = &mut clients;
        let answers = [a.step(op, *polls, ways[0])?, b.step(op, *polls, ways[1])?];
        if let (Some(before), true) = (before, answers[0] != answers[1]) {
            if writes_alike || !matches!(op, Op::Write(_)) {
                clients = before;
            }
        }
    }
    let [a, b] = clients;
    Ok([a.played(Vec::new())?, b.played(Vec::new())?])
}

/// Events without the one part of them that depends on when octets are written.
pub(crate) fn whenever_written(events: &[Event<Board>]) -> Vec<Event<Board>> {
    let forget = |event: &Event<Board>| match event {
        Event::Lost { id, .. } => Event::Lost { id: *id, sent: false },
        event => event.clone(),
    };
    events.iter().map(forget).collect()
}

// The plain reading.

const PUSH: &[u8] = b"notif:";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Request(RequestId, Request),
    Enter(RequestId),
    Leave,
}

impl What {
    fn is(self, id: RequestId) -> bool {
        matches!(self, What::Request(own, _) | What::Enter(own) if own == id)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    what: What,
    /// Octets received when it was asked; the end of the stream counts as one.
    received_before: usize,
}

/// A part of the wire: a request, an enter, or the leave of this enter.
#[derive(Clone, Copy, Debug)]
struct Part {
    of: RequestId,
    is_leave: bool,
    octets: &'static [u8],
}

/// What lies next in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Line(Octets),
    TooLong,
    Eof,
    None,
}

/// What the next poll must give.
#[derive(Clone, Debug)]
enum Due {
    Event(Event<Board>),
    Fault(Fault),
    Nothing,
}

/// How the connection ends.
#[derive(Clone, Debug)]
enum Fault {
    None,
    UnexpectedEof(u64),
    TooLong,
    Violation(Octets),
}

impl Fault {
    fn is(&self, error: &Error, limits: Limits) -> bool {
        match (self, error) {
            (Fault::UnexpectedEof(expected), Error::UnexpectedEof { octets }) => expected == octets,
            (Fault::TooLong, Error::LineTooLong(error)) => *error == LineTooLong { limit: limits.line },
            (Fault::Violation(line), Error::Violation { frame, .. }) => {
                frame.as_bytes() == &line.0[..line.0.len().min(64)]
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) client: ClientState<Board>,
    dialect: Dialect,
    limits: Limits,

    input: Vec<u8>,
    eof: bool,
    /// Octets of the input that events account for.
    read: usize,
    queue: VecDeque<Entry>,
    inside: Option<RequestId>,
    second: Option<Event<Board>>,
    fault: Option<Fault>,
    closed: bool,

    parts: Vec<Part>,
    pub(crate) wire: Vec<u8>,
    entered: BTreeSet<RequestId>,
    outcomes: BTreeMap<RequestId, usize>,

    pub(crate) events: Vec<Event<Board>>,
    pub(crate) error: Option<Error>,
    pub(crate) reached: Reached,
    /// What was done, as the operations of a session.
    log: Vec<(Op, usize)>,
}

impl Observed {
    pub(crate) fn new(dialect: Dialect, limits: Limits) -> Self {
        Observed {
            client: ClientState::with_limits(dialect.board(), limits),
            dialect,
            limits,
            input: Vec::new(),
            eof: false,
            read: 0,
            queue: VecDeque::new(),
            inside: None,
            second: None,
            fault: None,
            closed: false,
            parts: Vec::new(),
            wire: Vec::new(),
            entered: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            events: Vec::new(),
            error: None,
            reached: Reached::new(),
            log: Vec::new(),
        }
    }

    fn reach(&mut self, crossing: &'static str) {
        self.reached.insert((self.dialect, crossing, None));
    }

    fn reach_cell(&mut self, row: &'static str, mode: Mode) {
        self.reached.insert((self.dialect, row, Some(mode)));
    }

    // What is done.

    fn step(&mut self, op: &Op, polls: usize, way: Way) -> Checked<Answer> {
        let answer = match op {
            Op::Write(_) if !way.writes => self.apply(&Op::Write(0))?,
            op => self.apply(op)?,
        };
        self.poll_up_to(match way.polls {
            Polls::Scripted => polls,
            Polls::Always => usize::MAX,
            Polls::AtTheEnd => 0,
        })?;
        Ok(answer)
    }

    fn played(mut self, answers: Vec<Answer>) -> Checked<Played> {
        self.finish()?;
        let Observed { events, error, mut wire, client, reached, .. } = self;
        wire.extend_from_slice(client.output());
        Ok(Played { events, error, answers, wire, reached })
    }

    pub(crate) fn apply(&mut self, op: &Op) -> Checked<Answer> {
        self.log.push((op.clone(), 0));
        let shown = self.client.output().to_vec();
        let answer = match op {
            Op::Request(kind) => self.request(*kind)?,
            Op::Enter => self.enter()?,
            Op::Leave => self.leave()?,
            Op::Receive(Octets(octets)) => {
                if !self.eof && self.fault.is_none() {
                    self.input.extend_from_slice(octets);
                }
                self.client.receive(octets);
                Answer::Done
            }
            Op::Eof => {
                self.eof |= self.fault.is_none();
                self.client.receive_eof();
                Answer::Done
            }
            Op::Write(octets) => {
                let written = shown.len().min(*octets);
                self.wire.extend_from_slice(&shown[..written]);
                self.client.advance_output(*octets);
                prop_assert_eq!(self.client.output(), &shown[written..], "output moves by what was written");
                self.check_views()?;
                let lost = self.events.iter().filter(|event| matches!(event, Event::Lost { .. })).count();
                return Ok(Answer::Wrote { octets: written, lost });
            }
        };
        prop_assert!(self.client.output().starts_with(&shown), "what was once visible was withdrawn");
        self.check_views()?;
        Ok(answer)
    }

    fn request(&mut self, kind: Request) -> Checked<Answer> {
        let mode = self.asked_mode();
        self.reach_cell("request", mode);
        let octets: &[u8] = match kind {
            Request::Random => b"random?\r\n",
            Request::Classified => b"classified?\r\n",
        };
        let before = self.client.clone();
        match (self.client.request(kind), self.rejection(mode, 1, octets.len())) {
            (Ok(id), None) => self.accept(id, What::Request(id, kind), octets),
            (Err(rejected), Some(reason)) => {
                prop_assert_eq!((rejected.value, rejected.reason), (kind, reason));
                prop_assert_eq!(&self.client, &before, "a rejected request left a trace");
                Ok(Answer::Rejected)
            }
            (result, expected) => fail(format!("request gave {result:?}, expected rejection: {expected:?}")),
        }
    }

    fn enter(&mut self) -> Checked<Answer> {
        let mode = self.asked_mode();
        self.reach_cell("enter", mode);
        let before = self.client.clone();
        // The place of the leave is taken with it.
        let rejection = self.rejection(mode, 2, b"notif\r\nstop_notif\r\n".len());
        match (self.client.enter(()), rejection) {
            (Ok(id), None) => self.accept(id, What::Enter(id), b"notif\r\n"),
            (Err(rejected), Some(reason)) => {
                prop_assert_eq!(rejected.reason, reason);
                prop_assert_eq!(&self.client, &before, "a rejected enter left a trace");
                Ok(Answer::Rejected)
            }
            (result, expected) => fail(format!("enter gave {result:?}, expected rejection: {expected:?}")),
        }
    }

    fn leave(&mut self) -> Checked<Answer> {
        let mode = self.asked_mode();
        self.reach_cell("leave", mode);
        let before = self.client.clone();
        let outstanding = self.client.leave();
        prop_assert_eq!(outstanding, matches!(mode, Mode::Entering | Mode::Notification | Mode::Leaving));
        if !matches!(mode, Mode::Entering | Mode::Notification) {
            prop_assert_eq!(&self.client, &before, "a leave with nothing to leave left a trace");
            return Ok(Answer::Leaving(outstanding));
        }
        let unconfirmed = self.queue.iter().rev().find_map(|entry| match entry.what {
            What::Enter(id) => Some(id),
            What::Request(..) | What::Leave => None,
        });
        let Some(of) = unconfirmed.or(self.inside) else { return fail("a leave of nothing".into()) };
        self.push(What::Leave);
        self.parts.push(Part { of, is_leave: true, octets: b"stop_notif\r\n" });
        if self.changes().count() >= 4 {
            self.reach("enter, leave, enter, leave in flight");
        }
        Ok(Answer::Leaving(true))
    }

    fn accept(&mut self, id: RequestId, what: What, octets: &'static [u8]) -> Checked<Answer> {
        let last = self.outcomes.last_key_value().map(|(last, _)| *last);
        prop_assert!(last.is_none_or(|last| last < id), "{} after {:?}", id, last);
        self.outcomes.insert(id, 0);
        self.push(what);
        self.parts.push(Part { of: id, is_leave: false, octets });
        Ok(Answer::Accepted(id))
    }

    fn push(&mut self, what: What) {
        self.queue.push_back(Entry { what, received_before: self.input.len() + usize::from(self.eof) });
    }

    fn rejection(&mut self, mode: Mode, entries: usize, octets: usize) -> Option<Reason> {
        let waiting = self.parts.iter().map(|part| part.octets.len()).sum::<usize>() - self.wire.len();
        let Limits { pending, output, .. } = self.limits;
        Some(match mode {
            Mode::Closed => Reason::Closed,
            Mode::Entering | Mode::Notification => Reason::NotAllowed(mode),
            Mode::Normal | Mode::Leaving if entries > pending => Reason::TooLarge,
            Mode::Normal | Mode::Leaving if self.queue.len() + entries > pending => {
                self.reach("too many pending");
                Reason::TooManyPending
            }
            Mode::Normal | Mode::Leaving if octets > output => Reason::TooLarge,
            Mode::Normal | Mode::Leaving if waiting + octets > output => {
                self.reach("output full");
                Reason::OutputFull
            }
            Mode::Normal | Mode::Leaving => return None,
        })
    }

    // What is told.

    pub(crate) fn poll_up_to(&mut self, events: usize) -> Checked {
        for _ in 0..events {
            if self.poll()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// The next event, checked; `None` if there is none now, or never again.
    pub(crate) fn poll(&mut self) -> Checked<Option<Event<Board>>> {
        match self.log.last_mut() {
            Some((_, polls)) => *polls += 1,
            None => self.log.push((Op::Write(0), 1)),
        }
        let shown = self.client.output().to_vec();
        let mode = self.mode();
        let due = self.due();
        let told = match (&due, self.client.poll_event()) {
            (Due::Event(expected), Ok(Some(event))) if event == *expected => {
                self.follow(&event, mode);
                self.events.push(event.clone());
                Some(event)
            }
            (Due::Fault(fault), Err(error)) if fault.is(&error, self.limits) => {
                self.end(mode);
                prop_assert!(self.error.as_ref().is_none_or(|told| *told == error), "another error: {}", error);
                self.error = Some(error);
                None
            }
            (Due::Nothing, Ok(None)) => None,
            (due, polled) => return fail(format!("polled {polled:?}, due was {due:?}")),
        };
        prop_assert!(self.client.output().starts_with(&shown), "what was once visible was withdrawn");
        self.check_views()?;
        Ok(told)
    }

    /// The stream ends here at the latest: each request and enter has had its outcome, and nothing is told ever after.
    pub(crate) fn finish(&mut self) -> Checked {
        self.poll_up_to(usize::MAX)?;
        self.apply(&Op::Eof)?;
        self.poll_up_to(usize::MAX)?;
        for (id, outcomes) in &self.outcomes {
            prop_assert_eq!(*outcomes, 1, "outcomes of {}", id);
        }
        for op in [Op::Request(Request::Random), Op::Enter, Op::Leave, Op::Receive(Octets(b"1\r\n".into())), Op::Eof] {
            self.apply(&op)?;
            prop_assert!(self.poll()?.is_none());
        }
        Ok(())
    }

    /// What lies next, and after how many octets of the input that stood. The end of the stream counts as an octet.
    fn next(&self) -> (Next, Option<usize>) {
        let rest = &self.input[self.read..];
        let line = rest.windows(2).position(|two| two == b"\r\n");
        let unfinished = rest.len() - usize::from(rest.last() == Some(&b'\r'));
        let limit = self.limits.line;
        if line.unwrap_or(unfinished) > limit {
            // With the first octet too many; but a CR in that place may still have been half of a terminator.
            let too_many = limit + 1 + usize::from(rest.get(limit) == Some(&b'\r'));
            (Next::TooLong, Some(self.read + too_many))
        } else if let Some(content) = line {
            (Next::Line(Octets(rest[..content].to_vec())), Some(self.read + content + 2))
        } else if self.eof {
            (Next::Eof, Some(self.input.len() + 1))
        } else {
            (Next::None, None)
        }
    }

    fn due(&self) -> Due {
        if let Some(event) = &self.second {
            return Due::Event(event.clone());
        }
        let fault = match &self.fault {
            Some(fault) => fault.clone(),
            None => {
                let (next, ends_at) = self.next();
                if let Some(event) = self.confirmed_by_silence(ends_at) {
                    return Due::Event(event);
                }
                match next {
                    Next::None => return Due::Nothing,
                    Next::Line(line) => match self.meaning(&line.0, ends_at.unwrap_or(0)) {
                        Some(event) => return Due::Event(event),
                        None => Fault::Violation(line),
                    },
                    Next::TooLong => Fault::TooLong,
                    Next::Eof if self.read == self.input.len() => Fault::None,
                    Next::Eof => Fault::UnexpectedEof((self.input.len() - self.read) as u64),
                }
            }
        };
        let lost = self.queue.iter().find_map(|entry| match entry.what {
            What::Request(id, _) | What::Enter(id) => Some(id),
            What::Leave => None,
        });
        match (lost, fault) {
            (Some(id), _) => Due::Event(Event::Lost { id, sent: self.is_sent(id) }),
            (None, Fault::None) if self.closed => Due::Nothing,
            (None, Fault::None) => Due::Event(Event::Closed),
            (None, fault) => Due::Fault(fault),
        }
    }

    /// What the silent dialect confirms before the frame that ends at `ends_at` is read.
    fn confirmed_by_silence(&self, ends_at: Option<usize>) -> Option<Event<Board>> {
        let is_due = |entry: &Entry| ends_at.is_none_or(|ends_at| entry.received_before < ends_at);
        if self.dialect == Dialect::Acknowledged {
            return None;
        }
        match (self.queue.front()?, self.queue.get(1)) {
            (enter @ Entry { what: What::Enter(id), .. }, _) if is_due(enter) => Some(Event::Entered { id: *id }),
            (Entry { what: What::Leave, .. }, Some(enter @ Entry { what: What::Enter(_), .. })) if is_due(enter) => {
                self.left()
            }
            _ => None,
        }
    }

    fn left(&self) -> Option<Event<Board>> {
        self.inside.map(|id| Event::Left { id, asked: true, refusal: None })
    }

    /// Whose answer the frame that ends at `ends_at` may be.
    fn awaiting(&self, ends_at: usize) -> Option<What> {
        let mut asked = self.queue.iter().take_while(|entry| entry.received_before < ends_at).map(|entry| entry.what);
        asked.find(|what| self.dialect == Dialect::Acknowledged || matches!(what, What::Request(..)))
    }

    fn meaning(&self, line: &[u8], ends_at: usize) -> Option<Event<Board>> {
        let awaiting = self.awaiting(ends_at);
        let is_answer = self.inside.is_none() && matches!(awaiting, Some(What::Request(..)));
        if let (Some(name), false) = (line.strip_prefix(PUSH), is_answer) {
            let name = &name[name.iter().take_while(|octet| **octet == b' ').count()..];
            return Some(Event::Notification(match name {
                b"random" => Notification::Random,
                b"classified" => Notification::Classified,
                name => Notification::Other(Bytes::copy_from_slice(name)),
            }));
        }
        let text = Bytes::copy_from_slice(line);
        match awaiting? {
            // It proves the leave before it: first Left, then what the line means outside the mode.
            What::Request(..) if self.inside.is_some() => self.left(),
            What::Request(id, Request::Classified) => Some(Event::Reply { id, reply: Reply::Classified(text) }),
            What::Request(id, Request::Random) => Some(match std::str::from_utf8(line).map(str::parse) {
                Ok(Ok(number)) => Event::Reply { id, reply: Reply::Random(number) },
                _ => Event::Refused { id, refusal: Refusal::WrongKind(text) },
            }),
            What::Enter(id) if line == b"OK" => Some(Event::Entered { id }),
            What::Enter(id) => Some(Event::Refused { id, refusal: Refusal::WrongKind(text) }),
            What::Leave if line == b"OK" => self.left(),
            What::Leave => None,
        }
    }

    /// What follows from an event that was told in this `mode`.
    fn follow(&mut self, event: &Event<Board>, mode: Mode) {
        let (next, ends_at) = self.next();
        let (line, ends_at) = match (next, ends_at) {
            (Next::Line(Octets(line)), Some(ends_at)) => (line, ends_at),
            (_, ends_at) => (Vec::new(), ends_at.unwrap_or(usize::MAX)),
        };
        let awaiting = self.awaiting(ends_at);
        match event {
            Event::Notification(notification) => {
                self.read = ends_at;
                self.reach_cell("a notification", mode);
                match self.queue.iter().map(|entry| entry.what).collect::<Vec<_>>()[..] {
                    [What::Leave, What::Request(..), What::Enter(_), ..] => self.reach("ring x push"),
                    [What::Leave, ..] => self.reach("leave x push"),
                    _ => {}
                }
                if self.queue.iter().any(|entry| entry.received_before >= ends_at) {
                    self.reach("notification received before the call, read after it");
                }
                if matches!(notification, Notification::Other(_)) {
                    self.reach("notification with another name");
                }
            }
            Event::Entered { id } => {
                self.reach_cell("enter confirmed", mode);
                self.count(*id);
                self.queue.pop_front();
                self.inside = Some(*id);
                self.entered.insert(*id);
                if self.dialect == Dialect::Acknowledged {
                    self.read = ends_at;
                    if self.parts.iter().any(|part| part.is_leave && part.of == *id) {
                        self.reach("leave held back until enter was confirmed");
                    }
                }
            }
            Event::Left { .. } => {
                self.reach_cell("leave confirmed", mode);
                self.queue.pop_front();
                self.inside = None;
                match (self.dialect, self.queue.front(), awaiting) {
                    (Dialect::Acknowledged, ..) => self.read = ends_at,
                    (Dialect::Silent, Some(next), Some(proof)) if next.what == proof => {
                        self.reach_cell("the answer to a request", mode);
                        // The line has been read: it is told next, whatever is called meanwhile.
                        self.second = self.meaning(&line, ends_at);
                        self.queue.pop_front();
                        self.read = ends_at;
                        self.reach(match self.second {
                            Some(Event::Refused { .. }) => "leave proved by a refusal",
                            _ => "leave proved by an answer",
                        });
                    }
                    (Dialect::Silent, ..) => self.reach("leave proved by an enter"),
                }
            }
            Event::Reply { id, .. } | Event::Refused { id, .. } => {
                self.count(*id);
                if self.second.take().is_some() {
                    return;
                }
                self.read = ends_at;
                self.queue.pop_front();
                if let Some(What::Enter(_)) = awaiting {
                    self.reach_cell("enter refused", mode);
                    self.forget_leave_of(*id);
                    return;
                }
                self.reach_cell("the answer to a request", mode);
                if line.starts_with(PUSH) {
                    self.reach("answer that looks like a notification");
                }
                if matches!(event, Event::Refused { .. }) {
                    self.reach("answer of the wrong kind");
                }
            }
            Event::Lost { id, sent } => {
                self.end(mode);
                self.count(*id);
                while self.queue.pop_front().is_some_and(|entry| !entry.what.is(*id)) {}
                if self.events.iter().any(|event| matches!(event, Event::Lost { sent: other, .. } if other != sent)) {
                    self.reach("end with requests written and unwritten");
                }
            }
            Event::Closed => {
                self.end(mode);
                self.closed = true;
            }
        }
    }

    /// The enter was refused: a leave that waited for it is dropped unseen.
    fn forget_leave_of(&mut self, enter: RequestId) {
        if self.queue.front().is_some_and(|entry| entry.what == What::Leave) {
            self.queue.pop_front();
            self.parts.retain(|part| part.of != enter || !part.is_leave);
            self.reach("enter refused, its leave remembered");
            if !self.queue.is_empty() {
                self.reach("enter refused, its leave remembered, more asked behind it");
            }
        }
    }

    /// What is told first of the end fixes what the end is.
    fn end(&mut self, mode: Mode) {
        if self.fault.is_some() {
            return;
        }
        let (next, ends_at) = self.next();
        let awaiting = self.awaiting(ends_at.unwrap_or(usize::MAX));
        let rest = self.input[self.read..].to_vec();
        self.fault = Some(match next {
            Next::TooLong => {
                self.reach("line too long");
                Fault::TooLong
            }
            Next::Line(line) => {
                match awaiting {
                    Some(What::Leave) => self.reach_cell("leave refused", mode),
                    _ => self.reach_cell("an answer nobody waits for", mode),
                }
                if self.queue.iter().any(|entry| matches!(entry.what, What::Request(..))) {
                    self.reach("answer received before its question");
                }
                Fault::Violation(line)
            }
            Next::Eof | Next::None => {
                self.reach_cell("the end of the stream", mode);
                self.reach(match (&rest[..], awaiting) {
                    ([], None) => "end between frames, nothing outstanding",
                    ([], Some(_)) => "end between frames, something outstanding",
                    ([.., b'\r'], _) => "cut inside a terminator",
                    (rest, _) if rest.starts_with(PUSH) && self.inside.is_some() => "cut inside a notification",
                    (_, Some(What::Request(..))) => "cut inside an answer",
                    (_, Some(What::Enter(_) | What::Leave)) => "cut inside an OK",
                    (_, None) => "cut inside something else",
                });
                if rest.is_empty() { Fault::None } else { Fault::UnexpectedEof(rest.len() as u64) }
            }
        });
    }

    fn count(&mut self, id: RequestId) {
        *self.outcomes.entry(id).or_default() += 1;
    }

    // What is shown.

    fn changes(&self) -> impl DoubleEndedIterator<Item = Mode> {
        self.queue.iter().filter_map(|entry| match entry.what {
            What::Request(..) => None,
            What::Enter(_) => Some(Mode::Entering),
            What::Leave => Some(Mode::Leaving),
        })
    }

    fn settled(&self) -> Mode {
        if self.inside.is_some() { Mode::Notification } else { Mode::Normal }
    }

    fn mode(&self) -> Mode {
        match self.fault {
            Some(_) => Mode::Closed,
            None => self.changes().next().unwrap_or_else(|| self.settled()),
        }
    }

    fn asked_mode(&self) -> Mode {
        match self.fault {
            Some(_) => Mode::Closed,
            None => self.changes().next_back().unwrap_or_else(|| self.settled()),
        }
    }

    /// Whether the first octet of this request or enter was written.
    fn is_sent(&self, id: RequestId) -> bool {
        let before = self.parts.iter().take_while(|part| part.of != id || part.is_leave);
        before.map(|part| part.octets.len()).sum::<usize>() < self.wire.len()
    }

    /// The octets of a leave wait until its enter, where that has an answer of its own, is confirmed.
    fn is_held_back(&self, part: &Part) -> bool {
        self.dialect == Dialect::Acknowledged && part.is_leave && !self.entered.contains(&part.of)
    }

    fn check_views(&self) -> Checked {
        prop_assert_eq!(self.client.mode(), self.mode(), "mode()");
        prop_assert_eq!(self.client.asked_mode(), self.asked_mode(), "asked_mode()");
        let visible = self.parts.iter().take_while(|part| !self.is_held_back(part)).map(|part| part.octets);
        let visible = visible.collect::<Vec<_>>().concat();
        prop_assert_eq!([&self.wire[..], self.client.output()].concat(), visible, "the wire");
        prop_assert_eq!(self.client.is_gated(), self.parts.iter().any(|part| self.is_held_back(part)), "is_gated()");
        if self.fault.is_none() && self.next().0 != Next::TooLong {
            prop_assert_eq!(self.client.unread(), &self.input[self.read..], "unread()");
        }
        Ok(())
    }
}

fn fail<T>(why: String) -> Checked<T> {
    Err(TestCaseError::fail(why))
}

// Hostile sessions.

pub(crate) fn dialects() -> impl Strategy<Value = Dialect> {
    prop_oneof![Just(Dialect::Silent), Just(Dialect::Acknowledged)]
}

pub(crate) fn kinds() -> impl Strategy<Value = Request> {
    prop_oneof![Just(Request::Random), Just(Request::Classified)]
}

fn one_of(octets: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(octets).prop_map(<[u8]>::to_vec)
}

/// Real lines, and lines that look like them.
fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => one_of(&[b"notif: random", b"notif: random", b"notif: classified"]),
        4 => one_of(&[b"OK"]),
        3 => any::<i16>().prop_map(|number| number.to_string().into_bytes()),
        2 => one_of(&[b"notif:", b"notif: ", b"notif:random", b"notif:   classified", b"notif: \xff"]),
        1 => one_of(&[b"notif: random ", b"notif: randoms"]),
        2 => one_of(&[b"", b"ok", b"OK ", b"OK\r", b"\nOK", b"notif", b" notif: random", b"NOTIF: random"]),
        2 => one_of(&[b"+5", b"-0", b"5 ", b"9223372036854775807", b"9223372036854775808", b"two rooms"]),
        1 => (0..24_usize).prop_map(|octets| b"x".repeat(octets)),
    ]
}

/// Lines, fragments of lines, and noise.
fn octets() -> impl Strategy<Value = Octets> {
    let some = prop_oneof![
        12 => line().prop_map(|line| [&line[..], b"\r\n"].concat()),
        2 => prop::collection::vec(line(), 2..4).prop_map(|lines| lines.join(&b"\r\n"[..])),
        2 => (line(), any::<prop::sample::Index>()).prop_map(|(line, at)| line[..at.index(line.len() + 1)].to_vec()),
        1 => line().prop_map(|line| [&line[..], b"\r"].concat()),
        1 => one_of(&[b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\r", b""]),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    some.prop_map(Octets)
}

/// What is done at once: one operation, or some that belong together.
fn phrase() -> impl Strategy<Value = Vec<Op>> {
    let line = |line: &[u8]| Op::Receive(Octets(line.to_vec()));
    prop_oneof![
        3 => kinds().prop_map(|kind| vec![Op::Request(kind)]),
        3 => Just(vec![Op::Enter]),
        3 => Just(vec![Op::Leave]),
        9 => octets().prop_map(|octets| vec![Op::Receive(octets)]),
        3 => prop_oneof![Just(usize::MAX), 0..30_usize].prop_map(|octets| vec![Op::Write(octets)]),
        2 => kinds().prop_map(|kind| vec![Op::Leave, Op::Request(kind), Op::Enter]),
        1 => Just(vec![Op::Enter, Op::Leave, Op::Enter, Op::Leave]),
        2 => Just(vec![Op::Request(Request::Random), line(b"46774\r\n")]),
        2 => Just(vec![Op::Enter, line(b"OK\r\n")]),
        2 => Just(vec![Op::Leave, line(b"OK\r\n")]),
        1 => Just(vec![Op::Enter, Op::Leave, Op::Request(Request::Random), line(b"no\r\n")]),
    ]
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    let some = (0..24_usize, 0..8_usize, 0..80_usize);
    prop_oneof![
        3 => Just(Limits::new()),
        1 => some.prop_map(|(line, pending, output)| {
            Limits::new().with_line(line).with_pending(pending).with_output(output)
        }),
        1 => (2..8_usize).prop_map(|pending| Limits::new().with_pending(pending)),
        1 => (19..80_usize).prop_map(|output| Limits::new().with_output(output)),
        // `notif: random` has 13 octets.
        1 => (12..15_usize).prop_map(|line| Limits::new().with_line(line)),
    ]
}

fn polls() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0), 2 => Just(usize::MAX), 2 => 1..3_usize]
}

/// Random calls and random octets.
pub(crate) fn hostile() -> impl Strategy<Value = Session> {
    let phrases = prop::collection::vec((phrase(), polls()), 0..30);
    let eof = prop::option::weighted(0.2, any::<prop::sample::Index>());
    (dialects(), limits(), phrases, eof).prop_map(|(dialect, limits, phrases, eof)| {
        let mut ops = Vec::new();
        for (phrase, polls) in phrases {
            ops.extend(phrase.into_iter().map(|op| (op, 0)));
            ops.last_mut().into_iter().for_each(|(_, last)| *last = polls);
        }
        if let Some(at) = eof {
            ops.insert(at.index(ops.len() + 1), (Op::Eof, 1));
        }
        Session { dialect, limits, ops }
    })
}

/// Hostile sessions, and honest ones as recorded, some of them spoilt by octets in a wrong place.
pub(crate) fn sessions() -> impl Strategy<Value = Session> {
    let spoils = prop::collection::vec((any::<prop::sample::Index>(), octets(), polls()), 1..3);
    prop_oneof![
        3 => hostile(),
        1 => honest().prop_map(|honest| honest.run().0),
        2 => (honest(), spoils).prop_map(|(honest, spoils)| {
            let mut session = honest.run().0;
            for (at, octets, polls) in spoils {
                session.ops.insert(at.index(session.ops.len() + 1), (Op::Receive(octets), polls));
            }
            session
        }),
    ]
}

// Honest sessions.

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Request(Request),
    Enter,
    Leave,
    Ring(Request),
    News(Request),
    ClientPolls(usize),
    ClientWrites(usize),
    ServerReads(usize),
    ServerAnswers(usize),
    ServerWrites(usize),
    ClientReads(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// All is delivered.
    Quiet,
    /// The client sends no more; what it sent is answered.
    HalfClose,
    /// The connection breaks at any octet of what is on its way to the client.
    Cut(prop::sample::Index),
}

/// A client and a server joined by two byte pipes.
#[derive(Clone, Debug)]
pub(crate) struct Honest {
    dialect: Dialect,
    /// The application answers each notification with a ring.
    rings: bool,
    steps: Vec<Step>,
    /// What a pipe carries at once when all is delivered.
    chunk: usize,
    ending: Ending,
}

pub(crate) fn honest() -> impl Strategy<Value = Honest> {
    let some = || prop_oneof![2 => Just(usize::MAX), 3 => 1..24_usize];
    let step = prop_oneof![
        3 => kinds().prop_map(Step::Request),
        3 => Just(Step::Enter),
        2 => Just(Step::Leave),
        2 => kinds().prop_map(Step::Ring),
        4 => kinds().prop_map(Step::News),
        3 => prop_oneof![Just(usize::MAX), 1..3_usize].prop_map(Step::ClientPolls),
        3 => some().prop_map(Step::ClientWrites),
        3 => some().prop_map(Step::ServerReads),
        3 => prop_oneof![Just(usize::MAX), 0..3_usize].prop_map(Step::ServerAnswers),
        3 => some().prop_map(Step::ServerWrites),
        3 => some().prop_map(Step::ClientReads),
    ];
    let ending = prop_oneof![
        4 => Just(Ending::Quiet),
        1 => Just(Ending::HalfClose),
        2 => any::<prop::sample::Index>().prop_map(Ending::Cut),
    ];
    let chunk = prop_oneof![Just(usize::MAX), 1..20_usize];
    (dialects(), any::<bool>(), prop::collection::vec(step, 0..60), chunk, ending)
        .prop_map(|(dialect, rings, steps, chunk, ending)| Honest { dialect, rings, steps, chunk, ending })
}

impl Honest {
    /// The client's side of it, as a session, and the verdict.
    pub(crate) fn run(&self) -> (Session, Checked<Reached>) {
        let mut world = World {
            client: Observed::new(self.dialect, Limits::new()),
            rings: self.rings,
            requests: Vec::new(),
            to_server: VecDeque::new(),
            server: ServerState::new(self.dialect.board()),
            answers: Vec::new(),
            to_client: VecDeque::new(),
            delivered: Vec::new(),
            versions: [0; 2],
            untold: [false; 2],
            fetched: [0; 2],
            news_at: [0; 2],
        };
        let verdict = world.run(self);
        let session = Session { dialect: self.dialect, limits: Limits::new(), ops: world.client.log };
        (session, verdict.map(|()| world.client.reached))
    }
}

struct World {
    client: Observed,
    rings: bool,
    /// The requests accepted, in the order asked.
    requests: Vec<RequestId>,
    to_server: VecDeque<u8>,
    server: ServerState,
    /// What the server answered, each with the version of the news it tells.
    answers: Vec<(Reply, usize)>,
    to_client: VecDeque<u8>,
    /// All that the client has received.
    delivered: Vec<u8>,
    /// Of random and classified: how often there was news, whether the client is untold, what it has fetched.
    versions: [usize; 2],
    untold: [bool; 2],
    fetched: [usize; 2],
    /// How many events the client had been told before the last news.
    news_at: [usize; 2],
}

fn index(kind: Request) -> usize {
    match kind {
        Request::Random => 0,
        Request::Classified => 1,
    }
}

impl World {
    fn run(&mut self, honest: &Honest) -> Checked {
        for step in &honest.steps {
            self.step(*step)?;
        }
        match &honest.ending {
            Ending::Quiet => {
                self.deliver(honest.chunk)?;
                self.check_agreement()?;
                self.check_news()?;
            }
            Ending::HalfClose => self.half_close(honest.chunk)?,
            Ending::Cut(at) => {
                self.step(Step::ServerAnswers(usize::MAX))?;
                self.step(Step::ServerWrites(usize::MAX))?;
                self.step(Step::ClientReads(at.index(self.to_client.len() + 1)))?;
                self.client.apply(&Op::Eof)?;
                self.step(Step::ClientPolls(usize::MAX))?;
            }
        }
        self.client.finish()?;
        self.check_history()
    }

    /// Whether it moved anything.
    fn step(&mut self, step: Step) -> Checked<bool> {
        Ok(match step {
            Step::Request(kind) => self.request(kind)?,
            Step::Enter => self.client.apply(&Op::Enter)? != Answer::Rejected,
            Step::Leave => self.client.apply(&Op::Leave)? == Answer::Leaving(true),
            Step::Ring(kind) => self.ring(kind)?,
            Step::News(kind) => {
                self.news(kind);
                true
            }
            Step::ClientPolls(events) => self.poll(events)?,
            Step::ClientWrites(_) if self.client.client.output().is_empty() => false,
            Step::ClientWrites(octets) => {
                let before = self.client.wire.len();
                self.client.apply(&Op::Write(octets))?;
                self.to_server.extend(&self.client.wire[before..]);
                self.client.wire.len() > before
            }
            Step::ServerReads(_) if !self.server.wants_input() => false,
            Step::ServerReads(octets) => {
                let octets = octets.min(self.to_server.len());
                self.server.receive(&self.to_server.drain(..octets).collect::<Vec<_>>());
                octets > 0
            }
            Step::ServerAnswers(questions) => self.answer(questions)?,
            Step::ServerWrites(octets) => {
                let octets = octets.min(self.server.output().len());
                self.to_client.extend(&self.server.output()[..octets]);
                self.server.advance_output(octets);
                octets > 0
            }
            Step::ClientReads(_) if self.to_client.is_empty() => false,
            Step::ClientReads(octets) => {
                let octets = octets.min(self.to_client.len());
                let octets: Vec<u8> = self.to_client.drain(..octets).collect();
                self.delivered.extend_from_slice(&octets);
                self.client.apply(&Op::Receive(Octets(octets)))?;
                true
            }
        })
    }

    fn request(&mut self, kind: Request) -> Checked<bool> {
        let Answer::Accepted(id) = self.client.apply(&Op::Request(kind))? else { return Ok(false) };
        self.requests.push(id);
        Ok(true)
    }

    /// The talk's ring.
    fn ring(&mut self, kind: Request) -> Checked<bool> {
        self.client.apply(&Op::Leave)?;
        let asked = self.request(kind)?;
        self.client.apply(&Op::Enter)?;
        Ok(asked)
    }

    fn news(&mut self, kind: Request) {
        self.versions[index(kind)] += 1;
        self.news_at[index(kind)] = self.client.events.len();
        let before = self.server.output().len();
        self.server.notify(kind);
        if !self.server.is_in_notification_mode() {
            self.untold[index(kind)] = true;
            self.client.reach("news outside the mode");
        } else if self.server.output().len() == before {
            self.client.reach("news folded into an unread notification");
        }
    }

    fn poll(&mut self, events: usize) -> Checked<bool> {
        for polled in 0..events {
            match self.client.poll()? {
                None => return Ok(polled > 0),
                Some(Event::Reply { id, reply }) => {
                    let question = self.requests.iter().position(|request| *request == id);
                    let answer = question.and_then(|at| self.answers.get(at));
                    prop_assert_eq!(Some(&reply), answer.map(|(reply, _)| reply), "the answer to another question");
                    let kind = match reply {
                        Reply::Random(_) => Request::Random,
                        Reply::Classified(_) => Request::Classified,
                    };
                    self.fetched[index(kind)] = answer.map_or(0, |(_, version)| *version);
                }
                Some(Event::Notification(notification)) if self.rings => {
                    let kind = match notification {
                        Notification::Random => Request::Random,
                        Notification::Classified => Request::Classified,
                        Notification::Other(name) => return fail(format!("an honest server wrote {name:?}")),
                    };
                    self.ring(kind)?;
                }
                Some(Event::Refused { .. }) => return fail("an honest server refuses nothing".into()),
                Some(_) => {}
            }
        }
        Ok(events > 0)
    }

    /// Reads commands, and answers so many questions. A number counts the answers, so that no two are equal.
    fn answer(&mut self, questions: usize) -> Checked<bool> {
        let was_inside = self.server.is_in_notification_mode();
        let mut answered = 0;
        while let Some(kind) = self.server.poll_request()
            && answered < questions
        {
            answered += 1;
            let number = self.answers.len();
            let reply = match kind {
                Request::Random => Reply::Random(46_774 + i64::try_from(number).unwrap_or(0)),
                Request::Classified => Reply::Classified(format!("ad number {number}").into()),
            };
            self.answers.push((reply.clone(), self.versions[index(kind)]));
            self.untold[index(kind)] = false;
            prop_assert_eq!(self.server.answer(reply), Ok(()));
        }
        let is_inside = self.server.is_in_notification_mode();
        if is_inside && self.untold.contains(&true) {
            self.untold = [false; 2];
            self.client.reach("news told on entering");
        }
        Ok(answered > 0 || was_inside != is_inside)
    }

    /// Takes these steps over and over until none of them moves anything.
    fn repeat(&mut self, steps: &[Step]) -> Checked {
        for _ in 0..10_000 {
            let mut moved = false;
            for step in steps {
                moved |= self.step(*step)?;
            }
            if !moved {
                return Ok(());
            }
        }
        fail("client and server never come to rest".into())
    }

    /// Until both pipes are empty and everything is polled.
    fn deliver(&mut self, chunk: usize) -> Checked {
        self.repeat(&[
            Step::ClientPolls(usize::MAX),
            Step::ClientWrites(chunk),
            Step::ServerReads(chunk),
            Step::ServerAnswers(usize::MAX),
            Step::ServerWrites(chunk),
            Step::ClientReads(chunk),
        ])
    }

    /// The client writes what it may and then sends no more: the server answers all of it, then closes.
    fn half_close(&mut self, chunk: usize) -> Checked {
        self.step(Step::ClientWrites(usize::MAX))?;
        if self.requests.len() > self.answers.len() {
            self.client.reach("half close with requests unanswered");
        }
        self.repeat(&[Step::ServerReads(chunk), Step::ServerAnswers(1)])?;
        self.server.receive_eof();
        self.repeat(&[Step::ServerAnswers(1), Step::ServerWrites(chunk), Step::ClientReads(chunk)])?;
        prop_assert!(self.server.is_finished() && self.server.error().is_none(), "{:?}", self.server);
        self.client.apply(&Op::Eof)?;
        self.poll(usize::MAX)?;
        for event in &self.client.events {
            prop_assert!(!matches!(event, Event::Lost { sent: true, .. }), "written and not answered: {:?}", event);
        }
        if !self.rings && self.client.events.iter().any(|event| matches!(event, Event::Lost { .. })) {
            self.client.reach("half close with a leave held back");
        }
        Ok(())
    }

    /// Law 10: nothing is outstanding and the modes agree, but for a silent leave that no answer has proved.
    fn check_agreement(&mut self) -> Checked {
        let client = &self.client.client;
        prop_assert!(self.to_server.is_empty() && self.to_client.is_empty() && self.server.output().is_empty());
        prop_assert!(client.output().is_empty() && !client.is_gated() && client.unread().is_empty());
        let is_inside = self.server.is_in_notification_mode();
        match (client.mode(), client.asked_mode()) {
            (Mode::Normal, Mode::Normal) => prop_assert!(!is_inside),
            (Mode::Notification, Mode::Notification) => prop_assert!(is_inside),
            (Mode::Leaving, Mode::Leaving) if self.client.dialect == Dialect::Silent => {
                prop_assert!(!is_inside);
                self.client.reach("silent leave that nobody proved");
            }
            modes => return fail(format!("modes at rest: {modes:?}")),
        }
        for (id, outcomes) in &self.client.outcomes {
            prop_assert_eq!(*outcomes, 1, "outcomes of {} at rest", id);
        }
        Ok(())
    }

    /// A client in the mode that rings on each notification has the last news of each kind, and any other client in
    /// the mode has been told since then that there is some.
    fn check_news(&mut self) -> Checked {
        if !self.server.is_in_notification_mode() {
            return Ok(());
        }
        if self.rings {
            prop_assert_eq!(self.versions, self.fetched, "news missed");
            if self.versions.iter().any(|version| *version > 1) {
                self.client.reach("the last news of several fetched");
            }
        }
        for (kind, name) in [(0, Notification::Random), (1, Notification::Classified)] {
            let told = self.client.events[self.news_at[kind]..].contains(&Event::Notification(name.clone()));
            prop_assert!(told || self.versions[kind] == self.fetched[kind], "nobody rang for {:?}", name);
        }
        Ok(())
    }

    /// Whatever happened: no violation, and the notifications are those the server wrote, in that order, each once.
    fn check_history(&self) -> Checked {
        let whole = self.delivered.windows(2).rposition(|two| two == b"\r\n").map_or(0, |at| at + 2);
        let written = self.delivered[..whole].split(|octet| *octet == b'\n').filter_map(|line| match line {
            b"notif: random\r" => Some(Notification::Random),
            b"notif: classified\r" => Some(Notification::Classified),
            _ => None,
        });
        let told = self.client.events.iter().filter_map(|event| match event {
            Event::Notification(notification) => Some(notification.clone()),
            _ => None,
        });
        prop_assert_eq!(told.collect::<Vec<_>>(), written.collect::<Vec<_>>(), "notifications");
        let octets = (self.delivered.len() - whole) as u64;
        let error = (octets > 0).then_some(Error::UnexpectedEof { octets });
        prop_assert_eq!(&self.client.error, &error);
        Ok(())
    }
}
