use super::subscriber::Room;
use super::{Answer, Ask, Outcome, Rung, Shared, end_of};
use crate::{Driver, End, Error, Transport};
use sonnette::{EnterAnswer, Event, Mode, Protocol, Reason, Rejected, RequestId};
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::thread;

/// Notifications told in one turn, at most: half of what a subscriber keeps by default, so that one which empties its queue
/// whenever it can seldom stops the connection.
const TURN: usize = 512;

/// The task of a connection that many share: a future that ends with it, or once the last [`Handle`](crate::Handle) is dropped.
///
/// Its output is how the connection ended, `Ok` if that was for want of handles. When it is dropped before, calls that wait
/// fail with [`Error::Lost`], and later ones with [`Error::Ended`].
#[must_use = "a connection does nothing unless it is spawned or awaited"]
pub struct Connection<P: Protocol, T: Transport>
where
    P::Notification: Clone,
{
    driver: Driver<P, T>,
    shared: Arc<Shared<P>>,
    /// What the mode is, or is to be, entered with.
    wanted: Option<P::Subscription>,
    /// The enter that was asked last.
    enter: Option<RequestId>,
    /// The request or enter that was asked last.
    last: Option<RequestId>,
    /// What the machine has had no room for yet.
    staged: VecDeque<(usize, Ask<P>)>,
    /// What was asked, ids ascending, and which slot waits for it.
    pending: VecDeque<(RequestId, usize)>,
    /// Slots that wait until all is written.
    leaving: Vec<usize>,
    /// Lost requests, and whether each was sent. What ended the connection is told after them.
    lost: Vec<(usize, bool)>,
    /// Callers that have their outcomes, and slots that nobody waits for: to be told at the end of the turn.
    wakers: Vec<Waker>,
    freed: usize,
    /// Notifications told in this turn.
    rung: usize,
    /// How much room the subscribers have, as far as is known.
    room: Room,
    /// There is no handle any more.
    unused: bool,
    /// Other tasks have had a turn since one of them asked.
    gathered: bool,
    /// In a turn; or the protocol panicked in one.
    busy: bool,
    over: bool,
}

/// Nothing in it is ever pinned.
impl<P: Protocol, T: Transport> Unpin for Connection<P, T> where P::Notification: Clone {}

impl<P: Protocol, T: Transport> Future for Connection<P, T>
where
    P::Notification: Clone,
{
    type Output = Result<(), End>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let connection = self.get_mut();
        if connection.over {
            return Poll::Pending;
        }
        if mem::replace(&mut connection.busy, true) {
            connection.give_up();
            return Poll::Ready(Err(End::Abandoned));
        }
        let polled = connection.poll_turn(cx);
        connection.tell();
        connection.busy = false;
        polled
    }
}

impl<P: Protocol, T: Transport> Connection<P, T>
where
    P::Notification: Clone,
{
    pub(super) fn new(driver: Driver<P, T>, shared: Arc<Shared<P>>) -> Self {
        Connection {
            wanted: driver.subscription().cloned(),
            driver,
            shared,
            enter: None,
            last: None,
            staged: VecDeque::new(),
            pending: VecDeque::new(),
            leaving: Vec::new(),
            lost: Vec::new(),
            wakers: Vec::new(),
            freed: 0,
            rung: 0,
            room: Room::Some,
            unused: false,
            gathered: false,
            busy: false,
            over: false,
        }
    }

    /// Until there is nothing to do, or the others should have their turn.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let asked = self.staged.len();
        self.take_asked(cx);
        // Who asked first is mostly not the only one: what the others ask in this round goes out in the same write.
        self.gathered = self.staged.len() > asked && !self.gathered;
        if self.gathered && !self.unused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.rung = 0;
        loop {
            let may_read = self.may_read(cx);
            self.ask();
            if self.unused && self.staged.is_empty() && self.driver.poll_written(cx) {
                let closed = ready!(self.driver.poll_close(cx));
                self.finish(End::Closed);
                return Poll::Ready(closed.map_err(|error| End::Io(Arc::new(error))));
            }
            if !may_read {
                self.driver.stop_reading();
                self.driver.poll_written(cx);
                if self.room == Room::Exhausted {
                    self.fail_awaited();
                }
                break;
            }
            if !self.pending.is_empty() {
                if let Some(event) = self.settle_known() {
                    self.on_event(event);
                }
            }
            self.driver.count_octets();
            match self.driver.poll_next_event(cx) {
                Poll::Ready(Ok(event)) => self.on_event(event),
                Poll::Ready(Err(error)) => {
                    let end = end_of(error);
                    self.finish(end.clone());
                    return Poll::Ready(Err(end));
                }
                Poll::Pending => break,
            }
            if self.rung >= TURN {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.settle_leaving();
        Poll::Pending
    }

    fn settle_leaving(&mut self) {
        if self.driver.is_flushed() {
            for key in mem::take(&mut self.leaving) {
                self.settle(key, Ok(Answer::Leaving));
            }
        }
    }

    /// Whether more is to be read: not while a subscriber that misses nothing has no room for it. But whoever waits for an
    /// answer may be the one who should make room, so for that it is read on, until there is too much.
    fn may_read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.room == Room::Some {
            return true;
        }
        let awaited = self.shared.calls().awaited > 0;
        let most = if awaited { Room::Full } else { Room::Some };
        self.room = self.shared.feed.poll_room(cx, most);
        self.room <= most
    }

    /// There is too much: nobody waits any longer for what must be read first.
    fn fail_awaited(&mut self) {
        // Some of it needed no more than to be written.
        self.settle_leaving();
        for (id, key) in mem::take(&mut self.pending) {
            self.settle(key, Err(Error::BacklogFull { id: Some(id) }));
        }
        for key in mem::take(&mut self.leaving) {
            self.settle(key, Err(Error::BacklogFull { id: None }));
        }
    }

    /// Answers that are known whole go straight into their slots; anything else that comes between is returned.
    fn settle_known(&mut self) -> Option<Event<P>> {
        let shared = Arc::clone(&self.shared);
        let mut calls = shared.calls();
        loop {
            match self.driver.poll_known()? {
                Event::Reply { id, reply } => {
                    if let Some(key) = self.take_slot(id) {
                        self.freed += calls.settle(key, Ok(Answer::Reply(reply)), &mut self.wakers);
                    }
                }
                other => return Some(other),
            }
        }
    }

    fn settle(&mut self, key: usize, outcome: Outcome<P>) {
        self.freed += self.shared.calls().settle(key, outcome, &mut self.wakers);
    }

    /// What was asked since the last turn.
    fn take_asked(&mut self, cx: &mut Context<'_>) {
        let mut calls = self.shared.calls();
        if self.staged.is_empty() {
            mem::swap(&mut self.staged, &mut calls.asked);
        } else {
            self.staged.append(&mut calls.asked);
        }
        match &mut calls.task {
            Some(task) => task.clone_from(cx.waker()),
            None => calls.task = Some(cx.waker().clone()),
        }
        self.unused = calls.unused;
    }

    /// Hands to the machine what it has room for.
    fn ask(&mut self) {
        while let Some((key, ask)) = self.staged.pop_front() {
            let asked = match ask {
                Ask::Request(_) | Ask::Enter(_) if self.room == Room::Exhausted => {
                    self.settle(key, Err(Error::BacklogFull { id: None }));
                    continue;
                }
                Ask::Request(request) => match self.driver.state_mut().request(request) {
                    Err(Rejected {
                        value,
                        reason: Reason::NotAllowed(mode @ (Mode::Entering | Mode::Notification)),
                    }) if P::REENTERS && self.wanted.is_some() => {
                        self.staged.push_front((key, Ask::Request(value)));
                        if self.ask_by_ring(mode) {
                            continue;
                        }
                        break;
                    }
                    Ok(id) => Ok(Some(id)),
                    Err(Rejected { value, reason }) => Err(Rejected { value: Ask::Request(value), reason }),
                },
                Ask::Enter(subscription) => self
                    .enter(subscription)
                    .map(Some)
                    .map_err(|Rejected { value, reason }| Rejected { value: Ask::Enter(value), reason }),
                Ask::Leave => {
                    self.wanted = None;
                    self.driver.state_mut().leave();
                    Ok(None)
                }
            };
            match asked {
                Ok(Some(id)) => self.asked(id, key),
                Ok(None) => self.leaving.push(key),
                Err(Rejected { value, reason }) if self.is_passing(reason) => {
                    self.staged.push_front((key, value));
                    break;
                }
                Err(Rejected { reason, .. }) => self.settle(key, Err(Error::Rejected(reason))),
            }
        }
    }

    fn asked(&mut self, id: RequestId, key: usize) {
        self.last = Some(id);
        self.pending.push_back((id, key));
    }

    /// Asks the requests that come next by one ring: leave, all of them, enter again. `false` if that is for later.
    fn ask_by_ring(&mut self, mode: Mode) -> bool {
        // Where the enter has an answer, the leave would wait for it, and what is asked until then can go with it.
        let waits = mode == Mode::Entering && self.driver.state().protocol().changes().enter == EnterAnswer::Own;
        let Some(subscription) = self.wanted.clone().filter(|_| !waits || self.unused) else { return false };
        let (mut keys, mut requests) = (Vec::new(), Vec::new());
        while let Some((key, ask)) = self.staged.pop_front() {
            if let Ask::Request(request) = ask {
                keys.push(key);
                requests.push(request);
            } else {
                self.staged.push_front((key, ask));
                break;
            }
        }
        let mut keys = keys.into_iter();
        let (done, goes_on) = match self.driver.state_mut().ring_all(&requests, subscription) {
            Ok((verdicts, enter)) => {
                let done = verdicts.len();
                // In this order: a key without a verdict is left.
                for (verdict, key) in verdicts.into_iter().zip(keys.by_ref()) {
                    match verdict {
                        Ok(id) => self.asked(id, key),
                        Err(reason) => self.settle(key, Err(Error::Rejected(reason))),
                    }
                }
                if enter.is_some() {
                    (self.enter, self.last) = (enter, enter);
                }
                (done, true)
            }
            Err(Rejected { reason, .. }) if self.is_passing(reason) => (0, false),
            Err(Rejected { reason, .. }) => {
                if let Some(key) = keys.next() {
                    self.settle(key, Err(Error::Rejected(reason)));
                }
                (1, true)
            }
        };
        let rest = keys.zip(requests.into_iter().skip(done).map(Ask::Request));
        rest.rev().for_each(|asked| self.staged.push_front(asked));
        goes_on
    }

    /// Whether what is rejected for this reason can be asked later; the end of the connection is told by what comes next.
    fn is_passing(&self, reason: Reason) -> bool {
        match reason {
            Reason::Closed => true,
            Reason::TooManyPending | Reason::OutputFull => self.is_busy(),
            Reason::NotAllowed(_) | Reason::TooLarge | Reason::Invalid(_) => false,
        }
    }

    /// There will be room, once what is on its way has been answered or written.
    fn is_busy(&self) -> bool {
        let state = self.driver.state();
        let is_asked = self.last.is_some_and(|last| state.is_pending(last));
        is_asked || !self.pending.is_empty() || !state.output().is_empty() || state.is_gated()
    }

    fn enter(&mut self, subscription: P::Subscription) -> Result<RequestId, Rejected<P::Subscription>> {
        let id = self.driver.state_mut().enter(subscription.clone())?;
        self.wanted = Some(subscription);
        self.enter = Some(id);
        Ok(id)
    }

    fn on_event(&mut self, event: Event<P>) {
        match event {
            Event::Reply { id, reply } => self.answered(id, Ok(Answer::Reply(reply))),
            Event::Entered { id } => self.answered(id, Ok(Answer::Entered(id))),
            Event::Refused { id, refusal } => {
                if self.enter == Some(id) {
                    self.wanted = None;
                    // Whoever entered is told by the refusal; after a ring only the subscribers can be.
                    if self.slot_of(id).is_none() {
                        self.ring(Rung::Left { asked: false });
                    }
                }
                self.answered(id, Err(Error::Refused(refusal)));
            }
            Event::Notification(notification) => self.ring(Rung::Notification(notification)),
            Event::Left { asked, refusal, .. } => self.left(asked, refusal.is_some()),
            Event::Lost { id, sent } => {
                if let Some(key) = self.take_slot(id) {
                    self.lost.push((key, sent));
                }
            }
            Event::Closed => {}
        }
    }

    /// The mode is over. If that was the server's doing, it is entered again, where that loses nothing.
    fn left(&mut self, asked: bool, refused: bool) {
        if self.driver.state().asked_mode() != Mode::Normal {
            return;
        }
        if let (false, Some(subscription)) = (refused, self.wanted.take()) {
            if P::REENTERS && self.enter(subscription).is_ok() {
                return;
            }
        }
        self.wanted = None;
        self.ring(Rung::Left { asked });
    }

    fn slot_of(&self, id: RequestId) -> Option<usize> {
        match self.pending.front() {
            Some((front, _)) if *front == id => Some(0),
            _ => self.pending.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }

    fn take_slot(&mut self, id: RequestId) -> Option<usize> {
        let at = self.slot_of(id)?;
        self.pending.remove(at).map(|(_, key)| key)
    }

    fn answered(&mut self, id: RequestId, outcome: Outcome<P>) {
        if let Some(key) = self.take_slot(id) {
            self.settle(key, outcome);
        }
    }

    fn ring(&mut self, rung: Rung<P::Notification>) {
        self.rung += usize::from(matches!(rung, Rung::Notification(_)));
        self.room = self.shared.feed.tell(rung, self.driver.octets(), &mut self.wakers);
    }

    /// Wakes the callers that have their outcomes, and those that wait for a slot.
    fn tell(&mut self) {
        if self.freed > 0 {
            let waiting = self.shared.calls().waiting;
            self.shared.make_room(mem::take(&mut self.freed), waiting);
        }
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// The connection has ended: nobody waits any longer.
    fn finish(&mut self, end: End) {
        for event in self.driver.abandon() {
            self.on_event(event);
        }
        self.settle_all(end);
    }

    /// As [`finish`](Self::finish), after a panic of the protocol, of which nothing more is asked. What became of what was
    /// asked is not known, so it may have been sent.
    fn give_up(&mut self) {
        let pending = mem::take(&mut self.pending);
        self.lost.extend(pending.into_iter().map(|(_, key)| (key, true)));
        self.settle_all(End::Abandoned);
        self.tell();
    }

    fn settle_all(&mut self, end: End) {
        self.over = true;
        let asked = {
            let mut calls = self.shared.calls();
            calls.end = Some(end.clone());
            mem::take(&mut calls.asked)
        };
        let lost = |sent| Error::Lost { sent, end: end.clone() };
        for (key, sent) in mem::take(&mut self.lost) {
            self.settle(key, Err(lost(sent)));
        }
        for key in mem::take(&mut self.leaving) {
            self.settle(key, Err(Error::Ended(end.clone())));
        }
        for (key, ask) in mem::take(&mut self.staged).into_iter().chain(asked) {
            let error = if let Ask::Leave = ask { Error::Ended(end.clone()) } else { lost(false) };
            self.settle(key, Err(error));
        }
        // What a protocol had in its hands when it panicked.
        let rest = self.shared.calls().waiting_keys();
        for key in rest {
            self.settle(key, Err(lost(true)));
        }
        self.shared.feed.end(&mut self.wakers);
        self.shared.free.notify(usize::MAX);
    }
}

impl<P: Protocol, T: Transport> Drop for Connection<P, T>
where
    P::Notification: Clone,
{
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // A panic in a destructor ends the process while another one is on its way, and a protocol may panic again.
        if self.busy || thread::panicking() {
            return self.give_up();
        }
        self.finish(End::Abandoned);
        self.tell();
    }
}

impl<P: Protocol + fmt::Debug, T: Transport + fmt::Debug> fmt::Debug for Connection<P, T>
where
    P::Notification: Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("driver", &self.driver).field("over", &self.over).finish_non_exhaustive()
    }
}
