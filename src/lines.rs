//! From octets to frames: a line without its terminator, or a run of raw octets that a line announced.

use bytes::{Buf, Bytes, BytesMut};
use core::{error, fmt, hash, ops};

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
/// - The buffer starts without memory.
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
    /// `buffer[head..]` is unread. The head moves with each frame; octets move only in `push`, and when a frame is cut
    /// out of the buffer.
    buffer: BytesMut,
    head: usize,
    /// Values cut out of the buffer share its memory. What is left of it here must not keep that alive.
    shared: bool,
    /// So many unread octets have been searched and hold no terminator. Feeding `a`, `b\r`, `\n` searches one, two and
    /// one octet, and looks back one octet from the LF.
    searched: usize,
    terminator: Terminator,
    max_line: usize,
    failed: bool,
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

/// A shorter value is copied out, a longer one shares the buffer it arrived in. A kept value keeps its whole buffer
/// alive; one kept line in each 64 KiB read would hold a thousand times its size.
const COPY_BELOW: usize = 64;

impl LineDecoder {
    /// A decoder for lines of at most `max_line` octets before the `terminator`.
    #[must_use]
    pub fn new(terminator: Terminator, max_line: usize) -> Self {
        LineDecoder {
            buffer: BytesMut::new(),
            head: 0,
            shared: false,
            searched: 0,
            terminator,
            max_line,
            failed: false,
        }
    }

    /// Adds what was read. Nothing is decoded yet. Ignored after an error.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        // Moving the rest to the front only where it is the smaller part keeps the total work linear.
        if self.head >= self.buffer.len() - self.head {
            self.buffer.advance(self.head);
            self.head = 0;
        }
        self.buffer.extend_from_slice(bytes);
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
                self.replace(BytesMut::new());
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
        self.buffer.get(self.head..).unwrap_or_default()
    }

    /// Finds the next line and leaves it where it is, also one that is too long.
    #[inline]
    pub(crate) fn find_line(&mut self) -> Result<Option<Span>, LineTooLong> {
        if self.failed {
            return Err(LineTooLong { limit: self.max_line });
        }
        let unread = self.buffer.get(self.head..).unwrap_or_default();
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
    #[inline]
    pub(crate) fn skip(&mut self, octets: usize) {
        self.head += octets;
        self.searched = self.searched.saturating_sub(octets);
        if self.head >= self.buffer.len() {
            self.head = 0;
            self.buffer.clear();
        }
    }

    /// Takes a frame out of the buffer.
    fn cut(&mut self, span: Span) -> Bytes {
        if span.content < COPY_BELOW {
            let value = Bytes::copy_from_slice(&self.unread()[..span.content]);
            self.skip(span.total);
            return value;
        }
        self.buffer.advance(self.head);
        self.head = 0;
        let mut value = self.buffer.split_to(span.total).freeze();
        value.truncate(span.content);
        (self.shared, self.searched) = (true, 0);
        self.skip(0);
        value
    }

    fn replace(&mut self, buffer: BytesMut) {
        (self.buffer, self.head, self.shared) = (buffer, 0, false);
    }

    /// Lends the next `span.total` unread octets. They stay unread unless the frame is cut out.
    #[inline]
    pub(crate) fn frame(&mut self, span: Span, kind: Kind) -> Frame<'_> {
        Frame { lines: self, span, kind, cut: None }
    }

    /// Lends what is unread, at most so many octets of it.
    #[inline]
    pub(crate) fn arrived(&mut self, most: usize) -> Frame<'_> {
        let octets = self.unread().len().min(most);
        self.frame(Span { content: octets, total: octets }, Kind::Open)
    }

    /// Gives back the buffer if it holds nothing.
    pub(crate) fn shrink_to_fit(&mut self) {
        if self.unread().is_empty() {
            self.replace(BytesMut::new());
        }
    }

    /// Gives back memory that a large push or frame left behind what is unread. Each octet is copied for it at most
    /// once for each frame.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        let unread = self.unread().len();
        if self.shared || (self.buffer.capacity() > KEEP && self.buffer.capacity() / 4 > unread) {
            self.replace(BytesMut::from(self.unread()));
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
    span: Span,
    kind: Kind,
    cut: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Line,
    Raw,
    /// What has arrived; the protocol is to say where it ends.
    Open,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} octets", self.content)
    }
}

impl Frame<'_> {
    /// Whether these are raw octets that a line announced, not a line.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.kind == Kind::Raw
    }

    /// Says that the frame ends after so many octets: for [`Protocol::known_line`](crate::Protocol::known_push), before
    /// anything is taken out of it. The frames lent to [`decode`](crate::Protocol::decode) have their end.
    #[inline]
    pub fn truncate(&mut self, octets: usize) {
        if self.kind == Kind::Open && self.cut.is_none() {
            let octets = self.span.content.min(octets);
            self.span = Span { content: octets, total: octets };
        }
    }

    /// A part of the frame to keep; a range that goes beyond the frame is cut to it.
    ///
    /// Values of 64 octets and more share the buffer they arrived in, without a copy, and keep it alive as long as they
    /// live. Copy what is to be kept for long.
    pub fn slice(&mut self, range: impl ops::RangeBounds<usize>) -> Bytes {
        let end = match range.end_bound() {
            ops::Bound::Included(&last) => last.saturating_add(1),
            ops::Bound::Excluded(&end) => end,
            ops::Bound::Unbounded => usize::MAX,
        };
        let end = end.min(self.len());
        let start = match range.start_bound() {
            ops::Bound::Included(&start) => start,
            ops::Bound::Excluded(&before) => before.saturating_add(1),
            ops::Bound::Unbounded => 0,
        };
        let start = start.min(end);
        if end - start < COPY_BELOW {
            return Bytes::copy_from_slice(&self[start..end]);
        }
        let (lines, span) = (&mut self.lines, self.span);
        self.cut.get_or_insert_with(|| lines.cut(span)).slice(start..end)
    }

    /// The whole frame, to keep: see [`slice`](Self::slice).
    pub fn to_bytes(&mut self) -> Bytes {
        self.slice(..)
    }

    /// The frame, if it was taken out of the buffer, else `None`: it is still unread.
    pub(crate) fn into_cut(self) -> Option<Bytes> {
        self.cut
    }

    /// Goes past a frame whose end the protocol has said.
    #[inline]
    pub(crate) fn skip(self) {
        if self.cut.is_none() {
            self.lines.skip(self.span.total);
        }
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

    fn deref(&self) -> &[u8] {
        match &self.cut {
            Some(cut) => cut,
            None => &self.lines.unread()[..self.span.content],
        }
    }
}
