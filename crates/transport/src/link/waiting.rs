//! How a writer waits: for room, an open window or an acknowledgement, and reading meanwhile if nobody
//! else does.

use std::sync::atomic::{fence, Ordering};
use std::time::Instant;

use super::socket::Interest;
use super::writing::{Writer, Written};
use super::{lock, try_lock, Break};
use crate::error::LinkError;

/// What a writer waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Room in the socket.
    Room,
    /// An open window.
    Window,
    /// The acknowledgement of something that is kept.
    Acknowledgement,
}

impl Writer<'_> {
    /// Sends everything, waiting as long as it takes.
    pub(super) fn flush(&mut self) -> Written {
        loop {
            match self.sending().wire.send() {
                Ok(true) => {
                    self.connection.backlog.store(false, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(false) => self.wait(Need::Room)?,
                Err(error) => return Err(self.cause(error)),
            }
        }
    }

    /// Sends bytes that are sealed already, waiting as long as it takes.
    pub(super) fn send_sealed(&mut self, mut bytes: &[u8]) -> Written {
        while !bytes.is_empty() {
            match self.connection.socket.send(bytes) {
                Ok(Some(len)) => {
                    self.sending().wire.count(len);
                    bytes = &bytes[len..];
                }
                Ok(None) => self.wait(Need::Room)?,
                Err(error) => return Err(self.cause(LinkError::lost(&error))),
            }
        }
        Ok(())
    }

    /// The peer's own account of why it takes no more, where it has left one.
    fn cause(&mut self, error: LinkError) -> Break {
        let link = self.link;
        let mut receiving = lock(&link.inbound);
        if self.connection.broken().is_some() {
            return Break::Network(error);
        }
        let read = receiving.stock_up(link.tuning.inbox_limit, link);
        let verdict = match (read, receiving.wire.end()) {
            (Err(LinkError::Lost(_)) | Ok(_), Some(Err(cause))) => Break::Final(cause),
            (Err(cause), _) => receiving.judge(cause),
            (Ok(_), _) => receiving.judge(error),
        };
        drop(receiving);
        if link.receiver_sleeps.load(Ordering::SeqCst) {
            link.receiver_bell.ring();
        }
        verdict
    }

    /// Sleeps until trying again makes sense, and reads meanwhile if nobody else does.
    pub(super) fn wait(&mut self, need: Need) -> Written {
        self.link.sender_waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let result = self.read_and_sleep(need);
        self.link.sender_waits.store(false, Ordering::SeqCst);
        result
    }

    fn read_and_sleep(&mut self, need: Need) -> Written {
        let link = self.link;
        let mut interest = Interest {
            read: false,
            write: need == Need::Room || self.connection.backlog.load(Ordering::Relaxed),
        };
        let mut look_again = None;
        if let Some(mut receiving) = try_lock(&link.inbound) {
            if let Some(error) = self.connection.broken() {
                // What it has brought is settled by now: not a byte more may be read of it.
                return Err(Break::Network(error.clone()));
            }
            let before = receiving.inbox.size();
            let more = receiving.stock_up(link.tuning.inbox_limit, link);
            let end = receiving.end();
            let news = receiving.inbox.size() > before || end.is_some() || more.is_err();
            let over = receiving.is_over();
            let outcome = more.and_then(|more| {
                interest.read = more;
                receiving.watch(link, Instant::now())
            });
            let outcome = outcome.map_err(|error| receiving.judge(error));
            drop(receiving);
            if news && link.receiver_sleeps.load(Ordering::SeqCst) {
                link.receiver_bell.ring();
            }
            look_again = outcome?;
            if over {
                let error = end.and_then(Result::err).unwrap_or(LinkError::Closed);
                return Err(Break::Final(error));
            }
        }
        link.check().map_err(Break::Final)?;
        if let Some(error) = self.connection.broken() {
            return Err(Break::Network(error.clone()));
        }
        let can_go_on = match need {
            Need::Room => false,
            Need::Window => {
                self.connection.owes.load(Ordering::SeqCst)
                    || lock(&self.connection.owed).flow.is_open()
            }
            Need::Acknowledgement => {
                let acked = link.acked.load(Ordering::SeqCst);
                link.has_unsaid(&self.connection) || self.sending().retained.lags(acked)
            }
        };
        if can_go_on {
            return Ok(());
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Err(Break::Final(LinkError::TimedOut));
        }
        let until = [self.deadline, look_again].into_iter().flatten().min();
        self.connection
            .socket
            .wait(interest, Some(&link.sender_bell), until)
            .map_err(|error| Break::Final(LinkError::lost(&error)))?;
        Ok(())
    }
}
