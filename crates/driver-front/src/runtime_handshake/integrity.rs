//! The answer to the runtime's self-test of driver and runtime.
//!
//! The runtime asks three times at the end of its initialisation, with its version number V, V+1
//! and V+2. The first two answers are constants; the third is an HMAC-MD2 (RFC 1319, RFC 2104) over
//! what this very process answered before, so that it cannot come from another process.

use hmac::{Hmac, KeyInit, Mac};
use md2::Md2;

use crate::DeviceIdentity;

const ANSWER_TO_VERSION: [u64; 2] = [0x3341_181C_03CB_675C, 0x8ED3_83AA_1F4C_D1E8];
const ANSWER_TO_VERSION_PLUS_1: [u64; 2] = [0x1841_181C_03CB_675C, 0x8ED3_83AA_1F4C_D1E8];
const KEY: [u8; 16] = [
    0x14, 0x6A, 0xDD, 0xAE, 0x53, 0xA9, 0xA7, 0x52, 0xAA, 0x08, 0x41, 0x36, 0x0B, 0xF5, 0x5A, 0x9F,
];

/// What the third answer depends on.
pub(super) struct Circumstances<'a> {
    pub driver_version: u32,
    pub process: u32,
    /// Low half of `pthread_self()`.
    pub thread: u32,
    /// Address of the runtime interface table that was handed out.
    pub runtime_table: u64,
    /// Address of the integrity table that was handed out, and of the function in its slot 1.
    pub integrity_table: u64,
    pub integrity_function: u64,
    pub devices: &'a [DeviceIdentity],
}

/// The two words to answer for `version` at `unix_seconds`.
pub(super) fn answer(version: u32, unix_seconds: u64, of: &Circumstances) -> [u64; 2] {
    match version % 10 {
        0 => ANSWER_TO_VERSION,
        1 => ANSWER_TO_VERSION_PLUS_1,
        _ => {
            let digest = hmac_md2(&KEY, &message(version, unix_seconds, of));
            let (low, high) = digest.split_at(8);
            [low, high].map(|half| u64::from_le_bytes(half.try_into().expect("8 of 16 bytes")))
        }
    }
}

fn message(version: u32, unix_seconds: u64, of: &Circumstances) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(48 + 28 * of.devices.len());
    for word in [of.driver_version, version, of.process, of.thread] {
        bytes.extend(word.to_le_bytes());
    }
    for word in [
        of.runtime_table,
        of.integrity_table,
        of.integrity_function,
        unix_seconds,
    ] {
        bytes.extend(word.to_le_bytes());
    }
    for device in of.devices {
        bytes.extend(device.uuid);
        for number in [device.pci_domain, device.pci_bus, device.pci_device] {
            bytes.extend(number.to_le_bytes());
        }
    }
    bytes
}

fn hmac_md2(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut mac = Hmac::<Md2>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use md2::Digest;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The test suite of RFC 1319, appendix A.5.
    #[test]
    fn md2_known_answers() {
        for (message, digest) in [
            ("", "8350e5a3e24c153df2275c9f80692773"),
            ("a", "32ec01ec4a6dac72c0ab96fb34c0b5d1"),
            ("abc", "da853b0d3f88d99b30283a69e6ded6bb"),
            ("message digest", "ab4f496bfb2a530b219ff33031fe06b0"),
            (
                "abcdefghijklmnopqrstuvwxyz",
                "4e8ddff3650292ab5a4108c3aa47940b",
            ),
        ] {
            assert_eq!(hex(&Md2::digest(message)), digest, "{message:?}");
        }
    }

    /// HMAC written out after RFC 2104 with MD2's block length of 16.
    #[test]
    fn hmac_uses_blocks_of_16_bytes() {
        let message = b"what is authenticated, longer than one block";
        let inner: Vec<u8> = KEY.iter().map(|byte| byte ^ 0x36).chain(*message).collect();
        let outer: Vec<u8> = KEY
            .iter()
            .map(|byte| byte ^ 0x5c)
            .chain(Md2::digest(&inner))
            .collect();
        assert_eq!(hex(&hmac_md2(&KEY, message)), hex(&Md2::digest(&outer)));
    }

    #[test]
    fn the_third_answer_depends_on_every_circumstance() {
        let device = DeviceIdentity {
            uuid: [7; 16],
            pci_domain: 0,
            pci_bus: 1,
            pci_device: 2,
        };
        let base = || Circumstances {
            driver_version: 13000,
            process: 1,
            thread: 2,
            runtime_table: 3,
            integrity_table: 4,
            integrity_function: 5,
            devices: &[],
        };
        let plain = answer(13002, 9, &base());
        assert_eq!(answer(13000, 9, &base()), ANSWER_TO_VERSION);
        assert_eq!(answer(13001, 9, &base()), ANSWER_TO_VERSION_PLUS_1);
        assert_ne!(plain, answer(13002, 10, &base()));
        assert_ne!(
            plain,
            answer(
                13002,
                9,
                &Circumstances {
                    thread: 3,
                    ..base()
                }
            )
        );
        assert_ne!(
            plain,
            answer(
                13002,
                9,
                &Circumstances {
                    devices: &[device],
                    ..base()
                }
            )
        );
        assert_eq!(
            message(
                1,
                2,
                &Circumstances {
                    devices: &[device],
                    ..base()
                }
            )
            .len(),
            48 + 28
        );
    }
}
