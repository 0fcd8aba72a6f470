//! Recorded conversations with real servers (`tests/transcripts/`), through the machine: the client's octets come out of our
//! encoders, and the counts that another reader made of the server's come out of the events.
//!
//! Each is played whole, at random splits and octet by octet. In the last case the connection is also cut after every octet.
//! Then each frame of the server that means something is left out in turn, which must not go unnoticed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use bytes::Bytes;
use proptest::prelude::RngCore;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value as Json;
use sonnette::imap::{self, Condition, Imap, Notification, Responder};
use sonnette::mpd::{self, Mpd, Subsystem};
use sonnette::redis::{self, Redis, Subscription, Value};
use sonnette::{ClientState, Error, Event, Invalid, Mode, Protocol, Reason, RequestId};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Debug, Display};
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::str;

/// What of the recorded writes is not reproduced: in which file, what, what is written instead, and why.
///
/// Where only the beginning of it is written, all of it is asked: it goes no further. Where nothing is written, the machine
/// must refuse. What is written instead of itself is written later, before the next write of the recording.
const NOT_REPRODUCED: &[(&str, &str, &str, &str)] = &[
    (
        "imap/append_literals",
        "A005 APPEND NoSuchBox {163}\r\nFrom: sender50@example.org\r\nTo: alice@example.org\r\nSubject: appended\r\n\
         Date: Mon, 02 Jan 2023 10:00:00 +0000\r\nMessage-ID: <m50@example.org>\r\n\r\nA001 OK not a reply\r\n\r\n",
        "A005 APPEND NoSuchBox {163}\r\n",
        "malformed: a literal that was refused, which the server takes for commands",
    ),
    (
        "imap/command_during_idle",
        "A099 NOOP\r\n",
        "",
        "malformed: in IDLE only DONE may be sent; refused before it is sent",
    ),
    (
        "imap/command_during_idle",
        "DONE\r\n",
        "",
        "malformed: not in IDLE, where the server takes it for a command and we write nothing",
    ),
    (
        "imap/idle_done_one_write",
        "DONE\r\n",
        "DONE\r\n",
        "malformed: in one write with IDLE; ours waits for the server's +",
    ),
    ("mpd/errors", "add \"unterminated\n", "add unterminated\n", "malformed: a quote that is not closed"),
    (
        "mpd/idle_in_command_list",
        "command_list_begin\nidle\ncommand_list_end\n",
        "idle\n",
        "malformed: idle in a list is disallowed since MPD 0.23.17, and refused before it is sent",
    ),
    (
        "mpd/idle_without_permission",
        "noidle\n",
        "",
        "malformed: not in idle, where MPD ignores it and we write nothing",
    ),
    ("mpd/idle_without_permission", "noidle\n", "", "malformed: likewise"),
    (
        "mpd/not_allowed_in_idle",
        "status\n",
        "",
        "malformed: in idle only noidle may be sent; refused before it is sent",
    ),
    (
        "mpd/pipelined_and_stray_noidle",
        "noidle\n",
        "",
        "malformed: not in idle, where MPD ignores it and we write nothing",
    ),
    ("mpd/pipelined_and_stray_noidle", "noidle\n", "", "malformed: likewise"),
    ("redis/basic", "PING\r\n", "*1\r\n$4\r\nPING\r\n", "an inline command"),
    (
        "redis/errors",
        "*1\r\n$9\r\nSUBSCRIBE\r\n",
        "*1\r\n$3\r\nGET\r\n",
        "malformed: SUBSCRIBE without names, refused before it is sent",
    ),
    (
        "redis/protocol_error_closes",
        "*2\r\n$3\r\nGET\r\n:5\r\n",
        "*2\r\n$3\r\nGET\r\n$1\r\n5\r\n",
        "malformed: an argument that is no bulk string",
    ),
];

/// A protocol whose recordings can be replayed.
trait Recorded:
    Protocol<
        Request: Clone + Debug,
        Reply: Clone + Debug + Eq,
        Refusal: Clone + Debug + Eq,
        Notification: Clone + Debug + Eq,
    > + Clone
    + Eq
    + Default
    + Debug
{
    const NAME: &str;

    /// The first command of what the client wrote from here on, and its octets.
    fn command(written: &[u8]) -> (Op<Self>, usize);
    /// The length of the first frame of the server.
    fn frame(octets: &[u8]) -> usize;
    /// The tag with which a command or its answer begins. Ours are others than the recorded ones.
    fn tag(_: &[u8]) -> &[u8] {
        b""
    }
    /// What events tell of a frame of the server. One that means nothing by design may be left out.
    fn meaning(frame: &[u8]) -> Option<Vec<u8>> {
        Some(frame.into())
    }
    /// Whether a frame, of which these events tell, ends something, so that the stream may end behind it.
    fn completes(events: &[Event<Self>]) -> bool;
    /// Whether a change of mode is answered by a frame.
    const CHANGES_ARE_ANSWERED: bool;
    /// What the events come to, in the words of `expected.json`.
    fn count(run: &Run<'_, Self>) -> Json;
    /// All that the server said and that means something, made from the events, where the counts do not count each frame.
    fn said(run: &Run<'_, Self>) -> Option<Vec<u8>>;
}

#[derive(Clone, Debug)]
enum Op<P: Recorded> {
    Ask(P::Request),
    /// In notification mode it is a request, else it enters the mode.
    Enter(P::Subscription, Option<P::Request>),
    Leave,
}

/// What the client asked, and the octets it was recorded as.
struct Asked<P: Recorded> {
    label: String,
    op: Op<P>,
    is_refused: bool,
}

enum Record<P: Recorded> {
    /// What is asked, and what is written up to here.
    Client(Vec<Asked<P>>, Vec<u8>),
    Server(Vec<u8>),
    Eof,
}

struct Recording<P: Recorded> {
    name: String,
    /// With our tags.
    records: Vec<Record<P>>,
    expected: Json,
    /// What the client wrote and ours does not.
    unsent: Vec<&'static str>,
    /// The meaning of all that the server says.
    said: Vec<u8>,
    /// The frames of which no event tells: they mean nothing, or answer what is not sent. With how many come before.
    untold: Vec<(usize, Vec<u8>)>,
    /// Where the server's frames end.
    ends: Vec<u64>,
}

fn recordings<P: Recorded>() -> Vec<Recording<P>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let expected: Json = serde_json::from_slice(&fs::read(directory.join("expected.json")).unwrap()).unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory.join(P::NAME)).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let recording = |file: &PathBuf| {
        let name = format!("{}/{}", P::NAME, file.file_stem().unwrap().to_str().unwrap());
        let records = fs::read_to_string(file).unwrap().lines().map(record).collect();
        let expected = expected[format!("{name}.jsonl")].clone();
        assert!(expected.is_object(), "{name}");
        Recording::new(name, records, expected)
    };
    files.iter().map(recording).collect()
}

fn record<P: Recorded>(line: &str) -> Record<P> {
    let line: Json = serde_json::from_str(line).unwrap();
    let octets = line["hex"].as_str().unwrap().as_bytes().chunks(2);
    let octets = octets.map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap()).collect();
    match line["dir"].as_str().unwrap() {
        _ if line["eof"] == true => Record::Eof,
        "c2s" => Record::Client(Vec::new(), octets),
        "s2c" => Record::Server(octets),
        other => panic!("what is {other:?}?"),
    }
}

/// At which octet how many are replaced, and by what.
type Edits = HashMap<usize, (usize, Vec<u8>)>;

/// Edits octets that are cut into pieces. What replaces some is in the piece in which they begin.
fn edit(pieces: Vec<&mut Vec<u8>>, edits: &Edits) {
    let (mut at, mut replaced) = (0, 0);
    for piece in pieces {
        for octet in mem::take(piece) {
            if let Some((octets, instead)) = edits.get(&at) {
                replaced = *octets;
                piece.extend_from_slice(instead);
            }
            match replaced {
                0 => piece.push(octet),
                _ => replaced -= 1,
            }
            at += 1;
        }
    }
}

impl<P: Recorded> Recording<P> {
    fn new(name: String, records: Vec<Record<P>>, expected: Json) -> Self {
        let (unsent, said, untold, ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut recording = Recording { name, records, expected, unsent, said, untold, ends };
        let tags = recording.read_client();
        recording.read_server(tags);
        recording
    }

    fn written(&mut self) -> Vec<&mut Vec<u8>> {
        let records = self.records.iter_mut();
        records.filter_map(|record| if let Record::Client(_, octets) = record { Some(octets) } else { None }).collect()
    }

    fn heard(&mut self) -> Vec<&mut Vec<u8>> {
        let records = self.records.iter_mut();
        records.filter_map(|record| if let Record::Server(octets) = record { Some(octets) } else { None }).collect()
    }

    /// What is asked, and what is to be written of it; our tag for each of the recorded ones.
    fn read_client(&mut self) -> HashMap<Vec<u8>, Vec<u8>> {
        let name = self.name.clone();
        let mut left_out = NOT_REPRODUCED.iter().filter(|(recording, ..)| *recording == name).peekable();
        let written = self.written().into_iter().flat_map(|octets| octets.iter().copied()).collect::<Vec<u8>>();
        let (mut asked, mut edits, mut tags) = (BTreeMap::new(), Edits::new(), HashMap::new());
        let (mut at, mut late) = (0, Vec::new());
        // The greeting is the first.
        let mut id = 1 + u64::from(P::GREETING);
        while at < written.len() {
            let rest = &written[at..];
            let left = left_out.next_if(|(_, what, ..)| rest.starts_with(what.as_bytes()));
            let (what, instead) = match left {
                Some((_, what, instead, _)) => (what.as_bytes(), instead.as_bytes()),
                None => (&rest[..P::command(rest).1], &b""[..]),
            };
            let (op, _) = P::command(if what.starts_with(instead) { what } else { instead });
            let is_refused = left.is_some() && instead.is_empty();
            let label = String::from_utf8_lossy(what).into_owned();
            asked.insert(at, Asked { label, op, is_refused });

            let mut octets = mem::take(&mut late);
            let tag = if is_refused { b"" } else { P::tag(what) };
            if !tag.is_empty() {
                let ours = format!("A{id}").into_bytes();
                octets.extend_from_slice(&ours);
                assert!(tags.insert(tag.to_vec(), ours).is_none(), "{name}: two tags {}", tag.escape_ascii());
            }
            if left.is_some() && what == instead {
                late = what.to_vec();
            } else {
                octets.extend_from_slice(instead.get(tag.len()..).unwrap_or_default());
            }
            edits.insert(at, (if left.is_some() { what.len() } else { tag.len() }, octets));
            let unsent = left.and_then(|(_, what, instead, _)| what.strip_prefix(instead));
            self.unsent.extend(unsent.filter(|octets| !octets.is_empty()));
            id += u64::from(!is_refused);
            at += what.len();
        }
        assert_eq!(left_out.next(), None, "was in the recording");

        let mut end = 0;
        for record in &mut self.records {
            let Record::Client(here, octets) = record else { continue };
            end += octets.len();
            let later = asked.split_off(&end);
            *here = mem::replace(&mut asked, later).into_values().collect();
        }
        edit(self.written(), &edits);
        tags
    }

    /// What the server says to it, and what events are to tell of that.
    fn read_server(&mut self, mut tags: HashMap<Vec<u8>, Vec<u8>>) {
        let said = self.heard().into_iter().flat_map(|octets| octets.iter().copied()).collect::<Vec<u8>>();
        let (mut edits, mut at, mut end) = (Edits::new(), 0, 0);
        for before in 0.. {
            let Some(rest) = said.get(at..).filter(|rest| !rest.is_empty()) else { break };
            let frame = &rest[..P::frame(rest)];
            let tag = P::tag(frame);
            let (octets, instead) = match tags.remove(tag) {
                Some(ours) => (tag.len(), ours),
                None if tag.is_empty() => (0, Vec::new()),
                // It was not sent.
                None => (frame.len(), Vec::new()),
            };
            end += frame.len() - octets + instead.len();
            self.ends.push(end as u64);
            match P::meaning(frame).filter(|_| octets < frame.len()) {
                Some(meaning) => self.said.extend_from_slice(&meaning),
                None => self.untold.push((before, frame.to_vec())),
            }
            edits.insert(at, (octets, instead));
            at += frame.len();
        }
        edit(self.heard(), &edits);
    }
}

/// How the server's octets come in.
#[derive(Clone, Copy)]
enum Feed<'a> {
    Whole,
    Octets,
    Random(&'a [u64]),
}

/// One connection, and what came of it.
struct Run<'a, P: Recorded> {
    recording: &'a Recording<P>,
    state: ClientState<P>,
    asked: HashMap<RequestId, &'a Asked<P>>,
    events: Vec<Event<P>>,
    wrote: Vec<u8>,
    /// What had waited for the server, and how many events had come before it was written.
    continued: Vec<(usize, Vec<u8>)>,
    /// The server's octets that have come in, and those before the last end of something.
    octets: u64,
    completed: u64,
    eof: bool,
    error: Option<Error>,
}

fn run<'a, P: Recorded>(recording: &'a Recording<P>, feed: Feed<'_>) -> Result<Run<'a, P>, String> {
    let mut run = Run {
        recording,
        state: ClientState::new(P::default()),
        asked: HashMap::new(),
        events: Vec::new(),
        wrote: Vec::new(),
        continued: Vec::new(),
        octets: 0,
        completed: 0,
        eof: false,
        error: None,
    };
    let mut expected = Vec::new();
    let mut random = 0;
    for record in &recording.records {
        match record {
            Record::Client(asked, octets) => {
                for asked in asked {
                    match run.ask(asked) {
                        Ok(()) if asked.is_refused => return Err(format!("{:?} was taken", asked.label)),
                        Err(reason) if !asked.is_refused => return Err(format!("{:?}: {reason}", asked.label)),
                        _ => {}
                    }
                }
                run.write();
                expected.extend_from_slice(octets);
                if run.wrote != expected {
                    return Err(format!("wrote {}, not {}", run.wrote.escape_ascii(), expected.escape_ascii()));
                }
            }
            Record::Server(octets) => {
                let mut rest = &octets[..];
                while !rest.is_empty() {
                    let piece = match feed {
                        Feed::Whole => rest.len(),
                        Feed::Octets => 1,
                        Feed::Random(sizes) => {
                            random += 1;
                            usize::try_from(sizes[random % sizes.len()] % 97).unwrap() + 1
                        }
                    };
                    let (now, later) = rest.split_at(piece.min(rest.len()));
                    let told = run.events.len();
                    run.receive(now);
                    if matches!(feed, Feed::Octets) {
                        run.cut(told)?;
                    }
                    rest = later;
                }
            }
            Record::Eof => {
                run.eof = true;
                run.state.receive_eof();
                run.poll();
            }
        }
    }
    // Nothing behind the last write.
    if run.wrote != expected {
        return Err(format!("wrote {} at last, not {}", run.wrote.escape_ascii(), expected.escape_ascii()));
    }
    // What the machine holds back would be left over.
    run.state.receive_eof();
    run.poll();
    Ok(run)
}

impl<'a, P: Recorded> Run<'a, P> {
    fn ask(&mut self, asked: &'a Asked<P>) -> Result<(), String> {
        let fail = |reason: Reason| reason.to_string();
        let id = match asked.op.clone() {
            Op::Ask(request) => self.state.request(request).map_err(|rejected| fail(rejected.reason))?,
            Op::Enter(_, Some(request)) if self.state.asked_mode() == Mode::Notification => {
                self.state.request(request).map_err(|rejected| fail(rejected.reason))?
            }
            Op::Enter(subscription, _) => self.state.enter(subscription).map_err(|rejected| fail(rejected.reason))?,
            Op::Leave if self.state.leave() => return Ok(()),
            Op::Leave => return Err("nothing to leave".into()),
        };
        self.asked.insert(id, asked);
        self.poll();
        Ok(())
    }

    fn write(&mut self) {
        self.wrote.extend_from_slice(self.state.output());
        self.state.advance_output(self.state.output().len());
    }

    fn receive(&mut self, octets: &[u8]) {
        self.state.receive(octets);
        self.octets += octets.len() as u64;
        self.poll();
        if !self.state.output().is_empty() {
            self.continued.push((self.events.len(), self.state.output().to_vec()));
            self.write();
        }
    }

    fn poll(&mut self) {
        loop {
            match self.state.poll_event() {
                Ok(Some(event)) => self.events.push(event),
                Ok(None) => return,
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    /// The stream ends here, after the octet of which all events but so many tell: what is outstanding is lost, and it is
    /// told whether something was cut through.
    fn cut(&mut self, told: usize) -> Result<(), String> {
        let is_greeting = P::GREETING && self.completed == 0;
        if self.recording.ends.contains(&self.octets) && (is_greeting || P::completes(&self.events[told..])) {
            self.completed = self.octets;
        }
        let mut state = self.state.clone();
        state.receive_eof();
        let mut lost = Vec::new();
        let end = loop {
            match state.poll_event() {
                Ok(Some(Event::Lost { id, sent: true })) => lost.push(id),
                // Confirmed by nothing that could still come.
                Ok(Some(Event::Entered { id })) if !P::CHANGES_ARE_ANSWERED => lost.push(id),
                end => break end.map(|event| format!("{event:?}")),
            }
        };
        let over = |event: &Event<P>| match event {
            Event::Reply { id, .. } | Event::Refused { id, .. } | Event::Entered { id } => Some(*id),
            _ => None,
        };
        let over: Vec<RequestId> = self.events.iter().filter_map(over).collect();
        let mut outstanding: Vec<RequestId> = self.asked.keys().copied().filter(|id| !over.contains(id)).collect();
        outstanding.sort_unstable();
        let expected = match self.octets - self.completed {
            0 => Ok("Some(Closed)".into()),
            octets => Err(Error::UnexpectedEof { octets }),
        };
        if self.error.is_none() && (&lost, &end) != (&outstanding, &expected) {
            return Err(format!(
                "cut after {} octets: {lost:?} {end:?}, not {outstanding:?} {expected:?}",
                self.octets
            ));
        }
        Ok(())
    }

    fn label(&self, id: RequestId) -> &str {
        &self.asked[&id].label
    }
}

/// What a run came to, or how it failed.
fn outcome<P: Recorded>(recording: &Recording<P>, feed: Feed<'_>) -> Result<(), String> {
    let run = run(recording, feed)?;
    if let Some(error) = &run.error {
        return Err(error.to_string());
    }
    let counted = P::count(&run);
    for (what, expected) in recording.expected.as_object().unwrap() {
        if counted[what] != *expected {
            return Err(format!("{what}: {}, not {expected}", counted[what]));
        }
    }
    match P::said(&run) {
        Some(said) if said != recording.said => Err("not all that the server said was told".into()),
        _ => Ok(()),
    }
}

fn replay<P: Recorded>() {
    let sizes: Vec<u64> = {
        let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        (0..10_007).map(|_| random.next_u64()).collect()
    };
    for recording in recordings::<P>() {
        for feed in [Feed::Whole, Feed::Octets, Feed::Random(&sizes), Feed::Random(&sizes[1..])] {
            outcome(&recording, feed).unwrap_or_else(|wrong| panic!("{}: {wrong}", recording.name));
        }
    }
}

fn leave_out<P: Recorded>() {
    for mut recording in recordings::<P>() {
        for at in 0..recording.records.len() {
            let Record::Server(octets) = &recording.records[at] else { continue };
            // A frame may go on in the next record: then the part that is here is left out.
            let (octets, mut begin) = (octets.clone(), 0);
            while begin < octets.len() {
                let frame = P::frame(&octets[begin..]).min(octets.len() - begin);
                let left_out = &octets[begin..begin + frame];
                recording.records[at] = Record::Server([&octets[..begin], &octets[begin + frame..]].concat());
                assert!(
                    outcome(&recording, Feed::Whole).is_err() || P::meaning(left_out).is_none(),
                    "{}: {} was left out of {}, and not missed",
                    recording.name,
                    left_out.escape_ascii(),
                    octets.escape_ascii()
                );
                begin += frame;
            }
            recording.records[at] = Record::Server(octets);
        }
    }
}

#[test]
fn imap() {
    replay::<Imap>();
}

#[test]
fn imap_without_one_frame() {
    leave_out::<Imap>();
}

#[test]
fn mpd() {
    replay::<Mpd>();
}

#[test]
fn mpd_without_one_frame() {
    leave_out::<Mpd>();
}

#[test]
fn redis() {
    replay::<Redis>();
}

#[test]
fn redis_without_one_frame() {
    leave_out::<Redis>();
}

fn line(octets: &[u8]) -> &[u8] {
    let end = octets.iter().position(|&octet| octet == b'\n').map_or(octets.len(), |lf| lf + 1);
    &octets[..end]
}

impl Recorded for Imap {
    const NAME: &str = "imap";
    const CHANGES_ARE_ANSWERED: bool = true;

    /// With what the client wrote of it after the server's `+`.
    fn command(written: &[u8]) -> (Op<Self>, usize) {
        let first = str::from_utf8(line(written)).unwrap();
        let octets = first.len();
        let Some((_, text)) = first.trim_end().split_once(' ') else {
            assert_eq!(first, "DONE\r\n");
            return (Op::Leave, octets);
        };
        let (name, arguments) = text.split_once(' ').unwrap_or((text, ""));
        match name {
            "IDLE" => return (Op::Enter((), None), octets),
            "AUTHENTICATE" => {
                let response = str::from_utf8(line(&written[octets..])).unwrap();
                let plain = match response.trim_end() {
                    "*" => None,
                    "AGJvYgBzZWNyZXQ=" => Some("\0bob\0secret"),
                    "AGJvYgB3cm9uZw==" => Some("\0bob\0wrong"),
                    other => panic!("what is {other:?}?"),
                };
                return (Op::Ask(imap::Command::authenticate(Challenged(plain))), octets + response.len());
            }
            _ => {}
        }
        let command = arguments.split_terminator(' ').fold(imap::Command::new(name), |command, word| {
            match word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
                Some(quoted) => command.arg(quoted),
                None if word.bytes().all(|octet| octet.is_ascii_alphanumeric()) => command.arg(word),
                None if word.starts_with('{') => command,
                None => command.syntax(word),
            }
        });
        let Some((length, waits)) = announced(first) else { return (Op::Ask(command), octets) };
        let (literal, rest) = written[octets..].split_at(length);
        assert!(rest.starts_with(b"\r\n"));
        let command = command.literal(literal);
        (Op::Ask(if waits { command.synchronising() } else { command }), octets + length + 2)
    }

    fn frame(octets: &[u8]) -> usize {
        let first = line(octets);
        match str::from_utf8(first).ok().and_then(announced) {
            // The line goes on behind them.
            Some((length, _)) => {
                let rest = octets.get(first.len() + length..).unwrap_or_default();
                first.len() + length + if rest.is_empty() { 0 } else { Self::frame(rest) }
            }
            None => first.len(),
        }
    }

    fn tag(frame: &[u8]) -> &[u8] {
        match frame.split(|octet| b" \r".contains(octet)).next().unwrap() {
            b"*" | b"+" | b"DONE" => b"",
            tag => tag,
        }
    }

    /// Of what the server says with `+`, and at the end of an IDLE, no event tells.
    fn meaning(frame: &[u8]) -> Option<Vec<u8>> {
        let (tag, text) = frame.split_at(frame.iter().position(|&octet| octet == b' ').unwrap_or(frame.len()));
        match tag {
            _ if frame == b"* OK Still here\r\n" => None,
            b"DONE" if text.starts_with(b" BAD ") => None,
            b"+" => Some(b"+\r\n".into()),
            _ if text.starts_with(b" OK Idle completed ") => Some([tag, b" OK\r\n"].concat()),
            _ => Some(frame.into()),
        }
    }

    fn completes(_: &[Event<Self>]) -> bool {
        true
    }

    fn count(run: &Run<'_, Self>) -> Json {
        let mut frames = imap_frames(run);
        for (before, frame) in &run.recording.untold {
            frames.insert(frames.len().min(*before), frame.clone());
        }
        let (mut untagged, mut continuations, mut bye, mut order) = (0, 0, 0, Vec::new());
        let mut tagged = BTreeMap::from([("OK", 0), ("NO", 0), ("BAD", 0)]);
        for frame in &frames {
            let mut words = str::from_utf8(line(frame)).unwrap().split_whitespace();
            match (words.next().unwrap(), words.next()) {
                ("*", word) => (untagged, bye) = (untagged + 1, bye + u32::from(word == Some("BYE"))),
                ("+", _) => continuations += 1,
                (tag, word) => {
                    order.push(tag);
                    *tagged.get_mut(word.unwrap()).unwrap() += 1;
                }
            }
        }

        // What is left out has commands, too.
        let unsent = run.recording.unsent.iter().flat_map(|octets| octets.lines().map(first_word));
        let unsent: Vec<&str> = unsent.filter(|word| word.trim_start_matches('A').parse::<u32>().is_ok()).collect();
        let mut sent: Vec<(RequestId, &str)> =
            run.asked.iter().map(|(id, asked)| (*id, first_word(&asked.label))).collect();
        sent.sort_unstable();
        let sent: Vec<&str> = sent.into_iter().map(|(_, tag)| tag).chain(unsent.iter().copied()).collect();

        let (mut unanswered, mut idle) = (Vec::new(), None);
        for event in &run.events {
            match event {
                Event::Entered { id } => idle = Some(*id),
                Event::Left { .. } => idle = None,
                Event::Lost { id, .. } => unanswered.push(first_word(run.label(*id))),
                _ => {}
            }
        }
        unanswered.extend(idle.map(|id| first_word(run.label(id))));
        unanswered.extend(unsent.iter().filter(|tag| !order.contains(tag)));

        let (known, unknown): (Vec<&str>, Vec<&str>) = order.iter().partition(|tag| sent.contains(tag));
        let as_sent = sent.iter().filter(|tag| order.contains(tag)).eq(&order);
        serde_json::json!({
            "requests": sent.len(), "completed": known.len(), "tagged": tagged, "unanswered": unanswered,
            "reply_order": if as_sent { "as sent".into() } else { Json::from(order.clone()) }, "unknown_tags": unknown,
            "untagged": untagged, "continuations": continuations, "bye": bye, "trailing_bytes": 0,
            "eof": run.eof && run.events.last() == Some(&Event::Closed),
        })
    }

    fn said(run: &Run<'_, Self>) -> Option<Vec<u8>> {
        Some(imap_frames(run).concat())
    }
}

/// What events tell of the server's frames, with the recorded tags. That the rest of a request was written tells of a `+`.
fn imap_frames(run: &Run<'_, Imap>) -> Vec<Vec<u8>> {
    let tagged = |id: &RequestId, status: &dyn Display| format!("{} {status}\r\n", first_word(run.label(*id))).into();
    let untagged = |what: &dyn Display| format!("* {what}\r\n").into();
    let mut frames: Vec<Vec<u8>> = run.state.protocol().greeting().map(|status| untagged(status)).into_iter().collect();
    for (at, event) in run.events.iter().enumerate() {
        let rests = run.continued.iter().filter(|(events, octets)| *events == at && octets != b"DONE\r\n");
        frames.extend(rests.map(|_| b"+\r\n".into()));
        frames.push(match event {
            Event::Reply { id, reply } => tagged(id, reply),
            Event::Refused { id, refusal } | Event::Left { id, asked: false, refusal: Some(refusal) } => {
                tagged(id, refusal)
            }
            Event::Left { id, asked: true, refusal: None } => tagged(id, &"OK"),
            Event::Entered { .. } => b"+\r\n".into(),
            Event::Notification(Notification::Exists(number)) => untagged(&format!("{number} EXISTS")),
            Event::Notification(Notification::Recent(number)) => untagged(&format!("{number} RECENT")),
            Event::Notification(Notification::Expunge(number)) => untagged(&format!("{number} EXPUNGE")),
            Event::Notification(Notification::Fetch { message, data }) => {
                assert!(data.starts_with(format!("{message} FETCH (").as_bytes()));
                [b"* ", &data[..], b"\r\n"].concat()
            }
            Event::Notification(Notification::Other(data)) => [b"* ", &data[..], b"\r\n"].concat(),
            Event::Notification(Notification::Status(status)) => {
                assert_ne!(status.condition(), Condition::Bye);
                untagged(status)
            }
            Event::Notification(Notification::Bye(status)) => {
                assert_eq!(run.state.protocol().bye(), Some(status));
                untagged(status)
            }
            // No server has ended an IDLE by itself but to refuse it.
            Event::Left { .. } | Event::Lost { .. } | Event::Closed => continue,
        });
    }
    frames
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// How many octets follow a line, and whether they wait for the server.
fn announced(line: &str) -> Option<(usize, bool)> {
    let (_, length) = line.strip_suffix("}\r\n")?.rsplit_once('{')?;
    let digits = length.strip_suffix('+');
    Some((digits.unwrap_or(length).parse().ok()?, digits.is_none()))
}

/// PLAIN, said when the server asks for it; or nothing, which cancels.
struct Challenged(Option<&'static str>);

impl Responder for Challenged {
    fn mechanism(&self) -> &str {
        "PLAIN"
    }

    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
        Ok(None)
    }

    fn respond(&self, challenges: &[Bytes]) -> Option<Vec<u8>> {
        assert_eq!(challenges, [""]);
        self.0.map(Vec::from)
    }
}

impl Recorded for Mpd {
    const NAME: &str = "mpd";
    const CHANGES_ARE_ANSWERED: bool = false;

    fn command(written: &[u8]) -> (Op<Self>, usize) {
        let first = str::from_utf8(line(written)).unwrap();
        let begin = first.trim_end();
        if let "command_list_begin" | "command_list_ok_begin" = begin {
            let text = str::from_utf8(written).unwrap();
            let end = "command_list_end\n";
            let octets = text.find(end).unwrap() + end.len();
            let commands: Vec<_> = text[first.len()..octets - end.len()].lines().map(mpd_command).collect();
            let list = if begin == "command_list_begin" {
                mpd::Request::List(commands)
            } else {
                mpd::Request::ListOk(commands)
            };
            return (Op::Ask(list), octets);
        }
        let op = match begin.split_once(' ').unwrap_or((begin, "")) {
            ("idle", names) => Op::Enter(names.split_whitespace().map(Subsystem::from).collect(), None),
            ("noidle", _) => Op::Leave,
            _ => Op::Ask(mpd_command(begin).into()),
        };
        (op, first.len())
    }

    fn frame(octets: &[u8]) -> usize {
        let line = line(octets);
        match line.strip_prefix(b"binary: ") {
            Some(block) => line.len() + str::from_utf8(block).unwrap().trim_end().parse::<usize>().unwrap() + 1,
            None => line.len(),
        }
    }

    fn completes(events: &[Event<Self>]) -> bool {
        events.iter().any(|event| matches!(event, Event::Reply { .. } | Event::Refused { .. } | Event::Left { .. }))
    }

    fn count(run: &Run<'_, Self>) -> Json {
        let (mut completed, mut errors, mut unanswered, mut idle) = (0, 0, Vec::new(), None);
        let (mut notifications, mut blocks) = (Vec::new(), Vec::new());
        for event in &run.events {
            match event {
                Event::Reply { reply, .. } => {
                    completed += 1;
                    blocks.extend(reply.blocks().iter().map(Bytes::len));
                }
                Event::Refused { .. } => (completed, errors) = (completed + 1, errors + 1),
                Event::Left { refusal, .. } => {
                    (completed, idle) = (completed + 1, None);
                    errors += usize::from(refusal.is_some());
                }
                Event::Notification(subsystem) => notifications.push(subsystem.as_str()),
                Event::Entered { id } => idle = Some(*id),
                Event::Lost { id, .. } => unanswered.push(run.label(*id).trim_end()),
                Event::Closed => {}
            }
        }
        unanswered.extend(idle.map(|id| run.label(id).trim_end()));
        let unsent = run.recording.unsent.iter();
        let refused = unsent.filter(|written| **written != "noidle\n").map(|written| written.trim_end());
        unanswered.extend(refused.clone());
        serde_json::json!({
            "requests": run.asked.len() + refused.count(), "completed": completed, "errors": errors, "unanswered": unanswered,
            "notifications": notifications, "binary_blocks": blocks, "leftover_lines": 0,
            "eof": run.eof && run.events.last() == Some(&Event::Closed),
        })
    }

    fn said(run: &Run<'_, Self>) -> Option<Vec<u8>> {
        let mut said = [b"OK MPD ", run.state.protocol().version(), b"\n"].concat();
        for event in &run.events {
            match event {
                Event::Reply { id, reply } => {
                    if let Op::Ask(mpd::Request::ListOk(_)) = run.asked[id].op {
                        for part in reply.parts() {
                            say(&part, &mut said);
                            said.extend_from_slice(b"list_OK\n");
                        }
                    } else {
                        say(reply, &mut said);
                    }
                    said.extend_from_slice(b"OK\n");
                }
                Event::Refused { refusal: ack, .. } | Event::Left { refusal: Some(ack), .. } => {
                    say(&ack.before, &mut said);
                    let command = str::from_utf8(&ack.command).unwrap();
                    said.extend_from_slice(format!("ACK [{}@{}] {{{command}}} ", ack.code, ack.position).as_bytes());
                    said.extend_from_slice(&[&ack.text[..], b"\n"].concat());
                }
                Event::Left { refusal: None, .. } => said.extend_from_slice(b"OK\n"),
                Event::Notification(subsystem) => said.extend_from_slice(format!("changed: {subsystem}\n").as_bytes()),
                Event::Entered { .. } | Event::Lost { .. } | Event::Closed => {}
            }
        }
        Some(said)
    }
}

fn say(answer: &mpd::Answer, said: &mut Vec<u8>) {
    let mut blocks = answer.blocks().iter();
    for (key, value) in answer.fields() {
        said.extend_from_slice(&[key, b": ", value, b"\n"].concat());
        if key == b"binary" {
            said.extend_from_slice(&[blocks.next().unwrap(), &b"\n"[..]].concat());
        }
    }
}

fn mpd_command(text: &str) -> mpd::Command {
    let (name, mut rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut command = mpd::Command::new(name);
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        command = command.arg(word);
        rest = after.trim_start();
    }
    command
}

impl Recorded for Redis {
    const NAME: &str = "redis";
    const CHANGES_ARE_ANSWERED: bool = true;

    fn command(written: &[u8]) -> (Op<Self>, usize) {
        let octets = Self::frame(written);
        let mut words = Vec::new();
        let mut rest = &written[line(written).len()..octets];
        while !rest.is_empty() {
            let (header, word) = (line(rest).len(), Self::frame(rest));
            words.push(&rest[header..word - 2]);
            rest = &rest[word..];
        }
        let (name, arguments) = words.split_first().unwrap();
        let request = redis::Command::new(name).args(arguments);
        let op = match *name {
            b"SUBSCRIBE" => Op::Enter(Subscription::channels(arguments), Some(request)),
            b"PSUBSCRIBE" => Op::Enter(Subscription::patterns(arguments), Some(request)),
            b"MONITOR" => Op::Enter(Subscription::Monitor, None),
            _ => Op::Ask(request.anywhere()),
        };
        (op, octets)
    }

    fn frame(octets: &[u8]) -> usize {
        let header = line(octets);
        let number = || str::from_utf8(&header[1..]).unwrap().trim_end().parse::<i64>().unwrap();
        match header[0] {
            b'$' if number() >= 0 => header.len() + usize::try_from(number()).unwrap() + 2,
            b'*' => (0..number()).fold(header.len(), |octets_before, _| {
                octets_before + octets.get(octets_before..).filter(|rest| !rest.is_empty()).map_or(0, Self::frame)
            }),
            _ => header.len(),
        }
    }

    fn completes(events: &[Event<Self>]) -> bool {
        !events.is_empty()
    }

    fn count(run: &Run<'_, Self>) -> Json {
        let (mut completed, mut errors, mut unanswered) = (0, 0, Vec::new());
        let (mut frames, mut acks, mut notifications, mut held) = (0, 0, 0, 0);
        for event in &run.events {
            match event {
                Event::Reply { reply, .. } => {
                    completed += 1;
                    match reply {
                        redis::Reply::Confirmed { confirmations, subscriptions } => {
                            (frames, acks) = (frames + confirmations, acks + confirmations);
                            held = *subscriptions;
                        }
                        redis::Reply::Value(value) => {
                            frames += 1;
                            if *value == Value::Simple("RESET".into()) {
                                held = 0;
                            }
                        }
                    }
                }
                Event::Refused { .. } => (frames, completed, errors) = (frames + 1, completed + 1, errors + 1),
                Event::Entered { id } => {
                    completed += 1;
                    match &run.asked[id].op {
                        Op::Enter(Subscription::Channels(names) | Subscription::Patterns(names), _) => {
                            (frames, acks) = (frames + names.len(), acks + names.len());
                            let mut names = names.clone();
                            names.sort();
                            names.dedup();
                            held = names.len() as u64;
                        }
                        _ => frames += 1,
                    }
                }
                Event::Notification(_) => (frames, notifications) = (frames + 1, notifications + 1),
                Event::Lost { id, .. } => unanswered.push(run.label(*id)),
                Event::Left { .. } | Event::Closed => {}
            }
        }
        serde_json::json!({
            "requests": run.asked.len(), "completed": completed, "errors": errors, "unanswered": unanswered,
            "frames": frames, "acks": acks, "notifications": notifications, "subscriptions_left": held,
            "trailing_bytes": 0, "eof": run.eof && run.events.last() == Some(&Event::Closed),
        })
    }

    /// Each frame is counted.
    fn said(_: &Run<'_, Self>) -> Option<Vec<u8>> {
        None
    }
}
