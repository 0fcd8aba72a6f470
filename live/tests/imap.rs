//! Dovecot on each runtime, and a scripted server for what Dovecot does not do.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use sonnette::imap::imap_types::fetch::MessageDataItem;
use sonnette::imap::{Command, Condition, Imap, Notification, Plain, Responder, Status, TIMEOUTS};
use sonnette::{ClientState, Error as Violation, Event, Invalid, Mode, Protocol, Reason, StreamUnchanged, Timeouts};
use sonnette_conformance::{Line, subject::Subject, tcp};
use sonnette_driver::{Connect, Driver, End, Error, Transport};
use sonnette_live::{Maildir, PASSWORD, Server};
use sonnette_std::Socket;
use sonnette_tls::client_config;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::DerefMut;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn timeouts() -> Timeouts {
    Timeouts { reply: Some(PATIENCE), ..TIMEOUTS }
}

type Outcome<T> = Result<T, Error<Status>>;

/// What the scenes need of a client.
trait Mail: Subject<Imap> {
    fn imap(&self) -> &Imap;
    fn set_timeouts(&mut self, timeouts: Timeouts);
    async fn call_with(&mut self, command: Command, notified: impl FnMut(Notification)) -> Outcome<Status>;
    async fn ring_with(&mut self, command: Command, notified: impl FnMut(Notification)) -> Outcome<Status>;
}

macro_rules! mail {
    ([$($generics:tt)*] $client:ty $(, $then:ident)?) => {
        impl<$($generics)*> Mail for $client {
            fn imap(&self) -> &Imap {
                self.state().protocol()
            }
            fn set_timeouts(&mut self, timeouts: Timeouts) {
                self.set_timeouts(timeouts);
            }
            async fn call_with(&mut self, command: Command, notified: impl FnMut(Notification)) -> Outcome<Status> {
                self.call_with(command, notified)$(.$then)?
            }
            async fn ring_with(&mut self, command: Command, notified: impl FnMut(Notification)) -> Outcome<Status> {
                self.ring_with(command, notified)$(.$then)?
            }
        }
    };
}

mail!([T: Transport] Driver<Imap, T>, await);
mail!([S: Read + Write] sonnette_std::Client<Imap, S>);

/// Where the clients are.
trait Runtime {
    type Plain: DerefMut<Target: Mail + Sized>;
    type Secure: DerefMut<Target: Mail + Sized>;

    async fn connect(address: SocketAddr) -> Self::Plain;
    /// Goes on over TLS.
    async fn over_tls(client: Self::Plain, certificate: &Path) -> Self::Secure;
    /// Goes on after this.
    fn act(client: Self::Plain, act: impl FnOnce(&mut ClientState<Imap>)) -> Self::Plain;
}

struct Std;

impl Runtime for Std {
    // In boxes, so that they dereference to what has the methods, as the others do.
    type Plain = Box<sonnette_std::Client<Imap, Socket>>;
    type Secure = Box<sonnette_std::Client<Imap, StreamOwned<ClientConnection, Socket>>>;

    async fn connect(address: SocketAddr) -> Self::Plain {
        let connect = sonnette_std::Connect::new().timeouts(timeouts()).read_timeout(Some(PATIENCE));
        Box::new(connect.tcp(Imap::new(), address).unwrap())
    }

    async fn over_tls(client: Self::Plain, certificate: &Path) -> Self::Secure {
        let (state, stream, _) = client.into_parts();
        let connection = ClientConnection::new(client_config(Some(certificate)).unwrap(), localhost()).unwrap();
        Box::new(sonnette_std::Client::with_state(state, StreamOwned::new(connection, stream)))
    }

    fn act(client: Self::Plain, act: impl FnOnce(&mut ClientState<Imap>)) -> Self::Plain {
        let (mut state, stream, _) = client.into_parts();
        act(&mut state);
        Box::new(sonnette_std::Client::with_state(state, stream))
    }
}

macro_rules! runtime {
    ($runtime:ident, $client:ident, $tcp:ty, $tls:ident) => {
        struct $runtime;

        impl Runtime for $runtime {
            type Plain = $client::Client<Imap, $tcp>;
            type Secure = $client::Client<Imap, $tls::client::TlsStream<$tcp>>;

            async fn connect(address: SocketAddr) -> Self::Plain {
                let connect = Connect::new().timeouts(timeouts());
                $client::Client::connect_with(&connect, Imap::new(), address).await.unwrap()
            }

            async fn over_tls(client: Self::Plain, certificate: &Path) -> Self::Secure {
                let (state, stream, _) = client.into_parts();
                let connector = $tls::TlsConnector::from(client_config(Some(certificate)).unwrap());
                $client::Client::with_state(state, connector.connect(localhost(), stream).await.unwrap())
            }

            fn act(client: Self::Plain, act: impl FnOnce(&mut ClientState<Imap>)) -> Self::Plain {
                let (mut state, stream, _) = client.into_parts();
                act(&mut state);
                $client::Client::with_state(state, stream)
            }
        }
    };
}

runtime!(Smol, sonnette_smol, async_net::TcpStream, futures_rustls);
runtime!(Tokio, sonnette_tokio, tokio::net::TcpStream, tokio_rustls);

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

macro_rules! on_each_runtime {
    ($($case:ident;)*) => {
        on_each_runtime!(on_std, Std, futures_lite::future::block_on, $($case;)*);
        on_each_runtime!(on_smol, Smol, async_io::block_on, $($case;)*);
        on_each_runtime!(on_tokio, Tokio, on_one_thread, $($case;)*);
    };
    ($name:ident, $runtime:ident, $block_on:path, $($case:ident;)*) => {
        mod $name {
            use super::*;

            $(#[test]
            fn $case() {
                $block_on(super::$case::<$runtime>());
            })*
        }
    };
}

/// A blocking client has a timeout of its own.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let patience = async {
        async_io::Timer::after(PATIENCE).await;
        panic!("nothing comes");
    };
    futures_lite::future::or(future, patience).await
}

/// The next notification. Which session is told of recent messages is a matter of luck.
async fn next(client: &mut impl Mail) -> Outcome<Option<Notification>> {
    loop {
        match in_time(client.next_notification()).await {
            Ok(Some(Notification::Recent(_))) => {}
            other => return other,
        }
    }
}

/// Does it, and tells what is told meanwhile, or has been and was not taken.
async fn ask(client: &mut impl Mail, command: Command) -> Vec<Notification> {
    let mut told = Vec::new();
    let status = client.call_with(command, |notification| told.push(notification)).await.unwrap();
    assert_eq!(status.condition(), Condition::Ok);
    told.retain(|notification| !matches!(notification, Notification::Recent(_)));
    told
}

/// Logs in and selects: how many messages there are.
async fn inbox(client: &mut impl Mail) -> u32 {
    ask(client, Command::login("alice", "secret")).await;
    let told = ask(client, Command::select("INBOX")).await;
    let exists = |notification: &_| if let Notification::Exists(number) = notification { Some(*number) } else { None };
    told.iter().find_map(exists).unwrap()
}

fn refusal<T>(outcome: Outcome<T>) -> Status {
    match outcome {
        Err(Error::Refused(status)) => status,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn message(subject: impl ToString, body: &str) -> String {
    let subject = subject.to_string();
    format!("From: carol@example.org\r\nSubject: {subject}\r\nMessage-ID: <{subject}@example.org>\r\n\r\n{body}")
}

/// Exactly this.
fn is_fetch(told: &Notification, number: u32, items: &str) -> bool {
    matches!(told, Notification::Fetch { message, data }
        if *message == number && **data == *format!("{number} FETCH ({items})").as_bytes())
}

#[track_caller]
fn assert_fetch(told: &[Notification], number: u32, items: &str) {
    let excerpt = |text: &str| text.chars().take(500).collect::<String>();
    let is = matches!(told, [told] if is_fetch(told, number, items));
    assert!(is, "{} instead of {number} {}", excerpt(&format!("{told:?}")), excerpt(items));
}

/// A server with mail for alice, and somebody else who looks at it.
struct Scene {
    server: Server,
    mail: Maildir,
    other: Box<sonnette_std::Client<Imap, Socket>>,
}

async fn scene(settings: &str, messages: u32) -> Scene {
    let server = Server::dovecot(settings);
    let mail = server.maildir("alice");
    mail.fill((1..=messages).map(|number| message(number, "x")));
    let mut other = Std::connect(server.address).await;
    assert_eq!(inbox(&mut *other).await, messages);
    Scene { server, mail, other }
}

impl Scene {
    async fn inbox<R: Runtime>(&self) -> R::Plain {
        let mut client = R::connect(self.server.address).await;
        inbox(&mut *client).await;
        client
    }

    fn act(&mut self, command: Command) {
        act(&mut self.other, command);
    }
}

fn act(other: &mut sonnette_std::Client<Imap, Socket>, command: Command) {
    other.call_with(command, drop).unwrap();
}

/// A wire between a client and the server: remembers what goes over it, and may keep what the server says in the mode until
/// the client leaves.
struct Wire {
    address: SocketAddr,
    ends: Arc<Ends>,
}

#[derive(Default)]
struct Ends {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    client: Vec<String>,
    /// Said by the server, whether it is kept or not.
    server: Vec<String>,
    closed: bool,
}

impl Said {
    fn idles(&self) -> usize {
        self.client.iter().filter(|line| line.ends_with(" IDLE\r\n")).count()
    }

    fn dones(&self) -> usize {
        self.client.iter().filter(|line| *line == "DONE\r\n").count()
    }
}

impl Ends {
    fn say(&self, say: impl FnOnce(&mut Said)) {
        say(&mut self.said.lock().unwrap());
        self.more.notify_all();
    }

    fn wait_until(&self, mut come: impl FnMut(&Said) -> bool) {
        let said = self.said.lock().unwrap();
        let (said, wait) = self.more.wait_timeout_while(said, PATIENCE, |said| !come(said)).unwrap();
        let failure = wait.timed_out().then(|| format!("{:?} and {:?}", said.client, said.server));
        // Others may still look at it.
        drop(said);
        assert_eq!(failure, None);
    }
}

impl Wire {
    fn new(server: SocketAddr, keeps: bool) -> Wire {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, ends) = (listener.local_addr().unwrap(), Arc::<Ends>::default());
        let (up, down) = (Arc::clone(&ends), Arc::clone(&ends));
        thread::spawn(move || {
            let (client, server) = (listener.accept().unwrap().0, TcpStream::connect(server).unwrap());
            let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            thread::spawn(move || {
                carry(client, to_server, |line| up.say(|said| said.client.push(line)));
                up.say(|said| said.closed = true);
            });
            let mut idle = 0;
            carry(server, to_client, |line| {
                let is_confirmation = line == "+ idling\r\n";
                down.say(|said| said.server.push(line));
                if keeps && !is_confirmation {
                    down.wait_until(|said| said.closed || said.dones() == idle);
                }
                idle += usize::from(is_confirmation);
            });
        });
        Wire { address, ends }
    }

    fn wait_until(&self, come: impl FnMut(&Said) -> bool) {
        self.ends.wait_until(come);
    }
}

/// Line by line, until either end is gone.
fn carry(from: TcpStream, mut to: TcpStream, mut over: impl FnMut(String)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(1..) = from.read_until(b'\n', &mut line) {
        over(String::from_utf8_lossy(&line).into());
        if to.write_all(&line).is_err() {
            break;
        }
        line.clear();
    }
    // It may have ended already.
    let _ = to.shutdown(Shutdown::Write);
}

/// Answers challenges in turn, without having said anything before; and then cancels.
struct Answers(&'static str, &'static [&'static str]);

impl Responder for Answers {
    fn mechanism(&self) -> &str {
        self.0
    }

    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
        Ok(None)
    }

    fn respond(&self, challenges: &[bytes::Bytes]) -> Option<Vec<u8>> {
        self.1.get(challenges.len() - 1).map(|answer| (*answer).into())
    }
}

async fn logging_in<R: Runtime>() {
    let server = Server::dovecot("");
    let mut client = R::connect(server.address).await;
    // Not before.
    assert_eq!(refusal(client.enter(()).await).condition(), Condition::Bad);
    let refused = refusal(client.call(Command::login("alice", "wrong")).await);
    assert_eq!((refused.condition(), refused.code()), (Condition::No, Some(&b"AUTHENTICATIONFAILED"[..])));
    assert!(!client.imap().has_capability("NOTIFY"));
    inbox(&mut *client).await;
    assert!(client.imap().has_capability("NOTIFY") && client.imap().has_capability("IDLE"));
    client.enter(()).await.unwrap();
    client.leave().await.unwrap();
    ask(&mut *client, Command::noop()).await;

    // A client that has not been greeted does not know that it may say all at once.
    for is_greeted in [false, true] {
        let mut client = R::connect(server.address).await;
        if is_greeted {
            ask(&mut *client, Command::noop()).await;
        }
        assert_eq!(client.imap().has_capability("SASL-IR"), is_greeted);
        if is_greeted {
            let refused = refusal(client.call(Command::authenticate(Plain::new("bob", "wrong"))).await);
            assert_eq!(refused.code(), Some(&b"AUTHENTICATIONFAILED"[..]));
        }
        ask(&mut *client, Command::authenticate(Plain::new("bob", "secret"))).await;
        ask(&mut *client, Command::select("INBOX")).await;
    }
    for answers in [Answers("PLAIN", &["\0bob\0secret"]), Answers("LOGIN", &["bob", "secret"])] {
        let mut client = R::connect(server.address).await;
        // Cancelled, also in the middle.
        for cancels in [Answers("PLAIN", &[]), Answers("LOGIN", &["bob"])] {
            let refused = refusal(client.call(Command::authenticate(cancels)).await);
            assert_eq!(refused.condition(), Condition::Bad);
        }
        ask(&mut *client, Command::authenticate(answers)).await;
        ask(&mut *client, Command::select("INBOX")).await;
    }
}

async fn literals<R: Runtime>() {
    let server = Server::dovecot("");
    // The server is waited for if it has not greeted yet, or if the caller wishes so.
    let mut client = R::connect(server.address).await;
    ask(&mut *client, Command::login("carol", PASSWORD)).await;
    for synchronising in [false, true] {
        let sent = |command: Command| if synchronising { command.synchronising() } else { command };
        let mut client = R::connect(server.address).await;
        ask(&mut *client, Command::noop()).await;
        assert!(client.imap().has_capability("LITERAL+"));
        ask(&mut *client, sent(Command::login("carol", PASSWORD))).await;
        let mailbox = format!("Sent \"{synchronising}\"");
        ask(&mut *client, sent(Command::new("CREATE").literal(&*mailbox))).await;
        let told = ask(&mut *client, sent(Command::new("SELECT").literal(&*mailbox))).await;
        assert!(told.contains(&Notification::Exists(0)));

        // What looks like answers is not one, in either direction.
        let look_alike = message(
            r#"quote " and back\slash"#,
            "A2 OK fake\r\n+ idling\r\n)\r\n* BYE fake\r\n* 99 EXISTS\r\n{5}\r\nDONE\r\nA9 LOGOUT\r\n{9999999}\r\n",
        );
        let large = message("large", &"0123456789 + idling {77}\r\nA99 OK fake\r\n".repeat(150_000));
        for (number, text) in (1..).zip([&message("empty", ""), &look_alike, &large]) {
            let told = ask(&mut *client, sent(Command::append(&*mailbox, r"(\Seen)", &**text))).await;
            assert_eq!(told, [Notification::Exists(number)]);
        }
        let told = ask(&mut *client, Command::fetch("1", "(BODY.PEEK[TEXT] UID)")).await;
        assert_fetch(&told, 1, "UID 1 BODY[TEXT] {0}\r\n");
        for (number, text) in [(2, &look_alike), (3, &large)] {
            let told = ask(&mut *client, Command::fetch(number.to_string(), "BODY.PEEK[]")).await;
            assert_fetch(&told, number, &format!("BODY[] {{{}}}\r\n{text}", text.len()));
        }
        let told = ask(&mut *client, Command::fetch("2", "ENVELOPE")).await;
        assert_eq!(told.iter().map(subject).collect::<Vec<_>>(), [Some(r#"quote " and back\slash"#.into())]);
        let found = ask(&mut *client, sent(Command::search("CHARSET UTF-8 NOT BODY").arg("Grüße"))).await;
        assert!(matches!(&found[..], [Notification::Other(data)] if **data == *b"SEARCH 1 2 3"), "{found:?}");

        // In the mode.
        client.enter(()).await.unwrap();
        assert_eq!(client.ring(Command::fetch("2", "BODY.PEEK[TEXT]")).await.unwrap().condition(), Condition::Ok);
        let text = look_alike.split_once("\r\n\r\n").unwrap().1;
        let told = [next(&mut *client).await.unwrap().unwrap()];
        assert_fetch(&told, 2, &format!("BODY[TEXT] {{{}}}\r\n{text}", text.len()));
        client.leave().await.unwrap();

        // Refused: what waits is not sent, and what does not wait is skipped by the server. Either is answered once.
        for text in [&look_alike, &large] {
            let refused = client.start(sent(Command::append("NoSuchBox", "", &**text))).unwrap();
            let noop = client.start(Command::noop()).unwrap();
            assert_eq!(refusal(client.outcome(refused).await).code(), Some(&b"TRYCREATE"[..]));
            assert_eq!(client.outcome(noop).await.unwrap().condition(), Condition::Ok);
        }
        assert_eq!(ask(&mut *client, Command::noop()).await, []);
    }
}

fn subject(told: &Notification) -> Option<String> {
    let Notification::Fetch { data, .. } = told else { panic!("{told:?}") };
    data.items().unwrap().find_map(|item| match item {
        MessageDataItem::Envelope(envelope) => Some(String::from_utf8(envelope.subject.into_option()?.into()).unwrap()),
        _ => None,
    })
}

async fn mail_in_idle<R: Runtime>() {
    let mut scene = scene("", 2).await;
    let mut client = scene.inbox::<R>().await;
    client.enter(()).await.unwrap();
    scene.mail.deliver(&message("renamed", "x"));
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Exists(3)));
    scene.server.deliver_by_agent("alice", &message("agent", "x"));
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Exists(4)));
    client.ring(Command::fetch("3:4", "ENVELOPE")).await.unwrap();
    for expected in ["renamed", "agent"] {
        let told = next(&mut *client).await.unwrap().unwrap();
        assert_eq!(subject(&told).as_deref(), Some(expected));
    }

    // By somebody else.
    for (command, number, flags) in [
        (Command::store("1", r"+FLAGS (\Flagged)"), 1, r"\Flagged"),
        (Command::store("2", r"+FLAGS (\Deleted)"), 2, r"\Deleted"),
    ] {
        scene.act(command);
        assert_fetch(&[next(&mut *client).await.unwrap().unwrap()], number, &format!("FLAGS ({flags})"));
    }
    scene.act(Command::new("EXPUNGE"));
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Expunge(2)));

    // Not in the mode.
    let rejected = client.start(Command::noop()).unwrap_err();
    assert_eq!(rejected.reason, Reason::NotAllowed(Mode::Notification));
    client.leave().await.unwrap();
    assert_eq!(next(&mut *client).await.unwrap(), None);
    assert_eq!(ask(&mut *client, Command::noop()).await, []);
}

async fn ringing<R: Runtime>() {
    const ROUNDS: u32 = 100;
    let mut scene = scene("", 1).await;
    let mut client = scene.inbox::<R>().await;
    client.enter(()).await.unwrap();
    let mut changes = Vec::new();
    for round in 1..=ROUNDS {
        let (flags, are) = if round % 2 == 0 { ("-FLAGS.SILENT", "") } else { ("+FLAGS.SILENT", r"\Seen") };
        scene.act(Command::store("1", format!(r"{flags} (\Seen)")));
        client.ring(Command::fetch("1", "(UID FLAGS)")).await.unwrap();
        // That they have changed is told with it, or later.
        loop {
            match next(&mut *client).await.unwrap().unwrap() {
                told if is_fetch(&told, 1, &format!("UID 1 FLAGS ({are})")) => break,
                told => changes.push(told),
            }
        }
    }
    client.leave().await.unwrap();
    changes.extend(ask(&mut *client, Command::noop()).await);
    for (round, told) in (1..).zip(&changes) {
        assert!(is_fetch(told, 1, if round % 2 == 0 { "FLAGS ()" } else { r"FLAGS (\Seen)" }), "{changes:?}");
    }
    assert_eq!(changes.len(), ROUNDS as usize);
}

/// A change is on its way to each of some clients when they leave.
async fn leaving_crosses_changes<R: Runtime>() {
    const ROUNDS: u32 = 8;
    let mut scene = scene("", ROUNDS).await;
    let wires: Vec<_> = (0..15).map(|_| Wire::new(scene.server.address, true)).collect();
    let mut clients = Vec::new();
    for wire in &wires {
        let mut client = R::connect(wire.address).await;
        assert_eq!(inbox(&mut *client).await, ROUNDS);
        clients.push(client);
    }
    let mut exists = ROUNDS;
    for round in 1..=ROUNDS {
        for client in &mut clients {
            client.enter(()).await.unwrap();
        }
        let told = match round % 4 {
            0 => {
                scene.act(Command::store("1", r"+FLAGS.SILENT (\Deleted)"));
                scene.act(Command::new("EXPUNGE"));
                exists -= 1;
                "1 EXPUNGE".to_owned()
            }
            1 => {
                scene.act(Command::append("INBOX", "", message("appended", "x")));
                exists += 1;
                format!("{exists} EXISTS")
            }
            2 => {
                scene.mail.deliver(&message("delivered", "x"));
                exists += 1;
                format!("{exists} EXISTS")
            }
            // The same message, which is the first one by then.
            3 if round % 8 == 3 => {
                scene.act(flag(2));
                r"2 FETCH (FLAGS (\Flagged))".to_owned()
            }
            _ => {
                scene.act(Command::store("1", r"-FLAGS.SILENT (\Flagged)"));
                "1 FETCH (FLAGS ())".to_owned()
            }
        };
        let line = format!("* {told}\r\n");
        for wire in &wires {
            wire.wait_until(|said| said.server.last() == Some(&line));
        }
        for client in &mut clients {
            client.leave().await.unwrap();
        }
        for client in &mut clients {
            let heard: Vec<_> = ask(&mut **client, Command::noop()).await.iter().map(as_told).collect();
            assert_eq!(heard, [&*told], "in round {round}");
            assert_eq!(next(&mut **client).await.unwrap(), None);
        }
    }
    for wire in &wires {
        wire.wait_until(|said| said.idles() == ROUNDS as usize && said.dones() == ROUNDS as usize);
    }
}

/// As it was on the wire.
fn as_told(told: &Notification) -> String {
    match told {
        Notification::Exists(number) => format!("{number} EXISTS"),
        Notification::Expunge(number) => format!("{number} EXPUNGE"),
        Notification::Fetch { data, .. } => String::from_utf8_lossy(data).into(),
        other => panic!("{other:?}"),
    }
}

/// A question, the mode and the wish to leave it, before anything has been answered.
async fn asked_in_one_go<R: Runtime>() {
    let mut scene = scene("", 50).await;
    let mut client = scene.inbox::<R>().await;
    for round in 1..=50_u32 {
        scene.act(flag(round));
        let mut asked = Vec::new();
        client = R::act(client, |state| {
            for _ in 0..2 {
                asked.push(state.request(Command::new("CHECK")).unwrap());
                asked.push(state.enter(()).unwrap());
                assert!(state.leave());
            }
            asked.push(state.request(Command::noop()).unwrap());
        });
        let (mut outcomes, mut told) = (Vec::new(), Vec::new());
        while outcomes.len() < 7 {
            match in_time(client.next_event()).await.unwrap() {
                Event::Notification(notification) => told.push(notification),
                Event::Reply { id, .. } | Event::Entered { id } => outcomes.push(id),
                Event::Left { id, asked: true, refusal: None } => {
                    assert_eq!(outcomes.last(), Some(&id));
                    outcomes.push(id);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(outcomes, [asked[0], asked[1], asked[1], asked[2], asked[3], asked[3], asked[4]]);
        assert_fetch(&told, round, r"FLAGS (\Flagged)");
    }
    // As far as the methods of a client go.
    for _ in 0..50 {
        let check = client.start(Command::new("CHECK")).unwrap();
        // One that blocks has entered by then, others have asked.
        let _ = futures_lite::future::poll_once(client.enter(())).await;
        client.leave().await.unwrap();
        assert_eq!(client.outcome(check).await.unwrap().condition(), Condition::Ok);
        assert_eq!(ask(&mut *client, Command::noop()).await, []);
    }
}

/// What was told, message by message how often.
#[derive(Default)]
struct Seen {
    fetched: BTreeMap<u32, u32>,
    flagged: BTreeMap<u32, u32>,
    exists: u32,
}

impl Seen {
    fn take(&mut self, told: Notification) {
        self.take_fetched(told, |_, _| false);
    }

    /// It `was_fetched`, or else somebody has delivered it or set its flag.
    fn take_fetched(&mut self, told: Notification, was_fetched: impl FnOnce(u32, &Notification) -> bool) {
        match told {
            Notification::Exists(number) => {
                assert!(number > self.exists, "{number} after {}", self.exists);
                self.exists = number;
            }
            Notification::Recent(_) => {}
            Notification::Fetch { message, .. } if was_fetched(message, &told) => {
                *self.fetched.entry(message).or_default() += 1;
            }
            Notification::Fetch { message, .. } if is_fetch(&told, message, r"FLAGS (\Flagged)") => {
                *self.flagged.entry(message).or_default() += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn flag(message: u32) -> Command {
    Command::store(message.to_string(), r"+FLAGS.SILENT (\Flagged)")
}

fn once(messages: impl IntoIterator<Item = u32>) -> BTreeMap<u32, u32> {
    messages.into_iter().map(|message| (message, 1)).collect()
}

/// Changes are made, and the mode is left at once. Dovecot tells them later, once.
async fn leaving_at_once<R: Runtime>() {
    const ROUNDS: u32 = 150;
    let mut scene = scene("", ROUNDS).await;
    let mut client = scene.inbox::<R>().await;
    let mut seen = Seen { exists: ROUNDS, ..Seen::default() };
    for round in 1..=ROUNDS {
        client.enter(()).await.unwrap();
        scene.mail.deliver(&message("new", "x"));
        scene.act(flag(round));
        client.leave().await.unwrap();
        let noop = client.start(Command::noop()).unwrap();
        let mut has_left = false;
        loop {
            match in_time(client.next_event()).await.unwrap() {
                Event::Notification(told) => seen.take(told),
                Event::Left { asked: true, refusal: None, .. } if !has_left => has_left = true,
                Event::Reply { id, .. } if id == noop && has_left => break,
                other => panic!("{other:?}"),
            }
        }
    }
    until(&mut *client, &mut seen, |seen| seen.exists == 2 * ROUNDS).await;
    assert_eq!(seen.flagged, once(1..=ROUNDS));
}

/// Asks until all is told.
async fn until(client: &mut impl Mail, seen: &mut Seen, is_all: impl Fn(&Seen) -> bool) {
    let began = Instant::now();
    loop {
        for told in ask(client, Command::noop()).await {
            seen.take(told);
        }
        if is_all(seen) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{} exist, {} are flagged", seen.exists, seen.flagged.len());
    }
}

async fn five_thousand<R: Runtime>() {
    const MESSAGES: u32 = 5_000;
    let scene = scene("", MESSAGES).await;
    let mut client = scene.inbox::<R>().await;
    let (mail, mut other, over) = (scene.mail.clone(), scene.other, Arc::new(AtomicBool::new(false)));
    let is_over = Arc::clone(&over);
    let meddler = thread::spawn(move || {
        // Each once, one far from the other.
        let flagged = (0..MESSAGES).map(|round| round * 37 % MESSAGES + 1);
        let flagged = flagged.take_while(|_| !is_over.load(Ordering::Relaxed)).inspect(|&number| {
            act(&mut other, flag(number));
            if number % 20 == 0 {
                mail.deliver(&message("new", "x"));
            }
        });
        flagged.collect::<Vec<_>>()
    });

    // In one answer: more of them than a client keeps.
    let mut seen = Seen { exists: MESSAGES, ..Seen::default() };
    let has_envelope = |number: u32, told: &Notification| subject(told).is_some_and(|text| text == number.to_string());
    let fetch = Command::fetch("1:*", "(UID FLAGS ENVELOPE)");
    client.call_with(fetch, |told| seen.take_fetched(told, has_envelope)).await.unwrap();
    assert!(seen.fetched == once(1..=MESSAGES));
    seen.fetched.clear();

    // In many, asked in one go.
    let has_text = |number: u32, told: &Notification| {
        let header = message(number, "");
        let items = format!("BODY[HEADER] {{{}}}\r\n{header} BODY[TEXT] {{1}}\r\nx", header.len());
        is_fetch(told, number, &items)
    };
    let asked: Vec<_> = (1..=MESSAGES)
        .step_by(50)
        .map(|first| Command::fetch(format!("{first}:{}", first + 49), "(BODY.PEEK[HEADER] BODY.PEEK[TEXT])"))
        .map(|fetch| client.start(fetch).unwrap())
        .collect();
    let before = seen.flagged.len();
    for asked in asked {
        loop {
            match in_time(client.next_event()).await.unwrap() {
                Event::Notification(told) => seen.take_fetched(told, has_text),
                Event::Reply { id, .. } if id == asked => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(seen.fetched == once(1..=MESSAGES));
    assert!(seen.flagged.len() > before);

    client.enter(()).await.unwrap();
    for _ in 0..20 {
        client.ring(Command::noop()).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let flagged = meddler.join().unwrap();
    client.leave().await.unwrap();
    let exists = MESSAGES + u32::try_from(flagged.iter().filter(|&number| number % 20 == 0).count()).unwrap();
    until(&mut *client, &mut seen, |seen| seen.exists == exists && seen.flagged.len() == flagged.len()).await;
    assert_eq!(seen.flagged, once(flagged));
}

/// `* OK Still here` shows that the server lives, and nothing else.
async fn still_here<R: Runtime>() {
    let scene = scene("imap_idle_notify_interval = 2 secs", 1).await;
    let wire = Wire::new(scene.server.address, false);
    let mut client = R::connect(wire.address).await;
    client.set_timeouts(Timeouts { silence: Some(Duration::from_secs(5)), ..timeouts() });
    inbox(&mut *client).await;
    client.enter(()).await.unwrap();
    let mail = scene.mail.clone();
    let meddler = thread::spawn(move || {
        // Longer than it may be silent.
        wire.wait_until(|said| said.server.iter().filter(|line| *line == "* OK Still here\r\n").count() >= 3);
        mail.deliver(&message("new", "x"));
        wire
    });
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Exists(2)));
    let wire = meddler.join().unwrap();
    wire.wait_until(|said| said.idles() == 1 && said.dones() == 0);
    client.leave().await.unwrap();
    assert_eq!(ask(&mut *client, Command::noop()).await, []);
}

/// A client with less patience than the server leaves the mode and enters it again, unseen.
async fn silence_renews<R: Runtime>() {
    let scene = scene("imap_idle_notify_interval = 2 secs", 1).await;
    let wire = Wire::new(scene.server.address, false);
    let mut client = R::connect(wire.address).await;
    client.set_timeouts(Timeouts { silence: Some(Duration::from_millis(1_500)), ..timeouts() });
    inbox(&mut *client).await;
    client.enter(()).await.unwrap();
    let mail = scene.mail.clone();
    let meddler = thread::spawn(move || {
        wire.wait_until(|said| said.idles() >= 3);
        mail.deliver(&message("new", "x"));
    });
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Exists(2)));
    meddler.join().unwrap();
    client.leave().await.unwrap();
    assert_eq!(next(&mut *client).await.unwrap(), None);
    assert_eq!(ask(&mut *client, Command::noop()).await, []);
}

/// Each change is told once, whichever IDLE it comes in, or between two of them.
async fn refresh_renews<R: Runtime>() {
    const MESSAGES: u32 = 300;
    let mut scene = scene("", MESSAGES).await;
    let wire = Wire::new(scene.server.address, false);
    let mut client = R::connect(wire.address).await;
    client.set_timeouts(Timeouts { refresh: Some(Duration::from_millis(10)), ..timeouts() });
    inbox(&mut *client).await;
    client.enter(()).await.unwrap();
    let meddler = thread::spawn(move || {
        for number in 1..=MESSAGES {
            scene.act(flag(number));
        }
        wire.wait_until(|said| said.idles() >= 50);
        scene.mail.deliver(&message("new", "x"));
        scene
    });
    let mut seen = Seen::default();
    while seen.exists == 0 || seen.flagged.len() < MESSAGES as usize {
        seen.take(next(&mut *client).await.unwrap().unwrap());
    }
    let _scene = meddler.join().unwrap();
    client.leave().await.unwrap();
    assert_eq!(next(&mut *client).await.unwrap(), None);
    assert_eq!(ask(&mut *client, Command::noop()).await, []);
    assert_eq!((seen.exists, seen.flagged), (MESSAGES + 1, once(1..=MESSAGES)));
}

async fn the_server_ends<R: Runtime>() {
    let mut scene = scene("", 1).await;
    let mut client = scene.inbox::<R>().await;
    client.enter(()).await.unwrap();
    scene.server.stop();
    let Some(Notification::Bye(bye)) = next(&mut *client).await.unwrap() else { panic!("no farewell") };
    assert_eq!(client.imap().bye(), Some(&bye));
    let error = next(&mut *client).await.unwrap_err();
    assert!(matches!(error, Error::Ended(End::Closed)), "{error}");
}

async fn the_server_is_killed<R: Runtime>() {
    let mut scene = scene("", 1).await;
    let mut client = scene.inbox::<R>().await;
    client.enter(()).await.unwrap();
    scene.server.kill();
    let error = next(&mut *client).await.unwrap_err();
    assert!(matches!(error, Error::Ended(End::Closed)), "{error}");
    assert_eq!(client.imap().bye(), None);
}

async fn logging_out<R: Runtime>() {
    let scene = scene("", 1).await;
    let mut client = scene.inbox::<R>().await;
    client.enter(()).await.unwrap();
    client.leave().await.unwrap();
    let told = ask(&mut *client, Command::logout()).await;
    assert!(matches!(&told[..], [Notification::Bye(bye)] if client.imap().bye() == Some(bye)), "{told:?}");
    loop {
        match in_time(client.next_event()).await.unwrap() {
            Event::Left { asked: true, .. } => {}
            Event::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(client.call(Command::noop()).await, Err(Error::Ended(End::Closed))));
}

async fn over_tls<R: Runtime>() {
    let (server, address) = Server::dovecot_tls();
    let mut client = in_time(R::over_tls(R::connect(address).await, &server.certificate())).await;
    session(&mut *client, &server, 1).await;

    // Passwords are not sent in the clear, whether that is known already or not.
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], server.address.port()));
    let error = R::connect(elsewhere).await.call(Command::login("alice", "secret")).await.unwrap_err();
    assert!(matches!(error, Error::Lost { sent: false, end: End::Failed(Violation::GreetingRefused(_)) }), "{error}");
    let mut client = R::connect(elsewhere).await;
    ask(&mut *client, Command::capability()).await;
    assert!(client.imap().has_capability("LOGINDISABLED"));
    assert!(matches!(client.call(Command::login("alice", "secret")).await, Err(Error::Rejected(Reason::Invalid(_)))));
    let before: Vec<_> = client.imap().capabilities().map(<[u8]>::to_vec).collect();
    assert!(before.contains(&b"STARTTLS".to_vec()));
    assert_eq!(client.call(Command::starttls()).await.unwrap().condition(), Condition::Ok);
    assert!(!before.iter().any(|name| client.imap().has_capability(str::from_utf8(name).unwrap())));
    assert!(matches!(client.start(Command::noop()).unwrap_err().reason, Reason::Invalid(_)));
    assert!(matches!(client.enter(()).await, Err(Error::Rejected(Reason::Invalid(_)))));
    let client = R::act(client, |state| state.stream_changed().unwrap());
    let mut client = in_time(R::over_tls(client, &server.certificate())).await;
    ask(&mut *client, Command::capability()).await;
    assert!(client.imap().has_capability("IDLE") && !client.imap().has_capability("STARTTLS"));
    // Not twice.
    assert_eq!(refusal(client.call(Command::starttls()).await).condition(), Condition::Bad);
    session(&mut *client, &server, 2).await;
}

async fn session(client: &mut impl Mail, server: &Server, exists: u32) {
    inbox(client).await;
    client.enter(()).await.unwrap();
    let text = message(exists, &"0123456789\r\n".repeat(100_000));
    server.maildir("alice").deliver(&text);
    assert_eq!(next(client).await.unwrap(), Some(Notification::Exists(exists)));
    let mut told = Vec::new();
    let fetch = Command::fetch(exists.to_string(), "BODY.PEEK[]");
    client.ring_with(fetch, |notification| told.push(notification)).await.unwrap();
    told.retain(|notification| !matches!(notification, Notification::Recent(_)));
    assert_fetch(&told, exists, &format!("BODY[] {{{}}}\r\n{text}", text.len()));
    client.leave().await.unwrap();
    assert_eq!(next(client).await.unwrap(), None);
    ask(client, Command::append("INBOX", r"(\Deleted)", &*text)).await;
    ask(client, Command::new("EXPUNGE")).await;
}

async fn starttls_is_refused<R: Runtime>() {
    let server = Server::dovecot("");
    let mut client = R::connect(server.address).await;
    refusal(client.call(Command::starttls()).await);
    assert_eq!(inbox(&mut *client).await, 0);
}

/// `C` is a line of the client, `S` one of the server, `s` octets of the server as they are.
async fn scripted<R: Runtime>(wire: &[&str]) -> (R::Plain, JoinHandle<()>) {
    let line = |line: &&str| match line.split_at(2) {
        ("C ", text) => Line::Client(format!("{text}\r\n").into()),
        ("S ", text) => Line::Server(format!("{text}\r\n").into()),
        ("s ", text) => Line::Server(text.into()),
        _ => panic!("what is {line:?}?"),
    };
    let (address, server) = tcp::serve(wire.iter().map(line).collect());
    (R::connect(address).await, server)
}

/// It closes once it has said all.
async fn closes(client: &mut impl Mail) {
    assert!(matches!(in_time(client.next_event()).await, Ok(Event::Closed)));
}

async fn data_come_before_the_confirmation<R: Runtime>() {
    let wire = [
        "S * OK ready",
        "C A2 IDLE",
        "S * 4 EXISTS",
        "S * 2 EXPUNGE",
        "S * OK [ALERT] hello",
        "S + idling",
        "S * 3 EXISTS",
        "C DONE",
        "S * 5 EXISTS",
        "S A2 OK done",
        "C A4 NOOP",
        "S A4 OK done",
    ];
    let (mut client, server) = scripted::<R>(&wire).await;
    client.enter(()).await.unwrap();
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Exists(4)));
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Expunge(2)));
    assert!(matches!(next(&mut *client).await, Ok(Some(Notification::Status(status))) if status.text() == b"hello"));
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Exists(3)));
    client.leave().await.unwrap();
    assert_eq!(ask(&mut *client, Command::noop()).await, [Notification::Exists(5)]);
    assert_eq!(next(&mut *client).await.unwrap(), None);
    drop(client);
    server.join().unwrap();
}

async fn idle_is_refused<R: Runtime>() {
    let wire = ["S * OK ready", "C A2 IDLE", "S * 1 EXISTS", "S A2 NO [LIMIT] not now", "C A3 NOOP", "S A3 OK done"];
    let (mut client, server) = scripted::<R>(&wire).await;
    assert_eq!(refusal(client.enter(()).await).code(), Some(&b"LIMIT"[..]));
    assert_eq!(ask(&mut *client, Command::noop()).await, [Notification::Exists(1)]);
    drop(client);
    server.join().unwrap();

    // The wish to leave, and what was asked behind it, waited for the answer: the former is void now.
    let wire = ["S * OK ready", "C A2 IDLE", "S A2 NO not now", "C A4 NOOP", "S A4 OK done"];
    let (client, server) = scripted::<R>(&wire).await;
    let (mut enter, mut noop) = (None, None);
    let mut client = R::act(client, |state| {
        enter = Some(state.enter(()).unwrap());
        assert!(state.leave());
        noop = Some(state.request(Command::noop()).unwrap());
    });
    assert!(matches!(in_time(client.next_event()).await, Ok(Event::Refused { id, .. }) if Some(id) == enter));
    assert!(matches!(in_time(client.next_event()).await, Ok(Event::Reply { id, .. }) if Some(id) == noop));
    closes(&mut *client).await;
    drop(client);
    server.join().unwrap();
}

async fn idle_is_answered_without_a_confirmation<R: Runtime>() {
    let (mut client, server) = scripted::<R>(&["S * OK ready", "C A2 IDLE", "S A2 OK done"]).await;
    let error = client.enter(()).await.unwrap_err();
    assert!(matches!(error, Error::Lost { sent: true, end: End::Failed(Violation::Violation { .. }) }), "{error}");
    drop(client);
    server.join().unwrap();
}

/// The client leaves a mode that the server has ended: `DONE` is taken for a tag.
async fn leaving_crosses_the_end<R: Runtime>() {
    let wire = [
        "S * OK ready",
        "C A2 IDLE",
        "s + idling\r\n* 1 EXISTS\r\nA2 OK enough\r\n",
        "C DONE",
        "S DONE BAD what?",
        "C A4 NOOP",
        "S A4 OK done",
        "C A5 IDLE",
        "S + idling",
        "S A5 BAD Expected DONE",
        "C A6 NOOP",
        "S A6 OK done",
    ];
    let (mut client, server) = scripted::<R>(&wire).await;
    client.enter(()).await.unwrap();
    client.leave().await.unwrap();
    assert_eq!(ask(&mut *client, Command::noop()).await, [Notification::Exists(1)]);
    assert_eq!(next(&mut *client).await.unwrap(), None);
    // It is not left where the end was seen.
    client.enter(()).await.unwrap();
    assert_eq!(refusal(next(&mut *client).await).condition(), Condition::Bad);
    client.leave().await.unwrap();
    assert_eq!(ask(&mut *client, Command::noop()).await, []);
    drop(client);
    server.join().unwrap();
}

async fn literals_that_do_not_end<R: Runtime>() {
    let wire = ["S * OK ready", "C A2 FETCH 1 BODY[]", "s * 1 FETCH (BODY[] {10}\r\n)\r\nA2 OK"];
    let (mut client, server) = scripted::<R>(&wire).await;
    let error = client.call(Command::fetch("1", "BODY[]")).await.unwrap_err();
    // All of it counts.
    let octets = wire[2].len() as u64 - 2;
    let is_cut = |end: &End| matches!(end, End::Failed(Violation::UnexpectedEof { octets: o }) if *o == octets);
    assert!(matches!(&error, Error::Lost { sent: true, end } if is_cut(end)), "{error}");
    assert!(matches!(next(&mut *client).await, Err(Error::Ended(end)) if is_cut(&end)));
    drop(client);
    server.join().unwrap();

    for length in ["9223372036854775808", "99999999999999999999999", "67108864"] {
        let announced = format!("S * 1 FETCH (BODY[] {{{length}}}");
        let (mut client, server) = scripted::<R>(&["S * OK ready", "C A2 IDLE", "S + idling", &announced]).await;
        client.enter(()).await.unwrap();
        let error = next(&mut *client).await.unwrap_err();
        let allowed = Imap::LIMITS.answer;
        assert!(
            matches!(error, Error::Ended(End::Failed(Violation::AnswerTooLong { limit })) if limit == allowed),
            "{error}"
        );
        drop(client);
        server.join().unwrap();
    }
}

async fn octets_are_injected<R: Runtime>() {
    for injected in ["* OK [CAPABILITY IMAP4rev1 IDLE] hello\r\n", "A3 OK done\r\n", "*"] {
        let answer = format!("s A2 OK begin\r\n{injected}");
        let wire = ["S * OK [CAPABILITY IMAP4rev1 STARTTLS] ready", "C A2 STARTTLS", &answer];
        let (mut client, server) = scripted::<R>(&wire).await;
        client.call(Command::starttls()).await.unwrap();
        let mut client = R::act(client, |state| {
            assert_eq!(state.stream_changed(), Err(StreamUnchanged::Failed(Violation::Injected)));
        });
        assert!(matches!(client.call(Command::noop()).await, Err(Error::Ended(End::Failed(Violation::Injected)))));
        assert_eq!(client.imap().capabilities().count(), 0);
        drop(client);
        server.join().unwrap();
    }
}

async fn greetings<R: Runtime>() {
    let (mut client, server) = scripted::<R>(&["S * BYE [UNAVAILABLE] too many"]).await;
    let error = client.call(Command::noop()).await.unwrap_err();
    assert!(matches!(error, Error::Lost { sent: false, end: End::Failed(Violation::GreetingRefused(_)) }), "{error}");
    drop(client);
    server.join().unwrap();

    let wire = ["S * PREAUTH welcome", "C A2 IDLE", "S + idling", "S * 1 EXISTS", "C DONE"];
    let (mut client, server) = scripted::<R>(&wire).await;
    client.enter(()).await.unwrap();
    assert_eq!(client.imap().greeting().map(Status::condition), Some(Condition::PreAuth));
    assert_eq!(next(&mut *client).await.unwrap(), Some(Notification::Exists(1)));
    client.leave().await.unwrap();
    drop(client);
    server.join().unwrap();
}

on_each_runtime! {
    logging_in;
    literals;
    mail_in_idle;
    ringing;
    leaving_at_once;
    leaving_crosses_changes;
    asked_in_one_go;
    five_thousand;
    still_here;
    silence_renews;
    refresh_renews;
    the_server_ends;
    the_server_is_killed;
    logging_out;
    over_tls;
    starttls_is_refused;
    data_come_before_the_confirmation;
    idle_is_refused;
    idle_is_answered_without_a_confirmation;
    leaving_crosses_the_end;
    literals_that_do_not_end;
    octets_are_injected;
    greetings;
}
