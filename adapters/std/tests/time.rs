//! The deadlines of the machine on a real clock and real sockets. Each is awaited, none is slept through.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::{ClientState, Event, Limits, Timeouts};
use sonnette_std::{Client, Connect, End, Error, Socket};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Short, since the tests wait for it; what depends on it happens in its order, however late.
const SOON: Duration = Duration::from_millis(30);
/// Never reached.
const LATE: Duration = Duration::from_secs(3600);

fn listen<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn expect(stream: &TcpStream, octets: &str) {
    let mut read = vec![0; octets.len()];
    (&*stream).read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8_lossy(&read), octets);
}

fn connect(address: SocketAddr, timeouts: Timeouts) -> Client<Board, Socket> {
    Connect::new().timeouts(timeouts).tcp(Board::silent(), address).unwrap()
}

#[test]
fn a_wait_for_a_notification_wakes_to_refresh_the_mode() {
    let (address, server) = listen(|mut stream| {
        expect(&stream, "notif\r\n");
        for _ in 0..3 {
            expect(&stream, "stop_notif\r\nnotif\r\n");
        }
        stream.write_all(b"notif: random\r\n").unwrap();
        stream
    });
    let mut client = connect(address, Timeouts { refresh: Some(SOON), reply: Some(LATE), silence: Some(LATE) });
    let began = Instant::now();
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    assert!(began.elapsed() >= 3 * SOON);
    drop(server.join().unwrap());
}

#[test]
fn a_wait_for_a_notification_wakes_to_probe_a_silent_server_and_to_give_it_up() {
    let (address, server) = listen(|mut stream| {
        let probe = "stop_notif\r\nrandom?\r\nnotif\r\n";
        expect(&stream, "notif\r\n");
        expect(&stream, probe);
        stream.write_all(b"46774\r\n").unwrap();
        expect(&stream, probe);
        stream
    });
    let mut client = connect(address, Timeouts { silence: Some(SOON), ..Timeouts::default() });
    client.notify().unwrap();
    let began = Instant::now();
    let failed = client.wait_notification().unwrap_err();
    assert!(matches!(failed, Error::Ended(End::Failed(sonnette::Error::SilenceTimeout))), "{failed:?}");
    assert!(began.elapsed() >= 3 * SOON);
    drop(server.join().unwrap());
}

#[test]
fn an_overdue_answer_ends_the_call() {
    let (address, server) = listen(|stream| {
        expect(&stream, "random?\r\n");
        stream
    });
    let mut client = connect(address, Timeouts { reply: Some(SOON), ..Timeouts::default() });
    let failed = client.random().unwrap_err();
    let overdue = End::Failed(sonnette::Error::ReplyTimeout).to_string();
    assert!(matches!(&failed, Error::Lost { sent: true, end } if end.to_string() == overdue), "{failed:?}");
    drop(server.join().unwrap());
}

/// The deadline also ends the wait of a client that has more to write than its peer takes.
#[test]
fn a_full_socket_does_not_hide_a_deadline() {
    let (address, server) = listen(|stream| stream);
    let stream = TcpStream::connect(address).unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, 4096).unwrap();
    let state = ClientState::with_limits(Board::silent(), Limits::new().with_pending(1 << 18).with_output(4 << 20));
    let mut client = Client::with_state(state, Socket::from(stream));
    client.set_timeouts(Timeouts { silence: Some(SOON), ..Timeouts::default() });
    while client.start(Request::Random).is_ok() {}
    let failed = client.flush().unwrap_err();
    assert!(matches!(failed, Error::BacklogFull { .. }), "{failed:?}");
    let lost = client.next_event().unwrap();
    assert!(matches!(lost, Event::Lost { sent: true, .. }), "{lost:?}");
    drop(server.join().unwrap());
}

/// Any other stream can be given no deadline, so it acts when a read returns.
#[test]
fn over_any_stream_a_deadline_acts_between_reads() {
    struct Slow {
        says: Vec<&'static [u8]>,
        heard: Vec<u8>,
    }

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let began = Instant::now();
            while began.elapsed() < SOON {
                thread::yield_now();
            }
            let octets = self.says.pop().unwrap_or_default();
            buffer[..octets.len()].copy_from_slice(octets);
            Ok(octets.len())
        }
    }

    impl Write for Slow {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.heard.extend(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let slow = Slow { says: vec![b"7\r\n", b"notif: random\r\n", b"notif: classified\r\n"], heard: Vec::new() };
    let mut client = Client::new(Board::silent(), slow);
    client.set_timeouts(Timeouts { refresh: Some(SOON), ..Timeouts::default() });
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Classified));
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    assert_eq!(client.ring(Request::Random).unwrap(), Reply::Random(7));
    let heard = String::from_utf8_lossy(&client.stream().heard);
    assert!(heard.starts_with("notif\r\nstop_notif\r\nnotif\r\n"), "{heard}");
}
