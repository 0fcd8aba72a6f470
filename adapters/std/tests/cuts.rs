//! The blocking client when the connection is cut: each session that is written down, at every octet, by the end of the
//! stream and by a reset. What arrived before the cut is told, each question has one outcome, and the end is final.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

#[path = "../../../tests/sessions/mod.rs"]
mod sessions;

use sessions::{Line, Session, sessions};
use sonnette::Event;
use sonnette::board::{Notification, Refusal, Reply, Request};
use sonnette_std::{Client, End, Error};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

// What the application does in a session.

/// A call that blocks, or nearly so.
#[derive(Clone, Copy, Debug)]
enum Call {
    Start(Request),
    /// The outcome of the first question that has none.
    Outcome,
    Enter,
    Leave,
    Ring(Request),
    Notification,
}

fn question(line: Line) -> Option<Request> {
    match line {
        Line::Client("random?") => Some(Request::Random),
        Line::Client("classified?") => Some(Request::Classified),
        _ => None,
    }
}

fn calls(lines: &[Line]) -> Vec<Call> {
    let (mut calls, mut rest, mut open, mut rung) = (Vec::new(), lines, 0, 0);
    while let [line, after @ ..] = rest {
        rest = after;
        if let Some(request) = question(*line) {
            open += 1;
            calls.push(Call::Start(request));
            continue;
        }
        match (*line, rest) {
            (Line::Client("notif"), _) => calls.push(Call::Enter),
            (Line::Client(_), [asks, Line::Client("notif"), after @ ..]) if question(*asks).is_some() => {
                rung += 1;
                calls.push(Call::Ring(question(*asks).unwrap()));
                rest = after;
            }
            (Line::Client(_), _) => calls.push(Call::Leave),
            (Line::Server(line), _) if line.starts_with("notif:") => calls.push(Call::Notification),
            (Line::Server("OK" | "not now"), _) => {}
            // The ring has waited for it.
            (Line::Server(_), _) if rung > 0 => rung -= 1,
            (Line::Server(_), _) => {
                open -= 1;
                calls.push(Call::Outcome);
            }
        }
    }
    assert_eq!((open, rung), (0, 0));
    calls
}

/// What came of the calls.
#[derive(Debug, Default)]
struct Run {
    answers: Vec<String>,
    notifications: Vec<Notification>,
    /// Questions that have no answer: whether each was sent.
    lost: Vec<bool>,
    ends: Vec<End>,
}

type Result<T> = std::result::Result<T, Error<Refusal>>;

impl Run {
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(Error::Refused(Refusal::WrongKind(line))) => {
                self.answers.push(String::from_utf8_lossy(&line).into_owned());
            }
            Err(Error::Lost { sent, end }) => {
                self.lost.push(sent);
                self.ends.push(end);
            }
            Err(Error::Ended(end)) => self.ends.push(end),
            // Nothing is sent on a connection that has ended, nor in a mode that could not be entered.
            Err(Error::Rejected(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
        None
    }

    fn answer(&mut self, reply: Option<Reply>) {
        self.answers.extend(reply.map(|reply| match reply {
            Reply::Random(number) => number.to_string(),
            Reply::Classified(text) => String::from_utf8(text.to_vec()).unwrap(),
        }));
    }
}

/// Until the end of the stream, if it is `cut`.
fn run(session: &Session, stream: impl Read + Write, cut: bool) -> Run {
    let mut client = Client::new(session.board, stream);
    let (mut run, mut open) = (Run::default(), VecDeque::new());
    for call in calls(&session.lines) {
        match call {
            Call::Start(request) => open.extend(client.start(request).ok()),
            Call::Outcome => {
                if let Some(id) = open.pop_front() {
                    let reply = client.outcome(id);
                    assert!(!matches!(reply, Err(Error::Ended(_))), "a question that was accepted has an outcome");
                    let reply = run.note(reply);
                    run.answer(reply);
                }
            }
            Call::Enter => {
                let entered = client.enter(());
                run.note(entered);
            }
            Call::Leave => {
                let left = client.leave();
                run.note(left);
            }
            Call::Ring(request) => {
                let reply = client.ring(request);
                let reply = run.note(reply);
                run.answer(reply);
            }
            Call::Notification => {
                let notification = client.next_notification();
                let notification = run.note(notification);
                run.notifications.extend(notification.flatten());
            }
        }
    }
    if !cut {
        return run;
    }
    // What is kept is told still, then the end.
    loop {
        match client.next_event() {
            Ok(Event::Notification(notification)) => run.notifications.push(notification),
            Ok(Event::Reply { reply, .. }) => run.answer(Some(reply)),
            Ok(_) => {}
            Err(error) => {
                run.note::<()>(Err(error));
                return run;
            }
        }
    }
}

/// What the lines of the server tell, as far as so many octets of it go: answers, and notifications.
fn told(session: &Session, octets: usize) -> (Vec<String>, Vec<Notification>) {
    let (mut answers, mut notifications, mut at) = (Vec::new(), Vec::new(), 0);
    for line in &session.lines {
        let Line::Server(line) = line else { continue };
        at += line.len() + 2;
        if at > octets {
            break;
        }
        match line.strip_prefix("notif: ") {
            Some("random") => notifications.push(Notification::Random),
            Some("classified") => notifications.push(Notification::Classified),
            Some(other) => notifications.push(Notification::Other(other.to_owned().into())),
            None if *line == "OK" => {}
            None => answers.push((*line).to_owned()),
        }
    }
    (answers, notifications)
}

fn octets_of(session: &Session, is: impl Fn(&Line) -> bool) -> usize {
    let lines = session.lines.iter().filter(|line| is(line));
    lines.map(|(Line::Client(text) | Line::Server(text))| text.len() + 2).sum()
}

/// The octets of a line that the stream ends in.
fn unfinished(session: &Session, octets: usize) -> usize {
    let lines = session.lines.iter().filter_map(|line| match line {
        Line::Server(text) => Some(text.len() + 2),
        Line::Client(_) => None,
    });
    let mut rest = octets;
    for line in lines {
        match rest.checked_sub(line) {
            Some(after) => rest = after,
            None => break,
        }
    }
    rest
}

/// All that the calls gave is the same end.
fn check_end(run: &Run, is_end: impl Fn(&End) -> bool) {
    assert!(!run.ends.is_empty(), "nobody was told of the end: {run:?}");
    assert!(run.ends.iter().all(is_end), "{run:?}");
}

// A stream that is a session.

/// A server that says its lines once the client has said what stands before them, up to the cut.
struct Scripted {
    lines: VecDeque<Line>,
    /// What was written of the first line, or is still to be read of it.
    written: Vec<u8>,
    unread: VecDeque<u8>,
    /// How many octets may still be read, and how a read fails then; `None`: the stream ends.
    reads: (usize, Option<ErrorKind>),
    /// Likewise for writing.
    writes: (usize, ErrorKind),
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let (true, Some(Line::Server(line))) = (self.unread.is_empty(), self.lines.front()) {
            self.unread.extend(line.bytes().chain(*b"\r\n"));
            self.lines.pop_front();
        }
        let cut = self.reads.0 == 0 || self.writes.0 == 0 && self.unread.is_empty();
        let octets = self.unread.len().min(buffer.len()).min(self.reads.0);
        if octets == 0 {
            assert!(cut, "nothing is to come, but {:?}", self.lines);
            return self.reads.1.map_or(Ok(0), |kind| Err(kind.into()));
        }
        buffer.iter_mut().zip(self.unread.drain(..octets)).for_each(|(to, octet)| *to = octet);
        self.reads.0 -= octets;
        Ok(octets)
    }
}

impl Write for Scripted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let taken = octets.len().min(self.writes.0);
        if taken == 0 {
            return if self.writes.1 == ErrorKind::WriteZero { Ok(0) } else { Err(self.writes.1.into()) };
        }
        self.writes.0 -= taken;
        self.written.extend(&octets[..taken]);
        while let Some(end) = self.written.windows(2).position(|two| two == b"\r\n") {
            let line: Vec<u8> = self.written.drain(..end + 2).collect();
            // The server may be about to answer what came before.
            let next = self.lines.iter().position(|line| matches!(line, Line::Client(_)));
            for said in self.lines.drain(..next.expect("the client says more")) {
                let Line::Server(said) = said else { continue };
                self.unread.extend(said.bytes().chain(*b"\r\n"));
            }
            let Some(Line::Client(said)) = self.lines.pop_front() else { panic!("the client says more") };
            assert_eq!(line, format!("{said}\r\n").as_bytes());
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn scripted(session: &Session) -> Scripted {
    Scripted {
        lines: session.lines.iter().copied().collect(),
        written: Vec::new(),
        unread: VecDeque::new(),
        reads: (usize::MAX, None),
        writes: (usize::MAX, ErrorKind::BrokenPipe),
    }
}

#[test]
fn without_a_cut_all_is_told() {
    for session in sessions() {
        let run = run(&session, scripted(&session), false);
        assert_eq!((run.answers, run.notifications), told(&session, usize::MAX), "{}", session.name);
        assert!(run.lost.is_empty() && run.ends.is_empty());
    }
}

#[test]
fn reading_is_cut_at_every_octet() {
    for session in sessions() {
        let octets = octets_of(&session, |line| matches!(line, Line::Server(_)));
        for (cut, kind) in (0..octets).flat_map(|cut| [(cut, None), (cut, Some(ErrorKind::ConnectionReset))]) {
            let run = run(&session, Scripted { reads: (cut, kind), ..scripted(&session) }, true);
            let (answers, notifications) = told(&session, cut);
            assert_eq!((&run.answers, &run.notifications), (&answers, &notifications), "{} at {cut}", session.name);
            assert!(run.lost.iter().all(|sent| *sent), "{} at {cut}: {run:?}", session.name);
            check_end(&run, |end| match (end, kind) {
                (End::Io(error), Some(kind)) => error.kind() == kind,
                (End::Failed(sonnette::Error::UnexpectedEof { octets }), None) => {
                    *octets > 0 && *octets == unfinished(&session, cut) as u64
                }
                (End::Closed, None) => unfinished(&session, cut) == 0,
                _ => false,
            });
        }
    }
}

#[test]
fn writing_is_cut_at_every_octet() {
    for session in sessions() {
        let octets = octets_of(&session, |line| matches!(line, Line::Client(_)));
        let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset, ErrorKind::WriteZero];
        for (cut, kind) in (0..octets).flat_map(|cut| kinds.map(|kind| (cut, kind))) {
            let run = run(&session, Scripted { writes: (cut, kind), ..scripted(&session) }, true);
            // The server has said what stands before the line that it has not got whole.
            let mut left = cut;
            let mut said = 0;
            for line in &session.lines {
                match line {
                    Line::Server(line) => said += line.len() + 2,
                    Line::Client(line) if line.len() + 2 <= left => left -= line.len() + 2,
                    Line::Client(_) => break,
                }
            }
            let expected = told(&session, said);
            assert_eq!((&run.answers, &run.notifications), (&expected.0, &expected.1), "{} at {cut}", session.name);
            // Those that the server has not begun to read were not sent.
            assert!(run.lost.is_sorted_by(|first, second| *first || !second), "{} at {cut}: {run:?}", session.name);
            check_end(&run, |end| matches!(end, End::Io(error) if error.kind() == kind));
        }
    }
}

// Real sockets.

#[cfg(unix)]
mod sockets {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::thread;

    /// Serves the session until so many octets are sent.
    fn serve(session: &Session, mut stream: TcpStream, octets: usize, reset: bool) {
        stream.set_nodelay(true).unwrap();
        let mut left = octets;
        for line in &session.lines {
            match line {
                Line::Client(line) => {
                    let mut said = vec![0; line.len() + 2];
                    stream.read_exact(&mut said).unwrap();
                    assert_eq!(said, format!("{line}\r\n").as_bytes());
                }
                Line::Server(line) => {
                    let line = format!("{line}\r\n");
                    let now = line.len().min(left);
                    stream.write_all(&line.as_bytes()[..now]).unwrap();
                    left -= now;
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        if reset {
            rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        } else {
            stream.shutdown(Shutdown::Write).unwrap();
            // What the client still says is read, so that the end is no reset.
            let _ = io::copy(&mut stream, &mut io::sink());
        }
    }

    #[test]
    fn a_tcp_connection_is_cut_at_every_octet() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for session in sessions() {
            let octets = octets_of(&session, |line| matches!(line, Line::Server(_)));
            for (cut, reset) in (0..octets).flat_map(|cut| [(cut, false), (cut, true)]) {
                thread::scope(|threads| {
                    threads.spawn(|| serve(&session, listener.accept().unwrap().0, cut, reset));
                    let stream = TcpStream::connect(address).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let run = run(&session, stream, true);
                    let (answers, notifications) = told(&session, cut);
                    let name = session.name;
                    if reset {
                        // The system may drop what has arrived.
                        assert!(answers.starts_with(&run.answers), "{name} at {cut}: {run:?}");
                        assert!(notifications.starts_with(&run.notifications), "{name} at {cut}: {run:?}");
                        check_end(&run, |end| matches!(end, End::Io(_)));
                    } else {
                        assert_eq!((&run.answers, &run.notifications), (&answers, &notifications), "{name} at {cut}");
                        check_end(&run, |end| match end {
                            End::Failed(sonnette::Error::UnexpectedEof { octets }) => {
                                *octets == unfinished(&session, cut) as u64
                            }
                            End::Closed => unfinished(&session, cut) == 0,
                            _ => false,
                        });
                    }
                });
            }
        }
    }
}
