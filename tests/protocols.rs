//! The rules of the machine, tried on the protocols that force them: MPD with `idle`, IMAP with IDLE, Redis with Pub/Sub.
//!
//! [`play`] runs a session written as a script, see [`parse`]. What the server says is fed whole, one octet at a time,
//! polled only at the end, and cut off after every octet; each time the events must be the same as far as they go, and
//! at the end of the stream each request and each enter must have had its one outcome.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use bytes::Bytes;
use sonnette::{
    ClientState, Error, Event, Limits, Mode, Protocol, Reason, RequestId, Timeouts,
    board::{self, Board},
    imap::{self, Imap},
    mpd::{self, Ack, Answer, Mpd, Subsystem},
    redis::{self, Redis, ServerError, Subscription, Value},
};
use std::{collections::HashMap, fmt::Debug, time::Duration};

// Scripts.

/// How a protocol is written in a script.
trait Scripted: Protocol<Reply: Told, Refusal: Told, Notification: Told> + Clone + Debug + PartialEq {
    fn request(words: &str) -> Self::Request;
    fn subscription(words: &str) -> Self::Subscription;
    /// The octets of one line of a script.
    fn wire(line: &str) -> Vec<u8>;
}

/// How a value is shown in a script.
trait Told: Clone + Debug + PartialEq {
    fn told(&self) -> String;
}

impl Scripted for Mpd {
    fn request(words: &str) -> mpd::Request {
        let words = unescape(words);
        let mut words = words.split(' ');
        let command = mpd::Command::new(words.next().unwrap_or_default());
        words.fold(command, mpd::Command::arg).into()
    }
    fn subscription(words: &str) -> Vec<Subsystem> {
        unescape(words).split(' ').filter(|name| !name.is_empty()).map(Subsystem::from).collect()
    }
    fn wire(line: &str) -> Vec<u8> {
        (unescape(line) + "\n").into_bytes()
    }
}

impl Scripted for Imap {
    /// A command without its tag. `{text}` in it is a literal, all else is as it is.
    fn request(words: &str) -> imap::Command {
        let words = unescape(words);
        let (name, mut rest) = words.split_once(' ').unwrap_or((&words, ""));
        let mut command = imap::Command::new(name);
        while !rest.is_empty() {
            let (syntax, literal) = rest.split_once('{').unwrap_or((rest, ""));
            if !syntax.trim_matches(' ').is_empty() {
                command = command.syntax(syntax.trim_matches(' '));
            }
            (_, rest) = literal.split_once('}').unwrap_or_default();
            if let Some((literal, _)) = literal.split_once('}') {
                command = command.literal(literal);
            }
        }
        command
    }
    fn subscription(_: &str) {}
    fn wire(line: &str) -> Vec<u8> {
        (unescape(line) + "\r\n").into_bytes()
    }
}

impl Scripted for Redis {
    fn request(words: &str) -> redis::Command {
        let mut words = words.split_whitespace();
        redis::Command::new(words.next().unwrap_or_default()).args(words)
    }
    fn subscription(words: &str) -> Subscription {
        match words.split_once(' ').unwrap_or((words, "")) {
            ("SUBSCRIBE", names) => Subscription::channels(names.split_whitespace()),
            ("PSUBSCRIBE", names) => Subscription::patterns(names.split_whitespace()),
            ("MONITOR", "") => Subscription::Monitor,
            _ => panic!("what is {words:?}?"),
        }
    }
    /// `[a 1 nil]` is an array; a line with the sign of its type is as on the wire; anything else is a bulk string.
    fn wire(line: &str) -> Vec<u8> {
        let line = unescape(line);
        if line.starts_with(['+', '-', ':', '$', '*']) {
            return (line + "\r\n").into_bytes();
        }
        let Some(items) = line.strip_prefix('[') else {
            return format!("${}\r\n{line}\r\n", line.len()).into_bytes();
        };
        let items: Vec<&str> = items.trim_end_matches(']').split_whitespace().collect();
        let items = items.iter().map(|item| match *item {
            "nil" => "$-1\r\n".into(),
            "[]" => "*0\r\n".into(),
            number if number.bytes().all(|octet| octet.is_ascii_digit()) => format!(":{number}\r\n"),
            text => format!("${}\r\n{text}\r\n", text.len()),
        });
        (format!("*{}\r\n", items.len()) + &items.collect::<String>()).into_bytes()
    }
}

/// The silent dialect of the notice board: the only one of the four with a leave that has no answer at all.
impl Scripted for Board {
    fn request(words: &str) -> board::Request {
        if words == "random" { board::Request::Random } else { board::Request::Classified }
    }
    fn subscription(_: &str) {}
    fn wire(line: &str) -> Vec<u8> {
        (unescape(line) + "\r\n").into_bytes()
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\r", "\r").replace("\\n", "\n")
}

impl Told for Bytes {
    fn told(&self) -> String {
        self.escape_ascii().to_string()
    }
}

impl Told for String {
    fn told(&self) -> String {
        self.as_bytes().escape_ascii().to_string()
    }
}

impl Told for Answer {
    fn told(&self) -> String {
        let mut blocks = self.blocks().iter();
        let field = |(key, value): (&[u8], &[u8])| {
            let block = if key == b"binary" { blocks.next().map(|block| format!(" | {}", block.told())) } else { None };
            format!("{}: {}{}", key.escape_ascii(), value.escape_ascii(), block.unwrap_or_default())
        };
        self.fields().map(field).collect::<Vec<_>>().join(" | ")
    }
}

impl Told for Ack {
    fn told(&self) -> String {
        let Ack { code, position, command, text, before } = self;
        let before = before.told();
        let before = if before.is_empty() { before } else { format!(" after {before}") };
        format!("ACK [{code}@{position}] {{{}}} {}{before}", command.told(), text.told())
    }
}

impl Told for Subsystem {
    fn told(&self) -> String {
        self.to_string()
    }
}

impl Told for imap::Status {
    fn told(&self) -> String {
        self.to_string().told()
    }
}

impl Told for imap::Notification {
    fn told(&self) -> String {
        match self {
            imap::Notification::Exists(number) => format!("{number} EXISTS"),
            imap::Notification::Recent(number) => format!("{number} RECENT"),
            imap::Notification::Expunge(number) => format!("{number} EXPUNGE"),
            imap::Notification::Fetch { data, .. } | imap::Notification::Other(data) => data.escape_ascii().to_string(),
            imap::Notification::Status(status) | imap::Notification::Bye(status) => status.told(),
        }
    }
}

impl Told for Value {
    fn told(&self) -> String {
        match self {
            Value::Nil => "nil".into(),
            Value::Integer(number) => number.to_string(),
            Value::Simple(text) | Value::Bulk(text) => text.told(),
            Value::Error(error) => error.told(),
            Value::Array(items) => format!("[{}]", items.iter().map(Told::told).collect::<Vec<_>>().join(" ")),
        }
    }
}

impl Told for redis::Reply {
    fn told(&self) -> String {
        match self {
            redis::Reply::Value(value) => value.told(),
            redis::Reply::Confirmed { confirmations, subscriptions } => format!("{confirmations} -> {subscriptions}"),
        }
    }
}

impl Told for ServerError {
    fn told(&self) -> String {
        self.text().told()
    }
}

impl Told for redis::Notification {
    fn told(&self) -> String {
        match self {
            redis::Notification::Message { channel, payload } => {
                format!("[message {} {}]", channel.told(), payload.told())
            }
            redis::Notification::PatternMessage { pattern, channel, payload } => {
                format!("[pmessage {} {} {}]", pattern.told(), channel.told(), payload.told())
            }
            redis::Notification::Monitor(line) => line.told(),
            redis::Notification::Other(items) => Value::Array(items.clone()).told(),
        }
    }
}

impl Told for board::Reply {
    fn told(&self) -> String {
        match self {
            board::Reply::Random(number) => number.to_string(),
            board::Reply::Classified(text) => text.told(),
        }
    }
}

impl Told for board::Refusal {
    fn told(&self) -> String {
        let board::Refusal::WrongKind(line) = self;
        line.told()
    }
}

impl Told for board::Notification {
    fn told(&self) -> String {
        format!("{self:?}")
    }
}

fn tell<P: Scripted>(event: &Event<P>) -> String {
    let line = match event {
        Event::Reply { id, reply } => format!("reply {id} {}", reply.told()),
        Event::Refused { id, refusal } => format!("refused {id} {}", refusal.told()),
        Event::Notification(notification) => format!("ring {}", notification.told()),
        Event::Entered { id } => format!("entered {id}"),
        Event::Left { id, asked, refusal } => {
            let refusal = refusal.as_ref().map(Told::told).unwrap_or_default();
            format!("left {id} {} {refusal}", if *asked { "asked" } else { "unasked" })
        }
        Event::Lost { id, sent } => format!("lost {id} {}", if *sent { "sent" } else { "unsent" }),
        Event::Closed => "closed".into(),
    };
    line.trim_end().into()
}

#[derive(Debug)]
enum Step<'a> {
    Ask(&'a str),
    Enter(&'a str),
    Leave,
    /// The call before was not carried out, for this reason.
    Not(&'a str),
    Client(Vec<u8>),
    Server(Vec<u8>),
    Told(&'a str),
    Mode(&'a str),
    Gated,
    /// So many seconds pass.
    After(u64),
}

/// A session, and for each octet of the server's how many octets of something unfinished there are after it.
struct Script<'a> {
    steps: Vec<Step<'a>>,
    unfinished: Vec<u64>,
}

/// | a line | means |
/// |---|---|
/// | `ask WORDS`, `enter WORDS`, `leave` | the application calls; `not REASON` below it: and is rejected |
/// | `C LINE`, several in a row | all that `output` shows now; it is written |
/// | `S LINE`, several in a row | the server sends |
/// | `s LINE` | the server sends, and the same answer goes on in the next line |
/// | `p LINE` | the server sends something else in the middle of an answer |
/// | `= EVENT`, `! ERROR` | what the step before made happen, no more and no less |
/// | `after N` | so many seconds pass |
/// | `mode MODE ASKED` | `mode()` and `asked_mode()`; `gated`: something waits for the server |
fn parse<P: Scripted>(text: &str) -> Script<'_> {
    let (mut steps, mut unfinished, mut answer) = (Vec::new(), vec![0], 0);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut octets = P::wire(rest);
        if let "S" | "s" | "p" = word {
            unfinished.extend((1..octets.len() as u64).map(|received| answer + received));
            answer = match word {
                "S" => 0,
                "s" => answer + octets.len() as u64,
                _ => answer,
            };
            unfinished.push(answer);
        }
        match (word, steps.last_mut()) {
            ("S" | "s" | "p", Some(Step::Server(before))) | ("C", Some(Step::Client(before))) => {
                before.append(&mut octets);
            }
            ("S" | "s" | "p", _) => steps.push(Step::Server(octets)),
            ("C", _) => steps.push(Step::Client(octets)),
            ("ask", _) => steps.push(Step::Ask(rest)),
            ("enter", _) => steps.push(Step::Enter(rest)),
            ("leave", _) => steps.push(Step::Leave),
            ("not", _) => steps.push(Step::Not(rest)),
            ("=", _) => steps.push(Step::Told(rest)),
            ("!", _) => steps.push(Step::Told(line)),
            ("mode", _) => steps.push(Step::Mode(rest)),
            ("gated", _) => steps.push(Step::Gated),
            ("after", _) => steps.push(Step::After(rest.parse().unwrap())),
            _ => panic!("what is {line:?}?"),
        }
    }
    Script { steps, unfinished }
}

/// How the server's octets come in, and when events are polled.
#[derive(Clone, Copy, PartialEq)]
enum Feed {
    Whole,
    Octets,
    /// Whole, and no event is polled before the end.
    Unpolled,
}

struct Run<P: Scripted> {
    state: ClientState<P>,
    feed: Feed,
    now: Duration,
    /// What was accepted, and what each call said.
    asked: Vec<RequestId>,
    /// The enters of refreshes.
    renewals: Vec<RequestId>,
    results: Vec<String>,
    events: Vec<Event<P>>,
    told: Vec<String>,
    checked: usize,
}

impl<P: Scripted> Run<P> {
    fn new(state: &ClientState<P>, feed: Feed) -> Self {
        let mut state = state.clone();
        let _ = state.poll_timeout(Duration::ZERO);
        Run {
            state,
            feed,
            now: Duration::ZERO,
            asked: vec![],
            renewals: vec![],
            results: vec![],
            events: vec![],
            told: vec![],
            checked: 0,
        }
    }

    fn poll(&mut self) {
        loop {
            match self.state.poll_event() {
                Ok(None) => return,
                Ok(Some(event)) => {
                    if matches!(event, Event::Lost { .. } | Event::Closed) {
                        assert_eq!((self.state.mode(), self.state.asked_mode()), (Mode::Closed, Mode::Closed));
                    }
                    self.told.push(tell(&event));
                    self.events.push(event);
                }
                Err(error) => {
                    let error = format!("! {error}");
                    match self.told.last().filter(|last| last.starts_with('!')) {
                        Some(before) => assert_eq!(*before, error, "an error stays"),
                        None => self.told.push(error),
                    }
                    return;
                }
            }
        }
    }

    fn receive(&mut self, octets: &[u8]) {
        if self.feed == Feed::Octets {
            for octet in octets {
                self.state.receive(&[*octet]);
                self.poll();
            }
        } else {
            self.state.receive(octets);
        }
    }

    fn asked(&mut self, asked: Result<RequestId, Reason>) {
        self.results.push(format!("{asked:?}"));
        match asked {
            Ok(id) => self.asked.push(id),
            Err(reason) => self.told.push(format!("not {reason}")),
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        if self.feed != Feed::Unpolled && !matches!(step, Step::Told(_) | Step::Not(_)) {
            assert_eq!(self.checked, self.told.len(), "{:?} before {step:?}", self.told);
        }
        match step {
            Step::Ask(words) => {
                let asked = self.state.request(P::request(words)).map_err(|rejected| rejected.reason);
                self.asked(asked);
            }
            Step::Enter(words) => {
                let asked = self.state.enter(P::subscription(words)).map_err(|rejected| rejected.reason);
                self.asked(asked);
            }
            Step::Leave => {
                let outstanding = self.state.leave();
                self.results.push(format!("{outstanding}"));
                if !outstanding {
                    self.told.push("not left".into());
                }
            }
            Step::Server(octets) => {
                let output = self.state.output();
                assert!(output.is_empty() || self.feed == Feed::Unpolled, "unwritten: {}", output.escape_ascii());
                self.receive(octets);
            }
            Step::Client(octets) => self.write(octets),
            Step::Gated => assert!(self.state.is_gated() || self.feed == Feed::Unpolled, "no gate is closed"),
            Step::Mode(modes) if self.feed != Feed::Unpolled => {
                assert_eq!(format!("{:?} {:?}", self.state.mode(), self.state.asked_mode()), **modes);
            }
            Step::Mode(_) => {}
            Step::After(seconds) => {
                self.now += Duration::from_secs(*seconds);
                self.state.handle_timeout(self.now);
                // Who does not poll is not judged either.
                self.results.push(format!("{}", self.feed == Feed::Unpolled));
            }
            Step::Told(_) | Step::Not(_) if self.feed == Feed::Unpolled => {}
            Step::Told(line) => self.check(line),
            Step::Not(reason) => self.check(&format!("not {reason}")),
        }
        if self.feed != Feed::Unpolled {
            self.poll();
        }
        self.renewals.extend(self.state.refreshing());
        let _ = self.state.poll_timeout(self.now);
    }

    fn write(&mut self, octets: &[u8]) {
        match self.feed {
            Feed::Whole => {
                assert_eq!(self.state.output().escape_ascii().to_string(), octets.escape_ascii().to_string());
                self.state.advance_output(octets.len());
            }
            Feed::Octets => {
                for octet in octets {
                    assert_eq!(self.state.output().first(), Some(octet));
                    self.state.advance_output(1);
                }
            }
            Feed::Unpolled => self.state.advance_output(usize::MAX),
        }
    }

    fn check(&mut self, line: &str) {
        let told = self.told.get(self.checked).map(String::as_str).unwrap_or("nothing");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let same = match word {
            "!" | "not" => told.starts_with(word) && told.contains(rest),
            _ => told == line,
        };
        assert!(same, "{told:?}, not {line:?}, in {:#?}", self.told);
        self.checked += 1;
    }

    /// Nobody gets half a change, two outcomes, or, once the connection has ended, none.
    fn check_outcomes(&self, ended: bool) {
        let mut outcomes: HashMap<RequestId, usize> = HashMap::new();
        let mut inside = None;
        for event in &self.events {
            match event {
                Event::Reply { id, .. } | Event::Refused { id, .. } | Event::Lost { id, .. } => {
                    *outcomes.entry(*id).or_default() += 1;
                }
                Event::Entered { id } => {
                    *outcomes.entry(*id).or_default() += 1;
                    assert_eq!(inside.replace(*id), None, "entered twice");
                }
                Event::Left { id, .. } => assert_eq!(inside.take(), Some(*id), "left what was not entered"),
                Event::Notification(_) | Event::Closed => {}
            }
        }
        for id in &self.asked {
            let outcomes = outcomes.remove(id).unwrap_or(0);
            assert!(outcomes == 1 || outcomes == 0 && !ended, "{id}: {outcomes} outcomes in {:#?}", self.told);
        }
        outcomes.retain(|id, _| !self.renewals.contains(id));
        assert!(outcomes.is_empty(), "outcomes of nothing: {outcomes:?}");
    }
}

/// Plays a session of a new connection, see [`parse`].
#[track_caller]
fn play<P: Scripted + Default>(script: &str) {
    play_on(&ClientState::new(P::default()), script);
}

fn play_on<P: Scripted>(state: &ClientState<P>, script: &str) {
    let script = parse::<P>(script);
    let [mut whole, mut octets, mut unpolled] =
        [Feed::Whole, Feed::Octets, Feed::Unpolled].map(|feed| Run::new(state, feed));
    for step in &script.steps {
        whole.step(step);
        octets.step(step);
        assert!(whole.state == octets.state, "equal after {step:?}:\n{:#?}\n{:#?}", whole.state, octets.state);
        unpolled.step(step);
    }
    assert_eq!(whole.checked, whole.told.len(), "{:?} at the end", whole.told);
    whole.check_outcomes(whole.told.last().is_some_and(|last| last.starts_with('!')));
    let whole = whole;

    // What the calls say may depend on what was polled; if it did, the two have been different sessions. How much was
    // sent depends on which gates polling opened.
    unpolled.poll();
    if unpolled.results == whole.results {
        let of_whole = whole.told.iter().filter(|line| !line.starts_with("not "));
        let of_unpolled = unpolled.told.iter().filter(|line| !line.starts_with("not "));
        let sent = |line: &String| line.trim_end_matches(" unsent").trim_end_matches(" sent").to_string();
        assert!(of_unpolled.map(sent).eq(of_whole.map(sent)), "{:#?}\n{:#?}", unpolled.told, whole.told);
    }

    for octets in 0..script.unfinished.len() {
        cut(state, &script, &whole, octets, true);
        cut(state, &script, &whole, octets, false);
    }
}

/// Plays until the server has sent so many octets, and, if not `at_once`, what the client does before more would come.
fn cut<P: Scripted>(state: &ClientState<P>, script: &Script<'_>, whole: &Run<P>, octets: usize, at_once: bool) {
    let mut run = Run::new(state, Feed::Whole);
    let mut rest = octets;
    for step in &script.steps {
        match step {
            Step::Server(sent) if sent.len() > rest || at_once && sent.len() == rest => {
                run.state.receive(&sent[..rest]);
                rest = 0;
                break;
            }
            Step::Server(sent) => {
                run.step(step);
                rest -= sent.len();
            }
            step => run.step(step),
        }
    }
    assert_eq!(rest, 0);
    let before = run.told.len();
    if run.told.last().is_some_and(|last| last.starts_with('!')) {
        return;
    }
    run.state.receive_eof();
    run.poll();
    let ends = |line: &&String| line.starts_with("lost ") || line.starts_with("closed") || line.starts_with('!');
    let happened: Vec<_> = run.told.iter().take_while(|line| !ends(line)).collect();
    let end = run.told.get(happened.len()..).unwrap_or_default();
    assert!(happened.len() >= before);
    assert!(happened.iter().copied().eq(whole.told.iter().take(happened.len())), "{happened:#?} {:#?}", whole.told);

    let lost = run.events.iter().filter_map(|event| if let Event::Lost { id, .. } = event { Some(*id) } else { None });
    let lost: Vec<RequestId> = lost.collect();
    assert!(lost.is_sorted(), "lost in the order asked: {lost:?}");
    assert_eq!(end.len(), lost.len() + 1, "{end:#?}");
    run.check_outcomes(true);

    let mut happens = script.steps.iter().rev();
    let last = happens.find(|step| matches!(step, Step::Server(_) | Step::After(_)));
    let told_by_violation = !matches!(last, Some(Step::After(_)))
        && octets + 1 == script.unfinished.len()
        && whole.told.last().is_some_and(|last| last.starts_with('!'));
    let expected = match script.unfinished[octets] {
        _ if told_by_violation => whole.told.last().cloned().unwrap_or_default(),
        0 => "closed".into(),
        octets => format!("! {}", Error::UnexpectedEof { octets }),
    };
    assert_eq!(end.last(), Some(&expected), "after {octets} octets and {:#?}", run.told);
    let told = run.told.len();
    run.poll();
    assert_eq!(run.told.len(), told, "the end is final");
    let output = run.state.output().len();
    run.state.advance_output(output);
    assert!(run.state.output().is_empty(), "output drains");
}

// What confirms a change.

#[test]
fn a_silent_enter_is_confirmed_when_all_before_it_is_answered() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask status
        enter mixer
        C status
        C idle mixer
        mode Entering Entering
        s volume: 40
        S OK
        = reply #2 volume: 40
        = entered #3
        mode Notification Notification
        enter
        not not allowed
        ",
    );
}

#[test]
fn a_silent_enter_with_nothing_before_it_is_confirmed_at_once() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        ",
    );
}

#[test]
fn an_own_enter_is_confirmed_by_its_frame() {
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        mode Entering Entering
        S + idling
        = entered #2
        mode Notification Notification
        ",
    );
}

#[test]
fn an_own_enter_may_be_confirmed_by_one_frame_for_each_name() {
    play::<Redis>(
        "
        enter SUBSCRIBE a b
        C [SUBSCRIBE a b]
        s [subscribe a 1]
        S [subscribe b 2]
        = entered #1
        S [message a hi]
        = ring [message a hi]
        ",
    );
}

#[test]
fn one_error_refuses_all_names_of_an_enter() {
    play::<Redis>(
        "
        enter SUBSCRIBE ok1 secret
        C [SUBSCRIBE ok1 secret]
        S -NOPERM no permissions
        = refused #1 NOPERM no permissions
        mode Normal Normal
        enter SUBSCRIBE ok1
        C [SUBSCRIBE ok1]
        S [subscribe ok1 1]
        = entered #2
        ",
    );
}

#[test]
fn by_enter_a_leave_is_confirmed_by_the_late_answer_of_the_enter() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        leave
        C noidle
        mode Leaving Leaving
        S OK
        = left #2 asked
        mode Normal Normal
        ",
    );
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        leave
        C DONE
        S A2 OK Idle completed
        = left #2 asked
        ",
    );
}

#[test]
fn by_enter_the_server_may_end_the_mode_alone() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        s changed: mixer
        = ring mixer
        s changed: player
        = ring player
        S OK
        = left #2 unasked
        mode Normal Normal
        leave
        not left
        ",
    );
}

#[test]
fn an_own_leave_has_one_confirmation_for_each_name_held_when_the_first_is_read() {
    // The channel b is added on the way; the pattern keeps the server's count above 0 until the end.
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        ask SUBSCRIBE b
        ask PSUBSCRIBE p*
        leave
        C [SUBSCRIBE b]
        C [PSUBSCRIBE p*]
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        S [subscribe b 2]
        = reply #2 1 -> 2
        S [psubscribe p* 3]
        = reply #3 1 -> 3
        mode Leaving Leaving
        s [unsubscribe a 2]
        s [unsubscribe b 1]
        S [punsubscribe p* 0]
        = left #1 asked
        ",
    );
}

#[test]
fn an_own_leave_has_at_least_one_confirmation_for_each_command() {
    play::<Redis>(
        "
        enter PSUBSCRIBE p*
        C [PSUBSCRIBE p*]
        S [psubscribe p* 1]
        = entered #1
        leave
        ask GET k
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [GET k]
        s [unsubscribe nil 1]
        S [punsubscribe p* 0]
        = left #1 asked
        S v
        = reply #3 v
        ",
    );
}

#[test]
fn pushes_may_come_between_confirmations() {
    play::<Redis>(
        "
        enter SUBSCRIBE a b
        C [SUBSCRIBE a b]
        s [subscribe a 1]
        p [message a early]
        = ring [message a early]
        mode Entering Entering
        S [subscribe b 2]
        = entered #1
        ask PSUBSCRIBE p*
        C [PSUBSCRIBE p*]
        S [psubscribe p* 3]
        = reply #2 1 -> 3
        leave
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        s [unsubscribe a 2]
        s [unsubscribe b 1]
        p [pmessage p* pq late]
        = ring [pmessage p* pq late]
        S [punsubscribe p* 0]
        = left #1 asked
        ",
    );
}

#[test]
fn confirmations_are_not_kept_so_no_limit_counts_them() {
    let state = ClientState::with_limits(Redis::default(), Limits::new().with_answer(200));
    play_on(
        &state,
        "
        enter SUBSCRIBE a b c d
        C [SUBSCRIBE a b c d]
        s [subscribe a 1]
        s [subscribe b 2]
        s [subscribe c 3]
        S [subscribe d 4]
        = entered #1
        ",
    );
}

#[test]
fn a_silent_leave_is_confirmed_by_the_next_answer() {
    play::<Board>(
        "
        enter
        = entered #1
        C notif
        leave
        ask random
        enter
        C stop_notif
        C random?
        C notif
        S notif: random
        = ring Random
        mode Leaving Entering
        S 90210
        = left #1 asked
        = reply #3 90210
        = entered #4
        ",
    );
}

#[test]
fn a_silent_leave_is_confirmed_by_the_enter_asked_next() {
    play::<Board>(
        "
        ask random
        enter
        leave
        enter
        C random?
        C notif
        C stop_notif
        C notif
        S 1
        = reply #1 1
        = entered #2
        = left #2 asked
        = entered #4
        ",
    );
}

#[test]
fn a_leave_waits_for_the_enter_that_has_a_confirmation() {
    play::<Imap>(
        "
        S * OK ready
        enter
        leave
        C A2 IDLE
        gated
        mode Entering Leaving
        S + idling
        = entered #2
        mode Leaving Leaving
        C DONE
        S A2 OK Idle completed
        = left #2 asked
        ",
    );
    play::<Redis>(
        "
        enter SUBSCRIBE a b
        leave
        ask GET k
        C [SUBSCRIBE a b]
        gated
        s [subscribe a 1]
        S [subscribe b 2]
        = entered #1
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [GET k]
        s [unsubscribe a 1]
        s [unsubscribe b 0]
        S [punsubscribe nil 0]
        = left #1 asked
        S nothing to see
        = reply #3 nothing to see
        ",
    );
}

#[test]
fn a_refused_enter_drops_its_leave_unseen_and_nothing_else() {
    play::<Imap>(
        "
        S * OK ready
        enter
        leave
        ask NOOP
        enter
        leave
        C A2 IDLE
        gated
        S A2 NO not now
        = refused #2 NO not now
        mode Entering Leaving
        C A4 NOOP
        C A5 IDLE
        gated
        S + idling
        = entered #5
        C DONE
        S A4 OK done
        = reply #4 OK done
        S A5 OK done
        = left #5 asked
        ",
    );
}

#[test]
fn a_silent_enter_has_nothing_to_wait_for() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask ping
        enter
        leave
        ask status
        C ping
        C idle
        C noidle
        C status
        mode Entering Leaving
        S OK
        = reply #2
        = entered #3
        mode Leaving Leaving
        S OK
        = left #3 asked
        S OK
        = reply #5
        ",
    );
}

#[test]
fn an_answer_that_ends_the_mode_is_told_before_its_end() {
    play::<Redis>(
        "
        enter SUBSCRIBE a b
        C [SUBSCRIBE a b]
        s [subscribe a 1]
        S [subscribe b 2]
        = entered #1
        ask UNSUBSCRIBE a
        ask UNSUBSCRIBE b zzz
        C [UNSUBSCRIBE a]
        C [UNSUBSCRIBE b zzz]
        S [unsubscribe a 1]
        = reply #2 1 -> 1
        mode Notification Notification
        s [unsubscribe b 0]
        S [unsubscribe zzz 0]
        = reply #3 2 -> 0
        = left #1 unasked
        mode Normal Normal
        leave
        not left
        ",
    );
}

#[test]
fn an_answer_that_would_end_the_mode_ends_nothing_outside_it() {
    play::<Redis>(
        "
        ask RESET
        enter SUBSCRIBE a
        C [RESET]
        C [SUBSCRIBE a]
        S +RESET
        = reply #1 RESET
        mode Entering Entering
        S [subscribe a 1]
        = entered #2
        ",
    );
}

#[test]
fn a_leave_on_its_way_when_an_answer_ends_the_mode_is_void() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        ask RESET
        leave
        ask GET k
        C [RESET]
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [GET k]
        S [message a one]
        = ring [message a one]
        S +RESET
        = reply #2 RESET
        = left #1 asked
        mode Normal Normal
        s [unsubscribe nil 0]
        S [punsubscribe nil 0]
        S v
        = reply #4 v
        ",
    );
}

#[test]
fn a_void_leave_may_be_answered_while_the_next_mode_is_entered() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        ask UNSUBSCRIBE a
        leave
        enter SUBSCRIBE b
        leave
        C [UNSUBSCRIBE a]
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [SUBSCRIBE b]
        gated
        S [unsubscribe a 0]
        = reply #2 1 -> 0
        = left #1 asked
        mode Entering Leaving
        s [unsubscribe nil 0]
        S [punsubscribe nil 0]
        mode Entering Leaving
        S [subscribe b 1]
        = entered #4
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        s [unsubscribe b 0]
        S [punsubscribe nil 0]
        = left #4 asked
        ",
    );
}

#[test]
fn a_void_leave_may_be_refused() {
    // RESET logs out as well.
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        ask RESET
        leave
        ask PING
        C [RESET]
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [PING]
        S +RESET
        = reply #2 RESET
        = left #1 asked
        s -NOAUTH Authentication required.
        S -NOAUTH Authentication required.
        S -NOAUTH Authentication required.
        = refused #4 NOAUTH Authentication required.
        ",
    );
}

#[test]
fn a_leave_asked_between_the_answer_and_the_end_of_the_mode_is_void() {
    let mut state = ClientState::new(Redis::default());
    let enter = state.enter(Redis::subscription("SUBSCRIBE a")).unwrap();
    let reset = state.request(Redis::request("RESET")).unwrap();
    state.receive(&[Redis::wire("[subscribe a 1]"), Redis::wire("+RESET")].concat());
    assert_eq!(state.poll_event(), Ok(Some(Event::Entered { id: enter })));
    assert_eq!(
        state.poll_event(),
        Ok(Some(Event::Reply { id: reset, reply: redis::Reply::Value(Value::Simple("RESET".into())) }))
    );
    assert!(state.leave());
    assert_eq!(state.poll_event(), Ok(Some(Event::Left { id: enter, asked: false, refusal: None })));
    assert_eq!(state.mode(), Mode::Normal);
    state.receive(&[Redis::wire("[unsubscribe nil 0]"), Redis::wire("[punsubscribe nil 0]")].concat());
    assert_eq!(state.poll_event(), Ok(None));
    state.receive_eof();
    assert_eq!(state.poll_event(), Ok(Some(Event::Closed)));
}

#[test]
fn leave_never_says_not_now() {
    play::<Mpd>(
        "
        leave
        not left
        enter
        leave
        leave
        gated
        S OK MPD 0.23.5
        = entered #2
        C idle
        C noidle
        leave
        S OK
        = left #2 asked
        leave
        not left
        ",
    );
    play::<Imap>(
        "
        enter
        leave
        leave
        gated
        S * OK ready
        C A2 IDLE
        leave
        S + idling
        = entered #2
        C DONE
        leave
        S A2 OK done
        = left #2 asked
        ",
    );
}

#[test]
fn enter_reserves_room_for_its_leave() {
    let octets = "A2 IDLE\r\nDONE\r\n".len();
    let mut state = ClientState::with_limits(Imap::default(), Limits::new().with_output(octets - 1));
    assert_eq!(state.enter(()).unwrap_err().reason, Reason::TooLarge);

    let mut state = ClientState::with_limits(Imap::default(), Limits::new().with_output(octets).with_pending(3));
    state.enter(()).unwrap();
    assert!(state.leave());
    assert_eq!(state.request(Imap::request("NOOP")).unwrap_err().reason, Reason::TooManyPending);

    let mut state = ClientState::with_limits(Redis::default(), Limits::new().with_pending(3));
    state.enter(Redis::subscription("SUBSCRIBE a")).unwrap();
    state.request(Redis::request("PING")).unwrap();
    assert_eq!(state.request(Redis::request("PING")).unwrap_err().reason, Reason::TooManyPending);
    assert!(state.leave());
}

#[test]
fn after_the_end_was_polled_leave_writes_nothing() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        s changed: mixer
        = ring mixer
        S OK
        = left #2 unasked
        leave
        not left
        ask ping
        C ping
        S OK
        = reply #3
        ",
    );
}

#[test]
fn a_late_refusal_ends_the_mode() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter nonsense
        = entered #2
        C idle nonsense
        S ACK [2@0] {idle} Unrecognized idle event: nonsense
        = left #2 unasked ACK [2@0] {idle} Unrecognized idle event: nonsense
        mode Normal Normal
        ",
    );
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        S A2 BAD Expected DONE
        = left #2 unasked BAD Expected DONE
        mode Normal Normal
        leave
        not left
        ",
    );
}

#[test]
fn a_late_refusal_may_cross_the_leave_and_what_follows_it() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        leave
        ask status
        enter
        C noidle
        C status
        C idle
        S ACK [4@0] {idle} no permission
        = left #2 asked ACK [4@0] {idle} no permission
        mode Entering Entering
        S OK
        = reply #4
        = entered #5
        S ACK [4@0] {idle} no permission
        = left #5 unasked ACK [4@0] {idle} no permission
        ",
    );
}

// Two modes, never mixed up.

#[test]
fn a_frame_is_judged_by_what_was_read_not_by_what_was_asked() {
    play::<Board>(
        "
        ask classified
        enter
        C classified?
        C notif
        S notif: 1
        = reply #1 notif: 1
        = entered #2
        S notif: 1
        = ring Other(b\"1\")
        ",
    );
    play::<Redis>(
        "
        ask EVAL acks
        ask LRANGE l 0 -1
        enter SUBSCRIBE a
        C [EVAL acks]
        C *4\\r\\n$6\\r\\nLRANGE\\r\\n$1\\r\\nl\\r\\n$1\\r\\n0\\r\\n$2\\r\\n-1
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = reply #1 [subscribe a 1]
        S [message a fake]
        = reply #2 [message a fake]
        mode Entering Entering
        S [subscribe a 1]
        = entered #3
        S [message a real]
        = ring [message a real]
        leave
        ask LRANGE l
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [LRANGE l]
        S [message a last]
        = ring [message a last]
        s [unsubscribe a 0]
        S [punsubscribe nil 0]
        = left #3 asked
        S [message a fake]
        = reply #5 [message a fake]
        ",
    );
}

/// Another client can have the server push them: `CLIENT TRACKING ON REDIRECT` with the id of this one.
#[test]
fn pushes_of_another_shape_than_a_message_are_pushes_all_the_same() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        ask PING
        C [PING]
        S *3\\r\\n$7\\r\\nmessage\\r\\n$20\\r\\n__redis__:invalidate\\r\\n*2\\r\\n$3\\r\\nfoo\\r\\n$3\\r\\nbar
        = ring [message __redis__:invalidate [foo bar]]
        S *3\\r\\n$7\\r\\nmessage\\r\\n$20\\r\\n__redis__:invalidate\\r\\n*-1
        = ring [message __redis__:invalidate nil]
        S *3\\r\\n$7\\r\\nmessage\\r\\n$1\\r\\na\\r\\n-ERR
        = ring [message a ERR]
        S [message a nil]
        = ring [message a nil]
        S [message nil a]
        = ring [message nil a]
        S [message a 1]
        = ring [message a 1]
        S [message]
        = ring [message]
        S [message a]
        = ring [message a]
        S [message a b c]
        = ring [message a b c]
        S [pmessage]
        = ring [pmessage]
        S [pmessage a b]
        = ring [pmessage a b]
        S [pmessage a [] b]
        = ring [pmessage a [] b]
        S [pmessage a b c d]
        = ring [pmessage a b c d]
        S [message a b]
        = ring [message a b]
        S [pong]
        = reply #2 [pong]
        leave
        ask GET k
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [GET k]
        S [message a nil]
        = ring [message a nil]
        s [unsubscribe a 0]
        S [punsubscribe nil 0]
        = left #1 asked
        S [message a nil]
        = reply #4 [message a nil]
        ",
    );
}

#[test]
fn what_may_be_sent_is_judged_by_where_the_server_will_be() {
    // One that allows requests in normal mode alone.
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask ping
        enter
        mode Entering Entering
        ask ping
        not not allowed while the mode asked for is Entering
        enter
        not not allowed while the mode asked for is Entering
        C ping
        C idle
        S OK
        = reply #2
        = entered #3
        ask ping
        not not allowed while the mode asked for is Notification
        enter
        not not allowed while the mode asked for is Notification
        leave
        mode Leaving Leaving
        ask ping
        enter
        mode Leaving Entering
        C noidle
        C ping
        C idle
        S OK
        = left #3 asked
        S OK
        = reply #5
        = entered #6
        ",
    );
}

#[test]
fn while_entering_a_request_must_be_right_in_both_modes() {
    // Both of the enter's outcomes.
    play::<Redis>(
        "
        ask SUBSCRIBE a
        not not allowed while the mode asked for is Normal
        enter SUBSCRIBE a
        ask GET k
        not not allowed while the mode asked for is Entering
        ask SUBSCRIBE b
        not not allowed while the mode asked for is Entering
        ask PING
        C [SUBSCRIBE a]
        C [PING]
        S [subscribe a 1]
        = entered #1
        S [pong nil]
        = reply #2 [pong nil]
        ask GET k
        not not allowed while the mode asked for is Notification
        ask SUBSCRIBE b
        C [SUBSCRIBE b]
        S [subscribe b 2]
        = reply #3 1 -> 2
        ",
    );
    play::<Redis>(
        "
        enter SUBSCRIBE a
        ask PING
        C [SUBSCRIBE a]
        C [PING]
        S -NOPERM no
        = refused #1 NOPERM no
        S +PONG
        = reply #2 PONG
        ",
    );
}

/// After an UNSUBSCRIBE the server may be in either mode. A SUBSCRIBE behind the last one would enter the mode again,
/// without an enter: the machine would say Normal for ever, and the server push.
#[test]
fn behind_a_request_that_may_end_the_mode_a_request_must_be_right_in_both_modes() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        ask UNSUBSCRIBE a
        ask PING
        ask SUBSCRIBE b
        not not allowed while the mode asked for is Notification
        C [UNSUBSCRIBE a]
        C [PING]
        S [unsubscribe a 0]
        = reply #2 1 -> 0
        = left #1 unasked
        S +PONG
        = reply #3 PONG
        enter SUBSCRIBE b
        C [SUBSCRIBE b]
        S [subscribe b 1]
        = entered #4
        ask UNSUBSCRIBE zzz
        C [UNSUBSCRIBE zzz]
        S [unsubscribe zzz 1]
        = reply #5 1 -> 1
        ask SUBSCRIBE c
        C [SUBSCRIBE c]
        S [subscribe c 2]
        = reply #6 1 -> 2
        ",
    );

    // The answer was polled, the end of the mode was not.
    let mut state = ClientState::new(Redis::default());
    state.enter(Redis::subscription("SUBSCRIBE a")).unwrap();
    let reset = state.request(Redis::request("RESET")).unwrap();
    state.receive(&[Redis::wire("[subscribe a 1]"), Redis::wire("+RESET")].concat());
    assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
    assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { id, .. })) if id == reset));
    let rejected = state.request(Redis::request("SUBSCRIBE b")).unwrap_err();
    assert_eq!(rejected.reason, Reason::NotAllowed(Mode::Notification));
    assert!(matches!(state.poll_event(), Ok(Some(Event::Left { .. }))));
}

#[test]
fn a_ring_is_one_write() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        leave
        ask status
        enter
        C noidle
        C status
        C idle
        s changed: mixer
        = ring mixer
        S OK
        = left #2 asked
        mode Entering Entering
        s volume: 40
        S OK
        = reply #4 volume: 40
        = entered #5
        ",
    );
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        leave
        ask NOOP
        enter
        C DONE
        C A4 NOOP
        C A5 IDLE
        S * 5 EXISTS
        = ring 5 EXISTS
        S A2 OK Idle completed
        = left #2 asked
        S A4 OK NOOP completed
        = reply #4 OK NOOP completed
        S + idling
        = entered #5
        ",
    );
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        leave
        ask GET k
        enter SUBSCRIBE b
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [GET k]
        C [SUBSCRIBE b]
        S [message a late]
        = ring [message a late]
        s [unsubscribe a 0]
        S [punsubscribe nil 0]
        = left #1 asked
        S v
        = reply #3 v
        S [subscribe b 1]
        = entered #4
        ",
    );
}

// The table: what the notice board cannot reach.

#[test]
fn a_notification_is_legal_in_every_open_mode() {
    play::<Imap>(
        "
        S * OK ready
        S * 1 EXISTS
        = ring 1 EXISTS
        enter
        C A2 IDLE
        S * 2 EXISTS
        = ring 2 EXISTS
        mode Entering Entering
        S + idling
        = entered #2
        S * 3 EXISTS
        = ring 3 EXISTS
        leave
        C DONE
        S * 4 EXISTS
        = ring 4 EXISTS
        mode Leaving Leaving
        S A2 OK done
        = left #2 asked
        ask NOOP
        C A4 NOOP
        S * 5 EXISTS
        = ring 5 EXISTS
        S A4 OK done
        = reply #4 OK done
        ",
    );
}

#[test]
fn an_answer_is_legal_in_every_open_mode() {
    play::<Imap>(
        "
        S * OK ready
        ask ONE
        ask TWO
        ask THREE
        ask FOUR
        enter
        C A2 ONE
        C A3 TWO
        C A4 THREE
        C A5 FOUR
        C A6 IDLE
        S A2 OK in Entering
        = reply #2 OK in Entering
        S + idling
        = entered #6
        S A3 OK in Notification
        = reply #3 OK in Notification
        S A4 NO in Notification
        = refused #4 NO in Notification
        leave
        C DONE
        S A5 OK in Leaving
        = reply #5 OK in Leaving
        S A6 OK done
        = left #6 asked
        ask FIVE
        C A8 FIVE
        S A8 OK in Normal
        = reply #8 OK in Normal
        ",
    );
}

#[test]
fn the_mode_may_be_ended_in_notification_and_in_leaving_alone() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        S OK
        = left #2 unasked
        enter
        = entered #3
        C idle
        leave
        C noidle
        S OK
        = left #3 asked
        S OK
        ! the server broke the protocol: a line that nobody asked for: \"OK\"
        ",
    );
}

#[test]
fn enter_is_confirmed_in_entering_alone() {
    let idling = "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        ";
    let stray = "
        S + idling
        ! an answer that nobody waits for here
        ";
    play::<Imap>(&["S * OK ready", stray].concat());
    play::<Imap>(&[idling, stray].concat());
    play::<Imap>(&[idling, "leave\n C DONE", stray].concat());
    // Not even the next one, before the one it is in has ended.
    play::<Imap>(
        &[
            idling,
            "
            leave
            enter
            C DONE
            C A4 IDLE
            S + idling
            = lost #4 sent
            ! an answer that nobody waits for here
            ",
        ]
        .concat(),
    );
}

#[test]
fn enter_is_refused_in_entering_alone() {
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        leave
        enter
        C DONE
        C A4 IDLE
        S A4 NO too early
        = lost #4 sent
        ! an answer that nobody waits for here
        ",
    );
}

#[test]
fn leave_is_confirmed_in_leaving_alone() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        S [unsubscribe a 0]
        ! nobody asked for
        ",
    );
    play::<Redis>(
        "
        S [unsubscribe nil 0]
        ! nobody asked for
        ",
    );
}

#[test]
fn an_answer_nobody_waits_for_is_a_violation() {
    play::<Imap>(
        "
        S * OK ready
        ask NOOP
        C A2 NOOP
        S A3 OK what
        = lost #2 sent
        ! an answer that nobody waits for here
        ",
    );
    // Not even the greeting has this number.
    play::<Imap>(
        "
        S A1 OK what
        ! an answer that nobody waits for here
        ",
    );
    // A request is answered once.
    play::<Imap>(
        "
        S * OK ready
        ask NOOP
        C A2 NOOP
        S A2 OK done
        = reply #2 OK done
        S A2 OK done
        ! an answer that nobody waits for here
        ",
    );
}

#[test]
fn a_refused_leave_is_a_violation() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        leave
        ask PING
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [PING]
        S -ERR unknown command
        = lost #3 sent
        ! an answer that nobody waits for here
        ",
    );
}

// Answers and their questions.

#[test]
fn answers_come_in_the_order_asked() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask status
        ask nonsense
        ask ping
        C status
        C nonsense
        C ping
        s volume: 40
        s message: OK
        S OK
        = reply #2 volume: 40 | message: OK
        s half: an answer
        S ACK [5@0] {} unknown command
        = refused #3 ACK [5@0] {} unknown command after half: an answer
        S OK
        = reply #4
        ",
    );
}

#[test]
fn answers_with_tags_come_in_any_order() {
    play::<Imap>(
        "
        S * OK ready
        ask ONE
        ask TWO
        ask THREE
        ask FOUR
        ask FIVE
        C A2 ONE
        C A3 TWO
        C A4 THREE
        C A5 FOUR
        C A6 FIVE
        S A3 OK two
        = reply #3 OK two
        S A5 NO four
        = refused #5 NO four
        S A4 OK three
        = reply #4 OK three
        S A2 BAD one
        = refused #2 BAD one
        S A6 OK five
        = reply #6 OK five
        ",
    );
}

#[test]
fn an_answer_never_precedes_its_question() {
    // The frame had arrived.
    let mut state = ClientState::new(Imap::default());
    state.receive(b"* OK ready\r\nA2 OK guessed\r\n");
    let id = state.request(Imap::request("NOOP")).unwrap();
    assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id, sent: false })));
    assert!(matches!(state.poll_event(), Err(Error::Violation { .. })));

    // A part of it had: nobody can say which came first.
    let mut state = ClientState::new(Imap::default());
    state.receive(b"* OK ready\r\nA2 OK gue");
    let id = state.request(Imap::request("NOOP")).unwrap();
    state.receive(b"ssed\r\n");
    assert_eq!(tell(&state.poll_event().unwrap().unwrap()), format!("reply {id} OK guessed"));
}

#[test]
fn an_answer_of_many_frames_does_not_begin_before_its_question() {
    play::<Redis>(
        "
        s *2
        ask GET k
        C [GET k]
        s x
        S y
        = lost #1 sent
        ! nobody asked for
        ",
    );
}

#[test]
fn nobody_is_answered_who_is_not_sent() {
    play::<Imap>(
        "
        S * OK ready
        ask APPEND {x}
        ask NOOP
        C A2 APPEND {1}
        gated
        S A3 OK guessed
        = lost #2 sent
        = lost #3 unsent
        ! an answer that nobody waits for here
        ",
    );
}

#[test]
fn left_tells_whether_leave_was_called_before_the_end_had_arrived() {
    for (early, asked) in [(true, true), (false, false)] {
        let mut state = ClientState::new(Mpd::default());
        let enter = state.enter(vec![]).unwrap();
        state.receive(b"OK MPD 0.23.5\n");
        assert_eq!(state.poll_event(), Ok(Some(Event::Entered { id: enter })));
        if early {
            assert!(state.leave());
        }
        state.receive(b"OK\n");
        assert!(state.leave());
        assert_eq!(state.output(), b"idle\nnoidle\n", "that it crosses the end cannot be avoided");
        assert_eq!(state.poll_event(), Ok(Some(Event::Left { id: enter, asked, refusal: None })));
        assert_eq!(state.mode(), Mode::Normal);
    }
    // Asked in the middle of the last group.
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        s changed: mixer
        = ring mixer
        leave
        C noidle
        s changed: player
        = ring player
        S OK
        = left #2 asked
        ",
    );
}

#[test]
fn toggles_are_not_collapsed() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask ping
        enter
        leave
        enter
        leave
        C ping
        C idle
        C noidle
        C idle
        C noidle
        mode Entering Leaving
        S OK
        = reply #2
        = entered #3
        mode Leaving Leaving
        S OK
        = left #3 asked
        = entered #5
        mode Leaving Leaving
        S OK
        = left #5 asked
        mode Normal Normal
        ",
    );
    play::<Imap>(
        "
        S * OK ready
        enter
        leave
        enter
        leave
        C A2 IDLE
        gated
        S + idling
        = entered #2
        C DONE
        C A4 IDLE
        gated
        S A2 OK done
        = left #2 asked
        mode Entering Leaving
        S + idling
        = entered #4
        C DONE
        S A4 OK done
        = left #4 asked
        ",
    );
    play::<Redis>(
        "
        enter SUBSCRIBE a
        leave
        enter PSUBSCRIBE p*
        leave
        C [SUBSCRIBE a]
        gated
        S [subscribe a 1]
        = entered #1
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [PSUBSCRIBE p*]
        gated
        s [unsubscribe a 0]
        S [punsubscribe nil 0]
        = left #1 asked
        S [psubscribe p* 1]
        = entered #3
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        s [unsubscribe nil 1]
        S [punsubscribe p* 0]
        = left #3 asked
        mode Normal Normal
        ",
    );
}

#[test]
fn the_protocol_keeps_the_greeting() {
    let mut state = ClientState::new(Mpd::default());
    state.receive(b"OK MPD 0.23.5\n");
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(state.protocol().version(), b"0.23.5");
    let mut state = ClientState::new(Imap::default());
    state.receive(b"* PREAUTH hello {5}\r\n");
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(state.protocol().greeting().unwrap().to_string(), "PREAUTH hello {5}");
}

#[test]
fn a_greeting_that_refuses_is_an_error() {
    play::<Imap>(
        "
        ask NOOP
        gated
        S * BYE too many connections
        = lost #2 unsent
        ! the server refused the connection: \"* BYE too many connections\"
        ",
    );
    play::<Mpd>(
        "
        S ACK [5@0] {} too many connections
        ! the server refused the connection
        ",
    );
}

// Output has gates.

#[test]
fn nothing_is_sent_before_the_greeting() {
    play::<Mpd>(
        "
        ask status
        enter
        leave
        gated
        S OK MPD 0.23.5
        C status
        C idle
        C noidle
        S OK
        = reply #2
        = entered #3
        S OK
        = left #3 asked
        ",
    );
}

#[test]
fn a_literal_waits_for_its_continuation() {
    play::<Imap>(
        "
        S * OK ready
        ask APPEND INBOX {From: me\\r\\nA3 OK} {}
        ask NOOP
        enter
        C A2 APPEND INBOX {15}
        gated
        S + go on
        C From: me\\r\\nA3 OK {0}
        gated
        S * 1 EXISTS
        = ring 1 EXISTS
        S + go on
        C
        C A3 NOOP
        C A4 IDLE
        S A2 OK done
        = reply #2 OK done
        S + idling
        = entered #4
        S A3 OK done
        = reply #3 OK done
        ",
    );
}

#[test]
fn a_refused_literal_is_not_sent() {
    play::<Imap>(
        "
        S * OK ready
        ask APPEND {first} {second}
        ask APPEND {third} {fourth}
        ask NOOP
        enter
        leave
        ask CHECK
        C A2 APPEND {5}
        S A2 NO no space
        = refused #2 NO no space
        C A3 APPEND {5}
        S + go on
        C third {6}
        S A3 BAD enough
        = refused #3 BAD enough
        C A4 NOOP
        C A5 IDLE
        gated
        S A4 OK done
        = reply #4 OK done
        S A5 NO no
        = refused #5 NO no
        C A7 CHECK
        S A7 OK done
        = reply #7 OK done
        ",
    );
}

#[test]
fn a_command_answered_before_its_literal_is_over() {
    play::<Imap>(
        "
        S * OK ready
        ask APPEND {first}
        ask NOOP
        C A2 APPEND {5}
        S A2 OK never mind
        = reply #2 OK never mind
        C A3 NOOP
        ",
    );
}

#[test]
fn a_literal_in_a_ring() {
    play::<Imap>(
        "
        S * OK ready
        enter
        leave
        ask APPEND {x}
        enter
        leave
        C A2 IDLE
        gated
        S + idling
        = entered #2
        C DONE
        C A4 APPEND {1}
        gated
        S A2 OK done
        = left #2 asked
        S + go on
        C x
        C A5 IDLE
        gated
        S + idling
        = entered #5
        C DONE
        S A4 OK done
        = reply #4 OK done
        S A5 OK done
        = left #5 asked
        ",
    );
}

#[test]
fn a_continuation_nobody_waits_for_is_a_violation() {
    play::<Imap>(
        "
        S * OK ready
        ask APPEND {x}
        C A2 APPEND {1}
        S + go on
        C x
        S + go on
        = lost #2 sent
        ! an answer that nobody waits for here
        ",
    );
}

#[test]
fn idle_answered_ok_without_a_continuation_is_a_violation() {
    play::<Imap>(
        "
        S * OK ready
        enter
        leave
        C A2 IDLE
        S A2 OK what
        = lost #2 sent
        ! IDLE is confirmed by + before it is answered
        ",
    );
}

#[test]
fn a_done_that_was_taken_for_a_command_is_ignored() {
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        leave
        ask NOOP
        C DONE
        C A4 NOOP
        S A2 BAD Expected DONE
        = left #2 asked BAD Expected DONE
        S DONE BAD Error in IMAP command
        S A4 OK done
        = reply #4 OK done
        ",
    );
}

#[test]
fn only_poll_event_opens_gates_and_what_is_visible_stays() {
    let mut state = ClientState::new(Imap::default());
    let refused = state.request(Imap::request("APPEND {x}")).unwrap();
    let accepted = state.request(Imap::request("APPEND {y}")).unwrap();
    state.receive(b"* OK ready\r\n");
    assert!(state.output().is_empty());
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(state.output(), b"A2 APPEND {1}\r\n");
    // An answer that came sooner than it was written.
    state.receive(b"A2 NO no\r\n+ go on\r\n");
    assert_eq!(state.output(), b"A2 APPEND {1}\r\n");
    assert_eq!(tell(&state.poll_event().unwrap().unwrap()), format!("refused {refused} NO no"));
    assert_eq!(state.output(), b"A2 APPEND {1}\r\nA3 APPEND {1}\r\n");
    assert_eq!(state.poll_event(), Ok(None));
    assert_eq!(state.output(), b"A2 APPEND {1}\r\nA3 APPEND {1}\r\ny\r\n");
    assert!(!state.is_gated());
    state.advance_output(17);
    state.receive_eof();
    assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id: accepted, sent: true })));
    assert_eq!(state.poll_event(), Ok(Some(Event::Closed)));
}

#[test]
fn what_was_dropped_does_not_count_as_written() {
    let mut state = ClientState::new(Imap::default());
    let ids = ["APPEND {a long literal} {and another}", "ONE", "TWO"]
        .map(|words| state.request(Imap::request(words)).unwrap());
    state.receive(b"* OK ready\r\nA2 NO no\r\n");
    assert_eq!(tell(&state.poll_event().unwrap().unwrap()), format!("refused {} NO no", ids[0]));
    state.advance_output(b"A2 APPEND {14}\r\nA3 ONE\r\n".len());
    assert_eq!(state.output(), b"A4 TWO\r\n");
    state.receive_eof();
    assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id: ids[1], sent: true })));
    assert_eq!(state.poll_event(), Ok(Some(Event::Lost { id: ids[2], sent: false })));
}

// What else a protocol must be able to say.

#[test]
fn raw_octets_may_look_like_anything() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask albumart
        ask albumart
        C albumart
        C albumart
        s size: 7
        s binary: 7
        s \\nOK\\nACK
        S OK
        = reply #2 size: 7 | binary: 7 | \\nOK\\nACK
        s binary: 0
        s
        S OK
        = reply #3 binary: 0 |
        ",
    );
}

#[test]
fn literals_in_the_middle_of_a_line() {
    play::<Imap>(
        "
        S * OK ready
        ask FETCH 1
        C A2 FETCH 1
        s * 1 FETCH (ENVELOPE {4}
        s A2 O K {0}
        S )
        = ring 1 FETCH (ENVELOPE {4}\\r\\nA2 O K {0}\\r\\n)
        S A2 OK no literal {7}
        = reply #2 OK no literal {7}
        ",
    );
}

#[test]
fn values_inside_values() {
    play::<Redis>(
        "
        ask EXEC
        ask GET nothing
        ask GET blob
        ask KEYS
        C [EXEC]
        C [GET nothing]
        C [GET blob]
        C [KEYS]
        s *3
        s *2
        s :1
        s *1
        s -ERR inside
        s *-1
        S [a [] b]
        = reply #1 [[1 [ERR inside]] nil [a [] b]]
        S $-1
        = reply #2 nil
        S $5\\r\\n+OK\\r\\n
        = reply #3 +OK\\r\\n
        S *0
        = reply #4 []
        ",
    );
}

#[test]
fn a_length_is_judged_when_it_is_announced() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask albumart
        C albumart
        S binary: 8388608
        = lost #2 sent
        ! an answer of more than 8388608 octets
        ",
    );
    for length in ["67108864", "9223372036854775808", "18446744073709551615", "99999999999999999999"] {
        play::<Imap>(&format!("S * OK ready\n S * 1 FETCH {{{length}}}\n ! an answer of more than 67108864 octets"));
    }
    for length in ["$33554432", "*1000000", "$18446744073709551615", "*99999999999999999999"] {
        play::<Redis>(&format!("S {length}\n ! an answer of more than 33554432 octets"));
    }
}

#[test]
fn an_answer_of_many_frames_is_bounded() {
    let state = ClientState::with_limits(Mpd::default(), Limits::new().with_answer(22));
    play_on(
        &state,
        "
        S OK MPD 0.23.5
        ask listall
        ask listall
        C listall
        C listall
        s file: one
        s file: two
        S OK
        = reply #2 file: one | file: two
        s file: three
        S file: four
        = lost #3 sent
        ! an answer of more than 22 octets
        ",
    );
}

#[test]
fn limits_are_the_protocols_own_or_the_callers() {
    let line = [&b"* OK "[..], &vec![b'x'; 20_000], b"\r\n"].concat();
    let mut state = ClientState::new(Imap::default());
    state.receive(&line);
    assert_eq!(state.poll_event(), Ok(None));
    let mut state = ClientState::with_limits(Imap::default(), Limits::new());
    state.receive(&line);
    assert!(matches!(state.poll_event(), Err(Error::LineTooLong(_))));
}

#[test]
fn what_cannot_be_encoded_is_refused_and_leaves_no_trace() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        ask status\\nkill
        not not a valid value
        enter mixer\\nkill
        not not a valid value
        ask ping
        C ping
        ",
    );
    play::<Imap>(
        "
        S * OK ready
        ask APPEND {one} \\r\\nA3 LOGOUT
        not not a valid value
        ask NOOP
        C A2 NOOP
        S A2 OK done
        = reply #2 OK done
        ",
    );
    play::<Redis>(
        "
        enter SUBSCRIBE
        not not a valid value
        ask MONITOR
        not not a valid value
        ask HELLO 3
        not not a valid value
        ask PING
        C [PING]
        ",
    );
}

#[test]
fn a_sign_of_life_means_nothing_in_every_mode() {
    play::<Imap>(
        "
        S * OK ready
        S * OK Still here
        enter
        C A2 IDLE
        S * OK Still here
        S + idling
        = entered #2
        S * OK Still here
        leave
        C DONE
        S * OK Still here
        S A2 OK done
        = left #2 asked
        ",
    );
}

#[test]
fn payloads_share_the_buffer_they_arrived_in() {
    let mut state = ClientState::new(Redis::default());
    state.enter(Redis::subscription("SUBSCRIBE a")).unwrap();
    state.receive(&Redis::wire("[subscribe a 1]"));
    assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
    let payload = "x".repeat(1000);
    let push = Redis::wire(&format!("[message a {payload}]"));
    state.receive(&[&push[..], &push].concat());
    let mut payload = || match state.poll_event() {
        Ok(Some(Event::Notification(redis::Notification::Message { payload, .. }))) => payload,
        event => panic!("{event:?}"),
    };
    let (first, second) = (payload(), payload());
    assert_eq!(second.as_ptr().addr() - first.as_ptr().addr(), push.len());
}

/// One message of each read is kept, or a part of one.
#[test]
fn messages_keep_2_kib_or_128_times_their_octets_alive_at_most() {
    const READS: usize = 20;
    const READ: usize = 64 * 1024;
    type Part = fn(redis::Notification) -> Vec<Bytes>;
    let whole: Part = |message| match message {
        redis::Notification::Message { channel, payload } => vec![channel, payload],
        redis::Notification::PatternMessage { pattern, channel, payload } => vec![pattern, channel, payload],
        other => panic!("{other:?}"),
    };
    let names: Part = |message| match message {
        redis::Notification::Message { channel, .. } => vec![channel],
        redis::Notification::PatternMessage { pattern, .. } => vec![pattern],
        other => panic!("{other:?}"),
    };
    let most = |octets: usize| (128 * octets).clamp(2 * 1024, 2 * READ);
    for octets in [0, 1, 16, 63, 64, 200, 511, 512, 513, 600, 1_000, 5_000, 20_000] {
        for begin in ["*3\r\n$7\r\nmessage\r\n$1\r\na", "*4\r\n$8\r\npmessage\r\n$2\r\np*\r\n$2\r\npq"] {
            let push = format!("{begin}\r\n${octets}\r\n{}\r\n", "x".repeat(octets));
            let input: Vec<u8> = push.bytes().cycle().take(READS * READ).collect();
            for (part, most) in [(whole, most(octets) + 2 * 1024), (names, 64)] {
                let mut state = ClientState::new(Redis::default());
                state.enter(Redis::subscription("SUBSCRIBE a")).unwrap();
                state.receive(&Redis::wire("[subscribe a 1]"));
                assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
                state.request(Redis::request("PSUBSCRIBE p*")).unwrap();
                state.receive(&Redis::wire("[psubscribe p* 2]"));
                assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
                let mut kept = Vec::with_capacity(READS);
                let taken = allocation_counter::measure(|| {
                    for read in input.chunks(READ) {
                        state.receive(read);
                        let mut last = None;
                        while let Some(event) = state.poll_event().unwrap() {
                            match event {
                                Event::Notification(message) => last = Some(message),
                                event => panic!("{event:?}"),
                            }
                        }
                        kept.extend(last.map(part));
                    }
                    drop(state);
                });
                let most = i64::try_from(READS * (most + 3 * 64)).unwrap();
                assert!(kept.len() == READS && taken.bytes_current <= most, "{octets}: {taken:?}, at most {most}");
            }
        }
    }
}

/// What is known at sight is what it is if it comes in pieces.
#[test]
fn what_begins_like_a_message_is_none_where_nothing_is_subscribed_to() {
    for pieces in [1, usize::MAX] {
        let mut state = ClientState::new(Redis::default());
        state.enter(Subscription::Monitor).unwrap();
        state.receive(b"+OK\r\n");
        assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
        for piece in Redis::wire("[message a x]").chunks(pieces) {
            state.receive(piece);
        }
        assert!(matches!(state.poll_event(), Err(Error::Violation { .. })), "{pieces}");
    }
}

#[test]
fn how_large_a_message_may_be_does_not_depend_on_how_it_comes() {
    for push in ["[message a hello]", "[pmessage * a hello]"] {
        let wire = Redis::wire(push);
        for (answer, is_told) in [(wire.len(), true), (wire.len() - 1, false)] {
            for pieces in [1, 7, wire.len()] {
                let limits = Redis::LIMITS.with_answer(answer);
                let mut state = ClientState::with_limits(Redis::default(), limits);
                state.enter(Redis::subscription("SUBSCRIBE a")).unwrap();
                state.receive(&Redis::wire("[subscribe a 1]"));
                assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
                let mut polled = Ok(None);
                for piece in wire.chunks(pieces) {
                    state.receive(piece);
                    polled = state.poll_event();
                }
                let expected =
                    if is_told { Ok(format!("ring {push}")) } else { Err(Error::AnswerTooLong { limit: answer }) };
                assert_eq!(polled.map(|event| tell::<Redis>(&event.unwrap())), expected, "{push} {pieces}");
            }
        }
    }
}

/// One after another, each pair of them: what the one before was is of no importance.
#[test]
fn messages_are_told_alike_in_one_piece_and_in_many() {
    let long = "c".repeat(100);
    let pushes = [
        "[message a x]".into(),
        "[message a [] y]".into(),
        "[message a 1]".into(),
        "[message ab x]".into(),
        format!("[message {long} {long}]"),
        "[message other x]".into(),
        "[message nil x]".into(),
        "[pmessage a ab x]".into(),
        "[pmessage other a x]".into(),
        "[pmessage a a]".into(),
    ];
    let subscribed = || {
        let mut state = ClientState::new(Redis::default());
        state.enter(Subscription::channels(["a", "ab", &"c".repeat(100)])).unwrap();
        let confirmations = format!("[subscribe a 1]|[subscribe ab 2]|[subscribe {} 3]", "c".repeat(100));
        confirmations.split('|').for_each(|confirmation| state.receive(&Redis::wire(confirmation)));
        assert!(matches!(state.poll_event(), Ok(Some(Event::Entered { .. }))));
        state.request(Redis::request("PSUBSCRIBE a")).unwrap();
        state.receive(&Redis::wire("[psubscribe a 4]"));
        assert!(matches!(state.poll_event(), Ok(Some(Event::Reply { .. }))));
        state
    };
    for pair in pushes.iter().flat_map(|first| pushes.iter().map(move |second| [first, second, first])) {
        let wire = pair.map(|push| Redis::wire(push)).concat();
        let told = [wire.len(), 1].map(|pieces| {
            let (mut state, mut told) = (subscribed(), Vec::new());
            for piece in wire.chunks(pieces) {
                state.receive(piece);
                while let Some(event) = state.poll_event().unwrap() {
                    told.push(tell::<Redis>(&event));
                }
            }
            told
        });
        let expected = pair.map(|push| format!("ring {push}"));
        assert_eq!(told[0], expected);
        assert_eq!(told[1], expected);
    }
}

// Races seen on real servers.

#[test]
fn mpd_idle_and_noidle_cross() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        leave
        ask status
        C noidle
        C status
        s changed: mixer
        = ring mixer
        S OK
        = left #2 asked
        s volume: 40
        S OK
        = reply #4 volume: 40
        ask ping
        C ping
        S OK
        = reply #5
        ",
    );
}

#[test]
fn mpd_a_ring_crosses_the_end_and_the_next_idle_answers_at_once() {
    play::<Mpd>(
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        leave
        ask status
        enter
        leave
        ask ping
        C noidle
        C status
        C idle
        C noidle
        C ping
        s changed: mixer
        = ring mixer
        S OK
        = left #2 asked
        S OK
        = reply #4
        = entered #5
        s changed: player
        = ring player
        s changed: options
        = ring options
        S OK
        = left #5 asked
        S OK
        = reply #7
        ",
    );
}

#[test]
fn imap_done_crosses_exists() {
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        leave
        ask NOOP
        C DONE
        C A4 NOOP
        S * 5 EXISTS
        = ring 5 EXISTS
        S * 1 RECENT
        = ring 1 RECENT
        S A2 OK Idle completed
        = left #2 asked
        S A4 OK NOOP completed
        = reply #4 OK NOOP completed
        ",
    );
}

#[test]
fn imap_data_comes_before_the_continuation() {
    // RFC 2177, the example.
    play::<Imap>(
        "
        S * OK ready
        enter
        C A2 IDLE
        S * 2 EXPUNGE
        = ring 2 EXPUNGE
        S * 3 EXISTS
        = ring 3 EXISTS
        S + idling
        = entered #2
        S * 4 EXISTS
        = ring 4 EXISTS
        leave
        C DONE
        S A2 OK IDLE terminated
        = left #2 asked
        ",
    );
}

#[test]
fn redis_unsubscribe_and_get_in_one_write() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        leave
        ask GET k
        C [UNSUBSCRIBE]
        C [PUNSUBSCRIBE]
        C [GET k]
        S [message a m1]
        = ring [message a m1]
        S [message a m2]
        = ring [message a m2]
        s [unsubscribe a 0]
        S [punsubscribe nil 0]
        = left #1 asked
        S v
        = reply #3 v
        ask PING
        C [PING]
        S +PONG
        = reply #4 PONG
        ",
    );
}

#[test]
fn redis_an_error_in_the_mode_keeps_the_mode() {
    play::<Redis>(
        "
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #1
        ask SUBSCRIBE b secret
        ask PING
        C [SUBSCRIBE b secret]
        C [PING]
        S -NOPERM no
        = refused #2 NOPERM no
        S [message a still]
        = ring [message a still]
        S [pong nil]
        = reply #3 [pong nil]
        mode Notification Notification
        ",
    );
}

// Time.

/// Plays a session in which time passes.
#[track_caller]
fn play_in_time<P: Scripted + Default>(timeouts: Timeouts, script: &str) {
    let mut state = ClientState::new(P::default());
    state.set_timeouts(timeouts);
    play_on(&state, script);
}

fn silence(seconds: u64) -> Timeouts {
    Timeouts { silence: Some(Duration::from_secs(seconds)), ..Timeouts::default() }
}

fn refresh(seconds: u64) -> Timeouts {
    Timeouts { refresh: Some(Duration::from_secs(seconds)), ..Timeouts::default() }
}

#[test]
fn mpd_is_probed_by_ping_and_in_idle_by_noidle() {
    play_in_time::<Mpd>(
        silence(60),
        "
        S OK MPD 0.23.5
        after 60
        C ping
        after 59
        S OK
        enter
        = entered #3
        C idle
        after 60
        C noidle
        C idle
        s changed: mixer
        = ring mixer
        S OK
        = left #3 asked
        = entered #5
        s changed: player
        = ring player
        mode Notification Notification
        after 59
        after 1
        C noidle
        C idle
        after 59
        after 1
        ! silent
        ",
    );
}

#[test]
fn mpd_ends_idle_while_it_is_renewed() {
    play_in_time::<Mpd>(
        refresh(600),
        "
        S OK MPD 0.23.5
        enter
        = entered #2
        C idle
        after 600
        C noidle
        C idle
        s changed: mixer
        = ring mixer
        S OK
        = left #2 asked
        = entered #4
        after 599
        leave
        ask status
        C noidle
        C status
        after 1
        S OK
        = left #4 asked
        S OK
        = reply #6
        ",
    );
}

#[test]
fn mpd_says_nothing_at_all() {
    play_in_time::<Mpd>(
        silence(60),
        "
        ask status
        gated
        after 60
        after 60
        = lost #2 unsent
        ! silent
        ",
    );
}

#[test]
fn imap_is_probed_by_noop() {
    play_in_time::<Imap>(
        silence(60),
        "
        S * OK ready
        after 60
        C A2 NOOP
        S * 5 EXISTS
        = ring 5 EXISTS
        S A2 OK NOOP completed
        ask CAPABILITY
        C A3 CAPABILITY
        after 60
        C A4 NOOP
        S A4 OK NOOP completed
        S A3 BAD no
        = refused #3 BAD no
        ",
    );
}

#[test]
fn imap_idle_is_renewed_before_the_server_ends_it() {
    // RFC 2177: terminate the IDLE and re-issue it at least every 29 minutes.
    play_in_time::<Imap>(
        refresh(29 * 60),
        "
        S * OK ready
        enter
        C A2 IDLE
        S + idling
        = entered #2
        after 1000
        S * 5 EXISTS
        = ring 5 EXISTS
        after 740
        C DONE
        C A4 IDLE
        S * 6 EXISTS
        = ring 6 EXISTS
        S A2 OK IDLE terminated
        = left #2 asked
        S + idling
        = entered #4
        after 1739
        after 1
        C DONE
        C A6 IDLE
        S A4 OK IDLE terminated
        = left #4 asked
        S A6 NO not now
        = refused #6 NO not now
        mode Normal Normal
        ",
    );
}

#[test]
fn imap_idle_that_is_silent_is_left_and_entered() {
    play_in_time::<Imap>(
        silence(60),
        "
        S * OK ready
        enter
        C A2 IDLE
        after 60
        S + idling
        = entered #2
        after 60
        C DONE
        C A4 IDLE
        S A2 OK IDLE terminated
        = left #2 asked
        after 60
        after 60
        ! silent
        ",
    );
}

#[test]
fn redis_is_probed_in_both_modes() {
    play_in_time::<Redis>(
        Timeouts { refresh: Some(Duration::from_secs(100)), ..silence(60) },
        "
        after 60
        C [PING]
        S +PONG
        enter SUBSCRIBE a
        C [SUBSCRIBE a]
        S [subscribe a 1]
        = entered #2
        after 60
        C [PING]
        S [message a m]
        = ring [message a m]
        S [pong nil]
        after 40
        C [PING]
        ask PING
        C [PING]
        S [pong nil]
        S [pong x]
        = reply #5 [pong x]
        after 60
        C [PING]
        S [pong nil]
        mode Notification Notification
        ",
    );
}

#[test]
fn a_reply_is_overdue_though_the_server_speaks() {
    play_in_time::<Imap>(
        Timeouts { reply: Some(Duration::from_secs(30)), ..Timeouts::default() },
        "
        S * OK ready
        ask SEARCH ALL
        C A2 SEARCH ALL
        after 20
        ask NOOP
        C A3 NOOP
        S * 5 EXISTS
        = ring 5 EXISTS
        S A3 OK NOOP completed
        = reply #3 OK NOOP completed
        after 9
        after 1
        = lost #2 sent
        ! in time
        ",
    );
}
