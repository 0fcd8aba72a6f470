//! `LineDecoder`, on its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use allocation_counter::measure;
use sonnette::{LineDecoder, LineTooLong, Terminator};
use std::collections::HashSet;
use std::iter;

const TERMINATORS: [Terminator; 3] = [Terminator::CrLf, Terminator::Lf, Terminator::Either];

/// The lines, then whether one was over-long, then what is held.
type Outcome = (Vec<Vec<u8>>, bool, Vec<u8>);

fn drain(lines: &mut LineDecoder, found: &mut Vec<Vec<u8>>) -> Result<(), LineTooLong> {
    while let Some(line) = lines.next_line()? {
        found.push(line.to_vec());
    }
    Ok(())
}

fn decode<'a>(terminator: Terminator, limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut lines = LineDecoder::new(terminator, limit);
    let (mut found, mut over) = (Vec::new(), false);
    for chunk in chunks {
        lines.push(chunk);
        over |= drain(&mut lines, &mut found).is_err();
    }
    let rest = iter::from_fn(|| lines.take(1)).flatten().collect();
    (found, over, rest)
}

/// The same, said as simply as possible: look at all of the input at once.
fn naive(terminator: Terminator, limit: usize, input: &[u8]) -> Outcome {
    let ends: &[&[u8]] = match terminator {
        Terminator::CrLf => &[b"\r\n"],
        Terminator::Lf => &[b"\n"],
        Terminator::Either => &[b"\r\n", b"\n"],
    };
    let (mut found, mut rest) = (Vec::new(), input);
    loop {
        let next = (0..rest.len()).find_map(|at| {
            let end = ends.iter().find(|end| rest[at..].starts_with(end))?;
            Some((at, at + end.len()))
        });
        // A CR at the end of what is held may be half of a terminator.
        let held = if terminator == Terminator::Lf { rest } else { rest.strip_suffix(b"\r").unwrap_or(rest) };
        let content = next.map_or(held.len(), |(content, _)| content);
        if content > limit {
            return (found, true, Vec::new());
        }
        let Some((content, total)) = next else { return (found, false, rest.to_vec()) };
        found.push(rest[..content].to_vec());
        rest = &rest[total..];
    }
}

/// All strings over `alphabet` of at most `longest` octets.
fn strings(alphabet: &[u8], longest: usize) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..longest {
        let until = all.len();
        for at in from..until {
            let longer = alphabet.iter().map(|&octet| [&*all[at], &[octet]].concat());
            all.extend(longer.collect::<Vec<_>>());
        }
        from = until;
    }
    all
}

/// Every way to cut `input`: bit `n` of the number says whether there is a cut behind octet `n`.
fn all_cuts(input: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    (0..1_u32 << input.len().saturating_sub(1)).map(move |cuts| {
        let (mut chunks, mut from) = (Vec::new(), 0);
        for until in 1..=input.len() {
            if until == input.len() || cuts >> (until - 1) & 1 == 1 {
                chunks.push(&input[from..until]);
                from = until;
            }
        }
        chunks
    })
}

/// Every pair of cut points.
fn cut_twice(input: &[u8]) -> impl Iterator<Item = [&[u8]; 3]> {
    let cuts = (0..=input.len()).flat_map(move |second| (0..=second).map(move |first| (first, second)));
    cuts.map(|(first, second)| [&input[..first], &input[first..second], &input[second..]])
}

fn end_of(terminator: Terminator) -> &'static [u8] {
    if terminator == Terminator::Lf { b"\n" } else { b"\r\n" }
}

// What a line is.

#[test]
fn crlf_ends_a_line_and_a_bare_cr_or_lf_is_content() {
    let (lines, over, rest) = decode(Terminator::CrLf, 80, [&b"a\r\n\r\nb\nc\rd\r\n\n\r\n\r\r\n\xff\0\r\ne\r"[..]]);
    assert_eq!(lines, [&b"a"[..], b"", b"b\nc\rd", b"\n", b"\r", b"\xff\0"]);
    assert!(!over);
    assert_eq!(rest, b"e\r");
}

#[test]
fn lf_ends_a_line_and_a_cr_before_it_is_content() {
    let (lines, over, rest) = decode(Terminator::Lf, 80, [&b"a\r\n\nb\rc\n\r\n\xff\0\ne\r"[..]]);
    assert_eq!(lines, [&b"a\r"[..], b"", b"b\rc", b"\r", b"\xff\0"]);
    assert!(!over);
    assert_eq!(rest, b"e\r");
}

#[test]
fn either_ends_a_line_and_takes_one_cr_with_it() {
    let (lines, over, rest) = decode(Terminator::Either, 80, [&b"a\r\n\nb\rc\n\r\n\r\r\n\xff\0\ne\r"[..]]);
    assert_eq!(lines, [&b"a"[..], b"", b"b\rc", b"", b"\r", b"\xff\0"]);
    assert!(!over);
    assert_eq!(rest, b"e\r");
}

// The limit.

#[test]
fn a_line_at_the_limit_and_one_below_passes_and_one_above_does_not_however_it_is_cut() {
    const LIMIT: usize = 12;
    for terminator in TERMINATORS {
        for (octets, over) in [(LIMIT - 1, false), (LIMIT, false), (LIMIT + 1, true)] {
            let content = vec![b'x'; octets];
            let input = [b"a", end_of(terminator), &content, end_of(terminator), b"b"].concat();
            let lines = if over { vec![b"a".to_vec()] } else { vec![b"a".to_vec(), content] };
            let rest = if over { Vec::new() } else { b"b".to_vec() };
            let expected = (lines, over, rest);
            for chunks in cut_twice(&input) {
                assert_eq!(decode(terminator, LIMIT, chunks), expected, "{terminator:?}, {octets} octets, {chunks:?}");
            }
            assert_eq!(decode(terminator, LIMIT, input.chunks(1)), expected, "{terminator:?}, {octets} octets");
        }
    }
}

#[test]
fn an_unfinished_line_is_judged_as_soon_as_its_content_exceeds_the_limit() {
    for terminator in TERMINATORS {
        let mut lines = LineDecoder::new(terminator, 4);
        lines.push(b"abcd");
        assert_eq!(lines.next_line(), Ok(None), "{terminator:?}: at the limit");
        lines.push(b"e");
        assert_eq!(lines.next_line(), Err(LineTooLong { limit: 4 }), "{terminator:?}: one above");
    }
}

#[test]
fn a_cr_at_the_end_of_what_is_held_counts_only_where_it_cannot_be_terminator() {
    for terminator in TERMINATORS {
        let half = terminator != Terminator::Lf;
        let mut lines = LineDecoder::new(terminator, 4);
        lines.push(b"abcd\r");
        assert_eq!(lines.next_line().is_ok(), half, "{terminator:?}: perhaps half a terminator");
        if half {
            let mut content = lines.clone();
            content.push(b"\r");
            assert!(content.next_line().is_err(), "{terminator:?}: only the last CR can be half a terminator");
            lines.push(b"\n");
            assert_eq!(lines.next_line().unwrap().unwrap(), "abcd", "{terminator:?}");
        }
    }
}

#[test]
fn a_limit_of_nothing_allows_empty_lines() {
    for terminator in TERMINATORS {
        let input = end_of(terminator).repeat(2);
        assert_eq!(decode(terminator, 0, [&*input]), (vec![Vec::new(); 2], false, Vec::new()), "{terminator:?}");
        assert!(decode(terminator, 0, [&b"x"[..]]).1, "{terminator:?}");
    }
}

#[test]
fn lines_before_an_over_long_one_come_first() {
    let mut lines = LineDecoder::new(Terminator::CrLf, 4);
    lines.push(b"a\r\nbcd\r\nefghi\r\nj\r\n");
    assert_eq!(lines.next_line().unwrap().unwrap(), "a");
    assert_eq!(lines.next_line().unwrap().unwrap(), "bcd");
    assert_eq!(lines.next_line(), Err(LineTooLong { limit: 4 }));
}

#[test]
fn all_short_inputs_agree_with_the_naive_splitter_however_they_are_cut() {
    let mut over = 0;
    for input in strings(b"a\r\n", 6) {
        for terminator in TERMINATORS {
            for limit in 0..=4 {
                let expected = naive(terminator, limit, &input);
                over += usize::from(expected.1);
                for chunks in all_cuts(&input) {
                    let outcome = decode(terminator, limit, chunks.iter().copied());
                    assert_eq!(outcome, expected, "{terminator:?}, limit {limit}, {}", show(&chunks));
                }
            }
        }
    }
    assert!(over > 1_000, "the limits must matter: {over}");
}

fn show(chunks: &[&[u8]]) -> String {
    chunks.iter().map(|chunk| chunk.escape_ascii().to_string()).collect::<Vec<_>>().join(" | ")
}

#[test]
fn pushes_without_a_call_between_them_are_one() {
    for input in strings(b"a\r\n", 5) {
        for terminator in TERMINATORS {
            let mut lines = LineDecoder::new(terminator, 2);
            input.chunks(1).for_each(|octet| lines.push(octet));
            let mut whole = LineDecoder::new(terminator, 2);
            whole.push(&input);
            assert_eq!(lines, whole);
            let (mut found, mut expected) = (Vec::new(), Vec::new());
            assert_eq!(drain(&mut lines, &mut found), drain(&mut whole, &mut expected));
            assert_eq!(found, expected);
        }
    }
}

// The error.

#[test]
fn the_error_is_sticky_and_what_is_pushed_after_it_is_ignored() {
    let mut lines = LineDecoder::new(Terminator::Lf, 2);
    lines.push(b"abc");
    let error = lines.next_line().unwrap_err();
    let failed = lines.clone();
    lines.push(b"\nd\n");
    assert_eq!(lines.next_line(), Err(error));
    assert_eq!(lines.take(0), None);
    assert_eq!(lines.take(1), None);
    assert_eq!(lines.next_line(), Err(error));
    assert_eq!(lines, failed);
    assert_eq!(error.to_string(), "a line of more than 2 octets");
}

#[test]
fn after_the_error_nothing_is_held() {
    let held = measure(|| {
        let mut lines = LineDecoder::new(Terminator::Lf, 2);
        lines.push(&[b'x'; 100_000]);
        lines.next_line().unwrap_err();
        lines.push(&[b'x'; 100_000]);
        std::mem::forget(lines);
    });
    assert_eq!(held.bytes_current, 0);
}

// Raw octets.

#[test]
fn take_gives_all_that_was_asked_for_or_nothing() {
    let mut lines = LineDecoder::new(Terminator::CrLf, 80);
    assert_eq!(lines.take(1), None);
    lines.push(b"\r\n\xff");
    assert_eq!(lines.take(4), None);
    assert_eq!(lines.take(usize::MAX), None);
    lines.push(b"\nrest\r\n");
    assert_eq!(lines.take(4).unwrap(), &b"\r\n\xff\n"[..]);
    assert_eq!(lines.next_line().unwrap().unwrap(), "rest");
}

#[test]
fn take_nothing_always_succeeds_and_changes_nothing() {
    let mut lines = LineDecoder::new(Terminator::CrLf, 80);
    assert_eq!(lines.take(0).unwrap(), "");
    lines.push(b"ab\r");
    let before = lines.clone();
    assert_eq!(lines.take(0).unwrap(), "");
    assert_eq!(lines, before);
    lines.push(b"\n");
    assert_eq!(lines.next_line().unwrap().unwrap(), "ab");
}

#[test]
fn raw_octets_may_exceed_the_limit_of_a_line() {
    let mut lines = LineDecoder::new(Terminator::CrLf, 4);
    lines.push(&[b'x'; 100]);
    assert_eq!(lines.take(100).unwrap(), &[b'x'; 100][..]);
    assert_eq!(lines.next_line(), Ok(None));
}

#[test]
fn a_line_begins_where_the_raw_octets_end_even_inside_a_terminator_or_a_searched_line() {
    for terminator in TERMINATORS {
        for input in strings(b"a\r\n", 6) {
            for raw in 0..=input.len() {
                let mut lines = LineDecoder::new(terminator, 80);
                lines.push(&input);
                // The first line is found by a clone, so that the search of the original starts fresh ...
                let mut searched = lines.clone();
                assert_eq!(lines.take(raw).unwrap(), &input[..raw]);
                let (mut found, expected) = (Vec::new(), naive(terminator, 80, &input[raw..]));
                drain(&mut lines, &mut found).unwrap();
                assert_eq!(found, expected.0, "{terminator:?}, {raw} of {}", input.escape_ascii());
                // ... and the same where an unfinished line had been searched before its octets were taken.
                if searched.next_line() == Ok(None) {
                    assert_eq!(searched.take(raw).unwrap(), &input[..raw]);
                    searched.push(b"\r\n");
                    let expected = naive(terminator, 80, &[&input[raw..], b"\r\n"].concat());
                    found.clear();
                    drain(&mut searched, &mut found).unwrap();
                    assert_eq!(found, expected.0, "{terminator:?}, {raw} of {}, searched", input.escape_ascii());
                }
            }
        }
    }
}

#[test]
fn frames_outlive_the_decoder_whether_copied_or_shared() {
    // Short values are copied out, long ones share the buffer: what is pushed later must not show in either.
    for octets in [1, 63, 64, 65, 1_000] {
        let content = vec![b'x'; octets];
        let mut lines = LineDecoder::new(Terminator::CrLf, 1_000);
        lines.push(&[&*content, b"\r\n", &content, &content, b"y\r\n"].concat());
        let line = lines.next_line().unwrap().unwrap();
        let raw = lines.take(2 * octets).unwrap();
        lines.push(&[b'z'; 100]);
        assert_eq!(lines.next_line().unwrap().unwrap(), "y");
        drop(lines);
        assert_eq!(line, content);
        assert_eq!(raw, content.repeat(2));
    }
}

// Memory.

#[test]
fn a_decoder_starts_without_heap() {
    let info = measure(|| {
        let mut lines = LineDecoder::new(Terminator::CrLf, 16_384);
        lines.push(b"");
        assert_eq!(lines.next_line(), Ok(None));
    });
    assert_eq!(info.count_total, 0);
}

/// What a decoder holds once it has decoded 1 MiB of this `line` and nothing else holds a part of it.
fn held_after_a_mib_of(line: &[u8]) -> i64 {
    let input = line.repeat(1024 * 1024 / line.len());
    let info = measure(|| {
        let mut lines = LineDecoder::new(Terminator::CrLf, 16_384);
        lines.push(&input);
        while lines.next_line().unwrap().is_some() {}
        std::mem::forget(lines);
    });
    info.bytes_current
}

#[test]
fn a_large_buffer_is_given_back_once_all_is_decoded() {
    assert!(held_after_a_mib_of(b"short\r\n") <= 64 * 1024);
}

#[test]
fn a_large_buffer_that_long_lines_shared_is_given_back_with_the_last_of_them() {
    assert!(held_after_a_mib_of(&[&[b'x'; 1_000][..], b"\r\n"].concat()) <= 64 * 1024);
}

#[test]
fn the_only_memory_that_short_lines_cost_is_the_copies_handed_out() {
    let mut lines = LineDecoder::new(Terminator::CrLf, 16_384);
    let mut feed = || {
        for _ in 0..1_000 {
            lines.push(b"1234567\r\n12345");
            lines.push(b"67\r\n");
            assert_eq!(lines.next_line().unwrap().unwrap(), "1234567");
            assert_eq!(lines.next_line().unwrap().unwrap(), "1234567");
        }
    };
    feed();
    // The copies handed out are the only memory.
    assert_eq!(measure(feed).count_total, 2_000);
}

/// Each push leaves a part of a line behind; what was taken before it makes room for what comes next.
#[test]
fn what_is_never_empty_does_not_grow() {
    let mut lines = LineDecoder::new(Terminator::CrLf, 16_384);
    let mut feed = || {
        for _ in 0..10_000 {
            lines.push(b"the rest of one\r\nand a begun");
            assert!(lines.next_line().unwrap().is_some());
            assert_eq!(lines.next_line(), Ok(None));
        }
    };
    feed();
    // The copies handed out, and nothing for the buffer.
    assert_eq!(measure(feed).count_total, 10_000);
}

/// A buffer that holds `octets`, all but the last `unread` of them decoded, and what the next `push` then allocates.
fn allocated_by_a_push_after(octets: usize, unread: usize, push: usize) -> u64 {
    let mut input = b"\n".repeat(octets - unread);
    input.resize(octets, b'n');
    let mut lines = LineDecoder::new(Terminator::Lf, 1 << 20);
    lines.push(&input);
    while lines.next_line().unwrap().is_some() {}
    measure(|| lines.push(&vec![b'n'; push])).count_total - 1
}

#[test]
fn a_buffer_of_64_kib_is_kept_and_a_larger_one_given_back() {
    const KEEP: usize = 64 * 1024;
    assert_eq!(allocated_by_a_push_after(KEEP, 0, 1_000), 0);
    assert_eq!(allocated_by_a_push_after(KEEP, 1, 1_000), 0);
    assert_eq!(allocated_by_a_push_after(KEEP + 1, 0, 1_000), 1);
    assert_eq!(allocated_by_a_push_after(KEEP + 1, 1, 1_000), 1);
    // A larger one too, as long as a quarter of it is used.
    assert_eq!(allocated_by_a_push_after(4 * KEEP, KEEP, 1_000), 0);
    assert_eq!(allocated_by_a_push_after(4 * KEEP, KEEP - 1, 1_000), 1);
    assert_eq!(allocated_by_a_push_after(4 * KEEP, 2 * KEEP, 1_000), 0);
}

#[test]
fn lines_of_64_octets_share_the_buffer_they_arrived_in_and_shorter_ones_do_not() {
    for (octets, shared) in [(63, false), (64, true), (65, true)] {
        let line = [&vec![b'x'; octets][..], b"\n"].concat();
        let mut lines = LineDecoder::new(Terminator::Lf, 80);
        lines.push(&line.repeat(2));
        let [first, second] = [(); 2].map(|()| lines.next_line().unwrap().unwrap());
        assert_eq!(second.as_ptr() as usize == first.as_ptr() as usize + octets + 1, shared, "{octets}");
    }
}

const READ: usize = 64 * 1024;

/// One of each read is kept.
#[test]
fn a_line_keeps_2_kib_or_128_times_its_octets_alive_at_most() {
    for octets in [1, 63, 64, 100, 511, 512, 513, 600, 1_000, 2_000, 5_000, 40_000] {
        let line = [&vec![b'x'; octets][..], b"\r\n"].concat();
        let input: Vec<u8> = line.iter().copied().cycle().take(20 * READ).collect();
        let mut kept = Vec::with_capacity(20);
        let info = measure(|| {
            let mut lines = LineDecoder::new(Terminator::CrLf, 64 * 1024);
            for read in input.chunks(READ) {
                lines.push(read);
                let mut last = None;
                while let Some(line) = lines.next_line().unwrap() {
                    last = Some(line);
                }
                kept.extend(last);
            }
        });
        // What counts the values that share it, too.
        let each = (128 * octets).clamp(2 * 1024, 2 * READ) + 64;
        let most = i64::try_from(kept.len() * each).unwrap();
        assert!(kept.len() > 9 && info.bytes_current <= most, "{octets}: {info:?}, at most {most}");
        assert!(octets >= 64 || info.bytes_current <= 20 * 64, "{octets}: {info:?}");
    }
}

/// Once to receive it, twice to cut it; and as much again where the buffer grows, or is left to those that share it.
#[test]
fn an_octet_is_copied_a_few_times_whatever_the_lines() {
    let cut = |octets: usize, read: usize| {
        let line = [&vec![b'x'; octets][..], b"\r\n"].concat();
        let input: Vec<u8> = line.iter().copied().cycle().take(4 * READ).collect();
        let info = measure(|| {
            let mut lines = LineDecoder::new(Terminator::CrLf, 64 * 1024);
            for read in input.chunks(read) {
                lines.push(read);
                while lines.next_line().unwrap().is_some() {}
            }
        });
        assert!(info.bytes_total <= 6 * input.len() as u64, "{octets}, {read}: {info:?}");
    };
    for octets in (64..3_000).step_by(61).chain([511, 512, 513, 1_023, 1_024, 1_025, 2_047, 2_048, 2_049]) {
        cut(octets, READ);
        cut(octets, 1_448);
    }
}

#[test]
fn a_decoder_is_shown_without_its_octets() {
    let mut lines = LineDecoder::new(Terminator::CrLf, 80);
    lines.push(b"secret");
    let shown = "LineDecoder { unread: 6, terminator: CrLf, max_line: 80, failed: false }";
    assert_eq!(format!("{lines:?}"), shown);
}

// What two decoders have in common.

#[test]
fn equality_and_hash_ignore_how_it_came_there() {
    let mut fresh = LineDecoder::new(Terminator::CrLf, 80);
    fresh.push(b"rest");
    let mut used = LineDecoder::new(Terminator::CrLf, 80);
    used.push(b"line\r\nraw");
    used.next_line().unwrap().unwrap();
    used.take(3).unwrap();
    for octet in b"rest".chunks(1) {
        used.push(octet);
        assert_eq!(used.next_line(), Ok(None));
    }
    assert_eq!(used, fresh);
    assert_eq!(HashSet::from([used.clone(), fresh.clone()]).len(), 1);
    used.push(b"!");
    assert_ne!(used, fresh);
}

#[test]
fn equality_tells_apart_what_will_behave_differently() {
    let new = |terminator, limit, input: &[u8]| {
        let mut lines = LineDecoder::new(terminator, limit);
        lines.push(input);
        drain(&mut lines, &mut Vec::new()).ok();
        lines
    };
    let one = new(Terminator::CrLf, 2, b"");
    assert_ne!(one, new(Terminator::Either, 2, b""));
    assert_ne!(one, new(Terminator::CrLf, 3, b""));
    assert_ne!(one, new(Terminator::CrLf, 2, b"a"));
    assert_ne!(one, new(Terminator::CrLf, 2, b"abc"), "one that has failed holds nothing either");
    assert_eq!(one, new(Terminator::CrLf, 2, b"ab\r\n"));
}
