//! Module images on their way in: sent in pieces, then named by the call that loads them.

use std::collections::hash_map::Entry;

use super::id_map::IdMap;
use super::Violation;

/// Bytes that a session may have in unfinished images, the most for one, and how many images. The largest that known
/// libraries hand over is about 100 MiB; a thread sends one after the other.
#[derive(Debug, Clone, Copy)]
pub struct BlobLimits {
    pub one: usize,
    pub all: usize,
    pub images: usize,
}

impl Default for BlobLimits {
    fn default() -> Self {
        Self {
            one: 512 << 20,
            all: 1 << 30,
            images: 1 << 16,
        }
    }
}

/// The unfinished images of a session by the client's numbers.
#[derive(Default)]
pub struct Blobs {
    limits: BlobLimits,
    collected: IdMap<Blob>,
    held: usize,
}

#[derive(Default)]
struct Blob {
    bytes: Vec<u8>,
    /// A piece that the client named was not there.
    lacks_a_piece: bool,
}

impl Blobs {
    /// Adds `piece` to the end of blob `id`, which begins with its first piece.
    pub fn append(&mut self, id: u64, piece: &[u8]) -> Result<(), Violation> {
        let present = self.collected.get(&id).map_or(0, |blob| blob.bytes.len());
        if present + piece.len() > self.limits.one {
            return Err(Violation::new(format!(
                "an image of more than {} bytes",
                self.limits.one
            )));
        }
        if self.held + piece.len() > self.limits.all {
            return Err(Violation::new(format!(
                "images of more than {} bytes waiting to be loaded",
                self.limits.all
            )));
        }
        self.image(id)?.bytes.extend_from_slice(piece);
        self.held += piece.len();
        Ok(())
    }

    /// The next piece of blob `id` is not there.
    pub fn lacks_a_piece(&mut self, id: u64) -> Result<(), Violation> {
        self.image(id)?.lacks_a_piece = true;
        Ok(())
    }

    fn image(&mut self, id: u64) -> Result<&mut Blob, Violation> {
        let all = self.collected.len();
        match self.collected.entry(id) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) if all < self.limits.images => Ok(entry.insert(Blob::default())),
            Entry::Vacant(_) => Err(Violation::new(format!(
                "more than {all} images waiting to be loaded"
            ))),
        }
    }

    /// Takes a whole image out; `None` for one that lacks a piece.
    pub fn take(&mut self, id: u64) -> Result<Option<Vec<u8>>, Violation> {
        match self.collected.entry(id) {
            Entry::Occupied(entry) => {
                let blob = entry.remove();
                self.held -= blob.bytes.len();
                Ok((!blob.lacks_a_piece).then_some(blob.bytes))
            }
            Entry::Vacant(_) => Err(Violation::new(format!("the image {id:#x} was never sent"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Blobs {
        Blobs {
            limits: BlobLimits {
                one: 8,
                all: 12,
                images: 3,
            },
            ..Blobs::default()
        }
    }

    #[test]
    fn pieces_are_joined_and_taken_once() {
        let mut blobs = small();
        blobs.append(1, b"abc").unwrap();
        blobs.append(2, b"x").unwrap();
        blobs.append(1, b"def").unwrap();
        assert_eq!(blobs.take(1).unwrap().unwrap(), b"abcdef");
        assert!(blobs.take(1).is_err());
        assert_eq!(blobs.held, 1);
    }

    #[test]
    fn an_image_that_lacks_a_piece_is_none() {
        let mut blobs = small();
        blobs.append(1, b"abc").unwrap();
        blobs.lacks_a_piece(1).unwrap();
        blobs.append(1, b"def").unwrap();
        blobs.lacks_a_piece(2).unwrap();
        assert_eq!(blobs.take(1).unwrap(), None);
        assert_eq!(blobs.take(2).unwrap(), None);
        assert_eq!(blobs.held, 0);
    }

    #[test]
    fn one_image_and_all_together_are_bounded() {
        let mut blobs = small();
        blobs.append(1, b"12345678").unwrap();
        assert!(blobs.append(1, b"9").is_err());
        blobs.append(2, b"1234").unwrap();
        assert!(blobs.append(3, b"5").is_err());
        blobs.take(1).unwrap();
        blobs.append(3, b"5").expect("room again");
    }

    #[test]
    fn images_without_bytes_are_bounded_too() {
        let mut blobs = small();
        blobs.append(1, b"").unwrap();
        blobs.lacks_a_piece(2).unwrap();
        blobs.lacks_a_piece(3).unwrap();
        assert!(blobs.lacks_a_piece(4).is_err());
        assert!(blobs.append(4, b"").is_err());
        blobs.lacks_a_piece(3).expect("one that is there");
        blobs.take(2).unwrap();
        blobs.append(4, b"").expect("room again");
    }
}
