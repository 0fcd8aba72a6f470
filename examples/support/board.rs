//! The notice board that examples serve, and its dialects.

use super::tell;
use clap::ValueEnum;
use sonnette::board::Board;
use sonnette_std::server::Server;
use std::io;
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Dialect {
    /// Changes of mode have no answer.
    Silent,
    /// Changes of mode are answered by OK.
    Acknowledged,
}

impl Dialect {
    pub(crate) fn board(self) -> Board {
        match self {
            Dialect::Silent => Board::silent(),
            Dialect::Acknowledged => Board::acknowledged(),
        }
    }
}

/// The ads, the one shown at the start last.
const ADS: [&str; 4] =
    ["two rooms near the canal", "bicycle, hardly used", "piano lessons, patient teacher", "nice flat in the 11e"];

/// A notice board with something on it.
pub(crate) fn open(address: impl ToSocketAddrs, dialect: Dialect) -> io::Result<Server> {
    let mut server = Server::bind(address, dialect.board())?;
    server.set_random(46774);
    server.set_classified(ADS[ADS.len() - 1]).map_err(io::Error::other)?;
    Ok(server)
}

/// Serves for ever; `every` so often there is a new number or a new ad, in turn.
pub(crate) fn serve(mut server: Server, every: Duration) -> io::Result<()> {
    let mut number = 90210_i64;
    let mut ads = ADS.iter().cycle();
    let mut random_next = true;
    let mut due = Instant::now() + every;
    loop {
        let now = Instant::now();
        if now >= due {
            if random_next {
                server.set_random(number);
                // Knuth's 64-bit linear congruential generator, cut to five digits.
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                number = (number >> 33).rem_euclid(90_000) + 10_000;
            } else if let Some(ad) = ads.next() {
                server.set_classified(*ad).map_err(io::Error::other)?;
            }
            random_next = !random_next;
            due = (due + every).max(now);
        }
        let turn = server.turn(Some(due.saturating_duration_since(now)))?;
        if let Some(error) = turn.accept_error {
            let clients = server.clients();
            tell(format_args!("server: a client cannot be accepted now: {error}; going on with {clients}"));
        }
    }
}
