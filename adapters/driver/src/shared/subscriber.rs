//! What the subscribers of a shared connection are told, and what they have not taken.

use super::lock;
use crate::inbox::Backlog;
use futures_core::Stream;
use slab::Slab;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// What a [`Subscriber`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rung<N> {
    /// The server rang.
    Notification(N),
    /// The subscriber was too slow, and has missed so many notifications, and what was told of the mode between them: only
    /// one that asked for that ([`Handle::subscribe_lossy`](crate::Handle::subscribe_lossy)).
    Missed(u64),
    /// The mode has ended, and nothing rings until it is entered again.
    Left {
        /// By [`Handle::leave`](crate::Handle::leave). Else the server ended it and did not let it be entered again, or a
        /// request has ended it ([`Protocol::REENTERS`](sonnette::Protocol::REENTERS)).
        asked: bool,
    },
}

/// How much room the subscribers have that miss nothing: as much as the slowest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    Some,
    /// As many notifications wait as are kept at ordinary times. More are kept while a call waits for its answer.
    Full,
    /// So many octets wait that nothing more is kept.
    Exhausted,
}

/// What stays allocated for the next burst: as many notifications as are kept by default.
const KEEP: usize = 1_024;

/// The queues of all subscribers. Nobody waits for anything while it is locked.
pub(super) struct Feed<N> {
    queues: Mutex<Queues<N>>,
}

struct Queues<N> {
    limits: Backlog,
    all: Slab<Queue<N>>,
    /// Where the connection waits for room, and in which queue.
    stopped: Option<(usize, Waker)>,
    ended: bool,
}

struct Queue<N> {
    /// Overflows, and tells that it did. Else the connection is stopped.
    lossy: bool,
    waiting: VecDeque<(Rung<N>, u64)>,
    octets: u64,
    /// What overflowed, to be told first: so many notifications, and then that the mode has ended.
    missed: u64,
    left: Option<bool>,
    task: Option<Waker>,
}

impl<N> Queue<N> {
    fn room(&self, limits: Backlog) -> Room {
        if self.lossy {
            Room::Some
        } else if self.octets >= limits.octets {
            Room::Exhausted
        } else if self.waiting.len() >= limits.events {
            Room::Full
        } else {
            Room::Some
        }
    }

    /// Whether it is empty enough for the connection to go on: it would be stopped again at once by each notification else.
    fn is_half_empty(&self, limits: Backlog) -> bool {
        self.waiting.len() <= limits.events / 2 && self.octets <= limits.octets / 2
    }

    fn push(&mut self, rung: Rung<N>, octets: u64, limits: Backlog) {
        match (self.waiting.back_mut(), &rung) {
            // A subscriber that takes nothing must not grow with each mode that is entered and left.
            (Some((last @ Rung::Left { .. }, _)), Rung::Left { .. }) => *last = rung,
            _ => {
                self.waiting.push_back((rung, octets));
                self.octets = self.octets.saturating_add(octets);
            }
        }
        while self.lossy && self.overflows(limits) && self.miss() {}
    }

    /// One that is larger than all that is kept is kept alone.
    fn overflows(&self, limits: Backlog) -> bool {
        self.waiting.len() > limits.events || self.octets > limits.octets && self.waiting.len() > 1
    }

    /// Misses the oldest.
    fn miss(&mut self) -> bool {
        match self.take_waiting() {
            Some(Rung::Left { asked }) => self.left = Some(asked),
            Some(Rung::Notification(_) | Rung::Missed(_)) => (self.missed, self.left) = (self.missed + 1, None),
            None => return false,
        }
        true
    }

    fn take_waiting(&mut self) -> Option<Rung<N>> {
        let (rung, octets) = self.waiting.pop_front()?;
        self.octets -= octets;
        Some(rung)
    }

    fn take(&mut self) -> Option<Rung<N>> {
        if self.missed > 0 {
            return Some(Rung::Missed(std::mem::take(&mut self.missed)));
        }
        match self.left.take() {
            Some(asked) => Some(Rung::Left { asked }),
            None => self.take_waiting(),
        }
    }
}

impl<N> Feed<N> {
    pub(super) fn new(limits: Backlog) -> Self {
        let queues = Queues { limits, all: Slab::new(), stopped: None, ended: false };
        Feed { queues: Mutex::new(queues) }
    }

    /// Tells everybody what was received as so many octets; how much room there is then. Who must be woken for it is put to
    /// `wakers`.
    pub(super) fn tell(&self, rung: Rung<N>, received: u64, wakers: &mut Vec<Waker>) -> Room
    where
        N: Clone,
    {
        let mut queues = lock(&self.queues);
        let Queues { limits, all, .. } = &mut *queues;
        let octets = received.saturating_add(size_of::<Rung<N>>() as u64);
        let (mut rung, mut left, mut room) = (Some(rung), all.len(), Room::Some);
        for (_, queue) in all {
            left -= 1;
            // The last one has it, the others have copies.
            let told = if left == 0 { rung.take() } else { rung.clone() };
            if let Some(told) = told {
                queue.push(told, octets, *limits);
            }
            wakers.extend(queue.task.take());
            room = room.max(queue.room(*limits));
        }
        room
    }

    /// How much room there is; if there is not enough for `most`, the connection is woken once there is.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>, most: Room) -> Room {
        let mut queues = lock(&self.queues);
        let limits = queues.limits;
        let slowest = queues.all.iter().map(|(key, queue)| (queue.room(limits), key)).max();
        let (room, key) = slowest.unwrap_or((Room::Some, 0));
        queues.stopped = (room > most).then(|| (key, cx.waker().clone()));
        room
    }

    /// Nothing more will be told.
    pub(super) fn end(&self, wakers: &mut Vec<Waker>) {
        let mut queues = lock(&self.queues);
        queues.ended = true;
        wakers.extend(queues.all.iter_mut().filter_map(|(_, queue)| queue.task.take()));
    }
}

impl<N> Queues<N> {
    /// What wakes the connection, if it waits for this queue and may go on.
    fn go_on(&mut self, key: usize) -> Option<Waker> {
        let limits = self.limits;
        let waits = self.stopped.as_ref().is_some_and(|(stopped, _)| *stopped == key);
        let has_room = self.all.get(key).is_none_or(|queue| queue.is_half_empty(limits));
        self.stopped.take_if(|_| waits && has_room).map(|(_, task)| task)
    }
}

/// The notifications of a connection that many share, from [`Handle::subscribe`](crate::Handle::subscribe) or
/// [`Handle::subscribe_lossy`](crate::Handle::subscribe_lossy) on. It ends with the connection;
/// [`Handle::end`](crate::Handle::end) tells how.
pub struct Subscriber<N> {
    feed: Arc<Feed<N>>,
    key: usize,
}

impl<N> Subscriber<N> {
    pub(super) fn new(feed: &Arc<Feed<N>>, lossy: bool) -> Self {
        let queue = Queue { lossy, waiting: VecDeque::new(), octets: 0, missed: 0, left: None, task: None };
        let key = lock(&feed.queues).all.insert(queue);
        Subscriber { feed: Arc::clone(feed), key }
    }

    /// Waits for what comes next; `None` once the connection has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Rung<N>> {
        poll_fn(|cx| self.poll_rung(cx)).await
    }

    fn poll_rung(&mut self, cx: &mut Context<'_>) -> Poll<Option<Rung<N>>> {
        let mut queues = lock(&self.feed.queues);
        let ended = queues.ended;
        let Some(queue) = queues.all.get_mut(self.key) else { return Poll::Ready(None) };
        match queue.take() {
            Some(rung) => {
                let connection = queues.go_on(self.key);
                drop(queues);
                if let Some(connection) = connection {
                    connection.wake();
                }
                Poll::Ready(Some(rung))
            }
            None if ended => Poll::Ready(None),
            None => {
                // The trace of a burst is given back.
                if queue.waiting.capacity() > KEEP {
                    queue.waiting = VecDeque::new();
                }
                match &mut queue.task {
                    Some(task) => task.clone_from(cx.waker()),
                    None => queue.task = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl<N> Drop for Subscriber<N> {
    fn drop(&mut self) {
        let (queue, connection) = {
            let mut queues = lock(&self.feed.queues);
            (queues.all.try_remove(self.key), queues.go_on(self.key))
        };
        // What it has not taken is the caller's own type, and is dropped outside the lock.
        drop(queue);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

impl<N> Stream for Subscriber<N> {
    type Item = Rung<N>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_rung(cx)
    }
}

/// Nothing in it is pinned.
impl<N> Unpin for Subscriber<N> {}

impl<N> fmt::Debug for Subscriber<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues = lock(&self.feed.queues);
        let waiting = queues.all.get(self.key).map_or(0, |queue| queue.waiting.len());
        f.debug_struct("Subscriber").field("waiting", &waiting).finish_non_exhaustive()
    }
}
