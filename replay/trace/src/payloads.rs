//! Which bytes of calls and replies are data, and how much of them a trace keeps.

use harp_wire::calls::*;
use harp_wire::{CallId, Decoder};

use crate::block::{Policy, PAYLOAD_MIN};

/// What data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Code: of modules, libraries and links.
    Images,
    /// From the program to a device.
    Uploads,
    /// From a device to the program.
    Downloads,
}

/// How much is kept of each class: `HARP_TRACE_PAYLOAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    pub images: Policy,
    pub uploads: Policy,
    pub downloads: Policy,
}

impl Default for Policies {
    fn default() -> Policies {
        Policies {
            images: Policy::Hash,
            uploads: Policy::Shape,
            downloads: Policy::Shape,
        }
    }
}

impl Policies {
    pub fn of(&self, class: Class) -> Policy {
        match class {
            Class::Images => self.images,
            Class::Uploads => self.uploads,
            Class::Downloads => self.downloads,
        }
    }

    /// Reads `full`, or `images=full,uploads=hash`: what is not named stays as it is by default. None where
    /// it is neither.
    pub fn parse(text: &str) -> Option<Policies> {
        let wanted = |name| Policy::from_name(name).filter(|policy| *policy != Policy::Lost);
        if let Some(policy) = wanted(text) {
            return Some(Policies {
                images: policy,
                uploads: policy,
                downloads: policy,
            });
        }
        let mut policies = Policies::default();
        for part in text.split(',') {
            let (class, policy) = part.split_once('=')?;
            let policy = wanted(policy)?;
            match class {
                "images" => policies.images = policy,
                "uploads" => policies.uploads = policy,
                "downloads" => policies.downloads = policy,
                _ => return None,
            }
        }
        Some(policies)
    }
}

/// What the last argument of a call is, where it is data.
pub fn sent_by(call: CallId) -> Option<Class> {
    match call {
        CallId::harp_blob_append => Some(Class::Images),
        CallId::cuMemcpyHtoD_v2 | CallId::harp_copy_box_to_device | CallId::harp_twin_write => {
            Some(Class::Uploads)
        }
        _ => None,
    }
}

/// Bytes of the last argument of a call, where that is data and the arguments are whole.
pub fn sent_bytes(call: CallId, arguments: &[u8]) -> usize {
    let mut d = Decoder::new(arguments);
    let bytes = match call {
        CallId::harp_blob_append => HarpBlobAppendArgs::decode(&mut d).map(|args| args.piece.len()),
        CallId::cuMemcpyHtoD_v2 => CuMemcpyHtoD_v2Args::decode(&mut d).map(|args| args.data.len()),
        CallId::harp_copy_box_to_device => {
            HarpCopyBoxToDeviceArgs::decode(&mut d).map(|args| args.data.len())
        }
        CallId::harp_twin_write => HarpTwinWriteArgs::decode(&mut d).map(|args| args.lines.len()),
        _ => Ok(0),
    };
    bytes.unwrap_or(0)
}

/// A record whose last `bytes` are data: what comes before them, and them; all of it and nothing where they are too few
/// to be cut out.
#[inline]
pub fn split(record: &[u8], bytes: usize) -> (&[u8], &[u8]) {
    let cut = if bytes < PAYLOAD_MIN { 0 } else { bytes };
    record.split_at(record.len() - cut)
}

/// What the last output of a call is, where it is data.
#[inline]
pub fn brought_by(call: CallId) -> Option<Class> {
    match call {
        CallId::cuLinkComplete => Some(Class::Images),
        CallId::cuMemcpyDtoH_v2
        | CallId::cuMemcpyDtoHAsync_v2
        | CallId::harp_copy_box_to_host
        | CallId::harp_twin_read => Some(Class::Downloads),
        _ => None,
    }
}

/// Where the data begins in the outputs of such a call: a length of u64 stands before it, and nothing or one
/// u64 before that. The end, where that is not so.
pub fn cut(outputs: &[u8]) -> usize {
    let length_at = |at: usize| {
        let bytes = outputs.get(at..at + 8)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let is_data = |begin: &usize| length_at(begin - 8) == Some((outputs.len() - begin) as u64);
    let found = [8, 16]
        .into_iter()
        .filter(|begin| *begin <= outputs.len())
        .find(is_data);
    found.unwrap_or(outputs.len())
}

#[cfg(test)]
mod tests {
    use harp_wire::Encoder;

    use super::*;

    #[test]
    fn policies_are_one_for_all_or_by_class() {
        let all = |policy| Policies {
            images: policy,
            uploads: policy,
            downloads: policy,
        };
        assert_eq!(Policies::parse("full"), Some(all(Policy::Full)));
        assert_eq!(
            Policies::parse("images=full,downloads=hash"),
            Some(Policies {
                images: Policy::Full,
                uploads: Policy::Shape,
                downloads: Policy::Hash,
            })
        );
        for wrong in [
            "",
            "lost",
            "images",
            "images=lost",
            "weights=full",
            "full,hash",
        ] {
            assert_eq!(Policies::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn data_is_found_at_the_end_of_the_arguments() {
        let mut e = Encoder::new();
        encode_cuMemcpyHtoD_v2(&mut e, 0x2000, u64::MAX);
        e.bytes(&[7; 100]);
        assert_eq!(sent_bytes(CallId::cuMemcpyHtoD_v2, e.as_slice()), 100);
        assert_eq!(sent_bytes(CallId::cuMemcpyHtoD_v2, &e.as_slice()[..60]), 0);
        assert_eq!(sent_bytes(CallId::cuCtxSynchronize, &[]), 0);
    }

    #[test]
    fn data_begins_after_its_length() {
        let outputs = |words: &[u64], data: usize| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.resize(bytes.len() + data, 7);
            bytes
        };
        assert_eq!(cut(&outputs(&[100], 100)), 8);
        assert_eq!(cut(&outputs(&[5, 100], 100)), 16);
        assert_eq!(cut(&outputs(&[0], 0)), 8);
        for odd in [outputs(&[99], 100), outputs(&[], 7), Vec::new()] {
            assert_eq!(cut(&odd), odd.len());
        }
    }
}
