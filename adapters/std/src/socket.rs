use crate::Client;
use crate::client::{at_once, read_deadline};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use sonnette::{Limits, Protocol, Timeouts};
use sonnette_driver::{End, Error, Interrupt};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{error, fmt};

/// A TCP or Unix socket whose writes never block.
///
/// A write that the socket does not take at once is `WouldBlock`, and the next read then waits for either direction: it
/// is `WouldBlock` too when the socket takes octets again. (Not `Interrupted`: a TLS stream above it reads again then,
/// instead of writing what it holds.) Readiness is asked for only then, so the plain case is one
/// system call a write and one a read. Once a write has failed, a read no longer waits: what the peer said before it went
/// is read, and then the stream has ended.
#[derive(Debug)]
pub struct Socket {
    stream: Arc<Stream>,
    interrupted: Arc<AtomicBool>,
    /// The last write was not taken whole.
    full: bool,
    /// A write failed: the peer has gone, and what it said before is all that will come.
    broken: bool,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Socket {
    fn new(stream: Stream) -> Self {
        Socket {
            stream: Arc::new(stream),
            interrupted: Arc::new(AtomicBool::new(false)),
            full: false,
            broken: false,
            read_timeout: None,
            write_timeout: None,
        }
    }

    /// A call fails with [`Error::TimedOut`](crate::Error::TimedOut) when nothing was received for so long; by default
    /// never.
    ///
    /// # Errors
    /// `InvalidInput` if the timeout is zero.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match &*self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout)?,
            Stream::Unix(stream) => stream.set_read_timeout(timeout)?,
        }
        self.read_timeout = timeout;
        Ok(())
    }

    /// A call fails with [`Error::TimedOut`](crate::Error::TimedOut) when the socket took nothing of what is to be
    /// written, and nothing was received, for so long; by default never.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    /// A handle that ends a wait of this socket from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        Interrupter { stream: Arc::downgrade(&self.stream), interrupted: Arc::clone(&self.interrupted) }
    }

    /// Tells the server that nothing more will be written.
    ///
    /// # Errors
    /// Those of the system.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Socket::new(Stream::Tcp(stream))
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Socket::new(Stream::Unix(stream))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = read_deadline();
        if (self.full || deadline.is_some()) && !self.broken {
            let out = if self.full { PollFlags::OUT } else { PollFlags::empty() };
            let mut descriptors = [PollFd::new(&*self.stream, PollFlags::IN | out)];
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let write_timeout = self.write_timeout.filter(|_| self.full);
            let timeout = [left, self.read_timeout, write_timeout].into_iter().flatten().min();
            // One too long for the system is as good as none.
            let span = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            if poll(&mut descriptors, span.as_ref())? == 0 {
                let due = left.is_some() && left == timeout;
                return Err(if due {
                    io::Error::new(io::ErrorKind::WouldBlock, Due)
                } else {
                    io::ErrorKind::WouldBlock.into()
                });
            }
            let ready = descriptors.first().map_or(PollFlags::empty(), PollFd::revents);
            self.full = !ready.contains(PollFlags::OUT);
            if !ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                return Err(WriteFirst.into());
            }
        }
        let flags = if self.broken { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        let octets = match recv(&*self.stream, buffer, flags) {
            Ok((octets, _)) => octets,
            Err(Errno::AGAIN) if self.broken => 0,
            Err(error) => return Err(error.into()),
        };
        if octets == 0 && self.interrupted.load(Ordering::Acquire) {
            return Err(Interrupt.into());
        }
        Ok(octets)
    }
}

impl Write for Socket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match send(&*self.stream, octets, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => {
                self.full = written < octets.len();
                Ok(written)
            }
            Err(Errno::AGAIN) => {
                self.full = true;
                Err(WriteFirst.into())
            }
            Err(Errno::INTR) => Err(io::ErrorKind::Interrupted.into()),
            Err(error) => {
                self.broken = true;
                Err(error.into())
            }
        }
    }

    /// A socket buffers nothing on this side.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Inside a `WouldBlock`: of a write, the socket takes nothing now, and the next read waits until it does; of a read, that
/// it does again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteFirst;

impl fmt::Display for WriteFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the socket was full")
    }
}

impl error::Error for WriteFirst {}

impl From<WriteFirst> for io::Error {
    fn from(first: WriteFirst) -> Self {
        io::Error::new(io::ErrorKind::WouldBlock, first)
    }
}

/// Inside a `WouldBlock`: the deadline of this read has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due;

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has come")
    }
}

impl error::Error for Due {}

/// Ends the wait of a [`Socket`] from another thread, for good: its read half is shut, and each call that waits on it
/// fails with [`Error::Interrupted`](crate::Error::Interrupted) once what had been received is taken. It can still write:
/// [`Client::leave`].
#[derive(Clone, Debug)]
pub struct Interrupter {
    stream: Weak<Stream>,
    interrupted: Arc<AtomicBool>,
}

impl Interrupter {
    /// Interrupts. A socket that is closed, or whose connection has ended, is left as it is.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        if let Some(stream) = self.stream.upgrade() {
            // The only error is that there is no connection any more, and then there is no wait either.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// How to connect: [`Client::connect`] with everything settable.
///
/// ```no_run
/// use sonnette::board::Board;
/// use sonnette_std::Connect;
/// use std::time::Duration;
///
/// let second = Some(Duration::from_secs(1));
/// let client = Connect::new().connect_timeout(second).read_timeout(second).tcp(Board::silent(), "localhost:6789")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Connect {
    common: sonnette_driver::Connect,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Connect {
    /// With ten seconds to connect, and as many for the server to greet; without other timeouts and keepalive, and with the
    /// protocol's own limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives up on each address after so long; `None` waits as long as the system does.
    pub fn connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.common = self.common.connect_timeout(timeout);
        self
    }

    /// Ends a connection whose server has not greeted after so long, with
    /// [`Error::GreetingTimeout`](sonnette::Error::GreetingTimeout), if the protocol has a greeting; `None` waits for ever.
    pub fn greeting_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.common = self.common.greeting_timeout(timeout);
        self
    }

    /// Has the system probe a TCP connection that was silent for so long.
    pub fn keepalive(mut self, idle: Option<Duration>) -> Self {
        self.common = self.common.keepalive(idle);
        self
    }

    /// See [`Socket::set_read_timeout`].
    pub fn read_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// See [`Socket::set_write_timeout`].
    pub fn write_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Limits other than the protocol's own.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.common = self.common.limits(limits);
        self
    }

    /// See [`Client::set_timeouts`].
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.common = self.common.timeouts(timeouts);
        self
    }

    /// Connects over TCP, trying every address of the name in turn, with `TCP_NODELAY` on.
    ///
    /// # Errors
    /// That of the last address, or `InvalidInput` if there is none.
    pub fn tcp<P: Protocol>(&self, protocol: P, address: impl ToSocketAddrs) -> io::Result<Client<P, Socket>> {
        let dial = async |address, timeout| match timeout {
            Some(timeout) => TcpStream::connect_timeout(&address, timeout),
            None => TcpStream::connect(address),
        };
        let stream = at_once(self.common.first(address.to_socket_addrs()?, dial));
        self.client(protocol, stream.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?.into())
    }

    /// Connects over a Unix socket. The connect timeout does not apply: such a connect does not wait for the peer.
    ///
    /// # Errors
    /// Those of the system.
    pub fn unix<P: Protocol>(&self, protocol: P, path: impl AsRef<Path>) -> io::Result<Client<P, Socket>> {
        self.client(protocol, UnixStream::connect(path)?.into())
    }

    fn client<P: Protocol>(&self, protocol: P, mut socket: Socket) -> io::Result<Client<P, Socket>> {
        socket.set_read_timeout(self.read_timeout)?;
        socket.set_write_timeout(self.write_timeout);
        Ok(Client::with_state(self.common.state(protocol), socket))
    }
}

impl<P: Protocol> Client<P, Socket> {
    /// Connects over TCP in the protocol's default dialect, trying every address of the name in turn, with `TCP_NODELAY`
    /// on. [`Connect`] sets more.
    ///
    /// # Errors
    /// Those of the system.
    pub fn connect(address: impl ToSocketAddrs) -> io::Result<Self>
    where
        P: Default,
    {
        Connect::new().tcp(P::default(), address)
    }

    /// Connects over a Unix socket in the protocol's default dialect.
    ///
    /// # Errors
    /// Those of the system.
    pub fn connect_unix(path: impl AsRef<Path>) -> io::Result<Self>
    where
        P: Default,
    {
        Connect::new().unix(P::default(), path)
    }

    /// A handle that ends a wait of this client from another thread.
    #[must_use]
    pub fn interrupter(&self) -> Interrupter {
        self.stream().interrupter()
    }

    /// Writes what was asked, tells the server that nothing more will come, and closes the socket.
    ///
    /// # Errors
    /// [`Error::Ended`], or a timeout: the socket is closed all the same.
    pub fn close(mut self) -> Result<(), Error<P::Refusal>> {
        self.flush()?;
        self.stream().shutdown_write().map_err(|error| Error::Ended(End::Io(Arc::new(error))))
    }
}
