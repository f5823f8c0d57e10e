//! The commands that read traces, and write them from something else than a program.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::PathBuf;

use harp_trace::container::{Manifest, Trace, Writer};
use harp_trace::event::Lines;
use harp_trace::{event, repack, verify};
use serde_json::json;

use crate::arguments::Arguments;
use crate::Failure;

/// zstd's level for traces that nobody waits for.
const LEVEL: i32 = 9;

/// `events TRACE [--full]`: a line for each event, and one at the end for the whole. Without `--full` long
/// runs of bytes are told by their number only.
pub fn events(mut arguments: Arguments) -> Result<(), Failure> {
    let full = arguments.flag("--full");
    let trace = Trace::open(&arguments.one("a trace")?)?;
    let mut lines = Lines::new(&trace, full)?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let problem = loop {
        match lines.next_line() {
            Ok(Some(line)) => {
                if !written(writeln!(out, "{line}"))? {
                    return Ok(());
                }
            }
            Ok(None) => break None,
            Err(problem) => break Some(problem),
        }
    };
    let last = lines.last_line(problem.as_ref());
    written(writeln!(out, "{last}").and_then(|()| out.flush()))?;
    problem.map_or(Ok(()), |problem| Err(problem.into()))
}

/// Whether somebody still reads.
fn written(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Told(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}

/// The new trace that `--out` names.
fn out(arguments: &mut Arguments) -> Result<PathBuf, Failure> {
    let out = arguments.value("--out")?;
    out.map(PathBuf::from)
        .ok_or_else(|| Failure::Usage("--out is missing".to_owned()))
}

/// `assemble LINES --out TRACE [--level N]`: what `events --full` has written, as a trace again.
pub fn assemble(mut arguments: Arguments) -> Result<(), Failure> {
    let out = out(&mut arguments)?;
    let level = arguments.parsed("--level")?.unwrap_or(LEVEL);
    let path = arguments.one("a file of lines")?;
    let lines = File::open(&path)
        .map_err(|error| Failure::Told(format!("cannot read {}: {error}", path.display())))?;
    let writer = Writer::create(&out, Manifest::new("", ""), level)?;
    let done = event::assemble(BufReader::new(lines), writer);
    done.map_err(|error| {
        // It has been made here, and holds nothing but what was written here.
        let _ = fs::remove_dir_all(&out);
        Failure::Told(format!("{}, {error}", path.display()))
    })
}

/// `verify TRACE`: what has been looked at and found, as one line of JSON.
pub fn verify(arguments: Arguments) -> Result<(), Failure> {
    let trace = Trace::open(&arguments.one("a trace")?)?;
    let report = verify::verify(&trace);
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let line = json!({
        "type": "verified",
        "path": trace.path().display().to_string(),
        "complete": report.complete,
        "cut": report.cut,
        "blocks": report.counts.blocks,
        "calls": report.counts.calls,
        "replies": report.counts.replies,
        "blobs": report.blobs,
        "unreferenced": report.unreferenced,
        "lost": {
            "blocks": report.counts.lost_blocks,
            "bytes": report.counts.lost_bytes,
            "reasons": report.counts.lost_reasons,
        },
        "found": report.found,
        "problems": problems,
    });
    written(writeln!(io::stdout().lock(), "{line}"))?;
    match problems.first() {
        None => Ok(()),
        Some(first) if report.found == 1 => Err(Failure::Told(first.clone())),
        Some(first) => {
            let more = report.found - 1;
            Err(Failure::Told(format!("{first} (and {more} more problems)")))
        }
    }
}

/// `repack TRACE --out TRACE [--tar | --folder] [--level N]`: the same trace once more, packed as it is
/// unless it is to be otherwise; one line of JSON with its sizes.
pub fn repack(mut arguments: Arguments) -> Result<(), Failure> {
    let out = out(&mut arguments)?;
    let level = arguments.parsed("--level")?.unwrap_or(LEVEL);
    let (tar, folder) = (arguments.flag("--tar"), arguments.flag("--folder"));
    if tar && folder {
        return Err(Failure::Usage(
            "--tar and --folder exclude each other".to_owned(),
        ));
    }
    let trace = Trace::open(&arguments.one("a trace")?)?;
    let options = repack::Options {
        packed: tar || trace.packed() && !folder,
        level,
    };
    let finished = repack::repack(&trace, &out, options)?;
    let line = json!({
        "type": "trace",
        "path": out.display().to_string(),
        "calls": finished.manifest.counts.calls,
        "bytes": Trace::open(&out)?.disk_bytes()?,
        "bytes_before": trace.disk_bytes()?,
        "blobs": finished.manifest.counts.blobs,
        "blob_bytes": finished.manifest.counts.blob_bytes,
        "ended": finished.manifest.ended.get("reason"),
    });
    written(writeln!(io::stdout().lock(), "{line}"))?;
    Ok(())
}
