//! Options of the driver's compiler and linker.

use crate::types::*;

/// Options whose value is a number in the pointer itself, of 32 bits: what a program leaves in the
/// upper half of the pointer means nothing. Everything else points somewhere.
pub fn is_number(option: CUjit_option) -> bool {
    matches!(
        option,
        CU_JIT_MAX_REGISTERS
            | CU_JIT_THREADS_PER_BLOCK
            | CU_JIT_WALL_TIME
            | CU_JIT_OPTIMIZATION_LEVEL
            | CU_JIT_TARGET_FROM_CUCONTEXT
            | CU_JIT_TARGET
            | CU_JIT_FALLBACK_STRATEGY
            | CU_JIT_GENERATE_DEBUG_INFO
            | CU_JIT_LOG_VERBOSE
            | CU_JIT_GENERATE_LINE_INFO
            | CU_JIT_CACHE_MODE
            | CU_JIT_FAST_COMPILE
            | CU_JIT_LTO
            | CU_JIT_FTZ
            | CU_JIT_PREC_DIV
            | CU_JIT_PREC_SQRT
            | CU_JIT_FMA
            | CU_JIT_OPTIMIZE_UNUSED_DEVICE_VARIABLES
            | CU_JIT_POSITION_INDEPENDENT_CODE
            | CU_JIT_MIN_CTA_PER_SM
            | CU_JIT_MAX_THREADS_PER_BLOCK
            | CU_JIT_OVERRIDE_DIRECTIVE_VALUES
            | CU_JIT_SPLIT_COMPILE
            | CU_JIT_BINARY_LOADER_THREAD_COUNT
    )
}
