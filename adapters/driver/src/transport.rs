use std::io;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How to read and write a stream without waiting, and to wait for a time: what differs between runtimes.
///
/// The contracts are those of `futures_io` and `tokio::io`: `Pending` has arranged for the task to be woken.
pub trait Transport {
    /// Whether its reads and writes wait themselves, so that a task which is `Pending` would wait for nobody. A driver lets
    /// other tasks have their turn now and then only where it does not block.
    const BLOCKS: bool = false;

    /// Reads some octets; zero is the end of the stream. `WouldBlock` (on Windows also `TimedOut`) means that a timeout of
    /// the stream expired, and the read may be repeated. `Interrupted` means that it may be worth writing before reading
    /// again.
    ///
    /// A stream that blocks waits no longer than until the `deadline`, if it can, and is `Pending` then. All others need
    /// not look at it.
    ///
    /// # Errors
    /// Any other error ends the connection.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        deadline: Option<Duration>,
    ) -> Poll<io::Result<usize>>;

    /// Writes some octets. Zero means that the stream takes more once it has been flushed. `Pending` does not keep the
    /// driver from reading; `WouldBlock` ends the call, as in a read.
    ///
    /// # Errors
    /// Nothing more is written; what was sent by the peer is still read.
    fn poll_write(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>>;

    /// Passes on what the stream buffers itself.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the peer that nothing more will be written. By default a peer learns that when the stream is dropped.
    ///
    /// # Errors
    /// As [`poll_write`](Self::poll_write).
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }

    /// The time on a monotonic clock, from whatever point on, always the same one: that of [`epoch`], if states are to
    /// go on over other streams.
    fn now(&self) -> Duration;

    /// Ready once [`now`](Self::now) has reached the `deadline`, which replaces that of the last call, and what had arrived
    /// by then can be read. Asked after a read that was `Pending`.
    ///
    /// After a long sleep of the process a runtime may fire its timers before it has looked at its sockets. It must have
    /// looked at them since the deadline: an answer that is there is not overdue.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Duration) -> Poll<()>;

    /// Whether the last read would have been `Pending` at its deadline. Where it is not, since it blocks, a deadline that
    /// passed in it is judged by what it has brought.
    fn heeds_deadlines(&self) -> bool {
        true
    }
}

/// For adapters: where [`Transport::now`] counts from. It is the same for all clients of a process, since a machine whose
/// deadlines are told by it may go on over another stream.
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}
