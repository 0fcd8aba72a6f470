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
use percent_encoding::percent_decode_str;
use print::{Stop, printable, say};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use sonnette::redis::{Command, Notification, Redis, ServerError, Subscription};
use sonnette_std::{Client, Error, Interrupter, Socket};
use sonnette_tls::client_config;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

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
    user: Option<String>,
    password: Option<String>,
    host: String,
    port: u16,
}

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        const WRONG: &str = "it must be HOST:PORT, redis://[[USER]:PASSWORD@]HOST[:PORT] or rediss://...";
        let (tls, rest, is_url) = match text.split_once("://") {
            None => (false, text, false),
            Some(("redis", rest)) => (false, rest, true),
            Some(("rediss", rest)) => (true, rest, true),
            Some(_) => return Err(WRONG),
        };
        // A database has no channels of its own.
        let rest = if is_url { rest.split_once('/').map_or(rest, |(rest, _)| rest) } else { rest };
        let (login, address) = rest.rsplit_once('@').filter(|_| is_url).map_or((None, rest), |(l, a)| (Some(l), a));
        let decode = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let (user, password) = match login {
            None => (None, None),
            Some(login) => {
                let (user, password) = login.split_once(':').ok_or(WRONG)?;
                (Some(decode(user).ok_or(WRONG)?), Some(decode(password).ok_or(WRONG)?))
            }
        };
        // The last colon, unless it is inside an IPv6 address.
        let (host, port) = match address.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().map_err(|_| WRONG)?),
            None if is_url => (address, 6379),
            None => return Err(WRONG),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(WRONG);
        }
        Ok(Server { tls, user: user.filter(|user| !user.is_empty()), password, host, port })
    }
}

/// A server that does not even accept for so long is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Nor is one that does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match watch(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading it.
            let _ = writeln!(io::stderr(), "redis_watch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn watch(options: &Options) -> Result<()> {
    let Server { host, port, .. } = &options.server;
    let socket = connect(host, *port).map_err(|error| format!("cannot connect to {host}:{port}: {error}"))?;
    let interrupter = socket.interrupter();
    if !options.server.tls {
        let mut client = Client::new(Redis::new(), socket);
        session(&mut client, options, interrupter, |socket| socket)?;
        return ended(client.leave().and_then(|()| client.close()));
    }
    let config = client_config(options.ca.as_deref()).map_err(|error| match &options.ca {
        Some(path) => format!("cannot use {}: {error}", path.display()),
        None => format!("cannot use the certificates of the platform: {error}"),
    })?;
    let connection = ClientConnection::new(config, ServerName::try_from(host.clone())?)?;
    let mut client = Client::new(Redis::new(), StreamOwned::new(connection, socket));
    session(&mut client, options, interrupter, |stream| &mut stream.sock)?;
    ended(client.leave())?;
    let (_, mut stream, _) = client.into_parts();
    stream.conn.send_close_notify();
    // A server that is gone needs no goodbye.
    let _ = stream.conn.write_tls(&mut stream.sock);
    Ok(())
}

fn connect(host: &str, port: u16) -> io::Result<Socket> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let mut socket = Socket::from(stream);
                socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn session<S: Read + Write>(
    client: &mut Client<Redis, S>,
    options: &Options,
    interrupter: Interrupter,
    socket: impl FnOnce(&mut S) -> &mut Socket,
) -> Result<()> {
    ctrlc::set_handler(move || interrupter.interrupt())?;
    ended(subscribe(client, options))?;
    // For a message there is no hurry.
    socket(client.stream_mut()).set_read_timeout(None)?;
    ended(listen(client, options.count))
}

fn subscribe<S: Read + Write>(
    client: &mut Client<Redis, S>,
    options: &Options,
) -> std::result::Result<(), Stop<ServerError>> {
    if let Some(password) = &options.server.password {
        client.call(Command::auth(options.server.user.as_deref(), password))?;
    }
    client.enter(Subscription::channels(&options.channels))?;
    Ok(())
}

fn listen<S: Read + Write>(
    client: &mut Client<Redis, S>,
    count: Option<NonZeroU64>,
) -> std::result::Result<(), Stop<ServerError>> {
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
        let server = |tls, user: Option<&str>, password: Option<&str>, host: &str, port| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            Ok(Server { tls, user: owned(user), password: owned(password), host: host.into(), port })
        };
        for (text, expected) in [
            ("localhost:1", server(false, None, None, "localhost", 1)),
            ("[::1]:6379", server(false, None, None, "::1", 6379)),
            ("redis://localhost", server(false, None, None, "localhost", 6379)),
            ("redis://[::1]/3", server(false, None, None, "::1", 6379)),
            ("rediss://:p%40ss@host:7/0", server(true, None, Some("p@ss"), "host", 7)),
            ("rediss://user:a:b@host", server(true, Some("user"), Some("a:b"), "host", 6379)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in ["", "host", ":1", "host:x", "http://host:1", "redis://", "redis://user@host", "host:99999"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
