//! What a client does in a round, and the log of what it was told.

use crate::runtimes::{Runtime, Settings, Sharing};
use crate::servers::{Kind, News, Outcome, PATIENCE, Spoken, token};
use clap::ValueEnum;
use futures_lite::future;
use sonnette::{Event, RequestId};
use sonnette_conformance::subject::Subject;
use sonnette_driver::{Error, Handle, Rung, Subscriber};
use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

/// Tasks that share a connection.
const TASKS: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Load {
    /// In the mode, in which little happens.
    Idle,
    /// In the mode, in which much happens at once.
    Burst,
    /// Hundreds of requests in flight.
    Pipelined,
    /// Fifty tasks ask over one connection, and one is subscribed.
    Shared,
    /// A little of all, one after the other.
    Walk,
}

/// What a client is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub round: u32,
    pub load: Load,
    pub settings: Settings,
    /// Requests to ask.
    pub requests: usize,
    /// Octets that a request is made longer by, if it can be.
    pub padding: usize,
    /// Notifications that are published.
    pub notifications: u64,
    /// The director is told once so many requests have their outcomes.
    pub mark: usize,
}

/// What the director hears of a client.
pub(crate) enum Signal {
    /// It is in the mode, or has got as far as its mark.
    Ready,
    Over(Box<Log>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub token: String,
    pub kind: Kind,
    /// How it begins on the wire, before its token, where it is known in which order all are there.
    pub begin: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Its own answer; of an effect that has one, its place.
    Answered(Option<usize>),
    /// What cannot be its answer.
    Wrong(String),
    Lost {
        sent: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub number: u64,
    /// So many are told as missed before it.
    pub missed: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// In the order asked.
    pub asked: Vec<Asked>,
    /// By the index in `asked`.
    pub told: Vec<(usize, Told)>,
    /// Other requests, and changes of mode.
    pub others: u64,
    pub heard: Vec<Heard>,
    /// Notifications that are looked for in what has passed.
    pub counted: usize,
    /// All was done that was to be done.
    pub finished: bool,
    /// When the end of the connection was told, and how.
    pub end: Option<(Instant, String)>,
    /// What no client should be told.
    pub wrong: Vec<String>,
}

impl Log {
    fn hear(&mut self, number: Option<u64>, missed: u64) {
        self.heard.extend(number.map(|number| Heard { number, missed }));
    }

    pub(crate) fn has_heard_all(&self, notifications: u64) -> bool {
        notifications == 0 || self.heard.last().is_some_and(|heard| heard.number + 1 >= notifications)
    }
}

impl Script {
    /// Whether the subscriber of a shared connection may miss something, and must be told how much: in each other round.
    fn is_lossy(&self) -> bool {
        self.round % 2 == 1
    }

    /// The request of this number: its token, and what it is. Most change something.
    fn request<P: Spoken>(&self, number: usize) -> (String, Kind, P::Request) {
        let token = token(self.round, number);
        let kind = match self.load {
            // In a mode that is not left for it, little may be asked.
            Load::Shared if !P::REENTERS => Kind::Echo,
            _ if P::ORDERED || number.is_multiple_of(4) => Kind::Effect,
            _ => Kind::Echo,
        };
        let request = match kind {
            Kind::Effect => P::effect(&token, self.padding),
            Kind::Echo => P::echo(&token),
        };
        (token, kind, request)
    }
}

fn judged<P: Spoken>(token: &str, kind: Kind, answer: Result<&P::Reply, &P::Refusal>) -> Told {
    P::judge(token, kind, answer).map_or_else(Told::Wrong, Told::Answered)
}

/// One task does what the script says.
pub(crate) fn alone<P: Spoken, R: Runtime>(script: &Script, news: Option<News<P>>, signals: &Sender<Signal>) -> Log {
    R::block_on(async {
        match R::connect::<P>(script.settings).await {
            Ok(mut client) => Session::new(&mut *client, script).run(news, signals).await,
            Err(error) => Log { end: Some((Instant::now(), error.to_string())), ..Log::default() },
        }
    })
}

/// A client that is asked and listened to by one task.
struct Session<'a, C> {
    client: &'a mut C,
    script: &'a Script,
    log: Log,
    /// Which of those asked it is.
    indices: HashMap<RequestId, usize>,
}

impl<'a, C> Session<'a, C> {
    fn new(client: &'a mut C, script: &'a Script) -> Self {
        Session { client, script, log: Log::default(), indices: HashMap::new() }
    }

    async fn run<P: Spoken>(mut self, news: Option<News<P>>, signals: &Sender<Signal>) -> Log
    where
        C: Subject<P>,
    {
        let outcome = self.play(news, signals).await;
        self.over(outcome).await
    }

    /// The log, once it is known what became of the session.
    async fn over<P: Spoken>(mut self, outcome: Outcome<(), P>) -> Log
    where
        C: Subject<P>,
    {
        match outcome {
            Ok(()) => self.log.finished = true,
            Err(Error::Ended(_) | Error::Lost { .. }) => self.take_rest().await,
            Err(error) => self.log.wrong.push(error.to_string()),
        }
        self.log
    }

    async fn play<P: Spoken>(&mut self, news: Option<News<P>>, signals: &Sender<Signal>) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        P::prepare(self.client, self.script.round).await?;
        match self.script.load {
            Load::Idle | Load::Burst => {
                self.enter().await?;
                let _ = signals.send(Signal::Ready);
                self.listen().await?;
                self.client.leave().await?;
                self.call(0).await
            }
            Load::Pipelined | Load::Shared => self.pipeline(signals).await,
            Load::Walk => self.walk(news).await,
        }
    }

    async fn walk<P: Spoken>(&mut self, mut news: Option<News<P>>) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        let mut publish = |script: &Script| {
            news.iter_mut().for_each(|news| P::publish(news, script.round, 0..script.notifications));
        };
        self.ask_two(0).await?;
        if P::REENTERS {
            // It is told once the mode is entered.
            publish(self.script);
            self.enter().await?;
        } else {
            self.enter().await?;
            publish(self.script);
        }
        self.listen().await?;
        self.client.leave().await?;
        self.ask_two(2).await?;
        self.enter().await?;
        self.client.leave().await?;
        self.call(4).await
    }

    async fn enter<P: Spoken>(&mut self) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        self.log.others += 1;
        self.client.enter(P::subscription(self.script.round)).await.map(drop)
    }

    /// Until all is heard, entering again whenever the server has ended the mode.
    async fn listen<P: Spoken>(&mut self) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        while !self.log.has_heard_all(self.script.notifications) {
            let Some(notification) = self.client.next_notification().await? else {
                self.enter().await?;
                continue;
            };
            self.hear::<P>(&notification);
            if let Some(fetch) = P::fetch() {
                self.log.others += 1;
                let reply = self.client.ring(fetch).await?;
                self.log.hear(P::fetched(self.script.round, &reply), 0);
            }
        }
        Ok(())
    }

    fn hear<P: Spoken>(&mut self, notification: &P::Notification) {
        self.log.counted += usize::from(P::is_counted(notification));
        self.log.hear(P::number(self.script.round, notification), 0);
    }

    /// All requests, as many in flight as may be.
    async fn pipeline<P: Spoken>(&mut self, signals: &Sender<Signal>) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        let mut next = 0;
        while self.log.told.len() < self.script.requests {
            if self.log.told.len() == self.script.mark {
                let _ = signals.send(Signal::Ready);
            }
            while next < self.script.requests && next - self.log.told.len() < P::IN_FLIGHT {
                if self.start(next).is_err() {
                    // There is no room, or the end is about to be told.
                    break;
                }
                next += 1;
            }
            let event = self.client.next_event().await?;
            self.note(event);
        }
        Ok(())
    }

    fn start<P: Spoken>(&mut self, number: usize) -> Result<RequestId, Error<P::Refusal>>
    where
        C: Subject<P>,
    {
        let (token, kind, request) = self.script.request::<P>(number);
        let id = self.client.start(request).map_err(|rejected| Error::Rejected(rejected.reason))?;
        let begin = Some(P::begin(id.get(), &token, kind));
        self.indices.insert(id, self.log.asked.len());
        self.log.asked.push(Asked { token, kind, begin });
        Ok(id)
    }

    async fn ask_two<P: Spoken>(&mut self, number: usize) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        if let (Ok(one), Ok(two)) = (self.start(number), self.start(number + 1)) {
            self.outcome(one).await?;
            self.outcome(two).await?;
        }
        Ok(())
    }

    async fn call<P: Spoken>(&mut self, number: usize) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        match self.start(number) {
            Ok(id) => self.outcome(id).await,
            // Whatever is asked next tells the end.
            Err(_) => self.enter().await,
        }
    }

    async fn outcome<P: Spoken>(&mut self, id: RequestId) -> Outcome<(), P>
    where
        C: Subject<P>,
    {
        match self.client.outcome(id).await {
            Ok(reply) => self.answered::<P>(id, Ok(&reply)),
            Err(Error::Refused(refusal)) => self.answered::<P>(id, Err(&refusal)),
            Err(Error::Lost { sent, end }) => {
                self.tell(id, Told::Lost { sent });
                return Err(Error::Ended(end));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn answered<P: Spoken>(&mut self, id: RequestId, answer: Result<&P::Reply, &P::Refusal>) {
        match self.indices.get(&id).map(|&index| &self.log.asked[index]) {
            Some(Asked { token, kind, .. }) => self.tell(id, judged::<P>(token, *kind, answer)),
            None => self.log.wrong.push(format!("an answer to {id}, which was never asked: {answer:?}")),
        }
    }

    fn tell(&mut self, id: RequestId, told: Told) {
        // Others are enters and rings whose calls have ended.
        if let Some(&index) = self.indices.get(&id) {
            self.log.told.push((index, told));
        }
    }

    fn note<P: Spoken>(&mut self, event: Event<P>) {
        match event {
            Event::Reply { id, reply } => self.answered::<P>(id, Ok(&reply)),
            Event::Refused { id, refusal } => self.answered::<P>(id, Err(&refusal)),
            Event::Lost { id, sent } => self.tell(id, Told::Lost { sent }),
            Event::Notification(notification) => self.hear::<P>(&notification),
            Event::Entered { .. } | Event::Left { .. } | Event::Closed => {}
        }
    }

    /// The end was told: what is left of what came before it, and how it ended, which is told as often as it is asked for.
    async fn take_rest<P: Spoken>(&mut self)
    where
        C: Subject<P>,
    {
        let at = Instant::now();
        let error = loop {
            match self.client.next_event().await {
                Ok(event) => self.note(event),
                Err(error) => break error.to_string(),
            }
        };
        match self.client.next_event().await {
            Err(again) if again.to_string() == error => {}
            other => self.log.wrong.push(format!("after the end by {error:?}: {other:?}")),
        }
        self.log.end = Some((at, error));
    }
}

/// Many tasks do what the script says, over one connection.
pub(crate) fn together<P: Spoken, R: Sharing>(script: &Script, signals: &Sender<Signal>) -> Log {
    R::block_on(async {
        let mut client = match R::connect::<P>(script.settings).await {
            Ok(client) => client,
            Err(error) => return Log { end: Some((Instant::now(), error.to_string())), ..Log::default() },
        };
        if let Err(error) = P::prepare(&mut *client, script.round).await {
            return Session::new(&mut *client, script).over(Err(error)).await;
        }
        let (handle, connection) = R::share(client);
        // What it has kept until now is told as soon as it is driven.
        let subscriber = if script.is_lossy() { handle.subscribe_lossy() } else { handle.subscribe() };
        let driven = R::spawn(async move { (connection.await, Instant::now()) });
        let mut log = ask_together::<P, R>(&handle, subscriber, script, signals).await;
        drop(handle);
        if let (Err(end), at) = driven.await {
            log.end = Some((at, end.to_string()));
        }
        if !have_ended::<R>().await {
            log.wrong.push("a task has not ended".into());
        }
        log
    })
}

/// Whether all tasks have ended, or do so soon: one that has told what it came to may be there for a moment longer.
async fn have_ended<R: Sharing>() -> bool {
    let began = Instant::now();
    while R::has_tasks() {
        if began.elapsed() > PATIENCE {
            return false;
        }
        future::yield_now().await;
    }
    true
}

async fn ask_together<P: Spoken, R: Sharing>(
    handle: &Handle<P>,
    subscriber: Subscriber<P::Notification>,
    script: &Script,
    signals: &Sender<Signal>,
) -> Log {
    let mut log = Log { others: 1, ..Log::default() };
    match handle.enter(P::subscription(script.round)).await {
        Ok(_) if script.mark == 0 => drop(signals.send(Signal::Ready)),
        // What was told before the end is still to be heard, and nothing is asked after it.
        Ok(_) | Err(Error::Ended(_) | Error::Lost { .. }) => {}
        Err(error) => {
            log.wrong.push(error.to_string());
            return log;
        }
    }
    let listener = R::spawn(listen(handle.clone(), subscriber, *script));
    let answered = Arc::new(AtomicUsize::new(0));
    let askers: Vec<_> = (0..TASKS)
        .map(|first| R::spawn(ask(handle.clone(), *script, first, Arc::clone(&answered), signals.clone())))
        .collect();
    let mut all_answered = true;
    for asker in askers {
        let outcomes = asker.await;
        for (asked, told) in outcomes {
            all_answered &= matches!(told, Told::Answered(_));
            log.told.push((log.asked.len(), told));
            log.asked.push(asked);
        }
    }
    let heard = listener.await;
    log.finished = all_answered && log.asked.len() == script.requests && heard.has_heard_all(script.notifications);
    Log { heard: heard.heard, counted: heard.counted, others: log.others + heard.others, wrong: heard.wrong, ..log }
}

/// The requests of one task of many, one after the other.
async fn ask<P: Spoken>(
    handle: Handle<P>,
    script: Script,
    first: usize,
    answered: Arc<AtomicUsize>,
    signals: Sender<Signal>,
) -> Vec<(Asked, Told)> {
    let mut outcomes = Vec::new();
    for number in (first..script.requests).step_by(TASKS) {
        let (token, kind, request) = script.request::<P>(number);
        let told = match handle.call(request).await {
            Ok(reply) => judged::<P>(&token, kind, Ok(&reply)),
            Err(Error::Refused(refusal)) => judged::<P>(&token, kind, Err(&refusal)),
            Err(Error::Lost { sent, .. }) => Told::Lost { sent },
            // It was not asked.
            Err(Error::Ended(_)) => break,
            Err(error) => Told::Wrong(error.to_string()),
        };
        let over = !matches!(told, Told::Answered(_));
        outcomes.push((Asked { token, kind, begin: None }, told));
        if over {
            break;
        }
        if answered.fetch_add(1, Ordering::Relaxed) + 1 == script.mark {
            let _ = signals.send(Signal::Ready);
        }
    }
    outcomes
}

/// The one task of many that listens.
async fn listen<P: Spoken>(handle: Handle<P>, mut subscriber: Subscriber<P::Notification>, script: Script) -> Log {
    let mut log = Log::default();
    let mut missed = 0;
    while !log.has_heard_all(script.notifications) {
        let notification = match subscriber.next().await {
            Some(Rung::Notification(notification)) => notification,
            Some(Rung::Missed(more)) if script.is_lossy() => {
                missed += more;
                log.counted += usize::try_from(more).unwrap();
                continue;
            }
            Some(other) => {
                log.wrong.push(format!("a subscriber was told {other:?}"));
                continue;
            }
            None => break,
        };
        log.counted += usize::from(P::is_counted(&notification));
        if let Some(number) = P::number(script.round, &notification) {
            log.hear(Some(number), mem::take(&mut missed));
        }
        if let Some(fetch) = P::fetch() {
            log.others += 1;
            match handle.call(fetch).await {
                Ok(reply) => log.hear(P::fetched(script.round, &reply), 0),
                // What was told before is still to be heard.
                Err(Error::Ended(_) | Error::Lost { .. }) => {}
                Err(error) => log.wrong.push(error.to_string()),
            }
        }
    }
    log
}
