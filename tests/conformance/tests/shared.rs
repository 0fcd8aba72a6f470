//! One connection for many tasks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use futures_lite::future::{self, block_on, poll_once};
use futures_lite::{FutureExt, StreamExt};
use sonnette::board::{Board, Notification, Refusal, Reply, Request};
use sonnette::imap::{self, Imap};
use sonnette::mpd::{self, Mpd, Subsystem};
use sonnette::redis::{self, Redis, Subscription};
use sonnette::{ClientState, Limits, Mode, Reason, RequestId, Timeouts};
use sonnette_conformance::scripted::{MANNERS, Manner, Polled, Scripted};
use sonnette_conformance::{Line, Spoken, script};
use sonnette_driver::{Connection, Driver, End, Error, Handle, Rung, Subscriber, Transport};
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;
use tokio::io::ReadBuf;

type Io = sonnette_smol::Io<Polled>;

const AT_ONCE: Manner = MANNERS[0];

/// A script at whose end the server waits for something that the client never says.
fn wire(text: &str) -> Vec<Line> {
    wire_of::<Board>(text)
}

fn wire_of<P: Spoken>(text: &str) -> Vec<Line> {
    let mut lines = script::<P>(text);
    lines.push(Line::Client(b"something else".to_vec()));
    lines
}

/// What two connected ends share, over a stream whose other end speaks its part of a script.
fn scripted(board: Board, script: &[Line], manner: Manner) -> (Handle<Board>, Connection<Board, Io>) {
    sonnette_smol::Client::new(board, Polled(Scripted::patient(script, manner))).share()
}

/// Runs `tasks` beside the connection until both are over, which takes no time to speak of.
fn both<T>(connection: impl Future<Output = Result<(), End>>, tasks: impl Future<Output = T>) -> (Result<(), End>, T) {
    block_on(future::zip(connection, tasks).or(stuck()))
}

async fn stuck<T>() -> T {
    async_io::Timer::after(Duration::from_secs(20)).await;
    panic!("they wait for each other")
}

fn ended(error: &Error<Refusal>) -> bool {
    matches!(error, Error::Ended(End::Closed))
}

/// A server whose number grows with each question, so that each answer is another one; and how often it has read.
fn counting_server() -> (SocketAddr, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_nodelay(true).unwrap();
        let (mut number, mut reads, mut rest, mut buffer) = (0, 0, Vec::new(), vec![0; 64 * 1024]);
        loop {
            let octets = stream.read(&mut buffer).unwrap();
            if octets == 0 {
                assert!(rest.is_empty());
                tell.send(reads).unwrap();
                return;
            }
            reads += 1;
            rest.extend_from_slice(&buffer[..octets]);
            let mut answers = Vec::new();
            while let Some(question) = rest.strip_prefix(b"random?\r\n") {
                rest = question.to_vec();
                writeln!(answers, "{number}\r").unwrap();
                number += 1;
            }
            stream.write_all(&answers).unwrap();
        }
    });
    (address, told)
}

const TASKS: i64 = 3_000;
const EACH: i64 = 5;

/// More tasks than there are places, each of which asks several times.
async fn many_ask(handle: Handle<Board>, spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>)) {
    let (sender, receiver) = mpsc::channel();
    let (over, all_over) = async_channel::bounded::<()>(1);
    for _ in 0..TASKS {
        let (handle, sender, over) = (handle.clone(), sender.clone(), over.clone());
        spawn(Box::pin(async move {
            let mut last = -1;
            for _ in 0..EACH {
                let Ok(Reply::Random(number)) = handle.call(Request::Random).await else { panic!("no number") };
                assert!(last < number, "a later question has a later answer");
                last = number;
                sender.send(number).unwrap();
            }
            drop(over);
        }));
    }
    drop((handle, sender, over));
    assert!(all_over.recv().await.is_err(), "closed once all tasks are over");
    let numbers: BTreeSet<i64> = receiver.iter().collect();
    assert_eq!(numbers, (0..TASKS * EACH).collect());
}

#[test]
fn three_thousand_tasks_ask_on_tokio() {
    for threads in [None, Some(2)] {
        let runtime = match threads {
            None => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            Some(threads) => {
                tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
            }
        };
        let (address, reads) = counting_server();
        runtime.block_on(async {
            let client = sonnette_tokio::Client::<Board, _>::connect(address).await.unwrap();
            let (handle, connection) = client.share();
            let connection = tokio::spawn(connection);
            many_ask(handle, |task| drop(tokio::spawn(task))).await;
            // All handles are gone.
            connection.await.unwrap().unwrap();
        });
        let reads = reads.recv().unwrap();
        assert!(reads < usize::try_from(TASKS * EACH).unwrap() / 4, "{reads} reads: requests go out in batches");
    }
}

#[test]
fn three_thousand_tasks_ask_on_smol() {
    let executor = async_executor::Executor::new();
    let (address, reads) = counting_server();
    thread::scope(|scope| {
        let (done, is_done) = async_channel::bounded::<()>(1);
        let executor = &executor;
        scope.spawn(move || async_io::block_on(executor.run(is_done.recv())));
        async_io::block_on(executor.run(async {
            let client = sonnette_smol::Client::<Board, _>::connect(address).await.unwrap();
            let (handle, connection) = client.share();
            let connection = executor.spawn(connection);
            many_ask(handle, |task| executor.spawn(task).detach()).await;
            connection.await.unwrap();
        }));
        drop(done);
    });
    let reads = reads.recv().unwrap();
    assert!(reads < usize::try_from(TASKS * EACH).unwrap() / 4, "{reads} reads: requests go out in batches");
}

#[test]
fn what_is_asked_in_one_turn_goes_out_in_one_write() {
    // The script would not go on if the second question were not there when the first answer is asked for.
    let script = wire("C random? / C classified? / C random? / S 1 / S two / S 3");
    for manner in MANNERS {
        let (handle, connection) = scripted(Board::silent(), &script, manner);
        let (ended, answers) = both(connection, async move {
            let first = handle.call(Request::Random);
            let others = future::zip(handle.call(Request::Classified), handle.call(Request::Random));
            let (first, (second, third)) = future::zip(first, others).await;
            (first.unwrap(), second.unwrap(), third.unwrap())
        });
        assert!(ended.is_ok());
        assert_eq!(answers, (Reply::Random(1), Reply::Classified("two".into()), Reply::Random(3)));
    }
}

#[test]
fn in_the_mode_a_call_rings() {
    let script = wire(
        "C notif / S notif: random / C stop_notif / C random? / C notif / S 7 / S notif: classified / C stop_notif",
    );
    for manner in MANNERS {
        let (handle, connection) = scripted(Board::silent(), &script, manner);
        let mut rung = handle.subscribe();
        let (ended, ()) = both(connection, async move {
            handle.enter(()).await.unwrap();
            let error = handle.enter(()).await.unwrap_err();
            assert!(matches!(error, Error::Rejected(Reason::NotAllowed(Mode::Notification))), "{error:?}");
            assert_eq!(rung.next().await, Some(Rung::Notification(Notification::Random)));
            assert_eq!(handle.call(Request::Random).await.unwrap(), Reply::Random(7));
            assert_eq!(rung.next().await, Some(Rung::Notification(Notification::Classified)));
            handle.leave().await.unwrap();
            drop(handle);
            assert_eq!(rung.next().await, None);
        });
        assert!(ended.is_ok());
    }
}

#[test]
fn a_mode_that_is_not_entered_again_is_told_to_all_who_subscribe() {
    let script = wire("C notif / S OK / C stop_notif / C random? / C notif / S OK / S 7 / S no / C random? / S 8");
    for manner in MANNERS {
        let (handle, connection) = scripted(Board::acknowledged(), &script, manner);
        let (mut first, mut second) = (handle.subscribe(), handle.subscribe());
        let (ended, ()) = both(connection, async move {
            handle.enter(()).await.unwrap();
            assert_eq!(handle.call(Request::Random).await.unwrap(), Reply::Random(7));
            for rung in [&mut first, &mut second] {
                assert_eq!(rung.next().await, Some(Rung::Left { asked: false }));
            }
            assert_eq!(handle.call(Request::Random).await.unwrap(), Reply::Random(8));
        });
        assert!(ended.is_ok());
    }
}

#[test]
fn a_mode_that_is_refused_or_left_is_told() {
    let script = wire("C notif / S no / C notif / S OK / C stop_notif / S OK");
    for manner in MANNERS {
        let (handle, connection) = scripted(Board::acknowledged(), &script, manner);
        let mut rung = handle.subscribe();
        let (ended, ()) = both(connection, async move {
            let error = handle.enter(()).await.unwrap_err();
            assert!(matches!(&error, Error::Refused(Refusal::WrongKind(line)) if line == "no"), "{error:?}");
            handle.enter(()).await.unwrap();
            handle.leave().await.unwrap();
            assert_eq!(rung.next().await, Some(Rung::Left { asked: true }));
        });
        assert!(ended.is_ok());
    }
}

/// MPD ends the mode with each group of changes: it is entered again, and nobody is told.
#[test]
fn a_mode_that_the_server_ends_is_entered_again() {
    let script = script::<Mpd>(
        "S OK MPD 0.23.5 / C idle / C noidle / C status / C idle / S OK / S volume: 5 / S OK / S changed: mixer / S changed: player / \
         S OK / C idle / S changed: mixer / S OK / C idle",
    );
    for manner in MANNERS {
        let client = sonnette_smol::Client::new(Mpd::new(), Polled(Scripted::patient(&script, manner)));
        let (handle, connection) = client.share();
        let mut rung = handle.subscribe();
        let (ended, ()) = both(connection, async move {
            handle.enter(vec![]).await.unwrap();
            let status = handle.call(mpd::Command::new("status").into()).await.unwrap();
            assert_eq!(status.get("volume"), Some(&b"5"[..]));
            for subsystem in [Subsystem::Mixer, Subsystem::Player, Subsystem::Mixer] {
                assert_eq!(rung.next().await, Some(Rung::Notification(subsystem)));
            }
            assert_eq!(rung.next().await, None);
        });
        assert!(matches!(ended, Err(End::Closed)), "{manner:?}: {ended:?}");
    }
}

/// Redis loses what is published while nobody is subscribed: a shared connection never leaves by itself, and stays out of a
/// mode that a request has ended.
#[test]
fn a_mode_whose_news_would_be_lost_is_not_left_for_a_call() {
    let script = script::<Redis>(
        "C [SUBSCRIBE a] / S [subscribe a 1] / C [PING] / S [message a one] / S [pong ] / C [UNSUBSCRIBE a] / S [unsubscribe a 0] / \
         C [GET k] / S v",
    );
    for manner in MANNERS {
        let client = sonnette_smol::Client::new(Redis::new(), Polled(Scripted::patient(&script, manner)));
        let (handle, connection) = client.share();
        let mut rung = handle.subscribe();
        let (ended, ()) = both(connection, async move {
            let get = || redis::Command::new("GET").arg("k");
            handle.enter(Subscription::channels(["a"])).await.unwrap();
            let error = handle.call(get()).await.unwrap_err();
            assert!(matches!(error, Error::Rejected(Reason::NotAllowed(Mode::Notification))), "{error:?}");
            handle.call(redis::Command::new("PING")).await.unwrap();
            assert!(matches!(rung.next().await, Some(Rung::Notification(_))));
            handle.call(redis::Command::new("UNSUBSCRIBE").arg("a")).await.unwrap();
            assert_eq!(rung.next().await, Some(Rung::Left { asked: false }));
            handle.call(get()).await.unwrap();
            assert_eq!(rung.next().await, None);
        });
        assert!(matches!(ended, Err(End::Closed)), "{manner:?}: {ended:?}");
    }
}

/// Takes all there is.
async fn drain(rung: &mut Subscriber<Notification>) -> (usize, u64) {
    let (mut notified, mut missed) = (0, 0);
    while let Some(rung) = rung.next().await {
        match rung {
            Rung::Notification(_) => notified += 1,
            Rung::Missed(number) => missed += number,
            other => panic!("{other:?}"),
        }
    }
    (notified, missed)
}

#[test]
fn a_slow_subscriber_is_told_how_many_it_missed_and_slows_nobody() {
    const RUNG: usize = 1_000;
    let script = script::<Board>(&format!("C notif{}", " / S notif: random".repeat(RUNG)));
    for manner in MANNERS {
        let mut client = sonnette_smol::Client::new(Board::silent(), Polled(Scripted::patient(&script, manner)));
        client.set_backlog(8);
        let (handle, connection) = client.share();
        let (mut fast, mut slow, mut late) = (handle.subscribe(), handle.subscribe_lossy(), None);
        let (ended, ()) = both(connection, async {
            handle.enter(()).await.unwrap();
            assert_eq!(fast.next().await, Some(Rung::Notification(Notification::Random)));
            late = Some(handle.subscribe_lossy());
            assert_eq!(drain(&mut fast).await, (RUNG - 1, 0));
        });
        assert!(matches!(ended, Err(End::Closed)), "{ended:?}");
        block_on(async {
            assert_eq!(slow.next().await, Some(Rung::Missed(u64::try_from(RUNG - 8).unwrap())));
            assert_eq!(drain(&mut slow).await, (8, 0));
            // Whoever subscribes later has missed nothing before that.
            let (notified, missed) = drain(late.as_mut().unwrap()).await;
            assert_eq!(notified, 8);
            assert!(missed < u64::try_from(RUNG - 8).unwrap(), "{missed}");
        });
    }
}

/// While one that misses nothing is full, the server is not read; it is again once there is room.
#[test]
fn a_full_subscriber_stops_the_connection_and_misses_nothing() {
    const RUNG: usize = 1_000;
    let script = script::<Board>(&format!("C notif{}", " / S notif: random".repeat(RUNG)));
    for manner in MANNERS {
        let mut client = sonnette_smol::Client::new(Board::silent(), Polled(Scripted::patient(&script, manner)));
        client.set_backlog(8);
        let (handle, connection) = client.share();
        let (mut first, mut second) = (handle.subscribe(), handle.subscribe());
        let mut connection = pin!(connection);
        block_on(async {
            let mut entering = pin!(handle.enter(()));
            while poll_once(&mut entering).await.is_none() {
                assert!(poll_once(&mut connection).await.is_none());
            }
            // However often it is polled, it is not at the end of the stream.
            for _ in 0..10 * RUNG {
                assert!(poll_once(&mut connection).await.is_none(), "{manner:?}");
            }
            for _ in 0..8 {
                assert_eq!(first.next().await, Some(Rung::Notification(Notification::Random)));
            }
            // The other one has no room.
            assert!(poll_once(&mut connection).await.is_none());
            assert!(poll_once(pin!(first.next())).await.is_none());
            let rest = future::zip(drain(&mut first), drain(&mut second));
            let (ended, ((rest, _), (all, _))) = future::zip(connection, rest).await;
            assert!(matches!(ended, Err(End::Closed)), "{ended:?}");
            assert_eq!((rest, all), (RUNG - 8, RUNG));
        });
    }
}

/// One that is dropped, or that has room again, lets the connection go on: its task is woken for it.
#[test]
fn a_subscriber_that_makes_room_wakes_the_connection() {
    let script = script::<Board>(&format!("C notif{}", " / S notif: random".repeat(100)));
    for manner in MANNERS {
        let mut client = sonnette_smol::Client::new(Board::silent(), Polled(Scripted::patient(&script, manner)));
        client.set_backlog(4);
        let (handle, connection) = client.share();
        let (kept, mut taken) = (handle.subscribe(), handle.subscribe());
        let (ended, ()) = both(connection, async move {
            handle.enter(()).await.unwrap();
            for _ in 0..4 {
                taken.next().await;
            }
            drop(kept);
            assert_eq!(drain(&mut taken).await, (96, 0));
        });
        assert!(matches!(ended, Err(End::Closed)), "{ended:?}");
    }
}

/// A server that pushes as fast as it can, until the client is gone, and answers questions meanwhile.
fn flooding_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        let mut writer = stream.try_clone().unwrap();
        let (asked, questions) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if line.contains("random?") && asked.send(()).is_err() {
                    break;
                }
            }
        });
        // The first answers prove that the mode was left; what is pushed crosses the rest.
        let pushed = b"notif: random\r\n".repeat(1_000);
        loop {
            let answers = questions.try_iter().count();
            let said = [b"7\r\n".repeat(answers), pushed.clone()].concat();
            if writer.write_all(&said).is_err() {
                break;
            }
        }
    });
    address
}

/// A task that takes and calls in turn does not wait for itself: it has its answer, or an error that says why not.
#[test]
fn whoever_takes_and_calls_in_turn_is_not_stuck() {
    for octets in [10_000, 10_000_000] {
        let address = flooding_server();
        async_io::block_on(async {
            let mut client = sonnette_smol::Client::<Board, _>::connect(address).await.unwrap();
            client.set_backlog(8);
            client.set_backlog_octets(octets);
            let (handle, connection) = client.share();
            let mut rung = handle.subscribe();
            let work = async {
                handle.enter(()).await.unwrap();
                let (mut full, mut answered) = (0, 0);
                for _ in 0..20 {
                    for _ in 0..100 {
                        assert_eq!(rung.next().await, Some(Rung::Notification(Notification::Random)));
                    }
                    match handle.call(Request::Random).await {
                        Ok(reply) => {
                            assert_eq!(reply, Reply::Random(7));
                            answered += 1;
                        }
                        Err(Error::BacklogFull { .. }) => full += 1,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                assert!(full + answered == 20 && (octets > 10_000 || full > 0), "{full} {answered}");
            };
            let mut connection = pin!(connection);
            work.or(async { panic!("{:?}", connection.as_mut().await) }).or(stuck()).await;
        });
    }
}

/// Nobody else is asked to wait: a call that comes while there is no room is not asked.
#[test]
fn a_call_for_which_there_is_no_room_is_told_so() {
    let script =
        script::<Board>(&format!("C notif / C stop_notif / C random? / C notif{}", " / S notif: random".repeat(100)));
    let manner = MANNERS[2];
    let mut client = sonnette_smol::Client::new(Board::silent(), Polled(Scripted::patient(&script, manner)));
    client.set_backlog(2);
    client.set_backlog_octets(1_000);
    let (handle, connection) = client.share();
    let mut rung = handle.subscribe();
    let work = async {
        handle.enter(()).await.unwrap();
        let asked = handle.call(Request::Random).await;
        assert!(matches!(asked, Err(Error::BacklogFull { id: Some(_) })), "{asked:?}");
        let unasked = handle.call(Request::Random).await;
        assert!(matches!(unasked, Err(Error::BacklogFull { id: None })), "{unasked:?}");
        let mut told = 0;
        while let Some(Rung::Notification(_)) = rung.next().await {
            told += 1;
        }
        assert_eq!(told, 100);
    };
    let (ended, ()) = both(connection, work);
    assert!(ended.is_err());
}

/// Answers to calls that were given up so are nobody's, also where their places are taken by others.
#[test]
fn an_answer_that_nobody_waits_for_any_more_is_given_to_nobody() {
    let script = wire(&format!(
        "C notif / C stop_notif / C random? / C notif{} / S 1 / C stop_notif / C random? / C notif / S 2",
        " / S notif: random".repeat(20)
    ));
    let mut client = sonnette_smol::Client::new(Board::silent(), Polled(Scripted::patient(&script, MANNERS[2])));
    client.set_backlog(2);
    client.set_backlog_octets(500);
    let (handle, connection) = client.share();
    let mut rung = handle.subscribe();
    let (ended, ()) = both(connection, async move {
        handle.enter(()).await.unwrap();
        let asked = handle.call(Request::Random).await;
        assert!(matches!(asked, Err(Error::BacklogFull { id: Some(_) })), "{asked:?}");
        for _ in 0..20 {
            assert_eq!(rung.next().await, Some(Rung::Notification(Notification::Random)));
        }
        assert_eq!(handle.call(Request::Random).await.unwrap(), Reply::Random(2));
    });
    assert!(ended.is_ok(), "{ended:?}");
}

/// On whatever executor, and however many threads it has: who does nothing but take misses nothing.
#[test]
fn a_subscriber_that_takes_misses_nothing_on_any_executor() {
    const RUNG: usize = 300_000;
    async fn take<T: Transport + Send + 'static>(
        driver: Driver<Board, T>,
        spawn: impl FnOnce(Pin<Box<dyn Future<Output = ()> + Send>>),
    ) {
        let (handle, connection) = driver.share();
        let mut rung = handle.subscribe();
        spawn(Box::pin(async move {
            connection.await.unwrap_err();
        }));
        handle.enter(()).await.unwrap();
        assert_eq!(drain(&mut rung).await, (RUNG, 0));
    }
    fn driver<P: sonnette::Protocol, T>(state: ClientState<P>, transport: T) -> Driver<P, T>
    where
        T: Transport,
    {
        Driver::new(state, transport)
    }
    let bursting_server = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut entered = [0; 7];
            stream.read_exact(&mut entered).unwrap();
            for _ in 0..RUNG / 1_000 {
                stream.write_all(&b"notif: random\r\n".repeat(1_000)).unwrap();
            }
        });
        address
    };
    for workers in [None, Some(2), Some(4)] {
        for spawned in [false, true] {
            let runtime = match workers {
                None => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
                Some(workers) => {
                    tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap()
                }
            };
            let address = bursting_server();
            let work = async move {
                let client = sonnette_tokio::Client::<Board, _>::connect(address).await.unwrap();
                let (state, stream, _) = client.into_parts();
                take(driver(state, sonnette_tokio::Io::from(stream)), |task| drop(tokio::spawn(task))).await;
            };
            if spawned {
                runtime.block_on(async move { tokio::spawn(work).await.unwrap() });
            } else {
                runtime.block_on(work);
            }
        }
    }
    let (address, executor) = (bursting_server(), async_executor::Executor::new());
    async_io::block_on(executor.run(async {
        let client = sonnette_smol::Client::<Board, _>::connect(address).await.unwrap();
        let (state, stream, _) = client.into_parts();
        take(driver(state, sonnette_smol::Io::from(stream)), |task| executor.spawn(task).detach()).await;
    }));
}

#[test]
fn a_backlog_without_bounds_takes_no_memory_by_itself() {
    let script = script::<Board>("C notif / S notif: random");
    let mut client = sonnette_smol::Client::new(Board::silent(), Polled(Scripted::patient(&script, AT_ONCE)));
    client.set_backlog(usize::MAX);
    client.set_backlog_octets(usize::MAX);
    let (handle, connection) = client.share();
    let (mut rung, mut lossy) = (handle.subscribe(), handle.subscribe_lossy());
    let (_, ()) = both(connection, async move {
        handle.enter(()).await.unwrap();
        assert_eq!(drain(&mut rung).await, (1, 0));
        assert_eq!(drain(&mut lossy).await, (1, 0));
    });
}

/// However little is kept, it goes on.
#[test]
fn a_backlog_of_nothing_keeps_one() {
    let script = script::<Board>(&format!("C notif{}", " / S notif: random".repeat(10)));
    for manner in MANNERS {
        let limits = Limits::new().with_answer(0);
        let state = ClientState::with_limits(Board::silent(), limits);
        let mut client = sonnette_smol::Client::with_state(state, Polled(Scripted::patient(&script, manner)));
        client.set_backlog(0);
        if manner == AT_ONCE {
            client.set_backlog_octets(0);
        }
        let (handle, connection) = client.share();
        let (mut rung, mut lossy) = (handle.subscribe(), handle.subscribe_lossy());
        let (ended, ()) = both(connection, async move {
            handle.enter(()).await.unwrap();
            assert_eq!(drain(&mut rung).await, (10, 0));
            assert_eq!(drain(&mut lossy).await, (1, 9));
        });
        assert!(matches!(ended, Err(End::Closed)), "{ended:?}");
    }
}

/// The octets of what a lossy one has not taken are bounded beside their number.
#[test]
fn a_lossy_subscriber_is_bounded_in_octets() {
    let name = "x".repeat(1_000);
    let script = script::<Board>(&format!("C notif{}", format!(" / S notif: {name}").repeat(100)));
    let mut client = sonnette_smol::Client::new(Board::silent(), Polled(Scripted::patient(&script, MANNERS[5])));
    client.set_backlog_octets(10_500);
    let (handle, connection) = client.share();
    let mut rung = handle.subscribe_lossy();
    let (_, entered) = both(connection, handle.enter(()));
    assert!(entered.is_ok());
    let (notified, missed) = block_on(drain(&mut rung));
    assert!((9..=10).contains(&notified), "{notified}");
    assert_eq!(notified as u64 + missed, 100);
}

/// Where the enter has an answer of its own, each ring takes a round trip: what waits is asked in one.
#[test]
fn calls_in_the_mode_go_into_one_ring() {
    const CALLS: u64 = 50;
    let noops = |first: u64| (first..first + CALLS).map(|tag| format!(" / C A{tag} NOOP")).collect::<String>();
    let answers = |first: u64| (first..first + CALLS).map(|tag| format!(" / S A{tag} OK")).collect::<String>();
    // IDLE is 2, DONE 3, the calls from 4 on, and IDLE again behind them.
    let (second, idle) = (4 + CALLS + 2, 4 + CALLS);
    let script = script::<Imap>(&format!(
        "S * OK ready / C A2 IDLE / S + idling / C DONE{} / C A{idle} IDLE / S A2 OK{} / S + idling / C DONE{} / C A{} IDLE / \
         S A{idle} OK{} / S + idling",
        noops(4),
        answers(4),
        noops(second),
        second + CALLS,
        answers(second),
    ));
    for manner in MANNERS {
        let mut client = sonnette_smol::Client::new(Imap::new(), Polled(Scripted::patient(&script, manner)));
        client.set_timeouts(Timeouts::OFF);
        let (handle, connection) = client.share();
        let (ended, ()) = both(connection, async move {
            handle.enter(()).await.unwrap();
            for _ in 0..2 {
                let mut calls: Vec<_> = (0..CALLS).map(|_| Box::pin(handle.call(imap::Command::noop()))).collect();
                for call in &mut calls {
                    assert!(poll_once(call).await.is_none());
                }
                for call in calls {
                    call.await.unwrap();
                }
            }
        });
        assert!(ended.is_ok() || matches!(ended, Err(End::Closed)), "{manner:?}: {ended:?}");
    }
}

/// Calls that come one after the other while the server has not let the mode be entered have nothing to wait for but that.
#[test]
fn calls_that_come_while_the_mode_is_entered_go_into_one_ring() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (let_in, may_enter) = mpsc::channel();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let (lines, mut idle, mut left) = (BufReader::new(stream.try_clone().unwrap()).lines(), String::new(), 0);
        stream.write_all(b"* OK ready\r\n").unwrap();
        for line in lines {
            let line = line.unwrap();
            let answer = match line.split_once(' ') {
                Some((tag, "IDLE")) => {
                    // One for each ring that there should be.
                    may_enter.recv_timeout(Duration::from_secs(10)).unwrap();
                    idle = tag.to_owned();
                    "+ idling\r\n".to_owned()
                }
                Some((tag, _)) => format!("{tag} OK\r\n"),
                None => {
                    left += 1;
                    format!("{idle} OK\r\n")
                }
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
        left
    });
    async_io::block_on(async {
        let client = sonnette_smol::Client::<Imap, _>::connect(address).await.unwrap();
        let (handle, connection) = client.share();
        let mut connection = pin!(connection);
        let mut entering = Box::pin(handle.enter(()));
        assert!(poll_once(&mut entering).await.is_none());
        let mut calls = Vec::new();
        for _ in 0..50 {
            let mut call = Box::pin(handle.call(imap::Command::noop()));
            assert!(poll_once(&mut call).await.is_none());
            calls.push(call);
            // It is seen before the next one is made.
            for _ in 0..3 {
                assert!(poll_once(&mut connection).await.is_none());
            }
        }
        for _ in 0..2 {
            let_in.send(()).unwrap();
        }
        let work = async {
            entering.await.unwrap();
            for call in calls {
                call.await.unwrap();
            }
        };
        work.or(async { panic!("{:?}", connection.as_mut().await) }).await;
        drop(handle);
        connection.await.unwrap();
    });
    assert_eq!(server.join().unwrap(), 1);
}

/// A ring takes as many as there are places for, and the rest has its turn in the next.
#[test]
fn what_has_no_place_in_a_ring_waits_for_the_next() {
    // A place each for the leave and two requests, and two for the enter.
    let ring = |first: i64| {
        format!(" / C stop_notif / C random? / C random? / C notif / S OK / S {first} / S {} / S OK", first + 1)
    };
    let script = wire(&format!("C notif / S OK{}{}{}", ring(1), ring(3), ring(5)));
    for manner in MANNERS {
        let state = ClientState::with_limits(Board::acknowledged(), Limits::new().with_pending(5));
        let client = sonnette_smol::Client::with_state(state, Polled(Scripted::patient(&script, manner)));
        let (handle, connection) = client.share();
        let (ended, ()) = both(connection, async move {
            handle.enter(()).await.unwrap();
            let mut calls: Vec<_> = (0..6).map(|_| Box::pin(handle.call(Request::Random))).collect();
            for call in &mut calls {
                assert!(poll_once(call).await.is_none());
            }
            for (call, number) in calls.into_iter().zip(1..) {
                assert_eq!(call.await.unwrap(), Reply::Random(number));
            }
        });
        assert!(ended.is_ok(), "{manner:?}: {ended:?}");
    }
}

/// One that cannot be asked spoils no ring, and nothing is written for it alone.
#[test]
fn what_cannot_be_asked_does_not_ring() {
    let script = wire_of::<Mpd>("S OK MPD 0.23.5 / C idle / C noidle / C status / C idle / S OK / S volume: 5 / S OK");
    for manner in MANNERS {
        let client = sonnette_smol::Client::new(Mpd::new(), Polled(Scripted::patient(&script, manner)));
        let (handle, connection) = client.share();
        let (ended, ()) = both(connection, async move {
            handle.enter(vec![]).await.unwrap();
            let wrong = || handle.call(mpd::Command::new("not a name").into());
            assert!(matches!(wrong().await, Err(Error::Rejected(Reason::Invalid(_)))));
            let right = handle.call(mpd::Command::new("status").into());
            let (wrong, right) = future::zip(wrong(), right).await;
            assert!(matches!(wrong, Err(Error::Rejected(Reason::Invalid(_)))), "{wrong:?}");
            assert_eq!(right.unwrap().get("volume"), Some(&b"5"[..]));
        });
        assert!(ended.is_ok(), "{manner:?}: {ended:?}");
    }
}

/// A protocol that panics at the first line, and would panic again.
#[derive(Clone, Copy, Debug, Default)]
struct Panics;

impl sonnette::Protocol for Panics {
    type Request = ();
    type Subscription = ();
    type Reply = ();
    type Refusal = ();
    type Notification = ();
    type Note = ();

    const TERMINATOR: sonnette::Terminator = sonnette::Terminator::CrLf;

    fn changes(&self) -> sonnette::Changes {
        sonnette::Changes { enter: sonnette::EnterAnswer::Silent, leave: sonnette::LeaveAnswer::Silent }
    }

    fn encode_request(&self, _: RequestId, (): &(), out: &mut sonnette::Encoder<'_>) -> Result<(), sonnette::Invalid> {
        out.put(b"?\r\n");
        Ok(())
    }

    fn encode_enter(&self, _: RequestId, (): &(), out: &mut sonnette::Encoder<'_>) -> Result<(), sonnette::Invalid> {
        out.put(b"enter\r\n");
        Ok(())
    }

    fn encode_leave(&self, _: RequestId, (): &(), out: &mut sonnette::Encoder<'_>) {
        out.put(b"leave\r\n");
    }

    fn decode(
        &mut self,
        frame: &mut sonnette::Frame<'_>,
        _: &sonnette::Pending<'_, Self>,
    ) -> Result<sonnette::Decoded<Self>, sonnette::Fault> {
        panic!("{frame:?}")
    }
}

/// Nobody is left waiting, and the process goes on: a second panic while the first is on its way would end it.
#[test]
fn a_protocol_that_panics_takes_nothing_else_with_it() {
    let script = [Line::Client(b"?\r\n".to_vec()), Line::Server(b"1\r\n2\r\n3\r\n".to_vec())];
    let shared = || sonnette_smol::Client::new(Panics, Polled(Scripted::patient(&script, AT_ONCE))).share();
    let is_lost =
        |outcome: &Result<(), Error<()>>| matches!(outcome, Err(Error::Lost { sent: true, end: End::Abandoned }));
    // The connection is dropped while the panic goes by.
    let (handle, connection) = shared();
    let panicked = thread::scope(|scope| {
        let calls = scope.spawn(|| block_on(handle.call(())));
        let panicked = scope.spawn(move || block_on(connection)).join();
        assert!(is_lost(&calls.join().unwrap()));
        panicked
    });
    assert!(panicked.is_err());
    assert!(matches!(block_on(handle.call(())), Err(Error::Ended(End::Abandoned))));

    // The panic is caught, and the connection polled again, or dropped.
    for polled in [false, true] {
        let (handle, mut connection) = shared();
        let mut call = pin!(handle.call(()));
        assert!(block_on(poll_once(&mut call)).is_none());
        let mut poll = || catch_unwind(AssertUnwindSafe(|| block_on(poll_once(&mut connection))));
        while let Ok(None) = poll() {}
        if polled {
            assert!(matches!(poll(), Ok(Some(Err(End::Abandoned)))));
        }
        drop(connection);
        assert!(is_lost(&block_on(call)));
    }
}

/// A server that reads nothing more and says nothing, to which nothing can be written any more.
#[derive(Debug)]
struct Broken;

impl futures_io::AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl futures_io::AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncRead for Broken {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl tokio::io::AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_write_that_fails_is_told_though_the_server_is_silent() {
    async fn told<T: Transport>((handle, connection): (Handle<Board>, Connection<Board, T>)) {
        let work = async { handle.call(Request::Random).await };
        let (ended, answer) = future::zip(connection, work).await;
        assert!(matches!(ended, Err(End::Io(_))), "{ended:?}");
        assert!(matches!(answer, Err(Error::Lost { sent: false, end: End::Io(_) })), "{answer:?}");
    }
    let with_deadline = |timeouts: Timeouts| {
        let mut state = ClientState::new(Board::silent());
        state.set_timeouts(timeouts);
        state
    };
    for timeouts in [Timeouts::OFF, Timeouts { silence: Some(Duration::from_secs(3600)), ..Timeouts::OFF }] {
        async_io::block_on(told(sonnette_smol::Client::with_state(with_deadline(timeouts), Broken).share()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            told(sonnette_tokio::Client::with_state(with_deadline(timeouts), Broken).share()).await;
        });
    }
}

#[test]
fn the_end_is_told_to_everybody() {
    let script = script::<Board>("C random? / C random? / C notif / S 1");
    for manner in MANNERS {
        let (handle, connection) = scripted(Board::acknowledged(), &script, manner);
        let mut rung = handle.subscribe();
        let (end, ()) = both(connection, async {
            let asked = future::zip(handle.call(Request::Random), handle.call(Request::Random));
            let ((first, second), third) = future::zip(asked, handle.enter(())).await;
            assert_eq!(first.unwrap(), Reply::Random(1));
            assert!(matches!(second, Err(Error::Lost { sent: true, end: End::Closed })), "{second:?}");
            assert!(matches!(third, Err(Error::Lost { sent: true, end: End::Closed })), "{third:?}");
            assert_eq!(rung.next().await, None);
            assert!(ended(&handle.call(Request::Random).await.unwrap_err()));
            assert!(ended(&handle.leave().await.unwrap_err()));
            assert!(matches!(handle.end(), Some(End::Closed)));
        });
        assert!(matches!(end, Err(End::Closed)), "{end:?}");
    }
}

#[test]
fn a_connection_that_is_dropped_leaves_nobody_waiting() {
    let (handle, mut connection) = scripted(Board::silent(), &wire("C random?"), MANNERS[1]);
    block_on(async {
        let mut sent = pin!(handle.call(Request::Random));
        assert!(poll_once(&mut sent).await.is_none());
        // Until it is written, and the server has nothing to say.
        for _ in 0..5 {
            assert!(poll_once(&mut connection).await.is_none());
        }
        let mut unsent = pin!(handle.call(Request::Random));
        assert!(poll_once(&mut unsent).await.is_none());
        drop(connection);
        let (sent, unsent) = (sent.await, unsent.await);
        assert!(matches!(sent, Err(Error::Lost { sent: true, end: End::Abandoned })), "{sent:?}");
        assert!(matches!(unsent, Err(Error::Lost { sent: false, end: End::Abandoned })), "{unsent:?}");
        let late = handle.call(Request::Random).await;
        assert!(matches!(late, Err(Error::Ended(End::Abandoned))), "{late:?}");
    });
}

/// A call is dropped after so many polls, at each of its await points: what others ask is answered as if it had not been,
/// and places are not used up.
#[test]
fn calls_that_are_dropped_take_nothing_from_others() {
    for manner in MANNERS {
        for polls in 0..6 {
            let (address, _reads) = counting_server();
            async_io::block_on(async {
                let client = sonnette_smol::Client::<Board, _>::connect(address).await.unwrap();
                let (handle, connection) = client.share();
                let work = async {
                    let mut last = -1;
                    for _ in 0..manner.most.clamp(300, 1_100) {
                        {
                            let mut dropped = pin!(handle.call(Request::Random));
                            for _ in 0..polls {
                                if poll_once(&mut dropped).await.is_some() {
                                    break;
                                }
                                future::yield_now().await;
                            }
                        }
                        let Ok(Reply::Random(number)) = handle.call(Request::Random).await else { panic!() };
                        assert!(number > last && number <= last + 2, "{last} {number}");
                        last = number;
                    }
                    drop(handle);
                };
                let (ended, ()) = future::zip(connection, work).await;
                ended.unwrap();
            });
        }
    }
}

/// More than there are places for, none of which is taken up; the next one has its turn all the same.
#[test]
fn calls_that_wait_for_a_place_can_be_dropped_too() {
    let (address, _reads) = counting_server();
    async_io::block_on(async {
        let client = sonnette_smol::Client::<Board, _>::connect(address).await.unwrap();
        let (handle, connection) = client.share();
        let mut calls: Vec<_> = (0..2_000).map(|_| Box::pin(handle.call(Request::Random))).collect();
        for call in &mut calls {
            assert!(poll_once(call).await.is_none());
        }
        let last = handle.call(Request::Random);
        // All that have places, and half of those that wait for one.
        drop(calls.drain(..1_500));
        let work = async {
            assert!(matches!(last.await, Ok(Reply::Random(_))));
            for call in calls.drain(..) {
                assert!(matches!(call.await, Ok(Reply::Random(_))));
            }
        };
        let mut connection = pin!(connection);
        work.or(async { panic!("{:?}", connection.as_mut().await) }).await;
        drop(calls);
        drop(handle);
        connection.await.unwrap();
    });
}

#[test]
fn what_the_machine_has_no_room_for_waits_for_its_turn() {
    let script = wire("C random? / C random? / S 1 / S 2 / C random? / S 3");
    for manner in [AT_ONCE, MANNERS[1]] {
        let state = ClientState::with_limits(Board::silent(), Limits::new().with_pending(2));
        let client = sonnette_smol::Client::with_state(state, Polled(Scripted::patient(&script, manner)));
        let (handle, connection) = client.share();
        let (ended, answers) = both(connection, async move {
            let asked = future::zip(handle.call(Request::Random), handle.call(Request::Random));
            let ((first, second), third) = future::zip(asked, handle.call(Request::Random)).await;
            [first.unwrap(), second.unwrap(), third.unwrap()]
        });
        assert!(ended.is_ok());
        assert_eq!(answers, [1, 2, 3].map(Reply::Random));
    }
    // What there will never be room for is rejected.
    let state = ClientState::with_limits(Board::silent(), Limits::new().with_output(8));
    let client = sonnette_smol::Client::with_state(state, Polled(Scripted::patient(&wire(""), AT_ONCE)));
    let (handle, connection) = client.share();
    let (_, answer) = both(connection, async move { handle.call(Request::Random).await });
    assert!(matches!(answer, Err(Error::Rejected(Reason::TooLarge))), "{answer:?}");
}

/// Without handles the connection writes what was asked, and closes.
#[test]
fn the_last_handle_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let stream = BufReader::new(listener.accept().unwrap().0);
        stream.lines().map(Result::unwrap).collect::<Vec<_>>()
    });
    async_io::block_on(async {
        let client = sonnette_smol::Client::<Board, _>::connect(address).await.unwrap();
        let (handle, connection) = client.share();
        let other = handle.clone();
        let mut call = Box::pin(other.call(Request::Classified));
        assert!(poll_once(&mut call).await.is_none());
        drop(call);
        drop((handle, other));
        connection.await.unwrap();
    });
    assert_eq!(server.join().unwrap(), ["classified?"]);
}

#[test]
fn handles_and_their_futures_can_be_sent() {
    fn is_send<T: Send>(_: &T) {}
    fn is_sync<T: Sync>(_: &T) {}
    let (handle, connection) = scripted(Board::silent(), &[], AT_ONCE);
    let mut subscriber = handle.subscribe();
    is_send(&handle);
    is_sync(&handle);
    is_send(&connection);
    is_send(&subscriber);
    is_send(&handle.call(Request::Random));
    is_send(&handle.enter(()));
    is_send(&handle.leave());
    is_send(&subscriber.next());
    is_send(&StreamExt::next(&mut subscriber));
    fn any<T: Transport + Send>() {
        fn sent<T: Send>() {}
        sent::<Connection<Board, T>>();
    }
    any::<Io>();
}
