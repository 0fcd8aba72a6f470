//! Where the clients run.

use crate::proxy;
use crate::servers::Spoken;
use clap::ValueEnum;
use socket2::SockRef;
use sonnette::{Limits, Timeouts};
use sonnette_conformance::subject::Subject;
use sonnette_driver::{End, Handle};
use std::io;
use std::net::SocketAddr;
use std::ops::DerefMut;
use std::pin::Pin;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    Std,
    Smol,
    /// `current_thread`.
    Tokio,
    /// `multi_thread`.
    TokioThreads,
}

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub address: SocketAddr,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// The socket buffers little of what is written.
    pub narrow: bool,
}

#[allow(async_fn_in_trait, reason = "it is used here alone")]
pub(crate) trait Runtime {
    type Client<P: Spoken>: DerefMut<Target: Subject<P> + Sized>;

    fn block_on<T>(future: impl Future<Output = T>) -> T;
    async fn connect<P: Spoken>(settings: Settings) -> io::Result<Self::Client<P>>;
}

pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Where a client can be shared.
pub(crate) trait Sharing: Runtime {
    fn share<P: Spoken>(client: Self::Client<P>) -> (Handle<P>, Boxed<Result<(), End>>);
    /// Has a task run on the runtime, beside the others.
    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T>;
    /// Whether a task of this runtime, in which this is called, has not ended.
    fn has_tasks() -> bool;
}

pub(crate) struct Std;

impl Runtime for Std {
    // In a box, so that it dereferences to what has the methods, as the others do.
    type Client<P: Spoken> = Box<sonnette_std::Client<P, sonnette_std::Socket>>;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        futures_lite::future::block_on(future)
    }

    async fn connect<P: Spoken>(settings: Settings) -> io::Result<Self::Client<P>> {
        let connect = sonnette_std::Connect::new().limits(settings.limits).timeouts(settings.timeouts);
        let client = connect.tcp(P::default(), settings.address)?;
        if settings.narrow {
            proxy::narrow(SockRef::from(client.stream()))?;
        }
        Ok(Box::new(client))
    }
}

macro_rules! sharing {
    ($runtime:ident, $client:ident, $tcp:ty, $block_on:expr, $spawn:expr, $has_tasks:expr) => {
        pub(crate) struct $runtime;

        impl Runtime for $runtime {
            type Client<P: Spoken> = $client::Client<P, $tcp>;

            fn block_on<T>(future: impl Future<Output = T>) -> T {
                $block_on(future)
            }

            async fn connect<P: Spoken>(settings: Settings) -> io::Result<Self::Client<P>> {
                let connect = $client::Connect::new().limits(settings.limits).timeouts(settings.timeouts);
                let client = $client::Client::connect_with(&connect, P::default(), settings.address).await?;
                if settings.narrow {
                    proxy::narrow(SockRef::from(client.stream()))?;
                }
                Ok(client)
            }
        }

        impl Sharing for $runtime {
            fn share<P: Spoken>(client: Self::Client<P>) -> (Handle<P>, Boxed<Result<(), End>>) {
                let (handle, connection) = client.share();
                (handle, Box::pin(connection))
            }

            fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T> {
                $spawn(task)
            }

            fn has_tasks() -> bool {
                $has_tasks()
            }
        }
    };
}

sharing!(Smol, sonnette_smol, async_net::TcpStream, smol::block_on, smol::spawn, smol::has_tasks);
sharing!(Tokio, sonnette_tokio, tokio::net::TcpStream, tokio_on::one_thread, tokio_on::spawn, tokio_on::has_tasks);
sharing!(
    TokioThreads,
    sonnette_tokio,
    tokio::net::TcpStream,
    tokio_on::two_threads,
    tokio_on::spawn,
    tokio_on::has_tasks
);

/// Has smol's reactor made, which is there once for all, before anything is counted: it is needed for a wait.
pub(crate) fn prepare() {
    async_io::block_on(async_io::Timer::after(Duration::from_millis(1)));
}

/// An executor of smol's, which runs in the thread that waits.
mod smol {
    use async_executor::Executor;

    static EXECUTOR: Executor<'static> = Executor::new();

    pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
        async_io::block_on(EXECUTOR.run(future))
    }

    pub(super) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T> {
        EXECUTOR.spawn(task)
    }

    pub(super) fn has_tasks() -> bool {
        !EXECUTOR.is_empty()
    }
}

mod tokio_on {
    use tokio::runtime::{Builder, Handle};

    pub(super) fn one_thread<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    pub(super) fn two_threads<T>(future: impl Future<Output = T>) -> T {
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
    }

    pub(super) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> impl Future<Output = T> {
        let handle = tokio::spawn(task);
        async { handle.await.unwrap() }
    }

    pub(super) fn has_tasks() -> bool {
        Handle::current().metrics().num_alive_tasks() > 0
    }
}
