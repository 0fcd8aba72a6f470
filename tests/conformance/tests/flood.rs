//! A server that pushes as fast as it can, and answers nothing: the deadlines of each client are heeded, and other tasks of
//! its thread have their turn. How exactly is tested in virtual time, in the driver; here that it is so on real sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use futures_lite::FutureExt;
use sonnette::board::{Board, Request};
use sonnette::{Error as Failure, Timeouts};
use sonnette_driver::{Connect, Driver, End, Error, Transport};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

const REPLY: Duration = Duration::from_millis(500);
/// Far less than a flood lasts, and enough for a busy machine.
const SLACK: Duration = Duration::from_secs(5);

fn flood() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let pushed = b"notif: random\r\n".repeat(10_000);
        while stream.write_all(&pushed).is_ok() {}
    });
    address
}

fn timeouts() -> Timeouts {
    Timeouts { reply: Some(REPLY), ..Timeouts::OFF }
}

fn assert_overdue<T: std::fmt::Debug, R: std::fmt::Debug>(outcome: Result<T, Error<R>>, began: Instant) {
    let is_overdue = matches!(outcome, Err(Error::Lost { sent: true, end: End::Failed(Failure::ReplyTimeout) }));
    assert!(is_overdue, "{outcome:?}");
    let after = began.elapsed();
    println!("a deadline of {REPLY:?} was heeded after {after:?}");
    assert!((REPLY..REPLY + SLACK).contains(&after), "{after:?}");
}

/// On one thread with a task that is woken now and then.
async fn overdue<T: Transport>(client: &mut Driver<Board, T>, tick: impl AsyncFn()) {
    client.enter(()).await.unwrap();
    client.leave().await.unwrap();
    let (began, mut ticks) = (Instant::now(), 0);
    let ticking = async {
        loop {
            tick().await;
            ticks += 1;
        }
    };
    assert_overdue(client.call_with(Request::Random, drop).or(ticking).await, began);
    assert!(ticks > 0);
}

/// Without a deadline of the machine's a timer around the call ends it.
async fn timed_out<T: Transport>(client: &mut Driver<Board, T>, timeout: impl Future<Output = ()>) {
    client.enter(()).await.unwrap();
    client.leave().await.unwrap();
    let call = async {
        client.call_with(Request::Random, drop).await.unwrap();
        panic!("it is not answered");
    };
    call.or(timeout).await;
}

#[test]
fn on_std() {
    let mut client = sonnette_std::Connect::new().timeouts(timeouts()).tcp(Board::silent(), flood()).unwrap();
    client.notify().unwrap();
    client.stop_notify().unwrap();
    let began = Instant::now();
    assert_overdue(client.call_with(Request::Random, drop), began);
}

#[test]
fn on_smol() {
    async_io::block_on(async {
        let wait = async |span| {
            async_io::Timer::after(span).await;
        };
        let connect = Connect::new().timeouts(timeouts());
        let mut client = sonnette_smol::Client::connect_with(&connect, Board::silent(), flood()).await.unwrap();
        overdue(&mut client, async || wait(Duration::from_millis(10)).await).await;
        let mut client = sonnette_smol::Client::<Board, _>::connect(flood()).await.unwrap();
        timed_out(&mut client, wait(REPLY)).await;
    });
}

#[test]
fn on_tokio() {
    for threads in [false, true] {
        let runtime = match threads {
            false => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            true => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        };
        runtime.block_on(async {
            let tick = async || tokio::time::sleep(Duration::from_millis(10)).await;
            let connect = Connect::new().timeouts(timeouts());
            let mut client = sonnette_tokio::Client::connect_with(&connect, Board::silent(), flood()).await.unwrap();
            overdue(&mut client, tick).await;
            let mut client = sonnette_tokio::Client::<Board, _>::connect(flood()).await.unwrap();
            timed_out(&mut client, tokio::time::sleep(REPLY)).await;
        });
    }
}

/// Through a shared handle too: whoever waits is told, though the subscriber takes all there is.
#[test]
fn on_a_shared_connection() {
    async_io::block_on(async {
        let connect = Connect::new().timeouts(timeouts());
        let client = sonnette_smol::Client::connect_with(&connect, Board::silent(), flood()).await.unwrap();
        let (handle, connection) = client.share();
        let mut rung = handle.subscribe();
        let taking = async { while rung.next().await.is_some() {} };
        let asking = async {
            handle.enter(()).await.unwrap();
            handle.leave().await.unwrap();
            let began = Instant::now();
            assert_overdue(handle.call(Request::Random).await, began);
        };
        let (ended, ()) = futures_lite::future::zip(connection, taking.or(asking)).await;
        assert!(matches!(ended, Err(End::Failed(Failure::ReplyTimeout))), "{ended:?}");
    });
}
