//! The driver on a clock of its own: a wait for the server ends at the next deadline, whatever the hour.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Notification, Refusal, Reply, Request, ServerState};
use sonnette::{ClientState, Error, Event, Timeouts};
use sonnette_driver::{Driver, End, Transport};
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// A connection on which nothing takes time but waiting. At a time of `plan` something happens to the server.
struct Link {
    now: Duration,
    server: ServerState,
    plan: VecDeque<(Duration, Happens)>,
    /// Octets that are not the server's.
    forged: VecDeque<u8>,
    dead: bool,
    ended: bool,
    /// Whoever reads is left waiting.
    waits: bool,
    written: Vec<(Duration, String)>,
}

#[derive(Clone, Copy)]
enum Happens {
    News,
    /// Nothing is answered from now on.
    Dies,
    Ends,
    /// The server says this, and only this, from now on.
    Says(&'static str),
}

impl Link {
    fn happen(&mut self) {
        while self.plan.front().is_some_and(|(at, _)| *at <= self.now) {
            match self.plan.pop_front().unwrap().1 {
                Happens::News => self.server.notify(Request::Random),
                Happens::Dies => self.dead = true,
                Happens::Ends => self.ended = true,
                Happens::Says(octets) => {
                    self.dead = true;
                    self.forged.extend(octets.bytes());
                }
            }
        }
    }
}

impl Link {
    /// What the server says by now, as far as there is room for it.
    fn say(&mut self, buffer: &mut [u8]) -> usize {
        self.happen();
        while !self.dead && self.server.poll_request().is_some() {
            self.server.answer(Reply::Random(46774)).unwrap();
        }
        if !self.dead {
            let octets = self.server.output().len();
            self.forged.extend(self.server.output());
            self.server.advance_output(octets);
        }
        let octets = self.forged.len().min(buffer.len());
        buffer.iter_mut().zip(self.forged.drain(..octets)).for_each(|(to, octet)| *to = octet);
        octets
    }
}

impl Transport for Link {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        buffer: &mut [u8],
        deadline: Option<Duration>,
    ) -> Poll<io::Result<usize>> {
        if self.waits {
            return Poll::Pending;
        }
        loop {
            let octets = self.say(buffer);
            match (deadline, self.plan.front()) {
                _ if octets > 0 || self.ended => return Poll::Ready(Ok(octets)),
                // Without a deadline there is nothing to wait for but what happens next.
                (None, Some((at, _))) => self.now = self.now.max(*at),
                _ => return Poll::Pending,
            }
        }
    }

    fn poll_write(&mut self, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.written.push((self.now, String::from_utf8(octets.to_vec()).unwrap()));
        self.server.receive(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn now(&self) -> Duration {
        self.now
    }

    /// Sleeps until then, or until something happens.
    fn poll_deadline(&mut self, _: &mut Context<'_>, deadline: Duration) -> Poll<()> {
        if self.waits {
            return Poll::Pending;
        }
        let next = self.plan.front().map_or(deadline, |(at, _)| *at).min(deadline);
        self.now = self.now.max(next);
        Poll::Ready(())
    }
}

fn driver(board: Board, timeouts: Timeouts, plan: &[(u64, Happens)]) -> Driver<Board, Link> {
    let plan = plan.iter().map(|&(at, happens)| (minutes(at), happens)).collect();
    let link = Link {
        now: Duration::ZERO,
        server: ServerState::new(board),
        plan,
        forged: VecDeque::new(),
        dead: false,
        ended: false,
        waits: false,
        written: Vec::new(),
    };
    let mut driver = Driver::new(ClientState::new(board), link);
    driver.set_timeouts(timeouts);
    driver
}

/// Nothing here waits: time passes inside.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits, with no deadline"),
    }
}

fn refresh(at: u64) -> Timeouts {
    Timeouts { refresh: Some(minutes(at)), ..Timeouts::default() }
}

#[test]
fn a_refresh_is_written_in_one_piece_and_not_told() {
    for board in [Board::silent(), Board::acknowledged()] {
        let plan = [(20, Happens::News), (40, Happens::News), (70, Happens::News)];
        let mut driver = driver(board, refresh(28), &plan);
        let id = now(driver.enter(())).unwrap();
        for _ in plan {
            assert_eq!(now(driver.next_notification()).unwrap(), Some(Notification::Random));
        }
        let again = "stop_notif\r\nnotif\r\n".to_owned();
        let refreshed = [(minutes(28), again.clone()), (minutes(56), again)];
        assert_eq!(driver.transport().written, [&[(minutes(0), "notif\r\n".to_owned())], &refreshed[..]].concat());

        // The mode still has the id the caller knows.
        now(driver.leave()).unwrap();
        let random = driver.start(Request::Random).unwrap();
        assert_eq!(now(driver.next_event()).unwrap(), Event::Left { id, asked: true, refusal: None });
        assert_eq!(now(driver.next_event()).unwrap(), Event::Reply { id: random, reply: Reply::Random(46774) });
    }
}

#[test]
fn a_refused_refresh_ends_the_mode() {
    let plan = [(28, Happens::Dies), (29, Happens::Says("OK\r\nno\r\n"))];
    let mut driver = driver(Board::acknowledged(), refresh(28), &plan);
    let id = now(driver.enter(())).unwrap();
    let refusal = Refusal::WrongKind("no".into());
    let failed = now(driver.next_notification()).unwrap_err();
    assert!(matches!(&failed, sonnette_driver::Error::Refused(refused) if *refused == refusal), "{failed:?}");
    assert!(now(driver.next_notification()).unwrap().is_none(), "{id}");
}

#[test]
fn the_enter_of_a_refresh_is_not_lost_to_the_caller() {
    let plan = [(28, Happens::Dies), (29, Happens::Says("OK\r\n")), (29, Happens::Ends)];
    let mut driver = driver(Board::acknowledged(), refresh(28), &plan);
    now(driver.enter(())).unwrap();
    assert_eq!(now(driver.next_event()).unwrap(), Event::Closed);
}

#[test]
fn a_dead_server_is_found_and_a_quiet_one_is_not() {
    for board in [Board::silent(), Board::acknowledged()] {
        let silence = Timeouts { silence: Some(minutes(10)), ..Timeouts::default() };
        let mut driver = driver(board, silence, &[(60, Happens::Dies)]);
        now(driver.enter(())).unwrap();
        let failed = now(driver.next_notification()).unwrap_err();
        let silent = matches!(failed, sonnette_driver::Error::Ended(End::Failed(Error::SilenceTimeout)));
        assert!(silent, "{failed:?}");
        // The probe at 60 minutes is the one that is not answered.
        assert_eq!((driver.transport().now, driver.transport().written.len()), (minutes(70), 7));
    }
}

#[test]
fn an_overdue_answer_ends_the_connection() {
    let reply = Timeouts { reply: Some(minutes(1)), ..Timeouts::default() };
    let mut driver = driver(Board::silent(), reply, &[(0, Happens::Dies)]);
    let failed = now(driver.call(Request::Random)).unwrap_err();
    let overdue = End::Failed(Error::ReplyTimeout).to_string();
    assert!(matches!(&failed, sonnette_driver::Error::Lost { sent: true, end } if end.to_string() == overdue));
    assert_eq!(driver.transport().now, minutes(1));
}

#[test]
fn what_arrived_while_nobody_waited_is_read_before_it_is_judged() {
    let reply = Timeouts { reply: Some(minutes(1)), ..Timeouts::default() };
    let mut driver = driver(Board::silent(), reply, &[]);
    let id = driver.start(Request::Random).unwrap();
    driver.transport_mut().waits = true;
    let given_up = pin!(driver.next_event()).poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(given_up && driver.state().is_pending(id));
    driver.transport_mut().waits = false;
    driver.transport_mut().now += minutes(600);
    assert_eq!(now(driver.outcome(id)).unwrap(), Reply::Random(46774));
}

#[test]
fn chatter_does_not_postpone_a_refresh() {
    let news: Vec<_> = (1..100).map(|at| (at, Happens::News)).collect();
    let mut driver = driver(Board::silent(), refresh(28), &news);
    now(driver.enter(())).unwrap();
    for _ in &news {
        assert_eq!(now(driver.next_notification()).unwrap(), Some(Notification::Random));
    }
    let times: Vec<_> = driver.transport().written.iter().map(|(at, _)| at.as_secs() / 60).collect();
    assert_eq!(times, [0, 28, 56, 84]);
}
