//! The modes and the one transition table: every other file asks it.

/// Where a connection is.
///
#[doc = include_str!("modes.txt")]
///
/// Two views of it are never mixed up. [`ClientState::mode`](crate::ClientState::mode) is the application's: as far as
/// the events already polled tell, a change asked for shows at once. What may be *sent* is judged by
/// [`ClientState::asked_mode`](crate::ClientState::asked_mode): where the server will be once it has read everything
/// asked so far.
///
/// # What the server may send
/// What each frame means in each [`mode()`](crate::ClientState::mode), and where it leads. `=` keeps the mode, `!` is a
/// violation, which ends the connection; nothing is decoded in `Closed`. A change already asked for shows at once: "to
/// `Normal`" reads `Entering` if an enter is queued.
///
/// | the frame is | Normal | Entering | Notification | Leaving |
/// |---|---|---|---|---|
/// | a notification | = | = | = | = |
/// | the answer to a request | = | = | = | = |
/// | enter confirmed | ! | Notification | ! | ! |
/// | enter refused | ! | Normal | ! | ! |
/// | leave confirmed | ! | ! | ! | Normal |
/// | the mode ended by the server, a late refusal too | ! | ! | Normal | Normal |
/// | the answer to a void leave | = | = | ! | ! |
/// | an answer nobody waits for | ! | ! | ! | ! |
/// | leave refused | ! | ! | ! | ! |
/// | the end of the stream | Closed | Closed | Closed | Closed |
///
/// An answer is legal in `Notification` even where no request may be sent there: IMAP's `request; enter` is answered by
/// `+ idling` first.
///
/// # What the application may ask
/// What each call does in each [`asked_mode()`](crate::ClientState::asked_mode). `!` is a rejection: nothing is sent.
/// (`leave` answers whether one is outstanding, so `true` in `Leaving`.) A request is also subject to what the protocol
/// allows: in normal mode, in the mode, or, in `Entering`, both, since the enter may be refused.
///
/// | call | Normal | Entering | Notification | Leaving | Closed |
/// |---|---|---|---|---|---|
/// | enter | Entering | ! | ! | Entering | ! |
/// | leave | ! | Leaving | Leaving | ! | ! |
/// | request | = | = | = | = | ! |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Requests and replies.
    Normal,
    /// Notification mode has been asked for and is not confirmed.
    Entering,
    /// The server pushes.
    Notification,
    /// Normal mode has been asked for and is not confirmed.
    Leaving,
    /// The connection is over.
    Closed,
}

/// What was read: the rows of the first table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Notification,
    Answer,
    Entered,
    Refused,
    Left,
    Ended,
    Void,
    Stray,
    LeaveRefused,
    End,
}

/// What was called: the rows of the second table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Enter,
    Leave,
    Request,
}

impl Mode {
    /// The mode after what was `read`, before changes asked for meanwhile show; `None` where it is not legal.
    pub(crate) const fn after(self, read: Read) -> Option<Mode> {
        use Mode::{Closed, Entering, Leaving, Normal, Notification};
        match (read, self) {
            (_, Closed) => None,
            (Read::Notification | Read::Answer, mode) => Some(mode),
            (Read::Entered, Entering) => Some(Notification),
            (Read::Refused, Entering) => Some(Normal),
            (Read::Left, Leaving) => Some(Normal),
            (Read::Ended, Notification | Leaving) => Some(Normal),
            (Read::Void, Normal | Entering) => Some(self),
            (Read::End, _) => Some(Closed),
            (
                Read::Entered
                | Read::Refused
                | Read::Left
                | Read::Ended
                | Read::Void
                | Read::Stray
                | Read::LeaveRefused,
                _,
            ) => None,
        }
    }

    /// The mode asked for after the `call`; `None` where it is not allowed.
    pub(crate) const fn asked(self, call: Call) -> Option<Mode> {
        use Mode::{Closed, Entering, Leaving, Normal, Notification};
        match (call, self) {
            (Call::Enter, Normal | Leaving) => Some(Entering),
            (Call::Leave, Entering | Notification) => Some(Leaving),
            (Call::Request, Normal | Entering | Notification | Leaving) => Some(self),
            (Call::Enter, Entering | Notification) | (Call::Leave, Normal | Leaving) | (_, Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String, vec::Vec};

    const MODES: [Mode; 5] = [Mode::Normal, Mode::Entering, Mode::Notification, Mode::Leaving, Mode::Closed];

    const READS: [(&str, Read); 10] = [
        ("a notification", Read::Notification),
        ("the answer to a request", Read::Answer),
        ("enter confirmed", Read::Entered),
        ("enter refused", Read::Refused),
        ("leave confirmed", Read::Left),
        ("the mode ended by the server, a late refusal too", Read::Ended),
        ("the answer to a void leave", Read::Void),
        ("an answer nobody waits for", Read::Stray),
        ("leave refused", Read::LeaveRefused),
        ("the end of the stream", Read::End),
    ];

    const CALLS: [(&str, Call); 3] = [("enter", Call::Enter), ("leave", Call::Leave), ("request", Call::Request)];

    fn rows(header: &str) -> Vec<Vec<&'static str>> {
        include_str!("modes.rs")
            .lines()
            .skip_while(|line| !line.starts_with(header))
            .skip(2)
            .map_while(|line| line.strip_prefix("/// | "))
            .map(|row| row.trim_end_matches(" |").split(" | ").collect())
            .collect()
    }

    fn cell(mode: Mode, after: Option<Mode>) -> String {
        match after {
            None => "!".into(),
            Some(after) if after == mode => "=".into(),
            Some(after) => format!("{after:?}"),
        }
    }

    #[test]
    fn the_table_is_the_one_in_the_docs() {
        let documented = rows("/// | the frame is |");
        let actual: Vec<Vec<String>> = READS
            .iter()
            .map(|&(name, read)| {
                let cells = MODES[..4].iter().map(|&mode| cell(mode, mode.after(read)));
                core::iter::once(name.into()).chain(cells).collect()
            })
            .collect();
        assert_eq!(documented, actual);

        let documented = rows("/// | call |");
        let actual: Vec<Vec<String>> = CALLS
            .iter()
            .map(|&(name, call)| {
                let cells = MODES.iter().map(|&mode| cell(mode, mode.asked(call)));
                core::iter::once(name.into()).chain(cells).collect()
            })
            .collect();
        assert_eq!(documented, actual);
    }

    #[test]
    fn nothing_is_read_or_asked_once_closed() {
        assert!(READS.iter().all(|(_, read)| Mode::Closed.after(*read).is_none()));
        assert!(CALLS.iter().all(|(_, call)| Mode::Closed.asked(*call).is_none()));
    }

    #[test]
    fn changes_alternate() {
        for (mode, call, other) in
            [(Mode::Entering, Call::Leave, Call::Enter), (Mode::Leaving, Call::Enter, Call::Leave)]
        {
            assert!(mode.asked(call).is_some_and(|asked| asked != mode && asked.asked(other) == Some(mode)));
            assert_eq!(mode.asked(other), None);
        }
    }
}
