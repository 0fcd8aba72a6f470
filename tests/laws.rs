//! The laws of the crate (the guarantees in its documentation, numbered as there) for the notice board, as properties
//! over random sessions in both dialects.
//!
//! Each session is played beside a plain reading of the rules (`support::Observed`), which says what every poll must
//! give and every view must show; the laws then compare whole sessions with each other. Failures are kept in
//! `tests/laws.proptest-regressions`, and tried first from then on. `PROPTEST_CASES` sets how many sessions a law gets.
//!
//! Law 7 is tested here for answers in parts, which the notice board has not. Not here: law 7 otherwise (an allocation
//! counter), law 10 exhaustively (a model checker; here it is sampled), law 11 (the adapters), and what the notice board
//! cannot reach (`ELSEWHERE` below).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

mod sessions;
mod support;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};
use sessions::Line;
use sonnette::board::{Board, Notification, Refusal, Reply, Request, ServerState};
use sonnette::{
    Asked, Changes, ClientState, Decoded, Encoder, EnterAnswer, Error, Event, Fault, Frame, Invalid, LeaveAnswer,
    Limits, Mode, Pending, Protocol, Reason, RequestId, Setting, Terminator,
};
use std::collections::{BTreeMap, BTreeSet};
use support::{
    Answer, Checked, Dialect, Octets, Op, Played, Polls, Reached, Session, Way, dialects, honest, hostile, kinds,
    limits, play_alike, sessions, whenever_written,
};

/// By its full path: proptest finds no `lib.rs` above `tests/` to put its file beside.
fn config() -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/laws.proptest-regressions");
    Config { failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))), ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Law 1, **split**: any chunking of the input gives the same events, error included, in the same order.
    #[test]
    fn law_1_split(session in sessions(), sizes in prop::collection::vec(1..9_usize, 1..4)) {
        split(&session, &sizes)?;
    }

    /// Law 2, **drain**: for the same operations with the same results, polling after every operation, now and then, or
    /// only at the end gives the same events.
    #[test]
    fn law_2_drain(session in sessions()) {
        drain(&session)?;
    }

    /// Law 3, **write**: any partition of `advance_output`, and any delay of it, gives the same octets on the wire.
    #[test]
    fn law_3_write(session in sessions(), sizes in prop::collection::vec(1..9_usize, 1..4)) {
        write(&session, &sizes)?;
    }

    /// Law 4, **one outcome**: every accepted request has exactly one outcome, also when the stream is cut at any
    /// octet, and *lost* says whether its first octet had been written.
    #[test]
    fn law_4_one_outcome(session in sessions(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 4)) {
        let octets = session.input().len();
        one_outcome(&session, cuts.iter().map(|cut| cut.index(octets + 1)))?;
    }

    /// Law 5, **no notification lost, repeated or reordered**: each line received is told by one event, in its place,
    /// also when it crosses a leave or a ring.
    #[test]
    fn law_5_each_line_is_told_once(session in sessions()) {
        each_line_is_told_once(&session)?;
    }

    /// Law 6, **finality**: first what was decodable, then Lost in the order asked, then Closed once and `Ok(None)` for
    /// ever, or the same error every time; `mode()` is Closed from the first of these on; the output still drains.
    #[test]
    fn law_6_finality(session in sessions()) {
        finality(&session)?;
    }

    /// Law 9, **no panic** on any sequence of calls and octets, whatever the limits.
    #[test]
    fn law_9_no_panic(
        dialect in dialects(),
        limits in limits(),
        calls in prop::collection::vec((0..9_u8, prop::collection::vec(any::<u8>(), 0..9), any::<usize>()), 0..80),
    ) {
        let mut client = ClientState::with_limits(dialect.board(), limits);
        for (call, octets, number) in calls {
            match call {
                0 => drop(client.request(Request::Random)),
                1 => drop(client.request(Request::Classified)),
                2 => drop(client.enter(())),
                3 => drop(client.leave()),
                4 => client.receive(&octets),
                5 => client.receive(b"notif: random\r\nOK\r\n1\r\n"),
                6 => client.advance_output(number),
                7 => client.advance_output(octets.len()),
                _ => {
                    for _ in 0..number % 8 {
                        drop(client.poll_event());
                    }
                }
            }
            if number % 64 == 0 {
                client.receive_eof();
            }
            let views = (client.mode(), client.asked_mode(), client.is_gated(), client.output(), client.unread());
            let shown = format!("{client:?} {views:?}");
            prop_assert!(!shown.is_empty());
        }
    }

    /// Laws 4, 5 and 10 between **honest peers**: no violation; each answer goes to its own question; notifications
    /// come as the server wrote them; who rings on each of them misses no news; and once both pipes are empty and
    /// everything is polled, nothing is outstanding and the modes agree, except for a silent leave that no answer has
    /// proved.
    #[test]
    fn law_10_honest_peers_agree(honest in honest()) {
        honest.run().1?;
    }

    /// Law 12, **no injection**, by the client: a text that could put a line of its own on the wire is rejected and
    /// leaves no trace; any other is one line, as it was passed. (The board's own requests have no free content: that
    /// the wire is exactly what was asked is checked in every session.)
    #[test]
    fn law_12_no_injection(texts in prop::collection::vec(texts(), 1..6)) {
        let mut client = ClientState::new(Say::default());
        for text in texts {
            let (before, clean) = (client.clone(), !text.iter().any(|octet| b"\r\n\0".contains(octet)));
            match client.request(text.clone()) {
                Ok(_) => {
                    prop_assert!(clean);
                    let line = [b"say ", &text[..], b"\r\n"].concat();
                    prop_assert_eq!(client.output(), [before.output(), &line[..]].concat());
                }
                Err(rejected) => {
                    prop_assert!(!clean && matches!(rejected.reason, Reason::Invalid(_)));
                    prop_assert_eq!(rejected.value, text);
                    prop_assert_eq!(&client, &before);
                }
            }
        }
    }

    /// Law 12, **no injection**, by the server: a text is refused and leaves no trace, or is one line that the client
    /// takes for the answer, as it was passed.
    #[test]
    fn law_12_no_injection_by_the_server(dialect in dialects(), asked in kinds(), text in texts()) {
        let mut server = ServerState::new(dialect.board());
        let mut client = ClientState::new(dialect.board());
        let id = client.request(asked).unwrap();
        server.receive(client.output());
        prop_assert_eq!(server.poll_request(), Some(asked));
        let before = server.clone();
        let reply = Reply::Classified(Bytes::from(text.clone()));
        let clean = !text.iter().any(|octet| b"\r\n".contains(octet)) && !text.starts_with(b"notif:");
        match server.answer(reply.clone()) {
            Ok(()) => {
                prop_assert!(clean && asked == Request::Classified);
                prop_assert_eq!(server.output(), [&text[..], b"\r\n"].concat());
                client.receive(server.output());
                prop_assert_eq!(client.poll_event(), Ok(Some(Event::Reply { id, reply })));
                prop_assert_eq!(client.poll_event(), Ok(None));
                prop_assert!(client.unread().is_empty());
            }
            Err(rejected) => {
                prop_assert!(!clean || asked == Request::Random);
                prop_assert_eq!(rejected.value, reply);
                prop_assert_eq!(&server, &before);
            }
        }
    }

    /// Law 8, **linear**, as far as the public API shows it without a clock: each octet is handed to the protocol once,
    /// however it is chunked.
    ///
    /// That the search for a terminator does not start anew with each chunk cannot be seen from here:
    /// `.ci/instructions` counts the instructions for lines of 16 octets and of 16 KiB that come one octet at a time.
    #[test]
    fn law_8_each_octet_is_decoded_once(
        lines in prop::collection::vec(0..200_usize, 0..8),
        sizes in prop::collection::vec(1..40_usize, 1..4),
    ) {
        let input: Vec<u8> = lines.iter().flat_map(|octets| [&b"x".repeat(*octets)[..], b"\r\n"].concat()).collect();
        let mut client = ClientState::new(Say::default());
        for chunk in chunks(&input, &sizes) {
            client.receive(chunk);
            while let Ok(Some(_)) = client.poll_event() {}
        }
        let Say { frames, octets } = *client.protocol();
        prop_assert_eq!((frames, octets), (lines.len(), lines.iter().sum::<usize>()));
    }
}

// The laws that compare sessions.

fn split(session: &Session, sizes: &[usize]) -> Checked {
    let cut = |sizes: &[usize]| {
        session.with_ops(session.ops.iter().flat_map(|(op, polls)| match op {
            Op::Receive(Octets(octets)) => {
                let mut pieces: Vec<(Op, usize)> =
                    chunks(octets, sizes).map(|piece| (Op::Receive(Octets(piece.to_vec())), 0)).collect();
                // As many events are polled, behind the last piece.
                pieces.push((Op::Receive(Octets(Vec::new())), *polls));
                pieces
            }
            op => vec![(op.clone(), *polls)],
        }))
    };
    for polls in [Polls::Scripted, Polls::Always, Polls::AtTheEnd] {
        let whole = session.play(polls)?;
        for pieces in [cut(sizes).play(polls)?, cut(&[1]).play(polls)?] {
            prop_assert_eq!(&pieces.events, &whole.events);
            prop_assert_eq!(&pieces.error, &whole.error);
            prop_assert_eq!(&pieces.wire, &whole.wire);
            let calls = |played: &Played| {
                let calls = played.answers.iter().copied().filter(|answer| *answer != Answer::Done);
                calls.collect::<Vec<_>>()
            };
            prop_assert_eq!(calls(&pieces), calls(&whole));
        }
    }
    Ok(())
}

/// `sent` is judged when Lost is polled. A write that one way does before a Lost and the other behind it is therefore
/// an operation with another result.
fn drain(session: &Session) -> Checked {
    let alike =
        [[Polls::Always, Polls::AtTheEnd], [Polls::Scripted, Polls::AtTheEnd], [Polls::Scripted, Polls::Always]];
    for polls in alike {
        let [a, b] = play_alike(session, polls.map(|polls| Way { polls, writes: true }))?;
        prop_assert_eq!((a.events, a.error, a.wire), (b.events, b.error, b.wire), "{:?}", polls);
    }
    Ok(())
}

fn write(session: &Session, sizes: &[usize]) -> Checked {
    let whole = session.play(Polls::Scripted)?;
    let in_pieces = session.with_ops(session.ops.iter().flat_map(|(op, polls)| match op {
        Op::Write(octets) if *octets < 100 => {
            let octets = b"x".repeat(*octets);
            let mut pieces: Vec<(Op, usize)> =
                chunks(&octets, sizes).map(|piece| (Op::Write(piece.len()), 0)).collect();
            pieces.push((Op::Write(0), *polls));
            pieces
        }
        op => vec![(op.clone(), *polls)],
    }));
    let pieces = in_pieces.play(Polls::Scripted)?;
    prop_assert_eq!((pieces.wire, pieces.events, pieces.error), (whole.wire, whole.events, whole.error));

    // Not written at all until the end: the same, but for what `sent` says, where the output was not full meanwhile.
    let [a, b] = play_alike(session, [true, false].map(|writes| Way { polls: Polls::Scripted, writes }))?;
    prop_assert_eq!((a.wire, a.error), (b.wire, b.error));
    prop_assert_eq!(whenever_written(&a.events), whenever_written(&b.events));
    Ok(())
}

fn one_outcome(session: &Session, cuts: impl Iterator<Item = usize>) -> Checked {
    let whole = session.play(Polls::Always)?;
    for cut in cuts {
        let cut = session.cut(cut).play(Polls::Always)?;
        let told = cut.events.iter().take_while(|event| !matches!(event, Event::Lost { .. } | Event::Closed)).count();
        prop_assert_eq!(&cut.events[..told], &whole.events[..told], "what came before the cut is told as without it");

        let accepted = cut.answers.iter().filter_map(|answer| match answer {
            Answer::Accepted(id) => Some(*id),
            _ => None,
        });
        let outcomes = cut.events.iter().filter_map(|event| match event {
            Event::Reply { id, .. } | Event::Refused { id, .. } | Event::Entered { id } | Event::Lost { id, .. } => {
                Some(*id)
            }
            Event::Notification(_) | Event::Left { .. } | Event::Closed => None,
        });
        let (accepted, mut outcomes): (Vec<RequestId>, Vec<RequestId>) = (accepted.collect(), outcomes.collect());
        outcomes.sort();
        prop_assert_eq!(accepted, outcomes);

        // Entered and Left alternate, and Left names the mode that was entered.
        let mut inside = None;
        for event in &cut.events {
            match event {
                Event::Entered { id } => prop_assert_eq!(inside.replace(*id), None),
                Event::Left { id, asked: true, refusal: None } => prop_assert_eq!(inside.take(), Some(*id)),
                Event::Left { .. } => prop_assert!(false, "the notice board ends no mode by itself: {:?}", event),
                _ => {}
            }
        }
    }
    Ok(())
}

fn each_line_is_told_once(session: &Session) -> Checked {
    for polls in [Polls::Scripted, Polls::Always, Polls::AtTheEnd] {
        let played = session.play(polls)?;
        let input = session.input();
        let mut rest = &input[..];
        for event in &played.events {
            let Some(is_line) = line_of(event, session.dialect) else { continue };
            let end = rest.windows(2).position(|two| two == b"\r\n");
            prop_assert!(end.is_some(), "{:?} came from no line", event);
            let end = end.unwrap_or_default();
            prop_assert!(is_line(&rest[..end]), "{:?} came from {:?}", event, Octets(rest[..end].into()));
            rest = &rest[end + 2..];
        }
        if played.events.last() == Some(&Event::Closed) && !session.ops.iter().any(|(op, _)| matches!(op, Op::Eof)) {
            prop_assert!(rest.is_empty(), "not told: {:?}", Octets(rest.into()));
        }
    }
    Ok(())
}

type IsLine = Box<dyn Fn(&[u8]) -> bool>;

/// Which line an event was told by; `None` if by none.
fn line_of(event: &Event<Board>, dialect: Dialect) -> Option<IsLine> {
    fn name(line: &[u8]) -> Option<&[u8]> {
        let name = line.strip_prefix(b"notif:")?;
        Some(&name[name.iter().take_while(|octet| **octet == b' ').count()..])
    }
    Some(match event.clone() {
        Event::Notification(Notification::Random) => Box::new(|line| name(line) == Some(b"random")),
        Event::Notification(Notification::Classified) => Box::new(|line| name(line) == Some(b"classified")),
        Event::Notification(Notification::Other(other)) => Box::new(move |line| name(line) == Some(&other)),
        Event::Reply { reply: Reply::Random(number), .. } => {
            Box::new(move |line| std::str::from_utf8(line).is_ok_and(|line| line.parse() == Ok(number)))
        }
        Event::Reply { reply: Reply::Classified(text), .. } => Box::new(move |line| line == text),
        Event::Refused { refusal: Refusal::WrongKind(wrong), .. } => Box::new(move |line| line == wrong),
        Event::Entered { .. } | Event::Left { .. } if dialect == Acknowledged => Box::new(|line| line == b"OK"),
        Event::Entered { .. } | Event::Left { .. } | Event::Lost { .. } | Event::Closed => return None,
    })
}

fn finality(session: &Session) -> Checked {
    let mut client = ClientState::with_limits(session.dialect.board(), session.limits);
    let mut lost = None;
    let mut over = None;
    for (op, polls) in session.ops.iter().chain([&(Op::Eof, usize::MAX), &(Op::Receive(Octets(b"1\r\n".into())), 9)]) {
        let was_over = client.mode() == Mode::Closed;
        let taken = match op {
            Op::Request(kind) => client.request(*kind).is_ok(),
            Op::Enter => client.enter(()).is_ok(),
            Op::Leave => client.leave(),
            Op::Receive(Octets(octets)) => {
                client.receive(octets);
                false
            }
            Op::Eof => {
                client.receive_eof();
                false
            }
            Op::Write(octets) => {
                client.advance_output(*octets);
                false
            }
        };
        prop_assert!(!was_over || !taken, "{:?} was taken after the end", op);
        for _ in 0..*polls {
            let polled = client.poll_event();
            if let Some(over) = &over {
                prop_assert_eq!(&polled, over, "after the end");
            }
            match &polled {
                Ok(Some(Event::Lost { id, .. })) => prop_assert!(lost.replace(*id).is_none_or(|last| last < *id)),
                Ok(Some(Event::Closed)) => over = Some(Ok(None)),
                Err(_) => over = Some(polled.clone()),
                Ok(told) => prop_assert!(lost.is_none() || over.is_some(), "{:?} after Lost", told),
            }
            let ends = matches!(polled, Ok(Some(Event::Lost { .. } | Event::Closed)) | Err(_));
            prop_assert_eq!(client.mode() == Mode::Closed, ends || over.is_some(), "after {:?}", polled);
            if over.is_some() || polled == Ok(None) {
                break;
            }
        }
    }
    for _ in 0..3 {
        prop_assert_eq!(Some(client.poll_event()), over.clone(), "for ever");
    }
    client.advance_output(usize::MAX);
    prop_assert!(client.output().is_empty());
    Ok(())
}

/// The octets in pieces of these sizes, over and over.
fn chunks<'a>(mut octets: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    sizes.iter().cycle().map_while(move |size| {
        let (piece, rest) = octets.split_at((*size).min(octets.len()));
        octets = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

// A protocol whose requests are a caller's text: one line each, answered by one line.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Say {
    frames: usize,
    octets: usize,
}

impl Protocol for Say {
    type Request = Vec<u8>;
    type Subscription = ();
    type Reply = ();
    type Refusal = ();
    type Notification = ();
    type Note = ();

    const TERMINATOR: Terminator = Terminator::CrLf;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Silent, leave: LeaveAnswer::Silent }
    }

    fn encode_request(&self, _: RequestId, text: &Vec<u8>, out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"say ");
        out.put_text(text)?;
        out.put(b"\r\n");
        Ok(())
    }

    fn encode_enter(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"listen\r\n");
        Ok(())
    }

    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) {
        out.put(b"enough\r\n");
    }

    fn decode(&mut self, frame: &mut Frame<'_>, pending: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        self.frames += 1;
        self.octets += frame.len();
        Ok(match pending.awaiting() {
            Some(Asked::Request { id, .. }) => Decoded::reply(id, ()),
            _ => Decoded::Notification(()),
        })
    }
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ -~]{0,8}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => prop::sample::select(vec!["\r\n", "\r", "\n", "\0", "notif:", "notif: random", "OK", "\r\nstop_notif\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..3).prop_map(|pieces| pieces.concat())
}

// A protocol whose answers come in parts, between those of others.

/// A line begins with the number of a request: `1+text` is a part of its answer that is kept, `1-text` one that is not,
/// `1*3` announces three raw octets that are kept as well, `1=` is the last of it, `1?` refuses. `!` rings, `!+` rings and
/// goes on, `>` and `<` confirm the changes of mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Parts {
    kept: BTreeMap<RequestId, Vec<u8>>,
    announced: Option<RequestId>,
}

impl Parts {
    fn keep(&mut self, id: RequestId, frame: &[u8]) {
        self.kept.entry(id).or_default().extend_from_slice(frame);
    }

    fn octets(&self) -> usize {
        self.kept.values().map(Vec::len).sum()
    }
}

impl Protocol for Parts {
    type Request = ();
    type Subscription = ();
    type Reply = Vec<u8>;
    type Refusal = ();
    type Notification = ();
    type Note = ();

    const TERMINATOR: Terminator = Terminator::Lf;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Own, leave: LeaveAnswer::Own }
    }

    fn allows(&self, (): &(), _: Setting) -> bool {
        true
    }

    fn encode_request(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"ask\n");
        Ok(())
    }

    fn encode_enter(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"enter\n");
        Ok(())
    }

    fn encode_leave(&self, _: RequestId, (): &(), out: &mut Encoder<'_>) {
        out.put(b"leave\n");
    }

    fn decode(&mut self, frame: &mut Frame<'_>, _: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        if let Some(id) = self.announced.take() {
            self.keep(id, frame);
            return Ok(Decoded::Part { id, kept: true, raw: None });
        }
        match &**frame {
            b">" => return Ok(Decoded::Entered),
            b"<" => return Ok(Decoded::Left),
            b"!" => return Ok(Decoded::Notification(())),
            b"!+" => return Ok(Decoded::PartNotification(())),
            _ => {}
        }
        let [digit, kind, rest @ ..] = &**frame else { return Err(Fault::Violation("too short")) };
        let id = RequestId::from_wire(u64::from(*digit - b'0'));
        Ok(match kind {
            b'+' => {
                self.keep(id, rest);
                Decoded::Part { id, kept: true, raw: None }
            }
            b'-' => Decoded::Part { id, kept: false, raw: None },
            b'*' => {
                self.announced = Some(id);
                Decoded::Part { id, kept: true, raw: std::str::from_utf8(rest).unwrap().parse().ok() }
            }
            b'=' => Decoded::reply(id, self.kept.remove(&id).unwrap_or_default()),
            b'?' => {
                self.kept.remove(&id);
                Decoded::Refused { id, refusal: () }
            }
            _ => return Err(Fault::Violation("not a part")),
        })
    }
}

/// In the mode of the first enter, with three requests behind it: 2, 3 and 4.
fn in_parts(limit: usize) -> ClientState<Parts> {
    let mut client = ClientState::with_limits(Parts::default(), Limits::new().with_answer(limit));
    client.enter(()).unwrap();
    for _ in 0..3 {
        client.request(()).unwrap();
    }
    client.receive(b">\n");
    assert!(matches!(client.poll_event(), Ok(Some(Event::Entered { .. }))));
    client
}

fn told(client: &mut ClientState<Parts>) -> (Vec<Event<Parts>>, Option<Error>) {
    let mut events = Vec::new();
    loop {
        match client.poll_event() {
            Ok(Some(event)) => events.push(event),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error)),
        }
    }
}

/// What of an answer was read.
#[derive(Default)]
struct Read {
    octets: usize,
    counted: usize,
    text: String,
}

proptest! {
    #![proptest_config(config())]

    /// Laws 1, 4, 6 and 7 where answers come in parts: what is kept of all of them is limited, whatever comes between, and
    /// the stream must not end before the last part of each that has begun.
    #[test]
    fn law_7_answers_in_parts(
        frames in prop::collection::vec((0..14_u8, 2..5_u64, 0..20_usize), 0..40),
        cut in 0..4_usize,
        size in 1..40_usize,
    ) {
        const LIMIT: usize = 100;
        let (mut input, mut events, mut over) = (String::new(), Vec::new(), false);
        let (mut open, mut group, mut inside) = (BTreeMap::new(), 0, true);
        (2..5).for_each(|id| drop(open.insert(id, None::<Read>)));
        for (kind, id, length) in frames {
            let (text, before) = ("x".repeat(length), input.len());
            match kind {
                0..=8 if open.contains_key(&id) => {
                    let (line, kept) = match kind {
                        0..=3 => (format!("{id}+{text}\n"), &*text),
                        4..=5 => (format!("{id}-{text}\n"), ""),
                        6..=7 => (format!("{id}*{length}\n"), &*text),
                        _ => (format!("{id}{}\n", if length % 2 == 0 { "=" } else { "?" }), ""),
                    };
                    input += &line;
                    let id_of = RequestId::from_wire(id);
                    if kind == 8 {
                        let reply = open.remove(&id).flatten().unwrap_or_default().text.into_bytes();
                        let is_reply = length % 2 == 0;
                        events.push(if is_reply {
                            Event::Reply { id: id_of, reply }
                        } else {
                            Event::Refused { id: id_of, refusal: () }
                        });
                        continue;
                    }
                    let read = open.entry(id).or_default().get_or_insert_default();
                    read.octets += line.len();
                    read.counted += if kept.is_empty() && matches!(kind, 4 | 5) { 0 } else { line.len() };
                    read.text += kept;
                    if matches!(kind, 6 | 7) {
                        read.octets += length;
                        read.counted += length;
                        input += &text;
                    }
                    let counted: usize = open.values().flatten().map(|read| read.counted).sum();
                    if counted > LIMIT {
                        over = true;
                        break;
                    }
                }
                9..=10 => {
                    input += "!\n";
                    events.push(Event::Notification(()));
                }
                11 => {
                    input += "!+\n";
                    events.push(Event::Notification(()));
                    group += if inside { input.len() - before } else { 0 };
                }
                12 if length == 0 && inside => {
                    // The leave is asked before all of it is received.
                    input += "<\n";
                    events.push(Event::Left { id: RequestId::from_wire(1), asked: true, refusal: None });
                    (group, inside) = (0, false);
                }
                _ => {}
            }
        }
        let begun = open.values().flatten().map(|read| read.octets).sum::<usize>() + group + cut;
        if !over {
            input += &"!".repeat(cut);
        }
        events.extend(open.keys().map(|id| Event::Lost { id: RequestId::from_wire(*id), sent: false }));
        let error = if over {
            Some(Error::AnswerTooLong { limit: LIMIT })
        } else {
            (begun > 0).then_some(Error::UnexpectedEof { octets: begun as u64 })
        };
        if error.is_none() {
            events.push(Event::Closed);
        }
        let mut client = in_parts(LIMIT);
        client.leave();
        let (mut seen, mut last) = (Vec::new(), None);
        for chunk in input.as_bytes().chunks(size) {
            client.receive(chunk);
            let (events, error) = told(&mut client);
            seen.extend(events);
            last = last.or(error);
            prop_assert!(client.protocol().octets() <= LIMIT);
        }
        client.receive_eof();
        let (rest, end) = told(&mut client);
        seen.extend(rest);
        prop_assert_eq!((seen, last.or(end)), (events, error));
    }
}

#[test]
fn what_is_kept_of_an_answer_counts_whatever_comes_between() {
    for between in ["", "!\n", "!+\n", "3=\n", "3?\n", "<\n", "3+\n3=\n"] {
        let mut client = in_parts(1_000);
        client.leave();
        let line = format!("2+{}\n", "x".repeat(97));
        for lines in 1..=11 {
            client.receive(line.as_bytes());
            if lines == 5 {
                client.receive(between.as_bytes());
            }
            let error = told(&mut client).1;
            let expected = (lines == 11).then_some(Error::AnswerTooLong { limit: 1_000 });
            assert_eq!(error, expected, "{between:?} after 500 octets, at {lines}00");
        }
    }
}

#[test]
fn what_is_kept_of_all_answers_counts_until_each_is_answered() {
    let mut client = in_parts(300);
    client.receive(format!("2+{0}\n3+{0}\n4+{0}\n", "x".repeat(97)).as_bytes());
    assert_eq!(told(&mut client).1, None);
    for more in ["2+\n", "4*0\n"] {
        let mut client = client.clone();
        client.receive(more.as_bytes());
        assert_eq!(told(&mut client).1, Some(Error::AnswerTooLong { limit: 300 }));
    }
    // What is announced counts when it is announced; nothing is to come of what was answered.
    client.receive(b"3=\n2-\n");
    assert_eq!(told(&mut client).1, None);
    for (announced, error) in [(95, None), (96, Some(Error::AnswerTooLong { limit: 300 }))] {
        let mut client = client.clone();
        client.receive(format!("4*{announced}\n").as_bytes());
        assert_eq!(told(&mut client).1, error, "{announced}");
    }
}

#[test]
fn an_answer_that_has_begun_is_missed_at_the_end_whatever_came_between() {
    for between in ["!\n", "3=\n", "3?\n", "<\n", "!+\n<\n"] {
        let mut client = in_parts(1_000);
        client.leave();
        client.receive(format!("2-more\n{between}").as_bytes());
        client.receive_eof();
        assert_eq!(told(&mut client).1, Some(Error::UnexpectedEof { octets: 7 }), "{between:?}");
    }
    // A group goes on until the mode ends.
    for between in ["", "!\n", "2=\n", "2+\n2=\n"] {
        let mut client = in_parts(1_000);
        client.receive(format!("!+\n{between}").as_bytes());
        client.receive_eof();
        assert_eq!(told(&mut client).1, Some(Error::UnexpectedEof { octets: 3 }), "{between:?}");
    }
}

#[test]
fn a_part_of_what_was_not_asked_is_a_violation() {
    for part in ["1-\n", "5-\n", "9+\n"] {
        let mut client = in_parts(1_000);
        client.receive(part.as_bytes());
        client.request(()).unwrap();
        assert!(matches!(told(&mut client).1, Some(Error::Violation { .. })), "{part:?}");
    }
}

// What the sessions reach.

use Dialect::{Acknowledged, Silent};

const BOTH: &[Dialect] = &[Silent, Acknowledged];
const SILENT: &[Dialect] = &[Silent];
const ACKNOWLEDGED: &[Dialect] = &[Acknowledged];
/// Not legal, or not to be reached by the notice board.
const NONE: &[Dialect] = &[];
const MODES: [Mode; 5] = [Mode::Normal, Mode::Entering, Mode::Notification, Mode::Leaving, Mode::Closed];

/// The first table of `Mode`, read side, row by row: which dialects reach the cell in Normal, Entering, Notification
/// and Leaving. Violations that the notice board can meet are among them.
const READS: [(&str, [&[Dialect]; 4]); 8] = [
    ("a notification", [BOTH, BOTH, BOTH, BOTH]),
    ("the answer to a request", [BOTH, BOTH, NONE, SILENT]),
    ("enter confirmed", [NONE, BOTH, NONE, NONE]),
    ("enter refused", [NONE, ACKNOWLEDGED, NONE, NONE]),
    ("leave confirmed", [NONE, NONE, NONE, BOTH]),
    ("an answer nobody waits for", [BOTH, BOTH, BOTH, BOTH]),
    ("leave refused", [NONE, NONE, NONE, ACKNOWLEDGED]),
    ("the end of the stream", [BOTH, BOTH, BOTH, BOTH]),
];

/// Legal cells of it that need another protocol; `tests/protocols.rs` reaches them. The notice board answers in the
/// order asked, allows no request in the mode, and never ends the mode by itself.
const ELSEWHERE: [(&str, Mode); 5] = [
    ("the answer to a request", Mode::Notification),
    ("the mode ended by the server, a late refusal too", Mode::Notification),
    ("the mode ended by the server, a late refusal too", Mode::Leaving),
    ("the answer to a void leave", Mode::Normal),
    ("the answer to a void leave", Mode::Entering),
];

/// The second table: each call, taken or rejected, in each `asked_mode()`.
const CALLS: [&str; 3] = ["enter", "leave", "request"];

/// Crossings, and who reaches them.
const CROSSINGS: [(&str, &[Dialect]); 24] = [
    ("leave x push", BOTH),
    ("ring x push", BOTH),
    ("notification received before the call, read after it", BOTH),
    ("notification with another name", BOTH),
    ("answer that looks like a notification", BOTH),
    ("answer of the wrong kind", BOTH),
    ("answer received before its question", BOTH),
    ("leave proved by an answer", SILENT),
    ("leave proved by a refusal", SILENT),
    ("leave proved by an enter", SILENT),
    ("leave held back until enter was confirmed", ACKNOWLEDGED),
    ("enter refused, its leave remembered", ACKNOWLEDGED),
    ("enter refused, its leave remembered, more asked behind it", ACKNOWLEDGED),
    ("enter, leave, enter, leave in flight", BOTH),
    ("end with requests written and unwritten", BOTH),
    ("end between frames, something outstanding", BOTH),
    ("end between frames, nothing outstanding", BOTH),
    ("cut inside an answer", BOTH),
    ("cut inside an OK", ACKNOWLEDGED),
    ("cut inside a notification", BOTH),
    ("cut inside a terminator", BOTH),
    ("line too long", BOTH),
    ("too many pending", BOTH),
    ("output full", BOTH),
];

/// Those that the honest sessions must reach by themselves.
const HONEST: [(&str, &[Dialect]); 17] = [
    ("leave x push", BOTH),
    ("ring x push", BOTH),
    ("leave proved by an answer", SILENT),
    ("leave proved by an enter", SILENT),
    ("leave held back until enter was confirmed", ACKNOWLEDGED),
    ("enter, leave, enter, leave in flight", BOTH),
    ("end with requests written and unwritten", BOTH),
    ("cut inside an answer", BOTH),
    ("cut inside an OK", ACKNOWLEDGED),
    ("cut inside a notification", BOTH),
    ("silent leave that nobody proved", SILENT),
    ("news outside the mode", BOTH),
    ("news told on entering", BOTH),
    ("news folded into an unread notification", BOTH),
    ("the last news of several fetched", BOTH),
    ("half close with requests unanswered", BOTH),
    ("half close with a leave held back", ACKNOWLEDGED),
];

fn expected(crossings: &[(&'static str, &[Dialect])]) -> Reached {
    let of = |(what, dialects): &(&'static str, &[Dialect])| {
        let what = *what;
        dialects.iter().map(move |dialect| (*dialect, what, None)).collect::<Vec<_>>()
    };
    crossings.iter().flat_map(of).collect()
}

fn expected_cells() -> Reached {
    let mut cells = Reached::new();
    for (what, dialects) in READS {
        for (mode, dialects) in MODES.iter().zip(dialects) {
            cells.extend(dialects.iter().map(|dialect| (*dialect, what, Some(*mode))));
        }
    }
    for call in CALLS {
        for mode in MODES {
            cells.extend(BOTH.iter().map(|dialect| (*dialect, call, Some(mode))));
        }
    }
    cells
}

/// The same sessions in every run: what they reach never depends on luck.
fn run<S: Strategy>(sessions: u32, strategy: &S, test: impl Fn(S::Value) -> Checked<Reached>) -> Reached {
    let config = Config { cases: sessions, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let reached = std::cell::RefCell::new(Reached::new());
    let result = runner.run(strategy, |session| {
        reached.borrow_mut().extend(test(session)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    reached.into_inner()
}

/// Each cell of the tables that the notice board can reach, and each crossing, is reached; and no other cell.
#[test]
fn every_cell_and_crossing_is_reached() {
    let honest = run(1000, &honest(), |honest| honest.run().1);
    let missing: Vec<_> = expected(&HONEST).difference(&honest).cloned().collect();
    assert!(missing.is_empty(), "no honest session reached {missing:#?}");

    let mut all = run(2000, &hostile(), |session| {
        let mut reached = session.play(Polls::Scripted)?.reached;
        reached.extend(session.play(Polls::Always)?.reached);
        Ok(reached)
    });
    all.extend(honest);
    let missing: Vec<_> = expected(&CROSSINGS).difference(&all).cloned().collect();
    assert!(missing.is_empty(), "no session reached {missing:#?}");

    let cells: Reached = all.into_iter().filter(|(_, _, mode)| mode.is_some()).collect();
    let expected = expected_cells();
    let missing: Vec<_> = expected.difference(&cells).collect();
    assert!(missing.is_empty(), "no session reached {missing:#?}");
    let beyond: Vec<_> = cells.difference(&expected).collect();
    assert!(beyond.is_empty(), "not in the table, yet reached: {beyond:#?}");
}

/// The tables above and `ELSEWHERE` are together the table in the docs of `Mode`: no legal cell is forgotten.
#[test]
fn the_cells_are_those_of_the_documented_table() {
    let documented: BTreeSet<(&str, Mode)> = include_str!("../src/modes.rs")
        .lines()
        .skip_while(|line| !line.starts_with("/// | the frame is |"))
        .skip(2)
        .map_while(|line| line.strip_prefix("/// | ")?.strip_suffix(" |"))
        .flat_map(|row| {
            let mut cells = row.split(" | ");
            let what = cells.next().unwrap_or_default();
            cells.zip(MODES).filter(|(cell, _)| *cell != "!").map(move |(_, mode)| (what, mode)).collect::<Vec<_>>()
        })
        .collect();
    let violations = ["an answer nobody waits for", "leave refused"];
    let here = READS.iter().filter(|(what, _)| !violations.contains(what)).flat_map(|(what, cells)| {
        cells.iter().zip(MODES).filter(|(dialects, _)| !dialects.is_empty()).map(move |(_, mode)| (*what, mode))
    });
    assert_eq!(here.chain(ELSEWHERE).collect::<BTreeSet<_>>(), documented);
}

/// Laws 4 to 6 for each session that is written down, cut at every octet that the client receives, and at every octet that
/// it writes.
#[test]
fn the_laws_hold_wherever_a_session_is_cut() {
    for sessions::Session { name, board, lines } in sessions::sessions() {
        let mut ops = Vec::new();
        for line in &lines {
            match line {
                Line::Client("random?") => ops.push(Op::Request(Request::Random)),
                Line::Client("classified?") => ops.push(Op::Request(Request::Classified)),
                Line::Client("notif") => ops.push(Op::Enter),
                Line::Client(_) => ops.push(Op::Leave),
                Line::Server(line) => {
                    ops.push(Op::Write(usize::MAX));
                    ops.push(Op::Receive(Octets(format!("{line}\r\n").into_bytes())));
                }
            }
        }
        let dialect = if board == Silent.board() { Silent } else { Acknowledged };
        let ops = ops.into_iter().map(|op| (op, usize::MAX)).collect();
        let session = Session { dialect, limits: Limits::new(), ops };
        let (received, written) = (session.input().len(), session.play(Polls::Scripted).unwrap().wire.len());
        one_outcome(&session, 0..=received).expect(name);
        for cut in (0..=received).map(|octets| session.cut(octets)) {
            each_line_is_told_once(&cut).expect(name);
            finality(&cut).expect(name);
        }
        for cut in (0..=written).map(|octets| cut_writing(&session, octets)) {
            one_outcome(&cut, [usize::MAX].into_iter()).expect(name);
            each_line_is_told_once(&cut).expect(name);
            finality(&cut).expect(name);
        }
    }
}

/// The session until so many octets are written: then the stream takes nothing more, and ends.
fn cut_writing(session: &Session, octets: usize) -> Session {
    let mut client = ClientState::with_limits(session.dialect.board(), session.limits);
    let mut left = octets;
    let mut ops = Vec::new();
    for (op, polls) in &session.ops {
        match op {
            Op::Request(kind) => drop(client.request(*kind)),
            Op::Enter => drop(client.enter(())),
            Op::Leave => drop(client.leave()),
            Op::Receive(Octets(octets)) => client.receive(octets),
            Op::Eof => client.receive_eof(),
            Op::Write(_) if client.output().len() >= left => {
                ops.extend([(Op::Write(left), *polls), (Op::Eof, *polls)]);
                return session.with_ops(ops);
            }
            Op::Write(_) => {
                left -= client.output().len();
                client.advance_output(usize::MAX);
            }
        }
        while let Ok(Some(_)) = client.poll_event() {}
        ops.push((op.clone(), *polls));
    }
    session.with_ops(ops)
}

/// Law 4 at every octet of one session that has everything in it.
#[test]
fn one_outcome_wherever_the_stream_is_cut() {
    let receive = |octets: &[u8]| Op::Receive(Octets(octets.to_vec()));
    for (dialect, first, second) in [
        (Silent, &b"1\r\nnotif: random\r\n"[..], &b"notif: classified\r\n2\r\nnotif: x\r\ntext\r\n"[..]),
        (
            Acknowledged,
            b"1\r\nOK\r\nnotif: random\r\n",
            b"notif: classified\r\nOK\r\n2\r\nOK\r\nnotif: x\r\nOK\r\ntext\r\n",
        ),
    ] {
        let ops = [
            Op::Request(Request::Random),
            Op::Enter,
            Op::Write(12),
            receive(first),
            Op::Write(usize::MAX),
            Op::Leave,
            Op::Request(Request::Random),
            Op::Enter,
            Op::Write(15),
            Op::Leave,
            Op::Request(Request::Classified),
            receive(second),
        ];
        let session = Session { dialect, limits: Limits::new(), ops: ops.map(|op| (op, 0)).to_vec() };
        assert_eq!(session.play(Polls::AtTheEnd).unwrap().events.last(), Some(&Event::Closed));
        one_outcome(&session, 0..=first.len() + second.len()).unwrap();
    }
}
