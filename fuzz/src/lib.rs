//! What the targets share. Their inputs are text as far as possible, so that a seed can be written and a finding read:
//! a few header lines, each ended by LF, then the octets of the wire.

/// Cuts the first header line off; without LF all of it is that line.
#[must_use]
pub fn header(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|&octet| octet == b'\n') {
        Some(lf) => (&data[..lf], &data[lf + 1..]),
        None => (data, &[]),
    }
}

/// How a stream of octets arrives.
#[derive(Clone, Copy, Debug)]
pub enum Chunking<'a> {
    Whole,
    Bytewise,
    /// Sizes in turn, over and over: the low four bits of each octet, so that a digit is itself. An empty chunk is a
    /// read of zero octets.
    Chosen(&'a [u8]),
}

impl<'a> Chunking<'a> {
    /// The `wire` in pieces, at least one.
    #[must_use]
    pub fn cut(self, mut wire: &'a [u8]) -> Vec<&'a [u8]> {
        let mut sizes = match self {
            _ if wire.is_empty() => return vec![wire],
            Chunking::Bytewise => b"1",
            Chunking::Chosen(sizes) if sizes.iter().any(|size| size & 15 != 0) => sizes,
            Chunking::Whole | Chunking::Chosen(_) => return vec![wire],
        }
        .iter()
        .map(|size| usize::from(size & 15))
        .cycle();
        let mut chunks = Vec::new();
        while !wire.is_empty() {
            let (chunk, rest) = wire.split_at(sizes.next().unwrap_or(wire.len()).min(wire.len()));
            chunks.push(chunk);
            wire = rest;
        }
        chunks
    }
}
