//! Recorded conversations with real servers (`tests/transcripts/`), through the machine: the client's octets come out of our
//! encoders, and the counts that another reader made of the server's come out of the events.
//!
//! Each is played whole, at random splits and octet by octet. In the last case the connection is also cut after every octet.
//! Then each frame of the server is left out in turn, which must not go unnoticed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use bytes::Bytes;
use proptest::prelude::RngCore;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::Value as Json;
use sonnette::mpd::{self, Mpd, Subsystem};
use sonnette::redis::{self, Redis, Subscription, Value};
use sonnette::{ClientState, Error, Event, Mode, Protocol, Reason, RequestId};
use std::collections::HashMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::str;

/// What of the recorded writes is not reproduced: in which file, what, what is written instead, and why. Where nothing is
/// written, the machine is asked for it all the same, and must refuse.
const NOT_REPRODUCED: &[(&str, &str, &str, &str)] = &[
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

    /// The first command of what the client wrote, and its octets.
    fn command(written: &[u8]) -> (Op<Self>, usize);
    /// The length of the first frame of the server.
    fn frame(octets: &[u8]) -> usize;
    /// The octets of the greeting that was read, of which no event tells.
    fn greeted(_: &Self) -> u64 {
        0
    }
    /// Whether what this event tells of ends a frame or a group of them, so that the stream may end behind it.
    fn completes(event: &Event<Self>) -> bool;
    /// Whether a change of mode is answered by a frame.
    const CHANGES_ARE_ANSWERED: bool;
    /// What the events come to, in the words of `expected.json`.
    fn count(run: &Run<Self>) -> Json;
    /// All that the server said, made from the events, where the counts do not count each frame.
    fn said(run: &Run<Self>) -> Option<Vec<u8>>;
}

#[derive(Clone, Debug)]
enum Op<P: Recorded> {
    Ask(P::Request),
    /// In notification mode it is a request, else it enters the mode.
    Enter(P::Subscription, Option<P::Request>),
    Leave,
}

struct Recording {
    name: String,
    records: Vec<Record>,
    expected: Json,
    /// All that the server says.
    said: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Record {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Eof,
}

fn recordings(kind: &str) -> Vec<Recording> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let expected: Json = serde_json::from_slice(&fs::read(directory.join("expected.json")).unwrap()).unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory.join(kind)).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let recording = |file: &PathBuf| {
        let name = format!("{kind}/{}", file.file_stem().unwrap().to_str().unwrap());
        let records: Vec<Record> = fs::read_to_string(file).unwrap().lines().map(record).collect();
        let said =
            records.iter().flat_map(|record| if let Record::Server(octets) = record { &octets[..] } else { &[] });
        let said = said.copied().collect();
        let expected = expected[format!("{name}.jsonl")].clone();
        assert!(expected.is_object(), "{name}");
        Recording { name, records, expected, said }
    };
    files.iter().map(recording).collect()
}

fn record(line: &str) -> Record {
    let line: Json = serde_json::from_str(line).unwrap();
    let octets = line["hex"].as_str().unwrap().as_bytes().chunks(2);
    let octets = octets.map(|digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap()).collect();
    match line["dir"].as_str().unwrap() {
        _ if line["eof"] == true => Record::Eof,
        "c2s" => Record::Client(octets),
        "s2c" => Record::Server(octets),
        other => panic!("what is {other:?}?"),
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
struct Run<P: Recorded> {
    state: ClientState<P>,
    /// What was asked, with the octets it was recorded as.
    asked: HashMap<RequestId, (String, Op<P>)>,
    /// What was not sent, and was not to be.
    refused: Vec<&'static str>,
    events: Vec<Event<P>>,
    wrote: Vec<u8>,
    /// The server's octets that have come in, and those before the last end of a frame or group.
    octets: u64,
    completed: u64,
    eof: bool,
    error: Option<Error>,
}

fn run<P: Recorded>(recording: &Recording, feed: Feed<'_>) -> Result<Run<P>, String> {
    let mut run = Run {
        state: ClientState::new(P::default()),
        asked: HashMap::new(),
        refused: Vec::new(),
        events: Vec::new(),
        wrote: Vec::new(),
        octets: 0,
        completed: 0,
        eof: false,
        error: None,
    };
    let mut left_out: Vec<_> = NOT_REPRODUCED.iter().filter(|(name, ..)| *name == recording.name).collect();
    let mut expected = Vec::new();
    let mut random = 0;
    for record in &recording.records {
        match record {
            Record::Client(written) => {
                let mut rest = &written[..];
                while !rest.is_empty() {
                    // Of what is left out, the first is looked for first; the rest of a write stays as it is.
                    let instead = left_out.first().filter(|(_, what, ..)| rest.starts_with(what.as_bytes()));
                    let octets = if let Some((_, what, instead, _)) = instead {
                        expected.extend_from_slice(instead.as_bytes());
                        if instead.is_empty() {
                            match run.ask(what, P::command(what.as_bytes()).0) {
                                Ok(()) => return Err(format!("{what:?} was taken")),
                                Err(_) => run.refused.push(what),
                            }
                        } else {
                            run.ask(what, P::command(instead.as_bytes()).0)?;
                        }
                        left_out.remove(0);
                        what.len()
                    } else {
                        let (op, octets) = P::command(rest);
                        expected.extend_from_slice(&rest[..octets]);
                        run.ask(&String::from_utf8_lossy(&rest[..octets]), op)?;
                        octets
                    };
                    rest = &rest[octets..];
                }
                run.write();
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
                    run.receive(now);
                    if matches!(feed, Feed::Octets) {
                        run.cut(&recording.name)?;
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
    if !left_out.is_empty() {
        return Err(format!("was in the recording: {left_out:?}"));
    }
    if run.wrote != expected {
        return Err(format!("wrote {:?}, not {:?}", run.wrote.escape_ascii(), expected.escape_ascii()));
    }
    // What the machine holds back would be left over.
    run.state.receive_eof();
    run.poll();
    Ok(run)
}

impl<P: Recorded> Run<P> {
    fn ask(&mut self, written: &str, op: Op<P>) -> Result<(), String> {
        let fail = |what: Reason| format!("{written:?}: {what}");
        let id = match op.clone() {
            Op::Ask(request) => self.state.request(request).map_err(|rejected| fail(rejected.reason))?,
            Op::Enter(_, Some(request)) if self.state.asked_mode() == Mode::Notification => {
                self.state.request(request).map_err(|rejected| fail(rejected.reason))?
            }
            Op::Enter(subscription, _) => self.state.enter(subscription).map_err(|rejected| fail(rejected.reason))?,
            Op::Leave => {
                if !self.state.leave() {
                    return Err(format!("{written:?}: nothing to leave"));
                }
                return Ok(());
            }
        };
        self.asked.insert(id, (written.into(), op));
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
        // Some of it waited for the server.
        self.write();
    }

    fn poll(&mut self) {
        loop {
            match self.state.poll_event() {
                Ok(Some(event)) => {
                    if P::completes(&event) {
                        self.completed = self.octets;
                    }
                    self.events.push(event);
                }
                Ok(None) => return,
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    /// The stream ends here: all that is outstanding is lost, and it is told whether something was cut through.
    fn cut(&self, name: &str) -> Result<(), String> {
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
        let expected = match self.octets - self.completed.max(P::greeted(self.state.protocol())) {
            0 => Ok("Some(Closed)".into()),
            octets => Err(Error::UnexpectedEof { octets }),
        };
        if self.error.is_none() && (&lost, &end) != (&outstanding, &expected) {
            return Err(format!(
                "{name} cut after {} octets: {lost:?} {end:?}, not {outstanding:?} {expected:?}",
                self.octets
            ));
        }
        Ok(())
    }

    fn label(&self, id: RequestId) -> &str {
        &self.asked[&id].0
    }
}

/// What a run came to, or how it failed.
fn outcome<P: Recorded>(recording: &Recording, feed: Feed<'_>) -> Result<(), String> {
    let run = run::<P>(recording, feed)?;
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
    for recording in recordings(P::NAME) {
        for feed in [Feed::Whole, Feed::Octets, Feed::Random(&sizes), Feed::Random(&sizes[1..])] {
            outcome::<P>(&recording, feed).unwrap_or_else(|wrong| panic!("{}: {wrong}", recording.name));
        }
    }
}

fn leave_out<P: Recorded>() {
    for mut recording in recordings(P::NAME) {
        for at in 0..recording.records.len() {
            let Record::Server(octets) = &recording.records[at] else { continue };
            // A frame may go on in the next record: then the part that is here is left out.
            let (octets, mut begin) = (octets.clone(), 0);
            while begin < octets.len() {
                let frame = P::frame(&octets[begin..]).min(octets.len() - begin);
                recording.records[at] = Record::Server([&octets[..begin], &octets[begin + frame..]].concat());
                assert!(
                    outcome::<P>(&recording, Feed::Whole).is_err(),
                    "{}: {:?} was left out of {}, and not missed",
                    recording.name,
                    octets[begin..begin + frame].escape_ascii(),
                    octets.escape_ascii()
                );
                begin += frame;
            }
            recording.records[at] = Record::Server(octets);
        }
    }
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

    fn greeted(mpd: &Self) -> u64 {
        if mpd.version().is_empty() { 0 } else { "OK MPD \n".len() as u64 + mpd.version().len() as u64 }
    }

    fn completes(event: &Event<Self>) -> bool {
        matches!(event, Event::Reply { .. } | Event::Refused { .. } | Event::Left { .. })
    }

    fn count(run: &Run<Self>) -> Json {
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
        let refused = run.refused.iter().filter(|written| **written != "noidle\n").map(|written| written.trim_end());
        unanswered.extend(refused.clone());
        serde_json::json!({
            "requests": run.asked.len() + refused.count(), "completed": completed, "errors": errors, "unanswered": unanswered,
            "notifications": notifications, "binary_blocks": blocks, "leftover_lines": 0,
            "eof": run.eof && run.events.last() == Some(&Event::Closed),
        })
    }

    fn said(run: &Run<Self>) -> Option<Vec<u8>> {
        let mut said = [b"OK MPD ", run.state.protocol().version(), b"\n"].concat();
        for event in &run.events {
            match event {
                Event::Reply { id, reply } => {
                    if let Op::Ask(mpd::Request::ListOk(_)) = run.asked[id].1 {
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

    fn completes(event: &Event<Self>) -> bool {
        !matches!(event, Event::Lost { .. } | Event::Closed)
    }

    fn count(run: &Run<Self>) -> Json {
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
                    match &run.asked[id].1 {
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
    fn said(_: &Run<Self>) -> Option<Vec<u8>> {
        None
    }
}
