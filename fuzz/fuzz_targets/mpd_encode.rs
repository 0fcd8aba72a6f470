//! What MPD is asked is on the wire as an independent reader of its lines finds it, word by word; what is refused leaves
//! nothing there (law 12).
//!
//! Input: words with `|` between them, commands with `;`, which are sent one by one, and then as a list.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::mpd::{Command, Mpd, Request, Subsystem};
use sonnette::{ClientState, Reason};

/// The words of a line, as MPD's Tokenizer.cxx takes them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), line);
    while !rest.is_empty() {
        let mut word = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next().expect("a quote that is not closed") {
                    (_, '\\') => word.push(characters.next().expect("nothing is escaped").1),
                    (at, '"') => break at,
                    (_, other) => word.push(other),
                }
            };
            rest = &quoted[end + 1..];
            assert!(rest.is_empty() || rest.starts_with(' '), "no space behind a quote");
        } else {
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            word.push_str(&rest[..end]);
            rest = &rest[end..];
            assert!(!word.is_empty() && !word.contains(['"', '\'']), "what is {line:?}?");
        }
        words.push(word);
        rest = rest.strip_prefix(' ').unwrap_or(rest);
    }
    words
}

fn is_name(name: &str) -> bool {
    let is_word = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'_';
    let is_mode = name == "idle" || name == "noidle" || name.starts_with("command_list_");
    !name.is_empty() && name.bytes().all(is_word) && !is_mode
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let asked: Vec<Vec<&str>> = text.split(';').take(20).map(|words| words.split('|').collect()).collect();
    let command =
        |words: &Vec<&str>| words[1..].iter().fold(Command::new(words[0]), |command, word| command.arg(*word));
    let is_line = |word: &&str| !word.contains(['\r', '\n', '\0']);
    let valid = |words: &Vec<&str>| is_name(words[0]) && words.iter().all(is_line);

    let mut state = ClientState::new(Mpd::new());
    state.receive(b"OK MPD 0.23.5\n");
    assert_eq!(state.poll_event(), Ok(None));
    let mut expected: Vec<Vec<&str>> = Vec::new();
    for words in &asked {
        match state.request(command(words).into()) {
            Ok(_) => expected.push(words.clone()),
            Err(rejected) => assert!(matches!(rejected.reason, Reason::Invalid(_))),
        }
        assert_eq!(state.request(command(words).into()).is_ok(), valid(words));
        expected.extend(Some(words.clone()).filter(valid));
    }
    let commands: Vec<Command> = asked.iter().map(command).collect();
    if state.request(Request::List(commands)).is_ok() {
        assert!(asked.iter().all(valid));
        expected.push(vec!["command_list_begin"]);
        expected.extend(asked.iter().cloned());
        expected.push(vec!["command_list_end"]);
    } else {
        assert!(!asked.iter().all(valid));
    }
    let names: Vec<&str> = asked[0].clone();
    if state.enter(names.iter().copied().map(Subsystem::from).collect()).is_ok() {
        assert!(names.iter().all(is_line));
        expected.push([&["idle"], &names[..]].concat());
        assert!(state.leave());
        expected.push(vec!["noidle"]);
    } else {
        assert!(!names.iter().all(is_line));
    }

    let wire = std::str::from_utf8(state.output()).expect("it was UTF-8");
    let lines: Vec<Vec<String>> = wire.split_terminator('\n').map(words).collect();
    assert!(wire.ends_with('\n') || wire.is_empty());
    assert_eq!(lines, expected);
});
