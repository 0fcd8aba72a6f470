#[cfg(unix)]
use crate::socket::{Due, WriteFirst};
use bytes::Bytes;
use sonnette::board::{Board, Notification};
use sonnette::{ClientState, Event, Protocol, Rejected, RequestId, Timeouts};
use sonnette_driver::{Driver, Error, Handler, Transport, epoch};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

type Result<T, P> = std::result::Result<T, Error<<P as Protocol>::Refusal>>;

/// A blocking client.
///
/// [`start`](Self::start) and [`next_event`](Self::next_event) are the plain layer; everything else stands on it. A call
/// that waits for one event keeps those that come meanwhile, 1,024 at most.
///
/// After [`Error::TimedOut`], [`Error::Interrupted`] and [`Error::BacklogFull`] nothing is lost and the call can be
/// repeated, except that a repeated [`call`](Self::call) would ask again: use [`outcome`](Self::outcome) with the id in
/// the error to wait again for the request that was asked. Asking another one gives it up; its answer is discarded when
/// it comes.
#[derive(Debug)]
pub struct Client<P: Protocol, S> {
    driver: Driver<P, Blocking<S>>,
}

/// A stream whose reads and writes are always ready, since they block.
#[derive(Debug)]
struct Blocking<S> {
    stream: S,
    /// There is a [`Socket`](crate::Socket) in it, which heeds deadlines.
    heeds: bool,
}

/// Until when a read may wait.
#[derive(Clone, Copy, Default)]
struct Deadline {
    at: Option<Instant>,
    /// A [`Socket`](crate::Socket) has seen it.
    heeded: bool,
}

thread_local! {
    /// That of the read that this thread is in.
    static DEADLINE: Cell<Deadline> = const { Cell::new(Deadline { at: None, heeded: false }) };
}

/// Until when the read that this thread is in may wait: a [`Socket`](crate::Socket) heeds it wherever it is, also below
/// a stream of the caller's that encrypts.
#[cfg(unix)]
pub(crate) fn read_deadline() -> Option<Instant> {
    DEADLINE.try_with(|deadline| deadline.replace(Deadline { heeded: true, ..deadline.get() }).at).ok().flatten()
}

/// A read of this thread, from here to its end. A stream of the caller's may use another client in it: the deadline of the
/// outer read counts again behind that. A thread that ends has no deadlines any more.
struct Reading(Deadline);

impl Reading {
    fn until(at: Option<Instant>) -> Self {
        Reading(DEADLINE.try_with(|deadline| deadline.replace(Deadline { at, heeded: false })).unwrap_or_default())
    }

    fn is_heeded(&self) -> bool {
        DEADLINE.try_with(|deadline| deadline.get().heeded).unwrap_or(false)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let _ = DEADLINE.try_with(|deadline| deadline.set(self.0));
    }
}

/// Whether this is what a [`Socket`](crate::Socket) has to tell, wherever the socket is.
#[cfg(unix)]
fn holds<T: std::error::Error + 'static>(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<T>()).is_some()
}

/// `Pending` where a [`Socket`](crate::Socket), also one below a stream of the caller's, takes nothing now.
fn unless_full<T>(written: io::Result<T>) -> Poll<io::Result<T>> {
    match written {
        #[cfg(unix)]
        Err(error) if holds::<WriteFirst>(&error) => Poll::Pending,
        written => Poll::Ready(written),
    }
}

impl<S: Read + Write> Transport for Blocking<S> {
    const BLOCKS: bool = true;

    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        buffer: &mut [u8],
        deadline: Option<Duration>,
    ) -> Poll<io::Result<usize>> {
        // One that the clock cannot show never comes.
        let reading = Reading::until(deadline.and_then(|deadline| epoch().checked_add(deadline)));
        let read = self.stream.read(buffer);
        self.heeds |= reading.is_heeded();
        drop(reading);
        match read {
            #[cfg(unix)]
            Err(error) if holds::<Due>(&error) => Poll::Pending,
            #[cfg(unix)]
            Err(error) if holds::<WriteFirst>(&error) => Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
            read => Poll::Ready(read),
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        unless_full(self.stream.write(octets))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        unless_full(self.stream.flush())
    }

    fn now(&self) -> Duration {
        epoch().elapsed()
    }

    /// A read that is `Pending` has waited for it.
    fn poll_deadline(&mut self, _: &mut Context<'_>, _: Duration) -> Poll<()> {
        Poll::Ready(())
    }

    fn heeds_deadlines(&self) -> bool {
        self.heeds
    }
}

/// Runs a future to its end that never waits.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Runs a future of the driver to its end: over a stream that blocks it never waits.
fn now<T, R>(future: impl Future<Output = std::result::Result<T, Error<R>>>) -> std::result::Result<T, Error<R>> {
    now_or_never(|cx| pin!(future).poll(cx))
}

/// The same for the poll form of a method.
#[inline]
fn now_or_never<T, R>(
    poll: impl FnOnce(&mut Context<'_>) -> Poll<std::result::Result<T, Error<R>>>,
) -> std::result::Result<T, Error<R>> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::TimedOut { id: None }),
    }
}

impl<P: Protocol, S: Read + Write> Client<P, S> {
    /// A client over a stream that is connected already, with the protocol's own limits, and ten seconds for the server to
    /// greet.
    #[must_use]
    pub fn new(protocol: P, stream: S) -> Self {
        Self::with_state(sonnette_driver::Connect::new().state(protocol), stream)
    }

    /// A client that goes on with this state over this stream.
    #[must_use]
    pub fn with_state(state: ClientState<P>, stream: S) -> Self {
        Client { driver: Driver::new(state, Blocking { stream, heeds: false }) }
    }

    /// The machine.
    #[must_use]
    pub fn state(&self) -> &ClientState<P> {
        self.driver.state()
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &S {
        &self.driver.transport().stream
    }

    /// The stream, to set its options. What is read or written past the client is missing to it.
    #[must_use]
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.driver.transport_mut().stream
    }

    /// The machine, the stream, and the events that nobody has taken.
    #[must_use]
    pub fn into_parts(self) -> (ClientState<P>, S, VecDeque<Event<P>>) {
        let (state, transport, kept) = self.driver.into_parts();
        (state, transport.stream, kept)
    }

    /// Keeps at most so many events, one at least, while a call waits for another one; 1,024 by default.
    pub fn set_backlog(&mut self, events: usize) {
        self.driver.set_backlog(events);
    }

    /// Keeps no more events, while a call waits for another one, once they are of so many octets: those that were received,
    /// and those of the events themselves. One event at least is kept. By default as many as one answer may have
    /// ([`Limits::answer`](sonnette::Limits::answer)).
    pub fn set_backlog_octets(&mut self, octets: usize) {
        self.driver.set_backlog_octets(octets);
    }

    /// Sets what is overdue when, see [`Timeouts`]; by default what the protocol says. That the mode is refreshed is
    /// not told: it keeps the id it was entered with.
    ///
    /// A call that waits on a [`Socket`](crate::Socket) sees to the deadlines that come meanwhile. Over any other stream
    /// a read cannot be ended, and a deadline is seen to when it returns. Either way they act in calls alone: where the
    /// program does something else for long, a server may take the connection for dead.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.driver.set_timeouts(timeouts);
    }

    /// Asks without waiting; the request is written when the client next waits for anything.
    ///
    /// # Errors
    /// The request comes back with the reason, and nothing was sent.
    pub fn start(&mut self, request: P::Request) -> std::result::Result<RequestId, Rejected<P::Request>> {
        self.driver.start(request)
    }

    /// Waits for the next event of any kind. The last one is [`Event::Closed`], if the connection ended between frames.
    ///
    /// # Errors
    /// [`Error::Ended`], or one after which the call can be repeated.
    #[inline]
    pub fn next_event(&mut self) -> Result<Event<P>, P> {
        now_or_never(|cx| self.driver.poll_next_event(cx))
    }

    /// Asks and waits for the answer. Notifications that come meanwhile are kept for
    /// [`next_notification`](Self::next_notification).
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Refused`] or [`Error::Lost`]; or one that names the id, with which
    /// [`outcome`](Self::outcome) takes the call up again.
    pub fn call(&mut self, request: P::Request) -> Result<P::Reply, P> {
        now(self.driver.call(request))
    }

    /// As [`call`](Self::call), handing out the notifications that come meanwhile.
    ///
    /// # Errors
    /// As there.
    pub fn call_with(&mut self, request: P::Request, notified: impl FnMut(P::Notification)) -> Result<P::Reply, P> {
        now(self.driver.call_with(request, notified))
    }

    /// Waits for the answer to a request that was started, or whose call ended early.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::UnknownRequest`] if it was answered already, or given up, or is an enter.
    pub fn outcome(&mut self, id: RequestId) -> Result<P::Reply, P> {
        now(self.driver.outcome(id))
    }

    /// Enters notification mode: returns once that is confirmed.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Refused`] or [`Error::Lost`]; or one after which the call can be repeated: it then
    /// waits for the enter that was asked.
    pub fn enter(&mut self, subscription: P::Subscription) -> Result<RequestId, P> {
        now(self.driver.enter(subscription))
    }

    /// Asks for normal mode: returns once that is written, and never waits until it is confirmed. Without a mode to leave
    /// it does nothing.
    ///
    /// # Errors
    /// [`Error::Ended`], or one after which the call can be repeated.
    pub fn leave(&mut self) -> Result<(), P> {
        now(self.driver.leave())
    }

    /// Waits until all that was asked is written.
    ///
    /// # Errors
    /// [`Error::Ended`], or one after which the call can be repeated.
    pub fn flush(&mut self) -> Result<(), P> {
        now(self.driver.flush())
    }

    /// Leaves the mode, asks, and enters it again, all in one write and one round trip: the talk's way to fetch what a
    /// notification announced. Notifications that come meanwhile are kept, and none is lost. All of it is asked, or
    /// nothing.
    ///
    /// # Errors
    /// As [`call`](Self::call). Ended early, it is taken up again by [`outcome`](Self::outcome) and
    /// [`enter`](Self::enter). If the mode could not be entered again, the answer is returned all the same, and
    /// [`next_notification`](Self::next_notification) tells why.
    pub fn ring(&mut self, request: P::Request) -> Result<P::Reply, P> {
        now(self.driver.ring(request))
    }

    /// As [`ring`](Self::ring), handing out the notifications that come meanwhile. (In IMAP the data that a command asks
    /// for are notifications.)
    ///
    /// # Errors
    /// As there.
    pub fn ring_with(&mut self, request: P::Request, notified: impl FnMut(P::Notification)) -> Result<P::Reply, P> {
        now(self.driver.ring_with(request, notified))
    }

    /// Waits for the next notification, in any mode. `None` once the mode has ended and no notification is kept. It never
    /// enters the mode by itself.
    ///
    /// In the silent dialect of the notice board the end of the mode shows only with the answer to a later request.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::Refused`] if the mode was refused after all; or one after which the call can be
    /// repeated.
    #[inline]
    pub fn next_notification(&mut self) -> Result<Option<P::Notification>, P> {
        now_or_never(|cx| self.driver.poll_next_notification(cx))
    }

    /// Calls the handler for each notification until it is done; enters the mode again when the server ends it, and
    /// returns when it has ended on request. The mode must have been entered.
    ///
    /// ```no_run
    /// use sonnette::board::Board;
    /// use sonnette_std::{Client, board};
    ///
    /// struct Bell;
    ///
    /// impl board::Handler for Bell {
    ///     fn random_available(&mut self) {
    ///         println!("ding");
    ///     }
    /// }
    ///
    /// let mut client = Client::<Board, _>::connect("localhost:6789")?;
    /// client.notify()?;
    /// client.run(&mut Bell)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`next_notification`](Self::next_notification) and [`enter`](Self::enter).
    pub fn run(&mut self, handler: &mut impl Handler<P>) -> Result<(), P> {
        now(self.driver.run(handler))
    }
}

/// The talk's verbs.
impl<S: Read + Write> Client<Board, S> {
    /// Asks for the random number.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::Refused`] if the answer is not a number.
    pub fn random(&mut self) -> Result<i64, Board> {
        now(self.driver.random())
    }

    /// Asks for the classified ad.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn classified(&mut self) -> Result<Bytes, Board> {
        now(self.driver.classified())
    }

    /// Enters notification mode.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub fn notify(&mut self) -> Result<(), Board> {
        self.enter(()).map(drop)
    }

    /// Leaves notification mode.
    ///
    /// # Errors
    /// As [`leave`](Self::leave).
    pub fn stop_notify(&mut self) -> Result<(), Board> {
        self.leave()
    }

    /// Waits for the next notification.
    ///
    /// # Errors
    /// As [`next_notification`](Self::next_notification).
    pub fn wait_notification(&mut self) -> Result<Option<Notification>, Board> {
        self.next_notification()
    }
}
