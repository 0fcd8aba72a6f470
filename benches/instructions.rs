//! The work that `.ci/instructions` counts under callgrind: `instructions WHAT CHUNK ROUNDS [LENGTH]`.
//!
//! `WHAT` is `state` (the machine in notification mode), `timed` (the same with all three timeouts on, asked for the next
//! deadline after each chunk), `requests` (a thousand requests in flight in each round), `reference` (a plain loop that
//! copies each chunk, finds each line end with memchr and compares the line, without a mode, a limit or an event),
//! `lines` (the line decoder with lines of LENGTH octets), `messages` (a thousand messages of Redis with payloads of LENGTH
//! octets in each round), `copies` (the copying of the same messages alone) or `value` (one answer of Redis of LENGTH octets in each round). Apart from the last three and
//! `requests`, one block of 64 KiB goes through ROUNDS times; always in chunks of CHUNK octets.
//!
//! Others ask for one more thing and read one more answer in each round, while CHUNK of the same are pending: `in-mode`
//! (requests of Redis in the mode), `rings` (its mode is left and entered again around a request), `silent` (likewise
//! `in-mode`, and the server is silent for too long before each answer), `by-tag` (requests of IMAP, answered in no order),
//! `refused` (literals of IMAP, of which none may be sent) and `challenged` (logins, challenged once and refused).
//! `kept` are a thousand notifications in each round, told by a client that keeps CHUNK answers which nobody has taken.
//!
//! What an octet or a round costs is the difference of two runs, so that start, exit and the making of the block do not
//! count.
#![allow(clippy::unwrap_used, reason = "a program for a script that passes the right arguments")]

use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::imap::{self, Imap, Responder};
use sonnette::redis::{self, Redis, Subscription, Value};
use sonnette::{ClientState, Event, Invalid, Limits, LineDecoder, Protocol, RequestId, Terminator, Timeouts};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

const BLOCK: usize = 64 * 1024;

/// All on, and none ever due.
const TIMEOUTS: Timeouts = {
    let hour = Some(Duration::from_secs(3600));
    Timeouts { reply: hour, refresh: hour, silence: hour }
};

/// 78 % random, 22 % classified, in a fixed shuffle.
fn notifications() -> Vec<u8> {
    let mut block = Vec::new();
    let mut seed = 7_u32;
    while block.len() < BLOCK {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let random = (seed >> 16) % 100 < 78;
        block.extend_from_slice(if random { b"notif: random\r\n" } else { b"notif: classified\r\n" });
    }
    block
}

fn state(block: &[u8], chunk: usize, rounds: usize, timeouts: Option<Timeouts>) -> u64 {
    let mut state = ClientState::new(Board::silent());
    state.set_timeouts(timeouts.unwrap_or_default());
    state.enter(()).unwrap();
    let mut now = Duration::ZERO;
    let mut seen = 0;
    for _ in 0..rounds {
        for chunk in block.chunks(chunk) {
            state.receive(chunk);
            while let Some(event) = state.poll_event().unwrap() {
                seen += match event {
                    Event::Notification(Notification::Random) => 1,
                    Event::Notification(Notification::Classified) => 2,
                    _ => 3,
                };
            }
            if timeouts.is_some() {
                now += Duration::from_micros(1);
                black_box(state.poll_timeout(now));
            }
        }
    }
    seen
}

/// A thousand requests in flight, again and again.
fn requests(chunk: usize, rounds: usize) -> u64 {
    const IN_FLIGHT: usize = 1_000;
    let mut state = ClientState::new(Board::silent());
    let answers = b"46774\r\n".repeat(IN_FLIGHT);
    let mut seen = 0;
    for _ in 0..rounds {
        for _ in 0..IN_FLIGHT {
            state.request(Request::Random).unwrap();
        }
        state.advance_output(usize::MAX);
        for chunk in answers.chunks(chunk) {
            state.receive(chunk);
            while let Some(event) = state.poll_event().unwrap() {
                if let Event::Reply { reply: Reply::Random(number), .. } = event {
                    seen += number.unsigned_abs();
                }
            }
        }
    }
    seen
}

fn reference(block: &[u8], chunk: usize, rounds: usize) -> u64 {
    let mut buffer = Vec::new();
    let mut seen = 0;
    for _ in 0..rounds {
        for chunk in block.chunks(chunk) {
            buffer.extend_from_slice(chunk);
            let mut head = 0;
            while let Some(at) = memchr::memchr(b'\n', &buffer[head..]) {
                let line = &buffer[head..head + at];
                seen += match line.strip_suffix(b"\r").unwrap_or(line) {
                    b"notif: random" => 1,
                    b"notif: classified" => 2,
                    _ => 3,
                };
                head += at + 1;
            }
            buffer.drain(..head);
        }
    }
    seen
}

fn lines(chunk: usize, rounds: usize, length: usize) -> u64 {
    let mut line = vec![b'x'; length];
    line.extend_from_slice(b"\r\n");
    let block: Vec<u8> = line.iter().copied().cycle().take(BLOCK / line.len() * line.len()).collect();
    let mut decoder = LineDecoder::new(Terminator::CrLf, length);
    let mut seen = 0;
    for _ in 0..rounds {
        for chunk in block.chunks(chunk) {
            decoder.push(chunk);
            while let Some(line) = decoder.next_line().unwrap() {
                seen += line.len() as u64;
            }
        }
    }
    seen
}

/// A thousand messages, again and again; each payload is owned.
#[inline(never)]
fn messages(chunk: usize, rounds: usize, length: usize) -> u64 {
    let mut state = ClientState::new(Redis::new());
    state.enter(Subscription::channels(["news"])).unwrap();
    state.receive(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let block = message(length).repeat(MESSAGES);
    let mut seen = 0;
    for _ in 0..rounds {
        for chunk in block.as_bytes().chunks(chunk) {
            state.receive(chunk);
            while let Some(event) = state.poll_event().unwrap() {
                if let Event::Notification(redis::Notification::Message { payload, .. }) = event {
                    seen += payload.len() as u64;
                }
            }
        }
    }
    assert_eq!(seen, (MESSAGES * rounds * length) as u64);
    seen
}

const MESSAGES: usize = 1_000;

fn message(length: usize) -> String {
    format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${length}\r\n{}\r\n", "x".repeat(length))
}

/// The copying of what was received, alone.
#[inline(never)]
fn copies(chunk: usize, rounds: usize, length: usize) -> u64 {
    let block = message(length).repeat(MESSAGES);
    let (mut buffer, mut seen) = (Vec::with_capacity(chunk), 0);
    for _ in 0..rounds {
        for chunk in block.as_bytes().chunks(chunk) {
            buffer.clear();
            buffer.extend_from_slice(chunk);
            seen += u64::from(black_box(&buffer)[0]);
        }
    }
    seen
}

/// One large value, again and again.
#[inline(never)]
fn value(chunk: usize, rounds: usize, length: usize) -> u64 {
    let mut state = ClientState::with_limits(Redis::new(), Limits::new().with_answer(length + 64));
    let block = format!("${length}\r\n{}\r\n", "x".repeat(length));
    let mut seen = 0;
    for _ in 0..rounds {
        state.request(redis::Command::new("GET").arg("k")).unwrap();
        for chunk in block.as_bytes().chunks(chunk) {
            state.receive(chunk);
            while let Some(event) = state.poll_event().unwrap() {
                if let Event::Reply { reply: redis::Reply::Value(Value::Bulk(value)), .. } = event {
                    seen += value.len() as u64;
                }
            }
        }
    }
    assert_eq!(seen, (rounds * length) as u64);
    seen
}

/// No limit stands in the way of many.
const MANY: Limits = Limits::new().with_pending(usize::MAX).with_output(usize::MAX);

fn events<P: Protocol>(state: &mut ClientState<P>) -> usize {
    std::iter::from_fn(|| state.poll_event().unwrap()).count()
}

/// Redis is subscribed, and answers in order.
#[inline(never)]
fn redis_pending(what: &str, pending: usize, rounds: usize) -> u64 {
    const SUBSCRIBED: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    const LEFT: &[u8] = b"*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n";
    let ping = || redis::Command::new("PING");
    let rings = what == "rings";
    let mut state = ClientState::with_limits(Redis::new(), MANY);
    let minute = Duration::from_secs(60);
    if what == "silent" {
        let never = Some(Duration::from_secs(1 << 40));
        state.set_timeouts(Timeouts { silence: Some(minute), reply: never, refresh: never });
    }
    let ask = |state: &mut ClientState<Redis>| {
        if rings {
            state.ring(ping(), Subscription::channels(["news"])).unwrap();
        } else {
            state.request(ping()).unwrap();
        }
        state.advance_output(usize::MAX);
    };
    state.enter(Subscription::channels(["news"])).unwrap();
    state.receive(SUBSCRIBED);
    events(&mut state);
    (0..pending).for_each(|_| ask(&mut state));
    let (mut now, mut seen) = (Duration::ZERO, 0);
    for _ in 0..rounds {
        ask(&mut state);
        if what == "silent" {
            black_box(state.poll_timeout(now));
            now += minute;
            state.handle_timeout(now);
            seen += events(&mut state);
            state.advance_output(usize::MAX);
        }
        if rings {
            state.receive(LEFT);
        }
        state.receive(b"+PONG\r\n");
        if rings {
            state.receive(SUBSCRIBED);
        }
        seen += events(&mut state);
        state.advance_output(usize::MAX);
    }
    assert!(seen >= rounds - rounds / (pending + 1) - 1, "{seen} events");
    seen as u64
}

struct Challenged;

impl Responder for Challenged {
    fn mechanism(&self) -> &str {
        "CHALLENGED"
    }

    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
        Ok(None)
    }

    fn respond(&self, _: &[bytes::Bytes]) -> Option<Vec<u8>> {
        Some(b"response".into())
    }
}

#[inline(never)]
fn imap_pending(what: &str, pending: usize, rounds: usize) -> u64 {
    let command = || match what {
        "by-tag" => imap::Command::noop(),
        "refused" => imap::Command::new("LOGIN").literal([b'x'; 100]).synchronising(),
        _ => imap::Command::authenticate(Challenged),
    };
    let mut state = ClientState::with_limits(Imap::new(), MANY);
    state.set_timeouts(Timeouts::OFF);
    state.receive(b"* OK ready\r\n");
    events(&mut state);
    let mut ids: Vec<RequestId> = (0..pending).map(|_| state.request(command()).unwrap()).collect();
    let (mut next, mut seed, mut seen) = (0, 7_usize, 0);
    for _ in 0..rounds {
        let id = state.request(command()).unwrap();
        state.advance_output(usize::MAX);
        let at = if what == "by-tag" {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % pending
        } else {
            next = (next + 1) % pending;
            (next + pending - 1) % pending
        };
        let answered = std::mem::replace(&mut ids[at], id).get();
        let verdict = if what == "by-tag" { "OK" } else { "NO" };
        let challenge = if what == "challenged" { "+ Y2hhbGxlbmdl\r\n" } else { "" };
        state.receive(format!("{challenge}A{answered} {verdict} done\r\n").as_bytes());
        seen += events(&mut state);
        state.advance_output(usize::MAX);
    }
    assert_eq!(seen, rounds);
    seen as u64
}

/// Says `next`, and then for ever that there are new numbers.
struct Rings {
    next: Vec<u8>,
    rings: Vec<u8>,
}

impl Read for Rings {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let said = if self.next.is_empty() { &self.rings } else { &self.next };
        let octets = said.len().min(buffer.len());
        buffer[..octets].copy_from_slice(&said[..octets]);
        self.next.drain(..octets.min(self.next.len()));
        Ok(octets)
    }
}

impl Write for Rings {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Notifications, a thousand in each round, of a client that keeps so many answers which nobody has taken.
fn kept(answers: usize, rounds: usize) -> u64 {
    let limits = Limits::new().with_pending(answers + 2).with_output(16 * answers + 64);
    let stream = Rings { next: b"7\r\n".repeat(answers), rings: b"notif: random\r\n".repeat(4_000) };
    let mut client = sonnette_std::Client::with_state(ClientState::with_limits(Board::silent(), limits), stream);
    client.set_backlog(usize::MAX);
    client.set_backlog_octets(usize::MAX);
    for _ in 0..answers {
        client.start(Request::Random).unwrap();
    }
    client.enter(()).unwrap();
    (0..1_000 * rounds).filter(|_| client.next_notification().unwrap().is_some()).count() as u64
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize| arguments.get(at).and_then(|argument| argument.parse().ok());
    let (Some(what), Some(chunk), Some(rounds)) = (arguments.first(), number(1), number(2)) else {
        eprintln!(
            "usage: instructions state|timed|requests|reference|lines|messages|copies|value|in-mode|rings|silent|by-tag|refused|challenged|kept CHUNK ROUNDS [LENGTH]; see .ci/instructions"
        );
        return;
    };
    black_box(match what.as_str() {
        "state" => state(&notifications(), chunk, rounds, None),
        "timed" => state(&notifications(), chunk, rounds, Some(TIMEOUTS)),
        "requests" => requests(chunk, rounds),
        "reference" => reference(&notifications(), chunk, rounds),
        "copies" => copies(chunk, rounds, number(3).unwrap()),
        "messages" => messages(chunk, rounds, number(3).unwrap()),
        "in-mode" | "rings" | "silent" => redis_pending(what, chunk, rounds),
        "by-tag" | "refused" | "challenged" => imap_pending(what, chunk, rounds),
        "kept" => kept(chunk, rounds),
        "value" => value(chunk, rounds, number(3).unwrap()),
        _ => lines(chunk, rounds, number(3).unwrap()),
    });
}
