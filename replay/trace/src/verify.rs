//! Looks at everything in a trace: frames, blocks, calls, and every content that it names or holds.

use std::collections::{HashMap, HashSet};

use crate::block::{Hash, Policy};
use crate::container::{name_of, Counts, ErrorKind, Trace, TraceError};
use crate::event::{Event, Reader, Values};

/// More problems than this are only counted.
const TOLD_MAX: usize = 100;

/// What has been found.
#[derive(Debug, Default)]
pub struct Report {
    /// The blocks that could be read.
    pub counts: Counts,
    /// The contents that are there and have the hash of their name.
    pub blobs: u64,
    /// Those of them that no block names.
    pub unreferenced: u64,
    pub complete: bool,
    /// Whether the calls end within a frame.
    pub cut: bool,
    /// The first problems.
    pub problems: Vec<TraceError>,
    /// All of them.
    pub found: u64,
}

impl Report {
    fn tell(&mut self, problem: TraceError) {
        self.found += 1;
        if self.problems.len() < TOLD_MAX {
            self.problems.push(problem);
        }
    }
}

/// Looks at all of `trace`. That it is cut is no problem; what else is wrong is.
pub fn verify(trace: &Trace) -> Report {
    let mut report = Report {
        complete: trace.complete(),
        ..Report::default()
    };
    let mut named = HashMap::new();
    match read_calls(trace, &mut report, &mut named) {
        Ok(cut) => report.cut = cut,
        Err(problem) => report.tell(problem),
    }
    report.complete &= !report.cut && report.found == 0;
    check_counts(trace, &mut report);
    if let Err(problem) = read_blobs(trace, &mut report, &named) {
        report.tell(problem);
    }
    report
}

/// Reads all blocks; whether the calls are cut. `named` gets the contents that are to be there.
fn read_calls(
    trace: &Trace,
    report: &mut Report,
    named: &mut HashMap<Hash, u64>,
) -> Result<bool, TraceError> {
    let mut blocks = trace.blocks()?;
    let mut reader = Reader::new();
    while let Some(located) = blocks.next()? {
        report.counts.add(located.raw);
        let block = match located.decode() {
            Ok(block) => block,
            Err(problem) => {
                report.tell(problem);
                continue;
            }
        };
        if let Some(payload) = block.payload().filter(|it| it.policy == Policy::Full) {
            let known = *named.entry(payload.hash).or_insert(payload.length);
            if known != payload.length {
                let what = "its payload has two lengths under one hash";
                report.tell(located.damaged(what));
            }
        }
        let undecoded = |values: &Values| {
            let malformed = values.undecoded?;
            Some(located.damaged(&format!("{}: {malformed}", values.name)))
        };
        let problem = match reader.read(&block) {
            Ok(Event::Call(call)) => undecoded(&call.arguments),
            // A reply to a call that was lost, or is before the beginning of a part.
            Ok(Event::Reply(reply)) if reply.call.is_none() => None,
            Ok(Event::Reply(reply)) => undecoded(&reply.outputs),
            Ok(_) => None,
            Err(what) => Some(located.damaged(&what)),
        };
        if let Some(problem) = problem {
            report.tell(problem);
        }
    }
    Ok(blocks.cut())
}

/// A complete trace has what its manifest says.
fn check_counts(trace: &Trace, report: &mut Report) {
    let (told, found) = (&trace.manifest().counts, &report.counts);
    let differs = [
        ("blocks", told.blocks, found.blocks),
        ("calls", told.calls, found.calls),
        ("replies", told.replies, found.replies),
        ("bytes of blocks", told.bytes, found.bytes),
    ];
    let differs = differs.into_iter().find(|(_, told, found)| told != found);
    if let Some((what, told, found)) = differs.filter(|_| report.complete) {
        report.tell(TraceError {
            kind: ErrorKind::Damaged,
            file: "MANIFEST.json".to_owned(),
            offset: None,
            what: format!("it says {told} {what}, and there are {found}"),
            next_step: "take an undamaged copy".to_owned(),
        });
    }
}

fn read_blobs(
    trace: &Trace,
    report: &mut Report,
    named: &HashMap<Hash, u64>,
) -> Result<(), TraceError> {
    let (there, strange) = trace.blobs()?;
    for name in strange {
        report.tell(TraceError {
            kind: ErrorKind::Damaged,
            file: format!("blobs/{name}"),
            offset: None,
            what: "it is not the name of a content".to_owned(),
            next_step: "remove it".to_owned(),
        });
    }
    let mut found = HashSet::new();
    for hash in there {
        found.insert(hash);
        let length = named.get(&hash);
        report.unreferenced += u64::from(length.is_none());
        match trace.blob(&hash) {
            Ok(content) if length.is_some_and(|length| *length != content.len() as u64) => {
                report.tell(TraceError {
                    kind: ErrorKind::Damaged,
                    file: name_of(&hash),
                    offset: None,
                    what: "the content has another length than its block says".to_owned(),
                    next_step: "take an undamaged copy".to_owned(),
                });
            }
            Ok(_) => report.blobs += 1,
            Err(problem) => report.tell(problem),
        }
    }
    let mut missing: Vec<&Hash> = named.keys().filter(|hash| !found.contains(*hash)).collect();
    missing.sort_unstable();
    for hash in missing {
        if let Err(problem) = trace.blob(hash) {
            report.tell(problem);
        }
    }
    Ok(())
}
