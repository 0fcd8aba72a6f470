//! Prints the messages of Redis' channels.
//!
//! `cargo run --example redis_watch -- HOST:PORT CHANNEL... [--count N] [--ca FILE]`
//!
//! The server may also be `redis://[USER@]HOST[:PORT]`, or `rediss://` for TLS: then its certificate must be one that the
//! platform trusts, or with `--ca` one that the certificates in FILE vouch for, and must be made for HOST. The password, if
//! there is one, is that in the environment variable `REDIS_PASSWORD`.
//!
//! Standard output has one line per message; everything else goes to standard error.

#[path = "../../support/print.rs"]
#[allow(dead_code, reason = "it has no lines without a name")]
mod print;

use clap::Parser;
use print::{Stop, printable, say};
use sonnette::redis::{Command, Notification, Redis, ServerError, Subscription};
use sonnette_std::{Client, Error};
use sonnette_tls::{Stream, Url, client_config, exit, password, server};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(
    name = "redis_watch",
    about = "Prints the messages of Redis' channels. The password, if there is one, is that in the environment variable \
             REDIS_PASSWORD."
)]
struct Options {
    /// HOST:PORT, redis://[USER@]HOST[:PORT], or rediss:// for TLS
    #[arg(value_name = "SERVER")]
    server: String,
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
    user: Option<String>,
    host: String,
    port: u16,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let wrong = |why| {
            format!(
                "it must be HOST:PORT, redis://[USER@]HOST[:PORT] or rediss://, with the password in REDIS_PASSWORD: {why}"
            )
        };
        let is_url = text.contains("://");
        let url = if is_url { text.to_owned() } else { format!("redis://{text}") };
        let url: Url = url.parse().map_err(wrong)?;
        let tls = match &*url.scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(wrong("another scheme")),
        };
        let user = url.user.filter(|user| !user.is_empty());
        if user.is_some() && !is_url {
            return Err(wrong("a user, which only a URL has"));
        }
        let port = url.port.or(is_url.then_some(6379)).ok_or_else(|| wrong("no port"))?;
        // A database has no channels of its own.
        Ok(Server { tls, user, host: url.host, port })
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    exit("redis_watch", watch(&server::<Options, _>(&options.server), &options))
}

fn watch(server: &Server, options: &Options) -> Result<()> {
    let Server { tls, user, host, port } = server;
    let password = password("REDIS_PASSWORD")?;
    if user.is_some() && password.is_none() {
        return Err("REDIS_PASSWORD: not set, and there is a user".into());
    }
    let mut stream =
        Stream::connect(host, *port).map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    if *tls {
        stream = stream.encrypt(host, client_config(options.ca.as_deref())?)?;
    }
    let interrupter = stream.socket().interrupter();
    ctrlc::set_handler(move || interrupter.interrupt())?;
    let mut client = Client::new(Redis::new(), stream);
    if let Some(password) = password {
        ended(client.call(Command::auth(user.as_deref(), &password)).map(drop))?;
    }
    ended(client.enter(Subscription::channels(&options.channels)).map(drop))?;
    client.stream_mut().wait_for_ever()?;
    ended(listen(&mut client, options.count))?;
    ended(client.leave())?;
    let (_, stream, _) = client.into_parts();
    stream.close();
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
#[allow(clippy::unwrap_used, reason = "tests say what is wrong by panicking")]
mod tests {
    use super::Server;

    #[test]
    fn servers() {
        let server = |tls, user: Option<&str>, host: &str, port| {
            Ok(Server { tls, user: user.map(str::to_owned), host: host.into(), port })
        };
        for (text, expected) in [
            ("localhost:1", server(false, None, "localhost", 1)),
            ("[::1]:6379", server(false, None, "::1", 6379)),
            ("redis://localhost", server(false, None, "localhost", 6379)),
            ("rediss://a%40b@host:7/0", server(true, Some("a@b"), "host", 7)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", "host", ":1", "host:x", "http://host:1", "redis://", "a@host:1"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
        for text in ["redis://a:hunter2@host", "rediss://:hunter2@host:1", "a:hunter2@host:1", "hunter2:x@host"] {
            let wrong = text.parse::<Server>().unwrap_err();
            assert!(wrong.contains("password in it") && !wrong.contains("hunter2"), "{wrong}");
        }
    }
}
