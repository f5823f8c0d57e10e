//! Which calls are to be left of a trace.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use harp_trace::container::Trace;
use harp_trace::event::{Event, KernelName, Reader};

use super::super::Refused;

/// Kernels that are named to who has named none of them.
const MOST_NAMES: usize = 20;

/// What is to be left.
#[derive(Clone, Debug)]
pub enum Choice {
    /// A launch of the kernel of that name, counted from 0; the last one if none is named.
    Kernel(String, Option<usize>),
    Calls(RangeInclusive<u64>),
}

/// Reads `A..B`: from A to B, which is the last one.
pub fn range(text: &str) -> Option<RangeInclusive<u64>> {
    let (from, to) = text.split_once("..")?;
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some(from..=to)
}

impl Choice {
    /// The chosen calls, and the kernel that they launch where that was named.
    ///
    /// # Errors
    /// Where the trace has no such launch, and which ones it has.
    pub fn calls(
        &self,
        trace: &Trace,
    ) -> Result<(RangeInclusive<u64>, Option<Arc<KernelName>>), Refused> {
        let (name, which) = match self {
            Choice::Calls(calls) => return Ok((calls.clone(), None)),
            Choice::Kernel(name, which) => (name, which),
        };
        let mut reader = Reader::new();
        let mut blocks = trace.blocks()?;
        let mut names: BTreeSet<Arc<KernelName>> = BTreeSet::new();
        let (mut seen, mut found) = (0, None);
        while let Some(located) = blocks.next()? {
            let block = located.decode()?;
            let event = reader
                .read(&block)
                .map_err(|error| located.damaged(&error))?;
            let Event::Call(call) = event else { continue };
            let Some(kernel) = &call.kernel else { continue };
            if kernel.is_called(name) {
                if which.is_none_or(|which| which == seen) {
                    found = Some((call.number, kernel.clone()));
                }
                seen += 1;
            } else if names.len() < MOST_NAMES {
                names.insert(kernel.clone());
            }
        }
        match found {
            Some((number, kernel)) => Ok((number..=number, Some(kernel))),
            None if seen > 0 => Err(Refused(format!(
                "the trace launches {name} {seen} times; name one of 0 to {} with --launch",
                seen - 1
            ))),
            None => {
                let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
                Err(Refused(format!(
                    "the trace launches no kernel {name}; name one of these: {}",
                    names.join(", ")
                )))
            }
        }
    }
}
