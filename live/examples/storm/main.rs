//! Storms: clients of all runtimes against the real servers, which are killed, stopped and frozen under them, over a proxy
//! that cuts, resets and stalls; and after each fault it is checked that nothing was lost silently.
//!
//! A seed reproduces what is chosen; when things happen is up to the machine.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

mod checks;
mod child;
mod load;
mod proxy;
mod report;
mod round;
mod runtimes;
mod servers;

use clap::{Parser, Subcommand, ValueEnum};
use load::Load;
use proxy::Direction;
use report::{Report, name};
use round::{Fault, Round};
use servers::Spoken;
use sonnette::imap::Imap;
use sonnette::mpd::Mpd;
use sonnette::redis::Redis;
use sonnette_live::Server;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(about = "Clients against real servers, with faults. Stops at the first thing that is broken.")]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Rounds with faults of all kinds, under all loads.
    #[arg(long, default_value_t = 150)]
    rounds: usize,
    /// Cuts a short session at each n-th octet of each direction, in each way. 0: not at all.
    #[arg(long, default_value_t = 0)]
    every: usize,
    /// Reproduces what was chosen.
    #[arg(long)]
    seed: Option<u64>,
    /// Plays only this one of all rounds.
    #[arg(long)]
    round: Option<u32>,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    server: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    runtime: Vec<runtimes::Kind>,
    #[arg(long, value_delimiter = ',')]
    load: Vec<Load>,
    #[arg(long, value_delimiter = ',')]
    fault: Vec<Fault>,
    /// Tells of each round before it is played.
    #[arg(long)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Part {
    /// For the program itself: one client.
    #[command(hide = true)]
    Part(child::Part),
}

/// How a short session is cut at each octet.
const CUTS: [Fault; 3] = [Fault::Cut, Fault::Reset, Fault::HalfClose];

/// Whether this is among those that were asked for: all, if none was.
fn is_wanted<T: PartialEq>(wanted: &[T], value: &T) -> bool {
    wanted.is_empty() || wanted.contains(value)
}

impl Options {
    fn runtimes(&self) -> impl Iterator<Item = runtimes::Kind> {
        runtimes::Kind::value_variants().iter().copied().filter(|runtime| is_wanted(&self.runtime, runtime))
    }

    fn faults(&self) -> impl Iterator<Item = Fault> {
        Fault::value_variants().iter().copied().filter(|fault| is_wanted(&self.fault, fault))
    }

    /// Each runtime with each load and each fault, but for what there is not: std shares nothing, a walk is for cuts, and a
    /// flood needs a server that tells all it has to tell while it is asked.
    fn combinations<P: Spoken>(&self) -> Vec<(runtimes::Kind, Load, Fault)> {
        let loads = [Load::Idle, Load::Burst, Load::Pipelined, Load::Shared];
        let loads: Vec<Load> = loads.into_iter().filter(|load| is_wanted(&self.load, load)).collect();
        let pairs = self.runtimes().flat_map(|runtime| loads.iter().map(move |&load| (runtime, load)));
        let pairs = pairs.filter(|pair| *pair != (runtimes::Kind::Std, Load::Shared));
        let all = pairs.flat_map(|(runtime, load)| self.faults().map(move |fault| (runtime, load, fault)));
        all.filter(|(_, load, fault)| *fault != Fault::Flood || (*load == Load::Shared && P::NUMBERED)).collect()
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Part::Part(part)) = &options.part {
        match &*part.server {
            Redis::NAME => child::part::<Redis>(part),
            Mpd::NAME => child::part::<Mpd>(part),
            _ => child::part::<Imap>(part),
        }
        return ExitCode::SUCCESS;
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("seed {seed}");
    runtimes::prepare();
    let began = Instant::now();
    let mut storm = Storm { options, seed, number: 0, report: Report::default() };
    let outcome = storm.all();
    storm.report.print();
    println!("\n{} s", began.elapsed().as_secs());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            eprintln!("storm: {broken}");
            ExitCode::FAILURE
        }
    }
}

struct Storm {
    options: Options,
    seed: u64,
    number: u32,
    report: Report,
}

impl Storm {
    fn all(&mut self) -> Result<(), String> {
        self.against::<Redis>()?;
        self.against::<Mpd>()?;
        self.against::<Imap>()
    }

    /// A third of the rounds, and all cuts of its session.
    fn against<P: Spoken>(&mut self) -> Result<(), String> {
        if !is_wanted(&self.options.server, &P::NAME.to_owned()) {
            return Ok(());
        }
        let mut server = P::start();
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut combinations = self.options.combinations::<P>();
        random.shuffle(&mut combinations);
        let rounds = self.options.rounds.div_ceil(3);
        for (runtime, load, fault) in combinations.into_iter().cycle().take(rounds) {
            self.play::<P>(&mut server, runtime, load, fault, None)?;
        }
        self.cuts::<P>(&mut server)
    }

    fn cuts<P: Spoken>(&mut self, server: &mut Server) -> Result<(), String> {
        if self.options.every == 0 {
            return Ok(());
        }
        for runtime in self.options.runtimes().collect::<Vec<_>>() {
            // How long it is when it is not cut.
            let whole =
                self.play::<P>(server, runtime, Load::Walk, Fault::Cut, Some((Direction::ToClient, usize::MAX)))?;
            for fault in CUTS.into_iter().filter(|fault| is_wanted(&self.options.fault, fault)).collect::<Vec<_>>() {
                for (direction, octets) in [(Direction::ToServer, whole.0), (Direction::ToClient, whole.1)] {
                    for at in (0..octets).step_by(self.options.every) {
                        self.play::<P>(server, runtime, Load::Walk, fault, Some((direction, at)))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Plays a round, and returns how many octets have passed in each direction.
    fn play<P: Spoken>(
        &mut self,
        server: &mut Server,
        runtime: runtimes::Kind,
        load: Load,
        fault: Fault,
        at: Option<(Direction, usize)>,
    ) -> Result<(usize, usize), String> {
        let seed = self.seed.wrapping_add(u64::from(self.number) << 32);
        let round = Round { number: self.number, runtime, load, fault, at, seed };
        self.number += 1;
        let is_whole = at.is_some_and(|(_, at)| at == usize::MAX);
        if !is_whole && self.options.round.is_some_and(|only| only != round.number) {
            return Ok((0, 0));
        }
        let at = at.map_or(String::new(), |(direction, at)| format!(" {direction:?} at {at}"));
        let what = format!("{} on {} in {}: {}{at}", name(&load), name(&runtime), P::NAME, name(&fault));
        if self.options.verbose {
            println!("{} {what}", round.number);
        }
        let record = round::play::<P>(server, &round, &mut self.report)
            .map_err(|broken| format!("round {} with seed {}, {what}: {broken}", round.number, self.seed))?;
        Ok((record.to_server.len(), record.to_client.len()))
    }
}
