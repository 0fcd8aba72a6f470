//! The loop that drives a [`ClientState`](sonnette::ClientState) over a stream, written once for every runtime.
//!
//! Clients for a runtime (`sonnette-smol`, `sonnette-tokio`; `sonnette-std` is the blocking one) wrap a [`Driver`] and lend
//! it a [`Transport`]: how to read and write without waiting, in the poll style. The driver knows no runtime, spawns
//! nothing and holds no parser state: all progress lives in the machine, so a call that is given up, by a timeout or a
//! dropped future, loses nothing.
//!
//! One turn of the loop: deliver an event if there is one; else write what can be written without waiting; else read.
//! It never waits for a write before it reads, since two peers that do so with full socket buffers wait for ever; and it
//! needs neither to split the stream nor to select, so TLS streams work.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking"))]

pub mod board;
mod client;
mod connect;
mod driver;
mod error;
mod handler;
mod inbox;
mod notifications;
#[cfg(feature = "shared")]
mod shared;
mod transport;

pub use connect::Connect;
pub use driver::Driver;
pub use error::{End, Error, Interrupt};
pub use handler::{AsyncHandler, Handler};
pub use notifications::Notifications;
#[cfg(feature = "shared")]
pub use shared::{Connection, Handle, Rung, Subscriber};
pub use transport::{Transport, epoch};
