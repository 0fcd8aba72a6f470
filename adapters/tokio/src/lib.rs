//! Clients of [`sonnette`] on tokio: over TCP and Unix sockets, and over any stream of `tokio::io`, TLS included.
//!
//! ```
//! use sonnette::board::{Board, Notification, Request};
//! use sonnette_tokio::Client;
//!
//! # let mut server = sonnette_std::server::Server::bind("127.0.0.1:0", Board::silent())?;
//! # let address = server.local_addr()?;
//! # std::thread::spawn(move || for number in 0.. {
//! #     server.set_random(number);
//! #     let next = std::time::Instant::now() + std::time::Duration::from_millis(5);
//! #     while let Some(left) = next.checked_duration_since(std::time::Instant::now()) {
//! #         server.turn(Some(left)).unwrap();
//! #     }
//! # });
//! # let watch = async move || -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::<Board, _>::connect(address).await?;
//! println!("{}", client.random().await?);
//! client.notify().await?;
//! while let Some(notification) = client.wait_notification().await? {
//!     if notification == Notification::Random {
//!         // Leave, ask, enter again: one write, one round trip, and nothing is lost.
//!         println!("{:?}", client.ring(Request::Random).await?);
//! #         break;
//!     }
//! }
//! # Ok(())
//! # };
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(watch())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All methods that wait are those of [`Driver`], to which a [`Client`] dereferences. Each is cancel safe: a future that
//! is dropped, by `select!` or `timeout`, has lost nothing; [`Driver::run_with`] says what its handler may
//! lose. The runtime needs its I/O driver and its timer (`enable_all`): connecting has a timeout by default.

use sonnette::Protocol;
use sonnette_driver::epoch;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

pub use sonnette_driver::{
    AsyncHandler, Connect, Connection, Driver, End, Error, Handle, Handler, Notifications, Rung, Subscriber, Transport,
    board,
};

sonnette_driver::client! {
    /// A client on tokio. Its other methods are those of [`Driver`].
    over [AsyncRead + AsyncWrite + Unpin];
    tcp TcpStream, at ToSocketAddrs;
    unix UnixStream
}

impl<P: Protocol> Client<P, TcpStream> {
    /// As [`connect`](Self::connect), with everything settable.
    ///
    /// # Errors
    /// As there; `TimedOut` after the connect timeout.
    pub async fn connect_with(connect: &Connect, protocol: P, address: impl ToSocketAddrs) -> io::Result<Self> {
        let stream = connect
            .first(lookup_host(address).await?, async |address, wait| match wait {
                Some(wait) => timeout(wait, TcpStream::connect(address)).await?,
                None => TcpStream::connect(address).await,
            })
            .await?;
        Ok(Self::with_state(connect.state(protocol), stream))
    }
}

/// A stream of tokio, and its timer, for the driver.
pub struct Io<S> {
    stream: S,
    /// Made when there is first a deadline to wait for.
    timer: Option<Box<Timer>>,
}

struct Timer {
    sleep: Pin<Box<Sleep>>,
    deadline: Instant,
    /// The deadline has passed, and `sleep` goes on until the runtime has looked at its sockets.
    passed: bool,
}

/// The runtime looks at its sockets before its timers, but not where the process was stopped while it waited for both: then
/// the wait is interrupted, and the timers are fired all the same. One that is set for so long after that is fired by
/// another wait. It is what a timer of tokio is exact to.
const ANOTHER_WAIT: Duration = Duration::from_millis(1);

impl<S> From<S> for Io<S> {
    fn from(stream: S) -> Self {
        Io { stream, timer: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for Io<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8], _: Option<Duration>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(&mut self.stream).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn now(&self) -> Duration {
        Instant::from_std(epoch()).elapsed()
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Duration) -> Poll<()> {
        // One that the clock cannot show never comes.
        let Some(deadline) = Instant::from_std(epoch()).checked_add(deadline) else { return Poll::Pending };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::new(Timer { sleep: Box::pin(sleep_until(deadline)), deadline, passed: false }));
        if timer.deadline != deadline {
            timer.sleep.as_mut().reset(deadline);
            (timer.deadline, timer.passed) = (deadline, false);
        }
        if !timer.passed {
            ready!(timer.sleep.as_mut().poll(cx));
            timer.sleep.as_mut().reset(Instant::now() + ANOTHER_WAIT);
            timer.passed = true;
        }
        timer.sleep.as_mut().poll(cx)
    }
}

impl<S: fmt::Debug> fmt::Debug for Io<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}
