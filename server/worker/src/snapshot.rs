//! What a client is told about the devices when it is let in, so that it need not ask: JSON in the welcome.

use std::collections::BTreeMap;
use std::ffi::{c_char, CStr};

use harp_cuda_abi::errors::error_name;
use harp_cuda_abi::types::{CUdevice, CUresult, CUuuid, CU_DEVICE_ATTRIBUTE_MAX};
use serde::Serialize;

use crate::generated::driver::Driver;

/// What the soft GPU calls its devices.
const SOFT_NAME: &str = "HARP Soft GPU";

/// Where the soft GPU's device memory lies: a window of this size for each device, from this address on.
const SOFT_FIRST_WINDOW: u64 = 0x2000_0000_0000;
const SOFT_WINDOW_BYTES: u64 = 1 << 40;

/// The devices of this worker.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    /// As `cuDriverGetVersion` says: 1000 × major + 10 × minor.
    pub driver_version: i32,
    pub devices: Vec<Device>,
    /// Whether kernels are executed by the soft GPU.
    pub soft: bool,
}

#[derive(Debug, Serialize)]
pub struct Device {
    name: String,
    /// 32 hexadecimal digits.
    uuid: String,
    total_memory: u64,
    pci_bus_id: String,
    /// `CUdevice_attribute` to value, of those that the driver knows.
    attributes: BTreeMap<u32, i32>,
    /// First address and size of the range that all device addresses lie in, where there is such a range.
    window: Option<(u64, u64)>,
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
    let soft = devices.iter().any(|device| device.window.is_some());
    Ok(Snapshot {
        driver_version,
        devices,
        soft,
    })
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
        (
            SOFT_FIRST_WINDOW + ordinal as u64 * SOFT_WINDOW_BYTES,
            SOFT_WINDOW_BYTES,
        )
    });
    Ok(Device {
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

/// Makes the first device's primary context, so that no client has to wait for that.
pub fn prepare(driver: &Driver) -> Result<(), String> {
    let mut context = std::ptr::null_mut();
    // SAFETY: the pointer is to a live variable.
    let status = unsafe { (driver.cuDevicePrimaryCtxRetain)(&mut context, 0) };
    check("cuDevicePrimaryCtxRetain", status)
}
