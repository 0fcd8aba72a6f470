//! Time: what is overdue, and what the machine then does by itself.

use super::{ClientState, End};
use crate::queue::What;
use crate::{Encoder, EnterAnswer, Error, LeaveAnswer, Mode, Protocol, RequestId, Setting};
use alloc::boxed::Box;
use core::time::Duration;

/// When a connection is given up, and when its mode is renewed: each by itself, all off by default.
///
/// Times are those of the caller's own monotonic clock; the machine reads none. What was asked or received while a
/// setting was off counts from the first [`poll_timeout`](ClientState::poll_timeout) after it was turned on.
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
    /// It counts from when the question was asked, or, if the server had to let it be sent, from then.
    pub reply: Option<Duration>,
    /// So long after the mode was entered it is left and entered again, in one write, for servers that end a mode which
    /// lasts too long (IMAP: 30 minutes). Notifications do not postpone it, and none is lost.
    ///
    /// It shows as [`Event::Left`](crate::Event::Left), and [`Event::Entered`](crate::Event::Entered) with a new id. If
    /// the protocol has a probe that is allowed in the mode, that is sent instead, and shows nothing.
    pub refresh: Option<Duration>,
    /// When nothing at all was received for so long, the server is probed; when nothing was received for as long again,
    /// the connection ends: [`Error::SilenceTimeout`]. Any octet postpones it.
    ///
    /// A probe is a question of the protocol's, whose answer is not told. In a mode in which there is none to ask, the
    /// mode is left and entered again as by [`refresh`](Self::refresh). If the protocol has none at all
    /// ([`Protocol::encode_probe`]), and no other answer is outstanding, the connection ends at once.
    pub silence: Option<Duration>,
}

/// What is kept about time once a setting is on.
#[derive(Clone)]
pub(super) struct Times {
    settings: Timeouts,
    /// The time that came, until it is judged.
    pub(super) came: Option<Duration>,
    /// Something was received since `quiet_since`.
    pub(super) heard: bool,
    quiet_since: Option<Duration>,
    /// Nothing was received for as long as may be, and an answer is waited for.
    probing: bool,
    /// Since when the mode of this enter counts.
    entered: Option<(RequestId, Duration)>,
    /// The last enter of the machine's own.
    renewal: Option<RequestId>,
    /// Where what the machine asked by itself ends in the output.
    own_until: u64,
}

impl<P: Protocol> ClientState<P> {
    /// Sets what is overdue when. A deadline that counts already moves with its setting.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        if self.times.is_none() && timeouts == Timeouts::default() {
            return;
        }
        let times = self.times.get_or_insert_with(|| {
            Box::new(Times {
                settings: timeouts,
                came: None,
                heard: false,
                quiet_since: None,
                probing: false,
                entered: None,
                renewal: None,
                own_until: 0,
            })
        });
        if times.settings.silence.is_none() {
            times.quiet_since = None;
        }
        times.settings = timeouts;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) if nothing else happens: an absolute time on the caller's
    /// clock, which shows `now`. What was asked or received since the last call counts as of now.
    ///
    /// The answer holds until the next call of another method. It may be past: then it is due.
    #[must_use]
    pub fn poll_timeout(&mut self, now: Duration) -> Option<Duration> {
        let times = self.times.as_deref_mut().filter(|_| matches!(self.end, End::Open))?;
        if times.settings.reply.is_some() {
            // What a gate holds back has not been asked yet.
            let asked = match self.output.first_gate() {
                Some(gate) => self.queue.partition_point(|entry| entry.id < gate.hides_from),
                None => self.queue.len(),
            };
            let new = self.queue.range_mut(..asked).rev().take_while(|entry| entry.counts_from.is_none());
            new.for_each(|entry| entry.counts_from = Some(now));
        }
        if times.settings.silence.is_some() && (times.heard || times.quiet_since.is_none()) {
            (times.quiet_since, times.heard, times.probing) = (Some(now), false, false);
        }
        if let (Some(_), Some(inside)) = (times.settings.refresh, &self.inside) {
            if times.entered.is_none_or(|(id, _)| id != inside.id) {
                times.entered = Some((inside.id, now));
            }
        }
        [self.reply_due(), self.silence_due(), self.refresh_due()].into_iter().flatten().min()
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
        self.find(renewal, self.queue.len()).map(|_| renewal)
    }

    /// Judges what is overdue, when nothing more can be decoded.
    pub(super) fn judge(&mut self, now: Duration) {
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= now);
        if is_due(self.reply_due()) {
            return self.finish(Some(Error::ReplyTimeout));
        }
        if is_due(self.silence_due()) {
            let probed = !self.is_probing() && (self.probe() || self.owes_answer());
            let Some(times) = self.times.as_mut().filter(|_| probed) else {
                return self.finish(Some(Error::SilenceTimeout));
            };
            (times.quiet_since, times.probing) = (Some(now), true);
        }
        if is_due(self.refresh_due()) {
            if let (Some(times), Some(inside)) = (&mut self.times, &self.inside) {
                times.entered = Some((inside.id, now));
            }
            self.refresh();
        }
    }

    fn reply_due(&self) -> Option<Duration> {
        let allowed = self.times.as_ref()?.settings.reply?;
        // Those behind it were asked after it.
        let first = self.queue.iter().find(|entry| self.has_answer(&entry.what))?;
        Some(first.counts_from?.saturating_add(allowed))
    }

    fn silence_due(&self) -> Option<Duration> {
        let times = self.times.as_ref().filter(|times| !times.heard)?;
        Some(times.quiet_since?.saturating_add(times.settings.silence?))
    }

    /// Not while the mode is asked to be left.
    fn refresh_due(&self) -> Option<Duration> {
        let (times, inside) = (self.times.as_ref()?, self.inside.as_ref()?);
        let (_, since) = times.entered.filter(|&(id, _)| id == inside.id && self.changes == 0)?;
        Some(since.saturating_add(times.settings.refresh?))
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

    /// Whether more may be asked without the caller: not while a gate holds something back, or the stream has not taken
    /// what was asked last. So what the machine asks by itself is bounded, though no limit refuses it.
    fn may_act(&self) -> bool {
        let own_until = self.times.as_ref().map_or(0, |times| times.own_until);
        !self.is_gated() && self.output.written() >= own_until
    }

    /// Sends a probe if there is none on its way; whether there is one then.
    fn ask_probe(&mut self, setting: Setting) -> bool {
        if self.queue.iter().any(|entry| matches!(entry.what, What::Probe(_))) {
            return true;
        }
        let (mark, starts_at, id) = (self.output.mark(), self.output.end(), self.next_id);
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
                let id = self.push_enter(subscription, note, starts_at);
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
    #[allow(clippy::type_complexity, reason = "a tuple, named nowhere else")]
    pub(super) fn live_times(
        &self,
    ) -> Option<(
        Timeouts,
        Option<Duration>,
        Option<(Option<Duration>, bool)>,
        Option<Duration>,
        Option<RequestId>,
        Option<u64>,
    )> {
        let times = self.times.as_ref()?;
        let quiet = Some((times.quiet_since, times.probing)).filter(|_| !times.heard);
        let inside = self.inside.as_ref().map(|inside| inside.id);
        let since = times.entered.filter(|(id, _)| Some(*id) == inside).map(|(_, since)| since);
        let own = times.own_until.checked_sub(self.output.written()).filter(|&octets| octets > 0);
        Some((times.settings, times.came, quiet, since, self.refreshing(), own))
    }
}
