use crate::inbox::{Backlog, Inbox};
use crate::{AsyncHandler, End, Error, Handler, Interrupt, Notifications, Transport};
use sonnette::{ClientState, Event, Mode, Protocol, Reason, Rejected, RequestId, Timeouts};
use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Octets read at once. Less costs a burst more system calls; a socket rarely holds more.
const READ: usize = 64 * 1024;

/// Reads in a row that found something, at most, before other tasks have their turn: not every runtime sees to that. What so
/// many hold takes a millisecond to be told, and to give way costs far less.
const TURN: u32 = 4;

/// So long after a deadline was seen to have passed it is judged, though the stream may hold more that was sent in time.
/// What the system keeps of a stream, some megabytes, is read in less, where the caller is quick with what it is told; a
/// server that never stops must not put it off.
const GRACE: Duration = Duration::from_millis(10);

thread_local! {
    /// Shared by all clients of a thread, so that an idle one holds no memory to read into.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A [`ClientState`], the stream it speaks over, and the events that came while the caller waited for another one.
///
/// A method that waits is an `async fn`, for whatever executor polls it; over a transport that is never `Pending` it is
/// ready at the first poll, which is how the blocking client calls it. Each is cancel safe: a future that is dropped, or
/// ends in [`Error::TimedOut`] and its like, has lost nothing. The request it asked stays asked; wait for its outcome
/// with [`outcome`](Self::outcome), or give it up by asking another one. The error has its id, which goes with a future
/// that is dropped: what is to be dropped and taken up again is asked by [`start`](Self::start).
pub struct Driver<P: Protocol, T> {
    state: ClientState<P>,
    transport: T,
    kept: Inbox<P>,
    /// What had been decoded before the events that are counted.
    decoded_before: u64,
    /// The request that `call` waits for, or waited for when it was given up.
    called: Option<RequestId>,
    /// Requests and enters whose outcome nobody wants any more.
    given_up: BTreeSet<RequestId>,
    /// The enter that `enter` waits for, or waited for when it was given up, until its outcome is taken.
    entering: Option<(RequestId, P::Subscription)>,
    /// What the mode was last entered with.
    subscription: Option<P::Subscription>,
    /// The mode was left; whether on request.
    left: Option<bool>,
    /// The mode is being refreshed: the enter of the machine's own, and the one that the caller knows.
    refreshing: Option<(RequestId, RequestId)>,
    /// It was: the caller knows the mode of the first enter by the second.
    refreshed: Option<(RequestId, RequestId)>,
    unflushed: bool,
    /// Reads that are left until other tasks have their turn.
    turn: u32,
    /// When the deadline that comes next was seen to have passed.
    overdue_since: Option<Duration>,
    /// When nothing was found to read after a write had failed.
    failed_since: Option<Duration>,
    failed: Option<Arc<io::Error>>,
    end: Option<End>,
    /// The caller has been told `Closed`.
    told: bool,
}

type Result<T, P> = std::result::Result<T, Error<<P as Protocol>::Refusal>>;

impl<P: Protocol, T: Transport> Driver<P, T> {
    /// Drives `state` over `transport`.
    #[must_use]
    pub fn new(state: ClientState<P>, transport: T) -> Self {
        let backlog = Backlog::new(state.limits().answer);
        Driver {
            state,
            transport,
            kept: Inbox::new(backlog),
            decoded_before: 0,
            called: None,
            given_up: BTreeSet::new(),
            entering: None,
            subscription: None,
            left: None,
            refreshing: None,
            refreshed: None,
            unflushed: false,
            turn: TURN,
            overdue_since: None,
            failed_since: None,
            failed: None,
            end: None,
            told: false,
        }
    }

    /// Keeps at most so many events, one at least, while the caller waits for another one; 1,024 by default.
    pub fn set_backlog(&mut self, events: usize) {
        self.kept.limits.events = events.max(1);
    }

    /// Keeps no more events, while the caller waits for another one, once they are of so many octets: those that were
    /// received, and those of the events themselves. One event at least is kept. By default as many as one answer may have
    /// ([`Limits::answer`](sonnette::Limits::answer)).
    pub fn set_backlog_octets(&mut self, octets: usize) {
        self.kept.limits.set_octets(octets);
    }

    /// Sets what is overdue when, see [`Timeouts`]; by default what the protocol says. A deadline that passes while no
    /// method waits is seen to by the next one that does. That the mode is refreshed is not told: it keeps the id it
    /// was entered with.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.state.set_timeouts(timeouts);
    }

    /// The machine.
    #[must_use]
    pub fn state(&self) -> &ClientState<P> {
        &self.state
    }

    /// The stream.
    #[must_use]
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The stream, to set its options.
    #[must_use]
    pub fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The machine, the stream and the events nobody has taken.
    #[must_use]
    pub fn into_parts(mut self) -> (ClientState<P>, T, VecDeque<Event<P>>) {
        let kept = std::iter::from_fn(|| self.kept.pop()).collect();
        (self.state, self.transport, kept)
    }

    /// Asks without waiting; the request is written when the caller next waits for anything.
    ///
    /// # Errors
    /// The request comes back, and nothing was sent.
    pub fn start(&mut self, request: P::Request) -> std::result::Result<RequestId, Rejected<P::Request>> {
        self.state.request(request)
    }

    /// Waits for the next event of any kind, [`Event::Closed`] included.
    ///
    /// # Cancel safety
    /// Yes: an event is taken when it is returned.
    ///
    /// # Errors
    /// [`Error::Ended`] from then on.
    // Not an `async fn`: one layer less through which each event is moved.
    #[inline]
    pub fn next_event(&mut self) -> impl Future<Output = Result<Event<P>, P>> {
        poll_fn(|cx| self.poll_next_event(cx))
    }

    /// The poll form of [`next_event`](Self::next_event).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn poll_next_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event<P>, P>> {
        if let Some(event) = self.poll_known() {
            self.taken(&event);
            return Poll::Ready(Ok(event));
        }
        self.poll_kept_event(cx)
    }

    fn poll_kept_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event<P>, P>> {
        let event = match self.kept.pop() {
            Some(event) => Some(event),
            None => ready!(self.poll_event(cx))?,
        };
        match event {
            Some(event) => {
                self.taken(&event);
                Poll::Ready(Ok(event))
            }
            None if matches!(self.end, Some(End::Closed)) && !self.told => {
                self.told = true;
                Poll::Ready(Ok(Event::Closed))
            }
            None => Poll::Ready(Err(self.ended())),
        }
    }

    /// An event goes to the caller: what a call that was given up waited for can no longer be waited for.
    fn taken(&mut self, event: &Event<P>) {
        let id = outcome_of(event);
        if id.is_some() && id == self.called {
            self.called = None;
        }
        if id.is_some() && id == self.entering_id() {
            self.entering = None;
        }
    }

    fn entering_id(&self) -> Option<RequestId> {
        self.entering.as_ref().map(|(id, _)| *id)
    }

    /// Asks and waits for the answer. Other events that come meanwhile are kept.
    ///
    /// # Cancel safety
    /// Nothing is lost. The request stays asked once this was polled; its answer is discarded, since its id is gone with
    /// the future. What is to be dropped and taken up again is asked by [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Refused`], [`Error::Lost`], or one of those that name the id, with which
    /// [`outcome`](Self::outcome) takes the call up again.
    pub async fn call(&mut self, request: P::Request) -> Result<P::Reply, P> {
        let id = self.begin(request)?;
        self.outcome(id).await
    }

    /// As [`call`](Self::call), handing out the notifications that come meanwhile.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call). Notifications handed out are the caller's.
    ///
    /// # Errors
    /// As there.
    pub async fn call_with(
        &mut self,
        request: P::Request,
        mut notified: impl FnMut(P::Notification),
    ) -> Result<P::Reply, P> {
        let id = self.begin(request)?;
        self.hand_out(&mut notified);
        let outcome = poll_fn(|cx| self.poll_outcome(cx, id, Some(&mut notified))).await?;
        self.taken(&outcome);
        self.reply(id, outcome)
    }

    /// Hands out the notifications that are kept.
    fn hand_out(&mut self, notified: impl FnMut(P::Notification)) {
        std::iter::from_fn(|| self.kept.pop_notification()).for_each(notified);
    }

    /// Waits for the answer to a request that was started, or whose call was given up.
    ///
    /// # Cancel safety
    /// Yes: it can be called again.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::UnknownRequest`] if it was answered already, or is an enter.
    pub async fn outcome(&mut self, id: RequestId) -> Result<P::Reply, P> {
        if self.entering_id() == Some(id) {
            return Err(Error::UnknownRequest(id));
        }
        let outcome = poll_fn(|cx| self.poll_outcome(cx, id, None)).await?;
        self.taken(&outcome);
        self.reply(id, outcome)
    }

    /// Asks, giving up on the call before it if that was not finished.
    fn begin(&mut self, request: P::Request) -> Result<RequestId, P> {
        match self.state.request(request) {
            Ok(id) => {
                self.replace_call(id);
                Ok(id)
            }
            Err(rejected) => Err(self.rejected(rejected.reason)),
        }
    }

    fn replace_call(&mut self, id: RequestId) {
        if let Some(unfinished) = self.called.replace(id) {
            self.give_up(unfinished);
        }
    }

    fn rejected(&mut self, reason: Reason) -> Error<P::Refusal> {
        match reason {
            Reason::Closed => Error::Ended(self.learn_end()),
            reason => Error::Rejected(reason),
        }
    }

    fn give_up(&mut self, id: RequestId) {
        self.kept.take_outcome(id);
        if self.state.is_pending(id) {
            self.given_up.insert(id);
        }
    }

    fn give_up_enter(&mut self) {
        if let Some((id, _)) = self.entering.take() {
            self.give_up(id);
        }
    }

    fn reply(&mut self, id: RequestId, outcome: Event<P>) -> Result<P::Reply, P> {
        match outcome {
            Event::Reply { reply, .. } => Ok(reply),
            other => Err(self.failure(id, other)),
        }
    }

    /// Enters notification mode: returns once that is confirmed. If an earlier enter was given up before it was
    /// confirmed, and the mode was not asked to be left since, this waits for that one.
    ///
    /// # Cancel safety
    /// Nothing is lost. The mode stays asked for; calling this again waits for the same enter.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Refused`], [`Error::Lost`], or one after which the call can be repeated.
    pub async fn enter(&mut self, subscription: P::Subscription) -> Result<RequestId, P> {
        match &self.entering {
            Some((_, unconfirmed)) if *unconfirmed == subscription => {}
            _ => self.ask_to_enter(subscription)?,
        }
        self.entered().await
    }

    fn ask_to_enter(&mut self, subscription: P::Subscription) -> Result<(), P> {
        match self.state.enter(subscription.clone()) {
            Ok(id) => {
                self.asked_to_enter(id, subscription);
                Ok(())
            }
            Err(rejected) => Err(self.rejected(rejected.reason)),
        }
    }

    fn asked_to_enter(&mut self, id: RequestId, subscription: P::Subscription) {
        self.give_up_enter();
        self.entering = Some((id, subscription));
        self.left = None;
    }

    /// Waits for the enter that was asked last.
    async fn entered(&mut self) -> Result<RequestId, P> {
        let Some(&(id, _)) = self.entering.as_ref() else {
            return Err(Error::Rejected(Reason::NotAllowed(self.state.mode())));
        };
        let outcome = poll_fn(|cx| {
            // A silent enter is confirmed before it is written: see that it is on its way.
            self.write(cx).map_err(|error| error.waiting_for(id))?;
            self.poll_outcome(cx, id, None)
        })
        .await?;
        self.taken(&outcome);
        match outcome {
            Event::Entered { .. } => Ok(id),
            other => Err(self.failure(id, other)),
        }
    }

    /// Asks for normal mode: returns once that is written, and never waits for [`Event::Left`]. Without a mode to leave
    /// it does nothing.
    ///
    /// # Cancel safety
    /// Nothing is lost. The wish to leave stays; calling this again, or waiting for anything, writes it.
    ///
    /// # Errors
    /// [`Error::Ended`], or one after which the call can be repeated.
    pub async fn leave(&mut self) -> Result<(), P> {
        self.give_up_enter();
        self.state.leave();
        self.flush().await
    }

    /// Waits until all that was asked is written.
    ///
    /// # Cancel safety
    /// Yes: it can be called again.
    ///
    /// # Errors
    /// [`Error::Ended`], or one after which the call can be repeated.
    pub async fn flush(&mut self) -> Result<(), P> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Leaves the mode, asks, and enters the mode again, all in one write and one round trip. Notifications that come
    /// meanwhile are kept, and none is lost. All of it is asked, or nothing.
    ///
    /// # Cancel safety
    /// Nothing is lost. All three stay asked once this was polled; the answer is discarded, as that of a
    /// [`call`](Self::call), and calling [`enter`](Self::enter) waits for the mode.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Reason::NotAllowed`] if the mode was never entered. Given up in the middle, it is taken
    /// up again by [`outcome`](Self::outcome) and [`enter`](Self::enter). If the mode could not be entered again, the
    /// answer is returned all the same, and [`next_notification`](Self::next_notification) tells why.
    pub async fn ring(&mut self, request: P::Request) -> Result<P::Reply, P> {
        let (id, enter) = self.begin_ring(request)?;
        let outcome = poll_fn(|cx| self.poll_rung(cx, id, enter, None)).await?;
        self.taken(&outcome);
        self.reply(id, outcome)
    }

    /// As [`ring`](Self::ring), handing out the notifications that come meanwhile. (In IMAP the data that a command asks
    /// for are notifications.)
    ///
    /// # Cancel safety
    /// As [`ring`](Self::ring). Notifications handed out are the caller's.
    ///
    /// # Errors
    /// As there.
    pub async fn ring_with(
        &mut self,
        request: P::Request,
        mut notified: impl FnMut(P::Notification),
    ) -> Result<P::Reply, P> {
        let (id, enter) = self.begin_ring(request)?;
        self.hand_out(&mut notified);
        let outcome = poll_fn(|cx| self.poll_rung(cx, id, enter, Some(&mut notified))).await?;
        self.taken(&outcome);
        self.reply(id, outcome)
    }

    /// Leaves, asks and enters: the ids of the request and of the enter.
    fn begin_ring(&mut self, request: P::Request) -> Result<(RequestId, RequestId), P> {
        let Some(subscription) = self.subscription.clone() else {
            return Err(self.not_entered());
        };
        let (id, enter) = match self.state.ring(request, subscription.clone()) {
            Ok(ids) => ids,
            Err(rejected) => return Err(self.rejected(rejected.reason)),
        };
        self.replace_call(id);
        self.asked_to_enter(enter, subscription);
        Ok((id, enter))
    }

    fn not_entered(&mut self) -> Error<P::Refusal> {
        match self.state.asked_mode() {
            Mode::Closed => Error::Ended(self.learn_end()),
            mode => Error::Rejected(Reason::NotAllowed(mode)),
        }
    }

    /// Waits for the outcome of a request and of the enter behind it. That of the request stays among the kept events until
    /// there is nothing more to wait for. Notifications are handed to `notified` if it is there.
    fn poll_rung(
        &mut self,
        cx: &mut Context<'_>,
        id: RequestId,
        enter: RequestId,
        mut notified: Option<&mut dyn FnMut(P::Notification)>,
    ) -> Poll<Result<Event<P>, P>> {
        while self.state.is_pending(id) || self.state.is_pending(enter) {
            // These two have places of their own.
            if self.kept.is_full(2) {
                return Poll::Ready(Err(Error::BacklogFull { id: Some(id) }));
            }
            match ready!(self.poll_event(cx)).map_err(|error| error.waiting_for(id))? {
                Some(event) => self.keep(event, &mut notified),
                None => break,
            }
        }
        if let Some(Event::Entered { .. }) = self.kept.outcome(enter) {
            if let Some(event) = self.kept.take_outcome(enter) {
                self.taken(&event);
            }
        }
        match self.kept.take_outcome(id) {
            Some(outcome) => Poll::Ready(Ok(outcome)),
            None => Poll::Ready(Err(Error::UnknownRequest(id))),
        }
    }

    /// Waits for the next notification, in any mode. `None` once the mode has ended and no notification is kept. It never
    /// enters the mode by itself.
    ///
    /// Other outcomes that come meanwhile are kept. In a protocol whose leave has no answer, the end of the mode shows
    /// only with the answer to a later request.
    ///
    /// # Cancel safety
    /// Yes: a notification is taken when it is returned.
    ///
    /// # Errors
    /// [`Error::Ended`]; [`Error::Refused`] if the mode was refused after all; or one after which the call can be
    /// repeated.
    #[inline]
    pub fn next_notification(&mut self) -> impl Future<Output = Result<Option<P::Notification>, P>> {
        poll_fn(|cx| self.poll_next_notification(cx))
    }

    /// The poll form of [`next_notification`](Self::next_notification).
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn poll_next_notification(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<P::Notification>, P>> {
        if self.entering.is_none() && self.left.is_none() {
            let known = if self.is_direct() { self.state.poll_known_notification() } else { None };
            if known.is_some() {
                return Poll::Ready(Ok(known));
            }
        }
        self.poll_notification(cx)
    }

    fn poll_notification(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<P::Notification>, P>> {
        if let Some(notification) = self.kept.pop_notification() {
            return Poll::Ready(Ok(Some(notification)));
        }
        loop {
            if let Some(failure) = self.take_failed_enter() {
                return Poll::Ready(Err(failure));
            }
            if self.left.is_some() && self.state.asked_mode() == Mode::Normal {
                return Poll::Ready(match self.kept.take_refused() {
                    Some(refusal) => Err(Error::Refused(refusal)),
                    None => Ok(None),
                });
            }
            if self.kept.is_full(0) {
                return Poll::Ready(Err(Error::BacklogFull { id: None }));
            }
            match ready!(self.poll_event(cx))? {
                Some(Event::Notification(notification)) => return Poll::Ready(Ok(Some(notification))),
                Some(other) => self.keep(other, &mut None),
                None => return Poll::Ready(Err(self.ended())),
            }
        }
    }

    /// What an enter that was given up came to, if nobody will be rung for it.
    fn take_failed_enter(&mut self) -> Option<Error<P::Refusal>> {
        let id = self.entering_id()?;
        let Some(Event::Refused { .. } | Event::Lost { .. }) = self.kept.outcome(id) else { return None };
        let event = self.kept.take_outcome(id)?;
        self.taken(&event);
        Some(self.failure(id, event))
    }

    /// Calls the handler for each notification until it is done; enters the mode again when the server ends it, if the
    /// protocol lets it ([`Protocol::REENTERS`]), and returns when it has ended on request. The mode must have been
    /// entered.
    ///
    /// # Cancel safety
    /// Yes: it can be called again.
    ///
    /// # Errors
    /// As [`next_notification`](Self::next_notification) and [`enter`](Self::enter); it can be called again after those
    /// that lose nothing.
    pub async fn run(&mut self, handler: &mut impl Handler<P>) -> Result<(), P> {
        if self.subscription.is_none() {
            return Err(self.not_entered());
        }
        while !handler.is_done() {
            match self.next_rung().await? {
                Some(notification) => handler.notification(notification),
                None => break,
            }
        }
        Ok(())
    }

    /// As [`run`](Self::run), with a handler that may use the client, and wait. While it does, what the server rings for
    /// is kept.
    ///
    /// # Cancel safety
    /// A notification that the handler has not finished with is lost with the future; nothing else is.
    ///
    /// # Errors
    /// As there, and those of the handler.
    pub async fn run_with(&mut self, handler: &mut impl AsyncHandler<P, T>) -> Result<(), P> {
        if self.subscription.is_none() {
            return Err(self.not_entered());
        }
        while !handler.is_done() {
            match self.next_rung().await? {
                Some(notification) => handler.notification(self, notification).await?,
                None => break,
            }
        }
        Ok(())
    }

    /// The next notification, entering the mode again when the server has ended it; `None` once it has ended for good.
    async fn next_rung(&mut self) -> Result<Option<P::Notification>, P> {
        loop {
            if let Some(notification) = self.next_notification().await? {
                return Ok(Some(notification));
            }
            match self.subscription.clone() {
                Some(subscription) if P::REENTERS && self.left != Some(true) => drop(self.enter(subscription).await?),
                _ => return Ok(None),
            }
        }
    }

    /// The notifications as a stream, which ends where [`next_notification`](Self::next_notification) says `None`.
    #[must_use]
    pub fn notifications(&mut self) -> Notifications<'_, P, T> {
        Notifications::new(self)
    }

    /// Writes what was asked, and tells the server that nothing more will come. What it sends until it closes the
    /// connection in turn can still be taken.
    ///
    /// # Cancel safety
    /// Yes: it can be called again.
    ///
    /// # Errors
    /// [`Error::Ended`], or one after which the call can be repeated.
    pub async fn close(&mut self) -> Result<(), P> {
        self.flush().await?;
        poll_fn(|cx| self.poll_close(cx)).await.map_err(|error| Error::Ended(End::Io(Arc::new(error))))
    }

    /// Waits for the outcome of `id`: `Reply`, `Refused`, `Lost` or `Entered`. Others are kept, as long as there is room,
    /// and notifications handed to `notified` if it is there.
    fn poll_outcome(
        &mut self,
        cx: &mut Context<'_>,
        id: RequestId,
        mut notified: Option<&mut dyn FnMut(P::Notification)>,
    ) -> Poll<Result<Event<P>, P>> {
        if let Some(event) = self.kept.take_outcome(id) {
            return Poll::Ready(Ok(event));
        }
        if !self.state.is_pending(id) || self.given_up.contains(&id) {
            return Poll::Ready(Err(Error::UnknownRequest(id)));
        }
        loop {
            if self.kept.is_full(0) {
                return Poll::Ready(Err(Error::BacklogFull { id: Some(id) }));
            }
            match ready!(self.poll_event(cx)).map_err(|error| error.waiting_for(id))? {
                Some(event) if outcome_of(&event) == Some(id) => return Poll::Ready(Ok(event)),
                Some(other) => self.keep(other, &mut notified),
                None => return Poll::Ready(Err(self.ended())),
            }
        }
    }

    /// An event that is not waited for: a notification goes to `notified` if it is there, all else is kept.
    fn keep(&mut self, event: Event<P>, notified: &mut Option<&mut dyn FnMut(P::Notification)>) {
        match (event, notified) {
            (Event::Notification(notification), Some(notified)) => notified(notification),
            (event, _) => self.kept.push(event, self.octets()),
        }
    }

    /// The events that are decoded from here on are counted.
    pub(crate) fn count_octets(&mut self) {
        self.decoded_before = self.state.octets_read();
    }

    /// As how many octets they were received.
    pub(crate) fn octets(&self) -> u64 {
        self.state.octets_read() - self.decoded_before
    }

    /// What an outcome that is not the hoped-for one means to a caller.
    fn failure(&mut self, id: RequestId, outcome: Event<P>) -> Error<P::Refusal> {
        match outcome {
            Event::Refused { refusal, .. } => Error::Refused(refusal),
            Event::Lost { sent, .. } => Error::Lost { sent, end: self.learn_end() },
            _ => Error::UnknownRequest(id),
        }
    }

    /// How the connection ended, once the machine is closed: what follows the first Lost is there already, the other
    /// ones and then the reason.
    fn learn_end(&mut self) -> End {
        while let Some(event) = self.decode() {
            self.keep(event, &mut None);
        }
        self.end.clone().unwrap_or(End::Closed)
    }

    fn ended(&self) -> Error<P::Refusal> {
        Error::Ended(self.end.clone().unwrap_or(End::Closed))
    }

    /// The loop: the next event, or `None` once the connection has ended.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event<P>>, P>> {
        loop {
            if let Some(event) = self.decode() {
                return Poll::Ready(Ok(Some(event)));
            }
            if self.end.is_some() {
                return Poll::Ready(Ok(None));
            }
            self.write(cx)?;
            ready!(self.poll_input(cx))?;
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P>> {
        // Nothing more is written.
        if self.state.mode() == Mode::Closed {
            return Poll::Ready(Err(Error::Ended(self.learn_end())));
        }
        while !self.write_all(cx)? {
            // The server may be waiting for us to read, or we for an answer that opens a gate.
            loop {
                if self.kept.is_full(0) {
                    return Poll::Ready(Err(Error::BacklogFull { id: None }));
                }
                match self.decode() {
                    Some(event) => self.keep(event, &mut None),
                    None => break,
                }
            }
            if self.end.is_some() {
                return Poll::Ready(Err(self.ended()));
            }
            if self.write_all(cx)? {
                break;
            }
            ready!(self.poll_input(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what can be written without waiting; whether that is all.
    fn write_all(&mut self, cx: &mut Context<'_>) -> Result<bool, P> {
        self.write(cx)?;
        match &self.failed {
            Some(error) => Err(Error::Ended(End::Io(Arc::clone(error)))),
            None => Ok(self.is_flushed()),
        }
    }

    /// The next event, if it is one that needs no look at anything else. Nearly always it is, and then it is handed on
    /// without a detour.
    #[inline]
    pub(crate) fn poll_known(&mut self) -> Option<Event<P>> {
        if self.is_direct() { self.state.poll_known() } else { None }
    }

    /// Whether each event goes to the caller as it is: nothing is kept, and nothing given up.
    #[inline]
    fn is_direct(&self) -> bool {
        self.kept.is_empty() && self.given_up.is_empty()
    }

    /// The next event that was already received, and that somebody may want.
    fn decode(&mut self) -> Option<Event<P>> {
        loop {
            let leaving = self.state.asked_mode() == Mode::Leaving;
            self.count_octets();
            let event = match self.state.poll_event() {
                Ok(event) => event?,
                Err(error) => {
                    // A stream that fails in the middle of an answer has failed; that is the better reason.
                    self.end.get_or_insert_with(|| match (&self.failed, error) {
                        (Some(failed), sonnette::Error::UnexpectedEof { .. }) => End::Io(Arc::clone(failed)),
                        (_, error) => End::Failed(error),
                    });
                    return None;
                }
            };
            match self.hide_refresh(event, leaving) {
                Some(Event::Closed) => {
                    self.end = Some(self.failed.clone().map_or(End::Closed, End::Io));
                    return None;
                }
                Some(event) if self.is_wanted(&event) => return Some(event),
                _ => {}
            }
        }
    }

    /// Whether nobody has given up waiting for this; takes note of what it does to the mode.
    fn is_wanted(&mut self, event: &Event<P>) -> bool {
        match event {
            Event::Entered { id } => {
                // The mode goes on: that it had ended meanwhile is of no interest.
                self.left = None;
                self.kept.forget_left();
                if let Some((_, subscription)) = self.entering.as_ref().filter(|(entering, _)| entering == id) {
                    self.subscription = Some(subscription.clone());
                }
            }
            Event::Left { asked, .. } => self.left = Some(*asked),
            Event::Reply { .. }
            | Event::Refused { .. }
            | Event::Lost { .. }
            | Event::Notification(_)
            | Event::Closed => {}
        }
        outcome_of(event).is_none_or(|id| !self.given_up.remove(&id))
    }

    /// A refresh of the machine's own is not told. If the server refuses to enter the mode again, it has ended the mode.
    fn hide_refresh(&mut self, event: Event<P>, leaving: bool) -> Option<Event<P>> {
        match event {
            Event::Left { id, asked, refusal } => {
                let known =
                    self.refreshed.take().filter(|(refreshed, _)| *refreshed == id).map_or(id, |(_, known)| known);
                self.refreshing = self.state.refreshing().map(|enter| (enter, known));
                let told = self.refreshing.is_none();
                told.then_some(Event::Left { id: known, asked, refusal })
            }
            Event::Entered { id } if self.refreshing.is_some_and(|(enter, _)| enter == id) => {
                self.refreshed = self.refreshing.take();
                None
            }
            Event::Refused { id, refusal } => match self.refreshing.take_if(|(enter, _)| *enter == id) {
                Some((_, known)) => Some(Event::Left { id: known, asked: leaving, refusal: Some(refusal) }),
                None => Some(Event::Refused { id, refusal }),
            },
            other => Some(other),
        }
    }

    /// Writes what can be written without waiting. An error is kept: what the server sent before it is read first.
    ///
    /// Nothing is written once the machine is closed: it may have told that a request was lost unsent, and safe to ask
    /// again.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if the stream says so: it would block where nothing else can be done meanwhile.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), P> {
        if self.state.mode() == Mode::Closed {
            return Ok(());
        }
        let mut refused = false;
        while self.failed.is_none() && !self.state.output().is_empty() {
            match self.transport.poll_write(cx, self.state.output()) {
                // A stream that holds as much as it may takes more once it has passed that on.
                Poll::Ready(Ok(0)) if !refused => {
                    (refused, self.unflushed) = (true, true);
                    if !self.pass_on(cx)? {
                        return Ok(());
                    }
                }
                Poll::Ready(Ok(0)) => self.failed = Some(Arc::new(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.state.advance_output(written);
                    (refused, self.unflushed) = (false, true);
                }
                Poll::Ready(Err(error)) => self.write_failed(error)?,
                Poll::Pending => return Ok(()),
            }
        }
        self.pass_on(cx).map(drop)
    }

    /// Has the stream pass on what it holds; `false` if it cannot now.
    fn pass_on(&mut self, cx: &mut Context<'_>) -> Result<bool, P> {
        while self.failed.is_none() && self.unflushed {
            match self.transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.write_failed(error)?,
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    fn write_failed(&mut self, error: io::Error) -> Result<(), P> {
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            _ if is_timeout(&error) => return Err(Error::TimedOut { id: None }),
            _ => self.failed = Some(Arc::new(error)),
        }
        Ok(())
    }

    /// Reads once, or notes that a time has come. What had been sent by then is read first: a deadline is judged once the
    /// stream, asked since it passed, had nothing more, or after [`GRACE`].
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), P>> {
        if self.turn == 0 && !T::BLOCKS {
            self.turn = TURN;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let now = self.transport.now();
        let deadline = self.state.poll_timeout(now);
        let asked = self.is_overdue(deadline, now);
        match self.poll_read(cx, deadline) {
            Poll::Ready(read) => {
                self.turn = self.turn.saturating_sub(1);
                if deadline.is_some() {
                    let now = self.transport.now();
                    let since = self.overdue_since;
                    let out_of_time = since.is_some_and(|since| now.saturating_sub(since) >= GRACE);
                    if self.is_overdue(deadline, now) && (out_of_time || !self.transport.heeds_deadlines()) {
                        self.judge(now);
                    }
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                self.turn = TURN;
                self.shrink_to_fit();
                if self.failed.is_some() {
                    // Whoever cannot be written to says nothing more, beyond what has arrived.
                    let since = *self.failed_since.get_or_insert(now);
                    ready!(self.transport.poll_deadline(cx, since));
                    self.state.receive_eof();
                    return Poll::Ready(Ok(()));
                }
                let Some(deadline) = deadline else { return Poll::Pending };
                ready!(self.transport.poll_deadline(cx, deadline));
                if asked {
                    self.judge(now);
                }
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether this deadline has passed; since when that is known is noted.
    fn is_overdue(&mut self, deadline: Option<Duration>, now: Duration) -> bool {
        let overdue = deadline.is_some_and(|deadline| deadline <= now);
        self.overdue_since = overdue.then(|| self.overdue_since.unwrap_or(now));
        overdue
    }

    fn judge(&mut self, now: Duration) {
        self.overdue_since = None;
        self.state.handle_timeout(now);
    }

    /// Whether all that was asked is written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.state.output().is_empty() && !self.state.is_gated() && !self.unflushed
    }

    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_close(cx)
    }

    /// Gives back the buffers that hold nothing: this may be a long wait.
    fn shrink_to_fit(&mut self) {
        self.state.shrink_to_fit();
        self.kept.shrink_to_fit();
    }

    /// Reads once. The end of the stream and its failure are for the machine to tell.
    fn poll_read(&mut self, cx: &mut Context<'_>, deadline: Option<Duration>) -> Poll<Result<(), P>> {
        // A thread that ends has none to lend any more to the destructors of its other values.
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        scratch.resize(READ, 0);
        let read = self.transport.poll_read(cx, &mut scratch, deadline);
        let result = read.map(|read| match read {
            Ok(0) => {
                self.state.receive_eof();
                Ok(())
            }
            Ok(octets) => {
                self.state.receive(scratch.get(..octets).unwrap_or(&scratch));
                Ok(())
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => Ok(()),
                _ if is_timeout(&error) => {
                    let interrupted = error.get_ref().is_some_and(|inner| inner.downcast_ref::<Interrupt>().is_some());
                    Err(if interrupted { Error::Interrupted { id: None } } else { Error::TimedOut { id: None } })
                }
                _ => {
                    self.failed.get_or_insert_with(|| Arc::new(error));
                    self.state.receive_eof();
                    Ok(())
                }
            },
        });
        let _ = SCRATCH.try_with(|lent| lent.set(scratch));
        result
    }
}

/// What a connection that many share needs beside the methods of a client.
#[cfg(feature = "shared")]
impl<P: Protocol, T: Transport> Driver<P, T> {
    pub(crate) fn backlog(&self) -> Backlog {
        self.kept.limits
    }

    pub(crate) fn subscription(&self) -> Option<&P::Subscription> {
        self.subscription.as_ref()
    }

    pub(crate) fn state_mut(&mut self) -> &mut ClientState<P> {
        &mut self.state
    }

    /// Writes what can be written; whether nothing is left that could be, gates or not.
    pub(crate) fn poll_written(&mut self, cx: &mut Context<'_>) -> bool {
        let written = self.write(cx).is_ok() && self.state.output().is_empty() && !self.unflushed;
        written || self.failed.is_some()
    }

    /// Nothing is read for now: that time does not count for a deadline that has passed.
    pub(crate) fn stop_reading(&mut self) {
        self.overdue_since = None;
    }

    /// Nothing more is read: what becomes of all that is outstanding.
    pub(crate) fn abandon(&mut self) -> Vec<Event<P>> {
        self.state.receive_eof();
        let mut events: Vec<_> = std::iter::from_fn(|| self.kept.pop()).collect();
        events.extend(std::iter::from_fn(|| self.decode()));
        events
    }
}

/// A timeout of a blocking stream. Unix says `WouldBlock` there, and `TimedOut` where the peer is dead, which is an end.
fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || (cfg!(windows) && error.kind() == io::ErrorKind::TimedOut)
}

/// The request or enter whose outcome this is.
pub(crate) fn outcome_of<P: Protocol>(event: &Event<P>) -> Option<RequestId> {
    match event {
        Event::Reply { id, .. } | Event::Refused { id, .. } | Event::Lost { id, .. } | Event::Entered { id } => {
            Some(*id)
        }
        Event::Notification(_) | Event::Left { .. } | Event::Closed => None,
    }
}

impl<P: Protocol + std::fmt::Debug, T: std::fmt::Debug> std::fmt::Debug for Driver<P, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("state", &self.state)
            .field("transport", &self.transport)
            .field("kept", &self.kept.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
