//! One round: a session, a fault in it, and the checks.

use crate::checks::{self, Holdings};
use crate::child::Child;
use crate::load::{Load, Log, Script, Signal, alone, together};
use crate::proxy::{Direction, Plan, Proxy, Record, Trouble};
use crate::report::{Played, Report};
use crate::runtimes::{self, Settings, Smol, Std, Tokio, TokioThreads};
use crate::servers::{News, PATIENCE, Spoken, limits};
use clap::ValueEnum;
use sonnette::Timeouts;
use sonnette_live::Server;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Deadlines of a session that is to live through whatever happens.
const LONG: Timeouts = Timeouts { reply: Some(PATIENCE), refresh: None, silence: Some(PATIENCE) };

/// Those of a session whose peer will say nothing.
const SHORT: Duration = Duration::from_millis(200);

/// Those of a client that will be frozen: enough to freeze it in, on a busy machine.
const FROZEN: Duration = Duration::from_millis(400);

/// What is waited for in turns is waited for so long.
const TURN: Duration = Duration::from_millis(5);

/// How late a program may be on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Fault {
    /// The server is killed, and started again.
    Kill,
    /// It is asked to end, and started again.
    Stop,
    /// It stands still until that is told.
    Freeze,
    /// It stands still for a moment.
    Pause,
    /// The client stands still for longer than its deadlines, while all it waits for arrives.
    FreezeClient,
    /// Both sides are told that the other one has closed.
    Cut,
    /// The connection is reset.
    Reset,
    /// One side is told that the other one has closed.
    HalfClose,
    /// Nothing passes in one direction, until that is told.
    Hole,
    /// Nothing passes to the server, which has much to tell all the while.
    Flood,
    /// Nothing passes in one direction for a moment.
    Stall,
    /// A few octets pass at a time.
    Split,
}

impl Fault {
    /// The session ends by it.
    fn is_fatal(self) -> bool {
        !matches!(self, Fault::Pause | Fault::FreezeClient | Fault::Stall | Fault::Split)
    }

    fn is_silent(self) -> bool {
        matches!(self, Fault::Freeze | Fault::Hole | Fault::Flood)
    }

    fn is_of_server(self) -> bool {
        matches!(self, Fault::Kill | Fault::Stop | Fault::Freeze | Fault::Pause)
    }

    fn timeouts(self) -> Timeouts {
        let both = |time| Timeouts { reply: Some(time), silence: Some(time), refresh: None };
        match self {
            Fault::FreezeClient => both(FROZEN),
            fault if fault.is_silent() => both(SHORT),
            _ => LONG,
        }
    }

    fn trouble(self, random: &mut fastrand::Rng) -> Trouble {
        match self {
            Fault::Cut => Trouble::Cut,
            Fault::Reset => Trouble::Reset,
            Fault::HalfClose => Trouble::HalfClose,
            Fault::Hole | Fault::Flood | Fault::FreezeClient => Trouble::Hold,
            Fault::Stall => Trouble::Stall(Duration::from_millis(random.u64(1..50))),
            Fault::Split => Trouble::Split,
            Fault::Kill | Fault::Stop | Fault::Freeze | Fault::Pause => Trouble::None,
        }
    }
}

/// All that is chosen about a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub number: u32,
    pub runtime: runtimes::Kind,
    pub load: Load,
    pub fault: Fault,
    /// Where the proxy makes trouble, unless that is left to chance.
    pub at: Option<(Direction, usize)>,
    pub seed: u64,
}

/// A session, with the fault in it: what passed, if nothing is broken.
pub(crate) fn play<P: Spoken>(server: &mut Server, round: &Round, report: &mut Report) -> Result<Record, String> {
    let before = Holdings::now();
    let mut random = fastrand::Rng::with_seed(round.seed);
    let mut news = News::<P>::new(server);
    // It has a place to publish in.
    P::publish(&mut news, round.number, 0..0);
    let plan = plan(round, &mut random);
    let proxy = Proxy::start(server.address, plan).map_err(|error| error.to_string())?;
    let script = script::<P>(round, proxy.address, plan.narrow, &mut random);
    let (signals, heard) = channel();
    let walker = (round.load == Load::Walk).then(|| News::new(server));
    let client = Client::start::<P>(round, script, walker, signals);
    let mut director = Director { server, news, round, script, proxy: &proxy, client: &client, heard, random };
    let (log, struck) = director.direct()?;
    drop(director);
    client.join();
    let record = proxy.finish();
    let struck = struck.or(record.struck);

    let mut news = News::<P>::new(server);
    // A reset, or what is like it, may drop what has passed.
    let may_drop = match round.fault {
        Fault::Cut => false,
        Fault::HalfClose => plan.direction == Direction::ToServer,
        _ => true,
    };
    let evidence = Evidence { executed: P::executed(server, &mut news, round.number), record, struck, may_drop };
    let took = check::<P>(round.fault, &script, &log, &evidence)?;
    P::clean(server, &mut news, round.number);
    drop(news);
    checks::nothing_left(&before, PATIENCE, Holdings::now)?;
    let Evidence { record, struck, .. } = evidence;
    let struck = struck.is_some();
    report.add(&Played { server: P::NAME, round, struck, connections: record.connections, took }, &log);
    Ok(record)
}

fn plan(round: &Round, random: &mut fastrand::Rng) -> Plan {
    let by_chance = |random: &mut fastrand::Rng| {
        let direction = if random.bool() { Direction::ToServer } else { Direction::ToClient };
        // As often early as late, whatever the length of the session.
        let octets = 1 << random.u32(3..=14);
        (direction, random.usize(0..octets))
    };
    let (direction, at) = match (round.at, round.fault) {
        (Some(at), _) => at,
        // While all of its tasks still ask.
        (None, Fault::Flood) => (Direction::ToServer, random.usize(500..5_000)),
        (None, Fault::Split) => (Direction::ToServer, 0),
        // Answers are what it waits for.
        (None, Fault::FreezeClient) => (Direction::ToClient, random.usize(20..400)),
        (None, _) => by_chance(random),
    };
    // A client that is frozen has said all it wants to say: what it has not would be overdue.
    let narrow = round.load != Load::Walk && round.fault != Fault::FreezeClient && random.bool();
    Plan { trouble: round.fault.trouble(random), direction, at, narrow, seed: random.u64(..) }
}

fn script<P: Spoken>(round: &Round, address: SocketAddr, narrow: bool, random: &mut fastrand::Rng) -> Script {
    let many = P::IN_FLIGHT * 2;
    let (requests, notifications) = match round.load {
        Load::Idle => (1, random.u64(1..=3)),
        Load::Burst => (1, many as u64),
        Load::Pipelined => (many, 0),
        Load::Shared => (many, P::IN_FLIGHT as u64),
        Load::Walk => (5, 2),
    };
    let notifications = if round.fault == Fault::Flood { u64::MAX } else { notifications };
    let padding = if narrow && round.load == Load::Pipelined { 500 } else { 0 };
    let settings = Settings { address, limits: limits::<P>(), timeouts: round.fault.timeouts(), narrow };
    // Where the proxy holds answers back, those of a later mark may never come.
    let is_held = matches!(round.fault, Fault::FreezeClient | Fault::Flood);
    let mark = if is_held { 0 } else { random.usize(0..requests) };
    Script { round: round.number, load: round.load, settings, requests, padding, notifications, mark }
}

/// Where the client is.
enum Client {
    Thread(JoinHandle<()>),
    Child(Child),
}

impl Client {
    fn start<P: Spoken>(round: &Round, script: Script, news: Option<News<P>>, signals: Sender<Signal>) -> Client {
        let Round { runtime, fault, .. } = *round;
        if fault == Fault::FreezeClient {
            return Client::Child(Child::start::<P>(runtime, &script, signals));
        }
        Client::Thread(thread::spawn(move || {
            let log = run(runtime, &script, news, &signals);
            let _ = signals.send(Signal::Over(Box::new(log)));
        }))
    }

    fn join(self) {
        match self {
            Client::Thread(thread) => thread.join().unwrap(),
            Client::Child(child) => child.join(),
        }
    }
}

/// Does what the script says.
pub(crate) fn run<P: Spoken>(
    runtime: runtimes::Kind,
    script: &Script,
    news: Option<News<P>>,
    signals: &Sender<Signal>,
) -> Log {
    match (runtime, script.load) {
        (runtimes::Kind::Smol, Load::Shared) => together::<P, Smol>(script, signals),
        (runtimes::Kind::Tokio, Load::Shared) => together::<P, Tokio>(script, signals),
        (runtimes::Kind::TokioThreads, Load::Shared) => together::<P, TokioThreads>(script, signals),
        (runtimes::Kind::Std, _) => alone::<P, Std>(script, news, signals),
        (runtimes::Kind::Smol, _) => alone::<P, Smol>(script, news, signals),
        (runtimes::Kind::Tokio, _) => alone::<P, Tokio>(script, news, signals),
        (runtimes::Kind::TokioThreads, _) => alone::<P, TokioThreads>(script, news, signals),
    }
}

/// Publishes, and makes those faults that the proxy does not.
struct Director<'a, P: Spoken> {
    server: &'a mut Server,
    news: News<P>,
    round: &'a Round,
    script: Script,
    proxy: &'a Proxy,
    client: &'a Client,
    heard: Receiver<Signal>,
    random: fastrand::Rng,
}

impl<P: Spoken> Director<'_, P> {
    /// What the client was told, and when the fault came, if that is known here.
    fn direct(&mut self) -> Result<(Log, Option<Instant>), String> {
        if let (Fault::FreezeClient, Client::Child(child)) = (self.round.fault, self.client) {
            return Ok((self.freeze_client(child)?, None));
        }
        if let Signal::Over(log) = self.signal()? {
            return Ok((*log, None));
        }
        let mut struck = None;
        let notifications = self.script.notifications;
        if self.round.fault.is_of_server() {
            // The last one is not among them, so the client still waits.
            let first = if notifications == 0 { 0 } else { self.random.u64(0..notifications) };
            self.publish(0..first);
            struck = Some(self.strike());
            if self.round.fault == Fault::Pause {
                self.publish(first..notifications);
            }
        } else if self.round.fault == Fault::Flood {
            return Ok((self.flood()?, None));
        } else {
            self.publish(0..notifications);
        }
        let log = self.over()?;
        match self.round.fault {
            Fault::Kill | Fault::Stop => self.server.restart(),
            Fault::Freeze => self.server.thaw(),
            _ => {}
        }
        Ok((log, struck))
    }

    fn over(&self) -> Result<Log, String> {
        loop {
            if let Signal::Over(log) = self.signal()? {
                return Ok(*log);
            }
        }
    }

    /// Publishes until the end is told, or should have been long ago.
    fn flood(&mut self) -> Result<Log, String> {
        let began = Instant::now();
        let mut next = 0;
        while began.elapsed() < SLACK * 4 {
            self.publish(next..next + 100);
            next += 100;
            if let Ok(Signal::Over(log)) = self.heard.try_recv() {
                return Ok(*log);
            }
        }
        self.over()
    }

    fn signal(&self) -> Result<Signal, String> {
        self.heard.recv_timeout(PATIENCE * 2).map_err(|_| format!("the client was told nothing for {:?}", PATIENCE * 2))
    }

    fn publish(&mut self, numbers: Range<u64>) {
        // A walk has a publisher of its own.
        if self.round.load != Load::Walk {
            P::publish(&mut self.news, self.round.number, numbers);
        }
    }

    /// When the server met with it.
    fn strike(&mut self) -> Instant {
        match self.round.fault {
            Fault::Kill => {
                let struck = Instant::now();
                self.server.kill();
                return struck;
            }
            Fault::Stop => self.server.stop(),
            Fault::Pause => {
                self.server.freeze();
                thread::sleep(Duration::from_millis(self.random.u64(1..20)));
                self.server.thaw();
            }
            _ => self.server.freeze(),
        }
        Instant::now()
    }

    /// Has the client stand still from before its answers arrive until after they are overdue.
    fn freeze_client(&mut self, child: &Child) -> Result<Log, String> {
        let (began, mut frozen) = (Instant::now(), false);
        while began.elapsed() < PATIENCE {
            match self.heard.recv_timeout(if frozen { PATIENCE } else { TURN }) {
                Ok(Signal::Ready) => self.publish(0..self.script.notifications),
                Ok(Signal::Over(log)) => return Ok(*log),
                Err(_) => {}
            }
            if !frozen && self.proxy.wait_until(TURN, |record| record.struck.is_some()) {
                // It is doing something, or waits already.
                thread::sleep(Duration::from_millis(self.random.u64(0..10)));
                child.freeze();
                self.proxy.release();
                thread::sleep(FROZEN + Duration::from_millis(100));
                child.thaw();
                frozen = true;
            }
        }
        Err(format!("the client was told nothing for {PATIENCE:?}"))
    }
}

/// What is known of a round beside what the client was told.
struct Evidence {
    executed: Vec<String>,
    record: Record,
    /// When the fault came.
    struck: Option<Instant>,
    /// Not all that has passed must have arrived.
    may_drop: bool,
}

/// All that must hold, and how long after the fault its end was told.
fn check<P: Spoken>(fault: Fault, script: &Script, log: &Log, evidence: &Evidence) -> Result<Option<Duration>, String> {
    let Evidence { executed, record, struck, may_drop } = evidence;
    checks::makes_sense(log)?;
    checks::one_outcome(log)?;
    checks::executed_as_told(log, executed, P::ORDERED)?;
    checks::passed_as_told(log, &record.to_server)?;
    checks::gapless(log, P::NUMBERED, script.notifications)?;
    let has_stopped = log.finished || log.has_heard_all(script.notifications);
    let all_arrived = struck.is_some() && !may_drop && !has_stopped;
    checks::all_that_passed_is_told(log, P::notifications_in(&record.to_client), all_arrived)?;
    if log.finished {
        return Ok(None);
    }
    let end = log.end.as_ref().map(|(_, end)| &**end).unwrap_or_default();
    match *struck {
        // Deadlines as short as these may pass on a busy machine before anything happens.
        None if fault.timeouts() != LONG => Ok(None),
        None => Err(format!("it ended by {end:?}, and nothing had happened")),
        Some(_) if !fault.is_fatal() => Err(format!("it ended by {end:?}, and need not have")),
        Some(struck) if fault.is_silent() => checks::in_time(log, struck, SHORT * 2 + SLACK),
        Some(struck) => checks::in_time(log, struck, SLACK),
    }
}
