//! What the suite needs of a client: the methods that all of them have.

use sonnette::{Event, Protocol, Rejected, RequestId};
use sonnette_driver::{Driver, Error, Transport};
use std::io::{Read, Write};

type Outcome<T, P> = Result<T, Error<<P as Protocol>::Refusal>>;

#[allow(async_fn_in_trait, reason = "it is used here alone")]
pub trait Subject<P: Protocol> {
    fn start(&mut self, request: P::Request) -> Result<RequestId, Rejected<P::Request>>;
    async fn call(&mut self, request: P::Request) -> Outcome<P::Reply, P>;
    async fn outcome(&mut self, id: RequestId) -> Outcome<P::Reply, P>;
    async fn ring(&mut self, request: P::Request) -> Outcome<P::Reply, P>;
    async fn enter(&mut self, subscription: P::Subscription) -> Outcome<RequestId, P>;
    async fn leave(&mut self) -> Outcome<(), P>;
    async fn next_notification(&mut self) -> Outcome<Option<P::Notification>, P>;
    async fn next_event(&mut self) -> Outcome<Event<P>, P>;
}

macro_rules! subject {
    ([$($generics:tt)*] $client:ty $(, $then:ident)?) => {
        impl<P: Protocol, $($generics)*> Subject<P> for $client {
            fn start(&mut self, request: P::Request) -> Result<RequestId, Rejected<P::Request>> {
                self.start(request)
            }
            async fn call(&mut self, request: P::Request) -> Outcome<P::Reply, P> {
                self.call(request)$(.$then)?
            }
            async fn outcome(&mut self, id: RequestId) -> Outcome<P::Reply, P> {
                self.outcome(id)$(.$then)?
            }
            async fn ring(&mut self, request: P::Request) -> Outcome<P::Reply, P> {
                self.ring(request)$(.$then)?
            }
            async fn enter(&mut self, subscription: P::Subscription) -> Outcome<RequestId, P> {
                self.enter(subscription)$(.$then)?
            }
            async fn leave(&mut self) -> Outcome<(), P> {
                self.leave()$(.$then)?
            }
            async fn next_notification(&mut self) -> Outcome<Option<P::Notification>, P> {
                self.next_notification()$(.$then)?
            }
            async fn next_event(&mut self) -> Outcome<Event<P>, P> {
                self.next_event()$(.$then)?
            }
        }
    };
}

subject!([T: Transport] Driver<P, T>, await);
subject!([S: Read + Write] sonnette_std::Client<P, S>);
