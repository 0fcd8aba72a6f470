//! What must hold after each round, of what the client was told, what the server has done and what has passed between.
//! Each check is a function of these alone.

use crate::load::{Asked, Heard, Log, Told};
use crate::servers::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// What is broken.
pub(crate) type Verdict = Result<(), String>;

/// Octets by which the begin of a request is told from that of anything else.
const DISTINCT: usize = 6;

/// A session is played to its end, or is told that there is none, and nothing is told that makes no sense.
pub(crate) fn makes_sense(log: &Log) -> Verdict {
    for (index, told) in &log.told {
        if let Told::Wrong(answer) = told {
            return Err(format!("{} was answered by {answer}", log.asked[*index].token));
        }
    }
    match log.wrong.first() {
        Some(wrong) => Err(wrong.clone()),
        None if !log.finished && log.end.is_none() => Err("the session stopped, and no end was told".into()),
        None => Ok(()),
    }
}

/// Each request has exactly one outcome.
pub(crate) fn one_outcome(log: &Log) -> Verdict {
    let mut outcomes = vec![0; log.asked.len()];
    for (index, _) in &log.told {
        outcomes[*index] += 1;
    }
    match outcomes.iter().position(|&outcomes| outcomes != 1) {
        Some(index) => Err(format!("{} has {} outcomes", log.asked[index].token, outcomes[index])),
        None => Ok(()),
    }
}

/// What was told as lost unsent was not executed; what was answered was, once; nobody else's was. Where the order shows, each
/// was answered by its own place in it.
pub(crate) fn executed_as_told(log: &Log, executed: &[String], is_ordered: bool) -> Verdict {
    let asked: BTreeSet<&str> = log.asked.iter().map(|asked| &*asked.token).collect();
    let mut places = BTreeMap::new();
    for (place, token) in executed.iter().enumerate() {
        if !asked.contains(&**token) {
            return Err(format!("{token} was executed, and nobody asked for it"));
        }
        if places.insert(&**token, place + 1).is_some() {
            return Err(format!("{token} was executed twice"));
        }
    }
    for (index, told) in &log.told {
        let asked = &log.asked[*index];
        let place = places.get(&*asked.token).copied();
        match told {
            Told::Lost { sent: false } if place.is_some() => {
                return Err(format!("{} was told as lost unsent, and was executed", asked.token));
            }
            Told::Answered(_) if asked.kind == Kind::Effect && place.is_none() => {
                return Err(format!("{} was answered, and not executed", asked.token));
            }
            Told::Answered(told) if is_ordered && asked.kind == Kind::Effect && *told != place => {
                return Err(format!("{} was answered as number {told:?}, and executed as {place:?}", asked.token));
            }
            _ => {}
        }
    }
    Ok(())
}

/// No octet of what was told as lost unsent has passed; what was answered has, and nothing has twice.
pub(crate) fn passed_as_told(log: &Log, to_server: &[u8]) -> Verdict {
    for (index, told) in &log.told {
        let asked = &log.asked[*index];
        let times = memchr::memmem::find_iter(to_server, asked.token.as_bytes()).take(2).count();
        let has_passed = times > 0;
        if times > 1 {
            return Err(format!("{} has passed twice", asked.token));
        }
        match told {
            Told::Lost { sent: false } if has_passed => {
                return Err(format!("{} was told as lost unsent, and has passed", asked.token));
            }
            Told::Answered(_) if !has_passed => {
                return Err(format!("{} was answered, and has not passed", asked.token));
            }
            _ => {}
        }
    }
    // What has passed in part is the first of those that have not passed.
    let first = log.asked.iter().position(|asked| !contains(to_server, asked.token.as_bytes()));
    let unsent = first.filter(|first| log.told.contains(&(*first, Told::Lost { sent: false })));
    if let Some(Asked { token, begin: Some(begin), .. }) = unsent.map(|unsent| &log.asked[unsent]) {
        let begin = [begin.as_bytes(), token.as_bytes()].concat();
        if (DISTINCT..begin.len()).any(|octets| to_server.ends_with(&begin[..octets])) {
            return Err(format!("{token} was told as lost unsent, and has passed in part"));
        }
    }
    Ok(())
}

fn contains(octets: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(octets, part).is_some()
}

/// Notifications come in the order in which they were published, none of them twice, and none is missing unless that is
/// told; all of them if the session came to its end.
pub(crate) fn gapless(log: &Log, is_numbered: bool, published: u64) -> Verdict {
    let mut next = 0;
    for Heard { number, missed } in &log.heard {
        let is_next = if is_numbered { *number == next + missed } else { number + 1 >= next };
        if !is_next {
            return Err(format!("notification {number} came, {missed} missed, where {next} was expected"));
        }
        if *number >= published {
            return Err(format!("notification {number} came, and was never published"));
        }
        next = number + 1;
    }
    if log.finished && next != published {
        return Err(format!("{next} of {published} notifications came, and no end was told"));
    }
    Ok(())
}

/// Nothing was told that has not passed; where all that passed must have arrived, all of it was.
pub(crate) fn all_that_passed_is_told(log: &Log, passed: usize, all_arrived: bool) -> Verdict {
    let told = log.counted;
    match told.cmp(&passed) {
        std::cmp::Ordering::Greater => Err(format!("{told} notifications were told, and {passed} have passed")),
        std::cmp::Ordering::Less if all_arrived => {
            Err(format!("{passed} notifications have passed, and {told} were told"))
        }
        _ => Ok(()),
    }
}

/// An end was told no later than so long after what caused it.
pub(crate) fn in_time(log: &Log, struck: Instant, bound: Duration) -> Result<Option<Duration>, String> {
    let Some((at, end)) = &log.end else { return Ok(None) };
    let Some(took) = at.checked_duration_since(struck) else { return Ok(None) };
    if took > bound {
        return Err(format!("{end:?} was told after {took:?}, which is more than {bound:?}"));
    }
    Ok(Some(took))
}

/// What a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: usize,
    threads: usize,
    children: usize,
}

impl Holdings {
    /// Those of this process.
    pub(crate) fn now() -> Holdings {
        let entries = |path: &str| fs::read_dir(path).map_or(0, Iterator::count);
        let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let children = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        Holdings {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            children: children.map(|children| children.split_whitespace().count()).sum(),
        }
    }
}

/// Nothing is left behind: `now` comes to be what was before, soon.
pub(crate) fn nothing_left(before: &Holdings, patience: Duration, now: impl Fn() -> Holdings) -> Verdict {
    let began = Instant::now();
    loop {
        let held = now();
        if held == *before {
            return Ok(());
        }
        // A thread that was joined is counted for a moment longer.
        if began.elapsed() > patience {
            return Err(format!("{held:?} are held, and before it were {before:?}"));
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(token: &str, kind: Kind) -> Asked {
        Asked { token: token.into(), kind, begin: Some("*3 RPUSH ".into()) }
    }

    /// Three effects and an echo: two answered, one lost after it was sent, one before.
    fn log() -> Log {
        Log {
            asked: vec![
                asked("t0", Kind::Effect),
                asked("t1", Kind::Echo),
                asked("t2", Kind::Effect),
                asked("t3", Kind::Effect),
            ],
            told: vec![
                (0, Told::Answered(Some(1))),
                (1, Told::Answered(None)),
                (2, Told::Lost { sent: true }),
                (3, Told::Lost { sent: false }),
            ],
            heard: [0, 1, 2].map(|number| Heard { number, missed: 0 }).into(),
            counted: 3,
            end: Some((Instant::now(), "closed".into())),
            ..Log::default()
        }
    }

    fn tokens(tokens: &[&str]) -> Vec<String> {
        tokens.iter().map(|token| (*token).to_owned()).collect()
    }

    #[test]
    fn sense() {
        makes_sense(&log()).unwrap();
        let mut stopped = log();
        stopped.end = None;
        assert!(makes_sense(&stopped).is_err());
        let mut wrong = log();
        wrong.wrong.push("a late word".into());
        assert!(makes_sense(&wrong).is_err());
        let mut mistaken = log();
        mistaken.told[0].1 = Told::Wrong("t9".into());
        assert!(makes_sense(&mistaken).is_err());
    }

    #[test]
    fn outcomes() {
        one_outcome(&log()).unwrap();
        let mut none = log();
        none.told.pop();
        assert!(one_outcome(&none).is_err());
        let mut two = log();
        two.told.push((0, Told::Lost { sent: true }));
        assert!(one_outcome(&two).is_err());
    }

    #[test]
    fn executions() {
        executed_as_told(&log(), &tokens(&["t0"]), true).unwrap();
        executed_as_told(&log(), &tokens(&["t0", "t2"]), true).unwrap();
        let executed = [
            &["t0", "t3"][..], // lost unsent
            &["t2"],           // not that which was answered
            &["t0", "t0"],
            &["t0", "t8"], // never asked
            &["t2", "t0"], // answered as the first
        ];
        for executed in executed {
            assert!(executed_as_told(&log(), &tokens(executed), true).is_err(), "{executed:?}");
        }
        // Where the order does not show.
        executed_as_told(&log(), &tokens(&["t2", "t0"]), false).unwrap();
    }

    #[test]
    fn passing() {
        passed_as_told(&log(), b"*3 RPUSH t0 *2 PING t1 *3 RPUSH t2").unwrap();
        passed_as_told(&log(), b"*3 RPUSH t0 *2 PING t1 *3 R").unwrap();
        for passed in [
            &b"*3 RPUSH t0 *2 PING t1 *3 RPUSH t2 *3 RPUSH t3"[..],
            b"*3 RPUSH t0 *2 PING t1 *3 RPUSH t2 *3 RPUSH t",
            b"*3 RPUSH t0 *2 PING t1 *3 RPUSH t2 *3 RPU",
            b"*2 PING t1",
            b"*3 RPUSH t0 *2 PING t1 *3 RPUSH t0",
        ] {
            assert!(passed_as_told(&log(), passed).is_err(), "{}", passed.escape_ascii());
        }
        // What has passed in part is one that was sent.
        passed_as_told(&log(), b"*3 RPUSH t0 *2 PING t1 *3 RPUSH").unwrap();
    }

    #[test]
    fn gaps() {
        let heard = |numbers: &[(u64, u64)]| Log {
            heard: numbers.iter().map(|&(number, missed)| Heard { number, missed }).collect(),
            ..log()
        };
        for told in [&[][..], &[(0, 0), (1, 0)], &[(0, 0), (3, 2)], &[(2, 2)]] {
            gapless(&heard(told), true, 5).unwrap();
        }
        for untold in [&[(1, 0)][..], &[(0, 0), (2, 0)], &[(0, 0), (0, 0)], &[(1, 1), (0, 0)], &[(0, 0), (1, 1)]] {
            assert!(gapless(&heard(untold), true, 5).is_err(), "{untold:?}");
        }
        assert!(gapless(&heard(&[(0, 0), (1, 0)]), true, 1).is_err(), "never published");
        // Some are told as one.
        gapless(&heard(&[(0, 0), (3, 0), (3, 0), (4, 0)]), false, 5).unwrap();
        assert!(gapless(&heard(&[(3, 0), (1, 0)]), false, 5).is_err(), "backwards");
        let finished = |numbers| Log { finished: true, ..heard(numbers) };
        gapless(&finished(&[(4, 0)]), false, 5).unwrap();
        assert!(gapless(&finished(&[(3, 0)]), false, 5).is_err(), "the last one is missing");
        assert!(gapless(&finished(&[(0, 0), (1, 0)]), true, 3).is_err());
    }

    #[test]
    fn what_passed() {
        all_that_passed_is_told(&log(), 3, true).unwrap();
        all_that_passed_is_told(&log(), 4, false).unwrap();
        assert!(all_that_passed_is_told(&log(), 4, true).is_err());
        assert!(all_that_passed_is_told(&log(), 2, false).is_err());
    }

    #[test]
    fn time() {
        let (bound, struck) = (Duration::from_secs(2), Instant::now());
        let ended = |after: u64| Log { end: Some((struck + Duration::from_secs(after), String::new())), ..log() };
        assert_eq!(in_time(&ended(1), struck, bound), Ok(Some(Duration::from_secs(1))));
        assert!(in_time(&ended(3), struck, bound).is_err());
        assert_eq!(in_time(&Log { end: None, ..log() }, struck, bound), Ok(None));
    }

    #[test]
    fn left_behind() {
        let before = Holdings::now();
        nothing_left(&before, Duration::ZERO, || before.clone()).unwrap();
        for more in [
            Holdings { descriptors: before.descriptors + 1, ..before.clone() },
            Holdings { threads: before.threads + 1, ..before.clone() },
            Holdings { children: before.children + 1, ..before.clone() },
        ] {
            assert!(nothing_left(&before, Duration::ZERO, || more.clone()).is_err());
        }
        // What it counts is there.
        let file = fs::File::open("/proc/self/stat").unwrap();
        let held = Holdings::now();
        assert!(held.descriptors > 0 && held.threads > 0);
        drop(file);
    }
}
