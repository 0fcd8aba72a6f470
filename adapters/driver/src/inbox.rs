use crate::driver::outcome_of;
use sonnette::{Event, Protocol, RequestId};
use std::collections::{BTreeMap, VecDeque};

/// Events kept for the caller while it waits for another one. As many as a machine has pending by default: a caller that
/// asks as much as it may, and then waits for the last answer, finds room for all the others.
const EVENTS: usize = 1_024;

/// What came while the caller waited for something else, in the order in which it came. What it takes to find an event of
/// one kind does not depend on how many of another are kept.
pub(crate) struct Inbox<P: Protocol> {
    /// Nothing of it is there while nothing is kept, as at most times.
    stored: Option<Box<Stored<P>>>,
    pub(crate) limits: Backlog,
}

struct Stored<P: Protocol> {
    notifications: VecDeque<(u64, Kept<P::Notification>)>,
    /// All other events.
    others: BTreeMap<u64, Kept<Event<P>>>,
    /// Which of those is the outcome of what.
    outcomes: BTreeMap<RequestId, u64>,
    /// Which of those are `Left`.
    left: Vec<u64>,
    /// How many events have been kept so far: each is known by its number.
    count: u64,
    octets: u64,
}

struct Kept<T> {
    it: T,
    octets: u64,
}

/// How much is kept for somebody who does not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) events: usize,
    /// Octets received, and those of the events themselves.
    pub(crate) octets: u64,
}

impl Backlog {
    /// By default as much as one answer may have: what a caller allows a server to send for one event it allows for those
    /// that it does not take.
    pub(crate) fn new(answer: usize) -> Self {
        let mut backlog = Backlog { events: EVENTS, octets: 0 };
        backlog.set_octets(answer);
        backlog
    }

    /// What keeps nothing would be full for ever.
    pub(crate) fn set_octets(&mut self, octets: usize) {
        self.octets = octets.max(1) as u64;
    }
}

impl<P: Protocol> Inbox<P> {
    pub(crate) const fn new(limits: Backlog) -> Self {
        Inbox { stored: None, limits }
    }

    pub(crate) fn len(&self) -> usize {
        self.stored.as_ref().map_or(0, |stored| stored.notifications.len() + stored.others.len())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.stored.is_none() || self.len() == 0
    }

    /// Whether nothing more is to be kept, `spare` events aside that have places of their own.
    pub(crate) fn is_full(&self, spare: usize) -> bool {
        let octets = self.stored.as_ref().map_or(0, |stored| stored.octets);
        self.len() >= self.limits.events.saturating_add(spare) || octets >= self.limits.octets
    }

    /// Keeps an event that was received as so many octets.
    pub(crate) fn push(&mut self, event: Event<P>, received: u64) {
        let new = || {
            Box::new(Stored {
                notifications: VecDeque::new(),
                others: BTreeMap::new(),
                outcomes: BTreeMap::new(),
                left: Vec::new(),
                count: 0,
                octets: 0,
            })
        };
        self.stored.get_or_insert_with(new).push(event, received);
    }

    /// The oldest event.
    pub(crate) fn pop(&mut self) -> Option<Event<P>> {
        self.stored.as_mut()?.pop()
    }

    pub(crate) fn pop_notification(&mut self) -> Option<P::Notification> {
        self.stored.as_mut()?.pop_notification()
    }

    /// The outcome of this request or enter.
    pub(crate) fn outcome(&self, id: RequestId) -> Option<&Event<P>> {
        let stored = self.stored.as_ref()?;
        stored.others.get(stored.outcomes.get(&id)?).map(|kept| &kept.it)
    }

    pub(crate) fn take_outcome(&mut self, id: RequestId) -> Option<Event<P>> {
        let stored = self.stored.as_mut()?;
        let number = *stored.outcomes.get(&id)?;
        stored.take(number)
    }

    /// The first end of the mode that was a refusal.
    pub(crate) fn take_refused(&mut self) -> Option<P::Refusal> {
        let stored = self.stored.as_mut()?;
        let is_refused = |number: &&u64| {
            let event = stored.others.get(number).map(|kept| &kept.it);
            matches!(event, Some(Event::Left { refusal: Some(_), .. }))
        };
        let number = *stored.left.iter().find(is_refused)?;
        match stored.take(number) {
            Some(Event::Left { refusal, .. }) => refusal,
            _ => None,
        }
    }

    /// Forgets each end of the mode.
    pub(crate) fn forget_left(&mut self) {
        let Some(stored) = &mut self.stored else { return };
        while let Some(&number) = stored.left.first() {
            stored.take(number);
        }
    }

    /// Gives back the memory of what was kept, if nothing is.
    pub(crate) fn shrink_to_fit(&mut self) {
        if self.is_empty() {
            self.stored = None;
        }
    }
}

impl<P: Protocol> Stored<P> {
    fn push(&mut self, event: Event<P>, received: u64) {
        let number = self.count;
        self.count += 1;
        let octets = received.saturating_add(size_of::<Event<P>>() as u64);
        self.octets = self.octets.saturating_add(octets);
        if let Some(id) = outcome_of(&event) {
            self.outcomes.insert(id, number);
        }
        match event {
            Event::Notification(it) => self.notifications.push_back((number, Kept { it, octets })),
            it => {
                if let Event::Left { .. } = it {
                    self.left.push(number);
                }
                self.others.insert(number, Kept { it, octets });
            }
        }
    }

    fn pop(&mut self) -> Option<Event<P>> {
        match (self.notifications.front(), self.others.first_key_value()) {
            (Some((notification, _)), Some((other, _))) if notification > other => self.take(*other),
            (None, Some((other, _))) => self.take(*other),
            _ => self.pop_notification().map(Event::Notification),
        }
    }

    fn pop_notification(&mut self) -> Option<P::Notification> {
        let (_, Kept { it, octets }) = self.notifications.pop_front()?;
        self.octets -= octets;
        Some(it)
    }

    fn take(&mut self, number: u64) -> Option<Event<P>> {
        let Kept { it, octets } = self.others.remove(&number)?;
        self.octets -= octets;
        if let Event::Left { .. } = it {
            self.left.retain(|left| *left != number);
        }
        if let Some(id) = outcome_of(&it) {
            self.outcomes.remove(&id);
        }
        Some(it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sonnette::board::{Board, Notification, Refusal, Reply};

    fn inbox(events: usize, octets: u64) -> Inbox<Board> {
        Inbox::new(Backlog { events, octets })
    }

    fn reply(id: u64) -> Event<Board> {
        Event::Reply { id: RequestId::from_wire(id), reply: Reply::Random(0) }
    }

    fn left(id: u64, refusal: Option<Refusal>) -> Event<Board> {
        Event::Left { id: RequestId::from_wire(id), asked: false, refusal }
    }

    fn rung() -> Event<Board> {
        Event::Notification(Notification::Random)
    }

    fn assert_nothing_is_left(inbox: &Inbox<Board>) {
        let stored = inbox.stored.as_ref().unwrap();
        assert_eq!((stored.octets, stored.outcomes.len(), stored.left.len()), (0, 0, 0));
        assert!(inbox.is_empty());
    }

    #[test]
    fn events_come_out_in_the_order_in_which_they_went_in() {
        let mut inbox = inbox(10, 10_000);
        let events = [rung(), reply(2), rung(), left(1, None), reply(3)];
        events.iter().for_each(|event| inbox.push(event.clone(), 15));
        assert_eq!(std::iter::from_fn(|| inbox.pop()).collect::<Vec<_>>(), events);
        assert_nothing_is_left(&inbox);
    }

    #[test]
    fn each_kind_is_found_past_the_others() {
        let mut inbox = inbox(10, 10_000);
        let refused = Refusal::WrongKind("no".into());
        for event in [reply(2), left(1, None), reply(4), left(3, Some(refused.clone())), rung(), reply(5)] {
            inbox.push(event, 1);
        }
        assert_eq!(inbox.pop_notification(), Some(Notification::Random));
        assert_eq!(inbox.outcome(RequestId::from_wire(4)), Some(&reply(4)));
        assert_eq!(inbox.take_outcome(RequestId::from_wire(4)), Some(reply(4)));
        assert_eq!(inbox.take_outcome(RequestId::from_wire(4)), None);
        assert_eq!(inbox.take_refused(), Some(refused));
        assert_eq!(inbox.take_refused(), None);
        inbox.forget_left();
        assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(reply(2)), Some(reply(5)), None));
        assert_nothing_is_left(&inbox);
    }

    #[test]
    fn it_is_full_by_events_and_by_octets() {
        let mut by_events = inbox(2, 10_000);
        by_events.push(rung(), 15);
        assert!(!by_events.is_full(0));
        by_events.push(reply(1), 15);
        assert!(by_events.is_full(0) && !by_events.is_full(1));

        let own = size_of::<Event<Board>>() as u64;
        let mut by_octets = inbox(usize::MAX, 100 + 2 * own);
        by_octets.push(rung(), 60);
        assert!(!by_octets.is_full(0));
        by_octets.push(rung(), 40);
        assert!(by_octets.is_full(0) && by_octets.is_full(1));
        by_octets.pop();
        assert!(!by_octets.is_full(0));
    }
}
