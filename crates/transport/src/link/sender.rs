//! The half that sends.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Link, Writer};
use crate::envelope::{Cold, HEAD_MAX};
use crate::error::LinkError;
use crate::grpc::status;

/// Sends frames, from any one thread at a time. Dropping it ends the stream without a goodbye.
pub struct Sender {
    link: Arc<Link>,
    timeout: Option<Duration>,
}

impl Sender {
    pub(crate) fn new(link: Arc<Link>) -> Sender {
        Sender {
            link,
            timeout: None,
        }
    }

    /// Sends one frame of calls (a client) or replies (a server) whose body is `parts` in a row,
    /// at most about 1 GiB. Returns when the kernel has it all; long parts are sealed from where
    /// they lie. While the socket is full this reads what the peer sends, for the receiver.
    ///
    /// # Errors
    /// A [`LinkError`] as the source of the `io::Error`; the link is of no use afterwards.
    pub fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        if body > self.link.tuning.message_max - HEAD_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a frame beyond its bound",
            ));
        }
        self.write(|writer| writer.hot(parts))
    }

    /// Asks a server's transport for a pong with the same token.
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub fn ping(&mut self, token: u64) -> io::Result<()> {
        self.write(|writer| writer.cold(Cold::Ping(token)))
    }

    /// Says that this side has ended as expected, and ends the stream.
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub fn bye(&mut self) -> io::Result<()> {
        self.bye_because("")
    }

    /// Says why this side ends, in a sentence for a person, and ends the stream.
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub fn bye_because(&mut self, reason: &str) -> io::Result<()> {
        self.write(|writer| {
            writer.cold(Cold::Bye(reason.to_owned()))?;
            writer.end(status::OK, "")
        })
    }

    /// Bounds how long a call may wait for a peer that takes nothing, or lifts the bound.
    pub fn set_send_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.timeout = timeout.into();
    }

    /// Bytes that have gone to the socket, with all that is around the calls.
    pub fn bytes_sent(&self) -> u64 {
        self.link.bytes_sent()
    }

    pub(crate) fn write(
        &mut self,
        act: impl FnOnce(&mut Writer<'_>) -> Result<(), LinkError>,
    ) -> io::Result<()> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let result = self
            .link
            .write(deadline)
            .and_then(|mut writer| act(&mut writer));
        match result {
            Ok(()) => Ok(()),
            // Not a fault of the link: our side has ended, and reading may go on.
            Err(LinkError::Closed) => Err(LinkError::Closed.into()),
            Err(error) => Err(self.link.fail(error).into()),
        }
    }
}
