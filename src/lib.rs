//! The client side of protocols that answer requests and ring when something happens, as one sans-IO state machine.
//!
//! A *notice board* that answers `random?` with `46774`, and, once told `notif`, pushes `notif: random` whenever there
//! is a new number; MPD's `idle`, IMAP's IDLE, Redis' Pub/Sub: a connection has a normal mode, in which the client asks
//! and the server answers, and a notification mode, in which the server rings. The hard part is the way between the two.
//! A notification crosses the wish to leave; an answer arrives after the mode was entered; the server ends the mode by
//! itself. [`ClientState`] gets that right once, for every protocol and every runtime.
//!
//! It is pure: octets go in, events and octets come out. It performs no I/O, reads no clock, spawns nothing, and can
//! therefore be embedded in any loop, tested in every interleaving, and fuzzed.
//!
#![doc = include_str!("modes.txt")]
//!
//! # A session
//! ```
//! use sonnette::{ClientState, Event, board::{Board, Notification, Reply, Request}};
//!
//! let mut state = ClientState::new(Board::silent());
//!
//! // Ask, and go into notification mode, without waiting for the answer.
//! let random = state.request(Request::Random)?;
//! let watch = state.enter(())?;
//! assert_eq!(state.output(), b"random?\r\nnotif\r\n");
//! state.advance_output(16);
//!
//! // The wire may cut its octets anywhere.
//! state.receive(b"46774\r\nnotif: ran");
//! assert_eq!(state.poll_event()?, Some(Event::Reply { id: random, reply: Reply::Random(46774) }));
//! assert_eq!(state.poll_event()?, Some(Event::Entered { id: watch }));
//! assert_eq!(state.poll_event()?, None);
//! state.receive(b"dom\r\n");
//! assert_eq!(state.poll_event()?, Some(Event::Notification(Notification::Random)));
//!
//! // Ring: leave, ask, enter again, in one write and one round trip.
//! state.leave();
//! let random = state.request(Request::Random)?;
//! let again = state.enter(())?;
//! assert_eq!(state.output(), b"stop_notif\r\nrandom?\r\nnotif\r\n");
//!
//! // A notification that crosses the leave is still one; the answer goes to its own question.
//! state.receive(b"notif: classified\r\n90210\r\n");
//! assert_eq!(state.poll_event()?, Some(Event::Notification(Notification::Classified)));
//! assert_eq!(state.poll_event()?, Some(Event::Left { id: watch, asked: true, refusal: None }));
//! assert_eq!(state.poll_event()?, Some(Event::Reply { id: random, reply: Reply::Random(90210) }));
//! assert_eq!(state.poll_event()?, Some(Event::Entered { id: again }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//! Each is tested as a property over random sessions (`tests/laws.rs`), except that bounds are tested by counting
//! allocations, linearity by counting instructions, and cancellation in `sonnette-driver`. Agreement is also searched in
//! every state up to a bound (`tests/model.rs`). The fuzz targets check 1, 2, 4, 6 and 9.
//!
//! 1. **Split.** Any chunking of the input gives the same events, the error included, in the same order.
//! 2. **Drain.** For the same operations with the same results, polling after each or only at the end gives the same
//!    events. (Whether a lost request had been sent, or an answer is overdue, is told as of the moment it is polled.)
//! 3. **Write.** Any partition of [`advance_output`](ClientState::advance_output) gives the same octets on the wire.
//! 4. **One outcome.** Each accepted request has exactly one of reply, refusal, lost, also when the stream is cut at any
//!    octet.
//! 5. **No notification is lost, repeated or reordered**, also when a leave crosses the server's own end of the mode.
//! 6. **Finality.** First what was decodable, then `Lost` for what is outstanding, then `Closed` once, or the same error
//!    every time.
//! 7. **Bounds.** Memory stays within the [`Limits`] and what was received since `poll_event` last returned `Ok(None)`.
//! 8. **Linear.** Each octet is searched for a terminator at most once, however it is chunked.
//! 9. **No panic**, whatever the peer sends and the caller calls. No `unsafe`.
//! 10. **Agreement.** A client and an honest server never deadlock or disagree about the mode.
//! 11. **Cancellation.** A call of an adapter that is given up at any point loses, repeats and reorders nothing.
//! 12. **No injection.** No value a caller passes puts an extra line or word on the wire.
//!
//! # Four protocols, one machine
//! | | the notice board | MPD | IMAP | Redis |
//! |---|---|---|---|---|
//! | module | [`board`] | `mpd`, with the feature of this name | `imap`, with the feature of this name | `redis`, with the feature of this name |
//! | enter | `notif` | `idle` | `IDLE` | `SUBSCRIBE`, `PSUBSCRIBE`, `MONITOR` |
//! | confirmed | once all before it is answered, or by `OK` | once all before it is answered | by `+`; `NO` and `BAD` refuse it | by a frame for each name; one error refuses all |
//! | a ring | `notif: random` | `changed: mixer` | `* 4 EXISTS` | `message news hello` |
//! | the server ends the mode | never | after each group of changes, by `OK` | seldom, by the late answer of `IDLE` | with the last channel that a request unsubscribes |
//! | leave | `stop_notif` | `noidle` | `DONE` | `UNSUBSCRIBE` and `PUNSUBSCRIBE` |
//! | confirmed | by the next answer, or by `OK` | by the late answer of `idle`; it has none of its own | by the late answer of `IDLE` | by a frame for each name that is held when the first is read, at least two |
//! | the race at the way out | a notification crosses `stop_notif` | the end of the mode crosses `noidle` | the wish to leave comes before `+`, and data cross `DONE` | messages cross `UNSUBSCRIBE`, and answers behind it may look like messages |
//! | how it is met | what a line means is judged by what has been read, not by what was asked | one `OK` for both: it ends the mode, and the `noidle` that the server ignores is forgotten | the wish is remembered until there is a `+`; data are told in every mode, and answers go by their tags | a frame is a message until the last confirmation is read, and an answer from then on |
//! | what happens while it is left | is rung for when it is entered again | is rung for when it is entered again | is told with whatever is asked next | is lost: ask in the mode what it allows, and the rest over another connection |
//!
//! # The pieces
//! - [`ClientState`]: the machine. [`Event`] and [`Error`] are what it tells, [`Mode`] holds its transition table, and
//!   [`Timeouts`] says what it does when time passes.
//! - [`Protocol`]: what a protocol must be able to say. Writing one takes under a hundred lines; there is an example.
//! - [`LineDecoder`]: lines and raw octets out of a stream, for use on its own too.
//!
//! Clients that hold a socket are crates of their own: `sonnette-std` (blocking), `sonnette-smol` and `sonnette-tokio`.
//! They share one loop, `sonnette-driver`.

// std would bring a clock and sockets within reach; without it, that the machine is pure is checked by the compiler.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking"))]

extern crate alloc;

mod client;
mod error;
mod limits;
mod lines;
mod modes;
mod output;
mod protocol;
mod queue;
#[cfg(any(feature = "imap", feature = "mpd", feature = "redis"))]
mod text;

pub mod board;
#[cfg(feature = "imap")]
pub mod imap;
#[cfg(feature = "mpd")]
pub mod mpd;
#[cfg(feature = "redis")]
pub mod redis;

pub use client::{ClientState, Event, Timeouts};
pub use error::{Error, Excerpt, Invalid, Reason, Rejected, StreamUnchanged};
pub use limits::Limits;
pub use lines::{Frame, LineDecoder, LineTooLong, Terminator};
pub use modes::Mode;
pub use output::Encoder;
pub use protocol::{Asked, Changes, Decoded, EnterAnswer, Fault, LeaveAnswer, Pending, Protocol, Setting};
pub use queue::RequestId;

/// The README's examples are compiled and run with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
