//! A client whose process is stopped for longer than an answer may take, while that answer arrives: it was in time.
//!
//! The clients are processes of this same program, which takes the runtime and the address as its arguments then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette::Timeouts;
use sonnette::board::Board;
use std::net::SocketAddr;
use std::time::Duration;

/// An answer may take so long.
const REPLY: Duration = Duration::from_millis(100);
const ROUNDS: i64 = 5;
const RUNTIMES: [&str; 4] = ["std", "smol", "tokio", "tokio-threads"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [runtime, address] if RUNTIMES.contains(&runtime.as_str()) => ask(runtime, address.parse().unwrap()),
        _ => {
            #[cfg(target_os = "linux")]
            RUNTIMES.iter().for_each(|runtime| parent::freeze(runtime));
        }
    }
}

/// Asks for all numbers, as a client of this runtime.
fn ask(runtime: &str, address: SocketAddr) {
    let timeouts = Timeouts { reply: Some(REPLY), ..Timeouts::OFF };
    let connect = sonnette_driver::Connect::new().timeouts(timeouts);
    let on_tokio = async || {
        let mut client = sonnette_tokio::Client::connect_with(&connect, Board::silent(), address).await.unwrap();
        for number in 1..=ROUNDS {
            assert_eq!(client.random().await.unwrap(), number);
        }
    };
    match runtime {
        "std" => {
            let mut client = sonnette_std::Connect::new().timeouts(timeouts).tcp(Board::silent(), address).unwrap();
            (1..=ROUNDS).for_each(|number| assert_eq!(client.random().unwrap(), number));
        }
        "smol" => async_io::block_on(async {
            let mut client = sonnette_smol::Client::connect_with(&connect, Board::silent(), address).await.unwrap();
            for number in 1..=ROUNDS {
                assert_eq!(client.random().await.unwrap(), number);
            }
        }),
        "tokio" => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(on_tokio()),
        _ => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(2).enable_all().build().unwrap().block_on(on_tokio());
        }
    }
}

#[cfg(target_os = "linux")]
mod parent {
    use super::{REPLY, ROUNDS};
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    use std::fs;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::process::Command;
    use std::thread;
    use std::time::Instant;

    pub(super) fn freeze(runtime: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut client = Command::new(std::env::current_exe().unwrap()).args([runtime, &address]).spawn().unwrap();
        let id = Pid::from_child(&client);
        let mut stream = listener.accept().unwrap().0;
        for number in 1..=ROUNDS {
            let mut question = [0; 9];
            stream.read_exact(&mut question).unwrap();
            while !sleeps(id) {
                thread::yield_now();
            }
            kill_process(id, Signal::STOP).unwrap();
            let stopped = waitpid(Some(id), WaitOptions::UNTRACED).unwrap().unwrap();
            assert!(stopped.1.stopped());
            write!(stream, "{number}\r\n").unwrap();
            let began = Instant::now();
            while let Some(left) = (2 * REPLY).checked_sub(began.elapsed()) {
                thread::park_timeout(left);
            }
            kill_process(id, Signal::CONT).unwrap();
        }
        assert!(client.wait().unwrap().success(), "a client on {runtime} that was stopped has not lived");
        println!("test a_client_on_{runtime}_that_is_stopped_lives ... ok");
    }

    /// Whether all threads of the process wait.
    fn sleeps(id: Pid) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", id.as_raw_nonzero())).unwrap();
        tasks
            .map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap())
            .all(|stat| stat.contains(") S "))
    }
}
