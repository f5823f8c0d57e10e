//! What TLS 1.3 still says after the handshake: key updates, tickets, alerts.

use rustls::kernel::KernelConnection;

use super::records::Keys;
use crate::error::LinkError;

/// The longest handshake message that is taken: a ticket may hold its client's certificate chain.
const MESSAGE_MAX: usize = 1 << 16;
const MESSAGE_HEADER_BYTES: usize = 4;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// The rest of a TLS connection whose records are sealed and opened elsewhere.
pub trait Rekey: Send {
    /// The keys after the present ones for what we send.
    fn next_sending(&mut self) -> Result<Keys, LinkError>;
    /// The keys after the present ones for what the peer sends.
    fn next_receiving(&mut self) -> Result<Keys, LinkError>;
}

impl<Side: Send> Rekey for KernelConnection<Side> {
    fn next_sending(&mut self) -> Result<Keys, LinkError> {
        let (sequence, secrets) = self.update_tx_secret().map_err(NO_UPDATE)?;
        Keys::new(sequence, &secrets)
    }

    fn next_receiving(&mut self) -> Result<Keys, LinkError> {
        let (sequence, secrets) = self.update_rx_secret().map_err(NO_UPDATE)?;
        Keys::new(sequence, &secrets)
    }
}

const NO_UPDATE: fn(rustls::Error) -> LinkError =
    |_| LinkError::Tls("a key update that this connection cannot follow");

/// The KeyUpdate message. We never ask the peer for one: it counts its own records.
pub const KEY_UPDATE_MESSAGE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
/// The alert that says that nothing follows.
pub const CLOSE_NOTIFY_ALERT: [u8; 2] = [1, CLOSE_NOTIFY];

/// A fatal alert for a peer that broke TLS: unexpected_message covers what is not a broken seal.
pub fn fatal_alert(error: &LinkError) -> Option<[u8; 2]> {
    const FATAL: u8 = 2;
    match error {
        LinkError::Tls(text) if text.contains("seal") => Some([FATAL, 20]),
        LinkError::Tls(_) => Some([FATAL, 10]),
        _ => None,
    }
}

/// The peer has new keys for what follows; `answer`: it wants us to have new ones too.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyUpdate {
    pub answer: bool,
}

/// Puts together the handshake messages that come after the handshake.
#[derive(Default)]
pub struct PostHandshake {
    partial: Vec<u8>,
}

impl PostHandshake {
    /// Takes the content of one handshake record. Tickets are dropped: nothing is ever resumed.
    pub fn take(&mut self, content: &[u8]) -> Result<Option<KeyUpdate>, LinkError> {
        if content.is_empty() {
            return Err(LinkError::Tls("an empty handshake record"));
        }
        self.partial.extend_from_slice(content);
        while let Some((header, rest)) = self.partial.split_first_chunk::<MESSAGE_HEADER_BYTES>() {
            let [kind, high, middle, low] = *header;
            let len = u32::from_be_bytes([0, high, middle, low]) as usize;
            if len > MESSAGE_MAX {
                return Err(LinkError::Tls("an oversized handshake message"));
            }
            let Some(body) = rest.get(..len) else { break };
            match kind {
                NEW_SESSION_TICKET => {}
                // Everything after a key update is under the new keys, so it ends its record.
                KEY_UPDATE if rest.len() == 1 && len == 1 => {
                    let answer = match body {
                        [0] => false,
                        [1] => true,
                        _ => return Err(LinkError::Tls("a malformed key update")),
                    };
                    self.partial.clear();
                    return Ok(Some(KeyUpdate { answer }));
                }
                KEY_UPDATE => return Err(LinkError::Tls("a malformed key update")),
                _ => return Err(LinkError::Tls("an unexpected handshake message")),
            }
            self.partial.drain(..MESSAGE_HEADER_BYTES + len);
        }
        Ok(None)
    }

    /// Whether a message has begun and not ended: no other record may come in between.
    pub fn is_partial(&self) -> bool {
        !self.partial.is_empty()
    }
}

/// Reads an alert record: `Ok(true)` is the peer's orderly goodbye.
pub fn read_alert(content: &[u8]) -> Result<bool, LinkError> {
    match content {
        [_, CLOSE_NOTIFY] => Ok(true),
        [_, USER_CANCELED] => Ok(false),
        [_, code] => Err(LinkError::Alert(*code)),
        _ => Err(LinkError::Tls("a malformed alert")),
    }
}
