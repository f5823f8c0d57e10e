//! Device code as the driver takes it: a pointer without a length.
//!
//! The bytes behind it say how far they reach, and a client may lie about that. So an image is measured before the
//! driver sees it, as far as its outer form goes.

use std::ffi::c_void;
use std::ptr;

use harp_cuda_abi::types::{CUresult, CUDA_ERROR_INVALID_IMAGE};
use harp_cuda_image::{ELF_MAGIC, FATBIN_MAGIC, WRAPPER_MAGIC};

use super::id_map::IdMap;
use super::Violation;

/// A fatbin, several of them, a cubin, or PTX text, in memory where the driver can read it.
pub struct Image {
    /// With a NUL at the end, for PTX text.
    bytes: Vec<u8>,
    /// For several fatbins: what points to each of them.
    wrapper: Option<Box<Wrapper>>,
    _linked: Vec<*const c_void>,
}

/// What names several fatbins to the driver; found in every host program that `nvcc` links.
#[repr(C)]
struct Wrapper {
    magic: u32,
    version: u32,
    /// The linker's result, for the architectures it was asked for.
    fatbin: *const c_void,
    /// What it was made from, for the driver to link where that does not fit. Ended by null.
    linked: *const *const c_void,
}

/// The version of the wrapper whose `linked` names fatbins.
const LINKED: u32 = 2;

const FATBIN_HEADER: usize = 16;

impl Image {
    /// Takes over what the client has sent. `Ok(Err(code))` answers the loading call; `Err` ends the session.
    pub fn new(mut bytes: Vec<u8>) -> Result<Result<Self, CUresult>, Violation> {
        let magic = bytes.first_chunk::<4>().copied().unwrap_or_default();
        let number = u32::from_le_bytes(magic);
        if number == WRAPPER_MAGIC {
            return Err(Violation::new("an image that holds pointers"));
        }
        let starts = match number {
            FATBIN_MAGIC => fatbins(&bytes)?,
            _ if magic == ELF_MAGIC => {
                check_elf(&bytes)?;
                Vec::new()
            }
            _ if is_text(&bytes) => Vec::new(),
            _ => return Ok(Err(CUDA_ERROR_INVALID_IMAGE)),
        };
        bytes.push(0);
        if starts.len() < 2 {
            return Ok(Ok(Self {
                bytes,
                wrapper: None,
                _linked: Vec::new(),
            }));
        }
        let mut linked: Vec<*const c_void> = starts[1..]
            .iter()
            .map(|start| bytes[*start..].as_ptr().cast())
            .collect();
        linked.push(ptr::null());
        let wrapper = Wrapper {
            magic: WRAPPER_MAGIC,
            version: LINKED,
            fatbin: bytes.as_ptr().cast(),
            linked: linked.as_ptr(),
        };
        Ok(Ok(Self {
            bytes,
            wrapper: Some(Box::new(wrapper)),
            _linked: linked,
        }))
    }

    /// What the driver is given; good as long as this is.
    pub fn pointer(&self) -> *const c_void {
        match &self.wrapper {
            Some(wrapper) => (&raw const **wrapper).cast(),
            None => self.bytes.as_ptr().cast(),
        }
    }
}

/// Bytes of images that a session may have kept at a time: several times what the largest known programs load.
const MOST_KEPT: usize = 8 << 30;

/// Images that are kept as long as what was loaded from them, by its handle.
pub struct KeptImages {
    kept: IdMap<Image>,
    bytes: usize,
    most: usize,
}

impl Default for KeptImages {
    fn default() -> Self {
        Self {
            kept: IdMap::default(),
            bytes: 0,
            most: MOST_KEPT,
        }
    }
}

impl KeptImages {
    /// Whether an image can be kept beside the others.
    pub fn have_room(&self, image: &Image) -> bool {
        image.bytes.len() <= self.most - self.bytes
    }

    /// Keeps an image for which there is room.
    pub fn keep(&mut self, id: u64, image: Image) {
        self.forget(id);
        self.bytes += image.bytes.len();
        self.kept.insert(id, image);
    }

    pub fn forget(&mut self, id: u64) {
        if let Some(image) = self.kept.remove(&id) {
            self.bytes -= image.bytes.len();
        }
    }
}

/// Where each of the fatbins in `bytes` begins. Zero bytes may follow each.
fn fatbins(bytes: &[u8]) -> Result<Vec<usize>, Violation> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let header = bytes
            .get(at..at + FATBIN_HEADER)
            .ok_or_else(|| cut_short("a fatbin"))?;
        if header[..4] != FATBIN_MAGIC.to_le_bytes() {
            return Err(Violation::new("an image that is a fatbin only in part"));
        }
        let own = u64::from(number::<2>(header, 6) as u16);
        let length = number::<8>(header, 8).saturating_add(own);
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length));
        let end = end
            .filter(|end| *end <= bytes.len())
            .ok_or_else(|| cut_short("a fatbin"))?;
        starts.push(at);
        at = end + bytes[end..].iter().take_while(|byte| **byte == 0).count();
    }
    Ok(starts)
}

/// Checks that the tables and contents which a 64-bit ELF file announces lie within it.
fn check_elf(bytes: &[u8]) -> Result<(), Violation> {
    /// Offset in the file header of: table's offset, size of an entry, number of entries. Offset in an entry of: its
    /// content's offset, its size. Offset and value of the word that marks an entry without content.
    const PROGRAMS: [usize; 5] = [32, 54, 56, 8, 32];
    const SECTIONS: [usize; 5] = [40, 58, 60, 24, 32];
    const HEADER: usize = 64;
    const SECTION_KIND: usize = 4;
    const WITHOUT_CONTENT: u64 = 8;

    let within = |offset: u64, size: u64| {
        offset
            .checked_add(size)
            .is_some_and(|end| end <= bytes.len() as u64)
    };
    if bytes.len() < HEADER {
        return Err(cut_short("a cubin"));
    }
    for [table, entry_size, count, content, size] in [PROGRAMS, SECTIONS] {
        let (table, count) = (number::<8>(bytes, table), number::<2>(bytes, count));
        let entry_size = number::<2>(bytes, entry_size);
        if count == 0 {
            continue;
        }
        if entry_size < (size + 8) as u64 || !within(table, entry_size * count) {
            return Err(cut_short("a cubin"));
        }
        for index in 0..count {
            let entry = &bytes[(table + index * entry_size) as usize..];
            let empty =
                content == SECTIONS[3] && number::<4>(entry, SECTION_KIND) == WITHOUT_CONTENT;
            if !empty && !within(number::<8>(entry, content), number::<8>(entry, size)) {
                return Err(cut_short("a cubin"));
            }
        }
    }
    Ok(())
}

/// Text begins with a printable character or white space, and has no control characters near its beginning.
fn is_text(bytes: &[u8]) -> bool {
    const LOOKED_AT: usize = 16;
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    !start.is_empty()
        && start
            .iter()
            .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace())
}

fn cut_short(what: &str) -> Violation {
    Violation::new(format!("{what} that claims more bytes than were sent"))
}

/// The little-endian number of `N` bytes at `offset`, which the caller has checked to be there.
fn number<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word[..N].copy_from_slice(&bytes[offset..offset + N]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fatbin(content: &[u8]) -> Vec<u8> {
        let mut bytes = FATBIN_MAGIC.to_le_bytes().to_vec();
        bytes.extend([1, 0, FATBIN_HEADER as u8, 0]);
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend(content);
        bytes
    }

    fn elf(section_end: u64) -> Vec<u8> {
        let mut bytes = vec![0; 128];
        bytes[..4].copy_from_slice(&ELF_MAGIC);
        bytes[40..48].copy_from_slice(&64u64.to_le_bytes());
        bytes[58..60].copy_from_slice(&64u16.to_le_bytes());
        bytes[60..62].copy_from_slice(&1u16.to_le_bytes());
        bytes[64 + 32..64 + 40].copy_from_slice(&section_end.to_le_bytes());
        bytes
    }

    #[test]
    fn images_of_every_form_are_taken() {
        for bytes in [
            fatbin(b"xyz"),
            elf(128),
            b".version 8.0\n.target sm_80\n".to_vec(),
        ] {
            let image = Image::new(bytes.clone()).unwrap().unwrap();
            assert!(image.wrapper.is_none());
            assert_eq!(image.bytes[..bytes.len()], bytes);
            assert_eq!(image.bytes.last(), Some(&0));
        }
        assert!(matches!(
            Image::new(b"\x7fTileIR".to_vec()),
            Ok(Err(CUDA_ERROR_INVALID_IMAGE))
        ));
        assert!(matches!(
            Image::new(Vec::new()),
            Ok(Err(CUDA_ERROR_INVALID_IMAGE))
        ));
    }

    #[test]
    fn images_are_kept_while_there_is_room() {
        let mut images = KeptImages {
            most: 100,
            ..KeptImages::default()
        };
        let image = || Image::new(fatbin(&[7; 24])).unwrap().unwrap();
        assert_eq!(image().bytes.len(), 41);
        for id in [1, 2] {
            assert!(images.have_room(&image()));
            images.keep(id, image());
        }
        assert!(!images.have_room(&image()));
        images.forget(1);
        images.forget(1);
        assert!(images.have_room(&image()));
        images.forget(2);
        assert_eq!(images.bytes, 0);
    }

    #[test]
    fn several_fatbins_are_named_by_a_wrapper() {
        let mut bytes = fatbin(b"first");
        bytes.extend([0; 3]);
        let second = bytes.len();
        bytes.extend(fatbin(b"second"));
        let image = Image::new(bytes).unwrap().unwrap();
        let wrapper = image.wrapper.as_ref().unwrap();
        assert_eq!(image.pointer(), (&raw const **wrapper).cast());
        assert_eq!(wrapper.fatbin, image.bytes.as_ptr().cast());
        assert_eq!(image._linked.len(), 2);
        assert_eq!(image._linked[0], image.bytes[second..].as_ptr().cast());
        assert!(image._linked[1].is_null());
    }

    #[test]
    fn images_that_lie_about_their_size_are_violations() {
        let mut long = fatbin(b"xyz");
        long[8] = 200;
        let mut huge = fatbin(b"xyz");
        huge[8..16].fill(0xff);
        let mut wrapper = fatbin(b"xyz");
        wrapper[..4].copy_from_slice(&WRAPPER_MAGIC.to_le_bytes());
        let trailing = [fatbin(b"xyz"), b"more".to_vec()].concat();
        let mut table = elf(128);
        table[40..48].fill(0xff);
        let short = elf(128)[..40].to_vec();
        for bytes in [
            long,
            huge,
            wrapper,
            trailing,
            elf(129),
            elf(u64::MAX),
            table,
            short,
        ] {
            assert!(Image::new(bytes).is_err());
        }
    }
}
