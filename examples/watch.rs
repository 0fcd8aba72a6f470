//! Watches a notice board: asks for everything once, then fetches what the server rings for.
//!
//! `cargo run --example watch -- [HOST:PORT] [--runtime std|smol|tokio] [--dialect silent|acknowledged] [--count N]`
//!
//! Without an address it starts a server of its own. Standard output has one line per fact; everything else goes to
//! standard error.

mod support;

use clap::Parser;
use futures_lite::FutureExt;
use sonnette::board::{Board, Refusal};
use sonnette_std::Error;
use sonnette_tokio::{Connect, Driver, Transport};
use std::io;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::print::Stop;
use support::session::{Runtime, session};

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
    dialect: support::board::Dialect,
    /// Stop after so many notifications (5 with the server of its own, else never)
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
}

/// How many notifications the server of its own is watched for.
const COUNT: NonZeroU64 = NonZeroU64::new(5).unwrap();

/// How often that server has news: five of them ring within two seconds.
const EVERY: Duration = Duration::from_millis(300);

/// A server that does not even accept for so long is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    support::exit("watch", watch(&support::options()))
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

fn stopped(session: Result<(), Stop<Refusal>>) -> Result<(), Box<dyn std::error::Error>> {
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

fn start_server(dialect: support::board::Dialect) -> io::Result<String> {
    let server = support::board::open("127.0.0.1:0", dialect)?;
    let address = server.local_addr()?.to_string();
    std::thread::spawn(move || {
        if let Err(error) = support::board::serve(server, EVERY) {
            support::tell(format_args!("server: {error}"));
        }
    });
    Ok(address)
}
