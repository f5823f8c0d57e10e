//! What a trace says of itself as a whole.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{ErrorKind, TraceError, FORMAT_MAJOR, FORMAT_MINOR, READER};
use crate::block::{loss, Block, Kind, Lost, Policy, RawBlock};
use crate::date::rfc3339;

/// The longest manifest, in bytes.
pub const MANIFEST_MAX: u64 = 1 << 20;

/// What a trace holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub blocks: u64,
    pub calls: u64,
    pub replies: u64,
    /// Bytes of all blocks, before compression.
    pub bytes: u64,
    /// Contents kept, each once, and their bytes.
    pub blobs: u64,
    pub blob_bytes: u64,
    /// Payloads that are kept, and their bytes, as often as they occur.
    pub full_payloads: u64,
    pub full_bytes: u64,
    /// What the trace has lost, and why: see [`reason_names`].
    pub lost_blocks: u64,
    pub lost_bytes: u64,
    pub lost_reasons: Vec<String>,
}

impl Counts {
    /// Counts a block of the trace.
    #[inline]
    pub fn add(&mut self, raw: RawBlock) {
        self.blocks += 1;
        self.bytes += (crate::block::HEAD_BYTES + raw.body.len()) as u64;
        if let Some((kind, _)) = raw.in_brief() {
            self.calls += u64::from(kind == Kind::Call);
            self.replies += u64::from(kind == Kind::Reply);
            return;
        }
        self.look_into(raw);
    }

    fn look_into(&mut self, raw: RawBlock) {
        let Ok(block) = Block::decode(raw) else {
            return;
        };
        if let Some(payload) = block.payload().filter(|it| it.policy == Policy::Full) {
            self.full_payloads += 1;
            self.full_bytes = self.full_bytes.saturating_add(payload.length);
        }
        match block {
            Block::Call(_) => self.calls += 1,
            Block::Reply(_) => self.replies += 1,
            Block::Loss { lost, .. } => self.lose(lost),
            _ => {}
        }
    }

    /// Counts a loss.
    pub fn lose(&mut self, lost: Lost) {
        self.lost_blocks = self.lost_blocks.saturating_add(lost.blocks);
        self.lost_bytes = self.lost_bytes.saturating_add(lost.bytes);
        self.because(reason_names(lost.reasons));
    }

    fn because(&mut self, reasons: Vec<String>) {
        for reason in reasons {
            if !self.lost_reasons.contains(&reason) {
                self.lost_reasons.push(reason);
            }
        }
    }

    /// Adds what `other` counts.
    pub fn merge(&mut self, other: Counts) {
        self.blocks += other.blocks;
        self.calls += other.calls;
        self.replies += other.replies;
        self.bytes += other.bytes;
        self.blobs += other.blobs;
        self.blob_bytes += other.blob_bytes;
        self.full_payloads += other.full_payloads;
        self.full_bytes = self.full_bytes.saturating_add(other.full_bytes);
        self.lost_blocks = self.lost_blocks.saturating_add(other.lost_blocks);
        self.lost_bytes = self.lost_bytes.saturating_add(other.lost_bytes);
        self.because(other.lost_reasons);
    }
}

/// What the bits of a [`Lost`] are called.
pub fn reason_names(reasons: u64) -> Vec<String> {
    let names = [
        (loss::NO_ROOM, "no room in the ring"),
        (loss::DISK_FULL, "disk full"),
        (loss::DISK_FAILED, "disk failed"),
        (loss::RECORDER_GONE, "recorder gone"),
        (loss::SIZE_LIMIT, "size limit"),
    ];
    let known = names
        .iter()
        .filter(|(bit, _)| reasons & bit != 0)
        .map(|(_, name)| (*name).to_owned());
    let others = reasons & !names.iter().fold(0, |all, (bit, _)| all | bit);
    let other = (others != 0).then(|| format!("reasons {others:#x}"));
    known.chain(other).collect()
}

/// `MANIFEST.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format_major: u32,
    #[serde(default)]
    pub format_minor: u32,
    /// The oldest reader that understands the trace.
    pub min_reader: u32,
    /// Ways in which this trace differs from what the format's text says; a name that is missing
    /// means that it does not.
    #[serde(default)]
    pub quirks: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    pub writer: String,
    /// RFC 3339.
    #[serde(default)]
    pub started: String,
    /// The program's name, without its arguments.
    #[serde(default)]
    pub program: String,
    /// The payload policy by class, as in `HARP_TRACE_PAYLOAD`.
    #[serde(default)]
    pub payload: String,
    #[serde(default)]
    pub counts: Counts,
    /// How it ended: `{"reason": …}`; nothing while it is written.
    #[serde(default)]
    pub ended: BTreeMap<String, serde_json::Value>,
    /// What later versions say.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Manifest {
    /// Of a trace of `program` that begins now.
    pub fn new(program: &str, payload: &str) -> Manifest {
        Manifest {
            format_major: FORMAT_MAJOR,
            format_minor: FORMAT_MINOR,
            min_reader: READER,
            quirks: BTreeMap::new(),
            writer: concat!("harp-trace ", env!("CARGO_PKG_VERSION")).to_owned(),
            started: rfc3339(SystemTime::now()),
            program: program.to_owned(),
            payload: payload.to_owned(),
            counts: Counts::default(),
            ended: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }

    /// Says that the trace is written as this version writes: what it is a copy of may be of an older one.
    pub(super) fn raise_to_this_version(&mut self) {
        let this = (FORMAT_MAJOR, FORMAT_MINOR);
        let format = this.max((self.format_major, self.format_minor));
        (self.format_major, self.format_minor) = format;
        self.min_reader = self.min_reader.max(READER);
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Reads a manifest that lies in file `name`.
    ///
    /// # Errors
    /// `Newer`, with both numbers, before anything else of a newer one is looked at.
    pub fn decode(name: &str, json: &[u8]) -> Result<Manifest, TraceError> {
        let damaged = |error: serde_json::Error| {
            let at = json
                .split_inclusive(|byte| *byte == b'\n')
                .take(error.line().saturating_sub(1))
                .map(<[u8]>::len)
                .sum::<usize>();
            let at = (at + error.column().saturating_sub(1)) as u64;
            TraceError::damaged(name, at, format!("it is no manifest: {error}"))
        };
        #[derive(Deserialize)]
        struct Version {
            format_major: u32,
            min_reader: u32,
        }
        let version: Version = serde_json::from_slice(json).map_err(damaged)?;
        if version.min_reader > READER {
            return Err(TraceError {
                kind: ErrorKind::Newer,
                file: name.to_owned(),
                offset: None,
                what: format!(
                    "the trace (format {}) needs a reader of version {}; this one has version {READER}",
                    version.format_major, version.min_reader
                ),
                next_step: "pip install --upgrade harp-pool".to_owned(),
            });
        }
        serde_json::from_slice(json).map_err(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_trace_is_refused_with_both_numbers_whatever_else_it_says() {
        let json = br#"{"format_major": 7, "min_reader": 5, "counts": "another way"}"#;
        let error = Manifest::decode("MANIFEST.json", json).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Newer);
        let text = error.to_string();
        assert!(
            text.contains("version 5") && text.contains(&format!("version {READER}")),
            "{text}"
        );
    }

    #[test]
    fn what_a_later_version_says_is_kept() {
        let json = br#"{"format_major": 1, "format_minor": 9, "min_reader": 1, "new": [1]}"#;
        let manifest = Manifest::decode("MANIFEST.json", json).unwrap();
        let again = Manifest::decode("MANIFEST.json", &manifest.encode()).unwrap();
        assert_eq!(again.other["new"], serde_json::json!([1]));
        assert_eq!(again, manifest);
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let error = Manifest::decode("MANIFEST.json", b"{\n  \"format_major\": oops}").unwrap_err();
        assert_eq!(error.offset, Some(20));
    }
}
