//! What an IMAP server is asked.

use super::sasl::{Responder, Shared};
use super::{Imap, LOGINDISABLED};
use crate::text::show_command;
use crate::{Encoder, Invalid};
use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::fmt;

/// A command and its arguments. Its tag is written by the machine: `A` and the number of its
/// [`RequestId`](crate::RequestId).
///
/// `IDLE` and `DONE` are [`enter`](crate::ClientState::enter) and [`leave`](crate::ClientState::leave), and are refused
/// here, as are `COMPRESS`, and `AUTHENTICATE` without a [`Responder`].
///
/// Names of mailboxes are those on the wire: other letters than ASCII's are in modified UTF-7 (RFC 3501 section 5.1.3).
///
/// ```
/// use sonnette::{ClientState, imap::{Command, Imap}};
///
/// let mut state = ClientState::new(Imap::new());
/// state.receive(b"* OK ready\r\n");
/// state.poll_event()?;
/// state.request(Command::login("alice", r#"pass "word""#)).unwrap();
/// state.request(Command::new("STATUS").arg("Sent Items").syntax("(MESSAGES UNSEEN)")).unwrap();
/// state.request(Command::search("CHARSET UTF-8 SUBJECT").arg("Grüße")).unwrap();
/// // The last one has to wait for the server, since it holds what fits no quotes.
/// assert_eq!(
///     str::from_utf8(state.output())?,
///     concat!(
///         "A2 LOGIN alice \"pass \\\"word\\\"\"\r\n",
///         "A3 STATUS \"Sent Items\" (MESSAGES UNSEEN)\r\n",
///         "A4 SEARCH CHARSET UTF-8 SUBJECT {7}\r\n",
///     )
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Command {
    name: String,
    arguments: Vec<Argument>,
    responder: Option<Shared>,
    synchronising: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Argument {
    /// As it is.
    Syntax(Vec<u8>),
    /// One string: as an atom, quoted, or as a literal.
    Text(Vec<u8>),
    /// Strings in parentheses.
    List(Vec<Vec<u8>>),
    Literal(Vec<u8>),
}

/// How literals are sent: what the server is known to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Literals {
    /// Each waits for the server. (RFC 3501 section 4.3)
    Synchronising,
    /// Those of at most 4,096 octets do not. (LITERAL-, RFC 7888 section 5)
    UpTo4096,
    /// None does. (LITERAL+, RFC 7888 section 3)
    Plus,
}

/// What the answer means beside being one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Noted {
    Plain,
    Login,
    StartTls,
    Authenticate {
        responder: Shared,
        /// The initial response went out with it.
        begun: bool,
    },
}

const LOGIN: &str = "LOGIN";

impl Command {
    /// A command without arguments: `NOOP`, or with `UID` in front of it, `UID COPY`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Command { name: name.into(), arguments: Vec::new(), responder: None, synchronising: false }
    }

    /// With one more argument, which is a string (`astring`): of any octets but NUL. It is quoted if it has to be; what
    /// fits no quotes (CR, LF, octets above 127) is sent as a literal.
    #[must_use]
    pub fn arg(self, text: impl AsRef<[u8]>) -> Self {
        self.with(Argument::Text(text.as_ref().to_owned()))
    }

    /// With one more argument, or several, as they are on the wire: numbers of messages, items, flags, keys of a search:
    /// `1:* (UID FLAGS)`. It cannot hold a literal; strings of others' making are for [`arg`](Self::arg).
    #[must_use]
    pub fn syntax(self, words: impl AsRef<[u8]>) -> Self {
        self.with(Argument::Syntax(words.as_ref().to_owned()))
    }

    /// With one more argument, strings in parentheses. (RFC 3501 section 4.4)
    #[must_use]
    pub fn parenthesized(self, texts: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        self.with(Argument::List(texts.into_iter().map(|text| text.as_ref().to_owned()).collect()))
    }

    /// With one more argument as a literal, any octets but NUL. It waits for the server's go-ahead, unless that is
    /// known to need none.
    #[must_use]
    pub fn literal(self, octets: impl Into<Vec<u8>>) -> Self {
        self.with(Argument::Literal(octets.into()))
    }

    /// Has its literals wait for the server also where it need not be waited for: so that a large one which is refused
    /// is not sent in vain.
    #[must_use]
    pub fn synchronising(mut self) -> Self {
        self.synchronising = true;
        self
    }

    fn with(mut self, argument: Argument) -> Self {
        self.arguments.push(argument);
        self
    }

    /// `CAPABILITY`: the answer is remembered, see [`Imap::capabilities`](super::Imap::capabilities).
    #[must_use]
    pub fn capability() -> Self {
        Command::new("CAPABILITY")
    }

    /// `NOOP`: asks for nothing, and gives the server an opportunity to tell what has changed.
    #[must_use]
    pub fn noop() -> Self {
        Command::new("NOOP")
    }

    /// `LOGOUT`: the server says [`Bye`](super::Notification::Bye), answers, and closes the connection.
    #[must_use]
    pub fn logout() -> Self {
        Command::new("LOGOUT")
    }

    /// `STARTTLS`: after its answer nothing can be asked before the stream has been changed, see
    /// [`ClientState::stream_changed`](crate::ClientState::stream_changed). It must be asked alone, and not by who is logged in
    /// already. (RFC 3501 section 6.2.1)
    #[must_use]
    pub fn starttls() -> Self {
        Command::new(STARTTLS)
    }

    /// `LOGIN`: over TLS alone. It is not sent if the server is known to forbid it (`LOGINDISABLED`): then it is
    /// refused here, or, if it was asked before the greeting said so, the connection ends with
    /// [`Error::GreetingRefused`](crate::Error::GreetingRefused).
    #[must_use]
    pub fn login(user: impl AsRef<[u8]>, password: impl AsRef<[u8]>) -> Self {
        Command::new(LOGIN).arg(user).arg(password)
    }

    /// `AUTHENTICATE`: by a mechanism of SASL, [`Plain`](super::Plain), [`XOAuth2`](super::XOAuth2) or one of your own.
    #[must_use]
    pub fn authenticate(responder: impl Responder + 'static) -> Self {
        Command { responder: Some(Shared::new(responder)), ..Command::new(AUTHENTICATE) }
    }

    /// `SELECT`: goes into a mailbox.
    #[must_use]
    pub fn select(mailbox: impl AsRef<[u8]>) -> Self {
        Command::new("SELECT").arg(mailbox)
    }

    /// `EXAMINE`: goes into a mailbox, to read alone.
    #[must_use]
    pub fn examine(mailbox: impl AsRef<[u8]>) -> Self {
        Command::new("EXAMINE").arg(mailbox)
    }

    /// `FETCH 1:* (UID FLAGS)`: items of these messages, which come as [`Fetch`](super::Notification::Fetch).
    #[must_use]
    pub fn fetch(messages: impl AsRef<[u8]>, items: impl AsRef<[u8]>) -> Self {
        Command::new("FETCH").syntax(messages).syntax(items)
    }

    /// `UID FETCH`: likewise, by unique identifiers.
    #[must_use]
    pub fn uid_fetch(messages: impl AsRef<[u8]>, items: impl AsRef<[u8]>) -> Self {
        Command::new("UID FETCH").syntax(messages).syntax(items)
    }

    /// `STORE 1 +FLAGS (\Seen)`: changes flags.
    #[must_use]
    pub fn store(messages: impl AsRef<[u8]>, flags: impl AsRef<[u8]>) -> Self {
        Command::new("STORE").syntax(messages).syntax(flags)
    }

    /// `UID STORE`: likewise, by unique identifiers.
    #[must_use]
    pub fn uid_store(messages: impl AsRef<[u8]>, flags: impl AsRef<[u8]>) -> Self {
        Command::new("UID STORE").syntax(messages).syntax(flags)
    }

    /// `SEARCH UNSEEN`: the numbers of messages, in [`Other`](super::Notification::Other). Strings follow by
    /// [`arg`](Self::arg).
    #[must_use]
    pub fn search(keys: impl AsRef<[u8]>) -> Self {
        Command::new("SEARCH").syntax(keys)
    }

    /// `UID SEARCH`: likewise, their unique identifiers.
    #[must_use]
    pub fn uid_search(keys: impl AsRef<[u8]>) -> Self {
        Command::new("UID SEARCH").syntax(keys)
    }

    /// `APPEND`: puts a message into a mailbox.
    #[must_use]
    pub fn append(mailbox: impl AsRef<[u8]>, flags: impl AsRef<[u8]>, message: impl Into<Vec<u8>>) -> Self {
        let append = Command::new("APPEND").arg(mailbox);
        let flags = flags.as_ref();
        if flags.is_empty() { append } else { append.syntax(flags) }.literal(message)
    }

    /// Without its tag. What the server can do is looked up where it matters.
    pub(super) fn encode(&self, server: &Imap, out: &mut Encoder<'_>) -> Result<Noted, Invalid> {
        let is = |name: &str| self.name.eq_ignore_ascii_case(name);
        // One word: with a second one it would be another command than it is taken for.
        let word = match self.name.split_once(' ') {
            Some((uid, word)) if uid.eq_ignore_ascii_case("UID") => word,
            _ => &self.name,
        };
        if word.is_empty() || !word.bytes().all(is_atom) {
            return Err(Invalid::new("not a command's name"));
        }
        if is("IDLE") || is("DONE") {
            return Err(Invalid::new("IDLE is entered and left, not requested"));
        }
        if is("COMPRESS") {
            return Err(Invalid::new("compression is not spoken"));
        }
        if is(LOGIN) && server.has_capability(LOGINDISABLED) {
            return Err(Invalid::new("the server forbids LOGIN here"));
        }
        if is(AUTHENTICATE) != self.responder.is_some() {
            return Err(Invalid::new("AUTHENTICATE is asked with a responder"));
        }
        if is(STARTTLS) && server.is_preauthenticated() {
            return Err(Invalid::new("who is logged in cannot change the stream"));
        }
        if (is(STARTTLS) || is(AUTHENTICATE)) && !self.arguments.is_empty() {
            return Err(Invalid::new("it has no arguments"));
        }
        out.put(self.name.as_bytes());
        if let Some(responder) = &self.responder {
            let begun = responder.encode(server.has_capability("SASL-IR"), out)?;
            out.put(b"\r\n");
            out.await_continuation();
            return Ok(Noted::Authenticate { responder: responder.clone(), begun });
        }
        let literals =
            if self.synchronising || self.arguments.is_empty() { Literals::Synchronising } else { server.literals() };
        for argument in &self.arguments {
            out.put(b" ");
            match argument {
                Argument::Syntax(words) => {
                    if words.contains(&b'{') {
                        return Err(Invalid::new("a literal, or what looks like one, in syntax"));
                    }
                    out.put_text(words)?;
                }
                Argument::Text(text) => encode_text(text, literals, out)?,
                Argument::Literal(octets) => encode_literal(octets, literals, out)?,
                Argument::List(texts) => {
                    out.put(b"(");
                    for (at, text) in texts.iter().enumerate() {
                        if at > 0 {
                            out.put(b" ");
                        }
                        encode_text(text, literals, out)?;
                    }
                    out.put(b")");
                }
            }
        }
        out.put(b"\r\n");
        Ok(if is(STARTTLS) {
            Noted::StartTls
        } else if is(LOGIN) {
            Noted::Login
        } else {
            Noted::Plain
        })
    }
}

const STARTTLS: &str = "STARTTLS";
const AUTHENTICATE: &str = "AUTHENTICATE";

/// RFC 3501 section 9, `ATOM-CHAR`.
fn is_atom(octet: u8) -> bool {
    octet.is_ascii_graphic() && !matches!(octet, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// Quoted strings longer than this are sent as literals: servers may read lines of 8,000 octets only, and clients should
/// send about 1,000. (RFC 2683 section 3.2.1.5)
const LONGEST_QUOTED: usize = 1_000;

/// RFC 3501 section 9, `astring`.
fn encode_text(text: &[u8], literals: Literals, out: &mut Encoder<'_>) -> Result<(), Invalid> {
    // An atom of this name means that there is no string.
    let is_nil = text.eq_ignore_ascii_case(b"NIL");
    if text.len() > LONGEST_QUOTED || !text.iter().all(|octet| matches!(octet, 1..=127) && !b"\r\n".contains(octet)) {
        return encode_literal(text, literals, out);
    }
    if !text.is_empty() && !is_nil && text.iter().all(|&octet| is_atom(octet) || octet == b']') {
        out.put(text);
        return Ok(());
    }
    out.put_quoted(text)
}

fn encode_literal(octets: &[u8], literals: Literals, out: &mut Encoder<'_>) -> Result<(), Invalid> {
    if octets.contains(&0) {
        return Err(Invalid::new("a NUL in a literal"));
    }
    let waits = match literals {
        Literals::Synchronising => true,
        Literals::UpTo4096 => octets.len() > 4_096,
        Literals::Plus => false,
    };
    out.put(format!("{{{}{}}}\r\n", octets.len(), if waits { "" } else { "+" }).as_bytes());
    if waits {
        out.await_continuation();
    }
    out.put(octets);
    Ok(())
}

/// Arguments may be secrets: only their number is shown.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is behind a space may have been meant for an argument.
        let name = self.name.split(' ').find(|word| !word.eq_ignore_ascii_case("UID")).unwrap_or_default();
        let name = Some(name.as_bytes()).filter(|name| !name.is_empty() && name.iter().copied().all(is_atom));
        show_command(name, self.arguments.len(), f)
    }
}
