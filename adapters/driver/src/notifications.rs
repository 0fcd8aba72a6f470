use crate::{Driver, Error, Transport};
use futures_core::{FusedStream, Stream};
use sonnette::Protocol;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The notifications of a client as a stream: [`Driver::notifications`].
///
/// It ends once the mode has ended and no notification is kept, or with the connection, whose end it tells. After any
/// other error it goes on. To drop it loses nothing.
pub struct Notifications<'a, P: Protocol, T> {
    driver: &'a mut Driver<P, T>,
    over: bool,
}

impl<'a, P: Protocol, T> Notifications<'a, P, T> {
    pub(crate) fn new(driver: &'a mut Driver<P, T>) -> Self {
        Notifications { driver, over: false }
    }
}

impl<P: Protocol, T: Transport> Stream for Notifications<'_, P, T> {
    type Item = Result<P::Notification, Error<P::Refusal>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.driver.poll_next_notification(cx)).transpose();
        self.over = matches!(next, None | Some(Err(Error::Ended(_))));
        Poll::Ready(next)
    }
}

impl<P: Protocol, T: Transport> FusedStream for Notifications<'_, P, T> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}

impl<P: Protocol, T> fmt::Debug for Notifications<'_, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications").field("over", &self.over).finish_non_exhaustive()
    }
}
