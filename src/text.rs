//! What is shown to people: what a server has put into words, and what it was asked.

use alloc::string::String;
use core::fmt::{self, Write};

/// Text of a server's as it is, but on one line, and nothing that a terminal would obey: with it a server could forge lines
/// of a log, or change what is on the screen already.
pub(crate) struct OneLine<'a>(pub(crate) &'a [u8]);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.0).chars().try_for_each(|character| {
            if is_obeyed(character) { character.escape_default().fmt(f) } else { f.write_char(character) }
        })
    }
}

/// A command as `Debug` shows it: its arguments may be secrets, and so may be what is no name of a command.
pub(crate) fn show_command(name: Option<&[u8]>, arguments: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "Command({}, {arguments} arguments)", OneLine(name.unwrap_or(b"..")))
}

/// Controls; line and paragraph separators; what turns the direction of writing. (Unicode Standard Annex 9)
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
