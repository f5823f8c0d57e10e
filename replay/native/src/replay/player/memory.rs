//! Memory as it is during a replay: looked at for a smaller trace, and put there for what such a trace finds.

use harp_wire::calls::{encode_cuCtxSynchronize, encode_cuMemcpyDtoH_v2, encode_cuMemcpyHtoD_v2};
use harp_wire::twin::differences;
use harp_wire::CallId;

use super::super::outputs::data;
use super::super::session::Lost;
use super::super::twins::Side;
use super::super::{Ended, Refused};
use super::{line_of, Line, Player, SYNCHRONOUS};

/// The most memory that is fetched or written at once, in bytes.
pub const PIECE: u64 = 32 << 20;
/// Memory that the program shares with kernels is written in such pieces.
const TWIN_PIECE: usize = 1 << 20;

impl Player<'_> {
    /// Waits until the device has done all that it was told in a context; what that returns. In one that has
    /// not been made it was told nothing.
    pub fn settle(&mut self, session: u32, context: u64) -> Result<u32, Ended> {
        let line = line_of(&mut self.lines, session)?;
        if !line.contexts.values().any(|made| *made == context) {
            return Ok(0);
        }
        if !line.queued.is_empty() {
            return Err(Refused(
                "a host function is queued between the chosen calls and what is before or after them; choose \
                 calls up to where it has returned"
                    .to_owned(),
            )
            .into());
        }
        let arrived =
            line.session
                .ask(context, CallId::cuCtxSynchronize, encode_cuCtxSynchronize)?;
        Ok(arrived.status)
    }

    /// The bytes at a recorded address of a device, in which addresses are the recorded ones, and the device's
    /// context.
    pub fn fetch(
        &mut self,
        session: u32,
        device: u32,
        (address, bytes): (u64, u64),
    ) -> Result<(u64, Vec<u8>), Ended> {
        let line = line_of(&mut self.lines, session)?;
        let context = context_of(line, device)?;
        let mut content = Vec::new();
        while (content.len() as u64) < bytes {
            let at = line
                .addresses
                .now(address.wrapping_add(content.len() as u64));
            let piece = (bytes - content.len() as u64).min(PIECE);
            let encode = |encoder: &mut _| encode_cuMemcpyDtoH_v2(encoder, at, piece, SYNCHRONOUS);
            let arrived = line.session.ask(context, CallId::cuMemcpyDtoH_v2, encode)?;
            match data(&arrived.body, 0) {
                Some(data) if arrived.status == 0 && data.len() as u64 == piece => {
                    content.extend_from_slice(data);
                }
                _ => {
                    return Err(Lost(format!(
                        "{bytes} bytes at {address:#x} cannot be fetched ({}); replay on another device",
                        arrived.status
                    ))
                    .into())
                }
            }
        }
        if line.addresses.have_moved() {
            line.addresses.put_back(&mut content);
        }
        Ok((context, content))
    }

    /// Writes memory as it was before the next call.
    pub(super) fn restore(
        &mut self,
        session: u32,
        device: u32,
        address: u64,
        mut content: Vec<u8>,
    ) -> Result<(), Ended> {
        let line = line_of(&mut self.lines, session)?;
        let context = context_of(line, device)?;
        if line.addresses.have_moved() {
            line.addresses.relocated.in_snapshots += line.addresses.replace(&mut content);
        }
        if line.twins.holding(address).is_some() {
            return restore_twin(line, context, address, &content);
        }
        let address = line.addresses.now(address);
        let encode = |encoder: &mut _| encode_cuMemcpyHtoD_v2(encoder, address, SYNCHRONOUS);
        line.session
            .tell(context, CallId::cuMemcpyHtoD_v2, encode, &content)?;
        Ok(())
    }
}

/// Writes memory that the program shares with kernels, which is zeros as yet.
fn restore_twin(line: &mut Line, context: u64, address: u64, content: &[u8]) -> Result<(), Ended> {
    for (address, piece) in (address..)
        .step_by(TWIN_PIECE)
        .zip(content.chunks(TWIN_PIECE))
    {
        let lines = differences(address, piece, &mut vec![0; piece.len()]);
        line.twins
            .change(&[Side::Recorded, Side::Replayed], &lines, None);
        let session = &mut line.session;
        session.tell(context, CallId::harp_twin_write, |_| (), &lines)?;
    }
    Ok(())
}

fn context_of(line: &Line, device: u32) -> Result<u64, Refused> {
    let context = line.contexts.get(&i64::from(device)).copied();
    context.ok_or_else(|| {
        Refused(format!(
            "memory of device {device} is wanted where that has no context; record the trace again"
        ))
    })
}
