//! What was tried, in numbers.

use crate::load::{Load, Log};
use crate::round::{Fault, Round};
use crate::runtimes;
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// The numbers of some rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    rounds: u64,
    faults: u64,
    connections: u64,
    requests: u64,
    lost: u64,
    unsent: u64,
    notifications: u64,
    missed: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.rounds += other.rounds;
        self.faults += other.faults;
        self.connections += other.connections;
        self.requests += other.requests;
        self.lost += other.lost;
        self.unsent += other.unsent;
        self.notifications += other.notifications;
        self.missed += other.missed;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    all: Counts,
    by_server: BTreeMap<&'static str, Counts>,
    by_runtime: BTreeMap<runtimes::Kind, Counts>,
    by_load: BTreeMap<Load, Counts>,
    by_fault: BTreeMap<Fault, Counts>,
    /// How long after a fault the end was told.
    took: BTreeMap<Fault, Vec<Duration>>,
}

/// A round, in numbers.
pub(crate) struct Played<'a> {
    pub server: &'static str,
    pub round: &'a Round,
    /// The fault came before the session was over.
    pub struck: bool,
    pub connections: u64,
    pub took: Option<Duration>,
}

impl Report {
    pub(crate) fn add(&mut self, played: &Played<'_>, log: &Log) {
        use crate::load::Told;
        let lost = |only_unsent: bool| {
            log.told.iter().filter(|(_, told)| matches!(told, Told::Lost { sent } if !(only_unsent && *sent))).count()
                as u64
        };
        let counts = Counts {
            rounds: 1,
            faults: played.struck.into(),
            connections: played.connections,
            requests: log.asked.len() as u64 + log.others,
            lost: lost(false),
            unsent: lost(true),
            notifications: log.counted as u64,
            missed: log.heard.iter().map(|heard| heard.missed).sum(),
        };
        self.all.add(&counts);
        self.by_server.entry(played.server).or_default().add(&counts);
        self.by_runtime.entry(played.round.runtime).or_default().add(&counts);
        self.by_load.entry(played.round.load).or_default().add(&counts);
        self.by_fault.entry(played.round.fault).or_default().add(&counts);
        self.took.entry(played.round.fault).or_default().extend(played.took);
    }

    pub(crate) fn print(&mut self) {
        println!(
            "{:<14} {:>7} {:>7} {:>11} {:>9} {:>8} {:>8} {:>13} {:>7}",
            "", "rounds", "faults", "connections", "requests", "lost", "unsent", "notifications", "missed"
        );
        line("all", &self.all);
        self.by_server.iter().for_each(|(server, counts)| line(server, counts));
        self.by_runtime.iter().for_each(|(runtime, counts)| line(name(runtime), counts));
        self.by_load.iter().for_each(|(load, counts)| line(name(load), counts));
        self.by_fault.iter().for_each(|(fault, counts)| line(name(fault), counts));
        println!(
            "\n{:<14} {:>7} {:>9} {:>9} {:>9}  the end was told after, ms",
            "", "ends", "median", "99 %", "longest"
        );
        for (fault, took) in self.took.iter_mut().filter(|(_, took)| !took.is_empty()) {
            took.sort();
            let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
            println!("{:<14} {:>7} {:>9.2} {:>9.2} {:>9.2}", name(fault), took.len(), at(50), at(99), at(100));
        }
    }
}

fn line(what: impl Display, counts: &Counts) {
    let Counts { rounds, faults, connections, requests, lost, unsent, notifications, missed } = counts;
    println!(
        "{what:<14} {rounds:>7} {faults:>7} {connections:>11} {requests:>9} {lost:>8} {unsent:>8} {notifications:>13} {missed:>7}"
    );
}

/// As on the command line.
pub(crate) fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
