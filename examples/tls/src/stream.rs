//! What the examples that take a URL share: the URL, and a stream that is encrypted or not.

use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use sonnette_std::Socket;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A server that does not even accept for so long is as good as none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Nor is one that does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// `SCHEME://[USER@]HOST[:PORT][/PATH]`, of which user and path may be percent-encoded. (RFC 3986) One with a password is
/// refused: the arguments of a program can be seen by others, and are kept in histories.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the line above")]
pub struct Url {
    pub scheme: String,
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
    pub path: String,
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(decoded) => Ok(decoded.into_owned()),
            Err(_) => Err("what is percent-encoded is not UTF-8"),
        };
        let (scheme, rest) = text.split_once("://").ok_or("it is not SCHEME://HOST")?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, authority),
        };
        if login.is_some_and(|login| login.contains(':')) {
            return Err("there is a password in it, which others could see");
        }
        let user = login.map(decode).transpose()?;
        // The last colon, unless it is inside an IPv6 address.
        let (host, port) = match address.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| "the port is no number")?)),
            None => (address, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("the host is missing");
        }
        Ok(Url { scheme: scheme.into(), user, host: host.into(), port, path: decode(path)? })
    }
}

/// A socket, encrypted or not.
#[derive(Debug)]
pub enum Stream {
    /// Not.
    Plain(Socket),
    /// By TLS.
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    /// Connects over TCP; a read waits ten seconds, until [`wait_for_ever`](Self::wait_for_ever).
    ///
    /// # Errors
    /// That of the last address, or that there is none.
    pub fn connect(host: &str, port: u16) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let mut socket = Socket::from(stream);
                    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                    return Ok(Stream::Plain(socket));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Encrypts what is not encrypted yet. Of who is at the other end a read or write tells.
    ///
    /// # Errors
    /// `host` is no name that a certificate can be made for.
    pub fn encrypt(self, host: &str, config: Arc<ClientConfig>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let Stream::Plain(socket) = self else { return Ok(self) };
        let connection = ClientConnection::new(config, ServerName::try_from(host.to_owned())?)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    /// The socket, below TLS if there is any.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    /// For what the server tells of its own accord there is no hurry.
    ///
    /// # Errors
    /// Those of the system.
    pub fn wait_for_ever(&mut self) -> io::Result<()> {
        let socket = match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &mut stream.sock,
        };
        socket.set_read_timeout(None)
    }

    /// Says goodbye, if somebody is there to hear it.
    pub fn close(self) {
        match self {
            Stream::Plain(socket) => drop(socket.shutdown_write()),
            Stream::Tls(mut stream) => {
                stream.conn.send_close_notify();
                drop(stream.conn.write_tls(&mut stream.sock));
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(octets),
            Stream::Tls(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests say what is wrong by panicking")]
mod tests {
    use super::Url;

    #[test]
    fn urls() {
        let url = |scheme: &str, user: Option<&str>, host: &str, port, path: &str| {
            let user = user.map(str::to_owned);
            Ok(Url { scheme: scheme.into(), user, host: host.into(), port, path: path.into() })
        };
        for (text, expected) in [
            ("redis://localhost", url("redis", None, "localhost", None, "")),
            ("redis://[::1]/3", url("redis", None, "::1", None, "3")),
            ("redis://[::1]:7", url("redis", None, "::1", Some(7), "")),
            ("rediss://user@host:7/0", url("rediss", Some("user"), "host", Some(7), "0")),
            ("imap://a%40b@host/Sent%20Items/x", url("imap", Some("a@b"), "host", None, "Sent Items/x")),
            ("imap://a%3Ab@host", url("imap", Some("a:b"), "host", None, "")),
            ("imap://a@b@host", url("imap", Some("a@b"), "host", None, "")),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
        for text in [
            "redis://:hunter2@host",
            "redis://a:hunter2@host:x",
            "imap://a:hun@ter2@host",
            "x://a:%ffhunter2@h",
            "x://a:@h",
        ] {
            let wrong = text.parse::<Url>().unwrap_err();
            assert!(wrong.contains("password") && !wrong.contains("ter2"), "{text}: {wrong}");
        }
        for text in
            ["", "host", "host:1", "redis://", "redis://:1", "redis://host:x", "redis://host:99999", "x://a%ff@h"]
        {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
