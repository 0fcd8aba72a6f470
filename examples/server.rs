//! Serves the notice board, with news now and then.
//!
//! `cargo run --example server -- [--listen ADDR] [--dialect silent|acknowledged] [--every MILLIS]`
//!
//! The first line on standard output says where: `listening on 127.0.0.1:6789`.

mod support;

use clap::Parser;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "server", about = "Serves the notice board, with news now and then.")]
struct Options {
    /// Where to listen; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6789", value_parser = support::address)]
    listen: String,
    #[arg(long, value_enum, default_value = "silent")]
    dialect: support::board::Dialect,
    /// Time between two pieces of news
    #[arg(long, value_name = "MILLIS", default_value_t = 1_000)]
    every: u64,
}

fn main() -> ExitCode {
    support::exit("server", run(&support::options()))
}

fn run(options: &Options) -> io::Result<()> {
    let server = support::board::open(&*options.listen, options.dialect)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", options.listen)))?;
    let mut out = io::stdout();
    writeln!(out, "listening on {}", server.local_addr()?)?;
    out.flush()?;
    support::board::serve(server, Duration::from_millis(options.every))
}
