//! What an IMAP server is asked is on the wire as an independent reader of commands finds it, string by string, whatever
//! octets there are in it; what is refused leaves nothing there (law 12). Data of which those strings are part are told as
//! they are, and their parser does not panic.
//!
//! Input: `+` or `-` for a server that has LITERAL+ or LITERAL-, then words with `|` between them, commands with `;`. Of a
//! command the first word is its name; one that begins with `s` is syntax, with `l` a literal, others are strings.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::imap::{Command, Imap, Notification};
use sonnette::{ClientState, Event, Reason};

enum Word<'a> {
    Syntax(&'a [u8]),
    Literal(&'a [u8]),
    Text(&'a [u8]),
}

/// An astring (RFC 3501 section 9), and what is behind it.
fn astring(wire: &[u8]) -> (Vec<u8>, &[u8]) {
    match wire.first().expect("no string") {
        b'{' => {
            let end = wire.iter().position(|&octet| octet == b'}').expect("no end of a length");
            let octets: usize = std::str::from_utf8(&wire[1..end]).unwrap().trim_end_matches('+').parse().unwrap();
            let (literal, rest) = wire[end + 1..].strip_prefix(b"\r\n").expect("no CR LF").split_at(octets);
            assert!(!literal.contains(&0));
            (literal.to_vec(), rest)
        }
        b'"' => {
            let (mut text, mut at) = (Vec::new(), 1);
            while wire[at] != b'"' {
                if wire[at] == b'\\' {
                    at += 1;
                    assert!(matches!(wire[at], b'"' | b'\\'));
                }
                assert!(wire[at].is_ascii() && !b"\r\n\0".contains(&wire[at]));
                text.push(wire[at]);
                at += 1;
            }
            (text, &wire[at + 1..])
        }
        _ => {
            let is_atom = |octet: u8| octet.is_ascii_graphic() && !b"(){%*\"\\".contains(&octet);
            let end = wire.iter().position(|&octet| !is_atom(octet)).unwrap_or(wire.len());
            assert!(end > 0 && !wire[..end].eq_ignore_ascii_case(b"NIL"));
            (wire[..end].to_vec(), &wire[end..])
        }
    }
}

/// One word, or one behind `UID`.
fn is_name(name: &[u8]) -> bool {
    let refused: [&[u8]; 4] = [b"IDLE", b"DONE", b"COMPRESS", b"AUTHENTICATE"];
    let word = match name.split_at_checked(4) {
        Some((uid, word)) if uid.eq_ignore_ascii_case(b"UID ") => word,
        _ => name,
    };
    let is_atom = |octet: &u8| octet.is_ascii_graphic() && !b"(){%*\"\\]".contains(octet);
    !word.is_empty() && word.iter().all(is_atom) && !refused.iter().any(|word| name.eq_ignore_ascii_case(word))
}

fuzz_target!(|data: &[u8]| {
    let (literals, data) = match data.split_first() {
        Some((b'+', rest)) => ("LITERAL+", rest),
        Some((b'-', rest)) => ("LITERAL-", rest),
        _ => ("", data),
    };
    let mut state = ClientState::new(Imap::new());
    state.receive(format!("* OK [CAPABILITY IMAP4rev1 {literals}] ready\r\n").as_bytes());
    assert_eq!(state.poll_event(), Ok(None));
    for (at, command) in data.split(|&octet| octet == b';').take(20).enumerate() {
        let mut words = command.split(|&octet| octet == b'|');
        let Ok(name) = std::str::from_utf8(words.next().unwrap()) else { continue };
        // It is asked alone, and this session goes on.
        if name.eq_ignore_ascii_case("STARTTLS") {
            continue;
        }
        let words: Vec<Word<'_>> = words
            .map(|word| match word.split_first() {
                Some((b's', rest)) => Word::Syntax(rest),
                Some((b'l', rest)) => Word::Literal(rest),
                _ => Word::Text(word),
            })
            .collect();
        let command = words.iter().fold(Command::new(name), |command, word| match word {
            Word::Syntax(words) => command.syntax(words),
            Word::Literal(octets) => command.literal(*octets),
            Word::Text(text) => command.arg(text),
        });
        let command = if at % 2 == 0 { command } else { command.synchronising() };
        let valid = is_name(name.as_bytes())
            && words.iter().all(|word| match word {
                Word::Syntax(words) => !words.iter().any(|octet| b"\r\n\0{".contains(octet)),
                Word::Literal(text) | Word::Text(text) => !text.contains(&0),
            });
        let id = match state.request(command) {
            Ok(id) => id,
            Err(rejected) => {
                assert!(!valid && matches!(rejected.reason, Reason::Invalid(_)), "{:?}", rejected.reason);
                assert!(state.output().is_empty() && !state.is_gated());
                continue;
            }
        };
        assert!(valid);

        // All of it, each literal that waits for the server once it has said so.
        let mut wire = Vec::new();
        loop {
            wire.extend_from_slice(state.output());
            state.advance_output(usize::MAX);
            if !state.is_gated() {
                break;
            }
            assert!(wire.ends_with(b"}\r\n") && !wire.ends_with(b"+}\r\n"));
            state.receive(b"+ \r\n");
            assert_eq!(state.poll_event(), Ok(None));
        }
        let tag = format!("A{} {name}", id.get());
        let mut rest = wire.strip_prefix(tag.as_bytes()).expect("no tag and name");
        for word in &words {
            rest = rest.strip_prefix(b" ").expect("no space");
            rest = match word {
                Word::Syntax(words) => rest.strip_prefix(*words).expect("other words"),
                Word::Literal(text) | Word::Text(text) => {
                    let (read, rest) = astring(rest);
                    assert_eq!(read, *text);
                    rest
                }
            };
        }
        assert_eq!(rest, b"\r\n");

        // The same octets as data: the same literals, and nothing that looks like an answer. (`{1+}` is the client's
        // alone.)
        if !wire.windows(4).any(|octets| octets == b"+}\r\n") {
            state.receive(&[b"* 1 FETCH", &wire[tag.len()..]].concat());
            let Ok(Some(Event::Notification(Notification::Fetch { data, .. }))) = state.poll_event() else {
                panic!("no data");
            };
            let _ = data.parse();
            assert_eq!(state.poll_event(), Ok(None));
            assert!(state.unread().is_empty());
        }
        state.receive(format!("A{} OK done\r\n", id.get()).as_bytes());
        assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
    }
});
