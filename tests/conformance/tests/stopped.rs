//! A shared connection that is stopped, since a subscriber has no room, or since its protocol panics: whoever waits is told.
//! Nothing is polled here but what was woken, as by an executor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Request};
use sonnette::{
    Changes, ClientState, Decoded, Encoder, EnterAnswer, Fault, Frame, Invalid, LeaveAnswer, Pending, Protocol,
    RequestId, Terminator, Timeouts,
};
use sonnette_driver::{Connection, Driver, End, Error, Handle, Rung, Transport};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// What the stream and its clock are like.
#[derive(Default)]
struct Stream {
    now: Duration,
    /// What the next reads find.
    reads: VecDeque<Vec<u8>>,
    /// Nothing can be written now.
    full: bool,
}

#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Stream>>);

impl Wire {
    fn with<T>(&self, change: impl FnOnce(&mut Stream) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }
}

impl Transport for Wire {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8], _: Option<Duration>) -> Poll<io::Result<usize>> {
        match self.with(|stream| stream.reads.pop_front()) {
            Some(octets) => {
                buffer[..octets.len()].copy_from_slice(&octets);
                Poll::Ready(Ok(octets.len()))
            }
            None => Poll::Pending,
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.with(|stream| stream.full) { Poll::Pending } else { Poll::Ready(Ok(octets.len())) }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn now(&self) -> Duration {
        self.with(|stream| stream.now)
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, deadline: Duration) -> Poll<()> {
        if deadline <= self.now() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// A connection, polled as often as it is woken.
struct Task<P: Protocol<Notification: Clone>> {
    connection: Connection<P, Wire>,
    woken: Arc<Woken>,
}

impl<P: Protocol<Notification: Clone>> Task<P> {
    fn new(driver: Driver<P, Wire>) -> (Handle<P>, Self) {
        let (handle, connection) = driver.share();
        let mut task = Task { connection, woken: Arc::default() };
        task.wake();
        (handle, task)
    }

    /// The stream has something for it.
    fn wake(&mut self) -> Option<Result<(), End>> {
        self.woken.0.store(true, Ordering::Release);
        self.run()
    }

    fn run(&mut self) -> Option<Result<(), End>> {
        let waker = Waker::from(Arc::clone(&self.woken));
        while self.woken.0.swap(false, Ordering::AcqRel) {
            if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(&mut Context::from_waker(&waker)) {
                return Some(ended);
            }
        }
        None
    }
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn rung(times: usize) -> Vec<u8> {
    b"notif: random\r\n".repeat(times)
}

fn narrow(board: Board, wire: &Wire) -> Driver<Board, Wire> {
    let mut driver = Driver::new(ClientState::new(board), wire.clone());
    driver.set_backlog(2);
    driver.set_backlog_octets(200);
    driver
}

/// The task that leaves may be the one that takes.
#[test]
fn whoever_leaves_is_told_that_there_is_no_room() {
    // Here the leave waits for the server to confirm the enter, behind what there is no room for.
    let wire = Wire::default();
    let (handle, mut task) = Task::new(narrow(Board::acknowledged(), &wire));
    let _subscriber = handle.subscribe();
    let mut entering = pin!(handle.enter(()));
    assert!(poll(entering.as_mut()).is_pending());
    wire.with(|stream| stream.reads.push_back(rung(100)));
    assert!(task.wake().is_none());
    assert!(matches!(poll(entering), Poll::Ready(Err(Error::BacklogFull { id: Some(_) }))));
    let mut leaving = pin!(handle.leave());
    assert!(poll(leaving.as_mut()).is_pending());
    assert!(task.run().is_none());
    assert!(matches!(poll(leaving), Poll::Ready(Err(Error::BacklogFull { id: None }))));

    // And here until the stream takes more.
    let wire = Wire::default();
    let (handle, mut task) = Task::new(narrow(Board::silent(), &wire));
    let _subscriber = handle.subscribe();
    let mut entering = pin!(handle.enter(()));
    assert!(poll(entering.as_mut()).is_pending());
    assert!(task.run().is_none());
    assert!(matches!(poll(entering), Poll::Ready(Ok(_))));
    let mut asking = pin!(handle.call(Request::Random));
    assert!(poll(asking.as_mut()).is_pending());
    wire.with(|stream| stream.reads.push_back(rung(100)));
    assert!(task.wake().is_none());
    assert!(matches!(poll(asking), Poll::Ready(Err(Error::BacklogFull { id: Some(_) }))));
    wire.with(|stream| stream.full = true);
    let mut leaving = pin!(handle.leave());
    assert!(poll(leaving.as_mut()).is_pending());
    assert!(task.run().is_none());
    assert!(matches!(poll(leaving), Poll::Ready(Err(Error::BacklogFull { id: None }))));
}

/// The answer was sent in time, and lies in the stream, which nobody reads.
#[test]
fn no_deadline_passes_while_nothing_is_read() {
    let wire = Wire::default();
    let mut driver = Driver::new(ClientState::new(Board::silent()), wire.clone());
    driver.set_backlog(2);
    driver.set_timeouts(Timeouts { reply: Some(Duration::from_millis(100)), ..Timeouts::OFF });
    let (handle, mut task) = Task::new(driver);
    let mut subscriber = handle.subscribe();
    let mut entering = pin!(handle.enter(()));
    assert!(poll(entering.as_mut()).is_pending());
    assert!(task.run().is_none());
    assert!(poll(entering).is_ready());
    {
        // Nobody waits for this answer any more, so that the connection is stopped.
        let mut given_up = Box::pin(handle.call(Request::Random));
        assert!(poll(given_up.as_mut()).is_pending());
        assert!(task.run().is_none());
    }
    wire.with(|stream| {
        stream.reads.extend([rung(4), rung(4), rung(4), b"5\r\n".to_vec()]);
        stream.now += Duration::from_millis(101);
    });
    assert!(task.wake().is_none());
    let mut told = 0;
    for _ in 0..12 {
        // A subscriber that is slow.
        wire.with(|stream| stream.now += Duration::from_millis(50));
        while let Poll::Ready(Some(Rung::Notification(_))) = poll(pin!(subscriber.next())) {
            told += 1;
        }
        let ended = task.run();
        assert!(ended.is_none(), "{ended:?} after {told} notifications");
    }
    assert_eq!(told, 12);
}

/// A protocol that panics when it is to write something.
#[derive(Debug)]
struct Panics;

impl Protocol for Panics {
    type Request = ();
    type Subscription = ();
    type Reply = ();
    type Refusal = ();
    type Notification = ();
    type Note = ();

    const TERMINATOR: Terminator = Terminator::Lf;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Silent, leave: LeaveAnswer::Silent }
    }

    fn encode_request(&self, id: RequestId, (): &(), _: &mut Encoder<'_>) -> Result<(), Invalid> {
        panic!("{id}")
    }

    fn encode_enter(&self, id: RequestId, (): &(), _: &mut Encoder<'_>) -> Result<(), Invalid> {
        panic!("{id}")
    }

    fn encode_leave(&self, _: RequestId, (): &(), _: &mut Encoder<'_>) {}

    fn decode(&mut self, _: &mut Frame<'_>, _: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        Ok(Decoded::Nothing)
    }
}

#[test]
fn whoever_asks_what_panics_is_told() {
    let (handle, mut task) = Task::new(Driver::new(ClientState::new(Panics), Wire::default()));
    let (mut first, mut second) = (pin!(handle.call(())), pin!(handle.enter(())));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| task.run())).is_err());
    drop(task);
    // One was in the hands of the protocol, and may have been sent; the other was not.
    assert!(matches!(poll(first), Poll::Ready(Err(Error::Lost { sent: true, end: End::Abandoned }))));
    assert!(matches!(poll(second), Poll::Ready(Err(Error::Lost { sent: false, end: End::Abandoned }))));
}
