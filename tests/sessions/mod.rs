//! Sessions of the notice board, as its specification writes them: what the client says and what the server says.
#![allow(dead_code, reason = "each test uses a part of it")]

use sonnette::board::Board;

pub(crate) struct Session {
    pub(crate) name: &'static str,
    pub(crate) board: Board,
    pub(crate) lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Client(&'static str),
    Server(&'static str),
}

const SILENT: [(&str, &str); 5] = [
    ("questions", "C random? / S 46774 / C classified? / S nice flat in the 11e"),
    ("questions in one write", "C random? / C classified? / C random? / S 1 / S nice flat / S -9223372036854775808"),
    (
        "the talk",
        "C random? / S 46774 / C notif / S notif: random / C stop_notif / C random? / C notif / S 90210 / \
         S notif: classified / C stop_notif / C classified? / C notif / S two rooms near the canal",
    ),
    (
        "a ring crossed by a push",
        "C notif / S notif: random / C stop_notif / C random? / C notif / S notif: classified / S notif: random / S 7 / \
         S notif: other / C stop_notif / C random? / S 8",
    ),
    ("an answer of the wrong kind", "C random? / C random? / S many / S 2 / C notif / S notif: random"),
];

const ACKNOWLEDGED: [(&str, &str); 5] = [
    (
        "the talk, acknowledged",
        "C random? / S 46774 / C notif / S OK / S notif: random / C stop_notif / C random? / C notif / S OK / S 90210 / \
         S OK / S notif: classified / C stop_notif / C classified? / C notif / S OK / S two rooms / S OK",
    ),
    (
        "a ring crossed by a push, acknowledged",
        "C notif / S OK / S notif: random / C stop_notif / C random? / C notif / S notif: classified / S OK / S 7 / S OK / \
         S notif: other / C stop_notif / S OK / C random? / S 8",
    ),
    ("questions before the mode", "C random? / C classified? / S 1 / S nice flat / C notif / S OK / S notif: random"),
    ("an enter that is refused", "C random? / S 1 / C notif / S not now / C random? / S 2"),
    ("in and out", "C notif / S OK / C stop_notif / S OK / C notif / S OK / C stop_notif / S OK / C random? / S 3"),
];

pub(crate) fn sessions() -> Vec<Session> {
    let parse = |board, (name, text): (&'static str, &'static str)| {
        let lines = text.split(" / ").map(|line| match line.split_at(2) {
            ("C ", line) => Line::Client(line),
            ("S ", line) => Line::Server(line),
            _ => panic!("what is {line:?}?"),
        });
        Session { name, board, lines: lines.collect() }
    };
    let silent = SILENT.map(|session| parse(Board::silent(), session));
    silent.into_iter().chain(ACKNOWLEDGED.map(|session| parse(Board::acknowledged(), session))).collect()
}
