//! Sessions of any protocol: whatever is asked and whatever the peer sends, nothing panics, and any chunking of the input
//! gives the same events, error and state (law 1), as does polling only at the end if all calls had the same results (law
//! 2). Each request and enter has exactly one outcome (law 4), and the end is final (law 6).
//!
//! Input: two lines, then the wire.
//! 1. A capital for small limits; then steps: `a` to `g` requests, `h` to `k` enters, `l` leave, `m` a ring, `w` all output
//!    is written, `o` one octet of it, a digit: so many octets of the wire are received, `*`: those up to the next LF, `x` the
//!    stream ends. What is left of the wire is received last.
//! 2. The sizes of chunks, see [`Chunking::Chosen`].

use crate::{Chunking, header};
use sonnette::{ClientState, Error, Event, Limits, Mode, Protocol, Reason, RequestId};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// A protocol, and what can be asked in it.
pub trait Spoken:
    Protocol<
        Request: Clone + Debug + PartialEq,
        Reply: Clone + Debug + PartialEq,
        Refusal: Clone + Debug + PartialEq,
        Notification: Clone + Debug + PartialEq,
    > + Clone
    + Debug
    + Default
    + PartialEq
{
    /// By a number from 0 to 6.
    fn request(kind: u8) -> Self::Request;
    /// By a number from 0 to 3.
    fn subscription(kind: u8) -> Self::Subscription;
}

/// What a step returned.
#[derive(Debug, PartialEq)]
enum Returned {
    Asked(Result<RequestId, Reason>),
    Rung(Result<(RequestId, RequestId), Reason>),
    Leaving(bool),
    Written(usize),
}

struct Run<'a, P: Spoken> {
    state: ClientState<P>,
    chunking: Chunking<'a>,
    /// After each step and each chunk, or only at the end.
    polls: bool,
    returned: Vec<Returned>,
    events: Vec<Event<P>>,
    end: Option<Result<(), Error>>,
    /// Requests and enters that were accepted, and what they have come to.
    asked: BTreeMap<RequestId, (bool, Option<&'static str>)>,
}

impl<'a, P: Spoken> Run<'a, P> {
    fn new(state: ClientState<P>, chunking: Chunking<'a>, polls: bool) -> Self {
        Run { state, chunking, polls, returned: Vec::new(), events: Vec::new(), end: None, asked: BTreeMap::new() }
    }

    /// What is left of the wire.
    fn step(&mut self, step: u8, wire: &'a [u8]) -> &'a [u8] {
        let to_line_feed = || wire.iter().position(|&octet| octet == b'\n').map_or(wire.len(), |lf| lf + 1);
        let mut rest = wire;
        match step {
            b'a'..=b'g' => {
                let returned = self.state.request(P::request(step - b'a')).map_err(|rejected| rejected.reason);
                self.accept(false, returned.as_ref().ok());
                self.returned.push(Returned::Asked(returned));
            }
            b'h'..=b'k' => {
                let returned = self.state.enter(P::subscription(step - b'h')).map_err(|rejected| rejected.reason);
                self.accept(true, returned.as_ref().ok());
                self.returned.push(Returned::Asked(returned));
            }
            b'l' => {
                let leaving = self.state.leave();
                self.returned.push(Returned::Leaving(leaving));
            }
            b'm' => {
                let returned = self.state.ring(P::request(0), P::subscription(0)).map_err(|rejected| rejected.reason);
                self.accept(false, returned.as_ref().ok().map(|(request, _)| request));
                self.accept(true, returned.as_ref().ok().map(|(_, enter)| enter));
                self.returned.push(Returned::Rung(returned));
            }
            b'w' | b'o' => {
                let most = if step == b'w' { usize::MAX } else { 1 };
                self.returned.push(Returned::Written(most.min(self.state.output().len())));
                self.state.advance_output(most);
            }
            b'0'..=b'9' | b'*' => {
                let octets = if step == b'*' { to_line_feed() } else { usize::from(step - b'0').min(wire.len()) };
                rest = self.receive(octets, wire);
            }
            b'x' => self.state.receive_eof(),
            _ => return wire,
        }
        self.poll_early();
        rest
    }

    fn receive(&mut self, octets: usize, wire: &'a [u8]) -> &'a [u8] {
        let (now, rest) = wire.split_at(octets);
        for chunk in self.chunking.cut(now) {
            self.state.receive(chunk);
            self.poll_early();
        }
        rest
    }

    fn accept(&mut self, is_enter: bool, id: Option<&RequestId>) {
        if let Some(&id) = id {
            assert!(self.end.is_none(), "accepted after the end");
            assert!(self.asked.keys().all(|&earlier| earlier < id), "ids ascend");
            self.asked.insert(id, (is_enter, None));
        }
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

    fn check(&mut self, event: &Event<P>) {
        let is_ending = matches!(self.events.last(), Some(Event::Lost { .. }));
        let (id, outcome) = match event {
            Event::Reply { id, .. } => (id, "answered"),
            Event::Refused { id, .. } => (id, "refused"),
            Event::Entered { id } => (id, "entered"),
            Event::Left { id, .. } => (id, "left"),
            Event::Lost { id, .. } => (id, "lost"),
            Event::Notification(_) => return assert!(!is_ending, "{event:?} after the first Lost"),
            Event::Closed => {
                self.end = Some(Ok(()));
                return;
            }
        };
        assert!(!is_ending || outcome == "lost", "{event:?} after the first Lost");
        let Some((is_enter, before)) = self.asked.get_mut(id) else { panic!("{event:?}, which was not asked") };
        let legal = match (*is_enter, *before) {
            (false, None) => matches!(outcome, "answered" | "refused" | "lost"),
            (true, None) => matches!(outcome, "entered" | "refused" | "lost"),
            (true, Some("entered")) => outcome == "left",
            _ => false,
        };
        assert!(legal, "{event:?}, and before {before:?}");
        *before = Some(outcome);
    }

    fn finish(&mut self, wire: &'a [u8]) {
        self.receive(wire.len(), wire);
        self.state.receive_eof();
        for _ in 0..3 {
            self.poll();
            assert!(self.end.is_some(), "no end after the end of the stream");
        }
        assert!(self.asked.values().all(|(_, outcome)| outcome.is_some()), "no outcome: {:?}", self.asked);
    }
}

pub fn session<P: Spoken>(data: &[u8]) {
    let (script, rest) = header(data);
    let (sizes, wire) = header(rest);
    let state = match script.first() {
        Some(b'A'..=b'Z') => {
            let small = Limits::new().with_line(24).with_answer(100).with_pending(5).with_output(120);
            ClientState::with_limits(P::default(), small)
        }
        _ => ClientState::new(P::default()),
    };
    let run = |chunking, polls| (Run::<P>::new(state.clone(), chunking, polls), wire);
    let mut whole = run(Chunking::Whole, true);
    let mut others = [run(Chunking::Bytewise, true), run(Chunking::Chosen(sizes), true)];
    let mut late = run(Chunking::Chosen(sizes), false);
    for &step in script {
        whole.1 = whole.0.step(step, whole.1);
        late.1 = late.0.step(step, late.1);
        for (other, wire) in &mut others {
            *wire = other.step(step, wire);
            assert_eq!(other.state, whole.0.state, "{:?}", other.chunking);
        }
    }
    whole.0.finish(whole.1);
    late.0.finish(late.1);
    for (other, wire) in &mut others {
        other.finish(wire);
        assert_eq!(other.events, whole.0.events, "{:?}", other.chunking);
        assert_eq!(other.end, whole.0.end, "{:?}", other.chunking);
        assert_eq!(other.returned, whole.0.returned, "{:?}", other.chunking);
    }
    let (whole, mut late) = (whole.0, late.0);
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
}
