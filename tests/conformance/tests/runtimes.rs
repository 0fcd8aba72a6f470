//! What the clients of the two runtimes do beyond the scenarios: connecting, deadlines, streams, handlers, closing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use futures_lite::StreamExt;
use futures_lite::future::zip;
use socket2::SockRef;
use sonnette::board::{Board, Notification, Refusal, Reply, Request};
use sonnette::mpd::Mpd;
use sonnette::{Error as Violation, Event, Timeouts};
use sonnette_driver::{AsyncHandler, Connect, Connection, Driver, End, Error, Handle, Transport, board};
use sonnette_std::server::Server;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

/// A server that has a new random number each other millisecond.
fn server() -> SocketAddr {
    let mut server = Server::bind("127.0.0.1:0", Board::silent()).unwrap();
    server.set_classified("nice flat in the 11e").unwrap();
    let address = server.local_addr().unwrap();
    thread::spawn(move || {
        let (began, every) = (Instant::now(), Duration::from_millis(2));
        for number in 1.. {
            server.set_random(number.into());
            loop {
                let left = (every * number).saturating_sub(began.elapsed());
                if left.is_zero() {
                    break;
                }
                server.turn(Some(left)).unwrap();
            }
        }
    });
    address
}

/// Listens, and runs `serve` on the first connection.
fn listen(serve: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn is_send<T: Send>(value: T) -> T {
    value
}

/// Rings for each notification, up to a number of them.
struct Fetch {
    left: usize,
    fetched: Vec<i64>,
}

impl<T: Transport + Send> AsyncHandler<Board, T> for Fetch {
    async fn notification(&mut self, client: &mut Driver<Board, T>, _: Notification) -> Result<(), Error<Refusal>> {
        client.stop_notify().await?;
        self.fetched.push(client.random().await?);
        client.notify().await?;
        self.left -= 1;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }
}

struct Count(usize);

impl board::Handler for Count {
    fn random_available(&mut self) {
        self.0 -= 1;
    }

    fn is_done(&self) -> bool {
        self.0 == 0
    }
}

/// All that a client can do, in futures that can be sent to another thread.
async fn talk<T: Transport + Send>(client: &mut Driver<Board, T>) {
    is_send(client.random()).await.unwrap();
    assert_eq!(is_send(client.classified()).await.unwrap(), "nice flat in the 11e");
    is_send(client.notify()).await.unwrap();
    assert_eq!(is_send(client.wait_notification()).await.unwrap(), Some(Notification::Random));
    is_send(client.ring(Request::Random)).await.unwrap();

    let mut seen = Vec::new();
    let mut notifications = is_send(client.notifications());
    while seen.is_empty() {
        seen.push(is_send(notifications.next()).await.unwrap().unwrap());
    }
    assert_eq!(seen, [Notification::Random]);

    is_send(client.ring(Request::Random)).await.unwrap();
    is_send(client.ring_with(Request::Random, |_| {})).await.unwrap();
    let mut fetch = Fetch { left: 5, fetched: vec![] };
    is_send(client.run_with(&mut fetch)).await.unwrap();
    assert_eq!(fetch.fetched.len(), 5);
    is_send(client.run(&mut Count(1))).await.unwrap();

    is_send(client.stop_notify()).await.unwrap();
    is_send(client.call_with(Request::Random, |_| {})).await.unwrap();
    let id = client.start(Request::Random).unwrap();
    is_send(client.flush()).await.unwrap();
    is_send(client.outcome(id)).await.unwrap();
    is_send(client.close()).await.unwrap();
    loop {
        match is_send(client.next_event()).await.unwrap() {
            Event::Closed => break,
            event => assert!(!matches!(event, Event::Lost { .. }), "{event:?}"),
        }
    }
    assert!(client.notifications().next().await.unwrap().is_err());
}

/// A client waits neither for ever to be greeted; a machine by itself does.
#[test]
fn a_server_has_ten_seconds_to_greet_by_default() {
    let next = |mut state: sonnette::ClientState<Mpd>| state.poll_timeout(Duration::ZERO);
    assert_eq!(next(Connect::new().state(Mpd::new())), Some(Duration::from_secs(10)));
    assert_eq!(next(Connect::default().state(Mpd::new())), Some(Duration::from_secs(10)));
    assert_eq!(next(Connect::new().greeting_timeout(None).state(Mpd::new())), None);
    assert_eq!(next(sonnette::ClientState::new(Mpd::new())), None);
}

/// A server that says nothing is given up, and the timer is what ends the wait: how often it was polled until then.
async fn overdue<T: Transport>(client: &mut Driver<Board, T>) -> usize {
    let (mut waiting, mut polls) = (pin!(client.random()), 0);
    let outcome = poll_fn(|cx| {
        polls += 1;
        waiting.as_mut().poll(cx)
    });
    match outcome.await.unwrap_err() {
        Error::Lost { sent: true, end: End::Failed(Violation::ReplyTimeout) } => polls,
        error => panic!("{error:?}"),
    }
}

/// Through a shared handle as well: how often the connection was polled.
async fn overdue_for_all<T: Transport>(handle: Handle<Board>, connection: Connection<Board, T>) -> usize {
    let (mut connection, mut polls) = (pin!(connection), 0);
    let counted = poll_fn(|cx| {
        polls += 1;
        connection.as_mut().poll(cx)
    });
    let (over, answer) = zip(counted, async { handle.call(Request::Random).await }).await;
    assert!(matches!(over, Err(End::Failed(Violation::ReplyTimeout))), "{over:?}");
    assert!(matches!(answer, Err(Error::Lost { sent: true, .. })), "{answer:?}");
    polls
}

/// A client that says it has finished is still answered.
async fn closed<T: Transport>(client: &mut Driver<Board, T>) {
    client.start(Request::Random).unwrap();
    client.close().await.unwrap();
    assert_eq!(client.wait_notification().await.unwrap_err().to_string(), "the server closed the connection");
}

const QUESTIONS: usize = 1_000;
const ANSWER: [u8; 16_002] = {
    let mut answer = [b'x'; 16_002];
    (answer[16_000], answer[16_001]) = (b'\r', b'\n');
    answer
};

/// A server that reads no question before it has written all the answers: more than the system keeps for either side,
/// as are the questions for sockets with room for few.
fn stubborn_server() -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_recv_buffer_size(1).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..QUESTIONS {
            stream.write_all(&ANSWER).unwrap();
        }
        let mut asked = String::new();
        stream.read_to_string(&mut asked).unwrap();
        assert_eq!(asked, "classified?\r\n".repeat(QUESTIONS));
    };
    (address, thread::spawn(serve))
}

async fn full<T: Transport>(client: &mut Driver<Board, T>) {
    for _ in 0..QUESTIONS {
        client.start(Request::Classified).unwrap();
    }
    for _ in 0..QUESTIONS {
        match client.next_event().await.unwrap() {
            Event::Reply { reply: Reply::Classified(text), .. } => assert_eq!(text.len(), ANSWER.len() - 2),
            event => panic!("{event:?}"),
        }
    }
    client.close().await.unwrap();
}

fn connect() -> Connect {
    Connect::new()
        .connect_timeout(Some(Duration::from_secs(30)))
        .keepalive(Some(Duration::from_secs(77)))
        .timeouts(Timeouts { reply: Some(Duration::from_millis(20)), ..Timeouts::default() })
}

fn refused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn silent_server() -> (SocketAddr, thread::JoinHandle<()>) {
    listen(|mut stream| {
        // Until the client is gone.
        stream.read_to_end(&mut Vec::new()).unwrap();
    })
}

/// A server with no place for one more in its queue, to which the system does not answer then.
#[cfg(target_os = "linux")]
fn crowded() -> (SocketAddr, socket2::Socket, Vec<TcpStream>) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            Ok(stream) => waiting.push(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return (address, listener, waiting),
            Err(error) => panic!("{error}"),
        }
    }
}

fn closing_server() -> (SocketAddr, thread::JoinHandle<()>) {
    listen(|mut stream| {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "random?\r\n");
        stream.write_all(b"1\r\n").unwrap();
    })
}

fn on_unix(path: &std::path::Path) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _): (UnixStream, _) = listener.accept().unwrap();
        let mut said = [0; 9];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"random?\r\n");
        stream.write_all(b"7\r\n").unwrap();
        // To the next it says nothing.
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    })
}

macro_rules! runtime {
    ($name:ident, $client:ident, $block_on:path) => {
        mod $name {
            use super::*;
            use $client::Client;

            #[test]
            fn all_that_a_client_can_do() {
                $block_on(async {
                    let connecting = Client::<Board, _>::connect(server());
                    talk(&mut is_send(connecting).await.unwrap()).await;
                });
            }

            #[test]
            fn the_machine_s_deadlines_are_honoured_and_nothing_is_polled_until_then() {
                let (address, server) = silent_server();
                $block_on(async {
                    let mut client = Client::connect_with(&connect(), Board::silent(), address).await.unwrap();
                    // At first, when the time has come, and for readiness that was left from connecting.
                    let polls = overdue(&mut client).await;
                    assert!(polls <= 4, "{polls} polls");
                });
                server.join().unwrap();
            }

            #[test]
            fn nor_is_a_shared_connection() {
                let (address, server) = silent_server();
                $block_on(async {
                    let client = Client::connect_with(&connect(), Board::silent(), address).await.unwrap();
                    let (handle, connection) = client.share();
                    // As above, and when it was asked.
                    let polls = overdue_for_all(handle, connection).await;
                    assert!(polls <= 5, "{polls} polls");
                });
                server.join().unwrap();
            }

            #[test]
            #[cfg(target_os = "linux")]
            fn a_server_that_accepts_nobody_is_given_up() {
                let (address, _listener, _waiting) = crowded();
                $block_on(async {
                    let connect = Connect::new().connect_timeout(Some(Duration::from_millis(20)));
                    let error = Client::connect_with(&connect, Board::silent(), address).await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                });
            }

            #[test]
            fn what_is_closed_tells_the_server_and_is_answered_to_the_end() {
                let (address, server) = closing_server();
                $block_on(async {
                    let mut client = Client::<Board, _>::connect(address).await.unwrap();
                    closed(&mut client).await;
                });
                server.join().unwrap();
            }

            #[test]
            fn every_address_is_tried_and_the_socket_set_up() {
                let (address, server) = silent_server();
                $block_on(async {
                    let addresses = [refused(), address];
                    let client = Client::connect_with(&connect(), Board::silent(), &addresses[..]).await.unwrap();
                    let socket = SockRef::from(client.stream());
                    assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
                    assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
                    let (state, stream, kept) = client.into_parts();
                    let client = Client::with_state(state, stream);
                    assert!(kept.is_empty() && client.state().output().is_empty());

                    let error = Client::<Board, _>::connect(refused()).await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                    let error = Client::<Board, _>::connect(&[] as &[SocketAddr]).await.unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                });
                server.join().unwrap();
            }

            #[test]
            fn full_buffers_on_both_sides_are_no_deadlock() {
                let (address, server) = stubborn_server();
                $block_on(async {
                    let mut client = Client::<Board, _>::connect(address).await.unwrap();
                    SockRef::from(client.stream()).set_send_buffer_size(1).unwrap();
                    full(&mut client).await;
                });
                server.join().unwrap();
            }

            #[test]
            fn over_a_unix_socket() {
                let scratch = tempfile::tempdir().unwrap();
                let path = scratch.path().join("board");
                let server = on_unix(&path);
                $block_on(async {
                    let mut client = is_send(Client::<Board, _>::connect_unix(&path)).await.unwrap();
                    assert_eq!(client.random().await.unwrap(), 7);
                    let connect = connect();
                    let connecting = Client::connect_unix_with(&connect, Board::silent(), &path);
                    overdue(&mut is_send(connecting).await.unwrap()).await;
                });
                server.join().unwrap();
            }
        }
    };
}

fn on_one_thread<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

runtime!(on_smol, sonnette_smol, async_io::block_on);
runtime!(on_tokio, sonnette_tokio, on_one_thread);
