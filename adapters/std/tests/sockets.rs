//! The blocking client over real sockets.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::{ClientState, Limits, Timeouts};
use sonnette_std::server::Server;
use sonnette_std::{Client, Connect, End, Error, Socket};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A server of its own that has a new number whenever it is told one.
fn server(board: Board) -> (SocketAddr, impl Fn(i64)) {
    let mut server = Server::bind("127.0.0.1:0", board).unwrap();
    server.set_random(46774);
    server.set_classified("nice flat in the 11e").unwrap();
    let (address, waker) = (server.local_addr().unwrap(), server.waker());
    let (news, to_tell) = std::sync::mpsc::channel();
    thread::spawn(move || {
        loop {
            server.turn(None).unwrap();
            for number in to_tell.try_iter() {
                server.set_random(number);
            }
        }
    });
    let tell = move |number| {
        news.send(number).unwrap();
        waker.wake().unwrap();
    };
    (address, tell)
}

/// Listens, and runs `serve` on the first connection.
fn listen<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn expect_line(stream: &TcpStream, line: &str) {
    let mut octets = vec![0; line.len()];
    (&*stream).read_exact(&mut octets).unwrap();
    assert_eq!(String::from_utf8_lossy(&octets), line);
}

#[test]
fn the_talk_in_both_dialects() {
    for board in [Board::silent(), Board::acknowledged()] {
        let (address, news) = server(board);
        let mut client = Connect::new().tcp(board, address).unwrap();
        assert_eq!(client.random().unwrap(), 46774);
        assert_eq!(client.classified().unwrap(), "nice flat in the 11e");
        client.notify().unwrap();
        for number in 1..50 {
            news(number);
            assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
            assert_eq!(client.ring(Request::Random).unwrap(), Reply::Random(number));
        }
        client.stop_notify().unwrap();
        assert_eq!(client.random().unwrap(), 49);
        client.close().unwrap();
    }
}

#[test]
fn every_address_of_a_name_is_tried() {
    let (good, _news) = server(Board::silent());
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = Client::<Board, _>::connect(&[refused, good][..]).unwrap();
    assert_eq!(client.random().unwrap(), 46774);

    let error = Client::<Board, _>::connect(&[refused][..]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let error = Client::<Board, _>::connect(&[] as &[SocketAddr]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_socket_is_set_up() {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepidle, tcp_nodelay};
    let (address, _news) = server(Board::silent());
    let client = Connect::new().keepalive(Some(Duration::from_secs(77))).tcp(Board::silent(), address).unwrap();
    assert!(tcp_nodelay(client.stream()).unwrap() && socket_keepalive(client.stream()).unwrap());
    assert_eq!(tcp_keepidle(client.stream()).unwrap(), Duration::from_secs(77));
}

#[test]
fn ipv6() {
    let listener = match TcpListener::bind("[::1]:0") {
        Ok(listener) => listener,
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "only a machine without IPv6 may go without");
            return;
        }
    };
    let mut client = Client::<Board, _>::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    (&stream).write_all(b"6\r\n").unwrap();
    assert_eq!(client.random().unwrap(), 6);
}

#[test]
fn unix_sockets() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("board");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = Client::<Board, _>::connect_unix(&path).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"5\r\nnotif: classified\r\n").unwrap();
    assert_eq!(client.random().unwrap(), 5);
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Classified));
    client.close().unwrap();
    let mut asked = String::new();
    stream.read_to_string(&mut asked).unwrap();
    assert_eq!(asked, "random?\r\nnotif\r\n");
}

#[test]
fn small_writes_are_not_delayed() {
    let (address, _news) = server(Board::silent());
    let client = Client::<Board, _>::connect(address).unwrap();
    assert!(rustix::net::sockopt::tcp_nodelay(client.stream()).unwrap());
}

#[test]
fn timeouts_are_settable_and_lose_nothing() {
    let (told, wait) = std::sync::mpsc::channel();
    let (address, server) = listen(move |stream| {
        expect_line(&stream, "random?\r\n");
        (&stream).write_all(b"467").unwrap();
        wait.recv().unwrap();
        (&stream).write_all(b"74\r\n").unwrap();
        stream
    });
    let timeout = Some(Duration::from_millis(20));
    let connect = Connect::new().connect_timeout(Some(Duration::from_secs(10))).read_timeout(timeout);
    let mut client = connect.write_timeout(timeout).tcp(Board::silent(), address).unwrap();
    let Err(Error::TimedOut { id: Some(id) }) = client.random() else { panic!("it must time out") };
    assert!(matches!(client.outcome(id), Err(Error::TimedOut { .. })));
    client.stream_mut().set_read_timeout(None).unwrap();
    told.send(()).unwrap();
    assert_eq!(client.outcome(id).unwrap(), Reply::Random(46774));
    drop(server);
}

/// A stream for which the system keeps little, in both directions.
fn narrow(listener: &TcpListener) -> (Socket, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        rustix::net::sockopt::set_socket_send_buffer_size(stream, 8192).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(stream, 8192).unwrap();
    }
    (client.into(), server)
}

/// More than narrow sockets hold, and than the machine's limits usually allow.
const MANY: usize = 30_000;

fn busy(socket: Socket) -> Client<Board, Socket> {
    let limits = Limits::new().with_pending(MANY + 2).with_output(16 * MANY);
    let mut client = Client::with_state(ClientState::with_limits(Board::silent(), limits), socket);
    for _ in 0..MANY {
        client.start(Request::Random).unwrap();
    }
    client
}

#[test]
fn two_full_socket_buffers_do_not_deadlock() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (socket, server) = narrow(&listener);
    let server = thread::spawn(move || {
        // It answers each request before it reads the next one, and blocks when the client does not read.
        let mut answers = server.try_clone().unwrap();
        for line in BufReader::new(server).lines().take(MANY) {
            assert_eq!(line.unwrap(), "random?");
            answers.write_all(b"1\r\n").unwrap();
        }
    });
    let mut client = busy(socket);
    client.set_backlog(MANY);
    client.set_backlog_octets(usize::MAX);
    client.flush().unwrap();
    for _ in 0..MANY {
        assert!(matches!(client.next_event().unwrap(), sonnette::Event::Reply { reply: Reply::Random(1), .. }));
    }
    server.join().unwrap();
}

#[test]
fn a_peer_that_does_not_read_ends_in_a_write_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut socket, server) = narrow(&listener);
    socket.set_write_timeout(Some(Duration::from_millis(20)));
    let mut client = busy(socket);
    assert!(matches!(client.flush(), Err(Error::TimedOut { id: None })));
    // So it does in a read timeout, since nothing is received either.
    client.stream_mut().set_write_timeout(None);
    client.stream_mut().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(matches!(client.flush(), Err(Error::TimedOut { id: None })));
    // Nothing is lost: once the peer reads, the rest goes out.
    let server = thread::spawn(move || BufReader::new(server).lines().take(MANY).map(Result::unwrap).count());
    client.stream_mut().set_read_timeout(None).unwrap();
    client.stream_mut().set_write_timeout(Some(Duration::MAX));
    client.flush().unwrap();
    assert_eq!(server.join().unwrap(), MANY);
}

#[test]
fn another_thread_interrupts_a_wait_and_leave_is_still_written() {
    let (address, server) = listen(|stream| {
        expect_line(&stream, "notif\r\n");
        (&stream).write_all(b"notif: random\r\n").unwrap();
        let mut rest = String::new();
        (&stream).read_to_string(&mut rest).unwrap();
        rest
    });
    let mut client = Client::<Board, _>::connect(address).unwrap();
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    let interrupter = client.interrupter();
    let interrupting = thread::spawn(move || interrupter.interrupt());
    assert!(matches!(client.wait_notification(), Err(Error::Interrupted { id: None })));
    interrupting.join().unwrap();
    client.stop_notify().unwrap();
    client.close().unwrap();
    assert_eq!(server.join().unwrap(), "stop_notif\r\n");
}

#[test]
fn an_interrupter_keeps_no_socket_open() {
    let (address, server) = listen(|stream| (&stream).read(&mut [0]).unwrap());
    let client = Client::<Board, _>::connect(address).unwrap();
    let interrupter = client.interrupter();
    drop(client);
    assert_eq!(server.join().unwrap(), 0, "the end of the stream");
    interrupter.interrupt();
}

#[test]
fn a_peer_that_takes_nothing_more_ends_the_connection() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (&theirs).write_all(b"notif: random\r\n").unwrap();
    theirs.shutdown(std::net::Shutdown::Read).unwrap();
    let mut client = Client::new(Board::silent(), Socket::from(ours));
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random), "what it had said");
    let Err(Error::Ended(End::Io(error))) = client.wait_notification() else { panic!("it must end") };
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    drop(theirs);
}

#[test]
fn what_a_server_said_before_it_reset_the_connection_is_delivered() {
    let (address, server) = listen(|stream| {
        expect_line(&stream, "random?\r\nrandom?\r\n");
        (&stream).write_all(b"1\r\n").unwrap();
        // Closing with octets unread resets.
        let mut octet = [0];
        stream.peek(&mut octet).unwrap();
    });
    let mut client = Client::<Board, _>::connect(address).unwrap();
    let first = client.start(Request::Random).unwrap();
    client.start(Request::Random).unwrap();
    client.flush().unwrap();
    client.start(Request::Random).unwrap();
    assert_eq!(client.outcome(first).unwrap(), Reply::Random(1));
    client.flush().ok();
    server.join().unwrap();
    let end = loop {
        match client.next_event() {
            Ok(sonnette::Event::Lost { .. }) => {}
            other => break other,
        }
    };
    // Whether the system tells of the reset or of an end depends on which came first.
    assert!(matches!(&end, Ok(sonnette::Event::Closed) | Err(Error::Ended(End::Io(_)))), "{end:?}");
}

/// Counts reads and writes: over a [`Socket`] each is one system call while writes are taken at once.
struct Counted {
    socket: Socket,
    calls: usize,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.calls += 1;
        self.socket.read(buffer)
    }
}

impl Write for Counted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        self.socket.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[test]
fn a_round_trip_is_one_write_and_one_read() {
    let (address, _news) = server(Board::silent());
    let socket = Socket::from(TcpStream::connect(address).unwrap());
    let mut client = Client::new(Board::silent(), Counted { socket, calls: 0 });
    for round_trips in 1..100 {
        client.random().unwrap();
        assert_eq!(client.stream().calls, 2 * round_trips);
    }
}

#[test]
fn the_steady_state_allocates_nothing() {
    let (address, echo) = listen(|theirs| {
        theirs.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(theirs.try_clone().unwrap());
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 0 {
            let answer: &[u8] = if line == "random?\r\n" { b"46774\r\nnotif: random\r\n" } else { b"" };
            (&theirs).write_all(answer).unwrap();
            line.clear();
        }
    });
    let mut client = Client::<Board, _>::connect(address).unwrap();
    client.notify().unwrap();
    let mut round = || {
        client.ring(Request::Random).unwrap();
        assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    };
    for _ in 0..100 {
        round();
    }
    let info = allocation_counter::measure(|| {
        for _ in 0..1_000 {
            round();
        }
    });
    assert_eq!(info.count_total, 0);
    drop(client);
    echo.join().unwrap();
}

/// What a thread has for its own is destroyed one after the other when it ends, and a client of its own may be among that.
#[test]
fn a_client_can_be_used_while_its_thread_ends() {
    struct Last(Option<(Client<Board, Socket>, std::sync::mpsc::Sender<i64>)>);

    impl Drop for Last {
        fn drop(&mut self) {
            if let Some((mut client, tell)) = self.0.take() {
                tell.send(client.random().unwrap()).unwrap();
            }
        }
    }

    thread_local! {
        static LAST: std::cell::RefCell<Last> = const { std::cell::RefCell::new(Last(None)) };
    }

    let (address, _news) = server(Board::silent());
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        // Known before what the client keeps for its thread, and destroyed after it.
        LAST.with_borrow_mut(|last| {
            last.0 = Some((Client::connect(address).unwrap(), tell));
            if let Some((client, _)) = &mut last.0 {
                client.random().unwrap();
            }
        });
    })
    .join()
    .unwrap();
    assert_eq!(told.recv().unwrap(), 46774);
}

/// A stream that asks over another client in each read, as one that must fetch a ticket first: the deadline of the outer read
/// counts all the same.
#[test]
fn a_client_inside_a_stream_does_not_take_its_deadline() {
    struct Nested {
        socket: Socket,
        other: Client<Board, Socket>,
    }

    impl Read for Nested {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert_eq!(self.other.random().unwrap(), 46774);
            self.socket.read(buffer)
        }
    }

    impl Write for Nested {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.socket.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.socket.flush()
        }
    }

    let (address, _news) = server(Board::silent());
    let (silent, until_closed) = listen(|mut stream| {
        // Longer than the deadline by far.
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    let socket = Socket::from(TcpStream::connect(silent).unwrap());
    let mut client = Client::new(Board::silent(), Nested { socket, other: Client::connect(address).unwrap() });
    client.set_timeouts(Timeouts { reply: Some(Duration::from_millis(30)), ..Timeouts::OFF });
    let error = client.random().unwrap_err();
    assert!(matches!(&error, Error::Lost { end: End::Failed(sonnette::Error::ReplyTimeout), .. }), "{error:?}");
    drop(client);
    assert_eq!(until_closed.join().unwrap(), "random?\r\n");
}

/// A server that never greets is not waited for for ever, by default.
#[test]
fn a_server_that_does_not_greet_is_given_up() {
    let (address, until_closed) = listen(|mut stream| {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    let connect = Connect::new().greeting_timeout(Some(Duration::from_millis(30)));
    let mut client = connect.tcp(sonnette::mpd::Mpd::new(), address).unwrap();
    let error = client.call(sonnette::mpd::Command::new("status").into()).unwrap_err();
    assert!(
        matches!(&error, Error::Lost { sent: false, end: End::Failed(sonnette::Error::GreetingTimeout) }),
        "{error:?}"
    );
    drop(client);
    assert_eq!(until_closed.join().unwrap(), "");
}
