//! A server over TCP that speaks its part of a scenario.

use crate::Line;
use socket2::SockRef;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Serves one connection. Join it once the client is dropped.
#[must_use]
pub fn serve(script: Vec<Line>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || speak(listener.accept().unwrap().0, &script)))
}

fn speak(mut stream: TcpStream, script: &[Line]) {
    stream.set_nodelay(true).unwrap();
    for line in script {
        match line {
            Line::Client(line) => {
                let mut said = vec![0; line.len()];
                stream.read_exact(&mut said).unwrap();
                assert_eq!(said.escape_ascii().to_string(), line.escape_ascii().to_string());
            }
            Line::Server(line) => stream.write_all(line).unwrap(),
            Line::Anything => {}
            Line::Reset => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
        }
    }
    // A client that has ended the connection itself may be gone.
    if let Err(error) = stream.shutdown(Shutdown::Write) {
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
    // What the client says after it, until it closes or is gone.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(script.contains(&Line::Anything) || rest.is_empty(), "{:?} is not in the script", rest.escape_ascii());
}
