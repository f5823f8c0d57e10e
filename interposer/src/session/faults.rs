//! Sticky errors: after a kernel has failed, the driver answers every call about the device with the
//! same code until the process ends. Calls that wait get it from the server; those that do not are
//! answered here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use harp_cuda_abi::types::*;

/// The devices on which a kernel has failed, each with the code of the first.
#[derive(Default)]
pub struct Faults {
    any: AtomicBool,
    codes: Mutex<Vec<(CUdevice, CUresult)>>,
}

impl Faults {
    /// Remembers `code`, if it is of those that stay, for the device that it was about.
    pub fn note(&self, device: CUdevice, code: CUresult) {
        if !stays(code) {
            return;
        }
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if codes.iter().all(|(known, _)| *known != device) {
            codes.push((device, code));
            self.any.store(true, Ordering::Release);
        }
    }

    /// Fails with the code that stays on the device that `device` finds, if there is one.
    pub fn check(
        &self,
        device: impl FnOnce() -> Result<CUdevice, CUresult>,
    ) -> Result<(), CUresult> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let Ok(device) = device() else { return Ok(()) };
        let codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        match codes.iter().find(|(known, _)| *known == device) {
            Some((_, code)) => Err(*code),
            None => Ok(()),
        }
    }
}

/// Codes of which cuda.h says that "the process must be terminated and relaunched".
fn stays(code: CUresult) -> bool {
    matches!(
        code,
        CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_code_of_a_device_stays() {
        let faults = Faults::default();
        faults.note(0, CUDA_ERROR_OUT_OF_MEMORY);
        assert_eq!(faults.check(|| Ok(0)), Ok(()));
        faults.note(0, CUDA_ERROR_ASSERT);
        faults.note(0, CUDA_ERROR_LAUNCH_FAILED);
        assert_eq!(faults.check(|| Ok(0)), Err(CUDA_ERROR_ASSERT));
        assert_eq!(faults.check(|| Ok(1)), Ok(()));
        assert_eq!(faults.check(|| Err(CUDA_ERROR_INVALID_CONTEXT)), Ok(()));
    }
}
