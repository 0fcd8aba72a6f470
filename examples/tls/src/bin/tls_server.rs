//! Serves the notice board over TLS, with a certificate made for the occasion.
//!
//! `cargo run -p sonnette-tls --bin tls_server -- [--listen ADDR] [--ca FILE]`
//!
//! The certificate goes to FILE, for `tls_watch` to trust. The first line on standard output says where it listens.

use clap::Parser;
use sonnette::board::Board;
use sonnette_tls::{serve, server_config};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "tls_server", about = "Serves the notice board over TLS.")]
struct Options {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6790")]
    listen: String,
    /// Where to write the certificate
    #[arg(long, value_name = "FILE", default_value = "notice-board.pem")]
    ca: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(listen(&options)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls_server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn listen(options: &Options) -> Result<()> {
    let (config, certificate) = server_config()?;
    std::fs::write(&options.ca, certificate)
        .map_err(|error| format!("cannot write {}: {error}", options.ca.display()))?;
    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream, acceptor).await {
                eprintln!("tls_server: a client is gone: {error}");
            }
        });
    }
}

async fn serve_one(stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    serve(sonnette_tokio::Io::from(stream), Board::silent()).await
}
