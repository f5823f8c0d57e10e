//! Which PTX of an image a device takes.

use crate::container::{fatbin_of, fatbins, is_fatbin, Entry, Fatbin, Kind};
use crate::decompress::{unpack, UNPACKED_MAX};
use crate::{ImageError, ELF_MAGIC};

/// PTX text without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ptx {
    pub text: Vec<u8>,
}

/// The PTX of an image for a device of architecture `arch` (86): of a fatbin the highest
/// architecture that the device has, else the lowest above it (an interpreter takes any target).
/// Of several fatbins the first is machine code that was linked from the others
/// ([`crate::flatten`]), whose PTX is to be linked instead.
///
/// # Errors
/// [`ImageError::NoPtx`] where a fatbin, or a bare cubin, holds machine code only.
pub fn select(image: &[u8], arch: u32) -> Result<Vec<Ptx>, ImageError> {
    if is_fatbin(image) {
        let mut room = UNPACKED_MAX;
        return linkable(&fatbins(image)?)
            .iter()
            .map(|fatbin| text_of(best(fatbin, arch)?, &mut room))
            .collect();
    }
    refuse_cubin(image)?;
    let text = without_padding(image);
    if looks_like_ptx(text) {
        return Ok(vec![Ptx {
            text: text.to_vec(),
        }]);
    }
    Err(ImageError::UnknownForm)
}

fn linkable<'a, 'b>(all: &'b [Fatbin<'a>]) -> &'b [Fatbin<'a>] {
    match all {
        [_, linkable @ ..] if !linkable.is_empty() => linkable,
        _ => all,
    }
}

/// The image without what [`select`] would leave aside, for a device that executes PTX: of every
/// fatbin the one entry that it takes, of what was linked nothing. PTX text stays what it is.
///
/// # Errors
/// As for [`select`], as far as the outer form goes.
pub fn reduce(image: Vec<u8>, arch: u32) -> Result<Vec<u8>, ImageError> {
    if !is_fatbin(&image) {
        refuse_cubin(&image)?;
        return Ok(image);
    }
    let all = fatbins(&image)?;
    let mut reduced = Vec::new();
    if all.len() > 1 {
        reduced.extend(fatbin_of(None));
    }
    for fatbin in linkable(&all) {
        reduced.extend(fatbin_of(Some(best(fatbin, arch)?)));
    }
    Ok(reduced)
}

fn refuse_cubin(image: &[u8]) -> Result<(), ImageError> {
    if image.starts_with(&ELF_MAGIC) {
        return Err(ImageError::NoPtx {
            machine_code_for: cubin_arch(image).into_iter().collect(),
        });
    }
    Ok(())
}

fn best<'a, 'b>(fatbin: &'b Fatbin<'a>, arch: u32) -> Result<&'b Entry<'a>, ImageError> {
    let candidates = fatbin
        .entries
        .iter()
        .filter(|entry| entry.kind == Kind::Ptx);
    // Best first: what the device has before what it lacks, plain before arch-specific, then the
    // nearest architecture.
    let best = candidates.min_by_key(|entry| {
        let above = entry.arch > arch;
        (above, entry.arch_specific, entry.arch.abs_diff(arch))
    });
    best.ok_or_else(|| {
        let mut machine_code_for: Vec<u32> = fatbin
            .entries
            .iter()
            .filter(|entry| entry.kind == Kind::Cubin)
            .map(|entry| entry.arch)
            .collect();
        machine_code_for.sort_unstable();
        machine_code_for.dedup();
        ImageError::NoPtx { machine_code_for }
    })
}

/// Takes what it unpacks from `room`.
fn text_of(entry: &Entry, room: &mut usize) -> Result<Ptx, ImageError> {
    let mut text = unpack(entry, *room)?;
    *room -= text.len();
    text.truncate(without_padding(&text).len());
    Ok(Ptx { text })
}

/// The bytes before the first zero.
fn without_padding(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    &text[..end]
}

/// Whether `text` begins as PTX does: white space and comments aside, with a directive.
pub(crate) fn looks_like_ptx(text: &[u8]) -> bool {
    let start = text.trim_ascii_start();
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    start.starts_with(b".") || start.starts_with(b"//") || start.starts_with(b"/*")
}

/// The architecture of a cubin: newer toolkits keep it in bits 8 to 15 of the ELF flags.
fn cubin_arch(image: &[u8]) -> Option<u32> {
    let flags = u32::from_le_bytes(image.get(48..52)?.try_into().ok()?);
    let os_abi = *image.get(7)?;
    Some(if os_abi == 0x41 {
        flags >> 8 & 0xff
    } else {
        flags & 0xff
    })
}
