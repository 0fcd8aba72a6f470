//! Whatever is asked and whatever the peer sends, nothing panics, and any chunking of the input gives the same events,
//! error and state (law 1), as does polling only at the end if all calls had the same results (law 2). Each request and
//! enter has exactly one outcome (law 4), and the end is final (law 6): `Lost` for each that is outstanding, in the order
//! asked, then `Closed` once and `Ok(None)`, or the same error every time.
//!
//! Input: two lines, then the wire.
//! 1. `s` (silent) or `a` (acknowledged), a capital for small limits; then steps: `r` random, `c` classified, `e` enter,
//!    `l` leave, `w` all output is written, `o` one octet of it, a digit: so many octets of the wire are received, `*`:
//!    those up to the next LF, `x` the stream ends. What is left of the wire is received last.
//! 2. The sizes of chunks, see `Chunking::Chosen`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::board::{Board, Request};
use sonnette::{ClientState, Error, Limits, Mode, Reason, RequestId};
use sonnette_fuzz::{Chunking, header};
use std::collections::BTreeMap;

type Event = sonnette::Event<Board>;

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Request(Request),
    Enter,
    Leave,
    Write(usize),
    Receive(&'a [u8]),
    Eof,
}

/// What a step returned.
#[derive(Debug, PartialEq)]
enum Returned {
    Asked(Result<RequestId, Reason>),
    Leaving(bool),
    Written(usize),
}

struct Run<'a> {
    state: ClientState<Board>,
    chunking: Chunking<'a>,
    /// After each step and each chunk, or only at the end.
    polls: bool,
    returned: Vec<Returned>,
    events: Vec<Event>,
    end: Option<Result<(), Error>>,
    /// Requests and enters that were accepted.
    asked: BTreeMap<RequestId, Asked>,
    /// Everything until the end of the stream.
    received: Vec<u8>,
    eof: bool,
    written: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct Asked {
    is_enter: bool,
    after_eof: bool,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Answered,
    Refused,
    Entered,
    Left,
    Lost,
}

impl<'a> Run<'a> {
    fn new(state: ClientState<Board>, chunking: Chunking<'a>, polls: bool) -> Self {
        Run {
            state,
            chunking,
            polls,
            returned: Vec::new(),
            events: Vec::new(),
            end: None,
            asked: BTreeMap::new(),
            received: Vec::new(),
            eof: false,
            written: Vec::new(),
        }
    }

    fn step(&mut self, step: Step<'a>) {
        match step {
            Step::Request(request) => {
                let returned = self.state.request(request);
                self.accept(false, returned.map_err(|rejected| rejected.reason));
            }
            Step::Enter => {
                let returned = self.state.enter(());
                self.accept(true, returned.map_err(|rejected| rejected.reason));
            }
            Step::Leave => {
                let leaving = self.state.leave();
                assert!(!leaving || self.end.is_none(), "a leave is outstanding after the end");
                self.returned.push(Returned::Leaving(leaving));
            }
            Step::Write(most) => {
                let window = self.state.output();
                let written = most.min(window.len());
                self.written.extend(&window[..written]);
                self.state.advance_output(most);
                self.returned.push(Returned::Written(written));
            }
            Step::Receive(octets) => {
                self.received.extend(octets.iter().filter(|_| !self.eof));
                for chunk in self.chunking.cut(octets) {
                    self.state.receive(chunk);
                    self.poll_early();
                }
            }
            Step::Eof => {
                self.state.receive_eof();
                self.eof = true;
            }
        }
        self.poll_early();
    }

    fn accept(&mut self, is_enter: bool, returned: Result<RequestId, Reason>) {
        assert!(self.end.is_none() || returned == Err(Reason::Closed), "{returned:?} after the end");
        if let Ok(id) = returned {
            assert!(self.asked.keys().all(|&earlier| earlier < id), "ids ascend");
            self.asked.insert(id, Asked { is_enter, after_eof: self.eof, outcome: None });
        }
        self.returned.push(Returned::Asked(returned));
    }

    fn poll_early(&mut self) {
        if self.polls {
            self.poll();
        }
    }

    fn poll(&mut self) {
        loop {
            let visible = self.state.output().to_vec();
            let polled = self.state.poll_event();
            assert!(self.state.output().starts_with(&visible), "what was once visible stays");
            match (&self.end, polled) {
                (None, Ok(Some(event))) => {
                    self.check(&event);
                    self.events.push(event);
                }
                (None | Some(Ok(())), Ok(None)) => return,
                (None, Err(error)) => {
                    assert_eq!(self.state.mode(), Mode::Closed);
                    self.end = Some(Err(error));
                    return;
                }
                (Some(Err(error)), Err(again)) if *error == again => return,
                (Some(end), polled) => panic!("{polled:?} after {end:?}"),
            }
        }
    }

    fn check(&mut self, event: &Event) {
        let (id, outcome) = match event {
            Event::Reply { id, .. } => (id, Outcome::Answered),
            Event::Refused { id, .. } => (id, Outcome::Refused),
            Event::Entered { id } => (id, Outcome::Entered),
            Event::Left { id, .. } => (id, Outcome::Left),
            Event::Lost { id, .. } => (id, Outcome::Lost),
            Event::Notification(_) | Event::Closed => {
                assert!(matches!(event, Event::Closed) || !self.is_ending(), "{event:?} after the first Lost");
                if let Event::Closed = event {
                    assert_eq!(self.state.mode(), Mode::Closed);
                    self.end = Some(Ok(()));
                }
                return;
            }
        };
        if let Event::Lost { sent, .. } = event {
            assert_eq!(self.state.mode(), Mode::Closed);
            assert!(self.asked.range(..id).all(|(_, asked)| asked.outcome.is_some()), "Lost in the order asked");
            // All that was begun but the leaves, which have no event.
            let lines = self.written.split_inclusive(|&octet| octet == b'\n');
            let begun = lines.filter(|line| !line.starts_with(b"s")).count();
            assert_eq!(*sent, self.asked.range(..id).count() < begun, "whether {id} was sent");
        } else {
            assert!(!self.is_ending(), "{event:?} after the first Lost");
        }
        let Some(asked) = self.asked.get_mut(id) else { panic!("{event:?}, which was not asked") };
        let legal = match (asked.is_enter, asked.outcome) {
            (_, None) if asked.after_eof => outcome == Outcome::Lost,
            (false, None) => matches!(outcome, Outcome::Answered | Outcome::Refused | Outcome::Lost),
            (true, None) => matches!(outcome, Outcome::Entered | Outcome::Refused | Outcome::Lost),
            (true, Some(Outcome::Entered)) => outcome == Outcome::Left,
            _ => false,
        };
        assert!(legal, "{event:?} for {asked:?}");
        asked.outcome = Some(outcome);
    }

    fn is_ending(&self) -> bool {
        matches!(self.events.last(), Some(Event::Lost { .. }))
    }

    /// Polls to the end and beyond.
    fn finish(&mut self) {
        for _ in 0..3 {
            self.poll();
            assert!(self.end.is_some(), "no end after the end of the stream");
        }
        assert!(self.asked.values().all(|asked| asked.outcome.is_some()), "no outcome: {:?}", self.asked);
        let in_mid_line =
            self.received.len() - self.received.windows(2).rposition(|end| end == b"\r\n").map_or(0, |at| at + 2);
        match self.end {
            Some(Ok(())) => assert_eq!(in_mid_line, 0),
            Some(Err(Error::UnexpectedEof { octets })) => assert_eq!(octets, in_mid_line as u64),
            _ => {}
        }
        self.step(Step::Receive(b"notif: random\r\n1\r\n"));
        self.step(Step::Request(Request::Random));
        self.step(Step::Enter);
        self.step(Step::Leave);
        self.step(Step::Write(usize::MAX));
        self.poll();
    }
}

fn connection(first: Option<&u8>) -> ClientState<Board> {
    let board = match first {
        Some(b'a' | b'A') => Board::acknowledged(),
        _ => Board::silent(),
    };
    match first {
        Some(b'A'..=b'Z') => {
            let small = Limits::new().with_line(16).with_answer(16).with_pending(5).with_output(40);
            ClientState::with_limits(board, small)
        }
        _ => ClientState::new(board),
    }
}

fn steps<'a>(script: &[u8], mut wire: &'a [u8]) -> Vec<Step<'a>> {
    let to_line_feed = |wire: &[u8]| wire.iter().position(|&octet| octet == b'\n').map_or(wire.len(), |lf| lf + 1);
    let mut steps = Vec::new();
    for octet in script {
        let receives = match octet {
            b'0'..=b'9' => usize::from(octet - b'0').min(wire.len()),
            b'*' => to_line_feed(wire),
            _ => 0,
        };
        let (now, later) = wire.split_at(receives);
        wire = later;
        steps.push(match octet {
            b'r' => Step::Request(Request::Random),
            b'c' => Step::Request(Request::Classified),
            b'e' => Step::Enter,
            b'l' => Step::Leave,
            b'w' => Step::Write(usize::MAX),
            b'o' => Step::Write(1),
            b'x' => Step::Eof,
            b'0'..=b'9' | b'*' => Step::Receive(now),
            _ => continue,
        });
    }
    steps.extend([Step::Receive(wire), Step::Eof]);
    steps
}

fuzz_target!(|data: &[u8]| {
    let (script, rest) = header(data);
    let (sizes, wire) = header(rest);
    let state = connection(script.first());
    let run = |chunking, polls| Run::new(state.clone(), chunking, polls);
    let mut whole = run(Chunking::Whole, true);
    let mut others = [run(Chunking::Bytewise, true), run(Chunking::Chosen(sizes), true)];
    let mut late = run(Chunking::Chosen(sizes), false);

    for step in steps(script.get(1..).unwrap_or_default(), wire) {
        whole.step(step);
        late.step(step);
        for other in &mut others {
            other.step(step);
            assert_eq!(other.state, whole.state, "{:?}", other.chunking);
        }
    }
    whole.finish();
    late.finish();
    for other in &mut others {
        other.finish();
        assert_eq!(other.events, whole.events, "{:?}", other.chunking);
        assert_eq!(other.end, whole.end, "{:?}", other.chunking);
        assert_eq!(other.returned, whole.returned, "{:?}", other.chunking);
    }
    if late.returned == whole.returned {
        // `sent` speaks of what is written when the event is polled: later, it may be more.
        for (late, event) in late.events.iter_mut().zip(&whole.events) {
            if let (Event::Lost { sent: late, .. }, Event::Lost { sent: false, .. }) = (late, event) {
                *late = false;
            }
        }
        assert_eq!(late.events, whole.events, "polled late");
        assert_eq!(late.end, whole.end, "polled late");
    }
});
