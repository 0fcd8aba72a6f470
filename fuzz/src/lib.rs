//! What the targets share. Their inputs are text as far as possible, so that a seed can be written and a finding read:
//! a few header lines, each ended by LF, then the octets of the wire.

pub mod session;

use session::Spoken;
use sonnette::Invalid;
use sonnette::imap::{self, Imap, Responder};
use sonnette::mpd::{self, Mpd, Subsystem};
use sonnette::redis::{self, Redis, Subscription};
use std::sync::LazyLock;

/// Answers each challenge by as many octets as there were challenges, but the fourth.
struct Steps;

impl Responder for Steps {
    fn mechanism(&self) -> &str {
        "STEPS"
    }

    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
        Ok(Some(b"i".to_vec()))
    }

    fn respond(&self, challenges: &[bytes::Bytes]) -> Option<Vec<u8>> {
        (challenges.len() < 4).then(|| vec![b'r'; challenges.len()])
    }
}

/// Responders are equal if they are the same one.
static LOGIN: LazyLock<imap::Command> = LazyLock::new(|| imap::Command::authenticate(Steps));

impl Spoken for Imap {
    fn request(kind: u8) -> imap::Command {
        match kind {
            0 => imap::Command::noop(),
            1 => imap::Command::login("a", "b c"),
            2 => imap::Command::append("x", "", "yz").literal("0"),
            3 => imap::Command::starttls(),
            4 => LOGIN.clone(),
            5 => imap::Command::new("IDLE"),
            _ => imap::Command::append("x", "", "yz").synchronising(),
        }
    }

    fn subscription(_: u8) {}
}

impl Spoken for Mpd {
    fn request(kind: u8) -> mpd::Request {
        let command = |name: &str| mpd::Command::new(name);
        match kind {
            0 => command("status").into(),
            1 => command("albumart").arg("a b").arg("0").into(),
            2 => mpd::Request::ListOk(vec![command("status"), command("ping")]),
            3 => mpd::Request::List(vec![command("ping")]),
            4 => mpd::Command::password("x").into(),
            5 => command("idle").into(),
            _ => command("close").into(),
        }
    }

    fn subscription(kind: u8) -> Vec<Subsystem> {
        [vec![], vec![Subsystem::Mixer], vec!["a b".into()], vec!["\n".into()]][usize::from(kind)].clone()
    }
}

impl Spoken for Redis {
    fn request(kind: u8) -> redis::Command {
        let command = |name: &str| redis::Command::new(name);
        match kind {
            0 => command("GET").arg("k"),
            1 => command("PING"),
            2 => command("SUBSCRIBE").arg("b").arg("a"),
            3 => command("UNSUBSCRIBE").arg("a"),
            4 => command("PUNSUBSCRIBE"),
            5 => command("RESET"),
            _ => command("GET").arg("k").anywhere(),
        }
    }

    fn subscription(kind: u8) -> Subscription {
        match kind {
            0 => Subscription::channels(["a"]),
            1 => Subscription::channels(["a", "b"]),
            2 => Subscription::patterns(["a*"]),
            _ => Subscription::Monitor,
        }
    }
}

/// Cuts the first header line off; without LF all of it is that line.
#[must_use]
pub fn header(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|&octet| octet == b'\n') {
        Some(lf) => (&data[..lf], &data[lf + 1..]),
        None => (data, &[]),
    }
}

/// How a stream of octets arrives.
#[derive(Clone, Copy, Debug)]
pub enum Chunking<'a> {
    Whole,
    Bytewise,
    /// Sizes in turn, over and over: the low four bits of each octet, so that a digit is itself. An empty chunk is a
    /// read of zero octets.
    Chosen(&'a [u8]),
}

impl<'a> Chunking<'a> {
    /// The `wire` in pieces, at least one.
    #[must_use]
    pub fn cut(self, mut wire: &'a [u8]) -> Vec<&'a [u8]> {
        let mut sizes = match self {
            _ if wire.is_empty() => return vec![wire],
            Chunking::Bytewise => b"1",
            Chunking::Chosen(sizes) if sizes.iter().any(|size| size & 15 != 0) => sizes,
            Chunking::Whole | Chunking::Chosen(_) => return vec![wire],
        }
        .iter()
        .map(|size| usize::from(size & 15))
        .cycle();
        let mut chunks = Vec::new();
        while !wire.is_empty() {
            let (chunk, rest) = wire.split_at(sizes.next().unwrap_or(wire.len()).min(wire.len()));
            chunks.push(chunk);
            wire = rest;
        }
        chunks
    }
}
