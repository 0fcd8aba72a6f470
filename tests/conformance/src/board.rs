//! The scenarios of the notice board: what its specification says and decides, each way through the table of modes, and
//! input that is not as it should be.

use crate::{Scenario, Spoken};
use sonnette::board::{Board, Request};

impl Spoken for Board {
    fn wire(line: &str) -> Vec<u8> {
        format!("{line}\r\n").into()
    }

    fn request(text: &str) -> Request {
        match text {
            "random?" => Request::Random,
            "classified?" => Request::Classified,
            other => panic!("what is {other:?}?"),
        }
    }

    fn subscription(_: &str) {}
}

const SILENT: &[(&str, &str, &str)] = &[
    ("nothing", "", "rest = closed"),
    (
        "questions",
        "C random? / S 46774 / C classified? / S nice flat in the 11e",
        "call random? = Random(46774) / call classified? = Classified(b\"nice flat in the 11e\") / rest = closed",
    ),
    (
        "questions in one write",
        "C random? / C classified? / C random? / S 1 / S nice flat / S -9223372036854775808",
        "start random? = asked / start classified? = asked / start random? = asked / rest = Random(1), Classified(b\"nice flat\"), Random(-9223372036854775808), closed",
    ),
    (
        "the talk",
        "C random? / S 46774 / C notif / S notif: random / C stop_notif / C random? / C notif / S 90210 / \
         S notif: classified / C stop_notif / C classified? / C notif / S two rooms near the canal",
        "call random? = Random(46774) / enter = () / next = Some(Random) / ring random? = Random(90210) / next = Some(Classified) / ring classified? = Classified(b\"two rooms near the canal\") / rest = closed",
    ),
    (
        "pushes cross a ring",
        "C notif / S notif: random / C stop_notif / C random? / C notif / S notif: classified / S notif: random / S 7 / \
         S notif: other",
        "enter = () / next = Some(Random) / ring random? = Random(7) / next = Some(Classified) / next = Some(Random) / next = Some(Other(b\"other\")) / rest = closed",
    ),
    (
        "pushes cross a leave, which the next answer proves",
        "C notif / C stop_notif / S notif: random / C random? / S notif: classified / S 7 / C random? / S notif: random",
        "enter = () / leave = () / call random? = Random(7) / next = Some(Random) / next = Some(Classified) / next = None / call random? = the server refused: WrongKind(b\"notif: random\") / rest = closed",
    ),
    (
        "unknown notifications, with any number of spaces",
        "C notif / S notif: / S notif:random / S notif:    random / S notif: rent / S notif: random ",
        "enter = () / next = Some(Other(b\"\")) / next = Some(Random) / next = Some(Random) / next = Some(Other(b\"rent\")) / next = Some(Other(b\"random \")) / rest = closed",
    ),
    (
        "integers",
        "C random? / C random? / C random? / C random? / S +5 / S -0 / S 007 / S 9223372036854775807",
        "start random? = asked / start random? = asked / start random? = asked / start random? = asked / rest = Random(5), Random(0), Random(7), Random(9223372036854775807), closed",
    ),
    (
        "what is no integer is refused and the connection stays in step",
        "C random? / C random? / C random? / C random? / S 4x / S  / S 9223372036854775808 / S 4",
        "start random? = asked / start random? = asked / start random? = asked / call random? = Random(4) / event = refused WrongKind(b\"4x\") / rest = refused WrongKind(b\"\"), refused WrongKind(b\"9223372036854775808\"), closed",
    ),
    (
        "a refusal",
        "C random? / S many / C random? / S 2",
        "call random? = the server refused: WrongKind(b\"many\") / call random? = Random(2) / rest = closed",
    ),
    (
        "an answer that looks like a push",
        "C classified? / S notif: random",
        "call classified? = Classified(b\"notif: random\") / rest = closed",
    ),
    (
        "CR and LF alone are content",
        "C classified? / S a\rb\nc\r\r",
        "call classified? = Classified(b\"a\\rb\\nc\\r\\r\") / rest = closed",
    ),
    ("an empty answer", "C classified? / S ", "call classified? = Classified(b\"\") / rest = closed"),
    (
        "what the mode does not allow is not sent",
        "C notif / S notif: random",
        "ring random? = not sent: not allowed while the mode asked for is Normal / enter = () / call random? = not sent: not allowed while the mode asked for is Notification / start random? = not allowed while the mode asked for is Notification / enter = not sent: not allowed while the mode asked for is Notification / next = Some(Random) / rest = closed",
    ),
    ("a leave without a mode", "C random? / S 1", "leave = () / call random? = Random(1) / rest = closed"),
    (
        "a line that nobody asked for",
        "C random? / S 1 / S hello / S 2",
        "call random? = Random(1) / rest = the server broke the protocol: a line that nobody asked for: \"hello\"",
    ),
    ("a push without a mode", "S notif: random", "event = Random / rest = closed"),
    (
        "one answer too many",
        "C random? / S 1 / S 2",
        "start random? = asked / rest = Random(1), the server broke the protocol: a line that nobody asked for: \"2\"",
    ),
    (
        "an answer in the mode",
        "C notif / S notif: random / S 46774",
        "enter = () / next = Some(Random) / rest = the server broke the protocol: a line that nobody asked for: \"46774\"",
    ),
    (
        "the end of the stream before an answer",
        "C random? / C classified? / S 1",
        "start random? = asked / start classified? = asked / rest = Random(1), lost, closed",
    ),
    (
        "the end of the stream in the middle of an answer",
        "C random? / S 1 / C random? / s 467",
        "call random? = Random(1) / call random? = lost: the connection ended in the middle of an answer, after 3 octets of it / rest = the connection ended in the middle of an answer, after 3 octets of it",
    ),
    (
        "the end of the stream in the middle of a terminator",
        "C notif / S notif: random / s notif: random\r",
        "enter = () / next = Some(Random) / rest = the connection ended in the middle of an answer, after 14 octets of it",
    ),
    (
        "the end of the mode by the end of the stream",
        "C notif / S notif: random",
        "enter = () / next = Some(Random) / next = the server closed the connection / call random? = the server closed the connection / leave = the server closed the connection / enter = the server closed the connection",
    ),
];

const ACKNOWLEDGED: &[(&str, &str, &str)] = &[
    (
        "the talk, acknowledged",
        "C random? / S 46774 / C notif / S OK / S notif: random / C stop_notif / C random? / C notif / S OK / S 90210 / \
         S OK / S notif: classified / C stop_notif / C classified? / C notif / S OK / S two rooms / S OK",
        "call random? = Random(46774) / enter = () / next = Some(Random) / ring random? = Random(90210) / next = Some(Classified) / ring classified? = Classified(b\"two rooms\") / rest = closed",
    ),
    (
        "pushes cross a ring, acknowledged",
        "C notif / S OK / S notif: random / C stop_notif / C random? / C notif / S notif: classified / S OK / S 7 / S OK / \
         S notif: other",
        "enter = () / next = Some(Random) / ring random? = Random(7) / next = Some(Classified) / next = Some(Other(b\"other\")) / rest = closed",
    ),
    (
        "in and out",
        "C notif / S OK / C stop_notif / S OK / C notif / S OK / C stop_notif / S notif: random / S OK / C random? / S 3",
        "enter = () / leave = () / next = None / enter = () / leave = () / next = Some(Random) / next = None / call random? = Random(3) / rest = closed",
    ),
    (
        "an enter that is refused",
        "C random? / S 1 / C notif / S not now / C random? / S 2",
        "call random? = Random(1) / enter = the server refused: WrongKind(b\"not now\") / call random? = Random(2) / next = the server closed the connection / rest = closed",
    ),
    (
        "a ring whose enter is refused",
        "C notif / S OK / S notif: random / C stop_notif / C random? / C notif / S OK / S 5 / S not now",
        "enter = () / next = Some(Random) / ring random? = Random(5) / next = the server refused: WrongKind(b\"not now\") / rest = closed",
    ),
    (
        "a push before the mode is confirmed",
        "C notif / S notif: random / S OK / S notif: classified",
        "enter = () / next = Some(Random) / next = Some(Classified) / rest = closed",
    ),
    (
        "answers before the mode is confirmed",
        "C random? / C classified? / C notif / S 1 / S flat / S OK",
        "start random? = asked / start classified? = asked / enter = () / event = Random(1) / event = Classified(b\"flat\") / rest = closed",
    ),
    (
        "an OK that nobody asked for",
        "C random? / S 1 / S OK",
        "call random? = Random(1) / rest = the server broke the protocol: a line that nobody asked for: \"OK\"",
    ),
    (
        "an OK too many in the mode",
        "C notif / S OK / S OK",
        "enter = () / next = the server broke the protocol: a line that nobody asked for: \"OK\" / rest = the server broke the protocol: a line that nobody asked for: \"OK\"",
    ),
    (
        "a leave that is refused",
        "C notif / S OK / C stop_notif / S no",
        "enter = () / leave = () / rest = the server broke the protocol: stop_notif is answered by OK: \"no\"",
    ),
    (
        "the end of the stream before the mode is confirmed",
        "C notif",
        "enter = lost: the server closed the connection / rest = closed",
    ),
    (
        "the end of the stream before the mode is left",
        "C notif / S OK / C stop_notif",
        "enter = () / leave = () / rest = closed",
    ),
];

#[must_use]
pub fn scenarios() -> Vec<Scenario<Board>> {
    let silent = SILENT.iter().map(|&(name, wire, calls)| Scenario::new(Board::silent(), name, wire, calls));
    let acknowledged =
        ACKNOWLEDGED.iter().map(|&(name, wire, calls)| Scenario::new(Board::acknowledged(), name, wire, calls));
    silent.chain(acknowledged).collect()
}
