//! The work of which `.ci/system-calls` counts the system calls: `roundtrips std|tokio COUNT`.
//!
//! The main thread asks for the random number COUNT times over TCP; a second thread, which is not traced, answers.
#![allow(clippy::unwrap_used, reason = "a program for a script that passes the right arguments")]

use sonnette::board::Board;
use sonnette_std::{Client, server::Server};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let count = arguments.get(1).and_then(|count| count.parse::<u32>().ok());
    let (Some(runtime), Some(count)) = (arguments.first(), count) else {
        eprintln!("usage: roundtrips std|tokio COUNT; see .ci/system-calls");
        return;
    };
    let mut server = Server::bind("127.0.0.1:0", Board::silent()).unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        loop {
            server.turn(None).unwrap();
        }
    });
    if runtime == "tokio" {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let mut client = sonnette_tokio::Client::<Board, _>::connect(address).await.unwrap();
            for _ in 0..count {
                client.random().await.unwrap();
            }
        });
        return;
    }
    let mut client = Client::<Board, _>::connect(address).unwrap();
    for _ in 0..count {
        client.random().unwrap();
    }
}
