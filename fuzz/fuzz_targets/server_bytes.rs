//! Whatever a client sends, the server does not panic, and does not depend on how the octets are cut. What it writes are
//! whole lines: one answer for each question, `OK` for each change of mode in the acknowledged dialect, and notifications
//! in the mode alone. After a fault or the end of the input it takes nothing more, and is finished once all is written.
//!
//! Input: two lines, then the octets of the client.
//! 1. `s` (silent) or `a` (acknowledged), then what happens after each line that was received, over and over: `n` and `m`
//!    news of a kind, `w` all is written, `o` one octet, `-` nothing.
//! 2. The sizes of chunks, see `Chunking::Chosen`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::board::{Board, Reply, Request, ServerState};
use sonnette_fuzz::{Chunking, header};

struct Run<'a> {
    server: ServerState,
    acknowledged: bool,
    happens: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    answers: i64,
    written: Vec<u8>,
}

impl Run<'_> {
    fn serve(&mut self) {
        loop {
            let question = self.server.poll_request();
            assert_eq!(question, self.server.poll_request(), "it is the same until it is answered");
            match question {
                Some(Request::Random) => self.server.answer(Reply::Random(self.answers)).unwrap(),
                Some(Request::Classified) => self.server.answer(Reply::Classified("text".into())).unwrap(),
                None => return,
            }
            self.answers += 1;
        }
    }

    fn happen(&mut self) {
        match self.happens.next() {
            Some(b'n') => self.server.notify(Request::Random),
            Some(b'm') => self.server.notify(Request::Classified),
            Some(b'w') => self.write(usize::MAX),
            Some(b'o') => self.write(1),
            _ => {}
        }
    }

    fn write(&mut self, most: usize) {
        let octets = most.min(self.server.output().len());
        self.written.extend(&self.server.output()[..octets]);
        self.server.advance_output(most);
    }

    /// The octets of one line, then what happens after it.
    fn receive(&mut self, line: &[u8], chunking: Chunking<'_>) {
        for chunk in chunking.cut(line) {
            self.server.receive(chunk);
            self.serve();
        }
        self.happen();
    }

    fn finish(&mut self) {
        self.server.receive_eof();
        self.serve();
        self.write(usize::MAX);
        assert!(self.server.is_finished() && !self.server.wants_input(), "{:?}", self.server);
        let (server, written) = (self.server.clone(), self.written.len());
        self.server.receive(b"random?\r\n");
        self.server.notify(Request::Random);
        self.serve();
        self.write(usize::MAX);
        assert_eq!((&self.server, self.written.len()), (&server, written), "it takes something after the end");
    }

    /// Reads the client's lines beside the server's, as far as there is no fault.
    fn check(&self, octets: &[u8]) {
        let mut lines = self.written.split_inclusive(|&octet| octet == b'\n');
        let (mut in_mode, mut answers) = (false, 0);
        let mut commands = octets.split_inclusive(|&octet| octet == b'\n');
        let mut rest = Vec::new();
        let mut next_command = || loop {
            rest.extend(commands.next()?);
            if rest.ends_with(b"\r\n") {
                return Some(std::mem::take(&mut rest));
            }
        };
        let mut line = lines.next();
        loop {
            // Outside the mode such a line is not expected, and will not be the answer that is.
            while in_mode && matches!(line, Some(b"notif: random\r\n" | b"notif: classified\r\n")) {
                line = lines.next();
            }
            let Some(command) = next_command() else { break };
            let expected = match &command[..] {
                b"random?\r\n" => format!("{answers}\r\n"),
                b"classified?\r\n" => "text\r\n".into(),
                b"notif\r\n" | b"stop_notif\r\n" => {
                    in_mode = command == b"notif\r\n";
                    if !self.acknowledged {
                        continue;
                    }
                    "OK\r\n".into()
                }
                _ => break,
            };
            answers += i64::from(expected != "OK\r\n");
            assert_eq!(line, Some(expected.as_bytes()));
            line = lines.next();
        }
        assert_eq!((line, answers), (None, self.answers));
    }
}

fuzz_target!(|data: &[u8]| {
    let (script, rest) = header(data);
    let (sizes, octets) = header(rest);
    let acknowledged = script.starts_with(b"a");
    let board = if acknowledged { Board::acknowledged() } else { Board::silent() };
    let mut runs = [Chunking::Whole, Chunking::Bytewise, Chunking::Chosen(sizes)].map(|chunking| {
        let happens = script.get(1..).unwrap_or_default().iter().cycle();
        (Run { server: ServerState::new(board), acknowledged, happens, answers: 0, written: Vec::new() }, chunking)
    });
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        for (run, chunking) in &mut runs {
            run.receive(line, *chunking);
        }
        assert!(runs.iter().all(|(run, _)| run.server == runs[0].0.server), "it depends on the chunking");
    }
    for (run, _) in &mut runs {
        run.finish();
    }
    assert!(runs.iter().all(|(run, _)| run.written == runs[0].0.written), "it depends on the chunking");
    runs[0].0.check(octets);
});
