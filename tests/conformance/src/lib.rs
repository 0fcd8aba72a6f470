//! One set of scenarios for the clients of all runtimes.
//!
//! A [`Scenario`] is what client and server say on the wire, and what the application calls, with what each call comes
//! to. It is played over TCP, and over streams that go a few octets at a time, stall and are interrupted; the outcomes
//! must be the same everywhere. Then the server is cut off after each octet of it.
#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

/// A call that timed out, or was given up after so many polls, can be repeated.
macro_rules! repeat {
    ($polls:expr, $call:expr) => {
        loop {
            match give_up_after($polls, $call).await {
                None | Some(Err(Error::TimedOut { .. })) => {}
                Some(outcome) => break outcome,
            }
        }
    };
}

pub mod board;
pub mod imap;
pub mod mpd;
pub mod redis;
pub mod scripted;
pub mod subject;
pub mod tcp;

use sonnette::{Event, Protocol};
use sonnette_driver::Error;
use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use subject::Subject;

/// A protocol whose requests can be written in a scenario.
pub trait Spoken: Protocol<Request: Debug, Reply: Debug, Refusal: Debug, Notification: Debug> + Clone {
    /// The octets of what a scenario writes as one line, of either side.
    fn wire(line: &str) -> Vec<u8>;
    fn request(text: &str) -> Self::Request;
    fn subscription(text: &str) -> Self::Subscription;
}

#[derive(Debug)]
pub struct Scenario<P> {
    pub name: &'static str,
    pub protocol: P,
    pub wire: Vec<Line>,
    pub calls: Vec<Call>,
}

/// What is said on the wire. After the last line the server closes its side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Client(Vec<u8>),
    Server(Vec<u8>),
    /// What the client says from here on does not matter.
    Anything,
    /// The connection is reset.
    Reset,
}

/// Lines as in a [`Scenario`].
#[must_use]
pub fn script<P: Spoken>(wire: &str) -> Vec<Line> {
    let line = |line: &str| {
        let (who, octets) = line.split_at_checked(2).unwrap_or_else(|| panic!("what is {line:?}?"));
        match who {
            "C " => Line::Client(P::wire(octets)),
            "S " => Line::Server(P::wire(octets)),
            "s " => Line::Server(octets.into()),
            _ => panic!("what is {line:?}?"),
        }
    };
    wire.split(" / ").filter(|line| !line.is_empty()).map(line).collect()
}

/// A call, and what it comes to.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: &'static str,
    pub argument: &'static str,
    pub outcome: &'static str,
}

impl<P: Spoken> Scenario<P> {
    /// On the wire `C` is a line of the client, `S` one of the server ([`Spoken::wire`]), `s` octets of the server as they are. A
    /// call is a method, an argument and behind `=` the outcome.
    #[must_use]
    pub fn new(protocol: P, name: &'static str, wire: &str, calls: &'static str) -> Self {
        let wire = script::<P>(wire);
        let calls = calls.split(" / ").map(|call| {
            let (call, outcome) = call.split_once(" = ").unwrap_or_else(|| panic!("{name}: {call:?} has no outcome"));
            let (method, argument) = call.split_once(' ').unwrap_or((call, ""));
            Call { method, argument, outcome }
        });
        Scenario { name, protocol, wire, calls: calls.collect() }
    }

    #[must_use]
    pub fn expected(&self) -> Vec<String> {
        self.calls.iter().map(|call| call.outcome.to_string()).collect()
    }

    /// How many octets the server says.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.wire.iter().map(|line| if let Line::Server(octets) = line { octets.len() } else { 0 }).sum()
    }

    /// What is on the wire if the server is cut off after so many octets.
    #[must_use]
    pub fn cut(&self, after: usize, end: Option<Line>) -> Vec<Line> {
        let mut left = after;
        let mut cut = Vec::new();
        for line in &self.wire {
            match line {
                Line::Server(octets) if left < octets.len() => {
                    cut.push(Line::Server(octets[..left].into()));
                    break;
                }
                Line::Server(octets) => left -= octets.len(),
                _ => {}
            }
            cut.push(line.clone());
        }
        cut.extend(end);
        cut.push(Line::Anything);
        cut
    }
}

/// Makes the calls, and tells what each came to.
pub async fn play<P: Spoken>(client: &mut impl Subject<P>, calls: &[Call]) -> Vec<String> {
    play_with_patience(client, calls, usize::MAX).await
}

/// As [`play`], dropping the future of each call after so many polls, and taking it up again.
pub async fn play_with_patience<P: Spoken>(client: &mut impl Subject<P>, calls: &[Call], polls: usize) -> Vec<String> {
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(make(client, call, polls).await);
    }
    outcomes
}

async fn make<P: Spoken>(client: &mut impl Subject<P>, call: &Call, polls: usize) -> String {
    let request = || P::request(call.argument);
    match call.method {
        // What is rejected does not wait.
        "call" | "ring" if polls == usize::MAX || call.outcome.starts_with("not sent") => {
            let reply = if call.method == "call" { client.call(request()).await } else { client.ring(request()).await };
            told(match reply {
                Err(Error::TimedOut { id: Some(id) }) => repeat!(polls, client.outcome(id)),
                reply => reply,
            })
        }
        // A dropped future takes the id with it: what is asked by itself can be taken up again.
        "call" => match client.start(request()) {
            Ok(id) => told(repeat!(polls, client.outcome(id))),
            Err(_) => told(client.call(request()).await),
        },
        "ring" => {
            if let Err(error) = repeat!(polls, client.leave()) {
                return error.to_string();
            }
            match client.start(request()) {
                Ok(id) => {
                    // Polled once, it is asked.
                    let _ = give_up_after(1, client.enter(P::subscription(""))).await;
                    told(repeat!(polls, client.outcome(id)))
                }
                Err(_) => told(client.ring(request()).await),
            }
        }
        "start" => match client.start(request()) {
            Ok(_) => "asked".into(),
            Err(rejected) => format!("{}", rejected.reason),
        },
        "enter" => told(repeat!(polls, client.enter(P::subscription(call.argument))).map(|_| ())),
        "leave" => told(repeat!(polls, client.leave())),
        "next" => told(repeat!(polls, client.next_notification())),
        "event" => told_event(repeat!(polls, client.next_event())),
        "rest" => {
            let mut rest = Vec::new();
            loop {
                let event = repeat!(polls, client.next_event());
                let ended = matches!(event, Ok(Event::Closed) | Err(_));
                // Changes of mode show here only if the call that waits for them was taken up again.
                if !matches!(event, Ok(Event::Entered { .. } | Event::Left { .. })) {
                    rest.push(told_event(event));
                }
                if ended {
                    return rest.join(", ");
                }
            }
        }
        other => panic!("what is {other:?}?"),
    }
}

/// Polls at most so often; `None` if the future was dropped before its end.
async fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|cx| match left.checked_sub(1) {
        Some(fewer) => {
            left = fewer;
            future.as_mut().poll(cx).map(Some)
        }
        None => Poll::Ready(None),
    })
    .await
}

fn told<T: Debug, R: Debug>(outcome: Result<T, Error<R>>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        // Whether it was sent depends on how the stream takes it.
        Err(Error::Lost { end, .. }) => format!("lost: {end}"),
        Err(error) => error.to_string(),
    }
}

fn told_event<P: Spoken>(event: Result<Event<P>, Error<P::Refusal>>) -> String {
    match event {
        Ok(Event::Reply { reply, .. }) => format!("{reply:?}"),
        Ok(Event::Refused { refusal, .. }) => format!("refused {refusal:?}"),
        Ok(Event::Notification(notification)) => format!("{notification:?}"),
        Ok(Event::Entered { .. }) => "entered".into(),
        Ok(Event::Left { asked, .. }) => format!("left, asked: {asked}"),
        Ok(Event::Lost { .. }) => "lost".into(),
        Ok(Event::Closed) => "closed".into(),
        Err(error) => error.to_string(),
    }
}
