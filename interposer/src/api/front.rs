//! What the shared front asks of this driver: the answers behind the runtime's private tables,
//! `cuGetProcAddress` and the error texts.

use std::ffi::{c_char, c_int, c_void};

use harp_cuda_abi::types::*;
use harp_driver_front::{DeviceIdentity, FrontDriver};

use super::{context, module, outputs};
use crate::generated::remote::address_of;
use crate::session::{connected, sessions};

struct Remote;

impl FrontDriver for Remote {
    fn driver_version(&self) -> i32 {
        connected().map_or(0, |sessions| sessions.driver_version)
    }

    fn devices(&self) -> Vec<DeviceIdentity> {
        let Ok(sessions) = sessions() else {
            return Vec::new();
        };
        sessions
            .devices
            .iter()
            .map(|device| {
                let number = |attribute| device.attribute(attribute as i32).unwrap_or(0);
                DeviceIdentity {
                    uuid: device.uuid,
                    pci_domain: number(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID),
                    pci_bus: number(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID),
                    pci_device: number(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID),
                }
            })
            .collect()
    }

    fn primary_context(&self, device: CUdevice) -> Result<CUcontext, CUresult> {
        context::primary_context(device)
    }

    fn context_id(&self, context: CUcontext) -> Result<u64, CUresult> {
        context::id_of(context)
    }

    fn load_image(&self, image: *const c_void) -> Result<CUmodule, CUresult> {
        let mut loaded = std::ptr::null_mut();
        // SAFETY: the runtime passes an image as it passes it to cuModuleLoadData.
        match unsafe { module::cuModuleLoadData(&mut loaded, image) } {
            CUDA_SUCCESS => Ok(loaded),
            code => Err(code),
        }
    }

    fn module_functions(&self, module: CUmodule) -> Result<Vec<CUfunction>, CUresult> {
        module::functions(module)
    }
}

/// Registers this driver with the front; again is harmless.
pub fn install() {
    harp_driver_front::install(&Remote);
}

pub unsafe fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: cuuint64_t,
    status: *mut CUdriverProcAddressQueryResult,
) -> CUresult {
    unsafe {
        harp_driver_front::proc_address::get_proc_address(
            symbol, function, version, flags, status, address_of,
        )
    }
}

pub unsafe fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: cuuint64_t,
) -> CUresult {
    unsafe { cuGetProcAddress_v2(symbol, function, version, flags, std::ptr::null_mut()) }
}

pub unsafe fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) -> CUresult {
    install();
    unsafe { harp_driver_front::export_table(table, id) }
}

pub unsafe fn cuGetErrorName(code: CUresult, text: *mut *const c_char) -> CUresult {
    unsafe { harp_driver_front::errors::get_error_name(code, text) }
}

pub unsafe fn cuGetErrorString(code: CUresult, text: *mut *const c_char) -> CUresult {
    unsafe { harp_driver_front::errors::get_error_string(code, text) }
}

pub unsafe fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode) -> CUresult {
    // Lazy: nothing is uploaded before its first use, unless the program asks otherwise.
    let eager = std::env::var("CUDA_MODULE_LOADING").is_ok_and(|mode| mode == "EAGER");
    unsafe {
        outputs::put(
            mode,
            if eager {
                CU_MODULE_EAGER_LOADING
            } else {
                CU_MODULE_LAZY_LOADING
            },
        )
    }
}

pub unsafe fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode) -> CUresult {
    thread_local! {
        static MODE: std::cell::Cell<CUstreamCaptureMode> =
            const { std::cell::Cell::new(CU_STREAM_CAPTURE_MODE_GLOBAL) };
    }
    if mode.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    // SAFETY: checked; the caller passes a mode to exchange.
    unsafe { *mode = MODE.replace(*mode) };
    CUDA_SUCCESS
}
