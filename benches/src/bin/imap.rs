//! How soon a watcher of a mailbox has read what a burst of mail has brought, beside one that is written with async-imap.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml --bin imap -- [ROUNDS]`
//!
//! Both watch the same mailbox of the same Dovecot, each on a thread of its own, and wait in IDLE when a thousand
//! messages are delivered, as fast as they can be moved into it. Both do the same: leave, fetch the envelopes of what
//! is new, and enter again, until they have all of it. Printed are, for each, the time from the first delivery to the
//! last envelope, how often it fetched, and the processor time of its thread; then the median ratio of the times of all
//! rounds, ours to theirs. Both times are mostly Dovecot's, which gathers what changes for half a second, so that they
//! differ by a few hundredths either way: it fails above 1.05, if an envelope was missed or told twice, or if there was
//! something to be rung for that did not ring.
//!
//! Needs `dovecot`.

use futures_lite::StreamExt;
use rustix::time::{ClockId, clock_gettime};
use sonnette::imap::imap_types::fetch::MessageDataItem;
use sonnette::imap::{Command, Imap, Notification};
use sonnette_live::{Maildir, Server};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const MESSAGES: usize = 1_000;

/// If it does not ring for so long, while messages are still missing, it will not.
const PATIENCE: Duration = Duration::from_secs(10);

const ITEMS: &str = "(UID ENVELOPE)";

/// What a watcher has seen.
#[derive(Debug, Default)]
struct Seen {
    envelopes: usize,
    /// The least unique identifier that a new message can have.
    next: u32,
    twice: usize,
    /// How often it waited in vain.
    missed: usize,
    /// How often it fetched.
    fetches: usize,
    /// What its thread had computed when it was idle.
    before: Duration,
}

impl Seen {
    /// Everything is ready for the burst.
    fn is_idle(&mut self, idle: &Barrier) -> Result<()> {
        self.before = processor_time()?;
        idle.wait();
        Ok(())
    }

    /// A message, in a fetch of those from `from` on.
    fn message(&mut self, from: u32, uid: u32) {
        // The range is that of the last message if none is newer.
        if uid >= from {
            self.envelopes += 1;
            self.twice += usize::from(uid < self.next);
            self.next = self.next.max(uid + 1);
        }
    }
}

#[derive(Clone, Copy)]
struct Took {
    time: Duration,
    processor: Duration,
    fetches: usize,
}

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(rounds) => rounds.parse::<usize>()?.max(1),
        None => 7,
    };
    let server = Server::dovecot("");
    let mut ratios = vec![];
    for round in 1..=rounds {
        let (ours, theirs) = burst(&server)?;
        println!("round {round}: sonnette {}; async-imap {}", shown(ours), shown(theirs));
        ratios.push(ours.time.as_secs_f64() / theirs.time.as_secs_f64());
    }
    let ratio = median(ratios);
    println!("imap: {ratio:.2} of async-imap's time, median of {rounds} rounds");
    if ratio > 1.05 {
        return Err("slower than async-imap".into());
    }
    Ok(())
}

fn shown(took: Took) -> String {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let (time, processor) = (milliseconds(took.time), milliseconds(took.processor));
    format!("{time:.0} ms, {} fetches, {processor:.1} ms computing", took.fetches)
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// One burst for both.
fn burst(server: &Server) -> Result<(Took, Took)> {
    // Both idle; then the first message is delivered.
    let idle = Barrier::new(3);
    let (address, maildir) = (server.address, server.maildir("alice"));
    thread::scope(|scope| {
        let ours =
            scope.spawn(|| watch(async |mut seen| with_sonnette(address, &idle, &mut seen).await.map(|()| seen)));
        let theirs =
            scope.spawn(|| watch(async |mut seen| with_async_imap(address, &idle, &mut seen).await.map(|()| seen)));
        idle.wait();
        let began = Instant::now();
        deliver(&maildir);
        let took = |name: &str, watched: Result<(Seen, Instant, Duration)>| {
            let (seen, ended, processor) = watched?;
            if seen.envelopes != MESSAGES || seen.twice > 0 || (name == "sonnette" && seen.missed > 0) {
                return Err(format!("{name}: {seen:?}").into());
            }
            if seen.missed > 0 {
                println!("{name} was not rung for {} times", seen.missed);
            }
            Ok::<Took, Box<dyn Error + Send + Sync>>(Took { time: ended - began, processor, fetches: seen.fetches })
        };
        let ours = took("sonnette", ours.join().map_err(|_| "sonnette panicked")?);
        Ok((ours?, took("async-imap", theirs.join().map_err(|_| "async-imap panicked")?)?))
    })
}

fn deliver(maildir: &Maildir) {
    for number in 0..MESSAGES {
        maildir.deliver(&format!("From: a{number}@example.org\r\nSubject: message {number}\r\n\r\nhello\r\n"));
    }
}

/// What was seen, when, and how long this thread computed since it was idle.
fn watch(watcher: impl AsyncFnOnce(Seen) -> Result<Seen>) -> Result<(Seen, Instant, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(watcher(Seen::default()))?;
    let computed = processor_time()? - seen.before;
    Ok((seen, Instant::now(), computed))
}

fn processor_time() -> Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}

async fn with_sonnette(address: SocketAddr, idle: &Barrier, seen: &mut Seen) -> Result<()> {
    let mut client = sonnette_tokio::Client::<Imap, _>::connect(address).await?;
    client.call(Command::login("alice", "secret")).await?;
    client
        .call_with(Command::select("INBOX"), |said| {
            if let Notification::Status(status) = said {
                seen.next = status.code_number("UIDNEXT").map_or(seen.next, |next| next as u32);
            }
        })
        .await?;
    client.enter(()).await?;
    seen.is_idle(idle)?;
    while seen.envelopes < MESSAGES {
        match timeout(PATIENCE, client.next_notification()).await {
            Ok(rung) => {
                if !matches!(rung?, Some(Notification::Exists(_))) {
                    continue;
                }
            }
            Err(_) => seen.missed += 1,
        }
        let mut more = true;
        while more && seen.envelopes < MESSAGES {
            more = false;
            seen.fetches += 1;
            let from = seen.next;
            client
                .ring_with(Command::uid_fetch(format!("{from}:*"), ITEMS), |said| match said {
                    Notification::Exists(_) => more = true,
                    Notification::Fetch { data, .. } => {
                        let (mut uid, mut has_envelope) = (0, false);
                        for item in data.items().into_iter().flatten() {
                            match item {
                                MessageDataItem::Uid(number) => uid = number.get(),
                                MessageDataItem::Envelope(envelope) => has_envelope = envelope.subject.0.is_some(),
                                _ => {}
                            }
                        }
                        if has_envelope {
                            seen.message(from, uid);
                        }
                    }
                    _ => {}
                })
                .await?;
        }
    }
    Ok(())
}

async fn with_async_imap(address: SocketAddr, idle: &Barrier, seen: &mut Seen) -> Result<()> {
    use async_imap::types::UnsolicitedResponse;

    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut client = async_imap::Client::new(stream);
    client.read_response().await?.ok_or("no greeting")?;
    let mut session = client.login("alice", "secret").await.map_err(|(error, _)| error)?;
    seen.next = session.select("INBOX").await?.uid_next.unwrap_or(1);
    let mut waits = false;
    while seen.envelopes < MESSAGES {
        let mut handle = session.idle();
        handle.init().await?;
        if !waits {
            waits = true;
            seen.is_idle(idle)?;
        }
        let (rung, _stop) = handle.wait_with_timeout(PATIENCE);
        if matches!(rung.await?, async_imap::extensions::idle::IdleResponse::Timeout) {
            seen.missed += 1;
        }
        session = handle.done().await?;
        let mut more = true;
        while more && seen.envelopes < MESSAGES {
            seen.fetches += 1;
            let from = seen.next;
            let mut fetches = session.uid_fetch(format!("{from}:*"), ITEMS).await?;
            while let Some(fetch) = fetches.try_next().await? {
                let subject = fetch.envelope().and_then(|envelope| envelope.subject.as_ref());
                if let (Some(uid), Some(_)) = (fetch.uid, subject) {
                    seen.message(from, uid);
                }
            }
            drop(fetches);
            more = false;
            while let Ok(response) = session.unsolicited_responses.try_recv() {
                more |= matches!(response, UnsolicitedResponse::Exists(_));
            }
        }
    }
    Ok(())
}
