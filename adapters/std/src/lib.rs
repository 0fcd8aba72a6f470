//! Blocking clients of [`sonnette`] over TCP and Unix sockets, and over any `Read + Write`.
//!
//! ```
//! use sonnette::board::{Board, Notification, Request};
//! use sonnette_std::Client;
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
//! let mut client = Client::<Board, _>::connect(address)?;
//! println!("{}", client.random()?);
//! client.notify()?;
//! while let Some(notification) = client.wait_notification()? {
//!     if notification == Notification::Random {
//!         // Leave, ask, enter again: one write, one round trip, and nothing is lost.
//!         println!("{:?}", client.ring(Request::Random)?);
//! #         break;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Sockets and other streams
//! Over a [`Socket`], which [`Client::connect`] and [`Connect`] make, a write never blocks: while the peer does not read,
//! the client goes on reading, so that two full socket buffers do not deadlock. A round trip takes two system calls.
//! Over any other `Read + Write` a write that blocks blocks the call, one that would block ends it with
//! [`Error::TimedOut`], and once a write has failed the client still reads until the stream ends.
//!
//! # Timeouts
//! A read or write timeout ends a call with [`Error::TimedOut`] and nothing else: half a line stays where it is, and the
//! call can be repeated. A request that was asked stays asked; [`Client::outcome`] waits for it again.

mod client;
#[cfg(unix)]
mod socket;

#[cfg(feature = "server")]
pub mod server;

pub use client::Client;
#[cfg(unix)]
pub use socket::{Connect, Interrupter, Socket};
pub use sonnette_driver::{End, Error, Handler, board};
