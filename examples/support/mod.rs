//! What the examples share.

#[allow(dead_code, reason = "not every example has a notice board")]
pub(crate) mod board;
#[allow(dead_code, reason = "not every example opens thousands")]
pub(crate) mod files;
#[allow(dead_code, reason = "not every example prints facts itself")]
pub(crate) mod print;
#[allow(dead_code, reason = "not every example watches")]
pub(crate) mod session;

use clap::Parser;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// The options; with wrong ones the program ends here with 2, says what is wrong and shows the usage.
pub(crate) fn options<O: Parser>() -> O {
    O::try_parse().unwrap_or_else(|error| wrong_options::<O>(&error))
}

pub(crate) fn wrong_options<O: Parser>(error: &clap::Error) -> ! {
    if !error.use_stderr() || error.to_string().contains("Usage:") {
        error.exit();
    }
    eprintln!("{}\n{}", error.to_string().trim_end(), O::command().render_usage());
    std::process::exit(2)
}

/// How the program `name` ends: with one clear line if it failed.
pub(crate) fn exit(name: &str, done: Result<(), impl Display>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("{name}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A line on standard error, where somebody may or may not be reading it.
pub(crate) fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// `HOST:PORT`, as far as can be seen without asking for the name.
#[allow(dead_code, reason = "not every example is told where the server is")]
pub(crate) fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("it must be HOST:PORT".to_owned()),
    }
}
