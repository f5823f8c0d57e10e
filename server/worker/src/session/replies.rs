//! The way back to the client, shared by the thread that runs the loop and by those that sit in waits; and errors of
//! calls that nobody waits for, until a reply can carry them.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use harp_cuda_abi::types::CUresult;
use harp_transport::{LinkError, Sender};

/// How long a client that has been told goodbye has to close.
const LINGER: Duration = Duration::from_millis(300);

pub struct Replies {
    sender: Mutex<Sender>,
    /// The connection below the sender.
    socket: TcpStream,
    deferred: AtomicU32,
    bytes_sent: AtomicU64,
}

impl Replies {
    pub fn new(sender: Sender, socket: TcpStream) -> Self {
        Self {
            sender: Mutex::new(sender),
            socket,
            deferred: AtomicU32::new(0),
            bytes_sent: AtomicU64::new(0),
        }
    }

    /// Bytes of reply frames sent so far.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Sends one frame whose body is the concatenation of `parts`.
    pub fn send(&self, parts: &[&[u8]]) -> Result<(), LinkError> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.lock()
            .send(parts)
            .map_err(|e| e.downcast().unwrap_or(LinkError::Closed))?;
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Tells the client why the session ends; without effect if the connection is broken or busy.
    pub fn say_goodbye(&self, reason: &str) {
        if let Ok(mut sender) = self.sender.try_lock() {
            if sender.bye_because(reason).is_ok() {
                self.linger();
            }
        }
    }

    /// Takes what the client still sends out of the way until it closes, within bounds. A socket that is closed with
    /// bytes unread is reset, and the client would lose the goodbye.
    fn linger(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        let begun = Instant::now();
        let mut discarded = [0; 4096];
        while let Some(left) = LINGER.checked_sub(begun.elapsed()) {
            let mut readable = libc::pollfd {
                fd: self.socket.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one live pollfd.
            let ready = unsafe { libc::poll(&mut readable, 1, left.as_millis() as libc::c_int) };
            if ready <= 0 || !matches!((&self.socket).read(&mut discarded), Ok(1..)) {
                return;
            }
        }
    }

    /// A call without a reply has failed with `code`. True if it is the first since the client was last told.
    #[cold]
    pub fn defer(&self, code: CUresult) -> bool {
        self.deferred
            .compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// The code that the next reply is to carry; 0 for none.
    #[inline]
    pub fn take_deferred(&self) -> CUresult {
        match self.deferred.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.deferred.swap(0, Ordering::Relaxed),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Sender> {
        self.sender
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
