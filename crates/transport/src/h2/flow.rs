//! How much the peer allows us to send (RFC 9113 section 5.2), and what it says about that.

use super::{code, INITIAL_FRAME, INITIAL_WINDOW, WINDOW_MAX};
use crate::error::LinkError;

/// Something that the peer has said about what we may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// The window that streams begin with, which moves that of an open stream too.
    InitialWindow(u32),
    /// The largest payload of a frame.
    FrameMax(usize),
    /// More bytes for the connection.
    Connection(u32),
    /// More bytes for the stream.
    Stream(u32),
}

pub struct SendFlow {
    connection: i64,
    stream: i64,
    initial: i64,
    frame_max: usize,
}

impl Default for SendFlow {
    fn default() -> SendFlow {
        SendFlow {
            connection: i64::from(INITIAL_WINDOW),
            stream: i64::from(INITIAL_WINDOW),
            initial: i64::from(INITIAL_WINDOW),
            frame_max: INITIAL_FRAME,
        }
    }
}

impl SendFlow {
    pub fn apply(&mut self, allowance: Allowance) -> Result<(), LinkError> {
        match allowance {
            Allowance::InitialWindow(bytes) => {
                // The difference may make the stream's window negative.
                self.stream += i64::from(bytes) - self.initial;
                self.initial = i64::from(bytes);
            }
            Allowance::FrameMax(bytes) => self.frame_max = bytes,
            Allowance::Connection(bytes) => self.connection += i64::from(bytes),
            Allowance::Stream(bytes) => self.stream += i64::from(bytes),
        }
        if self.connection.max(self.stream) > i64::from(WINDOW_MAX) {
            let text = "a flow-control window above 2^31-1";
            return Err(LinkError::Http2 {
                code: code::FLOW_CONTROL_ERROR,
                text,
            });
        }
        Ok(())
    }

    /// Takes room for the payload of one DATA frame of at most `want` bytes; 0 if there is none.
    pub fn take(&mut self, want: usize) -> usize {
        let window = self.connection.min(self.stream).max(0) as usize;
        let granted = want.min(window).min(self.frame_max);
        self.connection -= granted as i64;
        self.stream -= granted as i64;
        granted
    }

    /// Whether `len` bytes may be sent in one frame.
    pub fn has(&self, len: usize) -> bool {
        self.connection.min(self.stream) >= len as i64 && self.frame_max >= len
    }

    /// Whether anything may be sent at all.
    pub fn is_open(&self) -> bool {
        self.connection > 0 && self.stream > 0
    }
}

/// How much we allow the peer to send, and when it is told of more.
pub struct ReceiveWindow {
    /// What the window is topped up to.
    size: i64,
    left: i64,
}

impl ReceiveWindow {
    pub fn new(size: u32) -> ReceiveWindow {
        ReceiveWindow {
            size: i64::from(size),
            left: i64::from(size),
        }
    }

    /// Accounts for `bytes` that the peer has sent; returns what the peer is to be given again.
    pub fn spend(&mut self, bytes: usize) -> Result<Option<u32>, LinkError> {
        self.left -= bytes as i64;
        if self.left < 0 {
            let text = "more data than its window allowed";
            return Err(LinkError::Http2 {
                code: code::FLOW_CONTROL_ERROR,
                text,
            });
        }
        if self.left > self.size / 2 {
            return Ok(None);
        }
        let increment = self.size - self.left;
        self.left = self.size;
        Ok(u32::try_from(increment)
            .ok()
            .filter(|increment| *increment > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_both_windows_and_the_frame_size_counts() {
        let mut flow = SendFlow::default();
        assert_eq!(flow.take(1 << 20), INITIAL_FRAME);
        flow.apply(Allowance::FrameMax(1 << 20)).unwrap();
        assert_eq!(flow.take(1 << 20), INITIAL_WINDOW as usize - INITIAL_FRAME);
        assert!(!flow.is_open());
        flow.apply(Allowance::Stream(100)).unwrap();
        assert_eq!(flow.take(1 << 20), 0);
        flow.apply(Allowance::Connection(30)).unwrap();
        assert_eq!(flow.take(1 << 20), 30);
    }

    #[test]
    fn a_smaller_initial_window_can_make_the_stream_owe() {
        let mut flow = SendFlow::default();
        flow.take(1000);
        flow.apply(Allowance::InitialWindow(10)).unwrap();
        flow.apply(Allowance::Stream(990)).unwrap();
        assert!(!flow.is_open());
        flow.apply(Allowance::Stream(7)).unwrap();
        assert_eq!(flow.take(100), 7);
    }

    #[test]
    fn a_window_cannot_pass_its_limit() {
        let mut flow = SendFlow::default();
        assert!(flow.apply(Allowance::Connection(WINDOW_MAX)).is_err());
    }

    #[test]
    fn the_peer_gets_back_what_it_has_spent_and_no_more() {
        let mut window = ReceiveWindow::new(100);
        assert_eq!(window.spend(49), Ok(None));
        assert_eq!(window.spend(10), Ok(Some(59)));
        assert!(window.spend(101).is_err());
    }
}
