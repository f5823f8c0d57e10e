//! Long runs of whole records, opened by a crew while the thread that reads takes more off the socket.

use std::sync::Mutex;

use super::crew::Crew;
use super::inbound::{Inbound, RAW_BYTES};
use super::lock;
use super::wire_room::{WireRoom, PAGE};
use crate::error::LinkError;
use crate::tls::records::{
    ContentType, Opener, Run, HEADER_BYTES, PLAINTEXT_MAX, RECORD_MAX as FULL_RECORD,
};

/// Fewer records are opened by the thread that reads.
const RUN_MIN: usize = 2 * JOB_RECORDS;
/// Records that are opened in one job.
const JOB_RECORDS: usize = 4;

/// Some of a run's records, and where their plaintext goes.
struct Job<'a> {
    /// The number of its first record in the run.
    first: usize,
    records: &'a mut [u8],
    target: &'a mut [u8],
    opened: Result<(), LinkError>,
}

impl Job<'_> {
    fn open(&mut self, run: &Run) {
        self.opened = self.try_open(run);
    }

    fn try_open(&mut self, run: &Run) -> Result<(), LinkError> {
        let last = self.records.len() / FULL_RECORD - 1;
        for (index, record) in self.records.chunks_exact_mut(FULL_RECORD).enumerate() {
            let target = &mut self.target[index * PLAINTEXT_MAX..];
            let opened = if index < last {
                // The content type comes after the plaintext, where that of the next record will be.
                run.open_into(self.first + index, record, target)?
            } else {
                // There it would be another job's.
                let opened = run.open_in_place(self.first + index, record)?;
                target.copy_from_slice(&record[HEADER_BYTES..][..PLAINTEXT_MAX]);
                opened
            };
            if opened != (ContentType::ApplicationData, PLAINTEXT_MAX) {
                return Err(LinkError::Tls("a record of full length that is padded"));
            }
        }
        Ok(())
    }
}

impl Inbound {
    /// Opens the long run of full records that has come, if one has and all of it is the stream's, straight into
    /// `target`; returns the bytes, at most `limit`. A peer that pads such records is refused: none is known to.
    pub(super) fn open_run(
        &mut self,
        target: &mut [u8],
        limit: usize,
        crew: &Crew,
    ) -> Result<usize, LinkError> {
        let most = limit.min(self.data_left()) / PLAINTEXT_MAX;
        if most < RUN_MIN || !self.plain.is_empty() || self.closed || self.expects_more() {
            return Ok(0);
        }
        let count = full_records(&self.raw[self.sealed.clone()])?.min(most);
        if count < RUN_MIN || !crew.is_there() {
            return Ok(0);
        }
        let run = self.opener.run(count);
        let end = self.sealed.start + count * FULL_RECORD;
        // What follows moves in front of what comes next, unless it is much: then there is no need for more. It keeps its
        // place in a page (see `receive`).
        let start = end % PAGE;
        let rest = &self.raw[end..self.sealed.end];
        let takes_more = rest.len() < 2 * FULL_RECORD;
        if takes_more {
            if self.ahead.is_empty() {
                self.ahead = WireRoom::new(RAW_BYTES + PAGE);
            }
            self.ahead[start..start + rest.len()].copy_from_slice(rest);
        }
        let next = start + rest.len();
        let more = &mut self.ahead[if takes_more { next } else { 0 }..];
        let records = &mut self.raw[self.sealed.start..end];
        let jobs: Vec<Mutex<Job<'_>>> = records
            .chunks_mut(JOB_RECORDS * FULL_RECORD)
            .zip(target[..count * PLAINTEXT_MAX].chunks_mut(JOB_RECORDS * PLAINTEXT_MAX))
            .enumerate()
            .map(|(index, (records, target))| {
                Mutex::new(Job {
                    first: index * JOB_RECORDS,
                    records,
                    target,
                    opened: Ok(()),
                })
            })
            .collect();
        let connection = &self.connection;
        let open = |index: usize| lock(&jobs[index]).open(&run);
        let received = crew.share(jobs.len(), &open, |_| {
            takes_more.then(|| connection.socket.receive(more))
        });
        let opened = jobs
            .into_iter()
            .try_for_each(|job| job.into_inner().map_or(Ok(()), |job| job.opened));
        opened?;
        match received {
            None => self.sealed.start = end,
            Some(received) => {
                std::mem::swap(&mut self.raw, &mut self.ahead);
                self.sealed = start..next;
                // What has been opened counts, and must be told before an error.
                if let Err(error) = self.note(received) {
                    self.failure = Some(error);
                }
            }
        }
        self.take_run(count * PLAINTEXT_MAX);
        Ok(count * PLAINTEXT_MAX)
    }
}

/// How many records of full length `bytes` begin with.
fn full_records(bytes: &[u8]) -> Result<usize, LinkError> {
    let mut count = 0;
    while Opener::whole_record(&bytes[count * FULL_RECORD..])? == Some(FULL_RECORD) {
        count += 1;
    }
    Ok(count)
}
