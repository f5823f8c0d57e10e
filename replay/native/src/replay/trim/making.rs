//! How the objects and the memory that calls use have been made, and all that this took.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ranges::{Of, Range};

/// How a call before the chosen ones was made.
pub struct Made {
    pub session: u32,
    pub context: u64,
    pub handles: Vec<u64>,
    /// Calls that it cannot be without.
    pub with: Vec<u64>,
}

/// What calls before the chosen ones have made.
#[derive(Default)]
pub struct Making {
    made: HashMap<u64, Made>,
    /// The call that has made a handle.
    makers: HashMap<Of, u64>,
    /// Calls that have changed what a handle stands for.
    settings: HashMap<Of, Vec<u64>>,
    /// The device of each context.
    devices: HashMap<Of, u32>,
    /// Memory that calls have got: how much, and the call. None overlaps another.
    allocated: BTreeMap<Of, (u64, u64)>,
    /// The call that has told where a variable is, and the variable's module.
    variables: HashMap<Of, (u64, u64)>,
}

impl Making {
    /// A call is made, which others may need.
    pub fn called(&mut self, number: u64, made: Made) {
        self.made.insert(number, made);
    }

    /// A call makes the object that `handle` is from now on.
    pub fn creates(&mut self, handle: Of, number: u64) {
        self.makers.insert(handle, number);
    }

    /// The same, where it is the object of an earlier call that has that handle.
    pub fn retains(&mut self, handle: Of, number: u64) {
        self.makers.entry(handle).or_insert(number);
    }

    /// A call changes what a handle stands for.
    pub fn sets(&mut self, handle: Of, number: u64) {
        self.settings.entry(handle).or_default().push(number);
    }

    /// The same, for good: what earlier ones have set does not count any more.
    pub fn sets_anew(&mut self, handle: Of, number: u64) {
        self.settings.insert(handle, vec![number]);
    }

    pub fn has_context(&mut self, context: Of, device: u32) {
        self.devices.insert(context, device);
    }

    /// A context's device, and that of none: 0.
    pub fn device(&self, context: Of) -> u32 {
        self.devices.get(&context).copied().unwrap_or(0)
    }

    /// A call has got memory. What was there has been given back.
    pub fn allocates(&mut self, at: Of, bytes: u64, number: u64) {
        let end = (at.0, at.1.saturating_add(bytes));
        while let Some((base, (bytes, _))) = self.allocated.range(..end).next_back() {
            let base = *base;
            if base.0 != at.0 || (base.1.saturating_add(*bytes) <= at.1 && base != at) {
                break;
            }
            self.allocated.remove(&base);
        }
        self.allocated.insert(at, (bytes, number));
    }

    /// A call has told where a variable of a module is.
    pub fn tells_variable(&mut self, at: Of, number: u64, module: u64) {
        self.variables.insert(at, (number, module));
    }

    /// The variables of the modules that these functions are of, as far as the program has asked for them.
    pub fn variables_of(&self, functions: &BTreeSet<Of>) -> Vec<Of> {
        let mut of: BTreeSet<Of> = BTreeSet::new();
        let mut open: Vec<Of> = functions.iter().copied().collect();
        while let Some(handle) = open.pop() {
            if !of.insert(handle) {
                continue;
            }
            let maker = self.makers.get(&handle);
            if let Some(made) = maker.and_then(|call| self.made.get(call)) {
                open.extend(made.handles.iter().map(|handle| (made.session, *handle)));
            }
        }
        let variables = self.variables.iter();
        let variables = variables.filter(|(at, (_, module))| of.contains(&(at.0, *module)));
        variables.map(|(at, _)| *at).collect()
    }

    /// The calls before `start` without which there are not these handles and ranges, and `calls` themselves.
    pub fn needed(
        &self,
        start: u64,
        handles: &BTreeSet<Of>,
        ranges: &[Range],
        calls: impl Iterator<Item = u64>,
    ) -> BTreeSet<u64> {
        let mut kept: BTreeSet<u64> = calls.collect();
        let mut handles: Vec<Of> = handles.iter().copied().collect();
        for range in ranges {
            let server = self.allocated.range(..=range.at()).next_back();
            let server = server.filter(|(base, (bytes, _))| {
                base.0 == range.session && range.address - base.1 < *bytes
            });
            let server = server.map(|(_, (_, call))| *call);
            let variable = self.variables.get(&range.at()).map(|(call, _)| *call);
            // Addresses are used again: the later one counts.
            kept.extend(server.max(variable));
            // Memory that was there from the beginning needs the device's context.
            let contexts = self.devices.iter();
            let contexts =
                contexts.filter(|(of, device)| of.0 == range.session && **device == range.device);
            handles.extend(contexts.map(|(of, _)| *of));
        }
        let mut open: Vec<u64> = kept.iter().copied().collect();
        let mut seen: BTreeSet<Of> = BTreeSet::new();
        loop {
            while let Some(made) = open.pop().map(|call| self.made.get(&call)) {
                let Some(made) = made else { continue };
                let session = made.session;
                handles.push((session, made.context));
                handles.extend(made.handles.iter().map(|handle| (session, *handle)));
                kept.extend(&made.with);
            }
            let Some(handle) = handles.pop() else { break };
            if !seen.insert(handle) {
                continue;
            }
            let maker = self.makers.get(&handle);
            let settings = self.settings.get(&handle).into_iter().flatten();
            for call in maker.into_iter().chain(settings) {
                if *call < start && kept.insert(*call) {
                    open.push(*call);
                }
            }
        }
        kept
    }
}
