//! The work of which `.ci/system-calls` counts the system calls: `roundtrips COUNT`.
//!
//! The main thread asks for the random number COUNT times over TCP; a second thread, which is not traced, answers.
#![allow(clippy::unwrap_used, reason = "a program for a script that passes the right arguments")]

use sonnette::board::Board;
use sonnette_std::{Client, server::Server};

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse::<u32>().ok());
    let Some(count) = count else {
        eprintln!("usage: roundtrips COUNT; see .ci/system-calls");
        return;
    };
    let mut server = Server::bind("127.0.0.1:0", Board::silent()).unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        loop {
            server.turn(None).unwrap();
        }
    });
    let mut client = Client::<Board, _>::connect(address).unwrap();
    for _ in 0..count {
        client.random().unwrap();
    }
}
