//! Watches an MPD: waits until something changes, and says what is playing then.
//!
//! `cargo run --example mpd_watch -- HOST:PORT [--count N]`
//!
//! Standard output has one line per fact; everything else goes to standard error.

mod support;

use clap::Parser;
use sonnette::mpd::{Ack, Answer, Command, Mpd, Request};
use sonnette_std::{Client, Connect, Error, Socket};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::time::Duration;
use support::print::{Stop, printable, say, say_line};

#[derive(Parser)]
#[command(name = "mpd_watch", about = "Watches an MPD: waits until something changes, and says what is playing then.")]
struct Options {
    #[arg(value_name = "HOST:PORT", value_parser = support::address)]
    address: String,
    /// Stop after so many changes
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
}

/// A server that does not even accept for so long is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    support::exit("mpd_watch", watch(&support::options()))
}

fn watch(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Connect::new()
        .connect_timeout(Some(CONNECT_TIMEOUT))
        .tcp(Mpd::new(), &*options.address)
        .map_err(|error| format!("cannot connect to {}: {error}", options.address))?;
    let interrupter = client.interrupter();
    ctrlc::set_handler(move || interrupter.interrupt())?;
    match session(&mut client, options.count) {
        Ok(()) => {}
        Err(Stop::Client(Error::Interrupted { .. })) => support::tell("mpd_watch: interrupted, leaving"),
        Err(Stop::Client(Error::Refused(ack))) => return Err(format!("the server refused: {ack}").into()),
        Err(Stop::Client(error)) => return Err(error.into()),
        Err(Stop::Output(error)) => return Err(format!("cannot write: {error}").into()),
    }
    match client.leave().and_then(|()| client.close()) {
        Ok(()) | Err(Error::Interrupted { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn session(client: &mut Client<Mpd, Socket>, count: Option<NonZeroU64>) -> Result<(), Stop<Ack>> {
    // Of all subsystems; a version of MPD before 0.24 would forget what it kept for those not named.
    client.enter(vec![])?;
    let mut changes = 0;
    while count.is_none_or(|count| changes < count.get()) {
        let Some(subsystem) = client.next_notification()? else {
            // MPD ends the mode after each group of changes, and keeps what changes until it is entered again.
            client.enter(vec![])?;
            continue;
        };
        changes += 1;
        say("changed", printable(subsystem.as_str().as_bytes()))?;
        // Leave, ask, enter again: one write, and nothing is lost.
        let answer = client.ring(Request::ListOk(vec![Command::new("status"), Command::new("currentsong")]))?;
        let mut parts = answer.parts();
        let (status, song) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match status.get("state") {
            Some(b"play") => say("playing", title(&song))?,
            Some(b"pause") => say("paused", title(&song))?,
            _ => say_line("stopped")?,
        }
    }
    Ok(())
}

/// `Artist - Title`, or what there is of it.
fn title(song: &Answer) -> String {
    let value = |key| song.get(key).map(printable);
    let title = value("Title").or(value("Name")).or(value("file")).unwrap_or_default();
    match value("Artist") {
        Some(artist) => format!("{artist} - {title}"),
        None => title,
    }
}
