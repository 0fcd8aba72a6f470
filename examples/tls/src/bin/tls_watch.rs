//! Watches a notice board over TLS, on any of the runtimes.
//!
//! `cargo run -p sonnette-tls --bin tls_watch -- HOST:PORT [--runtime std|smol|tokio] [--ca FILE] [--count N]`
//!
//! The server's certificate must be one that the platform trusts, or with `--ca` one that the certificates in FILE vouch
//! for, and must be made for HOST.

#[path = "../../../support/print.rs"]
#[allow(dead_code, reason = "it has no lines without a name")]
mod print;
#[path = "../../../support/session.rs"]
mod session;

use clap::Parser;
use futures_rustls::TlsConnector as SmolConnector;
use print::Stop;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use session::{Runtime, session};
use sonnette::board::{Board, Refusal};
use sonnette_driver::{Driver, Transport};
use sonnette_tls::{client_config, exit};
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_rustls::TlsConnector as TokioConnector;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "tls_watch", about = "Watches a notice board over TLS.")]
struct Options {
    #[arg(value_name = "HOST:PORT")]
    address: String,
    #[arg(long, value_enum, default_value = "std")]
    runtime: Runtime,
    /// Trust these certificates (PEM) instead of those of the platform
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Stop after so many notifications
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
}

fn main() -> ExitCode {
    exit("tls_watch", watch(&Options::parse()))
}

fn watch(options: &Options) -> Result<()> {
    let (host, _) = options.address.rsplit_once(':').ok_or("the address must be HOST:PORT")?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
    let config = client_config(options.ca.as_deref())?;
    match options.runtime {
        Runtime::Std => on_std(options, config, name),
        Runtime::Smol => async_io::block_on(on_smol(options, config, name)),
        Runtime::Tokio => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(on_tokio(options, config, name)),
    }
}

fn on_std(options: &Options, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<()> {
    let stream = TcpStream::connect(&options.address)?;
    stream.set_nodelay(true)?;
    // A `Socket`, so that a write that the server does not take does not keep the client from reading.
    let stream = StreamOwned::new(ClientConnection::new(config, name)?, sonnette_std::Socket::from(stream));
    let mut client = sonnette_std::Client::new(Board::silent(), stream);
    stopped(futures_lite::future::block_on(session(&mut client, options.count)))?;
    client.leave()?;
    let (_, mut stream, _) = client.into_parts();
    stream.conn.send_close_notify();
    Ok(stream.conn.write_tls(&mut stream.sock).map(drop)?)
}

async fn on_smol(options: &Options, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<()> {
    let stream = async_net::TcpStream::connect(&options.address).await?;
    stream.set_nodelay(true)?;
    let stream = SmolConnector::from(config).connect(name, stream).await?;
    watch_on_runtime(&mut sonnette_smol::Client::new(Board::silent(), stream), options.count).await
}

async fn on_tokio(options: &Options, config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<()> {
    let stream = tokio::net::TcpStream::connect(&options.address).await?;
    stream.set_nodelay(true)?;
    let stream = TokioConnector::from(config).connect(name, stream).await?;
    watch_on_runtime(&mut sonnette_tokio::Client::new(Board::silent(), stream), options.count).await
}

async fn watch_on_runtime<T: Transport>(client: &mut Driver<Board, T>, count: Option<NonZeroU64>) -> Result<()> {
    stopped(session(client, count).await)?;
    client.leave().await?;
    Ok(client.close().await?)
}

fn stopped(session: std::result::Result<(), Stop<Refusal>>) -> Result<()> {
    session.map_err(|stop| match stop {
        Stop::Client(error) => error.into(),
        Stop::Output(error) => format!("cannot write: {error}").into(),
    })
}
