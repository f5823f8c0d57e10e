//! Which export `cuGetProcAddress` means by a base name, a CUDA version and flags.

use crate::generated::proc_address_rows::{DEFAULT, PER_THREAD};

/// `CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM`: prefer the `_ptds`/`_ptsz` twin.
pub const PER_THREAD_DEFAULT_STREAM: u64 = 2;

/// Why a name has no export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryFailure {
    /// No release knows the name (`CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND`).
    NotFound,
    /// The name came later than the version asked for (`..._VERSION_NOT_SUFFICIENT`).
    VersionNotSufficient,
}

/// The export that `base` stands for: its newest variant that `version` already has.
///
/// `version` is in CUDA's form (12040 is 12.4). With [`PER_THREAD_DEFAULT_STREAM`] in `flags` the
/// per-thread twin is preferred where there is one.
pub fn lookup(base: &str, version: i32, flags: u64) -> Result<&'static str, QueryFailure> {
    if flags & PER_THREAD_DEFAULT_STREAM != 0 {
        if let Ok(symbol) = newest(PER_THREAD, base, version) {
            return Ok(symbol);
        }
    }
    newest(DEFAULT, base, version)
}

fn newest(
    table: &'static [(&str, i32, &'static str)],
    base: &str,
    version: i32,
) -> Result<&'static str, QueryFailure> {
    let start = table.partition_point(|row| row.0 < base);
    let variants = table[start..].iter().take_while(|row| row.0 == base);
    let mut failure = QueryFailure::NotFound;
    let mut found = None;
    for &(_, since, symbol) in variants {
        failure = QueryFailure::VersionNotSufficient;
        if since <= version {
            found = Some(symbol);
        }
    }
    found.ok_or(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_variant_not_after_the_version_is_chosen() {
        assert_eq!(lookup("cuMemAlloc", 2000, 0), Ok("cuMemAlloc"));
        assert_eq!(lookup("cuMemAlloc", 3020, 0), Ok("cuMemAlloc_v2"));
        assert_eq!(lookup("cuMemAlloc", 13000, 0), Ok("cuMemAlloc_v2"));
        assert_eq!(lookup("cuCtxCreate", 11039, 0), Ok("cuCtxCreate_v2"));
        assert_eq!(lookup("cuCtxCreate", 12050, 0), Ok("cuCtxCreate_v4"));
        assert_eq!(
            lookup("cuStreamGetCaptureInfo", 12030, 0),
            Ok("cuStreamGetCaptureInfo_v3")
        );
    }

    #[test]
    fn per_thread_twins_are_preferred_only_when_asked_for() {
        assert_eq!(lookup("cuMemcpyHtoD", 12000, 2), Ok("cuMemcpyHtoD_v2_ptds"));
        assert_eq!(
            lookup("cuLaunchKernel", 12000, 2),
            Ok("cuLaunchKernel_ptsz")
        );
        assert_eq!(lookup("cuLaunchKernel", 12000, 1), Ok("cuLaunchKernel"));
        assert_eq!(lookup("cuMemAlloc", 12000, 2), Ok("cuMemAlloc_v2"));
    }

    #[test]
    fn absent_and_too_new_names_are_told_apart() {
        assert_eq!(lookup("", 0, 0), Err(QueryFailure::NotFound));
        assert_eq!(
            lookup("cuSubgridCreate", 13050, 0),
            Err(QueryFailure::NotFound)
        );
        assert_eq!(
            lookup("cuLibraryLoadData", 11080, 0),
            Err(QueryFailure::VersionNotSufficient)
        );
        // A versioned name is an export, not a base name.
        assert_eq!(
            lookup("cuMemAlloc_v2", 13000, 0),
            Err(QueryFailure::NotFound)
        );
    }

    #[test]
    fn tables_are_sorted_by_name_then_version() {
        for table in [DEFAULT, PER_THREAD] {
            assert!(table
                .windows(2)
                .all(|p| (p[0].0, p[0].1) < (p[1].0, p[1].1)));
        }
    }
}
