//! The examples, driven as a user would: as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

mod examples;

use examples::{Started, example, server};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{ChildStderr, Command, Output, Stdio};

fn watch(arguments: &[&str]) -> Output {
    Command::new(example("watch")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn line(out: &mut impl BufRead) -> String {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line
}

/// The facts of a run: the two answers at the start, then each notification with what was fetched for it.
fn check_facts(output: &str, notifications: usize) {
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 2 + 2 * notifications, "{output}");
    assert!(lines[0].starts_with("random: "), "{output}");
    assert!(lines[1].starts_with("classified: "), "{output}");
    for pair in lines[2..].chunks(2) {
        let kind = pair[0].strip_prefix("notified: ").expect(output);
        assert!(pair[1].starts_with(&format!("{kind}: ")), "{output}");
    }
}

const RUNTIMES: [&str; 3] = ["std", "smol", "tokio"];

/// Each dialect on each runtime.
fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ["silent", "acknowledged"].into_iter().flat_map(|dialect| RUNTIMES.map(|runtime| (dialect, runtime)))
}

#[test]
fn a_first_run_rings_five_times() {
    for (dialect, runtime) in all() {
        let run = watch(&["--dialect", dialect, "--runtime", runtime]);
        let output = String::from_utf8(run.stdout).unwrap();
        assert_eq!((run.status.code(), run.stderr), (Some(0), vec![]));
        check_facts(&output, 5);
        let facts = "random: 46774\nclassified: nice flat in the 11e\nnotified: random\nrandom: 90210\n\
                     notified: classified\nclassified: two rooms near the canal\n";
        assert!(output.starts_with(facts), "{output}");
    }
}

#[test]
fn watch_and_server_meet_in_each_dialect() {
    for (dialect, runtime) in all() {
        let (_server, address) = server(&["--dialect", dialect, "--every", "5"]);
        let run = watch(&[&address, "--dialect", dialect, "--count", "20", "--runtime", runtime]);
        assert_eq!((run.status.code(), String::from_utf8_lossy(&run.stderr).as_ref()), (Some(0), ""));
        check_facts(&String::from_utf8(run.stdout).unwrap(), 20);
    }
}

#[test]
fn wrong_arguments_end_with_2_and_the_usage() {
    let wrong: [&[&str]; 8] = [
        &["localhost"],
        &["localhost:99999"],
        &[""],
        &["--count", "0"],
        &["--count", "many"],
        &["--dialect", "loud"],
        &["--runtime", "glib"],
        &["one:1", "two:2"],
    ];
    for arguments in wrong {
        let run = watch(arguments);
        let errors = String::from_utf8(run.stderr).unwrap();
        assert_eq!((run.status.code(), run.stdout), (Some(2), vec![]), "{arguments:?}: {errors}");
        assert!(errors.contains("Usage: watch"), "{arguments:?}: {errors}");
    }
}

/// Listens, and says to one client what the script says after each line it sends.
fn scripted(script: &'static [(&'static str, &'static [u8])]) -> (String, std::thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for (expected, answer) in script {
            assert_eq!(line(&mut reader), *expected);
            (&stream).write_all(answer).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = vec![];
        // The client may have reset the connection: that is an end as well.
        let _ = reader.read_to_end(&mut rest);
        rest
    });
    (address, thread)
}

#[test]
fn each_failure_is_one_clear_line_and_1() {
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for runtime in RUNTIMES {
        let run = watch(&[&refused, "--runtime", runtime]);
        let errors = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(1));
        assert!(errors.contains("cannot connect") && errors.lines().count() == 1, "{errors}");
    }

    const LONG: [u8; 16_002] = {
        let mut line = [1; 16_002];
        (line[16_000], line[16_001]) = (b'\r', b'\n');
        line
    };
    type Script = &'static [(&'static str, &'static [u8])];
    let cases: [(&str, Script, &str); 6] = [
        ("closed", &[], "closed the connection"),
        ("a long refusal", &[("random?\r\n", &LONG)], "refused"),
        (
            "closed in the mode",
            &[("random?\r\n", b"1\r\n"), ("classified?\r\n", b"a\r\n"), ("notif\r\n", b"")],
            "closed the connection",
        ),
        ("cut", &[("random?\r\n", b"467")], "in the middle"),
        (
            "violation",
            &[("random?\r\n", b"1\r\n"), ("classified?\r\n", b"a\r\n"), ("notif\r\n", b"hello\r\n")],
            "broke the protocol",
        ),
        ("refused", &[("random?\r\n", b"perhaps\r\n")], "refused"),
    ];
    for ((name, script, says), runtime) in cases.into_iter().flat_map(|case| RUNTIMES.map(|runtime| (case, runtime))) {
        let (address, thread) = scripted(script);
        let run = watch(&[&address, "--runtime", runtime]);
        let errors = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(1), "{name}: {errors}");
        assert!(errors.contains(says) && errors.lines().count() == 1 && errors.len() < 300, "{name}: {errors}");
        thread.join().unwrap();
    }
}

#[test]
fn unknown_notifications_are_counted_and_octets_escaped() {
    let (address, thread) = scripted(&[
        ("random?\r\n", b"-5\r\n"),
        ("classified?\r\n", b"caf\xc3\xa9 e\xcc\x81 \\ \"a\nb\x1b[1m\xe2\x80\xa8\xe2\x80\xae\r\n"),
        ("notif\r\n", b"notif: lu\xffnch\r\nnotif:\r\n"),
    ]);
    let run = watch(&[&address, "--count", "2"]);
    assert_eq!(
        String::from_utf8(run.stdout).unwrap(),
        "random: -5\nclassified: café e\u{301} \\ \"a\\x0ab\\x1b[1m\\xe2\\x80\\xa8\\xe2\\x80\\xae\n\
         notified: other lu\\xffnch\nnotified: other \n"
    );
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(thread.join().unwrap(), b"stop_notif\r\n");
}

#[test]
fn interrupting_leaves_the_mode() {
    for runtime in RUNTIMES {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (mut watch, mut out) = Started::new("watch", &[&address, "--runtime", runtime]);
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for (asked, answer) in [("random?\r\n", "1\r\n"), ("classified?\r\n", "x\r\n"), ("notif\r\n", "")] {
            assert_eq!(line(&mut reader), asked);
            (&stream).write_all(answer.as_bytes()).unwrap();
        }
        assert_eq!((line(&mut out), line(&mut out)), ("random: 1\n".into(), "classified: x\n".into()));
        watch.interrupt();
        assert_eq!(line(&mut reader), "stop_notif\r\n");
        assert_eq!(line(&mut reader), "", "closed");
        assert_eq!(watch.end().0, Some(0));
    }
}

#[test]
fn the_server_survives_any_client() {
    let (mut server, address) = server(&["--every", "1"]);
    // Garbage, half a line, an over-long line, an abrupt end, a client that never reads: each for itself.
    let mut garbage = TcpStream::connect(&address).unwrap();
    garbage.write_all(b"random?\r\n\xff\xfe\r\n").unwrap();
    let mut answers = String::new();
    garbage.read_to_string(&mut answers).unwrap();
    assert!(answers.trim_end().parse::<i64>().is_ok(), "what came before is answered: {answers:?}");

    let half = TcpStream::connect(&address).unwrap();
    (&half).write_all(b"random").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&half).read(&mut [0; 16]).unwrap(), 0, "half a line is not a request");

    let long = TcpStream::connect(&address).unwrap();
    (&long).write_all(b"random?\r\n").unwrap();
    (&long).write_all(&[b'x'; 20_000]).unwrap();
    let mut answers = String::new();
    (&long).read_to_string(&mut answers).unwrap();
    assert!(answers.trim_end().parse::<i64>().is_ok(), "{answers:?}");

    let silent: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for stream in &silent {
        (&*stream).write_all(b"notif\r\n").unwrap();
    }
    drop(TcpStream::connect(&address).unwrap());

    let run = watch(&[&address, "--count", "10"]);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(server.0.try_wait().unwrap().is_none(), "still there");
}

/// The example server with room for few files, its standard error, and where it listens.
fn server_with_few_files() -> (Started, ChildStderr, String) {
    let script = format!("ulimit -n 32; exec '{}' --listen 127.0.0.1:0 --every 1", example("server").display());
    let mut child =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let errors = child.stderr.take().unwrap();
    let server = Started(child);
    let first = line(&mut out);
    (server, errors, first.strip_prefix("listening on ").unwrap().trim_end().to_owned())
}

/// More clients than there is room for. Some go, and the waiting ones have their turn: the last of the crowd is served.
fn crowd(address: &str, meanwhile: impl FnOnce()) {
    let mut crowd: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    meanwhile();
    let last = crowd.pop().unwrap();
    drop(crowd);
    (&last).write_all(b"random?\r\n").unwrap();
    assert!(line(&mut BufReader::new(&last)).trim_end().parse::<i64>().is_ok());
}

#[test]
fn a_full_file_table_is_told_and_survived() {
    let (_server, errors, address) = server_with_few_files();
    let mut errors = BufReader::new(errors);
    crowd(&address, || {
        let told = line(&mut errors);
        assert!(told.contains("cannot be accepted"), "{told}");
    });
}

#[test]
fn a_full_file_table_is_survived_when_nobody_can_be_told() {
    let (_server, errors, address) = server_with_few_files();
    drop(errors);
    crowd(&address, || ());
}

#[test]
fn a_loop_of_ones_own_drives_several_connections() {
    let run = Command::new(example("embed")).args(["--clients", "4", "--count", "2"]).output().unwrap();
    assert_eq!((run.status.code(), run.stderr), (Some(0), vec![]));
    let output = String::from_utf8(run.stdout).unwrap();
    for client in 0..4 {
        let fetched = output.lines().filter(|line| line.starts_with(&format!("{client}: "))).count();
        assert!(fetched >= 2, "{output}");
    }
}

/// Runs `many` in a shell, after `before`: its facts by their names, and what it said on standard error.
fn many(before: &str, arguments: &str) -> (impl Fn(&str) -> String + use<>, String) {
    let script = format!("{before} exec '{}' {arguments} --seconds 0", example("many").display());
    let run = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    let (output, errors) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert_eq!(run.status.code(), Some(0), "{output}{errors}");
    let fact = move |name: &str| {
        let value = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no {name} in {output}")).to_owned()
    };
    (fact, errors)
}

#[test]
fn many_clients_are_each_rung() {
    for runtime in ["smol", "tokio"] {
        let (fact, errors) = many("", &format!("--clients 200 --runtime {runtime}"));
        assert_eq!(errors, "");
        let facts = ["clients", "notifications", "lost"].map(&fact);
        assert_eq!(facts, ["200", "200", "0"]);
        for octets in ["rss_per_client_bytes", "bare_rss_per_client_bytes"] {
            fact(octets).parse::<usize>().unwrap();
        }
        fact("seconds").parse::<f64>().unwrap();
    }
}

#[test]
fn many_raises_the_limit_of_open_files_or_makes_do_with_it() {
    let (fact, errors) = many("ulimit -S -n 120;", "--clients 200");
    assert_eq!((fact("clients").as_str(), errors.as_str()), ("200", ""));
    let (fact, errors) = many("ulimit -n 120;", "--clients 200");
    assert_eq!(errors, "many: the limit of open files has room for 20 clients instead of 200\n");
    assert_eq!([fact("clients"), fact("notifications"), fact("lost")], ["20", "20", "0"]);
}
