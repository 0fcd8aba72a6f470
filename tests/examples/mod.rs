//! The examples as processes.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// Cargo builds the examples before it runs all tests of their package, but not before it runs this one alone.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let examples = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
        let examples = profile.join("examples");
        if !["watch", "server", "many", "embed"].iter().all(|name| examples.join(name).exists()) {
            let release: &[&str] = if profile.ends_with("release") { &["--release"] } else { &[] };
            let built = Command::new(env!("CARGO"))
                .args(["build", "-p", "sonnette", "--examples"])
                .args(release)
                .status()
                .unwrap();
            assert!(built.success());
        }
        examples
    });
    examples.join(name)
}

/// A started program, killed at the end of the test whatever comes.
pub(crate) struct Started(pub(crate) Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Started {
    pub(crate) fn new(name: &str, arguments: &[&str]) -> (Self, BufReader<ChildStdout>) {
        Self::start(Command::new(example(name)).args(arguments))
    }

    /// A server, and where it says that it listens.
    pub(crate) fn listening(command: &mut Command) -> (Self, String) {
        let (server, mut out) = Self::start(command);
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").expect(&line).trim_end().to_owned();
        (server, address)
    }

    fn start(command: &mut Command) -> (Self, BufReader<ChildStdout>) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (Started(child), out)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn interrupt(&self) {
        let id = self.0.id().to_string();
        assert!(Command::new("sh").args(["-c", &format!("kill -INT {id}")]).status().unwrap().success());
    }

    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.0.wait().unwrap().code(), errors)
    }
}

/// The example server on a free port, and where it listens.
pub(crate) fn server(arguments: &[&str]) -> (Started, String) {
    Started::listening(Command::new(example("server")).args(["--listen", "127.0.0.1:0"]).args(arguments))
}
