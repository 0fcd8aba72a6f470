//! What an IMAP server says, as far as the machine must understand it: the rest is for a parser.

use super::Imap;
use crate::Protocol;
use crate::text::OneLine;
use bytes::Bytes;
use core::{error, fmt, ops, str};
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder;
use imap_codec::imap_types::fetch::MessageDataItem;
use imap_codec::imap_types::response::{self, Response};

/// The first word of a status response. (RFC 3501 section 7.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// It was done; untagged, information.
    Ok,
    /// It was not done; untagged, a warning.
    No,
    /// It was not understood, or is not allowed here; untagged, something was not.
    Bad,
    /// The server is about to close the connection, or, as greeting, refuses it.
    Bye,
    /// The greeting of a server to which the client is logged in already.
    PreAuth,
}

impl Condition {
    const ALL: [(&'static str, Condition); 5] = [
        ("OK", Condition::Ok),
        ("NO", Condition::No),
        ("BAD", Condition::Bad),
        ("BYE", Condition::Bye),
        ("PREAUTH", Condition::PreAuth),
    ];

    fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes())).map(|(_, condition)| *condition)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::ALL.iter().filter(|(_, condition)| condition == self).try_for_each(|(name, _)| f.write_str(name))
    }
}

/// A status response, `OK [READ-WRITE] Select completed`, tagged or not. (RFC 3501 section 7.1)
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Status {
    condition: Condition,
    /// What follows that word and a space.
    rest: Bytes,
}

impl Status {
    /// What follows a tag or `* `, if it is a status response. It is copied, so that it keeps nothing alive.
    pub(super) fn parse(text: &[u8]) -> Option<Status> {
        let (word, rest) = split(text);
        Some(Status { condition: Condition::parse(word)?, rest: Bytes::copy_from_slice(rest) })
    }

    /// Whether it was done, or what else is the matter.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.condition
    }

    /// What is between the brackets, `READ-WRITE`, `UIDVALIDITY 3857529045`, `AUTHENTICATIONFAILED`: for programs.
    #[must_use]
    pub fn code(&self) -> Option<&[u8]> {
        Some(self.split_code()?.0)
    }

    /// What the code named `name` says beside its name; empty if that is all.
    #[must_use]
    pub fn code_named(&self, name: &str) -> Option<&[u8]> {
        let (word, rest) = split(self.code()?);
        word.eq_ignore_ascii_case(name.as_bytes()).then_some(rest)
    }

    /// Likewise, as a number: `UIDNEXT`, `UIDVALIDITY`, `UNSEEN`, `HIGHESTMODSEQ`.
    #[must_use]
    pub fn code_number(&self, name: &str) -> Option<u64> {
        decimal(self.code_named(name)?)
    }

    /// What is behind the code: for people.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match self.split_code() {
            Some((_, text)) => text.strip_prefix(b" ").unwrap_or(text),
            None => &self.rest,
        }
    }

    fn split_code(&self) -> Option<(&[u8], &[u8])> {
        let code = self.rest.strip_prefix(b"[")?;
        let end = code.iter().position(|&octet| octet == b']')?;
        Some((code.get(..end)?, code.get(end + 1..)?))
    }
}

/// On one line, with controls escaped, whatever the server has put into it.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)?;
        if self.rest.is_empty() {
            return Ok(());
        }
        write!(f, " {}", OneLine(&self.rest))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({}", self.condition)?;
        if !self.rest.is_empty() {
            f.write_str(" ")?;
            show(&self.rest, f)?;
        }
        f.write_str(")")
    }
}

impl error::Error for Status {}

/// Octets of a `FETCH`, literals aside, that are parsed, at most: enough for the addresses of ten thousand people. What
/// may be made of so many stays within [`Limits::answer`](crate::Limits::answer) of IMAP.
pub const MAX_FETCH: usize = 256 * 1024;

/// Untagged data, as they came: one logical line, with the octets that it announced. Derefs to what is behind `* `.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Data {
    /// From `* ` to CR LF.
    line: Bytes,
}

impl Data {
    pub(super) fn new(line: Bytes) -> Self {
        Data { line }
    }

    /// What it says, by `imap_codec`. Literals are not copied; what is made of the rest may take a hundred times its
    /// octets, if a server means harm.
    ///
    /// # Errors
    /// It is not of IMAP4rev1 or the extensions that `imap_codec` knows; or, literals aside, it is longer than a line may
    /// be by default, or in a `FETCH` than [`MAX_FETCH`]. The octets are still here.
    pub fn parse(&self) -> Result<response::Data<'_>, Unparsed> {
        let (_, rest) = split(self);
        let is_fetch = split(rest).0.eq_ignore_ascii_case(b"FETCH");
        let most = if is_fetch { MAX_FETCH } else { Imap::LIMITS.line + b"\r\n".len() };
        if self.octets_of_syntax() > most {
            return Err(Unparsed);
        }
        match ResponseCodec::default().decode(&self.line) {
            Ok(([], Response::Data(data))) => Ok(data),
            _ => Err(Unparsed),
        }
    }

    /// All but those of literals.
    fn octets_of_syntax(&self) -> usize {
        let (mut rest, mut syntax) = (&self.line[..], 0);
        while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
            let (line, behind) = rest.split_at(end);
            let literal = super::announced(line).ok().flatten().and_then(|octets| usize::try_from(octets).ok());
            syntax += end + 2;
            rest = behind.get(2 + literal.unwrap_or(0)..).unwrap_or_default();
        }
        syntax
    }

    /// The items of `FETCH`, all of which are read at once.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); or these are other data.
    pub fn items(&self) -> Result<impl Iterator<Item = MessageDataItem<'_>>, Unparsed> {
        match self.parse()? {
            response::Data::Fetch { items, .. } => Ok(items.into_iter()),
            _ => Err(Unparsed),
        }
    }
}

impl ops::Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let line = self.line.strip_suffix(b"\r\n").unwrap_or(&self.line);
        line.strip_prefix(b"* ").unwrap_or(line)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Data(")?;
        show(self, f)?;
        f.write_str(")")
    }
}

/// Without quotes around it, so that those in it are no trouble.
fn show(octets: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut pieces = octets.split_inclusive(|octet| matches!(octet, b'"' | b'\''));
    pieces.try_for_each(|piece| match piece.split_last() {
        Some((quote @ (b'"' | b'\''), before)) => write!(f, "{}{}", before.escape_ascii(), char::from(*quote)),
        _ => write!(f, "{}", piece.escape_ascii()),
    })
}

/// Data that `imap_codec` does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unparsed;

impl fmt::Display for Unparsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data that are not understood")
    }
}

impl error::Error for Unparsed {}

/// What the server says without being waited for, or as data for a request: in this order, whoever waits. (RFC 3501
/// section 7: "The client MUST be prepared to accept any response at all times.")
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notification {
    /// `* 4 EXISTS`: so many messages are in the mailbox.
    Exists(u32),
    /// `* 1 RECENT`: so many of them have come since it was last selected by anybody.
    Recent(u32),
    /// `* 2 EXPUNGE`: this message is gone, and the numbers of those behind it are one less from here on.
    Expunge(u32),
    /// `* 3 FETCH (FLAGS (\Seen))`: what was asked about this message, or what somebody has changed.
    Fetch {
        /// The message's number.
        message: u32,
        /// All of it, see [`Data::items`].
        data: Data,
    },
    /// `* OK`, `* NO`, `* BAD`. (`* OK Still here`, which Dovecot says to show that it lives, is not told.)
    Status(Status),
    /// `* BYE`: the server will close the connection. It comes after a LOGOUT, too.
    Bye(Status),
    /// Other data.
    Other(Data),
}

impl Notification {
    /// A whole logical line, from `* ` to CR LF, that is no status response.
    pub(super) fn data(line: Bytes) -> Self {
        let data = Data::new(line);
        let (number, rest) = split(&data);
        let (word, _) = split(rest);
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        match decimal(number) {
            Some(number) if is("EXISTS") => Notification::Exists(number),
            Some(number) if is("RECENT") => Notification::Recent(number),
            Some(number) if is("EXPUNGE") => Notification::Expunge(number),
            Some(message) if is("FETCH") => Notification::Fetch { message, data },
            _ => Notification::Other(data),
        }
    }
}

/// The first word, and what is behind the space after it.
pub(super) fn split(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|&octet| octet == b' ') {
        Some(space) => (text.get(..space).unwrap_or_default(), text.get(space + 1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

/// Digits, and nothing else.
pub(super) fn decimal<N: str::FromStr>(digits: &[u8]) -> Option<N> {
    str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?.parse().ok()
}
