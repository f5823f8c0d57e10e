//! What lies in memory before and after the chosen calls: found out by replaying the trace up to there.

use std::collections::{BTreeMap, HashMap};

use harp_trace::container::Trace;
use harp_wire::twin;

use super::super::options::Options;
use super::super::player::{Moment, Player};
use super::super::report::result_name;
use super::super::survey::Survey;
use super::super::{Ended, Refused};
use super::plan::Plan;
use super::ranges::{Of, Range};

/// Bytes of memory that a trimmed trace may hold.
const MEMORY_MAX: u64 = 2 << 30;

/// The contents of the plan's ranges, in their order.
#[derive(Default)]
pub struct Memory {
    /// Nothing of a range that the chosen calls themselves begin.
    pub found: Vec<Vec<u8>>,
    /// Nothing where the chosen calls have failed, and of what they have given back.
    pub left: Vec<Vec<u8>>,
    /// What waiting for the chosen calls returned.
    pub status: u32,
    /// The contexts of the ranges' devices, by session and device.
    pub contexts: HashMap<(u32, u32), u64>,
}

/// Replays the trace up to the last chosen call. The plan gets the ranges that pointers in memory lead to.
/// `tell` hears how far that is.
///
/// # Errors
/// Where the trace cannot be replayed, or the session is lost.
pub fn observe(
    trace: &Trace,
    survey: &Survey,
    plan: &mut Plan,
    options: &Options,
    tell: impl FnMut(u64),
) -> Result<Memory, Ended> {
    let mut memory = Memory::default();
    let mut look = |player: &mut Player, moment: Moment| {
        let is_first = moment == Moment::Before(*plan.chosen.start());
        if !is_first && moment != Moment::End {
            return Ok(());
        }
        let (session, context, _) = plan.place;
        let status = player.settle(session, context)?;
        if is_first && status != 0 {
            return Err(Refused(format!(
                "what comes before the chosen calls fails with {}; choose earlier ones",
                result_name(status)
            ))
            .into());
        }
        match is_first {
            true => memory.find(player, plan),
            false => memory.leave(player, plan, status),
        }
    };
    Player::new(trace, survey, options)?.play_with(tell, &mut look)?;
    Ok(memory)
}

impl Memory {
    /// Fetches what the chosen calls find: the ranges that are known to be needed, and those that pointers in
    /// these lead to.
    fn find(&mut self, player: &mut Player, plan: &mut Plan) -> Result<(), Ended> {
        let mut bytes: u64 = 0;
        loop {
            while let Some(range) = plan.ranges.get(self.found.len()) {
                bytes = bytes.saturating_add(range.bytes);
                if bytes > MEMORY_MAX {
                    return Err(Refused(format!(
                        "the chosen calls may touch {bytes} bytes of memory or more, and {MEMORY_MAX} can be \
                         kept; choose fewer calls"
                    ))
                    .into());
                }
                let content = match plan.found.get(range.at()) {
                    Some(_) => self.fetch(player, range)?,
                    None => Vec::new(),
                };
                let (session, address) = range.at();
                plan.need(plan.found.led_to(session, address, &content));
                self.found.push(content);
            }
            plan.need(self.led_to_by_writes(plan));
            if plan.ranges.len() == self.found.len() {
                return Ok(());
            }
        }
    }

    /// What the chosen calls leave.
    fn leave(&mut self, player: &mut Player, plan: &Plan, status: u32) -> Result<(), Ended> {
        self.status = status;
        for range in plan.ranges.iter().filter(|_| status == 0) {
            let content = match plan.freed.contains(&range.at()) {
                true => Vec::new(),
                false => self.fetch(player, range)?,
            };
            self.left.push(content);
        }
        Ok(())
    }

    fn fetch(&mut self, player: &mut Player, range: &Range) -> Result<Vec<u8>, Ended> {
        let of = (range.session, range.device);
        let (context, content) = player.fetch(of.0, of.1, (range.address, range.bytes))?;
        self.contexts.insert(of, context);
        Ok(content)
    }

    /// The ranges that pointers lead to which the program writes to shared memory within the chosen calls. It
    /// tells of the bytes that it changes, so the others of an address are those that were there.
    fn led_to_by_writes(&self, plan: &Plan) -> Vec<Of> {
        let shared = plan.ranges.iter().zip(&self.found);
        let shared = shared.filter(|(range, _)| range.is_shared());
        let mut contents: BTreeMap<Of, Vec<u8>> = BTreeMap::new();
        let mut found = Vec::new();
        if !plan.written.is_empty() {
            contents.extend(shared.map(|(range, content)| (range.at(), content.clone())));
        }
        for (session, lines) in &plan.written {
            for line in twin::lines(lines).flatten() {
                let at = plan.found.holding(*session, line.address);
                let Some(((_, base), content)) =
                    at.and_then(|at| Some((at, contents.get_mut(&at)?)))
                else {
                    continue;
                };
                for (address, byte) in line.bytes() {
                    if let Some(place) = content.get_mut(address.wrapping_sub(base) as usize) {
                        *place = byte;
                    }
                }
                let start = (line.address - base) as usize;
                let line_now = content.get(start..start.saturating_add(twin::LINE));
                found.extend(plan.found.led_to(
                    *session,
                    line.address,
                    line_now.unwrap_or_default(),
                ));
            }
        }
        found
    }
}
