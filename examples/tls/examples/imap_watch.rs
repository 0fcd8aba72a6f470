//! Watches a mailbox: says how many messages there are, and from whom and about what each new one is.
//!
//! `cargo run --example imap_watch -- imap://USER@HOST[:PORT][/MAILBOX] [--count N] [--ca FILE]`
//!
//! `imaps://` is TLS from the start, `imap+starttls://` after the greeting: then the server's certificate must be one
//! that the platform trusts, or with `--ca` one that the certificates in FILE vouch for, and must be made for HOST. The
//! password is that in the environment variable `IMAP_PASSWORD`. USER and MAILBOX (`INBOX`, if there is none) may be
//! percent-encoded.
//!
//! Standard output has one line per fact; everything else goes to standard error.

#[path = "../../support/print.rs"]
#[allow(dead_code, reason = "it has no lines without a name")]
mod print;

use clap::Parser;
use print::{Stop, printable, say};
use sonnette::imap::imap_types::core::NString;
use sonnette::imap::imap_types::envelope::{Address, Envelope};
use sonnette::imap::imap_types::fetch::MessageDataItem;
use sonnette::imap::{Command, Condition, Data, Imap, Notification, Plain, Status};
use sonnette_std::{Client, Error};
use sonnette_tls::{Stream, Url, client_config, exit, password, server};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(
    name = "imap_watch",
    about = "Watches a mailbox: says how many messages there are, and from whom and about what each new one is. The password \
             is that in the environment variable IMAP_PASSWORD."
)]
struct Options {
    /// imap://USER@HOST[:PORT][/MAILBOX], imaps:// for TLS, or imap+starttls:// for TLS after the greeting
    #[arg(value_name = "URL")]
    server: String,
    /// Stop after so many new messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Trust these certificates (PEM) instead of those of the platform
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    tls: Tls,
    user: String,
    host: String,
    port: u16,
    mailbox: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    None,
    AtOnce,
    AfterGreeting,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let wrong = |why| {
            let form =
                "imap://USER@HOST[:PORT][/MAILBOX], imaps:// or imap+starttls://, with the password in IMAP_PASSWORD";
            format!("it must be {form}: {why}")
        };
        let url: Url = text.parse().map_err(wrong)?;
        // RFC 8314 section 3.2: 993 is TLS.
        let (tls, port) = match &*url.scheme {
            "imap" => (Tls::None, 143),
            "imaps" => (Tls::AtOnce, 993),
            "imap+starttls" => (Tls::AfterGreeting, 143),
            _ => return Err(wrong("another scheme")),
        };
        let user = url.user.filter(|user| !user.is_empty()).ok_or_else(|| wrong("no user"))?;
        let mailbox = if url.path.is_empty() { "INBOX".into() } else { url.path };
        Ok(Server { tls, user, host: url.host, port: url.port.unwrap_or(port), mailbox })
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    exit("imap_watch", watch(&server::<Options, _>(&options.server), &options))
}

fn watch(server: &Server, options: &Options) -> Result<()> {
    let Server { tls, user, host, port, mailbox } = server;
    let password = password("IMAP_PASSWORD")?.ok_or("IMAP_PASSWORD: not set")?;
    let mut stream =
        Stream::connect(host, *port).map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    if *tls == Tls::AtOnce {
        stream = stream.encrypt(host, client_config(options.ca.as_deref())?)?;
    }
    let interrupter = stream.socket().interrupter();
    ctrlc::set_handler(move || interrupter.interrupt())?;
    let mut client = Client::new(Imap::new(), stream);
    if *tls == Tls::AfterGreeting {
        match client.call(Command::starttls()) {
            Err(Error::Interrupted { .. }) => {
                interrupted();
                return Ok(());
            }
            granted => ended(granted.map(drop))?,
        }
        // What was said in the clear is not to be trusted.
        let (mut state, stream, _) = client.into_parts();
        state.stream_changed()?;
        client = Client::with_state(state, stream.encrypt(host, client_config(options.ca.as_deref())?)?);
    }
    let watched = session(&mut client, (user, &password), mailbox, options.count);
    if let (Err(Stop::Client(Error::Ended(_) | Error::Lost { .. })), Some(bye)) =
        (&watched, client.state().protocol().bye())
    {
        return Err(format!("the server closed the connection: {}", printable(bye.text())).into());
    }
    if matches!(watched, Err(Stop::Client(Error::Interrupted { .. }))) {
        interrupted();
    }
    ended(watched)?;
    ended(client.leave())?;
    // Its answer is not waited for.
    if client.start(Command::logout()).is_ok() {
        ended(client.flush())?;
    }
    let (_, stream, _) = client.into_parts();
    stream.close();
    Ok(())
}

/// Nobody may be reading it.
fn interrupted() {
    let _ = writeln!(io::stderr(), "imap_watch: interrupted, leaving");
}

type Session<T> = std::result::Result<T, Stop<Status>>;

fn session(
    client: &mut Client<Imap, Stream>,
    (user, password): (&str, &str),
    mailbox: &str,
    count: Option<NonZeroU64>,
) -> Session<()> {
    log_in(client, user, password)?;
    let mut mailbox = select(client, mailbox)?;
    say("exists", mailbox.messages)?;
    client.enter(())?;
    // For mail there is no hurry.
    client.stream_mut().wait_for_ever()?;
    let mut left = count.map(NonZeroU64::get);
    if mailbox.rung {
        mailbox.fetch(client, &mut left)?;
    }
    while left != Some(0) {
        match client.next_notification()? {
            Some(Notification::Exists(messages)) => {
                say("exists", messages)?;
                mailbox.fetch(client, &mut left)?;
            }
            Some(_) => {}
            // Few servers end the mode by themselves.
            None => drop(client.enter(())?),
        }
    }
    Ok(())
}

/// Once it is known what the server can do.
fn log_in(client: &mut Client<Imap, Stream>, user: &str, password: &str) -> Session<()> {
    client.call(Command::capability())?;
    if client.state().protocol().greeting().is_some_and(|greeting| greeting.condition() == Condition::PreAuth) {
        return Ok(());
    }
    let login = if client.state().protocol().has_capability("AUTH=PLAIN") {
        Command::authenticate(Plain::new(user, password))
    } else {
        Command::login(user, password)
    };
    client.call(login)?;
    Ok(())
}

struct Mailbox {
    messages: u32,
    /// The least unique identifier that a new message can have.
    next: u64,
    /// There was more while it was looked into.
    rung: bool,
}

fn select(client: &mut Client<Imap, Stream>, name: &str) -> Session<Mailbox> {
    let (mut messages, mut next) = (0, None);
    client.call_with(Command::select(name), |notification| match notification {
        Notification::Exists(number) => messages = number,
        Notification::Status(status) => next = status.code_number("UIDNEXT").or(next),
        _ => {}
    })?;
    let mut mailbox = Mailbox { messages, next: next.unwrap_or(1).max(1), rung: false };
    if next.is_none() && messages > 0 {
        // A server need not say what comes next, but has to say what is there.
        client.call_with(Command::fetch("*", "(UID)"), |notification| match notification {
            Notification::Exists(_) => mailbox.rung = true,
            Notification::Fetch { data, .. } => {
                for item in data.items().into_iter().flatten() {
                    if let MessageDataItem::Uid(uid) = item {
                        mailbox.next = mailbox.next.max(u64::from(uid.get()) + 1);
                    }
                }
            }
            _ => {}
        })?;
    }
    Ok(mailbox)
}

impl Mailbox {
    /// Fetches the envelopes of what is new, and says so much of them as `left` lets it.
    fn fetch(&mut self, client: &mut Client<Imap, Stream>, left: &mut Option<u64>) -> Session<()> {
        let mut more = true;
        while more {
            more = false;
            let (mut next, mut said) = (self.next, Ok(()));
            // Leave, ask, enter again: one write, and nothing is lost.
            let envelopes = Command::uid_fetch(format!("{}:*", self.next.min(u32::MAX.into())), "(UID ENVELOPE)");
            client.ring_with(envelopes, |notification| match notification {
                // The range is that of the last message if none is newer.
                Notification::Fetch { data, .. } if said.is_ok() => {
                    if let Some((uid, mail)) = mail(&data).filter(|(uid, _)| *uid >= self.next) {
                        next = next.max(uid + 1);
                        if *left != Some(0) {
                            *left = left.map(|left| left - 1);
                            said = say("mail", mail);
                        }
                    }
                }
                Notification::Exists(messages) if said.is_ok() => {
                    more = true;
                    said = say("exists", messages);
                }
                _ => {}
            })?;
            said?;
            self.next = next;
        }
        Ok(())
    }
}

/// The unique identifier of a message, and `FROM | SUBJECT`, if the data are about that. A message of which neither can be
/// read has come all the same.
fn mail(data: &Data) -> Option<(u64, String)> {
    let Ok(items) = data.items() else { return Some((unread_uid(data)?, "? | ?".into())) };
    let (mut uid, mut mail) = (None, None);
    for item in items {
        match item {
            MessageDataItem::Uid(number) => uid = Some(number.get().into()),
            MessageDataItem::Envelope(Envelope { from, subject, .. }) => {
                let from: Vec<String> = from.iter().filter_map(sender).collect();
                mail = Some(format!("{} | {}", from.join(", "), decoded(&subject)));
            }
            _ => {}
        }
    }
    Some((uid?, mail?))
}

/// That of an envelope which the parser does not understand: it is in front of it, where no text of a message is.
fn unread_uid(data: &Data) -> Option<u64> {
    let at = |octets: &[u8], word: &[u8]| octets.windows(word.len()).position(|window| window == word);
    let before = data.get(..at(data, b"ENVELOPE")?)?;
    let number = before.get(at(before, b"UID ")? + 4..)?;
    str::from_utf8(number.split(|octet| !octet.is_ascii_digit()).next()?).ok()?.parse().ok()
}

/// `NAME <ADDRESS>`, or the address; nothing of what begins and ends a group of addresses.
fn sender(address: &Address<'_>) -> Option<String> {
    address.host.0.as_ref()?;
    let (name, address) = (decoded(&address.name), format!("{}@{}", decoded(&address.mailbox), decoded(&address.host)));
    Some(if name.is_empty() { address } else { format!("{name} <{address}>") })
}

/// With its encoded words decoded, as one printable line.
fn decoded(text: &NString<'_>) -> String {
    let text = text.0.as_ref().map(AsRef::<[u8]>::as_ref).unwrap_or_default();
    let unfolded: Vec<u8> = text.iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect();
    let header = [&b"X: "[..], &unfolded].concat();
    let value = mailparse::parse_header(&header).map(|(header, _)| header.get_value());
    printable(value.as_deref().map_or(&unfolded[..], str::as_bytes))
}

/// Ctrl-C is no failure.
fn ended(end: std::result::Result<(), impl Into<Stop<Status>>>) -> Result<()> {
    match end.map_err(Into::into) {
        Ok(()) | Err(Stop::Client(Error::Interrupted { .. })) => Ok(()),
        Err(Stop::Client(Error::Refused(status))) => Err(format!("the server refused: {status}").into()),
        Err(Stop::Client(error)) => Err(error.into()),
        Err(Stop::Output(error)) => Err(format!("cannot write: {error}").into()),
    }
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used, reason = "tests say what is wrong by panicking")]
mod tests {
    use super::{Server, Tls, mail};
    use sonnette::imap::{Data, Imap, Notification};
    use sonnette::{ClientState, Event};

    #[test]
    fn servers() {
        let server = |tls, user: &str, host: &str, port, mailbox: &str| {
            Ok(Server { tls, user: user.into(), host: host.into(), port, mailbox: mailbox.into() })
        };
        for (text, expected) in [
            ("imap://alice@localhost:1431/INBOX", server(Tls::None, "alice", "localhost", 1431, "INBOX")),
            ("imaps://a%40b@[::1]", server(Tls::AtOnce, "a@b", "::1", 993, "INBOX")),
            ("imap+starttls://a@h/Sent%20Items/2", server(Tls::AfterGreeting, "a", "h", 143, "Sent Items/2")),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", "h", "imap://h", "imap://@h", "pop://a@h", "imap://a@h:x"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
        let wrong = "imap://a:hunter2@h".parse::<Server>().unwrap_err();
        assert!(wrong.contains("password in it") && !wrong.contains("hunter2"), "{wrong}");
    }

    fn data(line: &str) -> Data {
        let mut state = ClientState::new(Imap::new());
        state.receive(format!("* OK ready\r\n{line}\r\n").as_bytes());
        match state.poll_event() {
            Ok(Some(Event::Notification(Notification::Fetch { data, .. }))) => data,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mails() {
        for (from, subject, expected) in [
            (r#"((NIL NIL "bob" "example.org"))"#, r#""hi""#, "bob@example.org | hi"),
            (
                r#"(("=?utf-8?Q?J=C3=BCrgen?= K." NIL "j" "x.de")("B" NIL "b" "c"))"#,
                r#""=?iso-8859-1?Q?Gr=FC=DFe?= =?utf-8?B?4oKs?=""#,
                "Jürgen K. <j@x.de>, B <b@c> | Grüße€",
            ),
            (r#"((NIL NIL "friends" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL))"#, "NIL", "a@b | "),
            ("NIL", "{11}\r\na\r\n b\u{1b}[2J\u{e9}", r" | a b\x1b[2Jé"),
        ] {
            let line = format!("* 1 FETCH (UID 7 ENVELOPE (NIL {subject} {from} NIL NIL NIL NIL NIL NIL NIL))");
            assert_eq!(mail(&data(&line)), Some((7, expected.into())), "{line}");
        }
        assert_eq!(mail(&data(r"* 1 FETCH (FLAGS (\Seen))")), None);
        assert_eq!(mail(&data("* 1 FETCH (X Y)")), None);
        let unread = "* 1 FETCH (UID 9 ENVELOPE (NIL \"ü UID 8\" () NIL NIL NIL NIL NIL NIL NIL))";
        assert_eq!(mail(&data(unread)), Some((9, "? | ?".into())));
    }
}
