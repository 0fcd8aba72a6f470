//! What MPD and Redis are asked, and what their answers give: word by word.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::mpd::{self, Ack, Answer, Mpd, Subsystem};
use sonnette::redis::{self, MAX_DEPTH, Redis, Reply, Subscription, Value};
use sonnette::{ClientState, Error, Event, Limits, Mode, Protocol, Reason};

fn mpd() -> ClientState<Mpd> {
    let mut state = ClientState::new(Mpd::new());
    state.receive(b"OK MPD 0.23.5\n");
    assert_eq!(state.poll_event(), Ok(None));
    state
}

#[test]
fn words_of_mpd_are_quoted_where_they_have_to_be() {
    for (word, written) in [
        ("chan", "chan"),
        ("9999", "9999"),
        ("-1", "-1"),
        ("a_b", "a_b"),
        ("", r#""""#),
        ("a b", r#""a b""#),
        ("a/b.wav", r#""a/b.wav""#),
        ("\t", "\"\t\""),
        ("it's", r#""it's""#),
        (r#"say "hi""#, r#""say \"hi\"""#),
        (r"back\slash\", r#""back\\slash\\""#),
        (r#"\""#, r#""\\\"""#),
        ("Björk", r#""Björk""#),
    ] {
        let mut state = mpd();
        state.request(mpd::Command::new("find").arg(word).arg("x").into()).unwrap();
        assert_eq!(state.output(), format!("find {written} x\n").as_bytes(), "{word:?}");
        let mut state = mpd();
        state.enter(vec![word.into()]).unwrap();
        assert_eq!(state.output(), format!("idle {written}\n").as_bytes(), "{word:?}");
    }
}

#[test]
fn what_is_no_command_of_mpd_is_not_sent() {
    let mut state = mpd();
    for name in ["", "idle", "noidle", "command_list_begin", "command_list_end", "a b", "ping\n", "\"ping\"", "ä"] {
        for request in [
            mpd::Command::new(name).into(),
            mpd::Request::List(vec![mpd::Command::new("ping"), mpd::Command::new(name)]),
            mpd::Request::ListOk(vec![mpd::Command::new(name)]),
        ] {
            let rejected = state.request(request).unwrap_err();
            assert!(matches!(rejected.reason, Reason::Invalid(_)), "{name:?}: {}", rejected.reason);
        }
    }
    for word in ["\n", "a\rb", "\0"] {
        assert!(state.request(mpd::Command::new("find").arg(word).into()).is_err());
        assert!(state.enter(vec![word.into()]).is_err());
    }
    assert_eq!(state.output(), b"");
}

#[test]
fn lists_are_one_request() {
    let command = mpd::Command::new;
    let mut state = mpd();
    let list = state.request(mpd::Request::List(vec![command("ping"), command("add").arg("x")])).unwrap();
    let list_ok =
        state.request(mpd::Request::ListOk(vec![command("status"), command("albumart"), command("ping")])).unwrap();
    let wire = "command_list_begin\nping\nadd x\ncommand_list_end\n\
                command_list_ok_begin\nstatus\nalbumart\nping\ncommand_list_end\n";
    assert_eq!(state.output(), wire.as_bytes());
    state.receive(b"OK\nvolume: 5\nlist_OK\nsize: 2\nbinary: 2\nOK\nlist_OK\nlist_OK\nOK\n");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id, .. })) if id == list));
    // The block ends in the LF that follows its two octets.
    let Ok(Some(Event::Reply { id, reply })) = state.poll_event() else { panic!("not answered") };
    assert_eq!(id, list_ok);
    let parts: Vec<Answer> = reply.parts().collect();
    assert_eq!(parts.len(), 3);
    assert_eq!((parts[0].get("volume"), parts[0].binary()), (Some(&b"5"[..]), None));
    assert_eq!((parts[1].get("binary"), parts[1].blocks()), (Some(&b"2"[..]), &["OK".into()][..]));
    assert_eq!(parts[1].binary(), Some(&"OK".into()));
    assert_eq!((parts[2].fields().count(), parts[2].blocks().len()), (0, 0));
}

#[test]
fn each_command_of_a_list_is_answered_for() {
    let command = mpd::Command::new;
    for (answer, rule) in [
        ("list_OK\nOK\n", "one list_OK for each command"),
        ("list_OK\nlist_OK\nlist_OK\nOK\n", "one list_OK for each command"),
        ("binary: 0\n\nbinary: 0\n\nbinary: 0\n\nlist_OK\nlist_OK\nOK\n", "one binary block"),
    ] {
        let mut state = mpd();
        state.request(mpd::Request::ListOk(vec![command("ping"), command("ping")])).unwrap();
        state.receive(answer.as_bytes());
        assert!(matches!(state.poll_event(), Ok(Some(Event::Lost { .. }))), "{answer}");
        assert!(matches!(state.poll_event(), Err(Error::Violation { rule: r, .. }) if r.contains(rule)), "{answer}");
    }
    let mut state = mpd();
    state.request(command("ping").into()).unwrap();
    state.receive(b"list_OK\nOK\n");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Lost { .. }))), "nobody asked for a list");
}

#[test]
fn fields_are_what_is_around_the_first_colon() {
    let mut state = mpd();
    state.request(mpd::Command::new("x").into()).unwrap();
    state.receive(b"Title: a: b\nTitle: c\nempty: \nbare:\n: none\nOK\n");
    let Ok(Some(Event::Reply { reply, .. })) = state.poll_event() else { panic!("not answered") };
    let fields: Vec<(&[u8], &[u8])> = reply.fields().collect();
    let expected: [(&[u8], &[u8]); 5] =
        [(b"Title", b"a: b"), (b"Title", b"c"), (b"empty", b""), (b"bare", b""), (b"", b"none")];
    assert_eq!(fields, expected);
    assert_eq!((reply.get("Title"), reply.get("title")), (Some(&b"a: b"[..]), None));
}

#[test]
fn refusals_of_mpd() {
    let refusal = |ack: &str| {
        let mut state = mpd();
        state.request(mpd::Command::new("x").into()).unwrap();
        state.receive(format!("before: it\n{ack}\n").as_bytes());
        match state.poll_event() {
            Ok(Some(Event::Refused { refusal, .. })) => Some(refusal),
            _ => None,
        }
    };
    let ack = refusal("ACK [50@3] {add} No such {directory} [1@2]").unwrap();
    assert_eq!((ack.code, ack.position, &*ack.command), (Ack::NO_EXIST, 3, &b"add"[..]));
    assert_eq!((&*ack.text, ack.before.get("before")), (&b"No such {directory} [1@2]"[..], Some(&b"it"[..])));
    assert_eq!(ack.to_string(), "No such {directory} [1@2] (ACK 50 to add)");
    assert_eq!(refusal("ACK [5@0] {} unknown command \"foo\"").unwrap().to_string(), "unknown command \"foo\" (ACK 5)");
    assert_eq!(refusal("ACK [5@0] {}").unwrap().text, "");
    for wrong in
        ["ACK", "ACK ", "ACK 5", "ACK [5] {} x", "ACK [x@0] {} x", "ACK [5@0] x", "ACK [5@0] {x", "ACK [-1@0] {} x"]
    {
        assert_eq!(refusal(wrong), None, "{wrong}");
    }
}

#[test]
fn subsystems_have_names() {
    for name in ["database", "update", "stored_playlist", "playlist", "player", "mixer", "output", "options"] {
        let subsystem = Subsystem::from(name);
        assert!(!matches!(subsystem, Subsystem::Other(_)), "{name}");
        assert_eq!(subsystem.to_string(), name);
    }
    for name in ["partition", "sticker", "subscription", "message", "neighbor", "mount"] {
        assert!(!matches!(Subsystem::from(name), Subsystem::Other(_)), "{name}");
    }
    assert_eq!(Subsystem::from("new"), Subsystem::Other("new".into()));
    // Not of this encoding.
    let mut state = mpd();
    state.enter(vec![]).unwrap();
    state.receive(b"changed: \xff\n");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
    assert!(matches!(state.poll_event(), Err(Error::Violation { .. })));
}

#[test]
fn what_a_server_says_is_shown_on_one_line_that_no_terminal_obeys() {
    const SAID: &str = "a\u{1b}[2J\r\t\u{7f}\u{9b}\u{2028}\u{202e}\u{2066}b \u{e9}\u{301} \\ \"\0";
    const SHOWN: &str = "a\\u{1b}[2J\\r\\t\\u{7f}\\u{9b}\\u{2028}\\u{202e}\\u{2066}b \u{e9}\u{301} \\ \"\\u{0}";
    let mut state = ClientState::new(Redis::new());
    state.request(redis::Command::new("X")).unwrap();
    state.receive(format!("-{SAID}\r\n").as_bytes());
    let Ok(Some(Event::Refused { refusal, .. })) = state.poll_event() else { panic!("no refusal") };
    assert_eq!(refusal.to_string(), SHOWN);
    assert_eq!(refusal.text(), SAID);

    let mut state = mpd();
    state.request(mpd::Command::new("x").into()).unwrap();
    state.receive(format!("ACK [5@0] {{{SAID}}} {SAID}\n").as_bytes());
    let Ok(Some(Event::Refused { refusal, .. })) = state.poll_event() else { panic!("no refusal") };
    assert_eq!(refusal.to_string(), format!("{SHOWN} (ACK 5 to {SHOWN})"));
    assert_eq!((&refusal.text, &refusal.command), (&SAID.into(), &SAID.into()));
    assert_eq!(Subsystem::from(SAID).to_string(), SHOWN);
    assert_eq!(Subsystem::from(SAID).as_str(), SAID);
}

/// As the README says.
#[test]
fn limits() {
    let limits = |limits: Limits| (limits.line, limits.answer, limits.pending, limits.output);
    assert_eq!(limits(Mpd::LIMITS), (65_536, 8_388_608, 1_024, 2_097_152));
    assert_eq!(limits(Redis::LIMITS), (65_536, 33_554_432, 1_024, 33_554_432));
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", mpd::Request::from(mpd::Command::password("hunter2")));
    assert!(shown.contains("password") && !shown.contains("hunter2"), "{shown}");
    for name in ["password hunter2", "password\thunter2", "", "password\u{a0}hunter2"] {
        let (mpd, redis) = (mpd::Command::new(name).arg("a"), redis::Command::new(name).arg("a"));
        assert_eq!(format!("{mpd:?}"), "Command(.., 1 arguments)");
        assert!(name.contains('\u{a0}') || format!("{redis:?}") == "Command(.., 1 arguments)", "{redis:?}");
    }
    assert_eq!(format!("{:?}", mpd::Command::new("mount").arg("a").arg("smb://u:p@h")), "Command(mount, 2 arguments)");
    assert_eq!(format!("{:?}", redis::Command::new("FT.SEARCH")), "Command(FT.SEARCH, 0 arguments)");
    let shown = format!("{:?}", redis::Command::auth(Some("me"), "hunter2"));
    assert!(shown.contains("AUTH, 2 arguments") && !shown.contains("hunter2"), "{shown}");
    let mut state = ClientState::new(Redis::new());
    state.request(redis::Command::auth(None, "hunter2")).unwrap();
    assert!(!format!("{state:?}").contains("hunter2"));
}

#[test]
fn what_redis_is_not_asked() {
    let mut state = ClientState::new(Redis::new());
    for words in [
        "monitor",
        "SSUBSCRIBE a",
        "sUnsubscribe",
        "SYNC",
        "psync ? -1",
        "REPLCONF x",
        "HELLO 3",
        "hello 4 AUTH a b",
        "client Reply OFF",
    ] {
        let mut words = words.split(' ');
        let command = redis::Command::new(words.next().unwrap()).args(words);
        let rejected = state.request(command).unwrap_err();
        assert!(matches!(rejected.reason, Reason::Invalid(_)), "{rejected:?}");
    }
    // That enters the mode.
    for name in ["SUBSCRIBE", "psubscribe"] {
        let rejected = state.request(redis::Command::new(name).arg("a")).unwrap_err();
        assert_eq!(rejected.reason, Reason::NotAllowed(Mode::Normal));
    }
    assert!(
        state.enter(Subscription::Channels(vec![])).is_err() && state.enter(Subscription::Patterns(vec![])).is_err()
    );
    assert_eq!(state.output(), b"");
    // With a space it is no name.
    for name in ["AUTH hunter2", "CLIENT ID", " PING", "", "PING\r\n", "\0", "P\x7f"] {
        let rejected = state.request(redis::Command::new(name)).unwrap_err();
        assert!(matches!(rejected.reason, Reason::Invalid(_)), "{rejected:?}");
    }
    assert_eq!(state.output(), b"");
    for words in ["HELLO", "hello 2", "CLIENT", "CLIENT ID", "FT.SEARCH a", "b840-f", "RENAMED_\u{fc}"] {
        let mut words = words.split(' ');
        state.request(redis::Command::new(words.next().unwrap()).args(words)).unwrap();
    }
}

#[test]
fn values_of_redis() {
    for (wire, value) in [
        ("+OK\r\n", Value::Simple("OK".into())),
        ("+\r\n", Value::Simple("".into())),
        (":-9223372036854775808\r\n", Value::Integer(i64::MIN)),
        ("$0\r\n\r\n", Value::Bulk("".into())),
        ("$02\r\nab\r\n", Value::Bulk("ab".into())),
        ("$-1\r\n", Value::Nil),
        ("*-1\r\n", Value::Nil),
        ("*0\r\n", Value::Array(vec![])),
        ("*2\r\n*1\r\n:1\r\n-ERR x\r\n", Value::Array(vec![Value::Array(vec![Value::Integer(1)]), error()])),
    ] {
        let mut state = ClientState::new(Redis::new());
        let id = state.request(redis::Command::new("X")).unwrap();
        state.receive(wire.as_bytes());
        assert_eq!(state.poll_event(), Ok(Some(Event::Reply { id, reply: Reply::Value(value) })), "{wire:?}");
    }
    for wire in [
        "\r\n",
        "OK\r\n",
        ":\r\n",
        ":1x\r\n",
        ":9223372036854775808\r\n",
        "$x\r\n",
        "$-2\r\n",
        "*-2\r\n",
        "*+1\r\n",
        "$1\r\nabc",
        "#t\r\n",
    ] {
        let mut state = ClientState::new(Redis::new());
        state.request(redis::Command::new("X")).unwrap();
        state.receive(wire.as_bytes());
        assert!(matches!(state.poll_event(), Ok(Some(Event::Lost { .. }))), "{wire:?}");
        assert!(matches!(state.poll_event(), Err(Error::Violation { .. })), "{wire:?}");
    }
}

fn error() -> Value {
    let mut state = ClientState::new(Redis::new());
    state.request(redis::Command::new("X")).unwrap();
    state.receive(b"-ERR x\r\n");
    match state.poll_event() {
        Ok(Some(Event::Refused { refusal, .. })) => {
            assert_eq!(
                (refusal.code(), &**refusal.text(), &*refusal.to_string()),
                (&b"ERR"[..], &b"ERR x"[..], "ERR x")
            );
            Value::Error(refusal)
        }
        event => panic!("{event:?}"),
    }
}

#[test]
fn arrays_inside_arrays() {
    for (depth, is_taken) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
        let mut state = ClientState::new(Redis::new());
        state.request(redis::Command::new("X")).unwrap();
        state.receive(("*1\r\n".repeat(depth) + ":1\r\n").as_bytes());
        assert_eq!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))), is_taken, "{depth}");
    }
}

/// In the mode an array of three or four strings is a message by its first word alone.
#[test]
fn what_is_no_message_is_none() {
    for value in
        ["*3\r\n$5\r\nother\r\n$1\r\na\r\n$1\r\nb\r\n", "*4\r\n$5\r\nother\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"]
    {
        let mut state = ClientState::new(Redis::new());
        state.enter(Subscription::channels(["a"])).unwrap();
        state.receive(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
        state.receive(value.as_bytes());
        assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
        assert!(matches!(state.poll_event(), Err(Error::Violation { .. })), "{value:?}");
    }
}

/// The first three are 1 where a length has 32 bits, or 64.
#[test]
fn a_length_does_not_wrap() {
    let too_long = Err(Error::AnswerTooLong { limit: Redis::LIMITS.answer });
    let message = redis::Notification::Message { channel: "a".into(), payload: "x".into() };
    let told = Ok(Some(Event::Notification(message)));
    for (length, expected) in [
        ("4294967297", &too_long),
        ("8589934593", &too_long),
        ("18446744073709551617", &too_long),
        ("9999999999", &too_long),
        ("999999999", &too_long),
        ("000000001", &told),
        ("0000000001", &told),
    ] {
        for pieces in [1, usize::MAX] {
            let mut state = ClientState::new(Redis::new());
            state.enter(Subscription::channels(["a"])).unwrap();
            state.receive(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
            assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
            let mut event = Ok(None);
            for piece in format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n${length}\r\nx\r\n").as_bytes().chunks(pieces) {
                state.receive(piece);
                event = state.poll_event();
            }
            assert_eq!(&event, expected, "{length}");
        }
    }
}

/// Its lines begin with a time; other simple strings are answers.
#[test]
fn monitored() {
    let mut state = ClientState::new(Redis::new());
    let before = state.request(redis::Command::new("GET").arg("k")).unwrap();
    let monitor = state.enter(Subscription::Monitor).unwrap();
    let ping = state.request(redis::Command::new("PING")).unwrap();
    assert!(state.leave());
    state.receive(b"+1.5 looks alike\r\n+OK\r\n+1.5 [0 lua] \"GET\"\r\n+PONG\r\n+2.5\r\n+RESET\r\n");
    let simple = |text: &'static str| Reply::Value(Value::Simple(text.into()));
    let line = |text: &'static str| Event::Notification(redis::Notification::Monitor(text.into()));
    for expected in [
        Event::Reply { id: before, reply: simple("1.5 looks alike") },
        Event::Entered { id: monitor },
        line("1.5 [0 lua] \"GET\""),
        Event::Reply { id: ping, reply: simple("PONG") },
        line("2.5"),
        Event::Left { id: monitor, asked: true, refusal: None },
    ] {
        assert_eq!(state.poll_event(), Ok(Some(expected)));
    }
    // While it monitors nothing can be subscribed to.
    let mut state = ClientState::new(Redis::new());
    state.enter(Subscription::Monitor).unwrap();
    state.receive(b"+OK\r\n");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
    assert!(state.request(redis::Command::new("SUBSCRIBE").arg("a")).is_err());
    // An answer of another kind.
    let mut state = ClientState::new(Redis::new());
    state.enter(Subscription::Monitor).unwrap();
    state.receive(b"+KO\r\n");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Lost { .. }))));
}

/// Answers that are none, each to what is asked by a function of its own.
#[test]
fn what_confirms_nothing() {
    type Ask = fn(&mut ClientState<Redis>);
    let subscribed = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
    let unsubscribed = "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n";
    let left: Ask = |state| {
        state.enter(Subscription::channels(["a"])).unwrap();
        state.leave();
    };
    let reset: Ask = |state| {
        state.request(redis::Command::new("RESET")).unwrap();
    };
    let unsubscribe: Ask = |state| {
        state.request(redis::Command::new("UNSUBSCRIBE").args(["a", "b"])).unwrap();
    };
    let both: Ask = |state| {
        state.enter(Subscription::channels(["a", "b"])).unwrap();
    };
    let cases: [(Ask, String); 5] = [
        (reset, "+RESETTED\r\n".into()),
        (unsubscribe, format!("{unsubscribed}-ERR no\r\n")),
        (both, format!("{subscribed}-ERR no\r\n")),
        // Half of a leave, and then an error.
        (left, format!("{subscribed}{unsubscribed}-ERR no\r\n")),
        (left, format!("{subscribed}-ERR no\r\n")),
    ];
    for (ask, answer) in cases {
        let mut state = ClientState::new(Redis::new());
        ask(&mut state);
        state.receive(answer.as_bytes());
        let end = loop {
            match state.poll_event() {
                Ok(Some(Event::Entered { .. } | Event::Lost { .. })) => {}
                end => break end,
            }
        };
        assert!(matches!(end, Err(Error::Violation { .. })), "{answer:?}: {end:?}");
    }
}

/// Names are needed to subscribe; without them all are unsubscribed, or none, which is confirmed as well.
#[test]
fn without_names() {
    let mut state = ClientState::new(Redis::new());
    for (name, kind) in [("UNSUBSCRIBE", "unsubscribe"), ("PUNSUBSCRIBE", "punsubscribe")] {
        let id = state.request(redis::Command::new(name)).unwrap();
        state.receive(format!("*3\r\n${}\r\n{kind}\r\n$-1\r\n:0\r\n", kind.len()).as_bytes());
        let reply = Reply::Confirmed { confirmations: 1, subscriptions: 0 };
        assert_eq!(state.poll_event(), Ok(Some(Event::Reply { id, reply })), "{name}");
    }
    state.enter(Subscription::channels(["a"])).unwrap();
    state.receive(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
    for name in ["SUBSCRIBE", "PSUBSCRIBE"] {
        let rejected = state.request(redis::Command::new(name)).unwrap_err();
        assert!(matches!(rejected.reason, Reason::Invalid(_)), "{name}");
    }
}

/// A leave that has become void may be refused: nobody waits for it.
#[test]
fn a_void_leave_of_monitor_may_be_refused() {
    for refused in ["-NOPERM no\r\n", "+RESET\r\n"] {
        let mut state = ClientState::new(Redis::new());
        state.enter(Subscription::Monitor).unwrap();
        state.receive(b"+OK\r\n");
        assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
        state.request(redis::Command::new("RESET")).unwrap();
        assert!(state.leave());
        let ping = state.request(redis::Command::new("GET").arg("k").anywhere()).unwrap();
        state.receive(format!("+RESET\r\n{refused}$-1\r\n").as_bytes());
        assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
        assert!(matches!(state.poll_event(), Ok(Some(Event::Left { .. }))));
        assert_eq!(
            state.poll_event(),
            Ok(Some(Event::Reply { id: ping, reply: Reply::Value(Value::Nil) })),
            "{refused}"
        );
    }
}

/// A message is known at sight if it has arrived whole, and read frame by frame if it comes in pieces.
#[test]
fn messages_are_the_same_at_sight_and_in_pieces() {
    let begin = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n";
    let long = format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$70000\r\n{}\r\n", "x".repeat(70_000));
    for message in [
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n",
        "*3\r\n$7\r\nmessage\r\n$0\r\n\r\n$0\r\n\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0000000002\r\nhi\r\n",
        "*3\r\n$7\r\nmessage\r\n$01\r\na\r\n$02\r\nhi\r\n",
        "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$2\r\nhi\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$-1\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n:5\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\nab\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessage\r\n$\r\na\r\n$1\r\na\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\na\n\n",
        "*3\r\n$7\r\nmessage\r\n+1\r\n+1\r\n",
        "*2\r\n$7\r\nmessage\r\n$1\r\na\r\n",
        "*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$99999999999\r\n",
        &long,
    ] {
        let events = |octets: usize| {
            let mut state = ClientState::new(Redis::new());
            state.enter(Subscription::channels(["a", "b"])).unwrap();
            state.receive(begin);
            let (mut events, mut end) = (Vec::new(), Ok(()));
            let mut poll = |state: &mut ClientState<Redis>| loop {
                match state.poll_event() {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(error) => {
                        end = Err(error);
                        break;
                    }
                }
            };
            poll(&mut state);
            for chunk in message.repeat(2).as_bytes().chunks(octets) {
                state.receive(chunk);
                poll(&mut state);
            }
            state.receive_eof();
            poll(&mut state);
            (events, end)
        };
        let whole = events(usize::MAX);
        assert!(whole.0.len() > 1 || whole.1.is_err(), "{message:.60}");
        assert_eq!(events(1), whole, "{message:.60}");
        assert_eq!(events(16), whole, "{message:.60}");
    }
}
