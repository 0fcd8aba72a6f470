/// For adapters: defines the `Client` of a runtime over its transport `Io`, which implements `From` for each stream that
/// satisfies the bounds, and has it in a field `stream`. The methods of a client that do not depend on the runtime are
/// those of [`Driver`](crate::Driver), to which it dereferences.
#[doc(hidden)]
#[macro_export]
macro_rules! client {
    ($(#[$attribute:meta])* over $($bound:tt)+) => {
        $(#[$attribute])*
        #[derive(Debug)]
        pub struct Client<P: ::sonnette::Protocol, S> {
            driver: $crate::Driver<P, Io<S>>,
        }

        impl<P: ::sonnette::Protocol, S: $($bound)+> Client<P, S> {
            /// A client over a stream that is connected already, with the protocol's own limits.
            #[must_use]
            pub fn new(protocol: P, stream: S) -> Self {
                Self::with_state(::sonnette::ClientState::new(protocol), stream)
            }

            /// A client that goes on with this state over this stream.
            #[must_use]
            pub fn with_state(state: ::sonnette::ClientState<P>, stream: S) -> Self {
                Client { driver: $crate::Driver::new(state, Io::from(stream)) }
            }

            /// The stream.
            #[must_use]
            pub fn stream(&self) -> &S {
                &self.driver.transport().stream
            }

            /// The stream, to set its options. What is read or written past the client is missing to it.
            #[must_use]
            pub fn stream_mut(&mut self) -> &mut S {
                &mut self.driver.transport_mut().stream
            }

            /// The machine, the stream, and the events that nobody has taken.
            #[must_use]
            pub fn into_parts(
                self,
            ) -> (::sonnette::ClientState<P>, S, ::std::collections::VecDeque<::sonnette::Event<P>>) {
                let (state, transport, kept) = self.driver.into_parts();
                (state, transport.stream, kept)
            }
        }

        impl<P: ::sonnette::Protocol, S> ::std::ops::Deref for Client<P, S> {
            type Target = $crate::Driver<P, Io<S>>;

            fn deref(&self) -> &Self::Target {
                &self.driver
            }
        }

        impl<P: ::sonnette::Protocol, S> ::std::ops::DerefMut for Client<P, S> {
            fn deref_mut(&mut self) -> &mut Self::Target {
                &mut self.driver
            }
        }
    };
}
