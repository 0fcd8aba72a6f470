//! The notice board over TLS: a client and a server on each runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

#[path = "../../support/print.rs"]
#[allow(dead_code, reason = "the tests print nothing")]
mod print;
#[path = "../../support/session.rs"]
#[allow(dead_code, reason = "printing what was said is for the example")]
mod session;

use futures_lite::future::block_on;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use session::Client;
use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::{ClientState, Event, Limits};
use sonnette_driver::{Driver, End, Error, Transport};
use sonnette_tls::{client_config, serve, server_config};
use std::fmt::Debug;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::ReadBuf;

/// A certificate of a server, and a directory with the file by which clients know it.
struct Trust {
    server: Arc<ServerConfig>,
    directory: TempDir,
}

impl Trust {
    fn new() -> Self {
        let (server, certificate) = server_config().unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate).unwrap();
        Trust { server, directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn client(&self) -> Arc<ClientConfig> {
        client_config(Some(&self.file())).unwrap()
    }
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// A stream that reads and writes so many octets at most, below TLS.
#[derive(Debug)]
struct Short<S>(S, usize);

impl<S: Read> Read for Short<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

impl<S: Write> Write for Short<S> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(&octets[..octets.len().min(self.1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<S: futures_io::AsyncRead + Unpin> futures_io::AsyncRead for Short<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let most = buffer.len().min(self.1);
        Pin::new(&mut self.0).poll_read(cx, &mut buffer[..most])
    }
}

impl<S: tokio::io::AsyncRead + Unpin> tokio::io::AsyncRead for Short<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = buffer.remaining().min(self.1);
        let mut part = buffer.take(most);
        let read = Pin::new(&mut self.0).poll_read(cx, &mut part);
        let octets = part.filled().len();
        buffer.advance(octets);
        read
    }
}

/// The two traits differ in one name.
macro_rules! writes {
    ($($writes:path, $close:ident;)*) => {$(
        impl<S: $writes + Unpin> $writes for Short<S> {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
                let most = octets.len().min(self.1);
                Pin::new(&mut self.0).poll_write(cx, &octets[..most])
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).poll_flush(cx)
            }

            fn $close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.0).$close(cx)
            }
        }
    )*};
}

writes! {
    futures_io::AsyncWrite, poll_close;
    tokio::io::AsyncWrite, poll_shutdown;
}

/// A stream that blocks, for the server.
struct Blocking<S>(S);

impl<S: Read + Write> Transport for Blocking<S> {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8], _: Option<Duration>) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.read(buffer))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(octets))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.flush())
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, _: Duration) -> Poll<()> {
        Poll::Pending
    }
}

type Outcome = Result<(), Error<sonnette::board::Refusal>>;

/// What the application does, and then how the connection ends if the server closes it.
trait World {
    fn serve(stream: TcpStream, config: Arc<ServerConfig>, most: usize) -> io::Result<()>;

    /// The error of the handshake, where it is not that of the first call.
    fn session(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        most: usize,
    ) -> io::Result<Outcome>;

    /// Asks for the number, and then takes events until the last one.
    fn end(address: SocketAddr, config: Arc<ClientConfig>) -> End;
}

async fn talk(client: &mut impl Client) -> Outcome {
    let Reply::Random(first) = client.call(Request::Random).await? else { panic!("not a number") };
    assert_eq!(client.call(Request::Classified).await?, Reply::Classified("nice flat in the 11e".into()));
    client.notify().await?;
    for rung in 1..20 {
        assert_eq!(client.wait_notification().await?, Some(Notification::Random));
        assert_eq!(client.ring(Request::Random).await?, Reply::Random(first + 1 + rung));
    }
    Ok(())
}

async fn talk_and_close<T: Transport>(client: &mut Driver<Board, T>) -> Outcome {
    let outcome = talk(client).await;
    client.close().await.unwrap();
    outcome
}

async fn last<T: Transport>(client: &mut Driver<Board, T>) -> End {
    client.random().await.unwrap();
    loop {
        match client.next_event().await {
            Ok(Event::Closed) => {}
            Err(Error::Ended(end)) => return end,
            other => panic!("{other:?}"),
        }
    }
}

struct Std;

impl World for Std {
    fn serve(stream: TcpStream, config: Arc<ServerConfig>, most: usize) -> io::Result<()> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        block_on(serve(Blocking(StreamOwned::new(connection, Short(stream, most))), Board::silent()))
    }

    fn session(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        most: usize,
    ) -> io::Result<Outcome> {
        let socket = sonnette_std::Socket::from(TcpStream::connect(address)?);
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut client = sonnette_std::Client::new(Board::silent(), StreamOwned::new(connection, Short(socket, most)));
        let outcome = block_on(talk(&mut client));
        let mut stream = client.into_parts().1;
        stream.conn.send_close_notify();
        // One that was never trusted is not read any more.
        let _ = stream.conn.complete_io(&mut stream.sock);
        Ok(outcome)
    }

    fn end(address: SocketAddr, config: Arc<ClientConfig>) -> End {
        let socket = sonnette_std::Socket::from(TcpStream::connect(address).unwrap());
        let connection = ClientConnection::new(config, localhost()).unwrap();
        let mut client = sonnette_std::Client::new(Board::silent(), StreamOwned::new(connection, socket));
        client.random().unwrap();
        loop {
            match client.next_event() {
                Ok(Event::Closed) => {}
                Err(Error::Ended(end)) => return end,
                other => panic!("{other:?}"),
            }
        }
    }
}

struct Smol;

async fn connect_smol(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    most: usize,
) -> io::Result<sonnette_smol::Client<Board, impl futures_io::AsyncRead + futures_io::AsyncWrite + Unpin>> {
    let stream = Short(async_net::TcpStream::connect(address).await?, most);
    let stream = futures_rustls::TlsConnector::from(config).connect(name, stream).await?;
    Ok(sonnette_smol::Client::new(Board::silent(), stream))
}

impl World for Smol {
    fn serve(stream: TcpStream, config: Arc<ServerConfig>, most: usize) -> io::Result<()> {
        async_io::block_on(async {
            let stream = Short(async_net::TcpStream::try_from(stream)?, most);
            let stream = futures_rustls::TlsAcceptor::from(config).accept(stream).await?;
            serve(sonnette_smol::Io::from(stream), Board::silent()).await
        })
    }

    fn session(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        most: usize,
    ) -> io::Result<Outcome> {
        async_io::block_on(async {
            let mut client = connect_smol(address, config, name, most).await?;
            Ok(talk_and_close(&mut client).await)
        })
    }

    fn end(address: SocketAddr, config: Arc<ClientConfig>) -> End {
        async_io::block_on(async {
            let mut client = connect_smol(address, config, localhost(), usize::MAX).await.unwrap();
            last(&mut client).await
        })
    }
}

struct Tokio;

async fn connect_tokio(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    most: usize,
) -> io::Result<sonnette_tokio::Client<Board, impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>> {
    let stream = Short(tokio::net::TcpStream::connect(address).await?, most);
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
    Ok(sonnette_tokio::Client::new(Board::silent(), stream))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl World for Tokio {
    fn serve(stream: TcpStream, config: Arc<ServerConfig>, most: usize) -> io::Result<()> {
        runtime().block_on(async {
            stream.set_nonblocking(true)?;
            let stream = Short(tokio::net::TcpStream::from_std(stream)?, most);
            let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await?;
            serve(sonnette_tokio::Io::from(stream), Board::silent()).await
        })
    }

    fn session(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        most: usize,
    ) -> io::Result<Outcome> {
        runtime().block_on(async {
            let mut client = connect_tokio(address, config, name, most).await?;
            Ok(talk_and_close(&mut client).await)
        })
    }

    fn end(address: SocketAddr, config: Arc<ClientConfig>) -> End {
        runtime().block_on(async {
            let mut client = connect_tokio(address, config, localhost(), usize::MAX).await.unwrap();
            last(&mut client).await
        })
    }
}

/// Serves one connection.
fn listen<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let stream = listener.accept().unwrap().0;
        stream.set_nodelay(true).unwrap();
        serve(stream)
    };
    (address, thread::spawn(serve))
}

fn meet<C: World, S: World>() {
    let trust = Trust::new();
    for most in [usize::MAX, 7, 1] {
        let config = Arc::clone(&trust.server);
        let (address, server) = listen(move |stream| S::serve(stream, config, most));
        C::session(address, trust.client(), localhost(), most).unwrap().unwrap();
        server.join().unwrap().unwrap();
    }
}

/// The error of the handshake, wherever it is told.
fn refused(outcome: io::Result<Outcome>) -> io::Error {
    match outcome {
        Err(error) => error,
        Ok(Err(Error::Lost { end: End::Io(error), .. } | Error::Ended(End::Io(error)))) => {
            io::Error::new(error.kind(), error.to_string())
        }
        Ok(other) => panic!("{other:?}"),
    }
}

fn mistrust<C: World>() {
    let (trust, other) = (Trust::new(), Trust::new());
    let elsewhere = ServerName::try_from("board.example").unwrap();
    for (config, name) in [(other.client(), localhost()), (trust.client(), elsewhere)] {
        let config_of_server = Arc::clone(&trust.server);
        let (address, server) = listen(move |stream| Std::serve(stream, config_of_server, usize::MAX));
        let error = refused(C::session(address, config, name, usize::MAX));
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
        assert!(server.join().unwrap().is_err(), "the server learns it");
    }
}

/// Answers one question and closes the connection, with or without saying so.
fn answer_once(stream: TcpStream, config: Arc<ServerConfig>, says_so: bool) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut question = [0; b"random?\r\n".len()];
    stream.read_exact(&mut question).unwrap();
    stream.write_all(b"46774\r\n").unwrap();
    if says_so {
        stream.conn.send_close_notify();
    }
    stream.flush().unwrap();
}

fn closed<C: World>() {
    let trust = Trust::new();
    let end = |says_so| {
        let config = Arc::clone(&trust.server);
        let (address, server) = listen(move |stream| answer_once(stream, config, says_so));
        let end = C::end(address, trust.client());
        server.join().unwrap();
        end
    };
    assert!(matches!(end(true), End::Closed));
    // It may have been cut off by somebody in between.
    let cut = end(false);
    assert!(matches!(&cut, End::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof), "{cut:?}");
}

macro_rules! worlds {
    ($($name:ident $world:ident;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn client_and_server_meet() {
                meet::<$world, $world>();
            }

            #[test]
            fn whoever_is_not_trusted_is_told_nothing() {
                mistrust::<$world>();
            }

            #[test]
            fn a_stream_that_is_cut_off_is_not_closed() {
                closed::<$world>();
            }
        }
    )*};
}

worlds! {
    on_std Std;
    on_smol Smol;
    on_tokio Tokio;
}

#[test]
fn runtimes_meet() {
    meet::<Std, Tokio>();
    meet::<Tokio, Smol>();
    meet::<Smol, Std>();
}

/// A server that writes each answer before it reads the next question, over sockets that take little: the client must not
/// wait for its writes.
fn answer_each(stream: TcpStream, config: Arc<ServerConfig>, questions: usize) {
    take_little(&stream);
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut question = [0; b"classified?\r\n".len()];
    let text = ["x".repeat(100).as_bytes(), b"\r\n"].concat();
    for _ in 0..questions {
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&text).unwrap();
    }
}

fn take_little(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    socket.set_send_buffer_size(16 * 1024).unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
}

const QUESTIONS: usize = 20_000;

fn greedy() -> ClientState<Board> {
    let mut state =
        ClientState::with_limits(Board::silent(), Limits::new().with_pending(QUESTIONS).with_output(1024 * 1024));
    for _ in 0..QUESTIONS {
        state.request(Request::Classified).unwrap();
    }
    state
}

fn stuffed(connect: impl FnOnce(TcpStream, Arc<ClientConfig>) -> usize) {
    let trust = Trust::new();
    let config = Arc::clone(&trust.server);
    let (address, server) = listen(move |stream| answer_each(stream, config, QUESTIONS));
    let stream = TcpStream::connect(address).unwrap();
    take_little(&stream);
    assert_eq!(connect(stream, trust.client()), QUESTIONS);
    server.join().unwrap();
}

#[test]
fn full_buffers_do_not_deadlock_on_std() {
    stuffed(|stream, config| {
        let connection = ClientConnection::new(config, localhost()).unwrap();
        let stream = StreamOwned::new(connection, sonnette_std::Socket::from(stream));
        let mut client = sonnette_std::Client::with_state(greedy(), stream);
        (0..QUESTIONS).filter(|_| matches!(client.next_event(), Ok(Event::Reply { .. }))).count()
    });
}

async fn count<T: Transport>(client: &mut Driver<Board, T>) -> usize {
    let mut answered = 0;
    while let Ok(Event::Reply { .. }) = client.next_event().await {
        answered += 1;
        if answered == QUESTIONS {
            break;
        }
    }
    answered
}

#[test]
fn full_buffers_do_not_deadlock_on_smol() {
    stuffed(|stream, config| {
        async_io::block_on(async {
            let stream = async_net::TcpStream::try_from(stream).unwrap();
            let stream = futures_rustls::TlsConnector::from(config).connect(localhost(), stream).await.unwrap();
            count(&mut sonnette_smol::Client::with_state(greedy(), stream)).await
        })
    });
}

#[test]
fn full_buffers_do_not_deadlock_on_tokio() {
    stuffed(|stream, config| {
        runtime().block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let stream = tokio_rustls::TlsConnector::from(config).connect(localhost(), stream).await.unwrap();
            count(&mut sonnette_tokio::Client::with_state(greedy(), stream)).await
        })
    });
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> (Option<i32>, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_tls_watch")).args(arguments).output().unwrap();
    (run.status.code(), String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap())
}

#[test]
fn the_examples_meet() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let mut server = Command::new(env!("CARGO_BIN_EXE_tls_server"))
        .args(["--listen", "127.0.0.1:0", "--ca"])
        .arg(&ca)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _server = Server(server);
    let port = line.trim_end().rsplit_once(':').unwrap().1;
    let address = format!("localhost:{port}");
    for runtime in ["std", "smol", "tokio"] {
        let (code, output, errors) = run(&[&address, &"--ca", &ca, &"--runtime", &runtime, &"--count", &"2"]);
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        let facts: Vec<&str> = output.lines().map(|line| line.split_once(": ").unwrap().0).collect();
        assert_eq!(facts, ["random", "classified", "notified", "random", "notified", "random"]);
        // Nobody else vouches for it.
        let other = directory.path().join("other.pem");
        std::fs::write(&other, server_config().unwrap().1).unwrap();
        let (code, output, errors) = run(&[&address, &"--ca", &other, &"--runtime", &runtime]);
        assert_eq!((code, output.as_str(), errors.lines().count()), (Some(1), "", 1), "{errors}");
        assert!(errors.contains("certificate"), "{errors}");
    }
    let (code, _, errors) = run(&[&address, &"--ca", &directory.path().join("none.pem")]);
    assert_eq!((code, errors.lines().count()), (Some(1), 1), "{errors}");
}

#[test]
fn clients_over_tls_can_be_sent() {
    fn is_send<T: Send + Debug>() {}
    is_send::<sonnette_tokio::Client<Board, tokio_rustls::client::TlsStream<tokio::net::TcpStream>>>();
    is_send::<sonnette_smol::Client<Board, futures_rustls::client::TlsStream<async_net::TcpStream>>>();
    is_send::<sonnette_std::Client<Board, StreamOwned<ClientConnection, sonnette_std::Socket>>>();
}
