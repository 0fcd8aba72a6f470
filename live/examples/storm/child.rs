//! A client in a process of its own, which can be frozen: this program again, which prints its log.

use crate::load::{Asked, Heard, Load, Log, Script, Signal, Told};
use crate::report::name;
use crate::round;
use crate::runtimes::{self, Settings};
use crate::servers::{Kind, Spoken, limits};
use clap::Args;
use rustix::process::{Pid, Signal as Kill, WaitOptions, kill_process, waitpid};
use sonnette::Timeouts;
use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{self, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A script, as it is handed over.
#[derive(Args, Clone, Debug)]
pub(crate) struct Part {
    #[arg(long)]
    pub server: String,
    #[arg(long)]
    runtime: runtimes::Kind,
    #[arg(long)]
    load: Load,
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    narrow: bool,
    #[arg(long)]
    round: u32,
    #[arg(long)]
    requests: usize,
    #[arg(long)]
    padding: usize,
    #[arg(long)]
    notifications: u64,
    #[arg(long)]
    mark: usize,
    /// Milliseconds, of all deadlines.
    #[arg(long)]
    timeout: u64,
}

pub(crate) struct Child {
    process: process::Child,
    reader: JoinHandle<()>,
}

impl Child {
    pub(crate) fn start<P: Spoken>(runtime: runtimes::Kind, script: &Script, signals: Sender<Signal>) -> Child {
        let Script { round, load, settings, requests, padding, notifications, mark } = script;
        let timeout = settings.timeouts.reply.unwrap_or_default().as_millis();
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg("part").args(settings.narrow.then_some("--narrow"));
        let arguments = [
            ("--server", P::NAME.to_owned()),
            ("--runtime", name(&runtime)),
            ("--load", name(load)),
            ("--address", settings.address.to_string()),
            ("--round", round.to_string()),
            ("--requests", requests.to_string()),
            ("--padding", padding.to_string()),
            ("--notifications", notifications.to_string()),
            ("--mark", mark.to_string()),
            ("--timeout", timeout.to_string()),
        ];
        for (option, value) in arguments {
            command.args([option, &value]);
        }
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = process.stdout.take().unwrap();
        Child { process, reader: thread::spawn(move || read(output, &signals)) }
    }

    /// Returns once it stands still.
    pub(crate) fn freeze(&self) {
        let id = Pid::from_child(&self.process);
        kill_process(id, Kill::STOP).unwrap();
        let status = waitpid(Some(id), WaitOptions::UNTRACED).unwrap();
        assert!(status.is_some_and(|(_, status)| status.stopped()), "the client has ended: {status:?}");
    }

    pub(crate) fn thaw(&self) {
        kill_process(Pid::from_child(&self.process), Kill::CONT).unwrap();
    }

    pub(crate) fn join(mut self) {
        self.reader.join().unwrap();
        assert!(self.process.wait().unwrap().success(), "the client failed");
    }
}

/// What that program does: plays its part, and prints what it was told.
pub(crate) fn part<P: Spoken>(part: &Part) {
    let timeout = Some(Duration::from_millis(part.timeout));
    let settings = Settings {
        address: part.address,
        limits: limits::<P>(),
        timeouts: Timeouts { reply: timeout, silence: timeout, refresh: None },
        narrow: part.narrow,
    };
    let &Part { round, load, requests, padding, notifications, mark, .. } = part;
    let script = Script { round, load, settings, requests, padding, notifications, mark };
    let (signals, heard) = channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in heard {
                println!("ready");
            }
        });
        let log = round::run::<P>(part.runtime, &script, None, &signals);
        drop(signals);
        print(&log);
    });
}

fn print(log: &Log) {
    for Asked { token, kind, .. } in &log.asked {
        println!("{} {token}", if *kind == Kind::Effect { "effect" } else { "echo" });
    }
    for (index, told) in &log.told {
        match told {
            Told::Answered(None) => println!("answered {index}"),
            Told::Answered(Some(place)) => println!("answered {index} {place}"),
            Told::Lost { sent } => println!("lost {index} {sent}"),
            Told::Wrong(answer) => println!("mistaken {index} {answer}"),
        }
    }
    for Heard { number, missed } in &log.heard {
        println!("heard {number} {missed}");
    }
    for wrong in &log.wrong {
        println!("wrong {wrong}");
    }
    println!("counted {}\nothers {}", log.counted, log.others);
    if log.finished {
        println!("finished");
    }
    if let Some((_, end)) = &log.end {
        println!("end {end}");
    }
}

/// Hands on what it prints.
fn read(output: ChildStdout, signals: &Sender<Signal>) {
    let mut log = Log::default();
    for line in BufReader::new(output).lines() {
        let line = line.unwrap();
        if line == "ready" {
            let _ = signals.send(Signal::Ready);
        } else if read_line(&mut log, &line).is_none() {
            log.wrong.push(format!("the client printed {line:?}"));
        }
    }
    let _ = signals.send(Signal::Over(Box::new(log)));
}

fn read_line(log: &mut Log, line: &str) -> Option<()> {
    let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
    match what {
        "effect" | "echo" => {
            let kind = if what == "effect" { Kind::Effect } else { Kind::Echo };
            log.asked.push(Asked { token: rest.into(), kind, begin: None });
        }
        "answered" => {
            let place = if second.is_empty() { None } else { Some(second.parse().ok()?) };
            log.told.push((first.parse().ok()?, Told::Answered(place)));
        }
        "lost" => log.told.push((first.parse().ok()?, Told::Lost { sent: second.parse().ok()? })),
        "mistaken" => log.told.push((first.parse().ok()?, Told::Wrong(second.into()))),
        "heard" => log.heard.push(Heard { number: first.parse().ok()?, missed: second.parse().ok()? }),
        "wrong" => log.wrong.push(rest.into()),
        "counted" => log.counted = rest.parse().ok()?,
        "others" => log.others = rest.parse().ok()?,
        "finished" => log.finished = true,
        "end" => log.end = Some((Instant::now(), rest.into())),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        let mut log = Log::default();
        let lines = "effect t0\necho t1\nanswered 0 1\nanswered 1\nlost 0 false\nmistaken 1 so so\nheard 3 2\n\
                     wrong all wrong\ncounted 4\nothers 5\nfinished\nend it is closed";
        for line in lines.lines() {
            read_line(&mut log, line).unwrap();
        }
        assert_eq!(log.asked.iter().map(|asked| asked.kind).collect::<Vec<_>>(), [Kind::Effect, Kind::Echo]);
        let told = [
            (0, Told::Answered(Some(1))),
            (1, Told::Answered(None)),
            (0, Told::Lost { sent: false }),
            (1, Told::Wrong("so so".into())),
        ];
        assert_eq!(log.told, told);
        assert_eq!(log.heard, [Heard { number: 3, missed: 2 }]);
        assert_eq!((&*log.wrong, log.counted, log.others, log.finished), (&["all wrong".to_owned()][..], 4, 5, true));
        assert_eq!(log.end.unwrap().1, "it is closed");
        assert!(read_line(&mut Log::default(), "nonsense").is_none());
    }
}
