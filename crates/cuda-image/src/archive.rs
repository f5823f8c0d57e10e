//! Host objects with embedded device code, and archives of them: what static libraries such as
//! `libcudadevrt.a` are.

use crate::container::is_fatbin;
use crate::{ImageError, ELF_MAGIC};

/// How an archive begins.
const ARCHIVE: &[u8] = b"!<arch>\n";
/// Bytes of a member's header: name, three numbers, mode, then the size in decimal.
const MEMBER_HEADER: usize = 60;
const MEMBER_SIZE: core::ops::Range<usize> = 48..58;
/// The sections of a host object that hold its fatbins: linked by itself, and to be linked (`-rdc`).
const SECTIONS: [&[u8]; 2] = [b".nv_fatbin", b"__nv_relfatbin"];
/// ELF machine number of device code, as against a host object's.
const CUDA_MACHINE: u16 = 190;

/// The device code of a link's input: that of each host object in an archive or of one object, or the
/// input itself where it is neither. Objects without device code are left out.
///
/// # Errors
/// [`ImageError::Truncated`] or [`ImageError::Corrupt`] where a member or section lies outside.
pub fn embedded(input: &[u8]) -> Result<Vec<&[u8]>, ImageError> {
    let objects = match input.strip_prefix(ARCHIVE) {
        Some(rest) => members(rest)?,
        None => vec![input],
    };
    let from_archive = input.starts_with(ARCHIVE);
    let mut found = Vec::new();
    for object in objects {
        if is_host_object(object) {
            found.extend(sections(object)?);
        } else if !from_archive || is_fatbin(object) || object.starts_with(&ELF_MAGIC) {
            found.push(object);
        }
    }
    Ok(found)
}

/// The contents of an archive's members, its tables of symbols and names among them.
fn members(mut rest: &[u8]) -> Result<Vec<&[u8]>, ImageError> {
    let mut found = Vec::new();
    while rest.len() > 1 {
        let header = rest.get(..MEMBER_HEADER).ok_or(ImageError::Truncated)?;
        let size = core::str::from_utf8(&header[MEMBER_SIZE])
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok())
            .ok_or(ImageError::Corrupt("archive member size"))?;
        let end = MEMBER_HEADER
            .checked_add(size)
            .ok_or(ImageError::Truncated)?;
        found.push(rest.get(MEMBER_HEADER..end).ok_or(ImageError::Truncated)?);
        // Members begin at even offsets.
        rest = rest.get(end + size % 2..).unwrap_or_default();
    }
    Ok(found)
}

fn number<const N: usize>(bytes: &[u8], offset: u64) -> Result<u64, ImageError> {
    let start = usize::try_from(offset).map_err(|_| ImageError::Truncated)?;
    let end = start.checked_add(N).ok_or(ImageError::Truncated)?;
    let mut word = [0; 8];
    word[..N].copy_from_slice(bytes.get(start..end).ok_or(ImageError::Truncated)?);
    Ok(u64::from_le_bytes(word))
}

fn is_host_object(object: &[u8]) -> bool {
    object.starts_with(&ELF_MAGIC)
        && number::<2>(object, 18).is_ok_and(|machine| machine != u64::from(CUDA_MACHINE))
}

/// A range of an object's bytes.
fn part(object: &[u8], offset: u64, size: u64) -> Result<&[u8], ImageError> {
    let end = offset.checked_add(size).ok_or(ImageError::Truncated)?;
    let range = (usize::try_from(offset).ok()).zip(usize::try_from(end).ok());
    range
        .and_then(|(start, end)| object.get(start..end))
        .ok_or(ImageError::Truncated)
}

/// The fatbins of a 64-bit host object, none where it has no such section.
fn sections(object: &[u8]) -> Result<Vec<&[u8]>, ImageError> {
    let table = number::<8>(object, 40)?;
    let (entry, count, names) = (
        number::<2>(object, 58)?,
        number::<2>(object, 60)?,
        number::<2>(object, 62)?,
    );
    let header = |index: u64| {
        let offset = index
            .checked_mul(entry)
            .and_then(|at| at.checked_add(table));
        offset.ok_or(ImageError::Truncated)
    };
    let contents = |index: u64| {
        let at = header(index)?;
        part(
            object,
            number::<8>(object, at + 24)?,
            number::<8>(object, at + 32)?,
        )
    };
    let strings = contents(names)?;
    let mut found = Vec::new();
    for index in 0..count {
        let name = number::<4>(object, header(index)?)? as usize;
        let name = strings.get(name..).unwrap_or_default();
        let is_named = |section: &&[u8]| {
            name.strip_prefix(*section)
                .is_some_and(|rest| rest.first() == Some(&0))
        };
        if SECTIONS.iter().any(is_named) {
            found.push(contents(index)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object of `machine` with one section named `name`.
    fn object(machine: u16, name: &[u8], content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(&ELF_MAGIC);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        let content_at = bytes.len() as u64;
        bytes.extend(content);
        let names_at = bytes.len() as u64;
        bytes.extend(name);
        bytes.push(0);
        let table = bytes.len() as u64;
        // The table of names is itself named by the zero at its end.
        let unnamed = name.len() as u32;
        for (called, offset, size) in [
            (0, content_at, content.len()),
            (unnamed, names_at, name.len() + 1),
        ] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&called.to_le_bytes());
            header[24..32].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            bytes.extend(header);
        }
        bytes[40..48].copy_from_slice(&table.to_le_bytes());
        bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&2u16.to_le_bytes());
        bytes[62..64].copy_from_slice(&1u16.to_le_bytes());
        bytes
    }

    fn archive(objects: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = ARCHIVE.to_vec();
        for object in objects {
            let header = format!("{:<48}{:<10}`\n", "name/", object.len());
            bytes.extend(header.as_bytes());
            bytes.extend(object);
            if object.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    const X86: u16 = 62;

    #[test]
    fn device_code_is_found_in_objects_and_archives() {
        let with = object(X86, SECTIONS[0], b"device code");
        let to_link = object(X86, SECTIONS[1], b"more code");
        let without = object(X86, b".text", b"host code");
        assert_eq!(embedded(&with).unwrap(), [b"device code"]);
        assert!(embedded(&without).unwrap().is_empty());
        let both = archive(&[b"names".to_vec(), without, with, to_link]);
        let found = embedded(&both).unwrap();
        assert_eq!(found, [&b"device code"[..], b"more code"]);
    }

    #[test]
    fn everything_else_is_itself() {
        let cubin = object(CUDA_MACHINE, SECTIONS[0], b"x");
        for input in [&b".version 8.0"[..], &cubin] {
            assert_eq!(embedded(input).unwrap(), [input]);
        }
    }

    #[test]
    fn inputs_that_end_too_early_are_refused() {
        let whole = archive(&[object(X86, SECTIONS[0], b"device code")]);
        for length in ARCHIVE.len() + 2..whole.len() {
            assert!(embedded(&whole[..length]).is_err(), "{length}");
        }
        let mut wild = object(X86, SECTIONS[0], b"x");
        wild[40..48].fill(0xff);
        assert!(embedded(&wild).is_err());
    }
}
