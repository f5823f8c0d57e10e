//! Whether a device can run an image: what is known before anything is sent.

use harp_cuda_image::container::is_fatbin;
use harp_cuda_image::{fatbins, select, Entry, ImageError, Kind, ELF_MAGIC};

/// What a device runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// It executes PTX and nothing else.
    pub soft: bool,
    /// Its compute capability: 86.
    pub architecture: u32,
}

/// Why the device cannot run the image; `None` where it can, or where only its driver knows.
pub fn obstacle(image: &[u8], target: Target) -> Option<String> {
    if target.soft {
        return match select(image, target.architecture) {
            Err(error @ ImageError::NoPtx { .. }) => {
                Some(format!("{error}, and a soft GPU executes PTX"))
            }
            _ => None,
        };
    }
    let arch = target.architecture;
    if is_fatbin(image) {
        let all = fatbins(image).ok()?;
        let entries = || all.iter().flat_map(|fatbin| &fatbin.entries);
        if entries().next().is_none() || entries().any(|entry| runs(entry, arch)) {
            return None;
        }
        let mut held: Vec<String> = entries().map(name).collect();
        held.sort();
        held.dedup();
        return Some(format!(
            "the image holds {}, and the device is sm_{arch}",
            held.join(", ")
        ));
    }
    if image.starts_with(&ELF_MAGIC) {
        // What a bare cubin is for, as `select` tells it.
        if let Err(ImageError::NoPtx { machine_code_for }) = select(image, arch) {
            let fits = |of: &u32| is_of_family(*of, arch);
            if !machine_code_for.is_empty() && !machine_code_for.iter().any(fits) {
                return Some(format!(
                    "the image holds machine code for sm_{}, and the device is sm_{arch}",
                    machine_code_for[0]
                ));
            }
        }
    }
    None
}

fn runs(entry: &Entry, arch: u32) -> bool {
    match entry.kind {
        Kind::Ptx if entry.arch_specific => entry.arch == arch,
        Kind::Ptx => entry.arch <= arch,
        Kind::Cubin if entry.arch_specific => entry.arch == arch,
        Kind::Cubin => is_of_family(entry.arch, arch),
        // What it is for, this cannot know.
        _ => true,
    }
}

/// Machine code runs on devices of its own major number, from its minor one on.
fn is_of_family(code: u32, device: u32) -> bool {
    code / 10 == device / 10 && code <= device
}

fn name(entry: &Entry) -> String {
    let what = if entry.kind == Kind::Ptx {
        "PTX for compute_"
    } else {
        "machine code for sm_"
    };
    let specific = if entry.arch_specific { "a" } else { "" };
    format!("{what}{}{specific}", entry.arch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFT: Target = Target {
        soft: true,
        architecture: 86,
    };

    fn cubin(arch: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(&ELF_MAGIC);
        bytes[48] = arch;
        bytes
    }

    #[test]
    fn machine_code_runs_on_its_own_family_only() {
        let real = |architecture| Target {
            soft: false,
            architecture,
        };
        assert_eq!(obstacle(&cubin(80), real(86)), None);
        assert!(obstacle(&cubin(86), real(80)).unwrap().contains("sm_86"));
        assert!(obstacle(&cubin(75), real(86)).unwrap().contains("sm_86"));
        assert!(obstacle(&cubin(86), SOFT).unwrap().contains("PTX"));
    }

    #[test]
    fn ptx_and_what_is_not_understood_is_left_to_the_driver() {
        for image in [&b".version 8.0\n.target sm_90\n"[..], b"", b"\0\0"] {
            assert_eq!(obstacle(image, SOFT), None);
        }
    }
}
