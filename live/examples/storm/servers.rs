//! The three servers: what is asked of each, what it tells, and what is known of it from another side.

use sonnette::imap::{self, Imap};
use sonnette::mpd::{self, Ack, Answer, Mpd, Subsystem};
use sonnette::redis::{self, Redis, ServerError, Value};
use sonnette::{Limits, Protocol};
use sonnette_conformance::subject::Subject;
use sonnette_driver::Error;
use sonnette_live::{Maildir, Server};
use sonnette_std::Socket;
use std::fmt::Debug;
use std::fs;
use std::mem;
use std::ops::Range;
use std::time::Duration;

/// What may take longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Outcome<T, P> = Result<T, Error<<P as Protocol>::Refusal>>;

/// A request either changes something that can be looked up later, or is answered by what tells it from all others. Either
/// has a token of its own in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Effect,
    Echo,
}

/// What the storm needs to know of a protocol and its server.
#[allow(async_fn_in_trait, reason = "it is used here alone")]
pub(crate) trait Spoken:
    Protocol<
        Request: Send + Debug,
        Reply: Send + Debug,
        Refusal: Send + Sync + Debug,
        Subscription: Send,
        Notification: Send + Clone + Debug,
        Note: Send,
    > + Default
    + Debug
    + Send
    + 'static
{
    const NAME: &'static str;

    /// Each notification has a number, and none may be missing. Else several may be told as one, by the last number.
    const NUMBERED: bool;

    /// The effects can be seen in the order in which they came.
    const ORDERED: bool;

    /// Requests that are in flight together, as many as the server is quick enough for.
    const IN_FLIGHT: usize;

    fn start() -> Server;

    /// Makes a new session ready to be asked.
    async fn prepare(_: &mut impl Subject<Self>, _: u32) -> Outcome<(), Self> {
        Ok(())
    }

    fn effect(token: &str, padding: usize) -> Self::Request;
    fn echo(token: &str) -> Self::Request;

    /// Whether this answers that request. Of an effect that is [`ORDERED`](Self::ORDERED), its place among all.
    ///
    /// # Errors
    /// It does not.
    fn judge(token: &str, kind: Kind, answer: Result<&Self::Reply, &Self::Refusal>) -> Result<Option<usize>, String>;

    /// How a request begins, before its token.
    fn begin(id: u64, token: &str, kind: Kind) -> String;

    fn subscription(round: u32) -> Self::Subscription;

    /// Has the server tell these numbers to whoever is subscribed. They may still be on their way when this returns.
    fn publish(news: &mut News<Self>, round: u32, numbers: Range<u64>);

    /// The number that a notification tells, if it is one of those published.
    fn number(round: u32, notification: &Self::Notification) -> Option<u64>;

    /// What a notification only announces is asked for by this.
    fn fetch() -> Option<Self::Request> {
        None
    }

    fn fetched(_: u32, _: &Self::Reply) -> Option<u64> {
        None
    }

    /// How many of the notifications that are counted as [`is_counted`](Self::is_counted) are in what the server said.
    fn notifications_in(octets: &[u8]) -> usize;

    fn is_counted(notification: &Self::Notification) -> bool;

    /// The effects of this round, by their tokens.
    fn executed(server: &Server, news: &mut News<Self>, round: u32) -> Vec<String>;

    /// Removes what the round has left on the server.
    fn clean(server: &Server, news: &mut News<Self>, round: u32);
}

/// Who publishes in a round, and looks things up: past the proxy.
pub(crate) struct News<P: Spoken> {
    by: By<P>,
    /// Answers that have not been taken.
    unanswered: usize,
}

enum By<P: Spoken> {
    Client(Box<sonnette_std::Client<P, Socket>>),
    Maildir(Maildir),
}

impl<P: Spoken> News<P> {
    pub(crate) fn new(server: &Server) -> Self {
        let by = if P::NAME == Imap::NAME {
            By::Maildir(server.maildir("alice"))
        } else {
            By::Client(Box::new(connect(server)))
        };
        News { by, unanswered: 0 }
    }

    fn client(&mut self) -> &mut sonnette_std::Client<P, Socket> {
        match &mut self.by {
            By::Client(client) => client,
            By::Maildir(_) => panic!("{} is told by its files", P::NAME),
        }
    }

    fn maildir(&self) -> &Maildir {
        match &self.by {
            By::Maildir(maildir) => maildir,
            By::Client(_) => panic!("{} has no files", P::NAME),
        }
    }

    fn call(&mut self, request: P::Request) -> P::Reply {
        self.settle();
        self.client().call(request).unwrap()
    }

    /// Asks, and sees that it is written: the server may be about to stand still.
    fn start(&mut self, requests: impl Iterator<Item = P::Request>) {
        self.settle();
        for request in requests {
            self.client().start(request).unwrap();
            self.unanswered += 1;
        }
        self.client().flush().unwrap();
    }

    fn settle(&mut self) {
        for _ in 0..mem::take(&mut self.unanswered) {
            self.client().next_event().unwrap();
        }
    }
}

fn connect<P: Spoken>(server: &Server) -> sonnette_std::Client<P, Socket> {
    sonnette_std::Connect::new().read_timeout(Some(PATIENCE)).tcp(P::default(), server.address).unwrap()
}

/// Room for all that a round asks at once.
pub(crate) fn limits<P: Spoken>() -> Limits {
    P::LIMITS.with_output(16 << 20)
}

/// The token of a request: the same length for all.
pub(crate) fn token(round: u32, number: usize) -> String {
    format!("{}{number:04}", prefix(round))
}

fn prefix(round: u32) -> String {
    format!("t{round:06}x")
}

fn count(octets: &[u8], is: impl Fn(&[u8]) -> bool) -> usize {
    octets.split_inclusive(|&octet| octet == b'\n').filter(|line| line.ends_with(b"\n") && is(line)).count()
}

fn contains(octets: &[u8], text: &str) -> bool {
    octets.windows(text.len()).any(|window| window == text.as_bytes())
}

impl Spoken for Redis {
    const NAME: &'static str = "redis";
    const NUMBERED: bool = true;
    const ORDERED: bool = true;
    const IN_FLIGHT: usize = 300;

    /// It writes what it does to a file before it answers: what it did is known after it was killed.
    fn start() -> Server {
        Server::redis(&["--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"])
    }

    fn effect(token: &str, padding: usize) -> redis::Command {
        redis::Command::new("RPUSH").arg(list(token)).arg(format!("{token}{:.<padding$}", ""))
    }

    fn echo(token: &str) -> redis::Command {
        redis::Command::new("PING").arg(token)
    }

    fn judge(token: &str, kind: Kind, answer: Result<&redis::Reply, &ServerError>) -> Result<Option<usize>, String> {
        match (kind, answer) {
            (Kind::Effect, Ok(redis::Reply::Value(Value::Integer(place)))) => Ok(usize::try_from(*place).ok()),
            (Kind::Echo, Ok(redis::Reply::Value(Value::Bulk(text)))) if text == token => Ok(None),
            (Kind::Echo, Ok(redis::Reply::Value(Value::Array(items)))) => match &items[..] {
                [Value::Bulk(pong), Value::Bulk(text)] if pong == "pong" && text == token => Ok(None),
                _ => Err(format!("{answer:?}")),
            },
            _ => Err(format!("{answer:?}")),
        }
    }

    fn begin(_: u64, token: &str, kind: Kind) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        match kind {
            Kind::Effect => format!("*3\r\n{}{}", bulk("RPUSH"), bulk(list(token))),
            Kind::Echo => format!("*2\r\n{}${}\r\n", bulk("PING"), token.len()),
        }
    }

    fn subscription(round: u32) -> redis::Subscription {
        redis::Subscription::channels([channel(round)])
    }

    fn publish(news: &mut News<Self>, round: u32, numbers: Range<u64>) {
        let publish = |number: u64| redis::Command::new("PUBLISH").arg(channel(round)).arg(number.to_string());
        news.start(numbers.map(publish));
    }

    fn number(round: u32, notification: &redis::Notification) -> Option<u64> {
        match notification {
            redis::Notification::Message { channel: of, payload } if of == &channel(round) => {
                std::str::from_utf8(payload).ok()?.parse().ok()
            }
            _ => None,
        }
    }

    fn notifications_in(octets: &[u8]) -> usize {
        let begin = b"*3\r\n$7\r\nmessage\r\n";
        // Behind its kind come the sizes and texts of channel and payload, a line each.
        let is_whole = |rest: &[u8]| rest.iter().filter(|&&octet| octet == b'\n').take(4).count() == 4;
        memchr::memmem::find_iter(octets, begin).filter(|at| is_whole(&octets[at + begin.len()..])).count()
    }

    fn is_counted(_: &redis::Notification) -> bool {
        true
    }

    fn executed(_: &Server, news: &mut News<Self>, round: u32) -> Vec<String> {
        // Behind a start it says for a moment that it is loading.
        news.settle();
        while news.client().call(redis::Command::new("PING")).is_err() {}
        let length = prefix(round).len() + 4;
        match news.call(redis::Command::new("LRANGE").args([list(&prefix(round)), "0", "-1"])) {
            redis::Reply::Value(Value::Array(items)) => {
                let texts = items.iter().map(|item| match item {
                    Value::Bulk(text) => String::from_utf8_lossy(&text[..length.min(text.len())]).into_owned(),
                    other => format!("{other:?}"),
                });
                texts.collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn clean(_: &Server, news: &mut News<Self>, round: u32) {
        news.call(redis::Command::new("DEL").arg(list(&prefix(round))));
    }
}

/// The list that has the effects of the round of this token.
fn list(token: &str) -> &str {
    &token[..prefix(0).len()]
}

fn channel(round: u32) -> String {
    format!("news{round}")
}

fn mpd_command(words: &str) -> mpd::Command {
    let mut words = words.split(' ');
    let name = mpd::Command::new(words.next().unwrap());
    words.fold(name, mpd::Command::arg)
}

/// What a round sets crossfade to begins with this; MPD keeps 24 bits of it.
fn base(round: u32) -> u64 {
    u64::from(round % 10_000) * 1_000
}

impl Spoken for Mpd {
    const NAME: &'static str = "mpd";
    const NUMBERED: bool = false;
    const ORDERED: bool = false;
    const IN_FLIGHT: usize = 200;

    /// It has looked through its music.
    fn start() -> Server {
        let server = Server::mpd("", b"");
        let mut client = connect::<Mpd>(&server);
        while client.call(mpd_command("status").into()).unwrap().get("updating_db").is_some() {}
        server
    }

    /// A playlist of this name.
    fn effect(token: &str, _: usize) -> mpd::Request {
        mpd_command(&format!("playlistadd {token} tone.wav")).into()
    }

    /// There is no such command, and it says so.
    fn echo(token: &str) -> mpd::Request {
        mpd::Command::new(token).into()
    }

    fn judge(token: &str, kind: Kind, answer: Result<&Answer, &Ack>) -> Result<Option<usize>, String> {
        match (kind, answer) {
            (Kind::Effect, Ok(answer)) if *answer == Answer::default() => Ok(None),
            (Kind::Echo, Err(ack)) if contains(&ack.text, token) => Ok(None),
            _ => Err(format!("{answer:?}")),
        }
    }

    fn begin(_: u64, _: &str, kind: Kind) -> String {
        if kind == Kind::Effect { "playlistadd ".into() } else { String::new() }
    }

    fn subscription(_: u32) -> Vec<Subsystem> {
        vec![Subsystem::Options]
    }

    fn publish(news: &mut News<Self>, round: u32, numbers: Range<u64>) {
        news.start(numbers.map(|number| mpd_command(&format!("crossfade {}", base(round) + number)).into()));
    }

    fn number(_: u32, _: &Subsystem) -> Option<u64> {
        None
    }

    fn fetch() -> Option<mpd::Request> {
        Some(mpd_command("status").into())
    }

    fn fetched(round: u32, reply: &Answer) -> Option<u64> {
        let value: u64 = std::str::from_utf8(reply.get("xfade")?).ok()?.parse().ok()?;
        value.checked_sub(base(round)).filter(|number| *number < 1_000)
    }

    fn notifications_in(octets: &[u8]) -> usize {
        count(octets, |line| line.starts_with(b"changed: "))
    }

    fn is_counted(_: &Subsystem) -> bool {
        true
    }

    fn executed(server: &Server, _: &mut News<Self>, round: u32) -> Vec<String> {
        playlists(server, round)
    }

    fn clean(server: &Server, _: &mut News<Self>, round: u32) {
        for token in playlists(server, round) {
            fs::remove_file(server.directory().join("playlists").join(token + ".m3u")).unwrap();
        }
    }
}

fn playlists(server: &Server, round: u32) -> Vec<String> {
    let files = fs::read_dir(server.directory().join("playlists")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let tokens = names.filter_map(|name| Some(name.strip_suffix(".m3u")?.to_owned()));
    tokens.filter(|token| token.starts_with(&prefix(round))).collect()
}

impl Spoken for Imap {
    const NAME: &'static str = "imap";
    const NUMBERED: bool = false;
    const ORDERED: bool = false;
    const IN_FLIGHT: usize = 60;

    /// Its processes serve one session after the other: to start one for each takes longest of all.
    fn start() -> Server {
        Server::dovecot("service imap-login {\nservice_count = 0\n}\nservice imap {\nservice_count = 0\n}\n")
    }

    async fn prepare(client: &mut impl Subject<Self>, round: u32) -> Outcome<(), Self> {
        client.call(imap::Command::login("alice", "secret")).await?;
        client.call(imap::Command::select(channel(round))).await?;
        Ok(())
    }

    /// A mailbox of this name.
    fn effect(token: &str, _: usize) -> imap::Command {
        imap::Command::new("CREATE").syntax(token)
    }

    /// There is no such mailbox, and it says so.
    fn echo(token: &str) -> imap::Command {
        imap::Command::new("STATUS").syntax(token).syntax("(MESSAGES)")
    }

    fn judge(token: &str, kind: Kind, answer: Result<&imap::Status, &imap::Status>) -> Result<Option<usize>, String> {
        match (kind, answer) {
            (Kind::Effect, Ok(_)) => Ok(None),
            // Dovecot, frozen in the middle of it, may find what it has just made itself.
            (Kind::Effect, Err(status)) if status.code_named("ALREADYEXISTS").is_some() => Ok(None),
            (Kind::Echo, Err(status)) if contains(status.text(), token) => Ok(None),
            _ => Err(format!("{answer:?}")),
        }
    }

    fn begin(id: u64, _: &str, kind: Kind) -> String {
        match kind {
            Kind::Effect => format!("A{id} CREATE "),
            Kind::Echo => format!("A{id} STATUS "),
        }
    }

    fn subscription(_: u32) {}

    fn publish(news: &mut News<Self>, round: u32, numbers: Range<u64>) {
        let mailbox = news.maildir().mailbox(&channel(round));
        for number in numbers {
            mailbox.deliver(&format!("Subject: {number}\r\n\r\n"));
        }
    }

    fn number(_: u32, notification: &imap::Notification) -> Option<u64> {
        match notification {
            imap::Notification::Exists(messages) => u64::from(*messages).checked_sub(1),
            _ => None,
        }
    }

    fn notifications_in(octets: &[u8]) -> usize {
        count(octets, |line| line.starts_with(b"* ") && line.ends_with(b" EXISTS\r\n"))
    }

    fn is_counted(notification: &imap::Notification) -> bool {
        matches!(notification, imap::Notification::Exists(_))
    }

    fn executed(_: &Server, news: &mut News<Self>, round: u32) -> Vec<String> {
        let mailboxes = news.maildir().mailboxes();
        mailboxes.into_iter().filter(|name| name.starts_with(&prefix(round))).collect()
    }

    fn clean(server: &Server, news: &mut News<Self>, round: u32) {
        for name in Self::executed(server, news, round) {
            news.maildir().remove(&name);
        }
        news.maildir().remove(&channel(round));
    }
}
