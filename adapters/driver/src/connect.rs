use sonnette::{ClientState, Limits, Protocol, Timeouts};
use std::time::Duration;
#[cfg(feature = "tcp")]
use {socket::AsSocket, std::io, std::net::SocketAddr};

/// What the options of a socket are set through.
#[cfg(feature = "tcp")]
mod socket {
    #[cfg(unix)]
    pub(super) use std::os::fd::AsFd as AsSocket;
    #[cfg(windows)]
    pub(super) use std::os::windows::io::AsSocket;
}

/// How long connecting may take, to each address, and how long the server may take to greet. A distant or busy server
/// takes a second or two, and whoever waits for one that has died wants to know it before turning away.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What can be set about a connection before it is made.
#[derive(Clone, Debug)]
#[must_use]
pub struct Connect {
    connect_timeout: Option<Duration>,
    greeting_timeout: Option<Duration>,
    keepalive: Option<Duration>,
    limits: Option<Limits>,
    timeouts: Option<Timeouts>,
}

impl Default for Connect {
    fn default() -> Self {
        Self::new()
    }
}

impl Connect {
    /// With ten seconds to connect, and as many for the server to greet; without keepalive, and with the protocol's own
    /// limits and timeouts.
    pub const fn new() -> Self {
        Connect {
            connect_timeout: Some(TIMEOUT),
            greeting_timeout: Some(TIMEOUT),
            keepalive: None,
            limits: None,
            timeouts: None,
        }
    }

    /// Gives up on each address of a TCP connection after so long; `None` waits as long as the system does.
    pub fn connect_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Ends a connection whose server has not greeted after so long, with
    /// [`Error::GreetingTimeout`](sonnette::Error::GreetingTimeout), if the protocol has a greeting; `None` waits for ever.
    pub fn greeting_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.greeting_timeout = timeout;
        self
    }

    /// Has the system probe a TCP connection that was silent for so long. This finds a host that is dead; a server that
    /// is there and says nothing is found by [`Timeouts::silence`].
    pub fn keepalive(mut self, idle: Option<Duration>) -> Self {
        self.keepalive = idle;
        self
    }

    /// Limits other than the protocol's own.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Timeouts other than the protocol's own, which most have off.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = Some(timeouts);
        self
    }

    /// For adapters: the machine of such a connection.
    #[must_use]
    pub fn state<P: Protocol>(&self, protocol: P) -> ClientState<P> {
        let mut state = ClientState::with_limits(protocol, self.limits.unwrap_or(P::LIMITS));
        if let Some(timeouts) = self.timeouts {
            state.set_timeouts(timeouts);
        }
        state.set_greeting_timeout(self.greeting_timeout);
        state
    }

    /// For adapters: connects to each address in turn, by `dial` with the connect timeout, and sets what is to be set
    /// about the socket.
    ///
    /// # Errors
    /// That of the last address, or `InvalidInput` if there is none.
    #[cfg(feature = "tcp")]
    pub async fn first<S: AsSocket>(
        &self,
        addresses: impl IntoIterator<Item = SocketAddr>,
        dial: impl AsyncFn(SocketAddr, Option<Duration>) -> io::Result<S>,
    ) -> io::Result<S> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
        for address in addresses {
            match dial(address, self.connect_timeout).await {
                Ok(stream) => {
                    let socket = socket2::SockRef::from(&stream);
                    socket.set_tcp_nodelay(true)?;
                    if let Some(idle) = self.keepalive {
                        socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(idle))?;
                    }
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
