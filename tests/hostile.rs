//! Servers of MPD, IMAP and Redis that mean harm: what they can make the machine hold, and how it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::imap::{self, Imap};
use sonnette::mpd::{self, Mpd};
use sonnette::redis::{self, MAX_DEPTH, Redis, Subscription};
use sonnette::{ClientState, Error, Event, Limits, LineTooLong, Protocol};
use std::iter;

/// As adapters read.
const READ: usize = 64 * 1024;

/// What came of a server that says `begin`, and then `again` until the client has had enough; and the most memory that the
/// client took.
fn suffer<P: Protocol>(mut state: ClientState<P>, begin: &[u8], again: &[u8]) -> (Result<(), Error>, u64) {
    let mut chunk: Vec<u8> = again.iter().copied().cycle().take(READ / again.len() * again.len()).collect();
    chunk.shrink_to_fit();
    let mut end = Ok(());
    let taken = allocation_counter::measure(|| {
        for octets in iter::once(begin).chain(iter::repeat_n(&chunk[..], 60)) {
            state.receive(octets);
            loop {
                match state.poll_event() {
                    Ok(Some(event)) => drop::<Event<P>>(event),
                    Ok(None) => break,
                    Err(error) => {
                        end = Err(error);
                        return;
                    }
                }
            }
        }
    });
    (end, taken.bytes_max)
}

/// With limits that are reached soon.
const LIMITS: Limits = Limits::new().with_line(16 * 1024).with_answer(1024 * 1024);

fn redis() -> ClientState<Redis> {
    let mut state = ClientState::with_limits(Redis::new(), LIMITS);
    state.request(redis::Command::new("GET").arg("k")).unwrap();
    state
}

fn subscribed() -> ClientState<Redis> {
    let mut state = ClientState::with_limits(Redis::new(), LIMITS);
    state.enter(Subscription::channels(["a"])).unwrap();
    state
}

fn mpd() -> ClientState<Mpd> {
    let mut state = ClientState::with_limits(Mpd::new(), LIMITS);
    state.request(mpd::Command::new("status").into()).unwrap();
    state
}

const GREETING: &str = "* OK ready\r\n";

fn imap() -> ClientState<Imap> {
    let mut state = ClientState::with_limits(Imap::new(), LIMITS);
    state.request(imap::Command::noop()).unwrap();
    state
}

fn idling() -> ClientState<Imap> {
    let mut state = ClientState::with_limits(Imap::new(), LIMITS);
    state.enter(()).unwrap();
    state
}

/// What an answer may take, as often as a vector that grows may have it at once; and what was read.
const MOST: u64 = 3 * 1024 * 1024 + 4 * READ as u64;

fn too_long() -> Result<(), Error> {
    Err(Error::AnswerTooLong { limit: 1024 * 1024 })
}

#[test]
fn lengths_and_counts_are_judged_when_they_are_announced() {
    for announced in
        ["$9223372036854775807", "$18446744073709551616", "$1048577", "*2147483647", "*99999", "*2\r\n*2147483647"]
    {
        for state in [redis(), subscribed()] {
            let (end, most) = suffer(state, format!("{announced}\r\n").as_bytes(), b"x");
            assert_eq!(end, too_long(), "{announced}");
            assert!(most < 4 * READ as u64, "{announced}: {most}");
        }
    }
    for announced in ["9223372036854775807", "18446744073709551616", "1048576"] {
        let (end, most) = suffer(mpd(), format!("OK MPD 0.23.5\nbinary: {announced}\n").as_bytes(), b"x");
        assert_eq!(end, too_long(), "{announced}");
        assert!(most < 4 * READ as u64, "{announced}: {most}");
    }
    for announced in ["9223372036854775808", "18446744073709551616", "1048576", "00001048576"] {
        for begin in ["* ", "* 1 FETCH (BODY[] ", "* 1 FETCH (BODY[] {1}\r\na", "* 1 FETCH (BINARY[] ~"] {
            for (state, entered) in [(imap(), ""), (idling(), ""), (idling(), "+ idling\r\n")] {
                let begin = format!("{GREETING}{entered}{begin}{{{announced}}}\r\n");
                let (end, most) = suffer(state, begin.as_bytes(), b"x");
                assert_eq!(end, too_long(), "{begin}");
                assert!(most < 4 * READ as u64, "{begin}: {most}");
            }
        }
    }
}

#[test]
fn arrays_inside_arrays() {
    for state in [redis(), subscribed()] {
        let (end, most) = suffer(state, b"", b"*1\r\n");
        assert!(matches!(&end, Err(Error::Violation { rule, .. }) if rule.contains("deep")), "{end:?}");
        assert!(most < 4 * READ as u64, "{most}");
    }
    let deep = |depth: usize| "*1\r\n".repeat(depth) + ":1\r\n";
    let mut state = redis();
    state.receive(deep(MAX_DEPTH).as_bytes());
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    let mut state = redis();
    state.receive(deep(MAX_DEPTH + 1).as_bytes());
    assert!(matches!(state.poll_event(), Ok(Some(Event::Lost { .. }))));
}

#[test]
fn lines_that_never_end() {
    let too_long = Err(Error::LineTooLong(LineTooLong { limit: 16 * 1024 }));
    for begin in ["", "+", "-", ":", "$", "*", "$1\r\na\r\n+"] {
        let (end, most) = suffer(redis(), begin.as_bytes(), b"1");
        assert_eq!(end, too_long, "{begin}");
        assert!(most < 4 * READ as u64, "{begin}: {most}");
    }
    for begin in ["", "OK MPD 0.23.5\n", "OK MPD 0.23.5\nk: ", "OK MPD 0.23.5\nACK ", "OK MPD 0.23.5\nbinary: "] {
        let (end, most) = suffer(mpd(), begin.as_bytes(), b"1");
        assert_eq!(end, too_long, "{begin}");
        assert!(most < 4 * READ as u64, "{begin}: {most}");
    }
    for begin in ["", "*", "* OK [CAPABILITY", "A2 OK", "+ ", "* BYE", "* 1 FETCH", "* x {1}\r\na"] {
        let begin = if begin.is_empty() { "".into() } else { format!("{GREETING}{begin}") };
        let (end, most) = suffer(imap(), begin.as_bytes(), b"1");
        assert_eq!(end, too_long, "{begin}");
        assert!(most < 4 * READ as u64, "{begin}: {most}");
    }
}

#[test]
fn answers_that_never_end() {
    // As many values as may be announced.
    for item in [":1\r\n", "$-1\r\n", "$1\r\na\r\n", "*0\r\n", "*1\r\n*1\r\n:1\r\n", "+\r\n"] {
        let (end, most) = suffer(redis(), b"*26000\r\n", item.as_bytes());
        assert!(end.is_err(), "{item:?}");
        assert!(most < MOST, "{item:?}: {most}");
    }
    for lines in ["k: v\n", ":\n", "key: a longer value than that\n"] {
        let (end, most) = suffer(mpd(), b"OK MPD 0.23.5\n", lines.as_bytes());
        assert_eq!(end, too_long(), "{lines:?}");
        assert!(most < MOST, "{lines:?}: {most}");
    }
    for literals in [" {0}\r\n", " {1}\r\na", " {100}\r\n"] {
        let literals = format!("{literals}{}", "x".repeat(if literals.contains("100") { 100 } else { 0 }));
        let (end, most) = suffer(imap(), format!("{GREETING}*{literals}").as_bytes(), literals.as_bytes());
        assert_eq!(end, too_long(), "{literals:?}");
        assert!(most < MOST, "{literals:?}: {most}");
    }
    let (end, _) = suffer(mpd(), b"OK MPD 0.23.5\n", b"binary: 0\n\n");
    assert!(matches!(end, Err(Error::Violation { .. })), "{end:?}");
}

/// The most memory that a client takes for what a server says: `begin`, and then `again` until the limit of an answer,
/// which is `MOST_OF_ALL`, or of what was announced, is reached.
fn taken<P: Protocol>(mut state: ClientState<P>, begin: &str, again: &str) -> u64 {
    let input = begin.to_owned() + &again.repeat(2 * MOST_OF_ALL / again.len());
    let taken = allocation_counter::measure(|| {
        let mut reads = input.as_bytes().chunks(READ);
        while matches!(state.poll_event(), Ok(None)) {
            match reads.next() {
                Some(read) => state.receive(read),
                None => break,
            }
        }
    });
    taken.bytes_max
}

/// A little more than a vector has room for that has doubled often enough.
const MOST_OF_ALL: usize = 4_500_000;

/// What was read last, what is left of the read before, and what is told.
const READS: u64 = 3 * READ as u64;

/// As documented at [`Limits::answer`].
#[test]
fn an_answer_takes_what_is_counted() {
    let within = |what: &str, taken: u64, hundredths: u64| {
        let most = MOST_OF_ALL as u64 * hundredths / 100 + READS;
        assert!(taken <= most, "{what}: {taken}, at most {most}");
    };
    let limits = Redis::LIMITS.with_answer(MOST_OF_ALL);
    let redis = || {
        let mut state = ClientState::with_limits(Redis::new(), limits);
        state.request(redis::Command::new("GET").arg("k")).unwrap();
        state
    };
    // Places for values, and what is in them, are counted. An array of which half has come is there twice, while it grows.
    let array = |items: usize, item: &str| format!("*{items}\r\n{}", item.repeat(items));
    for (begin, again) in [
        ("*30000\r\n", "*1\r\n".repeat(31) + ":1\r\n"),
        ("*30000\r\n", array(1, ":1\r\n")),
        ("*30000\r\n", array(2, ":1\r\n")),
        ("*30000\r\n", array(5, "$-1\r\n")),
        ("*30000\r\n", array(1, "$1\r\na\r\n")),
        ("*100\r\n", array(1_025, ":1\r\n")),
        ("*100000\r\n", "$1\r\na\r\n".into()),
    ] {
        within(&again[..again.len().min(40)], taken(redis(), begin, &again), 150);
    }
    // Strings have blocks in common, which are of no use at their ends: three of 511 octets fit in one.
    let bulk = |octets: usize| format!("${octets}\r\n{}\r\n", "x".repeat(octets));
    for octets in [64, 100, 300, 511, 600, 1_000] {
        within(&octets.to_string(), taken(redis(), "*6000\r\n", &bulk(octets)), 140);
        within(&octets.to_string(), taken(redis(), "*6000\r\n", &(bulk(octets) + &bulk(1) + &bulk(3_000))), 140);
    }
    // A buffer that grows has room for twice as much as is in it at most, and the one before is there until it is filled.
    for octets in [100_000, 1_000_000, 4_400_000] {
        within(&octets.to_string(), taken(redis(), "*40\r\n", &bulk(octets)), 300);
    }
    // Likewise, and the octets of a literal are copied out of such a buffer.
    for octets in [0, 1, 1_000, 100_000, 1_000_000, 4_400_000] {
        let mut state = ClientState::with_limits(Imap::new(), Imap::LIMITS.with_answer(MOST_OF_ALL));
        state.request(imap::Command::noop()).unwrap();
        let literal = format!(" {{{octets}}}\r\n{}", "x".repeat(octets));
        within(&octets.to_string(), taken(state, &format!("{GREETING}* 1 FETCH (BODY[]"), &literal), 300);
    }
    for octets in [1, 1_000, 60_000] {
        let mut state = ClientState::with_limits(Mpd::new(), Mpd::LIMITS.with_answer(MOST_OF_ALL));
        state.request(mpd::Command::new("status").into()).unwrap();
        within(&octets.to_string(), taken(state, "OK MPD 0.23.5\n", &format!("k: {}\n", "x".repeat(octets))), 300);
    }
}

/// What is pushed is told and gone; what is held is what the caller asked for.
#[test]
fn pushes_that_never_end() {
    let begin = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
    let messages: [&[u8]; 4] = [
        b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0\r\n\r\n",
        b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$3\r\nabc\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n*2\r\n$1\r\nk\r\n*-1\r\n",
        b"*1\r\n$8\r\npmessage\r\n",
    ];
    for message in messages {
        let (end, most) = suffer(subscribed(), begin, message);
        assert_eq!(end, Ok(()));
        assert!(most < 4 * READ as u64, "{most}");
    }
    for pushed in [
        "* 1 EXISTS\r\n",
        "* OK Still here\r\n",
        "* OK [CAPABILITY A B C] x\r\n",
        "* CAPABILITY A B C\r\n",
        "* BYE x\r\n",
        "* 1 FETCH (BODY[] {3}\r\nabc)\r\n",
        "DONE BAD x\r\n",
    ] {
        for (state, entered) in [(imap(), ""), (idling(), ""), (idling(), "+ idling\r\n")] {
            let (end, most) = suffer(state, format!("{GREETING}{entered}").as_bytes(), pushed.as_bytes());
            assert_eq!(end, Ok(()));
            assert!(most < 4 * READ as u64, "{pushed}: {most}");
        }
    }
    // A confirmation that nobody asked for is none.
    let (end, _) = suffer(subscribed(), begin, begin);
    assert!(matches!(end, Err(Error::Violation { .. })), "{end:?}");
}

/// Nobody reads our responses, and challenges come all the same.
#[test]
fn challenges_that_never_end() {
    let mut state = ClientState::with_limits(Imap::new(), LIMITS);
    state.request(imap::Command::authenticate(imap::XOAuth2::new("user", "token"))).unwrap();
    let (end, most) = suffer(state, GREETING.as_bytes(), b"+ YWJj\r\n");
    assert!(matches!(end, Err(Error::Violation { .. })), "{end:?}");
    assert!(most < 4 * READ as u64, "{most}");
}

/// By the limits of each, 60 MB are refused when they are announced; where more is allowed, they are taken without a copy
/// beyond what growing needs.
#[test]
fn sixty_megabytes() {
    const OCTETS: usize = 60_000_000;
    let mut state = ClientState::new(Redis::new());
    state.request(redis::Command::new("GET").arg("k")).unwrap();
    state.receive(format!("${OCTETS}\r\n").as_bytes());
    assert!(matches!(state.poll_event(), Ok(Some(Event::Lost { .. }))));
    assert_eq!(state.poll_event(), Err(Error::AnswerTooLong { limit: Redis::LIMITS.answer }));

    let mut state = ClientState::with_limits(Redis::new(), Redis::LIMITS.with_answer(OCTETS + 1024));
    state.enter(Subscription::channels(["a"])).unwrap();
    let payload = vec![b'x'; OCTETS];
    let chunks = || payload.chunks(READ);
    let taken = allocation_counter::measure(|| {
        state.receive(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
        assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
        state.receive(format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n${OCTETS}\r\n").as_bytes());
        for chunk in chunks() {
            assert_eq!(state.poll_event(), Ok(None));
            state.receive(chunk);
        }
        state.receive(b"\r\n");
        match state.poll_event() {
            Ok(Some(Event::Notification(redis::Notification::Message { payload: told, .. }))) => {
                assert!(told == payload);
            }
            event => panic!("{event:?}"),
        }
    });
    assert!(taken.bytes_max < 4 * OCTETS as u64, "{}", taken.bytes_max);
}
