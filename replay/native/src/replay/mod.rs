//! Replays a trace: its calls are sent to a server again, over the ordinary transport as an ordinary client's,
//! so they run in a worker of their own, jailed. What comes back is compared with what was recorded.
//!
//! | file | holds |
//! |---|---|
//! | `options` | the command line |
//! | `survey` | what is found out before anything is sent |
//! | `images` | what code runs where |
//! | `pushes` | what the server says by itself, and whether it can |
//! | `snapshot` | what a server says of its devices |
//! | `calls` | the trace's calls as today's |
//! | `player` | the replay itself |
//! | `scout` | host functions that return ahead of their turn |
//! | `session` | one connection: what is sent, what has come |
//! | `relocation` | addresses that are others than recorded |
//! | `kernels` | which kernel made what |
//! | `doubts` | what depends on data that the trace has lost |
//! | `layouts` | where the parameters of kernels lie |
//! | `outputs`, `tolerance` | whether data is the same |
//! | `twins` | the same of memory that kernels share with the program |
//! | `trim` | traces cut down to a few calls |
//! | `report` | what has come of it |

mod calls;
mod doubts;
mod images;
mod kernels;
mod layouts;
mod options;
mod outputs;
mod player;
mod pushes;
mod relocation;
mod report;
mod scout;
mod session;
mod snapshot;
mod survey;
mod tolerance;
pub mod trim;
mod twins;

use std::io::Write;

use harp_trace::container::{Trace, TraceError};
use serde_json::{json, Value};

use crate::arguments::Arguments;
use crate::Failure;
use options::{Check, Options};
use player::Player;
use report::Outcome;
use session::Lost;
use survey::{Survey, Wanted};

/// Why a trace is not replayed: one line, with the next step.
#[derive(Debug)]
pub struct Refused(pub String);

impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused(why)
    }
}

impl From<TraceError> for Refused {
    fn from(error: TraceError) -> Refused {
        Refused(error.to_string())
    }
}

/// Why a replay has ended before its end.
#[derive(Debug)]
pub enum Ended {
    Refused(Refused),
    Lost(Lost),
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Ended {
        Ended::Refused(refused)
    }
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Ended {
        Ended::Lost(lost)
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Failure {
        match ended {
            // Most of what can be wrong with a trace has this way out only.
            Ended::Refused(Refused(why)) if !why.contains("; ") => {
                Failure::Refused(format!("{why}; record the trace again"))
            }
            Ended::Refused(Refused(why)) => Failure::Refused(why),
            Ended::Lost(Lost(why)) => Failure::Told(why),
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Ended::from(refused).into()
    }
}

/// `harp-trace run TRACE …`. Prints lines of JSON: how far it is, and at the end what has come of it.
///
/// # Errors
/// Where the trace is not replayed, or not to its end.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let options = Options::parse(arguments)?;
    let trace = Trace::open(&options.trace).map_err(Refused::from)?;
    let wanted = Wanted {
        finals: options.check == Check::Final,
        synthesize: options.synthesize,
        to: options.to,
        ..Wanted::default()
    };
    let survey = Survey::take(&trace, wanted)?;
    if survey.calls == 0 {
        return Err(Failure::Refused(
            "the trace has no calls; record a program that uses a device".to_owned(),
        ));
    }
    let mut first: Option<(Outcome, Value)> = None;
    let mut unlike = None;
    for replay in 1..=options.repeat {
        let tell = |calls: u64| {
            say(&json!({
                "type": "progress",
                "replay": replay,
                "replays": options.repeat,
                "calls": calls,
                "of": survey.calls,
            }))
        };
        let (outcome, relocated) = Player::new(&trace, &survey, &options)?.play(tell)?;
        match &first {
            None => first = Some((outcome, relocated.json())),
            Some((before, _)) if before.marks != outcome.marks => {
                unlike.get_or_insert(replay);
            }
            Some(_) => {}
        }
    }
    let Some((outcome, relocated)) = first else {
        return Ok(());
    };
    let verdict = verdict(&options, &outcome, unlike);
    let mut result = outcome.json();
    result["type"] = "replay".into();
    result["calls"] = survey.calls.into();
    result["check"] = options.check.name().into();
    result["repeat"] = options.repeat.into();
    result["identical"] = unlike.is_none().into();
    result["relocated"] = relocated;
    result["synthesized"] = survey.made_up.into();
    result["lost"] = json!({
        "blocks": survey.lost.blocks,
        "types": survey.lost.kinds.names(),
        "uploads": survey.lost_uploads,
    });
    result["recorded_seconds"] = (survey.recorded_ns as f64 / 1e9).into();
    result["complete"] = survey.complete.into();
    result["passed"] = verdict.is_none().into();
    result["verdict"] = verdict.clone().into();
    say(&result);
    match verdict {
        None => Ok(()),
        Some(_) => Err(Failure::Differs),
    }
}

/// What speaks against the replay.
fn verdict(options: &Options, outcome: &Outcome, unlike: Option<u32>) -> Option<String> {
    if outcome.different > 0 {
        return Some(format!("{} differ from the recording", outcome.different));
    }
    if let Some(replay) = unlike {
        return Some(format!(
            "replay {replay} is not like the first; if kernels run in any order, set HARP_SOFT_SERIAL=1"
        ));
    }
    // Codes alone do not stand for data that was there and could not be compared.
    if options.check.of_data() && outcome.data == 0 && outcome.skipped() > 0 {
        return Some(
            "nothing of the data was compared: the trace does not hold what came from the device; record it \
             with --trace-payload full or downloads=hash, or check what calls return with --check returns"
                .to_owned(),
        );
    }
    if options.check != Check::Off && outcome.codes + outcome.data == 0 {
        let why = match (options.from > 0 || options.to.is_some(), options.check) {
            (true, _) => "--from and --to have left nothing that could be",
            (false, Check::Final) => "nothing came from the device",
            (false, _) => "no call of the trace was answered",
        };
        return Some(format!("nothing was compared: {why}"));
    }
    None
}

fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    // Who has gone away hears nothing.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
