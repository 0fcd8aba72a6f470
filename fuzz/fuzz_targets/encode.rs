//! What is accepted is on the wire exactly as it was asked, in order, one line each, as an independent reader of lines
//! finds it; what is refused leaves nothing there (law 12). On the server's side too: a text that it accepts reaches the
//! client as it is, whatever else the client has been told.
//!
//! Input: a line of steps, `r` random, `c` classified, `e` enter, `l` leave, `g` ring, `t` the next text, a capital `S` at
//! the start for small limits; then the texts, with `|` between them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::board::{Board, Reply, Request, ServerState, check_text};
use sonnette::{
    Changes, ClientState, Decoded, Encoder, EnterAnswer, Event, Fault, Frame, Invalid, LeaveAnswer, Limits, Pending,
    Protocol, Reason, RequestId, Setting, Terminator,
};
use sonnette_fuzz::header;

/// A protocol that puts a caller's text between words of its own.
#[derive(Debug)]
struct Say;

impl Protocol for Say {
    type Request = Vec<u8>;
    type Subscription = Vec<u8>;
    type Reply = ();
    type Refusal = ();
    type Notification = ();
    type Note = ();

    const TERMINATOR: Terminator = Terminator::CrLf;

    fn changes(&self) -> Changes {
        Changes { enter: EnterAnswer::Silent, leave: LeaveAnswer::Silent }
    }

    fn allows(&self, _: &Vec<u8>, _: Setting) -> bool {
        true
    }

    fn encode_request(&self, _: RequestId, text: &Vec<u8>, out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"say ");
        out.put_text(text)?;
        out.put(b" twice\r\n");
        Ok(())
    }

    fn encode_enter(&self, _: RequestId, text: &Vec<u8>, out: &mut Encoder<'_>) -> Result<(), Invalid> {
        out.put(b"hear ");
        out.put_text(text)?;
        out.put(b"\r\n");
        Ok(())
    }

    fn encode_leave(&self, _: RequestId, _: &Vec<u8>, out: &mut Encoder<'_>) {
        out.put(b"rest\r\n");
    }

    fn decode(&mut self, _: &mut Frame<'_>, _: &Pending<'_, Self>) -> Result<Decoded<Self>, Fault> {
        Err(Fault::Violation("nothing is answered here"))
    }
}

/// The lines of the wire; an LF ends a line, and so does a CR, whether the other is with it or not.
fn lines(wire: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = wire;
    while !rest.is_empty() {
        let end = rest.iter().position(|octet| b"\r\n\0".contains(octet)).expect("a line that has no end");
        lines.push(&rest[..end]);
        rest = rest[end..].strip_prefix(b"\r\n").expect("an end of line that is not CR LF");
    }
    lines
}

fn board(script: &[u8], limits: Limits) {
    let mut state = ClientState::with_limits(Board::silent(), limits);
    let mut asked: Vec<&[u8]> = Vec::new();
    for step in script {
        let before = asked.len();
        let accepted = match step {
            b'r' => state.request(Request::Random).map(|_| asked.push(b"random?")).is_ok(),
            b'c' => state.request(Request::Classified).map(|_| asked.push(b"classified?")).is_ok(),
            b'e' => state.enter(()).map(|_| asked.push(b"notif")).is_ok(),
            b'l' => {
                let mode = state.asked_mode();
                state.leave() && mode != state.asked_mode() && {
                    asked.push(b"stop_notif");
                    true
                }
            }
            b'g' => {
                let mode = state.asked_mode();
                let leaves = matches!(mode, sonnette::Mode::Entering | sonnette::Mode::Notification);
                state.ring(Request::Random, ()).is_ok() && {
                    asked.extend([&b"stop_notif"[..]].into_iter().filter(|_| leaves));
                    asked.extend([&b"random?"[..], b"notif"]);
                    true
                }
            }
            _ => continue,
        };
        assert_eq!(accepted, asked.len() > before);
        assert_eq!(lines(state.output()), asked);
    }
}

fn say(script: &[u8], texts: &[&[u8]], limits: Limits) {
    let mut state = ClientState::with_limits(Say, limits);
    let mut asked: Vec<Vec<u8>> = Vec::new();
    let mut texts = texts.iter().cycle();
    for step in script {
        let text = texts.next().map_or(Vec::new(), |text| text.to_vec());
        let is_line = !text.iter().any(|octet| b"\r\n\0".contains(octet));
        let reason = match step {
            b'e' => {
                let line = [b"hear ", &text[..]].concat();
                state.enter(text).map(|_| asked.push(line)).map_err(|rejected| rejected.reason)
            }
            b'l' => {
                let mode = state.asked_mode();
                if state.leave() && mode != state.asked_mode() {
                    asked.push(b"rest".to_vec());
                }
                continue;
            }
            _ => {
                let line = [b"say ", &text[..], b" twice"].concat();
                state.request(text).map(|_| asked.push(line)).map_err(|rejected| rejected.reason)
            }
        };
        match reason {
            Ok(()) => assert!(is_line, "a text with a line end was taken"),
            Err(Reason::Invalid(_)) => assert!(!is_line, "a text without a line end was refused"),
            Err(_) => {}
        }
        assert_eq!(lines(state.output()), asked);
    }
}

fn answers(texts: &[&[u8]]) {
    let mut client = ClientState::new(Board::silent());
    let mut server = ServerState::new(Board::silent());
    client.enter(()).unwrap();
    for text in texts {
        client.leave();
        let id = client.request(Request::Classified).unwrap();
        client.enter(()).unwrap();
        server.receive(client.output());
        client.advance_output(usize::MAX);
        server.notify(Request::Random);
        assert_eq!(server.poll_request(), Some(Request::Classified));
        let reply = Reply::Classified(text.to_vec().into());
        let expected = match server.answer(reply.clone()) {
            Ok(()) => reply,
            Err(rejected) => {
                assert_eq!((rejected.value, Err(rejected.reason)), (reply, check_text(text)));
                server.answer(Reply::Classified("another".into())).unwrap();
                Reply::Classified("another".into())
            }
        };
        server.poll_request();
        client.receive(server.output());
        server.advance_output(usize::MAX);
        let mut replies = Vec::new();
        while let Some(event) = client.poll_event().expect("a text that is not one") {
            match event {
                Event::Reply { id, reply } => replies.push((id, reply)),
                Event::Refused { .. } | Event::Lost { .. } | Event::Closed => panic!("{event:?}"),
                _ => {}
            }
        }
        assert_eq!(replies, [(id, expected)]);
    }
}

fuzz_target!(|data: &[u8]| {
    let (script, rest) = header(data);
    let texts: Vec<&[u8]> = rest.split(|&octet| octet == b'|').collect();
    let small = script.starts_with(b"S");
    let limits = if small { Limits::new().with_pending(6).with_output(48) } else { Limits::new() };
    board(script, limits);
    say(script, &texts, limits);
    answers(&texts);
});
