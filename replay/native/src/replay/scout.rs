//! Looks ahead in a trace for the end of host functions.
//!
//! A driver runs the host functions of all streams one after the other, in an order that may be another each
//! time. So a function may hold up one that the recording had run before it; then it is answered ahead of its
//! turn, together with what it had changed of the memory that it shares with kernels.

use std::collections::HashMap;

use harp_trace::block::{Block, Payload};
use harp_trace::container::{Blocks, Trace};
use harp_trace::event::Schema;
use harp_wire::record::{RecordHead, RECORD_HEAD_BYTES};
use harp_wire::CallId;

use super::calls::Calls;
use super::Refused;

/// So many calls are looked ahead.
const AHEAD_MAX: u64 = 1 << 16;

/// A call that is sent ahead of its turn.
pub struct Ahead {
    pub number: u64,
    pub record: Vec<u8>,
    pub payload: Option<Payload>,
}

/// Reads a trace some way ahead of its replay.
pub struct Scout {
    blocks: Blocks,
    /// The number of the next call.
    number: u64,
    /// Changes of shared memory since the last function of a thread has ended, by session and thread.
    changes: HashMap<(u32, u32), Vec<Ahead>>,
    /// What ends a function, by session and function.
    ends: HashMap<(u32, u64), Vec<Ahead>>,
}

impl Scout {
    pub fn new(trace: &Trace) -> Result<Scout, Refused> {
        Ok(Scout {
            blocks: trace.blocks()?,
            number: 0,
            changes: HashMap::new(),
            ends: HashMap::new(),
        })
    }

    /// The calls that end a host function; none if that is not known. `now` is the number of the last call
    /// that has been sent.
    ///
    /// # Errors
    /// Where the trace is damaged.
    pub fn end_of(
        &mut self,
        (session, callback): (u32, u64),
        now: u64,
        schema: &Schema,
        calls: &mut Calls,
    ) -> Result<Vec<Ahead>, Refused> {
        while !self.ends.contains_key(&(session, callback)) && self.number < now + AHEAD_MAX {
            let Some(located) = self.blocks.next()? else {
                break;
            };
            if let Block::Call(message) = located.decode()? {
                let number = self.number;
                self.number += 1;
                if number <= now {
                    continue;
                }
                let Some((head, arguments)) =
                    message.bytes.split_first_chunk::<RECORD_HEAD_BYTES>()
                else {
                    continue;
                };
                let Ok(head) = RecordHead::decode(head) else {
                    continue;
                };
                let Ok(call) = calls.today(schema, head.call.0) else {
                    continue;
                };
                let mut record = message.bytes.to_vec();
                record[4..6].copy_from_slice(&call.0.to_le_bytes());
                let ahead = Ahead {
                    number,
                    record,
                    payload: message.payload,
                };
                let thread = (message.session, head.thread);
                match (call, arguments.first_chunk()) {
                    (CallId::harp_twin_write, _) => {
                        self.changes.entry(thread).or_default().push(ahead);
                    }
                    (CallId::harp_callback_done, Some(callback)) => {
                        let mut all = self.changes.remove(&thread).unwrap_or_default();
                        all.push(ahead);
                        let of = (message.session, u64::from_le_bytes(*callback));
                        self.ends.insert(of, all);
                    }
                    _ => {}
                }
            }
        }
        let mut all = self.ends.remove(&(session, callback)).unwrap_or_default();
        all.retain(|ahead| ahead.number > now);
        Ok(all)
    }
}
