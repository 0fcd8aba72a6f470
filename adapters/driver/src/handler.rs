use crate::{Driver, Error};
use sonnette::Protocol;

/// Callbacks for `run`.
pub trait Handler<P: Protocol> {
    /// The server rang.
    fn notification(&mut self, notification: P::Notification);

    /// Asked after each notification: whether `run` returns now. By default it never does.
    fn is_done(&self) -> bool {
        false
    }
}

/// Callbacks for [`run_with`](Driver::run_with) that may use the client, and wait.
///
/// ```
/// use sonnette::board::{Board, Notification, Refusal, Request};
/// use sonnette_driver::{AsyncHandler, Driver, Error, Transport};
///
/// struct Fetch;
///
/// impl<T: Transport + Send> AsyncHandler<Board, T> for Fetch {
///     async fn notification(
///         &mut self,
///         client: &mut Driver<Board, T>,
///         notification: Notification,
///     ) -> Result<(), Error<Refusal>> {
///         if notification == Notification::Random {
///             println!("{:?}", client.ring(Request::Random).await?);
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait AsyncHandler<P: Protocol, T> {
    /// The server rang. An error ends [`run_with`](Driver::run_with), which returns it.
    fn notification(
        &mut self,
        client: &mut Driver<P, T>,
        notification: P::Notification,
    ) -> impl Future<Output = Result<(), Error<P::Refusal>>> + Send;

    /// Asked after each notification: whether `run_with` returns now. By default it never does.
    fn is_done(&self) -> bool {
        false
    }
}
