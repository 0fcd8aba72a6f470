//! The blocking client over scripted streams: every way a `Read + Write` may behave.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::board::{Board, Notification, Refusal, Reply, Request};
use sonnette::{ClientState, Event, Limits, Mode, Reason, Timeouts};
use sonnette_std::{Client, End, Error, Handler, board};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

/// What a read does.
#[derive(Clone)]
enum Step {
    Gives(&'static [u8]),
    Fails(io::ErrorKind),
    /// The end of the stream, for good.
    Ends,
}
use Step::{Ends, Fails, Gives};

/// What a blocking stream says when its read timeout has expired.
const TIMEOUT: Step = Fails(io::ErrorKind::WouldBlock);

/// Reads as scripted, at most `most` octets at a time; records what is written, as much at a time.
struct Scripted {
    steps: VecDeque<Step>,
    written: Vec<u8>,
    /// Flushes fail so, one after the other.
    flushes: VecDeque<io::ErrorKind>,
    most: usize,
    /// Each other read and write is `Interrupted` first.
    interrupted: Option<bool>,
    /// Writes fail so from now on.
    broken: Option<io::ErrorKind>,
}

impl Scripted {
    fn new(steps: &[Step]) -> Self {
        let steps = steps.iter().cloned().collect();
        Scripted { steps, written: vec![], flushes: VecDeque::new(), most: usize::MAX, interrupted: None, broken: None }
    }

    fn interrupt(&mut self) -> io::Result<()> {
        match &mut self.interrupted {
            Some(now) => {
                *now = !*now;
                if *now { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        match self.steps.pop_front().expect("the script goes on") {
            Gives(octets) => {
                let (now, later) = octets.split_at(octets.len().min(self.most).min(buffer.len()));
                if !later.is_empty() {
                    self.steps.push_front(Gives(later));
                }
                buffer[..now.len()].copy_from_slice(now);
                Ok(now.len())
            }
            Fails(kind) => Err(kind.into()),
            Ends => {
                self.steps.push_front(Ends);
                Ok(0)
            }
        }
    }
}

impl Write for Scripted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.interrupt()?;
        if let Some(kind) = self.broken {
            return if kind == io::ErrorKind::WriteZero { Ok(0) } else { Err(kind.into()) };
        }
        let octets = &octets[..octets.len().min(self.most)];
        self.written.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes.pop_front().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

fn client(steps: &[Step]) -> Client<Board, Scripted> {
    Client::new(Board::silent(), Scripted::new(steps))
}

fn acknowledged(steps: &[Step]) -> Client<Board, Scripted> {
    Client::new(Board::acknowledged(), Scripted::new(steps))
}

#[test]
fn a_session_is_the_same_however_the_stream_behaves() {
    for most in [1, 2, 7, usize::MAX] {
        for interrupted in [None, Some(false), Some(true)] {
            let mut client = acknowledged(&[
                Gives(b"46774\r\n"),
                Gives(b"nice flat in the 11e\r\n"),
                Gives(b"OK\r\nnotif: random\r\n"),
                Gives(b"notif: lunch\r\nOK\r\n90210\r\nOK\r\n"),
                Gives(b"OK\r\n"),
            ]);
            client.stream_mut().most = most;
            client.stream_mut().interrupted = interrupted;
            assert_eq!(client.random().unwrap(), 46774);
            assert_eq!(client.classified().unwrap(), "nice flat in the 11e");
            client.notify().unwrap();
            assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
            assert_eq!(client.ring(Request::Random).unwrap(), Reply::Random(90210));
            assert_eq!(client.wait_notification().unwrap(), Some(Notification::Other("lunch".into())));
            client.stop_notify().unwrap();
            assert_eq!(client.wait_notification().unwrap(), None);
            assert_eq!(client.wait_notification().unwrap(), None);
            assert_eq!(
                client.stream().written,
                b"random?\r\nclassified?\r\nnotif\r\nstop_notif\r\nrandom?\r\nnotif\r\nstop_notif\r\n"
            );
        }
    }
}

#[test]
fn a_ring_is_one_write() {
    let mut client = client(&[Gives(b"1\r\n")]);
    client.notify().unwrap();
    client.stream_mut().written.clear();
    client.ring(Request::Random).unwrap();
    assert_eq!(client.stream().written, b"stop_notif\r\nrandom?\r\nnotif\r\n");
    assert_eq!(client.state().mode(), Mode::Notification);
}

#[test]
fn a_timeout_in_mid_line_loses_nothing() {
    let mut client = client(&[Gives(b"46"), TIMEOUT, Gives(b"774\r"), TIMEOUT, Gives(b"\n")]);
    let Err(Error::TimedOut { id: Some(id) }) = client.random() else { panic!("it must time out") };
    assert!(matches!(client.outcome(id), Err(Error::TimedOut { id: Some(again) }) if again == id));
    assert_eq!(client.outcome(id).unwrap(), Reply::Random(46774));
    assert!(matches!(client.outcome(id), Err(Error::UnknownRequest(unknown)) if unknown == id));
    assert_eq!(client.stream().written, b"random?\r\n");
}

#[test]
fn asking_again_gives_up_the_first_and_gets_its_own_answer() {
    let mut client = client(&[TIMEOUT, Gives(b"1\r\n"), TIMEOUT, Gives(b"2\r\n"), Gives(b"3\r\n")]);
    let Err(Error::TimedOut { id: Some(first) }) = client.random() else { panic!("it must time out") };
    let Err(Error::TimedOut { id: Some(second) }) = client.random() else { panic!("it must time out") };
    assert!(matches!(client.outcome(first), Err(Error::UnknownRequest(_))), "its answer was discarded");
    assert_eq!(client.outcome(second).unwrap(), Reply::Random(2));
    assert_eq!(client.random().unwrap(), 3);
}

#[test]
fn an_answer_kept_for_a_request_that_is_given_up_is_discarded() {
    let mut client = client(&[TIMEOUT, Gives(b"1\r\n2\r\n"), Gives(b"3\r\n")]);
    let Err(Error::TimedOut { id: Some(first) }) = client.random() else { panic!("it must time out") };
    let started = client.start(Request::Random).unwrap();
    assert_eq!(client.outcome(started).unwrap(), Reply::Random(2));
    assert_eq!(client.random().unwrap(), 3);
    assert!(matches!(client.outcome(first), Err(Error::UnknownRequest(_))));
}

#[test]
fn an_enter_that_timed_out_is_taken_up_again() {
    let mut client = acknowledged(&[TIMEOUT, Gives(b"OK\r\nnotif: random\r\n")]);
    assert!(matches!(client.notify(), Err(Error::TimedOut { id: Some(_) })));
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    assert_eq!(client.stream().written, b"notif\r\n");
    assert!(matches!(client.notify(), Err(Error::Rejected(Reason::NotAllowed(Mode::Notification)))));
}

#[test]
fn a_leave_before_the_enter_is_confirmed_is_written_once_it_is() {
    let mut client = acknowledged(&[TIMEOUT, Gives(b"OK\r\n"), Gives(b"OK\r\n"), Ends]);
    assert!(matches!(client.notify(), Err(Error::TimedOut { .. })));
    client.leave().unwrap();
    assert_eq!(client.stream().written, b"notif\r\nstop_notif\r\n");
    assert!(matches!(client.next_event(), Ok(Event::Left { asked: true, .. })));
    assert!(matches!(client.next_event(), Ok(Event::Closed)));
    assert!(matches!(client.next_event(), Err(Error::Ended(End::Closed))));
}

#[test]
fn a_refused_enter_is_an_error_and_the_connection_goes_on() {
    let mut client = acknowledged(&[Gives(b"never\r\n"), Gives(b"5\r\n")]);
    let Err(Error::Refused(Refusal::WrongKind(line))) = client.notify() else { panic!("it must be refused") };
    assert_eq!(line, "never");
    assert_eq!(client.random().unwrap(), 5);
}

#[test]
fn each_end_is_told_after_what_came_before_it() {
    let lost = |steps: &[Step]| {
        let mut client = client(steps);
        client.start(Request::Classified).unwrap();
        let lost = client.random();
        let first = client.next_event().unwrap();
        assert!(matches!(first, Event::Reply { reply: Reply::Classified(text), .. } if text == "first"));
        match lost {
            Err(Error::Lost { sent: true, end }) => end,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(lost(&[Gives(b"first\r\n"), Ends]), End::Closed));
    assert!(matches!(lost(&[Gives(b"first\r\n46"), Ends]), End::Failed(sonnette::Error::UnexpectedEof { octets: 2 })));
    for cut in [&b"first\r\n"[..], b"first\r\n46"] {
        let reset = lost(&[Gives(cut), Fails(io::ErrorKind::ConnectionReset)]);
        assert!(matches!(reset, End::Io(error) if error.kind() == io::ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_violation_is_told_after_what_came_before_it() {
    let mut client = client(&[Gives(b"notif: random\r\nhello\r\n")]);
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    for _ in 0..2 {
        let ended = client.wait_notification();
        assert!(matches!(&ended, Err(Error::Ended(End::Failed(sonnette::Error::Violation { .. })))), "{ended:?}");
    }
}

#[test]
fn a_line_too_long_is_typed() {
    let state = ClientState::with_limits(Board::silent(), Limits::new().with_line(4));
    let mut client = Client::with_state(state, Scripted::new(&[Gives(b"12345")]));
    let Err(Error::Lost { sent: true, end: End::Failed(sonnette::Error::LineTooLong(limit)) }) = client.random() else {
        panic!("it must be lost")
    };
    assert_eq!(limit.limit, 4);
}

#[test]
fn with_a_broken_pipe_what_the_server_had_said_comes_first() {
    for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::WriteZero] {
        let mut client = client(&[Gives(b"1\r\n"), Gives(b"notif: random\r\n"), Ends]);
        assert_eq!(client.random().unwrap(), 1);
        client.notify().unwrap();
        client.stream_mut().broken = Some(kind);
        assert!(matches!(client.leave(), Err(Error::Ended(End::Io(error))) if error.kind() == kind));
        assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
        assert!(matches!(client.wait_notification(), Err(Error::Ended(End::Io(error))) if error.kind() == kind));
    }
}

#[test]
fn what_was_never_written_is_lost_unsent() {
    let mut client = client(&[Ends]);
    client.stream_mut().broken = Some(io::ErrorKind::BrokenPipe);
    assert!(matches!(client.random(), Err(Error::Lost { sent: false, end: End::Io(_) })));
}

#[test]
fn nothing_is_written_once_a_request_was_told_lost_unsent() {
    let mut client = client(&[Gives(b"1\r\n"), Ends]);
    client.random().unwrap();
    client.stream_mut().broken = Some(io::ErrorKind::BrokenPipe);
    let lost = [client.start(Request::Random).unwrap(), client.start(Request::Random).unwrap()];
    assert!(matches!(client.next_event(), Ok(Event::Lost { id, sent: false }) if id == lost[0]));
    client.stream_mut().broken = None;
    assert!(matches!(client.flush(), Err(Error::Ended(End::Io(_)))));
    assert!(matches!(client.next_event(), Ok(Event::Lost { id, sent: false }) if id == lost[1]));
    assert!(matches!(client.next_event(), Err(Error::Ended(End::Io(_)))));
    assert!(matches!(client.random(), Err(Error::Ended(End::Io(_)))), "the reason, not that it was rejected");
    assert_eq!(client.stream().written, b"random?\r\n");
}

#[test]
fn a_ring_that_ends_early_keeps_the_answer_it_has() {
    let begin = [Gives(b"OK\r\n"), Gives(b"OK\r\n90210\r\n")];
    let ring = |rest: &[Step]| {
        let mut client = acknowledged(&[&begin, rest].concat());
        client.notify().unwrap();
        let rung = client.ring(Request::Random);
        (client, rung)
    };

    let (mut client, rung) = ring(&[TIMEOUT, Gives(b"OK\r\nnotif: random\r\n")]);
    let Err(Error::TimedOut { id: Some(id) }) = rung else { panic!("{rung:?}") };
    assert_eq!(client.outcome(id).unwrap(), Reply::Random(90210));
    client.notify().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    assert_eq!(client.stream().written, b"notif\r\nstop_notif\r\nrandom?\r\nnotif\r\n");

    let (mut client, rung) = ring(&[Ends]);
    assert_eq!(rung.unwrap(), Reply::Random(90210));
    assert!(matches!(client.wait_notification(), Err(Error::Lost { sent: true, end: End::Closed })));

    let (mut client, rung) = ring(&[Gives(b"no\r\n"), Gives(b"5\r\n")]);
    assert_eq!(rung.unwrap(), Reply::Random(90210));
    assert!(matches!(client.wait_notification(), Err(Error::Refused(Refusal::WrongKind(line))) if line == "no"));
    assert_eq!(client.random().unwrap(), 5);
}

#[test]
fn a_ring_is_asked_whole_or_not_at_all() {
    let state = ClientState::with_limits(Board::silent(), Limits::new().with_pending(3));
    let mut client = Client::with_state(state, Scripted::new(&[Gives(b"notif: random\r\n")]));
    client.notify().unwrap();
    let before = client.state().clone();
    assert!(matches!(client.ring(Request::Random), Err(Error::Rejected(Reason::TooManyPending))));
    assert_eq!(*client.state(), before);
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    assert_eq!(client.stream().written, b"notif\r\n");
}

#[test]
fn rings_that_end_early_leave_nothing_behind() {
    let mut client = acknowledged(&[Gives(b"OK\r\n")]);
    client.set_backlog(3);
    client.notify().unwrap();
    for _ in 0..20 {
        client.stream_mut().steps.extend([TIMEOUT, Gives(b"OK\r\n1\r\nOK\r\nnotif: random\r\n")]);
        let Err(Error::TimedOut { id: Some(id) }) = client.ring(Request::Random) else { panic!("it must time out") };
        assert_eq!(client.outcome(id).unwrap(), Reply::Random(1));
        assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    }
    let (_, _, kept) = client.into_parts();
    assert!(kept.len() <= 1, "{kept:?}");
}

#[test]
fn an_enter_is_given_up_by_leaving() {
    let mut client = acknowledged(&[TIMEOUT, Gives(b"OK\r\n"), Gives(b"OK\r\nOK\r\nnotif: random\r\n")]);
    assert!(matches!(client.notify(), Err(Error::TimedOut { .. })));
    client.leave().unwrap();
    client.notify().unwrap();
    assert_eq!(client.stream().written, b"notif\r\nstop_notif\r\nnotif\r\n");
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
}

#[test]
fn an_enter_confirmed_while_another_call_waits_is_as_good() {
    let mut client = acknowledged(&[TIMEOUT, Gives(b"OK\r\nnotif: random\r\n"), Gives(b"OK\r\n1\r\nOK\r\n")]);
    let Err(Error::TimedOut { id: Some(enter) }) = client.notify() else { panic!("it must time out") };
    assert!(matches!(client.outcome(enter), Err(Error::UnknownRequest(_))), "an enter has no answer to give");
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    assert_eq!(client.ring(Request::Random).unwrap(), Reply::Random(1));
    assert_eq!(client.state().mode(), Mode::Notification);
}

#[test]
fn an_enter_refused_while_another_call_waits_is_told() {
    let mut client = acknowledged(&[TIMEOUT, Gives(b"no\r\n")]);
    assert!(matches!(client.notify(), Err(Error::TimedOut { .. })));
    assert!(matches!(client.wait_notification(), Err(Error::Refused(Refusal::WrongKind(line))) if line == "no"));

    // An earlier mode that was left on request does not hide it.
    let mut client = acknowledged(&[Gives(b"OK\r\n"), Gives(b"OK\r\n1\r\n"), TIMEOUT, Gives(b"no\r\n")]);
    client.notify().unwrap();
    client.leave().unwrap();
    client.random().unwrap();
    assert!(matches!(client.notify(), Err(Error::TimedOut { .. })));
    assert!(matches!(client.run(&mut Counts::default()), Err(Error::Refused(_))));
}

#[test]
fn a_dead_peer_is_no_timeout() {
    let mut client = client(&[Fails(io::ErrorKind::TimedOut)]);
    let Err(Error::Lost { sent: true, end: End::Io(error) }) = client.random() else { panic!("it must end") };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_write_that_would_block_ends_the_call_and_not_the_connection() {
    let mut client = client(&[Gives(b"1\r\n")]);
    client.stream_mut().broken = Some(io::ErrorKind::WouldBlock);
    let Err(Error::TimedOut { id: Some(id) }) = client.random() else { panic!("it must time out") };
    client.stream_mut().broken = None;
    assert_eq!(client.outcome(id).unwrap(), Reply::Random(1));
}

#[test]
fn a_flush_may_be_interrupted_or_take_long() {
    let mut client = client(&[Gives(b"1\r\n"), Gives(b"2\r\n")]);
    client.stream_mut().flushes = [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock].into();
    let Err(Error::TimedOut { id: Some(id) }) = client.random() else { panic!("it must time out") };
    assert_eq!(client.outcome(id).unwrap(), Reply::Random(1));
    assert_eq!(client.random().unwrap(), 2);
    assert_eq!(client.stream().written, b"random?\r\nrandom?\r\n");
}

/// As a TLS stream does: it takes so many octets, then none until it was flushed.
struct Holds {
    stream: Scripted,
    held: Vec<u8>,
}

impl Read for Holds {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Holds {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let room = octets.len().min(4 - self.held.len());
        self.held.extend_from_slice(&octets[..room]);
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()?;
        self.stream.written.append(&mut self.held);
        Ok(())
    }
}

#[test]
fn a_stream_that_is_full_until_it_is_flushed_is_flushed() {
    let stream = Holds { stream: Scripted::new(&[Gives(b"1\r\n")]), held: vec![] };
    let mut client = Client::new(Board::silent(), stream);
    assert_eq!(client.random().unwrap(), 1);
    assert_eq!(client.stream().stream.written, b"random?\r\n");
}

#[test]
fn an_error_is_one_short_line_however_long_the_refusal() {
    let refused: Error<Refusal> = Error::Refused(Refusal::WrongKind(vec![1; 16_000].into()));
    let line = refused.to_string();
    assert!(line.len() < 200 && line.ends_with("..."), "{line}");
    let refused: Error<Refusal> = Error::Refused(Refusal::WrongKind("no".into()));
    assert_eq!(refused.to_string(), "the server refused: WrongKind(b\"no\")");
}

#[test]
fn a_full_backlog_names_the_call_and_loses_nothing() {
    let mut client = client(&[Gives(b"notif: random\r\nnotif: classified\r\nnotif: a\r\n7\r\n")]);
    client.set_backlog(2);
    client.notify().unwrap();
    client.leave().unwrap();
    let Err(Error::BacklogFull { id: Some(id) }) = client.random() else { panic!("three do not fit") };
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Classified));
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Other("a".into())));
    assert_eq!(client.outcome(id).unwrap(), Reply::Random(7));
}

#[test]
fn call_with_hands_out_what_came_before_and_meanwhile() {
    let mut client = client(&[Gives(b"notif: random\r\n"), Gives(b"notif: classified\r\nad\r\n")]);
    client.notify().unwrap();
    client.leave().unwrap();
    let mut seen = vec![];
    let reply = client.call_with(Request::Classified, |notification| seen.push(notification)).unwrap();
    assert_eq!(reply, Reply::Classified("ad".into()));
    assert_eq!(seen, [Notification::Random, Notification::Classified]);
}

#[test]
fn ring_with_hands_out_more_than_is_kept() {
    const NEWS: Step = Gives(b"notif: random\r\nnotif: random\r\nnotif: random\r\n");
    let answers = Gives(b"OK\r\n1\r\nOK\r\nnotif: classified\r\n");
    let mut client = acknowledged(&[Gives(b"OK\r\n"), NEWS, answers, TIMEOUT, Gives(b"OK\r\n2\r\nOK\r\n")]);
    client.set_backlog(2);
    client.notify().unwrap();
    let mut seen = vec![];
    let reply = client.ring_with(Request::Random, |notification| seen.push(notification)).unwrap();
    assert_eq!((reply, client.state().mode()), (Reply::Random(1), Mode::Notification));
    assert_eq!(seen, [Notification::Random, Notification::Random, Notification::Random]);
    // What came behind it was in the same read.
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Classified));
    assert_eq!(client.stream().written, b"notif\r\nstop_notif\r\nrandom?\r\nnotif\r\n");

    let Err(Error::TimedOut { id }) = client.ring_with(Request::Random, |_| panic!("nothing came")) else {
        panic!("it must time out")
    };
    // Ended early, it goes on as a ring does.
    assert_eq!(client.outcome(id.unwrap()).unwrap(), Reply::Random(2));
}

/// The clock that deadlines are told by is the same for both.
#[test]
fn deadlines_stay_when_a_state_goes_on_with_another_client() {
    let mut client = client(&[TIMEOUT, Gives(b"1\r\n"), TIMEOUT]);
    client.set_timeouts(Timeouts { reply: Some(Duration::from_secs(60)), ..Timeouts::OFF });
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(20) {
        std::hint::spin_loop();
    }
    client.start(Request::Random).unwrap();
    assert!(matches!(client.next_event(), Err(Error::TimedOut { .. })));
    let (mut state, stream, _) = client.into_parts();
    let first = state.poll_timeout(Duration::ZERO).unwrap();

    let mut client = Client::with_state(state, stream);
    client.start(Request::Random).unwrap();
    assert!(matches!(client.next_event(), Ok(Event::Reply { .. })));
    assert!(matches!(client.next_event(), Err(Error::TimedOut { .. })));
    let (mut state, ..) = client.into_parts();
    assert!(state.poll_timeout(Duration::ZERO).unwrap() >= first);
}

#[test]
fn the_plain_layer_tells_everything() {
    let mut client = acknowledged(&[Gives(b"1\r\nOK\r\n"), Gives(b"notif: random\r\nOK\r\nx\r\n"), Ends]);
    let random = client.start(Request::Random).unwrap();
    let enter = client.enter(()).unwrap();
    client.leave().unwrap();
    let again = client.start(Request::Random).unwrap();
    let events: Vec<_> = std::iter::from_fn(|| client.next_event().ok()).collect();
    assert_eq!(
        events,
        [
            Event::Reply { id: random, reply: Reply::Random(1) },
            Event::Notification(Notification::Random),
            Event::Left { id: enter, asked: true, refusal: None },
            Event::Refused { id: again, refusal: Refusal::WrongKind("x".into()) },
            Event::Closed,
        ]
    );
}

#[derive(Default)]
struct Counts {
    random: u32,
    other: Vec<Vec<u8>>,
}

impl board::Handler for Counts {
    fn random_available(&mut self) {
        self.random += 1;
    }

    fn other_available(&mut self, name: &[u8]) {
        self.other.push(name.to_vec());
    }

    fn is_done(&self) -> bool {
        self.random == 2
    }
}

#[test]
fn run_calls_the_handler_until_it_is_done() {
    let lines = b"notif: random\r\nnotif: classified\r\nnotif: lunch\r\nnotif: random\r\nnotif: random\r\n";
    let mut client = client(&[Gives(lines)]);
    let mut counts = Counts::default();
    assert!(matches!(client.run(&mut counts), Err(Error::Rejected(Reason::NotAllowed(Mode::Normal)))));
    client.notify().unwrap();
    client.run(&mut counts).unwrap();
    assert_eq!((counts.random, counts.other), (2, vec![b"lunch".to_vec()]));
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random), "one was left for later");
}

#[test]
fn run_returns_once_the_mode_was_left() {
    struct All(u32);
    impl Handler<Board> for All {
        fn notification(&mut self, _: Notification) {
            self.0 += 1;
        }
    }
    let mut client = acknowledged(&[Gives(b"OK\r\n"), Gives(b"notif: random\r\nnotif: classified\r\nOK\r\n")]);
    client.notify().unwrap();
    client.leave().unwrap();
    let mut all = All(0);
    client.run(&mut all).unwrap();
    assert_eq!(all.0, 2);
}

#[test]
fn the_parts_can_be_taken_and_put_together_again() {
    let mut client = client(&[Gives(b"notif: random\r\n46")]);
    client.notify().unwrap();
    client.leave().unwrap();
    assert_eq!(client.wait_notification().unwrap(), Some(Notification::Random));
    let (state, mut stream, kept) = client.into_parts();
    assert!(kept.is_empty());
    assert_eq!(state.unread(), b"46");
    stream.steps.push_back(Gives(b"774\r\n"));
    let mut client = Client::with_state(state, stream);
    assert_eq!(client.random().unwrap(), 46774);
}

/// A client is Send where its stream is.
#[test]
fn clients_are_send() {
    fn send<T: Send>() {}
    send::<Client<Board, std::net::TcpStream>>();
    send::<Error<Refusal>>();
    #[cfg(unix)]
    send::<Client<Board, sonnette_std::Socket>>();
}
