//! One connection for many tasks: handles that ask, subscribers that are rung, and the one task that drives it.

mod connection;
mod subscriber;

pub use connection::Connection;
pub use subscriber::{Rung, Subscriber};

use crate::{Driver, End, Error, Transport};
use event_listener::Event as Free;
use slab::Slab;
use sonnette::{Protocol, RequestId};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use subscriber::Feed;

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
    /// Each subscriber's queue holds as much as the driver would keep: as many notifications as events
    /// ([`set_backlog`](Self::set_backlog)), 1,024 by default, of so many octets at most
    /// ([`set_backlog_octets`](Self::set_backlog_octets)), by default as many as one answer may have. What happens then is
    /// the subscriber's choice: [`Handle::subscribe`]. Nobody waits any more for what was started before.
    pub fn share(self) -> (Handle<P>, Connection<P, T>) {
        let shared = Arc::new(Shared {
            free: Free::new(),
            calls: Mutex::new(Calls {
                asked: VecDeque::new(),
                slots: Slab::new(),
                awaited: 0,
                waiting: 0,
                task: None,
                unused: false,
                end: None,
            }),
            feed: Arc::new(Feed::new(self.backlog())),
        });
        let handle = Handle { owners: Arc::new(Owners(Arc::clone(&shared))) };
        (handle, Connection::new(self, shared))
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
    free: Free,
    calls: Mutex<Calls<P>>,
    feed: Arc<Feed<P::Notification>>,
}

struct Calls<P: Protocol> {
    /// What the task has not seen, by the slot that waits for it.
    asked: VecDeque<(usize, Ask<P>)>,
    /// At most [`CALLS`] of them.
    slots: Slab<Slot<P>>,
    /// Slots for whose outcome somebody waits.
    awaited: usize,
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
            self.free.notify_additional(freed);
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
    /// [`Error::Rejected`], [`Error::Refused`], [`Error::Lost`]; [`Error::Ended`] if the connection had ended before;
    /// [`Error::BacklogFull`] if a subscriber has no room for what comes before the answer ([`subscribe`](Self::subscribe)):
    /// if that names an id it stays asked, and its outcome is discarded, else it was not asked.
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
    /// As [`call`](Self::call); [`Reason::NotAllowed`](sonnette::Reason::NotAllowed) where it was entered already.
    pub async fn enter(&self, subscription: P::Subscription) -> Result<RequestId, P> {
        match self.ask(Ask::Enter(subscription)).await? {
            Answer::Entered(id) => Ok(id),
            Answer::Reply(_) | Answer::Leaving => Err(self.ended()),
        }
    }

    /// Leaves notification mode, for all; returns once that is written. Without a mode to leave it does nothing.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::BacklogFull`] if it cannot be written before more is read, and a subscriber has no room for
    /// that. The wish to leave stays.
    pub async fn leave(&self) -> Result<(), P> {
        self.ask(Ask::Leave).await.map(drop)
    }

    /// Subscribes to the notifications from here on, and misses none: while its queue is full ([`Driver::share`]), nothing
    /// more is read from the server, for anybody. Take what comes, or drop it. It enters no mode.
    ///
    /// While a call of any handle waits for its answer, reading goes on until the queue has as many octets as it may, since
    /// the task that calls may be the one that takes. Then those calls, and new ones, fail with [`Error::BacklogFull`]. No
    /// deadline passes while nothing is read.
    #[must_use]
    pub fn subscribe(&self) -> Subscriber<P::Notification> {
        Subscriber::new(&self.shared().feed, false)
    }

    /// Subscribes to the notifications from here on, and slows nobody down: where its queue is full, the oldest are missed,
    /// and it is told how many ([`Rung::Missed`]).
    ///
    /// The connection and its subscribers take turns, and how long these are is the executor's to say: on a busy one even a
    /// subscriber that does nothing but take may miss some.
    #[must_use]
    pub fn subscribe_lossy(&self) -> Subscriber<P::Notification> {
        Subscriber::new(&self.shared().feed, true)
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
            let freed = shared.free.listen();
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
                    calls.awaited += 1;
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
                self.awaited -= 1;
                0
            }
            Some(Slot::GivenUp) => {
                self.slots.remove(key);
                1
            }
            Some(Slot::Done(_)) | None => 0,
        }
    }

    /// Slots whose outcome is still to come.
    fn waiting_keys(&self) -> Vec<usize> {
        self.slots.iter().filter(|(_, slot)| matches!(slot, Slot::Waiting(_))).map(|(key, _)| key).collect()
    }

    /// Whether that frees the slot.
    fn give_up(&mut self, key: usize) -> bool {
        match self.slots.get_mut(key) {
            Some(slot @ Slot::Waiting(_)) => {
                *slot = Slot::GivenUp;
                self.awaited -= 1;
                false
            }
            _ => self.slots.try_remove(key).is_some(),
        }
    }
}

/// What ended a connection. A stream that says that a timeout of its own expired has no caller here that could go on.
fn end_of<R>(error: Error<R>) -> End {
    match error {
        Error::Ended(end) | Error::Lost { end, .. } => end,
        _ => End::Io(Arc::new(std::io::ErrorKind::TimedOut.into())),
    }
}
