//! The machine in a loop of your own: one thread, any number of connections, readiness from mio, no adapter.
//!
//! `cargo run --example embed -- [--clients N] [--count N]`
//!
//! It starts a server of its own. Each connection fetches what it is rung for, and tells it: `3: 90210`.

mod support;

use clap::Parser;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::{ClientState, Event, Mode, Timeouts};
use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Parser)]
#[command(name = "embed", about = "Drives connections by hand from one readiness loop.")]
struct Options {
    #[arg(long, value_name = "N", default_value_t = 3)]
    clients: usize,
    /// How many numbers each connection fetches
    #[arg(long, value_name = "N", default_value_t = 3)]
    count: usize,
}

/// One connection: a socket, the machine, and what the application makes of it.
struct Connection {
    stream: TcpStream,
    state: ClientState<Board>,
    news: bool,
    fetched: usize,
}

/// A server that says nothing for so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    support::exit("embed", run(&support::options()))
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let server = support::board::open("127.0.0.1:0", support::board::Dialect::Silent)?;
    let address = server.local_addr()?;
    std::thread::spawn(move || support::board::serve(server, Duration::from_millis(50)));

    let mut poll = Poll::new()?;
    let mut connections = Vec::new();
    for token in 0..options.clients {
        let mut stream = TcpStream::connect(address)?;
        poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        let mut state = ClientState::new(Board::silent());
        state.set_timeouts(Timeouts { silence: Some(SILENCE), ..Timeouts::default() });
        state.enter(())?;
        connections.push(Connection { stream, state, news: false, fetched: 0 });
    }
    let (began, mut events) = (Instant::now(), Events::with_capacity(128));
    // One for all connections: an idle one holds no memory to read into.
    let mut buffer = vec![0; 64 * 1024];
    while connections.iter().any(|connection| connection.fetched < options.count) {
        // The machines read no clock: this loop does.
        let now = began.elapsed();
        let deadlines = connections.iter_mut().filter_map(|connection| connection.state.poll_timeout(now));
        let wait = deadlines.min().map(|deadline| deadline.saturating_sub(now));
        match poll.poll(&mut events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let token = event.token().0;
            if let Some(connection) = connections.get_mut(token) {
                // mio tells once of what there is: all of it, and what follows from each part before the next.
                while connection.read(&mut buffer)? {
                    connection.turn(token)?;
                }
                connection.turn(token)?;
            }
        }
        let now = began.elapsed();
        for (token, connection) in connections.iter_mut().enumerate() {
            if connection.state.poll_timeout(now).is_some_and(|deadline| deadline <= now) {
                connection.state.handle_timeout(now);
                connection.turn(token)?;
            }
        }
    }
    Ok(())
}

impl Connection {
    /// Reads once; `false` if there is no more now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self.stream.read(buffer) {
            Ok(0) => {
                self.state.receive_eof();
                Ok(false)
            }
            Ok(octets) => {
                self.state.receive(buffer.get(..octets).unwrap_or_default());
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => Ok(true),
                io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Does what follows from what was read, and writes what follows from that.
    fn turn(&mut self, token: usize) -> Result<(), Box<dyn Error>> {
        while let Some(event) = self.state.poll_event()? {
            match event {
                Event::Notification(Notification::Random) => self.news = true,
                Event::Reply { reply: Reply::Random(number), .. } => {
                    self.fetched += 1;
                    writeln!(io::stdout(), "{token}: {number}")?;
                }
                Event::Closed => return Err("the server closed the connection".into()),
                _ => {}
            }
        }
        if self.news && self.state.mode() == Mode::Notification {
            self.news = false;
            self.state.ring(Request::Random, ())?;
        }
        while !self.state.output().is_empty() {
            match self.stream.write(self.state.output()) {
                Ok(written) => self.state.advance_output(written),
                // It will be told when there is room, or a connection.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.state.shrink_to_fit();
        Ok(())
    }
}
