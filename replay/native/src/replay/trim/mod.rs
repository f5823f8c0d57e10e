//! Cuts a trace down to a kernel or a few calls that can still be replayed: with all that they need, the
//! memory that they find and, to be checked, what they leave.
//!
//! Where all of that is in the trace no device is needed. Else the trace is replayed up to there.
//!
//! | file | holds |
//! |---|---|
//! | `choice` | which calls are to be left |
//! | `plan` | what they need, found by reading the trace |
//! | `arguments` | what calls say of memory |
//! | `ranges` | memory: what the program has put there, what that leads to |
//! | `making` | how objects and memory have been made |
//! | `memory` | what memory holds, found by replaying the trace |
//! | `writing` | the smaller trace |

mod arguments;
mod choice;
mod making;
mod memory;
mod plan;
mod ranges;
mod writing;

use std::path::PathBuf;

use harp_trace::container::Trace;
use serde_json::json;

use super::options::{Check, Options, Patience, Server};
use super::survey::{Survey, Wanted};
use super::{say, Refused};
use crate::arguments::Arguments;
use crate::Failure;
use choice::{range, Choice};
use plan::Plan;

/// `harp-trace trim TRACE --kernel NAME [--launch N] | --calls A..B --out TRACE [--server …]`. Prints lines
/// of JSON: whether a device is needed, how far it is, what has come of it.
///
/// # Errors
/// Where there is no such trace to be made, with exit status 2; where the session is lost.
pub fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let kernel = arguments.parsed::<String>("--kernel")?;
    let launch = arguments.parsed::<usize>("--launch")?;
    let calls = arguments.parsed::<String>("--calls")?;
    let out = arguments.value("--out")?.map(PathBuf::from);
    let out = out.ok_or_else(|| Failure::Usage("--out is missing".to_owned()))?;
    let server = Server::parse(&mut arguments)?;
    let patience = Patience::parse(&mut arguments)?;
    let choice = match (kernel, calls) {
        (Some(kernel), None) => Choice::Kernel(kernel, launch),
        (None, Some(calls)) => Choice::Calls(
            range(&calls)
                .ok_or_else(|| Failure::Usage(format!("--calls is A..B, not {calls:?}")))?,
        ),
        _ => {
            return Err(Failure::Usage(
                "either --kernel or --calls is wanted".to_owned(),
            ))
        }
    };
    let path: PathBuf = arguments.one("TRACE")?;
    let trace = Trace::open(&path).map_err(Refused::from)?;
    if out.exists() {
        return Err(Failure::Refused(format!(
            "{} is there already; name another --out",
            out.display()
        )));
    }
    // What is not to be replayed is not to be trimmed, and what cannot be read is not to be planned with.
    let wanted = Wanted {
        whole: true,
        ..Wanted::default()
    };
    let survey = Survey::take(&trace, wanted)?;
    let mut plan = Plan::make(&trace, &choice)?;
    let memory = if plan.is_offline() {
        None
    } else {
        let Some(server) = server else {
            say(&json!({"type": "needs_device"}));
            return Ok(());
        };
        let options = Options {
            trace: path,
            server,
            check: Check::Off,
            as_recorded: false,
            repeat: 1,
            patience,
            from: 0,
            to: Some(*plan.chosen.end()),
            tolerance: None,
            synthesize: false,
            relocate_uploads: false,
            first_window: None,
        };
        let of = plan.chosen.end().saturating_add(1);
        let tell = |calls: u64| {
            say(&json!({"type": "progress", "replay": 1, "replays": 1, "calls": calls, "of": of}))
        };
        Some(memory::observe(&trace, &survey, &mut plan, &options, tell)?)
    };
    let finished = writing::write(&trace, &plan, memory.as_ref(), &out)?;
    let before = trace.disk_bytes().map_err(Refused::from)?;
    let trimmed = Trace::open(&out).map_err(Refused::from)?;
    say(&json!({
        "type": "trimmed",
        "path": out.display().to_string(),
        "from": plan.chosen.start(),
        "to": plan.chosen.end(),
        "calls": finished.manifest.counts.calls,
        "calls_before": plan.calls,
        "bytes": trimmed.disk_bytes().map_err(Refused::from)?,
        "bytes_before": before,
        "ranges": plan.ranges.len(),
        "replayed": memory.is_some(),
    }));
    Ok(())
}
