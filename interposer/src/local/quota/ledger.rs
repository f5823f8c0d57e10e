//! The books of what the program holds of each device.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use harp_cuda_abi::types::CUdevice;

use crate::session::settings::settings;

/// Something that takes device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holding {
    /// A device address that was allocated.
    Address(u64),
    /// An array, mipmapped or not, by its handle.
    Array(usize),
}

/// What is charged for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    pub device: CUdevice,
    pub bytes: u64,
    /// The context that it ends with; 0 for none.
    pub context: usize,
}

/// Physical memory of virtual memory management, which lives while it has a handle or is mapped.
struct Physical {
    charge: Charge,
    handles: u64,
    mappings: u64,
}

#[derive(Default)]
struct Ledger {
    used: HashMap<CUdevice, u64>,
    holdings: HashMap<Holding, Charge>,
    physical: HashMap<u64, Physical>,
    /// Handles by the addresses that they are mapped at.
    mapped: BTreeMap<u64, u64>,
}

fn ledger() -> MutexGuard<'static, Option<Ledger>> {
    static LEDGER: Mutex<Option<Ledger>> = Mutex::new(None);
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<R>(act: impl FnOnce(&mut Ledger) -> R) -> R {
    act(ledger().get_or_insert_default())
}

/// Bytes of each device that the program may hold.
pub fn limit() -> u64 {
    settings()
        .local_memory
        .as_ref()
        .ok()
        .copied()
        .flatten()
        .unwrap_or(u64::MAX)
}

/// Bytes of the device that it may still take.
pub fn left(device: CUdevice) -> u64 {
    with(|ledger| limit().saturating_sub(ledger.used_of(device)))
}

/// Sets room aside; false where there is not enough.
pub fn reserve(device: CUdevice, bytes: u64) -> bool {
    with(|ledger| {
        let used = ledger.used_of(device);
        let fits = used
            .checked_add(bytes)
            .is_some_and(|wanted| wanted <= limit());
        if fits {
            ledger.used.insert(device, used + bytes);
        }
        fits
    })
}

/// Gives back room that was reserved.
pub fn give_back(device: CUdevice, bytes: u64) {
    with(|ledger| ledger.give_back(device, bytes));
}

/// Enters what the reserved room is for.
pub fn keep(holding: Holding, charge: Charge) {
    with(|ledger| {
        // Where the driver has freed an address unseen, its new owner's charge is the true one.
        if let Some(stale) = ledger.holdings.insert(holding, charge) {
            ledger.give_back(stale.device, stale.bytes);
        }
    });
}

/// Strikes a holding out; its room stays reserved.
pub fn take(holding: Holding) -> Option<Charge> {
    with(|ledger| ledger.holdings.remove(&holding))
}

/// Strikes out, with its room, everything that ended with a context.
pub fn end_context(context: usize) {
    with(|ledger| {
        let ended: Vec<_> = ledger
            .holdings
            .extract_if(|_, charge| charge.context == context)
            .collect();
        for (_, charge) in ended {
            ledger.give_back(charge.device, charge.bytes);
        }
    });
}

/// Enters physical memory with its first handle.
pub fn keep_physical(handle: u64, charge: Charge) {
    with(|ledger| {
        let new = Physical {
            charge,
            handles: 1,
            mappings: 0,
        };
        ledger.physical.insert(handle, new);
    });
}

/// One handle more.
pub fn retain(handle: u64) {
    with(|ledger| ledger.change(handle, |physical| physical.handles += 1));
}

/// One handle less.
pub fn release(handle: u64) {
    with(|ledger| {
        ledger.change(handle, |physical| {
            physical.handles = physical.handles.saturating_sub(1);
        });
    });
}

/// Mapped at an address.
pub fn map(address: u64, handle: u64) {
    with(|ledger| {
        ledger.mapped.insert(address, handle);
        ledger.change(handle, |physical| physical.mappings += 1);
    });
}

/// Everything that was mapped in a range no longer is.
pub fn unmap(address: u64, bytes: u64) {
    with(|ledger| {
        let range = address..address.saturating_add(bytes);
        let gone: Vec<_> = ledger.mapped.range(range).map(|(&a, &h)| (a, h)).collect();
        for (address, handle) in gone {
            ledger.mapped.remove(&address);
            ledger.change(handle, |physical| physical.mappings -= 1);
        }
    });
}

impl Ledger {
    fn used_of(&self, device: CUdevice) -> u64 {
        self.used.get(&device).copied().unwrap_or(0)
    }

    fn give_back(&mut self, device: CUdevice, bytes: u64) {
        let left = self.used_of(device).saturating_sub(bytes);
        self.used.insert(device, left);
    }

    /// Changes what holds physical memory, which ends when nothing does.
    fn change(&mut self, handle: u64, change: impl FnOnce(&mut Physical)) {
        let Some(physical) = self.physical.get_mut(&handle) else {
            return;
        };
        change(physical);
        if physical.handles == 0 && physical.mappings == 0 {
            let charge = physical.charge;
            self.physical.remove(&handle);
            self.give_back(charge.device, charge.bytes);
        }
    }
}
