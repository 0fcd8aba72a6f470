//! The notice board: each decision of its specification, both dialects, both sides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use bytes::Bytes;
use sonnette::board::{Board, Notification, Refusal, Reply, Request, ServerError, ServerState};
use sonnette::{ClientState, Error, Mode, Reason, Rejected, RequestId};

type Client = ClientState<Board>;
type Event = sonnette::Event<Board>;

const BOTH: [Board; 2] = [Board::silent(), Board::acknowledged()];
const LINE: usize = 16_384;
const OUTPUT: usize = 64 * 1024;

fn is_silent(board: Board) -> bool {
    board == Board::silent()
}

/// What the server answers to a change of mode.
fn ok(board: Board) -> &'static str {
    if is_silent(board) { "" } else { "OK\r\n" }
}

// The client: what was asked, what was read, what came of it.

fn events(state: &mut Client) -> Vec<Event> {
    std::iter::from_fn(|| state.poll_event().expect("no error")).collect()
}

fn read(state: &mut Client, input: impl AsRef<[u8]>) -> Vec<Event> {
    state.receive(input.as_ref());
    events(state)
}

/// The events up to the error, and the error.
fn read_to_error(state: &mut Client, input: &[u8]) -> (Vec<Event>, Error) {
    state.receive(input);
    let mut events = Vec::new();
    loop {
        match state.poll_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => panic!("no error after {events:?}"),
            Err(error) => return (events, error),
        }
    }
}

fn write_all(state: &mut Client) -> String {
    let written = String::from_utf8(state.output().to_vec()).unwrap();
    state.advance_output(written.len());
    written
}

fn number(id: RequestId, number: i64) -> Event {
    Event::Reply { id, reply: Reply::Random(number) }
}

fn ad(id: RequestId, text: &'static str) -> Event {
    Event::Reply { id, reply: Reply::Classified(text.into()) }
}

fn wrong_kind(id: RequestId, line: &'static str) -> Event {
    Event::Refused { id, refusal: Refusal::WrongKind(line.into()) }
}

fn left(id: RequestId) -> Event {
    Event::Left { id, asked: true, refusal: None }
}

fn pushed(name: &[u8]) -> Event {
    Event::Notification(Notification::Other(Bytes::copy_from_slice(name)))
}

const RANDOM: Event = Event::Notification(Notification::Random);
const CLASSIFIED: Event = Event::Notification(Notification::Classified);

/// A client in notification mode, and the id of its enter.
fn in_mode(board: Board) -> (Client, RequestId) {
    let mut state = Client::new(board);
    let watch = state.enter(()).unwrap();
    assert_eq!(write_all(&mut state), "notif\r\n");
    assert_eq!(read(&mut state, ok(board)), [Event::Entered { id: watch }]);
    assert_eq!(state.mode(), Mode::Notification);
    (state, watch)
}

// The server: the current number and ad, given to whoever asks.

struct Server {
    state: ServerState,
    number: i64,
    ad: &'static str,
}

impl Server {
    fn new(board: Board) -> Self {
        Server { state: ServerState::new(board), number: 46774, ad: "nice flat in the 11e" }
    }

    /// A server whose client is in the mode.
    fn in_mode(board: Board) -> Self {
        let mut server = Server::new(board);
        assert_eq!(server.turn("notif\r\n"), ok(board));
        assert!(server.state.is_in_notification_mode());
        server
    }

    /// Answers what can be answered; how many that were.
    fn answer(&mut self) -> usize {
        let mut answered = 0;
        while let Some(asked) = self.state.poll_request() {
            let reply = match asked {
                Request::Random => Reply::Random(self.number),
                Request::Classified => Reply::Classified(self.ad.into()),
            };
            self.state.answer(reply).unwrap();
            answered += 1;
        }
        answered
    }

    fn write_all(&mut self) -> String {
        let written = String::from_utf8(self.state.output().to_vec()).unwrap();
        self.state.advance_output(written.len());
        written
    }

    /// One turn: read, answer, write.
    fn turn(&mut self, input: impl AsRef<[u8]>) -> String {
        self.state.receive(input.as_ref());
        self.answer();
        self.write_all()
    }

    fn turn_at_eof(&mut self, input: impl AsRef<[u8]>) -> String {
        self.state.receive(input.as_ref());
        self.state.receive_eof();
        self.answer();
        self.write_all()
    }
}

// Sessions: what the client does at which place of what the server sends.

enum Step {
    Ask(Request),
    Enter,
    Leave,
    Reads(String),
}

use Step::{Ask, Enter, Leave, Reads};

struct Session {
    board: Board,
    steps: Vec<Step>,
    wire: &'static str,
    expected: fn(&[RequestId]) -> Vec<Event>,
}

impl Session {
    /// That of the specification.
    fn of_the_talk(board: Board) -> Self {
        let ok = ok(board);
        Session {
            board,
            steps: vec![
                Ask(Request::Random),
                Reads("46774\r\n".into()),
                Enter,
                Reads(format!("{ok}notif: random\r\n")),
                Leave,
                Ask(Request::Random),
                Reads(format!("{ok}90210\r\n")),
                Enter,
                Reads(ok.into()),
            ],
            wire: "random?\r\nnotif\r\nstop_notif\r\nrandom?\r\nnotif\r\n",
            expected: |ids| {
                let &[first, watch, second, again] = ids else { panic!("{ids:?}") };
                vec![
                    number(first, 46774),
                    Event::Entered { id: watch },
                    RANDOM,
                    left(watch),
                    number(second, 90210),
                    Event::Entered { id: again },
                ]
            },
        }
    }

    /// All that can be asked is asked at once, and notifications cross each ring.
    fn pipelined(board: Board) -> Self {
        let ok = ok(board);
        Session {
            board,
            steps: vec![
                Ask(Request::Random),
                Ask(Request::Classified),
                Enter,
                Reads(format!("46774\r\nnice flat in the 11e\r\n{ok}notif: random\r\n")),
                Leave,
                Ask(Request::Random),
                Enter,
                Reads(format!("notif: classified\r\n{ok}90210\r\n{ok}notif: classified\r\n")),
                Leave,
                Ask(Request::Classified),
                Enter,
                Reads(format!("notif: jobs\r\n{ok}two rooms near the canal\r\n{ok}")),
            ],
            wire: "random?\r\nclassified?\r\nnotif\r\nstop_notif\r\nrandom?\r\nnotif\r\n\
                   stop_notif\r\nclassified?\r\nnotif\r\n",
            expected: |ids| {
                let &[random, classified, watch, second, again, third, last] = ids else { panic!("{ids:?}") };
                vec![
                    number(random, 46774),
                    ad(classified, "nice flat in the 11e"),
                    Event::Entered { id: watch },
                    RANDOM,
                    CLASSIFIED,
                    left(watch),
                    number(second, 90210),
                    Event::Entered { id: again },
                    CLASSIFIED,
                    pushed(b"jobs"),
                    left(again),
                    ad(third, "two rooms near the canal"),
                    Event::Entered { id: last },
                ]
            },
        }
    }

    fn received(&self) -> usize {
        self.steps.iter().map(|step| if let Reads(octets) = step { octets.len() } else { 0 }).sum()
    }

    /// Plays it with what the server sends cut at these places, and compares the events and what the client wrote.
    fn play(&self, cuts: &[usize]) {
        let mut state = Client::new(self.board);
        let (mut ids, mut seen, mut wire, mut at) = (Vec::new(), Vec::new(), String::new(), 0);
        for step in &self.steps {
            match step {
                Ask(request) => ids.push(state.request(*request).unwrap()),
                Enter => ids.push(state.enter(()).unwrap()),
                Leave => assert!(state.leave()),
                Reads(octets) => {
                    let mut from = 0;
                    for cut in cuts.iter().filter(|&&cut| at < cut && cut < at + octets.len()) {
                        seen.extend(read(&mut state, &octets[from..cut - at]));
                        from = cut - at;
                    }
                    seen.extend(read(&mut state, &octets[from..]));
                    at += octets.len();
                }
            }
            wire += &write_all(&mut state);
        }
        assert_eq!(seen, (self.expected)(&ids), "cut at {cuts:?}");
        assert_eq!(wire, self.wire, "cut at {cuts:?}");
    }
}

#[test]
fn each_split_of_the_example_sessions_gives_the_same_events() {
    for session in BOTH.into_iter().flat_map(|board| [Session::of_the_talk(board), Session::pipelined(board)]) {
        session.play(&[]);
        for second in 1..session.received() {
            for first in 1..second {
                session.play(&[first, second]);
            }
        }
        session.play(&(1..session.received()).collect::<Vec<_>>());
    }
}

#[test]
fn each_split_of_what_the_client_sends_gives_the_same_answers() {
    for board in BOTH {
        let ok = ok(board);
        let sent = "random?\r\nclassified?\r\nnotif\r\n";
        let ring = "stop_notif\r\nrandom?\r\nnotif\r\n";
        let answers = format!("46774\r\nnice flat in the 11e\r\n{ok}");
        let rung = format!("notif: random\r\n{ok}46774\r\n{ok}");
        for second in 0..=sent.len() {
            for first in 0..=second {
                let mut server = Server::new(board);
                let parts = [&sent[..first], &sent[first..second], &sent[second..]];
                assert_eq!(parts.map(|part| server.turn(part)).concat(), answers, "{parts:?}");
                server.state.notify(Request::Random);
                let (first, second) = (first.min(ring.len()), second.min(ring.len()));
                let parts = [&ring[..first], &ring[first..second], &ring[second..]];
                assert_eq!(parts.map(|part| server.turn(part)).concat(), rung, "{parts:?}");
            }
        }
    }
}

// Lines.

#[test]
fn a_bare_cr_or_lf_is_content() {
    for board in BOTH {
        let mut client = Client::new(board);
        let id = client.request(Request::Classified).unwrap();
        assert_eq!(read(&mut client, "a\nb\rc\n\r\r\n"), [ad(id, "a\nb\rc\n\r")]);

        // To the server `random?` with a bare LF is no whole line yet.
        let mut server = Server::new(board);
        assert_eq!(server.turn("random?\n"), "");
        assert_eq!(server.state.error(), None);
        server.turn("\r\n");
        assert!(
            matches!(server.state.error(), Some(ServerError::UnknownCommand(line)) if line.as_bytes() == b"random?\n")
        );
    }
}

#[test]
fn octets_are_not_interpreted() {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    // In this order CR is followed by 14, and LF by 11: both are content.
    for board in BOTH {
        let mut client = Client::new(board);
        let id = client.request(Request::Classified).unwrap();
        let reply = Reply::Classified(all.clone().into());
        assert_eq!(read(&mut client, [&*all, b"\r\n"].concat()), [Event::Reply { id, reply }]);
    }
}

#[test]
fn ok_is_exactly_these_two_octets() {
    for line in ["ok", "OK ", " OK", "OKAY", "O", "", "OK\r"] {
        let mut client = Client::new(Board::acknowledged());
        let watch = client.enter(()).unwrap();
        assert_eq!(read(&mut client, format!("{line}\r\n")), [wrong_kind(watch, line)]);
        assert_eq!((client.mode(), client.asked_mode()), (Mode::Normal, Mode::Normal));
    }
}

#[test]
fn a_stop_notif_that_is_not_acknowledged_by_ok_is_a_violation() {
    for line in ["ok", "", "46774"] {
        let (mut client, _) = in_mode(Board::acknowledged());
        assert!(client.leave());
        let (events, error) = read_to_error(&mut client, format!("{line}\r\n").as_bytes());
        assert_eq!(events, []);
        assert!(matches!(error, Error::Violation { frame, .. } if frame.as_bytes() == line.as_bytes()));
    }
}

// The dialects.

#[test]
fn silent_is_the_default() {
    assert_eq!(Board::default(), Board::silent());
    assert_ne!(Board::default(), Board::acknowledged());
}

#[test]
fn silent_notif_is_confirmed_once_all_that_was_asked_before_it_is_answered() {
    let mut client = Client::new(Board::silent());
    let request = client.request(Request::Random).unwrap();
    let watch = client.enter(()).unwrap();
    assert_eq!(events(&mut client), []);
    assert_eq!(client.mode(), Mode::Entering);
    assert_eq!(read(&mut client, "1\r\n"), [number(request, 1), Event::Entered { id: watch }]);
}

#[test]
fn silent_stop_notif_is_confirmed_by_the_next_answer_or_the_next_enter() {
    let (mut client, watch) = in_mode(Board::silent());
    assert!(client.leave());
    assert_eq!(events(&mut client), []);
    assert_eq!(client.mode(), Mode::Leaving);
    let request = client.request(Request::Random).unwrap();
    assert_eq!(read(&mut client, "1\r\n"), [left(watch), number(request, 1)]);

    let (mut client, watch) = in_mode(Board::silent());
    client.leave();
    let again = client.enter(()).unwrap();
    assert_eq!(events(&mut client), [left(watch), Event::Entered { id: again }]);
}

#[test]
fn acknowledged_changes_are_confirmed_by_their_own_ok() {
    let mut client = Client::new(Board::acknowledged());
    let watch = client.enter(()).unwrap();
    assert_eq!(events(&mut client), []);
    assert!(client.leave());
    // Until the OK the server might refuse `notif`: the wish to leave is remembered, not sent.
    assert_eq!(write_all(&mut client), "notif\r\n");
    assert_eq!(read(&mut client, "OK\r\n"), [Event::Entered { id: watch }]);
    assert_eq!(write_all(&mut client), "stop_notif\r\n");
    assert_eq!(read(&mut client, "OK\r\n"), [left(watch)]);
    assert_eq!(client.mode(), Mode::Normal);
}

#[test]
fn acknowledged_notif_that_is_refused_takes_its_leave_with_it_unseen() {
    let mut client = Client::new(Board::acknowledged());
    let watch = client.enter(()).unwrap();
    client.leave();
    let request = client.request(Request::Random).unwrap();
    assert_eq!(read(&mut client, "no\r\n"), [wrong_kind(watch, "no")]);
    assert_eq!(write_all(&mut client), "notif\r\nrandom?\r\n");
    assert_eq!(read(&mut client, "1\r\n"), [number(request, 1)]);
}

#[test]
fn toggles_are_not_collapsed() {
    let toggle_twice = |client: &mut Client| {
        [(); 2].map(|()| {
            let id = client.enter(()).unwrap();
            assert!(client.leave());
            id
        })
    };
    let mut client = Client::new(Board::silent());
    let [first, second] = toggle_twice(&mut client);
    assert_eq!(write_all(&mut client), "notif\r\nstop_notif\r\nnotif\r\nstop_notif\r\n");
    let entered = |id| Event::Entered { id };
    assert_eq!(events(&mut client), [entered(first), left(first), entered(second)]);
    assert_eq!(client.mode(), Mode::Leaving);

    let mut client = Client::new(Board::acknowledged());
    let [first, second] = toggle_twice(&mut client);
    assert_eq!(write_all(&mut client), "notif\r\n");
    assert_eq!(read(&mut client, "OK\r\n"), [entered(first)]);
    assert_eq!(write_all(&mut client), "stop_notif\r\nnotif\r\n");
    assert_eq!(read(&mut client, "OK\r\nOK\r\n"), [left(first), entered(second)]);
    assert_eq!(write_all(&mut client), "stop_notif\r\n");
    assert_eq!(read(&mut client, "OK\r\n"), [left(second)]);
    assert_eq!(client.mode(), Mode::Normal);
}

#[test]
fn ok_is_an_ordinary_text_and_not_a_number_to_a_request() {
    for board in BOTH {
        let mut client = Client::new(board);
        let classified = client.request(Request::Classified).unwrap();
        let random = client.request(Request::Random).unwrap();
        assert_eq!(read(&mut client, "OK\r\nOK\r\n"), [ad(classified, "OK"), wrong_kind(random, "OK")]);
    }
}

#[test]
fn ok_that_nobody_waits_for_is_a_violation_in_the_silent_dialect() {
    let mut client = Client::new(Board::silent());
    let watch = client.enter(()).unwrap();
    let (events, error) = read_to_error(&mut client, b"OK\r\n");
    assert_eq!(events, [Event::Entered { id: watch }]);
    assert!(matches!(error, Error::Violation { .. }));
}

// Pushed lines.

#[test]
fn a_pushed_line_has_optional_spaces_before_its_name() {
    for board in BOTH {
        let (mut client, _) = in_mode(board);
        for line in ["notif:random", "notif: random", "notif:   random"] {
            assert_eq!(read(&mut client, format!("{line}\r\n")), [RANDOM], "{line}");
        }
        assert_eq!(read(&mut client, "notif:classified\r\nnotif:  classified\r\n"), [CLASSIFIED, CLASSIFIED]);
        // Only spaces are optional, and only before the name.
        let names: [&[u8]; 6] = [b"\trandom", b"random ", b"random\r", b"randomly", b"Random", b"rand om"];
        for name in names {
            assert_eq!(read(&mut client, [b"notif: ", name, b"\r\n"].concat()), [pushed(name)]);
        }
    }
}

#[test]
fn unknown_names_are_delivered_also_the_empty_one_and_any_octets() {
    let all: Vec<u8> = (0..=u8::MAX).filter(|&octet| octet != b' ').collect();
    for board in BOTH {
        let (mut client, _) = in_mode(board);
        assert_eq!(read(&mut client, "notif:\r\nnotif: \r\nnotif:    \r\n"), vec![pushed(b""); 3]);
        assert_eq!(read(&mut client, "notif: jobs\r\n"), [pushed(b"jobs")]);
        assert_eq!(read(&mut client, [b"notif: ", &*all, b"\r\n"].concat()), [pushed(&all)]);
        assert_eq!(read(&mut client, "notif: notif: random\r\n"), [pushed(b"notif: random")]);
    }
}

#[test]
fn what_only_resembles_a_pushed_line_is_a_violation() {
    for line in ["notif", "notif random", " notif: random", "Notif: random", "notification: random", "", "46774"] {
        for board in BOTH {
            let (mut client, _) = in_mode(board);
            client.receive(b"notif: random\r\n");
            let (events, error) = read_to_error(&mut client, format!("{line}\r\nnotif: random\r\n").as_bytes());
            assert_eq!(events, [RANDOM], "what came before it is delivered first");
            assert!(matches!(error, Error::Violation { frame, .. } if frame.as_bytes() == line.as_bytes()), "{line}");
        }
    }
}

// Numbers.

#[test]
fn an_optional_sign_and_digits_that_fit_are_an_integer() {
    let lines = [
        ("0", 0),
        ("+5", 5),
        ("-5", -5),
        ("-0", 0),
        ("+0", 0),
        ("000000000000000042", 42),
        ("0000000000000000042", 42),
        ("000000000000000000000000000042", 42),
        ("99999999999999999", 99_999_999_999_999_999),
        ("999999999999999999", 999_999_999_999_999_999),
        ("1999999999999999999", 1_999_999_999_999_999_999),
        ("9223372036854775807", i64::MAX),
        ("-9223372036854775808", i64::MIN),
    ];
    for board in BOTH {
        let mut client = Client::new(board);
        for (line, expected) in lines {
            let id = client.request(Request::Random).unwrap();
            assert_eq!(read(&mut client, format!("{line}\r\n")), [number(id, expected)], "{line}");
        }
    }
}

#[test]
fn anything_else_is_of_the_wrong_kind_and_the_connection_stays_in_step() {
    let lines = [
        "",
        "+",
        "-",
        "+-5",
        " 5",
        "5 ",
        "5\r",
        "5\n",
        "5.0",
        "1e3",
        "0x10",
        "1_000",
        "9223372036854775808",
        "-9223372036854775809",
        "\u{663}",
        "many",
        "OK",
    ];
    for board in BOTH {
        let mut client = Client::new(board);
        for line in lines {
            let refused = client.request(Request::Random).unwrap();
            let next = client.request(Request::Random).unwrap();
            let seen = read(&mut client, format!("{line}\r\n7\r\n"));
            assert_eq!(seen, [wrong_kind(refused, line), number(next, 7)], "{line:?}");
        }
        let id = client.request(Request::Random).unwrap();
        let refusal = Refusal::WrongKind(Bytes::from_static(b"\xff5"));
        assert_eq!(read(&mut client, b"\xff5\r\n"), [Event::Refused { id, refusal }]);
    }
}

// Whose line is it?

#[test]
fn in_normal_mode_each_line_is_the_answer_of_the_request_at_the_front() {
    for board in BOTH {
        let mut client = Client::new(board);
        let classified = client.request(Request::Classified).unwrap();
        assert_eq!(read(&mut client, "notif: random\r\n"), [ad(classified, "notif: random")]);
        let random = client.request(Request::Random).unwrap();
        assert_eq!(read(&mut client, "notif: random\r\n"), [wrong_kind(random, "notif: random")]);
        let empty = client.request(Request::Classified).unwrap();
        assert_eq!(read(&mut client, "\r\n"), [ad(empty, "")]);
    }
}

#[test]
fn normal_mode_is_meant_as_read_not_as_asked() {
    // `notif` has been asked for, but its turn has not come: this is the answer of the request.
    for board in BOTH {
        let mut client = Client::new(board);
        let classified = client.request(Request::Classified).unwrap();
        let watch = client.enter(()).unwrap();
        let input = format!("notif: 1\r\n{}notif: random\r\n", ok(board));
        let expected = [ad(classified, "notif: 1"), Event::Entered { id: watch }, RANDOM];
        assert_eq!(read(&mut client, input), expected);
    }
}

#[test]
fn in_the_mode_as_read_a_pushed_line_is_a_notification_even_with_a_request_at_the_front() {
    for board in BOTH {
        let (mut client, watch) = in_mode(board);
        client.leave();
        let classified = client.request(Request::Classified).unwrap();
        assert_eq!(read(&mut client, "notif: random\r\n"), [RANDOM]);
        let expected = [left(watch), ad(classified, "two rooms")];
        assert_eq!(read(&mut client, format!("{}two rooms\r\n", ok(board))), expected);
    }
}

#[test]
fn a_text_like_a_pushed_line_is_an_answer_again_once_the_mode_is_left_as_read() {
    // The OK of `stop_notif` tells where the mode ends. Without it there is nothing to tell: see the next test.
    let (mut client, watch) = in_mode(Board::acknowledged());
    client.leave();
    let classified = client.request(Request::Classified).unwrap();
    let expected = [RANDOM, left(watch), ad(classified, "notif: random")];
    assert_eq!(read(&mut client, "notif: random\r\nOK\r\nnotif: random\r\n"), expected);
}

#[test]
fn in_the_silent_dialect_a_text_like_a_pushed_line_is_taken_for_one_while_leaving() {
    // This is why a server must not send it. The request waits for a line that can be its answer.
    let (mut client, watch) = in_mode(Board::silent());
    client.leave();
    let classified = client.request(Request::Classified).unwrap();
    assert_eq!(read(&mut client, "notif: random\r\n"), [RANDOM]);
    assert_eq!(read(&mut client, "flat\r\n"), [left(watch), ad(classified, "flat")]);
}

#[test]
fn with_no_request_at_the_front_a_pushed_line_is_a_notification_in_each_mode() {
    for board in BOTH {
        let mut client = Client::new(board);
        assert_eq!(read(&mut client, "notif: random\r\n"), [RANDOM]);
        assert_eq!(client.mode(), Mode::Normal);
    }
    // While OK is waited for, before and after the mode.
    let mut client = Client::new(Board::acknowledged());
    let watch = client.enter(()).unwrap();
    assert_eq!(read(&mut client, "notif: random\r\nOK\r\n"), [RANDOM, Event::Entered { id: watch }]);
    client.leave();
    assert_eq!(read(&mut client, "notif: random\r\nOK\r\n"), [RANDOM, left(watch)]);
}

#[test]
fn a_line_that_nobody_waits_for_is_a_violation() {
    for board in BOTH {
        let mut client = Client::new(board);
        let id = client.request(Request::Random).unwrap();
        let (events, error) = read_to_error(&mut client, b"1\r\n2\r\n");
        assert_eq!(events, [number(id, 1)]);
        assert!(matches!(error, Error::Violation { frame, .. } if frame.as_bytes() == b"2"));
        assert_eq!(client.mode(), Mode::Closed);
    }
}

#[test]
fn an_answer_never_precedes_its_question() {
    for board in BOTH {
        let mut client = Client::new(board);
        client.receive(b"46774\r\n");
        let id = client.request(Request::Random).unwrap();
        let (events, error) = read_to_error(&mut client, b"");
        assert_eq!(events, [Event::Lost { id, sent: false }]);
        assert!(matches!(error, Error::Violation { .. }));
    }
}

// Requests.

#[test]
fn the_client_refuses_to_send_a_request_in_notification_mode() {
    for board in BOTH {
        let (mut client, _) = in_mode(board);
        for value in [Request::Random, Request::Classified] {
            let rejected = Rejected { value, reason: Reason::NotAllowed(Mode::Notification) };
            assert_eq!(client.request(value), Err(rejected));
        }
        assert_eq!(client.output(), b"");

        let mut client = Client::new(board);
        client.enter(()).unwrap();
        let rejected = Rejected { value: Request::Random, reason: Reason::NotAllowed(Mode::Entering) };
        assert_eq!(client.request(Request::Random), Err(rejected));
        assert_eq!(client.output(), b"notif\r\n");
    }
}

#[test]
fn a_request_may_follow_the_wish_to_leave_at_once() {
    for board in BOTH {
        let (mut client, _) = in_mode(board);
        client.leave();
        client.request(Request::Random).unwrap();
        client.request(Request::Classified).unwrap();
        client.enter(()).unwrap();
        assert_eq!(write_all(&mut client), "stop_notif\r\nrandom?\r\nclassified?\r\nnotif\r\n");
    }
}

#[test]
fn the_server_answers_in_order_also_when_many_arrive_in_one_segment() {
    for board in BOTH {
        let mut server = Server::new(board);
        assert_eq!(
            server.turn("random?\r\nclassified?\r\nclassified?\r\nrandom?\r\n"),
            "46774\r\nnice flat in the 11e\r\nnice flat in the 11e\r\n46774\r\n"
        );
        let answers = format!("{0}{0}46774\r\n{0}", ok(board));
        assert_eq!(server.turn("notif\r\nstop_notif\r\nrandom?\r\nnotif\r\n"), answers);
    }
}

#[test]
fn the_server_asks_for_one_answer_at_a_time() {
    for board in BOTH {
        let mut server = ServerState::new(board);
        server.receive(b"random?\r\nclassified?\r\n");
        assert_eq!(server.poll_request(), Some(Request::Random));
        assert_eq!(server.poll_request(), Some(Request::Random), "until it is answered");
        assert!(!server.wants_input(), "an open question is answered first");
        server.answer(Reply::Random(1)).unwrap();
        assert_eq!(server.poll_request(), Some(Request::Classified));
        server.answer(Reply::Classified("ad".into())).unwrap();
        assert_eq!(server.poll_request(), None);
        assert!(server.wants_input());
    }
}

#[test]
fn a_request_that_reaches_the_server_in_notification_mode_is_answered_in_order() {
    for board in BOTH {
        let mut server = Server::in_mode(board);
        assert_eq!(server.turn("random?\r\nclassified?\r\n"), "46774\r\nnice flat in the 11e\r\n");
        assert!(server.state.is_in_notification_mode());
        server.state.notify(Request::Classified);
        assert_eq!(server.turn("random?\r\n"), "notif: classified\r\n46774\r\n");
    }
}

#[test]
fn an_unknown_command_closes_after_answering_all_that_came_before_it() {
    for board in BOTH {
        for unknown in ["hello", "", "RANDOM?", "random? ", " notif", "random", "notif:", "random?\r"] {
            let mut server = Server::new(board);
            server.state.receive(format!("random?\r\nnotif\r\n{unknown}\r\nclassified?\r\n").as_bytes());
            server.answer();
            assert!(!server.state.wants_input());
            assert!(!server.state.is_finished(), "not before the answers were written");
            assert_eq!(server.write_all(), format!("46774\r\n{}", ok(board)), "{unknown:?}");
            assert!(server.state.is_finished());
            let error = server.state.error().expect("why it closes");
            assert!(matches!(error, ServerError::UnknownCommand(line) if line.as_bytes() == unknown.as_bytes()));
            // Nothing more is read or told.
            server.state.notify(Request::Random);
            assert_eq!(server.turn("random?\r\n"), "");
            assert!(server.state.is_finished());
        }
    }
}

#[test]
fn an_unknown_command_is_told_with_its_first_octets_only() {
    let mut server = Server::new(Board::silent());
    server.turn(format!("{}\r\n", "x".repeat(LINE)));
    assert!(matches!(server.state.error(), Some(ServerError::UnknownCommand(line)) if line.as_bytes() == [b'x'; 64]));
}

// Changes of mode that change nothing.

#[test]
fn notif_in_notification_mode_changes_nothing() {
    for board in BOTH {
        let mut server = Server::in_mode(board);
        server.state.notify(Request::Random);
        assert_eq!(server.write_all(), "notif: random\r\n");
        assert_eq!(server.turn("notif\r\nnotif\r\n"), ok(board).repeat(2), "what was told is not told again");
        assert!(server.state.is_in_notification_mode());
        assert_eq!(server.turn("stop_notif\r\n"), ok(board));
        assert!(!server.state.is_in_notification_mode(), "one stop_notif ends it");
    }
}

#[test]
fn notif_in_notification_mode_does_not_unfold() {
    for board in BOTH {
        let mut server = Server::in_mode(board);
        server.state.notify(Request::Random);
        server.state.receive(b"notif\r\n");
        server.answer();
        server.state.notify(Request::Random);
        assert_eq!(server.write_all(), format!("notif: random\r\n{}", ok(board)));
    }
}

#[test]
fn stop_notif_in_normal_mode_changes_nothing() {
    for board in BOTH {
        let mut server = Server::new(board);
        server.state.notify(Request::Random);
        assert_eq!(server.turn("stop_notif\r\nstop_notif\r\n"), ok(board).repeat(2));
        assert!(!server.state.is_in_notification_mode());
        assert_eq!(server.turn("notif\r\n"), format!("{}notif: random\r\n", ok(board)), "the flag is kept");
    }
}

// Flags.

#[test]
fn a_new_connection_has_no_flag() {
    for board in BOTH {
        assert_eq!(Server::new(board).turn("notif\r\n"), ok(board));
    }
}

#[test]
fn what_changed_outside_the_mode_is_remembered_one_flag_per_kind_and_pushed_after_ok() {
    for board in BOTH {
        let mut server = Server::new(board);
        for _ in 0..3 {
            server.state.notify(Request::Random);
            server.state.notify(Request::Classified);
        }
        assert_eq!(server.write_all(), "", "nothing is pushed in normal mode");
        assert_eq!(server.turn("notif\r\n"), format!("{}notif: random\r\nnotif: classified\r\n", ok(board)));
        // Told once, it is not told again.
        assert_eq!(server.turn("stop_notif\r\nnotif\r\n"), ok(board).repeat(2));
    }
}

#[test]
fn what_was_fetched_needs_not_be_told() {
    for board in BOTH {
        let mut server = Server::new(board);
        server.state.notify(Request::Random);
        server.state.notify(Request::Classified);
        assert_eq!(server.turn("random?\r\nnotif\r\n"), format!("46774\r\n{}notif: classified\r\n", ok(board)));
    }
}

#[test]
fn nothing_slips_between_the_fetch_and_the_next_notif() {
    for board in BOTH {
        let mut server = Server::in_mode(board);
        server.state.notify(Request::Random);
        assert_eq!(server.turn("stop_notif\r\nrandom?\r\n"), format!("notif: random\r\n{}46774\r\n", ok(board)));
        server.number = 90210;
        server.state.notify(Request::Random);
        assert_eq!(server.turn("notif\r\n"), format!("{}notif: random\r\n", ok(board)));
        assert_eq!(server.turn("stop_notif\r\nrandom?\r\nnotif\r\n"), format!("{0}90210\r\n{0}", ok(board)));
    }
}

#[test]
fn what_changed_after_a_fetch_in_the_mode_is_told_though_the_line_before_is_unread() {
    for board in BOTH {
        let mut server = Server::in_mode(board);
        server.state.notify(Request::Random);
        server.state.receive(b"random?\r\n");
        assert_eq!(server.answer(), 1);
        server.state.notify(Request::Random);
        assert_eq!(server.write_all(), "notif: random\r\n46774\r\nnotif: random\r\n");
    }
}

// The end of what the client sends.

#[test]
fn what_changed_in_a_new_mode_is_told_in_it_though_the_line_before_is_unread() {
    for board in BOTH {
        let mut server = Server::in_mode(board);
        server.state.notify(Request::Random);
        server.state.receive(b"stop_notif\r\nnotif\r\n");
        assert_eq!(server.answer(), 0);
        server.state.notify(Request::Random);
        let ok = ok(board);
        assert_eq!(server.write_all(), format!("notif: random\r\n{ok}{ok}notif: random\r\n"));
    }
}

#[test]
fn after_a_half_close_all_complete_lines_are_answered() {
    for board in BOTH {
        let mut server = Server::new(board);
        let answers = format!("46774\r\n{}nice flat in the 11e\r\n", ok(board));
        assert_eq!(server.turn_at_eof("random?\r\nnotif\r\nclassified?\r\n"), answers);
        assert!(server.state.is_finished());
        assert_eq!(server.state.error(), None, "it is no fault");
    }
}

#[test]
fn a_half_line_at_the_end_is_not_a_request() {
    for board in BOTH {
        for half in ["random?", "random?\r", "classified", "\n", "x"] {
            let mut server = Server::new(board);
            assert_eq!(server.turn_at_eof(format!("random?\r\n{half}")), "46774\r\n", "{half:?}");
            assert!(server.state.is_finished());
            assert_eq!(server.state.error(), None);
        }
    }
}

#[test]
fn after_the_end_nothing_is_read() {
    for board in BOTH {
        let mut server = Server::new(board);
        server.state.receive(b"random?\r\n");
        server.state.receive_eof();
        assert!(!server.state.wants_input());
        server.state.receive(b"classified?\r\n");
        server.answer();
        assert!(!server.state.is_finished(), "the answer is still to be written");
        assert_eq!(server.write_all(), "46774\r\n");
        assert!(server.state.is_finished());
        assert_eq!(server.turn_at_eof("random?\r\n"), "");
    }
}

#[test]
fn before_an_over_long_line_all_is_answered_then_the_connection_is_closed() {
    for board in BOTH {
        for end in ["", "\r\n", "\r\nrandom?\r\n"] {
            let mut server = Server::new(board);
            let input = format!("random?\r\nclassified?\r\n{}{end}", "x".repeat(LINE + 1));
            assert_eq!(server.turn(input), "46774\r\nnice flat in the 11e\r\n");
            assert!(server.state.is_finished());
            assert!(matches!(server.state.error(), Some(ServerError::LineTooLong(error)) if error.limit == LINE));
        }
        // At the limit it is a line, though not a command; a CR behind it may be half of its terminator.
        let mut server = Server::new(board);
        assert_eq!(server.turn(format!("random?\r\n{}\r", "x".repeat(LINE))), "46774\r\n");
        assert_eq!(server.state.error(), None);
        server.turn("\n");
        assert!(matches!(server.state.error(), Some(ServerError::UnknownCommand(_))));
    }
}

#[test]
fn why_the_server_closes_can_be_printed() {
    let mut server = Server::new(Board::silent());
    server.turn("ran\x1bdom?\r\n");
    assert_eq!(server.state.error().unwrap().to_string(), r#"the client sent an unknown command: "ran\x1bdom?""#);
    let mut server = Server::new(Board::silent());
    server.turn("x".repeat(LINE + 1));
    assert_eq!(server.state.error().unwrap().to_string(), "the client sent a line of more than 16384 octets");
}

// Back-pressure and folding.

#[test]
fn a_client_that_does_not_read_its_replies_is_not_read_until_it_reads_again() {
    const ASKED: usize = 20_000;
    for board in BOTH {
        let mut server = Server::new(board);
        server.state.receive("random?\r\n".repeat(ASKED).as_bytes());
        let answered = server.answer();
        assert!(!server.state.wants_input());
        assert_eq!(answered, OUTPUT.div_ceil("46774\r\n".len()), "up to the limit");
        assert_eq!(server.state.poll_request(), None);

        // One octet below the limit, and it goes on.
        let over = server.state.output().len() - OUTPUT;
        server.state.advance_output(over);
        assert_eq!(server.state.poll_request(), None, "at the limit");
        assert!(!server.state.wants_input());
        server.state.advance_output(1);
        assert!(server.state.wants_input());
        assert_eq!(server.answer(), 1, "one answer fills the output again");

        let mut read = over + 1;
        while !server.state.output().is_empty() {
            read += server.write_all().len();
            server.answer();
        }
        assert_eq!(read, ASKED * "46774\r\n".len(), "none is lost");
        assert!(server.state.wants_input());
    }
}

#[test]
fn a_client_that_does_not_read_is_answered_all_the_same_after_its_half_close() {
    let mut server = Server::new(Board::silent());
    server.state.receive("random?\r\n".repeat(20_000).as_bytes());
    server.state.receive_eof();
    let mut read = 0;
    while !server.state.is_finished() {
        server.answer();
        read += server.write_all().len();
    }
    assert_eq!(read, 20_000 * "46774\r\n".len());
}

#[test]
fn several_unread_notifications_of_a_kind_are_one() {
    for board in BOTH {
        let mut server = Server::in_mode(board);
        for _ in 0..10_000 {
            server.state.notify(Request::Random);
            server.state.notify(Request::Classified);
        }
        assert_eq!(server.write_all(), "notif: random\r\nnotif: classified\r\n");
        server.state.notify(Request::Classified);
        assert_eq!(server.write_all(), "notif: classified\r\n", "read, so the next one is another");
    }
}

#[test]
fn a_notification_is_unread_until_its_last_octet_was_written() {
    const PUSH: &str = "notif: random\r\n";
    for board in BOTH {
        for written in 0..=PUSH.len() {
            let mut server = Server::in_mode(board);
            server.state.notify(Request::Random);
            server.state.advance_output(written);
            server.state.notify(Request::Random);
            let expected = if written == PUSH.len() { PUSH } else { &PUSH[written..] };
            assert_eq!(server.write_all(), expected, "{written} written");
        }
    }
}

#[test]
fn a_client_that_toggles_the_mode_and_never_reads_cannot_grow_the_server() {
    for board in BOTH {
        let mut server = Server::new(board);
        for _ in 0..100_000 {
            if server.state.wants_input() {
                server.state.receive(b"notif\r\nstop_notif\r\n");
            }
            server.answer();
            server.state.notify(Request::Random);
            server.state.notify(Request::Classified);
        }
        assert!(server.state.output().len() <= OUTPUT + LINE, "{}", server.state.output().len());
    }
}

// What the server refuses to send.

fn refused(board: Board, text: impl Into<Bytes>) -> Reason {
    let text = text.into();
    let mut server = ServerState::new(board);
    server.receive(b"classified?\r\n");
    assert_eq!(server.poll_request(), Some(Request::Classified));
    let before = server.clone();
    let Rejected { value, reason } = server.answer(Reply::Classified(text.clone())).unwrap_err();
    assert_eq!(value, Reply::Classified(text), "it comes back");
    assert_eq!(server, before, "no trace is left");
    server.answer(Reply::Classified("instead".into())).unwrap();
    assert_eq!(server.output(), b"instead\r\n");
    reason
}

#[test]
fn the_server_refuses_a_text_with_a_cr_or_lf() {
    for board in BOTH {
        for text in ["\r", "\n", "two\r\nlines", "end\r", "\nbegin", "a\rb", "a\nb"] {
            assert!(matches!(refused(board, text), Reason::Invalid(_)), "{text:?}");
        }
    }
}

#[test]
fn the_server_refuses_a_text_that_begins_like_a_pushed_line_in_each_dialect() {
    for board in BOTH {
        for text in ["notif:", "notif: random", "notif:x", "notif: any text"] {
            assert!(matches!(refused(board, text), Reason::Invalid(_)), "{text:?}");
        }
    }
}

#[test]
fn the_server_refuses_a_text_longer_than_a_line() {
    for board in BOTH {
        assert_eq!(refused(board, vec![b'x'; LINE + 1]), Reason::TooLarge);
        for octets in [LINE - 1, LINE] {
            let mut server = ServerState::new(board);
            server.receive(b"classified?\r\n");
            server.poll_request();
            server.answer(Reply::Classified(vec![b'x'; octets].into())).unwrap();
            assert_eq!(server.output().len(), octets + 2);
        }
    }
}

#[test]
fn the_server_sends_any_other_text() {
    for board in BOTH {
        let texts: [&[u8]; 7] = [b"", b"notif", b" notif: random", b"Notif: random", b"OK", b"\0\xff\t", b"stop_notif"];
        for text in texts {
            let mut server = ServerState::new(board);
            server.receive(b"classified?\r\n");
            server.poll_request();
            server.answer(Reply::Classified(Bytes::from_static(text))).unwrap();
            assert_eq!(server.output(), [text, b"\r\n"].concat());
        }
    }
}

#[test]
fn the_server_refuses_an_answer_to_another_question_or_to_none() {
    for board in BOTH {
        let mut server = ServerState::new(board);
        let rejected = server.answer(Reply::Random(1)).unwrap_err();
        assert_eq!(rejected, Rejected { value: Reply::Random(1), reason: Reason::NotAllowed(Mode::Normal) });
        server.receive(b"random?\r\n");
        server.poll_request();
        let Rejected { value, reason } = server.answer(Reply::Classified("1".into())).unwrap_err();
        assert_eq!(value, Reply::Classified("1".into()));
        assert!(matches!(reason, Reason::Invalid(_)));
        assert_eq!(server.output(), b"");
        server.answer(Reply::Random(i64::MIN)).unwrap();
        assert_eq!(server.output(), b"-9223372036854775808\r\n");
    }
}

// Client and server together.

#[test]
fn what_the_server_writes_the_client_reads() {
    for board in BOTH {
        let (mut client, mut server) = (Client::new(board), Server::new(board));
        let exchange = |client: &mut Client, server: &mut Server| {
            let sent = write_all(client);
            read(client, server.turn(sent))
        };
        let random = client.request(Request::Random).unwrap();
        let classified = client.request(Request::Classified).unwrap();
        let watch = client.enter(()).unwrap();
        server.state.notify(Request::Classified);
        let expected = [number(random, 46774), ad(classified, "nice flat in the 11e"), Event::Entered { id: watch }];
        assert_eq!(exchange(&mut client, &mut server), expected, "the ad was fetched, so it is not told");

        server.number = i64::MIN;
        server.state.notify(Request::Random);
        assert_eq!(exchange(&mut client, &mut server), [RANDOM]);
        client.leave();
        let random = client.request(Request::Random).unwrap();
        let again = client.enter(()).unwrap();
        let expected = [left(watch), number(random, i64::MIN), Event::Entered { id: again }];
        assert_eq!(exchange(&mut client, &mut server), expected);
        assert!(server.state.is_in_notification_mode());
    }
}
