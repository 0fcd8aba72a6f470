//! The scenarios of IMAP.

use crate::{Scenario, Spoken};
use sonnette::imap::{Command, Imap, Plain, XOAuth2};

impl Spoken for Imap {
    fn wire(line: &str) -> Vec<u8> {
        format!("{line}\r\n").into()
    }

    /// `{text}` is a literal; AUTHENTICATE has a mechanism, a user and a secret.
    fn request(text: &str) -> Command {
        let mut words = text.split(' ');
        let command = Command::new(words.next().unwrap_or_default());
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["AUTHENTICATE", "PLAIN", user, password] => Command::authenticate(Plain::new(user, password)),
            ["AUTHENTICATE", "XOAUTH2", user, token] => Command::authenticate(XOAuth2::new(user, token)),
            _ => words.fold(command, |command, word| {
                match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
                    Some(literal) => command.literal(literal),
                    None if word.bytes().all(|octet| octet.is_ascii_alphanumeric()) => command.arg(word),
                    None => command.syntax(word),
                }
            }),
        }
    }

    fn subscription(_: &str) {}
}

const SCENARIOS: &[(&str, &str, &str)] = &[
    ("nothing but a greeting", "S * OK [CAPABILITY IMAP4rev1 IDLE] Dovecot ready.", "rest = closed"),
    (
        "a greeting that refuses",
        "S * BYE Too many connections",
        "rest = the server refused the connection: \"* BYE Too many connections\"",
    ),
    (
        "logged in before the greeting",
        "S * PREAUTH Logged in as alice / C A2 IDLE / S + idling / S * 4 EXISTS",
        "enter = () / next = Some(Exists(4)) / rest = closed",
    ),
    (
        "logged in, and data of a mailbox",
        "S * OK ready / C A2 LOGIN alice secret / S A2 OK [CAPABILITY IMAP4rev1 IDLE] Logged in / \
         C A3 SELECT INBOX / S * FLAGS (\\Seen) / S * OK [PERMANENTFLAGS (\\Seen \\*)] Flags permitted. / S * 3 EXISTS / S * 0 RECENT / S A3 OK [READ-WRITE] Select completed.",
        "call LOGIN alice secret = Status(OK [CAPABILITY IMAP4rev1 IDLE] Logged in) / call SELECT INBOX = Status(OK [READ-WRITE] Select completed.) / \
         rest = Other(Data(FLAGS (\\\\Seen))), Status(Status(OK [PERMANENTFLAGS (\\\\Seen \\\\*)] Flags permitted.)), Exists(3), Recent(0), closed",
    ),
    (
        "questions that are refused",
        "S * OK ready / C A2 LOGIN alice wrong / S A2 NO [AUTHENTICATIONFAILED] Authentication failed. / C A3 FROBNICATE / S A3 BAD Unknown command / C A4 NOOP / S A4 OK",
        "call LOGIN alice wrong = the server refused: Status(NO [AUTHENTICATIONFAILED] Authentication failed.) / call FROBNICATE = the server refused: Status(BAD Unknown command) / call NOOP = Status(OK) / rest = closed",
    ),
    (
        "questions in one write, answered in another order",
        "S * OK ready / C A2 NOOP / C A3 STATUS INBOX (MESSAGES) / C A4 FETCH 1 (UID) / C A5 BOGUS / C A6 NOOP / \
         S * STATUS INBOX (MESSAGES 4) / S A3 OK [CLIENTBUG] Status completed / S * 1 FETCH (UID 3) / S A5 BAD Unknown command / S A4 OK Fetch completed / S A2 OK NOOP / S A6 OK NOOP",
        "start NOOP = asked / start STATUS INBOX (MESSAGES) = asked / start FETCH 1 (UID) = asked / start BOGUS = asked / call NOOP = Status(OK NOOP) / \
         rest = Other(Data(STATUS INBOX (MESSAGES 4))), Status(OK [CLIENTBUG] Status completed), Fetch { message: 1, data: Data(1 FETCH (UID 3)) }, refused Status(BAD Unknown command), Status(OK Fetch completed), Status(OK NOOP), closed",
    ),
    (
        "literals that look like answers",
        "S * OK ready / C A2 FETCH 1 (BODY[] BODY[TEXT]) / s * 1 FETCH (BODY[] {28}\r\nA2 OK fake\r\n+ idling\r\n)\r\n{5} BODY[TEXT] {0}\r\n)\r\n / S A2 OK Fetch completed",
        "call FETCH 1 (BODY[] BODY[TEXT]) = Status(OK Fetch completed) / \
         event = Fetch { message: 1, data: Data(1 FETCH (BODY[] {28}\\r\\nA2 OK fake\\r\\n+ idling\\r\\n)\\r\\n{5} BODY[TEXT] {0}\\r\\n)) } / rest = closed",
    ),
    (
        "a literal of ours waits, and what is behind it",
        "S * OK ready / C A2 APPEND INBOX {5} / S * 3 EXISTS / S + OK / C hello / C A3 NOOP / S * 4 EXISTS / S A2 OK Append completed / S A3 OK NOOP",
        "start APPEND INBOX {hello} = asked / call NOOP = Status(OK NOOP) / rest = Exists(3), Exists(4), Status(OK Append completed), closed",
    ),
    (
        "a literal that is refused is not sent",
        "S * OK ready / C A2 APPEND NoSuchBox {5} / S A2 NO [TRYCREATE] Mailbox doesn't exist / C A3 NOOP / S A3 OK NOOP",
        "start APPEND NoSuchBox {hello} = asked / call NOOP = Status(OK NOOP) / rest = refused Status(NO [TRYCREATE] Mailbox doesn't exist), closed",
    ),
    (
        "literals of which the first is taken",
        "S * OK ready / C A2 RENAME {1} / S + OK / C a {1} / S A2 NO no / C A3 IDLE / S + idling",
        "call RENAME {a} {b} = the server refused: Status(NO no) / enter = () / rest = closed",
    ),
    (
        "a literal that need not wait",
        "S * OK ready / C A2 LOGIN alice secret / S A2 OK [CAPABILITY IMAP4rev1 LITERAL+] Logged in / C A3 APPEND INBOX {5+} / C hello / C A4 NOOP / S A3 OK Append completed / S A4 OK NOOP",
        "call LOGIN alice secret = Status(OK [CAPABILITY IMAP4rev1 LITERAL+] Logged in) / start APPEND INBOX {hello} = asked / call NOOP = Status(OK NOOP) / rest = Status(OK Append completed), closed",
    ),
    (
        "a mechanism that begins when it is asked",
        "S * OK ready / C A2 AUTHENTICATE PLAIN / S + / C AGJvYgB3cm9uZw== / S A2 NO [AUTHENTICATIONFAILED] no / \
         C A3 AUTHENTICATE PLAIN / S +  / C AGJvYgBzZWNyZXQ= / S * CAPABILITY IMAP4rev1 SASL-IR / S A3 OK Logged in / C A4 NOOP / S A4 OK NOOP",
        "call AUTHENTICATE PLAIN bob wrong = the server refused: Status(NO [AUTHENTICATIONFAILED] no) / call AUTHENTICATE PLAIN bob secret = Status(OK Logged in) / event = Other(Data(CAPABILITY IMAP4rev1 SASL-IR)) / call NOOP = Status(OK NOOP) / rest = closed",
    ),
    (
        "mechanisms that begin at once: cancelled, refused for a reason",
        "S * OK ready / C A2 CAPABILITY / S * CAPABILITY IMAP4rev1 SASL-IR / S A2 OK done / \
         C A3 AUTHENTICATE PLAIN AGJvYgBzZWNyZXQ= / S + d2hhdD8= / C * / S A3 BAD Authentication aborted by client. / \
         C A4 AUTHENTICATE XOAUTH2 dXNlcj1ib2IBYXV0aD1CZWFyZXIgdG9rZW4BAQ== / S + eyJzdGF0dXMiOiI0MDAifQ== / C  / S A4 NO no / C A5 NOOP / S A5 OK NOOP",
        "call CAPABILITY = Status(OK done) / event = Other(Data(CAPABILITY IMAP4rev1 SASL-IR)) / call AUTHENTICATE PLAIN bob secret = the server refused: Status(BAD Authentication aborted by client.) / call AUTHENTICATE XOAUTH2 bob token = the server refused: Status(NO no) / call NOOP = Status(OK NOOP) / rest = closed",
    ),
    (
        "watched, and left",
        "S * OK ready / C A2 IDLE / S + idling / S * 3 EXISTS / S * 1 RECENT / S * 1 FETCH (FLAGS (\\Seen)) / S * 2 EXPUNGE / C DONE / S A2 OK Idle completed / C A4 NOOP / S A4 OK NOOP",
        "enter = () / next = Some(Exists(3)) / next = Some(Recent(1)) / next = Some(Fetch { message: 1, data: Data(1 FETCH (FLAGS (\\\\Seen))) }) / next = Some(Expunge(2)) / leave = () / next = None / call NOOP = Status(OK NOOP) / rest = closed",
    ),
    (
        "data before the mode is confirmed",
        "S * OK ready / C A2 IDLE / S * 2 EXPUNGE / S * 3 EXISTS / S + idling / S * 4 EXISTS",
        "enter = () / next = Some(Expunge(2)) / next = Some(Exists(3)) / next = Some(Exists(4)) / rest = closed",
    ),
    (
        "answers behind the confirmation of the mode",
        "S * OK ready / C A2 NOOP / C A3 NOOP / C A4 IDLE / S A3 OK two / S + idling / S * 4 EXISTS / S A2 OK one / S * 5 EXISTS",
        "start NOOP = asked / start NOOP = asked / enter = () / event = Status(OK two) / next = Some(Exists(4)) / event = Status(OK one) / next = Some(Exists(5)) / rest = closed",
    ),
    (
        "data cross a leave",
        "S * OK ready / C A2 IDLE / S + idling / C DONE / C A4 NOOP / S * 5 EXISTS / S * 1 RECENT / S A2 OK Idle completed / S A4 OK NOOP",
        "enter = () / leave = () / call NOOP = Status(OK NOOP) / next = Some(Exists(5)) / next = Some(Recent(1)) / next = None / rest = closed",
    ),
    (
        "a ring, which data cross",
        "S * OK ready / C A2 IDLE / S + idling / S * 4 EXISTS / C DONE / C A4 FETCH 4 (FLAGS) / C A5 IDLE / \
         S * 5 EXISTS / S A2 OK Idle completed / S * 4 FETCH (FLAGS (\\Recent)) / S A4 OK Fetch completed / S + idling / S * 6 EXISTS",
        "enter = () / next = Some(Exists(4)) / ring FETCH 4 (FLAGS) = Status(OK Fetch completed) / next = Some(Exists(5)) / next = Some(Fetch { message: 4, data: Data(4 FETCH (FLAGS (\\\\Recent))) }) / next = Some(Exists(6)) / rest = closed",
    ),
    (
        "left behind a ring, which may be before the mode is confirmed",
        "S * OK ready / C A2 IDLE / S + idling / C DONE / C A4 NOOP / C A5 IDLE / S A2 OK Idle completed / S A4 OK NOOP / S * 4 EXISTS / S + idling / C DONE / S A5 OK Idle completed / C A7 NOOP / S A7 OK NOOP",
        "enter = () / ring NOOP = Status(OK NOOP) / leave = () / next = Some(Exists(4)) / next = None / call NOOP = Status(OK NOOP) / rest = closed",
    ),
    (
        "left behind a ring, whose enter is refused",
        "S * OK ready / C A2 IDLE / S + idling / C DONE / C A4 NOOP / C A5 IDLE / S A2 OK Idle completed / S A4 OK NOOP / S A5 NO not now",
        "enter = () / ring NOOP = Status(OK NOOP) / leave = ()",
    ),
    (
        "an enter that is refused, by BAD and by NO",
        "S * OK ready / C A2 IDLE / S A2 BAD Error in IMAP command received by server. / C A3 IDLE / S A3 NO not now / C A4 NOOP / S A4 OK NOOP",
        "enter = the server refused: Status(BAD Error in IMAP command received by server.) / enter = the server refused: Status(NO not now) / call NOOP = Status(OK NOOP) / rest = closed",
    ),
    (
        "a ring whose enter is refused",
        "S * OK ready / C A2 IDLE / S + idling / S * 4 EXISTS / C DONE / C A4 NOOP / C A5 IDLE / S A2 OK Idle completed / S A4 OK NOOP / S A5 NO not now",
        "enter = () / next = Some(Exists(4)) / ring NOOP = Status(OK NOOP) / next = the server refused: Status(NO not now) / rest = closed",
    ),
    (
        "the server ends the mode by itself",
        "S * OK ready / C A2 IDLE / S + idling / S * 4 EXISTS / S A2 OK Idle completed / C A3 IDLE / S + idling / S A3 BAD Expected DONE / C A4 NOOP / S A4 OK NOOP",
        "enter = () / next = Some(Exists(4)) / next = None / leave = () / enter = () / next = the server refused: Status(BAD Expected DONE) / call NOOP = Status(OK NOOP) / rest = closed",
    ),
    (
        "a leave crosses the end, and is taken for a command",
        "S * OK ready / C A2 IDLE / S + idling / C DONE / C A4 NOOP / S * 4 EXISTS / S A2 OK Idle completed / S DONE BAD Error in IMAP command: Invalid command name / S A4 OK NOOP",
        "enter = () / leave = () / call NOOP = Status(OK NOOP) / next = Some(Exists(4)) / next = None / rest = closed",
    ),
    (
        "signs of life",
        "S * OK ready / C A2 IDLE / S * OK Still here / S + idling / S * OK Still here / S * 4 EXISTS / C DONE / S * OK Still here / S A2 OK Idle completed / C A4 NOOP / S * OK Still here / S * OK [ALERT] Still here / S A4 OK NOOP",
        "enter = () / next = Some(Exists(4)) / leave = () / next = None / call NOOP = Status(OK NOOP) / rest = Status(Status(OK [ALERT] Still here)), closed",
    ),
    (
        "the server says why it closes in the mode",
        "S * OK ready / C A2 IDLE / S + idling / S * BYE Server shutting down.",
        "enter = () / next = Some(Bye(Status(BYE Server shutting down.))) / next = the server closed the connection / rest = closed",
    ),
    (
        "logged out",
        "S * OK ready / C A2 LOGOUT / S * BYE Logging out / S A2 OK Logout completed",
        "call LOGOUT = Status(OK Logout completed) / next = Some(Bye(Status(BYE Logging out))) / rest = closed",
    ),
    (
        "what the mode does not allow is not sent",
        "S * OK ready / C A2 IDLE / S + idling / S * 4 EXISTS",
        "enter = () / call NOOP = not sent: not allowed while the mode asked for is Notification / enter = not sent: not allowed while the mode asked for is Notification / next = Some(Exists(4)) / rest = closed",
    ),
    (
        "what cannot be said is not sent",
        "S * OK ready / C A2 NOOP / S A2 OK NOOP",
        "call IDLE = not sent: not a valid value: IDLE is entered and left, not requested / call FETCH 1 FLAGS\r\nA9 = not sent: not a valid value: a CR, LF or NUL inside a line / call APPEND INBOX {a\0b} = not sent: not a valid value: a NUL in a literal / call NOOP = Status(OK NOOP) / rest = closed",
    ),
    (
        "a stream that may be changed, and one that is not",
        "S * OK ready / C A2 STARTTLS / S A2 NO no TLS here / C A3 STARTTLS / S A3 OK Begin TLS / S * PREAUTH not by the server",
        "call STARTTLS = the server refused: Status(NO no TLS here) / call STARTTLS = Status(OK Begin TLS) / rest = octets were injected in front of the change of the stream",
    ),
    (
        "a tag that nobody has",
        "S * OK ready / C A2 NOOP / S A3 OK NOOP",
        "call NOOP = lost: the server broke the protocol: an answer that nobody waits for here: \"A3 OK NOOP\" / rest = the server broke the protocol: an answer that nobody waits for here: \"A3 OK NOOP\"",
    ),
    (
        "a tag that is none of ours",
        "S * OK ready / C A2 NOOP / S B2 OK NOOP",
        "call NOOP = lost: the server broke the protocol: a tag that is not ours: \"B2 OK NOOP\" / rest = the server broke the protocol: a tag that is not ours: \"B2 OK NOOP\"",
    ),
    (
        "a continuation that nobody asked for",
        "S * OK ready / C A2 NOOP / S + OK",
        "call NOOP = lost: the server broke the protocol: an answer that nobody waits for here: \"+ OK\" / rest = the server broke the protocol: an answer that nobody waits for here: \"+ OK\"",
    ),
    (
        "an enter that is answered before it is confirmed",
        "S * OK ready / C A2 IDLE / S A2 OK Idle completed",
        "enter = lost: the server broke the protocol: IDLE is confirmed by + before it is answered: \"A2 OK Idle completed\" / rest = the server broke the protocol: IDLE is confirmed by + before it is answered: \"A2 OK Idle completed\"",
    ),
    (
        "an answer that is none",
        "S * OK ready / C A2 NOOP / S A2 WELL",
        "call NOOP = lost: the server broke the protocol: a tagged answer is OK, NO or BAD: \"A2 WELL\" / rest = the server broke the protocol: a tagged answer is OK, NO or BAD: \"A2 WELL\"",
    ),
    (
        "challenges that cannot be read",
        "S * OK ready / C A2 AUTHENTICATE PLAIN / S + ? / C AGJvYgBzZWNyZXQ= / S + ? / C * / S A2 BAD cancelled",
        "call AUTHENTICATE PLAIN bob secret = the server refused: Status(BAD cancelled) / rest = closed",
    ),
    (
        "a literal too large",
        "S * OK ready / C A2 FETCH 1 BODY[] / S * 1 FETCH (BODY[] {99999999}",
        "call FETCH 1 BODY[] = lost: the server sent an answer of more than 67108864 octets / rest = the server sent an answer of more than 67108864 octets",
    ),
    (
        "the end before a literal of ours may go on",
        "S * OK ready / C A2 APPEND INBOX {5}",
        "start APPEND INBOX {hello} = asked / call NOOP = lost: the server closed the connection / rest = lost, closed",
    ),
    (
        "the end inside a literal",
        "S * OK ready / C A2 IDLE / S + idling / s * 1 FETCH (BODY[] {9}\r\nA2 OK",
        "enter = () / next = the connection ended in the middle of an answer, after 28 octets of it / rest = the connection ended in the middle of an answer, after 28 octets of it",
    ),
    (
        "the end in the mode",
        "S * OK ready / C A2 IDLE / S + idling",
        "enter = () / next = the server closed the connection / rest = closed",
    ),
];

#[must_use]
pub fn scenarios() -> Vec<Scenario<Imap>> {
    SCENARIOS.iter().map(|&(name, wire, calls)| Scenario::new(Imap::new(), name, wire, calls)).collect()
}
