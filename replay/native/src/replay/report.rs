//! What has come of a replay.

use std::collections::BTreeMap;

use harp_cuda_abi::errors::error_name;
use serde_json::{json, Value};

use super::kernels::Launch;
use super::tolerance::Deviation;

/// Differences that are told in full.
const MOST_TOLD: usize = 1000;

/// Something that came out otherwise than in the recording.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which call it is.
    pub call: Option<u64>,
    pub name: String,
    pub session: u32,
    /// The kernel that most likely made the data.
    pub kernel: Option<Launch>,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// The call returned another code.
    Status { recorded: u32, replayed: u32 },
    /// An earlier call without a reply failed otherwise.
    Deferred { recorded: u32, replayed: u32 },
    /// The data has another length.
    Length { recorded: u64, replayed: u64 },
    /// The data differs.
    Data(Deviation),
    /// The data differs from one of which only the hash was recorded.
    Hash { bytes: u64 },
    /// Kernels printed something else: the first line that was not printed before, and the other way round.
    Printed { recorded: String, replayed: String },
}

/// A result's name, `CUDA_ERROR_OUT_OF_MEMORY`; its number where nobody knows it.
pub fn result_name(code: u32) -> String {
    error_name(code).map_or_else(|| code.to_string(), |name| name.to_string_lossy().into())
}

impl Difference {
    fn json(&self) -> Value {
        let (kind, recorded, replayed) = match &self.what {
            What::Status { recorded, replayed } => {
                ("status", result_name(*recorded), result_name(*replayed))
            }
            What::Deferred { recorded, replayed } => {
                ("deferred", result_name(*recorded), result_name(*replayed))
            }
            What::Length { recorded, replayed } => {
                ("length", recorded.to_string(), replayed.to_string())
            }
            What::Data(deviation) => (
                "data",
                deviation.recorded.clone(),
                deviation.replayed.clone(),
            ),
            What::Hash { .. } => ("data", String::new(), String::new()),
            What::Printed { recorded, replayed } => ("printed", recorded.clone(), replayed.clone()),
        };
        let mut value = json!({
            "call": self.call,
            "name": self.name,
            "session": self.session,
            "kind": kind,
            "recorded": recorded,
            "replayed": replayed,
            "text": self.text(),
        });
        if let Some(launch) = &self.kernel {
            value["kernel"] = launch.kernel.symbol().into();
            value["demangled"] = launch.kernel.demangled().into();
            value["kernel_call"] = launch.call.into();
        }
        if let What::Data(deviation) = &self.what {
            value["first"] = deviation.json();
        }
        value
    }

    fn text(&self) -> String {
        let mut text = match self.call {
            Some(call) => format!("call {call} ({})", self.name),
            None => self.name.clone(),
        };
        if let Some(launch) = &self.kernel {
            text += &format!(", made by kernel {} (call {})", launch.kernel, launch.call);
        }
        text + &match &self.what {
            What::Status { recorded, replayed } => {
                format!(": returned {}, now {}", result_name(*recorded), result_name(*replayed))
            }
            What::Deferred { recorded, replayed } => format!(
                ": told of {} from an earlier call, now of {}",
                result_name(*recorded),
                result_name(*replayed)
            ),
            What::Length { recorded, replayed } => {
                format!(": {recorded} bytes, now {replayed}")
            }
            What::Data(Deviation {
                count,
                of,
                unit,
                offset,
                recorded,
                replayed,
            }) => format!(
                ": {count} of {of} {unit} differ, the first at byte {offset}: {recorded}, now {replayed}"
            ),
            What::Hash { bytes } => format!(": {bytes} bytes of another content than recorded"),
            What::Printed { recorded, replayed } => {
                format!(": {recorded:?}, now {replayed:?}")
            }
        }
    }
}

/// Counts of one replay.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sent: u64,
    /// Codes and data that were compared.
    pub codes: u64,
    pub data: u64,
    pub different: u64,
    differences: Vec<Difference>,
    /// What could not be compared, and how often.
    skipped: BTreeMap<&'static str, u64>,
    pub seconds: f64,
    /// What of each reply must be the same in every replay.
    pub marks: Vec<u64>,
}

impl Outcome {
    pub fn differs(&mut self, difference: Difference) {
        self.different += 1;
        if self.differences.len() < MOST_TOLD {
            self.differences.push(difference);
        }
    }

    pub fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    /// What could not be compared.
    pub fn skipped(&self) -> u64 {
        self.skipped.values().sum()
    }

    pub fn json(&self) -> Value {
        let skipped = self.skipped();
        let differences: Vec<_> = self.differences.iter().map(Difference::json).collect();
        json!({
            "sent": self.sent,
            "compared": self.codes + self.data,
            "compared_codes": self.codes,
            "compared_data": self.data,
            "different": self.different,
            "differences": differences,
            "skipped": skipped,
            "skipped_because": self.skipped,
            "seconds": self.seconds,
        })
    }
}
