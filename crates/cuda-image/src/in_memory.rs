//! Images of the calling program, named by a pointer without a length.
//!
//! This file is unsafe by nature: `cuModuleLoadData` and its kin pass a bare pointer, and only the
//! bytes there say how far they reach.

use core::ffi::{c_void, CStr};
use core::ptr;

use crate::container::FATBIN_HEADER;
use crate::select::looks_like_ptx;
use crate::{ImageError, ELF_MAGIC, FATBIN_MAGIC, WRAPPER_MAGIC};

/// What host programs hold for each linked image.
#[repr(C)]
struct Wrapper {
    magic: u32,
    version: u32,
    fatbin: *const c_void,
    /// Version 2: fatbins that were linked ahead, ended by null. Version 1: a file name or null.
    linked: *const *const c_void,
}

/// Bytes of the image at `image`, which is a fatbin, an ELF file or NUL-ended PTX text (counted
/// without its NUL). A wrapper has no length of its own: see [`flatten`].
///
/// # Errors
/// [`ImageError::UnknownForm`] for anything else.
///
/// # Safety
/// `image` points to a readable image.
pub unsafe fn image_len(image: *const c_void) -> Result<usize, ImageError> {
    // SAFETY: every form has at least four bytes (the shortest PTX text has more).
    let magic = unsafe { ptr::read_unaligned(image.cast::<[u8; 4]>()) };
    if u32::from_le_bytes(magic) == FATBIN_MAGIC {
        // SAFETY: a fatbin has a whole header.
        let header = unsafe { ptr::read_unaligned(image.cast::<[u8; FATBIN_HEADER]>()) };
        let [.., a, b, c, d, e, f, g, h] = header;
        let body = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let own = u64::from(u16::from_le_bytes([header[6], header[7]]));
        let length = body
            .checked_add(own)
            .ok_or(ImageError::Corrupt("fatbin size"))?;
        return usize::try_from(length).map_err(|_| ImageError::Corrupt("fatbin size"));
    }
    if magic == ELF_MAGIC {
        // SAFETY: the caller's promise.
        return unsafe { elf_len(image.cast()) };
    }
    if looks_like_ptx(&magic) {
        // SAFETY: text without a length ends with NUL.
        return Ok(unsafe { CStr::from_ptr(image.cast()) }.count_bytes());
    }
    Err(ImageError::UnknownForm)
}

/// Whether `image` is the wrapper that compilers make for the CUDA runtime.
///
/// # Safety
/// `image` points to a readable image or wrapper.
unsafe fn is_wrapper(image: *const c_void) -> bool {
    // SAFETY: every form has at least four bytes.
    unsafe { ptr::read_unaligned(image.cast::<u32>()) == WRAPPER_MAGIC }
}

/// The image at `image` as one run of bytes that [`crate::select()`] reads: a fatbin, several of
/// them, a cubin, or PTX text.
///
/// Several come from a wrapper of relocatable code: the first is what the linker made for the
/// architectures it was asked for, the others are what it made that from, for a driver to link anew.
///
/// # Errors
/// [`ImageError::UnknownForm`] where the pointer leads to none of these.
///
/// # Safety
/// `image` points to a readable image or wrapper.
pub unsafe fn flatten(image: *const c_void) -> Result<Vec<u8>, ImageError> {
    // SAFETY: the caller's promise, for all that follows.
    unsafe {
        if !is_wrapper(image) {
            return copy(image);
        }
        let wrapper = ptr::read_unaligned(image.cast::<Wrapper>());
        if wrapper.version < 2 || wrapper.linked.is_null() || (*wrapper.linked).is_null() {
            return copy(wrapper.fatbin);
        }
        let mut all = copy(wrapper.fatbin)?;
        let mut next = wrapper.linked;
        while !(*next).is_null() {
            all.extend(copy(*next)?);
            next = next.add(1);
        }
        Ok(all)
    }
}

unsafe fn copy(image: *const c_void) -> Result<Vec<u8>, ImageError> {
    if image.is_null() {
        return Err(ImageError::UnknownForm);
    }
    // SAFETY: the caller's promise; the image says its own length.
    unsafe {
        let length = image_len(image)?;
        Ok(core::slice::from_raw_parts(image.cast::<u8>(), length).to_vec())
    }
}

/// The end of the last of headers, segments and sections of a 64-bit ELF file.
unsafe fn elf_len(image: *const u8) -> Result<usize, ImageError> {
    const SECTION_WITHOUT_BYTES: u32 = 8;
    // SAFETY: the caller's promise, for every offset that the file itself names.
    let u16_at = |offset: usize| unsafe { ptr::read_unaligned(image.add(offset).cast::<u16>()) };
    // SAFETY: as above.
    let u32_at = |offset: usize| unsafe { ptr::read_unaligned(image.add(offset).cast::<u32>()) };
    // SAFETY: as above.
    let u64_at = |offset: usize| unsafe { ptr::read_unaligned(image.add(offset).cast::<u64>()) };
    let table = |offset: usize, entry: u16, count: u16| {
        offset.checked_add(usize::from(entry) * usize::from(count))
    };
    const CORRUPT: ImageError = ImageError::Corrupt("ELF header");

    const ELF64: u16 = 2;
    if u16_at(4) & 0xff != ELF64 {
        return Err(CORRUPT);
    }
    let (programs, sections) = (u64_at(32) as usize, u64_at(40) as usize);
    let (program_size, program_count) = (u16_at(54), u16_at(56));
    let (section_size, section_count) = (u16_at(58), u16_at(60));
    let mut end = 64;
    if program_count > 0 {
        end = end.max(table(programs, program_size, program_count).ok_or(CORRUPT)?);
    }
    if section_count > 0 {
        end = end.max(table(sections, section_size, section_count).ok_or(CORRUPT)?);
    }
    for index in 0..usize::from(section_count) {
        let header = sections + index * usize::from(section_size);
        if u32_at(header + 4) != SECTION_WITHOUT_BYTES {
            let (offset, size) = (u64_at(header + 24) as usize, u64_at(header + 32) as usize);
            end = end.max(offset.checked_add(size).ok_or(CORRUPT)?);
        }
    }
    for index in 0..usize::from(program_count) {
        let header = programs + index * usize::from(program_size);
        let (offset, size) = (u64_at(header + 8) as usize, u64_at(header + 32) as usize);
        end = end.max(offset.checked_add(size).ok_or(CORRUPT)?);
    }
    Ok(end)
}
