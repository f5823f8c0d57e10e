//! Names and texts of `CUresult` codes, as `cuGetErrorName` and `cuGetErrorString` answer them.

use crate::generated::names::ERRORS;
use crate::types::CUresult;
use core::ffi::CStr;

/// Every known (code, name, text) in ascending order of code.
pub fn all() -> &'static [(u32, &'static CStr, &'static CStr)] {
    ERRORS
}

/// The name of a code, `CUDA_ERROR_OUT_OF_MEMORY`.
pub fn error_name(code: CUresult) -> Option<&'static CStr> {
    row(code).map(|row| row.1)
}

/// The sentence for a code, `out of memory`.
pub fn error_string(code: CUresult) -> Option<&'static CStr> {
    row(code).map(|row| row.2)
}

fn row(code: CUresult) -> Option<&'static (u32, &'static CStr, &'static CStr)> {
    let found = ERRORS.binary_search_by_key(&code, |row| row.0).ok()?;
    Some(&ERRORS[found])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::*;

    #[test]
    fn codes_have_names_and_texts() {
        assert_eq!(error_name(CUDA_SUCCESS), Some(c"CUDA_SUCCESS"));
        assert_eq!(
            error_name(CUDA_ERROR_ILLEGAL_ADDRESS),
            Some(c"CUDA_ERROR_ILLEGAL_ADDRESS")
        );
        assert_eq!(
            error_string(CUDA_ERROR_OUT_OF_MEMORY),
            Some(c"out of memory")
        );
        assert_eq!(error_name(12345), None);
    }

    #[test]
    fn codes_ascend_without_repeats() {
        assert!(all().windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
