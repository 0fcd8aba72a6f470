//! What Redis is asked is on the wire as an independent reader of RESP finds it, word by word, whatever octets there are in
//! it; what is refused leaves nothing there (law 12).
//!
//! Input: words with `|` between them, commands with `;`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::ClientState;
use sonnette::redis::{Command, Redis, Subscription};

/// All that is on the wire: arrays of bulk strings.
fn commands(mut wire: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let number = |kind: u8, wire: &mut &[u8]| -> usize {
        let end = wire.iter().position(|&octet| octet == b'\r').expect("no CR");
        assert_eq!((wire[0], wire[end + 1]), (kind, b'\n'));
        let digits = std::str::from_utf8(&wire[1..end]).expect("no digits");
        *wire = &wire[end + 2..];
        let number: usize = digits.parse().expect("no number");
        assert_eq!(number.to_string(), digits);
        number
    };
    let mut commands = Vec::new();
    while !wire.is_empty() {
        let words = number(b'*', &mut wire);
        let words = (0..words).map(|_| {
            let octets = number(b'$', &mut wire);
            let (word, rest) = wire.split_at(octets);
            wire = rest.strip_prefix(b"\r\n").expect("no CR LF");
            word.to_vec()
        });
        commands.push(words.collect());
    }
    commands
}

fuzz_target!(|data: &[u8]| {
    let asked: Vec<Vec<&[u8]>> = data
        .split(|&octet| octet == b';')
        .take(20)
        .map(|words| words.split(|&octet| octet == b'|').collect())
        .collect();
    let mut state = ClientState::new(Redis::new());
    let mut expected: Vec<Vec<Vec<u8>>> = Vec::new();
    let owned = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
    for words in &asked {
        if state.request(Command::new(words[0]).args(&words[1..])).is_ok() {
            expected.push(owned(words));
        } else {
            // Nothing else is refused in normal mode.
            if words[0].is_empty() || words[0].iter().any(|octet| matches!(octet, 0..=b' ' | 0x7f)) {
                continue;
            }
            let name = String::from_utf8_lossy(words[0]).to_uppercase();
            let unspoken = [
                "SUBSCRIBE",
                "PSUBSCRIBE",
                "MONITOR",
                "SSUBSCRIBE",
                "SUNSUBSCRIBE",
                "SYNC",
                "PSYNC",
                "REPLCONF",
                "HELLO",
                "CLIENT",
            ];
            assert!(unspoken.contains(&&*name), "{name} is refused");
        }
    }
    let names = &asked[0];
    for (name, subscription) in
        [("SUBSCRIBE", Subscription::channels(names)), ("PSUBSCRIBE", Subscription::patterns(names))]
    {
        let mut state = state.clone();
        state.enter(subscription).expect("names are any octets");
        expected.push([vec![name.as_bytes().to_vec()], owned(names)].concat());
        assert_eq!(commands(state.output()), expected);
        expected.pop();
    }
    assert_eq!(commands(state.output()), expected);
});
