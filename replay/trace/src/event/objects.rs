//! What the calls of a trace have made so far: kernels by their handles, memory by its addresses, and
//! which call a ticket belongs to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::schema::Call;
use super::{KernelName, Value};

/// Tickets of so many answered calls are remembered: a `Wait` block comes soon after its reply.
const ANSWERED_MAX: usize = 1 << 16;

/// A range of device memory that the program was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Which `Allocation` block of the trace it is, from 0.
    pub number: u64,
    pub session: u32,
    pub device: u32,
    pub address: u64,
    pub bytes: u64,
}

/// A call by its ordinal in the trace, and its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Called {
    pub number: u64,
    pub call: u16,
}

/// The objects that live at one point of a trace. Handles and addresses are those of their session.
#[derive(Debug, Default)]
pub struct Objects {
    kernels: BTreeMap<(u32, u64), Arc<KernelName>>,
    live: BTreeMap<(u32, u64), Allocation>,
    allocations: u64,
    unanswered: HashMap<(u32, u32), Called>,
    answered: HashMap<(u32, u32), Called>,
    order: VecDeque<(u32, u32)>,
}

impl Objects {
    /// The name of the kernel that `handle` is, a function or a kernel.
    pub fn kernel(&self, session: u32, handle: u64) -> Option<&Arc<KernelName>> {
        self.kernels.get(&(session, handle))
    }

    /// The allocation that `address` lies in.
    pub fn allocation(&self, session: u32, address: u64) -> Option<&Allocation> {
        let (_, allocation) = self
            .live
            .range((session, 0)..=(session, address))
            .next_back()?;
        (address - allocation.address < allocation.bytes).then_some(allocation)
    }

    /// All allocations that live, by session and address.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.live.values()
    }

    /// Learns what a call makes.
    pub(super) fn called(
        &mut self,
        session: u32,
        ticket: Option<u32>,
        called: Called,
        values: Option<(&Call, &[Value])>,
    ) {
        if let Some(ticket) = ticket {
            self.unanswered.insert((session, ticket), called);
        }
        let Some((call, values)) = values else { return };
        if !call.introduces_kernel {
            return;
        }
        let mut handles = values.iter().filter_map(Value::handle);
        let Some(made) = handles.next() else { return };
        let text = values.iter().find_map(|value| match value {
            Value::Text(text) => Some(KernelName::new(&String::from_utf8_lossy(text))),
            _ => None,
        });
        // A function of a kernel has the kernel's name.
        let of = handles.next();
        let name = text.or_else(|| self.kernel(session, of?).cloned());
        if let Some(name) = name {
            self.kernels.insert((session, made), name);
        }
    }

    /// The call that a reply with this ticket answers.
    pub(super) fn answered(&mut self, session: u32, ticket: u32) -> Option<Called> {
        let called = self.unanswered.remove(&(session, ticket))?;
        if self.order.len() == ANSWERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.answered.remove(&oldest);
            }
        }
        self.order.push_back((session, ticket));
        self.answered.insert((session, ticket), called);
        Some(called)
    }

    /// The call that was sent with this ticket last.
    pub fn with_ticket(&self, session: u32, ticket: u32) -> Option<Called> {
        let of = (session, ticket);
        self.unanswered.get(&of).or(self.answered.get(&of)).copied()
    }

    pub(super) fn allocated(
        &mut self,
        session: u32,
        device: u32,
        address: u64,
        bytes: u64,
    ) -> Allocation {
        let allocation = Allocation {
            number: self.allocations,
            session,
            device,
            address,
            bytes,
        };
        self.allocations += 1;
        self.live.insert((session, address), allocation);
        allocation
    }

    pub(super) fn freed(&mut self, session: u32, address: u64) -> Option<Allocation> {
        self.live.remove(&(session, address))
    }
}
