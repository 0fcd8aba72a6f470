//! What `watch` does with a client of any runtime.

use super::print::{Stop, printable, say};
use clap::ValueEnum;
use sonnette::board::{Board, Notification, Refusal, Reply, Request};
use sonnette_tokio::{Driver, Error, Transport};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;

/// What the client runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    Std,
    Smol,
    Tokio,
}

/// What the session needs of a client, whatever its runtime.
pub(crate) trait Client {
    async fn call(&mut self, request: Request) -> Result<Reply, Error<Refusal>>;
    async fn notify(&mut self) -> Result<(), Error<Refusal>>;
    async fn wait_notification(&mut self) -> Result<Option<Notification>, Error<Refusal>>;
    async fn ring(&mut self, request: Request) -> Result<Reply, Error<Refusal>>;
}

impl<S: Read + Write> Client for sonnette_std::Client<Board, S> {
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

/// Asks for everything once, then fetches what the server rings for, so many times.
pub(crate) async fn session(client: &mut impl Client, count: Option<NonZeroU64>) -> Result<(), Stop<Refusal>> {
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
