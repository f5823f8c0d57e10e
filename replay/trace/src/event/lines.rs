//! Events as lines of JSON: an object a line, its type first. docs/trace-format.md lists their fields.

use std::collections::HashSet;

use super::json::Json;
use super::line::Line;
use super::Reader;
use crate::block::Hash;
use crate::container::{Blocks, Trace, TraceError};

/// The events of a trace, in order.
pub struct Lines<'a> {
    trace: &'a Trace,
    blocks: Blocks,
    reader: Reader,
    full: bool,
    shown: HashSet<Hash>,
}

impl<'a> Lines<'a> {
    /// With `full` the lines say everything: the trace can be made of them again.
    ///
    /// # Errors
    /// Where the trace has no blocks.
    pub fn new(trace: &'a Trace, full: bool) -> Result<Lines<'a>, TraceError> {
        Ok(Lines {
            trace,
            blocks: trace.blocks()?,
            reader: Reader::new(),
            full,
            shown: HashSet::new(),
        })
    }

    /// The next line, without its end; `None` when there is none.
    ///
    /// # Errors
    /// For damage, with its place.
    pub fn next_line(&mut self) -> Result<Option<String>, TraceError> {
        let Some(located) = self.blocks.next()? else {
            return Ok(None);
        };
        let block = located.decode()?;
        let event = self
            .reader
            .read(&block)
            .map_err(|error| located.damaged(&error))?;
        let mut line = Line::begin(&self.reader, self.full, &block, &located);
        line.event(&block, &event);
        if let Some(payload) = &block.payload() {
            line.payload(payload, self.trace, &mut self.shown)?;
        }
        Ok(Some(line.end(&located)))
    }

    /// The line at the end, which says of the whole; `error` is what has kept the reader from it.
    pub fn last_line(&self, error: Option<&TraceError>) -> String {
        let cut = self.blocks.cut();
        let mut json = Json::default();
        json.begin();
        json.text("type", "trace");
        json.text("path", &self.trace.path().display().to_string());
        let complete = self.trace.complete() && !cut && error.is_none();
        json.flag("complete", complete);
        json.flag("cut", cut);
        json.number("calls", self.reader.calls());
        let manifest = serde_json::to_string(self.trace.manifest()).unwrap_or_default();
        json.verbatim("manifest", &manifest);
        if let Some(error) = error {
            json.text("error", &error.to_string());
        }
        json.end();
        json.text
    }
}
