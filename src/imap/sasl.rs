//! Logging in by a mechanism of SASL. (RFC 4422, RFC 3501 section 6.2.2)

use crate::{Encoder, Fault, Invalid};
use alloc::sync::Arc;
use alloc::vec::Vec;
use alloc::{format, string::String};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use core::{fmt, hash, ptr};

/// Challenges in one login, at most. SCRAM has two, Kerberos three.
pub const MAX_CHALLENGES: usize = 16;

/// Octets of a challenge in base64, at most. (RFC 4954 section 4, of SMTP; no other standard says how many)
pub const MAX_CHALLENGE: usize = 12_288;

/// What answers the challenges of one mechanism, for [`Command::authenticate`](super::Command::authenticate).
///
/// What it says is made of what it holds and of the challenges alone: a clone of the connection says the same. Nothing of
/// it is in base64. A mechanism may not set up a security layer.
///
/// ```
/// use sonnette::{Invalid, imap::{Command, Responder}};
///
/// /// RFC 7628, without what it says of the host.
/// struct OAuthBearer(String);
///
/// impl Responder for OAuthBearer {
///     fn mechanism(&self) -> &str {
///         "OAUTHBEARER"
///     }
///     fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
///         Ok(Some(format!("n,,\x01auth=Bearer {}\x01\x01", self.0).into()))
///     }
///     fn respond(&self, _failure: &[bytes::Bytes]) -> Option<Vec<u8>> {
///         Some(b"\x01".into())
///     }
/// }
///
/// let login = Command::authenticate(OAuthBearer("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==".into()));
/// # let _ = login;
/// ```
pub trait Responder: Send + Sync {
    /// Its name, `PLAIN`.
    fn mechanism(&self) -> &str;

    /// What the client says first, if it does. It goes out with the command if the server is known to have `SASL-IR`, else
    /// when the server asks for it. (RFC 4959)
    ///
    /// # Errors
    /// [`Invalid`] if the mechanism cannot express what it holds.
    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid>;

    /// The response to the last of these challenges, which are all there were; `None` cancels. That for which the initial
    /// response is given is not among them.
    fn respond(&self, challenges: &[Bytes]) -> Option<Vec<u8>>;
}

/// User and password in the clear: over TLS alone. (RFC 4616)
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Plain {
    user: String,
    password: String,
}

impl Plain {
    /// Logs in as this user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Plain { user: user.into(), password: password.into() }
    }
}

impl Responder for Plain {
    fn mechanism(&self) -> &str {
        "PLAIN"
    }

    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
        let Plain { user, password } = self;
        if user.contains('\0') || password.contains('\0') {
            return Err(Invalid::new("a NUL in a name or password"));
        }
        Ok(Some(format!("\0{user}\0{password}").into()))
    }

    fn respond(&self, _: &[Bytes]) -> Option<Vec<u8>> {
        None
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A token of OAuth 2.0, as Google and Microsoft take it. ("OAuth 2.0 Mechanism", "SASL XOAUTH2")
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct XOAuth2 {
    user: String,
    token: String,
}

impl XOAuth2 {
    /// Logs in as this user with an access token.
    pub fn new(user: impl Into<String>, token: impl Into<String>) -> Self {
        XOAuth2 { user: user.into(), token: token.into() }
    }
}

impl Responder for XOAuth2 {
    fn mechanism(&self) -> &str {
        "XOAUTH2"
    }

    fn initial(&self) -> Result<Option<Vec<u8>>, Invalid> {
        let XOAuth2 { user, token } = self;
        if user.contains('\x01') || token.contains('\x01') {
            return Err(Invalid::new("a control character in a name or token"));
        }
        Ok(Some(format!("user={user}\x01auth=Bearer {token}\x01\x01").into()))
    }

    /// The challenge says why the token is refused; an empty response asks for the refusal.
    fn respond(&self, _: &[Bytes]) -> Option<Vec<u8>> {
        Some(Vec::new())
    }
}

impl fmt::Debug for XOAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XOAuth2").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A responder that many may hold. Two are equal if they are the same one.
#[derive(Clone)]
pub(super) struct Shared(Arc<dyn Responder>);

impl Shared {
    pub(super) fn new(responder: impl Responder + 'static) -> Self {
        Shared(Arc::new(responder))
    }

    /// Writes ` PLAIN`, and the initial response if it is to go out at once; whether it is.
    pub(super) fn encode(&self, has_ir: bool, out: &mut Encoder<'_>) -> Result<bool, Invalid> {
        let name = self.0.mechanism();
        // RFC 4422 section 3.1.
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(Invalid::new("not the name of a mechanism"));
        }
        out.put(b" ");
        out.put(name.as_bytes());
        let initial = self.0.initial()?.filter(|_| has_ir);
        if let Some(initial) = &initial {
            out.put(b" ");
            // RFC 4959 section 3: an empty one is `=`.
            out.put(if initial.is_empty() { "=".into() } else { STANDARD.encode(initial) }.as_bytes());
        }
        Ok(initial.is_some())
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Eq for Shared {}

impl hash::Hash for Shared {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

/// What it holds is a secret.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.mechanism())
    }
}

/// The login that is going on: what the server has said.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Dialogue {
    /// The initial response was asked for.
    begun: bool,
    challenges: Vec<Bytes>,
    /// What it was answered last, without CR LF.
    last: Vec<u8>,
}

impl Dialogue {
    /// The line that answers a challenge.
    pub(super) fn respond(&mut self, responder: &Shared, begun: bool, challenge: &[u8]) -> Result<Vec<u8>, Fault> {
        if challenge.len() > MAX_CHALLENGE || self.challenges.len() == MAX_CHALLENGES {
            return Err(Fault::Violation("too many challenges, or too long a one"));
        }
        // What asks for the initial response says nothing by it.
        let initial = match responder.0.initial() {
            Ok(Some(initial)) if !begun && !self.begun => Some(initial),
            _ => None,
        };
        self.begun = true;
        let response = initial.or_else(|| {
            // What cannot be read cannot be answered.
            self.challenges.push(STANDARD.decode(challenge.trim_ascii()).ok()?.into());
            responder.0.respond(&self.challenges)
        });
        // RFC 3501 section 6.2.2: `*` cancels.
        self.last = response.map_or("*".into(), |response| STANDARD.encode(response)).into_bytes();
        Ok([&self.last, &b"\r\n"[..]].concat())
    }

    /// The login is over: the response that may have been on its way.
    pub(super) fn into_last(self) -> Vec<u8> {
        self.last
    }
}

/// Challenges and responses are secrets.
impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialogue({} challenges)", self.challenges.len())
    }
}
