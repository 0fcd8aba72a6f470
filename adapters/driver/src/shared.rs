//! One connection for many tasks: handles that ask, subscribers that are rung, and the one task that drives it.

use crate::{Driver, End, Error, Transport};
use async_broadcast::{InactiveReceiver, Receiver, Sender};
use event_listener::Event as Room;
use futures_core::Stream;
use slab::Slab;
use sonnette::{Event, Mode, Protocol, Reason, Rejected, RequestId};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// Calls of all handles that wait for their outcomes, those given up included; the next one waits for its turn. As many as
/// a machine has pending by default: more would only wait in another place.
const CALLS: usize = 1_024;

type Result<T, P> = std::result::Result<T, Error<<P as Protocol>::Refusal>>;

impl<P: Protocol, T: Transport> Driver<P, T>
where
    P::Notification: Clone,
{
    /// Lets many tasks ask over this connection, and be rung by it: a handle to be cloned, and the [`Connection`], a future
    /// to be spawned or awaited, on whatever executor, which does the work.
    ///
    /// Each subscriber's queue holds as many notifications as the driver would keep events
    /// ([`set_backlog`](Self::set_backlog)), 1,024 by default. Nobody waits any more for what was started before.
    pub fn share(self) -> (Handle<P>, Connection<P, T>) {
        let (mut sender, receiver) = async_broadcast::broadcast(self.backlog());
        sender.set_overflow(true);
        let shared = Arc::new(Shared {
            room: Room::new(),
            calls: Mutex::new(Calls {
                asked: VecDeque::new(),
                slots: Slab::new(),
                waiting: 0,
                task: None,
                unused: false,
                end: None,
            }),
            rung: Mutex::new(0),
            subscribers: receiver.deactivate(),
        });
        let handle = Handle { owners: Arc::new(Owners(Arc::clone(&shared))) };
        let connection = Connection {
            wanted: self.subscription().cloned(),
            driver: self,
            shared,
            sender,
            enter: None,
            staged: VecDeque::new(),
            pending: VecDeque::new(),
            leaving: Vec::new(),
            lost: Vec::new(),
            wakers: Vec::new(),
            freed: 0,
            rung: 0,
            gathered: false,
            over: false,
        };
        (handle, connection)
    }
}

/// What a caller wants.
enum Ask<P: Protocol> {
    Request(P::Request),
    Enter(P::Subscription),
    Leave,
}

/// What it gets.
enum Answer<P: Protocol> {
    Reply(P::Reply),
    Entered(RequestId),
    Leaving,
}

type Outcome<P> = Result<Answer<P>, P>;

/// What the handles and the task share. Nobody waits for anything while a lock is held.
struct Shared<P: Protocol> {
    /// Told for each slot that is free again, if somebody waits for one.
    room: Room,
    calls: Mutex<Calls<P>>,
    /// How many notifications have been told: a subscriber counts from here on. Held while they are told, so that none
    /// comes between the count and the subscription.
    rung: Mutex<u64>,
    subscribers: InactiveReceiver<Numbered<P::Notification>>,
}

struct Calls<P: Protocol> {
    /// What the task has not seen, by the slot that waits for it.
    asked: VecDeque<(usize, Ask<P>)>,
    /// At most [`CALLS`] of them.
    slots: Slab<Slot<P>>,
    /// Calls that have no slot yet.
    waiting: usize,
    /// The task, until it is woken.
    task: Option<Waker>,
    /// There is no handle any more.
    unused: bool,
    end: Option<End>,
}

enum Slot<P: Protocol> {
    Waiting(Waker),
    GivenUp,
    Done(Outcome<P>),
}

impl<P: Protocol> Shared<P> {
    fn calls(&self) -> MutexGuard<'_, Calls<P>> {
        lock(&self.calls)
    }

    /// So many slots are free again, and so many calls wait for one.
    fn make_room(&self, freed: usize, waiting: usize) {
        if freed > 0 && waiting > 0 {
            self.room.notify_additional(freed);
        }
    }
}

/// A panic of a protocol's own types leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks over a connection that many share: see [`Driver::share`].
///
/// Any number of tasks may call at once: what they ask in one turn of the executor is written together. At most 1,024
/// calls are on their way; more wait for their turn. Notification mode is a matter of the connection, not of a handle: one
/// enters for all and leaves for all.
///
/// Once the last handle is dropped, the connection writes what was asked and closes.
///
/// # Cancel safety
/// A call that is dropped before its turn has come has asked nothing. After that it stays asked, and its outcome is
/// discarded.
pub struct Handle<P: Protocol> {
    owners: Arc<Owners<P>>,
}

/// All handles.
struct Owners<P: Protocol>(Arc<Shared<P>>);

impl<P: Protocol> Drop for Owners<P> {
    fn drop(&mut self) {
        let task = {
            let mut calls = self.0.calls();
            calls.unused = true;
            calls.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<P: Protocol> Clone for Handle<P> {
    fn clone(&self) -> Self {
        Handle { owners: Arc::clone(&self.owners) }
    }
}

impl<P: Protocol> Handle<P> {
    /// Asks, and waits for the answer. A request that the protocol does not allow in notification mode is asked by a ring
    /// there: leave, ask, enter again, in one write; no notification is lost by that. Where one would be
    /// ([`Protocol::REENTERS`]), it is rejected.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Refused`], [`Error::Lost`]; [`Error::Ended`] if the connection had ended before.
    pub async fn call(&self, request: P::Request) -> Result<P::Reply, P> {
        match self.ask(Ask::Request(request)).await? {
            Answer::Reply(reply) => Ok(reply),
            Answer::Entered(id) => Err(Error::UnknownRequest(id)),
            Answer::Leaving => Err(self.ended()),
        }
    }

    /// Enters notification mode, for all who subscribe; returns once that is confirmed. When the server ends the mode by
    /// itself it is entered again, if the protocol lets it ([`Protocol::REENTERS`]).
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Reason::NotAllowed`] where it was entered already.
    pub async fn enter(&self, subscription: P::Subscription) -> Result<RequestId, P> {
        match self.ask(Ask::Enter(subscription)).await? {
            Answer::Entered(id) => Ok(id),
            Answer::Reply(_) | Answer::Leaving => Err(self.ended()),
        }
    }

    /// Leaves notification mode, for all; returns once that is written. Without a mode to leave it does nothing.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn leave(&self) -> Result<(), P> {
        self.ask(Ask::Leave).await.map(drop)
    }

    /// Subscribes to the notifications from here on. It enters no mode.
    #[must_use]
    pub fn subscribe(&self) -> Subscriber<P::Notification>
    where
        P::Notification: Clone,
    {
        let rung = lock(&self.shared().rung);
        Subscriber { receiver: Box::pin(self.shared().subscribers.activate_cloned()), seen: *rung, next: None }
    }

    /// How the connection ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.shared().calls().end.clone()
    }

    fn ended(&self) -> Error<P::Refusal> {
        Error::Ended(self.end().unwrap_or(End::Abandoned))
    }

    fn shared(&self) -> &Shared<P> {
        &self.owners.0
    }

    async fn ask(&self, ask: Ask<P>) -> Outcome<P> {
        let shared = self.shared();
        let mut call = Call { shared, state: CallState::Asking(Some(ask)) };
        loop {
            if let Some(outcome) = poll_fn(|cx| call.poll(cx)).await {
                return outcome;
            }
            let turn = Turn::new(shared);
            let freed = shared.room.listen();
            // What was freed before this listened is not told.
            if turn.is_due() {
                continue;
            }
            freed.await;
        }
    }
}

/// A call that waits for a slot, as counted.
struct Turn<'a, P: Protocol>(&'a Shared<P>);

impl<'a, P: Protocol> Turn<'a, P> {
    fn new(shared: &'a Shared<P>) -> Self {
        shared.calls().waiting += 1;
        Turn(shared)
    }

    fn is_due(&self) -> bool {
        let calls = self.0.calls();
        calls.slots.len() < CALLS || calls.end.is_some()
    }
}

impl<P: Protocol> Drop for Turn<'_, P> {
    fn drop(&mut self) {
        self.0.calls().waiting -= 1;
    }
}

impl<P: Protocol> fmt::Debug for Handle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("end", &self.end()).finish_non_exhaustive()
    }
}

/// A call, and its slot once there is room.
struct Call<'a, P: Protocol> {
    shared: &'a Shared<P>,
    state: CallState<P>,
}

enum CallState<P: Protocol> {
    Asking(Option<Ask<P>>),
    Waiting(usize),
    Over,
}

impl<P: Protocol> Call<'_, P> {
    /// The outcome, or `None` where there is no slot for it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome<P>>> {
        let mut calls = self.shared.calls();
        match &mut self.state {
            CallState::Asking(ask) => {
                if let Some(end) = &calls.end {
                    return Poll::Ready(Some(Err(Error::Ended(end.clone()))));
                }
                if calls.slots.len() >= CALLS {
                    return Poll::Ready(None);
                }
                if let Some(ask) = ask.take() {
                    let key = calls.slots.insert(Slot::Waiting(cx.waker().clone()));
                    calls.asked.push_back((key, ask));
                    self.state = CallState::Waiting(key);
                }
                let task = calls.task.take();
                drop(calls);
                if let Some(task) = task {
                    task.wake();
                }
                Poll::Pending
            }
            CallState::Waiting(key) => match calls.slots.get_mut(*key) {
                Some(Slot::Waiting(waker)) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
                _ => {
                    let slot = calls.slots.try_remove(*key);
                    let waiting = calls.waiting;
                    drop(calls);
                    self.state = CallState::Over;
                    self.shared.make_room(1, waiting);
                    Poll::Ready(Some(match slot {
                        Some(Slot::Done(outcome)) => outcome,
                        _ => Err(Error::Ended(End::Abandoned)),
                    }))
                }
            },
            CallState::Over => Poll::Pending,
        }
    }
}

impl<P: Protocol> Drop for Call<'_, P> {
    fn drop(&mut self) {
        let CallState::Waiting(key) = self.state else { return };
        let (freed, waiting) = {
            let mut calls = self.shared.calls();
            (calls.give_up(key), calls.waiting)
        };
        self.shared.make_room(usize::from(freed), waiting);
    }
}

impl<P: Protocol> Calls<P> {
    /// A call has its outcome. Its waker is kept for later; if nobody waits for it any more, that is one free slot.
    fn settle(&mut self, key: usize, outcome: Outcome<P>, wakers: &mut Vec<Waker>) -> usize {
        match self.slots.get_mut(key) {
            Some(slot @ Slot::Waiting(_)) => {
                if let Slot::Waiting(waker) = mem::replace(slot, Slot::Done(outcome)) {
                    wakers.push(waker);
                }
                0
            }
            Some(Slot::GivenUp) => {
                self.slots.remove(key);
                1
            }
            Some(Slot::Done(_)) | None => 0,
        }
    }

    /// Whether that frees the slot.
    fn give_up(&mut self, key: usize) -> bool {
        match self.slots.get_mut(key) {
            Some(slot @ Slot::Waiting(_)) => {
                *slot = Slot::GivenUp;
                false
            }
            _ => self.slots.try_remove(key).is_some(),
        }
    }
}

/// Each with how many notifications there were before it.
type Numbered<N> = (u64, Rung<N>);

/// What a [`Subscriber`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rung<N> {
    /// The server rang.
    Notification(N),
    /// The subscriber was too slow, and has missed so many notifications.
    Missed(u64),
    /// The mode has ended, and nothing rings until it is entered again.
    Left {
        /// By [`Handle::leave`]. Else the server ended it and did not let it be entered again, or a request has ended it
        /// ([`Protocol::REENTERS`]).
        asked: bool,
    },
}

/// The notifications of a connection that many share, from [`Handle::subscribe`] on.
///
/// Its queue is bounded: if it is not emptied in time, the oldest notifications are missed, and how many is told before
/// the next one. Others are not slowed down by that. It ends with the connection; [`Handle::end`] tells how.
pub struct Subscriber<N> {
    receiver: Pin<Box<Receiver<Numbered<N>>>>,
    /// So many notifications of the connection have been told or missed here.
    seen: u64,
    /// To be told after what was missed before it.
    next: Option<Rung<N>>,
}

impl<N: Clone> Subscriber<N> {
    /// Waits for what comes next; `None` once the connection has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Rung<N>> {
        poll_fn(|cx| self.poll_rung(cx)).await
    }

    fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<Option<Rung<N>>> {
        if let Some(rung) = self.next.take() {
            return Poll::Ready(Some(rung));
        }
        // What overflowed is missing in the count.
        let Some((before, rung)) = ready!(self.receiver.as_mut().poll_next(cx)) else { return Poll::Ready(None) };
        let missed = before - self.seen;
        self.seen = before + u64::from(matches!(rung, Rung::Notification(_)));
        if missed == 0 {
            return Poll::Ready(Some(rung));
        }
        self.next = Some(rung);
        Poll::Ready(Some(Rung::Missed(missed)))
    }
}

impl<N: Clone> Stream for Subscriber<N> {
    type Item = Rung<N>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_rung(cx)
    }
}

/// Nothing in it is pinned but the receiver, which is so in its box.
impl<N> Unpin for Subscriber<N> {}

impl<N> fmt::Debug for Subscriber<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// The task of a connection that many share: a future that ends with it, or once the last [`Handle`] is dropped.
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
    sender: Sender<Numbered<P::Notification>>,
    /// What the mode is, or is to be, entered with.
    wanted: Option<P::Subscription>,
    /// The enter that was asked last.
    enter: Option<RequestId>,
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
    /// Other tasks have had a turn since one of them asked.
    gathered: bool,
    over: bool,
}

/// Nothing in it is ever pinned.
impl<P: Protocol, T: Transport> Unpin for Connection<P, T> where P::Notification: Clone {}

impl<P: Protocol, T: Transport> Future for Connection<P, T>
where
    P::Notification: Clone,
{
    type Output = std::result::Result<(), End>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let connection = self.get_mut();
        if connection.over {
            return Poll::Pending;
        }
        let polled = connection.poll_turn(cx);
        connection.tell();
        polled
    }
}

impl<P: Protocol, T: Transport> Connection<P, T>
where
    P::Notification: Clone,
{
    /// Until there is nothing to do, or the others should have their turn.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), End>> {
        let asked = self.staged.len();
        let unused = self.take_asked(cx);
        // Who asked first is mostly not the only one: what the others ask in this round goes out in the same write.
        self.gathered = self.staged.len() > asked && !self.gathered;
        if self.gathered && !unused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.rung = 0;
        loop {
            self.ask();
            if unused && self.staged.is_empty() && self.driver.poll_written(cx) {
                let closed = ready!(self.driver.poll_close(cx));
                self.finish(End::Closed);
                return Poll::Ready(closed.map_err(|error| End::Io(Arc::new(error))));
            }
            if !self.pending.is_empty() {
                if let Some(event) = self.settle_known() {
                    self.on_event(event);
                }
            }
            match self.driver.poll_next_event(cx) {
                Poll::Ready(Ok(event)) => self.on_event(event),
                Poll::Ready(Err(error)) => {
                    let end = end_of(error);
                    self.finish(end.clone());
                    return Poll::Ready(Err(end));
                }
                Poll::Pending => break,
            }
            // Half a queue: a subscriber that empties its own whenever it can misses nothing.
            if self.rung > self.driver.backlog() / 2 {
                cx.waker().wake_by_ref();
                break;
            }
        }
        if self.driver.is_flushed() {
            for key in mem::take(&mut self.leaving) {
                self.settle(key, Ok(Answer::Leaving));
            }
        }
        Poll::Pending
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

    /// What was asked since the last turn; whether there is no handle any more.
    fn take_asked(&mut self, cx: &mut Context<'_>) -> bool {
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
        calls.unused
    }

    /// Hands to the machine what it has room for.
    fn ask(&mut self) {
        while let Some((key, ask)) = self.staged.pop_front() {
            let asked = match ask {
                Ask::Request(request) => self
                    .request(request)
                    .map(Some)
                    .map_err(|Rejected { value, reason }| Rejected { value: Ask::Request(value), reason }),
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
                Ok(Some(id)) => self.pending.push_back((id, key)),
                Ok(None) => self.leaving.push(key),
                // Closed says what comes next.
                Err(Rejected { value, reason: Reason::Closed }) => {
                    self.staged.push_front((key, value));
                    break;
                }
                Err(Rejected { value, reason: Reason::TooManyPending | Reason::OutputFull }) if self.is_busy() => {
                    self.staged.push_front((key, value));
                    break;
                }
                Err(Rejected { reason, .. }) => self.settle(key, Err(Error::Rejected(reason))),
            }
        }
    }

    /// There will be room, once what is on its way has been answered or written.
    fn is_busy(&self) -> bool {
        !self.pending.is_empty() || !self.driver.state().output().is_empty() || self.driver.state().is_gated()
    }

    fn request(&mut self, request: P::Request) -> std::result::Result<RequestId, Rejected<P::Request>> {
        match (self.driver.state_mut().request(request), &self.wanted) {
            (
                Err(Rejected { value, reason: Reason::NotAllowed(Mode::Entering | Mode::Notification) }),
                Some(subscription),
            ) if P::REENTERS => match self.driver.state_mut().ring(value, subscription.clone()) {
                Ok((id, enter)) => {
                    self.enter = Some(enter);
                    Ok(id)
                }
                Err(Rejected { value: (value, _), reason }) => Err(Rejected { value, reason }),
            },
            (asked, _) => asked,
        }
    }

    fn enter(&mut self, subscription: P::Subscription) -> std::result::Result<RequestId, Rejected<P::Subscription>> {
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
        let mut before = lock(&self.shared.rung);
        let told = (*before, rung);
        if matches!(told.1, Rung::Notification(_)) {
            *before += 1;
            self.rung += 1;
        }
        // The only error is that nobody listens.
        let _ = self.sender.try_broadcast(told);
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
        self.over = true;
        for event in self.driver.abandon() {
            self.on_event(event);
        }
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
        self.sender.close();
        self.shared.room.notify(usize::MAX);
    }
}

impl<P: Protocol, T: Transport> Drop for Connection<P, T>
where
    P::Notification: Clone,
{
    fn drop(&mut self) {
        if !self.over {
            self.finish(End::Abandoned);
            self.tell();
        }
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

/// What ended a connection. A stream that says that a timeout of its own expired has no caller here that could go on.
fn end_of<R>(error: Error<R>) -> End {
    match error {
        Error::Ended(end) | Error::Lost { end, .. } => end,
        _ => End::Io(Arc::new(std::io::ErrorKind::TimedOut.into())),
    }
}
