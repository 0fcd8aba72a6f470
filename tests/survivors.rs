//! Rules of the machine that no other test pins: each was found by a change of the code that every other test passed
//! (`.ci/mutants`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::{
    Changes, ClientState, Decoded, Encoder, EnterAnswer, Error, Event, Fault, Frame, Invalid, LeaveAnswer, Limits,
    LineTooLong, Mode, Pending, Protocol, Reason, Rejected, RequestId, Setting, Terminator,
};

/// A server's lines say themselves what they are, right or wrong: what follows is for the machine alone to judge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wire<const GREETING: bool> {
    changes: Changes,
    /// The last frame was not the last of its answer.
    inside: bool,
    /// What was shown as pending with the last frame.
    pending: String,
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

    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) {
        out.put(b"leave\n");
    }

    /// Requests have the ids that the client gave them: `reply 1`.
    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let line = String::from_utf8(frame.to_vec()).unwrap();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let id = || RequestId::from_wire(rest.parse().unwrap());
        self.inside = word == "more";
        self.pending = format!("{pending:?}");
        Ok(match word {
            "greeting" => Decoded::Greeting,
            "continue" => Decoded::Continue,
            "more" => Decoded::More { raw: rest.parse().ok() },
            "part" => Decoded::Part,
            "nothing" => Decoded::Nothing,
            "reply" => Decoded::reply(id(), line.clone()),
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
}

fn connection(enter: EnterAnswer, leave: LeaveAnswer) -> ClientState<Wire<false>> {
    ClientState::new(Wire { changes: Changes { enter, leave }, inside: false, pending: String::new() })
}

fn greeted() -> ClientState<Wire<true>> {
    let changes = Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own };
    ClientState::new(Wire { changes, inside: false, pending: String::new() })
}

/// Its changes of mode have answers of their own.
fn own() -> ClientState<Wire<false>> {
    connection(EnterAnswer::Own, LeaveAnswer::Own)
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
fn a_part_of_an_answer_that_nobody_waits_for_is_a_violation() {
    let mut state = own();
    assert!(violation(&mut state.clone(), "part"));
    state.request("ask").unwrap();
    assert!(!violation(&mut state, "part"));
}

#[test]
fn what_looks_like_a_known_line_inside_an_answer_belongs_to_it() {
    let mut state = own();
    state.enter(()).unwrap();
    state.receive(b"entered\nring\nmore\nring\nring\n");
    let rings = events(&mut state).unwrap().into_iter().skip(1).collect::<Vec<_>>();
    assert_eq!(rings, ["ring", "ring", "ring"].map(|ring| Event::Notification(ring.into())));
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
fn limits_are_new_by_default() {
    assert_eq!(Limits::default(), Limits::new());
}

// What is shown.

#[test]
fn what_is_pending_is_shown_by_kind_and_id() {
    let mut state = own();
    state.enter(()).unwrap();
    state.receive(b"entered\n");
    events(&mut state).unwrap();
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
