//! Devices, and the driver that owns them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use harp_cuda_abi::types::{
    CUcontext, CUdevice, CUfunction, CUmodule, CUresult, CUDA_ERROR_INVALID_DEVICE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NO_DEVICE,
};
use harp_driver_front::{install, lifecycle, visible_devices, DeviceIdentity, FrontDriver};

use crate::call::Outcome;
use crate::context::{announce_once, Context, CONTEXTS};
use crate::execution::command::{Command, Marker, Work};
use crate::execution::queue::Queue;
use crate::faults;
use crate::memory::heap::Heap;
use crate::memory::host;
use crate::memory::pool::{MemoryPool, POOLS};
use crate::memory::window::WINDOW_SIZE;
use crate::module;
use crate::settings::settings;

/// What every soft device is called.
pub const NAME: &str = "HARP Soft GPU";

/// PCI bus number of device 0; the others follow.
const FIRST_PCI_BUS: i32 = 1;

/// One device.
pub struct Device {
    /// Its number as the program sees it.
    pub ordinal: CUdevice,
    /// Its number among all soft devices of the machine.
    place: u8,
    pub heap: Arc<Heap>,
    /// The code of the first kernel that failed on this device in this process, which keeps it: every context of the
    /// device answers it from then on, and only another process finds the device well again (as NVIDIA's driver 580
    /// behaves).
    pub fault: Arc<AtomicU32>,
    primary: OnceLock<Arc<Context>>,
    /// Keeps count of the work of other devices that uses this one's memory.
    visits: Arc<Queue>,
    pools: Mutex<DevicePools>,
}

/// The pools that asynchronous allocation uses.
#[derive(Default)]
struct DevicePools {
    default: Option<Arc<MemoryPool>>,
    current: Option<Arc<MemoryPool>>,
}

impl Device {
    /// The device's primary context.
    pub fn primary(&'static self) -> &'static Arc<Context> {
        self.primary.get_or_init(|| Context::primary_of(self))
    }

    /// Whether kernels have not failed on this device.
    ///
    /// # Errors
    /// The sticky error.
    pub fn check_fault(&self) -> Outcome {
        match self.fault.load(Ordering::Acquire) {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Takes note of work of another device that uses this one's memory, and is done at `end`.
    pub fn visited_until(&self, end: Marker) {
        self.visits.submit(Command {
            after: vec![end],
            work: Work::Order,
        });
    }

    /// Waits for all work so far that may use the device's memory: its own, and that of other devices.
    pub fn drain(&self) {
        for context in CONTEXTS.all() {
            if core::ptr::eq(context.device, self) && context.is_active() {
                context.drain();
            }
        }
        self.await_visits();
    }

    /// Waits for the work of other devices so far that uses this one's memory.
    pub fn await_visits(&self) {
        self.visits.end().wait();
    }

    /// Tells the person at the terminal what executes the kernels.
    pub fn announce(&self) {
        announce_once(NAME);
    }

    /// A number that no other device has, stable over processes.
    pub fn uuid(&self) -> [u8; 16] {
        uuid(self.place)
    }

    /// Where the device would sit on a PCI bus.
    pub fn identity(&self) -> DeviceIdentity {
        DeviceIdentity {
            uuid: self.uuid(),
            pci_domain: 0,
            pci_bus: FIRST_PCI_BUS + i32::from(self.place),
            pci_device: 0,
        }
    }

    /// The pool that the device starts with.
    pub fn default_pool(&'static self) -> Arc<MemoryPool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pools.default.get_or_insert_with(|| {
            let pool = MemoryPool::new(self, 0);
            POOLS.insert::<u8>(pool.clone());
            pool
        });
        pool.clone()
    }

    /// The pool that asynchronous allocation uses now.
    pub fn current_pool(&'static self) -> Arc<MemoryPool> {
        let current = self
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .current
            .clone();
        current.unwrap_or_else(|| self.default_pool())
    }

    /// `cuDeviceSetMemPool`; none for the default one.
    pub fn set_current_pool(&self, pool: Option<Arc<MemoryPool>>) {
        self.pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .current = pool;
    }

    /// Ends the pools when the primary context ends.
    pub fn end_pools_of(&'static self, context: &Context) {
        if context.primary {
            self.set_current_pool(None);
            let default = self.default_pool();
            for pool in POOLS.remove_where(|pool| pool.is_of(self) && !default.is(pool)) {
                pool.end();
            }
            default.end();
        }
    }
}

/// A number that no other soft device of a machine has, the same in every process.
fn uuid(place: u8) -> [u8; 16] {
    let mut uuid = *b"HARP soft GPU\0\0\0";
    uuid[15] = place;
    uuid
}

struct Driver {
    devices: Vec<Device>,
}

static DRIVER: OnceLock<Result<Driver, CUresult>> = OnceLock::new();

/// `cuInit`.
///
/// # Errors
/// `CUDA_ERROR_NO_DEVICE` where `CUDA_VISIBLE_DEVICES` selects none, `CUDA_ERROR_OUT_OF_MEMORY` where
/// the process has no addresses for the devices; as [`lifecycle::start`].
pub fn initialize() -> Outcome {
    lifecycle::starting()?;
    let driver = DRIVER.get_or_init(|| {
        faults::tell_panics();
        let settings = settings();
        let uuids: Vec<_> = (0..settings.devices)
            .map(|place| uuid(place as u8))
            .collect();
        let visible = visible_devices(settings.visible_devices.as_deref(), &uuids);
        if visible.is_empty() {
            return Err(CUDA_ERROR_NO_DEVICE);
        }
        let device = |(ordinal, place): (usize, usize)| {
            let fault: Arc<AtomicU32> = Arc::default();
            Ok(Device {
                ordinal: ordinal as CUdevice,
                place: place as u8,
                heap: Arc::new(Heap::new(place, settings.memory)?),
                fault: fault.clone(),
                primary: OnceLock::new(),
                visits: Queue::new(fault),
                pools: Mutex::default(),
            })
        };
        let devices = visible
            .into_iter()
            .enumerate()
            .map(device)
            .collect::<Outcome<_>>()?;
        Ok(Driver { devices })
    });
    if let Err(code) = driver {
        lifecycle::start_failed();
        return Err(*code);
    }
    install(&Front);
    lifecycle::start()
}

/// All devices.
///
/// # Errors
/// As for [`lifecycle::check`].
pub fn devices() -> Outcome<&'static [Device]> {
    lifecycle::check()?;
    Ok(known_devices())
}

/// Moves the windows of all devices, which have not been used yet: the first to start at `first`, each
/// other one after the one before.
///
/// # Errors
/// As [`Heap::move_window`], and then none has moved; as [`devices`].
pub fn move_windows(first: u64) -> Outcome {
    let devices = devices()?;
    let before: Vec<u64> = devices.iter().map(|device| device.heap.base()).collect();
    let wanted = devices
        .iter()
        .map(|device| u64::from(device.place) * WINDOW_SIZE);
    let wanted: Vec<u64> = wanted.map(|above| first.saturating_add(above)).collect();
    // Each goes to where another one may be, which has to have gone first.
    let mut order: Vec<usize> = (0..devices.len()).collect();
    order.sort_by_key(|index| wanted[*index]);
    if before.iter().min() < wanted.iter().min() {
        order.reverse();
    }
    for (moved, index) in order.iter().enumerate() {
        if let Err(code) = devices[*index].heap.move_window(wanted[*index]) {
            for index in order[..moved].iter().rev() {
                // There it was just now.
                let _ = devices[*index].heap.move_window(before[*index]);
            }
            return Err(code);
        }
    }
    Ok(())
}

/// All devices, none before initialisation.
pub fn known_devices() -> &'static [Device] {
    match DRIVER.get() {
        Some(Ok(driver)) => &driver.devices,
        _ => &[],
    }
}

/// A device by its ordinal.
///
/// # Errors
/// `CUDA_ERROR_INVALID_DEVICE` where there is none; as [`devices`].
pub fn device(ordinal: CUdevice) -> Outcome<&'static Device> {
    let ordinal = usize::try_from(ordinal).map_err(|_| CUDA_ERROR_INVALID_DEVICE);
    devices()?.get(ordinal?).ok_or(CUDA_ERROR_INVALID_DEVICE)
}

/// The device whose window holds `address`, whether anything is allocated there or not.
pub fn owner_of(address: u64) -> Option<&'static Device> {
    known_devices()
        .iter()
        .find(|device| device.heap.owns(address))
}

/// Checks that `length` bytes from `address` are memory that devices reach: allocated device
/// memory, page-locked memory, managed memory.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` where they are not.
pub fn check_range(address: u64, length: u64) -> Outcome {
    let reached = match owner_of(address) {
        Some(device) => device.heap.holds(address, length),
        None => host::find(address as usize).is_some_and(|range| range.holds(address, length)),
    };
    if reached {
        Ok(())
    } else {
        Err(CUDA_ERROR_INVALID_VALUE)
    }
}

/// What the shared front asks.
struct Front;

impl FrontDriver for Front {
    fn driver_version(&self) -> i32 {
        settings().driver_version
    }

    fn devices(&self) -> Vec<DeviceIdentity> {
        known_devices().iter().map(Device::identity).collect()
    }

    fn primary_context(&self, ordinal: CUdevice) -> Result<CUcontext, CUresult> {
        Ok(device(ordinal)?.primary().handle())
    }

    fn context_id(&self, context: CUcontext) -> Result<u64, CUresult> {
        Ok(Context::get(context)?.id)
    }

    fn load_image(&self, image: *const core::ffi::c_void) -> Result<CUmodule, CUresult> {
        // SAFETY: the private tables pass what a program's own code registered.
        unsafe { module::load_in_memory(image) }
    }

    fn module_functions(&self, handle: CUmodule) -> Result<Vec<CUfunction>, CUresult> {
        module::functions_of(handle)
    }
}
