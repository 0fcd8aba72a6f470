//! IMAP with IDLE: the client's side.
//!
//! Lines end in CR LF; a line that ends in `{N}` goes on with N octets and then the rest of it. The server greets. Each
//! command has a tag, and is answered by a line with that tag: `OK`, or `NO` and `BAD`, which refuse it. Everything
//! else begins with `* ` and may come at any time, whether it was asked for or not; or with `+`, which asks the client
//! to go on. (RFC 3501, RFC 9051; IDLE: RFC 2177)
//!
//! | the client | on the wire | the server |
//! |---|---|---|
//! | [`request`](crate::ClientState::request) | `A2 SELECT INBOX` | `* 3 EXISTS` and other data, then `A2 OK`, `A2 NO` or `A2 BAD`, in whatever order |
//! | [`enter`](crate::ClientState::enter) | `A3 IDLE` | `+ idling`, or `A3 NO`, `A3 BAD` |
//! | | | `* 4 EXISTS`, `* 2 EXPUNGE`, `* 1 FETCH (FLAGS (\Seen))` |
//! | [`leave`](crate::ClientState::leave) | `DONE` | `A3 OK`: the late answer to IDLE |
//!
//! A reply is the tagged line, data are notifications: they are told in the order in which they come, also before `+`
//! and after `DONE`, also while nobody waits for them. Which of them belong to a request the protocol does not say:
//! flags that were fetched, and flags that somebody has changed, look alike.
//!
//! Over a connection that many share they go to the subscribers, whoever has asked.
//!
//! The race at the way out: the client wants to leave before the server has said `+`. RFC 2177 answers a continuation
//! with `DONE`, so the wish is remembered until there is one, and is forgotten if the IDLE is refused instead. Leaving,
//! the next command and the next IDLE go out in one write. A server that ends the IDLE by itself while `DONE` is on its
//! way takes that for a command, and answers `DONE BAD`, which is nobody's answer and is not told.
//!
//! # The end
//! A server that is about to close says so, and it is told: [`Notification::Bye`], then
//! [`Closed`](crate::Event::Closed). Without the first the connection was cut; the application's own leave is
//! [`Left`](crate::Event::Left) with `asked`. [`Imap::bye`] keeps it.
//!
//! # Time
//! [`TIMEOUTS`] are on by default: a mode is renewed in time, counted from when it was entered, and a server that has
//! fallen silent is found, each by itself. `* OK Still here`, which Dovecot says every two minutes, proves that it
//! lives and is not told.
//!
//! # Literals and logins
//! What fits no quotes is sent as a literal. It waits for the server's `+`, and is not sent at all if the server
//! refuses it first; a server that is known to have LITERAL+ or LITERAL- is not waited for. [`Command::authenticate`]
//! speaks any mechanism of SASL through a [`Responder`].
//!
//! # STARTTLS
//! [`Command::starttls`] is asked alone. After its answer the machine takes nothing more, in either direction, until
//! [`stream_changed`](crate::ClientState::stream_changed) says that the stream is another one; what came behind the
//! answer in the clear ends the connection with [`Error::Injected`](crate::Error::Injected). The greeting and the capabilities
//! are forgotten. A client that is logged in already ([`Condition::PreAuth`]) must not ask for it, and whoever stands
//! between can greet like that, so that all goes on in the clear: it is refused, or, if it was asked before the greeting said
//! so, the connection ends with [`Error::GreetingRefused`](crate::Error::GreetingRefused).
//!
//! ```no_run
//! # fn tls<S>(stream: S) -> std::io::Result<S> { Ok(stream) }
//! use sonnette::imap::{Command, Imap};
//! use sonnette_std::{Client, Connect};
//!
//! let mut client = Connect::new().tcp(Imap::new(), "imap.example.org:143")?;
//! client.call(Command::starttls())?;
//! let (mut state, stream, _untrusted) = client.into_parts();
//! state.stream_changed()?;
//! let mut client = Client::with_state(state, tls(stream)?);
//! client.call(Command::login("alice", "secret"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Grammar
//! This module knows tags, status responses and literals; what data say is read by [`imap_types`]' parser, on request:
//! [`Data::parse`]. That is `imap-codec`: `no_std`, without `unsafe`, fuzzed, with a limit to what is nested in what,
//! under the licences and for the compilers of this crate. (`imap-proto`, which more clients use, needs std, and
//! overflows its stack where a server nests parts of a message deep enough.) It is a pre-release: a newer one is a
//! breaking change of this crate. Data that it does not understand are told all the same, as octets: letters beyond
//! ASCII's between quotes, `()` where an address list should be `NIL`, items of FETCH that are a vendor's own, ESEARCH.
//! Nor are data read here that would take far more memory than their octets, see [`Data::parse`]. Status responses are
//! read as text: a literal inside a response code, which the grammar allows, is a violation.
//!
//! # Watch a mailbox
#![doc = include_str!("imap/watch.md")]

mod command;
mod response;
mod sasl;

pub use command::Command;
/// What [`Data::parse`] returns.
pub use imap_codec::imap_types;
pub use response::{Condition, Data, MAX_FETCH, Notification, Status, Unparsed};
pub use sasl::{MAX_CHALLENGE, MAX_CHALLENGES, Plain, Responder, XOAuth2};

use crate::{
    Asked, Changes, Decoded, Encoder, EnterAnswer, Fault, Frame, Invalid, LeaveAnswer, Limits, Pending, Protocol,
    RequestId, Setting, Terminator, Timeouts,
};
use alloc::format;
use alloc::vec::Vec;
use bytes::Bytes;
use command::{Literals, Noted};
use core::time::Duration;
use core::{fmt, mem};
use response::{decimal, split};
use sasl::Dialogue;

/// What is overdue when, by default.
///
/// - `refresh`, 28 minutes: a server may end a session that has been inactive for 30 minutes, IDLE or not, and clients
///   are advised to enter again "at least every 29 minutes" (RFC 2177). It counts from when the mode was entered.
/// - `silence`, 5 minutes: routers forget connections that are silent for longer, the impatient ones; a server that is
///   dead is found within ten. Outside the mode it is asked `NOOP`; in it, the mode is left and entered again.
/// - No `reply`: a search may take as long as it takes, and a server that has died meanwhile is silent.
pub const TIMEOUTS: Timeouts =
    Timeouts { reply: None, refresh: Some(Duration::from_secs(28 * 60)), silence: Some(Duration::from_secs(5 * 60)) };

/// A client of IMAP.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Imap {
    greeting: Option<Status>,
    bye: Option<Status>,
    /// As last told, with spaces between them.
    capabilities: Bytes,
    /// Of the data that are being read: from `* ` on, with the octets that were announced.
    line: Vec<u8>,
    dialogue: Option<Dialogue>,
    /// The response that crossed the refusal of a login: the server may take it for a command.
    stray: Vec<u8>,
}

/// Octets of capabilities that are kept, at most: they are looked through for each command. Dovecot has some five
/// hundred.
const MAX_CAPABILITIES: usize = 8 * 1024;

/// Octets that are read at once, at most: by the adapters.
const READ: usize = 64 * 1024;

impl Imap {
    /// A client that has not been greeted yet.
    #[must_use]
    pub const fn new() -> Self {
        Imap {
            greeting: None,
            bye: None,
            capabilities: Bytes::new(),
            line: Vec::new(),
            dialogue: None,
            stray: Vec::new(),
        }
    }

    /// How the server has greeted: [`Condition::PreAuth`] if there is no need to log in. None after STARTTLS: what was said in
    /// the clear, anybody may have said.
    #[must_use]
    pub fn greeting(&self) -> Option<&Status> {
        self.greeting.as_ref()
    }

    /// What the server has said of why it closes the connection, as [`Notification::Bye`] tells.
    #[must_use]
    pub fn bye(&self) -> Option<&Status> {
        self.bye.as_ref()
    }

    /// What the server can do, as it told last: in its greeting, with the answer to a login, or when it was asked. None
    /// before that, and after STARTTLS. Only those in the first 8 KiB are remembered.
    pub fn capabilities(&self) -> impl Iterator<Item = &[u8]> {
        self.capabilities.split(|&octet| octet == b' ').filter(|name| !name.is_empty())
    }

    /// Whether the server has told that it can do this, `IDLE`, `AUTH=PLAIN`.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        self.capabilities().any(|other| other.eq_ignore_ascii_case(name.as_bytes()))
    }

    fn is_preauthenticated(&self) -> bool {
        self.greeting.as_ref().is_some_and(|greeting| greeting.condition() == Condition::PreAuth)
    }

    fn literals(&self) -> Literals {
        if self.has_capability("LITERAL+") {
            Literals::Plus
        } else if self.has_capability("LITERAL-") {
            Literals::UpTo4096
        } else {
            Literals::Synchronising
        }
    }

    fn learn_capabilities(&mut self, status: &Status) {
        if let Some(capabilities) = status.code_named("CAPABILITY") {
            self.remember(capabilities);
        }
    }

    fn remember(&mut self, capabilities: &[u8]) {
        let whole = match capabilities.get(..=MAX_CAPABILITIES) {
            None => capabilities,
            Some(start) => start.rsplitn(2, |&octet| octet == b' ').nth(1).unwrap_or_default(),
        };
        self.capabilities = Bytes::copy_from_slice(whole);
    }

    /// A line that begins with `* `.
    fn untagged(&mut self, frame: &[u8], pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let text = frame.get(2..).unwrap_or_default();
        let status = Status::parse(text);
        if matches!(pending.awaiting(), Some(Asked::Greeting)) {
            let status = status.filter(|status| matches!(status.condition(), Condition::Ok | Condition::PreAuth));
            let status = status.ok_or(Fault::GreetingRefused)?;
            self.learn_capabilities(&status);
            // It was asked before that was known; better no connection than a password that everybody reads.
            let is_login = |asked| matches!(asked, Asked::Request { note: Note(Noted::Login), .. });
            let is_starttls = |asked| matches!(asked, Asked::Request { note: Note(Noted::StartTls), .. });
            if self.has_capability(LOGINDISABLED) && pending.hidden().any(is_login)
                || status.condition() == Condition::PreAuth && pending.hidden().any(is_starttls)
            {
                return Err(Fault::GreetingRefused);
            }
            self.greeting = Some(status);
            return Ok(Decoded::Greeting);
        }
        let Some(status) = status else { return self.data(frame) };
        self.learn_capabilities(&status);
        Ok(match status.condition() {
            Condition::Ok if status.code().is_none() && status.text().eq_ignore_ascii_case(b"Still here") => {
                Decoded::Nothing
            }
            Condition::Bye => {
                self.bye = Some(status.clone());
                Decoded::Notification(Notification::Bye(status))
            }
            Condition::Ok | Condition::No | Condition::Bad | Condition::PreAuth => {
                Decoded::Notification(Notification::Status(status))
            }
        })
    }

    /// Adds to the data that are being read.
    fn keep(&mut self, parts: &[&[u8]]) {
        let (kept, more) = (self.line.len(), parts.iter().map(|part| part.len()).sum());
        if self.line.capacity() - kept < more {
            // With what comes in the same read as the end of a large literal, since the buffer that it came in is still there;
            // and half as much again as there is, so that what comes in many parts is seldom copied.
            let room = if kept == 0 { more } else { (more + more.min(READ)).max(kept / 2) };
            self.line.reserve_exact(room);
        }
        parts.iter().for_each(|part| self.line.extend_from_slice(part));
    }

    /// A line of data, or a part of one.
    fn data(&mut self, frame: &[u8]) -> Result<Decoded<Self>, Fault> {
        self.keep(&[frame, b"\r\n"]);
        if let Some(octets) = announced(frame)? {
            return Ok(Decoded::More { raw: Some(octets) });
        }
        let mut line = mem::take(&mut self.line);
        if line.capacity() - line.len() > line.len() / 8 {
            line.shrink_to_fit();
        }
        let notification = Notification::data(line.into());
        if let Notification::Other(data) = &notification {
            let (word, rest) = split(data);
            if word.eq_ignore_ascii_case(b"CAPABILITY") {
                self.remember(rest);
            }
        }
        Ok(Decoded::Notification(notification))
    }

    fn tagged(&mut self, tag: &[u8], text: &[u8], pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        let status = Status::parse(text).ok_or(Fault::Violation("a tagged answer is OK, NO or BAD"))?;
        let refused = match status.condition() {
            Condition::Ok => false,
            Condition::No | Condition::Bad => true,
            Condition::Bye | Condition::PreAuth => return Err(Fault::Violation("a tagged answer is OK, NO or BAD")),
        };
        if refused && tag.eq_ignore_ascii_case(b"DONE") {
            // It crossed the end of the IDLE, and was taken for a tag.
            return Ok(Decoded::Nothing);
        }
        if refused && !tag.is_empty() && tag == self.stray {
            // Likewise, the end of a login.
            self.stray = Vec::new();
            return Ok(Decoded::Nothing);
        }
        let number = tag.strip_prefix(b"A").filter(|digits| !digits.starts_with(b"0")).and_then(decimal);
        let id = number.map(RequestId::from_wire).ok_or(Fault::Violation("a tag that is not ours"))?;
        if matches!(pending.inside(), Some(Asked::Enter { id: inside, .. }) if inside == id) {
            return Ok(Decoded::Ended { refusal: refused.then_some(status) });
        }
        match pending.get(id) {
            Some(Asked::Request { note, .. }) => {
                if matches!(note.0, Noted::Authenticate { .. }) {
                    let last = self.dialogue.take().map(Dialogue::into_last);
                    self.stray = last.filter(|_| refused).unwrap_or_default();
                }
                if note.0 == Noted::StartTls && !refused {
                    *self = Imap::new();
                } else {
                    self.learn_capabilities(&status);
                }
            }
            Some(Asked::Enter { .. }) if !refused => {
                return Err(Fault::Violation("IDLE is confirmed by + before it is answered"));
            }
            // For the machine to say.
            _ => {}
        }
        Ok(if refused { Decoded::Refused { id, refusal: status } } else { Decoded::reply(id, status) })
    }

    /// `+`: the rest of a request may be sent, or the mode was entered.
    fn go_on(&mut self, text: &[u8], pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        match pending.continuation().map(|id| pending.get(id)) {
            Some(Some(Asked::Request { note: Note(Noted::Authenticate { responder, begun }), .. })) => {
                let response = self.dialogue.get_or_insert_default().respond(responder, *begun, text)?;
                Ok(Decoded::Respond { response })
            }
            Some(_) => Ok(Decoded::Continue),
            None => Ok(Decoded::Entered),
        }
    }
}

/// How many octets follow a line of data. (RFC 3501 section 4.3)
fn announced(line: &[u8]) -> Result<Option<u64>, Fault> {
    let Some(line) = line.strip_suffix(b"}") else { return Ok(None) };
    let digits = line.rsplit(|&octet| octet == b'{').next().filter(|digits| digits.len() < line.len());
    match digits {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            crate::protocol::length(digits, "a literal has a length").map(Some)
        }
        _ => Ok(None),
    }
}

/// What is being read, and secrets, are counted, not shown.
impl fmt::Debug for Imap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("greeting", &self.greeting)
            .field("bye", &self.bye)
            .field("capabilities", &self.capabilities)
            .field("line", &self.line.len())
            .field("dialogue", &self.dialogue)
            .finish_non_exhaustive()
    }
}

impl Protocol for Imap {
    type Request = Command;
    type Subscription = ();
    type Reply = Status;
    type Refusal = Status;
    type Notification = Notification;
    type Note = Note;

    const TERMINATOR: Terminator = Terminator::CrLf;

    const LIMITS: Limits = Limits::new()
        // The answer to a SEARCH is one line, of eight octets for each message that is found. (Python's imaplib had to
        // allow 1,000,000.)
        .with_line(1024 * 1024)
        // The largest message that is anywhere usual: 50 MB is what Gmail takes. What is larger is fetched in parts,
        // `BODY.PEEK[]<0.1048576>`.
        .with_answer(64 * 1024 * 1024)
        // As large a message can be appended.
        .with_output(64 * 1024 * 1024);

    const TIMEOUTS: Timeouts = TIMEOUTS;

    const GREETING: bool = true;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::ByEnter }
    }

    fn changes_stream(&self, note: &Note) -> bool {
        note.0 == Noted::StartTls
    }

    fn encode_request(&self, id: RequestId, command: &Command, out: &mut Encoder<'_>) -> Result<Note, Invalid> {
        tag(id, out);
        command.encode(self, out).map(Note)
    }

    fn encode_enter(&self, id: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<Note, Invalid> {
        tag(id, out);
        out.put(b"IDLE\r\n");
        Ok(Note(Noted::Plain))
    }

    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Note {
        out.put(b"DONE\r\n");
        Note(Noted::Plain)
    }

    fn encode_probe(&self, id: RequestId, setting: Setting, out: &mut Encoder<'_>) -> Option<Note> {
        (setting == Setting::Normal).then(|| {
            tag(id, out);
            out.put(b"NOOP\r\n");
            Note(Noted::Plain)
        })
    }

    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        if frame.is_raw() {
            self.keep(&[frame]);
            return Ok(Decoded::More { raw: None });
        }
        if !self.line.is_empty() {
            return self.data(frame);
        }
        match split(frame) {
            (b"*", _) => self.untagged(frame, pending),
            (b"+", text) => self.go_on(text, pending),
            (tag, text) => self.tagged(tag, text, pending),
        }
    }
}

/// RFC 3501 section 6.2.3.
const LOGINDISABLED: &str = "LOGINDISABLED";

fn tag(id: RequestId, out: &mut Encoder<'_>) {
    out.put(format!("A{} ", id.get()).as_bytes());
}

/// What the answer to a request means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Note(Noted);
