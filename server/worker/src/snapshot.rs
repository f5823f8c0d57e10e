//! What a client is told about the devices when it is let in, so that it need not ask: JSON in the welcome.

use std::collections::BTreeMap;
use std::ffi::{c_char, CStr};
use std::ops::Range;

use harp_cuda_abi::errors::error_name;
use harp_cuda_abi::types::{CUcontext, CUdevice, CUresult, CUuuid, CU_DEVICE_ATTRIBUTE_MAX};
use harp_wire::windows;
use serde::Serialize;

use crate::address_space::AddressSpace;
use crate::generated::driver::Driver;

/// Bytes of device memory that a client gets with a context.
const CREDIT: u64 = 4 << 20;

/// What the soft GPU calls its devices.
const SOFT_NAME: &str = "HARP Soft GPU";

/// The devices of this worker.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// As `cuDriverGetVersion` says: 1000 × major + 10 × minor.
    pub driver_version: i32,
    pub devices: Vec<Device>,
    /// Whether kernels are executed by the soft GPU.
    pub soft: bool,
    /// The worker knows `harp_describe`, `harp_event_watch` and `cuFuncLoad`.
    describes: bool,
    watches_events: bool,
    loads_functions: bool,
    /// What is left of this process's addresses, where it was made less for the driver.
    #[serde(skip)]
    space: Option<AddressSpace>,
}

#[derive(Debug, Serialize)]
pub struct Device {
    /// The driver's number for it.
    #[serde(skip)]
    ordinal: CUdevice,
    name: String,
    /// 32 hexadecimal digits.
    uuid: String,
    total_memory: u64,
    pci_bus_id: String,
    /// `CUdevice_attribute` to value, of those that the driver knows.
    attributes: BTreeMap<u32, i32>,
    /// First address and size of the range that the device's addresses lie in, where there is such a range. Devices of
    /// NVIDIA's driver have theirs in common: an address may lie in that of another device of the server.
    window: Option<(u64, u64)>,
    /// Its primary context is there: the client's first retain cannot fail.
    context_ready: bool,
    /// First address and bytes of memory that is allocated there already, for the client to cut small allocations from.
    credit: Option<(u64, u64)>,
}

/// Initialises the driver and asks it for everything. `Err` names the call that failed.
pub fn take(driver: &Driver) -> Result<Snapshot, String> {
    let (mut driver_version, mut count) = (0, 0);
    // SAFETY: the pointers are to live variables.
    unsafe {
        check("cuInit", (driver.cuInit)(0))?;
        check(
            "cuDriverGetVersion",
            (driver.cuDriverGetVersion)(&mut driver_version),
        )?;
        check("cuDeviceGetCount", (driver.cuDeviceGetCount)(&mut count))?;
    }
    let devices = (0..count)
        .map(|i| device(driver, i))
        .collect::<Result<Vec<_>, _>>()?;
    let soft = devices.iter().any(|device| device.name == SOFT_NAME);
    Ok(Snapshot {
        driver_version,
        devices,
        soft,
        describes: true,
        watches_events: true,
        loads_functions: true,
        space: None,
    })
}

impl Snapshot {
    /// Keeps those of the driver's devices that an assignment names, in its order; all where it names none.
    ///
    /// # Errors
    /// A sentence, where there is no such device or it is named twice.
    pub fn assign(&mut self, ordinals: Option<&[usize]>) -> Result<(), String> {
        let Some(ordinals) = ordinals else {
            return Ok(());
        };
        let mut all: Vec<_> = self.devices.drain(..).map(Some).collect();
        let take = |ordinal: &usize| {
            let device = all.get_mut(*ordinal).and_then(Option::take);
            device.ok_or_else(|| format!("there is no device {ordinal} here, or it is named twice"))
        };
        self.devices = ordinals.iter().map(take).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The driver's numbers of the devices, in the order of the session's.
    pub fn ordinals(&self) -> Vec<CUdevice> {
        self.devices.iter().map(|device| device.ordinal).collect()
    }

    /// Has all devices' addresses lie in windows, if that can be: a soft GPU's lie there from the start, and NVIDIA's
    /// driver is left no others.
    pub fn keep_to_windows(&mut self) {
        if self.soft || self.devices.is_empty() {
            return;
        }
        let wanted = self.windows(windows::REGION.start);
        // Without it the addresses are where the driver likes, and a program cannot use several servers' devices.
        if let Ok(space) = AddressSpace::keep_to(wanted.clone()) {
            self.space = Some(space);
            self.put_windows(wanted.start);
        }
    }

    /// Has the devices' addresses start at `first`, as the client wishes, if that can be. Where they are afterwards is
    /// in the snapshot.
    pub fn place_windows(&mut self, driver: &Driver, first: u64) {
        let soft = self.soft;
        self.end_contexts(driver);
        self.place(first, |space, wanted| match space {
            Some(space) => space.move_to(wanted).is_ok(),
            None => soft && driver.move_windows(first) == 0,
        });
    }

    /// Makes the first device's primary context, so that no client has to wait for that.
    pub fn prepare(&mut self, driver: &Driver) -> Result<(), String> {
        let first = self.devices.iter_mut().find(|device| device.ordinal == 0);
        first.map_or(Ok(()), |device| device.make_context(driver))
    }

    /// Makes the primary contexts of soft devices, which cost nothing, once their memory lies where it will.
    pub fn make_soft_contexts(&mut self, driver: &Driver) {
        for device in self.devices.iter_mut().filter(|_| self.soft) {
            // Where there is none the client hears why when it asks for it.
            let _ = device.make_context(driver);
        }
    }

    /// Ends the contexts that are there: their memory lies where it lies.
    fn end_contexts(&mut self, driver: &Driver) {
        for device in &mut self.devices {
            device.credit = None;
            if std::mem::take(&mut device.context_ready) {
                // SAFETY: nobody has been given the context yet.
                unsafe { (driver.cuDevicePrimaryCtxRelease_v2)(device.ordinal) };
            }
        }
    }

    /// The driver's numbers of the devices whose primary contexts are there.
    pub fn with_contexts(&self) -> Vec<CUdevice> {
        let ready = self.devices.iter().filter(|device| device.context_ready);
        ready.map(|device| device.ordinal).collect()
    }

    fn place(
        &mut self,
        first: u64,
        moved: impl FnOnce(Option<&mut AddressSpace>, Range<u64>) -> bool,
    ) {
        let wanted = self.windows(first);
        if windows::is_place(first, self.places()) && moved(self.space.as_mut(), wanted) {
            self.put_windows(first);
        }
    }

    /// Windows that the devices take: a device's place among them is its number.
    fn places(&self) -> usize {
        let last = self.devices.iter().map(|device| device.ordinal).max();
        last.map_or(0, |last| last as usize + 1)
    }

    fn windows(&self, first: u64) -> Range<u64> {
        first..first.saturating_add(self.places() as u64 * windows::SIZE)
    }

    fn put_windows(&mut self, first: u64) {
        for device in &mut self.devices {
            let base = first + device.ordinal as u64 * windows::SIZE;
            device.window = Some((base, windows::SIZE));
        }
    }
}

fn device(driver: &Driver, ordinal: i32) -> Result<Device, String> {
    let mut handle: CUdevice = 0;
    let mut name = [0; 256];
    let mut bus = [0; 64];
    let mut total_memory = 0;
    // SAFETY: the pointers are to live variables, with their sizes where the driver asks for one; a uuid is bytes.
    let uuid: CUuuid = unsafe {
        let mut uuid = std::mem::zeroed();
        check("cuDeviceGet", (driver.cuDeviceGet)(&mut handle, ordinal))?;
        let (text, size) = (name.as_mut_ptr(), name.len() as i32);
        check(
            "cuDeviceGetName",
            (driver.cuDeviceGetName)(text, size, handle),
        )?;
        let (text, size) = (bus.as_mut_ptr(), bus.len() as i32);
        check(
            "cuDeviceGetPCIBusId",
            (driver.cuDeviceGetPCIBusId)(text, size, handle),
        )?;
        check(
            "cuDeviceGetUuid",
            (driver.cuDeviceGetUuid_v2)(&mut uuid, handle),
        )?;
        check(
            "cuDeviceTotalMem",
            (driver.cuDeviceTotalMem_v2)(&mut total_memory, handle),
        )?;
        uuid
    };
    let name = text(&name);
    let window = (name == SOFT_NAME).then(|| {
        let below = ordinal as u64 * windows::SIZE;
        (windows::REGION.start + below, windows::SIZE)
    });
    Ok(Device {
        ordinal: handle,
        name,
        uuid: uuid
            .bytes
            .iter()
            .map(|byte| format!("{:02x}", *byte as u8))
            .collect(),
        total_memory: total_memory as u64,
        pci_bus_id: text(&bus),
        attributes: attributes(driver, handle),
        window,
        context_ready: false,
        credit: None,
    })
}

fn attributes(driver: &Driver, device: CUdevice) -> BTreeMap<u32, i32> {
    let value_of = |attribute| {
        let mut value = 0;
        // SAFETY: the pointer is to a live variable.
        match unsafe { (driver.cuDeviceGetAttribute)(&mut value, attribute, device) } {
            0 => Some((attribute, value)),
            _ => None,
        }
    };
    (1..CU_DEVICE_ATTRIBUTE_MAX).filter_map(value_of).collect()
}

fn text(buffer: &[c_char]) -> String {
    // SAFETY: c_char is a byte.
    let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), buffer.len()) };
    let text = CStr::from_bytes_until_nul(bytes).unwrap_or_default();
    text.to_string_lossy().into_owned()
}

fn check(call: &str, status: CUresult) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    let name = error_name(status).map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    Err(format!("{call} failed with {status} {name}"))
}

/// Allocates memory in a context ahead of need, if it can be had.
fn credit(driver: &Driver, context: CUcontext) -> Option<(u64, u64)> {
    let mut address = 0;
    // SAFETY: a live context, and a pointer to a live variable.
    let status = unsafe {
        (driver.cuCtxSetCurrent)(context);
        let status = (driver.cuMemAlloc_v2)(&mut address, CREDIT as usize);
        (driver.cuCtxSetCurrent)(std::ptr::null_mut());
        status
    };
    (status == 0).then_some((address, CREDIT))
}

impl Device {
    /// Makes the primary context, if it is not there.
    fn make_context(&mut self, driver: &Driver) -> Result<(), String> {
        if self.context_ready {
            return Ok(());
        }
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is to a live variable.
        let status = unsafe { (driver.cuDevicePrimaryCtxRetain)(&mut context, self.ordinal) };
        check("cuDevicePrimaryCtxRetain", status)?;
        self.context_ready = true;
        self.credit = credit(driver, context);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soft(count: i32) -> Snapshot {
        let device = |ordinal| Device {
            ordinal,
            name: SOFT_NAME.to_owned(),
            uuid: String::new(),
            total_memory: 0,
            pci_bus_id: String::new(),
            attributes: BTreeMap::new(),
            window: Some((
                windows::REGION.start + ordinal as u64 * windows::SIZE,
                windows::SIZE,
            )),
            context_ready: false,
            credit: None,
        };
        Snapshot {
            driver_version: 13000,
            devices: (0..count).map(device).collect(),
            soft: true,
            describes: true,
            watches_events: true,
            loads_functions: true,
            space: None,
        }
    }

    #[test]
    fn an_assignment_chooses_devices_in_its_order() {
        let mut snapshot = soft(4);
        snapshot.assign(Some(&[3, 1])).unwrap();
        assert_eq!(snapshot.ordinals(), [3, 1]);
        assert!(soft(2)
            .assign(Some(&[2]))
            .unwrap_err()
            .contains("no device 2"));
        assert!(soft(2).assign(Some(&[1, 1])).is_err());
        let mut all = soft(2);
        all.assign(None).unwrap();
        assert_eq!(all.ordinals(), [0, 1]);
    }

    #[test]
    fn windows_move_whole_or_not_at_all() {
        let bases = |first, moved| {
            let mut snapshot = soft(3);
            snapshot.assign(Some(&[2, 0])).unwrap();
            snapshot.place(first, |_, wanted| {
                assert_eq!(wanted, first..first + 3 * windows::SIZE);
                moved
            });
            let base = |device: &Device| device.window.unwrap().0 / windows::SIZE;
            snapshot.devices.iter().map(base).collect::<Vec<_>>()
        };
        assert_eq!(bases(40 * windows::SIZE, true), [42, 40]);
        assert_eq!(bases(40 * windows::SIZE, false), [34, 32]);
        assert_eq!(
            bases(62 * windows::SIZE, true),
            [34, 32],
            "the third would lie outside"
        );
    }
}
