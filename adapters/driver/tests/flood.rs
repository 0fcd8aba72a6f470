//! The driver over a stream that never stops, and one that cannot be written to: deadlines are heeded, other tasks have their
//! turn, what arrived in time counts, and nobody waits for ever.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::{ClientState, Error as Failure, Event, Limits, Timeouts};
use sonnette_driver::{Driver, End, Error, Transport};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const PUSH: &[u8] = b"notif: random\r\n";

/// A stream on a clock of its own. Each read takes a millisecond and finds something, `reads` times.
struct Flood {
    now: Duration,
    reads: usize,
    /// Octets that a read finds, at most.
    most: usize,
    at: usize,
    /// What is behind all that, from this time on.
    then: &'static [u8],
    then_from: Duration,
    /// Whoever waits for a deadline is left waiting.
    waits: bool,
    /// Writes fail.
    broken: bool,
    written: usize,
}

impl Flood {
    fn new(reads: usize) -> Self {
        Flood {
            now: Duration::ZERO,
            reads,
            most: usize::MAX,
            at: 0,
            then: b"",
            then_from: Duration::ZERO,
            waits: false,
            broken: false,
            written: 0,
        }
    }
}

impl Transport for Flood {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8], _: Option<Duration>) -> Poll<io::Result<usize>> {
        if self.reads == 0 {
            if self.then.is_empty() || self.now < self.then_from {
                return Poll::Pending;
            }
            let octets = std::mem::take(&mut self.then);
            buffer[..octets.len()].copy_from_slice(octets);
            return Poll::Ready(Ok(octets.len()));
        }
        self.reads -= 1;
        self.now += milliseconds(1);
        // The last one ends with a line.
        let octets = buffer.len().min(self.most);
        let octets = if self.reads == 0 { octets - (self.at + octets) % PUSH.len() } else { octets };
        for to in &mut buffer[..octets] {
            *to = PUSH[self.at % PUSH.len()];
            self.at += 1;
        }
        Poll::Ready(Ok(octets))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.written += octets.len();
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, deadline: Duration) -> Poll<()> {
        if self.waits {
            return Poll::Pending;
        }
        self.now = self.now.max(deadline);
        Poll::Ready(())
    }
}

/// How often a task was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What it comes to, and how often it gave up its turn before: each time it must have asked for another.
fn run<T>(future: impl Future<Output = T>) -> (T, usize) {
    let (mut future, woken) = (pin!(future), Arc::new(Woken::default()));
    let waker = Waker::from(Arc::clone(&woken));
    let mut turns = 0;
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (done, turns);
        }
        turns += 1;
        assert_eq!(woken.0.load(Ordering::Relaxed), turns, "it waits, and nobody wakes it");
    }
}

fn timeouts(timeouts: Timeouts, flood: Flood) -> Driver<Board, Flood> {
    let mut driver = Driver::new(ClientState::new(Board::silent()), flood);
    driver.set_timeouts(timeouts);
    driver
}

/// Reads that take longer than any deadline here.
const ENDLESS: usize = 3_000;

/// A twentieth of the setting, or 20 milliseconds.
fn in_time(now: Duration, setting: Duration) -> bool {
    now >= setting && now <= setting + (setting / 20).max(milliseconds(20))
}

#[test]
fn an_answer_is_overdue_whatever_else_the_server_says() {
    for (setting, sizes) in [(100, [PUSH.len(), 1_000, usize::MAX]), (1_000, [1, PUSH.len(), 1_000])] {
        let setting = milliseconds(setting);
        for most in sizes {
            let reply = Timeouts { reply: Some(setting), ..Timeouts::OFF };
            // Behind a mode that was left, what is pushed crosses the leave.
            let mut driver = timeouts(reply, Flood { most, ..Flood::new(ENDLESS) });
            run(driver.enter(())).0.unwrap();
            run(driver.leave()).0.unwrap();
            let (answer, _) = run(driver.call_with(Request::Random, drop));
            let overdue = matches!(&answer, Err(Error::Lost { sent: true, end: End::Failed(Failure::ReplyTimeout) }));
            assert!(overdue, "{answer:?}");
            assert!(in_time(driver.transport().now, setting), "{:?} instead of {setting:?}", driver.transport().now);
        }
    }
}

#[test]
fn a_mode_is_refreshed_whatever_the_server_says() {
    let setting = milliseconds(1_000);
    let mut driver = timeouts(Timeouts { refresh: Some(setting), ..Timeouts::OFF }, Flood::new(ENDLESS));
    run(driver.enter(())).0.unwrap();
    let entered = driver.transport().written;
    while driver.transport().written == entered {
        assert_eq!(run(driver.next_notification()).0.unwrap(), Some(Notification::Random));
    }
    assert!(in_time(driver.transport().now, setting), "{:?}", driver.transport().now);
}

/// The process was stopped for long, and there is more to read than one read takes.
#[test]
fn what_the_stream_still_holds_was_said_in_time() {
    let reply = Timeouts { reply: Some(milliseconds(100)), ..Timeouts::OFF };
    for reads in 0..9 {
        let mut driver = timeouts(reply, Flood { waits: true, ..Flood::new(0) });
        run(driver.enter(())).0.unwrap();
        run(driver.leave()).0.unwrap();
        let id = driver.start(Request::Random).unwrap();
        let waiting = driver.poll_next_event(&mut Context::from_waker(Waker::noop())).is_pending();
        assert!(waiting && driver.state().is_pending(id));
        driver.transport_mut().now += milliseconds(60_000);
        (driver.transport_mut().reads, driver.transport_mut().then) = (reads, b"7\r\n");
        driver.set_backlog(usize::MAX);
        driver.set_backlog_octets(usize::MAX);
        assert_eq!(run(driver.outcome(id)).0.unwrap(), Reply::Random(7), "behind {reads} reads");
    }
}

/// It arrives while the driver waits for the deadline, and is not late.
#[test]
fn what_arrived_by_the_deadline_is_read_before_it_is_judged() {
    let setting = milliseconds(100);
    let reply = Timeouts { reply: Some(setting), ..Timeouts::OFF };
    let mut driver = timeouts(reply, Flood { then: b"7\r\n", then_from: setting, ..Flood::new(0) });
    assert_eq!(run(driver.call(Request::Random)).0.unwrap(), Reply::Random(7));
}

#[test]
fn other_tasks_have_their_turn() {
    // Each read finds one notification, and the next is there already.
    let mut driver = timeouts(Timeouts::OFF, Flood { most: PUSH.len(), ..Flood::new(ENDLESS) });
    run(driver.enter(())).0.unwrap();
    let turns: usize = (0..1_000)
        .map(|_| {
            let (next, turns) = run(driver.next_notification());
            assert_eq!(next.unwrap(), Some(Notification::Random));
            turns
        })
        .sum();
    assert!((200..=300).contains(&turns), "{turns}");

    // Nor does one call that is never done go on alone.
    let id = driver.start(Request::Random);
    assert!(id.is_err());
    run(driver.leave()).0.unwrap();
    driver.transport_mut().reads = 5_000;
    driver.transport_mut().then = b"7\r\n";
    let (answer, turns) = run(driver.call_with(Request::Random, drop));
    assert_eq!(answer.unwrap(), Reply::Random(7));
    assert!(turns >= 1_000, "{turns}");
}

/// The server is silent, and keeps the connection open as far as it can be seen.
#[test]
fn a_write_that_fails_ends_the_connection_once_all_is_read() {
    for reads in [0, 3] {
        let mut driver = timeouts(Timeouts::OFF, Flood::new(reads));
        run(driver.enter(())).0.unwrap();
        run(driver.leave()).0.unwrap();
        driver.transport_mut().broken = true;
        let mut told = 0;
        let (answer, _) = run(driver.call_with(Request::Random, |_| told += 1));
        assert!(matches!(&answer, Err(Error::Lost { sent: false, end: End::Io(_) })), "{answer:?}");
        assert_eq!(told, driver.transport().at / PUSH.len());
        assert!(told >= reads, "{told}");
    }
}

#[test]
fn what_is_asked_for_after_the_end_has_ended() {
    let mut driver = timeouts(Timeouts::OFF, Flood::new(0));
    driver.transport_mut().broken = true;
    assert!(run(driver.call(Request::Random)).0.is_err());
    for _ in 0..2 {
        assert!(matches!(run(driver.leave()).0, Err(Error::Ended(End::Io(_)))));
        assert!(matches!(run(driver.flush()).0, Err(Error::Ended(End::Io(_)))));
        assert!(matches!(run(driver.close()).0, Err(Error::Ended(End::Io(_)))));
    }
}

/// As many events as may be kept would be too much, if each is large.
#[test]
fn what_is_kept_is_bounded_in_octets() {
    const LINE: &[u8] = b"notif: random";
    let most = 64 * 1_024;
    for set in [false, true] {
        let limits = if set { Limits::new() } else { Limits::new().with_answer(most) };
        let mut driver = Driver::new(ClientState::with_limits(Board::silent(), limits), Flood::new(ENDLESS));
        driver.set_backlog(usize::MAX);
        if set {
            driver.set_backlog_octets(most);
        }
        run(driver.enter(())).0.unwrap();
        run(driver.leave()).0.unwrap();
        let id = match run(driver.call(Request::Random)).0 {
            Err(Error::BacklogFull { id: Some(id) }) => id,
            other => panic!("{other:?}"),
        };
        let (mut kept, own) = (0, size_of::<Event<Board>>() + LINE.len() + 2);
        driver.transport_mut().reads = 0;
        while kept < most.div_ceil(own) {
            assert_eq!(run(driver.next_notification()).0.unwrap(), Some(Notification::Random));
            kept += 1;
        }
        assert!(driver.state().is_pending(id));
    }
}

/// What is known at sight is not looked for where it could not be handed on.
#[test]
fn what_is_kept_keeps_no_notification_back() {
    let mut driver =
        timeouts(Timeouts::OFF, Flood { then: b"7\r\nnotif: random\r\nnotif: classified\r\n", ..Flood::new(0) });
    let id = driver.start(Request::Random).unwrap();
    run(driver.enter(())).0.unwrap();
    assert_eq!(run(driver.next_notification()).0.unwrap(), Some(Notification::Random));
    assert_eq!(run(driver.next_notification()).0.unwrap(), Some(Notification::Classified));
    assert_eq!(run(driver.outcome(id)).0.unwrap(), Reply::Random(7));
}
