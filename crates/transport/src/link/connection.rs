//! One TCP connection with its TLS keys and HTTP/2 windows: what is lost with it when it breaks.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use super::lock;
use super::socket::Socket;
use crate::error::LinkError;
use crate::h2::flow::{Allowance, SendFlow};
use crate::h2::{code, Side};
use crate::tls::post_handshake::Rekey;

/// Answers that may wait to be sent: a peer that asks for more reads none of them.
const ANSWERS_MAX: usize = 1 << 16;

/// What the reading half has found that the writing half must say on this connection.
#[derive(Default)]
pub struct Owed {
    /// Frames of HTTP/2, as bytes.
    pub frames: Vec<u8>,
    /// The peer wants us to have new keys.
    pub key_update: bool,
    /// What we may send.
    pub flow: SendFlow,
}

pub struct Connection {
    pub socket: Socket,
    pub owed: Mutex<Owed>,
    /// Something in `owed` waits to be said.
    pub owes: AtomicBool,
    /// Sealed bytes wait for a socket that is full, and nobody is sending.
    pub backlog: AtomicBool,
    /// The peer has allowed more since somebody looked.
    pub widened: AtomicBool,
    rekey: Mutex<Box<dyn Rekey>>,
    /// The call's stream; 0 until a server knows it.
    stream: AtomicU32,
    broken: OnceLock<LinkError>,
}

impl Connection {
    pub fn new(side: Side, socket: Socket, rekey: Box<dyn Rekey>) -> Connection {
        Connection {
            socket,
            owed: Mutex::default(),
            owes: AtomicBool::new(false),
            backlog: AtomicBool::new(false),
            widened: AtomicBool::new(false),
            rekey: Mutex::new(rekey),
            stream: AtomicU32::new(if side == Side::Client { 1 } else { 0 }),
            broken: OnceLock::new(),
        }
    }

    pub fn rekey(&self) -> MutexGuard<'_, Box<dyn Rekey>> {
        lock(&self.rekey)
    }

    pub fn stream(&self) -> u32 {
        self.stream.load(Ordering::Relaxed)
    }

    pub fn set_stream(&self, stream: u32) {
        self.stream.store(stream, Ordering::Relaxed);
    }

    /// Why nothing is read from or written to this connection any more.
    pub fn broken(&self) -> Option<&LinkError> {
        self.broken.get()
    }

    /// Gives the connection up; false if that was done before.
    pub fn give_up(&self, error: LinkError) -> bool {
        self.broken.set(error).is_ok()
    }

    /// Says `change` to the writing half.
    pub fn owe(&self, change: impl FnOnce(&mut Owed)) {
        change(&mut lock(&self.owed));
        self.owes.store(true, Ordering::SeqCst);
    }

    /// Takes over the answers and allowances that a reader has found.
    pub fn answer(
        &self,
        frames: &mut Vec<u8>,
        allowances: &mut Vec<Allowance>,
    ) -> Result<(), LinkError> {
        let mut owed = lock(&self.owed);
        if !allowances.is_empty() {
            self.widened.store(true, Ordering::Relaxed);
        }
        for allowance in allowances.drain(..) {
            owed.flow.apply(allowance)?;
        }
        if owed.frames.len() + frames.len() > ANSWERS_MAX {
            let text = "more questions than it reads answers";
            return Err(LinkError::Http2 {
                code: code::ENHANCE_YOUR_CALM,
                text,
            });
        }
        if !frames.is_empty() {
            owed.frames.append(frames);
            self.owes.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}
