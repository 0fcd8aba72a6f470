//! Every future of the driver dropped at every await point, over a stream that is `Pending` before each short read and
//! write: nothing is lost, repeated or reordered.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Notification, Reply, Request, ServerState};
use sonnette::{ClientState, RequestId};
use sonnette_driver::{Driver, Error, Transport};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A connection to an honest server that has news each time the last was fetched, up to a number. Every other call is
/// `Pending`, and each goes as far as `most` octets.
#[derive(Debug)]
struct Link {
    server: ServerState,
    number: i64,
    fetched: i64,
    news: i64,
    most: usize,
    pending: [bool; 3],
}

impl Link {
    fn new(board: Board, most: usize, news: i64) -> Self {
        Link { server: ServerState::new(board), number: 0, fetched: 0, news, most, pending: [false; 3] }
    }

    /// Each other read, write and flush is `Pending`.
    fn wait(&mut self, kind: usize) -> bool {
        self.pending[kind] = !self.pending[kind];
        self.pending[kind]
    }

    fn serve(&mut self) {
        while self.server.poll_request().is_some() {
            self.server.answer(Reply::Random(self.number)).unwrap();
            self.fetched = self.number;
        }
        if self.fetched == self.number && self.number < self.news && self.server.is_in_notification_mode() {
            self.number += 1;
            self.server.notify(Request::Random);
        }
    }
}

impl Transport for Link {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8], _: Option<Duration>) -> Poll<io::Result<usize>> {
        if self.wait(0) {
            return Poll::Pending;
        }
        self.serve();
        let octets = self.server.output().len().min(self.most).min(buffer.len());
        if octets == 0 {
            return Poll::Pending;
        }
        buffer[..octets].copy_from_slice(&self.server.output()[..octets]);
        self.server.advance_output(octets);
        Poll::Ready(Ok(octets))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.wait(1) {
            return Poll::Pending;
        }
        let octets = &octets[..octets.len().min(self.most)];
        self.server.receive(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wait(2) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, _: Duration) -> Poll<()> {
        Poll::Pending
    }
}

/// Polls at most so often; `None` if the future was dropped before its end.
fn poll_times<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(result);
        }
    }
    None
}

/// Enough polls for any future here to end.
const ALWAYS: usize = 10_000;

/// Repeats a call that can be repeated, dropping its future after so many polls; the last try may take as long as it
/// does.
macro_rules! repeat {
    ($polls:expr, $future:expr) => {
        match poll_times($future, $polls) {
            Some(result) => result.unwrap(),
            None => poll_times($future, ALWAYS).unwrap().unwrap(),
        }
    };
}

fn session(board: Board, most: usize, polls: usize) -> Vec<i64> {
    const NEWS: i64 = 20;
    let mut driver = Driver::new(ClientState::new(board), Link::new(board, most, NEWS));
    repeat!(polls, driver.enter(()));
    let mut fetched = vec![];
    while fetched.last() != Some(&NEWS) {
        assert_eq!(repeat!(polls, driver.next_notification()), Some(Notification::Random));
        repeat!(polls, driver.leave());
        // A call cannot be repeated, it would ask again: the id that was asked is waited for.
        let id: RequestId = driver.start(Request::Random).unwrap();
        let Reply::Random(number) = repeat!(polls, driver.outcome(id)) else { panic!("a number was asked for") };
        assert!(matches!(poll_times(driver.outcome(id), ALWAYS), Some(Err(Error::UnknownRequest(_)))));
        fetched.push(number);
        repeat!(polls, driver.enter(()));
    }
    fetched
}

#[test]
fn a_future_dropped_anywhere_loses_nothing() {
    for board in [Board::silent(), Board::acknowledged()] {
        for most in [1, 3, 1_000] {
            let uninterrupted = session(board, most, ALWAYS);
            assert_eq!(uninterrupted, (1..=20).collect::<Vec<_>>());
            for polls in 0..60 {
                assert_eq!(session(board, most, polls), uninterrupted, "{polls} polls, {most} octets");
            }
        }
    }
}

#[test]
fn a_ring_dropped_anywhere_leaves_a_connection_in_step() {
    for board in [Board::silent(), Board::acknowledged()] {
        for polls in 0..80 {
            let mut driver = Driver::new(ClientState::new(board), Link::new(board, 2, 3));
            repeat!(ALWAYS, driver.enter(()));
            assert_eq!(repeat!(ALWAYS, driver.next_notification()), Some(Notification::Random));
            let _ = poll_times(driver.ring(Request::Random), polls);
            // Whatever became of it, those that follow have their own answers, and each news rings.
            let mut fetched = vec![];
            while fetched.last() != Some(&3) {
                let rung = poll_times(driver.ring(Request::Random), ALWAYS);
                let Some(Ok(Reply::Random(number))) = rung else { panic!("{polls} polls: {rung:?}, {driver:?}") };
                fetched.push(number);
                if number < 3 {
                    assert_eq!(repeat!(ALWAYS, driver.next_notification()), Some(Notification::Random));
                }
            }
            assert!(fetched.is_sorted(), "{polls} polls: {fetched:?}");
        }
    }
}

#[test]
fn nothing_happens_without_progress() {
    let mut driver = Driver::new(ClientState::new(Board::silent()), Link::new(Board::silent(), 100, 0));
    repeat!(ALWAYS, driver.enter(()));
    repeat!(ALWAYS, driver.flush());
    // A task that is not woken is not polled; one that is polled without cause stays pending and writes nothing.
    assert!(poll_times(driver.next_notification(), ALWAYS).is_none());
    assert!(driver.state().output().is_empty());
}
