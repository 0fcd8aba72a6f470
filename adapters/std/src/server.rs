//! A server of the notice board that serves many clients from one thread, for examples and tests.
//!
//! ```
//! use sonnette::board::Board;
//! use sonnette_std::{Client, server::Server};
//!
//! let mut server = Server::bind("127.0.0.1:0", Board::silent())?;
//! server.set_random(46774);
//! let mut client = Client::<Board, _>::connect(server.local_addr()?)?;
//! std::thread::spawn(move || loop {
//!     server.turn(None).unwrap();
//! });
//! assert_eq!(client.random()?, 46774);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use bytes::Bytes;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use sonnette::Rejected;
use sonnette::board::{Board, Reply, Request, ServerState, check_text};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX);
/// Also nobody's among the clients, who count from zero.
const WAKER: Token = Token(usize::MAX - 1);

/// Readiness events taken from the system at once.
const EVENTS: usize = 1_024;

/// Octets read from one client before the others have their turn.
const TURN: usize = 16 * 1024;

/// Without room for another file the server waits so long before it accepts again, or until a client is gone.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// A connection that the server closes is read on for so long, and so far, that the client can take the last answers: a
/// socket that is closed with octets unread is reset, and what was still on its way to the client is lost.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_OCTETS: usize = 1024 * 1024;

/// The notice board, and a connection to each client.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    events: Events,
    waker: Arc<mio::Waker>,
    listener: TcpListener,
    board: Board,
    random: i64,
    classified: Bytes,
    clients: Slab<Connection>,
    /// Clients that may have octets to be read or room to be written, each at most once.
    ready: VecDeque<usize>,
    /// Connections that are closing, in the order of their deadlines.
    lingering: VecDeque<(Instant, usize, u64)>,
    accepted: u64,
    /// Clients may be waiting to be accepted, and this says from when on to try.
    accept: Accept,
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    state: ServerState,
    /// Tells it from an earlier one in the same place.
    number: u64,
    readable: bool,
    writable: bool,
    queued: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Open,
    /// All is answered and written, and so many octets may still come.
    Lingering(usize),
}

#[derive(Clone, Copy, Debug)]
enum Accept {
    /// Nobody is waiting: the system will tell.
    Idle,
    /// Somebody may be waiting.
    Now,
    /// Somebody is waiting, and there is no room.
    Full(Instant),
}

/// Ends a turn of a [`Server`] from another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<mio::Waker>);

impl Waker {
    /// Ends the turn that waits, or else the next one that would.
    ///
    /// # Errors
    /// Those of the readiness system.
    pub fn wake(&self) -> io::Result<()> {
        self.0.wake()
    }
}

/// What a turn has to tell.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Turn {
    /// A client could not be accepted, mostly since the file table is full. It waits, and the server goes on; told once
    /// until accepting works again.
    pub accept_error: Option<io::Error>,
}

impl Server {
    /// Listens on the first address that can be had. The number is 0 and the ad is empty until they are set.
    ///
    /// # Errors
    /// That of the last address, or `InvalidInput` if there is none.
    pub fn bind(address: impl ToSocketAddrs, board: Board) -> io::Result<Self> {
        let mut bound = Err(io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"));
        for address in address.to_socket_addrs()? {
            bound = TcpListener::bind(address);
            if bound.is_ok() {
                break;
            }
        }
        let mut listener = bound?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Server {
            waker: Arc::new(mio::Waker::new(poll.registry(), WAKER)?),
            poll,
            events: Events::with_capacity(EVENTS),
            listener,
            board,
            random: 0,
            classified: Bytes::new(),
            clients: Slab::new(),
            ready: VecDeque::new(),
            lingering: VecDeque::new(),
            accepted: 0,
            accept: Accept::Idle,
            buffer: vec![0; TURN].into_boxed_slice(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Ends a turn from another thread, which has news, say.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.waker))
    }

    /// How many clients are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// There is a new number: whoever is in notification mode is rung at the next turn.
    pub fn set_random(&mut self, number: i64) {
        self.random = number;
        self.announce(Request::Random);
    }

    /// There is a new ad: whoever is in notification mode is rung at the next turn.
    ///
    /// # Errors
    /// The text comes back if the protocol cannot express it: see [`ServerState::answer`].
    pub fn set_classified(&mut self, text: impl Into<Bytes>) -> Result<(), Rejected<Bytes>> {
        let text = text.into();
        match check_text(&text) {
            Ok(()) => {
                self.classified = text;
                self.announce(Request::Classified);
                Ok(())
            }
            Err(reason) => Err(Rejected { value: text, reason }),
        }
    }

    fn announce(&mut self, kind: Request) {
        for (key, client) in &mut self.clients {
            client.state.notify(kind);
            if client.wants_turn() {
                client.queue(key, &mut self.ready);
            }
        }
    }

    /// Waits until a client wants something, at most for `timeout`, and serves all that do.
    ///
    /// What a client does never fails a turn.
    ///
    /// # Errors
    /// Those of the readiness system itself.
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<Turn> {
        let mut turn = Turn::default();
        let patience = self.patience(timeout);
        match self.poll.poll(&mut self.events, patience) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(turn),
            polled => polled?,
        }
        for event in &self.events {
            if event.token() == LISTENER {
                if let Accept::Idle = self.accept {
                    self.accept = Accept::Now;
                }
            } else if let Some(client) = self.clients.get_mut(event.token().0) {
                client.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                client.writable |= event.is_writable() || event.is_error();
                client.queue(event.token().0, &mut self.ready);
            }
        }
        self.accept(&mut turn);
        for _ in 0..self.ready.len() {
            if let Some(key) = self.ready.pop_front() {
                self.serve(key);
            }
        }
        self.end_lingering();
        Ok(turn)
    }

    /// How long to wait for the system to tell of something.
    fn patience(&self, timeout: Option<Duration>) -> Option<Duration> {
        if !self.ready.is_empty() || matches!(self.accept, Accept::Now) {
            return Some(Duration::ZERO);
        }
        let retry = if let Accept::Full(until) = self.accept { Some(until) } else { None };
        let linger = self.lingering.front().map(|(until, ..)| *until);
        let deadline = [retry, linger].into_iter().flatten().min();
        let until = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        [timeout, until].into_iter().flatten().min()
    }

    fn accept(&mut self, turn: &mut Turn) {
        match self.accept {
            Accept::Idle => return,
            Accept::Full(until) if Instant::now() < until => return,
            Accept::Now | Accept::Full(_) => {}
        }
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.accept = Accept::Now;
                    self.welcome(stream);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.accept = Accept::Idle;
                        return;
                    }
                    // The client went away while it waited.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {}
                    _ => {
                        if let Accept::Now = self.accept {
                            turn.accept_error = Some(error);
                        }
                        self.accept = Accept::Full(Instant::now() + FULL_WAIT);
                        return;
                    }
                },
            }
        }
    }

    fn welcome(&mut self, mut stream: TcpStream) {
        let entry = self.clients.vacant_entry();
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(entry.key()), both);
        // A connection that fails so early is closed by dropping it.
        if stream.set_nodelay(true).and(registered).is_ok() {
            self.accepted += 1;
            let state = ServerState::new(self.board);
            entry.insert(Connection {
                stream,
                state,
                number: self.accepted,
                readable: false,
                writable: false,
                queued: false,
                phase: Phase::Open,
            });
        }
    }

    fn serve(&mut self, key: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.queued = false;
        let served = match client.phase {
            Phase::Open => client.serve(&mut self.buffer, self.random, &self.classified),
            Phase::Lingering(octets) => client.linger(&mut self.buffer, octets),
        };
        match served {
            Ok(true) if matches!(client.phase, Phase::Open) && client.state.is_finished() => {
                if client.stream.shutdown(Shutdown::Write).is_err() {
                    self.clients.remove(key);
                    return;
                }
                client.phase = Phase::Lingering(LINGER_OCTETS);
                self.lingering.push_back((Instant::now() + LINGER, key, client.number));
                client.queue(key, &mut self.ready);
            }
            Ok(true) => {
                if client.wants_turn() {
                    client.queue(key, &mut self.ready);
                }
            }
            Ok(false) | Err(_) => {
                self.clients.remove(key);
                if let Accept::Full(until) = &mut self.accept {
                    *until = Instant::now();
                }
            }
        }
    }

    fn end_lingering(&mut self) {
        while let Some(&(until, key, number)) = self.lingering.front() {
            if until > Instant::now() && self.clients.get(key).is_some_and(|client| client.number == number) {
                return;
            }
            self.lingering.pop_front();
            if self.clients.get(key).is_some_and(|client| client.number == number) {
                self.clients.remove(key);
            }
        }
    }
}

impl Connection {
    fn queue(&mut self, key: usize, ready: &mut VecDeque<usize>) {
        if !self.queued {
            self.queued = true;
            ready.push_back(key);
        }
    }

    /// Whether there is something to be done that the system has already said is possible.
    fn wants_turn(&self) -> bool {
        match self.phase {
            Phase::Open => {
                (self.readable && self.state.wants_input())
                    || (self.writable && !self.state.output().is_empty())
                    || self.state.is_finished()
            }
            Phase::Lingering(_) => self.readable,
        }
    }

    /// Reads once, answers, and writes it all at once; `false` once the connection can be forgotten.
    fn serve(&mut self, buffer: &mut [u8], random: i64, classified: &Bytes) -> io::Result<bool> {
        if self.readable && self.state.wants_input() {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.readable = false;
                    self.state.receive_eof();
                }
                Ok(octets) => self.state.receive(buffer.get(..octets).unwrap_or_default()),
                Err(error) => self.readable &= not_now(error)?,
            }
        }
        loop {
            while let Some(request) = self.state.poll_request() {
                let reply = match request {
                    Request::Random => Reply::Random(random),
                    Request::Classified => Reply::Classified(classified.clone()),
                };
                // The text was checked when it was set.
                self.state.answer(reply).map_err(|rejected| io::Error::other(rejected.reason))?;
            }
            if !self.writable || self.state.output().is_empty() {
                return Ok(true);
            }
            match self.stream.write(self.state.output()) {
                Ok(octets) => self.state.advance_output(octets),
                Err(error) => self.writable &= not_now(error)?,
            }
        }
    }

    /// Reads what comes and forgets it, until the client has closed too.
    fn linger(&mut self, buffer: &mut [u8], allowed: usize) -> io::Result<bool> {
        match self.stream.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(octets) if octets > allowed => return Ok(false),
            Ok(octets) => self.phase = Phase::Lingering(allowed - octets),
            Err(error) => self.readable &= not_now(error)?,
        }
        Ok(true)
    }
}

/// Whether the stream may be tried again at once; an error if it has failed.
fn not_now(error: io::Error) -> io::Result<bool> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Ok(false),
        io::ErrorKind::Interrupted => Ok(true),
        _ => Err(error),
    }
}
