//! Thousands of clients in notification mode on one thread, each rung again and again.
//!
//! `cargo run --release --example many -- [--clients N] [--runtime smol|tokio] [--seconds S]`
//!
//! The notice board is served by a process of its own. It has a new number whenever all clients have fetched the last
//! one, so each client is rung once for each number: one that is not has lost a notification. In the end this tells what
//! an idle client costs in resident memory, and what a bare socket of the same runtime costs in another process, both
//! after they have sent and received.

mod support;

use clap::{Parser, ValueEnum};
use futures_lite::FutureExt;
use sonnette::board::{Board, Request};
use sonnette_tokio::{Driver, Error, Transport};
use std::future::poll_fn;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::DerefMut;
use std::pin::Pin;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use support::files::room_for;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(name = "many", about = "Thousands of clients on one thread, each rung again and again.")]
struct Options {
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    #[arg(long, value_enum, default_value = "tokio")]
    runtime: Runtime,
    /// For how long the server has news
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u64,
    /// What another process of this program does
    #[arg(long, hide = true, value_name = "HOST:PORT")]
    bare: Option<String>,
    #[arg(long, hide = true)]
    serve: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runtime {
    Smol,
    Tokio,
}

/// In which each client must have been rung and have fetched. On a slow machine ten thousand take a second.
const ROUND: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let options: Options = support::options();
    let done = match &options.bare {
        _ if options.serve => serve(),
        Some(address) => run(&options, address, None),
        None => many(&options),
    };
    support::exit("many", done)
}

/// Starts the server, has the bare sockets measured, and runs the clients.
fn many(options: &Options) -> Result<()> {
    let wanted = usize::try_from(options.clients)?;
    let clients = room_for(wanted)?;
    if clients < wanted {
        support::tell(format_args!("many: the limit of open files has room for {clients} clients instead of {wanted}"));
    }
    let program = std::env::current_exe()?;
    let serve = || Process::start(Command::new(&program).arg("--serve"));
    let runtime = options.runtime.to_possible_value().ok_or("no such runtime")?;
    let bare_rss = {
        // A server of their own: one that has lost thousands of clients at once is slow to accept others.
        let mut server = serve()?;
        let address = server.line()?;
        let mut bare = Command::new(&program);
        bare.args(["--bare", &address, "--clients", &clients.to_string(), "--runtime", runtime.get_name()]);
        Process::start(&mut bare)?.line()?
    };
    let mut server = serve()?;
    let address = server.line()?;
    let options = Options { clients: u32::try_from(clients)?, bare: None, ..*options };
    run(&options, &address, Some((&mut server.input, bare_rss)))
}

/// Another process of this program, which ends when its standard input does.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Process { child, input, output })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line)? {
            0 => Err("the other process has ended".into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says where it listens; each line of standard input is a new number.
fn serve() -> Result<()> {
    let mut server = support::board::open("127.0.0.1:0", support::board::Dialect::Silent)?;
    writeln!(io::stdout(), "{}", server.local_addr()?)?;
    let (waker, (news, told)) = (server.waker(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        for number in io::stdin().lines().map_while(io::Result::ok) {
            // The server has ended, and this thread ends with it.
            if news.send(number.parse()).is_err() || waker.wake().is_err() {
                return;
            }
        }
        std::process::exit(0);
    });
    loop {
        server.turn(None)?;
        for number in told.try_iter() {
            server.set_random(number?);
        }
    }
}

fn run(options: &Options, address: &str, rung: Option<(&mut ChildStdin, String)>) -> Result<()> {
    match options.runtime {
        Runtime::Smol => {
            let executor = async_executor::LocalExecutor::new();
            async_io::block_on(executor.run(crowd(Smol(&executor), options, address, rung)))
        }
        Runtime::Tokio => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(crowd(Tokio, options, address, rung)),
    }
}

/// What the tasks of a crowd share.
struct Round {
    number: AtomicI64,
    /// Tasks that have not done their part.
    left: AtomicUsize,
    notified: AtomicU64,
    /// Told when the last one has, or that one cannot.
    over: async_channel::Sender<std::result::Result<(), String>>,
}

impl Round {
    fn arrived(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.end(Ok(()));
        }
    }

    fn end(&self, result: std::result::Result<(), String>) {
        // One that is full has told of a failure already.
        let _ = self.over.try_send(result);
    }
}

/// Connects all, has them rung if there is a server to be told, and prints what there is to tell.
async fn crowd<W: World>(
    world: W,
    options: &Options,
    address: &str,
    rung: Option<(&mut ChildStdin, String)>,
) -> Result<()> {
    let clients = usize::try_from(options.clients)?;
    let (over, round_is_over) = async_channel::bounded(1);
    let round = Arc::new(Round {
        number: AtomicI64::new(0),
        left: AtomicUsize::new(clients),
        notified: AtomicU64::new(0),
        over,
    });
    let (before, mut size) = (resident()?, 0);
    for _ in 0..clients {
        match rung {
            Some(_) => {
                let (mut client, round) = (W::connect(address).await?, Arc::clone(&round));
                // One at a time: the system refuses to queue thousands that the server has not accepted.
                client.random().await?;
                size = size_of_val(&client);
                world.spawn(async move {
                    let ended = fetch(&mut client, &round).await;
                    round.end(ended.map_err(|error| error.to_string()));
                });
            }
            None => {
                let (mut stream, round) = (W::bare(address).await?, Arc::clone(&round));
                ask::<W>(&mut stream).await?;
                world.spawn(async move {
                    round.arrived();
                    let octets = read::<W>(&mut stream).await;
                    round.end(Err(format!("{octets:?} octets that nobody asked for")));
                });
            }
        }
    }
    let per_client = |now: usize| now.saturating_sub(before) / clients;
    let Some((server, bare_rss)) = rung else {
        round_is_over.recv().await??;
        writeln!(io::stdout(), "{}", per_client(resident()?))?;
        return Ok(());
    };
    let (began, seconds) = (Instant::now(), Duration::from_secs(options.seconds));
    let mut lost = 0;
    while lost == 0 && (began.elapsed() < seconds || round.number.load(Ordering::Relaxed) == 0) {
        round.left.store(clients, Ordering::Relaxed);
        let number = round.number.fetch_add(1, Ordering::Relaxed) + 1;
        writeln!(server, "{number}")?;
        match W::within(ROUND, round_is_over.recv()).await {
            Some(over) => over??,
            None => lost = round.left.load(Ordering::Relaxed),
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "clients: {clients}")?;
    writeln!(out, "notifications: {}", round.notified.load(Ordering::Relaxed))?;
    writeln!(out, "lost: {lost}")?;
    writeln!(out, "rss_per_client_bytes: {}", per_client(resident()?))?;
    writeln!(out, "bare_rss_per_client_bytes: {bare_rss}")?;
    writeln!(out, "size_of_client_bytes: {size}")?;
    writeln!(out, "seconds: {:.1}", began.elapsed().as_secs_f64())?;
    if lost == 0 { Ok(()) } else { Err(format!("{lost} clients were not rung within {ROUND:?}").into()) }
}

/// One client: it is rung, and fetches what it was rung for.
async fn fetch<T: Transport>(
    client: &mut Driver<Board, T>,
    round: &Round,
) -> std::result::Result<(), Error<sonnette::board::Refusal>> {
    client.notify().await?;
    while client.wait_notification().await?.is_some() {
        round.notified.fetch_add(1, Ordering::Relaxed);
        let fetched = client.ring(Request::Random).await?;
        if fetched == sonnette::board::Reply::Random(round.number.load(Ordering::Relaxed)) {
            round.arrived();
        }
    }
    Ok(())
}

/// What a bare socket does: it asks, and reads the answer.
async fn ask<W: World>(stream: &mut W::Stream) -> io::Result<()> {
    let mut asked: &[u8] = b"random?\r\n";
    while !asked.is_empty() {
        let written = poll_fn(|cx| W::poll_write(Pin::new(stream), cx, asked)).await?;
        asked = asked.get(written..).unwrap_or_default();
    }
    match read::<W>(stream).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// The buffer is on the stack, and gone while this waits.
async fn read<W: World>(stream: &mut W::Stream) -> io::Result<usize> {
    poll_fn(|cx| W::poll_read(Pin::new(stream), cx, &mut [0; 64])).await
}

/// A runtime.
trait World {
    type Stream: Unpin + Send + 'static;
    type Transport: Transport + Send;

    async fn connect(
        address: &str,
    ) -> io::Result<impl DerefMut<Target = Driver<Board, Self::Transport>> + Send + 'static>;
    async fn bare(address: &str) -> io::Result<Self::Stream>;
    fn poll_read(stream: Pin<&mut Self::Stream>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    fn poll_write(stream: Pin<&mut Self::Stream>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>>;
    async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T>;
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
}

struct Smol<'a>(&'a async_executor::LocalExecutor<'static>);

impl World for Smol<'_> {
    type Stream = async_net::TcpStream;
    type Transport = sonnette_smol::Io<Self::Stream>;

    async fn connect(
        address: &str,
    ) -> io::Result<impl DerefMut<Target = Driver<Board, Self::Transport>> + Send + 'static> {
        sonnette_smol::Client::<Board, _>::connect(address).await
    }
    async fn bare(address: &str) -> io::Result<Self::Stream> {
        async_net::TcpStream::connect(address).await
    }
    fn poll_read(stream: Pin<&mut Self::Stream>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        futures_lite::AsyncRead::poll_read(stream, cx, buffer)
    }
    fn poll_write(stream: Pin<&mut Self::Stream>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        futures_lite::AsyncWrite::poll_write(stream, cx, octets)
    }
    async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
        let too_late = async {
            async_io::Timer::after(time).await;
            None
        };
        async { Some(future.await) }.or(too_late).await
    }
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task).detach();
    }
}

struct Tokio;

impl World for Tokio {
    type Stream = tokio::net::TcpStream;
    type Transport = sonnette_tokio::Io<Self::Stream>;

    async fn connect(
        address: &str,
    ) -> io::Result<impl DerefMut<Target = Driver<Board, Self::Transport>> + Send + 'static> {
        sonnette_tokio::Client::<Board, _>::connect(address).await
    }
    async fn bare(address: &str) -> io::Result<Self::Stream> {
        tokio::net::TcpStream::connect(address).await
    }
    fn poll_read(stream: Pin<&mut Self::Stream>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = tokio::io::ReadBuf::new(buffer);
        tokio::io::AsyncRead::poll_read(stream, cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }
    fn poll_write(stream: Pin<&mut Self::Stream>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(stream, cx, octets)
    }
    async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(time, future).await.ok()
    }
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }
}

/// Resident memory of this process, in octets.
fn resident() -> Result<usize> {
    Ok(memory_stats::memory_stats().ok_or("this system does not tell of memory")?.physical_mem)
}
