//! Law 10, exhaustively up to a bound: the real client and the real server of the notice board, joined by two FIFO
//! pipes, in every state they can reach. Breadth first, so that what fails is told with a shortest way to it.
//!
//! The steps are what the application asks, the server's news, each write and each delivery, and each deadline, in every
//! order; the connection is cut in every state. What is checked is in [`World::poll`] (each event by itself), [`World::settled`]
//! (each state), [`World::after`] (law 2; visible output stays), [`World::take`] (a leave is not written before
//! its enter was confirmed) and [`World::cut`] (laws 4 and 6).
//!
//! To give up on a request is to ignore its event: there is no call for it, hence no step.
//!
//! No order of steps is left out. Only what the drivers do in one go is one step: the server looks for the next
//! question whenever it has received or answered something, and receives only while it wants to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

#[macro_use]
mod search;

use search::{Bounds, Checked, Pieces, Polling, bounds, search};
use sonnette::board::{Board, Notification, Reply, Request, ServerState};
use sonnette::{ClientState, Error, Event, Mode, RequestId, Timeouts};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

// The ordinary run: unoptimised, some seconds in all.

#[test]
fn silent_polling_at_once() {
    search::<World>(&Run { bounds: bounds(3, 2, 2, 2), ..SILENT });
}

#[test]
fn acknowledged_polling_at_once() {
    search::<World>(&Run { bounds: bounds(2, 2, 2, 2), ..ACKNOWLEDGED });
}

#[test]
fn silent_polling_late() {
    search::<World>(&Run { polling: Polling::Late, bounds: bounds(2, 1, 2, 2), ..SILENT });
}

#[test]
fn acknowledged_polling_late() {
    search::<World>(&Run { polling: Polling::Late, bounds: bounds(2, 1, 2, 2), ..ACKNOWLEDGED });
}

#[test]
fn silent_by_octets() {
    search::<World>(&Run { pieces: Pieces::Octets, bounds: bounds(1, 0, 1, 1), ..SILENT });
    search::<World>(&Run { pieces: Pieces::Octets, bounds: bounds(0, 1, 1, 1), ..SILENT });
}

#[test]
fn acknowledged_by_octets() {
    search::<World>(&Run { pieces: Pieces::Octets, bounds: bounds(1, 0, 1, 1), ..ACKNOWLEDGED });
    search::<World>(&Run { pieces: Pieces::Octets, bounds: bounds(0, 1, 1, 1), ..ACKNOWLEDGED });
}

#[test]
fn silent_in_time() {
    for timeouts in [REFRESH, SILENCE, REPLY, ALL] {
        search::<World>(&Run { timeouts, expiries: 1, bounds: bounds(1, 1, 2, 2), ..SILENT });
    }
}

#[test]
fn acknowledged_in_time() {
    for timeouts in [REFRESH, SILENCE, REPLY, ALL] {
        search::<World>(&Run { timeouts, expiries: 1, bounds: bounds(1, 1, 2, 2), ..ACKNOWLEDGED });
    }
}

// The bounds that must hold before a change lands.

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_silent_in_time() {
    for timeouts in [REFRESH, SILENCE, REPLY, ALL] {
        search::<World>(&Run { timeouts, expiries: 2, bounds: bounds(2, 2, 2, 2), ..SILENT });
        search::<World>(&Run { timeouts, expiries: 2, polling: Polling::Late, bounds: bounds(1, 1, 2, 2), ..SILENT });
    }
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_acknowledged_in_time() {
    for timeouts in [REFRESH, SILENCE, REPLY, ALL] {
        search::<World>(&Run { timeouts, expiries: 2, bounds: bounds(2, 2, 2, 2), ..ACKNOWLEDGED });
        search::<World>(&Run {
            timeouts,
            expiries: 2,
            polling: Polling::Late,
            bounds: bounds(1, 1, 2, 2),
            ..ACKNOWLEDGED
        });
    }
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_silent_polling_at_once() {
    search::<World>(&Run { bounds: bounds(4, 3, 3, 3), ..SILENT });
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_acknowledged_polling_at_once() {
    search::<World>(&Run { bounds: bounds(3, 2, 3, 3), ..ACKNOWLEDGED });
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_silent_polling_late() {
    search::<World>(&Run { polling: Polling::Late, bounds: bounds(2, 2, 3, 3), ..SILENT });
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_acknowledged_polling_late() {
    search::<World>(&Run { polling: Polling::Late, bounds: bounds(2, 2, 3, 3), ..ACKNOWLEDGED });
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_silent_by_octets() {
    search::<World>(&Run { pieces: Pieces::Octets, bounds: bounds(1, 1, 1, 1), ..SILENT });
    search::<World>(&Run { polling: Polling::Late, pieces: Pieces::Octets, bounds: bounds(1, 1, 1, 1), ..SILENT });
}

#[test]
#[ignore = "a million states: .ci/model runs it in the release profile"]
fn full_acknowledged_by_octets() {
    search::<World>(&Run { pieces: Pieces::Octets, bounds: bounds(1, 1, 1, 1), ..ACKNOWLEDGED });
    search::<World>(&Run {
        polling: Polling::Late,
        pieces: Pieces::Octets,
        bounds: bounds(1, 1, 1, 1),
        ..ACKNOWLEDGED
    });
}

// As far as some minutes and some GB of memory go.

#[test]
#[ignore = "many millions of states: .ci/model larger runs it in the release profile"]
fn larger_silent_polling_at_once() {
    search::<World>(&Run { bounds: bounds(4, 3, 4, 4), ..SILENT });
}

#[test]
#[ignore = "many millions of states: .ci/model larger runs it in the release profile"]
fn larger_acknowledged_polling_at_once() {
    search::<World>(&Run { bounds: bounds(5, 4, 5, 5), ..ACKNOWLEDGED });
}

#[test]
#[ignore = "many millions of states: .ci/model larger runs it in the release profile"]
fn larger_silent_polling_late() {
    search::<World>(&Run { polling: Polling::Late, bounds: bounds(3, 2, 3, 3), ..SILENT });
}

#[test]
#[ignore = "many millions of states: .ci/model larger runs it in the release profile"]
fn larger_acknowledged_polling_late() {
    search::<World>(&Run { polling: Polling::Late, bounds: bounds(3, 3, 3, 3), ..ACKNOWLEDGED });
}

#[derive(Clone, Copy, Debug)]
struct Run {
    dialect: Dialect,
    polling: Polling,
    pieces: Pieces,
    bounds: Bounds,
    timeouts: Timeouts,
    /// How many deadlines may come.
    expiries: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Silent,
    Acknowledged,
}

const SILENT: Run = Run {
    dialect: Dialect::Silent,
    polling: Polling::AtOnce,
    pieces: Pieces::Frames,
    bounds: bounds(0, 0, 0, 0),
    timeouts: Timeouts { reply: None, refresh: None, silence: None },
    expiries: 0,
};
const ACKNOWLEDGED: Run = Run { dialect: Dialect::Acknowledged, ..SILENT };

/// A deadline comes at any time: how long it takes is of no importance, but which is the next.
const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

const REFRESH: Timeouts = Timeouts { reply: None, refresh: seconds(1), silence: None };
const SILENCE: Timeouts = Timeouts { reply: None, refresh: None, silence: seconds(1) };
const REPLY: Timeouts = Timeouts { reply: seconds(1), refresh: None, silence: None };
const ALL: Timeouts = Timeouts { reply: seconds(3), refresh: seconds(2), silence: seconds(2) };

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Request,
    Enter,
    Leave,
    /// Leave, request and enter, with no poll between.
    Ring,
    News,
    /// The server answers the question that it has read.
    Answer,
    /// The client writes one piece.
    WriteUp,
    /// The server receives one piece.
    Up,
    /// The server writes one piece.
    WriteDown,
    /// The client receives one piece.
    Down,
    Poll,
    /// The next deadline of the client comes. Time passes in this step alone.
    Expire,
}

const STEPS: [Step; 12] = {
    use Step::{Answer, Down, Enter, Expire, Leave, News, Poll, Request, Ring, Up, WriteDown, WriteUp};
    [Request, Enter, Leave, Ring, News, Answer, WriteUp, Up, WriteDown, Down, Poll, Expire]
};

/// Both peers and what is between them; what may still happen; and, since the machine is not to be asked about itself,
/// what each event must be.
#[derive(Clone, Debug, Hash)]
struct World {
    client: ClientState<Board>,
    server: ServerState,
    /// What was written and not received.
    up: Vec<u8>,
    down: Vec<u8>,
    /// The server has read a question.
    question: bool,
    /// Frames of which the client has written an octet, and whether the last of them is not all written. Every call
    /// takes one id and is one frame, so this is the id it was written for.
    begun: u64,
    midway: bool,

    silent: bool,
    late: bool,
    left: Bounds,
    expiries: u8,
    now: Duration,
    /// A deadline has come that is not judged yet.
    due: bool,
    /// One was missed: the connection is over.
    over: bool,
    /// Ids taken, and how many of them by requests.
    asked: u64,
    questions: i64,
    answered: i64,
    /// News so far.
    happened: i64,

    outstanding: VecDeque<Asked>,
    inside: Option<RequestId>,
    /// The last change of mode asked for is an enter.
    wants_in: bool,
    /// As many news had happened when the last answer that was polled was given.
    fetched: i64,
    /// A notification was polled since the last request.
    told: bool,
    /// What the application knows to be the number: the last answer polled, if no notification was since.
    known: Option<i64>,
    /// A probe has read another one: the client must tell.
    bell: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asked {
    /// The question with this number.
    Request(RequestId, i64),
    Enter(RequestId),
    Leave,
    /// The machine's own question with this number, and its own enter.
    Probe(i64),
    Renewal(RequestId),
}

type Events = Vec<Event<Board>>;

impl search::World for World {
    type Run = Run;
    type Step = Step;
    type Told = Events;

    fn new(run: &Run) -> Self {
        let silent = run.dialect == Dialect::Silent;
        let board = if silent { Board::silent() } else { Board::acknowledged() };
        let mut client = ClientState::new(board);
        client.set_timeouts(run.timeouts);
        World {
            client,
            server: ServerState::new(board),
            up: Vec::new(),
            down: Vec::new(),
            question: false,
            begun: 0,
            midway: false,
            silent,
            late: run.polling == Polling::Late,
            left: run.bounds,
            expiries: run.expiries,
            now: Duration::ZERO,
            due: false,
            over: false,
            asked: 0,
            questions: 0,
            answered: 0,
            happened: 0,
            outstanding: VecDeque::new(),
            inside: None,
            wants_in: false,
            fetched: 0,
            told: false,
            known: None,
            bell: false,
        }
    }

    fn steps(&self) -> Vec<Step> {
        STEPS.into_iter().filter(|step| self.can(*step)).collect()
    }

    fn after(&self, step: Step, run: &Run) -> Checked<(Self, Events)> {
        let (mut next, mut told) = (self.clone(), Events::new());
        next.take(step, run)?;
        match step {
            Step::Poll => told.extend(next.poll()?),
            _ if !self.late => next.drain(&mut told)?,
            Step::Request | Step::Enter | Step::Leave | Step::Ring | Step::Down if !self.due => {
                // Law 2. Events do not depend on whether it was polled before this step, or only after it.
                let (mut polled, mut before) = (self.clone(), Events::new());
                polled.drain(&mut before)?;
                polled.take(step, run)?;
                polled.drain(&mut before)?;
                let (mut unpolled, mut after) = (next.clone(), Events::new());
                unpolled.drain(&mut after)?;
                hold!(before == after, "{step:?}, polled before it: {before:?}; polled after it: {after:?}");
            }
            // Of a deadline, what is received between it and a poll is to be judged by.
            _ => {}
        }
        let stays = step == Step::WriteUp || next.client.output().starts_with(self.client.output());
        hold!(stays, "{step:?} took back output that was visible");
        Ok((next, told))
    }

    fn check(&self, run: &Run) -> Checked {
        self.settled()?;
        (0..3).try_for_each(|how| self.cut(run, how))
    }
}

impl World {
    fn can(&self, step: Step) -> bool {
        let Bounds { requests, news, enters, leaves } = self.left;
        match step {
            _ if self.over => false,
            Step::Request => requests > 0 && !self.wants_in,
            Step::Enter => enters > 0 && !self.wants_in,
            Step::Leave => leaves > 0 && self.wants_in,
            Step::Ring => requests > 0 && enters > 0 && leaves > 0 && self.wants_in,
            Step::News => news > 0,
            Step::Answer => self.question,
            Step::WriteUp => !self.client.output().is_empty(),
            Step::Up => !self.up.is_empty() && self.server.wants_input(),
            Step::WriteDown => !self.server.output().is_empty(),
            Step::Down => !self.down.is_empty(),
            Step::Poll => self.late,
            Step::Expire => self.expiries > 0 && self.client.clone().poll_timeout(self.now).is_some(),
        }
    }

    fn take(&mut self, step: Step, run: &Run) -> Checked {
        match step {
            Step::Request | Step::Enter | Step::Leave | Step::Ring => self.call(step)?,
            Step::Poll => {}
            Step::Expire => {
                let due = self.client.poll_timeout(self.now).unwrap();
                hold!(due >= self.now, "at {:?} the deadline of {due:?} has been missed", self.now);
                (self.now, self.due) = (due, true);
                self.expiries -= 1;
                self.client.handle_timeout(due);
            }
            Step::News => {
                self.left.news -= 1;
                self.happened += 1;
                self.server.notify(Request::Random);
            }
            Step::Answer => self.answer(),
            Step::WriteUp => {
                let piece = piece(run, self.client.output()).to_vec();
                self.begun += u64::from(!self.midway);
                let early = |asked: &Asked| matches!(asked, Asked::Enter(id) if id.get() < self.begun);
                let is_leave = !self.midway && piece.starts_with(b"s");
                let waits = self.silent || !is_leave || !self.outstanding.iter().any(early);
                hold!(waits, "a leave was written before its enter was confirmed");
                self.midway = !piece.ends_with(b"\n");
                self.up.extend(&piece);
                self.client.advance_output(piece.len());
            }
            Step::Up => {
                let piece = piece(run, &self.up).to_vec();
                self.server.receive(&piece);
                self.question = self.server.poll_request().is_some();
                self.up.drain(..piece.len());
            }
            Step::WriteDown => {
                let piece = piece(run, self.server.output()).to_vec();
                self.down.extend(&piece);
                self.server.advance_output(piece.len());
            }
            Step::Down => {
                let piece = piece(run, &self.down).to_vec();
                self.client.receive(&piece);
                self.down.drain(..piece.len());
            }
        }
        Ok(())
    }

    fn call(&mut self, step: Step) -> Checked {
        if matches!(step, Step::Leave | Step::Ring) {
            hold!(self.client.leave(), "leave() said that there is nothing to leave");
            self.left.leaves -= 1;
            self.asked += 1;
            self.outstanding.push_back(Asked::Leave);
            self.wants_in = false;
        }
        if matches!(step, Step::Request | Step::Ring) {
            let id = self.client.request(Request::Random).map_err(|rejected| format!("{rejected:?}"))?;
            self.left.requests -= 1;
            self.asked += 1;
            self.questions += 1;
            hold!(id.get() == self.asked, "the {}th id is {id}", self.asked);
            self.outstanding.push_back(Asked::Request(id, self.questions));
            self.told = false;
        }
        if matches!(step, Step::Enter | Step::Ring) {
            let id = self.client.enter(()).map_err(|rejected| format!("{rejected:?}"))?;
            self.left.enters -= 1;
            self.asked += 1;
            hold!(id.get() == self.asked, "the {}th id is {id}", self.asked);
            self.outstanding.push_back(Asked::Enter(id));
            self.wants_in = true;
        }
        Ok(())
    }

    /// Each answer tells which question it answers, and how many news there were.
    fn answer(&mut self) {
        self.answered += 1;
        self.server.answer(Reply::Random(self.answered * NEWS + self.happened)).unwrap();
        self.question = self.server.poll_request().is_some();
    }

    fn drain(&mut self, told: &mut Events) -> Checked {
        while let Some(event) = self.poll()? {
            told.push(event);
        }
        Ok(())
    }

    /// Polls once. An event must be the one that is due: what was asked is answered in that order, each by its own
    /// answer, enter and leave in turn; and each line that the server pushed is told when it is read, in the mode.
    fn poll(&mut self) -> Checked<Option<Event<Board>>> {
        let (unread, output) = (self.client.unread().to_vec(), self.client.output().len());
        let event = match self.client.poll_event() {
            Ok(event) => event,
            Err(error @ (Error::ReplyTimeout | Error::SilenceTimeout)) if self.due || self.over => {
                // A silent leave waits for nothing.
                let waits = self.outstanding.iter().any(|asked| asked.id().is_some());
                hold!(!waits, "{error:?}, and {:?} is not told", self.outstanding);
                self.over = true;
                return Ok(None);
            }
            Err(error) => return Err(format!("a violation between honest peers: {error:?}")),
        };
        let mut read = 0;
        for line in unread[..unread.len() - self.client.unread().len()].split_inclusive(is_lf) {
            read += usize::from(*line == *b"notif: random\r\n");
            self.absorb(line);
        }
        if self.client.output().len() > output && !matches!(event, Some(Event::Entered { .. })) {
            self.acted(output)?;
        }
        self.due &= event.is_some();
        let rings = matches!(event, Some(Event::Notification(_)));
        if rings && read == 0 {
            hold!(self.bell, "a notification that nobody sent");
            self.bell = false;
        } else {
            hold!(read == usize::from(rings), "{read} notifications read, {event:?}");
        }
        let due = match &event {
            None => !self.bell,
            Some(Event::Notification(notification)) => {
                (self.told, self.known) = (true, self.known.filter(|_| read == 0));
                *notification == Notification::Random && (self.inside.is_some() || read == 0)
            }
            Some(Event::Lost { id, .. }) if self.due => {
                self.over = true;
                while self.outstanding.front().is_some_and(|asked| asked.id().is_none()) {
                    self.outstanding.pop_front();
                }
                self.outstanding.pop_front().and_then(Asked::id) == Some(*id)
            }
            Some(Event::Reply { id, reply: Reply::Random(number) }) => {
                let fetched = std::mem::replace(&mut self.fetched, number % NEWS);
                self.known = Some(*number);
                self.outstanding.pop_front() == Some(Asked::Request(*id, number / NEWS)) && fetched <= self.fetched
            }
            Some(Event::Entered { id }) => {
                let asked = self.outstanding.pop_front();
                [Asked::Enter(*id), Asked::Renewal(*id)].map(Some).contains(&asked)
                    && self.inside.replace(*id).is_none()
            }
            Some(Event::Left { id, asked: true, refusal: None }) => {
                self.outstanding.pop_front() == Some(Asked::Leave) && self.inside.take() == Some(*id)
            }
            Some(_) => false,
        };
        hold!(due, "{event:?} was not due");
        Ok(event)
    }

    /// A line that was read: the answer to a probe is told to nobody. The server takes its news for fetched; an
    /// application that has fetched them before, and was not told of newer ones, must be told now.
    fn absorb(&mut self, line: &[u8]) {
        let number = String::from_utf8_lossy(line).trim_end().parse::<i64>();
        if let (Ok(number), Some(&Asked::Probe(question))) = (number, self.next_answered()) {
            if number / NEWS == question {
                self.outstanding.retain(|asked| *asked != Asked::Probe(question));
                match self.known.replace(number) {
                    Some(known) => self.bell = known != number,
                    // It was told already, or it has never asked for the number, and then all is news to it.
                    None => self.told = true,
                }
            }
        }
    }

    /// The first that is answered by a line.
    fn next_answered(&self) -> Option<&Asked> {
        self.outstanding.iter().find(|asked| !self.silent || matches!(asked, Asked::Request(..) | Asked::Probe(_)))
    }

    /// The machine has asked for something by itself: only when a deadline has come, and when all before is written.
    fn acted(&mut self, from: usize) -> Checked {
        let asks = self.client.output()[from..].to_vec();
        hold!(self.due, "without a deadline the client asks {:?}", String::from_utf8_lossy(&asks));
        for line in asks.split_inclusive(is_lf) {
            self.asked += 1;
            self.outstanding.push_back(match line {
                b"stop_notif\r\n" => Asked::Leave,
                b"notif\r\n" => Asked::Renewal(self.client.refreshing().ok_or("an enter of nobody's")?),
                _ => {
                    self.questions += 1;
                    Asked::Probe(self.questions)
                }
            });
        }
        Ok(())
    }

    /// What must hold in each state.
    fn settled(&self) -> Checked {
        if self.over {
            return Ok(());
        }
        let change = self.outstanding.iter().find_map(|asked| match asked {
            Asked::Enter(_) | Asked::Renewal(_) => Some(Mode::Entering),
            Asked::Leave => Some(Mode::Leaving),
            Asked::Request(..) | Asked::Probe(_) => None,
        });
        let settled = if self.inside.is_some() { Mode::Notification } else { Mode::Normal };
        let asked_mode = match (change, self.wants_in) {
            (None, _) => settled,
            (Some(_), true) => Mode::Entering,
            (Some(_), false) => Mode::Leaving,
        };
        let modes = (self.client.mode(), self.client.asked_mode());
        hold!(modes == (change.unwrap_or(settled), asked_mode), "mode and asked mode are {modes:?}");

        // What is not allowed is rejected, and leaves no trace.
        let mut client = self.client.clone();
        let rejected = if self.wants_in {
            client.enter(()).is_err() && client.request(Request::Random).is_err()
        } else {
            client.leave() == (asked_mode == Mode::Leaving)
        };
        hold!(rejected && client == self.client, "in {asked_mode:?}, a call that is not allowed");

        // With both pipes empty and all polled, nobody waits for anybody: there is no deadlock. And all agree.
        let quiet =
            [self.client.output(), &self.up, self.server.output(), &self.down].iter().all(|pipe| pipe.is_empty());
        let mut polled = self.clone();
        if quiet && !self.question && !self.due && polled.poll()?.is_none() {
            let Self { outstanding, client, .. } = &polled;
            let unproved = self.silent && *outstanding == [Asked::Leave];
            hold!(outstanding.is_empty() || unproved, "all is still, and {outstanding:?} is outstanding");
            hold!(!client.is_gated() && client.unread().is_empty(), "all is still, but for some octets");
            let server_is_in = self.server.is_in_notification_mode();
            hold!(server_is_in == self.wants_in, "the server is in the mode: {server_is_in}");
            let knows = polled.fetched == polled.happened || polled.told;
            hold!(!server_is_in || knows, "there is news that the client was not told of");
        }
        Ok(())
    }

    /// The connection is cut here. How much of what is on its way arrives, and what the application calls before it
    /// polls the end, is chosen by `how`: none of them meets another, so not every combination is tried.
    fn cut(&self, run: &Run, how: usize) -> Checked {
        if self.over || self.due {
            return Ok(());
        }
        let mut end = self.clone();
        let (up, down) = (piece(run, &end.up).len(), piece(run, &end.down).len());
        end.server.receive(&end.up[..[end.up.len(), up.min(1), up.saturating_sub(1)][how]]);
        end.server.receive_eof();
        end.question = end.server.poll_request().is_some();
        while end.question {
            end.answer();
        }
        end.server.advance_output(usize::MAX);
        hold!(end.server.is_finished() && end.server.error().is_none(), "the server does not close: {:?}", end.server);

        end.client.receive(&end.down[..[0, down.min(1), down.saturating_sub(1)][how]]);
        let (mut open, mut decodable) = (end.clone(), Events::new());
        open.drain(&mut decodable)?;
        let mut client = end.client;
        let inside_frame = open.client.unread().len() as u64;
        client.receive_eof();
        let mut lost: Vec<RequestId> = open.outstanding.iter().filter_map(|asked| asked.id()).collect();
        match how {
            1 if !self.wants_in => lost.extend(client.request(Request::Random).ok()),
            2 if !self.wants_in => lost.extend(client.enter(()).ok()),
            2 => hold!(client.leave(), "leave() said that there is nothing to leave"),
            _ => {}
        }

        let lost = lost.into_iter().map(|id| Event::Lost { id, sent: id.get() <= self.begun });
        let last = match inside_frame {
            0 => [Ok(Some(Event::Closed)), Ok(None), Ok(None)],
            octets => [(); 3].map(|()| Err(Error::UnexpectedEof { octets })),
        };
        let before = decodable.len();
        for (at, expected) in decodable.into_iter().chain(lost).map(|event| Ok(Some(event))).chain(last).enumerate() {
            let polled = client.poll_event();
            hold!(polled == expected, "cut ({how}), then {polled:?}, not {expected:?}");
            hold!((client.mode() == Mode::Closed) == (at >= before), "{:?} after {polled:?}", client.mode());
        }
        let refused = client.request(Request::Random).is_err() && client.enter(()).is_err() && !client.leave();
        client.advance_output(usize::MAX);
        hold!(refused && client.asked_mode() == Mode::Closed, "closed, and something was accepted");
        Ok(())
    }
}

/// More than there are news: an answer is the number of its question, times this, and the number of news.
const NEWS: i64 = 16;

/// What one delivery takes from the front of a pipe.
fn piece<'a>(run: &Run, pipe: &'a [u8]) -> &'a [u8] {
    match run.pieces {
        Pieces::Frames => pipe.split_inclusive(is_lf).next().unwrap_or_default(),
        Pieces::Octets => &pipe[..pipe.len().min(1)],
    }
}

fn is_lf(octet: &u8) -> bool {
    *octet == b'\n'
}

impl Asked {
    fn id(self) -> Option<RequestId> {
        match self {
            Asked::Request(id, _) | Asked::Enter(id) => Some(id),
            Asked::Leave | Asked::Probe(_) | Asked::Renewal(_) => None,
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bounds { requests, news, enters, leaves } = self.bounds;
        write!(
            f,
            "{:?}, {:?}, polling {:?}, {requests} requests, {news} news, {enters} enters, {leaves} leaves",
            self.dialect, self.pieces, self.polling
        )?;
        match self.expiries {
            0 => Ok(()),
            expiries => write!(f, ", {expiries} deadlines of {:?}", self.timeouts),
        }
    }
}
