//! Drives a rustls handshake over a socket and takes over its secrets.

use std::io;
use std::time::{Duration, Instant};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, ExtractedSecrets, InvalidMessage};

use super::config::HTTP2;
use super::post_handshake::Rekey;
use super::records::{Keys, HEADER_BYTES};
use crate::error::LinkError;
use crate::link::socket::{Interest, Socket};

/// The longest record of a handshake, header included.
const RECORD_MAX: usize = HEADER_BYTES + (1 << 14) + 256;
/// The most that a peer may send before the handshake is done.
const HANDSHAKE_MAX: usize = 1 << 18;
/// After a failure, the most that is read so that the peer can read our alert.
const LINGER_MAX: usize = 1 << 16;
const LINGER: Duration = Duration::from_millis(200);

/// Why there was no handshake.
#[derive(Debug)]
pub enum HandshakeError {
    TimedOut,
    /// The first bytes are not TLS's.
    NotTls,
    /// The peer closed the connection.
    Closed(String),
    /// The peer does not do HTTP/2.
    NotHttp2,
    Tls(rustls::Error),
}

/// A connection after its handshake.
pub struct Secured {
    pub sending: Keys,
    pub receiving: Keys,
    pub rekey: Box<dyn Rekey>,
    /// Sealed bytes that came with the end of the handshake.
    pub leftover: Vec<u8>,
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// The cipher suite's name in RFC 8446, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: String,
}

/// The parts of rustls's two kinds of connection that are alike in all but type.
pub trait Handshake: Sized {
    type Side: Send + 'static;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side>;

    fn common(&self) -> &CommonState;

    fn into_secrets(
        self,
    ) -> Result<(ExtractedSecrets, KernelConnection<Self::Side>), rustls::Error>;
}

impl Handshake for UnbufferedClientConnection {
    type Side = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn into_secrets(
        self,
    ) -> Result<(ExtractedSecrets, KernelConnection<Self::Side>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Handshake for UnbufferedServerConnection {
    type Side = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn into_secrets(
        self,
    ) -> Result<(ExtractedSecrets, KernelConnection<Self::Side>), rustls::Error> {
        self.dangerous_into_kernel_connection()
    }
}

/// Runs the handshake to its end or to `deadline`.
pub fn run<H: Handshake>(
    mut connection: H,
    socket: &Socket,
    deadline: Instant,
) -> Result<Secured, HandshakeError> {
    let mut wire = Wire {
        socket,
        deadline,
        received: Vec::new(),
        outgoing: Vec::new(),
        total: 0,
    };
    // What rustls has been given and has not used up.
    let mut incoming = Vec::new();
    match drive(&mut connection, &mut wire, &mut incoming) {
        Ok(()) => take_over(connection, wire.received),
        Err(error) => {
            if let HandshakeError::Tls(_) = error {
                say_why(&mut connection, &mut wire, &mut incoming);
            }
            Err(error)
        }
    }
}

fn drive<H: Handshake>(
    connection: &mut H,
    wire: &mut Wire,
    incoming: &mut Vec<u8>,
) -> Result<(), HandshakeError> {
    loop {
        let UnbufferedStatus { discard, state } = connection.process(incoming);
        let mut wants_record = false;
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                incoming.drain(..discard);
                return Err(HandshakeError::Tls(error));
            }
        };
        match state {
            ConnectionState::BlockedHandshake => wants_record = true,
            ConnectionState::EncodeTlsData(mut data) => {
                encode(&mut wire.outgoing, |out| data.encode(out))?
            }
            ConnectionState::TransmitTlsData(data) => {
                wire.transmit()?;
                data.done();
            }
            ConnectionState::WriteTraffic(_) => {
                if incoming.len() != discard {
                    return Err(HandshakeError::Tls(rustls::Error::HandshakeNotComplete));
                }
                return Ok(());
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                return Err(HandshakeError::Closed("the peer said goodbye".to_owned()));
            }
            _ => {
                return Err(HandshakeError::Tls(rustls::Error::General(
                    "data before the end of the handshake".to_owned(),
                )));
            }
        }
        incoming.drain(..discard);
        if wants_record {
            // One record at a time, so that rustls never opens one that comes after the handshake.
            wire.read_record(incoming)?;
        }
    }
}

/// Appends what `encode` writes.
fn encode(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), HandshakeError> {
    let start = outgoing.len();
    let mut room = 0;
    loop {
        outgoing.resize(start + room, 0);
        match encode(&mut outgoing[start..]) {
            Ok(len) => {
                outgoing.truncate(start + len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(error) => {
                outgoing.truncate(start);
                return Err(HandshakeError::Tls(rustls::Error::General(
                    error.to_string(),
                )));
            }
        }
    }
}

fn take_over<H: Handshake>(connection: H, leftover: Vec<u8>) -> Result<Secured, HandshakeError> {
    let common = connection.common();
    if common.alpn_protocol() != Some(HTTP2) {
        return Err(HandshakeError::NotHttp2);
    }
    let peer_certificates = common
        .peer_certificates()
        .map(|chain| {
            chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect()
        })
        .unwrap_or_default();
    let cipher = common
        .negotiated_cipher_suite()
        .and_then(|suite| {
            suite
                .suite()
                .as_str()
                .map(|name| name.replacen("TLS13_", "TLS_", 1))
        })
        .unwrap_or_default();
    let (secrets, kernel) = connection.into_secrets().map_err(HandshakeError::Tls)?;
    let keys = |(sequence, secrets)| {
        Keys::new(sequence, &secrets).map_err(|error: LinkError| {
            HandshakeError::Tls(rustls::Error::General(error.to_string()))
        })
    };
    Ok(Secured {
        sending: keys(secrets.tx)?,
        receiving: keys(secrets.rx)?,
        rekey: Box::new(kernel),
        leftover,
        peer_certificates,
        cipher,
    })
}

/// Sends the alert that rustls has made of its error, and keeps the socket open until the peer has
/// had the time to read it: closing with unread input would reset the connection and lose the alert.
fn say_why<H: Handshake>(connection: &mut H, wire: &mut Wire, incoming: &mut [u8]) {
    wire.outgoing.clear();
    // rustls remembers places in `incoming`, and repeats its error when it has no more to say.
    while let Ok(ConnectionState::EncodeTlsData(mut data)) = connection.process(incoming).state {
        if encode(&mut wire.outgoing, |out| data.encode(out)).is_err() {
            return;
        }
    }
    if wire.transmit().is_ok() {
        linger(wire.socket);
    }
}

/// Closes the sending direction and reads the other one dry, within bounds.
pub fn linger(socket: &Socket) {
    socket.close_sending();
    read_dry(socket, LINGER);
}

/// Reads and drops what the peer sends until it closes, for at most `bound`.
pub fn read_dry(socket: &Socket, bound: Duration) {
    let deadline = Instant::now() + bound;
    let mut scratch = [0; 4096];
    let mut left = LINGER_MAX;
    while left > 0 {
        match socket.receive(&mut scratch) {
            Ok(Some(0)) | Err(_) => return,
            Ok(Some(len)) => left = left.saturating_sub(len),
            Ok(None) if Instant::now() >= deadline => return,
            Ok(None) => {
                if socket.wait(Interest::READ, None, Some(deadline)).is_err() {
                    return;
                }
            }
        }
    }
}

/// The socket during a handshake.
struct Wire<'a> {
    socket: &'a Socket,
    deadline: Instant,
    /// Read from the socket, not given to rustls.
    received: Vec<u8>,
    outgoing: Vec<u8>,
    /// All that the peer has sent.
    total: usize,
}

impl Wire<'_> {
    fn transmit(&mut self) -> Result<(), HandshakeError> {
        let mut sent = 0;
        while sent < self.outgoing.len() {
            match self.socket.send(&self.outgoing[sent..]).map_err(closed)? {
                Some(len) => sent += len,
                None => self.wait(Interest::WRITE)?,
            }
        }
        self.outgoing.clear();
        Ok(())
    }

    /// Moves one whole record from the socket to the end of `incoming`.
    fn read_record(&mut self, incoming: &mut Vec<u8>) -> Result<(), HandshakeError> {
        loop {
            if let Some(len) = self.whole_record()? {
                incoming.extend(self.received.drain(..len));
                return Ok(());
            }
            let mut chunk = [0; 4096];
            match self.socket.receive(&mut chunk).map_err(closed)? {
                Some(0) => {
                    return Err(HandshakeError::Closed("closed by the peer".to_owned()));
                }
                Some(len) => {
                    self.total += len;
                    if self.total > HANDSHAKE_MAX {
                        return Err(HandshakeError::Tls(rustls::Error::PeerSentOversizedRecord));
                    }
                    self.received.extend_from_slice(&chunk[..len]);
                }
                None => self.wait(Interest::READ)?,
            }
        }
    }

    /// The length of the first record, if it is there whole.
    fn whole_record(&self) -> Result<Option<usize>, HandshakeError> {
        let not_tls = || {
            let consumed = self.total - self.received.len();
            if consumed == 0 {
                HandshakeError::NotTls
            } else {
                HandshakeError::Tls(InvalidMessage::InvalidContentType.into())
            }
        };
        // Types 20 to 23 of protocol 3.x; anything else shows in the first bytes.
        if self
            .received
            .first()
            .is_some_and(|kind| !(20..=23).contains(kind))
            || self.received.get(1).is_some_and(|major| *major != 3)
        {
            return Err(not_tls());
        }
        let Some(header) = self.received.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let len = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if len > RECORD_MAX {
            return Err(not_tls());
        }
        Ok((self.received.len() >= len).then_some(len))
    }

    fn wait(&self, interest: Interest) -> Result<(), HandshakeError> {
        self.socket
            .wait(interest, None, Some(self.deadline))
            .map_err(closed)?;
        if Instant::now() >= self.deadline {
            return Err(HandshakeError::TimedOut);
        }
        Ok(())
    }
}

fn closed(error: io::Error) -> HandshakeError {
    match LinkError::lost(&error) {
        LinkError::Lost(text) => HandshakeError::Closed(text),
        other => HandshakeError::Closed(other.to_string()),
    }
}
