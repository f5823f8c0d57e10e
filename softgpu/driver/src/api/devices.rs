//! Devices and what they say about themselves.

use core::ffi::c_char;

use harp_cuda_abi::types::*;

use crate::attributes::{self, device_attribute};
use crate::call::{call, out, text, Outcome};
use crate::device::{device, devices, Device, NAME};
use crate::handles::handle_of;
use crate::memory::pool::MemoryPool;
use crate::settings::settings;

pub unsafe fn cuDeviceGet(handle: *mut CUdevice, ordinal: i32) -> CUresult {
    call(|| {
        let handle = out(handle)?;
        handle.set(device(ordinal)?.ordinal);
        Ok(())
    })
}

pub unsafe fn cuDeviceGetCount(count: *mut i32) -> CUresult {
    call(|| {
        let count = out(count)?;
        count.set(devices()?.len() as i32);
        Ok(())
    })
}

pub unsafe fn cuDeviceGetName(name: *mut c_char, len: i32, dev: CUdevice) -> CUresult {
    call(|| {
        device(dev)?;
        unsafe { store_text(NAME, name, len) }
    })
}

/// Stores as much of `text` as fits, with its NUL.
unsafe fn store_text(text: &str, to: *mut c_char, len: i32) -> Outcome {
    let room = usize::try_from(len).ok().and_then(|len| len.checked_sub(1));
    let room = room
        .filter(|_| !to.is_null())
        .ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let length = text.len().min(room);
    unsafe {
        to.copy_from_nonoverlapping(text.as_ptr().cast(), length);
        *to.add(length) = 0;
    }
    Ok(())
}

pub unsafe fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice) -> CUresult {
    call(|| {
        let uuid = out(uuid)?;
        uuid.set(CUuuid {
            bytes: device(dev)?.uuid().map(|byte| byte as c_char),
        });
        Ok(())
    })
}

pub unsafe fn cuDeviceTotalMem(bytes: *mut u32, dev: CUdevice) -> CUresult {
    call(|| {
        let bytes = out(bytes)?;
        let (_, total) = device(dev)?.heap.info();
        bytes.set(u32::try_from(total).unwrap_or(u32::MAX));
        Ok(())
    })
}

pub unsafe fn cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice) -> CUresult {
    call(|| {
        let bytes = out(bytes)?;
        let (_, total) = device(dev)?.heap.info();
        bytes.set(total as usize);
        Ok(())
    })
}

pub unsafe fn cuDeviceGetAttribute(
    value: *mut i32,
    attribute: CUdevice_attribute,
    dev: CUdevice,
) -> CUresult {
    call(|| {
        let value = out(value)?;
        let device = device(dev)?;
        value.set(device_attribute(device, attribute).ok_or(CUDA_ERROR_INVALID_VALUE)?);
        Ok(())
    })
}

pub unsafe fn cuDeviceGetProperties(properties: *mut CUdevprop, dev: CUdevice) -> CUresult {
    call(|| {
        let properties = out(properties)?;
        device(dev)?;
        properties.set(CUdevprop {
            maxThreadsPerBlock: attributes::THREADS_PER_BLOCK as i32,
            maxThreadsDim: attributes::BLOCK_DIMS.map(|limit| limit as i32),
            maxGridSize: attributes::GRID_DIMS.map(|limit| limit as i32),
            sharedMemPerBlock: attributes::SHARED_PER_BLOCK as i32,
            totalConstantMemory: attributes::CONSTANT_MEMORY as i32,
            SIMDWidth: attributes::WARP as i32,
            memPitch: attributes::MAX_PITCH as i32,
            regsPerBlock: attributes::REGISTERS as i32,
            clockRate: attributes::CLOCK_KHZ,
            textureAlign: attributes::TEXTURE_ALIGNMENT as i32,
        });
        Ok(())
    })
}

pub unsafe fn cuDeviceComputeCapability(
    major: *mut i32,
    minor: *mut i32,
    dev: CUdevice,
) -> CUresult {
    call(|| {
        let (major, minor) = (out(major)?, out(minor)?);
        device(dev)?;
        major.set(settings().compute_capability.0);
        minor.set(settings().compute_capability.1);
        Ok(())
    })
}

fn bus_id(dev: CUdevice) -> Outcome<String> {
    let identity = device(dev)?.identity();
    let (domain, bus, slot) = (identity.pci_domain, identity.pci_bus, identity.pci_device);
    Ok(format!("{domain:04x}:{bus:02x}:{slot:02x}.0"))
}

pub unsafe fn cuDeviceGetPCIBusId(id: *mut c_char, len: i32, dev: CUdevice) -> CUresult {
    call(|| {
        let full = bus_id(dev)?;
        unsafe { store_text(&full, id, len)? };
        if full.len() < len as usize {
            Ok(())
        } else {
            Err(CUDA_ERROR_INVALID_VALUE)
        }
    })
}

pub unsafe fn cuDeviceGetByPCIBusId(dev: *mut CUdevice, id: *const c_char) -> CUresult {
    call(|| {
        let dev = out(dev)?;
        let wanted = unsafe { text(id)? }.to_ascii_lowercase();
        // Domain and function may be left out.
        let names = |full: &str| {
            let short = full.strip_prefix("0000:").unwrap_or(full);
            [full, short]
                .iter()
                .any(|name| *name == wanted || name.strip_suffix(".0") == Some(wanted.as_str()))
        };
        let found = devices()?
            .iter()
            .find(|device| bus_id(device.ordinal).is_ok_and(|full| names(&full)))
            .ok_or(CUDA_ERROR_INVALID_DEVICE)?;
        dev.set(found.ordinal);
        Ok(())
    })
}

/// Memory of one soft device is not visible to kernels of another.
pub unsafe fn cuDeviceCanAccessPeer(can: *mut i32, dev: CUdevice, peer: CUdevice) -> CUresult {
    call(|| {
        let can = out(can)?;
        device(dev)?;
        device(peer)?;
        can.set(0);
        Ok(())
    })
}

pub unsafe fn cuDeviceGetP2PAttribute(
    value: *mut i32,
    attribute: CUdevice_P2PAttribute,
    source: CUdevice,
    destination: CUdevice,
) -> CUresult {
    call(|| {
        let value = out(value)?;
        device(source)?;
        device(destination)?;
        let known = CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK
            ..=CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED;
        if source == destination {
            return Err(CUDA_ERROR_INVALID_DEVICE);
        }
        if !known.contains(&attribute) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        value.set(0);
        Ok(())
    })
}

pub unsafe fn cuDeviceGetExecAffinitySupport(
    supported: *mut i32,
    _type: CUexecAffinityType,
    dev: CUdevice,
) -> CUresult {
    call(|| {
        let supported = out(supported)?;
        device(dev)?;
        supported.set(0);
        Ok(())
    })
}

pub unsafe fn cuDeviceGetTexture1DLinearMaxWidth(
    width: *mut usize,
    _format: CUarray_format,
    channels: u32,
    dev: CUdevice,
) -> CUresult {
    call(|| {
        let width = out(width)?;
        device(dev)?;
        if !matches!(channels, 1 | 2 | 4) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        const ELEMENTS: usize = 268_435_456;
        width.set(ELEMENTS / channels as usize);
        Ok(())
    })
}

/// The device that a location names.
pub(super) fn device_at(location: &CUmemLocation) -> Outcome<&'static Device> {
    match location.type_ {
        CU_MEM_LOCATION_TYPE_DEVICE => device(unsafe { location.anonymous.id }),
        CU_MEM_LOCATION_TYPE_HOST
        | CU_MEM_LOCATION_TYPE_HOST_NUMA
        | CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT => Err(CUDA_ERROR_NOT_SUPPORTED),
        _ => Err(CUDA_ERROR_INVALID_VALUE),
    }
}

pub unsafe fn cuDeviceGetDefaultMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> CUresult {
    call(|| {
        let pool = out(pool)?;
        pool.set(handle_of(&device(dev)?.default_pool()));
        Ok(())
    })
}

pub unsafe fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice) -> CUresult {
    call(|| {
        let pool = out(pool)?;
        pool.set(handle_of(&device(dev)?.current_pool()));
        Ok(())
    })
}

pub unsafe fn cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool) -> CUresult {
    call(|| {
        let (device, pool) = (device(dev)?, MemoryPool::get(pool)?);
        if !pool.is_of(device) {
            return Err(CUDA_ERROR_INVALID_DEVICE);
        }
        device.set_current_pool(Some(pool));
        Ok(())
    })
}

/// Nothing else writes to device memory: there is nothing to flush.
pub unsafe fn cuFlushGPUDirectRDMAWrites(
    _target: CUflushGPUDirectRDMAWritesTarget,
    _scope: CUflushGPUDirectRDMAWritesScope,
) -> CUresult {
    call(|| crate::context::Context::current().map(drop))
}
