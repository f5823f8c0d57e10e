//! What lies in memory before and after the chosen calls: found out by replaying the trace up to there.

use std::collections::HashMap;

use harp_trace::container::Trace;

use super::super::options::Options;
use super::super::player::{Moment, Player};
use super::super::survey::Survey;
use super::super::{Ended, Refused};
use super::plan::Plan;

/// The most that is fetched or written at once, in bytes.
pub const PIECE: u64 = 32 << 20;
/// Bytes of memory that a trimmed trace may hold.
const MEMORY_MAX: u64 = 2 << 30;

/// The contents of the needed ranges, in their order.
#[derive(Default)]
pub struct Memory {
    pub found: Vec<Vec<u8>>,
    /// Nothing where the chosen calls have failed.
    pub left: Vec<Vec<u8>>,
    /// What waiting for the chosen calls returned.
    pub status: u32,
    /// The contexts of the ranges' devices, by session and device.
    pub contexts: HashMap<(u32, u32), u64>,
}

/// Replays the trace up to the last chosen call. `tell` hears how far that is.
///
/// # Errors
/// Where the trace cannot be replayed, or the session is lost.
pub fn observe(
    trace: &Trace,
    survey: &Survey,
    plan: &Plan,
    options: &Options,
    tell: impl FnMut(u64),
) -> Result<Memory, Ended> {
    let bytes = plan.ranges.iter().map(|range| range.bytes);
    let bytes = bytes.fold(0, u64::saturating_add);
    if bytes > MEMORY_MAX {
        return Err(Refused(format!(
            "the chosen calls may touch {bytes} bytes of memory, and {MEMORY_MAX} can be kept; choose fewer calls"
        ))
        .into());
    }
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
                "what comes before the chosen calls fails with {status}; choose earlier ones"
            ))
            .into());
        }
        let contents = if is_first {
            &mut memory.found
        } else {
            memory.status = status;
            &mut memory.left
        };
        if status != 0 {
            return Ok(());
        }
        for range in &plan.ranges {
            let (context, content) =
                player.fetch(range.session, range.device, (range.address, range.bytes))?;
            memory
                .contexts
                .insert((range.session, range.device), context);
            contents.push(content);
        }
        Ok(())
    };
    Player::new(trace, survey, options)?.play_with(tell, &mut look)?;
    Ok(memory)
}
