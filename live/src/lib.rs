//! Real servers for tests: each on a free port and on a Unix socket, in a scratch directory of its own.
#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is for tests")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to start on a busy machine, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that ends with this.
#[derive(Debug)]
pub struct Server {
    process: Child,
    directory: TempDir,
    pub address: SocketAddr,
}

impl Server {
    /// `redis-server` with more options.
    #[must_use]
    pub fn redis(options: &[&str]) -> Server {
        Server::start(b"PING\r\n", b"", |directory, port| {
            let mut command = Command::new("redis-server");
            let port = port.to_string();
            command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
            command.arg("--unixsocket").arg(directory.join("socket")).arg("--dir").arg(directory);
            command.args(options);
            command
        })
    }

    /// `redis-server` over its own TLS as well, on the port that is told, with a new certificate for `localhost`.
    #[must_use]
    pub fn redis_tls() -> (Server, SocketAddr) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::start(b"PING\r\n", b"", |directory, port| {
            address.set_port(free_port());
            let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
            fs::write(&certificate, made.cert.pem()).unwrap();
            fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
            command.args(["--tls-port", &address.port().to_string(), "--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(&certificate).arg("--tls-key-file").arg(key);
            command.arg("--tls-ca-cert-file").arg(certificate).arg("--dir").arg(directory);
            command
        });
        (server, address)
    }

    /// The certificate of [`redis_tls`](Self::redis_tls).
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// `mpd` with two seconds of silence to play, as `tone.wav` and as `album/one.wav`, that one with a picture; and with
    /// more settings.
    #[must_use]
    pub fn mpd(settings: &str, picture: &[u8]) -> Server {
        Server::start(b"", b"OK MPD ", |directory, port| {
            let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
            fs::create_dir_all(path("music/album")).unwrap();
            fs::create_dir_all(path("playlists")).unwrap();
            fs::write(path("music/tone.wav"), silence()).unwrap();
            fs::write(path("music/album/one.wav"), silence()).unwrap();
            fs::write(path("music/album/cover.png"), picture).unwrap();
            let configuration = format!(
                "music_directory \"{}\"\nplaylist_directory \"{}\"\ndb_file \"{}\"\nstate_file \"{}\"\nlog_file \"{}\"\n\
                 bind_to_address \"127.0.0.1\"\nbind_to_address \"{}\"\nport \"{port}\"\nauto_update \"no\"\n\
                 audio_output {{\ntype \"null\"\nname \"null\"\nmixer_type \"software\"\n}}\n{settings}\n",
                path("music"),
                path("playlists"),
                path("db"),
                path("state"),
                path("log"),
                path("socket"),
            );
            fs::write(path("mpd.conf"), configuration).unwrap();
            let mut command = Command::new("mpd");
            command.arg("--no-daemon").arg(path("mpd.conf"));
            command
        })
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Starts it on a free port, and waits until it answers `question` in a way that begins so. Another process may take
    /// the port meanwhile: then it is started again.
    fn start(question: &[u8], answer: &[u8], mut command: impl FnMut(&Path, u16) -> Command) -> Server {
        for _ in 0..5 {
            let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
            let output = File::create(directory.path().join("output")).unwrap();
            let mut command = command(directory.path(), port);
            let process = command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn();
            let process =
                process.unwrap_or_else(|error| panic!("{:?} is not installed: {error}", command.get_program()));
            let address = (Ipv4Addr::LOCALHOST, port).into();
            let mut server = Server { process, directory, address };
            if server.answers(question, answer) {
                return server;
            }
        }
        panic!("no server starts");
    }

    fn answers(&mut self, question: &[u8], answer: &[u8]) -> bool {
        let began = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            if let Ok(mut stream) = TcpStream::connect(self.address) {
                let mut buffer = [0; 64];
                stream.write_all(question).unwrap();
                match stream.read(&mut buffer) {
                    Ok(octets) => return octets > 0 && buffer[..octets].starts_with(answer),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
                }
            }
            assert!(began.elapsed() < PATIENCE, "{}", self.output());
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// What it printed.
    fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    fn signal(&mut self, signal: Signal) {
        let id = Pid::from_child(&self.process);
        kill_process(id, signal).unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("the server said:\n{}", self.output());
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Two seconds of it, as a WAV file: 8,000 samples a second, 16 bits each, one channel.
fn silence() -> Vec<u8> {
    const OCTETS: u32 = 2 * 8_000 * 2;
    let mut wav = Vec::new();
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + OCTETS).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    wav.extend_from_slice(&16_u32.to_le_bytes());
    wav.extend_from_slice(&[1, 0, 1, 0]);
    wav.extend_from_slice(&8_000_u32.to_le_bytes());
    wav.extend_from_slice(&16_000_u32.to_le_bytes());
    wav.extend_from_slice(&[2, 0, 16, 0]);
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&OCTETS.to_le_bytes());
    wav.resize(wav.len() + OCTETS as usize, 0);
    wav
}
