//! Kernel launches and questions about clusters.

use std::ffi::c_void;
use std::mem::{self, MaybeUninit};

use harp_cuda_abi::launch::holds_numbers;
use harp_cuda_abi::types::*;
use harp_wire::calls::*;
use harp_wire::{Decoder, Encoder, Parameter};

use super::code::layout;
use super::live;
use crate::generated::driver::Driver;
use crate::session::{HandleTable, Session, Violation};

/// What a launch is to start where, with handles looked up.
struct Launch {
    function: CUfunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: CUstream,
    is_cooperative: bool,
}

impl Launch {
    fn of(args: &CuLaunchKernelArgs, function: CUfunction, stream: CUstream) -> Launch {
        Launch {
            function,
            grid: args.grid,
            block: args.block,
            shared_bytes: args.shared_bytes,
            stream,
            is_cooperative: args.cooperative != 0,
        }
    }

    /// # Safety
    /// See the module; `parameters` points to as many bytes for each parameter as the driver said it has.
    unsafe fn make(&self, driver: &Driver, parameters: *mut *mut c_void) -> CUresult {
        let ([gx, gy, gz], [bx, by, bz]) = (self.grid, self.block);
        let (function, stream, shared) = (self.function, self.stream, self.shared_bytes);
        // SAFETY: as the caller says.
        unsafe {
            if self.is_cooperative {
                (driver.cuLaunchCooperativeKernel)(
                    function, gx, gy, gz, bx, by, bz, shared, stream, parameters,
                )
            } else {
                let none = std::ptr::null_mut();
                (driver.cuLaunchKernel)(
                    function, gx, gy, gz, bx, by, bz, shared, stream, parameters, none,
                )
            }
        }
    }
}

/// Launches in a row, all of which are read before the first is made. What a driver does for a launch and what reading
/// one takes do not fit into the processor's nearest caches together, and each finds its own there while it is repeated.
#[derive(Default)]
pub struct Launches {
    read: Vec<(Launch, usize)>,
    /// Where each parameter lies. Those of a launch begin at the place that is with it.
    parameters: Vec<*mut c_void>,
}

impl Launches {
    /// Reads another. `None` for one that takes more than the driver's launch, or is none: nothing is kept of it.
    #[inline]
    pub fn read(&mut self, handles: &mut HandleTable, arguments: &[u8]) -> Option<()> {
        let args = CuLaunchKernelArgs::decode(&mut Decoder::new(arguments)).ok()?;
        let function = handles.get_function(args.function).ok()?.ok()?.cast();
        let stream = handles.get_stream(args.stream).ok()?.ok()?.cast();
        let first = self.parameters.len();
        let layout = handles.layouts.get(&args.function)?;
        if find(layout, args.params, &mut self.parameters).is_none() {
            self.parameters.truncate(first);
            return None;
        }
        self.read.push((Launch::of(&args, function, stream), first));
        Some(())
    }

    /// Makes them all, in their order: the first code that is not 0.
    ///
    /// # Safety
    /// The arguments that were read lie where they did.
    pub unsafe fn make(&mut self, driver: &Driver) -> CUresult {
        let mut failed = 0;
        for (launch, first) in self.read.drain(..) {
            // SAFETY: a launch's parameters begin there, as many as its function has.
            let status = unsafe { launch.make(driver, self.parameters.as_mut_ptr().add(first)) };
            if failed == 0 {
                failed = status;
            }
        }
        self.parameters.clear();
        failed
    }
}

/// The call that most programs make most often. Nothing here allocates, locks or asks the driver twice.
pub fn cuLaunchKernel(
    d: &mut Decoder,
    cx: &mut Session,
    _out: &mut Encoder,
) -> Result<CUresult, Violation> {
    let args = CuLaunchKernelArgs::decode(d)?;
    let function = live!(cx.handles.get_function(args.function));
    let stream = live!(cx.handles.get_stream(args.stream));
    let parameters = lay_out(cx, args.function, function, args.params)?;
    // SAFETY: `parameters` has just been made by the driver's layout.
    Ok(unsafe { Launch::of(&args, function, stream).make(cx.driver, parameters) })
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
        if let Some(layout) = cx.handles.layouts.get(&id) {
            let parameters = &mut cx.launches.parameters;
            parameters.clear();
            find(layout, packed, parameters).ok_or_else(|| too_short(packed, id))?;
            return Ok(parameters.as_mut_ptr());
        }
        layout(cx, id, function);
    }
}

/// Appends where each parameter lies in `packed`; `None` where that is too short.
#[inline(always)]
fn find(layout: &[Parameter], packed: &[u8], parameters: &mut Vec<*mut c_void>) -> Option<()> {
    for parameter in layout {
        let (offset, size) = (parameter.offset as usize, parameter.size as usize);
        let bytes = packed.get(offset..offset + size)?;
        parameters.push(bytes.as_ptr().cast_mut().cast());
    }
    Some(())
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
