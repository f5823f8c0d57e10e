//! Writes a trace once more: compressed otherwise, without contents that no block names, as a folder or
//! packed into one tar.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::block::{Block, Payload, Policy, RawBlock};
use crate::container::{pack, Counts, Finished, Trace, TraceError, Writer};

/// How a trace is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Into one tar.
    pub packed: bool,
    /// zstd's.
    pub level: i32,
}

/// Writes what `trace` holds to `out`, which is not there yet. Of a trace that is cut it writes what is
/// there, and says so at its end.
///
/// # Errors
/// For damage, a content that is missing, and what the system says; then there is nothing at `out`.
pub fn repack(trace: &Trace, out: &Path, options: Options) -> Result<Finished, TraceError> {
    if out.exists() {
        let exists = std::io::ErrorKind::AlreadyExists.into();
        return Err(TraceError::system(
            &out.display().to_string(),
            "make",
            &exists,
        ));
    }
    let folder = if options.packed {
        beside(out)
    } else {
        out.to_owned()
    };
    let mut manifest = trace.manifest().clone();
    manifest.counts = Counts::default();
    let writer = Writer::create(&folder, manifest, options.level)?;
    let written = copy(trace, writer).and_then(|finished| {
        if options.packed {
            pack(&Trace::open(&folder)?, out)?;
        }
        Ok(finished)
    });
    if options.packed || written.is_err() {
        // It has been made here, and holds nothing but what was written here.
        let _ = fs::remove_dir_all(&folder);
    }
    written
}

/// A name that is nobody's, in the same folder.
fn beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(format!(".{}.unpacked", std::process::id()));
    name.into()
}

fn copy(trace: &Trace, mut writer: Writer) -> Result<Finished, TraceError> {
    let mut ended = std::mem::take(&mut writer.manifest_mut().ended);
    let mut kept = HashSet::new();
    let mut blocks = trace.blocks()?;
    while let Some(located) = blocks.next()? {
        if let Some(payload) = kept_payload(located.raw) {
            if kept.insert(payload.hash) {
                writer.keep(&trace.blob(&payload.hash)?)?;
            }
        }
        writer.write(located.raw)?;
    }
    if blocks.cut() || !trace.complete() && ended.is_empty() {
        ended = BTreeMap::from([("reason".to_owned(), "cut".into())]);
    }
    writer.flush()?;
    // What a full disk had no block for any more is in the manifest alone.
    let (then, now) = (&trace.manifest().counts, &mut writer.manifest_mut().counts);
    if then.lost_blocks > now.lost_blocks {
        now.lost_blocks = then.lost_blocks;
        now.lost_bytes = then.lost_bytes;
        now.lost_reasons.clone_from(&then.lost_reasons);
    }
    writer.finish(ended)
}

/// The payload of a block, of whatever type, whose content is to be in the trace.
fn kept_payload(raw: RawBlock) -> Option<Payload> {
    let payload = Block::decode(raw).ok()?.payload();
    payload.filter(|payload| payload.policy == Policy::Full)
}
