//! What IMAP is asked and says beside the rules of the machine: commands word by word, logins by SASL, STARTTLS, and what
//! the client learns of the server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use bytes::Bytes;
use sonnette::imap::imap_types::fetch::MessageDataItem;
use sonnette::imap::imap_types::response;
use sonnette::imap::{
    Command, Condition, Imap, MAX_CHALLENGE, MAX_CHALLENGES, MAX_FETCH, Notification, Plain, Responder, TIMEOUTS,
    Unparsed, XOAuth2,
};
use sonnette::{ClientState, Error, Event, Invalid, Limits, Mode, Protocol, Reason, StreamUnchanged};
use std::io::{self, Read, Write};
use std::time::Duration;

const GREETING: &str = "* OK [CAPABILITY IMAP4rev1 SASL-IR IDLE STARTTLS LITERAL+] ready";

fn greeted(greeting: &str) -> ClientState<Imap> {
    let mut state = ClientState::new(Imap::new());
    say(&mut state, greeting);
    assert_eq!(state.poll_event(), Ok(None));
    state
}

fn say(state: &mut ClientState<Imap>, line: &str) {
    state.receive(line.as_bytes());
    state.receive(b"\r\n");
}

/// All that may be written now, which then is.
fn written(state: &mut ClientState<Imap>) -> String {
    let output = String::from_utf8(state.output().to_vec()).unwrap();
    state.advance_output(output.len());
    output
}

/// What a server that can do this is asked, up to where it has to answer.
fn asked(capabilities: &str, command: Command) -> String {
    let mut state = greeted(&format!("* OK [CAPABILITY IMAP4rev1 {capabilities}] ready"));
    state.request(command).unwrap();
    written(&mut state)
}

fn invalid(state: &mut ClientState<Imap>, command: Command) -> Invalid {
    let rejected = state.request(command.clone()).unwrap_err();
    assert_eq!(rejected.value, command);
    assert_eq!(state.output(), b"", "{command:?}");
    match rejected.reason {
        Reason::Invalid(why) => why,
        other => panic!("{command:?}: {other}"),
    }
}

#[test]
fn commands() {
    for (command, expected) in [
        (Command::capability(), "CAPABILITY"),
        (Command::noop(), "NOOP"),
        (Command::logout(), "LOGOUT"),
        (Command::starttls(), "STARTTLS"),
        (Command::login("alice", "secret"), "LOGIN alice secret"),
        (Command::select("INBOX"), "SELECT INBOX"),
        (Command::examine("Sent Items"), "EXAMINE \"Sent Items\""),
        (Command::fetch("1:*", "(UID FLAGS)"), "FETCH 1:* (UID FLAGS)"),
        (Command::uid_fetch("5", "BODY.PEEK[]<0.100>"), "UID FETCH 5 BODY.PEEK[]<0.100>"),
        (Command::store("1,3", r"+FLAGS (\Seen)"), r"STORE 1,3 +FLAGS (\Seen)"),
        (Command::uid_store("7", "FLAGS.SILENT ()"), "UID STORE 7 FLAGS.SILENT ()"),
        (Command::search("UNSEEN SUBJECT").arg("a b"), "SEARCH UNSEEN SUBJECT \"a b\""),
        (Command::uid_search("ALL"), "UID SEARCH ALL"),
        (Command::new("ID").parenthesized(["name", "a \"b\""]), r#"ID (name "a \"b\"")"#),
        (Command::new("ID").parenthesized([""; 0]), "ID ()"),
        (Command::new("X-ANY").arg("").arg("a").syntax("(b)"), "X-ANY \"\" a (b)"),
    ] {
        assert_eq!(asked("", command), format!("A2 {expected}\r\n"));
    }
}

#[test]
fn strings_are_atoms_quoted_or_literals() {
    let long = "x".repeat(1_000);
    for (text, expected) in [
        ("a-b.c@d/e]~!$&'+,:;<=>?^_`|}1", "a-b.c@d/e]~!$&'+,:;<=>?^_`|}1"),
        ("", "\"\""),
        ("nil", "\"nil\""),
        ("a b", "\"a b\""),
        ("(", "\"(\""),
        (")", "\")\""),
        ("{1}", "\"{1}\""),
        ("%", "\"%\""),
        ("*", "\"*\""),
        (r#"a"b\c"#, r#""a\"b\\c""#),
        ("\t\x7f", "\"\t\x7f\""),
        (&long, &long),
        ("ü", "{2}"),
        ("a\rb", "{3}"),
        ("a\nb", "{3}"),
        (&format!("{long}x"), "{1001}"),
    ] {
        assert_eq!(asked("", Command::select(text)), format!("A2 SELECT {expected}\r\n"));
    }
    let mut state = greeted("* OK ready");
    invalid(&mut state, Command::select("a\0b"));
    invalid(&mut state, Command::new("X").literal("\0"));
    invalid(&mut state, Command::new("X").parenthesized(["\0"]));
}

#[test]
fn what_would_be_another_command_is_refused() {
    let mut state = greeted("* OK ready");
    for name in [
        "",
        " ",
        "NOOP ",
        " NOOP",
        "UID  COPY",
        "A\r\nB",
        "A\0",
        "FETCH 1:*",
        "X{1}",
        "ü",
        "\"X\"",
        "idle",
        "Done",
        "UID ",
        "UID A B",
        "COMPRESS DEFLATE",
        "AUTHENTICATE PLAIN",
        "STARTTLS x",
        "LOGIN alice",
        "IDLE x",
    ] {
        invalid(&mut state, Command::new(name));
    }
    for syntax in ["1\r\nA9 LOGOUT", "\n", "\r", "\0", "x {4}", "{4+}", "{"] {
        invalid(&mut state, Command::new("X").syntax(syntax));
    }
    invalid(&mut state, Command::new("COMPRESS").syntax("DEFLATE"));
    invalid(&mut state, Command::new("AUTHENTICATE").syntax("PLAIN"));
    invalid(&mut state, Command::authenticate(Plain::new("a", "b")).arg("x"));
    invalid(&mut state, Command::starttls().arg("x"));
    // Nothing of it is left, and no id is used up.
    state.request(Command::noop()).unwrap();
    assert_eq!(written(&mut state), "A2 NOOP\r\n");
}

#[test]
fn literals_wait_as_long_as_they_have_to() {
    let append = || Command::append("a", r"(\Seen)", "x".repeat(5_000));
    assert_eq!(asked("", append()), "A2 APPEND a (\\Seen) {5000}\r\n");
    assert_eq!(asked("LITERAL-", append()), "A2 APPEND a (\\Seen) {5000}\r\n");
    assert_eq!(asked("LITERAL+", append().synchronising()), "A2 APPEND a (\\Seen) {5000}\r\n");
    assert_eq!(asked("literal+", append()), format!("A2 APPEND a (\\Seen) {{5000+}}\r\n{}\r\n", "x".repeat(5_000)));
    assert_eq!(asked("LITERAL-", Command::append("a", "", "y\r\n")), "A2 APPEND a {3+}\r\ny\r\n\r\n");

    for (octets, sign) in [(4_096, "+"), (4_097, "")] {
        let written = asked("LITERAL-", Command::new("X").literal("x".repeat(octets)));
        assert!(written.starts_with(&format!("A2 X {{{octets}{sign}}}\r\n")));
    }

    let mut state = greeted("* OK ready");
    let login = state.request(Command::login("ä", "ö")).unwrap();
    let noop = state.request(Command::noop()).unwrap();
    assert_eq!(written(&mut state), "A2 LOGIN {2}\r\n");
    assert!(state.is_gated());
    for expected in ["ä {2}\r\n", "ö\r\nA3 NOOP\r\n"] {
        say(&mut state, "+ go on");
        assert_eq!(state.poll_event(), Ok(None));
        assert_eq!(written(&mut state), expected);
    }
    say(&mut state, "A3 OK done");
    say(&mut state, "A2 NO [AUTHENTICATIONFAILED] no");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id, .. })) if id == noop));
    let Ok(Some(Event::Refused { id, refusal })) = state.poll_event() else { panic!("not refused") };
    assert_eq!((id, refusal.condition(), refusal.text()), (login, Condition::No, &b"no"[..]));
    assert_eq!(refusal.code_named("authenticationfailed"), Some(&b""[..]));
}

#[test]
fn secrets_are_not_shown() {
    let login = Command::login("alice", "secret");
    let plain = Command::authenticate(Plain::new("alice", "secret"));
    let mut state = greeted(GREETING);
    state.request(plain.clone()).unwrap();
    let shown = format!(
        "{login:?} {plain:?} {:?} {:?} {state:?}",
        Plain::new("alice", "secret"),
        XOAuth2::new("alice", "secret")
    );
    assert!(shown.contains("Plain { user: \"alice\", .. } XOAuth2 { user: \"alice\", .. }"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("AGFsaWNlAHNlY3JldA=="), "{shown}");
}

// Logins.

/// Challenge and response, as often as it takes.
#[derive(Clone)]
struct Steps(&'static [&'static str]);

impl Responder for Steps {
    fn mechanism(&self) -> &str {
        "X-STEPS"
    }
    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
        Ok(None)
    }
    fn respond(&self, challenges: &[Bytes]) -> Option<Vec<u8>> {
        let said = challenges.iter().map(|challenge| String::from_utf8_lossy(challenge).into_owned());
        let said: Vec<String> = said.collect();
        self.0.get(challenges.len() - 1).map(|text| format!("{text}<{}>", said.join(",")).into())
    }
}

#[test]
fn an_initial_response_goes_out_where_the_server_takes_it() {
    let plain = || Command::authenticate(Plain::new("bob", "secret"));
    assert_eq!(asked("SASL-IR", plain()), "A2 AUTHENTICATE PLAIN AGJvYgBzZWNyZXQ=\r\n");
    let xoauth2 =
        Command::authenticate(XOAuth2::new("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"));
    // The example of Google's documentation.
    let expected = "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0Q2cBAQ==";
    assert_eq!(asked("SASL-IR", xoauth2), format!("A2 AUTHENTICATE XOAUTH2 {expected}\r\n"));

    let mut state = greeted("* OK [CAPABILITY IMAP4rev1] ready");
    let id = state.request(plain()).unwrap();
    let noop = state.request(Command::noop()).unwrap();
    assert_eq!(written(&mut state), "A2 AUTHENTICATE PLAIN\r\n");
    say(&mut state, "+ ");
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(written(&mut state), "AGJvYgBzZWNyZXQ=\r\n");
    say(&mut state, "A2 OK [CAPABILITY IMAP4rev1 IDLE] welcome");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id: answered, .. })) if answered == id));
    assert_eq!(written(&mut state), "A3 NOOP\r\n");
    assert!(state.is_pending(noop) && state.protocol().has_capability("idle"));
}

#[test]
fn challenges_are_answered_one_by_one() {
    let mut state = greeted(GREETING);
    let id = state.request(Command::authenticate(Steps(&["one", "two"]))).unwrap();
    let noop = state.request(Command::noop()).unwrap();
    assert_eq!(written(&mut state), "A2 AUTHENTICATE X-STEPS\r\n");
    // base64 of `a`, `b`, `one<a>`, `two<a,b>`
    for (challenge, response) in [("+ YQ==", "b25lPGE+\r\n"), ("+ Yg==", "dHdvPGEsYj4=\r\n"), ("+ Yw==", "*\r\n")] {
        say(&mut state, "* 1 EXISTS");
        say(&mut state, challenge);
        assert_eq!(state.poll_event(), Ok(Some(Event::Notification(Notification::Exists(1)))));
        assert_eq!(state.poll_event(), Ok(None));
        let mut copy = state.clone();
        assert_eq!(copy, state);
        assert_eq!(written(&mut state), response);
        assert_eq!(written(&mut copy), response);
        assert!(state.is_gated());
    }
    say(&mut state, "A2 BAD cancelled");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Refused { id: refused, .. })) if refused == id));
    assert_eq!(written(&mut state), "A3 NOOP\r\n");
    say(&mut state, "A3 OK done");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id, .. })) if id == noop));

    // The next login begins anew.
    state.request(Command::authenticate(Steps(&["one"]))).unwrap();
    written(&mut state);
    say(&mut state, "+ Yg==");
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(written(&mut state), "b25lPGI+\r\n");
}

#[test]
fn a_failure_of_xoauth2_is_asked_for() {
    let mut state = greeted(GREETING);
    state.request(Command::authenticate(XOAuth2::new("a", "b"))).unwrap();
    written(&mut state);
    say(&mut state, "+ eyJzdGF0dXMiOiI0MDEifQ==");
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(written(&mut state), "\r\n");
    say(&mut state, "A2 NO no");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Refused { .. }))));
}

#[test]
fn what_is_no_challenge_ends_the_connection() {
    let fails = |lines: &[&str]| {
        let mut state = greeted(GREETING);
        state.request(Command::authenticate(Steps(&[""; 100]))).unwrap();
        written(&mut state);
        for line in lines {
            say(&mut state, line);
            if let Ok(Some(Event::Lost { .. })) = state.poll_event() {
                break;
            }
            written(&mut state);
        }
        state.poll_event().err()
    };
    let long = format!("+ {}", "A".repeat(MAX_CHALLENGE + 4));
    assert!(matches!(fails(&[&long]), Some(Error::Violation { .. })));
    assert!(matches!(fails(&["+ YQ=="; MAX_CHALLENGES + 1]), Some(Error::Violation { .. })));
    assert_eq!(fails(&["+ YQ=="; MAX_CHALLENGES]), None);
    assert_eq!(fails(&[&format!("+ {}", "A".repeat(MAX_CHALLENGE))]), None);

    // However they are cut, and whether what they are answered is written meanwhile.
    let mut state = greeted(GREETING);
    state.request(Command::authenticate(Steps(&["", ""]))).unwrap();
    say(&mut state, "+ YQ==\r\n+ YQ==");
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(written(&mut state), "A2 AUTHENTICATE X-STEPS\r\nPGE+\r\nPGEsYT4=\r\n");

    // But not for ever.
    let whole = "A2 AUTHENTICATE X-STEPS\r\nPGE+\r\nPGEsYT4=\r\n".len();
    for output in [whole, whole - 1] {
        let mut state = ClientState::with_limits(Imap::new(), Limits::new().with_output(output));
        say(&mut state, GREETING);
        state.request(Command::authenticate(Steps(&["", ""]))).unwrap();
        say(&mut state, "+ YQ==\r\n+ YQ==");
        if output == whole {
            assert_eq!(state.poll_event(), Ok(None));
        } else {
            assert!(matches!(state.poll_event(), Ok(Some(Event::Lost { sent: false, .. }))));
            assert!(matches!(state.poll_event(), Err(Error::Violation { .. })));
        }
    }
}

/// What goes out in front of it is not its own.
#[test]
fn what_waits_behind_a_login_was_not_sent() {
    let mut state = greeted(GREETING);
    let login = state.request(Command::authenticate(Steps(&["a long response"]))).unwrap();
    let noop = state.request(Command::noop()).unwrap();
    written(&mut state);
    say(&mut state, "+ YQ==");
    assert_eq!(state.poll_event(), Ok(None));
    assert!(!written(&mut state).is_empty());
    let mut cut = state.clone();
    cut.receive_eof();
    assert_eq!(cut.poll_event(), Ok(Some(Event::Lost { id: login, sent: true })));
    assert_eq!(cut.poll_event(), Ok(Some(Event::Lost { id: noop, sent: false })));
    // Then it is.
    say(&mut state, "A2 OK welcome");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id, .. })) if id == login));
    assert_eq!(written(&mut state), "A3 NOOP\r\n");
    state.receive_eof();
    assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id: noop, sent: true })));
}

#[test]
fn a_challenge_that_cannot_be_read_cancels_and_one_that_says_nothing_is_not_read() {
    for (challenge, response) in
        [("+ not base64", "*\r\n"), ("+ YQ", "*\r\n"), ("+ YQ== ", "PGE+\r\n"), ("+", "PD4=\r\n")]
    {
        let mut state = greeted(GREETING);
        state.request(Command::authenticate(Steps(&[""]))).unwrap();
        written(&mut state);
        say(&mut state, challenge);
        assert_eq!(state.poll_event(), Ok(None));
        assert_eq!(written(&mut state), response, "{challenge}");
    }
    for challenge in ["+", "+ ", "+  ", "+ =", "+ Go ahead"] {
        let mut state = greeted("* OK ready");
        state.request(Command::authenticate(Plain::new("bob", "secret"))).unwrap();
        written(&mut state);
        say(&mut state, challenge);
        assert_eq!(state.poll_event(), Ok(None));
        assert_eq!(written(&mut state), "AGJvYgBzZWNyZXQ=\r\n", "{challenge}");
    }
}

/// It is then taken for a command, with the secret as its tag.
#[test]
fn a_response_that_crosses_the_refusal_of_its_login_is_no_tag() {
    let mut state = greeted("* OK ready");
    let login = state.request(Command::authenticate(Plain::new("bob", "secret"))).unwrap();
    written(&mut state);
    say(&mut state, "+ \r\nA2 NO too late");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Refused { id, .. })) if id == login));
    assert_eq!(written(&mut state), "AGJvYgBzZWNyZXQ=\r\n");
    say(&mut state, "AGJvYgBzZWNyZXQ= BAD Unknown command");
    assert_eq!(state.poll_event(), Ok(None));
    let shown = format!("{state:?}");
    assert!(!shown.contains("AGJv"), "{shown}");
    // Once.
    say(&mut state, "AGJvYgBzZWNyZXQ= BAD Unknown command");
    assert!(matches!(state.poll_event(), Err(Error::Violation { .. })));
}

#[test]
fn a_responder_is_equal_to_itself_alone() {
    let plain = || Command::authenticate(Plain::new("alice", "secret"));
    let one = plain();
    assert_eq!(one, one.clone());
    assert_ne!(one, plain());
}

#[test]
fn what_no_mechanism_can_express_is_refused() {
    struct Named(&'static str);
    impl Responder for Named {
        fn mechanism(&self) -> &str {
            self.0
        }
        fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
            Ok(Some(Vec::new()))
        }
        fn respond(&self, _: &[Bytes]) -> Option<Vec<u8>> {
            None
        }
    }
    let mut state = greeted(GREETING);
    for name in ["", "A B", "A\r\nB", "ü"] {
        invalid(&mut state, Command::authenticate(Named(name)));
    }
    invalid(&mut state, Command::authenticate(Plain::new("a\0b", "c")));
    invalid(&mut state, Command::authenticate(Plain::new("a", "\0")));
    invalid(&mut state, Command::authenticate(XOAuth2::new("a\x01", "b")));
    invalid(&mut state, Command::authenticate(XOAuth2::new("a", "b\x01")));
    // RFC 4959 section 3.
    assert_eq!(asked("SASL-IR", Command::authenticate(Named("EXTERNAL"))), "A2 AUTHENTICATE EXTERNAL =\r\n");
}

#[test]
fn login_is_not_sent_where_it_is_forbidden() {
    let mut state = greeted("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready");
    invalid(&mut state, Command::login("alice", "secret"));
    say(&mut state, "* CAPABILITY IMAP4rev1");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Notification(Notification::Other(_))))));
    state.request(Command::login("alice", "secret")).unwrap();

    // Asked before that is known.
    let mut state = ClientState::new(Imap::new());
    let noop = state.request(Command::noop()).unwrap();
    let login = state.request(Command::new("login").arg("alice").arg("secret")).unwrap();
    say(&mut state, "* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready");
    assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id: noop, sent: false })));
    assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id: login, sent: false })));
    assert!(matches!(state.poll_event(), Err(Error::GreetingRefused(_))));
    assert!(!String::from_utf8_lossy(state.output()).contains("secret"));
}

// STARTTLS.

/// Who is logged in already cannot ask for it, and whoever stands between could have said so to have the password in the
/// clear, or none asked for.
#[test]
fn a_stream_is_not_changed_where_the_client_is_logged_in_already() {
    const PREAUTH: &str = "* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] welcome";
    let mut state = greeted(PREAUTH);
    invalid(&mut state, Command::starttls());
    state.request(Command::noop()).unwrap();
    assert_eq!(written(&mut state), "A2 NOOP\r\n");

    // Asked before that is known.
    for pieces in [1, 100] {
        let mut state = ClientState::new(Imap::new());
        let id = state.request(Command::new("starttls")).unwrap();
        for piece in PREAUTH.as_bytes().chunks(pieces) {
            state.receive(piece);
            assert_eq!(state.poll_event(), Ok(None));
        }
        state.receive(b"\r\n");
        assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id, sent: false })));
        assert!(matches!(state.poll_event(), Err(Error::GreetingRefused(_))));
        assert_eq!(state.output(), b"");
    }
}

#[test]
fn a_stream_is_changed_and_what_was_learnt_is_forgotten() {
    let mut state = greeted(GREETING);
    assert!(state.protocol().has_capability("STARTTLS"));
    let id = state.request(Command::starttls()).unwrap();
    assert_eq!(written(&mut state), "A2 STARTTLS\r\n");
    // It cannot be told on which side of the change anything else would be.
    invalid(&mut state, Command::noop());
    assert!(matches!(state.enter(()).unwrap_err().reason, Reason::Invalid(_)));
    assert!(!state.leave());
    assert_eq!(state.ring(Command::noop(), ()).unwrap_err().value, (Command::noop(), ()));
    assert_eq!(state.stream_changed(), Err(StreamUnchanged::NotAllowed));
    state.receive(b"A2 OK [CAPABILITY FORGED] begin");
    assert_eq!(state.poll_event(), Ok(None));
    state.receive(b"\r\n");
    // Not before it is polled.
    assert_eq!(state.stream_changed(), Err(StreamUnchanged::NotAllowed));
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id: answered, .. })) if answered == id));
    assert_eq!(state.poll_event(), Ok(None));
    invalid(&mut state, Command::noop());
    assert!(state.unread().is_empty() && state.protocol().capabilities().next().is_none());
    assert_eq!(state.protocol().greeting(), None);
    assert_eq!(state.protocol(), &Imap::new());

    assert_eq!(state.stream_changed(), Ok(()));
    state.request(Command::capability()).unwrap();
    assert_eq!(written(&mut state), "A3 CAPABILITY\r\n");
    say(&mut state, "* CAPABILITY IMAP4rev1 AUTH=PLAIN");
    say(&mut state, "A3 OK done");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Notification(_)))));
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    assert_eq!(state.protocol().capabilities().collect::<Vec<_>>(), [&b"IMAP4rev1"[..], b"AUTH=PLAIN"]);
    // Nothing to change.
    assert_eq!(state.stream_changed(), Err(StreamUnchanged::NotAllowed));
}

#[test]
fn what_was_injected_is_not_taken_for_what_comes_over_tls() {
    let injected = "A2 OK begin\r\n* CAPABILITY FORGED\r\n".as_bytes();
    // However it is cut, and whenever it is polled.
    for cut in 0..=injected.len() {
        for polls in [true, false] {
            let mut state = greeted(GREETING);
            let id = state.request(Command::starttls()).unwrap();
            written(&mut state);
            let mut events = Vec::new();
            for octets in [&injected[..cut], &injected[cut..]] {
                state.receive(octets);
                if polls {
                    events.extend(state.poll_event().ok().flatten());
                }
            }
            if polls {
                assert_eq!(state.stream_changed(), Err(StreamUnchanged::Failed(Error::Injected)));
            }
            while let Ok(Some(event)) = state.poll_event() {
                events.push(event);
            }
            assert!(matches!(&events[..], [Event::Reply { id: answered, .. }] if *answered == id), "{events:?}");
            assert_eq!(state.poll_event(), Err(Error::Injected));
            assert_eq!(state.stream_changed(), Err(StreamUnchanged::Failed(Error::Injected)));
            assert_eq!(state.mode(), Mode::Closed);
            assert_eq!(state.request(Command::noop()).unwrap_err().reason, Reason::Closed);
        }
    }
    // Not even a line of it.
    let mut state = greeted(GREETING);
    state.request(Command::starttls()).unwrap();
    written(&mut state);
    state.receive(b"A2 OK begin\r\n*");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    assert_eq!(state.poll_event(), Ok(None));
    state.receive_eof();
    assert_eq!(state.poll_event(), Err(Error::Injected));
    // Nor one without an end.
    let mut state = ClientState::with_limits(Imap::new(), Limits::new().with_line(100));
    say(&mut state, "* OK ready");
    assert_eq!(state.poll_event(), Ok(None));
    state.request(Command::starttls()).unwrap();
    say(&mut state, "A2 OK begin");
    state.receive(&[b'x'; 101]);
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    assert_eq!(state.poll_event(), Err(Error::Injected));
    let failed = StreamUnchanged::Failed(Error::Injected);
    assert_eq!(failed.to_string(), Error::Injected.to_string());
    assert_eq!(std::error::Error::source(&failed).unwrap().to_string(), Error::Injected.to_string());
    assert!(std::error::Error::source(&StreamUnchanged::NotAllowed).is_none());
    // Unread when the stream changes.
    let mut state = greeted(GREETING);
    state.request(Command::starttls()).unwrap();
    written(&mut state);
    state.receive(b"A2 OK begin\r\n* OK");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    assert_eq!(state.unread(), b"* OK");
    assert_eq!(state.stream_changed(), Err(StreamUnchanged::Failed(Error::Injected)));
    assert_eq!(state.poll_event(), Err(Error::Injected));
}

#[test]
fn a_change_of_stream_is_asked_for_alone_and_may_be_refused() {
    let mut state = greeted(GREETING);
    let noop = state.request(Command::noop()).unwrap();
    let rejected = state.request(Command::starttls()).unwrap_err();
    assert!(matches!(rejected.reason, Reason::Invalid(_)));
    assert_eq!(written(&mut state), "A2 NOOP\r\n");
    say(&mut state, "A2 OK done");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id, .. })) if id == noop));
    state.request(Command::starttls()).unwrap();
    say(&mut state, "A3 NO not today");
    say(&mut state, "* 1 EXISTS");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Refused { .. }))));
    assert!(matches!(state.poll_event(), Ok(Some(Event::Notification(_)))));
    assert!(state.protocol().has_capability("STARTTLS"));
    state.request(Command::noop()).unwrap();

    // Before the greeting there is nothing else outstanding.
    let mut state = ClientState::new(Imap::new());
    state.request(Command::starttls()).unwrap();
    say(&mut state, GREETING);
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(written(&mut state), "A2 STARTTLS\r\n");

    // A connection may end there.
    say(&mut state, "A2 OK begin");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    state.receive_eof();
    assert_eq!(state.stream_changed(), Err(StreamUnchanged::Closed));
    assert_eq!(state.poll_event(), Ok(Some(Event::Closed)));
    assert_eq!(state.stream_changed(), Err(StreamUnchanged::Closed));
    assert_eq!(state.poll_event(), Ok(None));
}

#[test]
fn a_stream_that_changes_is_not_probed() {
    let mut state = greeted(GREETING);
    state.request(Command::starttls()).unwrap();
    written(&mut state);
    // It waits for the answer, and then for the other stream; one that stays silent is found all the same.
    let mut now = Duration::ZERO;
    let mut pass = |state: &mut ClientState<Imap>| {
        now = state.poll_timeout(now).unwrap();
        state.handle_timeout(now);
        state.poll_event()
    };
    assert_eq!(pass(&mut state), Ok(None));
    say(&mut state, "A2 OK begin");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    assert_eq!(pass(&mut state), Ok(None));
    assert_eq!(state.output(), b"");
    assert_eq!(pass(&mut state), Err(Error::SilenceTimeout));
}

// What is learnt.

#[test]
fn greetings() {
    let state = greeted("* PREAUTH [CAPABILITY IMAP4rev1 IDLE] welcome back");
    let greeting = state.protocol().greeting().unwrap();
    assert_eq!(greeting.condition(), Condition::PreAuth);
    assert_eq!(greeting.code(), Some(&b"CAPABILITY IMAP4rev1 IDLE"[..]));
    assert_eq!(
        (greeting.text(), greeting.to_string()),
        (&b"welcome back"[..], "PREAUTH [CAPABILITY IMAP4rev1 IDLE] welcome back".into())
    );
    assert!(state.protocol().has_capability("IDLE") && !state.protocol().has_capability("IDL"));
    for refused in ["* BYE too many", "* NO", "* BAD", "* 1 EXISTS", "* OKAY", "*"] {
        let mut state = ClientState::new(Imap::new());
        say(&mut state, refused);
        let Err(Error::GreetingRefused(excerpt)) = state.poll_event() else { panic!("{refused}") };
        assert_eq!(excerpt.as_bytes(), refused.as_bytes());
    }
}

#[test]
fn so_many_capabilities_are_remembered() {
    let mut state = greeted("* OK ready");
    let names: Vec<String> = (0..2_000).map(|number| format!("X{number:03}")).collect();
    say(&mut state, &format!("* CAPABILITY {}", names.join(" ")));
    let Ok(Some(Event::Notification(Notification::Other(data)))) = state.poll_event() else { panic!("no data") };
    assert!(data.ends_with(b"X1999"));
    let known: Vec<_> = state.protocol().capabilities().collect();
    assert!(
        (1_500..1_600).contains(&known.len())
            && known.iter().zip(&names).all(|(known, name)| *known == name.as_bytes())
    );
    // Whole ones.
    say(&mut state, &format!("* CAPABILITY A {}", "x".repeat(10_000)));
    assert!(matches!(state.poll_event(), Ok(Some(Event::Notification(_)))));
    assert_eq!(state.protocol().capabilities().collect::<Vec<_>>(), [b"A"]);
}

#[test]
fn notifications() {
    let mut state = greeted("* OK ready");
    for (line, expected) in [
        ("* 4 EXISTS", Some(Notification::Exists(4))),
        ("* 0 exists", Some(Notification::Exists(0))),
        ("* 1 RECENT", Some(Notification::Recent(1))),
        ("* 4294967295 EXPUNGE", Some(Notification::Expunge(u32::MAX))),
        ("* OK Still here", None),
        ("* ok still HERE", None),
    ] {
        say(&mut state, line);
        assert_eq!(state.poll_event(), Ok(expected.map(Event::Notification)), "{line}");
    }
    for line in [
        "* 4294967296 EXISTS",
        "* +1 EXISTS",
        "* 1 EXISTSX",
        "* -1 EXPUNGE",
        "* LIST () \"/\" x",
        "* ",
        "* x {a}",
        "* x }",
    ] {
        say(&mut state, line);
        let Ok(Some(Event::Notification(Notification::Other(data)))) = state.poll_event() else { panic!("{line}") };
        assert_eq!(*data, line.as_bytes()[2..]);
    }
    for (line, condition, code, text) in [
        ("* OK [ALERT] careful", Condition::Ok, Some("ALERT"), "careful"),
        ("* NO disk full", Condition::No, None, "disk full"),
        ("* BAD", Condition::Bad, None, ""),
        ("* OK [UIDNEXT 4] next", Condition::Ok, Some("UIDNEXT 4"), "next"),
        ("* OK [still here", Condition::Ok, None, "[still here"),
        ("* OK [X] Still here", Condition::Ok, Some("X"), "Still here"),
    ] {
        say(&mut state, line);
        let Ok(Some(Event::Notification(Notification::Status(status)))) = state.poll_event() else { panic!("{line}") };
        assert_eq!((status.condition(), status.text()), (condition, text.as_bytes()));
        assert_eq!(status.code(), code.map(str::as_bytes));
        assert_eq!(status.code_number("uidnext"), line.contains("UIDNEXT").then_some(4));
    }
}

#[test]
fn what_is_told_is_shown_on_one_line() {
    let mut state = greeted("* OK ready");
    let mut shown = |line: &str| {
        say(&mut state, line);
        match state.poll_event() {
            Ok(Some(Event::Notification(told))) => format!("{told:?}"),
            other => panic!("{line}: {other:?}"),
        }
    };
    assert_eq!(shown("* NO"), "Status(Status(NO))");
    assert_eq!(shown("* OK [X] it's \u{1b}[2J\"ü\""), r#"Status(Status(OK [X] it's \x1b[2J"\xc3\xbc"))"#);
    assert_eq!(shown("* x {3}\r\n\r\n'y"), r"Other(Data(x {3}\r\n\r\n'y))");
    assert_eq!(format!("{:?}", Command::login("alice", "secret")), "Command(LOGIN, 2 arguments)");
    assert_eq!(format!("{:?}", Command::new("LOGIN alice secret")), "Command(LOGIN, 0 arguments)");
    assert_eq!(format!("{:?}", Command::new("LOGIN\tsecret")), "Command(.., 0 arguments)");
    assert_eq!(format!("{:?}", Command::uid_fetch("1", "UID")), "Command(FETCH, 2 arguments)");
    say(&mut state, "* OK one\u{1b}[2J\ntwo ü\u{202e}");
    let Ok(Some(Event::Notification(Notification::Status(status)))) = state.poll_event() else { panic!("no status") };
    assert_eq!(status.to_string(), r"OK one\u{1b}[2J\ntwo ü\u{202e}");
    say(&mut state, "* 1 FETCH (BODY[] {9}");
    state.receive(b"secret mail");
    assert_eq!(state.poll_event(), Ok(None));
    let shown = format!("{:?}", state.protocol());
    assert!(!shown.contains("1 FETCH") && shown.contains(r#"greeting: Some(Status(OK ready))"#), "{shown}");
    assert_eq!(Unparsed.to_string(), "data that are not understood");
}

#[test]
fn data_are_read_by_a_parser() {
    let mut state = greeted("* OK ready");
    let mut data = |line: &str| {
        say(&mut state, line);
        match state.poll_event() {
            Ok(Some(Event::Notification(Notification::Other(data) | Notification::Fetch { data, .. }))) => data,
            other => panic!("{line}: {other:?}"),
        }
    };
    let fetch = data("* 3 FETCH (UID 7 BODY[] {6}\r\nA\r\n{5})");
    assert_eq!(&fetch[..], b"3 FETCH (UID 7 BODY[] {6}\r\nA\r\n{5})");
    let items: Vec<_> = fetch.items().unwrap().collect();
    assert!(matches!(&items[0], MessageDataItem::Uid(uid) if uid.get() == 7), "{items:?}");
    let MessageDataItem::BodyExt { data: body, .. } = &items[1] else { panic!("{items:?}") };
    assert_eq!(body.0.as_ref().unwrap().as_ref(), b"A\r\n{5}");

    // What ends like the announcement of a literal is none.
    assert_eq!(&data("* x {1}\r\na5}")[..], b"x {1}\r\na5}");

    let search = data("* SEARCH 2 84 882");
    let Ok(response::Data::Search(numbers, _)) = search.parse() else { panic!("{:?}", search.parse()) };
    assert_eq!(numbers.iter().map(|number| number.get()).collect::<Vec<_>>(), [2, 84, 882]);
    assert_eq!(search.items().err(), Some(Unparsed));
    assert_eq!(data("* XYZZY plugh").parse(), Err(Unparsed));
    // What would take far more memory than it has octets. Literals do not count.
    let uids = |count: usize| format!("* 1 FETCH ({} X {{0}}\r\n)", "UID 1 ".repeat(count));
    let many = data(&uids(100_000));
    assert!(many.len() > 600_000);
    let taken = allocation_counter::measure(|| assert_eq!(many.parse(), Err(Unparsed)));
    assert_eq!(taken.bytes_max, 0);
    for (octets, parsed) in [(MAX_FETCH, true), (MAX_FETCH + 1, false)] {
        let flag = "x".repeat(octets - "* 1 FETCH (FLAGS ())\r\n".len());
        assert_eq!(data(&format!("* 1 FETCH (FLAGS ({flag}))")).parse().is_ok(), parsed);
    }
    let body = "x".repeat(2_000_000);
    let large = data(&format!("* 1 FETCH (BODY[] {{{}}}\r\n{body} UID 1)", body.len()));
    let taken = allocation_counter::measure(|| assert_eq!(large.items().unwrap().count(), 2));
    assert!(taken.bytes_max < 100_000, "{}", taken.bytes_max);
    let numbers = data(&format!("* SEARCH{}", " 1".repeat((Imap::LIMITS.line - "* SEARCH".len()) / 2)));
    assert!(numbers.parse().is_ok());
    for (pairs, parsed) in [(1_000, true), (90_000, false)] {
        let half = r#""a" "b" "#.repeat(pairs);
        let id = data(&format!("* ID ({half}\"c\" {{0}}\r\n {half}\"d\" \"e\")"));
        assert_eq!(id.parse().is_ok(), parsed);
    }
    // Nested deeper than anybody's stack.
    let deep = data(&format!("* 1 FETCH (BODYSTRUCTURE {}", "(".repeat(900_000)));
    assert_eq!(deep.parse(), Err(Unparsed));
}

#[test]
fn a_server_that_says_bye_is_told_from_one_that_is_cut_off() {
    for bye in [true, false] {
        let mut state = greeted("* OK ready");
        let idle = state.enter(()).unwrap();
        written(&mut state);
        say(&mut state, "+ idling");
        assert_eq!(state.poll_event(), Ok(Some(Event::Entered { id: idle })));
        if bye {
            say(&mut state, "* BYE Server shutting down.");
            let Ok(Some(Event::Notification(Notification::Bye(status)))) = state.poll_event() else { panic!("no BYE") };
            assert_eq!(status.text(), b"Server shutting down.");
        }
        state.receive_eof();
        assert_eq!(state.poll_event(), Ok(Some(Event::Closed)));
        assert_eq!(state.protocol().bye().is_some(), bye);
    }
}

#[test]
fn tags_are_ours_or_nobodys() {
    for line in [
        "B2 OK x",
        "A02 OK x",
        "A+2 OK x",
        "A OK x",
        "a2 OK x",
        "A2",
        "A2 OKAY",
        "A2 BYE x",
        "DONE OK x",
        "",
        "A18446744073709551616 OK x",
    ] {
        let mut state = greeted("* OK ready");
        let id = state.request(Command::noop()).unwrap();
        written(&mut state);
        say(&mut state, line);
        assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id, sent: true })), "{line}");
        assert!(matches!(state.poll_event(), Err(Error::Violation { .. })), "{line}");
    }
    // What text is missing is not missed.
    let mut state = greeted("* OK ready");
    state.request(Command::noop()).unwrap();
    say(&mut state, "A2 OK");
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { reply, .. })) if reply.text().is_empty()));
}

// Time.

#[test]
fn timeouts_are_on_and_each_by_itself() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut state = greeted("* OK ready");
    assert_eq!(state.poll_timeout(Duration::ZERO), TIMEOUTS.silence);
    let idle = state.enter(()).unwrap();
    written(&mut state);
    say(&mut state, "+ idling");
    assert_eq!(state.poll_event(), Ok(Some(Event::Entered { id: idle })));
    // A sign of life every two minutes keeps the silence away, and not the refresh.
    let mut now = Duration::ZERO;
    while now < minutes(28) {
        assert_eq!(state.poll_timeout(now), Some((now + minutes(5)).min(minutes(28))));
        now += minutes(2);
        state.handle_timeout(now);
        say(&mut state, "* OK Still here");
        assert_eq!(state.poll_event(), Ok(None));
        assert_eq!(state.output().is_empty(), now < minutes(28));
    }
    assert_eq!(written(&mut state), "DONE\r\nA4 IDLE\r\n");
}

#[test]
fn limits_count_what_is_announced() {
    let Limits { line, answer, output, .. } = Imap::LIMITS;
    assert_eq!((line, answer, output), (1 << 20, 1 << 26, 1 << 26));
    for (octets, end) in [(50, Ok(None)), (51, Err(Error::AnswerTooLong { limit: 60 }))] {
        let mut state = ClientState::with_limits(Imap::new(), Limits::new().with_line(100).with_answer(60));
        say(&mut state, "* OK ready");
        say(&mut state, &format!("* x {{{octets}}}"));
        assert_eq!(state.poll_event(), end);
    }
}

/// A server with many messages, each of some octets, which says all of them as fast as it is read.
struct Mailbox {
    messages: u32,
    body: String,
    said: Vec<u8>,
    next: u32,
}

impl Read for Mailbox {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.said.len() < buffer.len() && self.next <= self.messages + 1 {
            let line = match self.next {
                0 => "* OK ready\r\n".into(),
                next if next > self.messages => "A2 OK done\r\n".into(),
                next => format!("* {next} FETCH (UID {next} BODY[] {{{}}}\r\n{})\r\n", self.body.len(), self.body),
            };
            self.said.extend_from_slice(line.as_bytes());
            self.next += 1;
        }
        let octets = self.said.len().min(buffer.len());
        buffer[..octets].copy_from_slice(&self.said[..octets]);
        self.said.drain(..octets);
        Ok(octets)
    }
}

impl Write for Mailbox {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(octets.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 20 MB, of which no more is held at once than the limit, a read, and what vectors that grow take beside.
#[test]
fn a_mailbox_of_five_thousand_messages_is_fetched_in_the_memory_of_one() {
    const ANSWER: usize = 8 * 1024;
    let body = "A2 OK fake\r\n".repeat(340);
    let server = Mailbox { messages: 5_000, body: body.clone(), said: Vec::with_capacity(256 * 1024), next: 0 };
    let state = ClientState::with_limits(Imap::new(), Limits::new().with_answer(ANSWER));
    let mut client = sonnette_std::Client::with_state(state, server);
    let mut seen = 0;
    let taken = allocation_counter::measure(|| {
        client
            .call_with(Command::fetch("1:*", "(UID BODY.PEEK[])"), |notification| {
                let Notification::Fetch { message, data } = notification else { panic!("{notification:?}") };
                seen += 1;
                assert_eq!(message, seen);
                assert_eq!(
                    data.len(),
                    format!("{seen} FETCH (UID {seen} BODY[] {{{}}}\r\n)", body.len()).len() + body.len()
                );
            })
            .unwrap();
    });
    assert_eq!(seen, 5_000);
    assert!(taken.bytes_max < 2 * (ANSWER as u64 + 2 * 64 * 1024), "{}", taken.bytes_max);
}
