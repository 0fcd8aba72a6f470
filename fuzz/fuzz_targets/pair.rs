//! A client and a server that are both honest understand each other, whatever the order of calls, answers, news, writes
//! and deliveries, and however the octets are cut: neither finds a fault, each answer goes to its own question, each
//! line that is pushed is told once and in order, enters and leaves alternate. Once all is delivered and answered nothing
//! is outstanding and both are in the same mode (a silent leave that no answer has proved is Leaving still). If the
//! connection is cut instead, each request has exactly one outcome.
//!
//! Input: a line of `s` (silent) or `a` (acknowledged), and `x` if the connection is cut at the end; then steps: `r`
//! random, `c` classified, `e` enter, `l` leave, `g` ring, `n` and `m` news of a kind, `a` the server answers; `w` and `o`
//! the client and the server write all, a capital one octet; `u` and `d` the server and the client receive all, a capital
//! one octet; `p` one poll, `P` polls until there is nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::board::{Board, Notification, Reply, Request, ServerState};
use sonnette::{ClientState, Event, Mode, RequestId};
use sonnette_fuzz::header;
use std::collections::VecDeque;

#[derive(Debug)]
struct Pair {
    client: ClientState<Board>,
    server: ServerState,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    /// The number of the next question, and of the next answer: each answer tells its number.
    asked: i64,
    answered: i64,
    outstanding: VecDeque<(RequestId, Asked)>,
    inside: Option<RequestId>,
    wants_in: bool,
    /// What the server has written, less what was told.
    pushed: VecDeque<Notification>,
    wrote: Vec<u8>,
}

#[derive(Debug, PartialEq)]
enum Asked {
    Random(i64),
    Classified(i64),
    Enter,
    Leave,
}

impl Pair {
    fn step(&mut self, step: u8) {
        match step {
            b'r' | b'c' | b'g' if !self.wants_in || step == b'g' => {
                let request = if step == b'c' { Request::Classified } else { Request::Random };
                if step == b'g' {
                    self.leave();
                }
                if let Ok(id) = self.client.request(request) {
                    let asked = if step == b'c' { Asked::Classified(self.asked) } else { Asked::Random(self.asked) };
                    self.outstanding.push_back((id, asked));
                    self.asked += 1;
                }
                if step == b'g' {
                    self.enter();
                }
            }
            b'e' => self.enter(),
            b'l' => self.leave(),
            b'n' => self.server.notify(Request::Random),
            b'm' => self.server.notify(Request::Classified),
            b'a' => self.answer(),
            b'w' | b'W' => {
                let octets = count(step == b'w', self.client.output().len());
                self.up.extend(&self.client.output()[..octets]);
                self.client.advance_output(octets);
            }
            b'o' | b'O' => {
                let octets = count(step == b'o', self.server.output().len());
                let written = self.server.output()[..octets].to_vec();
                self.server.advance_output(octets);
                self.down.extend(&written);
                for octet in written {
                    self.wrote.push(octet);
                    if octet == b'\n' {
                        let line = std::mem::take(&mut self.wrote);
                        self.pushed.extend(match &line[..] {
                            b"notif: random\r\n" => Some(Notification::Random),
                            b"notif: classified\r\n" => Some(Notification::Classified),
                            _ => None,
                        });
                    }
                }
            }
            b'u' | b'U' if self.server.wants_input() => {
                let octets: Vec<u8> = self.up.drain(..count(step == b'u', self.up.len())).collect();
                self.server.receive(&octets);
                self.server.poll_request();
            }
            b'd' | b'D' => {
                let octets: Vec<u8> = self.down.drain(..count(step == b'd', self.down.len())).collect();
                self.client.receive(&octets);
            }
            b'p' => {
                self.poll();
            }
            b'P' => while self.poll() {},
            _ => {}
        }
    }

    fn enter(&mut self) {
        if let (false, Ok(id)) = (self.wants_in, self.client.enter(())) {
            self.outstanding.push_back((id, Asked::Enter));
            self.wants_in = true;
        }
    }

    fn leave(&mut self) {
        if self.wants_in {
            assert!(self.client.leave(), "a leave is outstanding after it");
            self.outstanding.push_back((RequestId::from_wire(0), Asked::Leave));
            self.wants_in = false;
        }
    }

    fn answer(&mut self) {
        let answer = match self.server.poll_request() {
            Some(Request::Random) => Reply::Random(self.answered),
            Some(Request::Classified) => Reply::Classified(format!("number {}", self.answered).into()),
            None => return,
        };
        self.server.answer(answer).unwrap();
        self.answered += 1;
        self.server.poll_request();
    }

    fn poll(&mut self) -> bool {
        let Some(event) = self.client.poll_event().expect("a fault of an honest server") else { return false };
        let due = match &event {
            Event::Notification(notification) => {
                assert!(self.inside.is_some(), "a notification outside the mode");
                self.pushed.pop_front().as_ref() == Some(notification)
            }
            Event::Reply { id, reply: Reply::Random(number) } => {
                self.outstanding.pop_front() == Some((*id, Asked::Random(*number)))
            }
            Event::Reply { id, reply: Reply::Classified(text) } => {
                let number = String::from_utf8_lossy(text).trim_start_matches("number ").parse().unwrap();
                self.outstanding.pop_front() == Some((*id, Asked::Classified(number)))
            }
            Event::Entered { id } => {
                self.outstanding.pop_front() == Some((*id, Asked::Enter)) && self.inside.replace(*id).is_none()
            }
            Event::Left { id, asked: true, refusal: None } => {
                let left = self.outstanding.pop_front();
                left.is_some_and(|(_, asked)| asked == Asked::Leave) && self.inside.take() == Some(*id)
            }
            _ => false,
        };
        assert!(due, "{event:?} was not due: {self:?}");
        true
    }

    fn still(&self) -> bool {
        let pipes = self.up.is_empty() && self.down.is_empty() && self.client.output().is_empty();
        pipes && self.server.output().is_empty() && self.server.clone().poll_request().is_none()
    }
}

fn count(all: bool, octets: usize) -> usize {
    if all { octets } else { octets.min(1) }
}

fuzz_target!(|data: &[u8]| {
    let (first, steps) = header(data);
    let board = if first.starts_with(b"a") { Board::acknowledged() } else { Board::silent() };
    let mut pair = Pair {
        client: ClientState::new(board),
        server: ServerState::new(board),
        up: VecDeque::new(),
        down: VecDeque::new(),
        asked: 0,
        answered: 0,
        outstanding: VecDeque::new(),
        inside: None,
        wants_in: false,
        pushed: VecDeque::new(),
        wrote: Vec::new(),
    };
    for &step in steps {
        pair.step(step);
        assert!(pair.server.error().is_none(), "a fault of an honest client");
    }

    if first.ends_with(b"x") {
        pair.client.receive_eof();
        let mut ended = false;
        while let Ok(Some(event)) = pair.client.poll_event() {
            let id = match event {
                Event::Reply { id, .. } | Event::Entered { id } | Event::Lost { id, .. } => id,
                Event::Closed => {
                    ended = true;
                    continue;
                }
                _ => continue,
            };
            pair.outstanding.retain(|(_, asked)| *asked != Asked::Leave);
            assert_eq!(pair.outstanding.pop_front().map(|(id, _)| id), Some(id), "one outcome, in the order asked");
        }
        assert!(ended || pair.client.poll_event().is_err(), "no end after the end of the stream");
        pair.outstanding.retain(|(_, asked)| *asked != Asked::Leave);
        assert!(pair.outstanding.is_empty(), "no outcome: {:?}", pair.outstanding);
        return;
    }

    // Each round moves something, or all is still.
    for round in 0.. {
        b"wuaodP".iter().for_each(|&step| pair.step(step));
        if pair.still() {
            break;
        }
        assert!(round < 10_000, "no way on: {pair:?}");
    }
    let unproved = board == Board::silent() && pair.outstanding.iter().all(|(_, asked)| *asked == Asked::Leave);
    assert!(pair.outstanding.is_empty() || (unproved && pair.outstanding.len() == 1), "{pair:?}");
    assert!(pair.pushed.is_empty() && pair.client.unread().is_empty() && !pair.client.is_gated(), "{pair:?}");
    assert_eq!(pair.server.is_in_notification_mode(), pair.wants_in);
    let mode = match (pair.wants_in, pair.outstanding.is_empty()) {
        (true, _) => Mode::Notification,
        (false, true) => Mode::Normal,
        (false, false) => Mode::Leaving,
    };
    assert_eq!(pair.client.mode(), mode);
});
