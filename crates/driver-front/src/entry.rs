//! The frame around every exported symbol.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

use harp_cuda_abi::errors::error_name;
use harp_cuda_abi::types::{CUresult, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_UNKNOWN, CUDA_SUCCESS};

use crate::{lifecycle, notice, talkative};

/// Runs one exported call, where the process's life allows it ([`lifecycle::admit`]), so that a
/// panic never crosses the C boundary: it becomes `CUDA_ERROR_UNKNOWN` and a line on stderr.
pub fn guard(name: &'static str, call: impl FnOnce() -> CUresult) -> CUresult {
    if let Err(code) = lifecycle::admit(name) {
        return code;
    }
    let code = caught(name, call);
    if code != CUDA_SUCCESS && talkative() {
        tell_failure(name, code);
    }
    code
}

/// With `HARP_LOG=debug`, every call that does not succeed is named: libraries often hide which one
/// they failed at.
#[cold]
pub fn tell_failure(name: &str, code: CUresult) {
    match error_name(code) {
        Some(text) => notice(&format!("{name} answers {}", text.to_string_lossy())),
        None => notice(&format!("{name} answers {code}")),
    }
}

/// Runs one exported call so that a panic becomes `CUDA_ERROR_UNKNOWN` and a line on stderr.
pub fn caught(name: &'static str, call: impl FnOnce() -> CUresult) -> CUresult {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        notice(&format!(
            "{name} failed inside the driver; please report this"
        ));
        CUDA_ERROR_UNKNOWN
    })
}

static UNSUPPORTED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Answers a call that this driver does not implement: counted, and named once on stderr.
pub fn unsupported(name: &'static str) -> CUresult {
    if let Err(code) = lifecycle::admit(name) {
        return code;
    }
    count_unsupported(name)
}

fn count_unsupported(name: &'static str) -> CUresult {
    let first = {
        let mut calls = UNSUPPORTED.lock().unwrap_or_else(PoisonError::into_inner);
        let count = calls.entry(name).or_insert(0);
        *count += 1;
        *count == 1
    };
    if first {
        notice(&format!(
            "{name} is not supported here (the program gets CUDA_ERROR_NOT_SUPPORTED)"
        ));
    }
    CUDA_ERROR_NOT_SUPPORTED
}

/// How often each unsupported call was made so far.
pub fn unsupported_calls() -> Vec<(&'static str, u64)> {
    let calls = UNSUPPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    calls.iter().map(|(name, count)| (*name, *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use harp_cuda_abi::types::CUDA_SUCCESS;

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(caught("cuTest", || CUDA_SUCCESS), CUDA_SUCCESS);
        assert_eq!(caught("cuTest", || panic!("inside")), CUDA_ERROR_UNKNOWN);
    }

    #[test]
    fn unsupported_calls_are_counted_by_name() {
        let code = count_unsupported("cuTestUnsupported");
        assert_eq!(code, CUDA_ERROR_NOT_SUPPORTED);
        count_unsupported("cuTestUnsupported");
        assert!(unsupported_calls().contains(&("cuTestUnsupported", 2)));
    }
}
