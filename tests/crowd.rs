//! Thousands of clients on the example server: one thread there, in a process of its own, and one thread here.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

mod examples;
#[path = "../examples/support/files.rs"]
mod files;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use sonnette::board::{Board, Request};
use sonnette::{ClientState, Event, Mode};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// A client that only reads what rings it, or asks each time, or never reads.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Listens,
    Rings,
    NeverReads,
}

struct Client {
    stream: TcpStream,
    state: ClientState<Board>,
    manner: Manner,
    ring_due: bool,
    notified: u64,
    answered: u64,
}

impl Client {
    /// Reads once and writes what follows from it; `false` if there is nothing to read now.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        let octets = match self.stream.read(buffer) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) => panic!("{error}"),
        };
        assert!(octets > 0, "the server closed");
        self.state.receive(&buffer[..octets]);
        while let Some(event) = self.state.poll_event().unwrap() {
            match event {
                Event::Notification(_) => {
                    self.notified += 1;
                    self.ring_due = self.manner == Manner::Rings;
                }
                Event::Reply { .. } => self.answered += 1,
                Event::Entered { .. } | Event::Left { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        // One ring at a time: what is notified while one is on its way is fetched by the next.
        if self.ring_due && self.state.mode() == Mode::Notification {
            self.ring_due = false;
            self.state.leave();
            self.state.request(Request::Random).unwrap();
            self.state.enter(()).unwrap();
        }
        self.write();
        true
    }

    /// A socket that was just written to little takes a few octets at once.
    fn write(&mut self) {
        while !self.state.output().is_empty() {
            let written = self.stream.write(self.state.output()).unwrap();
            self.state.advance_output(written);
        }
    }
}

struct Crowd {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    buffer: Vec<u8>,
}

impl Crowd {
    fn new(address: SocketAddr, size: usize, manner: impl Fn(usize) -> Manner) -> Self {
        let poll = Poll::new().unwrap();
        let clients = (0..size)
            .map(|at| {
                // Connecting blocks until the server's system has taken note, so that its queue of new ones never fills.
                let stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_nonblocking(true).unwrap();
                let mut stream = TcpStream::from_std(stream);
                if manner(at) != Manner::NeverReads {
                    poll.registry().register(&mut stream, Token(at), Interest::READABLE).unwrap();
                }
                let state = ClientState::new(Board::silent());
                let mut client =
                    Client { stream, state, manner: manner(at), ring_due: false, notified: 0, answered: 0 };
                client.state.enter(()).unwrap();
                assert!(matches!(client.state.poll_event(), Ok(Some(Event::Entered { .. }))));
                client.write();
                client
            })
            .collect();
        Crowd { poll, events: Events::with_capacity(1024), clients, buffer: vec![0; 4096] }
    }

    fn run_until(&mut self, done: impl Fn(&[Client]) -> bool) {
        while !done(&self.clients) {
            match self.poll.poll(&mut self.events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                polled => polled.unwrap(),
            }
            for event in &self.events {
                let client = &mut self.clients[event.token().0];
                while client.turn(&mut self.buffer) {}
            }
        }
    }
}

/// Room for so many sockets here and in the server, or as many as there may be.
fn room_for(clients: usize) -> usize {
    let room = files::room_for(clients).unwrap();
    if room < clients {
        eprintln!("the file table has room for {room} clients instead of {clients}");
    }
    room
}

/// Resident memory of a process, in octets.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn two_thousand_clients_are_each_rung() {
    let size = room_for(2_000);
    let (_server, address) = examples::server(&["--every", "20"]);
    let mut crowd = Crowd::new(address.parse().unwrap(), size, |_| Manner::Rings);
    crowd.run_until(|clients| clients.iter().all(|client| client.answered >= 2));
    assert!(crowd.clients.iter().all(|client| client.answered <= client.notified));
}

fn memory_stays(size: usize, news: u64) {
    let size = room_for(size);
    let (server, address) = examples::server(&["--every", "0"]);
    let mut crowd = Crowd::new(address.parse().unwrap(), size, |at| match at % 2 {
        0 => Manner::Listens,
        _ => Manner::NeverReads,
    });
    // Each notification a client reads was caused by a piece of news of its own.
    crowd.run_until(|clients| clients[0].notified >= 100);
    let before = resident(server.id());
    crowd.run_until(|clients| clients[0].notified >= news);
    let after = resident(server.id());
    assert!(after <= before + 4 * 1024 * 1024, "{before} octets after 100, {after} after {news} news");
}

#[test]
fn clients_that_never_read_do_not_grow_the_server() {
    memory_stays(100, 2_000);
}

/// The whole of it; `.ci/run` runs it in the release profile.
#[test]
#[ignore = "takes a minute without optimisation: .ci/run runs it with"]
fn two_thousand_clients_half_of_which_never_read_and_ten_thousand_news() {
    memory_stays(2_000, 10_000);
}
