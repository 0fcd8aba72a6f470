//! How fast the clients are, as ratios to a raw socket loop that parses nothing.
//!
//! `cargo run --release --manifest-path benches/Cargo.toml -- [ROUNDS] [PART OF A NAME]`
//!
//! Client and server share one core. In each round every subject has its turn, and is compared with the raw loop of the
//! same round: times differ from run to run by a third, such ratios little. Printed are the median ratio of all rounds,
//! the least and the greatest, and what is aimed at.

use sonnette::Event;
use sonnette::board::{Board, Notification, Reply, Request};
use sonnette_tokio::{Driver, Handle, Rung, Subscriber, Transport};
use std::cell::Cell;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const QUESTION: &[u8] = b"random?\r\n";
const ANSWER: &[u8] = b"46774\r\n";
/// 78 % and 22 %: numbers nobody asked for cannot be among them.
const NEWS: [&[u8]; 9] = {
    let (random, classified) = (b"notif: random\r\n" as &[u8], b"notif: classified\r\n" as &[u8]);
    [random, random, random, classified, random, random, random, classified, random]
};

/// Operations of one measurement.
const ROUND_TRIPS: usize = 5_000;
const IN_FLIGHT: usize = 1_000;
const BATCHES: usize = 300;
const NOTIFICATIONS: usize = 1_800_000;

/// What a client reads at once, and the raw loop too.
const READ: usize = 64 * 1024;

/// One subject of a comparison, and what is aimed at.
struct Subject<'a> {
    name: &'static str,
    aim: f64,
    run: Box<dyn FnMut() -> Result<()> + 'a>,
}

fn subject<'a>(name: &'static str, aim: f64, run: impl FnMut() -> Result<()> + 'a) -> Subject<'a> {
    Subject { name, aim, run: Box::new(run) }
}

fn main() -> Result<()> {
    let rounds = match std::env::args().nth(1) {
        Some(rounds) => rounds.parse::<usize>()?.max(1),
        None => 15,
    };
    share_one_core()?;
    let answers = serve(answer)?;
    let news = serve(ring)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let mut raw = connect(answers)?;
    let mut std = sonnette_std::Client::<Board, _>::connect(answers)?;
    let mut on_tokio = tokio.block_on(sonnette_tokio::Client::<Board, _>::connect(answers))?;
    let mut on_smol = async_io::block_on(sonnette_smol::Client::<Board, _>::connect(answers))?;
    compare(
        "round trips",
        rounds,
        ROUND_TRIPS,
        vec![
            subject("raw", 1.0, || raw_round_trips(&mut raw)),
            subject("std", 0.95, || {
                (0..ROUND_TRIPS).try_for_each(|_| {
                    std.random()?;
                    Ok(())
                })
            }),
            subject("tokio", 0.85, || tokio.block_on(round_trips(&mut on_tokio))),
            subject("smol", 0.7, || async_io::block_on(round_trips(&mut on_smol))),
        ],
    )?;

    let handle_tokio = {
        let client = tokio.block_on(sonnette_tokio::Client::<Board, _>::connect(answers))?;
        let (handle, connection) = client.share();
        tokio.spawn(connection);
        handle
    };
    let executor = async_executor::LocalExecutor::new();
    let handle_smol = {
        let client = async_io::block_on(sonnette_smol::Client::<Board, _>::connect(answers))?;
        let (handle, connection) = client.share();
        executor.spawn(connection).detach();
        handle
    };
    compare(
        "1,000 requests in flight",
        rounds,
        IN_FLIGHT * BATCHES,
        vec![
            subject("raw", 1.0, || raw_batches(&mut raw)),
            subject("std", 0.45, || std_batches(&mut std)),
            subject("tokio", 0.45, || tokio.block_on(batches(&mut on_tokio))),
            subject("smol", 0.45, || async_io::block_on(batches(&mut on_smol))),
            subject("tokio, shared handle", 0.12, || {
                tokio.block_on(shared(&handle_tokio, |task| drop(tokio.spawn(task))))
            }),
            subject("smol, shared handle", 0.12, || {
                async_io::block_on(executor.run(shared(&handle_smol, |task| executor.spawn(task).detach())))
            }),
        ],
    )?;

    let mut raw = connect(news)?;
    raw.write_all(b"notif\r\n")?;
    let mut std = sonnette_std::Client::<Board, _>::connect(news)?;
    std.notify()?;
    let mut on_tokio = tokio.block_on(sonnette_tokio::Client::<Board, _>::connect(news))?;
    tokio.block_on(on_tokio.notify())?;
    let mut on_smol = async_io::block_on(sonnette_smol::Client::<Board, _>::connect(news))?;
    async_io::block_on(on_smol.notify())?;
    let shared_by = |runtime: &tokio::runtime::Runtime| {
        runtime.block_on(async {
            let (handle, connection) = sonnette_tokio::Client::<Board, _>::connect(news).await?.share();
            tokio::spawn(connection);
            let subscriber = handle.subscribe();
            handle.enter(()).await?;
            // Without a handle the connection would close.
            Ok::<_, Box<dyn Error>>((handle, subscriber))
        })
    };
    let threads = |workers| tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let (two, four) = (threads(2)?, threads(4)?);
    let (_on_one, mut rung_on_one) = shared_by(&tokio)?;
    let (_on_two, mut rung_on_two) = shared_by(&two)?;
    let (_on_four, mut rung_on_four) = shared_by(&four)?;
    let (_on_smol, mut rung_on_smol) = async_io::block_on(executor.run(async {
        let (handle, connection) = sonnette_smol::Client::<Board, _>::connect(news).await?.share();
        executor.spawn(connection).detach();
        let subscriber = handle.subscribe();
        handle.enter(()).await?;
        Ok::<_, Box<dyn Error>>((handle, subscriber))
    }))?;
    compare(
        "notifications",
        rounds,
        NOTIFICATIONS,
        vec![
            subject("raw", 1.0, || raw_read(&mut raw, NOTIFICATIONS / NEWS.len() * NEWS.concat().len())),
            subject("std", 0.5, || {
                for _ in 0..NOTIFICATIONS {
                    std.next_notification()?;
                }
                Ok(())
            }),
            subject("tokio", 0.38, || tokio.block_on(notifications(&mut on_tokio))),
            subject("smol", 0.38, || async_io::block_on(notifications(&mut on_smol))),
            subject("tokio, subscriber", 0.07, || tokio.block_on(rung(&mut rung_on_one))),
            subject("the same, 2 workers", 0.07, || two.block_on(rung(&mut rung_on_two))),
            subject("the same, 4 workers", 0.07, || four.block_on(rung(&mut rung_on_four))),
            subject("smol, subscriber", 0.07, || async_io::block_on(executor.run(rung(&mut rung_on_smol)))),
        ],
    )
}

/// Runs all subjects in each round, and prints how they did compared with the first of them.
fn compare(what: &str, rounds: usize, operations: usize, mut subjects: Vec<Subject<'_>>) -> Result<()> {
    if std::env::args().nth(2).is_some_and(|part| !what.contains(&part)) {
        return Ok(());
    }
    let mut times = vec![Vec::new(); subjects.len()];
    // The first round is for caches and buffers alone.
    for round in 0..=rounds {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let began = Instant::now();
            (subject.run)()?;
            if round > 0 {
                times.push(began.elapsed().as_secs_f64());
            }
        }
    }
    println!("{what}, compared with the raw loop{:>20} {:>7} {:>7} {:>7}", "median", "min", "max", "aim");
    for (subject, of_subject) in subjects.iter().zip(&times) {
        let mut ratios: Vec<f64> = times[0].iter().zip(of_subject).map(|(raw, time)| raw / time).collect();
        ratios.sort_by(f64::total_cmp);
        let mut of_subject = of_subject.clone();
        of_subject.sort_by(f64::total_cmp);
        let nanoseconds = of_subject[rounds / 2] * 1e9 / operations as f64;
        let (median, min, max) = (ratios[rounds / 2], ratios[0], ratios[rounds - 1]);
        let Subject { name, aim, .. } = subject;
        let verdict = if median < *aim { "  below" } else { "" };
        println!("  {name:<24} {nanoseconds:>10.0} ns {median:>20.2} {min:>7.2} {max:>7.2} {aim:>7.2}{verdict}");
    }
    Ok(())
}

/// Has this thread, and those that it starts, run on one core.
#[cfg(target_os = "linux")]
fn share_one_core() -> io::Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let core = (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|&core| allowed.is_set(core));
    let mut one = rustix::thread::CpuSet::new();
    one.set(core.unwrap_or(0));
    Ok(rustix::thread::sched_setaffinity(None, &one)?)
}

#[cfg(not(target_os = "linux"))]
fn share_one_core() -> io::Result<()> {
    eprintln!("client and server do not share a core here: the round trips measure the scheduler");
    Ok(())
}

// The server: a thread for each connection, which does as little as it can.

fn serve(serve: fn(TcpStream) -> io::Result<()>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(io::Result::ok) {
            std::thread::spawn(move || stream.set_nodelay(true).and_then(|()| serve(stream)));
        }
    });
    Ok(address)
}

/// An answer for each line.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut buffer, answers) = (vec![0; READ], ANSWER.repeat(READ));
    loop {
        let octets = stream.read(&mut buffer)?;
        if octets == 0 {
            return Ok(());
        }
        let lines = buffer[..octets].iter().filter(|&&octet| octet == b'\n').count();
        stream.write_all(&answers[..lines * ANSWER.len()])?;
    }
}

/// Notifications for ever, once something was asked.
fn ring(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0; b"notif\r\n".len()])?;
    let news = NEWS.concat().repeat(512);
    loop {
        stream.write_all(&news)?;
    }
}

// The raw loops.

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn raw_read(stream: &mut TcpStream, octets: usize) -> Result<()> {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = Cell::new(vec![0; READ]);
    }
    let mut buffer = BUFFER.take();
    let mut left = octets;
    while left > 0 {
        let most = left.min(READ);
        match stream.read(&mut buffer[..most])? {
            0 => return Err("the server closed".into()),
            octets => left -= octets,
        }
    }
    BUFFER.set(buffer);
    Ok(())
}

fn raw_round_trips(stream: &mut TcpStream) -> Result<()> {
    for _ in 0..ROUND_TRIPS {
        stream.write_all(QUESTION)?;
        raw_read(stream, ANSWER.len())?;
    }
    Ok(())
}

fn raw_batches(stream: &mut TcpStream) -> Result<()> {
    let questions = QUESTION.repeat(IN_FLIGHT);
    for _ in 0..BATCHES {
        stream.write_all(&questions)?;
        raw_read(stream, IN_FLIGHT * ANSWER.len())?;
    }
    Ok(())
}

// The clients.

async fn round_trips<T: Transport>(client: &mut Driver<Board, T>) -> Result<()> {
    for _ in 0..ROUND_TRIPS {
        client.random().await?;
    }
    Ok(())
}

/// What each answer must be.
macro_rules! check_answer {
    ($event:expr) => {
        if !matches!($event, Event::Reply { reply: Reply::Random(46774), .. }) {
            return Err("not an answer".into());
        }
    };
}

fn std_batches(client: &mut sonnette_std::Client<Board, sonnette_std::Socket>) -> Result<()> {
    for _ in 0..BATCHES {
        for _ in 0..IN_FLIGHT {
            client.start(Request::Random)?;
        }
        for _ in 0..IN_FLIGHT {
            check_answer!(client.next_event()?);
        }
    }
    Ok(())
}

async fn batches<T: Transport>(client: &mut Driver<Board, T>) -> Result<()> {
    for _ in 0..BATCHES {
        for _ in 0..IN_FLIGHT {
            client.start(Request::Random)?;
        }
        for _ in 0..IN_FLIGHT {
            check_answer!(client.next_event().await?);
        }
    }
    Ok(())
}

async fn notifications<T: Transport>(client: &mut Driver<Board, T>) -> Result<()> {
    for _ in 0..NOTIFICATIONS {
        client.next_notification().await?;
    }
    Ok(())
}

/// As many, of which none may be missed.
async fn rung(subscriber: &mut Subscriber<Notification>) -> Result<()> {
    for _ in 0..NOTIFICATIONS {
        match subscriber.next().await {
            Some(Rung::Notification(_)) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

/// A thousand tasks, each of which asks and waits, again and again.
async fn shared(handle: &Handle<Board>, spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>)) -> Result<()> {
    let (done, all_done) = async_channel::bounded(IN_FLIGHT);
    for _ in 0..IN_FLIGHT {
        let (handle, done) = (handle.clone(), done.clone());
        spawn(Box::pin(async move {
            for _ in 0..BATCHES {
                if !matches!(handle.call(Request::Random).await, Ok(Reply::Random(46774))) {
                    return;
                }
            }
            // There is room for all.
            let _ = done.try_send(());
        }));
    }
    drop(done);
    for _ in 0..IN_FLIGHT {
        all_done.recv().await?;
    }
    Ok(())
}
