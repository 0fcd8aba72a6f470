//! The limit of open files.

/// Makes room for so many sockets of this process and of each that it starts, if the system lets it: how many there may
/// be.
#[cfg(unix)]
pub(crate) fn room_for(sockets: usize) -> std::io::Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// Standard streams, listeners, pipes, the runtime's own.
    const OTHERS: usize = 100;
    let limit = getrlimit(Resource::Nofile);
    let fits = |limit: Option<u64>| limit.is_none_or(|limit| limit >= (sockets + OTHERS) as u64);
    if fits(limit.current) {
        return Ok(sockets);
    }
    let wanted = (sockets + OTHERS) as u64;
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum })?;
    Ok(usize::try_from(current).map_or(sockets, |current| current.saturating_sub(OTHERS).min(sockets)))
}

/// Where there is no such limit.
#[cfg(not(unix))]
pub(crate) fn room_for(sockets: usize) -> std::io::Result<usize> {
    Ok(sockets)
}
