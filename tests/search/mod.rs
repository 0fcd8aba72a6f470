//! Breadth first through all states of a model, so that what fails is told with a shortest way to it.

use std::collections::HashSet;
use std::fmt::{Debug, Display};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

pub(crate) type Checked<T = ()> = Result<T, String>;

macro_rules! hold {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err(format!($($what)+));
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Polling {
    /// After each step, until there is nothing more to tell.
    AtOnce,
    /// Each poll is a step.
    Late,
}

/// What one delivery takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pieces {
    Frames,
    Octets,
}

/// How often each may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(crate) requests: u8,
    pub(crate) news: u8,
    pub(crate) enters: u8,
    pub(crate) leaves: u8,
}

pub(crate) const fn bounds(requests: u8, news: u8, enters: u8, leaves: u8) -> Bounds {
    Bounds { requests, news, enters, leaves }
}

/// All that there is at one moment.
pub(crate) trait World: Clone + Debug + Hash {
    type Run: Display;
    type Step: Copy + Debug;
    type Told: Debug;

    fn new(run: &Self::Run) -> Self;

    /// What can happen next.
    fn steps(&self) -> Vec<Self::Step>;

    /// The state after a step, and what was told meanwhile.
    fn after(&self, step: Self::Step, run: &Self::Run) -> Checked<(Self, Self::Told)>;

    /// What must hold in each state.
    fn check(&self, run: &Self::Run) -> Checked;
}

/// Goes through all states, and panics with a shortest way to one in which something does not hold.
///
/// A state seen is kept as 64 bits of hash. Two states share one, and the second is then not looked at, with a
/// probability of 2^-65 for each pair: one in a hundred thousand for twenty million states.
pub(crate) fn search<W: World>(run: &W::Run) {
    let (began, mut states, mut steps) = (Instant::now(), HashSet::new(), 0_u64);
    let mut frontier = vec![(W::new(run), Vec::new())];
    states.insert(fingerprint(&frontier[0].0));
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (world, way) in frontier {
            if let Err(wrong) = world.check(run) {
                fail::<W>(run, &way, &wrong);
            }
            for step in world.steps() {
                let way = || way.iter().copied().chain([step]).collect::<Vec<_>>();
                steps += 1;
                match world.after(step, run) {
                    Ok((world, _)) if states.insert(fingerprint(&world)) => next.push((world, way())),
                    Ok(_) => {}
                    Err(wrong) => fail::<W>(run, &way(), &wrong),
                }
            }
        }
        frontier = next;
    }
    println!("model: {run}: {} states, {steps} steps, {:.1} s", states.len(), began.elapsed().as_secs_f64());
}

/// With the same keys in every run.
fn fingerprint(world: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn fail<W: World>(run: &W::Run, way: &[W::Step], wrong: &str) -> ! {
    let (mut world, mut shown) = (W::new(run), String::new());
    for step in way {
        let told = match world.after(*step, run) {
            Ok((after, told)) => {
                world = after;
                format!("{told:?}")
            }
            Err(wrong) => wrong,
        };
        shown += &format!("  {step:?}: {told}\n");
    }
    panic!("{run}: {wrong}, after\n{shown}{world:#?}");
}
