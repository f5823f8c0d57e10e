//! Bytes that a sender lends to what is kept of its frames, so that they need not be copied before they are sent.

use std::sync::Arc;

use super::{lock, Link};

/// Shorter parts are copied at once.
pub const LENT_MIN: usize = 16 << 10;

/// Bytes that change hands: they are the same, and at the same place, as long as the buffer lives.
pub type Buffer = Box<dyn AsRef<[u8]> + Send + Sync>;

/// A part of a frame where its sender has it, for as long as its loan lasts.
#[derive(Clone, Copy)]
pub struct Lent {
    start: *const u8,
    len: usize,
    pub loan: u64,
}

// SAFETY: the bytes are readable on every thread and nobody changes them before the loan has ended.
unsafe impl Send for Lent {}

impl Lent {
    /// # Safety
    /// The bytes stay as they are until the loan of that number has ended.
    pub unsafe fn new(bytes: &[u8], loan: u64) -> Lent {
        Lent {
            start: bytes.as_ptr(),
            len: bytes.len(),
            loan,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the promise of `new`; the loan's end replaces this value.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

/// A loan, which ends when it is dropped: what the peer has not acknowledged by then is copied.
pub struct Loan {
    link: Arc<Link>,
    pub(super) number: u64,
    has_ended: bool,
}

impl Loan {
    pub(super) fn new(link: &Arc<Link>) -> Loan {
        Loan {
            link: link.clone(),
            number: link.next_loan(),
            has_ended: false,
        }
    }

    /// Ends it, with one part that has been lent from `buffer`, which is kept as it is where the peer has not
    /// acknowledged it.
    pub(super) fn end_with(mut self, buffer: Buffer) {
        self.has_ended = true;
        let unneeded = lock(&self.link.outbound)
            .retained
            .take_over(self.number, buffer);
        drop(unneeded);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if !self.has_ended {
            lock(&self.link.outbound).retained.end_loan(self.number);
        }
    }
}
