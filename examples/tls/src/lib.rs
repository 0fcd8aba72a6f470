//! What a client and a server of the notice board need for TLS: whom to trust, a certificate, and a loop. And what the
//! examples for real servers share.

mod stream;

pub use stream::{Stream, Url};

use clap::CommandFactory;
use clap::error::ErrorKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_platform_verifier::BuilderVerifierExt;
use sonnette::board::{Board, Reply, Request, ServerState};
use sonnette_driver::Transport;
use std::env::{self, VarError};
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::task::Poll;

/// Octets read at once.
const READ: usize = 4 * 1024;

/// How the program `name` ends: with one clear line if it failed, which nobody may be reading.
#[must_use]
pub fn exit(name: &str, done: Result<(), Box<dyn Error + Send + Sync>>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The server that is meant by the argument `text` of a program with the options `O`. If it is none, the program ends with 2,
/// says why and shows the usage, and does not repeat `text`, as clap would: there may be a password in it.
#[must_use]
pub fn server<O: CommandFactory, S: FromStr<Err = String>>(text: &str) -> S {
    text.parse().unwrap_or_else(|wrong| O::command().error(ErrorKind::ValueValidation, wrong).exit())
}

/// The password in this environment variable, if there is one. The error of `std` would show it where it is no UTF-8.
///
/// # Errors
/// It is no UTF-8.
pub fn password(variable: &str) -> Result<Option<String>, String> {
    match env::var(variable) {
        Ok(password) => Ok(Some(password)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("{variable}: the password is not UTF-8")),
    }
}

/// A client that trusts whom the platform trusts, or whom the certificates in a PEM file vouch for, and nobody else.
///
/// # Errors
/// Those of the file, and of what is in it.
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, Box<dyn Error + Send + Sync>> {
    trusting(ca).map_err(|error| match ca {
        Some(path) => format!("cannot use {}: {error}", path.display()).into(),
        None => format!("cannot use the certificates of the platform: {error}").into(),
    })
}

fn trusting(ca: Option<&Path>) -> Result<Arc<ClientConfig>, Box<dyn Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match ca {
        None => builder.with_platform_verifier()?,
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(path)? {
                roots.add(certificate?)?;
            }
            if roots.is_empty() {
                return Err("there is no certificate in it".into());
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// A server with a new certificate for `localhost`, and the certificate as PEM, for its clients to trust.
///
/// # Errors
/// Those of the key and the certificate.
pub fn server_config() -> Result<(Arc<ServerConfig>, String), Box<dyn Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    Ok((Arc::new(config), made.cert.pem()))
}

/// Serves one client over any stream of a runtime, until that closes. There is a new number with each question, and so
/// always something to ring for.
///
/// # Errors
/// Those of the stream.
pub async fn serve(mut stream: impl Transport, board: Board) -> io::Result<()> {
    let (mut state, mut number) = (ServerState::new(board), 46774);
    let mut buffer = vec![0; READ];
    while !state.is_finished() {
        while let Some(request) = state.poll_request() {
            let reply = match request {
                Request::Random => Reply::Random(number),
                Request::Classified => Reply::Classified("nice flat in the 11e".into()),
            };
            state.answer(reply).map_err(|rejected| io::Error::other(rejected.reason))?;
            number += 1;
            state.notify(Request::Random);
        }
        let octets = poll_fn(|cx| {
            while !state.output().is_empty() {
                match stream.poll_write(cx, state.output()) {
                    Poll::Ready(written) => state.advance_output(written?),
                    Poll::Pending => break,
                }
            }
            if let Poll::Ready(Err(error)) = stream.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            match (state.wants_input(), state.output().is_empty()) {
                (true, _) => stream.poll_read(cx, &mut buffer, None).map_ok(Some),
                (false, true) => Poll::Ready(Ok(None)),
                (false, false) => Poll::Pending,
            }
        })
        .await?;
        match octets {
            Some(0) => state.receive_eof(),
            Some(octets) => state.receive(buffer.get(..octets).unwrap_or_default()),
            None => {}
        }
    }
    // A client that closed its side first may be gone.
    let _ = poll_fn(|cx| stream.poll_close(cx)).await;
    Ok(())
}
