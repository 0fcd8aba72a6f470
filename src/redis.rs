//! Redis with Pub/Sub, in RESP2: the client's side.
//!
//! A request is an array of octet strings, an answer one value: `+` simple string, `-` error, `:` integer, `$` bulk string,
//! `*` array. (Redis documentation, "RESP protocol specification", "Redis Pub/Sub", and the pages of the commands named.)
//!
//! | the client | on the wire | the server |
//! |---|---|---|
//! | [`request`](crate::ClientState::request) | `GET k` | one value, or an error |
//! | [`enter`](crate::ClientState::enter) | `SUBSCRIBE a b`, `PSUBSCRIBE n*`, `MONITOR` | one confirmation for each name (`+OK` to `MONITOR`), or one error |
//! | | | `message a text`, `pmessage n* news text`, lines of `MONITOR` |
//! | [`leave`](crate::ClientState::leave) | `UNSUBSCRIBE` and `PUNSUBSCRIBE`, `RESET` after `MONITOR` | one confirmation for each name held, at least one for each command |
//!
//! The race at the way out: messages cross the `UNSUBSCRIBE`. They arrive before its first confirmation, and are told.
//! What was asked behind it is answered behind its last one. How many there are is known from what is held when the first is
//! read, not from the count in it, which sums channels and patterns. An answer to a request may have the very form of a
//! message (`LRANGE` of a list that holds `message`, ...): what has been read decides, never what was sent. While anything is
//! subscribed to, what begins with `message` or `pmessage` is a push and no answer, whatever follows it
//! ([`Notification::Other`]).
//!
//! # In the mode
//! Redis answers few requests there: more `SUBSCRIBE` and `PSUBSCRIBE`, `UNSUBSCRIBE` and `PUNSUBSCRIBE`, `PING`, `RESET` and
//! `QUIT`. They are requests here too, and need no ring: a message that is published while nobody is subscribed is lost,
//! so a client that leaves to ask, and enters again, misses what is published meanwhile. Ask other things over another
//! connection; through a shared handle they are rejected in the mode. The last channel or pattern to be unsubscribed ends the mode: [`Left`](crate::Event::Left) follows the
//! answer. For the same reason a mode that is to be renewed ([`Timeouts::refresh`](crate::Timeouts::refresh)) is not left:
//! a `PING` shows that it is alive.
//!
//! # What is not spoken
//! RESP3 (`HELLO 3`), sharded channels (`SSUBSCRIBE`), replication, and `CLIENT REPLY`, after which requests have no
//! answers: they are refused before they are sent. Inside `MULTI`, which answers everything with `QUEUED`, nothing can be
//! subscribed to.
//!
//! ```
//! use sonnette::redis::{Command, Notification, Redis, Reply, Subscription};
//! use sonnette::{ClientState, Event};
//!
//! let mut state = ClientState::new(Redis::new());
//! let news = state.enter(Subscription::channels(["news"])).unwrap();
//! assert_eq!(state.output(), b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n");
//! state.receive(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
//! assert_eq!(state.poll_event()?, Some(Event::Entered { id: news }));
//! let message = Notification::Message { channel: "news".into(), payload: "hi".into() };
//! assert_eq!(state.poll_event()?, Some(Event::Notification(message)));
//!
//! // More channels, without leaving.
//! let more = state.request(Command::new("SUBSCRIBE").arg("sport")).unwrap();
//! state.receive(b"*3\r\n$9\r\nsubscribe\r\n$5\r\nsport\r\n:2\r\n");
//! let reply = Reply::Confirmed { confirmations: 1, subscriptions: 2 };
//! assert_eq!(state.poll_event()?, Some(Event::Reply { id: more, reply }));
//! # Ok::<(), sonnette::Error>(())
//! ```

use crate::protocol::length;
use crate::text::{OneLine, show_command};
use crate::{
    Asked, Changes, Decoded, Encoder, EnterAnswer, Fault, Frame, Invalid, LeaveAnswer, Limits, Pending, Protocol,
    RequestId, Setting, Terminator,
};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::Range;
use core::{error, fmt, hash, str};

/// Arrays inside arrays, at most. Redis' own answers are nested five deep, and scripts' seldom deeper; hiredis allows 9.
/// What is nested is dropped by recursion.
pub const MAX_DEPTH: usize = 32;

/// A client of Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redis {
    /// The arrays that are being read, the outermost first.
    arrays: Vec<Open>,
    /// What is subscribed to, as read.
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
    monitoring: bool,
    /// Of the answer that comes next, if it has several confirmations and some of them are read.
    confirmed: Option<Confirmed>,
    recent: Recent,
}

/// How the message before began, up to its payload, and its channel: most often they are those of the next one too. Nothing
/// but speed depends on it.
#[derive(Clone, Default)]
struct Recent {
    begin: Vec<u8>,
    channel: Bytes,
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.fmt(f)
    }
}

impl PartialEq for Recent {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Recent {}

impl hash::Hash for Recent {
    fn hash<H: hash::Hasher>(&self, _: &mut H) {}
}

/// An array that is being read: so many items, and those there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Open {
    count: u64,
    items: Vec<Value>,
}

impl Open {
    /// Makes room as a vector that grows does, but in the end for as many as were announced, which are counted: for a half
    /// of them, and for a quarter, before. Not for all of them at once, of which none may come.
    fn push(&mut self, value: Value) {
        let items = self.items.len();
        if items == self.items.capacity() {
            let count = usize::try_from(self.count).unwrap_or(usize::MAX);
            let room = count >> (count / (2 * items).max(VALUES_OF_A_MESSAGE)).max(1).ilog2();
            self.items.reserve_exact(room.saturating_sub(items));
        }
        self.items.push(value);
    }
}

/// So many confirmations were read, of so many of channels and then so many of patterns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Confirmed {
    done: usize,
    channels: usize,
    patterns: usize,
}

impl Confirmed {
    fn is_complete(self) -> bool {
        self.done == self.channels + self.patterns
    }
}

impl Redis {
    /// A client that is subscribed to nothing.
    #[must_use]
    pub const fn new() -> Self {
        Redis {
            arrays: Vec::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            monitoring: false,
            confirmed: None,
            recent: Recent { begin: Vec::new(), channel: Bytes::new() },
        }
    }

    /// The channels subscribed to, as far as confirmations have been read.
    #[must_use]
    pub fn channels(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.channels.iter()
    }

    /// The patterns subscribed to, likewise.
    #[must_use]
    pub fn patterns(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.patterns.iter()
    }

    fn is_subscribed(&self) -> bool {
        !self.channels.is_empty() || !self.patterns.is_empty()
    }

    /// The value that this frame completes, or what is read before there is one.
    fn value(&mut self, frame: &mut Frame<'_>) -> Result<Result<Value, Decoded<Self>>, Fault> {
        let mut value = if frame.is_raw() {
            let text = frame.len().saturating_sub(2);
            if frame.get(text..) != Some(END) {
                return Err(Fault::Violation("a bulk string ends in CR LF"));
            }
            Value::Bulk(frame.slice(..text))
        } else {
            let rest = frame.get(1..).unwrap_or_default();
            match frame.first() {
                Some(b'+') => Value::Simple(frame.slice(1..)),
                Some(b'-') => Value::Error(ServerError(frame.slice(1..))),
                Some(b':') => Value::Integer(integer(rest).ok_or(Fault::Violation("not an integer"))?),
                Some(b'$' | b'*') if rest == b"-1" => Value::Nil,
                Some(b'$') => {
                    let raw = length(rest, NOT_A_LENGTH)?.checked_add(END.len() as u64).ok_or(Fault::TooLong)?;
                    return Ok(Err(Decoded::More { raw: Some(raw) }));
                }
                Some(b'*') => match length(rest, NOT_A_LENGTH)? {
                    0 => Value::Array(Vec::new()),
                    _ if self.arrays.len() == MAX_DEPTH => return Err(Fault::Violation("arrays nested too deep")),
                    count => {
                        let free = if self.arrays.is_empty() { VALUES_OF_A_MESSAGE as u64 } else { 0 };
                        self.arrays.push(Open { count, items: Vec::new() });
                        let octets = count.saturating_sub(free).saturating_mul(size_of::<Value>() as u64);
                        return Ok(Err(Decoded::Reserve { octets }));
                    }
                },
                _ => return Err(Fault::Violation("not a RESP2 value")),
            }
        };
        while let Some(mut open) = self.arrays.pop() {
            open.push(value);
            if (open.items.len() as u64) < open.count {
                self.arrays.push(open);
                return Ok(Err(Decoded::More { raw: None }));
            }
            value = Value::Array(open.items);
        }
        Ok(Ok(value))
    }

    /// Any message that has arrived whole. Names are told as ours, which keep nothing else alive.
    #[inline(never)]
    fn known_message(&mut self, input: &mut Frame<'_>) -> Option<Notification> {
        let Message { pattern, channel, payload, end } = message(input)?;
        input.truncate(end);
        let ours = |names: &BTreeSet<Bytes>, name: &Range<usize>| names.get(input.get(name.clone())?).cloned();
        let name = match &pattern {
            None => ours(&self.channels, &channel),
            Some(pattern) => ours(&self.patterns, pattern),
        };
        if let (None, Some(channel), Some(begin)) = (&pattern, &name, input.get(..channel.end + END.len())) {
            self.recent.begin.clear();
            self.recent.begin.extend_from_slice(begin);
            self.recent.channel = channel.clone();
        }
        let payload = input.share(payload);
        Some(match pattern {
            None => Notification::Message { channel: name.unwrap_or_else(|| input.share(channel)), payload },
            Some(pattern) => {
                let pattern = name.unwrap_or_else(|| input.share(pattern));
                Notification::PatternMessage { pattern, channel: input.share(channel), payload }
            }
        })
    }

    /// What the server pushes, if the value is that. Pushes begin with the first confirmation of an enter, and what has
    /// the same form outside the mode is an answer.
    fn push(&self, value: Value) -> Result<Notification, Value> {
        match value {
            Value::Simple(line) if self.monitoring && line.first().is_some_and(u8::is_ascii_digit) => {
                Ok(Notification::Monitor(line))
            }
            Value::Array(items) if self.is_subscribed() && is_push(&items) => Ok(match items.as_slice() {
                [Value::Bulk(kind), Value::Bulk(channel), Value::Bulk(payload)] if kind == "message" => {
                    Notification::Message { channel: channel.clone(), payload: payload.clone() }
                }
                [Value::Bulk(kind), Value::Bulk(pattern), Value::Bulk(channel), Value::Bulk(payload)]
                    if kind == "pmessage" =>
                {
                    let (pattern, channel, payload) = (pattern.clone(), channel.clone(), payload.clone());
                    Notification::PatternMessage { pattern, channel, payload }
                }
                _ => Notification::Other(items),
            }),
            value => Err(value),
        }
    }

    /// The confirmations that what was noted has, as of the first.
    fn expected(&self, names: &Names) -> Confirmed {
        let (channels, patterns) = match names {
            Names::Of { kind: Kind::Channel, names } => (names.len(), 0),
            Names::Of { kind: Kind::Pattern, names } => (0, names.len()),
            Names::AllOf(Kind::Channel) => (self.channels.len().max(1), 0),
            Names::AllOf(Kind::Pattern) => (0, self.patterns.len().max(1)),
            Names::All => (self.channels.len().max(1), self.patterns.len().max(1)),
        };
        Confirmed { done: 0, channels, patterns }
    }

    /// One more confirmation: how many subscriptions are left, as the server counts them.
    fn confirm(&mut self, subscribe: bool, names: &Names, confirmed: Confirmed, value: &Value) -> Option<u64> {
        let Value::Array(items) = value else { return None };
        let [Value::Bulk(kind), name, Value::Integer(subscriptions)] = items.as_slice() else { return None };
        let (held, expected) = match (confirmed.done < confirmed.channels, subscribe) {
            (true, true) => (&mut self.channels, "subscribe"),
            (true, false) => (&mut self.channels, "unsubscribe"),
            (false, true) => (&mut self.patterns, "psubscribe"),
            (false, false) => (&mut self.patterns, "punsubscribe"),
        };
        if kind != expected {
            return None;
        }
        match (names, name) {
            (Names::Of { names, .. }, Value::Bulk(name)) => {
                // Ours is kept, not a part of what was received.
                let asked = names.get(confirmed.done).filter(|asked| *asked == name)?;
                if subscribe {
                    held.insert(asked.clone());
                } else {
                    held.remove(asked);
                }
            }
            (Names::AllOf(_) | Names::All, Value::Bulk(name)) => held.remove(name).then_some(())?,
            (Names::AllOf(_) | Names::All, Value::Nil) => held.is_empty().then_some(())?,
            _ => return None,
        }
        u64::try_from(*subscriptions).ok()
    }

    /// A value that answers what was asked, of which that was noted.
    fn answer(&mut self, asked: Asked<'_, Self>, note: &Note, value: Value) -> Result<Decoded<Self>, Fault> {
        let (id, is_request, is_void) = match asked {
            Asked::Request { id, .. } => (id, true, false),
            Asked::Enter { id, .. } => (id, false, false),
            Asked::Leave { id, void, .. } => (id, false, void),
            Asked::Greeting => return Err(Fault::Violation("Redis does not greet")),
        };
        let (subscribe, names) = match &note.0 {
            Noted::Subscribe(names) => (true, names),
            Noted::Unsubscribe(names) => (false, names),
            Noted::Value | Noted::Reset | Noted::Monitor => {
                return Ok(match (&note.0, value) {
                    // A void leave is of no importance to anybody.
                    (_, Value::Error(_)) if is_void => Decoded::Left,
                    (_, Value::Error(refusal)) => Decoded::Refused { id, refusal },
                    (Noted::Value, value) => Decoded::reply(id, Reply::Value(value)),
                    (Noted::Monitor, Value::Simple(ok)) if ok == "OK" => {
                        self.monitoring = true;
                        Decoded::Entered
                    }
                    (Noted::Reset, Value::Simple(reset)) if reset == "RESET" => {
                        self.channels.clear();
                        self.patterns.clear();
                        self.monitoring = false;
                        let reply = Reply::Value(Value::Simple(reset));
                        if is_request { Decoded::Reply { id, reply, ends_mode: true } } else { Decoded::Left }
                    }
                    _ => return Err(Fault::Violation("MONITOR is answered by OK, RESET by RESET")),
                });
            }
        };
        let mut confirmed = self.confirmed.take().unwrap_or_else(|| self.expected(names));
        let mut subscriptions = 0;
        match value {
            // One error for the whole of a command. A leave has two.
            Value::Error(_) if is_void && confirmed.done == 0 => confirmed.done = confirmed.channels,
            Value::Error(_) if is_void && confirmed.done == confirmed.channels => confirmed.done += confirmed.patterns,
            Value::Error(refusal) if confirmed.done == 0 => return Ok(Decoded::Refused { id, refusal }),
            value => {
                let confirmation = self.confirm(subscribe, names, confirmed, &value);
                subscriptions = confirmation.ok_or(Fault::Violation("not the confirmation that comes next"))?;
                confirmed.done += 1;
            }
        }
        if !confirmed.is_complete() {
            self.confirmed = Some(confirmed);
            return Ok(Decoded::Part { id, kept: false, raw: None });
        }
        Ok(match asked {
            Asked::Request { .. } => Decoded::Reply {
                id,
                reply: Reply::Confirmed { confirmations: confirmed.done, subscriptions },
                ends_mode: !self.is_subscribed() && !self.monitoring,
            },
            Asked::Enter { .. } => Decoded::Entered,
            Asked::Leave { .. } | Asked::Greeting => Decoded::Left,
        })
    }
}

/// The first word decides: another client can have the server push values of another shape (`CLIENT TRACKING ON REDIRECT`),
/// and no answer begins like that in the mode.
fn is_push(items: &[Value]) -> bool {
    matches!(items.first(), Some(Value::Bulk(kind)) if kind == "message" || kind == "pmessage")
}

/// At most: what it is, a pattern, a channel and a payload. An outermost array has so many values uncounted, as a message has
/// that is known at sight: how large it may be must not depend on how it comes.
const VALUES_OF_A_MESSAGE: usize = 4;

const END: &[u8] = b"\r\n";
const NOT_A_LENGTH: &str = "not a length";
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n";
const PATTERN_MESSAGE: &[u8] = b"*4\r\n$8\r\npmessage\r\n";

impl Protocol for Redis {
    type Request = Command;
    type Subscription = Subscription;
    type Reply = Reply;
    type Refusal = ServerError;
    type Notification = Notification;
    type Note = Note;

    const TERMINATOR: Terminator = Terminator::CrLf;

    const LIMITS: Limits = Limits::new()
        // Longer ones are bulk strings, which are answers. It is also what is looked at for a message that is known at
        // sight.
        .with_line(64 * 1024)
        // The server cuts off a subscriber for which more is waiting (`client-output-buffer-limit pubsub 32mb 8mb 60`).
        .with_answer(32 * 1024 * 1024)
        // As large a value can be sent as can be received.
        .with_output(32 * 1024 * 1024);

    /// What is published meanwhile would be lost; and the mode ends only by requests that ask for it.
    const REENTERS: bool = false;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own }
    }

    fn allows(&self, command: &Command, setting: Setting) -> bool {
        match command.known() {
            Known::Anywhere | Known::Reset | Known::Unsubscribe(_) => true,
            // In normal mode it would enter the mode, which is not a request.
            Known::Subscribe(_) => setting == Setting::Notification && !self.monitoring,
            Known::Plain | Known::Unspoken(_) => command.anywhere || setting == Setting::Normal,
        }
    }

    fn may_end_mode(&self, note: &Note) -> bool {
        matches!(note.0, Noted::Reset | Noted::Unsubscribe(_))
    }

    fn encode_request(&self, _: RequestId, command: &Command, out: &mut Encoder<'_>) -> Result<Note, Invalid> {
        if !is_name(command.name()) {
            return Err(Invalid::new("not a command's name"));
        }
        let names = || command.words.get(1..).unwrap_or_default().to_vec();
        let note = match command.known() {
            Known::Plain | Known::Anywhere => Noted::Value,
            Known::Reset => Noted::Reset,
            Known::Subscribe(_) if command.words.len() < 2 => return Err(Invalid::new("no names to subscribe to")),
            Known::Subscribe(kind) => Noted::Subscribe(Names::Of { kind, names: names() }),
            Known::Unsubscribe(kind) if command.words.len() < 2 => Noted::Unsubscribe(Names::AllOf(kind)),
            Known::Unsubscribe(kind) => Noted::Unsubscribe(Names::Of { kind, names: names() }),
            Known::Unspoken(reason) => return Err(Invalid::new(reason)),
        };
        encode(&command.words, out);
        Ok(Note(note))
    }

    fn encode_enter(&self, _: RequestId, to: &Subscription, out: &mut Encoder<'_>) -> Result<Note, Invalid> {
        let (kind, names) = match to {
            Subscription::Channels(names) => (Kind::Channel, names),
            Subscription::Patterns(names) => (Kind::Pattern, names),
            Subscription::Monitor => {
                encode(&[b"MONITOR"], out);
                return Ok(Note(Noted::Monitor));
            }
        };
        if names.is_empty() {
            return Err(Invalid::new("no names to subscribe to"));
        }
        begin(names.len() + 1, out);
        word(if kind == Kind::Channel { b"SUBSCRIBE" } else { b"PSUBSCRIBE" }, out);
        names.iter().for_each(|name| word(name, out));
        Ok(Note(Noted::Subscribe(Names::Of { kind, names: names.clone() })))
    }

    /// Names may have been added, of the other kind too: all are left.
    fn encode_leave(&self, _: RequestId, from: &Subscription, out: &mut Encoder<'_>) -> Note {
        match from {
            Subscription::Channels(_) | Subscription::Patterns(_) => {
                encode(&[b"UNSUBSCRIBE"], out);
                encode(&[b"PUNSUBSCRIBE"], out);
                Note(Noted::Unsubscribe(Names::All))
            }
            Subscription::Monitor => {
                encode(&[b"RESET"], out);
                Note(Noted::Reset)
            }
        }
    }

    fn encode_probe(&self, _: RequestId, _: Setting, out: &mut Encoder<'_>) -> Option<Note> {
        encode(&[b"PING"], out);
        Some(Note(Noted::Value))
    }

    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let value = match self.value(frame)? {
            Ok(value) => value,
            Err(more) => return Ok(more),
        };
        match (self.push(value), pending.awaiting()) {
            (Ok(notification), _) => Ok(Decoded::Notification(notification)),
            (
                Err(value),
                Some(asked @ (Asked::Request { note, .. } | Asked::Enter { note, .. } | Asked::Leave { note, .. })),
            ) => self.answer(asked, note, value),
            (Err(_), Some(Asked::Greeting) | None) => Err(Fault::Violation("a value that nobody asked for")),
        }
    }

    /// Messages that have arrived whole.
    #[inline(always)]
    fn known_push(&mut self, input: &mut Frame<'_>) -> Option<Notification> {
        // While MONITOR is on nothing is one.
        if !self.is_subscribed() {
            return None;
        }
        let Recent { begin, channel } = &self.recent;
        let arrived = &**input;
        if begin.is_empty() || !arrived.starts_with(begin) {
            return self.known_message(input);
        }
        let payload = bulk(arrived, begin.len())?;
        input.truncate(payload.end + END.len());
        Some(Notification::Message { channel: channel.clone(), payload: input.share(payload) })
    }
}

/// Where the parts of a message are.
struct Message {
    pattern: Option<Range<usize>>,
    channel: Range<usize>,
    payload: Range<usize>,
    end: usize,
}

/// The message that the input begins with, if all of it is there.
#[inline(always)]
fn message(input: &[u8]) -> Option<Message> {
    let (pattern, at) = if input.starts_with(MESSAGE) {
        (None, MESSAGE.len())
    } else if input.starts_with(PATTERN_MESSAGE) {
        let pattern = bulk(input, PATTERN_MESSAGE.len())?;
        let at = pattern.end + END.len();
        (Some(pattern), at)
    } else {
        return None;
    };
    let channel = bulk(input, at)?;
    let payload = bulk(input, channel.end + END.len())?;
    let end = payload.end + END.len();
    Some(Message { pattern, channel, payload, end })
}

/// Where the text of the bulk string is that begins at `at`, if all of it is there.
#[inline(always)]
fn bulk(input: &[u8], at: usize) -> Option<Range<usize>> {
    // Of this width everywhere, so that what it cannot hold is the same everywhere.
    let mut octets: u32 = 0;
    let mut line_end = at + 1;
    loop {
        let digit = input.get(line_end)?.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        // What has more digits fits no limit.
        if line_end == at + 10 {
            return None;
        }
        octets = octets * 10 + u32::from(digit);
        line_end += 1;
    }
    let octets = usize::try_from(octets).ok()?;
    let begin = line_end + END.len();
    let end = begin + octets;
    let is_whole = input.get(end..end + END.len())? == END;
    (is_whole && line_end > at + 1 && input[at] == b'$' && input[line_end..begin] == *END).then_some(begin..end)
}

fn encode(words: &[impl AsRef<[u8]>], out: &mut Encoder<'_>) {
    begin(words.len(), out);
    words.iter().for_each(|each| word(each.as_ref(), out));
}

fn begin(words: usize, out: &mut Encoder<'_>) {
    number(b'*', words, out);
}

/// Its length is told, so it may hold any octets.
fn word(octets: &[u8], out: &mut Encoder<'_>) {
    number(b'$', octets.len(), out);
    out.put(octets);
    out.put(END);
}

fn number(kind: u8, mut number: usize, out: &mut Encoder<'_>) {
    let mut line = [0; 24];
    let mut at = line.len() - END.len();
    line[at..].copy_from_slice(END);
    loop {
        at -= 1;
        line[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    at -= 1;
    line[at] = kind;
    out.put(&line[at..]);
}

fn integer(digits: &[u8]) -> Option<i64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// What the answer looks like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note(Noted);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Noted {
    /// One value.
    Value,
    /// `RESET`: nothing is subscribed to after it.
    Reset,
    /// `OK`, and lines of all that is executed from there on.
    Monitor,
    /// So many confirmations.
    Subscribe(Names),
    Unsubscribe(Names),
}

/// What is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Names {
    /// Each of these, in the order asked.
    Of { kind: Kind, names: Vec<Bytes> },
    /// All that are held, or that there are none.
    AllOf(Kind),
    /// The channels, and then the patterns.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Channel,
    Pattern,
}

/// What notification mode is entered with. More channels and patterns can be added, and some removed, by requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subscription {
    /// `SUBSCRIBE`: at least one channel. All are refused if one is.
    Channels(Vec<Bytes>),
    /// `PSUBSCRIBE`: at least one pattern (`*`, `?`, `[ab]`). All are refused if one is.
    Patterns(Vec<Bytes>),
    /// `MONITOR`: all that the server executes. It is left by `RESET`, which logs out as well. A command is one line, with
    /// all of its values: one that exceeds [`Limits::line`] ends the connection.
    Monitor,
}

impl Subscription {
    /// These channels.
    pub fn channels(names: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        Subscription::Channels(owned(names))
    }

    /// These patterns.
    pub fn patterns(names: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        Subscription::Patterns(owned(names))
    }
}

fn owned(names: impl IntoIterator<Item: AsRef<[u8]>>) -> Vec<Bytes> {
    names.into_iter().map(|name| Bytes::copy_from_slice(name.as_ref())).collect()
}

/// A command and its arguments, each of any octets.
///
/// The name is one word, and what else is given for it is refused: of `CLIENT KILL`, `KILL` is an argument.
///
/// ```
/// use sonnette::redis::Command;
///
/// let set = Command::new("SET").arg("picture").arg(b"\x89PNG\r\n\x1a\n").arg("EX").arg(60.to_string());
/// # let _ = set;
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Command {
    /// Never empty.
    words: Vec<Bytes>,
    anywhere: bool,
}

/// Without spaces and controls. Commands may be renamed, and modules have their own.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&octet| octet > b' ' && octet != b'\x7f')
}

enum Known {
    Plain,
    /// In the mode as well.
    Anywhere,
    Reset,
    Subscribe(Kind),
    Unsubscribe(Kind),
    /// Not at all, for this reason.
    Unspoken(&'static str),
}

impl Command {
    /// A command without arguments.
    #[must_use]
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        Command { words: owned([name]), anywhere: false }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.words.push(Bytes::copy_from_slice(argument.as_ref()));
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        self.words.extend(owned(arguments));
        self
    }

    /// `AUTH`: logs in with a password, as this user or as the default one.
    #[must_use]
    pub fn auth(user: Option<&str>, password: &str) -> Self {
        Command::new("AUTH").args(user).arg(password)
    }

    /// Allows it in the mode too. A Redis that does not answers with an error, and the mode stays; this is for servers that
    /// do, and for what is asked behind a request that ends the mode, without waiting for its answer.
    #[must_use]
    pub fn anywhere(mut self) -> Self {
        self.anywhere = true;
        self
    }

    fn name(&self) -> &[u8] {
        self.words.first().map(|name| &**name).unwrap_or_default()
    }

    fn known(&self) -> Known {
        let is = |word: usize, names: &[&str]| {
            self.words.get(word).is_some_and(|word| names.iter().any(|name| word.eq_ignore_ascii_case(name.as_bytes())))
        };
        if !matches!(self.name().first(), Some(b'A'..=b'Z' | b'a'..=b'z')) {
            Known::Plain
        } else if is(0, &["PING", "QUIT"]) {
            Known::Anywhere
        } else if is(0, &["RESET"]) {
            Known::Reset
        } else if is(0, &["SUBSCRIBE"]) {
            Known::Subscribe(Kind::Channel)
        } else if is(0, &["PSUBSCRIBE"]) {
            Known::Subscribe(Kind::Pattern)
        } else if is(0, &["UNSUBSCRIBE"]) {
            Known::Unsubscribe(Kind::Channel)
        } else if is(0, &["PUNSUBSCRIBE"]) {
            Known::Unsubscribe(Kind::Pattern)
        } else if is(0, &["MONITOR"]) {
            Known::Unspoken("MONITOR is entered, not requested")
        } else if is(0, &["SSUBSCRIBE", "SUNSUBSCRIBE"]) {
            Known::Unspoken("sharded channels are not spoken")
        } else if is(0, &["SYNC", "PSYNC", "REPLCONF"]) {
            Known::Unspoken("replication is not spoken")
        } else if is(0, &["HELLO"]) && self.words.len() > 1 && !is(1, &["2"]) {
            Known::Unspoken("RESP3 is not spoken")
        } else if is(0, &["CLIENT"]) && is(1, &["REPLY"]) {
            Known::Unspoken("each request must have an answer")
        } else {
            Known::Plain
        }
    }
}

/// Arguments may be secrets: only their number is shown, and nothing in place of a name that is none.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_command(Some(self.name()).filter(|name| is_name(name)), self.words.len().saturating_sub(1), f)
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To most requests. In the mode `PING` is answered by an array of `pong` and its argument, else by `PONG` or its
    /// argument.
    Value(Value),
    /// To `SUBSCRIBE`, `UNSUBSCRIBE` and those for patterns, once all of it is confirmed.
    Confirmed {
        /// How many confirmations there were.
        confirmations: usize,
        /// How many channels and patterns are subscribed to now, as the server counts them.
        subscriptions: u64,
    },
}

/// A value, as in "RESP protocol specification".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// `$-1` or `*-1`: there is none.
    Nil,
    /// `:`
    Integer(i64),
    /// `+`: a simple string.
    Simple(Bytes),
    /// `$`: a bulk string, any octets.
    Bulk(Bytes),
    /// `*`
    Array(Vec<Value>),
    /// `-`: inside an array, as in the answer to `EXEC`. An error by itself is a refusal.
    Error(ServerError),
}

/// `-`: the server refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerError(Bytes);

impl ServerError {
    /// The whole text.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.0
    }

    /// Its first word, `ERR`, `NOAUTH`, `NOPERM`, `WRONGTYPE` and so on.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        self.0.split(|&octet| octet == b' ').next().unwrap_or_default()
    }
}

/// On one line, with controls escaped, whatever the server has put into it.
impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(&self.0).fmt(f)
    }
}

impl error::Error for ServerError {}

/// What the server pushes.
///
/// A payload shares the memory it arrived in, or a copy of it, with its neighbours: as long as it lives it keeps 2 KiB or 128
/// times its octets alive at most, see [`Frame::share`]. A name that was subscribed to keeps nothing else alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notification {
    /// A message on a channel subscribed to.
    Message {
        /// The channel.
        channel: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// A message on a channel that matches a pattern subscribed to. It comes once for each such pattern, and beside the
    /// [`Message`](Self::Message) if the channel is subscribed to as well.
    PatternMessage {
        /// The pattern.
        pattern: Bytes,
        /// The channel.
        channel: Bytes,
        /// The message.
        payload: Bytes,
    },
    /// A line of `MONITOR`: the time, where it came from, and the command.
    Monitor(Bytes),
    /// What begins with `message` or `pmessage`, and goes on in another way than the two above: all of its values. Where
    /// any client has asked for it (`CLIENT TRACKING ON REDIRECT`), the server tells subscribers of `__redis__:invalidate` which
    /// keys have changed, as an array, or by nil that all have.
    Other(Vec<Value>),
}
