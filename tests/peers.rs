//! Law 10 for MPD, Redis and IMAP, exhaustively up to a bound: the real client and a small honest server, joined by two
//! FIFO pipes, in every state they can reach; as `tests/model.rs` does for the notice board.
//!
//! The server notes what it says as it says it ([`Said`]), so each event must be the one that is due: what the frames in
//! front mean, in their order, each to whom it concerns. In every state the connection is also cut.
//!
//! An IMAP server may do much: which of it, each run says ([`Freedom`]). All at once, with all that a client can ask, is too
//! much for one run; what it may not do in one it does in another.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

#[macro_use]
mod search;

use Freedom::{Chats, Ends, Refuses, Reorders, Stops};
use bytes::Bytes;
use search::{Bounds, Checked, Pieces, Polling, bounds, search};
use sonnette::imap::{self, Imap};
use sonnette::mpd::{self, Mpd, Subsystem};
use sonnette::redis::{self, Redis, Subscription, Value};
use sonnette::{ClientState, Error, Event, Mode, Protocol, RequestId, Timeouts};
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::hash::Hash;
use std::mem;
use std::str;

// The ordinary run: unoptimised, some seconds in all.

#[test]
fn mpd_polling_at_once() {
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(2, 1, 2, 2)));
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(0, 2, 1, 1)));
}

#[test]
fn mpd_polling_late() {
    search::<World<MpdServer>>(&run(Polling::Late, Pieces::Frames, bounds(1, 1, 1, 1)));
}

#[test]
fn mpd_by_octets() {
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Octets, bounds(1, 0, 1, 0)));
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Octets, bounds(0, 1, 1, 0)));
}

#[test]
fn redis_polling_at_once() {
    search::<World<RedisServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(1, 1, 2, 1)));
    search::<World<RedisServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(1, 2, 1, 1)));
}

#[test]
fn redis_polling_late() {
    search::<World<RedisServer>>(&run(Polling::Late, Pieces::Frames, bounds(1, 1, 1, 1)));
}

#[test]
fn redis_by_octets() {
    search::<World<RedisServer>>(&run(Polling::AtOnce, Pieces::Octets, bounds(0, 1, 1, 0)));
}

#[test]
fn imap_polling_at_once() {
    imap(Polling::AtOnce, Pieces::Frames, bounds(2, 0, 1, 1), &[Reorders, Refuses, Ends]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(1, 1, 2, 1), &[Refuses, Ends, Chats]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(1, 1, 1, 1), &[Reorders, Stops]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(0, 2, 1, 1), &[Stops]);
}

#[test]
fn imap_polling_late() {
    imap(Polling::Late, Pieces::Frames, bounds(1, 1, 1, 1), &[Reorders]);
    imap(Polling::Late, Pieces::Frames, bounds(1, 0, 1, 1), &[Refuses, Ends, Stops]);
}

#[test]
fn imap_by_octets() {
    imap(Polling::AtOnce, Pieces::Octets, bounds(1, 0, 0, 0), &[Refuses]);
    imap(Polling::AtOnce, Pieces::Octets, bounds(0, 1, 1, 0), &[Refuses]);
}

// The bounds that must hold before a change lands.

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_mpd() {
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(3, 2, 2, 2)));
    search::<World<MpdServer>>(&run(Polling::Late, Pieces::Frames, bounds(1, 1, 2, 1)));
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Octets, bounds(0, 1, 1, 1)));
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Octets, bounds(1, 0, 1, 1)));
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_redis() {
    search::<World<RedisServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(2, 1, 2, 2)));
    search::<World<RedisServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(2, 2, 1, 1)));
    search::<World<RedisServer>>(&run(Polling::Late, Pieces::Frames, bounds(1, 1, 2, 1)));
    search::<World<RedisServer>>(&run(Polling::AtOnce, Pieces::Octets, bounds(0, 1, 1, 1)));
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_imap() {
    imap(Polling::AtOnce, Pieces::Frames, bounds(3, 2, 2, 2), &[Reorders]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(3, 2, 2, 2), &[Refuses, Ends]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(3, 2, 2, 2), &[Stops]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(2, 1, 2, 1), &[Reorders, Refuses, Ends]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(1, 1, 2, 1), &[Reorders, Refuses, Ends, Chats, Stops]);
    imap(Polling::Late, Pieces::Frames, bounds(1, 1, 2, 1), &[Reorders]);
    imap(Polling::Late, Pieces::Frames, bounds(1, 1, 2, 1), &[Refuses, Ends]);
    imap(Polling::Late, Pieces::Frames, bounds(1, 1, 2, 1), &[Stops]);
    imap(Polling::Late, Pieces::Frames, bounds(1, 0, 1, 1), &[Reorders, Refuses, Ends, Chats, Stops]);
    imap(Polling::AtOnce, Pieces::Octets, bounds(0, 1, 1, 1), &[Refuses, Ends]);
    imap(Polling::AtOnce, Pieces::Octets, bounds(1, 0, 1, 1), &[Refuses, Ends]);
    imap(Polling::AtOnce, Pieces::Octets, bounds(1, 1, 0, 0), &[Refuses]);
}

// As far as some minutes and some GB of memory go.

#[test]
#[ignore = "many millions of states: .ci/model larger runs it in the release profile"]
fn larger_mpd() {
    search::<World<MpdServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(4, 3, 3, 3)));
    search::<World<MpdServer>>(&run(Polling::Late, Pieces::Frames, bounds(2, 1, 2, 2)));
}

#[test]
#[ignore = "many millions of states: .ci/model larger runs it in the release profile"]
fn larger_redis() {
    search::<World<RedisServer>>(&run(Polling::AtOnce, Pieces::Frames, bounds(3, 2, 2, 2)));
    search::<World<RedisServer>>(&run(Polling::Late, Pieces::Frames, bounds(1, 1, 2, 2)));
}

#[test]
#[ignore = "many millions of states: .ci/model larger runs it in the release profile"]
fn larger_imap() {
    imap(Polling::AtOnce, Pieces::Frames, bounds(3, 2, 2, 2), &[Reorders, Refuses]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(3, 2, 2, 2), &[Refuses, Ends, Chats]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(2, 1, 2, 2), &[Reorders, Refuses, Ends]);
    imap(Polling::AtOnce, Pieces::Frames, bounds(2, 1, 2, 1), &[Reorders, Refuses, Ends, Chats, Stops]);
    imap(Polling::Late, Pieces::Frames, bounds(2, 1, 1, 1), &[Reorders, Refuses]);
    imap(Polling::Late, Pieces::Frames, bounds(1, 1, 2, 2), &[Refuses, Ends, Stops]);
}

fn imap(polling: Polling, pieces: Pieces, bounds: Bounds, freedoms: &'static [Freedom]) {
    search::<World<ImapServer>>(&Run { freedoms, ..run(polling, pieces, bounds) });
}

#[derive(Clone, Copy, Debug)]
struct Run {
    polling: Polling,
    pieces: Pieces,
    bounds: Bounds,
    freedoms: &'static [Freedom],
}

const fn run(polling: Polling, pieces: Pieces, bounds: Bounds) -> Run {
    Run { polling, pieces, bounds, freedoms: &[] }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { requests, news, enters, leaves } = self.bounds;
        write!(
            f,
            "{:?}, polling {:?}, {requests} requests, {news} news, {enters} enters, {leaves} leaves",
            self.pieces, self.polling
        )?;
        if self.freedoms.is_empty() { Ok(()) } else { write!(f, ", {:?}", self.freedoms) }
    }
}

/// What a server said, of one frame or of several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Said {
    /// Of no interest to the application: the greeting, one of several confirmations, the answer to a void leave, the
    /// go-ahead for a literal.
    Nothing,
    News(u8),
    /// The server is about to close the connection.
    Bye,
    /// The answer to the question with this number, or that it is refused; and whether it ends the mode.
    Answer {
        question: u8,
        refused: bool,
        ends: bool,
    },
    Entered,
    EnterRefused,
    Left,
    /// The mode has ended with the late answer of its enter.
    Ended {
        refused: bool,
    },
}

/// An honest server.
trait Server: Clone + Debug + Hash {
    type Protocol: Protocol<
            Request: Clone + Debug,
            Reply: Clone + Debug + Eq + Hash,
            Refusal: Clone + Debug + Eq + Hash,
            Notification: Clone + Debug + Eq + Hash,
        > + Clone
        + Debug
        + Default
        + Eq
        + Hash;

    /// What it may do next by itself.
    type Move: Copy + Debug + PartialEq;

    /// How many kinds of questions there are, and of ways to enter the mode.
    const QUESTIONS: usize;
    const SUBSCRIPTIONS: usize;
    /// Whether an enter is confirmed by a frame.
    const ENTER_IS_ANSWERED: bool;
    /// Whether it answers first what was asked first; else commands have tags.
    const IN_ORDER: bool;

    fn question(kind: usize, number: u8) -> <Self::Protocol as Protocol>::Request;
    fn subscription(kind: usize) -> <Self::Protocol as Protocol>::Subscription;
    /// A server to which somebody has connected, and what it says at once.
    fn new(freedoms: &'static [Freedom]) -> (Self, Vec<(Said, Vec<u8>)>);
    /// The length of the first frame in either direction, if all of it is there.
    fn frame(octets: &[u8]) -> Option<usize>;
    /// The id of the command that begins here, if commands have tags.
    fn tag(_: &[u8]) -> Option<u64> {
        None
    }
    /// What it says to a command of the client's.
    fn command(&mut self, command: &[u8]) -> Checked<Vec<(Said, Vec<u8>)>>;
    /// Something happens, of which it may speak at once.
    fn news(&mut self, number: u8) -> Vec<(Said, Vec<u8>)>;
    /// What it has put off, in each order in which it may say it; and what it may say unasked.
    fn moves(&self) -> Vec<Self::Move>;
    fn go_on(&mut self, with: Self::Move) -> Vec<(Said, Vec<u8>)>;
    /// Whether somebody waits for it.
    fn is_awaited(&self) -> bool {
        !self.moves().is_empty()
    }
    /// Whether it reads on before it has said something.
    fn reads(&self) -> bool {
        true
    }
    fn is_in_mode(&self) -> bool;
    /// Whether it has said its last, and closes the connection.
    fn has_stopped(&self) -> bool {
        false
    }
    /// Whether the client knows at the end whether it was told why.
    fn is_understood(&self, _: &Self::Protocol) -> bool {
        true
    }
    /// What was said that is told by this notification.
    fn rung(notification: &<Self::Protocol as Protocol>::Notification) -> Option<Said>;
    /// Whether this is the answer to the question with this number.
    fn is_answer(question: u8, reply: &<Self::Protocol as Protocol>::Reply) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step<M> {
    Request(usize),
    Enter(usize),
    Leave,
    /// Leave, request and enter, with no poll between.
    Ring,
    News,
    /// The server says what it has put off, or something unasked.
    Server(M),
    /// The client writes one piece.
    Write,
    /// The server receives one piece.
    Up,
    /// The client receives one piece.
    Down,
    /// The client receives the end of the stream.
    End,
    Poll,
}

/// Both peers and what is between them; what may still happen; and what each event must be.
#[derive(Clone, Debug, Hash)]
struct World<S: Server> {
    client: ClientState<S::Protocol>,
    server: S,
    /// What was written and not received.
    up: Vec<u8>,
    down: Vec<u8>,
    /// The id of the command of which an octet was written last, if commands have tags; and whether that is amid a line.
    begun: u64,
    midway: bool,
    /// What the server has received of a command.
    command: Vec<u8>,
    /// What was said and not told, with the octets of each that have not arrived.
    said: VecDeque<(Said, usize)>,
    polling: Polling,
    pieces: Pieces,
    left: Bounds,
    happened: u8,
    asked: u8,
    /// Requests and enters that have no outcome yet, with the number of the question.
    outstanding: VecDeque<(RequestId, Option<u8>)>,
    inside: Option<RequestId>,
    /// The enters that have not been left, in their order, each with whether its leave was called; whether before the
    /// frame arrived that ended it, once it has.
    modes: VecDeque<(RequestId, bool, Option<bool>)>,
    /// The end of the stream has arrived; it was told.
    ended: bool,
    closed: bool,
}

impl<S: Server> search::World for World<S> {
    type Run = Run;
    type Step = Step<S::Move>;
    type Told = Vec<String>;

    fn new(run: &Run) -> Self {
        let (server, said) = S::new(run.freedoms);
        let mut client = ClientState::new(S::Protocol::default());
        // No time passes here.
        client.set_timeouts(Timeouts::OFF);
        let mut world = World {
            client,
            server,
            up: Vec::new(),
            down: Vec::new(),
            begun: 0,
            midway: false,
            command: Vec::new(),
            said: VecDeque::new(),
            polling: run.polling,
            pieces: run.pieces,
            left: run.bounds,
            happened: 0,
            asked: 0,
            outstanding: VecDeque::new(),
            inside: None,
            modes: VecDeque::new(),
            ended: false,
            closed: false,
        };
        world.say(said);
        world
    }

    fn steps(&self) -> Vec<Step<S::Move>> {
        if self.closed {
            return Vec::new();
        }
        let Bounds { requests, news, enters, leaves } = self.left;
        let (can_enter, can_leave) = match self.client.asked_mode() {
            Mode::Normal | Mode::Leaving => (true, false),
            Mode::Entering | Mode::Notification => (false, true),
            Mode::Closed => (false, false),
        };
        let mut steps = Vec::new();
        if requests > 0 {
            steps.extend((0..S::QUESTIONS).filter(|at| self.may_ask(*at)).map(Step::Request));
        }
        if enters > 0 && can_enter {
            steps.extend((0..S::SUBSCRIPTIONS).map(Step::Enter));
        }
        let others = [
            (leaves > 0 && can_leave, Step::Leave),
            (requests > 0 && enters > 0 && leaves > 0 && can_leave, Step::Ring),
            (news > 0 && !self.server.has_stopped(), Step::News),
            (!self.client.output().is_empty(), Step::Write),
            (!self.up.is_empty() && self.server.reads(), Step::Up),
            (!self.down.is_empty(), Step::Down),
            (self.server.has_stopped() && self.down.is_empty() && !self.ended, Step::End),
            (self.polling == Polling::Late, Step::Poll),
        ];
        steps.extend(self.server.moves().into_iter().map(Step::Server));
        steps.extend(others.into_iter().filter(|(can, _)| *can).map(|(_, step)| step));
        steps
    }

    fn after(&self, step: Step<S::Move>, _: &Run) -> Checked<(Self, Vec<String>)> {
        let (mut next, mut told) = (self.clone(), Vec::new());
        next.take(step)?;
        match step {
            Step::Poll => told.extend(next.poll()?),
            _ if self.polling == Polling::AtOnce => next.drain(&mut told)?,
            // Law 2. Events do not depend on whether it was polled before this step, or only after it; what may be asked may.
            Step::Down | Step::End => {
                let (mut polled, mut before) = (self.clone(), Vec::new());
                polled.drain(&mut before)?;
                polled.take(step)?;
                polled.drain(&mut before)?;
                let (mut unpolled, mut after) = (next.clone(), Vec::new());
                unpolled.drain(&mut after)?;
                hold!(before == after, "{step:?}, polled before it: {before:?}; polled after it: {after:?}");
            }
            _ => {}
        }
        let stays = step == Step::Write || next.client.output().starts_with(self.client.output());
        hold!(stays, "{step:?} took back output that was visible");
        Ok((next, told))
    }

    fn check(&self, _: &Run) -> Checked {
        if self.ended {
            return self.over();
        }
        self.quiet()?;
        self.cut()
    }
}

impl<S: Server> World<S> {
    fn may_ask(&self, at: usize) -> bool {
        self.client.clone().request(S::question(at, self.asked + 1)).is_ok()
    }

    fn take(&mut self, step: Step<S::Move>) -> Checked {
        match step {
            Step::Request(at) => {
                let id = self.client.request(S::question(at, self.asked + 1));
                self.request(id.map_err(|rejected| format!("{rejected:?}"))?);
            }
            Step::Enter(at) => {
                let id = self.client.enter(S::subscription(at));
                self.enter(id.map_err(|rejected| format!("{rejected:?}"))?);
            }
            Step::Leave => {
                self.leave();
                hold!(self.client.leave(), "leave() said that there is nothing to leave");
            }
            Step::Ring => {
                self.leave();
                let rung = self.client.ring(S::question(0, self.asked + 1), S::subscription(0));
                let (request, enter) = rung.map_err(|rejected| format!("{rejected:?}"))?;
                self.request(request);
                self.enter(enter);
            }
            Step::News => {
                self.left.news -= 1;
                self.happened += 1;
                let said = self.server.news(self.happened);
                self.say(said);
            }
            Step::Server(with) => {
                let said = self.server.go_on(with);
                self.say(said);
            }
            Step::Write => {
                let piece = self.piece(self.client.output()).to_vec();
                if let (false, Some(id)) = (self.midway, S::tag(self.client.output())) {
                    self.begun = id;
                }
                self.midway = !piece.ends_with(b"\n");
                self.up.extend_from_slice(&piece);
                self.client.advance_output(piece.len());
            }
            Step::Up => {
                let piece = self.piece(&self.up).to_vec();
                self.up.drain(..piece.len());
                self.command.extend_from_slice(&piece);
                while let Some(octets) = S::frame(&self.command) {
                    let command: Vec<u8> = self.command.drain(..octets).collect();
                    let said = self.server.command(&command)?;
                    self.say(said);
                }
            }
            Step::Down => {
                let piece = self.piece(&self.down).to_vec();
                self.down.drain(..piece.len());
                self.client.receive(&piece);
                let mut octets = piece.len();
                for at in 0..self.said.len() {
                    let arrived = octets.min(self.said[at].1);
                    octets -= arrived;
                    if arrived > 0 {
                        self.said[at].1 -= arrived;
                        if self.said[at].1 == 0 {
                            self.arrived(at);
                        }
                    }
                }
            }
            Step::End => {
                self.ended = true;
                self.client.receive_eof();
            }
            Step::Poll => {}
        }
        Ok(())
    }

    fn request(&mut self, id: RequestId) {
        self.left.requests -= 1;
        self.asked += 1;
        self.outstanding.push_back((id, Some(self.asked)));
    }

    fn enter(&mut self, id: RequestId) {
        self.left.enters -= 1;
        self.outstanding.push_back((id, None));
        self.modes.push_back((id, false, None));
    }

    fn leave(&mut self) {
        self.left.leaves -= 1;
        if let Some((_, left, _)) = self.modes.back_mut() {
            *left = true;
        }
    }

    fn say(&mut self, said: Vec<(Said, Vec<u8>)>) {
        for (what, octets) in said {
            self.said.push_back((what, octets.len()));
            self.down.extend_from_slice(&octets);
        }
    }

    /// What ends a mode has arrived: what was called from now on came too late for it.
    fn arrived(&mut self, at: usize) {
        if matches!(self.said[at].0, Said::Ended { .. } | Said::Left | Said::Answer { ends: true, .. }) {
            if let Some((_, left, ended)) = self.modes.iter_mut().find(|(_, _, ended)| ended.is_none()) {
                *ended = Some(*left);
            }
        } else if self.said[at].0 == Said::EnterRefused {
            let at = self.modes.iter().position(|(_, _, ended)| ended.is_none()).unwrap();
            self.modes.remove(at);
        }
    }

    fn piece<'a>(&self, pipe: &'a [u8]) -> &'a [u8] {
        let octets = match self.pieces {
            Pieces::Frames => S::frame(pipe).unwrap_or(pipe.len()),
            Pieces::Octets => pipe.len().min(1),
        };
        &pipe[..octets]
    }

    fn drain(&mut self, told: &mut Vec<String>) -> Checked {
        while let Some(event) = self.poll()? {
            told.push(event);
        }
        Ok(())
    }

    /// Polls once. An event must be the one that is due.
    fn poll(&mut self) -> Checked<Option<String>> {
        let event = self.client.poll_event().map_err(|error| format!("a violation between honest peers: {error}"))?;
        if let Some(event) = &event {
            self.due(event)?;
        }
        Ok(event.map(|event| format!("{event:?}")))
    }

    /// What was said next, all of which has arrived.
    fn next_said(&mut self) -> Checked<Said> {
        loop {
            match self.said.pop_front() {
                Some((Said::Nothing, 0)) => {}
                Some((said, 0)) => return Ok(said),
                other => return Err(format!("of {other:?} something was told")),
            }
        }
    }

    fn due(&mut self, event: &Event<S::Protocol>) -> Checked {
        match event {
            Event::Notification(notification) => {
                let said = self.next_said()?;
                hold!(Some(&said) == S::rung(notification).as_ref(), "{event:?}, and said was {said:?}");
            }
            Event::Reply { id, .. } | Event::Refused { id, .. } => {
                let question = self.outcome(*id)?;
                let said = self.next_said()?;
                let fits = match (&said, event) {
                    (Said::Answer { question, refused: false, .. }, Event::Reply { reply, .. }) => {
                        S::is_answer(*question, reply)
                    }
                    (Said::Answer { refused: true, .. } | Said::EnterRefused, Event::Refused { .. }) => true,
                    _ => false,
                };
                let to = if let Said::Answer { question, .. } = said { Some(question) } else { None };
                hold!(fits && to == question, "{event:?} to the question {question:?}, and said was {said:?}");
                if let Said::Answer { ends: true, .. } = said {
                    self.said.push_front((Said::Left, 0));
                }
            }
            Event::Entered { id } => {
                hold!(self.outcome(*id)?.is_none(), "{event:?} is no enter");
                hold!(self.inside.replace(*id).is_none(), "entered twice");
                if S::ENTER_IS_ANSWERED {
                    let said = self.next_said()?;
                    hold!(said == Said::Entered, "{event:?}, and said was {said:?}");
                }
            }
            Event::Left { id, asked, refusal } => {
                let said = self.next_said()?;
                let ended =
                    if refusal.is_some() { Said::Ended { refused: true } } else { Said::Ended { refused: false } };
                hold!(said == ended || (refusal.is_none() && said == Said::Left), "{event:?}, and said was {said:?}");
                hold!(self.inside.take() == Some(*id), "{event:?} of another mode");
                let mode = self.modes.pop_front();
                let is_of = mode.is_some_and(|(mode, _, in_time)| mode == *id && in_time == Some(*asked));
                hold!(is_of, "{event:?}, and the mode was {mode:?}");
            }
            Event::Lost { id, sent } => {
                self.lost(*id, *sent)?;
                hold!(self.ended && self.client.mode() == Mode::Closed, "{event:?}, and the connection is open");
                hold!(self.outstanding.pop_front().is_some_and(|(first, _)| first == *id), "{event:?} was not next");
            }
            Event::Closed => {
                let Self { outstanding, said, .. } = self;
                hold!(self.ended && !self.closed, "{event:?}, and the connection is open, or that was told");
                hold!(outstanding.is_empty(), "{event:?}, and {outstanding:?} is outstanding");
                hold!(said.iter().all(|(said, _)| *said == Said::Nothing), "{event:?}, and {said:?} was not told");
                self.closed = true;
            }
        }
        Ok(())
    }

    fn lost(&self, id: RequestId, sent: bool) -> Checked {
        let begun = id.get() <= self.begun;
        hold!(
            S::IN_ORDER || sent == begun,
            "{id} is lost, sent: {sent}, and whether an octet of it was written: {begun}"
        );
        Ok(())
    }

    /// This has its outcome: the number of the question, if it is one. It must be the first of all, or the first enter.
    fn outcome(&mut self, id: RequestId) -> Checked<Option<u8>> {
        let at = self.outstanding.iter().position(|(other, _)| *other == id);
        let at = at.ok_or_else(|| format!("an outcome of {id}, which has none to come"))?;
        let (_, question) = self.outstanding[at];
        let before = |(_, other): &&(RequestId, Option<u8>)| S::IN_ORDER || other.or(question).is_none();
        let first = self.outstanding.iter().take(at).find(before);
        hold!(first.is_none(), "an outcome of {id}, and {first:?} was asked before it");
        self.outstanding.remove(at);
        Ok(question)
    }

    /// With both pipes empty and all polled, nobody waits for anybody: there is no deadlock. And all agree.
    fn quiet(&self) -> Checked {
        let quiet = [self.client.output(), &self.up, &self.down].iter().all(|pipe| pipe.is_empty());
        let mut polled = self.clone();
        if !quiet || self.server.has_stopped() || self.server.is_awaited() || polled.poll()?.is_some() {
            return Ok(());
        }
        let Self { outstanding, said, client, server, inside, modes, .. } = &polled;
        if !client.output().is_empty() {
            // It waited for a frame that was polled just now.
            return Ok(());
        }
        hold!(outstanding.is_empty(), "all is still, and {outstanding:?} is outstanding");
        hold!(said.iter().all(|(said, _)| *said == Said::Nothing), "all is still, and {said:?} was not told");
        hold!(!client.is_gated() && client.unread().is_empty(), "all is still, but for some octets");
        let mode = if server.is_in_mode() { Mode::Notification } else { Mode::Normal };
        let shown = (client.mode(), client.asked_mode());
        hold!(shown == (mode, mode), "the server is in {mode:?}, mode and asked mode are {shown:?}");
        let is_left = !modes.iter().copied().eq(inside.map(|id| (id, false, None)));
        hold!(!is_left, "all is still, inside is {inside:?}, and what was entered, and perhaps left, is {modes:?}");
        Ok(())
    }

    /// The connection is cut here: what has arrived is told, then all that is outstanding is lost, then the end.
    fn cut(&self) -> Checked {
        let (mut open, mut decodable) = (self.clone(), Vec::new());
        open.drain(&mut decodable)?;
        // An enter without an answer of its own may be confirmed by the end of the stream as well: nothing is missing.
        let mut client = open.client.clone();
        client.receive_eof();
        let mut lost = Vec::new();
        let end = loop {
            match client.poll_event() {
                Ok(Some(Event::Lost { id, sent })) => {
                    open.lost(id, sent)?;
                    lost.push(id);
                }
                Ok(Some(Event::Entered { id })) if !S::ENTER_IS_ANSWERED => lost.push(id),
                end => break end,
            }
        };
        let outstanding: Vec<RequestId> = open.outstanding.iter().map(|(id, _)| *id).collect();
        hold!(lost == outstanding, "cut, and {lost:?} is lost, not {outstanding:?}");
        let is_closed = matches!(end, Ok(Some(Event::Closed)));
        hold!(is_closed || matches!(end, Err(Error::UnexpectedEof { .. })), "cut, and then {end:?}");
        Self::closed(&mut client)
    }

    /// The server has closed the connection: what it said is told, then the end.
    fn over(&self) -> Checked {
        let mut over = self.clone();
        over.drain(&mut Vec::new())?;
        hold!(over.closed, "the stream has ended, and that is not told");
        hold!(over.server.is_understood(over.client.protocol()), "the stream has ended, and not known is why");
        Self::closed(&mut over.client)
    }

    fn closed(client: &mut ClientState<S::Protocol>) -> Checked {
        let refused = client.request(S::question(0, 1)).is_err() && !client.leave();
        hold!(refused && client.asked_mode() == Mode::Closed, "closed, and something was accepted");
        Ok(())
    }
}

/// `idle` as in MPD's Process.cxx: events are kept while the client is not idle, and told all at once.
#[derive(Clone, Debug, Default, Hash)]
struct MpdServer {
    idle: bool,
    kept: Vec<u8>,
}

impl MpdServer {
    fn changed(&mut self) -> Vec<(Said, Vec<u8>)> {
        self.idle = false;
        let changed = |number| (Said::News(number), format!("changed: n{number}\n").into_bytes());
        let mut said: Vec<_> = self.kept.drain(..).map(changed).collect();
        said.push((Said::Ended { refused: false }, b"OK\n".to_vec()));
        said
    }
}

impl Server for MpdServer {
    type Protocol = Mpd;
    type Move = ();

    const QUESTIONS: usize = 2;
    const SUBSCRIPTIONS: usize = 2;
    const ENTER_IS_ANSWERED: bool = false;
    const IN_ORDER: bool = true;

    fn question(kind: usize, number: u8) -> mpd::Request {
        mpd::Command::new(["ask", "refuse"][kind]).arg(number.to_string()).into()
    }

    fn subscription(kind: usize) -> Vec<Subsystem> {
        [vec![], vec![Subsystem::from("refused")]][kind].clone()
    }

    fn new(_: &'static [Freedom]) -> (Self, Vec<(Said, Vec<u8>)>) {
        (MpdServer::default(), vec![(Said::Nothing, b"OK MPD 0.23.5\n".to_vec())])
    }

    fn frame(octets: &[u8]) -> Option<usize> {
        octets.iter().position(|&octet| octet == b'\n').map(|lf| lf + 1)
    }

    fn command(&mut self, command: &[u8]) -> Checked<Vec<(Said, Vec<u8>)>> {
        let command = str::from_utf8(command).unwrap().trim_end();
        let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
        hold!(!self.idle || name == "noidle", "in idle the client sent {command:?}");
        Ok(match name {
            "noidle" if self.idle => {
                self.idle = false;
                vec![(Said::Ended { refused: false }, b"OK\n".to_vec())]
            }
            "noidle" => vec![],
            "idle" if !argument.is_empty() => vec![(Said::Ended { refused: true }, b"ACK [4@0] {idle} no\n".to_vec())],
            "idle" if self.kept.is_empty() => {
                self.idle = true;
                vec![]
            }
            "idle" => self.changed(),
            "ask" | "refuse" => {
                let refused = name == "refuse";
                let answer = if refused { "ACK [2@0] {refuse} no\n".into() } else { format!("n: {argument}\nOK\n") };
                let question = argument.parse().unwrap();
                vec![(Said::Answer { question, refused, ends: false }, answer.into_bytes())]
            }
            _ => return Err(format!("what is {command:?}?")),
        })
    }

    fn news(&mut self, number: u8) -> Vec<(Said, Vec<u8>)> {
        self.kept.push(number);
        vec![]
    }

    fn moves(&self) -> Vec<()> {
        if self.idle && !self.kept.is_empty() { vec![()] } else { vec![] }
    }

    fn go_on(&mut self, (): ()) -> Vec<(Said, Vec<u8>)> {
        self.changed()
    }

    fn is_in_mode(&self) -> bool {
        self.idle
    }

    fn rung(subsystem: &Subsystem) -> Option<Said> {
        subsystem.as_str().strip_prefix('n')?.parse().ok().map(Said::News)
    }

    fn is_answer(question: u8, reply: &mpd::Answer) -> bool {
        reply.get("n") == Some(question.to_string().as_bytes())
    }
}

/// Pub/Sub as in Redis' pubsub.c: confirmations for each name, errors for whole commands, and few commands in the mode.
#[derive(Clone, Debug, Default, Hash)]
struct RedisServer {
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
    /// The first half of a leave was read, and there was something to leave.
    leaves: bool,
}

impl RedisServer {
    fn confirm(&mut self, kind: &str, names: &[Bytes]) -> Vec<Vec<u8>> {
        let is_pattern = kind.starts_with('p');
        let held = |server: &mut Self| if is_pattern { server.patterns.clone() } else { server.channels.clone() };
        let names = if names.is_empty() { held(self).into_iter().collect() } else { names.to_vec() };
        let mut confirmations = Vec::new();
        for name in &names {
            let held = if is_pattern { &mut self.patterns } else { &mut self.channels };
            if kind.contains("un") {
                held.remove(name)
            } else {
                held.insert(name.clone())
            };
            confirmations.push(array(&[bulk(kind), bulk(str::from_utf8(name).unwrap()), self.count()]));
        }
        if names.is_empty() {
            confirmations.push(array(&[bulk(kind), "$-1\r\n".into(), self.count()]));
        }
        confirmations
    }

    fn count(&self) -> String {
        format!(":{}\r\n", self.channels.len() + self.patterns.len())
    }
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn array(items: &[String]) -> Vec<u8> {
    (format!("*{}\r\n", items.len()) + &items.concat()).into_bytes()
}

/// Several frames, of which the last one tells something.
fn confirmed(confirmations: Vec<Vec<u8>>, last: Said) -> Vec<(Said, Vec<u8>)> {
    let parts = confirmations.len() - 1;
    let said = |at| if at == parts { last.clone() } else { Said::Nothing };
    confirmations.into_iter().enumerate().map(|(at, octets)| (said(at), octets)).collect()
}

impl Server for RedisServer {
    type Protocol = Redis;
    type Move = Infallible;

    const QUESTIONS: usize = 7;
    const SUBSCRIPTIONS: usize = 3;
    const ENTER_IS_ANSWERED: bool = true;
    const IN_ORDER: bool = true;

    /// A question has its number as the last word; where that is a name, no answer tells it.
    fn question(kind: usize, number: u8) -> redis::Command {
        let words: [&[&str]; Self::QUESTIONS] = [
            &["ECHO"],
            &["LOOKALIKE"],
            &["REFUSED"],
            &["PING"],
            &["PSUBSCRIBE", "p"],
            &["SUBSCRIBE", "secret"],
            &["UNSUBSCRIBE", "a"],
        ];
        redis::Command::new(words[kind][0]).args(&words[kind][1..]).arg(number.to_string())
    }

    fn subscription(kind: usize) -> Subscription {
        match kind {
            0 => Subscription::channels(["a"]),
            1 => Subscription::patterns(["p", "q"]),
            _ => Subscription::channels(["secret"]),
        }
    }

    fn new(_: &'static [Freedom]) -> (Self, Vec<(Said, Vec<u8>)>) {
        (RedisServer::default(), vec![])
    }

    fn frame(octets: &[u8]) -> Option<usize> {
        let line = octets.windows(2).position(|window| window == b"\r\n")? + 2;
        let number = || str::from_utf8(&octets[1..line - 2]).unwrap().parse::<usize>().unwrap_or(0);
        let end = match octets[0] {
            b'$' if octets[1] != b'-' => line + number() + 2,
            b'*' => (0..number()).try_fold(line, |end, _| Some(end + Self::frame(octets.get(end..)?)?))?,
            _ => line,
        };
        (octets.len() >= end).then_some(end)
    }

    fn command(&mut self, command: &[u8]) -> Checked<Vec<(Said, Vec<u8>)>> {
        let words: Vec<Bytes> = str::from_utf8(command)
            .unwrap()
            .split("\r\n")
            .filter(|line| !line.is_empty() && !line.starts_with(['*', '$']))
            .map(|word| Bytes::copy_from_slice(word.as_bytes()))
            .collect();
        let name = str::from_utf8(&words[0]).unwrap();
        // The number of a question, which neither an enter nor a leave has.
        let question = words.last().and_then(|word| str::from_utf8(word).ok()?.parse::<u8>().ok());
        let answer = |refused, ends| Said::Answer { question: question.unwrap(), refused, ends };
        let in_mode = self.is_in_mode();
        let text = question.map(|number| number.to_string()).unwrap_or_default();
        Ok(match name {
            "PING" if in_mode => vec![(answer(false, false), array(&[bulk("pong"), bulk(&text)]))],
            "PING" => vec![(answer(false, false), bulk(&text).into_bytes())],
            "SUBSCRIBE" | "PSUBSCRIBE" => {
                let said = if question.is_some() { answer(false, false) } else { Said::Entered };
                if words.iter().any(|word| word == "secret") {
                    let said = if question.is_some() { answer(true, false) } else { Said::EnterRefused };
                    return Ok(vec![(said, b"-NOPERM secret\r\n".to_vec())]);
                }
                confirmed(self.confirm(&name.to_lowercase(), &words[1..]), said)
            }
            "UNSUBSCRIBE" | "PUNSUBSCRIBE" => {
                let confirmations = self.confirm(&name.to_lowercase(), &words[1..]);
                let said = match question {
                    Some(_) => answer(false, in_mode && !self.is_in_mode()),
                    // The second half of a leave confirms it, if there was something to leave.
                    None if name == "PUNSUBSCRIBE" && self.leaves => Said::Left,
                    None => Said::Nothing,
                };
                if question.is_none() {
                    self.leaves = name == "UNSUBSCRIBE" && in_mode;
                }
                confirmed(confirmations, said)
            }
            _ if in_mode => {
                return Err(format!("in the mode the client sent {command:?}", command = command.escape_ascii()));
            }
            "ECHO" => vec![(answer(false, false), bulk(&text).into_bytes())],
            "LOOKALIKE" => vec![(answer(false, false), array(&[bulk("message"), bulk("a"), bulk(&text)]))],
            "REFUSED" => vec![(answer(true, false), b"-ERR no\r\n".to_vec())],
            _ => return Err(format!("what is {name:?}?")),
        })
    }

    fn news(&mut self, number: u8) -> Vec<(Said, Vec<u8>)> {
        let mut said = Vec::new();
        let text = number.to_string();
        if self.channels.contains(&b"a"[..]) {
            // In turn a message, and what only begins like one, as when keys are invalidated.
            let payload = if number % 2 == 1 { bulk(&text) } else { format!("*1\r\n{}", bulk(&text)) };
            said.push((Said::News(number), array(&[bulk("message"), bulk("a"), payload])));
        }
        if self.patterns.contains(&b"p"[..]) {
            said.push((Said::News(number), array(&[bulk("pmessage"), bulk("p"), bulk("a"), bulk(&text)])));
        }
        said
    }

    fn moves(&self) -> Vec<Infallible> {
        vec![]
    }

    fn go_on(&mut self, with: Infallible) -> Vec<(Said, Vec<u8>)> {
        match with {}
    }

    fn is_in_mode(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    fn rung(notification: &redis::Notification) -> Option<Said> {
        let payload = match notification {
            redis::Notification::Message { payload, .. } | redis::Notification::PatternMessage { payload, .. } => {
                payload
            }
            redis::Notification::Other(items) => match items.as_slice() {
                [_, _, Value::Array(keys)] => match keys.as_slice() {
                    [Value::Bulk(key)] => key,
                    _ => return None,
                },
                _ => return None,
            },
            redis::Notification::Monitor(_) => return None,
        };
        str::from_utf8(payload).ok()?.parse().ok().map(Said::News)
    }

    fn is_answer(question: u8, reply: &redis::Reply) -> bool {
        let number = |value: &Value| matches!(value, Value::Bulk(text) if *text == question.to_string());
        match reply {
            redis::Reply::Confirmed { confirmations, .. } => *confirmations == 2,
            redis::Reply::Value(Value::Array(items)) => items.last().is_some_and(number),
            redis::Reply::Value(value) => number(value),
        }
    }
}

/// What an IMAP server may do beside answering OK to one command after another, each before it reads the next, and sending
/// data at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Freedom {
    /// It reads on and answers later, in any order; also in IDLE.
    Reorders,
    /// It answers NO or BAD: to a command, to what announces a literal, to IDLE at once and after DONE.
    Refuses,
    /// It ends an IDLE by itself, by OK or BAD.
    Ends,
    /// Once in each IDLE it shows that it lives.
    Chats,
    /// It closes the connection, with BYE or without.
    Stops,
}

/// IDLE as in RFC 2177; commands in progress, their tags and literals as in RFC 3501.
#[derive(Clone, Debug, Hash)]
struct ImapServer {
    freedoms: &'static [Freedom],
    reading: Reading,
    /// What was read and is not answered, in the order read.
    owed: Vec<Owed>,
    /// The tag read last.
    tag: u8,
    /// An IDLE was ended unasked, and nothing was read since: `DONE` may be on its way.
    crossed: bool,
    bye: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owed {
    Question {
        tag: u8,
        question: u8,
    },
    /// A `DONE` that came too late.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    Commands,
    /// A literal was announced. Until it is asked for nothing may come.
    Announced {
        question: u8,
    },
    /// So many octets of it are to come, and the rest of the line.
    Literal {
        question: u8,
        octets: usize,
    },
    /// IDLE was read. Until it is confirmed nothing may come.
    Idle,
    /// Nothing may come but DONE.
    Idling {
        chatted: bool,
    },
    /// DONE was read.
    Done,
    /// Nothing any more.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Continue,
    Refuse(&'static str),
    /// What is owed, by its place.
    Answer(usize, &'static str),
    /// The tagged answer to IDLE.
    End(&'static str),
    StillHere,
    Bye,
    Stop,
}

/// Sent though it was refused, it would be taken for a command.
const LITERAL: &str = "DONE\r\n";

/// In turn data with a literal, which looks like an answer, and without.
fn data(number: u8) -> String {
    if number % 2 == 1 { format!("{number} FETCH (BODY[] {{9}}\r\nA2 OK 1\r\n)") } else { format!("{number} EXISTS") }
}

impl ImapServer {
    fn may(&self, freedom: Freedom) -> bool {
        self.freedoms.contains(&freedom)
    }

    /// A line that is no part of a literal.
    fn line(&mut self, line: &str) -> Checked<Vec<(Said, Vec<u8>)>> {
        if line == "DONE" {
            if let Reading::Idling { .. } = self.reading {
                self.reading = Reading::Done;
            } else {
                hold!(mem::take(&mut self.crossed), "DONE, and there is nothing that it could end");
                self.owed.push(Owed::Done);
            }
            return Ok(vec![]);
        }
        let what = || format!("in {reading:?} the client sent {line:?}", reading = self.reading);
        let (tag, command) = line.strip_prefix('A').and_then(|line| line.split_once(' ')).ok_or_else(what)?;
        let tag = tag.parse().map_err(|_| what())?;
        hold!(self.reading == Reading::Commands && tag > self.tag, "{}", what());
        (self.tag, self.crossed) = (tag, false);
        let words: Vec<&str> = command.split(' ').collect();
        match words[..] {
            ["IDLE"] => self.reading = Reading::Idle,
            ["ASK", number] => self.owed.push(Owed::Question { tag, question: number.parse().unwrap() }),
            ["KEEP", number, ..] => self.rest(number.parse().unwrap(), command),
            _ => return Err(what()),
        }
        Ok(vec![])
    }

    /// The end of a line, which may announce a literal.
    fn rest(&mut self, question: u8, line: &str) {
        let announces = line.ends_with(&format!("{{{}}}", LITERAL.len()));
        self.reading = if announces { Reading::Announced { question } } else { Reading::Commands };
        if !announces {
            self.owed.push(Owed::Question { tag: self.tag, question });
        }
    }
}

impl Server for ImapServer {
    type Protocol = Imap;
    type Move = Move;

    const QUESTIONS: usize = 2;
    const SUBSCRIPTIONS: usize = 1;
    const ENTER_IS_ANSWERED: bool = true;
    const IN_ORDER: bool = false;

    fn question(kind: usize, number: u8) -> imap::Command {
        let command = imap::Command::new(["ASK", "KEEP"][kind]).arg(number.to_string());
        if kind == 0 { command } else { command.literal(LITERAL).literal(LITERAL) }
    }

    fn subscription(_: usize) {}

    fn new(freedoms: &'static [Freedom]) -> (Self, Vec<(Said, Vec<u8>)>) {
        let reading = Reading::Commands;
        let server = ImapServer { freedoms, reading, owed: Vec::new(), tag: 0, crossed: false, bye: false };
        (server, vec![(Said::Nothing, b"* OK ready\r\n".to_vec())])
    }

    /// A line, also if it is a part of one with literals.
    fn frame(octets: &[u8]) -> Option<usize> {
        octets.windows(2).position(|window| window == b"\r\n").map(|crlf| crlf + 2)
    }

    fn tag(output: &[u8]) -> Option<u64> {
        let (tag, _) = str::from_utf8(output).unwrap().strip_prefix('A')?.split_once(' ')?;
        tag.parse().ok()
    }

    fn command(&mut self, command: &[u8]) -> Checked<Vec<(Said, Vec<u8>)>> {
        let line = str::from_utf8(command).unwrap();
        match self.reading {
            Reading::Literal { question, octets } if octets > 0 => {
                hold!(line == LITERAL, "for a literal came {line:?}");
                self.reading = Reading::Literal { question, octets: octets - line.len() };
            }
            Reading::Literal { question, .. } => self.rest(question, line.trim_end()),
            _ => return self.line(line.trim_end()),
        }
        Ok(vec![])
    }

    fn news(&mut self, number: u8) -> Vec<(Said, Vec<u8>)> {
        vec![(Said::News(number), format!("* {}\r\n", data(number)).into_bytes())]
    }

    fn moves(&self) -> Vec<Move> {
        let only = |freedom, moves: &[Move]| if self.may(freedom) { moves.to_vec() } else { vec![] };
        let mut moves = match self.reading {
            Reading::Stopped => return vec![],
            Reading::Commands | Reading::Literal { .. } | Reading::Idling { chatted: true } => vec![],
            Reading::Announced { .. } | Reading::Idle => vec![Move::Continue],
            Reading::Done => vec![Move::End("OK")],
            Reading::Idling { chatted: false } => only(Chats, &[Move::StillHere]),
        };
        moves.extend(match self.reading {
            Reading::Announced { .. } | Reading::Idle => only(Refuses, &[Move::Refuse("NO"), Move::Refuse("BAD")]),
            Reading::Idling { .. } => only(Ends, &[Move::End("OK"), Move::End("BAD")]),
            Reading::Done => only(Refuses, &[Move::End("NO")]),
            Reading::Commands | Reading::Literal { .. } | Reading::Stopped => vec![],
        });
        // After DONE it "MUST then immediately send the tagged response".
        if self.reading != Reading::Done {
            for (at, owed) in self.owed.iter().enumerate() {
                match *owed {
                    Owed::Question { question, .. } => {
                        let no = ["NO", "BAD"][usize::from(question % 2)];
                        moves.push(Move::Answer(at, "OK"));
                        moves.extend(only(Refuses, &[Move::Answer(at, no)]));
                    }
                    Owed::Done => moves.push(Move::Answer(at, "BAD")),
                }
            }
        }
        moves.extend(only(Stops, &[Move::Bye, Move::Stop]));
        moves
    }

    fn go_on(&mut self, with: Move) -> Vec<(Said, Vec<u8>)> {
        let (tag, reading) = (self.tag, self.reading);
        let refused = |condition| condition != "OK";
        let answer = |question, condition| Said::Answer { question, refused: refused(condition), ends: false };
        let (said, line, reading) = match (with, reading) {
            (Move::Continue, Reading::Announced { question }) => {
                (Said::Nothing, "+ go on".to_owned(), Reading::Literal { question, octets: LITERAL.len() })
            }
            (Move::Continue, _) => (Said::Entered, "+ idling".to_owned(), Reading::Idling { chatted: false }),
            (Move::Refuse(no), Reading::Announced { question }) => {
                (answer(question, no), format!("A{tag} {no} {question}"), Reading::Commands)
            }
            (Move::Refuse(no), _) => (Said::EnterRefused, format!("A{tag} {no} not here"), Reading::Commands),
            (Move::Answer(at, condition), _) => match self.owed.remove(at) {
                Owed::Question { tag, question } => {
                    (answer(question, condition), format!("A{tag} {condition} {question}"), reading)
                }
                Owed::Done => (Said::Nothing, format!("DONE {condition} what?"), reading),
            },
            (Move::End(condition), _) => {
                self.crossed = reading != Reading::Done;
                (Said::Ended { refused: refused(condition) }, format!("A{tag} {condition} idled"), Reading::Commands)
            }
            (Move::StillHere, _) => (Said::Nothing, "* OK Still here".to_owned(), Reading::Idling { chatted: true }),
            (Move::Bye, _) => {
                self.bye = true;
                (Said::Bye, "* BYE".to_owned(), Reading::Stopped)
            }
            (Move::Stop, _) => {
                self.reading = Reading::Stopped;
                return vec![];
            }
        };
        self.reading = reading;
        vec![(said, format!("{line}\r\n").into_bytes())]
    }

    fn is_awaited(&self) -> bool {
        !self.owed.is_empty() || matches!(self.reading, Reading::Announced { .. } | Reading::Idle | Reading::Done)
    }

    fn reads(&self) -> bool {
        match self.reading {
            Reading::Done | Reading::Stopped => false,
            _ => self.owed.is_empty() || self.may(Reorders),
        }
    }

    fn is_in_mode(&self) -> bool {
        matches!(self.reading, Reading::Idling { .. })
    }

    fn has_stopped(&self) -> bool {
        self.reading == Reading::Stopped
    }

    fn is_understood(&self, client: &Imap) -> bool {
        client.bye().is_some() == self.bye
    }

    fn rung(notification: &imap::Notification) -> Option<Said> {
        match notification {
            imap::Notification::Exists(number) => u8::try_from(*number).ok().map(Said::News),
            imap::Notification::Fetch { message, data: fetched } => {
                let number = u8::try_from(*message).ok()?;
                (**fetched == *data(number).as_bytes()).then_some(Said::News(number))
            }
            imap::Notification::Bye(_) => Some(Said::Bye),
            _ => None,
        }
    }

    fn is_answer(question: u8, reply: &imap::Status) -> bool {
        reply.text() == question.to_string().as_bytes()
    }
}
