//! Watches a notice board: asks for everything once, then fetches what the server rings for.
//!
//! `cargo run --example watch -- [HOST:PORT] [--runtime std|smol|tokio] [--dialect silent|acknowledged] [--count N]`
//!
//! Without an address it starts a server of its own. Standard output has one line per fact; everything else goes to
//! standard error.

mod support;

use clap::{Parser, ValueEnum};
use futures_lite::FutureExt;
use sonnette::board::{Board, Notification, Refusal, Reply, Request};
use sonnette_std::{Error, Socket};
use sonnette_tokio::{Connect, Driver, Transport};
use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "watch",
    about = "Watches a notice board: asks for everything once, then fetches what the server rings for."
)]
struct Options {
    /// The server; without it, one is started on a free port
    #[arg(value_name = "HOST:PORT", value_parser = support::address)]
    address: Option<String>,
    #[arg(long, value_enum, default_value = "std")]
    runtime: Runtime,
    #[arg(long, value_enum, default_value = "silent")]
    dialect: support::Dialect,
    /// Stop after so many notifications (5 with the server of its own, else never)
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runtime {
    Std,
    Smol,
    Tokio,
}

/// How many notifications the server of its own is watched for.
const COUNT: NonZeroU64 = NonZeroU64::new(5).unwrap();

/// How often that server has news: five of them ring within two seconds.
const EVERY: Duration = Duration::from_millis(300);

/// A server that does not even accept for so long is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let options: Options = support::options();
    match watch(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            support::tell(format_args!("watch: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn watch(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (address, count) = match &options.address {
        Some(address) => (address.clone(), options.count),
        None => (start_server(options.dialect)?, Some(options.count.unwrap_or(COUNT))),
    };
    ctrlc::set_handler(interrupt)?;
    let board = options.dialect.board();
    let connect = Connect::new().connect_timeout(Some(CONNECT_TIMEOUT));
    let cannot_connect = |error: io::Error| format!("cannot connect to {address}: {error}");
    match options.runtime {
        Runtime::Std => {
            let connect = sonnette_std::Connect::new().connect_timeout(Some(CONNECT_TIMEOUT));
            let mut client = connect.tcp(board, &*address).map_err(cannot_connect)?;
            let interrupter = client.interrupter();
            INTERRUPT.get_or_init(|| Box::new(move || interrupter.interrupt()));
            // A client that blocks is never waited for.
            stopped(futures_lite::future::block_on(session(&mut client, count)))?;
            match client.leave().and_then(|()| client.close()) {
                // After Ctrl-C nothing is read any more, so a leave that waits for the server's answer stays unsent.
                Ok(()) | Err(Error::Interrupted { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Runtime::Smol => async_io::block_on(async {
            let client = sonnette_smol::Client::connect_with(&connect, board, &*address).await;
            watch_on_runtime(&mut *client.map_err(cannot_connect)?, count).await
        }),
        Runtime::Tokio => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let client = sonnette_tokio::Client::connect_with(&connect, board, &*address).await;
            watch_on_runtime(&mut *client.map_err(cannot_connect)?, count).await
        }),
    }
}

/// A future that is dropped loses nothing: so Ctrl-C drops the session, wherever it waits.
async fn watch_on_runtime<T: Transport>(
    client: &mut Driver<Board, T>,
    count: Option<NonZeroU64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (interrupt, interrupted) = async_channel::bounded(1);
    INTERRUPT.get_or_init(|| {
        Box::new(move || {
            // One that is full has told it already.
            let _ = interrupt.try_send(());
        })
    });
    let interrupted = async {
        let _ = interrupted.recv().await;
        Err(Stop::Client(Error::Interrupted { id: None }))
    };
    stopped(session(client, count).or(interrupted).await)?;
    client.leave().await?;
    Ok(client.close().await?)
}

fn stopped(session: Result<(), Stop>) -> Result<(), Box<dyn std::error::Error>> {
    match session {
        Ok(()) => {}
        Err(Stop::Client(Error::Interrupted { .. })) => support::tell("watch: interrupted, leaving"),
        Err(Stop::Client(error)) => return Err(error.into()),
        Err(Stop::Output(error)) => return Err(format!("cannot write: {error}").into()),
    }
    Ok(())
}

/// How to end the session, once there is a connection.
static INTERRUPT: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Ctrl-C ends the session, and the rest happens as after any other end. Before there is a connection there is nothing to
/// leave; and who asks twice does not want to wait.
fn interrupt() {
    static ASKED: AtomicBool = AtomicBool::new(false);
    match INTERRUPT.get() {
        Some(interrupt) if !ASKED.swap(true, Ordering::Relaxed) => interrupt(),
        _ => std::process::exit(0),
    }
}

/// What the session needs of a client, whatever its runtime.
trait Client {
    async fn call(&mut self, request: Request) -> Result<Reply, Error<Refusal>>;
    async fn notify(&mut self) -> Result<(), Error<Refusal>>;
    async fn wait_notification(&mut self) -> Result<Option<Notification>, Error<Refusal>>;
    async fn ring(&mut self, request: Request) -> Result<Reply, Error<Refusal>>;
}

impl Client for sonnette_std::Client<Board, Socket> {
    async fn call(&mut self, request: Request) -> Result<Reply, Error<Refusal>> {
        self.call(request)
    }
    async fn notify(&mut self) -> Result<(), Error<Refusal>> {
        self.notify()
    }
    async fn wait_notification(&mut self) -> Result<Option<Notification>, Error<Refusal>> {
        self.wait_notification()
    }
    async fn ring(&mut self, request: Request) -> Result<Reply, Error<Refusal>> {
        self.ring(request)
    }
}

impl<T: Transport> Client for Driver<Board, T> {
    async fn call(&mut self, request: Request) -> Result<Reply, Error<Refusal>> {
        self.call(request).await
    }
    async fn notify(&mut self) -> Result<(), Error<Refusal>> {
        self.notify().await
    }
    async fn wait_notification(&mut self) -> Result<Option<Notification>, Error<Refusal>> {
        self.wait_notification().await
    }
    async fn ring(&mut self, request: Request) -> Result<Reply, Error<Refusal>> {
        self.ring(request).await
    }
}

enum Stop {
    Client(Error<Refusal>),
    Output(io::Error),
}

impl From<Error<Refusal>> for Stop {
    fn from(error: Error<Refusal>) -> Self {
        Stop::Client(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Output(error)
    }
}

async fn session(client: &mut impl Client, count: Option<NonZeroU64>) -> Result<(), Stop> {
    for request in [Request::Random, Request::Classified] {
        let reply = client.call(request).await?;
        say_reply(&reply)?;
    }
    client.notify().await?;
    let mut handled = 0;
    while count.is_none_or(|count| handled < count.get()) {
        let Some(notification) = client.wait_notification().await? else { break };
        let fetch = match notification {
            Notification::Random => Request::Random,
            Notification::Classified => Request::Classified,
            Notification::Other(name) => {
                say("notified", format_args!("other {}", printable(&name)))?;
                handled += 1;
                continue;
            }
        };
        say("notified", if fetch == Request::Random { "random" } else { "classified" })?;
        let reply = client.ring(fetch).await?;
        say_reply(&reply)?;
        handled += 1;
    }
    Ok(())
}

fn say_reply(reply: &Reply) -> io::Result<()> {
    match reply {
        Reply::Random(number) => say("random", number),
        Reply::Classified(text) => say("classified", printable(text)),
    }
}

fn say(what: &str, fact: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}: {fact}")?;
    out.flush()
}

/// Printable UTF-8 as it is, every other octet as `\xNN`.
fn printable(text: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            if !is_printable(character) {
                let mut octets = [0; 4];
                escape(character.encode_utf8(&mut octets).as_bytes(), &mut shown);
            } else {
                shown.push(character);
            }
        }
        escape(chunk.invalid(), &mut shown);
    }
    shown
}

/// As Rust's own escapes see it, but for what they escape only inside quotes; an accent that combines with what stands
/// before it is printable.
fn is_printable(character: char) -> bool {
    matches!(character, '"' | '\'' | '\\') || format!("a{character}").escape_debug().count() == 2
}

fn escape(octets: &[u8], shown: &mut String) {
    for octet in octets {
        shown.push_str(&format!("\\x{octet:02x}"));
    }
}

fn start_server(dialect: support::Dialect) -> io::Result<String> {
    let server = support::open("127.0.0.1:0", dialect)?;
    let address = server.local_addr()?.to_string();
    std::thread::spawn(move || {
        if let Err(error) = support::serve(server, EVERY) {
            support::tell(format_args!("server: {error}"));
        }
    });
    Ok(address)
}
