//! Stream operations on values in memory.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use harp_cuda_abi::types::*;

use crate::call::{call, out, Outcome};
use crate::context::Context;
use crate::device::check_range;
use crate::execution::command::{Stored, Work};
use crate::stream::Stream;

/// Width of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32,
    Bits64,
}

impl Width {
    fn bytes(self) -> u64 {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// The value at `address`, which was checked.
    fn load(self, address: u64) -> u64 {
        // SAFETY: `check` saw allocated, aligned memory; it lives as long as the stream's work.
        unsafe {
            match self {
                Self::Bits32 => AtomicU32::from_ptr(address as *mut u32)
                    .load(Ordering::Acquire)
                    .into(),
                Self::Bits64 => AtomicU64::from_ptr(address as *mut u64).load(Ordering::Acquire),
            }
        }
    }

    /// Whether `found` is what a wait for `wanted` waits for.
    fn satisfies(self, found: u64, wanted: u64, condition: u32) -> bool {
        match (condition, self) {
            // "Not before", with wrap-around.
            (CU_STREAM_WAIT_VALUE_GEQ, Self::Bits32) => found.wrapping_sub(wanted) as i32 >= 0,
            (CU_STREAM_WAIT_VALUE_GEQ, Self::Bits64) => found.wrapping_sub(wanted) as i64 >= 0,
            (CU_STREAM_WAIT_VALUE_EQ, _) => found == wanted,
            (CU_STREAM_WAIT_VALUE_AND, _) => found & wanted != 0,
            (_, Self::Bits32) => !(found as u32 | wanted as u32) != 0,
            (_, Self::Bits64) => !(found | wanted) != 0,
        }
    }
}

fn check(address: u64, width: Width) -> Outcome {
    if !address.is_multiple_of(width.bytes()) {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    check_range(address, width.bytes())
}

fn wait(stream: &Stream, address: u64, wanted: u64, flags: u32, width: Width) -> Outcome {
    let condition = flags & !CU_STREAM_WAIT_VALUE_FLUSH;
    check(address, width)?;
    if condition > CU_STREAM_WAIT_VALUE_NOR {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    stream.submit(Work::Poll(Box::new(move || {
        width.satisfies(width.load(address), wanted, condition)
    })));
    Ok(())
}

fn write(stream: &Stream, address: u64, value: u64, flags: u32, width: Width) -> Outcome {
    check(address, width)?;
    if flags & !CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER != 0 {
        return Err(CUDA_ERROR_INVALID_VALUE);
    }
    let bytes = &value.to_le_bytes()[..width.bytes() as usize];
    stream.submit(Work::Store(Stored::new(bytes), address));
    Ok(())
}

fn resolve(handle: CUstream) -> Outcome<std::sync::Arc<Stream>> {
    Stream::resolve(handle, &Context::current()?)
}

pub unsafe fn cuStreamWaitValue32_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint32_t,
    flags: u32,
) -> CUresult {
    call(|| {
        wait(
            &*resolve(stream)?,
            address,
            value.into(),
            flags,
            Width::Bits32,
        )
    })
}

pub unsafe fn cuStreamWaitValue64_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint64_t,
    flags: u32,
) -> CUresult {
    call(|| wait(&*resolve(stream)?, address, value, flags, Width::Bits64))
}

pub unsafe fn cuStreamWriteValue32_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint32_t,
    flags: u32,
) -> CUresult {
    call(|| {
        write(
            &*resolve(stream)?,
            address,
            value.into(),
            flags,
            Width::Bits32,
        )
    })
}

pub unsafe fn cuStreamWriteValue64_v2(
    stream: CUstream,
    address: CUdeviceptr,
    value: cuuint64_t,
    flags: u32,
) -> CUresult {
    call(|| write(&*resolve(stream)?, address, value, flags, Width::Bits64))
}

pub unsafe fn cuStreamBatchMemOp_v2(
    stream: CUstream,
    count: u32,
    operations: *mut CUstreamBatchMemOpParams,
    flags: u32,
) -> CUresult {
    call(|| {
        out(operations)?;
        let stream = resolve(stream)?;
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        for index in 0..count as usize {
            unsafe { operate(&stream, &*operations.add(index))? };
        }
        Ok(())
    })
}

unsafe fn operate(stream: &Stream, operation: &CUstreamBatchMemOpParams) -> Outcome {
    unsafe {
        let (waited, written) = (operation.waitValue, operation.writeValue);
        match operation.operation {
            CU_STREAM_MEM_OP_WAIT_VALUE_32 => {
                let value = waited.anonymous.value.into();
                wait(stream, waited.address, value, waited.flags, Width::Bits32)
            }
            CU_STREAM_MEM_OP_WAIT_VALUE_64 => {
                let value = waited.anonymous.value64;
                wait(stream, waited.address, value, waited.flags, Width::Bits64)
            }
            CU_STREAM_MEM_OP_WRITE_VALUE_32 => {
                let value = written.anonymous.value.into();
                write(stream, written.address, value, written.flags, Width::Bits32)
            }
            CU_STREAM_MEM_OP_WRITE_VALUE_64 => {
                let value = written.anonymous.value64;
                write(stream, written.address, value, written.flags, Width::Bits64)
            }
            // Stores of a stream are visible to what follows in it.
            CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES | CU_STREAM_MEM_OP_BARRIER => Ok(()),
            _ => Err(CUDA_ERROR_NOT_SUPPORTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_compare_as_documented() {
        let holds = |found, wanted, condition| Width::Bits32.satisfies(found, wanted, condition);
        assert!(holds(5, 5, CU_STREAM_WAIT_VALUE_GEQ) && holds(6, 5, CU_STREAM_WAIT_VALUE_GEQ));
        assert!(!holds(4, 5, CU_STREAM_WAIT_VALUE_GEQ));
        assert!(
            holds(1, u32::MAX.into(), CU_STREAM_WAIT_VALUE_GEQ),
            "wrapped around"
        );
        assert!(holds(5, 5, CU_STREAM_WAIT_VALUE_EQ) && !holds(6, 5, CU_STREAM_WAIT_VALUE_EQ));
        assert!(holds(6, 2, CU_STREAM_WAIT_VALUE_AND) && !holds(6, 1, CU_STREAM_WAIT_VALUE_AND));
        assert!(holds(0, 1, CU_STREAM_WAIT_VALUE_NOR));
        assert!(!holds(u32::MAX.into(), 0, CU_STREAM_WAIT_VALUE_NOR));
    }
}
