//! The scenarios of MPD.

use crate::{Scenario, Spoken};
use sonnette::mpd::{Command, Mpd, Request, Subsystem};

impl Spoken for Mpd {
    fn wire(line: &str) -> Vec<u8> {
        format!("{line}\n").into()
    }

    fn request(text: &str) -> Request {
        let mut words = text.split(' ');
        let command = Command::new(words.next().unwrap_or_default());
        words.fold(command, Command::arg).into()
    }

    fn subscription(text: &str) -> Vec<Subsystem> {
        text.split_whitespace().map(Subsystem::from).collect()
    }
}

const SCENARIOS: &[(&str, &str, &str)] = &[
    ("nothing but a greeting", "S OK MPD 0.23.5", "rest = closed"),
    (
        "a greeting that refuses",
        "S ACK [4@0] {} too many",
        "rest = the server refused the connection: \"ACK [4@0] {} too many\"",
    ),
    (
        "questions",
        "S OK MPD 0.23.5 / C status / S volume: 50 / S state: stop / S OK / C ping / S OK / C play 9 / S ACK [2@0] {play} Bad",
        "call status = Answer { lines: b\"volume: 50\\nstate: stop\\n\", blocks: [] } / call ping = Answer { lines: b\"\", blocks: [] } / call play 9 = the server refused: Ack { code: 2, position: 0, command: b\"play\", text: b\"Bad\", before: Answer { lines: b\"\", blocks: [] } } / rest = closed",
    ),
    (
        "questions in one write",
        "S OK MPD 0.23.5 / C ping / C status / C ping / S OK / S volume: 50 / S OK / S OK",
        "start ping = asked / start status = asked / start ping = asked / rest = Answer { lines: b\"\", blocks: [] }, Answer { lines: b\"volume: 50\\n\", blocks: [] }, Answer { lines: b\"\", blocks: [] }, closed",
    ),
    (
        "a block that looks like answers",
        "S OK MPD 0.23.5 / C albumart \"a/b\" 0 / S size: 9 / S binary: 9 / S OK\nACK [1 / S OK / C ping / S OK",
        "call albumart a/b 0 = Answer { lines: b\"size: 9\\nbinary: 9\\n\", blocks: [b\"OK\\nACK [1\"] } / call ping = Answer { lines: b\"\", blocks: [] } / rest = closed",
    ),
    (
        "a group of changes, and the mode ends by itself",
        "S OK MPD 0.23.5 / C idle / S changed: mixer / S changed: player / S changed: new / S OK / C status / S OK",
        "enter = () / next = Some(Mixer) / next = Some(Player) / next = Some(Other(\"new\")) / next = None / call status = Answer { lines: b\"\", blocks: [] } / rest = closed",
    ),
    (
        "entered again and again, where it may be answered at once",
        "S OK MPD 0.23.5 / C idle mixer player / S changed: mixer / S OK / C idle / S changed: update / S OK / C idle / S OK",
        "enter mixer player = () / next = Some(Mixer) / next = None / enter = () / next = Some(Update) / next = None / enter = () / next = None / rest = closed",
    ),
    (
        "left, with one answer for both",
        "S OK MPD 0.23.5 / C idle / C noidle / C ping / S OK / S OK",
        "enter = () / leave = () / call ping = Answer { lines: b\"\", blocks: [] } / next = None / rest = closed",
    ),
    (
        "a leave crosses the end",
        "S OK MPD 0.23.5 / C idle / C noidle / C status / S changed: mixer / S OK / S volume: 1 / S OK",
        "enter = () / leave = () / call status = Answer { lines: b\"volume: 1\\n\", blocks: [] } / next = Some(Mixer) / next = None / rest = closed",
    ),
    (
        "a ring in the mode, and one behind its end",
        "S OK MPD 0.23.5 / C idle / C noidle / C status / C idle / S OK / S volume: 1 / S OK / S changed: mixer / S OK / \
         C status / C idle / S volume: 2 / S OK / S changed: player / S OK",
        "enter = () / ring status = Answer { lines: b\"volume: 1\\n\", blocks: [] } / next = Some(Mixer) / next = None / ring status = Answer { lines: b\"volume: 2\\n\", blocks: [] } / next = Some(Player) / next = None / rest = closed",
    ),
    (
        "an enter that is refused",
        "S OK MPD 0.23.5 / C idle bogus / S ACK [2@0] {idle} Unrecognized idle event: bogus / C ping / S OK",
        "enter bogus = () / next = the server refused: Ack { code: 2, position: 0, command: b\"idle\", text: b\"Unrecognized idle event: bogus\", before: Answer { lines: b\"\", bloc... / call ping = Answer { lines: b\"\", blocks: [] } / rest = closed",
    ),
    (
        "a leave crosses a refusal",
        "S OK MPD 0.23.5 / C idle / C noidle / C ping / S ACK [4@0] {idle} no / S OK",
        "enter = () / leave = () / call ping = Answer { lines: b\"\", blocks: [] } / next = the server refused: Ack { code: 4, position: 0, command: b\"idle\", text: b\"no\", before: Answer { lines: b\"\", blocks: [] } } / rest = closed",
    ),
    (
        "what idle does not allow is not sent",
        "S OK MPD 0.23.5 / C idle / S changed: mixer / S OK",
        "enter = () / call status = not sent: not allowed while the mode asked for is Notification / next = Some(Mixer) / next = None / rest = closed",
    ),
    (
        "what cannot be said is not sent",
        "S OK MPD 0.23.5 / C ping / S OK",
        "call idle = not sent: not a valid value: idle is entered and left, not requested / call add a\nb = not sent: not a valid value: a CR, LF or NUL inside a line / call ping = Answer { lines: b\"\", blocks: [] } / rest = closed",
    ),
    (
        "a line that nobody asked for",
        "S OK MPD 0.23.5 / S OK",
        "rest = the server broke the protocol: a line that nobody asked for: \"OK\"",
    ),
    (
        "an answer that is none",
        "S OK MPD 0.23.5 / C ping / S pong",
        "call ping = lost: the server broke the protocol: an answer has lines KEY: VALUE, then OK or ACK: \"pong\" / rest = the server broke the protocol: an answer has lines KEY: VALUE, then OK or ACK: \"pong\"",
    ),
    (
        "an answer inside idle",
        "S OK MPD 0.23.5 / C idle / S volume: 1",
        "enter = () / next = the server broke the protocol: idle is answered by changed: lines, then OK or ACK: \"volume: 1\" / rest = the server broke the protocol: idle is answered by changed: lines, then OK or ACK: \"volume: 1\"",
    ),
    (
        "a block that does not end",
        "S OK MPD 0.23.5 / C albumart / S binary: 2 / S abc",
        "call albumart = lost: the server broke the protocol: a binary block ends in LF: \"abc\" / rest = the server broke the protocol: a binary block ends in LF: \"abc\"",
    ),
    (
        "a block too large",
        "S OK MPD 0.23.5 / C albumart / S binary: 99999999",
        "call albumart = lost: the server sent an answer of more than 8388608 octets / rest = the server sent an answer of more than 8388608 octets",
    ),
    (
        "the end in the middle of a group",
        "S OK MPD 0.23.5 / C idle / S changed: mixer",
        "enter = () / next = Some(Mixer) / next = the connection ended in the middle of an answer, after 15 octets of it / rest = the connection ended in the middle of an answer, after 15 octets of it",
    ),
    (
        "the end in idle",
        "S OK MPD 0.23.5 / C idle",
        "enter = () / next = the server closed the connection / rest = closed",
    ),
];

#[must_use]
pub fn scenarios() -> Vec<Scenario<Mpd>> {
    SCENARIOS.iter().map(|&(name, wire, calls)| Scenario::new(Mpd::new(), name, wire, calls)).collect()
}
