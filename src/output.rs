//! Octets on their way out, and the gates that hold some of them back.

use crate::{Invalid, RequestId};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{fmt, hash};

/// What waits to be written: a window of octets in front of the first gate, and what gates hold back behind it.
///
/// Each gate holds its octets by itself. They move when it opens, and not at all if they are dropped.
///
/// A position is the number of octets put before it since the connection began. It never changes: octets that were dropped
/// count, and those put in front of a gate later do not.
#[derive(Clone, Default)]
pub(crate) struct Output {
    /// `window[head..]` is unwritten.
    window: Vec<u8>,
    head: usize,
    gates: VecDeque<Gate>,
    /// Octets that gates hold back.
    held: usize,
    /// The position of the first octet that is neither written nor dropped.
    written: u64,
    /// Few connections have any, and none for long.
    seams: Option<Box<Seams>>,
}

/// What stays allocated once all is written: as much as a thousand short requests take. More was a large value.
const KEEP: usize = 16 * 1024;

/// A ring takes some thirty octets; more was a batch, after which another one may follow.
const BATCH: usize = 1024;

/// So what a gate holds back seldom has to grow, and takes little more than the gate.
const RING: usize = 64;

/// What was put from `at` up to the next gate waits for a frame.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) opener: Opener,
    /// The frames until then cannot concern this entry and those behind it: they have not been sent.
    pub(crate) hides_from: RequestId,
    at: u64,
    octets: Vec<u8>,
    /// So many of the octets are dropped if the opener is refused; what was asked behind it is not.
    own: usize,
}

/// Whose frame opens a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Opener {
    Greeting,
    /// The confirmation of this enter, for its leave.
    Enter(RequestId),
    /// The server's continuation, for the rest of this request.
    Continuation(RequestId),
}

/// Where something else is to be written than was put, positions ascending.
#[derive(Clone, Default)]
struct Seams {
    list: VecDeque<Seam>,
    /// The octets dropped at all of them, less those inserted, modulo 2^64.
    shift: u64,
}

/// From a position on so many octets were dropped, and so many inserted.
#[derive(Clone, Copy)]
struct Seam {
    at: u64,
    dropped: u64,
    inserted: u64,
}

/// Where to go back to if an encoding is not taken.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    waiting: usize,
    gates: usize,
}

impl Output {
    #[inline]
    pub(crate) fn window(&self) -> &[u8] {
        self.window.get(self.head..).unwrap_or_default()
    }

    /// Clamped to the window, so that nothing behind a gate is ever counted as written.
    pub(crate) fn advance(&mut self, written: usize) {
        let written = written.min(self.window().len());
        self.head += written;
        self.pass(written as u64);
        if self.head == self.window.len() {
            self.window.clear();
            self.head = 0;
            if self.window.capacity() > KEEP {
                self.window = Vec::new();
            }
        } else if self.head > self.window.len() - self.head {
            self.window.drain(..self.head);
            self.head = 0;
        }
    }

    /// Goes past octets of the window, and past the seams between them and behind them.
    fn pass(&mut self, mut octets: u64) {
        if let Some(seams) = &mut self.seams {
            while let Some(seam) = seams.list.front_mut() {
                let before = octets.min(seam.at - self.written);
                let inserted = seam.inserted.min(octets - before);
                octets -= before + inserted;
                self.written += before;
                seam.inserted -= inserted;
                seams.shift = seams.shift.wrapping_add(inserted);
                if self.written < seam.at || seam.inserted > 0 {
                    return;
                }
                self.written += seam.dropped;
                seams.shift = seams.shift.wrapping_sub(seam.dropped);
                seams.list.pop_front();
            }
            self.seams = None;
        }
        self.written += octets;
    }

    /// Gives back what holds nothing; the memory of a batch only from an idle connection.
    pub(crate) fn shrink_to_fit(&mut self, idle: bool) {
        if self.window().is_empty() && (idle || self.window.capacity() <= BATCH) {
            (self.window, self.head) = (Vec::new(), 0);
        }
        if self.gates.is_empty() {
            self.gates = VecDeque::new();
        }
    }

    /// Octets that wait, with what gates hold back.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.window.len() - self.head + self.held
    }

    /// Octets that gates hold back.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// The position of the next octet to be put.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        let end = self.written + self.waiting() as u64;
        self.seams.as_ref().map_or(end, |seams| end.wrapping_add(seams.shift))
    }

    /// Whether the octet at this position was written.
    pub(crate) fn is_written(&self, position: u64) -> bool {
        position < self.written
    }

    /// How many octets are to be written before the one at this position, unless that was.
    pub(crate) fn unwritten_before(&self, position: u64) -> Option<u64> {
        let put = position.checked_sub(self.written)?;
        let seams = self.seams.iter().flat_map(|seams| &seams.list);
        let passed = seams.take_while(|seam| seam.at + seam.dropped <= position);
        Some(passed.fold(put, |octets, seam| octets + seam.inserted - seam.dropped))
    }

    #[inline]
    pub(crate) fn put(&mut self, octets: &[u8]) {
        match self.gates.back_mut() {
            None => self.window.extend_from_slice(octets),
            Some(gate) => {
                gate.octets.extend_from_slice(octets);
                self.held += octets.len();
            }
        }
    }

    #[inline]
    pub(crate) fn mark(&self) -> Mark {
        Mark { waiting: self.waiting(), gates: self.gates.len() }
    }

    #[inline]
    pub(crate) fn octets_since(&self, mark: Mark) -> usize {
        self.waiting() - mark.waiting
    }

    pub(crate) fn back_to(&mut self, mark: Mark) {
        while self.gates.len() > mark.gates {
            self.held -= self.gates.pop_back().map_or(0, |gate| gate.octets.len());
        }
        let octets = self.octets_since(mark);
        match self.gates.back_mut() {
            None => self.window.truncate(self.window.len() - octets),
            Some(gate) => {
                gate.octets.truncate(gate.octets.len() - octets);
                self.held -= octets;
            }
        }
    }

    /// What is put from here on waits for `opener`.
    pub(crate) fn close_gate(&mut self, opener: Opener, hides_from: RequestId) {
        self.gates.push_back(Gate { opener, hides_from, at: self.end(), octets: Vec::with_capacity(RING), own: 0 });
    }

    /// What the gates closed since the `mark` hold back is their own.
    #[inline]
    pub(crate) fn seal(&mut self, mark: Mark) {
        if self.gates.len() > mark.gates {
            self.gates.iter_mut().skip(mark.gates).for_each(|gate| gate.own = gate.octets.len());
        }
    }

    /// Whether anything is held back.
    #[inline]
    pub(crate) fn has_gates(&self) -> bool {
        !self.gates.is_empty()
    }

    #[inline]
    pub(crate) fn first_gate(&self) -> Option<&Gate> {
        self.gates.front()
    }

    /// The first gate of this opener. Of a request that a frame is about it is the first of all; that of a leave may be
    /// behind those of requests that were asked since the enter, and each of these is gone through once.
    fn gate_of(&self, opener: Opener) -> Option<usize> {
        match opener {
            Opener::Enter(_) => self.gates.iter().position(|gate| gate.opener == opener),
            Opener::Greeting | Opener::Continuation(_) => {
                self.gates.front().filter(|gate| gate.opener == opener).map(|_| 0)
            }
        }
    }

    /// Opens the first gate.
    pub(crate) fn open_gate(&mut self) {
        self.open(0);
    }

    /// Opens the gate of `opener`, if there is one.
    pub(crate) fn open_gate_of(&mut self, opener: Opener) {
        if let Some(at) = self.gate_of(opener) {
            self.open(at);
        }
    }

    fn open(&mut self, at: usize) {
        if let Some(gate) = self.gates.remove(at) {
            self.hand_on(at, gate.octets);
        }
    }

    /// What was held back goes to the gate before this one, or to the window.
    fn hand_on(&mut self, at: usize, octets: Vec<u8>) {
        if let Some(gate) = at.checked_sub(1).and_then(|before| self.gates.get_mut(before)) {
            gate.octets.extend_from_slice(&octets);
            return;
        }
        self.held -= octets.len();
        if self.window().is_empty() && octets.len() > BATCH {
            (self.window, self.head) = (octets, 0);
        } else {
            self.window.extend_from_slice(&octets);
        }
    }

    /// Inserts octets in front of the first gate, or at the end.
    pub(crate) fn put_before_gate(&mut self, octets: &[u8]) {
        let at = self.gates.front().map_or(self.end(), |gate| gate.at);
        self.window.extend_from_slice(octets);
        self.note(Seam { at, dropped: 0, inserted: octets.len() as u64 });
    }

    /// Drops what waits for `opener`, which was refused; whether anything did.
    pub(crate) fn drop_gated(&mut self, opener: Opener) -> bool {
        let Some(first) = self.gate_of(opener) else { return false };
        // Those of one request are next to each other.
        while let Some(Gate { at, mut octets, own, .. }) = self.take_gate(first, opener) {
            self.held -= own;
            self.hand_on(first, octets.split_off(own));
            self.note(Seam { at, dropped: own as u64, inserted: 0 });
        }
        true
    }

    fn take_gate(&mut self, at: usize, opener: Opener) -> Option<Gate> {
        self.gates.get(at).filter(|gate| gate.opener == opener)?;
        self.gates.remove(at)
    }

    /// One that touches another is one with it.
    fn note(&mut self, new: Seam) {
        let seams = self.seams.get_or_insert_default();
        let place = seams.list.partition_point(|seam| seam.at + seam.dropped < new.at);
        match seams.list.get_mut(place) {
            Some(seam) if seam.at <= new.at => {
                (seam.dropped, seam.inserted) = (seam.dropped + new.dropped, seam.inserted + new.inserted);
            }
            _ => seams.list.insert(place, new),
        }
        seams.shift = seams.shift.wrapping_add(new.dropped).wrapping_sub(new.inserted);
        self.pass(0);
    }

    fn live_gates(&self) -> impl Iterator<Item = (Opener, RequestId, &[u8], usize)> {
        self.gates.iter().map(|gate| (gate.opener, gate.hides_from, &*gate.octets, gate.own))
    }
}

/// Equal where all that follows will be equal: what has been written does not count.
impl PartialEq for Output {
    fn eq(&self, other: &Self) -> bool {
        self.window() == other.window() && self.live_gates().eq(other.live_gates())
    }
}

impl Eq for Output {}

impl hash::Hash for Output {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.window().hash(state);
        self.live_gates().for_each(|gate| gate.hash(state));
    }
}

/// Octets on their way out may hold a password: only their number is shown.
impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("opener", &self.opener).field("octets", &self.octets.len()).finish_non_exhaustive()
    }
}

/// Likewise.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("waiting", &self.waiting()).field("gates", &self.gates).finish()
    }
}

/// Where a [`Protocol`](crate::Protocol) writes what it encodes.
///
/// What it has written counts only if the encoding succeeds and fits the limits.
#[derive(Debug)]
pub struct Encoder<'a> {
    output: &'a mut Output,
    /// Whose continuation may be awaited.
    id: Option<RequestId>,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(output: &'a mut Output, id: Option<RequestId>) -> Self {
        Encoder { output, id }
    }

    /// Writes octets as they are: the words and terminators of the protocol itself.
    #[inline]
    pub fn put(&mut self, octets: &[u8]) {
        self.output.put(octets);
    }

    /// Writes a caller's value into a line.
    ///
    /// # Errors
    /// [`Invalid`] if it holds a CR, LF or NUL, with which it could put a line of its own on the wire.
    pub fn put_text(&mut self, text: &[u8]) -> Result<(), Invalid> {
        no_line_breaks(text)?;
        self.output.put(text);
        Ok(())
    }

    /// Writes a caller's value between double quotes, each `"` and `\` in it behind a `\`: as MPD and IMAP have it.
    ///
    /// # Errors
    /// As [`put_text`](Self::put_text).
    pub fn put_quoted(&mut self, text: &[u8]) -> Result<(), Invalid> {
        self.put(b"\"");
        for piece in text.split_inclusive(|octet| matches!(octet, b'"' | b'\\')) {
            match piece.split_last() {
                Some((special @ (b'"' | b'\\'), before)) => {
                    self.put_text(before)?;
                    self.put(&[b'\\', *special]);
                }
                _ => self.put_text(piece)?,
            }
        }
        self.put(b"\"");
        Ok(())
    }

    /// What follows waits for the server's continuation ([`Decoded::Continue`](crate::Decoded::Continue)), and is
    /// dropped if the request is refused instead: an IMAP synchronising literal (RFC 3501 section 4.3). Has no effect
    /// in the encoding of a leave, which cannot be refused.
    pub fn await_continuation(&mut self) {
        if let Some(id) = self.id {
            self.output.close_gate(Opener::Continuation(id), id.next());
        }
    }
}

/// The one rule against injection: a value that goes into a line holds no CR, LF or NUL.
pub(crate) fn no_line_breaks(text: &[u8]) -> Result<(), Invalid> {
    if text.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
        return Err(Invalid::new("a CR, LF or NUL inside a line"));
    }
    Ok(())
}
