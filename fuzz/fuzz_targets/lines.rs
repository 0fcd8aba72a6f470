//! Whatever the octets, the terminator, the limit and the mixture of `next_line` and `take`, `LineDecoder` returns, call
//! by call, what a naive splitter returns that looks at every unread octet again. A caller that takes all there is gets
//! the same lines, runs and error, and is left with an equal decoder, however the octets were cut.
//!
//! Input: three lines, then the wire.
//! 1. `c` (CR LF), `l` (LF) or `e` (either), then the limit in decimal: `c16384`.
//! 2. Calls: `n` is `next_line`, a digit is `take` of so many octets, a capital letter `take` of 60 (`A`) and more.
//! 3. The sizes of chunks, see `Chunking::Chosen`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::{LineDecoder, Terminator};
use sonnette_fuzz::{Chunking, header};
use std::iter;

#[derive(Clone, Copy, Debug)]
enum Call {
    Line,
    Take(usize),
}

/// A frame, nothing yet, or the limit that was exceeded.
type Returned = Result<Option<Vec<u8>>, usize>;

trait Splitter {
    fn push(&mut self, octets: &[u8]);
    fn call(&mut self, call: Call) -> Returned;
}

impl Splitter for LineDecoder {
    fn push(&mut self, octets: &[u8]) {
        self.push(octets);
    }

    fn call(&mut self, call: Call) -> Returned {
        match call {
            Call::Line => self.next_line().map(|line| line.map(|line| line.to_vec())).map_err(|error| error.limit),
            Call::Take(octets) => Ok(self.take(octets).map(|run| run.to_vec())),
        }
    }
}

struct Naive {
    unread: Vec<u8>,
    terminator: Terminator,
    max_line: usize,
    failed: bool,
}

impl Naive {
    /// The rule: a line ends where the first terminator begins, at most `max_line` octets on. An octet that may yet
    /// begin a terminator is not content yet.
    fn next_line(&mut self) -> Returned {
        use Terminator::{CrLf, Either, Lf};
        for at in 0..=self.unread.len() {
            if self.failed || at > self.max_line {
                self.failed = true;
                return Err(self.max_line);
            }
            match (self.terminator, &self.unread[at..]) {
                (CrLf | Either, [b'\r', b'\n', ..]) => return Ok(Some(self.cut(at, 2))),
                (Lf | Either, [b'\n', ..]) => return Ok(Some(self.cut(at, 1))),
                (CrLf | Either, b"\r") => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    fn cut(&mut self, content: usize, terminator: usize) -> Vec<u8> {
        let frame = self.unread.drain(..content).collect();
        self.unread.drain(..terminator);
        frame
    }
}

impl Splitter for Naive {
    fn push(&mut self, octets: &[u8]) {
        self.unread.extend_from_slice(octets);
    }

    fn call(&mut self, call: Call) -> Returned {
        match call {
            Call::Line => self.next_line(),
            Call::Take(octets) => {
                let arrived = !self.failed && octets <= self.unread.len();
                Ok(arrived.then(|| self.cut(octets, 0)))
            }
        }
    }
}

/// Takes all there is after each chunk: the calls in turn, each until it has returned something, then lines.
fn take_all(splitter: &mut impl Splitter, chunks: &[&[u8]], calls: &[Call]) -> Vec<Returned> {
    let mut calls = calls.iter().copied().chain(iter::repeat(Call::Line)).peekable();
    let mut returned = Vec::new();
    for chunk in chunks {
        splitter.push(chunk);
        while let Some(&call) = calls.peek() {
            match splitter.call(call) {
                Ok(None) => break,
                frame => returned.push(frame),
            }
            if matches!(returned.last(), Some(Err(_))) {
                break;
            }
            calls.next();
        }
    }
    // The same error came once for each chunk since.
    returned.dedup_by(|later, earlier| later.is_err() && later == earlier);
    returned
}

/// One call after each chunk, whether it returns anything or not.
fn call_by_call(splitter: &mut impl Splitter, chunks: &[&[u8]], calls: &[Call]) -> Vec<Returned> {
    let calls = calls.iter().chain(iter::repeat(&Call::Line));
    let one = |(chunk, &call): (&&[u8], &Call)| {
        splitter.push(chunk);
        splitter.call(call)
    };
    chunks.iter().zip(calls).map(one).collect()
}

fn terminator_and_limit(line: &[u8]) -> (Terminator, usize) {
    let terminator = match line.first() {
        Some(b'l') => Terminator::Lf,
        Some(b'e') => Terminator::Either,
        _ => Terminator::CrLf,
    };
    let digits = line.iter().filter(|octet| octet.is_ascii_digit());
    let limit =
        digits.fold(0, |limit: usize, digit| limit.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    (terminator, limit)
}

fn calls(line: &[u8]) -> Vec<Call> {
    let call = |&octet: &u8| match octet {
        b'n' => Some(Call::Line),
        b'0'..=b'9' => Some(Call::Take(usize::from(octet - b'0'))),
        b'A'..=b'Z' => Some(Call::Take(60 + usize::from(octet - b'A'))),
        _ => None,
    };
    line.iter().filter_map(call).collect()
}

fuzz_target!(|data: &[u8]| {
    let (first, rest) = header(data);
    let (second, rest) = header(rest);
    let (sizes, wire) = header(rest);
    let (terminator, max_line) = terminator_and_limit(first);
    let calls = calls(second);
    let decoder = || LineDecoder::new(terminator, max_line);
    let naive = || Naive { unread: Vec::new(), terminator, max_line, failed: false };

    let expected = take_all(&mut naive(), &[wire], &calls);
    let mut whole = decoder();
    take_all(&mut whole, &[wire], &calls);
    for chunking in [Chunking::Whole, Chunking::Bytewise, Chunking::Chosen(sizes)] {
        let mut split = decoder();
        assert_eq!(take_all(&mut split, &chunking.cut(wire), &calls), expected, "{chunking:?}");
        assert_eq!(split, whole, "{chunking:?}");
    }
    let chunks = Chunking::Chosen(sizes).cut(wire);
    assert_eq!(call_by_call(&mut decoder(), &chunks, &calls), call_by_call(&mut naive(), &chunks, &calls));
});
