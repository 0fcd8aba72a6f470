//! The scenarios, played by each client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use sonnette_conformance::scripted::{MANNERS, Manner, Polled, Scripted};
use sonnette_conformance::{Call, Line, Scenario, Spoken, play, play_with_patience, tcp};
use std::net::SocketAddr;

/// A client's way to play a scenario.
trait Client<P: Spoken> {
    const NAME: &'static str;

    /// Over a scripted stream, each call dropped after so many polls and taken up again; whether the whole script was
    /// played, too.
    fn with_patience(scenario: &Scenario<P>, script: &[Line], manner: Manner, polls: usize) -> (Vec<String>, bool);

    fn in_memory(scenario: &Scenario<P>, script: &[Line], manner: Manner) -> (Vec<String>, bool) {
        Self::with_patience(scenario, script, manner, usize::MAX)
    }

    fn over_tcp(scenario: &Scenario<P>, address: SocketAddr) -> Vec<String>;
}

struct Std;

impl<P: Spoken> Client<P> for Std {
    const NAME: &'static str = "std";

    fn with_patience(scenario: &Scenario<P>, script: &[Line], manner: Manner, polls: usize) -> (Vec<String>, bool) {
        let mut client = sonnette_std::Client::new(scenario.protocol.clone(), Scripted::new(script, manner));
        let outcomes = async_io::block_on(play_with_patience(&mut client, &scenario.calls, polls));
        (outcomes, client.stream().is_over())
    }

    fn over_tcp(scenario: &Scenario<P>, address: SocketAddr) -> Vec<String> {
        let mut client = sonnette_std::Connect::new().tcp(scenario.protocol.clone(), address).unwrap();
        async_io::block_on(play(&mut client, &scenario.calls))
    }
}

struct Smol;

impl<P: Spoken> Client<P> for Smol {
    const NAME: &'static str = "smol";

    fn with_patience(scenario: &Scenario<P>, script: &[Line], manner: Manner, polls: usize) -> (Vec<String>, bool) {
        let mut client = sonnette_smol::Client::new(scenario.protocol.clone(), Polled(Scripted::new(script, manner)));
        let outcomes = async_io::block_on(play_with_patience(&mut *client, &scenario.calls, polls));
        (outcomes, client.stream().0.is_over())
    }

    fn over_tcp(scenario: &Scenario<P>, address: SocketAddr) -> Vec<String> {
        async_io::block_on(async {
            let connect = sonnette_smol::Connect::new();
            let client = sonnette_smol::Client::connect_with(&connect, scenario.protocol.clone(), address).await;
            play(&mut *client.unwrap(), &scenario.calls).await
        })
    }
}

struct Tokio;

impl<P: Spoken> Client<P> for Tokio {
    const NAME: &'static str = "tokio";

    fn with_patience(scenario: &Scenario<P>, script: &[Line], manner: Manner, polls: usize) -> (Vec<String>, bool) {
        runtime().block_on(async {
            let stream = Polled(Scripted::new(script, manner));
            let mut client = sonnette_tokio::Client::new(scenario.protocol.clone(), stream);
            let outcomes = play_with_patience(&mut *client, &scenario.calls, polls).await;
            (outcomes, client.stream().0.is_over())
        })
    }

    fn over_tcp(scenario: &Scenario<P>, address: SocketAddr) -> Vec<String> {
        runtime().block_on(async {
            let connect = sonnette_tokio::Connect::new();
            let client = sonnette_tokio::Client::connect_with(&connect, scenario.protocol.clone(), address).await;
            play(&mut *client.unwrap(), &scenario.calls).await
        })
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn in_memory<P: Spoken, C: Client<P>>(scenarios: &[Scenario<P>]) {
    for scenario in scenarios {
        for manner in MANNERS {
            let at = format!("{} by {}, {manner:?}", scenario.name, C::NAME);
            let (outcomes, over) = C::in_memory(scenario, &scenario.wire, manner);
            assert_eq!(outcomes, scenario.expected(), "{at}");
            assert!(over, "{at}: there is more in the script");
        }
    }
}

/// Each future is dropped at each of its await points: nothing is lost, repeated or reordered.
fn dropped<P: Spoken, C: Client<P>>(scenarios: &[Scenario<P>]) {
    // Where a ring is taken apart to be taken up again, its enter tells by itself that it was refused.
    let comes_to_the_same = |scenario: &&Scenario<P>| {
        let rung = |calls: &[Call]| calls[0].method == "ring" && calls[1].outcome.contains("refused");
        !scenario.calls.windows(2).any(rung)
    };
    for scenario in scenarios.iter().filter(comes_to_the_same) {
        for manner in MANNERS {
            for polls in 1..20 {
                let at = format!("{} by {}, {manner:?}, dropped after {polls} polls", scenario.name, C::NAME);
                let (outcomes, over) = C::with_patience(scenario, &scenario.wire, manner, polls);
                assert_eq!(outcomes, scenario.expected(), "{at}");
                assert!(over, "{at}: there is more in the script");
            }
        }
    }
}

fn over_tcp<P: Spoken, C: Client<P>>(scenarios: &[Scenario<P>]) {
    for scenario in scenarios {
        let (address, server) = tcp::serve(scenario.wire.clone());
        let outcomes = C::over_tcp(scenario, address);
        assert_eq!(outcomes, scenario.expected(), "{} by {}", scenario.name, C::NAME);
        server.join().unwrap();
    }
}

/// Cut off after each octet, by the end of the stream or by a reset, a client tells what it was told before, and then how
/// the connection ended: the same however the stream goes, and the same as every other client.
fn cut<P: Spoken, C: Client<P>>(scenarios: &[Scenario<P>]) {
    // A ring that was taken up again waits for its answer alone: what is left behind it may be on its way still.
    let comes_to_the_same = |scenario: &&Scenario<P>| {
        let left = |calls: &[Call]| calls[0].method == "ring" && calls[1].method == "leave";
        !scenario.calls.windows(2).any(left)
    };
    for scenario in scenarios.iter().filter(comes_to_the_same) {
        for after in 0..=scenario.octets() {
            for end in [None, Some(Line::Reset)] {
                let script = scenario.cut(after, end.clone());
                let expected = Std::in_memory(scenario, &script, MANNERS[0]).0;
                for manner in MANNERS {
                    let outcomes = C::in_memory(scenario, &script, manner).0;
                    assert_eq!(
                        outcomes,
                        expected,
                        "{} by {}, {manner:?}, cut at {after}: {end:?}",
                        scenario.name,
                        C::NAME
                    );
                }
            }
        }
    }
}

macro_rules! clients {
    ($($name:ident $client:ident;)*) => {$(
        mod $name {
            use super::*;

            clients!($client board imap mpd redis);
        }
    )*};
    ($client:ident $($protocol:ident)*) => {$(
        mod $protocol {
            use super::*;

            #[test]
            fn over_scripted_streams() {
                in_memory::<_, $client>(&sonnette_conformance::$protocol::scenarios());
            }

            #[test]
            fn dropped_anywhere() {
                dropped::<_, $client>(&sonnette_conformance::$protocol::scenarios());
            }

            #[test]
            fn cut_off_anywhere() {
                cut::<_, $client>(&sonnette_conformance::$protocol::scenarios());
            }

            #[test]
            fn over_sockets() {
                over_tcp::<_, $client>(&sonnette_conformance::$protocol::scenarios());
            }
        }
    )*};
}

clients! {
    on_std Std;
    on_smol Smol;
    on_tokio Tokio;
}
