//! Octets on their way out, and the gates that hold some of them back.

use crate::{Invalid, RequestId};
use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, hash};

/// What waits to be written: a window of octets in front of the first gate, and what gates hold back behind it.
///
/// Positions are absolute: the number of octets before them, counted from the first octet of the connection.
#[derive(Clone, Default)]
pub(crate) struct Output {
    /// `buffer[head..]` is unwritten.
    buffer: Vec<u8>,
    head: usize,
    written: u64,
    gates: VecDeque<Gate>,
}

/// What stays allocated once all is written: as much as a thousand short requests take. More was a large value.
const KEEP: usize = 16 * 1024;

/// A ring takes some thirty octets; more was a batch, after which another one may follow.
const BATCH: usize = 1024;

/// Octets from `at` up to `end`, and all behind them, wait for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gate {
    pub(crate) opener: Opener,
    /// The frames until then cannot concern this entry and those behind it: they have not been sent.
    pub(crate) hides_from: RequestId,
    at: u64,
    /// What is dropped if the opener is refused ends here.
    end: u64,
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

/// Octets from `at` on were dropped unseen.
#[derive(Clone, Copy)]
pub(crate) struct Dropped {
    pub(crate) at: u64,
    pub(crate) octets: u64,
}

/// Where to go back to if an encoding is not taken.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    octets: usize,
    gates: usize,
}

impl Output {
    pub(crate) fn window(&self) -> &[u8] {
        let unwritten = self.buffer.get(self.head..).unwrap_or_default();
        match self.gates.front() {
            Some(gate) => unwritten.get(..self.relative(gate.at)).unwrap_or(unwritten),
            None => unwritten,
        }
    }

    /// Clamped to the window, so that nothing behind a gate is ever counted as written.
    pub(crate) fn advance(&mut self, written: usize) {
        let written = written.min(self.window().len());
        self.head += written;
        self.written += written as u64;
        if self.head == self.buffer.len() {
            self.buffer.clear();
            self.head = 0;
            if self.buffer.capacity() > KEEP {
                self.buffer = Vec::new();
            }
        } else if self.head > self.waiting() {
            self.buffer.drain(..self.head);
            self.head = 0;
        }
    }

    /// Gives back what holds nothing; the memory of a batch only from an idle connection.
    pub(crate) fn shrink_to_fit(&mut self, idle: bool) {
        if self.waiting() == 0 && (idle || self.buffer.capacity() <= BATCH) {
            (self.buffer, self.head) = (Vec::new(), 0);
        }
        if self.gates.is_empty() {
            self.gates = VecDeque::new();
        }
    }

    /// Octets that wait, with what gates hold back.
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len() - self.head
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The position of the next octet to be put.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.waiting() as u64
    }

    #[inline]
    pub(crate) fn put(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { octets: self.buffer.len(), gates: self.gates.len() }
    }

    pub(crate) fn octets_since(&self, mark: Mark) -> usize {
        self.buffer.len() - mark.octets
    }

    pub(crate) fn back_to(&mut self, mark: Mark) {
        self.buffer.truncate(mark.octets);
        self.gates.truncate(mark.gates);
    }

    /// What is put from here on waits for `opener`.
    pub(crate) fn close_gate(&mut self, opener: Opener, hides_from: RequestId) {
        let at = self.end();
        self.gates.push_back(Gate { opener, hides_from, at, end: at });
    }

    /// The gates closed since the `mark` hold back what has been put until now.
    #[inline]
    pub(crate) fn seal(&mut self, mark: Mark) {
        if self.gates.len() > mark.gates {
            let end = self.end();
            self.gates.iter_mut().skip(mark.gates).for_each(|gate| gate.end = end);
        }
    }

    pub(crate) fn first_gate(&self) -> Option<&Gate> {
        self.gates.front()
    }

    pub(crate) fn open_gate(&mut self) {
        self.gates.pop_front();
    }

    /// Puts octets in front of the first gate, or at the end: where they are.
    pub(crate) fn put_before_gate(&mut self, octets: &[u8]) -> u64 {
        let at = self.gates.front().map_or(self.end(), |gate| gate.at);
        let index = self.head + self.relative(at);
        self.buffer.splice(index..index, octets.iter().copied());
        for gate in &mut self.gates {
            gate.at += octets.len() as u64;
            gate.end += octets.len() as u64;
        }
        at
    }

    /// Drops what waits for `opener`, which was refused.
    pub(crate) fn drop_gated(&mut self, opener: Opener) -> Option<Dropped> {
        let Gate { at, end, .. } = *self.gates.iter().find(|gate| gate.opener == opener)?;
        let octets = end - at;
        let (from, to) = (self.head + self.relative(at), self.head + self.relative(end));
        self.buffer.drain(from..to);
        self.gates.retain(|gate| gate.opener != opener);
        for gate in self.gates.iter_mut().filter(|gate| gate.at >= end) {
            gate.at -= octets;
            gate.end -= octets;
        }
        Some(Dropped { at, octets })
    }

    /// From the first unwritten octet to `position`; both ends are in the buffer, so it fits.
    fn relative(&self, position: u64) -> usize {
        usize::try_from(position.saturating_sub(self.written)).unwrap_or(usize::MAX).min(self.waiting())
    }

    fn live_gates(&self) -> impl Iterator<Item = (Opener, RequestId, usize, usize)> {
        self.gates.iter().map(|gate| (gate.opener, gate.hides_from, self.relative(gate.at), self.relative(gate.end)))
    }

    fn unwritten(&self) -> &[u8] {
        self.buffer.get(self.head..).unwrap_or_default()
    }
}

/// Equal where all that follows will be equal: what has been written does not count.
impl PartialEq for Output {
    fn eq(&self, other: &Self) -> bool {
        self.unwritten() == other.unwritten() && self.live_gates().eq(other.live_gates())
    }
}

impl Eq for Output {}

impl hash::Hash for Output {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.unwritten().hash(state);
        self.live_gates().for_each(|gate| gate.hash(state));
    }
}

/// Octets on their way out may hold a password: only their number is shown.
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
