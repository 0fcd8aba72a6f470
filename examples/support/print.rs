//! One line per fact, on standard output.

use sonnette_std::Error;
use std::fmt::Display;
use std::io::{self, Write};

pub(crate) fn say(what: &str, fact: impl Display) -> io::Result<()> {
    say_line(format_args!("{what}: {fact}"))
}

pub(crate) fn say_line(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Printable UTF-8 as it is, every other octet as `\xNN`.
pub(crate) fn printable(text: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            if !is_printable(character) {
                let mut octets = [0; 4];
                escape(character.encode_utf8(&mut octets).as_bytes(), &mut shown);
            } else {
                shown.push(character);
            }
        }
        escape(chunk.invalid(), &mut shown);
    }
    shown
}

/// As Rust's own escapes see it, but for what they escape only inside quotes; an accent that combines with what stands
/// before it is printable.
fn is_printable(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\') || format!("a{character}").escape_debug().count() == 2
}

fn escape(octets: &[u8], shown: &mut String) {
    for octet in octets {
        shown.push_str(&format!("\\x{octet:02x}"));
    }
}

/// Why a session ended.
pub(crate) enum Stop<R> {
    Client(Error<R>),
    Output(io::Error),
}

impl<R> From<Error<R>> for Stop<R> {
    fn from(error: Error<R>) -> Self {
        Stop::Client(error)
    }
}

impl<R> From<io::Error> for Stop<R> {
    fn from(error: io::Error) -> Self {
        Stop::Output(error)
    }
}
