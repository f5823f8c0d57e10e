//! Kernel launches and questions about clusters.

use std::ffi::c_void;
use std::mem::{self, MaybeUninit};

use harp_cuda_abi::launch::holds_numbers;
use harp_cuda_abi::types::*;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder};

use super::code::layout;
use super::live;
use crate::session::{Session, Violation};

/// The call that most programs make most often. Nothing here allocates, locks or asks the driver twice.
pub fn cuLaunchKernel(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLaunchKernelArgs::decode(d)?;
    let function = live!(cx.handles.get_function(args.function));
    let stream: CUstream = live!(cx.handles.get_stream(args.stream));
    let ([gx, gy, gz], [bx, by, bz]) = (args.grid, args.block);
    let parameters = lay_out(cx, args.function, function, args.params)?;
    let (driver, shared) = (cx.driver, args.shared_bytes);
    // SAFETY: see the module; `parameters` points to as many bytes for each parameter as the driver said it has.
    Ok(unsafe {
        if args.cooperative == 0 {
            let none = std::ptr::null_mut();
            (driver.cuLaunchKernel)(
                function, gx, gy, gz, bx, by, bz, shared, stream, parameters, none,
            )
        } else {
            (driver.cuLaunchCooperativeKernel)(
                function, gx, gy, gz, bx, by, bz, shared, stream, parameters,
            )
        }
    })
}

/// Pointers to each parameter in `packed`, by the function's layout.
// Entered and left as a function it would take a third longer.
#[inline(always)]
fn lay_out(
    cx: &mut Session,
    id: u64,
    function: CUfunction,
    packed: &[u8],
) -> Result<*mut *mut c_void, Violation> {
    loop {
        if let Some(parameters) = cx.handles.layouts.get(&id) {
            cx.parameters.clear();
            for parameter in &**parameters {
                let (offset, size) = (parameter.offset as usize, parameter.size as usize);
                let bytes = packed
                    .get(offset..offset + size)
                    .ok_or_else(|| too_short(packed, id))?;
                cx.parameters.push(bytes.as_ptr().cast_mut().cast());
            }
            return Ok(cx.parameters.as_mut_ptr());
        }
        layout(cx, id, function);
    }
}

#[cold]
fn too_short(packed: &[u8], id: u64) -> Violation {
    Violation::new(format!(
        "{} bytes of parameters for {id:#x}, which has more",
        packed.len()
    ))
}

pub fn cuLaunchKernelEx(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLaunchKernelExArgs::decode(d)?;
    let function = live!(cx.handles.get_function(args.function));
    let stream: CUstream = live!(cx.handles.get_stream(args.stream));
    let mut attributes = launch_attributes(args.attributes)?;
    let parameters = lay_out(cx, args.function, function, args.params)?;
    let mut config = launch_config(args.grid, args.block, args.shared_bytes, &mut attributes);
    config.hStream = stream;
    // SAFETY: see the module.
    Ok(
        unsafe {
            (cx.driver.cuLaunchKernelEx)(&config, function, parameters, std::ptr::null_mut())
        },
    )
}

pub fn cuOccupancyMaxActiveClusters(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuOccupancyMaxActiveClustersArgs::decode(d)?;
    let function = live!(cx.handles.get_function(args.function));
    let mut cluster = cluster_attribute(args.cluster);
    let config = launch_config(
        args.grid,
        args.block,
        args.shared_bytes as u32,
        &mut cluster,
    );
    let mut clusters = 0;
    // SAFETY: see the module.
    let status =
        unsafe { (cx.driver.cuOccupancyMaxActiveClusters)(&mut clusters, function, &config) };
    encode_cuOccupancyMaxActiveClusters_reply(out, clusters);
    Ok(status)
}

pub fn cuOccupancyMaxPotentialClusterSize(
    d: &mut Decoder,
    cx: &mut Session,
    out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuOccupancyMaxPotentialClusterSizeArgs::decode(d)?;
    let function = live!(cx.handles.get_function(args.function));
    let mut cluster = cluster_attribute(args.cluster);
    let config = launch_config(
        args.grid,
        args.block,
        args.shared_bytes as u32,
        &mut cluster,
    );
    let mut size = 0;
    // SAFETY: see the module.
    let status =
        unsafe { (cx.driver.cuOccupancyMaxPotentialClusterSize)(&mut size, function, &config) };
    encode_cuOccupancyMaxPotentialClusterSize_reply(out, size);
    Ok(status)
}

fn launch_config(
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    attributes: &mut [CUlaunchAttribute],
) -> CUlaunchConfig {
    CUlaunchConfig {
        gridDimX: grid[0],
        gridDimY: grid[1],
        gridDimZ: grid[2],
        blockDimX: block[0],
        blockDimY: block[1],
        blockDimZ: block[2],
        sharedMemBytes: shared_bytes,
        hStream: std::ptr::null_mut(),
        attrs: attributes.as_mut_ptr(),
        numAttrs: attributes.len() as u32,
    }
}

/// The attribute that gives clusters this size; none for zeros, where the launch says nothing of clusters.
fn cluster_attribute([x, y, z]: [u32; 3]) -> Vec<CUlaunchAttribute> {
    if [x, y, z] == [0; 3] {
        return Vec::new();
    }
    // SAFETY: numbers.
    let mut attribute: CUlaunchAttribute = unsafe { MaybeUninit::zeroed().assume_init() };
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = CUlaunchAttributeValue_clusterDim { x, y, z };
    vec![attribute]
}

/// Launch attributes as they lie in the client's memory, of kinds that hold numbers and device addresses only.
fn launch_attributes(bytes: &[u8]) -> Result<Vec<CUlaunchAttribute>, Violation> {
    const SIZE: usize = mem::size_of::<CUlaunchAttribute>();
    if !bytes.len().is_multiple_of(SIZE) {
        return Err(Violation::new(format!(
            "launch attributes of {} bytes",
            bytes.len()
        )));
    }
    let attributes: Vec<CUlaunchAttribute> = bytes
        .chunks_exact(SIZE)
        // SAFETY: as many bytes as the structure has, any of which are valid numbers.
        .map(|one| unsafe { one.as_ptr().cast::<CUlaunchAttribute>().read_unaligned() })
        .collect();
    match attributes.iter().find(|one| !holds_numbers(one.id)) {
        Some(other) => Err(Violation::new(format!(
            "a launch attribute of kind {}",
            other.id
        ))),
        None => Ok(attributes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(id: u32) -> Vec<u8> {
        let mut bytes = vec![0; mem::size_of::<CUlaunchAttribute>()];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        bytes
    }

    #[test]
    fn attributes_with_handles_or_pointers_are_violations() {
        let good = [attribute(CU_LAUNCH_ATTRIBUTE_COOPERATIVE), attribute(8)].concat();
        assert_eq!(launch_attributes(&good).unwrap().len(), 2);
        assert!(launch_attributes(&good[1..]).is_err());
        assert!(launch_attributes(&attribute(CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT)).is_err());
        assert!(launch_attributes(&attribute(4711)).is_err());
    }
}
