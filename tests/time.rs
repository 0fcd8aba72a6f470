//! Time: what is overdue, what the machine does by itself, and what it never does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use sonnette::board::{Board, Notification, Refusal, Reply, Request, ServerState};
use sonnette::{
    Asked, Changes, ClientState, Decoded, Encoder, EnterAnswer, Error, Event, Fault, Frame, Invalid, LeaveAnswer,
    Limits, Mode, Pending, Protocol, RequestId, Setting, Terminator, Timeouts,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

type Client = ClientState<Board>;

const OFF: Timeouts = Timeouts { reply: None, refresh: None, silence: None };
const BOTH: [Board; 2] = [Board::silent(), Board::acknowledged()];

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn reply(after: Duration) -> Timeouts {
    Timeouts { reply: Some(after), ..OFF }
}

fn refresh(after: Duration) -> Timeouts {
    Timeouts { refresh: Some(after), ..OFF }
}

fn silence(after: Duration) -> Timeouts {
    Timeouts { silence: Some(after), ..OFF }
}

fn client(board: Board, timeouts: Timeouts) -> Client {
    let mut state = ClientState::new(board);
    state.set_timeouts(timeouts);
    state
}

/// In the mode since `now`, with nothing left to write.
fn inside(board: Board, timeouts: Timeouts, now: Duration) -> Client {
    let mut state = client(board, timeouts);
    state.enter(()).unwrap();
    if board == Board::acknowledged() {
        state.receive(b"OK\r\n");
    }
    assert_eq!(written(&mut state), "notif\r\n");
    assert_eq!(events(&mut state).len(), 1);
    fix(&mut state, now);
    state
}

fn events<P: Protocol>(state: &mut ClientState<P>) -> Vec<Event<P>> {
    std::iter::from_fn(|| state.poll_event().expect("no error")).collect()
}

/// The events up to the error, and the error.
fn end<P: Protocol>(state: &mut ClientState<P>) -> (Vec<Event<P>>, Error) {
    let mut events = Vec::new();
    loop {
        match state.poll_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => panic!("no end after {} events", events.len()),
            Err(error) => return (events, error),
        }
    }
}

fn read<P: Protocol>(state: &mut ClientState<P>, input: &str) -> Vec<Event<P>> {
    state.receive(input.as_bytes());
    events(state)
}

/// All that there is to write, in one piece.
fn written<P: Protocol>(state: &mut ClientState<P>) -> String {
    let written = String::from_utf8(state.output().to_vec()).unwrap();
    state.advance_output(written.len());
    written
}

/// What is new counts as of now.
fn fix<P: Protocol>(state: &mut ClientState<P>, now: Duration) {
    let _ = state.poll_timeout(now);
}

/// The deadline of now is reached: what is told then, and written.
fn expire<P: Protocol>(state: &mut ClientState<P>, now: Duration) -> (Vec<Event<P>>, String) {
    assert_eq!(state.poll_timeout(now), Some(now), "it is not due now");
    state.handle_timeout(now);
    let events = events(state);
    (events, written(state))
}

/// What is overdue ends the connection.
fn expire_to_end<P: Protocol>(state: &mut ClientState<P>, now: Duration) -> (Vec<Event<P>>, Error) {
    assert_eq!(state.poll_timeout(now), Some(now), "it is not due now");
    state.handle_timeout(now);
    let end = end(state);
    assert_eq!(state.poll_timeout(now), None, "nothing is due after the end");
    end
}

fn number(id: RequestId, number: i64) -> Event<Board> {
    Event::Reply { id, reply: Reply::Random(number) }
}

const RANDOM: Event<Board> = Event::Notification(Notification::Random);

// Each setting by itself.

#[test]
fn without_settings_nothing_is_ever_due() {
    for mut state in BOTH.map(|board| client(board, OFF)) {
        state.request(Request::Random).unwrap();
        state.enter(()).unwrap();
        assert_eq!(state.poll_timeout(secs(1)), None);
        let before = state.clone();
        state.handle_timeout(minutes(1_000_000));
        assert_eq!(state, before);
    }
}

#[test]
fn each_setting_is_off_or_on_by_itself() {
    for board in BOTH {
        for which in 0..8 {
            let on = |bit: u32, after| Some(secs(after)).filter(|_| which & bit != 0);
            let timeouts = Timeouts { reply: on(1, 10), refresh: on(2, 20), silence: on(4, 30) };
            let mut state = inside(board, timeouts, secs(100));
            let mut due = [on(2, 120), on(4, 130)].into_iter().flatten().min();
            assert_eq!(state.poll_timeout(secs(105)), due, "{timeouts:?}");
            state.leave();
            state.request(Request::Random).unwrap();
            // A mode that is being left is not refreshed.
            due = [on(1, 115), on(4, 130)].into_iter().flatten().min();
            assert_eq!(state.poll_timeout(secs(105)), due, "{timeouts:?}");
        }
    }
}

#[test]
fn a_setting_that_is_turned_off_is_no_longer_due() {
    for board in BOTH {
        let all = Timeouts { reply: Some(secs(1)), refresh: Some(secs(2)), silence: Some(secs(3)) };
        let mut state = inside(board, all, secs(0));
        assert_eq!(state.poll_timeout(secs(0)), Some(secs(2)));
        state.set_timeouts(Timeouts { refresh: None, ..all });
        assert_eq!(state.poll_timeout(secs(0)), Some(secs(3)));
        state.leave();
        state.request(Request::Random).unwrap();
        assert_eq!(state.poll_timeout(secs(0)), Some(secs(1)));
        state.set_timeouts(silence(secs(3)));
        assert_eq!(state.poll_timeout(secs(0)), Some(secs(3)));
        state.set_timeouts(OFF);
        assert_eq!(state.poll_timeout(secs(0)), None);
        // What is turned on again counts anew.
        state.set_timeouts(all);
        assert_eq!(state.poll_timeout(secs(50)), Some(secs(51)));
    }
}

#[test]
fn a_deadline_that_is_fixed_stays_when_its_setting_changes() {
    for board in BOTH {
        let all = |after| Timeouts { reply: Some(after), refresh: Some(after), silence: Some(after) };
        let mut state = inside(board, all(minutes(5)), secs(0));
        state.set_timeouts(all(minutes(1)));
        assert_eq!(state.poll_timeout(secs(1)), Some(minutes(5)));
        state.leave();
        let id = state.request(Request::Random).unwrap();
        assert_eq!(state.poll_timeout(secs(1)), Some(secs(61)), "the request is new");
        state.set_timeouts(all(minutes(9)));
        assert_eq!(state.poll_timeout(secs(2)), Some(secs(61)));
        assert!(state.is_pending(id));
    }
}

#[test]
fn the_end_of_all_time_is_not_a_deadline() {
    let all = Timeouts { reply: Some(Duration::MAX), refresh: Some(Duration::MAX), silence: Some(Duration::MAX) };
    for board in BOTH {
        let mut state = inside(board, all, secs(1));
        state.leave();
        state.request(Request::Random).unwrap();
        assert_eq!(state.poll_timeout(secs(1)), None);
        state.handle_timeout(Duration::MAX);
        assert_eq!(state.poll_event(), Ok(None));
    }
}

#[test]
fn a_time_that_is_not_due_changes_nothing() {
    for board in BOTH {
        let all = Timeouts { reply: Some(secs(10)), refresh: Some(secs(10)), silence: Some(secs(10)) };
        let mut state = inside(board, all, secs(0));
        fix(&mut state, secs(0));
        for now in [secs(0), secs(5), secs(10) - Duration::from_nanos(1)] {
            let before = state.clone();
            state.handle_timeout(now);
            assert_eq!(state.poll_event(), Ok(None));
            assert_eq!(state, before);
            assert_eq!(state.poll_timeout(now), Some(secs(10)));
        }
        assert_ne!(expire(&mut state, secs(10)).1, "");
    }
}

#[test]
fn nothing_is_due_after_the_end() {
    for board in BOTH {
        let all = Timeouts { reply: Some(secs(1)), refresh: Some(secs(1)), silence: Some(secs(1)) };
        let mut state = inside(board, all, secs(0));
        state.receive_eof();
        assert_eq!(state.poll_timeout(secs(0)), None);
        state.handle_timeout(secs(9));
        assert_eq!(events(&mut state), [Event::Closed]);
        state.handle_timeout(secs(9));
        assert_eq!(state.poll_event(), Ok(None));
        assert_eq!(written(&mut state), "");
    }
}

// Less than a pause.

#[test]
fn a_mode_that_is_renewed_at_once_is_renewed_after_a_pause() {
    let least = Duration::from_millis(1);
    for board in BOTH {
        for span in [Duration::ZERO, Duration::from_nanos(999_999), least] {
            let mut state = inside(board, refresh(span), secs(9));
            let mut now = secs(9);
            for _ in 0..5 {
                // Whoever asks again and again does not see it due at once.
                for _ in 0..3 {
                    assert_eq!(state.poll_timeout(now), Some(now + least), "{span:?}");
                    state.handle_timeout(now);
                    assert_eq!((events(&mut state), written(&mut state)), (vec![], String::new()));
                }
                now += least;
                assert_eq!(expire(&mut state, now).1, "stop_notif\r\nnotif\r\n");
                read(&mut state, changed(board));
            }
        }
    }
}

#[test]
fn an_answer_and_a_sign_of_life_have_a_millisecond_as_well() {
    let least = Duration::from_millis(1);
    for board in BOTH {
        for timeouts in [reply(Duration::ZERO), silence(Duration::ZERO)] {
            let mut state = client(board, timeouts);
            state.request(Request::Random).unwrap();
            assert_eq!(state.poll_timeout(secs(1)), Some(secs(1) + least));
            state.handle_timeout(secs(1));
            assert_eq!(state.poll_event(), Ok(None));
        }
    }
}

// The greeting.

/// A server that greets, by `hello`; in other respects as [`Wire`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Greets(Wire);

impl Protocol for Greets {
    type Request = ();
    type Subscription = ();
    type Reply = String;
    type Refusal = ();
    type Notification = String;
    type Note = ();

    const TERMINATOR: Terminator = Terminator::Lf;
    const GREETING: bool = true;

    fn changes(&self) -> Changes {
        self.0.changes
    }

    fn encode_request(&self, id: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        self.0.encode_request(id, &(), out)
    }

    fn encode_enter(&self, id: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        self.0.encode_enter(id, &(), out)
    }

    fn encode_leave(&self, id: RequestId, (): &(), out: &mut Encoder<'_>) {
        self.0.encode_leave(id, &(), out);
    }

    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let line = String::from_utf8(frame.to_vec()).unwrap();
        Ok(match pending.awaiting() {
            Some(Asked::Greeting) if line == "hello" => Decoded::Greeting,
            Some(Asked::Request { id, .. }) => Decoded::reply(id, line),
            _ => Decoded::Notification(line),
        })
    }
}

fn greets(timeouts: Timeouts, greeting: Option<Duration>) -> ClientState<Greets> {
    let changes = Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own };
    let mut state = ClientState::new(Greets(Wire { changes, probed_in: &[] }));
    state.set_timeouts(timeouts);
    state.set_greeting_timeout(greeting);
    state
}

#[test]
fn a_server_that_never_greets_is_given_up() {
    let mut state = greets(OFF, Some(secs(10)));
    let id = state.request(()).unwrap();
    assert_eq!(state.poll_timeout(secs(100)), Some(secs(110)));
    // It counts from the first time that it was asked for, and nothing that is no greeting postpones it.
    assert_eq!(read(&mut state, "wait\nhel").len(), 1);
    assert_eq!(state.poll_timeout(secs(105)), Some(secs(110)));
    state.handle_timeout(secs(110) - Duration::from_nanos(1));
    assert_eq!(state.poll_event(), Ok(None));
    let lost = vec![Event::Lost { id, sent: false }];
    assert_eq!(expire_to_end(&mut state, secs(110)), (lost, Error::GreetingTimeout));
    assert_eq!(state.poll_event(), Err(Error::GreetingTimeout));
}

#[test]
fn a_greeting_that_has_come_is_not_waited_for() {
    let mut state = greets(OFF, Some(secs(10)));
    fix(&mut state, secs(0));
    // It came with the deadline: it is read first.
    state.handle_timeout(secs(10));
    assert_eq!(read(&mut state, "hello\n"), []);
    assert_eq!(state.poll_timeout(secs(11)), None);
    let id = state.request(()).unwrap();
    assert_eq!(state.poll_timeout(secs(12)), None);
    state.handle_timeout(secs(99));
    assert_eq!(read(&mut state, "yes\n"), [Event::Reply { id, reply: "yes".into() }]);
    // The end that came with it likewise.
    let mut state = greets(OFF, Some(secs(10)));
    fix(&mut state, secs(0));
    state.handle_timeout(secs(10));
    state.receive_eof();
    assert_eq!(state.poll_timeout(secs(10)), None);
    assert_eq!(state.poll_event(), Ok(Some(Event::Closed)));
}

#[test]
fn the_time_to_greet_is_independent_of_the_other_settings() {
    let all = |after| Timeouts { reply: Some(secs(after)), refresh: Some(secs(after)), silence: Some(secs(after)) };
    for (timeouts, greeting, due, error) in [
        (all(30), Some(20), 20, Error::GreetingTimeout),
        (all(10), Some(20), 10, Error::ReplyTimeout),
        // Both at once.
        (all(20), Some(20), 20, Error::GreetingTimeout),
        (reply(secs(30)), None, 30, Error::ReplyTimeout),
    ] {
        let mut state = greets(timeouts, greeting.map(secs));
        assert_eq!(state.poll_timeout(secs(0)), Some(secs(due)), "{timeouts:?} {greeting:?}");
        assert_eq!(expire_to_end(&mut state, secs(due)), (vec![], error.clone()));
        // A clock that jumped past both: the one that was due first counts.
        let mut state = greets(timeouts, greeting.map(secs));
        fix(&mut state, secs(0));
        state.handle_timeout(minutes(60));
        assert_eq!(end(&mut state), (vec![], error));
    }
    let mut state = greets(all(5), Some(secs(20)));
    fix(&mut state, secs(0));
    for timeouts in [OFF, all(60), OFF] {
        state.set_timeouts(timeouts);
        assert_eq!(state.poll_timeout(secs(1)), Some(secs(20)), "it stays: {timeouts:?}");
    }
    state.set_greeting_timeout(Some(secs(99)));
    assert_eq!(state.poll_timeout(secs(1)), Some(secs(20)), "as one that is fixed does");
    state.set_greeting_timeout(None);
    assert_eq!(state.poll_timeout(secs(1)), None);
    state.set_greeting_timeout(Some(Duration::ZERO));
    assert_eq!(state.poll_timeout(secs(1)), Some(secs(1) + Duration::from_millis(1)));
}

#[test]
fn a_protocol_without_a_greeting_has_no_time_for_it() {
    for board in BOTH {
        let (mut state, before) = (client(board, OFF), client(board, OFF));
        state.set_greeting_timeout(Some(secs(1)));
        assert_eq!(state, before);
        state.request(Request::Random).unwrap();
        assert_eq!(state.poll_timeout(secs(0)), None);
    }
}

#[test]
fn the_time_to_greet_tells_two_connections_apart_until_they_are_greeted() {
    let [mut a, mut b] = [Some(secs(1)), Some(secs(2))].map(|greeting| greets(OFF, greeting));
    assert_ne!(a, b);
    for state in [&mut a, &mut b] {
        fix(state, secs(7));
        read(state, "hello\n");
    }
    assert_eq!(a, b);
}

// Reply.

#[test]
fn an_answer_that_does_not_come_ends_the_connection() {
    for board in BOTH {
        let mut state = client(board, reply(secs(30)));
        let first = state.request(Request::Random).unwrap();
        assert_eq!(state.poll_timeout(secs(100)), Some(secs(130)));
        written(&mut state);
        let second = state.request(Request::Classified).unwrap();
        assert_eq!(state.poll_timeout(secs(110)), Some(secs(130)));
        let lost = vec![Event::Lost { id: first, sent: true }, Event::Lost { id: second, sent: false }];
        assert_eq!(expire_to_end(&mut state, secs(130)), (lost, Error::ReplyTimeout));
        assert_eq!(state.poll_event(), Err(Error::ReplyTimeout));
    }
}

#[test]
fn it_counts_from_its_own_question() {
    for board in BOTH {
        let mut state = client(board, reply(secs(30)));
        let first = state.request(Request::Random).unwrap();
        fix(&mut state, secs(100));
        let second = state.request(Request::Random).unwrap();
        assert_eq!(state.poll_timeout(secs(120)), Some(secs(130)));
        assert_eq!(read(&mut state, "1\r\n"), [number(first, 1)]);
        // Other octets do not postpone it.
        assert_eq!(read(&mut state, "12"), []);
        assert_eq!(state.poll_timeout(secs(140)), Some(secs(150)));
        assert_eq!(read(&mut state, "3\r\n"), [number(second, 123)]);
        assert_eq!(state.poll_timeout(secs(140)), None);
    }
}

#[test]
fn what_arrived_with_the_deadline_is_read_first() {
    for board in BOTH {
        let mut state = client(board, Timeouts { silence: Some(secs(30)), ..reply(secs(30)) });
        let id = state.request(Request::Random).unwrap();
        fix(&mut state, secs(0));
        state.handle_timeout(secs(30));
        assert_eq!(read(&mut state, "46774\r\n"), [number(id, 46774)]);
        assert_eq!(state.output(), b"random?\r\n", "no probe is asked for");
        assert_eq!(state.poll_timeout(secs(31)), Some(secs(61)));
    }
}

#[test]
fn the_end_that_arrived_with_the_deadline_is_read_first() {
    for board in BOTH {
        let mut state = client(board, reply(secs(30)));
        let id = state.request(Request::Random).unwrap();
        fix(&mut state, secs(0));
        state.handle_timeout(secs(30));
        state.receive_eof();
        assert_eq!(events(&mut state), [Event::Lost { id, sent: false }, Event::Closed]);
    }
}

#[test]
fn a_question_behind_a_gate_counts_from_when_it_may_be_sent() {
    let mut state = client(Board::acknowledged(), reply(secs(30)));
    let enter = state.enter(()).unwrap();
    state.leave();
    let id = state.request(Request::Random).unwrap();
    // Only the enter has been asked of the server.
    assert_eq!((state.poll_timeout(secs(100)), written(&mut state).as_str()), (Some(secs(130)), "notif\r\n"));
    assert_eq!(state.poll_timeout(secs(120)), Some(secs(130)));
    assert_eq!(read(&mut state, "OK\r\n"), [Event::Entered { id: enter }]);
    assert_eq!(state.poll_timeout(secs(125)), Some(secs(155)));
    written(&mut state);
    assert_eq!(read(&mut state, "OK\r\n"), [Event::Left { id: enter, asked: true, refusal: None }]);
    assert_eq!(state.poll_timeout(secs(126)), Some(secs(155)));
    let lost = vec![Event::Lost { id, sent: true }];
    assert_eq!(expire_to_end(&mut state, secs(155)), (lost, Error::ReplyTimeout));
}

#[test]
fn what_has_no_answer_is_never_overdue() {
    let mut state = inside(Board::silent(), reply(secs(30)), secs(0));
    state.leave();
    assert_eq!(state.poll_timeout(secs(0)), None);
    state.enter(()).unwrap();
    assert_eq!(state.poll_timeout(secs(0)), None);

    let mut state = client(Board::acknowledged(), reply(secs(30)));
    let enter = state.enter(()).unwrap();
    assert_eq!(state.poll_timeout(secs(0)), Some(secs(30)));
    let lost = vec![Event::Lost { id: enter, sent: false }];
    assert_eq!(expire_to_end(&mut state, secs(30)), (lost, Error::ReplyTimeout));
    let mut state = inside(Board::acknowledged(), reply(secs(30)), secs(0));
    state.leave();
    fix(&mut state, secs(7));
    assert_eq!(expire_to_end(&mut state, secs(37)), (vec![], Error::ReplyTimeout));
}

// Refresh.

/// What the server answers to leave and enter.
fn changed(board: Board) -> &'static str {
    if board == Board::silent() { "" } else { "OK\r\nOK\r\n" }
}

#[test]
fn a_mode_is_renewed_in_one_write_and_loses_nothing() {
    for board in BOTH {
        let mut state = client(board, refresh(minutes(25)));
        let first = state.enter(()).unwrap();
        written(&mut state);
        events(&mut state);
        read(&mut state, if board == Board::silent() { "" } else { "OK\r\n" });
        assert_eq!(state.poll_timeout(minutes(1)), Some(minutes(26)));

        state.handle_timeout(minutes(26));
        // What was on its way belongs to the mode that is left, as far as one can tell.
        state.receive(b"notif: random\r\n");
        assert_eq!(state.poll_event(), Ok(Some(RANDOM)));
        let told = events(&mut state);
        let renewal = state.refreshing();
        assert_eq!(state.output(), b"stop_notif\r\nnotif\r\n");
        written(&mut state);
        state.receive(format!("notif: random\r\n{}notif: classified\r\n", changed(board)).as_bytes());
        let told: Vec<_> = told.into_iter().chain(events(&mut state)).collect();
        let id = match (board == Board::silent(), renewal) {
            // No answer is waited for.
            (true, None) => told.iter().find_map(|event| match event {
                Event::Entered { id } => Some(*id),
                _ => None,
            }),
            (false, renewal) => renewal,
            (true, Some(_)) => panic!("a silent enter waits for nothing"),
        };
        let id = id.unwrap();
        assert!(id > first);
        let left = Event::Left { id: first, asked: true, refusal: None };
        let classified = Event::Notification(Notification::Classified);
        let expected = if board == Board::silent() {
            [left, Event::Entered { id }, RANDOM, classified]
        } else {
            [RANDOM, left, Event::Entered { id }, classified]
        };
        assert_eq!(told, expected);
        assert_eq!(state.refreshing(), None);
        assert_eq!(state.mode(), Mode::Notification);
    }
}

#[test]
fn chatter_does_not_postpone_a_refresh() {
    for board in BOTH {
        let mut state = inside(board, refresh(minutes(25)), minutes(0));
        for minute in 1..25 {
            assert_eq!(read(&mut state, "notif: random\r\n"), [RANDOM]);
            assert_eq!(state.poll_timeout(minutes(minute)), Some(minutes(25)));
        }
        assert_eq!(expire(&mut state, minutes(25)).1, "stop_notif\r\nnotif\r\n");
        read(&mut state, changed(board));
        // It counts from the entering, as each does.
        assert_eq!(state.poll_timeout(minutes(26)), Some(minutes(51)));
    }
}

#[test]
fn another_enter_counts_anew_and_a_leave_counts_no_more() {
    for board in BOTH {
        let mut state = inside(board, refresh(minutes(25)), minutes(0));
        state.leave();
        assert_eq!(state.poll_timeout(minutes(24)), None);
        state.handle_timeout(minutes(25));
        assert_eq!((state.poll_event(), written(&mut state).as_str()), (Ok(None), "stop_notif\r\n"));
        state.enter(()).unwrap();
        written(&mut state);
        read(&mut state, changed(board));
        assert_eq!(state.poll_timeout(minutes(30)), Some(minutes(55)));
    }
}

#[test]
fn a_refusal_of_the_renewal_is_told_of_that_enter() {
    let mut state = inside(Board::acknowledged(), refresh(minutes(25)), minutes(0));
    assert_eq!(expire(&mut state, minutes(25)), (vec![], "stop_notif\r\nnotif\r\n".into()));
    let renewal = state.refreshing().unwrap();
    state.receive(b"OK\r\nno more\r\n");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Left { asked: true, refusal: None, .. }))));
    let refusal = Refusal::WrongKind("no more".into());
    assert_eq!(events(&mut state), [Event::Refused { id: renewal, refusal }]);
    assert_eq!((state.mode(), state.refreshing()), (Mode::Normal, None));
    assert_eq!(state.poll_timeout(minutes(26)), None);
}

#[test]
fn a_renewal_that_the_end_overtakes_is_not_told_as_lost() {
    let mut state = inside(Board::acknowledged(), refresh(minutes(25)), minutes(0));
    expire(&mut state, minutes(25));
    assert!(state.refreshing().is_some());
    state.receive_eof();
    assert_eq!(events(&mut state), [Event::Closed]);
    assert_eq!(state.refreshing(), None);
}

#[test]
fn a_leave_while_the_mode_is_renewed_is_the_callers() {
    let mut state = inside(Board::acknowledged(), refresh(minutes(25)), minutes(0));
    expire(&mut state, minutes(25));
    let renewal = state.refreshing().unwrap();
    assert_eq!(state.asked_mode(), Mode::Entering);
    assert!(state.leave());
    let id = state.request(Request::Random).unwrap();
    assert_eq!(written(&mut state), "", "it waits until the enter is confirmed");
    let told = read(&mut state, "OK\r\nOK\r\nnotif: random\r\n");
    assert_eq!(told[1..], [Event::Entered { id: renewal }, RANDOM]);
    assert_eq!(written(&mut state), "stop_notif\r\nrandom?\r\n");
    let left = Event::Left { id: renewal, asked: true, refusal: None };
    assert_eq!(read(&mut state, "OK\r\n5\r\n"), [left, number(id, 5)]);
}

// Silence.

#[test]
fn any_octet_postpones_silence() {
    for board in BOTH {
        for start in [client(board, silence(secs(60))), inside(board, silence(secs(60)), secs(0))] {
            let mut state = start;
            assert_eq!(state.poll_timeout(secs(0)), Some(secs(60)));
            // Nothing is something only if it has an octet.
            state.receive(b"");
            assert_eq!(state.poll_timeout(secs(30)), Some(secs(60)));
            for (second, octet) in (59..).step_by(59).zip(b"notif: rand") {
                state.receive(&[*octet]);
                assert_eq!(state.poll_event(), Ok(None));
                assert_eq!(state.poll_timeout(secs(second)), Some(secs(second + 60)));
            }
        }
    }
}

#[test]
fn silence_is_first_answered_by_a_probe() {
    for board in BOTH {
        let mut state = client(board, silence(secs(60)));
        fix(&mut state, secs(0));
        assert_eq!(expire(&mut state, secs(60)), (vec![], "random?\r\n".into()));
        // Its answer is not told, and another silence may follow.
        assert_eq!(read(&mut state, "46774\r\n"), []);
        assert_eq!(state.poll_timeout(secs(70)), Some(secs(130)));
        assert_eq!(expire(&mut state, secs(130)), (vec![], "random?\r\n".into()));
        // What is asked behind it gets its own answer.
        let id = state.request(Request::Random).unwrap();
        assert_eq!(read(&mut state, "46774\r\n2\r\n"), [number(id, 2)]);
    }
}

#[test]
fn silence_after_the_probe_ends_the_connection() {
    for board in BOTH {
        for start in [client(board, silence(secs(60))), inside(board, silence(secs(60)), secs(0))] {
            let mut state = start;
            fix(&mut state, secs(0));
            let (told, sent) = expire(&mut state, secs(60));
            assert!(!sent.is_empty());
            let (lost, error) = expire_to_end(&mut state, secs(120));
            assert_eq!(error, Error::SilenceTimeout);
            assert_eq!(lost, [], "after {told:?}");
        }
    }
}

#[test]
fn the_mode_is_probed_by_leaving_and_entering() {
    for board in BOTH {
        let mut state = inside(board, silence(secs(60)), secs(0));
        let (told, sent) = expire(&mut state, secs(60));
        assert_eq!(told, []);
        if board == Board::silent() {
            assert_eq!(sent, "stop_notif\r\nrandom?\r\nnotif\r\n");
            let told = read(&mut state, "notif: random\r\n46774\r\nnotif: classified\r\n");
            let [random, Event::Left { .. }, Event::Entered { .. }, classified] = &told[..] else {
                panic!("{told:?}");
            };
            assert_eq!((random, classified), (&RANDOM, &Event::Notification(Notification::Classified)));
        } else {
            assert_eq!(sent, "stop_notif\r\nnotif\r\n");
            let told = read(&mut state, "notif: random\r\nOK\r\nOK\r\n");
            let [random, Event::Left { .. }, Event::Entered { .. }] = &told[..] else { panic!("{told:?}") };
            assert_eq!(random, &RANDOM);
        }
        assert_eq!(state.mode(), Mode::Notification);
        assert_eq!(state.poll_timeout(secs(61)), Some(secs(121)));
    }
}

#[test]
fn the_news_that_a_probe_fetches_is_told() {
    for board in BOTH {
        let mut state = client(board, silence(secs(60)));
        let probed = |state: &mut Client, now, answer: &str| {
            fix(state, secs(now));
            assert_eq!(expire(state, secs(now + 60)).1, "random?\r\n");
            read(state, answer)
        };
        // Never fetched: none of it is news to anyone.
        assert_eq!(probed(&mut state, 0, "1\r\n"), []);
        assert_eq!(probed(&mut state, 100, "1\r\n"), []);
        assert_eq!(probed(&mut state, 200, "2\r\n"), [RANDOM]);
        assert_eq!(probed(&mut state, 300, "2\r\n"), []);
        let id = state.request(Request::Random).unwrap();
        written(&mut state);
        assert_eq!(read(&mut state, "3\r\n"), [number(id, 3)]);
        assert_eq!(probed(&mut state, 400, "3\r\n"), []);
        assert_eq!(probed(&mut state, 500, "4\r\n"), [RANDOM]);
    }
}

#[test]
fn the_news_that_a_probe_fetches_is_not_told_again() {
    // Told while a leave is on its way, or before it.
    for leave_first in [false, true] {
        for (kind, news) in [(Notification::Random, None), (Notification::Classified, Some(RANDOM))] {
            let line = if news.is_none() { "notif: random\r\n" } else { "notif: classified\r\n" };
            let mut state = client(Board::acknowledged(), silence(secs(60)));
            let id = state.request(Request::Random).unwrap();
            let enter = state.enter(()).unwrap();
            assert_eq!(read(&mut state, "1\r\nOK\r\n"), [number(id, 1), Event::Entered { id: enter }]);
            if leave_first {
                state.leave();
            }
            assert_eq!(read(&mut state, line), [Event::Notification(kind)]);
            state.leave();
            assert_eq!(read(&mut state, "OK\r\n").len(), 1);
            written(&mut state);
            fix(&mut state, secs(0));
            assert_eq!(expire(&mut state, secs(60)).1, "random?\r\n");
            assert_eq!(read(&mut state, "2\r\n"), Vec::from_iter(news));
        }
    }
}

#[test]
fn a_probe_that_is_not_answered_rightly_is_absorbed_as_well() {
    for board in BOTH {
        let mut state = client(board, silence(secs(60)));
        fix(&mut state, secs(0));
        expire(&mut state, secs(60));
        assert_eq!(read(&mut state, "not a number\r\n"), []);
        assert_eq!(state.poll_timeout(secs(61)), Some(secs(121)));
    }
}

#[test]
fn a_probe_has_its_place_whatever_is_full() {
    for board in BOTH {
        let mut state = ClientState::with_limits(board, Limits::new().with_pending(2).with_output(18));
        state.set_timeouts(silence(secs(60)));
        let ids = [state.request(Request::Random).unwrap(), state.request(Request::Random).unwrap()];
        state.request(Request::Random).unwrap_err();
        fix(&mut state, secs(0));
        assert_eq!(expire(&mut state, secs(60)), (vec![], "random?\r\n".repeat(3)));
        assert_eq!(read(&mut state, "1\r\n2\r\n2\r\n"), [number(ids[0], 1), number(ids[1], 2)]);
    }
}

#[test]
fn what_the_stream_does_not_take_is_not_added_to() {
    for board in BOTH {
        let mut state = inside(board, silence(secs(60)), secs(0));
        state.handle_timeout(secs(60));
        events(&mut state);
        let octets = state.output().len();
        assert!(octets > 0);
        // An octet comes now and then, but nothing can be written.
        for hour in 1..10 {
            state.receive(if hour == 1 { b"n" } else { b"o" });
            events(&mut state);
            let due = state.poll_timeout(minutes(60 * hour)).unwrap();
            state.handle_timeout(due);
            events(&mut state);
            assert_eq!(state.output().len(), octets);
        }
    }
    // A silent mode is renewed as soon as that is asked, so the next may be due before it is written.
    let mut state = inside(Board::silent(), refresh(secs(60)), secs(0));
    for hour in 1..10 {
        state.handle_timeout(minutes(60 * hour));
        events(&mut state);
        assert_eq!(state.output(), b"stop_notif\r\nnotif\r\n");
        fix(&mut state, minutes(60 * hour));
    }
    written(&mut state);
    state.handle_timeout(minutes(600));
    events(&mut state);
    assert_eq!(state.output(), b"stop_notif\r\nnotif\r\n");
}

#[test]
fn while_entering_silence_is_only_waited_for() {
    let mut state = client(Board::acknowledged(), silence(secs(60)));
    let id = state.enter(()).unwrap();
    written(&mut state);
    fix(&mut state, secs(0));
    assert_eq!(expire(&mut state, secs(60)), (vec![], String::new()));
    let lost = vec![Event::Lost { id, sent: true }];
    assert_eq!(expire_to_end(&mut state, secs(120)), (lost, Error::SilenceTimeout));
}

#[test]
fn behind_a_gate_silence_is_only_waited_for() {
    let mut state = client(Board::acknowledged(), silence(secs(60)));
    let enter = state.enter(()).unwrap();
    state.leave();
    let id = state.request(Request::Random).unwrap();
    written(&mut state);
    fix(&mut state, secs(0));
    assert_eq!(expire(&mut state, secs(60)), (vec![], String::new()));
    let mut answered = state.clone();
    read(&mut answered, "OK\r\n");
    assert_eq!(written(&mut answered), "stop_notif\r\nrandom?\r\n", "nothing was asked behind it");
    let lost = vec![Event::Lost { id: enter, sent: true }, Event::Lost { id, sent: false }];
    assert_eq!(expire_to_end(&mut state, secs(120)), (lost, Error::SilenceTimeout));
}

// A clock that jumps.

#[test]
fn a_clock_that_jumps_leads_to_one_probe() {
    for board in BOTH {
        let all = Timeouts { silence: Some(secs(60)), refresh: Some(minutes(25)), reply: Some(minutes(1)) };
        for start in [client(board, all), inside(board, all, secs(0))] {
            let mut state = start;
            fix(&mut state, secs(0));
            // A machine that slept for a week.
            let mut now = minutes(7 * 24 * 60);
            let due = state.poll_timeout(now).unwrap();
            assert!(due < now, "it is long past");
            state.handle_timeout(now);
            events(&mut state);
            let sent = written(&mut state);
            let probes = ["random?\r\n", "stop_notif\r\nrandom?\r\nnotif\r\n", "stop_notif\r\nnotif\r\n"];
            assert!(probes.contains(&&*sent), "{sent:?}");
            for _ in 0..5 {
                now += secs(1);
                assert!(state.poll_timeout(now).unwrap() > now);
                state.handle_timeout(now);
                assert_eq!((events(&mut state).len(), written(&mut state).as_str()), (0, ""));
            }
        }
    }
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    for board in BOTH {
        let mut state = inside(board, Timeouts { refresh: Some(secs(50)), ..silence(secs(60)) }, secs(1000));
        assert_eq!(state.poll_timeout(secs(10)), Some(secs(1050)));
        state.handle_timeout(secs(10));
        assert_eq!(state.poll_event(), Ok(None));
        assert_eq!((state.poll_timeout(secs(1000)), state.output()), (Some(secs(1050)), &b""[..]));
    }
}

// A month.

/// The connection talks to a server that answers at once, from `now` until a month later: what was sent of its own accord,
/// and when. Every `chatter` there is news.
fn month(state: &mut Client, server: &mut ServerState, chatter: Option<Duration>) -> (Vec<(Duration, String)>, u64) {
    let month = minutes(30 * 24 * 60);
    let (mut now, mut sent, mut told) = (Duration::ZERO, Vec::new(), 0);
    let mut next_news = chatter;
    loop {
        loop {
            let output = written(state);
            server.receive(output.as_bytes());
            if !output.is_empty() {
                sent.push((now, output));
            }
            while server.poll_request().is_some() {
                server.answer(Reply::Random(46774)).unwrap();
            }
            let answered = server.output().len();
            state.receive(server.output());
            server.advance_output(answered);
            told += events(state).iter().filter(|event| matches!(event, Event::Notification(_))).count() as u64;
            if answered == 0 && state.output().is_empty() {
                break;
            }
        }
        let due = state.poll_timeout(now);
        now = due.into_iter().chain(next_news).min().unwrap_or(Duration::MAX);
        if now > month {
            return (sent, told);
        }
        if next_news == Some(now) {
            server.notify(Request::Classified);
            next_news = chatter.map(|chatter| now + chatter);
        }
        if due == Some(now) {
            state.handle_timeout(now);
        }
    }
}

/// Every `span` of a month this is sent.
fn every(span: u64, what: &str) -> Vec<(Duration, String)> {
    (1..=30 * 24 * 60 / span).map(|time| (minutes(span * time), what.into())).collect()
}

#[test]
fn a_quiet_month() {
    for board in BOTH {
        let is_silent = board == Board::silent();
        let quiet = |timeouts, enters| {
            let (mut state, mut server) = (client(board, timeouts), ServerState::new(board));
            if enters {
                state.enter(()).unwrap();
                written(&mut state);
                server.receive(b"notif\r\n");
            }
            month(&mut state, &mut server, None).0
        };
        let renewal = "stop_notif\r\nnotif\r\n";
        let proof = if is_silent { "stop_notif\r\nrandom?\r\nnotif\r\n" } else { renewal };
        assert_eq!(quiet(OFF, true), []);
        assert_eq!(quiet(refresh(minutes(25)), false), []);
        assert_eq!(quiet(refresh(minutes(25)), true), every(25, renewal));
        assert_eq!(quiet(silence(minutes(5)), false), every(5, "random?\r\n"));
        assert_eq!(quiet(silence(minutes(5)), true), every(5, proof));
        let both = Timeouts { reply: Some(minutes(1)), refresh: Some(minutes(25)), silence: Some(minutes(10)) };
        assert_eq!(quiet(both, false), every(10, "random?\r\n"));
        // Each proof of life renews the mode as well.
        assert_eq!(quiet(both, true), every(10, proof));
        // And each renewal proves life, where it is answered.
        let both = Timeouts { silence: Some(minutes(40)), ..both };
        if !is_silent {
            assert_eq!(quiet(both, true), every(25, renewal));
        }
    }
}

#[test]
fn a_chatty_month() {
    for board in BOTH {
        let (mut state, mut server) = (client(board, OFF), ServerState::new(board));
        state.enter(()).unwrap();
        written(&mut state);
        server.receive(b"notif\r\n");
        state.set_timeouts(Timeouts { reply: Some(minutes(1)), refresh: Some(minutes(25)), silence: Some(minutes(5)) });
        let (sent, told) = month(&mut state, &mut server, Some(secs(10)));
        assert_eq!(sent, every(25, "stop_notif\r\nnotif\r\n"));
        assert_eq!(told, 30 * 24 * 60 * 6);
    }
}

// Two connections.

#[test]
fn a_deadline_that_is_fixed_tells_two_connections_apart_and_a_past_one_does_not() {
    for board in BOTH {
        for timeouts in [silence(secs(60)), refresh(secs(60))] {
            let [mut a, mut b] = [secs(0), secs(5)].map(|now| inside(board, timeouts, now));
            assert_ne!(a, b);
            // Both are heard, and enter again: their deadlines are still to be fixed.
            for state in [&mut a, &mut b] {
                state.leave();
                state.request(Request::Random).unwrap();
                state.enter(()).unwrap();
                written(state);
                read(state, if board == Board::silent() { "1\r\n" } else { "OK\r\n1\r\nOK\r\n" });
            }
            assert_eq!(a, b);
            fix(&mut a, secs(7));
            assert_ne!(a, b);
            fix(&mut b, secs(7));
            assert_eq!(a, b);
        }
        let [mut a, b] = [client(board, reply(secs(60))), client(board, reply(secs(61)))];
        assert_ne!(a, b);
        a.set_timeouts(reply(secs(61)));
        assert_eq!(a, b);
    }
}

// Other protocols.

/// Lines are answered by lines; what may be probed, and how its mode changes, is for the test to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Wire {
    changes: Changes,
    probed_in: &'static [Setting],
}

impl Protocol for Wire {
    type Request = ();
    type Subscription = ();
    type Reply = String;
    type Refusal = ();
    type Notification = String;
    type Note = ();

    const TERMINATOR: Terminator = Terminator::Lf;

    fn changes(&self) -> Changes {
        self.changes
    }

    fn allows(&self, (): &(), _: Setting) -> bool {
        true
    }

    fn encode_request(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"ask\n");
        Ok(())
    }

    fn encode_enter(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"enter\n");
        Ok(())
    }

    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) {
        out.put(b"leave\n");
    }

    fn encode_probe(&self, _: RequestId, setting: Setting, out: &mut Encoder<'_>) -> Option<()> {
        // What is put there without a probe is not sent.
        out.put(b"ping\n");
        self.probed_in.contains(&setting).then_some(())
    }

    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let line = String::from_utf8(frame.to_vec()).unwrap();
        if line == "entered" {
            return Ok(Decoded::Entered);
        }
        Ok(match pending.awaiting() {
            Some(Asked::Request { id, .. }) if line.starts_with("reply") => Decoded::reply(id, line),
            _ if line == "left" => Decoded::Left,
            _ => Decoded::Notification(line),
        })
    }
}

fn wire(probed_in: &'static [Setting], timeouts: Timeouts) -> ClientState<Wire> {
    let changes = Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own };
    let mut state = ClientState::new(Wire { changes, probed_in });
    state.set_timeouts(timeouts);
    state
}

fn wire_inside(probed_in: &'static [Setting], timeouts: Timeouts) -> ClientState<Wire> {
    let mut state = wire(probed_in, timeouts);
    state.enter(()).unwrap();
    written(&mut state);
    assert_eq!(read(&mut state, "entered\n").len(), 1);
    fix(&mut state, secs(0));
    state
}

#[test]
fn a_probe_that_the_mode_allows_renews_it_as_well() {
    for timeouts in [refresh(secs(60)), silence(secs(60))] {
        let mut state = wire_inside(&[Setting::Notification], timeouts);
        assert_eq!(expire(&mut state, secs(60)), (vec![], "ping\n".into()));
        assert_eq!(state.refreshing(), None);
        assert_eq!(read(&mut state, "ring\nreply\n"), [Event::Notification("ring".into())]);
        assert_eq!(state.poll_timeout(secs(61)).unwrap(), secs(120 + u64::from(timeouts.refresh.is_none())));
    }
}

#[test]
fn there_is_one_probe_at_a_time() {
    let timeouts = Timeouts { refresh: Some(secs(60)), silence: Some(secs(90)), reply: None };
    let mut state = wire_inside(&[Setting::Notification], timeouts);
    assert_eq!(expire(&mut state, secs(60)).1, "ping\n");
    // The one on its way will do.
    assert_eq!(expire(&mut state, secs(90)).1, "");
    assert_eq!(expire(&mut state, secs(120)).1, "");
    assert_eq!(expire_to_end(&mut state, secs(180)), (vec![], Error::SilenceTimeout));
}

#[test]
fn without_a_probe_silence_ends_the_connection_at_once() {
    let mut state = wire(&[], silence(secs(60)));
    fix(&mut state, secs(0));
    assert_eq!(expire_to_end(&mut state, secs(60)), (vec![], Error::SilenceTimeout));
    assert_eq!(state.output(), b"");
}

#[test]
fn without_a_probe_an_answer_that_is_due_is_waited_for() {
    let mut state = wire(&[], silence(secs(60)));
    let id = state.request(()).unwrap();
    fix(&mut state, secs(0));
    assert_eq!(expire(&mut state, secs(60)), (vec![], "ask\n".into()));
    let lost = vec![Event::Lost { id, sent: true }];
    assert_eq!(expire_to_end(&mut state, secs(120)), (lost, Error::SilenceTimeout));
}

#[test]
fn where_no_change_is_answered_and_nothing_probed_the_mode_is_not_left_in_vain() {
    let silent = Changes { enter: EnterAnswer::Silent, leave: LeaveAnswer::Silent };
    let mut state = ClientState::new(Wire { changes: silent, probed_in: &[] });
    state.set_timeouts(silence(secs(60)));
    state.enter(()).unwrap();
    written(&mut state);
    events(&mut state);
    fix(&mut state, secs(0));
    assert_eq!(expire_to_end(&mut state, secs(60)), (vec![], Error::SilenceTimeout));
    assert_eq!(state.output(), b"");

    // A refresh needs no proof.
    let mut state = ClientState::new(Wire { changes: silent, probed_in: &[] });
    state.set_timeouts(refresh(secs(60)));
    state.enter(()).unwrap();
    written(&mut state);
    events(&mut state);
    fix(&mut state, secs(0));
    assert_eq!(expire(&mut state, secs(60)).1, "leave\nenter\n");
}

// Any connection.

/// What happens at a time.
#[derive(Clone, Debug)]
enum Happens {
    Ask,
    Enter,
    Leave,
    Ring,
    News(Request),
    /// The server reads and writes nothing from now on.
    Dies,
    Cut,
    /// Octets reach the server, or the client.
    Up(Vec<u8>),
    Down(Vec<u8>),
}

/// How long octets are under way.
#[derive(Clone, Debug)]
struct Delays {
    up: u64,
    down: u64,
    /// The client's output is taken in pieces of so many octets.
    piece: usize,
}

/// A client and a server with a network between them, on one clock of milliseconds. The client asks only
/// `classified?`, so that each `random?` is a probe.
struct World {
    now: u64,
    delays: Delays,
    client: Client,
    server: ServerState,
    /// In the order of time, and of arrival at the same time.
    agenda: BTreeMap<(u64, u64), Happens>,
    order: u64,
    dead: bool,
    /// Since when the client has read nothing.
    heard: u64,
    asked: VecDeque<(RequestId, u64)>,
    answered: u64,
    /// How many answers the server has given to what was asked.
    served: u64,
    pushed: VecDeque<Notification>,
    over: Option<Error>,
    closed: bool,
}

impl World {
    fn plan(&mut self, at: u64, what: Happens) {
        self.agenda.insert((at, self.order), what);
        self.order += 1;
    }

    fn run(&mut self) {
        loop {
            self.settle();
            if self.over.is_some() || self.closed {
                return;
            }
            let now = Duration::from_millis(self.now);
            let due = self.client.poll_timeout(now);
            assert!(due.is_none_or(|due| due > now), "it is due, and has been judged: {due:?}");
            assert_eq!(self.client.poll_timeout(now), due, "it holds until something happens");
            let due = due.map(|due| u64::try_from(due.as_millis()).unwrap());
            match (self.agenda.keys().next().copied(), due) {
                (Some(next), due) if due.is_none_or(|due| next.0 <= due) => {
                    self.now = next.0;
                    let what = self.agenda.remove(&next).unwrap();
                    self.happen(what);
                    // Both at the same time.
                    if due == Some(self.now) {
                        self.client.handle_timeout(Duration::from_millis(self.now));
                    }
                }
                // An hour after the last event nothing new comes.
                (None, due) if due.is_none_or(|due| due > HOUR) => return,
                (_, Some(due)) => {
                    self.now = due;
                    self.client.handle_timeout(Duration::from_millis(due));
                }
                (_, None) => return,
            }
        }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Ask => {
                if let Ok(id) = self.client.request(Request::Classified) {
                    self.asked.push_back((id, self.answered + self.asked.len() as u64));
                }
            }
            Happens::Enter => drop(self.client.enter(())),
            Happens::Leave => {
                self.client.leave();
            }
            Happens::Ring => {
                if let Ok((id, _)) = self.client.ring(Request::Classified, ()) {
                    self.asked.push_back((id, self.answered + self.asked.len() as u64));
                }
            }
            Happens::News(kind) => self.server.notify(kind),
            Happens::Dies => self.dead = true,
            Happens::Cut => self.client.receive_eof(),
            Happens::Up(octets) => self.server.receive(&octets),
            Happens::Down(octets) => {
                self.heard = self.now;
                self.client.receive(&octets);
            }
        }
    }

    /// Whatever can be done without time passing.
    fn settle(&mut self) {
        while let Some(told) = self.client.poll_event().transpose() {
            self.tell(told);
            if self.over.is_some() || self.closed {
                return;
            }
        }
        while !self.client.output().is_empty() {
            let octets = self.client.output().len().min(self.delays.piece);
            let piece = self.client.output()[..octets].to_vec();
            self.client.advance_output(octets);
            self.plan(self.now + self.delays.up, Happens::Up(piece));
        }
        while let Some(question) = self.server.poll_request().filter(|_| !self.dead) {
            let answer = match question {
                Request::Random => Reply::Random(46774),
                Request::Classified => {
                    self.served += 1;
                    Reply::Classified(format!("{}", self.served - 1).into())
                }
            };
            self.server.answer(answer).unwrap();
        }
        if !self.dead && !self.server.output().is_empty() {
            let octets = self.server.output().to_vec();
            for line in octets.split_inclusive(|octet| *octet == b'\n') {
                self.pushed.extend(match line {
                    b"notif: random\r\n" => Some(Notification::Random),
                    b"notif: classified\r\n" => Some(Notification::Classified),
                    _ => None,
                });
            }
            self.server.advance_output(octets.len());
            self.plan(self.now + self.delays.down, Happens::Down(octets));
        }
        assert!(self.server.error().is_none(), "{:?}", self.server.error());
    }

    fn tell(&mut self, told: Result<Event<Board>, Error>) {
        match told {
            Ok(Event::Reply { id, reply }) => {
                let number = self.answered;
                assert_eq!(self.asked.pop_front(), Some((id, number)), "one outcome, in order");
                assert_eq!(reply, Reply::Classified(format!("{number}").into()), "its own answer");
                self.answered += 1;
            }
            Ok(Event::Lost { id, .. }) => {
                if self.asked.front().is_some_and(|(asked, _)| *asked == id) {
                    self.asked.pop_front();
                }
            }
            Ok(Event::Notification(notification)) => {
                assert_eq!(self.pushed.pop_front(), Some(notification), "none lost, none doubled");
            }
            Ok(Event::Refused { id, refusal }) => panic!("{id}: {refusal:?}"),
            Ok(Event::Closed) => self.closed = true,
            Ok(Event::Entered { .. } | Event::Left { .. }) => {}
            Err(error) => self.over = Some(error),
        }
    }
}

const HOUR: u64 = 3_600_000;

fn agenda() -> impl Strategy<Value = Vec<(u64, Happens)>> {
    let what = prop_oneof![
        3 => Just(Happens::Ask),
        3 => Just(Happens::Enter),
        2 => Just(Happens::Leave),
        2 => Just(Happens::Ring),
        3 => prop_oneof![Just(Request::Random), Just(Request::Classified)].prop_map(Happens::News),
    ];
    // Often at once, sometimes after a while.
    proptest::collection::vec((prop_oneof![Just(0), 0..300_u64, 0..100_000_u64], what), 0..30)
}

/// Deadlines of which none is shorter than `least`.
fn timeouts(least: u64) -> impl Strategy<Value = Timeouts> {
    let some = move || proptest::option::of((least..least + 60_000).prop_map(Duration::from_millis));
    (some(), some(), some()).prop_map(|(reply, refresh, silence)| Timeouts { reply, refresh, silence })
}

fn delays() -> impl Strategy<Value = Delays> {
    (0..400_u64, 0..400_u64, prop_oneof![Just(usize::MAX), 1..12_usize]).prop_map(|(up, down, piece)| Delays {
        up,
        down,
        piece,
    })
}

fn world(board: Board, timeouts: Timeouts, delays: Delays, agenda: Vec<(u64, Happens)>) -> World {
    let mut world = World {
        now: 0,
        delays,
        client: client(board, timeouts),
        server: ServerState::new(board),
        agenda: BTreeMap::new(),
        order: 0,
        dead: false,
        heard: 0,
        asked: VecDeque::new(),
        answered: 0,
        served: 0,
        pushed: VecDeque::new(),
        over: None,
        closed: false,
    };
    let mut at = 0;
    for (after, what) in agenda {
        at += after;
        world.plan(at, what);
    }
    world
}

/// A failing case is written to a file beside this one, and tried first from then on.
fn config() -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/time.proptest-regressions");
    Config { failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))), ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    /// A server that answers within the time that is given to it is never given up, whatever else happens; each
    /// question gets its own answer; nothing that was pushed is lost or doubled.
    #[test]
    fn a_live_connection_lasts(
        acknowledged in any::<bool>(),
        // A round trip, and another for the confirmation of an enter that stands before it.
        timeouts in timeouts(2_000),
        delays in delays(),
        agenda in agenda(),
    ) {
        let mut world = world(BOTH[usize::from(acknowledged)], timeouts, delays, agenda);
        world.run();
        prop_assert_eq!(&world.over, &None);
        prop_assert!(world.asked.is_empty() && !world.closed);
        prop_assert_eq!(&world.pushed, &[]);
    }

    /// One that is dead is found out within two silences, whatever is asked meanwhile; or within the time of an answer.
    #[test]
    fn a_dead_connection_is_found_out(
        acknowledged in any::<bool>(),
        timeouts in timeouts(500),
        delays in delays(),
        agenda in agenda(),
        dies in 0..300_000_u64,
    ) {
        let mut world = world(BOTH[usize::from(acknowledged)], timeouts, delays, agenda);
        world.plan(dies, Happens::Dies);
        world.run();
        match (&world.over, timeouts.silence) {
            (None, None) => prop_assert!(timeouts.reply.is_none() || world.asked.is_empty()),
            (Some(Error::ReplyTimeout), _) => prop_assert!(timeouts.reply.is_some()),
            (Some(Error::SilenceTimeout), Some(silence)) => {
                prop_assert_eq!(u128::from(world.now - world.heard), 2 * silence.as_millis());
            }
            wrong => panic!("{wrong:?}"),
        }
        prop_assert!(world.over.is_none() || world.asked.is_empty(), "no outcome: {:?}", world.asked);
    }

    /// When it ends in the midst of it all, each question has one outcome, and nothing is told of what nobody asked.
    #[test]
    fn a_connection_that_is_cut_tells_all_outcomes(
        acknowledged in any::<bool>(),
        timeouts in timeouts(2_000),
        delays in delays(),
        agenda in agenda(),
        cut in 0..300_000_u64,
    ) {
        let mut world = world(BOTH[usize::from(acknowledged)], timeouts, delays, agenda);
        world.plan(cut, Happens::Cut);
        world.run();
        prop_assert!(world.closed && world.over.is_none());
        prop_assert!(world.asked.is_empty());
    }
}
