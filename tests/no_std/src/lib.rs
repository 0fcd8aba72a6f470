//! sonnette in a program without Rust's std, with an allocator and a panic handler of its own.

#![no_std]
#![forbid(unsafe_code)]

use core::panic::PanicInfo;
use dlmalloc::GlobalDlmalloc;
use sonnette::board::{Board, Notification, Reply, Request};
use sonnette::imap::Imap;
use sonnette::mpd::Mpd;
use sonnette::redis::Redis;
use sonnette::{ClientState, Event, Protocol, imap};

#[global_allocator]
static ALLOCATOR: GlobalDlmalloc = GlobalDlmalloc;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// The other protocols, so that they are in the library.
#[used]
static OTHERS: [extern "C" fn(&Segment) -> usize; 4] = [events::<Imap>, events::<Mpd>, events::<Redis>, data];

/// How many data a parser understands.
extern "C" fn data(segment: &Segment) -> usize {
    let mut state = ClientState::new(Imap::new());
    state.receive(&segment.octets);
    let events = core::iter::from_fn(|| state.poll_event().ok().flatten());
    events
        .filter(|event| matches!(event, Event::Notification(imap::Notification::Other(data)) if data.parse().is_ok()))
        .count()
}

/// How many events there are.
extern "C" fn events<P: Protocol + Default>(segment: &Segment) -> usize {
    let mut state = ClientState::new(P::default());
    state.receive(&segment.octets);
    state.receive_eof();
    core::iter::from_fn(|| state.poll_event().ok().flatten()).count()
}

/// What one read of a socket gave.
#[repr(C)]
pub struct Segment {
    length: usize,
    octets: [u8; 1460],
}

/// Exporting it under a name of its own would need `unsafe(no_mangle)`; this keeps it in the library as well.
#[used]
static SESSION: extern "C" fn(&Segment) -> i64 = session;

/// Asks for a number, enters notification mode, rings once for each notification, and adds up the numbers; -1 if the
/// server breaks the protocol or rings too often.
pub extern "C" fn session(segment: &Segment) -> i64 {
    let octets = segment.octets.get(..segment.length).unwrap_or(&segment.octets);
    let mut state = ClientState::new(Board::acknowledged());
    let mut sum = 0_i64;
    if state.request(Request::Random).is_err() || state.enter(()).is_err() {
        return -1;
    }
    state.receive(octets);
    state.receive_eof();
    loop {
        match state.poll_event() {
            Ok(Some(Event::Reply { reply: Reply::Random(number), .. })) => sum = sum.wrapping_add(number),
            Ok(Some(Event::Notification(Notification::Random))) => {
                state.leave();
                if state.request(Request::Random).is_err() || state.enter(()).is_err() {
                    return -1;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return sum,
            Err(_) => return -1,
        }
        state.advance_output(state.output().len());
    }
}
