//! What has come, held against the recording.

use std::collections::BTreeMap;

use harp_cuda_abi::types::CUDA_ERROR_NOT_READY;
use harp_trace::block::{Message, Policy};
use harp_trace::event::ReplyEvent;
use harp_trace::payloads::Class;
use harp_wire::push::OutputStream;

use super::super::calls::{asks_for_progress, downloads};
use super::super::options::Check;
use super::super::outputs::{compare, data, Compared, Content};
use super::super::report::{Difference, What};
use super::super::session::Arrived;
use super::super::twins::{Side, Told, Unlike};
use super::super::{Ended, Refused};
use super::learning::place_of;
use super::{line_of, Player, Sent};

/// Why something is not compared that may depend on what was lost.
const DOUBTFUL: &str = "it depends on data that was lost";

impl Player<'_> {
    pub(super) fn compare(
        &mut self,
        message: &Message,
        event: &ReplyEvent,
        sent: Sent,
        arrived: &Arrived,
    ) -> Result<(), Ended> {
        let check = self.options.check;
        let differs = |what| Difference {
            call: Some(sent.number),
            name: sent.name.clone(),
            session: event.session,
            kernel: sent.maker.clone(),
            what,
        };
        if check.of_codes() {
            if asks_for_progress(sent.call)
                && [event.status, arrived.status].contains(&CUDA_ERROR_NOT_READY)
            {
                self.outcome.skip("the device was not as far");
                return Ok(());
            }
            if event.status != arrived.status && self.doubts.are_in(event.session) {
                self.outcome.skip(DOUBTFUL);
                return Ok(());
            }
            self.outcome.codes += 1;
            if event.status != arrived.status {
                self.outcome.differs(differs(What::Status {
                    recorded: event.status,
                    replayed: arrived.status,
                }));
                return Ok(());
            }
        }
        let is_compared = match check {
            Check::Outputs => downloads(sent.call),
            Check::Final => self.survey.finals.contains(&sent.number),
            Check::Off | Check::Returns => false,
        };
        if !is_compared || event.status != 0 || arrived.status != 0 {
            return Ok(());
        }
        if sent.doubtful {
            self.outcome.skip(DOUBTFUL);
            return Ok(());
        }
        let recorded = Content::of(message, 0).ok_or_else(|| malformed_reply(sent.number))?;
        let tolerance = self.options.tolerance.as_ref();
        let addresses = &line_of(&mut self.lines, event.session)?.addresses;
        let compared = compare(self.trace, recorded, &arrived.body, tolerance, addresses);
        match compared.map_err(Refused::from)? {
            Compared::Same => self.outcome.data += 1,
            Compared::Different(what) => {
                self.outcome.data += 1;
                self.outcome.differs(differs(what));
            }
            Compared::Not(why) => self.outcome.skip(why),
        }
        Ok(())
    }

    /// The device has told what it has changed of the memory that it shares with the program.
    pub(super) fn twins_told(
        &mut self,
        message: &Message,
        session: u32,
        call: u64,
        arrived: &Arrived,
    ) -> Result<(), Ended> {
        /// Before the data there is how far it reaches.
        const BEFORE: usize = 8;
        if !self.options.check.of_data() {
            return Ok(());
        }
        let recorded = Content::of(message, BEFORE).ok_or_else(|| malformed_reply(call))?;
        if let Content::Payload(payload) = recorded {
            if self.survey.has_lost(payload, Class::Downloads) {
                // What the recording knew of it is not known from here on.
                self.doubts.begin_shared(session);
            }
        }
        if self.doubts.are_about_shared(session) {
            self.outcome.skip(DOUBTFUL);
            return Ok(());
        }
        let stored;
        let recorded = match recorded {
            Content::Here(bytes) => bytes,
            Content::Payload(payload) if payload.policy == Policy::Full => {
                stored = self.trace.blob(&payload.hash).map_err(Refused::from)?;
                &stored[..]
            }
            Content::Payload(_) => {
                self.outcome
                    .skip("shared memory, which was not recorded in full");
                return Ok(());
            }
        };
        let Some(replayed) = data(&arrived.body, BEFORE) else {
            self.outcome.skip("too much data came at once");
            return Ok(());
        };
        if recorded.is_empty() && replayed.is_empty() {
            return Ok(());
        }
        let line = line_of(&mut self.lines, session)?;
        for (side, changes) in [(Side::Recorded, recorded), (Side::Replayed, replayed)] {
            let first = harp_wire::twin::lines(changes).next().flatten();
            let address = first.map_or(0, |line| line.address);
            let place = place_of(self.reader.objects(), &line.twins, session, address);
            let maker = self.kernels.maker((session, None), (address, 1), place);
            let told = Told {
                call,
                maker: maker.cloned(),
            };
            if !line.twins.change(&[side], changes, Some(&told)) {
                return Err(malformed_reply(call).into());
            }
        }
        line.twins.settle([recorded, replayed]);
        self.outcome.data += 1;
        Ok(())
    }

    pub(super) fn twins_differ(&mut self, session: u32, unlike: Unlike) {
        if self.doubts.are_about_shared(session) {
            self.outcome.skip(DOUBTFUL);
        } else if unlike.told.call >= self.options.from {
            self.outcome.differs(Difference {
                call: Some(unlike.told.call),
                name: "harp_twin_read".to_owned(),
                session,
                kernel: unlike.told.maker,
                what: What::Data(unlike.deviation),
            });
        }
    }

    pub(super) fn compare_twins(&mut self) {
        let tolerance = self.options.tolerance.as_ref();
        let mut all = Vec::new();
        for (session, line) in &mut self.lines {
            if line.twins.overflown {
                self.outcome.skip("more shared memory than is looked after");
            }
            let unlike = line.twins.end(tolerance);
            all.extend(unlike.into_iter().map(|unlike| (*session, unlike)));
        }
        for (session, unlike) in all {
            self.twins_differ(session, unlike);
        }
    }

    pub(super) fn compare_printed(&mut self) {
        let is_all = self.survey.complete && !self.survey.trimmed;
        let whole = self.options.to.is_none() && self.options.from == 0 && is_all;
        if self.options.check != Check::Outputs || !whole {
            return;
        }
        for (number, line) in &self.lines {
            let (then, now) = (&line.printed, &line.session.printed);
            if then.cut || now.cut {
                self.outcome.skip("too much text");
                continue;
            }
            for (stream, name) in [
                (OutputStream::Stdout, "standard output"),
                (OutputStream::Stderr, "standard error"),
            ] {
                let (then, now) = (then.text(stream), now.text(stream));
                if then.is_empty() && now.is_empty() {
                    continue;
                }
                if self.doubts.are_in(*number) {
                    self.outcome.skip(DOUBTFUL);
                    continue;
                }
                self.outcome.data += 1;
                if let Some((recorded, replayed)) = other_lines(then, now) {
                    self.outcome.differs(Difference {
                        call: None,
                        name: name.to_owned(),
                        session: *number,
                        kernel: None,
                        what: What::Printed { recorded, replayed },
                    });
                }
            }
        }
    }

    /// Errors of one-way calls are told by whichever reply comes next, so only their order is compared.
    pub(super) fn compare_told(&mut self) {
        if !self.options.check.of_codes() {
            return;
        }
        for (number, line) in &mut self.lines {
            if self.doubts.are_in(*number) {
                continue;
            }
            let [then, now] = &mut line.told;
            loop {
                let (recorded, replayed) = (then.pop_front(), now.pop_front());
                let Some((call, _)) = recorded.or(replayed) else {
                    break;
                };
                let code = |told: Option<(u64, u32)>| told.map_or(0, |(_, code)| code);
                let (recorded, replayed) = (code(recorded), code(replayed));
                if recorded != replayed && call >= self.options.from {
                    self.outcome.differs(Difference {
                        call: Some(call),
                        name: "a reply".to_owned(),
                        session: *number,
                        kernel: None,
                        what: What::Deferred { recorded, replayed },
                    });
                    break;
                }
            }
        }
    }
}

fn malformed_reply(call: u64) -> Refused {
    Refused(format!(
        "the reply to call {call} is malformed; record the trace again"
    ))
}

/// A line that one text has more often than the other; blocks of a kernel print in any order.
fn other_lines(then: &[u8], now: &[u8]) -> Option<(String, String)> {
    if then == now {
        return None;
    }
    let mut counts: BTreeMap<&[u8], i64> = BTreeMap::new();
    for (text, count) in [(then, 1), (now, -1)] {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            *counts.entry(line).or_default() += count;
        }
    }
    let shown = |sign: i64| {
        let line = counts.iter().find(|(_, count)| count.signum() == sign);
        line.map(|(line, _)| {
            let text = String::from_utf8_lossy(line);
            text.trim_end_matches('\n').chars().take(200).collect()
        })
    };
    match (shown(1), shown(-1)) {
        (None, None) => None,
        (then, now) => Some((then.unwrap_or_default(), now.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_lines_are_compared_whatever_their_order() {
        assert_eq!(other_lines(b"a\nb\n", b"b\na\n"), None);
        let found = other_lines(b"a\nb\nb\n", b"a\nb\nc\n").unwrap();
        assert_eq!(found, ("b".to_owned(), "c".to_owned()));
        let found = other_lines(b"", b"more\n").unwrap();
        assert_eq!(found, (String::new(), "more".to_owned()));
    }
}
