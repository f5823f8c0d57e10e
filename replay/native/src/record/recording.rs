//! From the blocks of a ring to a trace: payloads become contents with names, and what the disk does
//! not take, or the trace has no room for, is lost and said to be.

use std::collections::BTreeMap;
use std::path::Path;

use harp_trace::block::{
    loss, Block, Lost, Payload, Policy, RawBlock, FLAG_PAYLOAD, PAYLOAD_BYTES,
};
use harp_trace::container::{BlobWriter, ErrorKind, Manifest, TraceError, Writer};
use harp_trace::ring::untold;
use serde_json::{json, Value};

use super::Common;

/// The trace of one program.
pub struct Recording {
    writer: Writer,
    /// The payload whose parts are coming.
    payload: Option<(BlobWriter, bool)>,
    /// What could not be written.
    lost: Lost,
    /// What the program has said to be lost.
    told: (u64, u64),
    /// The latest time in a block.
    time: u64,
    ended: Option<String>,
}

impl Recording {
    /// # Errors
    /// Where the trace cannot be begun.
    pub fn begin(path: &Path, program: &str, common: &Common) -> Result<Recording, TraceError> {
        let manifest = Manifest::new(program, &common.payload);
        let mut writer = Writer::create(path, manifest, common.level)?;
        writer.limit_to(common.limit);
        Ok(Recording {
            writer,
            payload: None,
            lost: Lost::default(),
            told: (0, 0),
            time: 0,
            ended: None,
        })
    }

    /// Takes the next block of the ring.
    #[inline]
    pub fn take(&mut self, raw: RawBlock) {
        match raw.in_brief() {
            Some((_, time)) => {
                self.time = time;
                // Most often there is none, and to drop that takes longer than to look.
                if self.payload.is_some() {
                    self.payload = None;
                }
                self.put(raw);
            }
            None => self.take_other(raw),
        }
    }

    fn take_other(&mut self, raw: RawBlock) {
        // A program that has gone wild may have written anything.
        let Ok(block) = Block::decode(raw) else {
            self.lost.add(Lost::block(raw.number, raw.body.len(), 0));
            return;
        };
        match block {
            Block::Part { first, keep, bytes } => return self.take_part(first, keep, bytes),
            Block::Loss { time, lost } => {
                self.told.0 = self.told.0.saturating_add(lost.blocks);
                self.told.1 = self.told.1.saturating_add(lost.bytes);
                self.time = time;
            }
            Block::Enter { time, .. } | Block::Leave { time, .. } => self.time = time,
            Block::Call(message) | Block::Reply(message) => self.time = message.time,
            Block::End(json) => self.ended = Some(reason(json)),
            _ => {}
        }
        if raw.flags & FLAG_PAYLOAD != 0 {
            let body = self.with_name(raw.body);
            return self.put(RawBlock { body: &body, ..raw });
        }
        self.payload = None;
        self.put(raw);
    }

    fn take_part(&mut self, first: bool, keep: bool, bytes: &[u8]) {
        if first {
            // The one before, if there was one, has lost its block; its file makes room for this one's.
            self.payload = None;
            self.payload = Some((self.writer.blob(keep), keep));
        }
        if let Some((payload, _)) = &mut self.payload {
            payload.write(bytes);
        }
    }

    /// The body of a block with the name of its payload's content in the descriptor.
    fn with_name(&mut self, body: &[u8]) -> Vec<u8> {
        let pending = self.payload.take();
        let Some((rest, descriptor)) = body.split_last_chunk::<PAYLOAD_BYTES>() else {
            return body.to_vec();
        };
        let Ok(mut payload) = Payload::decode(descriptor) else {
            return body.to_vec();
        };
        payload.hash = [0; 32];
        if payload.policy.has_hash() {
            match pending {
                Some((content, keep)) if content.bytes() == payload.length => {
                    let kept = content.finish();
                    payload.hash = kept.hash;
                    if !keep {
                        payload.policy = Policy::Hash;
                    } else if let Err(error) = &kept.new {
                        payload.policy = Policy::Hash;
                        let error = TraceError::system("", "write", error);
                        self.lost.add(Lost {
                            reasons: reason_of(&error),
                            bytes: kept.bytes,
                            ..Lost::default()
                        });
                    } else {
                        self.writer.kept(&kept);
                    }
                }
                _ => payload.policy = Policy::Lost,
            }
        }
        [rest, &payload.encode()].concat()
    }

    #[inline]
    fn put(&mut self, raw: RawBlock) {
        self.tell_loss();
        if let Err(error) = self.writer.write(raw) {
            self.give_up(&error);
        }
    }

    /// Puts what was lost into the trace.
    #[inline]
    fn tell_loss(&mut self) {
        if !self.lost.is_nothing() {
            self.tell_what_was_lost();
        }
    }

    #[cold]
    fn tell_what_was_lost(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        let time = self.time;
        let written = self.writer.write_block(&Block::Loss { time, lost });
        if let Err(error) = written {
            self.give_up(&error);
        }
    }

    fn give_up(&mut self, error: &TraceError) {
        let mut lost = self.writer.give_up();
        lost.reasons |= reason_of(error);
        self.lost.add(lost);
    }

    /// Writes what has come in.
    pub fn write_frame(&mut self) {
        if let Err(error) = self.writer.flush() {
            self.give_up(&error);
        }
    }

    /// Ends the trace. `lost` is what the ring had no room for in all; `broken` is why it was not read
    /// to its end. What is returned says what the trace holds.
    ///
    /// # Errors
    /// Where the manifest cannot be written; the trace opens even so.
    pub fn finish(mut self, lost: Lost, broken: Option<&str>) -> Result<Value, TraceError> {
        self.payload = None;
        self.write_frame();
        // What a program that is gone could no longer tell; one that is broken tells nothing true.
        let untold = untold(lost, self.told);
        if untold.blocks > 0 && broken.is_none() {
            self.lost.add(untold);
        }
        self.tell_loss();
        let ended = match (broken, self.ended.take()) {
            (Some(_), _) => "broken".to_owned(),
            (None, Some(reason)) => reason,
            (None, None) => "gone".to_owned(),
        };
        let mut end = BTreeMap::from([("reason".to_owned(), Value::from(ended.clone()))]);
        if let Some(broken) = broken {
            end.insert("what".to_owned(), broken.into());
        }
        if ended == "gone" || ended == "broken" {
            let json = serde_json::to_vec(&end).unwrap_or_default();
            if let Err(error) = self.writer.write_block(&Block::End(&json)) {
                self.give_up(&error);
            }
        }
        // From here on there is only what has been set aside.
        if let Err(error) = self.writer.flush_last() {
            self.give_up(&error);
            let counts = &mut self.writer.manifest_mut().counts;
            counts.lose(self.lost);
        }
        let finished = self.writer.finish(end)?;
        let counts = finished.manifest.counts;
        Ok(json!({
            "calls": counts.calls,
            "bytes": finished.calls_bytes + counts.blob_bytes,
            "blobs": counts.blobs,
            "blob_bytes": counts.blob_bytes,
            "lost": {
                "blocks": counts.lost_blocks,
                "bytes": counts.lost_bytes,
                "reasons": counts.lost_reasons,
            },
            "ended": ended,
        }))
    }
}

fn reason(json: &[u8]) -> String {
    let end: Option<Value> = serde_json::from_slice(json).ok();
    let reason = end.and_then(|end| Some(end.get("reason")?.as_str()?.to_owned()));
    reason.unwrap_or_else(|| "exit".to_owned())
}

fn reason_of(error: &TraceError) -> u64 {
    match error.kind {
        ErrorKind::DiskFull => loss::DISK_FULL,
        ErrorKind::TooLarge => loss::SIZE_LIMIT,
        _ => loss::DISK_FAILED,
    }
}
