//! The half that sends.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lent::{Buffer, Lent, Loan, LENT_MIN};
use super::writing::{Outgoing, Written};
use super::{Keeper, Link, Writer};
use crate::envelope::HEAD_MAX;
use crate::error::LinkError;

/// Sends frames, from any one thread at a time. While the connection is broken and the session may
/// be resumed, its calls wait. Dropping it ends the stream without a goodbye.
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

    /// Something that looks after the link beside its two halves.
    pub fn keeper(&self) -> Keeper {
        Keeper::new(self.link.clone())
    }

    /// Sends one frame of calls (a client) or replies (a server) whose body is `parts` in a row,
    /// at most about 1 GiB. Returns when the kernel has it all; long parts are sealed from where
    /// they lie. While the socket is full this reads what the peer sends, for the receiver.
    ///
    /// # Errors
    /// A [`LinkError`] as the source of the `io::Error`; the link is of no use afterwards.
    pub fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if parts.iter().all(|part| part.len() < LENT_MIN) {
            return self.send_in_pieces(parts, |_| None);
        }
        let loan = self.loan();
        // SAFETY: the loan ends before this returns.
        unsafe { self.send_lent(parts, &loan) }
    }

    /// Something that bytes may be lent for, for [`send_lent`](Sender::send_lent).
    pub fn loan(&self) -> Loan {
        Loan::new(&self.link)
    }

    /// As [`send`](Sender::send), and what may have to be sent again of long parts is not copied before the
    /// loan ends.
    ///
    /// # Safety
    /// The bytes of `parts` stay as they are until the loan has been dropped, which must be.
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub unsafe fn send_lent(&mut self, parts: &[&[u8]], loan: &Loan) -> io::Result<()> {
        let number = loan.number;
        self.send_in_pieces(parts, |part| {
            // SAFETY: the caller's promise.
            (part.len() >= LENT_MIN).then(|| unsafe { Lent::new(part, number) })
        })
    }

    /// As [`send`](Sender::send), for a body that ends with all of `buffer`, which is kept as long as the peer has
    /// not acknowledged it, and dropped then, by any thread.
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub fn send_buffer(&mut self, parts: &[&[u8]], buffer: Buffer) -> io::Result<()> {
        let bytes = (*buffer).as_ref();
        let body = parts.iter().map(|part| part.len()).sum::<usize>() + bytes.len();
        let parts: Vec<&[u8]> = parts.iter().copied().chain([bytes]).collect();
        if bytes.len() < LENT_MIN || body > self.link.tuning.piece_max {
            return self.send(&parts);
        }
        let loan = self.loan();
        // SAFETY: the loan ends before the buffer goes: it is younger, or takes it over.
        unsafe { self.send_lent(&parts, &loan) }?;
        loan.end_with(buffer);
        Ok(())
    }

    fn send_in_pieces(
        &mut self,
        parts: &[&[u8]],
        lend: impl Fn(&[u8]) -> Option<Lent>,
    ) -> io::Result<()> {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        if body > self.link.tuning.message_max - HEAD_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a frame beyond its bound",
            ));
        }
        let lent = |parts: &[&[u8]]| parts.last().and_then(|last| lend(last));
        if !self.link.is_resumable() || body <= self.link.tuning.piece_max {
            return self.say(&Outgoing::Hot {
                parts,
                lent: lent(parts),
                more: 0,
            });
        }
        let mut rest = Pieces::new(parts);
        let mut left = body;
        while left > 0 {
            let piece = rest.take(self.link.tuning.piece_max);
            left -= piece.iter().map(|part| part.len()).sum::<usize>();
            self.say(&Outgoing::Hot {
                parts: &piece,
                lent: lent(&piece),
                more: left as u64,
            })?;
        }
        Ok(())
    }

    /// Asks a server's transport for a pong with the same token.
    ///
    /// # Errors
    /// As [`send`](Sender::send).
    pub fn ping(&mut self, token: u64) -> io::Result<()> {
        self.say(&Outgoing::Ping(token))
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
        self.say(&Outgoing::Bye(reason))
    }

    /// Bounds how long a call may wait for a peer that takes nothing, or lifts the bound.
    pub fn set_send_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.timeout = timeout.into();
    }

    /// Bytes that have gone to the socket, with all that is around the calls.
    pub fn bytes_sent(&self) -> u64 {
        self.link.bytes_sent()
    }

    /// Gives the peer so long to close the connection after a goodbye, then closes it: a peer may
    /// lose a goodbye that it has not read when the connection ends, and one that is closed with
    /// bytes unread is reset.
    pub fn linger(&self, bound: Duration) {
        self.link.linger(bound);
    }

    fn deadline(&self) -> Option<Instant> {
        self.timeout.map(|timeout| Instant::now() + timeout)
    }

    /// Sends a message of the session.
    fn say(&mut self, message: &Outgoing<'_>) -> io::Result<()> {
        let deadline = self.deadline();
        let link = &self.link;
        loop {
            link.await_resumed(deadline)?;
            let mut writer = link.write(deadline)?;
            if writer.connection().broken().is_some() {
                drop(writer);
                // Whoever has found that is about to make the writers wait.
                std::thread::yield_now();
                continue;
            }
            let connection = writer.connection().clone();
            let (kept, written) = match writer.admit(message) {
                Ok(seq) => (true, writer.transmit(seq, message)),
                Err(how) => (false, Err(how)),
            };
            drop(writer);
            match written {
                Ok(()) => return Ok(()),
                // Not a fault of the link: our side has ended, and reading may go on.
                Err(super::Break::Final(LinkError::Closed)) => {
                    return Err(LinkError::Closed.into());
                }
                Err(how) => link.broke(&connection, how)?,
            }
            if kept {
                // It is sent again with all that the peer has not acknowledged.
                return Ok(link.await_resumed(deadline)?);
            }
        }
    }

    /// Writes what comes before a session, and is not kept.
    pub(crate) fn write(&mut self, act: impl FnOnce(&mut Writer<'_>) -> Written) -> io::Result<()> {
        let mut writer = self.link.write(self.deadline())?;
        let connection = writer.connection().clone();
        let written = act(&mut writer);
        drop(writer);
        match written {
            Ok(()) => Ok(()),
            Err(super::Break::Final(LinkError::Closed)) => Err(LinkError::Closed.into()),
            Err(how) => Ok(self.link.broke(&connection, how)?),
        }
    }
}

/// A body that is taken in pieces.
struct Pieces<'a> {
    parts: &'a [&'a [u8]],
    /// What has been taken of the first part.
    taken: usize,
}

impl<'a> Pieces<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Pieces<'a> {
        Pieces { parts, taken: 0 }
    }

    /// The next bytes, as they lie: `max`, or all that are left.
    fn take(&mut self, mut max: usize) -> Vec<&'a [u8]> {
        let mut piece = Vec::new();
        while let Some((first, others)) = self.parts.split_first() {
            let rest = &first[self.taken..];
            if rest.len() > max {
                piece.push(&rest[..max]);
                self.taken += max;
                break;
            }
            piece.push(rest);
            max -= rest.len();
            (self.parts, self.taken) = (others, 0);
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn a_body_is_cut_into_pieces_without_a_gap() {
        let parts: [&[u8]; 4] = [b"ab", b"", b"cdefg", b"h"];
        for max in 1..10 {
            let mut pieces = Pieces::new(&parts);
            let mut body = Vec::new();
            while body.len() < 8 {
                let piece = pieces.take(max).concat();
                assert_eq!(piece.len(), max.min(8 - body.len()));
                body.extend(piece);
            }
            assert_eq!(body, b"abcdefgh");
            assert!(pieces.take(max).is_empty());
        }
    }
}
