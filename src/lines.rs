//! From octets to frames: a line without its terminator, or a run of raw octets that a line announced.

use alloc::vec::Vec;
use bytes::Bytes;
use core::{error, fmt, hash, mem, ops};

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terminator {
    /// CR LF. A bare CR or LF is content.
    CrLf,
    /// LF. A CR before it is content.
    Lf,
    /// LF, or CR LF: one CR just before the LF is part of the terminator.
    Either,
}

impl Terminator {
    /// How many of the octets `before` a found LF belong to the terminator; `None` if that LF is content.
    fn octets_before_lf(self, before: &[u8]) -> Option<usize> {
        let cr = before.last() == Some(&b'\r');
        match self {
            Terminator::CrLf => cr.then_some(1),
            Terminator::Lf => Some(0),
            Terminator::Either => Some(usize::from(cr)),
        }
    }

    /// How many octets at the end of an unfinished line may turn out to be terminator.
    fn perhaps_terminator(self, unfinished: &[u8]) -> usize {
        usize::from(self != Terminator::Lf && unfinished.last() == Some(&b'\r'))
    }
}

/// A line had more octets before its terminator than the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineTooLong {
    /// The limit, in octets of content.
    pub limit: usize,
}

impl fmt::Display for LineTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line of more than {} octets", self.limit)
    }
}

impl error::Error for LineTooLong {}

/// Cuts a stream of octets into lines, and into raw runs where the caller says so.
///
/// The counterpart of Twisted's `LineReceiver`, without callbacks: [`push`](Self::push) what was read, then take lines
/// with [`next_line`](Self::next_line) or raw octets with [`take`](Self::take) until there are none.
///
/// - Each octet is searched for a terminator at most once, however the input was cut.
/// - The limit counts content, not the terminator, and the verdict does not depend on how the input was cut: a CR at
///   the end of what has arrived may be half of a terminator and does not count yet.
/// - The buffer starts without memory. What was taken keeps a part of it alive, as described at [`Frame::slice`].
///
/// ```
/// use sonnette::{LineDecoder, Terminator};
///
/// let mut lines = LineDecoder::new(Terminator::CrLf, 16_384);
/// lines.push(b"photo {3}\r\n\r\n\xffdone\r");
/// assert_eq!(lines.next_line()?.unwrap(), "photo {3}");
/// assert_eq!(lines.take(3).unwrap(), &b"\r\n\xff"[..]);
/// assert_eq!(lines.next_line()?, None);
/// lines.push(b"\n");
/// assert_eq!(lines.next_line()?.unwrap(), "done");
/// # Ok::<(), sonnette::LineTooLong>(())
/// ```
#[derive(Clone)]
pub struct LineDecoder {
    /// `input[head..]` is unread. The head moves with each frame; octets move only in `push`.
    input: Input,
    head: usize,
    /// So many unread octets have been searched and hold no terminator. Feeding `a`, `b\r`, `\n` searches one, two and
    /// one octet, and looks back one octet from the LF.
    searched: usize,
    terminator: Terminator,
    max_line: usize,
    failed: bool,
}

/// What was received, and what values are cut from.
#[derive(Clone)]
struct Input {
    growing: Vec<u8>,
    /// A block, or nothing: a copy of `growing[from..]` as far as it goes. Or, frozen, what was in `growing`: values share it,
    /// and what is unread must not keep it alive for long.
    shared: Bytes,
    from: usize,
    /// Shorter values would keep too much alive with what is frozen. 0 if nothing is.
    least: usize,
}

impl Input {
    const fn new(growing: Vec<u8>) -> Self {
        Input { growing, shared: Bytes::new(), from: 0, least: 0 }
    }

    /// Whether the input is in `shared`, not in `growing`.
    #[inline(always)]
    fn is_frozen(&self) -> bool {
        self.least > 0
    }

    /// Whether this part can be cut from what is shared.
    #[inline(always)]
    fn is_shared(&self, range: &ops::Range<usize>) -> bool {
        range.start >= self.from && range.end - self.from <= self.shared.len() && range.len() >= self.least
    }

    /// Shares what this part can be cut from, where `head` is the first octet that is unread; or copies it.
    #[cold]
    fn share(&mut self, range: ops::Range<usize>, head: usize) -> Option<Bytes> {
        let least = self.growing.capacity().div_ceil(MOST_KEPT);
        let (shared, from, least) = if self.is_frozen() {
            return Some(Bytes::copy_from_slice(&self.shared[range]));
        } else if range.len() >= least {
            (mem::take(&mut self.growing).into(), 0, least)
        } else if range.len() <= LONGEST_IN_BLOCK && range.end <= head + BLOCK {
            let end = self.growing.len().min(head + BLOCK);
            (Bytes::copy_from_slice(&self.growing[head..end]), head, 0)
        } else {
            return Some(Bytes::copy_from_slice(&self.growing[range]));
        };
        (self.shared, self.from, self.least) = (shared, from, least);
        None
    }
}

impl ops::Deref for Input {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        if self.is_frozen() { &self.shared } else { &self.growing }
    }
}

/// Where the next line is: so many unread octets of content, so many with the terminator.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) content: usize,
    pub(crate) total: usize,
}

/// What stays allocated for the next read once everything has been decoded: as much as the adapters read at once. A
/// larger buffer, the trace of one large push or frame, is given back.
const KEEP: usize = 64 * 1024;

/// A shorter value is copied, where it may be kept for long.
const COPY_BELOW: usize = 64;

/// A value shares the buffer it arrived in if that is at most so many times as large: of a read of 64 KiB, one of 512
/// octets. One octet in each would otherwise keep all of it alive; and to copy long ones takes as long as to decode them.
const MOST_KEPT: usize = 128;

/// Octets of a block, which begins with a frame of which a short value is not wholly in the block before. That ends within
/// this frame, so each octet is in two blocks at most. Forty messages of 16 octets fit in: enough that what it takes to make
/// one does not count.
const BLOCK: usize = 2 * 1024;

/// Longer values would leave much of a block unused. Three of these, a push with all that is around them, fit in.
const LONGEST_IN_BLOCK: usize = BLOCK / 4;

impl LineDecoder {
    /// A decoder for lines of at most `max_line` octets before the `terminator`.
    #[must_use]
    pub fn new(terminator: Terminator, max_line: usize) -> Self {
        LineDecoder { input: Input::new(Vec::new()), head: 0, searched: 0, terminator, max_line, failed: false }
    }

    /// Adds what was read. Nothing is decoded yet. Ignored after an error.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        if self.input.is_frozen() {
            self.begin_anew(bytes.len());
        }
        let buffer = &mut self.input.growing;
        // Moving the rest to the front only where it is the smaller part keeps the total work linear.
        if self.head > 0 && self.head >= buffer.len() - self.head {
            buffer.drain(..self.head);
            self.head = 0;
            self.input.shared = Bytes::new();
        }
        buffer.extend_from_slice(bytes);
    }

    /// Values keep alive what was received before: what is unread of it goes to a buffer of its own, with room for `more`.
    #[cold]
    fn begin_anew(&mut self, more: usize) {
        let unread = self.unread();
        let mut buffer = Vec::with_capacity(unread.len() + more);
        buffer.extend_from_slice(unread);
        self.replace(buffer);
    }

    /// The next whole line, without its terminator, or `None` until more is pushed.
    ///
    /// # Errors
    /// [`LineTooLong`], the same again from every later call.
    pub fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        match self.find_line() {
            Ok(Some(span)) => Ok(Some(self.cut(span))),
            Ok(None) => {
                self.shrink();
                Ok(None)
            }
            Err(error) => {
                self.failed = true;
                self.replace(Vec::new());
                Err(error)
            }
        }
    }

    /// The next `octets` octets, whatever they are, or `None` until all of them have arrived.
    pub fn take(&mut self, octets: usize) -> Option<Bytes> {
        (!self.failed && self.unread().len() >= octets).then(|| self.cut(Span { content: octets, total: octets }))
    }

    #[inline]
    pub(crate) fn unread(&self) -> &[u8] {
        self.input.get(self.head..).unwrap_or_default()
    }

    /// Finds the next line and leaves it where it is, also one that is too long.
    #[inline]
    pub(crate) fn find_line(&mut self) -> Result<Option<Span>, LineTooLong> {
        if self.failed {
            return Err(LineTooLong { limit: self.max_line });
        }
        let unread = self.input.get(self.head..).unwrap_or_default();
        let mut content = unread.len() - self.terminator.perhaps_terminator(unread);
        let mut found = None;
        while let Some(at) = find_lf(unread.get(self.searched..).unwrap_or_default()) {
            let lf = self.searched + at;
            if let Some(before) = self.terminator.octets_before_lf(&unread[..lf]) {
                content = lf - before;
                found = Some(Span { content, total: lf + 1 });
                // The caller may ask again before it takes this line: stay at its end.
                self.searched = lf;
                break;
            }
            self.searched = lf + 1;
        }
        if found.is_none() {
            self.searched = unread.len();
        }
        if content > self.max_line {
            return Err(LineTooLong { limit: self.max_line });
        }
        Ok(found)
    }

    /// So many unread octets are the first of which [`find_line`](Self::find_line) says that they are too long.
    pub(crate) fn too_long_at(&self) -> usize {
        let exceeding = self.unread().get(..=self.max_line).unwrap_or_default();
        exceeding.len() + self.terminator.perhaps_terminator(exceeding)
    }

    /// Goes past `octets` unread octets.
    #[inline(always)]
    pub(crate) fn skip(&mut self, octets: usize) {
        self.searched = self.searched.saturating_sub(octets);
        self.head += octets;
        if self.head >= self.input.len() {
            self.head = 0;
            self.input.growing.clear();
            self.input.shared = Bytes::new();
            self.input.least = 0;
        }
    }

    /// Takes a frame.
    fn cut(&mut self, span: Span) -> Bytes {
        let value = self.value(0..span.content);
        self.skip(span.total);
        value
    }

    /// A part of what is unread, to keep.
    fn value(&mut self, range: ops::Range<usize>) -> Bytes {
        if range.len() < COPY_BELOW {
            return Bytes::copy_from_slice(&self.unread()[range]);
        }
        self.share(range)
    }

    /// Likewise, as cheaply as it can be had.
    #[inline(always)]
    fn share(&mut self, range: ops::Range<usize>) -> Bytes {
        let range = self.head + range.start..self.head + range.end;
        if !self.input.is_shared(&range) {
            if let Some(copy) = self.input.share(range.clone(), self.head) {
                return copy;
            }
        }
        self.input.shared.slice(range.start - self.input.from..range.end - self.input.from)
    }

    fn replace(&mut self, buffer: Vec<u8>) {
        (self.input, self.head) = (Input::new(buffer), 0);
    }

    /// Lends the next unread octets, which stay unread.
    #[inline]
    pub(crate) fn frame(&mut self, octets: usize, kind: Kind) -> Frame<'_> {
        Frame { lines: self, octets, kind }
    }

    /// Lends what is unread, at most so many octets of it.
    #[inline]
    pub(crate) fn arrived(&mut self, most: usize) -> Frame<'_> {
        self.frame(self.unread().len().min(most), Kind::Open)
    }

    /// Gives back the buffer if it holds nothing.
    pub(crate) fn shrink_to_fit(&mut self) {
        if self.unread().is_empty() {
            self.replace(Vec::new());
        }
    }

    /// Gives back memory that a large push or frame left behind what is unread. Each octet is copied for it at most
    /// once for each frame.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        let capacity = self.input.growing.capacity();
        let is_too_large = capacity > KEEP && capacity / 4 > self.unread().len();
        if is_too_large || !self.input.shared.is_empty() {
            self.shrink_input(is_too_large);
        }
    }

    #[cold]
    fn shrink_input(&mut self, is_too_large: bool) {
        if is_too_large || self.input.is_frozen() {
            self.replace(self.unread().to_vec());
        } else {
            self.input.shared = Bytes::new();
        }
    }
}

/// Few octets, as when they come one at a time, are looked through faster than memchr is called.
#[inline]
fn find_lf(octets: &[u8]) -> Option<usize> {
    if octets.len() < 8 {
        return octets.iter().position(|&octet| octet == b'\n');
    }
    memchr::memchr(b'\n', octets)
}

/// Equal where all that follows will be equal: position in the buffer and search progress do not count.
impl PartialEq for LineDecoder {
    fn eq(&self, other: &Self) -> bool {
        self.live() == other.live()
    }
}

impl Eq for LineDecoder {}

impl hash::Hash for LineDecoder {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.live().hash(state);
    }
}

impl LineDecoder {
    fn live(&self) -> (&[u8], Terminator, usize, bool) {
        (self.unread(), self.terminator, self.max_line, self.failed)
    }
}

impl fmt::Debug for LineDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineDecoder")
            .field("unread", &self.unread().len())
            .field("terminator", &self.terminator)
            .field("max_line", &self.max_line)
            .field("failed", &self.failed)
            .finish()
    }
}

/// One frame, lent to [`Protocol::decode`](crate::Protocol::decode): derefs to its octets.
#[derive(Debug)]
pub struct Frame<'a> {
    lines: &'a mut LineDecoder,
    octets: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Line,
    Raw,
    /// What has arrived; the protocol is to say where it ends.
    Open,
}

impl Frame<'_> {
    /// Whether these are raw octets that a line announced, not a line.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.kind == Kind::Raw
    }

    /// Says that the frame ends after so many octets: for [`Protocol::known_push`](crate::Protocol::known_push). The frames
    /// lent to [`decode`](crate::Protocol::decode) have their end.
    #[inline]
    pub fn truncate(&mut self, octets: usize) {
        if self.kind == Kind::Open {
            self.octets = self.octets.min(octets);
        }
    }

    /// A part of the frame to keep; a range that goes beyond the frame is cut to it.
    ///
    /// A value of fewer than 64 octets is a copy, and keeps nothing else alive. A longer one is as by
    /// [`share`](Self::share).
    pub fn slice(&mut self, range: impl ops::RangeBounds<usize>) -> Bytes {
        let range = self.within(range);
        self.lines.value(range)
    }

    /// As [`slice`](Self::slice), but without an allocation for each short value: for those that are seldom kept.
    ///
    /// A value shares the buffer it arrived in if that is at most 128 times as large: of a read of 64 KiB, one of 512
    /// octets. Shorter ones share a copy of 2 KiB with their neighbours, or have one of their own. So a value keeps alive
    /// 2 KiB or 128 times its octets at most, as long as it lives. Copy what is to be kept for long.
    #[inline(always)]
    pub fn share(&mut self, range: impl ops::RangeBounds<usize>) -> Bytes {
        let range = self.within(range);
        self.lines.share(range)
    }

    #[inline(always)]
    fn within(&self, range: impl ops::RangeBounds<usize>) -> ops::Range<usize> {
        let end = match range.end_bound() {
            ops::Bound::Included(&last) => last.saturating_add(1),
            ops::Bound::Excluded(&end) => end,
            ops::Bound::Unbounded => usize::MAX,
        };
        let end = end.min(self.octets);
        let start = match range.start_bound() {
            ops::Bound::Included(&start) => start,
            ops::Bound::Excluded(&before) => before.saturating_add(1),
            ops::Bound::Unbounded => 0,
        };
        start.min(end)..end
    }

    /// The whole frame, to keep: see [`slice`](Self::slice).
    pub fn to_bytes(&mut self) -> Bytes {
        self.slice(..)
    }

    /// Goes past a frame whose end the protocol has said.
    #[inline]
    pub(crate) fn skip(self) {
        self.lines.skip(self.octets);
    }
}

impl PartialEq<[u8]> for Frame<'_> {
    fn eq(&self, octets: &[u8]) -> bool {
        **self == *octets
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Frame<'_> {
    fn eq(&self, octets: &[u8; N]) -> bool {
        **self == *octets
    }
}

impl ops::Deref for Frame<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.lines.unread()[..self.octets]
    }
}
