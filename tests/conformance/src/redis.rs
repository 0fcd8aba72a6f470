//! The scenarios of Redis.

use crate::{Scenario, Spoken};
use sonnette::redis::{Command, Redis, Subscription};

impl Spoken for Redis {
    /// `[a 1 nil]` is an array of bulk strings, integers and nils, in which `'1` is a string; a line that begins with the
    /// sign of a type is as on the wire; anything else is a bulk string.
    fn wire(line: &str) -> Vec<u8> {
        if line.starts_with(['+', '-', ':', '$', '*']) {
            return format!("{line}\r\n").into();
        }
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let Some(items) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) else {
            return bulk(line).into();
        };
        let items: Vec<String> = items
            .split_whitespace()
            .map(|item| match item.strip_prefix('\'') {
                Some(text) => bulk(text),
                None if item == "nil" => "$-1\r\n".into(),
                None if item.bytes().all(|octet| octet.is_ascii_digit()) => format!(":{item}\r\n"),
                None => bulk(item),
            })
            .collect();
        format!("*{}\r\n{}", items.len(), items.concat()).into()
    }

    fn request(text: &str) -> Command {
        let mut words = text.split_whitespace();
        Command::new(words.next().unwrap_or_default()).args(words)
    }

    fn subscription(text: &str) -> Subscription {
        match text.split_once(' ') {
            Some(("P", patterns)) => Subscription::patterns(patterns.split(' ')),
            _ if text == "MONITOR" => Subscription::Monitor,
            _ if text.is_empty() => Subscription::channels(["a"]),
            _ => Subscription::channels(text.split(' ')),
        }
    }
}

const SCENARIOS: &[(&str, &str, &str)] = &[
    ("nothing", "", "rest = closed"),
    (
        "questions",
        "C [GET k] / S v / C [GET x] / S $-1 / C [INCR n] / S :-1 / C [LRANGE l '0 '9] / S [message a '5] / C [BLPOP l] / S *-1 / C [SET k] / S -ERR wrong",
        "call GET k = Value(Bulk(b\"v\")) / call GET x = Value(Nil) / call INCR n = Value(Integer(-1)) / call LRANGE l 0 9 = Value(Array([Bulk(b\"message\"), Bulk(b\"a\"), Bulk(b\"5\")])) / call BLPOP l = Value(Nil) / call SET k = the server refused: ServerError(b\"ERR wrong\") / rest = closed",
    ),
    (
        "questions in one write",
        "C [GET a] / C [PING] / C [GET b] / S one / S +PONG / S *2 / S [] / S [b 'nil]",
        "start GET a = asked / start PING = asked / start GET b = asked / rest = Value(Bulk(b\"one\")), Value(Simple(b\"PONG\")), Value(Array([Array([]), Array([Bulk(b\"b\"), Bulk(b\"nil\")])])), closed",
    ),
    (
        "messages, and a leave of both kinds",
        "C [SUBSCRIBE a b] / S [subscribe a 1] / S [message a first] / S [subscribe b 2] / S [message b second] / \
         C [UNSUBSCRIBE] / C [PUNSUBSCRIBE] / C [GET k] / S [message a last] / S [unsubscribe b 1] / S [unsubscribe a 0] / S [punsubscribe nil 0] / S [message a no-push]",
        "enter a b = () / next = Some(Message { channel: b\"a\", payload: b\"first\" }) / next = Some(Message { channel: b\"b\", payload: b\"second\" }) / leave = () / call GET k = Value(Array([Bulk(b\"message\"), Bulk(b\"a\"), Bulk(b\"no-push\")])) / next = Some(Message { channel: b\"a\", payload: b\"last\" }) / next = None / rest = closed",
    ),
    (
        "pushes cross a ring",
        "C [SUBSCRIBE a] / S [subscribe a 1] / S [message a one] / C [UNSUBSCRIBE] / C [PUNSUBSCRIBE] / C [GET k] / C [SUBSCRIBE a] / \
         S [message a two] / S [unsubscribe a 0] / S [punsubscribe nil 0] / S v / S [subscribe a 1] / S [message a three]",
        "enter a = () / next = Some(Message { channel: b\"a\", payload: b\"one\" }) / ring GET k = Value(Bulk(b\"v\")) / next = Some(Message { channel: b\"a\", payload: b\"two\" }) / next = Some(Message { channel: b\"a\", payload: b\"three\" }) / rest = closed",
    ),
    (
        "patterns, and what may be asked in the mode",
        "C [PSUBSCRIBE n* *s] / S [psubscribe n* 1] / S [psubscribe *s 2] / S [pmessage n* news hi] / C [PING] / S [pmessage *s news hi] / S [pong ] / \
         C [SUBSCRIBE news] / S [subscribe news 3] / C [PUNSUBSCRIBE] / S [message news bye] / S [punsubscribe n* 2] / S [punsubscribe *s 1] / C [UNSUBSCRIBE news x] / S [unsubscribe news 0] / S [unsubscribe x 0] / C [GET k] / S v",
        "enter P n* *s = () / next = Some(PatternMessage { pattern: b\"n*\", channel: b\"news\", payload: b\"hi\" }) / call PING = Value(Array([Bulk(b\"pong\")])) / next = Some(PatternMessage { pattern: b\"*s\", channel: b\"news\", payload: b\"hi\" }) / call SUBSCRIBE news = Confirmed { confirmations: 1, subscriptions: 3 } / call PUNSUBSCRIBE = Confirmed { confirmations: 2, subscriptions: 1 } / next = Some(Message { channel: b\"news\", payload: b\"bye\" }) / call UNSUBSCRIBE news x = Confirmed { confirmations: 2, subscriptions: 0 } / next = None / call GET k = Value(Bulk(b\"v\")) / rest = closed",
    ),
    (
        "a leave on its way when an answer ends the mode",
        "C [SUBSCRIBE a] / S [subscribe a 1] / C [RESET] / C [UNSUBSCRIBE] / C [PUNSUBSCRIBE] / C [GET k] / S [message a one] / S +RESET / \
         S [unsubscribe nil 0] / S [punsubscribe nil 0] / S v",
        "enter a = () / start RESET = asked / leave = () / call GET k = Value(Bulk(b\"v\")) / next = Some(Message { channel: b\"a\", payload: b\"one\" }) / next = None / rest = Value(Simple(b\"RESET\")), closed",
    ),
    (
        "an enter that is refused",
        "C [SUBSCRIBE a secret] / S -NOPERM no / C [GET k] / S v",
        "enter a secret = the server refused: ServerError(b\"NOPERM no\") / call GET k = Value(Bulk(b\"v\")) / rest = closed",
    ),
    (
        "what the mode does not allow is not sent",
        "C [SUBSCRIBE a] / S [subscribe a 1] / S [message a one]",
        "enter a = () / call GET k = not sent: not allowed while the mode asked for is Notification / start MONITOR = not allowed while the mode asked for is Notification / next = Some(Message { channel: b\"a\", payload: b\"one\" }) / rest = closed",
    ),
    (
        "monitored",
        "C [MONITOR] / S +OK / S +1.5 [0 lua] \"GET\" \"k\" / C [RESET] / C [GET k] / S +2.5 [0 lua] \"GET\" \"k\" / S +RESET / S v",
        "enter MONITOR = () / next = Some(Monitor(b\"1.5 [0 lua] \\\"GET\\\" \\\"k\\\"\")) / leave = () / call GET k = Value(Bulk(b\"v\")) / next = Some(Monitor(b\"2.5 [0 lua] \\\"GET\\\" \\\"k\\\"\")) / next = None / rest = closed",
    ),
    (
        "a value that nobody asked for",
        "S +OK",
        "rest = the server broke the protocol: a value that nobody asked for: \"+OK\"",
    ),
    (
        "a message that nobody subscribed to",
        "C [GET k] / S v / S [message a one]",
        "call GET k = Value(Bulk(b\"v\")) / rest = the server broke the protocol: a value that nobody asked for: \"one\\r\\n\"",
    ),
    (
        "a confirmation of another name",
        "C [SUBSCRIBE a] / S [subscribe b 1]",
        "enter a = lost: the server broke the protocol: not the confirmation that comes next: \":1\" / rest = the server broke the protocol: not the confirmation that comes next: \":1\"",
    ),
    (
        "an error among confirmations",
        "C [SUBSCRIBE a b] / S [subscribe a 1] / S -ERR no",
        "enter a b = lost: the server broke the protocol: not the confirmation that comes next: \"-ERR no\" / rest = the server broke the protocol: not the confirmation that comes next: \"-ERR no\"",
    ),
    (
        "a type that is none",
        "C [GET k] / s %1\r\n",
        "call GET k = lost: the server broke the protocol: not a RESP2 value: \"%1\" / rest = the server broke the protocol: not a RESP2 value: \"%1\"",
    ),
    (
        "a string that does not end",
        "C [GET k] / s $1\r\nabc",
        "call GET k = lost: the server broke the protocol: a bulk string ends in CR LF: \"abc\" / rest = the server broke the protocol: a bulk string ends in CR LF: \"abc\"",
    ),
    (
        "a length that is none",
        "C [GET k] / S $-2",
        "call GET k = lost: the server broke the protocol: not a length: \"$-2\" / rest = the server broke the protocol: not a length: \"$-2\"",
    ),
    (
        "a value too large",
        "C [GET k] / S $99999999",
        "call GET k = lost: the server sent an answer of more than 33554432 octets / rest = the server sent an answer of more than 33554432 octets",
    ),
    (
        "too many values",
        "C [GET k] / S *2147483647",
        "call GET k = lost: the server sent an answer of more than 33554432 octets / rest = the server sent an answer of more than 33554432 octets",
    ),
    (
        "an integer that is none",
        "C [INCR k] / S :1e3",
        "call INCR k = lost: the server broke the protocol: not an integer: \":1e3\" / rest = the server broke the protocol: not an integer: \":1e3\"",
    ),
    (
        "the end inside a message",
        "C [SUBSCRIBE a] / S [subscribe a 1] / s *3\r\n$7\r\nmessage\r\n",
        "enter a = () / next = the connection ended in the middle of an answer, after 17 octets of it / rest = the connection ended in the middle of an answer, after 17 octets of it",
    ),
    (
        "the end in the mode",
        "C [SUBSCRIBE a] / S [subscribe a 1]",
        "enter a = () / next = the server closed the connection / rest = closed",
    ),
];

#[must_use]
pub fn scenarios() -> Vec<Scenario<Redis>> {
    SCENARIOS.iter().map(|&(name, wire, calls)| Scenario::new(Redis::new(), name, wire, calls)).collect()
}
