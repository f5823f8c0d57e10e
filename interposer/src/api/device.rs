//! Devices: every answer comes from the snapshots that the servers sent when the sessions began.

use std::ffi::{c_char, c_int, c_uint, CStr};

use harp_cuda_abi::types::*;

use super::outputs::{put, put_text};
use crate::session::snapshot::Device;
use crate::session::{sessions, Sessions};

/// A device by the number the program uses.
pub fn device(sessions: &'static Sessions, number: CUdevice) -> Result<&'static Device, CUresult> {
    usize::try_from(number)
        .ok()
        .and_then(|index| sessions.devices.get(index))
        .ok_or(CUDA_ERROR_INVALID_DEVICE)
}

fn with_device(number: CUdevice, act: impl FnOnce(&'static Device) -> CUresult) -> CUresult {
    match sessions().and_then(|sessions| device(sessions, number)) {
        Ok(device) => act(device),
        Err(code) => code,
    }
}

pub unsafe fn cuDeviceGetCount(count: *mut c_int) -> CUresult {
    match sessions() {
        Ok(sessions) => unsafe { put(count, sessions.devices.len() as c_int) },
        Err(code) => code,
    }
}

pub unsafe fn cuDeviceGet(number: *mut CUdevice, ordinal: c_int) -> CUresult {
    with_device(ordinal, |_| unsafe { put(number, ordinal) })
}

pub unsafe fn cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice) -> CUresult {
    with_device(dev, |device| unsafe { put_text(name, len, &device.name) })
}

pub unsafe fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> CUresult {
    with_device(dev, |device| unsafe {
        put(bytes, device.total_memory as usize)
    })
}

pub unsafe fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: CUdevice_attribute,
    dev: CUdevice,
) -> CUresult {
    with_device(dev, |device| match device.attribute(attribute as i32) {
        Some(known) => unsafe { put(value, known) },
        None => CUDA_ERROR_INVALID_VALUE,
    })
}

pub unsafe fn cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice) -> CUresult {
    with_device(dev, |device| unsafe {
        put(uuid.cast::<[u8; 16]>(), device.uuid)
    })
}

pub unsafe fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) -> CUresult {
    unsafe { cuDeviceGetUuid(uuid, dev) }
}

pub unsafe fn cuDeviceGetLuid(
    luid: *mut c_char,
    node_mask: *mut c_uint,
    dev: CUdevice,
) -> CUresult {
    // A LUID exists on Windows only; Linux drivers answer so.
    let _ = (luid, node_mask);
    with_device(dev, |_| CUDA_ERROR_NOT_SUPPORTED)
}

pub unsafe fn cuDeviceGetPCIBusId(text: *mut c_char, len: c_int, dev: CUdevice) -> CUresult {
    with_device(dev, |device| {
        match unsafe { put_text(text, len, &device.pci_bus_id) } {
            CUDA_SUCCESS if device.pci_bus_id.len() >= len as usize => CUDA_ERROR_INVALID_VALUE,
            status => status,
        }
    })
}

pub unsafe fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, text: *const c_char) -> CUresult {
    if text.is_null() {
        return CUDA_ERROR_INVALID_VALUE;
    }
    let sessions = match sessions() {
        Ok(sessions) => sessions,
        Err(code) => return code,
    };
    // SAFETY: the caller passes a C string.
    let wanted = unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .to_lowercase();
    let found = sessions.devices.iter().position(|device| {
        let full = device.pci_bus_id.to_lowercase();
        // The domain and the function may be left out.
        full == wanted
            || full.trim_end_matches(".0") == wanted
            || full
                .split_once(':')
                .is_some_and(|(_, rest)| rest == wanted || rest.trim_end_matches(".0") == wanted)
    });
    match found {
        Some(index) => unsafe { put(dev, index as CUdevice) },
        None => CUDA_ERROR_INVALID_DEVICE,
    }
}

pub unsafe fn cuDeviceComputeCapability(
    major: *mut c_int,
    minor: *mut c_int,
    dev: CUdevice,
) -> CUresult {
    with_device(dev, |device| {
        let part = |attribute| device.attribute(attribute as i32).unwrap_or(0);
        let status = unsafe { put(major, part(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)) };
        if status != CUDA_SUCCESS {
            return status;
        }
        unsafe { put(minor, part(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)) }
    })
}

pub unsafe fn cuDeviceGetProperties(properties: *mut CUdevprop, dev: CUdevice) -> CUresult {
    with_device(dev, |device| {
        let get = |attribute| device.attribute(attribute as i32).unwrap_or(0);
        let known = CUdevprop {
            maxThreadsPerBlock: get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK),
            maxThreadsDim: [
                get(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X),
                get(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y),
                get(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z),
            ],
            maxGridSize: [
                get(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X),
                get(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y),
                get(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z),
            ],
            sharedMemPerBlock: get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK),
            totalConstantMemory: get(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY),
            SIMDWidth: get(CU_DEVICE_ATTRIBUTE_WARP_SIZE),
            memPitch: get(CU_DEVICE_ATTRIBUTE_MAX_PITCH),
            regsPerBlock: get(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK),
            clockRate: get(CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
            textureAlign: get(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT),
        };
        unsafe { put(properties, known) }
    })
}

pub unsafe fn cuDeviceCanAccessPeer(can: *mut c_int, dev: CUdevice, peer: CUdevice) -> CUresult {
    // Copies between devices are mediated; kernels never reach a peer's memory.
    with_device(dev, |_| with_device(peer, |_| unsafe { put(can, 0) }))
}

pub unsafe fn cuDeviceGetP2PAttribute(
    value: *mut c_int,
    attribute: CUdevice_P2PAttribute,
    source: CUdevice,
    destination: CUdevice,
) -> CUresult {
    let _ = attribute;
    if source == destination {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    with_device(source, |_| {
        with_device(destination, |_| unsafe { put(value, 0) })
    })
}

pub unsafe fn cuDeviceGetExecAffinitySupport(
    supported: *mut c_int,
    kind: CUexecAffinityType,
    dev: CUdevice,
) -> CUresult {
    let _ = kind;
    with_device(dev, |_| unsafe { put(supported, 0) })
}

pub unsafe fn cuDriverGetVersion(version: *mut c_int) -> CUresult {
    // CUDA answers this before cuInit and without a device; without a server the failure is told
    // by cuInit, which programs check.
    const WITHOUT_SERVER: c_int = 13000;
    let known = match crate::session::begun() {
        Some(sessions) => Ok(sessions),
        None => crate::session::connected(),
    };
    let known = known.map_or(WITHOUT_SERVER, |sessions| sessions.driver_version);
    unsafe { put(version, known) }
}

pub unsafe fn cuInit(flags: c_uint) -> CUresult {
    if flags != 0 {
        return CUDA_ERROR_INVALID_VALUE;
    }
    match crate::session::attach_program() {
        Ok(sessions) if sessions.devices.is_empty() => CUDA_ERROR_NO_DEVICE,
        Ok(_) => {
            super::front::install();
            CUDA_SUCCESS
        }
        Err(code) => code,
    }
}
