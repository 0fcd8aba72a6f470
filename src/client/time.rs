//! Time: what is overdue, and what the machine then does by itself.

use super::{ClientState, End};
use crate::queue::{Entry, What};
use crate::{Encoder, EnterAnswer, Error, LeaveAnswer, Mode, Protocol, RequestId, Setting};
use core::{hash, time::Duration};

/// When a connection is given up, and when its mode is renewed: each by itself, all off by default, unless the protocol
/// knows better ([`Protocol::TIMEOUTS`]).
///
/// Times are those of the caller's own monotonic clock; the machine reads none. A deadline is fixed by the first
/// [`poll_timeout`](ClientState::poll_timeout) after what it is for, with the settings of that moment. Less than a
/// millisecond counts as one, so that what the machine does again and again has a pause.
///
/// ```
/// use core::time::Duration;
/// use sonnette::{ClientState, Event, Timeouts, board::{Board, Reply, Request}};
///
/// let mut state = ClientState::new(Board::silent());
/// state.set_timeouts(Timeouts { silence: Some(Duration::from_secs(60)), ..Timeouts::default() });
///
/// let noon = Duration::from_secs(12 * 3600);
/// let due = state.poll_timeout(noon);
/// assert_eq!(due, Some(noon + Duration::from_secs(60)));
///
/// // Nothing was received: the server is asked for a sign of life, whose answer is not told.
/// state.handle_timeout(noon + Duration::from_secs(60));
/// assert_eq!(state.poll_event()?, None);
/// assert_eq!(state.output(), b"random?\r\n");
/// state.receive(b"46774\r\n");
/// assert_eq!(state.poll_event()?, None);
/// # Ok::<(), sonnette::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// An answer that has not come so long after its question ends the connection:
    /// [`Error::ReplyTimeout`]. (It cannot be skipped: the next answer would be taken for it.)
    ///
    /// It counts from when the question was asked, or, if the server had to let it be sent, from then. The parts of an
    /// answer that arrive do not postpone it.
    pub reply: Option<Duration>,
    /// So long after the mode was entered it is left and entered again, in one write, for servers that end a mode which
    /// lasts too long (IMAP: 30 minutes). Notifications do not postpone it, and none is lost.
    ///
    /// It shows as [`Event::Left`](crate::Event::Left), and [`Event::Entered`](crate::Event::Entered) with a new id. If
    /// the protocol has a probe that is allowed in the mode, that is sent instead, and shows nothing.
    pub refresh: Option<Duration>,
    /// When nothing at all was received for so long, the server is probed; when nothing was received for as long again,
    /// the connection ends: [`Error::SilenceTimeout`]. So a server that has died is found out within twice this time.
    ///
    /// Any octet postpones it: a server that sends one now and then, and no answer, is never silent. Only
    /// [`reply`](Self::reply) finds it out, in the mode with [`refresh`](Self::refresh), which asks for an answer.
    ///
    /// A question that the server answers late on purpose (Redis: `BLPOP`) ends the connection if it takes longer than twice
    /// this time. The server answers the probe only after it, and is as silent until then as one that has died.
    ///
    /// A probe is a question of the protocol's, whose answer is not told. In a mode in which there is none to ask, the
    /// mode is left and entered again as by [`refresh`](Self::refresh). If the protocol has none at all
    /// ([`Protocol::encode_probe`]), and no other answer is outstanding, the connection ends at once.
    pub silence: Option<Duration>,
}

impl Timeouts {
    /// Nothing is ever overdue.
    pub const OFF: Timeouts = Timeouts { reply: None, refresh: None, silence: None };

    /// With the pause that there always is.
    fn with_pause(self) -> Self {
        let Timeouts { reply, refresh, silence } = self;
        Timeouts { reply: reply.map(pause), refresh: refresh.map(pause), silence: silence.map(pause) }
    }
}

/// A mode that is renewed as soon as it is entered would be left and entered without end, where neither is answered even
/// without a round trip. A thousand times a second does no harm, and few timers keep less than a millisecond.
const LEAST: Duration = Duration::from_millis(1);

fn pause(span: Duration) -> Duration {
    span.max(LEAST)
}

/// The deadline of what is never due; no clock shows it.
const NEVER: Duration = Duration::MAX;
const LAST: Duration = NEVER.saturating_sub(Duration::from_nanos(1));

/// What is kept about time once a setting is on.
#[derive(Clone)]
pub(super) struct Times {
    settings: Timeouts,
    /// The time that came, until it is judged.
    pub(super) came: Option<Duration>,
    /// Something was received since `silence_due` was fixed.
    pub(super) heard: bool,
    silence_due: Duration,
    /// Nothing was received for as long as may be, and an answer is waited for.
    probing: bool,
    /// When the mode of this enter is to be refreshed.
    refresh_due: Duration,
    entered: Option<RequestId>,
    /// The last enter of the machine's own.
    renewal: Option<RequestId>,
    /// Where what the machine asked by itself ends in the output.
    own_until: u64,
    greeting: Option<Duration>,
    greeting_due: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            settings: Timeouts::OFF,
            came: None,
            heard: true,
            silence_due: NEVER,
            probing: false,
            refresh_due: NEVER,
            entered: None,
            renewal: None,
            own_until: 0,
            greeting: None,
            greeting_due: NEVER,
        }
    }
}

impl<P: Protocol> ClientState<P> {
    /// Sets what is overdue when. A deadline that is fixed already stays, unless its setting is turned off.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        if self.times.is_none() && timeouts == Timeouts::OFF {
            return;
        }
        let times = self.times.get_or_insert_default();
        if timeouts.silence.is_none() {
            (times.silence_due, times.heard) = (NEVER, true);
        }
        if timeouts.refresh.is_none() {
            (times.refresh_due, times.entered) = (NEVER, None);
        }
        if timeouts.reply.is_none() && times.settings.reply.is_some() {
            self.queue.forget_due();
        }
        times.settings = timeouts.with_pause();
    }

    /// Sets how long the server may take to greet, if the protocol has a greeting ([`Protocol::GREETING`]): if it has not
    /// so long after the first [`poll_timeout`](Self::poll_timeout), the connection ends: [`Error::GreetingTimeout`]. By
    /// default there is no such time.
    ///
    /// It is a setting beside the [`Timeouts`], and independent of them. A deadline that is fixed already stays, unless it
    /// is turned off. Octets that are no greeting do not postpone it.
    pub fn set_greeting_timeout(&mut self, timeout: Option<Duration>) {
        if !P::GREETING || self.times.is_none() && timeout.is_none() {
            return;
        }
        let times = self.times.get_or_insert_default();
        if timeout.is_none() {
            times.greeting_due = NEVER;
        }
        times.greeting = timeout.map(pause);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) if nothing else happens: an absolute time on the caller's
    /// clock, which shows `now`. What was asked or received since the last call counts as of now.
    ///
    /// The answer holds until the next call of another method. It may be past: then it is due.
    #[must_use]
    pub fn poll_timeout(&mut self, now: Duration) -> Option<Duration> {
        let awaits_greeting = self.awaits_greeting();
        let times = self.times.as_deref_mut().filter(|_| matches!(self.end, End::Open))?;
        if let (Some(reply), false) = (times.settings.reply, self.queue.is_empty()) {
            // What a gate holds back has not been asked yet.
            let asked = match self.output.first_gate() {
                Some(gate) => self.queue.place_of(gate.hides_from),
                None => usize::MAX,
            };
            self.queue.fix_due(asked, now.saturating_add(reply));
        }
        if let (Some(silence), true) = (times.settings.silence, times.heard) {
            (times.silence_due, times.heard, times.probing) = (now.saturating_add(silence), false, false);
        }
        if let (Some(refresh), Some(inside)) = (times.settings.refresh, &self.inside) {
            if times.entered != Some(inside.id) {
                (times.refresh_due, times.entered) = (now.saturating_add(refresh), Some(inside.id));
            }
        }
        if let (Some(greeting), true, NEVER) = (times.greeting, awaits_greeting, times.greeting_due) {
            times.greeting_due = now.saturating_add(greeting);
        }
        let next = self.reply_due().min(self.silence_due()).min(self.refresh_due()).min(self.greeting_due());
        (next != NEVER).then_some(next)
    }

    /// The time has come: the caller's clock shows `now`.
    ///
    /// What is overdue is judged by [`poll_event`](Self::poll_event), once all that was received is decoded: that may
    /// lift it. (So law 2 does not hold for this call: what is received between it and a poll counts.)
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Some(times) = &mut self.times {
            times.came = Some(now);
        }
    }

    /// The enter of a refresh that is not confirmed yet: the next [`Event::Left`](crate::Event::Left) and
    /// [`Event::Entered`](crate::Event::Entered) are those of the refresh. If the connection ends instead, no
    /// [`Event::Lost`](crate::Event::Lost) tells of it.
    #[must_use]
    pub fn refreshing(&self) -> Option<RequestId> {
        let renewal = self.times.as_ref()?.renewal?;
        self.queue.find(renewal).map(|_| renewal)
    }

    /// Judges what is overdue, when nothing more can be decoded.
    pub(super) fn judge(&mut self, now: Duration) {
        let now = now.min(LAST);
        let (greeting, reply) = (self.greeting_due(), self.reply_due());
        if greeting.min(reply) <= now {
            let error = if greeting <= reply { Error::GreetingTimeout } else { Error::ReplyTimeout };
            return self.finish(Some(error));
        }
        if self.silence_due() <= now {
            let waits = !self.is_probing() && (self.probe() || self.owes_answer() || !self.may_act());
            let Some(times) = self.times.as_mut().filter(|_| waits) else {
                return self.finish(Some(Error::SilenceTimeout));
            };
            (times.silence_due, times.probing) = (after(now, times.settings.silence), true);
        }
        if self.refresh_due() <= now {
            if let Some(times) = &mut self.times {
                times.refresh_due = after(now, times.settings.refresh);
            }
            self.refresh();
        }
    }

    /// Those behind the first that is answered were asked after it.
    fn reply_due(&self) -> Duration {
        let first = self.queue.iter().find(|entry| self.has_answer(&entry.what));
        first.and_then(|entry| entry.due).unwrap_or(NEVER)
    }

    fn awaits_greeting(&self) -> bool {
        P::GREETING && matches!(self.queue.front(), Some(Entry { what: What::Greeting, .. }))
    }

    fn greeting_due(&self) -> Duration {
        match &self.times {
            Some(times) if self.awaits_greeting() => times.greeting_due,
            _ => NEVER,
        }
    }

    fn silence_due(&self) -> Duration {
        match &self.times {
            Some(times) if !times.heard => times.silence_due,
            _ => NEVER,
        }
    }

    /// Not while the mode is asked to be left.
    fn refresh_due(&self) -> Duration {
        match (&self.times, &self.inside) {
            (Some(times), Some(inside)) if self.queue.changes() == 0 && times.entered == Some(inside.id) => {
                times.refresh_due
            }
            _ => NEVER,
        }
    }

    fn is_probing(&self) -> bool {
        self.times.as_ref().is_some_and(|times| times.probing)
    }

    /// Whether the server answers this, by a frame of its own.
    fn has_answer(&self, what: &What<P::Subscription, P::Note>) -> bool {
        match what {
            What::Greeting | What::Request(_) | What::Probe(_) => true,
            What::Enter(..) => self.protocol.changes().enter == EnterAnswer::Own,
            What::Leave { .. } => self.protocol.changes().leave != LeaveAnswer::Silent,
            What::Answered { .. } => false,
        }
    }

    fn owes_answer(&self) -> bool {
        self.queue.iter().any(|entry| self.has_answer(&entry.what))
    }

    /// Asks for a sign of life; whether one was asked for.
    fn probe(&mut self) -> bool {
        match self.asked_mode() {
            _ if !self.may_act() => false,
            Mode::Normal | Mode::Leaving => self.ask_probe(Setting::Normal),
            Mode::Notification => self.ask_probe(Setting::Notification) || self.enter_again(true),
            Mode::Entering | Mode::Closed => false,
        }
    }

    fn refresh(&mut self) {
        if self.may_act() && !self.ask_probe(Setting::Notification) {
            self.enter_again(false);
        }
    }

    /// Whether more may be asked without the caller: not behind a gate, nor while the stream is to be changed, or has not
    /// taken what was asked last. So what the machine asks by itself is bounded, though no limit refuses it.
    fn may_act(&self) -> bool {
        let is_written = self.times.as_ref().is_none_or(|times| self.unwritten(times) == 0);
        self.output.first_gate().is_none() && !self.is_stream_changing() && is_written
    }

    /// How many octets are to be written up to the end of what the machine asked by itself.
    fn unwritten(&self, times: &Times) -> u64 {
        self.output.unwritten_before(times.own_until).unwrap_or(0)
    }

    /// Sends a probe if there is none on its way; whether there is one then.
    fn ask_probe(&mut self, setting: Setting) -> bool {
        if self.queue.has_probe() {
            return true;
        }
        let (mark, starts_at, id) = (self.output.mark(), self.output.end(), self.queue.next_id());
        match self.protocol.encode_probe(id, setting, &mut Encoder::new(&mut self.output, None)) {
            Some(note) => {
                self.push(What::Probe(note), starts_at);
                self.acted(None);
                true
            }
            None => {
                self.output.back_to(mark);
                false
            }
        }
    }

    /// Leaves the mode and enters it again with the same subscription: all of it or nothing. To `prove` that the server
    /// lives, something in it must be answered.
    fn enter_again(&mut self, prove: bool) -> bool {
        let Some(subscription) = self.inside.as_ref().map(|inside| inside.subscription.clone()) else { return false };
        let changes = self.protocol.changes();
        let proves = changes.enter == EnterAnswer::Own || changes.leave != LeaveAnswer::Silent;
        let before = self.checkpoint();
        self.leave();
        if !prove || proves || self.ask_probe(Setting::Normal) {
            if let Ok((note, starts_at)) = self.encode_enter(&subscription) {
                let id = self.push(What::Enter(subscription, note), starts_at);
                self.acted(Some(id));
                return true;
            }
        }
        self.roll_back(before);
        false
    }

    fn acted(&mut self, renewal: Option<RequestId>) {
        if let Some(times) = &mut self.times {
            times.own_until = self.output.end();
            times.renewal = renewal.or(times.renewal);
        }
    }

    /// What decides all that follows, for two states to be equal.
    pub(super) fn live_times(&self) -> Option<impl Eq + hash::Hash> {
        let times = self.times.as_ref()?;
        let silence = Some((times.silence_due, times.probing)).filter(|_| !times.heard);
        let entered = times.entered == self.inside.as_ref().map(|inside| inside.id);
        let refresh = Some(times.refresh_due).filter(|_| entered);
        let greeting = Some((times.greeting, times.greeting_due)).filter(|_| self.awaits_greeting());
        Some((times.settings, times.came, silence, refresh, greeting, self.refreshing(), self.unwritten(times)))
    }
}

fn after(now: Duration, span: Option<Duration>) -> Duration {
    span.map_or(NEVER, |span| now.saturating_add(span))
}
