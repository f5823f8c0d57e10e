//! Waiting for what the recording had got by now, and what to do where that holds itself up.

use std::thread::sleep;
use std::time::{Duration, Instant};

use harp_cuda_abi::types::{CUDA_ERROR_NOT_READY, CUDA_SUCCESS};
use harp_trace::event::ReplyEvent;
use harp_wire::CallId;

use super::super::scout::Scout;
use super::super::session::{Arrived, Session, LOOK};
use super::super::Ended;
use super::{content, line_of, Player, Sent};

/// What stands behind a host function of another stream is given up as stuck after this time.
const FUNCTION_PATIENCE: Duration = Duration::from_millis(20);
/// The same where it is not known what it stands behind.
const WORK_PATIENCE: Duration = Duration::from_millis(200);
/// Between two questions how far the device is.
const QUESTION_PAUSE: Duration = Duration::from_micros(200);

/// What something that is waited for comes behind, in a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Host functions of other streams too.
    Functions,
    /// Work of its own stream.
    Work,
}

impl Player<'_> {
    /// Waits until what the recording had got by now has come: `what` says what that is.
    pub(super) fn wait<T>(
        &mut self,
        session: u32,
        behind: Behind,
        what: impl Fn() -> String,
        mut came: impl FnMut(&mut Session) -> Option<T>,
    ) -> Result<T, Ended> {
        let mut quiet = Instant::now();
        loop {
            let line = line_of(&mut self.lines, session)?;
            if let Some(came) = came(&mut line.session) {
                return Ok(came);
            }
            let running = line.session.running_early();
            let patience = match (running, behind) {
                (None, _) => LOOK,
                (Some(_), Behind::Functions) => FUNCTION_PATIENCE,
                (Some(_), Behind::Work) => WORK_PATIENCE,
            };
            if line.session.listen(patience)? {
                quiet = Instant::now();
            } else if let Some(running) = running {
                self.answer_ahead(session, running)?;
            }
            self.options.patience.allows(quiet, &what)?;
        }
    }

    /// Waits for the reply that stands for a recorded one. The program went on as it found the device to be
    /// there: so where it found it done it is asked again until it is.
    pub(super) fn answer(&mut self, sent: &Sent, event: &ReplyEvent) -> Result<Arrived, Ended> {
        let behind = match sent.call {
            CallId::cuMemcpyDtoHAsync_v2 => Behind::Functions,
            _ => Behind::Work,
        };
        let ticket = event.ticket;
        let began = Instant::now();
        loop {
            let what = || format!("call {} ({}) to be answered", sent.number, sent.name);
            let come = |session: &mut Session| session.take_reply(ticket);
            let arrived = self.wait(event.session, behind, what, come)?;
            let is_to_be_done = event.status == CUDA_SUCCESS && !sent.record.is_empty();
            if !is_to_be_done || arrived.status != CUDA_ERROR_NOT_READY {
                return Ok(arrived);
            }
            sleep(QUESTION_PAUSE);
            let what = || format!("what call {} ({}) asks about", sent.number, sent.name);
            self.options.patience.allows(began, &what)?;
            let session = &mut line_of(&mut self.lines, event.session)?.session;
            session.send(&sent.record, &[], Some(ticket))?;
        }
    }

    /// A host function returns ahead of its turn, for it holds up what came before it in the recording.
    pub(super) fn answer_ahead(&mut self, session: u32, callback: u64) -> Result<(), Ended> {
        let scout = match &mut self.scout {
            Some(scout) => scout,
            none => none.insert(Scout::new(self.trace)?),
        };
        let of = (session, callback);
        let ahead = scout.end_of(of, self.number, self.reader.schema(), &mut self.calls)?;
        let line = line_of(&mut self.lines, session)?;
        for call in ahead {
            let payload = content(self.trace, call.number, call.payload)?;
            line.session.send(&call.record, &payload, None)?;
            line.session.returns(callback);
            self.ahead.insert(call.number);
        }
        Ok(())
    }
}
