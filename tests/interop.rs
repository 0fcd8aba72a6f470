//! Our client and our server with those of Twisted, in `twisted/`. `.ci/twisted` installs it and runs this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

mod examples;

use examples::{Started, server};
use sonnette::board::{Board, Notification, Reply, Request};
use sonnette_std::Connect;
use std::collections::HashMap;
use std::io::BufRead;
use std::process::{Command, Stdio};

const DIALECTS: [(&str, Board); 2] = [("silent", Board::silent()), ("acknowledged", Board::acknowledged())];
const RINGS: usize = 200;

fn python(program: &str) -> Command {
    let python = std::env::var_os("SONNETTE_TWISTED_PYTHON").expect("SONNETTE_TWISTED_PYTHON is a Python with Twisted");
    let mut command = Command::new(python);
    command.arg(format!("{}/tests/twisted/{program}", env!("CARGO_MANIFEST_DIR"))).stdin(Stdio::null());
    command
}

#[test]
#[ignore = "needs Twisted: .ci/twisted runs it"]
fn our_client_and_its_server() {
    for (dialect, board) in DIALECTS {
        let (_server, address) = Started::listening(python("server.py").arg(dialect));
        let mut client = Connect::new().tcp(board, &*address).unwrap();
        let first = client.random().unwrap();
        assert!(client.classified().unwrap().starts_with(b"flat "));
        client.notify().unwrap();

        // A notification says that there is something new: what is fetched then was never seen before.
        let mut seen = HashMap::from([(Request::Random, first)]);
        for _ in 0..RINGS {
            let kind = match client.wait_notification().unwrap() {
                Some(Notification::Random) => Request::Random,
                Some(Notification::Classified) => Request::Classified,
                other => panic!("{dialect}: {other:?}"),
            };
            let number = match client.ring(kind).unwrap() {
                Reply::Random(number) => number,
                Reply::Classified(text) => std::str::from_utf8(&text[5..]).unwrap().parse().unwrap(),
            };
            if let Some(before) = seen.insert(kind, number) {
                assert!(number >= before, "{dialect}: {kind:?} {number} after {before}");
            }
        }
        assert!(seen[&Request::Random] > first && seen.contains_key(&Request::Classified));
        client.stop_notify().unwrap();
        assert!(client.random().unwrap() >= seen[&Request::Random]);
        client.close().unwrap();
    }
}

#[test]
#[ignore = "needs Twisted: .ci/twisted runs it"]
fn our_example_and_its_server() {
    let runtimes = ["std", "smol", "tokio"];
    for ((dialect, _), runtime) in DIALECTS.into_iter().flat_map(|dialect| runtimes.map(|runtime| (dialect, runtime))) {
        let (_server, address) = Started::listening(python("server.py").arg(dialect));
        let watched = Command::new(examples::example("watch"))
            .args([&address, "--dialect", dialect, "--count", "20", "--runtime", runtime])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!((watched.status.code(), String::from_utf8_lossy(&watched.stderr).as_ref()), (Some(0), ""));
        assert_eq!(watched.stdout.lines().count(), 2 + 2 * 20);
    }
}

#[test]
#[ignore = "needs Twisted: .ci/twisted runs it"]
fn its_client_and_our_server() {
    for (dialect, _) in DIALECTS {
        let (_server, address) = server(&["--dialect", dialect, "--every", "3"]);
        let (host, port) = address.rsplit_once(':').unwrap();
        let rings = RINGS.to_string();
        let run = python("client.py").args([host, port, dialect, &rings]).output().unwrap();
        assert_eq!((run.status.code(), String::from_utf8_lossy(&run.stderr).as_ref()), (Some(0), ""), "{dialect}");
        let told = String::from_utf8(run.stdout).unwrap();
        let count = |what: &str| told.lines().filter(|line| line.starts_with(what)).count();
        assert_eq!(count("notified: "), RINGS);
        assert_eq!(count("random: ") + count("classified: "), RINGS + 3);
    }
}
