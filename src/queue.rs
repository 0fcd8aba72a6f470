//! What has been asked and not answered.

use alloc::collections::VecDeque;
use core::{fmt, iter, mem, time::Duration};

/// Names one request or one change of mode of a connection. Ids ascend in the order asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl RequestId {
    pub(crate) const FIRST: Self = RequestId(1);

    /// At a billion requests a second the ids last for five hundred years.
    pub(crate) const fn next(self) -> Self {
        RequestId(self.0.wrapping_add(1))
    }

    /// The number behind it, for a protocol that puts it on the wire (an IMAP tag).
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The id with this number, for a protocol that reads it from the wire.
    #[must_use]
    pub const fn from_wire(number: u64) -> Self {
        RequestId(number)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is outstanding, ids ascending; `S` is the protocol's Subscription, `N` its Note.
///
/// Whatever is asked of it takes no longer where more is outstanding, but for a binary search by an id.
#[derive(Clone)]
pub(crate) struct Queue<S, N> {
    /// An entry that is answered before others that were asked earlier leaves its slot behind, so that none has to move.
    /// The first slot and the last one hold entries.
    slots: VecDeque<Entry<S, N>>,
    /// How many slots are left behind.
    answered: usize,
    next_id: RequestId,
    /// Void leaves, so many, then the enters and leaves that are not confirmed, which alternate.
    changes: VecDeque<RequestId>,
    void: usize,
    /// There is one at a time.
    has_probe: bool,
    /// How many answers may end the mode.
    ending: usize,
}

/// An entry of the queue.
#[derive(Clone)]
pub(crate) struct Entry<S, N> {
    pub(crate) id: RequestId,
    pub(crate) what: What<S, N>,
    /// How many octets had been received when it was asked. A frame that ended at or before that point cannot concern
    /// it.
    pub(crate) received_before: u64,
    /// Where its octets begin in the output. Once that is written, the server may have acted on it.
    pub(crate) starts_at: u64,
    /// When its answer is overdue.
    pub(crate) due: Option<Duration>,
    /// Its answer may end the mode.
    pub(crate) may_end_mode: bool,
}

impl<S, N> Entry<S, N> {
    /// How many slots are left behind in a row, if this is the first or the last of them.
    #[inline(always)]
    fn run(&self) -> Option<usize> {
        match self.what {
            What::Answered { run } => usize::try_from(run).ok(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What<S, N> {
    Greeting,
    Request(N),
    /// A question of the machine's own.
    Probe(N),
    Enter(S, N),
    Leave {
        note: N,
        void: bool,
    },
    /// Nothing any more: so many slots in a row are left behind, of which this is the first or the last. (More than a `u32`
    /// counts would take 200 GiB.)
    Answered {
        run: u32,
    },
}

/// The confirmed enter of the mode the server is in, as read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inside<S, N> {
    pub(crate) id: RequestId,
    pub(crate) subscription: S,
    pub(crate) note: N,
}

/// Where to go back to if what is asked is not to be asked after all.
pub(crate) struct Mark {
    slots: usize,
    next_id: RequestId,
}

/// So few slots left behind are not worth the moving of the others.
const FEW: usize = 16;

/// A leave, a request and an enter: thousands of clients that are idle at most other times ask these at once, each in memory
/// for so many.
const RING: usize = 3;

impl<S, N> Queue<S, N> {
    pub(crate) const fn new() -> Self {
        Queue {
            slots: VecDeque::new(),
            answered: 0,
            next_id: RequestId::FIRST,
            changes: VecDeque::new(),
            void: 0,
            has_probe: false,
            ending: 0,
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.answered
    }

    /// The id of what is asked next.
    #[inline]
    pub(crate) fn next_id(&self) -> RequestId {
        self.next_id
    }

    #[inline(always)]
    pub(crate) fn push(
        &mut self,
        what: What<S, N>,
        received_before: u64,
        starts_at: u64,
        may_end_mode: bool,
    ) -> RequestId {
        let id = self.next_id;
        self.next_id = id.next();
        match &what {
            What::Enter(..) | What::Leave { .. } => {
                if self.changes.capacity() == 0 {
                    self.changes.reserve_exact(RING - 1);
                }
                self.changes.push_back(id);
            }
            What::Probe(_) => self.has_probe = true,
            What::Greeting | What::Request(_) | What::Answered { .. } => {}
        }
        self.ending += usize::from(may_end_mode);
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(RING);
        }
        self.slots.push_back(Entry { id, what, received_before, starts_at, due: None, may_end_mode });
        id
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { slots: self.slots.len(), next_id: self.next_id }
    }

    /// Takes back what was asked since the `mark`, of which nothing has been answered.
    pub(crate) fn back_to(&mut self, mark: Mark) {
        while self.slots.len() > mark.slots {
            let Some(entry) = self.slots.pop_back() else { break };
            self.forget(&entry);
        }
        self.next_id = mark.next_id;
    }

    pub(crate) fn pop_front(&mut self) -> Option<Entry<S, N>> {
        let entry = self.slots.pop_front()?;
        self.forget(&entry);
        self.drop_answered();
        Some(entry)
    }

    /// Takes out the first one, which is a request.
    #[inline(always)]
    pub(crate) fn pop_request(&mut self) {
        if let Some(entry) = self.slots.pop_front() {
            self.ending -= usize::from(entry.may_end_mode);
            self.drop_answered();
        }
    }

    /// Drops the slots left behind that are now the first.
    #[inline(always)]
    fn drop_answered(&mut self) {
        if self.answered > 0 {
            if let Some(run) = self.slots.front().and_then(Entry::run) {
                self.answered -= run;
                self.slots.drain(..run);
            }
        }
    }

    /// Takes out the entry at a place. Other places hold no longer.
    pub(crate) fn remove(&mut self, at: usize) -> Option<Entry<S, N>> {
        if at == 0 {
            return self.pop_front();
        }
        if at + 1 == self.slots.len() {
            let entry = self.slots.pop_back()?;
            if let Some(run) = self.slots.back().and_then(Entry::run) {
                self.answered -= run;
                self.slots.truncate(self.slots.len() - run);
            }
            self.forget(&entry);
            return Some(entry);
        }
        let slot = self.slots.get_mut(at)?;
        let what = mem::replace(&mut slot.what, What::Answered { run: 1 });
        let entry = Entry { what, ..*slot };
        self.forget(&entry);
        self.leave_behind(at);
        Some(entry)
    }

    /// Joins the slot at `at`, which is left behind, with those left behind around it. More than half are not kept.
    fn leave_behind(&mut self, at: usize) {
        self.answered += 1;
        if self.answered > FEW && self.answered > self.slots.len() / 2 {
            self.slots.retain(|slot| !matches!(slot.what, What::Answered { .. }));
            self.answered = 0;
            return;
        }
        let run_at = |at| self.slots.get(at).and_then(Entry::run).unwrap_or(0);
        let (first, last) = (at - run_at(at - 1), at + run_at(at + 1));
        let run = u32::try_from(last - first + 1).unwrap_or(u32::MAX);
        for end in [first, last] {
            if let Some(slot) = self.slots.get_mut(end) {
                slot.what = What::Answered { run };
            }
        }
    }

    fn forget(&mut self, entry: &Entry<S, N>) {
        self.ending -= usize::from(entry.may_end_mode);
        match entry.what {
            What::Enter(..) | What::Leave { .. } => {
                // Nearly always it is the first.
                if let Ok(at) = self.changes.binary_search(&entry.id) {
                    self.changes.remove(at);
                    self.void -= usize::from(at < self.void);
                }
            }
            What::Probe(_) => self.has_probe = false,
            What::Greeting | What::Request(_) | What::Answered { .. } => {}
        }
    }

    /// The mode that the leave at a place was to end has ended by itself: its answer is still to come. It is the first
    /// change.
    pub(crate) fn make_void(&mut self, at: usize) {
        if let Some(Entry { what: What::Leave { void: void @ false, .. }, .. }) = self.slots.get_mut(at) {
            *void = true;
            self.void += 1;
        }
    }

    /// The first one outstanding.
    #[inline]
    pub(crate) fn front(&self) -> Option<&Entry<S, N>> {
        self.slots.front()
    }

    /// The last one outstanding.
    #[inline]
    pub(crate) fn back(&self) -> Option<&Entry<S, N>> {
        self.slots.back()
    }

    /// The one behind the first.
    pub(crate) fn second(&self) -> Option<&Entry<S, N>> {
        self.iter().nth(1)
    }

    /// The entry at a place.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&Entry<S, N>> {
        self.slots.get(at).filter(|entry| !matches!(entry.what, What::Answered { .. }))
    }

    /// The place of the entry with this id.
    #[inline]
    pub(crate) fn find(&self, id: RequestId) -> Option<usize> {
        let at = match self.slots.front() {
            Some(first) if first.id == id => 0,
            _ => self.slots.binary_search_by_key(&id, |entry| entry.id).ok()?,
        };
        self.get(at).map(|_| at)
    }

    /// All entries.
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<S, N>> {
        self.before(self.slots.len())
    }

    /// The entries before a place.
    #[inline]
    pub(crate) fn before(&self, end: usize) -> impl Iterator<Item = &Entry<S, N>> {
        let mut at = 0;
        iter::from_fn(move || {
            while at < end {
                let entry = self.slots.get(at)?;
                match entry.run() {
                    Some(run) => at += run,
                    None => {
                        at += 1;
                        return Some(entry);
                    }
                }
            }
            None
        })
    }

    /// The entries from a place on.
    pub(crate) fn from(&self, begin: usize) -> impl Iterator<Item = &Entry<S, N>> {
        self.slots.iter().skip(begin).filter(|entry| !matches!(entry.what, What::Answered { .. }))
    }

    /// The place of the first that was asked when so many octets had been received, or of none.
    #[inline]
    pub(crate) fn asked_at(&self, received: u64) -> usize {
        match self.slots.back() {
            Some(last) if last.received_before >= received => {
                self.slots.partition_point(|entry| entry.received_before < received)
            }
            _ => self.slots.len(),
        }
    }

    /// The place of the first from this id on.
    pub(crate) fn place_of(&self, id: RequestId) -> usize {
        self.slots.partition_point(|entry| entry.id < id)
    }

    /// How many changes of mode are neither confirmed nor void.
    #[inline]
    pub(crate) fn changes(&self) -> usize {
        self.changes.len() - self.void
    }

    /// The first of them.
    pub(crate) fn first_change(&self) -> Option<RequestId> {
        self.changes.get(self.void).copied()
    }

    /// The last of them.
    pub(crate) fn last_change(&self) -> Option<RequestId> {
        self.changes.back().copied().filter(|_| self.changes() > 0)
    }

    /// The first void leave.
    pub(crate) fn first_void(&self) -> Option<RequestId> {
        self.changes.front().copied().filter(|_| self.void > 0)
    }

    /// Whether the mode may end by the answer to one of them.
    #[inline]
    pub(crate) fn may_end_mode(&self) -> bool {
        self.ending > 0
    }

    pub(crate) fn has_probe(&self) -> bool {
        self.has_probe
    }

    /// Fixes when the answers to those before a place are overdue that were asked since it was done last.
    pub(crate) fn fix_due(&mut self, end: usize, due: Duration) {
        let new = self.slots.range_mut(..end.min(self.slots.len())).rev().take_while(|entry| entry.due.is_none());
        new.for_each(|entry| entry.due = Some(due));
    }

    pub(crate) fn forget_due(&mut self) {
        self.slots.iter_mut().for_each(|entry| entry.due = None);
    }

    /// Gives back the memory of an empty queue.
    pub(crate) fn shrink_to_fit(&mut self) {
        if self.slots.is_empty() {
            (self.slots, self.changes) = Default::default();
        }
    }
}
