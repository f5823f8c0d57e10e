//! The entries of fatbin containers.

use crate::{ImageError, FATBIN_MAGIC};

/// Bytes of a fatbin header: magic, u16 version, u16 header size, u64 size of what follows.
pub const FATBIN_HEADER: usize = 16;
/// Fewest bytes of an entry header; the header says its own length.
const ENTRY_HEADER: usize = 64;

const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;
const FLAG_ARCH_SPECIFIC: u64 = 0x10_0000;

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PTX text.
    Ptx,
    /// Machine code in an ELF file.
    Cubin,
    /// Something else (link-time intermediate code, ...).
    Other(u16),
}

/// How an entry's payload is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Lz4,
    Zstd,
}

/// One image of a fatbin.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub kind: Kind,
    /// Architecture as two or three digits: 86, 90, 120.
    pub arch: u32,
    /// Only for exactly this architecture (`sm_90a`).
    pub arch_specific: bool,
    /// Version of the code (PTX ISA 9.0 is (9, 0)).
    pub version: (u16, u16),
    pub packing: Packing,
    /// The payload as it lies in the container, without padding where its exact length is known.
    pub packed: &'a [u8],
    /// Length once unpacked, as the container claims it; equals `packed.len()` when plain.
    pub unpacked_len: u64,
    /// All of it, header and padding included.
    pub whole: &'a [u8],
}

/// One fatbin container.
#[derive(Clone, Debug)]
pub struct Fatbin<'a> {
    pub entries: Vec<Entry<'a>>,
}

/// The little-endian word of `N` bytes at `offset`.
fn word<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], ImageError> {
    let end = offset.checked_add(N).ok_or(ImageError::Truncated)?;
    let slice = bytes.get(offset..end).ok_or(ImageError::Truncated)?;
    Ok(slice.try_into().expect("the slice has N bytes"))
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, ImageError> {
    word(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, ImageError> {
    word(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, ImageError> {
    word(bytes, offset).map(u64::from_le_bytes)
}

/// Whether `bytes` begin with a fatbin header.
pub fn is_fatbin(bytes: &[u8]) -> bool {
    u32_at(bytes, 0) == Ok(FATBIN_MAGIC)
}

/// The fatbins that `bytes` hold, one after the other; zero bytes between and after them are padding.
///
/// # Errors
/// [`ImageError::Truncated`] or [`ImageError::Corrupt`] as soon as one of them is.
pub fn fatbins(mut bytes: &[u8]) -> Result<Vec<Fatbin<'_>>, ImageError> {
    let mut found = Vec::new();
    loop {
        let padding = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes = &bytes[padding..];
        if bytes.is_empty() && !found.is_empty() {
            return Ok(found);
        }
        if !is_fatbin(bytes) {
            return Err(ImageError::Corrupt("fatbin magic"));
        }
        let header = usize::from(u16_at(bytes, 6)?);
        if header < FATBIN_HEADER {
            return Err(ImageError::Corrupt("fatbin header size"));
        }
        let size = usize::try_from(u64_at(bytes, 8)?).map_err(|_| ImageError::Truncated)?;
        let end = header.checked_add(size).ok_or(ImageError::Truncated)?;
        let body = bytes.get(header..end).ok_or(ImageError::Truncated)?;
        found.push(Fatbin {
            entries: entries(body)?,
        });
        bytes = &bytes[end..];
    }
}

fn entries(mut body: &[u8]) -> Result<Vec<Entry<'_>>, ImageError> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let header = u32_at(body, 4)? as usize;
        if header < ENTRY_HEADER {
            // What is left is shorter than any entry: alignment of the container.
            if body.iter().all(|byte| *byte == 0) {
                break;
            }
            return Err(ImageError::Corrupt("entry header size"));
        }
        let size = usize::try_from(u64_at(body, 8)?).map_err(|_| ImageError::Truncated)?;
        let end = header.checked_add(size).ok_or(ImageError::Truncated)?;
        let payload = body.get(header..end).ok_or(ImageError::Truncated)?;
        found.push(entry(&body[..end], payload)?);
        body = &body[end..];
    }
    Ok(found)
}

fn entry<'a>(whole: &'a [u8], payload: &'a [u8]) -> Result<Entry<'a>, ImageError> {
    let header = whole;
    let flags = u64_at(header, 40)?;
    let packing = match (flags & FLAG_LZ4 != 0, flags & FLAG_ZSTD != 0) {
        (false, false) => Packing::Plain,
        (true, false) => Packing::Lz4,
        (false, true) => Packing::Zstd,
        (true, true) => return Err(ImageError::Corrupt("entry flags")),
    };
    let packed_len = u32_at(header, 16)? as usize;
    let packed = match packing {
        Packing::Plain => payload,
        _ if packed_len == 0 => payload,
        _ => payload
            .get(..packed_len)
            .ok_or(ImageError::Corrupt("compressed length"))?,
    };
    let unpacked_len = match packing {
        Packing::Plain => packed.len() as u64,
        _ => u64_at(header, 56)?,
    };
    Ok(Entry {
        kind: match u16_at(header, 0)? {
            1 => Kind::Ptx,
            2 => Kind::Cubin,
            other => Kind::Other(other),
        },
        arch: u32_at(header, 28)?,
        arch_specific: flags & FLAG_ARCH_SPECIFIC != 0,
        version: (u16_at(header, 26)?, u16_at(header, 24)?),
        packing,
        packed,
        unpacked_len,
        whole,
    })
}

/// A fatbin that holds one entry of another, or nothing.
pub fn fatbin_of(entry: Option<&Entry>) -> Vec<u8> {
    const VERSION: u16 = 1;
    let body = entry.map_or(&[][..], |entry| entry.whole);
    let mut bytes = Vec::with_capacity(FATBIN_HEADER + body.len());
    bytes.extend(FATBIN_MAGIC.to_le_bytes());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((FATBIN_HEADER as u16).to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    bytes
}
