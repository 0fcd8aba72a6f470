//! Clients of [`sonnette`] on async-io, for smol and any other executor: over TCP and Unix sockets, and over any stream
//! of `futures_io`, TLS included.
//!
//! ```
//! use sonnette::board::{Board, Notification, Request};
//! use sonnette_smol::Client;
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
//! # async_io::block_on(watch())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All methods that wait are those of [`Driver`], to which a [`Client`] dereferences. Each is cancel safe: a future that
//! is dropped has lost nothing; [`Driver::run_with`] says what its handler may lose.

use async_io::Timer;
#[cfg(unix)]
use async_net::unix::UnixStream;
use async_net::{AsyncToSocketAddrs, TcpStream, resolve};
use futures_io::{AsyncRead, AsyncWrite};
use futures_lite::FutureExt;
use sonnette::Protocol;
use sonnette_driver::epoch;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

pub use sonnette_driver::{
    AsyncHandler, Connect, Connection, Driver, End, Error, Handle, Handler, Notifications, Rung, Subscriber, Transport,
    board,
};

sonnette_driver::client! {
    /// A client on async-io. Its other methods are those of [`Driver`].
    over [AsyncRead + AsyncWrite + Unpin];
    tcp TcpStream, at AsyncToSocketAddrs;
    unix UnixStream
}

impl<P: Protocol> Client<P, TcpStream> {
    /// As [`connect`](Self::connect), with everything settable.
    ///
    /// # Errors
    /// As there; `TimedOut` after the connect timeout.
    pub async fn connect_with(connect: &Connect, protocol: P, address: impl AsyncToSocketAddrs) -> io::Result<Self> {
        let stream = connect
            .first(resolve(address).await?, async |address, wait| {
                let timed_out = async {
                    wait.map_or_else(Timer::never, Timer::after).await;
                    Err(io::ErrorKind::TimedOut.into())
                };
                TcpStream::connect(address).or(timed_out).await
            })
            .await?;
        Ok(Self::with_state(connect.state(protocol), stream))
    }
}

/// A stream of `futures_io`, and its timer, for the driver.
pub struct Io<S> {
    stream: S,
    /// Made when there is first a deadline to wait for; when it was last set to.
    timer: Option<Box<(Timer, Instant)>>,
}

impl<S> From<S> for Io<S> {
    fn from(stream: S) -> Self {
        Io { stream, timer: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for Io<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8], _: Option<Duration>) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, octets)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }

    fn now(&self) -> Duration {
        epoch().elapsed()
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Duration) -> Poll<()> {
        // One that the clock cannot show never comes.
        let Some(deadline) = epoch().checked_add(deadline) else { return Poll::Pending };
        let (timer, set_to) = &mut **self.timer.get_or_insert_with(|| Box::new((Timer::at(deadline), deadline)));
        if *set_to != deadline {
            timer.set_at(deadline);
            *set_to = deadline;
        }
        Pin::new(timer).poll(cx).map(drop)
    }
}

impl<S: fmt::Debug> fmt::Debug for Io<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}
