//! MPD, the Music Player Daemon, with `idle`: the client's side.
//!
//! Lines of UTF-8 end in LF. The server greets, answers each command with lines `KEY: VALUE` and `OK`, or refuses it with
//! `ACK`, and, once told `idle`, says nothing until something changes. (MPD documentation, "Protocol overview",
//! "Responses", "Binary Responses", "Failure responses", "Command lists", `idle`.)
//!
//! | the client | on the wire | the server |
//! |---|---|---|
//! | [`request`](crate::ClientState::request) | `status` | `volume: 50` ... `OK`, or `ACK [5@0] {} unknown command` |
//! | [`enter`](crate::ClientState::enter) | `idle`, `idle mixer player` | nothing yet |
//! | | | `changed: mixer` for each subsystem, then `OK`: the mode has ended by itself |
//! | [`leave`](crate::ClientState::leave) | `noidle` | `OK`, if it is still idle; nothing, if it is not |
//!
//! The race at the way out: a change and `noidle` cross. The server has answered the `idle` already and ignores the
//! `noidle`, so that there is exactly one `OK` for both. The machine knows: a leave is answered by the late answer of its
//! enter, and has none of its own. After the end of an idle was polled, [`leave`](crate::ClientState::leave) writes
//! nothing.
//!
//! What changes while the client is not idle is kept by the server for the next `idle`, so nothing is lost between a
//! [`Left`](crate::Event::Left) and the enter after it. Up to version 0.23 an `idle` with names also throws away what was
//! kept for other subsystems; enter with no names there, or with all those of interest.
//!
//! A server that is not idle closes the connection after a minute of silence (`connection_timeout`). In idle it keeps it
//! open for ever, and says nothing to show that it lives: see [`Timeouts::silence`](crate::Timeouts::silence).
//!
//! ```
//! use sonnette::mpd::{Command, Mpd, Subsystem};
//! use sonnette::{ClientState, Event};
//!
//! let mut state = ClientState::new(Mpd::new());
//! let status = state.request(Command::new("status").into()).unwrap();
//! let idle = state.enter(vec![]).unwrap();
//! state.receive(b"OK MPD 0.23.5\nvolume: 50\nOK\n");
//!
//! let Some(Event::Reply { id, reply }) = state.poll_event()? else { panic!() };
//! assert_eq!((id, reply.get("volume")), (status, Some(&b"50"[..])));
//! assert_eq!(state.output(), b"status\nidle\n");
//! assert_eq!(state.poll_event()?, Some(Event::Entered { id: idle }));
//! state.receive(b"changed: mixer\nOK\n");
//! assert_eq!(state.poll_event()?, Some(Event::Notification(Subsystem::Mixer)));
//! // Entering again is the application's to do: `run` of the clients does it.
//! assert_eq!(state.poll_event()?, Some(Event::Left { id: idle, asked: false, refusal: None }));
//! # Ok::<(), sonnette::Error>(())
//! ```

use crate::protocol::length;
use crate::text::{OneLine, show_command};
use crate::{
    Asked, Changes, Decoded, Encoder, EnterAnswer, Fault, Frame, Invalid, LeaveAnswer, Limits, Pending, Protocol,
    RequestId, Setting, Terminator,
};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use bytes::Bytes;
use core::{error, fmt, mem, str};

/// A client of MPD.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mpd {
    version: Bytes,
    /// Of the answer that is being read: its lines, and the octets that lines announced.
    lines: Vec<u8>,
    blocks: Vec<Bytes>,
    /// `list_OK` among those lines.
    parts: usize,
}

impl Mpd {
    /// A client that has not been greeted yet.
    #[must_use]
    pub const fn new() -> Self {
        Mpd { version: Bytes::new(), lines: Vec::new(), blocks: Vec::new(), parts: 0 }
    }

    /// The version of the protocol that the server speaks, as in its greeting, `0.23.5`; empty before that was read.
    #[must_use]
    pub fn version(&self) -> &[u8] {
        &self.version
    }

    fn take_answer(&mut self) -> Answer {
        self.parts = 0;
        Answer { lines: mem::take(&mut self.lines).into(), blocks: mem::take(&mut self.blocks) }
    }

    /// A line of the answer to a request, or the octets that one announced.
    fn answer(&mut self, id: RequestId, note: Note, frame: &mut Frame<'_>) -> Result<Decoded<Self>, Fault> {
        if frame.is_raw() {
            let block = frame.len().saturating_sub(1);
            if frame.last() != Some(&b'\n') {
                return Err(Fault::Violation("a binary block ends in LF"));
            }
            self.blocks.push(frame.slice(..block));
            return Ok(Decoded::Part { id, kept: true, raw: None });
        }
        if *frame == *OK {
            if note.list_ok && note.commands != self.parts {
                return Err(Fault::Violation("a command list is answered by one list_OK for each command"));
            }
            return Ok(Decoded::reply(id, self.take_answer()));
        }
        if let Some(ack) = frame.strip_prefix(ACK) {
            let mut ack = Ack::parse(ack)?;
            *ack.before = self.take_answer();
            return Ok(Decoded::Refused { id, refusal: ack });
        }
        let mut raw = None;
        if note.list_ok && *frame == *LIST_OK {
            self.parts += 1;
        } else if let Some(octets) = frame.strip_prefix(BINARY) {
            if self.blocks.len() == note.commands {
                return Err(Fault::Violation("a command is answered by one binary block"));
            }
            // The block, and the LF behind it.
            raw = Some(length(octets, "binary: announces a number of octets")?.checked_add(1).ok_or(Fault::TooLong)?);
        } else if !frame.contains(&b':') {
            return Err(Fault::Violation("an answer has lines KEY: VALUE, then OK or ACK"));
        }
        self.lines.extend_from_slice(frame);
        self.lines.push(b'\n');
        Ok(Decoded::Part { id, kept: true, raw })
    }
}

const OK: &[u8; 2] = b"OK";
const ACK: &[u8] = b"ACK ";
const LIST_OK: &[u8; 7] = b"list_OK";
const BINARY: &[u8] = b"binary: ";
const GREETING: &[u8] = b"OK MPD ";
const CHANGED: &[u8] = b"changed: ";

impl Protocol for Mpd {
    type Request = Request;
    /// The subsystems to hear of; none means all.
    type Subscription = Vec<Subsystem>;
    type Reply = Answer;
    type Refusal = Ack;
    type Notification = Subsystem;
    type Note = Note;

    const TERMINATOR: Terminator = Terminator::Lf;

    const LIMITS: Limits = Limits::new()
        // A tag may hold a text, of lyrics for instance.
        .with_line(64 * 1024)
        // The server cuts off a client for which more is waiting (`max_output_buffer_size`, 8 MiB by default).
        .with_answer(8 * 1024 * 1024)
        // The longest command list a server takes (`max_command_list_size`, 2 MiB by default).
        .with_output(2 * 1024 * 1024);

    const GREETING: bool = true;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Silent, leave: LeaveAnswer::ByEnter }
    }

    fn encode_request(&self, _: RequestId, request: &Request, out: &mut Encoder<'_>) -> Result<Note, Invalid> {
        let (begin, commands) = match request {
            Request::Command(command) => return command.encode(out).map(|()| Note::COMMAND),
            Request::List(commands) => (&b"command_list_begin\n"[..], commands),
            Request::ListOk(commands) => (&b"command_list_ok_begin\n"[..], commands),
        };
        out.put(begin);
        commands.iter().try_for_each(|command| command.encode(out))?;
        out.put(b"command_list_end\n");
        Ok(Note { commands: commands.len(), list_ok: matches!(request, Request::ListOk(_)) })
    }

    fn encode_enter(&self, _: RequestId, names: &Vec<Subsystem>, out: &mut Encoder<'_>) -> Result<Note, Invalid> {
        out.put(b"idle");
        for name in names {
            encode_word(name.as_str(), out)?;
        }
        out.put(b"\n");
        Ok(Note::default())
    }

    fn encode_leave(&self, _: RequestId, _: &Vec<Subsystem>, out: &mut Encoder<'_>) -> Note {
        out.put(b"noidle\n");
        Note::default()
    }

    fn encode_probe(&self, _: RequestId, setting: Setting, out: &mut Encoder<'_>) -> Option<Note> {
        (setting == Setting::Normal).then(|| {
            out.put(b"ping\n");
            Note::COMMAND
        })
    }

    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        // In idle, as read, every line is of its answer, whatever was asked since.
        if pending.in_mode() {
            return if let Some(name) = frame.strip_prefix(CHANGED) {
                Ok(Decoded::PartNotification(Subsystem::parse(name)?))
            } else if *frame == *OK {
                Ok(Decoded::Ended { refusal: None })
            } else if let Some(ack) = frame.strip_prefix(ACK) {
                Ok(Decoded::Ended { refusal: Some(Ack::parse(ack)?) })
            } else {
                Err(Fault::Violation("idle is answered by changed: lines, then OK or ACK"))
            };
        }
        match pending.awaiting() {
            Some(Asked::Request { id, note }) => self.answer(id, *note, frame),
            Some(Asked::Greeting) => match frame.get(GREETING.len()..) {
                Some(_) if frame.starts_with(GREETING) => {
                    self.version = frame.slice(GREETING.len()..);
                    Ok(Decoded::Greeting)
                }
                _ => Err(Fault::GreetingRefused),
            },
            Some(Asked::Enter { .. } | Asked::Leave { .. }) | None => {
                Err(Fault::Violation("a line that nobody asked for"))
            }
        }
    }
}

/// What the answer to a request looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Note {
    /// The commands it is about: each may be answered by one binary block.
    commands: usize,
    /// `list_OK` follows the lines of each.
    list_ok: bool,
}

impl Note {
    const COMMAND: Note = Note { commands: 1, list_ok: false };
}

/// What can be asked: one answer for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// One command.
    Command(Command),
    /// Commands between `command_list_begin` and `command_list_end`, all in one go. The first that is refused ends it.
    List(Vec<Command>),
    /// Likewise, between `command_list_ok_begin` and `command_list_end`: the answer tells where the lines of each command
    /// end, see [`Answer::parts`].
    ListOk(Vec<Command>),
}

impl From<Command> for Request {
    fn from(command: Command) -> Self {
        Request::Command(command)
    }
}

/// A command: its name, and its arguments as words, which are quoted and escaped where they have to be.
///
/// `idle` and `noidle` are [`enter`](crate::ClientState::enter) and [`leave`](crate::ClientState::leave), and are refused
/// here, as are the words around a list: a command list is a [`Request`] of its own. To `close` and `kill` the server
/// does not answer but closes: their outcome is [`Lost`](crate::Event::Lost).
///
/// ```
/// # use sonnette::{ClientState, mpd::{Command, Mpd}};
/// # let mut state = ClientState::new(Mpd::new());
/// # state.receive(b"OK MPD 0.23.5\n");
/// # state.poll_event()?;
/// state.request(Command::new("add").arg("Björk/It's \"Oh So Quiet\".flac").into()).unwrap();
/// assert_eq!(state.output(), "add \"Björk/It's \\\"Oh So Quiet\\\".flac\"\n".as_bytes());
/// assert!(state.request(Command::new("add").arg("a\nkill").into()).is_err());
/// # Ok::<(), sonnette::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Command {
    name: String,
    arguments: Vec<String>,
}

impl Command {
    /// A command without arguments.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Command { name: name.into(), arguments: Vec::new() }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// `password`: asks for the permissions that go with it.
    #[must_use]
    pub fn password(password: impl Into<String>) -> Self {
        Command::new("password").arg(password)
    }

    fn encode(&self, out: &mut Encoder<'_>) -> Result<(), Invalid> {
        match self.name.as_str() {
            "idle" | "noidle" => return Err(Invalid::new("idle is entered and left, not requested")),
            name if name.starts_with("command_list_") => return Err(Invalid::new("a command list is a request")),
            name if !is_name(name) => return Err(Invalid::new("not a command's name")),
            name => out.put(name.as_bytes()),
        }
        for argument in &self.arguments {
            encode_word(argument, out)?;
        }
        out.put(b"\n");
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// A space and one word. ("Requests": arguments with spaces and the like are quoted, `"` and `\` escaped.)
fn encode_word(word: &str, out: &mut Encoder<'_>) -> Result<(), Invalid> {
    out.put(b" ");
    if !word.is_empty() && word.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-')) {
        out.put(word.as_bytes());
        return Ok(());
    }
    out.put_quoted(word.as_bytes())
}

/// Arguments may be secrets, a password or a URI with one: only their number is shown, and nothing in place of a name that is
/// none.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_command(Some(self.name.as_bytes()).filter(|_| is_name(&self.name)), self.arguments.len(), f)
    }
}

/// The lines of an answer, as they came, and the octets that lines announced.
///
/// It shares the memory it was received in, or a copy of it: take out what is to be kept for long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Each with its LF.
    lines: Bytes,
    blocks: Vec<Bytes>,
}

impl Answer {
    /// The keys and values, in their order; a key may come often. A value is what follows the colon and a space.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.split(|&octet| octet == b'\n').filter(|line| *line != LIST_OK).filter_map(|line| {
            let colon = line.iter().position(|&octet| octet == b':')?;
            let (key, value) = line.split_at_checked(colon)?;
            Some((key, value.strip_prefix(b": ").or(value.strip_prefix(b":"))?))
        })
    }

    /// The first value of this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.fields().find(|(other, _)| *other == key.as_bytes()).map(|(_, value)| value)
    }

    /// The octets that a line `binary: N` announced: part of a picture, for instance. ("Binary Responses")
    #[must_use]
    pub fn binary(&self) -> Option<&Bytes> {
        self.blocks.first()
    }

    /// All such blocks; several commands of a list may have one each.
    #[must_use]
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    /// Of the answer to a [`Request::ListOk`], what belongs to each command.
    pub fn parts(&self) -> impl Iterator<Item = Answer> {
        let (mut begin, mut at, mut block) = (0, 0, 0);
        let mut lines = self.lines.split_inclusive(|&octet| octet == b'\n');
        core::iter::from_fn(move || {
            let first_block = block;
            loop {
                let line = lines.next()?;
                at += line.len();
                block += usize::from(line.starts_with(BINARY));
                if line.strip_suffix(b"\n") == Some(LIST_OK) {
                    let lines = self.lines.slice(begin..at - line.len());
                    begin = at;
                    let blocks = self.blocks.get(first_block..block).unwrap_or_default().to_vec();
                    return Some(Answer { lines, blocks });
                }
            }
        })
    }
}

/// The server refused a command: `ACK [code@position] {command} text`. ("Failure responses")
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ack {
    /// Which kind of error it is, one of the constants here or another one of a newer server.
    pub code: u32,
    /// The command's place in its list, from 0.
    pub position: u32,
    /// The command; empty if it is not known.
    pub command: Bytes,
    /// What is wrong, in words.
    pub text: Bytes,
    /// What the commands before it in its list were answered.
    pub before: Box<Answer>,
}

impl Ack {
    /// A wrong argument.
    pub const ARG: u32 = 2;
    /// A wrong password.
    pub const PASSWORD: u32 = 3;
    /// The command needs a permission; `idle` may too.
    pub const PERMISSION: u32 = 4;
    /// An unknown command, or a line that cannot be understood.
    pub const UNKNOWN: u32 = 5;
    /// There is no such thing.
    pub const NO_EXIST: u32 = 50;
    /// The queue is as long as it may be.
    pub const PLAYLIST_MAX: u32 = 51;
    /// The server's own trouble.
    pub const SYSTEM: u32 = 52;

    /// What follows `ACK `.
    fn parse(ack: &[u8]) -> Result<Ack, Fault> {
        let parsed = || {
            let ack = ack.strip_prefix(b"[")?;
            let (code, ack) = split_at(ack, b"@")?;
            let (position, ack) = split_at(ack, b"] {")?;
            // A command's name has no brace in it; a text may.
            let (command, text) = split_at(ack, b"}")?;
            let number = |digits| str::from_utf8(digits).ok()?.parse().ok();
            Some(Ack {
                code: number(code)?,
                position: number(position)?,
                command: Bytes::copy_from_slice(command),
                text: Bytes::copy_from_slice(text.strip_prefix(b" ").unwrap_or(text)),
                before: Box::default(),
            })
        };
        parsed().ok_or(Fault::Violation("a refusal is ACK [code@position] {command} text"))
    }
}

fn split_at<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(separator.len()).position(|window| window == separator)?;
    Some((text.get(..at)?, text.get(at + separator.len()..)?))
}

/// On one line, with controls escaped, whatever the server has put into it.
impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (ACK {}", OneLine(&self.text), self.code)?;
        if !self.command.is_empty() {
            write!(f, " to {}", OneLine(&self.command))?;
        }
        f.write_str(")")
    }
}

impl error::Error for Ack {}

macro_rules! subsystems {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What can change. ("Querying MPD's status", `idle`)
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Subsystem {
            $($(#[$doc])* $variant,)*
            /// One that a newer server may have, by its name.
            Other(String),
        }

        impl Subsystem {
            /// Its name on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Subsystem::$variant => $name,)*
                    Subsystem::Other(name) => name,
                }
            }
        }

        impl From<&str> for Subsystem {
            fn from(name: &str) -> Self {
                match name {
                    $($name => Subsystem::$variant,)*
                    name => Subsystem::Other(name.to_string()),
                }
            }
        }
    };
}

subsystems! {
    /// The song database was changed by an update.
    Database = "database",
    /// An update of the database began or ended.
    Update = "update",
    /// A stored playlist was changed.
    StoredPlaylist = "stored_playlist",
    /// The queue was changed.
    Playlist = "playlist",
    /// Playing was begun, ended, paused, or is elsewhere.
    Player = "player",
    /// The volume was changed.
    Mixer = "mixer",
    /// An output was added, removed or changed.
    Output = "output",
    /// Repeat, random, crossfade and the like.
    Options = "options",
    /// A partition was added, removed or changed.
    Partition = "partition",
    /// The sticker database was changed.
    Sticker = "sticker",
    /// A client has subscribed to a channel, or unsubscribed.
    Subscription = "subscription",
    /// There is a message on a channel that this client subscribed to.
    Message = "message",
    /// A neighbor was found or lost.
    Neighbor = "neighbor",
    /// The list of mounts was changed.
    Mount = "mount",
}

impl Subsystem {
    fn parse(name: &[u8]) -> Result<Subsystem, Fault> {
        str::from_utf8(name).map(Subsystem::from).map_err(|_| Fault::Violation("a subsystem's name is UTF-8"))
    }
}

/// Its name on one line, with controls escaped.
impl fmt::Display for Subsystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        OneLine(self.as_str().as_bytes()).fmt(f)
    }
}
