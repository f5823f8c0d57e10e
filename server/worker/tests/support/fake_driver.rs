//! A libcuda for the worker's tests: no device, but kernels that say by their name what they do, among them the ones
//! that no real program should launch. Built as a shared library next to the tests.
//!
//! | kernel | parameters | does |
//! |---|---|---|
//! | `add` | address, u32 | adds the number to the u64 at the address |
//! | `seen_context`, `seen_stream` | address | writes what the launch saw as u64 |
//! | `block` | | keeps its stream busy until `release` is launched |
//! | `release` | | lets all streams go on |
//! | `fail` | | is refused with 701 |
//! | `print` | u32 | writes so many lines to stdout, as a driver shows what kernels printed |
//! | `complain` | | writes to stderr: a line about itself and one that is the program's |
//! | `open`, `connect`, `execute` | address | tries to escape from the jail; writes errno |
//!
//! This file is a C library: every function trusts its caller's pointers.
#![allow(non_snake_case, unsafe_op_in_unsafe_fn)]
#![allow(clippy::missing_safety_doc)]

use std::cell::Cell;
use std::ffi::{c_char, c_void, CStr, CString};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};

type Result = u32;
const INVALID_VALUE: Result = 1;
const OUT_OF_MEMORY: Result = 2;
const INVALID_CONTEXT: Result = 201;
const NOT_FOUND: Result = 500;
const NOT_READY: Result = 600;
const ILLEGAL_ADDRESS: Result = 700;
const LAUNCH_OUT_OF_RESOURCES: Result = 701;

/// Kernels by name with the sizes of their parameters; a function handle is an index here, from 1.
const KERNELS: [(&CStr, &[usize]); 11] = [
    (c"add", &[8, 4]),
    (c"seen_context", &[8]),
    (c"seen_stream", &[8]),
    (c"block", &[]),
    (c"release", &[]),
    (c"fail", &[]),
    (c"print", &[4]),
    (c"complain", &[]),
    (c"open", &[8]),
    (c"connect", &[8]),
    (c"execute", &[8]),
];

static NEXT: AtomicUsize = AtomicUsize::new(0x1000);
static BUSY: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static FREED: Condvar = Condvar::new();

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Events, and the stream that each was last recorded in.
static EVENTS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// First addresses and sizes of device memory.
static MEMORY: Mutex<Vec<(u64, usize)>> = Mutex::new(Vec::new());

fn is_memory(address: u64, bytes: usize) -> bool {
    let end = address.checked_add(bytes as u64);
    let within = |(first, size): &(u64, usize)| {
        address >= *first && end.is_some_and(|end| end <= first + *size as u64)
    };
    MEMORY.lock().unwrap().iter().any(within)
}

fn fresh() -> usize {
    NEXT.fetch_add(0x10, Ordering::Relaxed)
}

fn busy(stream: usize) -> bool {
    BUSY.lock().unwrap().contains(&stream)
}

fn wait(is_busy: impl Fn(&[usize]) -> bool) -> Result {
    let busy = BUSY.lock().unwrap();
    drop(FREED.wait_while(busy, |busy| is_busy(busy)).unwrap());
    0
}

unsafe fn write_text(text: &CStr, to: *mut c_char, size: i32) -> Result {
    if (size as usize) <= text.count_bytes() {
        return INVALID_VALUE;
    }
    to.copy_from_nonoverlapping(text.as_ptr(), text.count_bytes() + 1);
    0
}

#[no_mangle]
pub unsafe extern "C" fn cuInit(_: u32) -> Result {
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut i32) -> Result {
    *version = 13000;
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut i32) -> Result {
    *count = 1;
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuDeviceGet(device: *mut i32, ordinal: i32) -> Result {
    *device = ordinal;
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuDeviceGetName(text: *mut c_char, size: i32, _: i32) -> Result {
    write_text(c"Fake device", text, size)
}
#[no_mangle]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(text: *mut c_char, size: i32, _: i32) -> Result {
    write_text(c"0000:01:00.0", text, size)
}
#[no_mangle]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], _: i32) -> Result {
    *uuid = *b"0123456789abcdef";
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _: i32) -> Result {
    *bytes = 1 << 30;
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut i32, attribute: u32, _: i32) -> Result {
    if attribute > 100 {
        return INVALID_VALUE;
    }
    *value = attribute as i32 * 10;
    0
}

#[no_mangle]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, _: i32) -> Result {
    *context = 0x100;
    0
}
/// The context's events end; what else it has is of no interest to a test.
#[no_mangle]
pub unsafe extern "C" fn cuDevicePrimaryCtxReset_v2(_: i32) -> Result {
    EVENTS.lock().unwrap().clear();
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuCtxCreate_v2(context: *mut usize, _: u32, _: i32) -> Result {
    *context = fresh();
    CURRENT.set(*context);
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuCtxSetCurrent(context: usize) -> Result {
    CURRENT.set(context);
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut i32) -> Result {
    *device = 0;
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuCtxSynchronize() -> Result {
    if CURRENT.get() == 0 {
        return INVALID_CONTEXT;
    }
    wait(|busy| !busy.is_empty())
}

#[no_mangle]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, flags: u32) -> Result {
    // What a test asks for with a flag that CUDA does not have.
    if flags == 99 {
        return INVALID_VALUE;
    }
    *stream = fresh();
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuStreamQuery(stream: usize) -> Result {
    if busy(stream) {
        NOT_READY
    } else {
        0
    }
}
#[no_mangle]
pub unsafe extern "C" fn cuStreamSynchronize(stream: usize) -> Result {
    wait(|busy| busy.contains(&stream))
}

#[no_mangle]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, _: u32) -> Result {
    *event = fresh();
    EVENTS.lock().unwrap().push((*event, 0));
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuEventRecord(event: usize, stream: usize) -> Result {
    let mut events = EVENTS.lock().unwrap();
    let known = events.iter_mut().find(|known| known.0 == event);
    known.expect("a live event").1 = stream;
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuEventQuery(event: usize) -> Result {
    let events = EVENTS.lock().unwrap();
    match events.iter().find(|known| known.0 == event) {
        Some((_, stream)) => cuStreamQuery(*stream),
        // A real driver would look into memory that is not its own any more.
        None => std::process::abort(),
    }
}

#[no_mangle]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: usize,
    function: unsafe extern "C" fn(usize),
    data: usize,
) -> Result {
    BUSY.lock().unwrap().push(stream);
    std::thread::spawn(move || {
        function(data);
        BUSY.lock().unwrap().retain(|busy| *busy != stream);
        FREED.notify_all();
    });
    0
}

#[no_mangle]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> Result {
    if bytes > 1 << 30 {
        return OUT_OF_MEMORY;
    }
    *address = Box::leak(vec![0u8; bytes].into_boxed_slice()).as_mut_ptr() as u64;
    MEMORY.lock().unwrap().push((*address, bytes));
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuMemFree_v2(_: u64) -> Result {
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const u8, bytes: usize) -> Result {
    if !is_memory(to, bytes) {
        return INVALID_VALUE;
    }
    (to as *mut u8).copy_from_nonoverlapping(from, bytes);
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: u64,
    from: *const u8,
    bytes: usize,
    _: usize,
) -> Result {
    cuMemcpyHtoD_v2(to, from, bytes)
}
#[no_mangle]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, bytes: usize) -> Result {
    if !is_memory(from, bytes) {
        return INVALID_VALUE;
    }
    to.copy_from_nonoverlapping(from as *const u8, bytes);
    0
}

#[no_mangle]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_char,
    _: u32,
    _: *mut u32,
    _: *mut *mut c_void,
) -> Result {
    // The text's length is the module's handle, for tests that ask whether all of it came.
    *module = CStr::from_ptr(image).count_bytes();
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    _: usize,
    name: *const c_char,
) -> Result {
    let name = CStr::from_ptr(name);
    match KERNELS.iter().position(|kernel| kernel.0 == name) {
        Some(index) => {
            *function = index + 1;
            0
        }
        None => NOT_FOUND,
    }
}
/// More functions than have room in a reply, by the length of their names.
#[no_mangle]
pub unsafe extern "C" fn cuModuleGetFunctionCount(count: *mut u32, _: usize) -> Result {
    *count = 65;
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuModuleEnumerateFunctions(
    functions: *mut usize,
    count: u32,
    _: usize,
) -> Result {
    for index in 0..count as usize {
        *functions.add(index) = index + 1;
    }
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuFuncGetName(name: *mut *const c_char, _: usize) -> Result {
    static LONG: OnceLock<CString> = OnceLock::new();
    let long = LONG.get_or_init(|| CString::new(vec![b'k'; 1 << 20]).unwrap());
    *name = long.as_ptr();
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuFuncGetParamInfo(
    function: usize,
    index: usize,
    offset: *mut usize,
    size: *mut usize,
) -> Result {
    let sizes = KERNELS[function - 1].1;
    let Some(found) = sizes.get(index) else {
        return INVALID_VALUE;
    };
    *size = *found;
    *offset = sizes[..index].iter().sum();
    0
}
#[no_mangle]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut i32, attribute: u32, _: usize) -> Result {
    *value = attribute as i32 + 1;
    0
}

#[no_mangle]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    stream: usize,
    parameters: *const *const u8,
    _: *mut *mut c_void,
) -> Result {
    if CURRENT.get() == 0 {
        return INVALID_CONTEXT;
    }
    let (name, sizes) = KERNELS[function - 1];
    if sizes.first() == Some(&8) {
        let address = (*parameters).cast::<u64>().read_unaligned();
        if !is_memory(address, 8) || address % 8 != 0 {
            return ILLEGAL_ADDRESS;
        }
    }
    let address = || (*parameters).cast::<u64>().read_unaligned() as *mut u64;
    let errno = || *libc::__errno_location() as u64;
    match name.to_bytes() {
        b"add" => {
            let number = (*parameters.add(1)).cast::<u32>().read_unaligned();
            *address() += u64::from(number);
        }
        b"seen_context" => *address() = CURRENT.get() as u64,
        b"seen_stream" => *address() = stream as u64,
        b"block" => BUSY.lock().unwrap().push(stream),
        b"release" => {
            BUSY.lock().unwrap().clear();
            FREED.notify_all();
        }
        b"fail" => return LAUNCH_OUT_OF_RESOURCES,
        b"print" => {
            let lines = (*parameters).cast::<u32>().read_unaligned();
            for line in 0..lines {
                libc::printf(c"line %u of the device\n".as_ptr(), line);
            }
        }
        b"complain" => {
            for line in [c"harp: about itself\n", c"a.cu:1: Assertion\n"] {
                libc::write(2, line.as_ptr().cast(), line.count_bytes());
            }
        }
        b"open" => {
            let fd = libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY);
            *address() = if fd < 0 { errno() } else { 0 };
        }
        b"connect" => {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            *address() = if fd < 0 { errno() } else { 0 };
        }
        _ => {
            libc::execve(c"/bin/true".as_ptr(), std::ptr::null(), std::ptr::null());
            *address() = errno();
        }
    }
    0
}
