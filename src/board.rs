//! The notice board: the talk's line protocol, in both its dialects.
//!
//! Lines end in CR LF; a bare CR or LF is content.
//!
//! | the client sends | the server answers |
//! |---|---|
//! | `random?` | a decimal integer: `46774` |
//! | `classified?` | free text: `nice flat in the 11e` |
//! | `notif` | enters notification mode; *silent* dialect: nothing, *acknowledged*: `OK` |
//! | `stop_notif` | leaves it; *silent*: nothing, *acknowledged*: `OK` |
//!
//! In the mode the server pushes `notif: random` and `notif: classified` when there is something new to fetch. The
//! client leaves the mode, fetches it, and enters again; what changed meanwhile is pushed then.
//!
//! How a line is read: with a request at the front of the queue in normal mode as read, each line is its answer, even
//! `notif: random`. Everywhere else a line that begins with `notif:` is a notification, and any other line is the answer
//! of whoever waits for one, or a violation. In the silent dialect a text that begins with `notif:` can therefore be
//! taken for a notification; [`ServerState`] never sends one.

mod server;

pub use server::{ServerError, ServerState, check_text};

use crate::{
    Asked, Changes, Decoded, Encoder, EnterAnswer, Fault, Frame, Invalid, LeaveAnswer, Pending, Protocol, RequestId,
    Setting, Terminator,
};
use bytes::Bytes;
use core::str;

pub(crate) const END: &[u8] = b"\r\n";
const PUSH: &[u8] = b"notif:";
const RANDOM: &[u8] = b"notif: random\r\n";
const CLASSIFIED: &[u8] = b"notif: classified\r\n";
const OK: &[u8; 2] = b"OK";

/// A client of the notice board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Board {
    dialect: Dialect,
    /// The number, if the caller was given it and not told of another since.
    known: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Dialect {
    #[default]
    Silent,
    Acknowledged,
}

impl Board {
    /// The dialect of the talk: a change of mode has no answer. This is the default.
    #[must_use]
    pub const fn silent() -> Self {
        Board { dialect: Dialect::Silent, known: None }
    }

    /// The dialect of the program published later: a change of mode is answered by `OK`.
    #[must_use]
    pub const fn acknowledged() -> Self {
        Board { dialect: Dialect::Acknowledged, known: None }
    }
}

/// What can be asked, and what can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// `random?`: the current random number.
    Random,
    /// `classified?`: the current classified ad.
    Classified,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The number: an optional sign and decimal digits that fit.
    Random(i64),
    /// The text, any octets but CR LF.
    Classified(Bytes),
}

/// An answer of the wrong kind; the connection stays in step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// This line is not a number, or not the `OK` to `notif`.
    WrongKind(Bytes),
}

/// What the server pushes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notification {
    /// `notif: random`
    Random,
    /// `notif: classified`
    Classified,
    /// `notif:` with another name, without the spaces before it: a newer server has news of a new kind.
    Other(Bytes),
}

impl Protocol for Board {
    type Request = Request;
    type Subscription = ();
    type Reply = Reply;
    type Refusal = Refusal;
    type Notification = Notification;
    /// Which answer a request waits for; none is the caller's in a probe, and there is none to a change of mode.
    type Note = Option<Request>;

    const TERMINATOR: Terminator = Terminator::CrLf;

    fn changes(&self) -> Changes {
        match self.dialect {
            Dialect::Silent => Changes { enter: EnterAnswer::Silent, leave: LeaveAnswer::Silent },
            Dialect::Acknowledged => Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own },
        }
    }

    #[inline]
    fn encode_request(&self, _: RequestId, request: &Request, out: &mut Encoder<'_>) -> Result<Self::Note, Invalid> {
        match request {
            Request::Random => out.put(b"random?\r\n"),
            Request::Classified => out.put(b"classified?\r\n"),
        }
        Ok(Some(*request))
    }

    fn encode_enter(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<Self::Note, Invalid> {
        out.put(b"notif\r\n");
        Ok(None)
    }

    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Self::Note {
        out.put(b"stop_notif\r\n");
        None
    }

    fn encode_probe(&self, _: RequestId, setting: Setting, out: &mut Encoder<'_>) -> Option<Self::Note> {
        (setting == Setting::Normal).then(|| {
            out.put(b"random?\r\n");
            None
        })
    }

    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let awaiting = pending.awaiting();
        let is_answer = !pending.in_mode() && matches!(awaiting, Some(Asked::Request { .. }));
        if frame.starts_with(PUSH) && !is_answer {
            let notification = notification(frame);
            if notification == Notification::Random {
                self.known = None;
            }
            return Ok(Decoded::Notification(notification));
        }
        match awaiting {
            Some(Asked::Request { id, note: Some(Request::Classified) }) => {
                Ok(Decoded::reply(id, Reply::Classified(frame.to_bytes())))
            }
            Some(Asked::Request { id, note }) => Ok(match (integer(frame), note) {
                (Some(number), Some(_)) => {
                    self.known = Some(number);
                    Decoded::reply(id, Reply::Random(number))
                }
                // The server takes its news for fetched now, but the caller has not seen them.
                (Some(number), None) => {
                    let is_news = self.known.replace(number).is_some_and(|known| known != number);
                    Decoded::Probed { id, news: is_news.then_some(Notification::Random) }
                }
                (None, _) => Decoded::Refused { id, refusal: Refusal::WrongKind(frame.to_bytes()) },
            }),
            Some(Asked::Enter { .. }) if *frame == *OK => Ok(Decoded::Entered),
            Some(Asked::Enter { id, .. }) => Ok(Decoded::Refused { id, refusal: Refusal::WrongKind(frame.to_bytes()) }),
            Some(Asked::Leave { .. }) if *frame == *OK => Ok(Decoded::Left),
            Some(Asked::Leave { .. }) => Err(Fault::Violation("stop_notif is answered by OK")),
            Some(Asked::Greeting) | None => Err(Fault::Violation("a line that nobody asked for")),
        }
    }

    #[inline]
    fn known_line(&mut self, input: &[u8]) -> Option<(usize, Notification)> {
        if input.starts_with(RANDOM) {
            self.known = None;
            Some((RANDOM.len(), Notification::Random))
        } else if input.starts_with(CLASSIFIED) {
            Some((CLASSIFIED.len(), Notification::Classified))
        } else {
            None
        }
    }

    /// Numbers of at most 18 digits, which fit.
    #[inline]
    fn known_answer(&mut self, note: &Self::Note, input: &[u8]) -> Option<(usize, Reply)> {
        let Some(Request::Random) = note else { return None };
        let (mut number, mut digits) = (0, 0);
        for &octet in input.get(..18).unwrap_or(input) {
            if !octet.is_ascii_digit() {
                break;
            }
            number = number * 10 + i64::from(octet - b'0');
            digits += 1;
        }
        if digits == 0 || !input.get(digits..)?.starts_with(b"\r\n") {
            return None;
        }
        self.known = Some(number);
        Some((digits + 2, Reply::Random(number)))
    }
}

fn notification(frame: &mut Frame<'_>) -> Notification {
    let after = frame.get(PUSH.len()..).unwrap_or_default();
    let spaces = after.iter().take_while(|&&octet| octet == b' ').count();
    match after.get(spaces..) {
        Some(b"random") => Notification::Random,
        Some(b"classified") => Notification::Classified,
        _ => Notification::Other(frame.slice(PUSH.len() + spaces..)),
    }
}

/// An optional sign and digits that fit, `+5`, `-0` and leading zeros included: what `i64::from_str` takes.
fn integer(line: &[u8]) -> Option<i64> {
    str::from_utf8(line).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn integers() {
        for (line, number) in [
            ("0", 0),
            ("+5", 5),
            ("-0", 0),
            ("007", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("00000000000000000000000000000000000001", 1),
        ] {
            assert_eq!(integer(line.as_bytes()), Some(number), "{line}");
        }
        for line in ["", "+", "-", " 5", "5 ", "5\r", "++5", "1e3", "9223372036854775808", "0x10", "٣", "5\0"] {
            assert_eq!(integer(line.as_bytes()), None, "{line}");
        }
        assert_eq!(integer(b"\xff"), None);
    }
}
