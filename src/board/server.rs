//! The server side of one connection to the notice board, as pure as the client.

use super::{Board, CLASSIFIED, Dialect, END, PUSH, RANDOM, Reply, Request};
use crate::output::Output;
use crate::{Excerpt, Invalid, Limits, LineDecoder, LineTooLong, Mode, Protocol, Reason, Rejected};
use core::{error, fmt, fmt::Write};

/// The server side of one connection: octets go in; questions and octets come out.
///
/// It answers changes of mode by itself, remembers what changed since the client was last told of it or fetched it, and
/// pushes it in notification mode. Several notifications of a kind that the client has not read are folded into one, and
/// a client that does not read its answers is not read either: memory stays bounded.
///
/// Drive it with one loop: read what [`wants_input`](Self::wants_input) allows and pass it to
/// [`receive`](Self::receive); [`answer`](Self::answer) what [`poll_request`](Self::poll_request) asks until it is `None`,
/// also after output was written; write [`output`](Self::output); close when it [`is_finished`](Self::is_finished).
///
/// ```
/// use sonnette::board::{Board, Reply, Request, ServerState};
///
/// let mut server = ServerState::new(Board::acknowledged());
/// server.receive(b"random?\r\nnotif\r\n");
/// while let Some(asked) = server.poll_request() {
///     server.answer(match asked {
///         Request::Random => Reply::Random(46774),
///         Request::Classified => Reply::Classified("nice flat in the 11e".into()),
///     })?;
/// }
/// server.notify(Request::Random);
/// assert_eq!(server.output(), b"46774\r\nOK\r\nnotif: random\r\n");
/// # Ok::<(), sonnette::Rejected<Reply>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerState {
    board: Board,
    lines: LineDecoder,
    output: Output,
    in_mode: bool,
    /// The request that waits for its answer.
    asked: Option<Request>,
    random: News,
    classified: News,
    end: End,
}

/// What a client knows about one kind of news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct News {
    /// There is some that the client has not been told of.
    untold: bool,
    /// A line that tells it ends so many octets into the output: more news of the kind need no other line.
    telling: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum End {
    Open,
    /// The client sends no more; what it sent is still being answered.
    Eof,
    /// Nothing more is read.
    Over(Option<ServerError>),
}

/// Why the server closes a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerError {
    /// The client sent a command that is not one. The protocol has no answer for it: any text would be taken for the
    /// answer to something else.
    UnknownCommand(Excerpt),
    /// The client sent a line that exceeds the limit.
    LineTooLong(LineTooLong),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::UnknownCommand(line) => write!(f, "the client sent an unknown command: {line:?}"),
            ServerError::LineTooLong(error) => write!(f, "the client sent {error}"),
        }
    }
}

impl error::Error for ServerError {}

impl ServerState {
    /// A connection that has just been accepted, in the dialect of this `board`. No news is untold.
    #[must_use]
    pub fn new(board: Board) -> Self {
        ServerState {
            board,
            lines: LineDecoder::new(Board::TERMINATOR, Self::LIMITS.line),
            output: Output::default(),
            in_mode: false,
            asked: None,
            random: News::default(),
            classified: News::default(),
            end: End::Open,
        }
    }

    /// The line limit holds in both directions. With more output than the limit waiting, the client is not read.
    const LIMITS: Limits = Board::LIMITS;

    /// Stores what was read.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.end == End::Open {
            self.lines.push(bytes);
        }
    }

    /// The client sends no more. All complete lines that came before are answered, then the connection
    /// [`is_finished`](Self::is_finished).
    pub fn receive_eof(&mut self) {
        if self.end == End::Open {
            self.end = End::Eof;
        }
    }

    /// The next question, which must be [`answer`](Self::answer)ed before there is another one. `None` until more was
    /// received, answered or written.
    pub fn poll_request(&mut self) -> Option<Request> {
        while self.asked.is_none() && !self.is_congested() && !matches!(self.end, End::Over(_)) {
            let span = match self.lines.find_line() {
                Ok(Some(span)) => span,
                Ok(None) => {
                    if self.end == End::Eof {
                        self.close(None);
                    }
                    self.lines.shrink();
                    break;
                }
                Err(error) => {
                    self.close(Some(ServerError::LineTooLong(error)));
                    break;
                }
            };
            let line = self.lines.unread().get(..span.content).unwrap_or_default();
            match line {
                b"random?" => self.asked = Some(Request::Random),
                b"classified?" => self.asked = Some(Request::Classified),
                b"notif" => self.change_mode(true),
                b"stop_notif" => self.change_mode(false),
                unknown => {
                    let unknown = Excerpt::of(unknown);
                    self.close(Some(ServerError::UnknownCommand(unknown)));
                    break;
                }
            }
            self.lines.skip(span.total);
        }
        self.asked
    }

    fn change_mode(&mut self, in_mode: bool) {
        if self.board.dialect == Dialect::Acknowledged {
            self.output.put(b"OK\r\n");
        }
        if self.in_mode == in_mode {
            return;
        }
        self.in_mode = in_mode;
        for kind in [Request::Random, Request::Classified] {
            // What is still on its way was told in another mode: it does not count for this one.
            self.news(kind).telling = None;
            if in_mode && self.news(kind).untold {
                self.tell(kind);
            }
        }
    }

    /// Answers the request that [`poll_request`](Self::poll_request) gave, with the value as it is now: the client has
    /// then fetched all news of this kind.
    ///
    /// # Errors
    /// The reply comes back, and nothing was sent: [`Reason::NotAllowed`] if nothing was asked, [`Reason::Invalid`] if it
    /// is of another kind, or a text with a CR or LF or one that begins with `notif:`, [`Reason::TooLarge`] if it is
    /// longer than a line may be, [`Reason::Closed`].
    pub fn answer(&mut self, reply: Reply) -> Result<(), Rejected<Reply>> {
        match self.check(&reply) {
            Ok(kind) => {
                match reply {
                    Reply::Random(number) => self.put_number(number),
                    Reply::Classified(text) => self.output.put(&text),
                }
                self.output.put(END);
                self.asked = None;
                *self.news(kind) = News::default();
                Ok(())
            }
            Err(reason) => Err(Rejected { value: reply, reason }),
        }
    }

    fn check(&self, reply: &Reply) -> Result<Request, Reason> {
        let mode = if self.in_mode { Mode::Notification } else { Mode::Normal };
        match (self.asked.ok_or(Reason::NotAllowed(mode))?, reply) {
            (Request::Random, Reply::Random(_)) => Ok(Request::Random),
            (Request::Classified, Reply::Classified(text)) => check_text(text).map(|()| Request::Classified),
            _ => Err(Reason::Invalid(Invalid::new("not the kind of answer that was asked for"))),
        }
    }

    fn put_number(&mut self, number: i64) {
        struct Digits<'a>(&'a mut Output);
        impl Write for Digits<'_> {
            fn write_str(&mut self, digits: &str) -> fmt::Result {
                self.0.put(digits.as_bytes());
                Ok(())
            }
        }
        // Writing to memory does not fail.
        let _ = write!(Digits(&mut self.output), "{number}");
    }

    /// There is something new of this kind: the client is told, now if it is in notification mode, else when it enters.
    pub fn notify(&mut self, kind: Request) {
        if matches!(self.end, End::Over(_)) {
            return;
        }
        if !self.in_mode {
            self.news(kind).untold = true;
        } else if self.news(kind).telling.is_none() {
            self.tell(kind);
        }
    }

    fn tell(&mut self, kind: Request) {
        self.output.put(match kind {
            Request::Random => RANDOM,
            Request::Classified => CLASSIFIED,
        });
        let telling = Some(self.output.waiting());
        *self.news(kind) = News { untold: false, telling };
    }

    fn news(&mut self, kind: Request) -> &mut News {
        match kind {
            Request::Random => &mut self.random,
            Request::Classified => &mut self.classified,
        }
    }

    fn close(&mut self, error: Option<ServerError>) {
        self.end = End::Over(error);
        self.lines = LineDecoder::new(Board::TERMINATOR, 0);
    }

    /// What can be written now.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.window()
    }

    /// So many octets of [`output`](Self::output) were written; more than there are counts as all.
    pub fn advance_output(&mut self, written: usize) {
        let written = written.min(self.output.waiting());
        self.output.advance(written);
        for kind in [Request::Random, Request::Classified] {
            let telling = &mut self.news(kind).telling;
            *telling = telling.and_then(|until| until.checked_sub(written)).filter(|&until| until > 0);
        }
    }

    /// Whether the client may be read: not while it does not read its answers, nor while a question is open, nor once
    /// the connection ends.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.end == End::Open && self.asked.is_none() && !self.is_congested()
    }

    fn is_congested(&self) -> bool {
        self.output.waiting() >= Self::LIMITS.output
    }

    /// Whether all is answered and written, and the connection is to be closed.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(self.end, End::Over(_)) && self.output.waiting() == 0
    }

    /// Why the connection is closed, if it is for a fault of the client.
    #[must_use]
    pub fn error(&self) -> Option<&ServerError> {
        match &self.end {
            End::Over(error) => error.as_ref(),
            End::Open | End::Eof => None,
        }
    }

    /// Whether the client is in notification mode: the server has no pending changes, so this is where it is.
    #[must_use]
    pub fn is_in_notification_mode(&self) -> bool {
        self.in_mode
    }
}

/// Whether this text may be the answer to `classified?`.
///
/// # Errors
/// [`Reason::Invalid`] if it holds a CR or LF or begins with `notif:`, [`Reason::TooLarge`] if it is longer than a line
/// may be.
pub fn check_text(text: &[u8]) -> Result<(), Reason> {
    if memchr::memchr2(b'\r', b'\n', text).is_some() {
        Err(Reason::Invalid(Invalid::new("a CR or LF inside a line")))
    } else if text.starts_with(PUSH) {
        Err(Reason::Invalid(Invalid::new("a text that would be taken for a notification")))
    } else if text.len() > ServerState::LIMITS.line {
        Err(Reason::TooLarge)
    } else {
        Ok(())
    }
}
