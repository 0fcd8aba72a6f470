//! What stands between a client and its server, keeps a record of all that passes, and makes trouble at a given octet.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Octets read at once.
const CHUNK: usize = 16 * 1024;

/// Octets that a narrow socket buffers: less than a few requests have.
const NARROW: usize = 4 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// Either side is told that the other one has closed, and nothing more passes.
    Cut,
    /// Both connections are reset.
    Reset,
    /// The side that this direction goes to is told that the other one has closed. The other direction goes on.
    HalfClose,
    /// Nothing passes for so long.
    Stall(Duration),
    /// Nothing passes until [`Proxy::release`].
    Hold,
    /// From 1 to 7 octets pass at once.
    Split,
}

/// The trouble comes when so many octets have passed in this direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub trouble: Trouble,
    pub direction: Direction,
    pub at: usize,
    /// The sockets buffer little.
    pub narrow: bool,
    /// Of the sizes of a split.
    pub seed: u64,
}

/// What passed, and when the trouble came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub connections: u64,
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    pub struck: Option<Instant>,
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    changed: Condvar,
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
        self.changed.notify_all();
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }
}

/// Passes on one connection, in a thread that ends with it or with this.
pub(crate) struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// A line releases what is held; its end ends the thread.
    control: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr, plan: Plan) -> io::Result<Proxy> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if plan.narrow {
            // The accepted socket has it from here.
            listener.set_recv_buffer_size(NARROW)?;
        }
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(1)?;
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        let (control, controlled) = UnixStream::pair()?;
        controlled.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                // What fails here fails for the client, which tells.
                let _ = pass(listener, server, plan, controlled, &shared);
            }
        });
        Ok(Proxy { address, shared, control, thread: Some(thread) })
    }

    /// Lets pass what is held, unless the connection has ended.
    pub(crate) fn release(&self) {
        let _ = (&self.control).write_all(b"\n");
    }

    /// Waits until the record is like this; `false` if it is not in time.
    pub(crate) fn wait_until(&self, patience: Duration, is: impl Fn(&Record) -> bool) -> bool {
        let record = self.shared.record();
        !self.shared.changed.wait_timeout_while(record, patience, |record| !is(record)).unwrap().1.timed_out()
    }

    /// The record, once the connection has ended, if need be by this.
    pub(crate) fn finish(mut self) -> Record {
        self.end();
        mem::take(&mut *self.shared.record())
    }

    fn end(&mut self) {
        let _ = self.control.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sets the size of what a socket holds that its peer has not taken.
pub(crate) fn narrow(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_send_buffer_size(NARROW)
}

fn pass(listener: TcpListener, server: SocketAddr, plan: Plan, control: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut ready = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&control, PollFlags::IN)];
    poll(&mut ready, None)?;
    if ready[0].revents().is_empty() {
        return Ok(());
    }
    let client = listener.accept()?.0;
    drop(listener);
    shared.change(|record| record.connections += 1);
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        if plan.narrow {
            narrow(SockRef::from(stream))?;
        }
    }
    let random = fastrand::Rng::with_seed(plan.seed);
    Passage { client, server, flows: [Flow::default(), Flow::default()], plan, struck: false, random, control, shared }
        .run()
}

/// One direction.
#[derive(Default)]
struct Flow {
    /// Read, and not passed on.
    pending: Vec<u8>,
    passed: usize,
    /// Its source has ended.
    ended: bool,
    /// What its source still says is dropped.
    cut: bool,
    /// Nothing passes: until then, or until it is released.
    stalled: Option<Option<Instant>>,
}

impl Flow {
    fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    fn is_over(&self) -> bool {
        self.ended && self.pending.is_empty()
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

struct Passage<'a> {
    client: TcpStream,
    server: TcpStream,
    /// Of each of [`DIRECTIONS`].
    flows: [Flow; 2],
    plan: Plan,
    struck: bool,
    random: fastrand::Rng,
    control: UnixStream,
    shared: &'a Shared,
}

impl Passage<'_> {
    fn run(mut self) -> io::Result<()> {
        while !self.flows.iter().all(Flow::is_over) {
            self.strike()?;
            if self.is_reset() || !self.wait()? {
                break;
            }
            for direction in DIRECTIONS {
                let moved = self.read(direction).and_then(|()| self.write(direction));
                if moved.is_err() {
                    // One side has reset its connection, or is gone: the other one learns it likewise.
                    return self.reset();
                }
            }
        }
        Ok(())
    }

    fn flow(&mut self, direction: Direction) -> &mut Flow {
        &mut self.flows[direction as usize]
    }

    fn source(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::ToServer { &self.client } else { &self.server }
    }

    fn sink(&self, direction: Direction) -> &TcpStream {
        if direction == Direction::ToServer { &self.server } else { &self.client }
    }

    fn reset(&self) -> io::Result<()> {
        for stream in [&self.client, &self.server] {
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    fn is_reset(&self) -> bool {
        self.struck && self.plan.trouble == Trouble::Reset
    }

    /// Makes the trouble, if it is time.
    fn strike(&mut self) -> io::Result<()> {
        let Plan { trouble, direction, at, .. } = self.plan;
        if self.struck || trouble == Trouble::None || self.flow(direction).passed < at {
            return Ok(());
        }
        self.struck = true;
        match trouble {
            Trouble::None | Trouble::Split => {}
            Trouble::Cut => DIRECTIONS.into_iter().try_for_each(|direction| self.cut(direction))?,
            Trouble::HalfClose => self.cut(direction)?,
            Trouble::Reset => self.reset()?,
            Trouble::Stall(time) => self.flow(direction).stalled = Some(Some(Instant::now() + time)),
            Trouble::Hold => self.flow(direction).stalled = Some(None),
        }
        self.shared.change(|record| record.struck = Some(Instant::now()));
        Ok(())
    }

    fn cut(&mut self, direction: Direction) -> io::Result<()> {
        let flow = self.flow(direction);
        flow.cut = true;
        flow.pending.clear();
        shut(self.sink(direction))
    }

    /// Waits until there is something to do; `false` if it is to end.
    fn wait(&mut self) -> io::Result<bool> {
        let (mut polled, mut until) = (vec![PollFd::new(&self.control, PollFlags::IN)], None::<Instant>);
        for direction in DIRECTIONS {
            let flow = &self.flows[direction as usize];
            match flow.stalled {
                Some(Some(time)) => until = until.into_iter().chain([time]).min(),
                // Else nobody would notice that the client has gone.
                Some(None) => polled.push(PollFd::new(&self.client, PollFlags::RDHUP)),
                None if !flow.pending.is_empty() => polled.push(PollFd::new(self.sink(direction), PollFlags::OUT)),
                None if !flow.ended => polled.push(PollFd::new(self.source(direction), PollFlags::IN)),
                None => {}
            }
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        poll(&mut polled, left.and_then(|left| Timespec::try_from(left).ok()).as_ref())?;
        let is_controlled = !polled[0].revents().is_empty();
        let is_left = polled[1..].iter().any(|polled| polled.revents().contains(PollFlags::RDHUP));
        drop(polled);
        if is_controlled {
            if self.control.read(&mut [0])? == 0 {
                return Ok(false);
            }
            self.flows.iter_mut().for_each(|flow| flow.stalled = flow.stalled.filter(Option::is_some));
        }
        let now = Instant::now();
        self.flows
            .iter_mut()
            .for_each(|flow| flow.stalled = flow.stalled.filter(|until| until.is_none_or(|until| until > now)));
        Ok(!is_left)
    }

    fn read(&mut self, direction: Direction) -> io::Result<()> {
        let flow = self.flow(direction);
        if flow.is_stalled() || flow.ended || !flow.pending.is_empty() {
            return Ok(());
        }
        let is_cut = flow.cut;
        let mut chunk = [0; CHUNK];
        let size = if self.plan.trouble == Trouble::Split { self.random.usize(1..=7) } else { CHUNK };
        match self.source(direction).read(&mut chunk[..size]) {
            Ok(0) => {
                self.flow(direction).ended = true;
                if is_cut { Ok(()) } else { shut(self.sink(direction)) }
            }
            Ok(_) if is_cut => Ok(()),
            Ok(octets) => {
                self.flow(direction).pending.extend_from_slice(&chunk[..octets]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, direction: Direction) -> io::Result<()> {
        let Plan { trouble, direction: troubled, at, .. } = self.plan;
        let flow = &self.flows[direction as usize];
        if flow.is_stalled() || flow.pending.is_empty() {
            return Ok(());
        }
        let mut octets = &flow.pending[..];
        if !self.struck && troubled == direction && trouble != Trouble::None {
            octets = &octets[..octets.len().min(at - flow.passed)];
        }
        match self.sink(direction).write(octets) {
            Ok(written) => {
                let flow = self.flow(direction);
                flow.passed += written;
                let passed: Vec<u8> = flow.pending.drain(..written).collect();
                self.shared.change(|record| match direction {
                    Direction::ToServer => record.to_server.extend(passed),
                    Direction::ToClient => record.to_client.extend(passed),
                });
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Tells a side that nothing more will come. It may be gone already.
fn shut(stream: &TcpStream) -> io::Result<()> {
    match stream.shutdown(Shutdown::Write) {
        Err(error) if error.kind() != ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}
