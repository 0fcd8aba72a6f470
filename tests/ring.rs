//! Leave, ask, enter again: asked whole, or not at all.
#![allow(clippy::unwrap_used, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::{ClientState, Event, Limits, Mode, Reason, Rejected};

const DIALECTS: [Board; 2] = [Board::silent(), Board::acknowledged()];

fn events(state: &mut ClientState<Board>) -> Vec<Event<Board>> {
    std::iter::from_fn(|| state.poll_event().unwrap()).collect()
}

/// A client in notification mode, with nothing left to write.
fn inside(board: Board, limits: Limits) -> ClientState<Board> {
    let mut state = ClientState::with_limits(board, limits);
    state.enter(()).unwrap();
    state.advance_output(usize::MAX);
    if board == Board::acknowledged() {
        state.receive(b"OK\r\n");
    }
    assert_eq!(events(&mut state).len(), 1);
    state
}

#[test]
fn it_is_the_three_calls_in_one() {
    for board in DIALECTS {
        let mut by_one = inside(board, Limits::new());
        let mut by_three = by_one.clone();
        by_one.ring(Request::Random, ()).unwrap();
        assert!(by_three.leave());
        by_three.request(Request::Random).unwrap();
        by_three.enter(()).unwrap();
        assert_eq!(by_one, by_three);
        assert_eq!(by_one.output(), b"stop_notif\r\nrandom?\r\nnotif\r\n");
    }
}

#[test]
fn without_a_mode_it_asks_and_enters() {
    for board in DIALECTS {
        let mut state = ClientState::new(board);
        let (id, enter) = state.ring(Request::Classified, ()).unwrap();
        assert_eq!(state.output(), b"classified?\r\nnotif\r\n");
        state.receive(if board == Board::silent() { b"ad\r\n" } else { b"ad\r\nOK\r\n" });
        let expected = [Event::Reply { id, reply: Reply::Classified("ad".into()) }, Event::Entered { id: enter }];
        assert_eq!(events(&mut state), expected);
    }
}

#[test]
fn while_entering_its_leave_is_remembered() {
    let mut state = ClientState::new(Board::acknowledged());
    let first = state.enter(()).unwrap();
    let (id, again) = state.ring(Request::Random, ()).unwrap();
    assert_eq!((state.output(), state.is_gated()), (&b"notif\r\n"[..], true));
    state.advance_output(usize::MAX);
    state.receive(b"OK\r\nnotif: random\r\n");
    assert_eq!(events(&mut state), [Event::Entered { id: first }, Event::Notification(Notification::Random)]);
    assert_eq!(state.output(), b"stop_notif\r\nrandom?\r\nnotif\r\n");
    state.receive(b"OK\r\n7\r\nOK\r\n");
    let left = Event::Left { id: first, asked: true, refusal: None };
    let expected = [left, Event::Reply { id, reply: Reply::Random(7) }, Event::Entered { id: again }];
    assert_eq!(events(&mut state), expected);
}

#[test]
fn a_rejected_one_leaves_no_trace_and_hands_both_values_back() {
    let octets = b"stop_notif\r\nrandom?\r\nnotif\r\nstop_notif\r\n".len();
    let cases = [
        (Limits::new().with_pending(3), Reason::TooManyPending),
        (Limits::new().with_output(octets - 1), Reason::OutputFull),
    ];
    for board in DIALECTS {
        for (limits, reason) in cases {
            let mut state = inside(board, limits);
            let before = state.clone();
            let rejected = state.ring(Request::Random, ());
            assert_eq!(rejected, Err(Rejected { value: (Request::Random, ()), reason }));
            assert_eq!((&state, state.mode()), (&before, Mode::Notification));
            assert!(state.output().is_empty());
        }
        for limits in [Limits::new().with_pending(4), Limits::new().with_output(octets)] {
            assert!(inside(board, limits).ring(Request::Random, ()).is_ok(), "at the limit");
        }
    }
    let mut closed = ClientState::new(Board::silent());
    closed.receive_eof();
    assert_eq!(events(&mut closed), [Event::Closed]);
    assert!(matches!(closed.ring(Request::Random, ()), Err(Rejected { reason: Reason::Closed, .. })));
}
