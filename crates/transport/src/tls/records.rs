//! TLS 1.3 records (RFC 8446 section 5): sealing and opening with aws-lc-rs.

use std::sync::Arc;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use crate::error::LinkError;

/// The most plaintext that one record may hold.
pub const PLAINTEXT_MAX: usize = 1 << 14;
/// Content type, version and length.
pub const HEADER_BYTES: usize = 5;
/// The content type that follows the plaintext inside the seal, and the tag after it.
const TRAILER_BYTES: usize = 1 + TAG_BYTES;
const TAG_BYTES: usize = 16;
/// What a record takes beside its plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;
/// The longest record that we make.
pub const RECORD_MAX: usize = PLAINTEXT_MAX + OVERHEAD_BYTES;
/// The most that a peer's record may hold after its header: padding and other ciphers included.
const SEALED_MAX: usize = PLAINTEXT_MAX + 256;

/// What is inside a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ContentType {
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

impl ContentType {
    fn of(byte: u8) -> Result<ContentType, LinkError> {
        match byte {
            21 => Ok(ContentType::Alert),
            22 => Ok(ContentType::Handshake),
            23 => Ok(ContentType::ApplicationData),
            _ => Err(LinkError::Tls("a record of an unknown type")),
        }
    }
}

/// One direction's key.
#[derive(Clone)]
struct Cipher {
    key: Arc<LessSafeKey>,
    iv: [u8; aead::NONCE_LEN],
}

impl Cipher {
    /// The nonce of the record of that number: the number over the end of the IV.
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
            *byte ^= count;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&self, number: u64, kind: ContentType, plaintext: &[u8], wire: &mut [u8]) -> usize {
        let (header, rest) = wire.split_at_mut(HEADER_BYTES);
        let (sealed, rest) = rest.split_at_mut(plaintext.len());
        let trailer = &mut rest[..TRAILER_BYTES];
        let aad = write_header(header, plaintext.len());
        let (nonce, kind) = (self.nonce(number), [kind as u8]);
        self.key
            .seal_out_of_place_scatter(nonce, aad, plaintext, sealed, &kind, trailer)
            .expect(WITHIN_BOUNDS);
        plaintext.len() + OVERHEAD_BYTES
    }

    fn seal_in_place(&self, number: u64, kind: ContentType, len: usize, wire: &mut [u8]) -> usize {
        let (header, rest) = wire.split_at_mut(HEADER_BYTES);
        let (plaintext, rest) = rest.split_at_mut(len);
        let trailer = &mut rest[..TRAILER_BYTES];
        let aad = write_header(header, len);
        self.key
            .seal_in_place_scatter(self.nonce(number), aad, plaintext, &[kind as u8], trailer)
            .expect(WITHIN_BOUNDS);
        len + OVERHEAD_BYTES
    }

    fn open_in_place(&self, number: u64, record: &mut [u8]) -> Result<Opened, LinkError> {
        let (header, sealed) = split_header(record);
        let aad = Aad::from(*header);
        let inner = self
            .key
            .open_in_place(self.nonce(number), aad, sealed)
            .map_err(FORGED)?;
        unpad(inner)
    }

    fn open_into(
        &self,
        number: u64,
        record: &[u8],
        target: &mut [u8],
    ) -> Result<Opened, LinkError> {
        let target = &mut target[..Opener::target_bytes(record.len())];
        let (header, sealed) = record.split_at(HEADER_BYTES);
        let (sealed, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
        self.key
            .open_separate_gather(self.nonce(number), Aad::from(header), sealed, tag, target)
            .map_err(FORGED)?;
        unpad(target)
    }
}

/// Writes the header of a record of `len` bytes, which is also what the tag covers beside them.
fn write_header(header: &mut [u8], len: usize) -> Aad<[u8; HEADER_BYTES]> {
    assert!(len <= PLAINTEXT_MAX);
    let [high, low] = ((len + TRAILER_BYTES) as u16).to_be_bytes();
    let bytes = [ContentType::ApplicationData as u8, 3, 3, high, low];
    header.copy_from_slice(&bytes);
    Aad::from(bytes)
}

const WITHIN_BOUNDS: &str = "a record within TLS's bounds is within the AEAD's";

/// One direction's key and its count of records.
pub struct Keys {
    cipher: Cipher,
    sequence: u64,
}

impl Keys {
    /// Keys from the number of the next record and a traffic secret of the handshake.
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Keys, LinkError> {
        const UNUSABLE: LinkError = LinkError::Tls("a cipher that this build does not have");
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&aead::CHACHA20_POLY1305, key, iv)
            }
            _ => return Err(UNUSABLE),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| UNUSABLE)?;
        let iv = iv.as_ref().try_into().map_err(|_| UNUSABLE)?;
        let key = Arc::new(LessSafeKey::new(key));
        Ok(Keys {
            cipher: Cipher { key, iv },
            sequence,
        })
    }

    /// The numbers of the next `records` records: no number is given twice.
    fn take(&mut self, records: u64) -> u64 {
        let first = self.sequence;
        // A key is renewed long before 2^64 records.
        self.sequence += records;
        first
    }

    fn run(&mut self, records: usize) -> Run {
        Run {
            first: self.take(records as u64),
            cipher: self.cipher.clone(),
        }
    }
}

/// Records in a row that several threads may seal or open, in any order: each of them once.
pub struct Run {
    cipher: Cipher,
    first: u64,
}

impl Run {
    /// Seals record `index` of the run as [`Sealer::seal`] does, as data of the stream.
    pub fn seal(&self, index: usize, plaintext: &[u8], wire: &mut [u8]) -> usize {
        let (number, kind) = (self.first + index as u64, ContentType::ApplicationData);
        self.cipher.seal(number, kind, plaintext, wire)
    }

    /// Opens record `index` of the run as [`Opener::open_into`] does.
    pub fn open_into(
        &self,
        index: usize,
        record: &[u8],
        target: &mut [u8],
    ) -> Result<Opened, LinkError> {
        let number = self.first + index as u64;
        self.cipher.open_into(number, record, target)
    }

    /// Opens record `index` of the run as [`Opener::open_in_place`] does.
    pub fn open_in_place(&self, index: usize, record: &mut [u8]) -> Result<Opened, LinkError> {
        let number = self.first + index as u64;
        self.cipher.open_in_place(number, record)
    }
}

/// Seals what we send.
pub struct Sealer {
    keys: Keys,
    records: u64,
}

impl Sealer {
    pub fn new(keys: Keys) -> Sealer {
        Sealer { keys, records: 0 }
    }

    /// Records sealed under the present key.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Seals `plaintext` (at most [`PLAINTEXT_MAX`] bytes) from where it lies into the beginning of
    /// `wire`, which must have room for it and [`OVERHEAD_BYTES`]; returns the record's length.
    pub fn seal(&mut self, kind: ContentType, plaintext: &[u8], wire: &mut [u8]) -> usize {
        self.records += 1;
        let number = self.keys.take(1);
        self.keys.cipher.seal(number, kind, plaintext, wire)
    }

    /// Seals the `len` bytes that already lie in `wire` after the room for a header.
    pub fn seal_in_place(&mut self, kind: ContentType, len: usize, wire: &mut [u8]) -> usize {
        self.records += 1;
        let number = self.keys.take(1);
        self.keys.cipher.seal_in_place(number, kind, len, wire)
    }

    /// The next `records` records, to be sealed by the caller.
    pub fn run(&mut self, records: usize) -> Run {
        self.records += records as u64;
        self.keys.run(records)
    }
}

/// Opens what the peer sends.
pub struct Opener {
    keys: Keys,
}

/// What a record held: its type, and the length of its plaintext.
pub type Opened = (ContentType, usize);

impl Opener {
    pub fn new(keys: Keys) -> Opener {
        Opener { keys }
    }

    /// The length of the record that `bytes` begin with, if they hold it whole.
    ///
    /// # Errors
    /// For a record that cannot be one, as soon as its header is there.
    pub fn whole_record(bytes: &[u8]) -> Result<Option<usize>, LinkError> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let sealed = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != ContentType::ApplicationData as u8 {
            return Err(LinkError::Tls("an unprotected record"));
        }
        if !(TRAILER_BYTES..=SEALED_MAX).contains(&sealed) {
            return Err(LinkError::Tls("a record of impossible length"));
        }
        let record = HEADER_BYTES + sealed;
        Ok((bytes.len() >= record).then_some(record))
    }

    /// What a whole record needs as the target of [`open_into`](Opener::open_into).
    pub fn target_bytes(record: usize) -> usize {
        record - HEADER_BYTES - TAG_BYTES
    }

    /// Opens a whole record where it lies. The plaintext begins after the header.
    pub fn open_in_place(&mut self, record: &mut [u8]) -> Result<Opened, LinkError> {
        let number = self.keys.take(1);
        self.keys.cipher.open_in_place(number, record)
    }

    /// Opens a whole record into the beginning of `target`, whose next bytes, as many as
    /// [`target_bytes`](Opener::target_bytes) in all, become scratch.
    pub fn open_into(&mut self, record: &[u8], target: &mut [u8]) -> Result<Opened, LinkError> {
        let number = self.keys.take(1);
        self.keys.cipher.open_into(number, record, target)
    }

    /// The next `records` records, to be opened by the caller.
    pub fn run(&mut self, records: usize) -> Run {
        self.keys.run(records)
    }
}

const FORGED: fn(aws_lc_rs::error::Unspecified) -> LinkError =
    |_| LinkError::Tls("a record whose seal is broken");

fn split_header(record: &mut [u8]) -> (&[u8; HEADER_BYTES], &mut [u8]) {
    let (header, sealed) = record
        .split_first_chunk_mut()
        .expect("a whole record is longer than its header");
    (header, sealed)
}

/// Finds the content type, which is the last byte that is not zero.
fn unpad(inner: &[u8]) -> Result<Opened, LinkError> {
    let len = inner
        .iter()
        .rposition(|byte| *byte != 0)
        .ok_or(LinkError::Tls("a record without a type"))?;
    if len > PLAINTEXT_MAX {
        return Err(LinkError::Tls("a record of impossible length"));
    }
    Ok((ContentType::of(inner[len])?, len))
}
