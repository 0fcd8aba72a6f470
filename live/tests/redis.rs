//! Redis' own server, on each runtime.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use sonnette::redis::{Command, Notification, Redis, Reply, Subscription, Value};
use sonnette::{Error as Violation, Limits, Mode, Reason, Timeouts};
use sonnette_conformance::subject::Subject;
use sonnette_driver::{Connect, End, Error};
use sonnette_live::Server;
use sonnette_std::Socket;
use sonnette_tls::client_config;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Who publishes what the client hears.
type Other = sonnette_std::Client<Redis, Socket>;

fn command(words: &str) -> Command {
    let mut words = words.split(' ');
    Command::new(words.next().unwrap()).args(words)
}

struct Scene {
    server: Server,
    other: Other,
}

fn scene(options: &[&str]) -> Scene {
    let server = Server::redis(options);
    let other = other(server.address);
    Scene { server, other }
}

fn other(address: SocketAddr) -> Other {
    sonnette_std::Connect::new().limits(limits()).tcp(Redis::new(), address).unwrap()
}

fn limits() -> Limits {
    Limits::new().with_line(64 * 1024).with_answer(32 << 20).with_output(32 << 20).with_pending(200_000)
}

fn timeouts() -> Timeouts {
    Timeouts { reply: Some(Duration::from_secs(60)), ..Timeouts::default() }
}

fn ok() -> Reply {
    Reply::Value(Value::Simple("OK".into()))
}

fn bulk(text: impl Into<Bytes>) -> Reply {
    Reply::Value(Value::Bulk(text.into()))
}

fn integer(number: i64) -> Reply {
    Reply::Value(Value::Integer(number))
}

fn message(channel: &'static str, payload: impl Into<Bytes>) -> Option<Notification> {
    Some(Notification::Message { channel: channel.into(), payload: payload.into() })
}

async fn messages_are_told(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    client.enter(Subscription::channels(["news", "sport"])).await.unwrap();
    for (channel, payload) in [("news", "one"), ("sport", "two"), ("elsewhere", "x"), ("news", ""), ("news", "\r\n\0")]
    {
        scene.other.call(Command::new("PUBLISH").arg(channel).arg(payload)).unwrap();
    }
    let told = [("news", "one"), ("sport", "two"), ("news", ""), ("news", "\r\n\0")];
    for (channel, payload) in told {
        assert_eq!(client.next_notification().await.unwrap(), message(channel, payload));
    }
    // More of both kinds, and less, in the mode.
    let confirmed = |confirmations, subscriptions| Reply::Confirmed { confirmations, subscriptions };
    assert_eq!(client.call(command("PSUBSCRIBE n* *s")).await.unwrap(), confirmed(2, 4));
    assert_eq!(client.call(command("UNSUBSCRIBE sport other")).await.unwrap(), confirmed(2, 3));
    let pong = Reply::Value(Value::Array(vec![Value::Bulk("pong".into()), Value::Bulk("hello".into())]));
    assert_eq!(client.call(command("PING hello")).await.unwrap(), pong);
    assert_eq!(scene.other.call(command("PUBLISH news thrice")).unwrap(), integer(3));
    assert_eq!(client.next_notification().await.unwrap(), message("news", "thrice"));
    let mut patterns = Vec::new();
    for _ in 0..2 {
        match client.next_notification().await.unwrap() {
            Some(Notification::PatternMessage { pattern, channel, payload }) => {
                assert_eq!((&channel[..], &payload[..]), (&b"news"[..], &b"thrice"[..]));
                patterns.push(pattern);
            }
            other => panic!("{other:?}"),
        }
    }
    patterns.sort();
    assert_eq!(patterns, ["*s", "n*"]);

    // Channels and patterns are left together, and what is asked then is answered.
    client.leave().await.unwrap();
    assert_eq!(client.call(command("ECHO hello")).await.unwrap(), bulk("hello"));
    assert_eq!(client.next_notification().await.unwrap(), None);
    assert_eq!(scene.other.call(command("PUBLISH news nobody")).unwrap(), integer(0));

    // The last one that is unsubscribed ends the mode.
    client.enter(Subscription::patterns(["n*"])).await.unwrap();
    assert_eq!(client.call(command("PUNSUBSCRIBE")).await.unwrap(), confirmed(1, 0));
    assert_eq!(client.next_notification().await.unwrap(), None);
    // RESET too.
    client.enter(Subscription::channels(["news"])).await.unwrap();
    assert_eq!(client.call(command("RESET")).await.unwrap(), Reply::Value(Value::Simple("RESET".into())));
    assert_eq!(client.call(command("PING")).await.unwrap(), Reply::Value(Value::Simple("PONG".into())));
}

/// Another client has this one told which keys change.
async fn keys_are_invalidated(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    let Reply::Value(Value::Integer(id)) = client.call(command("CLIENT ID")).await.unwrap() else { panic!("no id") };
    client.enter(Subscription::channels(["__redis__:invalidate"])).await.unwrap();
    let mut ask = |words: &str| scene.other.call(command(words)).unwrap();
    assert_eq!(ask(&format!("CLIENT TRACKING ON REDIRECT {id}")), ok());
    ask("GET k");
    assert_eq!(ask("SET k v"), ok());
    assert_eq!(ask("FLUSHALL"), ok());
    let text = |text: &'static str| Value::Bulk(text.into());
    for keys in [Value::Array(vec![text("k")]), Value::Nil] {
        let told = Notification::Other(vec![text("message"), text("__redis__:invalidate"), keys]);
        assert_eq!(client.next_notification().await.unwrap(), Some(told));
    }
    let pong = Value::Array(vec![text("pong"), text("")]);
    assert_eq!(client.call(command("PING")).await.unwrap(), Reply::Value(pong));
}

/// The message is in the socket before the client leaves.
async fn leaving_crosses_a_message(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    for round in 1..=500 {
        client.enter(Subscription::channels(["news"])).await.unwrap();
        let published = scene.other.call(command(&format!("PUBLISH news {round}"))).unwrap();
        assert_eq!(published, integer(1));
        client.leave().await.unwrap();
        assert_eq!(client.call(command("INCR n")).await.unwrap(), integer(round));
        assert_eq!(client.next_notification().await.unwrap(), message("news", round.to_string()));
        assert_eq!(client.next_notification().await.unwrap(), None);
    }
}

async fn ringing(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    client.enter(Subscription::channels(["news"])).await.unwrap();
    for round in 1..=100 {
        scene.other.call(command(&format!("SET k {round}"))).unwrap();
        scene.other.call(command(&format!("PUBLISH news {round}"))).unwrap();
        assert_eq!(client.next_notification().await.unwrap(), message("news", round.to_string()));
        assert_eq!(client.ring(command("GET k")).await.unwrap(), bulk(round.to_string()));
    }
}

async fn answers_of_all_kinds(client: &mut impl Subject<Redis>, _: &mut Scene) {
    assert_eq!(client.call(command("SET k v")).await.unwrap(), ok());
    assert_eq!(client.call(command("GET nothing")).await.unwrap(), Reply::Value(Value::Nil));
    assert_eq!(client.call(command("RPUSH l message news not-a-push")).await.unwrap(), integer(3));
    let items = ["message", "news", "not-a-push"].map(|item| Value::Bulk(item.into())).to_vec();
    assert_eq!(client.call(command("LRANGE l 0 -1")).await.unwrap(), Reply::Value(Value::Array(items)));
    let error = client.call(command("INCR k")).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(refusal) if refusal.code() == b"ERR"), "{error}");
    assert!(client.call(command("HELLO 2")).await.is_ok());
    assert!(matches!(client.start(command("HELLO 3")).unwrap_err().reason, Reason::Invalid(_)));
    // A transaction: an error inside an answer.
    for words in ["MULTI", "INCR k", "GET k"] {
        client.call(command(words)).await.unwrap();
    }
    match client.call(command("EXEC")).await.unwrap() {
        Reply::Value(Value::Array(items)) => {
            assert!(matches!(&items[..], [Value::Error(_), Value::Bulk(v)] if v == "v"), "{items:?}");
        }
        other => panic!("{other:?}"),
    }
    // Nested.
    let nested = client.call(Command::new("EVAL").arg("return {1, {2, {3, {}}}}").arg("0")).await.unwrap();
    assert!(format!("{nested:?}").contains("Array([Integer(3), Array([])])"), "{nested:?}");

    // A look-alike behind a leave.
    client.enter(Subscription::channels(["news"])).await.unwrap();
    client.leave().await.unwrap();
    let look_alike = client.call(command("LRANGE l 0 -1")).await.unwrap();
    assert!(matches!(look_alike, Reply::Value(Value::Array(items)) if items.len() == 3));
}

async fn refused(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    scene.other.call(command("ACL SETUSER sub on >pw resetchannels &open* +@all ~*")).unwrap();
    let error = client.call(Command::auth(Some("sub"), "wrong")).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(refusal) if refusal.code() == b"WRONGPASS"), "{error}");
    assert_eq!(client.call(Command::auth(Some("sub"), "pw")).await.unwrap(), ok());
    let error = client.enter(Subscription::channels(["open1", "secret"])).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(refusal) if refusal.code() == b"NOPERM"), "{error}");

    client.enter(Subscription::channels(["open1"])).await.unwrap();
    let error = client.call(command("SUBSCRIBE secret")).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(refusal) if refusal.code() == b"NOPERM"), "{error}");
    // Not sent, unless the caller insists.
    let rejected = client.start(command("GET k")).unwrap_err();
    assert_eq!(rejected.reason, Reason::NotAllowed(Mode::Notification));
    let error = client.call(command("GET k").anywhere()).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(refusal) if refusal.code() == b"ERR"), "{error}");
    scene.other.call(command("PUBLISH open1 still")).unwrap();
    assert_eq!(client.next_notification().await.unwrap(), message("open1", "still"));
}

async fn monitoring(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    client.enter(Subscription::Monitor).await.unwrap();
    scene.other.call(command("SET k v")).unwrap();
    match client.next_notification().await.unwrap() {
        Some(Notification::Monitor(line)) => assert!(line.ends_with(b"\"SET\" \"k\" \"v\""), "{line:?}"),
        other => panic!("{other:?}"),
    }
    client.leave().await.unwrap();
    assert_eq!(client.call(command("GET k")).await.unwrap(), bulk("v"));
    assert_eq!(client.next_notification().await.unwrap(), None);
}

async fn large_values(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    let value =
        |octets: u32| -> Vec<u8> { (0..octets).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect() };
    let large = value(20_000_000);
    assert_eq!(client.call(Command::new("SET").arg("k").arg(&large)).await.unwrap(), ok());
    assert!(client.call(command("GET k")).await.unwrap() == bulk(large));
    client.enter(Subscription::channels(["news"])).await.unwrap();
    let payload = value(5_000_000);
    for _ in 0..3 {
        scene.other.call(Command::new("PUBLISH").arg("news").arg(&payload)).unwrap();
        assert!(client.next_notification().await.unwrap() == message("news", payload.clone()));
    }
    // More than is allowed is refused when it is announced.
    scene.other.call(command("SETRANGE big 39999999 x")).unwrap();
    client.leave().await.unwrap();
    let error = client.call(command("GET big")).await.unwrap_err();
    let limit = 32 << 20;
    assert!(
        matches!(&error, Error::Lost { end: End::Failed(Violation::AnswerTooLong { limit: l }), .. } if *l == limit),
        "{error}"
    );
}

const BURST: usize = 100_000;

fn publish(other: &mut Other, messages: usize, width: usize) {
    for number in 0..messages {
        other.start(command(&format!("PUBLISH news {number:0>width$}"))).unwrap();
    }
    for _ in 0..messages {
        other.next_event().unwrap();
    }
}

/// All is published before anything is read.
async fn a_slow_reader(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    client.enter(Subscription::channels(["news"])).await.unwrap();
    publish(&mut scene.other, BURST, 1);
    for number in 0..BURST {
        assert_eq!(client.next_notification().await.unwrap(), message("news", number.to_string()));
    }
}

/// The server cuts off a reader for which too much is waiting: what it had sent is told, then that something is missing.
async fn a_reader_too_slow(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    scene.other.call(Command::new("CONFIG").args(["SET", "client-output-buffer-limit", "pubsub 100kb 0 0"])).unwrap();
    client.enter(Subscription::channels(["news"])).await.unwrap();
    // More than the system keeps for either side.
    let messages = 20_000;
    publish(&mut scene.other, messages, 1000);
    let mut told = 0;
    let error = loop {
        match client.next_notification().await {
            Ok(notification) => assert_eq!(notification, message("news", format!("{told:0>1000}"))),
            Err(error) => break error,
        }
        told += 1;
    };
    assert!(told > 0 && told < messages, "{told}");
    // Between two messages, in the middle of one, or before what the system had not delivered yet.
    let is_end =
        matches!(&error, Error::Ended(End::Closed | End::Failed(Violation::UnexpectedEof { .. }) | End::Io(_)));
    assert!(is_end, "{error}");
}

async fn the_server_ends(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    client.enter(Subscription::channels(["news"])).await.unwrap();
    scene.other.call(command("PUBLISH news last")).unwrap();
    assert_eq!(client.next_notification().await.unwrap(), message("news", "last"));
    scene.server.stop();
    let error = client.next_notification().await.unwrap_err();
    assert!(matches!(error, Error::Ended(End::Closed)), "{error}");
}

async fn the_server_is_killed(client: &mut impl Subject<Redis>, scene: &mut Scene) {
    client.enter(Subscription::channels(["news"])).await.unwrap();
    scene.other.call(command("PUBLISH news last")).unwrap();
    assert_eq!(client.next_notification().await.unwrap(), message("news", "last"));
    scene.server.kill();
    let error = client.next_notification().await.unwrap_err();
    assert!(matches!(error, Error::Ended(End::Closed)), "{error}");
}

macro_rules! on_each_runtime {
    ($($case:ident;)*) => {
        mod on_std {
            use super::*;

            $(#[test]
            fn $case() {
                let mut scene = scene(&[]);
                let connect = sonnette_std::Connect::new().timeouts(timeouts());
                let mut client = connect.tcp(Redis::new(), scene.server.address).unwrap();
                futures_lite::future::block_on(super::$case(&mut client, &mut scene));
            })*

            #[test]
            fn over_a_unix_socket() {
                let mut scene = scene(&[]);
                let connect = sonnette_std::Connect::new().timeouts(timeouts());
                let mut client = connect.unix(Redis::new(), scene.server.socket()).unwrap();
                futures_lite::future::block_on(super::ringing(&mut client, &mut scene));
            }

            #[test]
            fn over_tls() {
                let (server, address) = Server::redis_tls();
                let config = client_config(Some(&server.certificate())).unwrap();
                let connection = ClientConnection::new(config, localhost()).unwrap();
                let stream = StreamOwned::new(connection, Socket::from(TcpStream::connect(address).unwrap()));
                let mut client = sonnette_std::Client::new(Redis::new(), stream);
                let mut scene = Scene { other: other(server.address), server };
                futures_lite::future::block_on(super::ringing(&mut client, &mut scene));
            }
        }
        on_each_runtime!(on_smol, sonnette_smol, async_io::block_on, async_net::TcpStream, futures_rustls, $($case;)*);
        on_each_runtime!(on_tokio, sonnette_tokio, on_one_thread, tokio::net::TcpStream, tokio_rustls, $($case;)*);
    };
    ($name:ident, $client:ident, $block_on:path, $tcp:ty, $tls:ident, $($case:ident;)*) => {
        mod $name {
            use super::*;
            use $client::Client;

            $(#[test]
            fn $case() {
                let mut scene = scene(&[]);
                $block_on(async {
                    let connect = Connect::new().timeouts(timeouts());
                    let mut client = Client::connect_with(&connect, Redis::new(), scene.server.address).await.unwrap();
                    super::$case(&mut *client, &mut scene).await;
                });
            })*

            #[test]
            fn over_a_unix_socket() {
                let mut scene = scene(&[]);
                $block_on(async {
                    let connect = Connect::new().timeouts(timeouts());
                    let path = scene.server.socket();
                    let mut client = Client::connect_unix_with(&connect, Redis::new(), path).await.unwrap();
                    super::ringing(&mut *client, &mut scene).await;
                });
            }

            #[test]
            fn over_tls() {
                let (server, address) = Server::redis_tls();
                let config = client_config(Some(&server.certificate())).unwrap();
                let connector = $tls::TlsConnector::from(Arc::clone(&config));
                let mut scene = Scene { other: other(server.address), server };
                $block_on(async {
                    let stream = <$tcp>::connect(address).await.unwrap();
                    let stream = connector.connect(localhost(), stream).await.unwrap();
                    let mut client = Client::new(Redis::new(), stream);
                    super::ringing(&mut *client, &mut scene).await;
                });
            }
        }
    };
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

on_each_runtime! {
    messages_are_told;
    keys_are_invalidated;
    leaving_crosses_a_message;
    ringing;
    answers_of_all_kinds;
    refused;
    monitoring;
    large_values;
    a_slow_reader;
    a_reader_too_slow;
    the_server_ends;
    the_server_is_killed;
}
