//! The examples `mpd_watch`, `redis_watch` and `imap_watch`, as processes.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::mpd::{self, Mpd};
use sonnette::redis::{Command as RedisCommand, Redis, Reply, Value};
use sonnette_live::Server;
use sonnette_std::Client;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

struct Started {
    process: Child,
    out: BufReader<ChildStdout>,
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As the README starts them.
fn start(example: &str, arguments: &[&str]) -> Started {
    start_with(example, arguments, &[])
}

/// Likewise, with variables in its environment.
fn start_with(example: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Started {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // Built before it is run, so that what is killed is the example.
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", example]).current_dir(root).status();
    assert!(built.unwrap().success());
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().find(|path| path.ends_with("debug") || path.ends_with("release")).unwrap();
    let mut command = Command::new(target.parent().unwrap().join("debug/examples").join(example));
    command
        .args(arguments)
        .env_remove("IMAP_PASSWORD")
        .env_remove("REDIS_PASSWORD")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let out = BufReader::new(process.stdout.take().unwrap());
    Started { process, out }
}

impl Started {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    /// How it ends: its code, the rest of its output, and what it says on standard error.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut error) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.process.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        (self.process.wait().unwrap().code(), out, error)
    }
}

#[test]
fn mpd_watch() {
    let server = Server::mpd("", b"");
    let mut other = Client::<Mpd, _>::connect(server.address).unwrap();
    let mut ask = |words: &str| {
        let mut words = words.split(' ');
        let name = mpd::Command::new(words.next().unwrap());
        other.call(words.fold(name, mpd::Command::arg).into()).unwrap()
    };
    while ask("status").get("updating_db").is_some() {}
    // MPD tells how many have connected in no way, so changes are made until the example has seen one.
    let mut example = start("mpd_watch", &[&server.address.to_string(), "--count", "100"]);
    let mut random = false;
    std::thread::scope(|scope| {
        let (first, seen) = std::sync::mpsc::channel();
        let example = &mut example;
        scope.spawn(move || {
            let line = example.line();
            first.send((line, example.line())).unwrap();
        });
        let (changed, stopped) = loop {
            random = !random;
            ask(if random { "random 1" } else { "random 0" });
            if let Ok(lines) = seen.recv_timeout(std::time::Duration::from_millis(100)) {
                break lines;
            }
        };
        assert_eq!((&*changed, &*stopped), ("changed: options\n", "stopped\n"));
    });
    ask("add tone.wav");
    ask("play 0");
    let mut said = Vec::new();
    while !said.iter().any(|line: &String| line.starts_with("playing: ")) {
        let line = example.line();
        assert!(!line.is_empty(), "{said:?}");
        said.push(line);
    }
    assert!(said.contains(&"changed: player\n".into()) || said.contains(&"changed: playlist\n".into()), "{said:?}");
    assert_eq!(said.last().unwrap(), "playing: tone.wav\n");
    drop(example);

    let mut server = server;
    server.kill();
    let (code, out, error) = start("mpd_watch", &[&server.address.to_string()]).end();
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(error.starts_with("mpd_watch: cannot connect to ") && error.lines().count() == 1, "{error}");
}

#[test]
fn redis_watch() {
    let (server, tls) = Server::redis_tls();
    let certificate = server.certificate();
    let mut other = Client::<Redis, _>::connect(server.address).unwrap();
    let plain = server.address.to_string();
    let url = format!("redis://{plain}");
    let secure = format!("rediss://localhost:{}", tls.port());
    for (at, ca) in [(&plain, None), (&url, None), (&secure, certificate.to_str())] {
        let mut arguments = vec![&**at, "news", "sp ort", "--count", "2"];
        arguments.extend(ca.iter().flat_map(|ca| ["--ca", ca]));
        let example = start("redis_watch", &arguments);
        for (channel, payload) in [("news", "hello wörld"), ("sp ort", "a\r\n\u{7f}")] {
            // Until somebody is subscribed.
            let publish = || RedisCommand::new("PUBLISH").arg(channel).arg(payload);
            while other.call(publish()).unwrap() == Reply::Value(Value::Integer(0)) {
                std::thread::yield_now();
            }
        }
        let (code, out, error) = example.end();
        assert_eq!((code, &*error), (Some(0), ""), "{at}");
        assert_eq!(out, "message: news hello wörld\nmessage: sp ort a\\x0d\\x0a\\x7f\n", "{at}");
    }
    let password = [("REDIS_PASSWORD", "hunter2")];
    for (at, variables, expected) in [
        (&*secure, &[][..], "redis_watch: "),
        (&plain, &password, "redis_watch: the server refused: ERR AUTH"),
        (&format!("redis://alice@{plain}"), &[], "redis_watch: REDIS_PASSWORD: not set"),
    ] {
        let (code, out, error) = start_with("redis_watch", &[at, "news"], variables).end();
        assert_eq!((code, &*out), (Some(1), ""));
        assert!(error.starts_with(expected) && error.lines().count() == 1, "{error}");
    }
    let (code, ..) = start("redis_watch", &[&plain]).end();
    assert_eq!(code, Some(2), "no channel");
    // Nor is it repeated.
    for wrong in [format!("redis://:hunter2@{plain}"), format!("redis://a:hunter2@{plain}/x"), "a:hunter2@h:1".into()] {
        let (code, out, error) = start("redis_watch", &[&wrong, "news"]).end();
        assert_eq!((code, &*out), (Some(2), ""), "{error}");
        assert!(error.contains("password in it") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn redis_watch_logs_in() {
    let server = Server::redis(&["--requirepass", "hunter2"]);
    let plain = server.address.to_string();
    for at in [plain.clone(), format!("redis://{plain}"), format!("redis://default@{plain}")] {
        let example = start_with("redis_watch", &[&at, "news", "--count", "1"], &[("REDIS_PASSWORD", "hunter2")]);
        let mut other = Client::<Redis, _>::connect(server.address).unwrap();
        other.call(RedisCommand::auth(None, "hunter2")).unwrap();
        let publish = || RedisCommand::new("PUBLISH").arg("news").arg("x");
        while other.call(publish()).unwrap() == Reply::Value(Value::Integer(0)) {
            std::thread::yield_now();
        }
        assert_eq!(example.end(), (Some(0), "message: news x\n".into(), String::new()), "{at}");
    }
    let (code, _, error) = start_with("redis_watch", &[&plain, "news"], &[("REDIS_PASSWORD", "other")]).end();
    assert_eq!(code, Some(1));
    assert!(error.starts_with("redis_watch: the server refused: WRONGPASS ") && error.lines().count() == 1, "{error}");
}

/// Who stands between greets with PREAUTH, so that nothing is encrypted, or nobody logs in.
#[test]
fn imap_watch_does_not_believe_that_it_is_logged_in() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("imap+starttls://alice@localhost:{}", listener.local_addr().unwrap().port());
    let between = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS IDLE] welcome\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    });
    let (code, out, error) = start_with("imap_watch", &[&url], &[("IMAP_PASSWORD", "secret")]).end();
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(
        error.starts_with("imap_watch: the server refused the connection: ") && error.lines().count() == 1,
        "{error}"
    );
    assert_eq!(between.join().unwrap(), "");
}

#[test]
fn imap_watch() {
    let (server, tls) = Server::dovecot_tls();
    let certificate = server.certificate();
    let certificate = certificate.to_str().unwrap();
    let maildir = server.maildir("alice");
    let password = |password| [("IMAP_PASSWORD", password)];
    maildir.fill(["Subject: old\r\n\r\n".into()]);
    let (plain, secure) = (server.address, tls.port());
    let urls = [
        (format!("imap://alice@{plain}/INBOX"), None),
        (format!("imaps://alice@localhost:{secure}/INBOX"), Some(certificate)),
        (format!("imap+starttls://alice@localhost:{}", plain.port()), Some(certificate)),
    ];
    let mut messages = 1;
    for (url, ca) in &urls {
        let mut arguments = vec![&**url, "--count", "2"];
        arguments.extend(ca.iter().flat_map(|ca| ["--ca", ca]));
        let mut example = start_with("imap_watch", &arguments, &password("secret"));
        assert_eq!(example.line(), format!("exists: {messages}\n"), "{url}");
        let (mut said, mut mails) = (Vec::new(), Vec::new());
        for (from, subject) in
            [("=?utf-8?Q?J=C3=BCrgen?= <j@example.org>", "=?iso-8859-1?Q?Gr=FC=DFe?="), ("k@example.org", "a | b")]
        {
            maildir.deliver(&format!("From: {from}\r\nSubject: {subject}\r\n\r\nhello\r\n"));
            messages += 1;
            // Dovecot may tell of the number of messages more than once.
            loop {
                let line = example.line();
                assert!(!line.is_empty(), "{url}: {said:?}");
                said.push(line);
                if let Some(mail) = said.last().unwrap().strip_prefix("mail: ") {
                    mails.push(mail.to_owned());
                    break;
                }
            }
        }
        assert_eq!(mails, ["Jürgen <j@example.org> | Grüße\n", "k@example.org | a | b\n"], "{url}");
        assert!(said.contains(&format!("exists: {messages}\n")), "{url}: {said:?}");
        let (code, out, error) = example.end();
        assert_eq!((code, &*out, &*error), (Some(0), "", ""), "{url}");
    }

    let ends = |url: &str, ca: Option<&str>, variables: &[(&str, &str)], code: i32, expected: &str| {
        let mut arguments = vec![url];
        arguments.extend(ca.iter().flat_map(|ca| ["--ca", ca]));
        let (ended, out, error) = start_with("imap_watch", &arguments, variables).end();
        assert_eq!((ended, &*out), (Some(code), ""), "{url}: {error}");
        assert!(error.contains(expected) && (code == 2 || error.lines().count() == 1), "{url}: {error}");
    };
    let [(plain, _), (secure, ca), (starttls, _)] = &urls;
    ends(plain, None, &password("wrong"), 1, "imap_watch: the server refused: NO [AUTHENTICATIONFAILED]");
    ends(plain, None, &[], 1, "imap_watch: IMAP_PASSWORD: ");
    ends(&format!("{plain}/nothing"), None, &password("secret"), 1, "imap_watch: the server refused: NO ");
    // Nobody whom the platform trusts vouches for this certificate, and nobody at all for that name.
    ends(secure, None, &password("secret"), 1, "imap_watch: the connection failed: invalid peer certificate");
    ends(starttls, None, &password("secret"), 1, "imap_watch: the connection failed: invalid peer certificate");
    let elsewhere = secure.replace("localhost", "127.0.0.1");
    ends(&elsewhere, *ca, &password("secret"), 1, "imap_watch: the connection failed: invalid peer certificate");
    for wrong in ["imap://h", "imap://alice:hunter2@h", "pop://alice@h", "alice@h"] {
        ends(wrong, None, &password("secret"), 2, "it must be imap://USER@HOST");
    }
    let (_, _, error) = start("imap_watch", &["imap://alice:hunter2@h"]).end();
    assert!(error.contains("password in it") && !error.contains("hunter2"), "{error}");

    // Told from a connection that was cut.
    let mut server = server;
    for (kill, expected) in [(false, "the server closed the connection: "), (true, "cannot connect to ")] {
        let mut example = start_with("imap_watch", &[plain], &password("secret"));
        if !kill {
            assert_eq!(example.line(), format!("exists: {messages}\n"));
            server.stop();
        }
        let (code, out, error) = example.end();
        assert_eq!((code, &*out), (Some(1), ""), "{error}");
        assert!(error.starts_with(&format!("imap_watch: {expected}")) && error.lines().count() == 1, "{error}");
    }
}
