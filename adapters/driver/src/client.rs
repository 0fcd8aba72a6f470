/// For adapters: defines the `Client` of a runtime over its transport `Io`, which implements `From` for each stream that
/// satisfies the bounds, and has it in a field `stream`. The methods of a client that do not depend on the runtime are
/// those of [`Driver`](crate::Driver), to which it dereferences. Beside it the runtime defines `connect_with` for its TCP.
#[doc(hidden)]
#[macro_export]
macro_rules! client {
    (
        $(#[$attribute:meta])*
        over [$($bound:tt)+];
        tcp $tcp:ty, at $address:path;
        unix $unix:ident
    ) => {
        $(#[$attribute])*
        #[derive(Debug)]
        pub struct Client<P: ::sonnette::Protocol, S> {
            driver: $crate::Driver<P, Io<S>>,
        }

        impl<P: ::sonnette::Protocol, S: $($bound)+> Client<P, S> {
            /// A client over a stream that is connected already, as by [`Connect::new`]: with the protocol's own limits, and
            /// ten seconds for the server to greet.
            #[must_use]
            pub fn new(protocol: P, stream: S) -> Self {
                Self::with_state($crate::Connect::new().state(protocol), stream)
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

            /// Lets many tasks ask over this connection, and be rung by it: see [`Driver::share`].
            pub fn share(self) -> ($crate::Handle<P>, $crate::Connection<P, Io<S>>)
            where
                P::Notification: Clone,
            {
                self.driver.share()
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

        impl<P: ::sonnette::Protocol> Client<P, $tcp> {
            /// Connects over TCP in the protocol's default dialect, trying every address of the name in turn, with
            /// `TCP_NODELAY` on. [`connect_with`](Self::connect_with) sets more.
            ///
            /// # Errors
            /// That of the last address, or `InvalidInput` if there is none.
            pub async fn connect(address: impl $address) -> ::std::io::Result<Self>
            where
                P: Default,
            {
                Self::connect_with(&$crate::Connect::new(), P::default(), address).await
            }
        }

        #[cfg(unix)]
        impl<P: ::sonnette::Protocol> Client<P, $unix> {
            /// Connects over a Unix socket in the protocol's default dialect.
            ///
            /// # Errors
            /// Those of the system.
            pub async fn connect_unix(path: impl AsRef<::std::path::Path>) -> ::std::io::Result<Self>
            where
                P: Default,
            {
                Self::connect_unix_with(&$crate::Connect::new(), P::default(), path).await
            }

            /// As [`connect_unix`](Self::connect_unix), with everything settable that is not about TCP.
            ///
            /// # Errors
            /// As there.
            pub async fn connect_unix_with(
                connect: &$crate::Connect,
                protocol: P,
                path: impl AsRef<::std::path::Path>,
            ) -> ::std::io::Result<Self> {
                Ok(Self::with_state(connect.state(protocol), $unix::connect(path).await?))
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
