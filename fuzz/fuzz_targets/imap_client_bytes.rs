//! Sessions of IMAP: see `sonnette_fuzz::session`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::imap::Imap;
use sonnette_fuzz::session::session;

fuzz_target!(|data: &[u8]| session::<Imap>(data));
