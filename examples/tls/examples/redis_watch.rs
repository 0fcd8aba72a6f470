//! Prints the messages of Redis' channels.
//!
//! `cargo run --example redis_watch -- HOST:PORT CHANNEL... [--count N] [--ca FILE]`
//!
//! The server may also be `redis://[[USER]:PASSWORD@]HOST[:PORT]`, or `rediss://` for TLS: then its certificate must be one
//! that the platform trusts, or with `--ca` one that the certificates in FILE vouch for, and must be made for HOST.
//!
//! Standard output has one line per message; everything else goes to standard error.

#[path = "../../support/print.rs"]
#[allow(dead_code, reason = "it has no lines without a name")]
mod print;

use clap::Parser;
use print::{Stop, printable, say};
use sonnette::redis::{Command, Notification, Redis, ServerError, Subscription};
use sonnette_std::{Client, Error};
use sonnette_tls::{Stream, Url, client_config, exit};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "redis_watch", about = "Prints the messages of Redis' channels.")]
struct Options {
    /// HOST:PORT, redis://[[USER]:PASSWORD@]HOST[:PORT], or rediss:// for TLS
    #[arg(value_name = "SERVER")]
    server: Server,
    #[arg(value_name = "CHANNEL", required = true)]
    channels: Vec<String>,
    /// Stop after so many messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// Trust these certificates (PEM) instead of those of the platform
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    tls: bool,
    /// User and password.
    login: Option<(String, String)>,
    host: String,
    port: u16,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let wrong = |why| format!("it must be HOST:PORT, redis://[[USER]:PASSWORD@]HOST[:PORT] or rediss://...: {why}");
        let is_url = text.contains("://");
        let url = if is_url { text.to_owned() } else { format!("redis://{text}") };
        let url: Url = url.parse().map_err(wrong)?;
        let tls = match &*url.scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(wrong("another scheme")),
        };
        let login = match (url.user, url.password) {
            (None, None) => None,
            (Some(user), Some(password)) if is_url => Some((user, password)),
            _ => return Err(wrong("a user without a password")),
        };
        let port = url.port.or(is_url.then_some(6379)).ok_or_else(|| wrong("no port"))?;
        // A database has no channels of its own.
        Ok(Server { tls, login, host: url.host, port })
    }
}

fn main() -> ExitCode {
    exit("redis_watch", watch(&Options::parse()))
}

fn watch(options: &Options) -> Result<()> {
    let Server { host, port, .. } = &options.server;
    let mut stream =
        Stream::connect(host, *port).map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    if options.server.tls {
        stream = stream.encrypt(host, client_config(options.ca.as_deref())?)?;
    }
    let interrupter = stream.socket().interrupter();
    ctrlc::set_handler(move || interrupter.interrupt())?;
    let mut client = Client::new(Redis::new(), stream);
    ended(subscribe(&mut client, options))?;
    client.stream_mut().wait_for_ever()?;
    ended(listen(&mut client, options.count))?;
    ended(client.leave())?;
    let (_, stream, _) = client.into_parts();
    stream.close();
    Ok(())
}

fn subscribe(client: &mut Client<Redis, Stream>, options: &Options) -> std::result::Result<(), Stop<ServerError>> {
    if let Some((user, password)) = &options.server.login {
        client.call(Command::auth(Some(&**user).filter(|user| !user.is_empty()), password))?;
    }
    client.enter(Subscription::channels(&options.channels))?;
    Ok(())
}

fn listen(client: &mut Client<Redis, Stream>, count: Option<NonZeroU64>) -> std::result::Result<(), Stop<ServerError>> {
    let mut messages = 0;
    while count.is_none_or(|count| messages < count.get()) {
        match client.next_notification()? {
            Some(Notification::Message { channel, payload }) => {
                say("message", format_args!("{} {}", printable(&channel), printable(&payload)))?;
                messages += 1;
            }
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

/// Ctrl-C is no failure.
fn ended(end: std::result::Result<(), impl Into<Stop<ServerError>>>) -> Result<()> {
    match end.map_err(Into::into) {
        Ok(()) | Err(Stop::Client(Error::Interrupted { .. })) => Ok(()),
        Err(Stop::Client(Error::Refused(refusal))) => Err(format!("the server refused: {refusal}").into()),
        Err(Stop::Client(error)) => Err(error.into()),
        Err(Stop::Output(error)) => Err(format!("cannot write: {error}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::Server;

    #[test]
    fn servers() {
        let server = |tls, login: Option<(&str, &str)>, host: &str, port| {
            let login = login.map(|(user, password)| (user.into(), password.into()));
            Ok(Server { tls, login, host: host.into(), port })
        };
        for (text, expected) in [
            ("localhost:1", server(false, None, "localhost", 1)),
            ("[::1]:6379", server(false, None, "::1", 6379)),
            ("redis://localhost", server(false, None, "localhost", 6379)),
            ("rediss://:p%40ss@host:7/0", server(true, Some(("", "p@ss")), "host", 7)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", "host", ":1", "host:x", "http://host:1", "redis://", "redis://user@host", "a:b@host:1"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
