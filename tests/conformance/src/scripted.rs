//! A stream in memory whose other end speaks its part of a scenario.

use crate::Line;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

/// How the stream behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// A read or write goes so many octets at most.
    pub most: usize,
    pub stalls: Stalls,
}

/// What each other read, write and flush does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalls {
    Never,
    /// `Pending`, or `WouldBlock` from a stream that blocks.
    Pending,
    /// `Interrupted`.
    Interrupted,
}

pub const MANNERS: [Manner; 6] = [
    Manner { most: usize::MAX, stalls: Stalls::Never },
    Manner { most: usize::MAX, stalls: Stalls::Pending },
    Manner { most: 1, stalls: Stalls::Never },
    Manner { most: 1, stalls: Stalls::Pending },
    Manner { most: 1, stalls: Stalls::Interrupted },
    Manner { most: 7, stalls: Stalls::Pending },
];

#[derive(Debug)]
pub struct Scripted {
    manner: Manner,
    script: VecDeque<Line>,
    /// What the client said that the script has not come to.
    said: Vec<u8>,
    /// Whether the last read, write and flush stalled.
    stalled: [bool; 3],
    patient: bool,
}

impl Scripted {
    #[must_use]
    pub fn new(script: &[Line], manner: Manner) -> Self {
        Scripted { manner, script: script.iter().cloned().collect(), said: vec![], stalled: [false; 3], patient: false }
    }

    /// One that waits for what the client says, as long as it takes.
    #[must_use]
    pub fn patient(script: &[Line], manner: Manner) -> Self {
        Scripted { patient: true, ..Scripted::new(script, manner) }
    }

    /// Whether the client has said all that the script says, and nothing more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.said.is_empty() && !self.script.iter().any(|line| matches!(line, Line::Client(_)))
    }

    fn stall(&mut self, what: usize) -> io::Result<()> {
        self.stalled[what] = !self.stalled[what] && self.manner.stalls != Stalls::Never;
        match self.manner.stalls {
            Stalls::Interrupted if self.stalled[what] => Err(io::ErrorKind::Interrupted.into()),
            _ if self.stalled[what] => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }

    fn hear(&mut self) {
        while let Some(Line::Client(line)) = self.script.front() {
            if self.said.starts_with(line) {
                self.said.drain(..line.len());
                self.script.pop_front();
            } else if line.starts_with(&self.said) {
                return;
            } else {
                panic!("the client says {} instead of {}", self.said.escape_ascii(), line.escape_ascii());
            }
        }
        if let Some(Line::Anything) = self.script.front() {
            self.said.clear();
        }
    }
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stall(0)?;
        self.hear();
        match self.script.front_mut() {
            Some(Line::Server(line)) => {
                let octets = line.len().min(buffer.len()).min(self.manner.most);
                buffer[..octets].copy_from_slice(&line[..octets]);
                line.drain(..octets);
                if line.is_empty() {
                    self.script.pop_front();
                }
                // A line of no octets is no end of the stream.
                if octets == 0 { self.read(buffer) } else { Ok(octets) }
            }
            // Before it can speak, what was stalled must be written and flushed.
            Some(Line::Client(_)) if self.stalled[1] || self.stalled[2] || self.patient => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Some(Line::Client(line)) => panic!("the client waits instead of saying {}", line.escape_ascii()),
            Some(Line::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Line::Anything) | None => Ok(0),
        }
    }
}

impl Write for Scripted {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.stall(1)?;
        let octets = &octets[..octets.len().min(self.manner.most)];
        self.said.extend_from_slice(octets);
        self.hear();
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stall(2)
    }
}

/// The same for a runtime: what stalls is woken at once.
#[derive(Debug)]
pub struct Polled(pub Scripted);

impl Polled {
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Scripted) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        match act(&mut self.0) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }
}

impl tokio::io::AsyncRead for Polled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream| stream.read(buffer.initialize_unfilled())).map_ok(|octets| buffer.advance(octets))
    }
}

impl tokio::io::AsyncWrite for Polled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream| stream.write(octets))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Write::flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl futures_io::AsyncRead for Polled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream| stream.read(buffer))
    }
}

impl futures_io::AsyncWrite for Polled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream| stream.write(octets))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Write::flush)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
