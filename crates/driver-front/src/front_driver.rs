//! What this crate asks of the driver behind it.

use core::ffi::c_void;
use std::sync::OnceLock;

use harp_cuda_abi::types::{CUcontext, CUdevice, CUfunction, CUmodule, CUresult};

/// How a device is known to the runtime's self-test, as the driver itself reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// As `cuDeviceGetUuid` answers.
    pub uuid: [u8; 16],
    /// Device attribute 50.
    pub pci_domain: i32,
    /// Device attribute 33.
    pub pci_bus: i32,
    /// Device attribute 34.
    pub pci_device: i32,
}

/// The driver that answers what the shared front cannot.
pub trait FrontDriver: Sync {
    /// What `cuDriverGetVersion` answers.
    fn driver_version(&self) -> i32;

    /// Every device in the order of `cuDeviceGet`.
    fn devices(&self) -> Vec<DeviceIdentity>;

    /// The handle of a device's primary context, without retaining or activating it.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_DEVICE` where there is no such device.
    fn primary_context(&self, device: CUdevice) -> Result<CUcontext, CUresult>;

    /// The number that `cuCtxGetId` answers: unique, not zero.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_CONTEXT` where the handle is not a live context.
    fn context_id(&self, context: CUcontext) -> Result<u64, CUresult>;

    /// Loads what a fatbin wrapper or bare image points at into the current context.
    ///
    /// # Errors
    /// The codes of `cuModuleLoadData`.
    fn load_image(&self, image: *const c_void) -> Result<CUmodule, CUresult>;

    /// The functions of a loaded module.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where the handle is not a live module.
    fn module_functions(&self, module: CUmodule) -> Result<Vec<CUfunction>, CUresult>;
}

static DRIVER: OnceLock<&'static dyn FrontDriver> = OnceLock::new();

/// Registers the driver behind this front; the first registration stays.
pub fn install(driver: &'static dyn FrontDriver) {
    let _ = DRIVER.set(driver);
}

/// The registered driver, none before [`install`].
#[cfg_attr(not(feature = "runtime-handshake"), allow(dead_code))]
pub(crate) fn driver() -> Option<&'static dyn FrontDriver> {
    DRIVER.get().copied()
}
