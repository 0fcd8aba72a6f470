//! Rules of the machine that no other test pins: each was found by a change of the code that every other test passed
//! (`.ci/mutants`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use allocation_counter::measure;
use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sonnette::{
    Asked, Changes, ClientState, Decoded, Encoder, EnterAnswer, Error, Event, Fault, Frame, Invalid, LeaveAnswer,
    Limits, LineTooLong, Mode, Pending, Protocol, Reason, Rejected, RequestId, Setting, Terminator, Timeouts, board,
};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;
use std::time::Duration;

/// A server's lines say themselves what they are, right or wrong: what follows is for the machine alone to judge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wire<const GREETING: bool> {
    changes: Changes,
    /// The last frame was not the last of its answer.
    inside: bool,
    /// What was shown with the last frame.
    pending: String,
    frame: String,
    /// Which of the first ids are pending, found one by one.
    found: Vec<u64>,
    /// Whether the frame is `bell`; and whether slices of 63, 64 and 65 octets share its buffer.
    is_bell: bool,
    shared: [bool; 3],
    /// Its first two octets, all but the first, and none.
    parts: [Bytes; 3],
    /// How many answers were known whole.
    known: usize,
}

impl<const GREETING: bool> Wire<GREETING> {
    fn new(changes: Changes) -> Self {
        let (pending, frame) = (String::new(), String::new());
        Wire {
            changes,
            inside: false,
            pending,
            frame,
            found: vec![],
            is_bell: false,
            shared: [false; 3],
            parts: Default::default(),
            known: 0,
        }
    }
}

impl<const GREETING: bool> Protocol for Wire<GREETING> {
    /// Its octets; what stands behind a `|` waits for the server's continuation.
    type Request = &'static str;
    type Subscription = ();
    type Reply = String;
    type Refusal = String;
    type Notification = String;
    type Note = ();

    const TERMINATOR: Terminator = Terminator::Lf;
    const GREETING: bool = GREETING;

    fn changes(&self) -> Changes {
        self.changes
    }

    fn allows(&self, _: &Self::Request, _: Setting) -> bool {
        true
    }

    fn may_end_mode(&self, (): &()) -> bool {
        true
    }

    fn encode_request(&self, _: RequestId, request: &Self::Request, out: &mut Encoder<'_>) -> Result<(), Invalid> {
        for (index, part) in request.split('|').enumerate() {
            if index > 0 {
                out.await_continuation();
            }
            out.put_text(part.as_bytes())?;
        }
        out.put(b"\n");
        Ok(())
    }

    fn encode_enter(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"enter\n");
        Ok(())
    }

    /// A leave waits for nothing, even if its protocol says so.
    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) {
        out.await_continuation();
        out.put(b"leave\n");
    }

    /// Requests have the ids that the client gave them: `reply 1`.
    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let line = String::from_utf8(frame.to_vec()).unwrap();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let id = || RequestId::from_wire(rest.parse().unwrap());
        self.inside = word == "more";
        self.pending = format!("{pending:?}");
        self.found = (1..9).filter(|id| pending.get(RequestId::from_wire(*id)).is_some()).collect();
        self.frame = format!("{frame:?}");
        self.is_bell = *frame == b"bell"[..];
        let (not_first, backwards) = ((Bound::Excluded(0), Bound::Unbounded), (Bound::Included(5), Bound::Excluded(2)));
        self.parts = [frame.slice(..=1), frame.slice(not_first), frame.slice(backwards)];
        let second = frame.as_ptr().wrapping_add(1);
        self.shared = [64, 65, 66].map(|end| frame.slice(1..end).as_ptr() == second);
        Ok(match word {
            "greeting" => Decoded::Greeting,
            "continue" => Decoded::Continue,
            "respond" => Decoded::Respond { response: format!("{rest}\n").into() },
            "more" => Decoded::More { raw: rest.parse().ok() },
            "part" => Decoded::Part { id: id(), kept: false, raw: None },
            "nothing" => Decoded::Nothing,
            "reply" => Decoded::reply(id(), line.clone()),
            "known" => match pending.awaiting() {
                Some(Asked::Request { id, .. }) => Decoded::reply(id, line.clone()),
                _ => return Err(Fault::Violation("nothing to be known")),
            },
            "ends" => Decoded::Reply { id: id(), reply: line.clone(), ends_mode: true },
            "refused" => Decoded::Refused { id: id(), refusal: line.clone() },
            "probed" => Decoded::Probed { id: id(), news: None },
            "entered" => Decoded::Entered,
            "left" => Decoded::Left,
            "ended" => Decoded::Ended { refusal: None },
            _ => Decoded::Notification(line.clone()),
        })
    }

    /// One that must not be asked in the middle of an answer.
    fn known_line(&mut self, input: &[u8]) -> Option<(usize, String)> {
        assert!(!self.inside, "a known line is not looked for inside an answer");
        input.starts_with(b"ring\n").then(|| (5, "ring".into()))
    }

    fn known_answer(&mut self, (): &(), input: &[u8]) -> Option<(usize, String)> {
        self.known += usize::from(input.starts_with(b"known\n"));
        input.starts_with(b"known\n").then(|| (6, "known".into()))
    }
}

// Memory is given back.

/// How many octets of memory are taken by this, less those given back.
fn taken(action: impl FnOnce()) -> i64 {
    measure(action).bytes_current
}

#[test]
fn an_idle_connection_holds_nothing() {
    for requests in [1, 1_000] {
        let mut state = ClientState::new(board::Board::silent());
        let mut exchange = |shrinks: bool| {
            taken(|| {
                for _ in 0..requests {
                    state.request(board::Request::Random).unwrap();
                }
                state.advance_output(usize::MAX);
                for _ in 0..requests {
                    state.receive(b"1\r\n");
                }
                while state.poll_event() != Ok(None) {}
                if shrinks {
                    state.shrink_to_fit();
                }
            })
        };
        let kept = exchange(false);
        assert!(kept > 0, "for the next time");
        assert_eq!(exchange(true), -kept, "{requests}");
    }
}

#[test]
fn while_something_is_pending_the_memory_of_a_batch_is_kept() {
    let mut state = own();
    state.request("ask").unwrap();
    state.advance_output(usize::MAX);
    assert!(taken(|| state.shrink_to_fit()) < 0, "a few octets are given back");
    state.request("x".repeat(5_000).leak()).unwrap();
    assert_eq!(taken(|| state.shrink_to_fit()), 0, "it is not written");
    state.advance_output(usize::MAX);
    assert_eq!(taken(|| state.shrink_to_fit()), 0, "another batch may follow");
}

// An answer known whole is one everywhere.

#[test]
fn what_waits_behind_a_gate_is_dropped_by_a_known_answer_too() {
    let mut state = own();
    let id = state.request("ask|rest").unwrap();
    assert_eq!(state.output(), b"ask");
    state.advance_output(3);
    state.receive(b"known\n");
    assert_eq!(events(&mut state), Ok(vec![Event::Reply { id, reply: "known".into() }]));
    assert!(!state.is_gated());
    state.request("another").unwrap();
    assert_eq!(state.output(), b"another\n");
}

#[test]
fn a_known_answer_does_not_end_one_that_has_begun() {
    let mut state = own();
    let id = state.request("ask").unwrap();
    state.receive(b"part 1\n");
    assert_eq!(events(&mut state), Ok(vec![]));
    state.receive(b"known\n");
    assert_eq!(events(&mut state), Ok(vec![Event::Reply { id, reply: "known".into() }]));
    state.receive_eof();
    assert_eq!(events(&mut state), Ok(vec![Event::Closed]), "nothing of an answer is missing");
}

#[test]
fn answers_are_not_known_whole_in_the_mode() {
    let mut state = in_mode();
    let id = state.request("ask").unwrap();
    state.receive(b"known\n");
    assert_eq!(events(&mut state), Ok(vec![Event::Reply { id, reply: "known".into() }]));
    assert_eq!(state.protocol().known, 0);
}

#[test]
fn what_looks_like_a_known_answer_inside_another_belongs_to_it() {
    let mut state = own();
    let id = state.request("ask").unwrap();
    state.receive(b"more\nknown\n");
    assert_eq!(events(&mut state), Ok(vec![Event::Reply { id, reply: "known".into() }]));
    assert_eq!(state.protocol().known, 0, "not asked there");
}

fn connection(enter: EnterAnswer, leave: LeaveAnswer) -> ClientState<Wire<false>> {
    ClientState::new(Wire::new(Changes { enter, leave }))
}

fn greeted() -> ClientState<Wire<true>> {
    let changes = Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own };
    ClientState::new(Wire::new(changes))
}

/// Its changes of mode have answers of their own.
fn own() -> ClientState<Wire<false>> {
    connection(EnterAnswer::Own, LeaveAnswer::Own)
}

fn in_mode() -> ClientState<Wire<false>> {
    let mut state = own();
    state.enter(()).unwrap();
    state.receive(b"entered\n");
    events(&mut state).unwrap();
    state
}

/// The events up to the end of what can be told now.
fn events<P: Protocol>(state: &mut ClientState<P>) -> Result<Vec<Event<P>>, Error> {
    let mut events = Vec::new();
    while let Some(event) = state.poll_event()? {
        events.push(event);
    }
    Ok(events)
}

/// The rule that `frame` broke, after all that was told before it.
fn violation<P: Protocol>(state: &mut ClientState<P>, frame: &str) -> bool {
    state.receive(frame.as_bytes());
    state.receive(b"\n");
    loop {
        match state.poll_event() {
            Ok(Some(Event::Lost { .. })) => {}
            Ok(Some(_)) => return false,
            Ok(None) => return false,
            Err(Error::Violation { frame: told, .. }) => return told.as_bytes() == frame.as_bytes(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_second_greeting_is_a_violation() {
    let mut state = greeted();
    state.receive(b"greeting\n");
    assert_eq!(events(&mut state), Ok(vec![]));
    state.request("ask").unwrap();
    assert!(violation(&mut state, "greeting"));
}

#[test]
fn a_greeting_opens_no_gate_but_its_own() {
    let mut state = own();
    state.request("ask|more").unwrap();
    assert!(violation(&mut state, "greeting"));
    assert_eq!(state.output(), b"ask");
}

#[test]
fn a_continuation_opens_no_gate_but_that_of_a_request() {
    let mut state = own();
    assert!(violation(&mut state.clone(), "continue"));
    state.enter(()).unwrap();
    assert!(state.leave());
    assert!(state.is_gated());
    assert!(violation(&mut state, "continue"));
    assert_eq!(state.output(), b"enter\n");
}

#[test]
fn a_leave_waits_for_no_continuation() {
    let mut state = own();
    state.enter(()).unwrap();
    state.advance_output(usize::MAX);
    state.receive(b"entered\n");
    events(&mut state).unwrap();
    assert!(state.leave());
    assert_eq!(state.output(), b"leave\n");
    assert!(violation(&mut state, "continue"));
}

#[test]
fn a_part_of_an_answer_that_nobody_waits_for_is_a_violation() {
    let mut state = own();
    assert!(violation(&mut state.clone(), "part 1"));
    state.request("ask").unwrap();
    assert!(violation(&mut state.clone(), "part 2"));
    assert!(!violation(&mut state, "part 1"));
}

#[test]
fn what_looks_like_a_known_line_inside_an_answer_belongs_to_it() {
    let mut state = own();
    state.enter(()).unwrap();
    state.receive(b"entered\nring\nmore\nring\nring\n");
    let rings = events(&mut state).unwrap().into_iter().skip(1).collect::<Vec<_>>();
    assert_eq!(rings, ["ring", "ring", "ring"].map(|ring| Event::Notification(ring.into())));
    // Also if it begins what is polled.
    for line in [b"more\n", b"ring\n"] {
        state.receive(line);
        let expected = if line == b"more\n" { vec![] } else { vec![Event::Notification("ring".into())] };
        assert_eq!(events(&mut state), Ok(expected));
    }
}

#[test]
fn what_is_not_a_probe_is_not_probed() {
    let mut state = own();
    state.request("ask").unwrap();
    assert!(violation(&mut state.clone(), "probed 1"));
    assert!(violation(&mut state, "probed 2"));
}

#[test]
fn nothing_is_left_that_was_not_asked_to_be_left() {
    let mut state = own();
    assert!(violation(&mut state.clone(), "left"));
    state.enter(()).unwrap();
    state.receive(b"entered\n");
    events(&mut state).unwrap();
    assert!(violation(&mut state, "left"));
}

#[test]
fn a_void_leave_does_not_end_the_next_mode() {
    let mut state = in_mode();
    state.request("ask").unwrap();
    assert!(state.leave());
    state.receive(b"ends 2\n");
    events(&mut state).unwrap();
    let again = state.enter(()).unwrap();
    state.receive(b"entered\n");
    assert_eq!(events(&mut state), Ok(vec![Event::Entered { id: again }]));
    state.request("ask").unwrap();
    assert!(violation(&mut state, "left"), "the answer of the void leave comes before the next mode is entered");
}

#[test]
fn a_known_line_does_not_overtake_the_end_of_the_mode() {
    let mut state = own();
    let watch = state.enter(()).unwrap();
    state.receive(b"entered\n");
    events(&mut state).unwrap();
    let id = state.request("ask").unwrap();
    state.receive(b"ends 2\nring\n");
    let left = Event::Left { id: watch, asked: false, refusal: None };
    let reply = Event::Reply { id, reply: "ends 2".into() };
    assert_eq!(events(&mut state), Ok(vec![reply, left, Event::Notification("ring".into())]));
}

#[test]
fn a_silent_enter_has_no_confirmation() {
    let mut state = connection(EnterAnswer::Silent, LeaveAnswer::Silent);
    state.request("ask").unwrap();
    state.enter(()).unwrap();
    assert!(violation(&mut state, "entered"));
}

#[test]
fn an_answer_confirms_no_leave_that_has_an_answer_of_its_own() {
    let mut state = own();
    let watch = state.enter(()).unwrap();
    state.receive(b"entered\n");
    events(&mut state).unwrap();
    state.leave();
    let id = state.request("ask").unwrap();
    state.receive(b"reply 3\nleft\n");
    let left = Event::Left { id: watch, asked: true, refusal: None };
    assert_eq!(events(&mut state), Ok(vec![Event::Reply { id, reply: "reply 3".into() }, left]));
}

#[test]
fn what_is_asked_is_pending_until_its_event_is_polled() {
    let mut state = connection(EnterAnswer::Own, LeaveAnswer::Silent);
    let watch = state.enter(()).unwrap();
    assert!(state.is_pending(watch));
    assert!(!state.is_pending(RequestId::from_wire(watch.get() + 1)));
    state.receive(b"entered\n");
    assert!(state.is_pending(watch), "what is received is not polled");
    events(&mut state).unwrap();
    assert!(!state.is_pending(watch));

    // An answer that proves a leave gives two events; the answer is the second.
    for frame in ["reply 3\n", "refused 3\n"] {
        let mut state = state.clone();
        state.leave();
        let (first, other) = (state.request("ask").unwrap(), state.request("ask").unwrap());
        state.receive(frame.as_bytes());
        assert!(matches!(state.poll_event(), Ok(Some(Event::Left { .. }))));
        assert!(state.is_pending(first) && state.is_pending(other));
        assert!(!state.is_pending(watch));
        events(&mut state).unwrap();
        assert!(!state.is_pending(first) && state.is_pending(other));
    }
}

#[test]
fn a_mode_that_ends_takes_no_request_with_it() {
    let mut state = own();
    let watch = state.enter(()).unwrap();
    state.receive(b"entered\n");
    events(&mut state).unwrap();
    let (first, second) = (state.request("ask").unwrap(), state.request("ask").unwrap());
    assert!(state.leave());
    state.receive(b"ends 2\nreply 3\nleft\n");
    let expected = vec![
        Event::Reply { id: first, reply: "ends 2".into() },
        Event::Left { id: watch, asked: true, refusal: None },
        Event::Reply { id: second, reply: "reply 3".into() },
    ];
    assert_eq!(events(&mut state), Ok(expected));
}

// What is outstanding.

#[test]
fn answers_in_no_order_leave_the_others_as_they_were() {
    const MOST: usize = 64;
    let limits = Limits::new().with_pending(MOST);
    let mut state = ClientState::with_limits(own().protocol().clone(), limits);
    let (mut pending, mut seed) = (Vec::new(), 7_usize);
    for round in 0..4_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Now many more are asked than answered, now fewer; now the last ones are answered, now any.
        let asks = (seed >> 16) % 16 < if round % 400 < 200 { 11 } else { 5 };
        if asks {
            match state.request("ask") {
                Ok(id) => pending.push(id),
                Err(Rejected { reason, .. }) => assert_eq!((reason, pending.len()), (Reason::TooManyPending, MOST)),
            }
            state.advance_output(usize::MAX);
        } else if !pending.is_empty() {
            let from = if round % 800 < 400 { 0 } else { pending.len() * 3 / 4 };
            let id = pending.remove(from + (seed >> 20) % (pending.len() - from));
            let reply = format!("reply {}", id.get());
            state.receive(format!("{reply}\n").as_bytes());
            assert_eq!(events(&mut state), Ok(vec![Event::Reply { id, reply }]));
            assert!(!state.is_pending(id));
        }
        state.receive(b"nothing\n");
        assert_eq!(events(&mut state), Ok(vec![]));
        let shown: Vec<_> = pending.iter().map(|id| format!("Request {id}")).collect();
        assert_eq!(
            state.protocol().pending,
            format!("Pending {{ inside: None, visible: [{}], .. }}", shown.join(", "))
        );
        assert!(pending.iter().all(|id| state.is_pending(*id)));
        assert!(format!("{state:?}").contains(&format!("pending: {pending:?}")));
    }
    state.receive_eof();
    let lost = pending.into_iter().map(|id| Event::Lost { id, sent: true }).chain([Event::Closed]);
    assert_eq!(events(&mut state), Ok(lost.collect()));
}

#[test]
fn what_is_answered_behind_one_that_is_not_takes_no_memory() {
    let mut state = own();
    state.request("the first").unwrap();
    let mut ask = |times: usize| {
        for _ in 0..times {
            let ids = [(); 3].map(|()| state.request("another").unwrap().get());
            state.advance_output(usize::MAX);
            state.receive(format!("reply {}\nreply {}\nreply {}\n", ids[1], ids[0], ids[2]).as_bytes());
            assert_eq!(events(&mut state).unwrap().len(), 3);
        }
    };
    ask(100);
    // The protocol remembers the last frame, and its number gets longer.
    assert!(measure(|| ask(10_000)).bytes_current < 16);
}

// What waits to be written.

/// A failing case is written to a file beside this one, and tried first from then on.
fn config() -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/survivors.proptest-regressions");
    Config { failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))), ..Config::default() }
}

#[test]
fn the_gate_of_a_leave_opens_behind_that_of_a_request() {
    let mut state = own();
    let watch = state.enter(()).unwrap();
    state.request("ask|rest").unwrap();
    assert!(state.leave());
    state.receive(b"entered\n");
    assert_eq!(events(&mut state), Ok(vec![Event::Entered { id: watch }]));
    assert_eq!(state.output(), b"enter\nask");
    state.receive(b"continue\n");
    assert_eq!(events(&mut state), Ok(vec![]));
    assert_eq!(state.output(), b"enter\naskrest\nleave\n");
    assert!(!state.is_gated());
}

#[test]
fn states_that_dropped_more_or_less_are_equal() {
    let refused = |request, written| {
        let mut state = own();
        state.request(request).unwrap();
        state.request("next").unwrap();
        state.receive(b"refused 1\nnothing\n");
        events(&mut state).unwrap();
        state.advance_output(written);
        state.request("last").unwrap();
        state
    };
    for written in 0..8 {
        let [short, long] = ["ask|x", "ask|and more"].map(|request| refused(request, written));
        assert_eq!(short.output(), &b"asknext\nlast\n"[written..]);
        assert_eq!(short, long, "{written}");
    }
    assert_ne!(refused("ask|x", 3), refused("ask|x", 4), "whether the next one was sent");
}

/// What the output must be: all that could be seen since the beginning, and what waits.
#[derive(Default)]
struct Plain {
    seen: String,
    written: usize,
    asked: Vec<Piecewise>,
}

/// Something asked: pieces, of which so many may be seen and so many are.
struct Piecewise {
    id: RequestId,
    what: &'static str,
    pieces: Vec<String>,
    allowed: usize,
    shown: usize,
    starts_at: Option<usize>,
    is_done: bool,
}

impl Piecewise {
    fn is_gated(&self) -> bool {
        self.shown < self.pieces.len()
    }
}

impl Plain {
    fn ask(&mut self, what: &'static str, pieces: Vec<String>, allowed: usize) {
        let id = RequestId::from_wire(self.asked.len() as u64 + 1);
        let (shown, starts_at, is_done) = (0, None, false);
        self.asked.push(Piecewise { id, what, pieces, allowed, shown, starts_at, is_done });
        self.show();
    }

    fn show(&mut self) {
        for asked in &mut self.asked {
            while asked.shown < asked.allowed {
                asked.starts_at.get_or_insert(self.seen.len());
                self.seen += &asked.pieces[asked.shown];
                asked.shown += 1;
            }
            if asked.is_gated() {
                return;
            }
        }
    }

    fn end(&mut self, at: usize) {
        let asked = &mut self.asked[at];
        asked.is_done = true;
        asked.pieces.truncate(asked.shown);
        self.show();
    }

    /// The first that a gate holds back.
    fn gated(&self) -> Option<usize> {
        self.asked.iter().position(Piecewise::is_gated)
    }

    /// Those that an answer may be about: a gated leave was not sent.
    fn answerable(&self, what: &'static str) -> Vec<usize> {
        let end = self.gated().map_or(self.asked.len(), |at| at + usize::from(self.asked[at].what != "leave"));
        (0..end).filter(|at| self.asked[*at].what == what && !self.asked[*at].is_done).collect()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever is dropped, put in between, or opened out of turn: what may be written is that, and what is lost was sent if
    /// its first octet was written.
    #[test]
    fn what_waits_to_be_written_is_what_was_allowed(steps in prop::collection::vec((0..12_u8, 0..9_usize), 0..80)) {
        let (mut state, mut plain) = (own(), Plain::default());
        for (step, number) in steps {
            let gated = plain.gated().filter(|at| plain.asked[*at].what == "request");
            let requests = plain.answerable("request");
            let frame = match step {
                0..=2 => {
                    let mut pieces: Vec<String> = (0..number % 3).map(|piece| format!("{piece}{step}")).collect();
                    let text = pieces.iter().fold(format!("<{number}>"), |text, piece| text + "|" + piece);
                    pieces.insert(0, format!("<{number}>"));
                    pieces.last_mut().unwrap().push('\n');
                    state.request(text.leak()).unwrap();
                    plain.ask("request", pieces, 1);
                    None
                }
                3 => {
                    state.enter(()).is_ok().then(|| plain.ask("enter", vec!["enter\n".into()], 1));
                    None
                }
                4 => {
                    if matches!(state.asked_mode(), Mode::Entering | Mode::Notification) {
                        let allowed = usize::from(state.asked_mode() == Mode::Notification);
                        assert!(state.leave());
                        plain.ask("leave", vec!["leave\n".into()], allowed);
                    }
                    None
                }
                5..=6 => {
                    state.advance_output(number);
                    plain.written = plain.seen.len().min(plain.written + number);
                    None
                }
                7 => gated.map(|at| {
                    plain.asked[at].allowed += 1;
                    plain.show();
                    "continue".into()
                }),
                8 => gated.map(|_| {
                    plain.seen += &format!("{number}\n");
                    format!("respond {number}")
                }),
                9 => gated.filter(|at| requests.contains(at)).or(requests.get(number).copied()).map(|at| {
                    plain.end(at);
                    let verdict = if number % 2 == 0 { "refused" } else { "reply" };
                    format!("{verdict} {}", plain.asked[at].id)
                }),
                10 => plain.answerable("enter").first().copied().filter(|_| state.mode() == Mode::Entering).map(|enter| {
                    let leave = enter + 1 + plain.asked[enter + 1..].iter().take_while(|a| a.what == "request").count();
                    let leave = Some(leave).filter(|at| plain.asked.get(*at).is_some_and(|asked| asked.what == "leave"));
                    let is_refused = number > 5;
                    if let (Some(leave), true) = (leave, is_refused) {
                        plain.end(leave);
                    } else if let Some(leave) = leave {
                        plain.asked[leave].allowed = 1;
                    }
                    plain.end(enter);
                    if is_refused { format!("refused {}", plain.asked[enter].id) } else { "entered".into() }
                }),
                _ => plain.answerable("leave").first().copied().filter(|_| state.mode() == Mode::Leaving).map(|at| {
                    plain.end(at);
                    "left".into()
                }),
            };
            if let Some(frame) = frame {
                state.receive(frame.replace('#', "").as_bytes());
                state.receive(b"\n");
                prop_assert!(events(&mut state).is_ok(), "{}", frame);
            }
            prop_assert_eq!(std::str::from_utf8(state.output()), Ok(&plain.seen[plain.written..]));
            prop_assert_eq!(state.is_gated(), plain.gated().is_some());
        }
        state.receive_eof();
        let expected = plain.asked.iter().filter(|asked| !asked.is_done && asked.what != "leave").map(|asked| {
            Event::Lost { id: asked.id, sent: asked.starts_at.is_some_and(|at| at < plain.written) }
        });
        let expected = expected.chain([Event::Closed]).collect();
        prop_assert_eq!(events(&mut state), Ok(expected));
    }
}

/// Equal are those that will behave alike, and no others; equal ones have one hash.
#[test]
fn states_differ_by_what_is_still_live() {
    let hash = |state: &ClientState<Wire<false>>| {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        hasher.finish()
    };
    let fresh = own();
    let mut states = vec![fresh.clone()];
    let mut with = |change: &dyn Fn(&mut ClientState<Wire<false>>)| {
        let mut state = fresh.clone();
        change(&mut state);
        states.push(state);
    };
    with(&|state| {
        state.request("ask").unwrap();
    });
    with(&|state| {
        state.request("other").unwrap();
    });
    with(&|state| {
        state.enter(()).unwrap();
    });
    with(&|state| state.receive(b"n"));
    with(&|state| state.receive_eof());
    with(&|state| {
        state.receive_eof();
        events(state).unwrap();
    });
    // Asked before it was received, or behind it.
    with(&|state| {
        state.request("ask").unwrap();
        state.receive(b"reply 1\n");
    });
    with(&|state| {
        state.receive(b"reply 1\n");
        state.request("ask").unwrap();
    });
    // Written or not, as a whole or in part.
    with(&|state| {
        state.request("ask").unwrap();
        state.request("ask").unwrap();
        state.advance_output(4);
    });
    with(&|state| {
        state.request("ask").unwrap();
        state.request("ask").unwrap();
        state.advance_output(5);
    });
    with(&|state| state.set_timeouts(Timeouts { silence: Some(Duration::from_secs(1)), ..Timeouts::default() }));
    for (at, a) in states.iter().enumerate() {
        for (other, b) in states.iter().enumerate() {
            assert_eq!(a == b, at == other, "{a:?} {b:?}");
            assert_eq!(hash(a) == hash(b), at == other, "{a:?} {b:?}");
        }
    }

    // However it came there.
    let (mut a, mut b) = (own(), own());
    for (state, first) in [(&mut a, "ask"), (&mut b, "a longer one")] {
        state.request(first).unwrap();
        state.advance_output(usize::MAX);
        state.receive(b"reply 1\n");
        events(state).unwrap();
        state.request("next").unwrap();
    }
    assert_eq!((a == b, hash(&a)), (true, hash(&b)));
}

#[test]
fn limits_are_new_by_default() {
    assert_eq!(Limits::default(), Limits::new());
}

#[test]
fn a_connection_tells_its_limits_and_how_many_octets_are_decoded() {
    let limits = Limits::new().with_line(9);
    let mut state = ClientState::with_limits(own().protocol().clone(), limits);
    assert_eq!((state.limits(), state.octets_read()), (limits, 0));
    state.receive(b"ring\nri");
    assert_eq!(state.octets_read(), 0, "received is not decoded");
    events(&mut state).unwrap();
    assert_eq!(state.octets_read(), 5);
    state.receive(b"ng\nmore\nmore\n");
    events(&mut state).unwrap();
    assert_eq!(state.octets_read(), 20);
}

// What a protocol sees.

#[test]
fn an_entry_is_found_by_its_id_if_the_frame_may_be_about_it() {
    let mut state = own();
    state.request("ask").unwrap();
    state.request("ask").unwrap();
    state.receive(b"ring\n");
    state.request("too late").unwrap();
    events(&mut state).unwrap();
    assert_eq!(state.protocol().found, [1, 2]);
    state.receive(b"reply 1\nring\n");
    events(&mut state).unwrap();
    assert_eq!(state.protocol().found, [2, 3]);
}

#[test]
fn a_frame_is_its_octets() {
    let mut state = own();
    for (line, is_bell) in [("bell", true), ("bells", false), ("bel", false), ("cell", false)] {
        state.receive(format!("{line}\n").as_bytes());
        events(&mut state).unwrap();
        assert_eq!(state.protocol().is_bell, is_bell, "{line}");
        assert!(state.protocol().frame.contains(&format!("octets: {}", line.len())), "{}", state.protocol().frame);
    }
}

#[test]
fn a_part_of_a_frame_is_cut_to_it() {
    let mut state = own();
    for (line, parts) in [("bell", ["be", "ell", ""]), ("a", ["a", "", ""]), ("", ["", "", ""])] {
        state.receive(format!("{line}\n").as_bytes());
        events(&mut state).unwrap();
        assert_eq!(state.protocol().parts, parts);
    }
}

#[test]
fn parts_of_64_octets_share_the_buffer_and_shorter_ones_do_not() {
    let mut state = own();
    state.receive(format!("{}\n", "x".repeat(80)).as_bytes());
    events(&mut state).unwrap();
    assert_eq!(state.protocol().shared, [false, true, true]);
}

/// Only in the mode may anything be asked, and no answer ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inside;

impl Protocol for Inside {
    type Request = ();
    type Subscription = ();
    type Reply = ();
    type Refusal = ();
    type Notification = ();
    type Note = ();

    const TERMINATOR: Terminator = Terminator::Lf;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Silent, leave: LeaveAnswer::Silent }
    }

    fn allows(&self, (): &(), setting: Setting) -> bool {
        setting == Setting::Notification
    }

    fn encode_request(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"ask\n");
        Ok(())
    }

    fn encode_enter(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"enter\n");
        Ok(())
    }

    /// A leave waits for nothing, even if its protocol says so.
    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) {
        out.await_continuation();
        out.put(b"leave\n");
    }

    fn decode(&mut self, _: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        match pending.awaiting() {
            Some(Asked::Request { id, .. }) => Ok(Decoded::reply(id, ())),
            _ => Ok(Decoded::Notification(())),
        }
    }
}

#[test]
fn no_answer_ends_the_mode_if_the_protocol_does_not_say_so() {
    let mut state = ClientState::new(Inside);
    state.request(()).unwrap_err();
    state.enter(()).unwrap();
    events(&mut state).unwrap();
    state.request(()).unwrap();
    state.request(()).unwrap();
}

#[test]
fn nothing_is_probed_if_the_protocol_does_not_say_how() {
    let mut state = ClientState::new(Inside);
    let silence = Some(Duration::from_secs(1));
    state.set_timeouts(Timeouts { silence, ..Timeouts::default() });
    let due = state.poll_timeout(Duration::ZERO);
    assert_eq!(due, silence);
    state.handle_timeout(Duration::from_secs(1));
    assert_eq!(state.poll_event(), Err(Error::SilenceTimeout));
    assert_eq!(state.output(), b"");
}

// Memory.

/// What is held once a question of so many octets is written and answered, and how often the next one allocates.
fn held_and_allocated_after(octets: usize) -> (i64, u64) {
    let text: &'static str = "x".repeat(octets).leak();
    let mut allocated = 0;
    let held = measure(|| {
        let mut state = own();
        state.request(text).unwrap();
        state.advance_output(usize::MAX);
        state.receive(b"reply 1\n");
        events(&mut state).unwrap();
        allocated = measure(|| assert!(state.request("another").is_ok())).count_total;
        std::mem::forget(state);
    });
    (held.bytes_current, allocated)
}

#[test]
fn output_of_16_kib_is_kept_and_a_larger_one_given_back() {
    // For the line end that follows the text, the buffer has grown to twice that.
    let (kept, allocated) = held_and_allocated_after(8 * 1024);
    assert_eq!(allocated, 0);
    let (given_back, allocated) = held_and_allocated_after(8 * 1024 + 1);
    assert_eq!(allocated, 1);
    assert!(given_back + 12_000 < kept, "{given_back} {kept}");
    assert!(held_and_allocated_after(60_000).0 < kept);
}

#[test]
fn output_that_is_never_all_written_does_not_grow() {
    // What always waits is more than what is written at once, or less.
    for first in ["the first", "1st"] {
        let mut state = own();
        state.request(first).unwrap();
        let mut ask = || {
            for _ in 0..10_000 {
                let id = state.request("another").unwrap();
                state.advance_output(8);
                state.receive(format!("reply {}\n", id.get()).as_bytes());
                events(&mut state).unwrap();
            }
        };
        ask();
        assert_eq!(measure(ask).bytes_current, 0);
    }
}

#[test]
fn an_idle_machine_gives_back_all_its_memory_and_a_busy_one_loses_nothing() {
    let mut state = ClientState::new(board::Board::acknowledged());
    let held = measure(|| {
        let classified = state.request(board::Request::Classified).unwrap();
        let enter = state.enter(()).unwrap();
        state.leave();
        state.shrink_to_fit();
        assert_eq!(state.output(), b"classified?\r\nnotif\r\n");
        state.advance_output(20);
        let text = "x".repeat(10_000);
        state.receive(text.as_bytes());
        assert_eq!(state.poll_event(), Ok(None));
        state.shrink_to_fit();
        state.receive(b"\r\nOK\r\n");
        let reply = board::Reply::Classified(text.into());
        assert_eq!(state.poll_event(), Ok(Some(Event::Reply { id: classified, reply })));
        state.shrink_to_fit();
        assert_eq!(state.poll_event(), Ok(Some(Event::Entered { id: enter })));
        state.shrink_to_fit();
        assert_eq!(state.output(), b"stop_notif\r\n");
        state.advance_output(12);
        state.receive(b"OK\r\n");
        assert_eq!(state.poll_event(), Ok(Some(Event::Left { id: enter, asked: true, refusal: None })));
        assert_eq!(state.poll_event(), Ok(None));
        state.shrink_to_fit();
    });
    assert_eq!(held.bytes_current, 0);
}

// What is shown.

#[test]
fn what_is_pending_is_shown_by_kind_and_id() {
    let mut state = in_mode();
    assert_eq!(state.protocol().pending, "Pending { inside: None, visible: [Enter #1], .. }");
    state.request("ask").unwrap();
    state.leave();
    state.receive(b"ends 2\n");
    events(&mut state).unwrap();
    let inside = "Some(Inside { id: #1, subscription: (), note: () })";
    assert_eq!(
        state.protocol().pending,
        format!("Pending {{ inside: {inside}, visible: [Request #2, Leave #3], .. }}")
    );
    state.receive(b"left\n");
    events(&mut state).unwrap();
    assert_eq!(state.protocol().pending, "Pending { inside: None, visible: [void Leave #3], .. }");
}

#[test]
fn a_greeting_is_shown_as_pending() {
    let mut state = greeted();
    state.receive(b"greeting\n");
    events(&mut state).unwrap();
    assert_eq!(state.protocol().pending, "Pending { inside: None, visible: [Greeting], .. }");
}

#[test]
fn errors_say_what_happened_in_one_line() {
    for (error, says) in [
        (Error::UnexpectedEof { octets: 7 }, "the connection ended in the middle of an answer, after 7 octets of it"),
        (Error::LineTooLong(LineTooLong { limit: 80 }), "the server sent a line of more than 80 octets"),
        (Error::AnswerTooLong { limit: 9 }, "the server sent an answer of more than 9 octets"),
        (Error::GreetingTimeout, "the server did not greet in time"),
        (Error::ReplyTimeout, "the server did not answer in time"),
        (Error::SilenceTimeout, "the server has fallen silent"),
    ] {
        assert_eq!(error.to_string(), says);
    }
}

#[test]
fn a_rejection_says_why_in_one_line() {
    for (reason, says) in [
        (Reason::NotAllowed(Mode::Entering), "not allowed while the mode asked for is Entering"),
        (Reason::Closed, "the connection has ended"),
        (Reason::TooManyPending, "too many requests are pending"),
        (Reason::OutputFull, "too much output waits to be written"),
        (Reason::TooLarge, "larger than the limits will ever allow"),
        (Reason::Invalid(Invalid::new("a tab")), "not a valid value: a tab"),
    ] {
        assert_eq!(reason.to_string(), says);
        assert_eq!(Rejected { value: (), reason }.to_string(), format!("rejected: {says}"));
    }
    assert_eq!(Invalid::new("a tab").to_string(), "a tab");
}
