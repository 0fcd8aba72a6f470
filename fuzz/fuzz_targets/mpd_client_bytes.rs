//! Sessions of MPD: see `sonnette_fuzz::session`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sonnette::mpd::Mpd;
use sonnette_fuzz::session::session;

fuzz_target!(|data: &[u8]| session::<Mpd>(data));
