//! Every call and every poll gives what the plainest reading of the rules gives: a list of what is outstanding, all input
//! kept and searched anew, no fast path. After each operation `mode()`, `asked_mode()` and `output()` are compared too.
//!
//! Input: a line of `s` (silent) or `a` (acknowledged), a capital for small limits; then operations: `r` random,
//! `c` classified, `e` enter, `l` leave, `g` ring, `p` one poll, `P` polls until there is nothing, `w` all output is
//! written, `o` one octet of it, `x` the stream ends; `N` is `notif: random`, `M` `notif: other`, `K` `OK`, `T` a text and a
//! digit that number, each received as a line; `<` and what follows up to `>` is received as it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::board::{Board, Notification, Refusal, Reply, Request};
use sonnette::{ClientState, Error, Event, Limits, Mode, Reason, RequestId};
use sonnette_fuzz::header;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Request(Request),
    Enter,
    Leave,
}

#[derive(Clone, Debug)]
struct Entry {
    id: RequestId,
    kind: Kind,
    /// Octets received when it was asked; the end of the stream is one.
    stamp: usize,
    /// Octets asked before it, less those that were dropped.
    starts_at: usize,
}

#[derive(Clone, Debug)]
struct Plain {
    acknowledged: bool,
    limits: Limits,
    input: Vec<u8>,
    read: usize,
    eof: bool,
    queue: Vec<Entry>,
    next_id: u64,
    inside: Option<RequestId>,
    asked: Vec<u8>,
    written: usize,
    second: Option<Event<Board>>,
    over: Option<Option<Error>>,
    told: bool,
}

const LEAVE: &[u8] = b"stop_notif\r\n";

impl Plain {
    fn changes(&self) -> impl DoubleEndedIterator<Item = Mode> {
        self.queue.iter().filter_map(|entry| match entry.kind {
            Kind::Request(_) => None,
            Kind::Enter => Some(Mode::Entering),
            Kind::Leave => Some(Mode::Leaving),
        })
    }

    fn settled(&self) -> Mode {
        match (&self.over, self.inside) {
            (Some(_), _) => Mode::Closed,
            (None, Some(_)) => Mode::Notification,
            (None, None) => Mode::Normal,
        }
    }

    fn mode(&self) -> Mode {
        self.changes().next().filter(|_| self.over.is_none()).unwrap_or(self.settled())
    }

    fn asked_mode(&self) -> Mode {
        self.changes().next_back().filter(|_| self.over.is_none()).unwrap_or(self.settled())
    }

    /// The leave that must wait until the enter before it is confirmed.
    fn gate(&self) -> Option<&Entry> {
        let at = self.queue.iter().position(|entry| entry.kind == Kind::Enter)?;
        self.queue[at..].iter().find(|entry| entry.kind == Kind::Leave).filter(|_| self.acknowledged)
    }

    fn output(&self) -> &[u8] {
        &self.asked[self.written..self.gate().map_or(self.asked.len(), |leave| leave.starts_at)]
    }

    fn ask(&mut self, kind: Kind, octets: &[u8]) -> RequestId {
        let id = RequestId::from_wire(self.next_id);
        let stamp = self.input.len() + usize::from(self.eof);
        self.queue.push(Entry { id, kind, stamp, starts_at: self.asked.len() });
        self.asked.extend(octets);
        self.next_id += 1;
        id
    }

    fn room(&self, entries: usize, octets: usize, reserved: usize) -> Result<(), Reason> {
        if self.queue.len() + entries > self.limits.pending {
            Err(Reason::TooManyPending)
        } else if octets + reserved > self.limits.output {
            Err(Reason::TooLarge)
        } else if self.asked.len() - self.written + octets + reserved > self.limits.output {
            Err(Reason::OutputFull)
        } else {
            Ok(())
        }
    }

    fn may_ask(&self) -> Result<(), Reason> {
        match self.asked_mode() {
            Mode::Normal | Mode::Leaving => Ok(()),
            Mode::Closed => Err(Reason::Closed),
            mode => Err(Reason::NotAllowed(mode)),
        }
    }

    fn request(&mut self, request: Request) -> Result<RequestId, Reason> {
        let octets: &[u8] = if request == Request::Random { b"random?\r\n" } else { b"classified?\r\n" };
        self.may_ask()?;
        self.room(1, octets.len(), 0)?;
        Ok(self.ask(Kind::Request(request), octets))
    }

    fn enter(&mut self) -> Result<RequestId, Reason> {
        self.may_ask()?;
        self.room(2, 7, LEAVE.len())?;
        Ok(self.ask(Kind::Enter, b"notif\r\n"))
    }

    fn leave(&mut self) -> bool {
        if matches!(self.asked_mode(), Mode::Entering | Mode::Notification) {
            self.ask(Kind::Leave, LEAVE);
        }
        self.asked_mode() == Mode::Leaving
    }

    fn ring(&mut self, request: Request) -> Result<(RequestId, RequestId), Reason> {
        let mut rung = self.clone();
        rung.leave();
        let ids = (rung.request(request)?, rung.enter()?);
        *self = rung;
        Ok(ids)
    }

    fn remove(&mut self, at: usize) -> RequestId {
        self.queue.remove(at).id
    }

    /// What was held back stays so.
    fn end(&mut self, error: Option<Error>) {
        if let Some(from) = self.gate().map(|leave| leave.starts_at) {
            self.asked.truncate(from);
        }
        self.over = Some(error);
        self.inside = None;
    }

    fn poll(&mut self) -> Result<Option<Event<Board>>, Error> {
        loop {
            if let Some(second) = self.second.take() {
                return Ok(Some(second));
            }
            if let Some(error) = &self.over {
                self.queue.retain(|entry| entry.kind != Kind::Leave);
                if !self.queue.is_empty() {
                    let Entry { id, starts_at, .. } = self.queue.remove(0);
                    return Ok(Some(Event::Lost { id, sent: starts_at < self.written }));
                }
                return match error {
                    Some(error) => Err(error.clone()),
                    None if std::mem::replace(&mut self.told, true) => Ok(None),
                    None => Ok(Some(Event::Closed)),
                };
            }
            let unread = &self.input[self.read..];
            let end = unread.windows(2).position(|two| two == b"\r\n");
            // The CR that the octets end with may be half of an end.
            let content = end.unwrap_or(unread.len() - usize::from(unread.ends_with(b"\r")));
            let too_long = content > self.limits.line;
            let ends_at = match end {
                _ if too_long => self.read + self.limits.line + 1 + usize::from(unread[self.limits.line] == b'\r'),
                Some(end) => self.read + end + 2,
                None if self.eof => self.input.len() + 1,
                None => usize::MAX,
            };
            if let (false, [first, rest @ ..]) = (self.acknowledged, &self.queue[..]) {
                match (first.kind, rest) {
                    (Kind::Enter, _) if first.stamp < ends_at => {
                        let id = self.remove(0);
                        self.inside = Some(id);
                        return Ok(Some(Event::Entered { id }));
                    }
                    (Kind::Leave, [next, ..]) if next.kind == Kind::Enter && next.stamp < ends_at => {
                        self.remove(0);
                        let id = self.inside.take().unwrap();
                        return Ok(Some(Event::Left { id, asked: true, refusal: None }));
                    }
                    _ => {}
                }
            }
            match end {
                _ if too_long => {
                    let mut lines = sonnette::LineDecoder::new(sonnette::Terminator::CrLf, self.limits.line);
                    lines.push(unread);
                    let error = lines.next_line().unwrap_err();
                    self.end(Some(error.into()));
                }
                Some(end) => {
                    let line = unread[..end].to_vec();
                    self.read += end + 2;
                    if let Some(event) = self.decode(&line, ends_at) {
                        return Ok(Some(event));
                    }
                }
                None if self.eof => {
                    let octets = unread.len() as u64;
                    self.end((octets > 0).then_some(Error::UnexpectedEof { octets }));
                }
                None => return Ok(None),
            }
        }
    }

    /// What a line means; none is a violation.
    fn decode(&mut self, line: &[u8], ends_at: usize) -> Option<Event<Board>> {
        let unsent = self.gate().map(|leave| leave.id);
        let is_visible = |entry: &Entry| entry.stamp < ends_at && unsent.is_none_or(|unsent| entry.id < unsent);
        let visible: Vec<&Entry> = self.queue.iter().filter(|entry| is_visible(entry)).collect();
        let waits = |entry: &&Entry| self.acknowledged || matches!(entry.kind, Kind::Request(_));
        let at = visible.iter().position(waits);
        let first = at.map(|at| visible[at].clone());
        let is_request = matches!(first, Some(Entry { kind: Kind::Request(_), .. }));
        if line.starts_with(b"notif:") && (self.inside.is_some() || !is_request) {
            let spaces = line[6..].iter().take_while(|&&octet| octet == b' ').count();
            return Some(Event::Notification(match &line[6 + spaces..] {
                b"random" => Notification::Random,
                b"classified" => Notification::Classified,
                name => Notification::Other(name.to_vec().into()),
            }));
        }
        let wrong = Refusal::WrongKind(line.to_vec().into());
        match (first.map(|entry| (entry.id, entry.kind)), at) {
            (Some((id, Kind::Request(request))), Some(at)) => {
                let number = String::from_utf8(line.to_vec()).ok().and_then(|text| text.parse().ok());
                let event = match (request, number) {
                    (Request::Classified, _) => Event::Reply { id, reply: Reply::Classified(line.to_vec().into()) },
                    (Request::Random, Some(number)) => Event::Reply { id, reply: Reply::Random(number) },
                    (Request::Random, None) => Event::Refused { id, refusal: wrong },
                };
                self.remove(at);
                // A silent leave before it has taken effect.
                let leave = self.queue[..at].iter().position(|entry| entry.kind == Kind::Leave);
                match (leave, self.inside) {
                    (Some(leave), Some(id)) if self.mode() == Mode::Leaving => {
                        self.remove(leave);
                        self.inside = None;
                        self.second = Some(event);
                        Some(Event::Left { id, asked: true, refusal: None })
                    }
                    _ => Some(event),
                }
            }
            (Some((id, Kind::Enter)), Some(at)) if line == b"OK" => {
                self.remove(at);
                self.inside = Some(id);
                Some(Event::Entered { id })
            }
            (Some((id, Kind::Enter)), Some(at)) => {
                // The leave that waited for it is dropped.
                if let Some(unsent) = unsent {
                    let leave = self.queue.iter().position(|entry| entry.id == unsent).unwrap();
                    let from = self.queue.remove(leave).starts_at;
                    self.asked.drain(from..from + LEAVE.len());
                    self.queue[leave..].iter_mut().for_each(|entry| entry.starts_at -= LEAVE.len());
                }
                self.remove(at);
                Some(Event::Refused { id, refusal: wrong })
            }
            (Some((_, Kind::Leave)), Some(at)) if line == b"OK" => {
                self.remove(at);
                Some(Event::Left { id: self.inside.take()?, asked: true, refusal: None })
            }
            _ => {
                // Any rule will do: a violation is compared by its frame.
                let mut violating = ClientState::new(Board::silent());
                violating.receive(&[line, b"\r\n"].concat());
                let error = violating.poll_event().expect_err("a line that nobody asked for");
                self.end(Some(error));
                None
            }
        }
    }
}

/// Without the words for the rule that was broken.
fn frame(error: Error) -> Error {
    match error {
        Error::Violation { frame, .. } => Error::Violation { rule: "", frame },
        error => error,
    }
}

fuzz_target!(|data: &[u8]| {
    let (first, mut ops) = header(data);
    let acknowledged = matches!(first.first(), Some(b'a' | b'A'));
    let small = first.first().is_some_and(u8::is_ascii_uppercase);
    let board = if acknowledged { Board::acknowledged() } else { Board::silent() };
    let limits = if small { Limits::new().with_line(16).with_pending(5).with_output(40) } else { Limits::new() };
    let mut state = ClientState::with_limits(board, limits);
    let mut plain = Plain {
        acknowledged,
        limits,
        input: Vec::new(),
        read: 0,
        eof: false,
        queue: Vec::new(),
        next_id: 1,
        inside: None,
        asked: Vec::new(),
        written: 0,
        second: None,
        over: None,
        told: false,
    };
    while let [op, rest @ ..] = ops {
        ops = rest;
        match op {
            b'r' | b'c' => {
                let request = if *op == b'r' { Request::Random } else { Request::Classified };
                assert_eq!(state.request(request).map_err(|rejected| rejected.reason), plain.request(request));
            }
            b'e' => assert_eq!(state.enter(()).map_err(|rejected| rejected.reason), plain.enter()),
            b'l' => assert_eq!(state.leave(), plain.leave()),
            b'g' => {
                let rung = state.ring(Request::Random, ()).map_err(|rejected| rejected.reason);
                assert_eq!(rung, plain.ring(Request::Random));
            }
            b'w' | b'o' => {
                let octets = if *op == b'w' { usize::MAX } else { 1 };
                plain.written += octets.min(plain.output().len());
                state.advance_output(octets);
            }
            b'x' => {
                state.receive_eof();
                plain.eof = true;
            }
            b'p' | b'P' => loop {
                let polled = state.poll_event();
                assert_eq!(polled.clone().map_err(frame), plain.poll().map_err(frame));
                if *op == b'p' || !matches!(polled, Ok(Some(_))) {
                    break;
                }
            },
            _ => {
                let octets: &[u8] = match op {
                    b'N' => b"notif: random\r\n",
                    b'M' => b"notif: other\r\n",
                    b'K' => b"OK\r\n",
                    b'T' => b"a text\r\n",
                    b'0'..=b'9' => &[*op, b'\r', b'\n'],
                    b'<' => {
                        let end = rest.iter().position(|&octet| octet == b'>').unwrap_or(rest.len());
                        ops = rest.get(end + 1..).unwrap_or_default();
                        &rest[..end]
                    }
                    _ => &[],
                };
                state.receive(octets);
                if !plain.eof && plain.over.is_none() {
                    plain.input.extend(octets);
                }
            }
        }
        assert_eq!((state.mode(), state.asked_mode()), (plain.mode(), plain.asked_mode()));
        assert_eq!(state.output().escape_ascii().to_string(), plain.output().escape_ascii().to_string());
    }
});
