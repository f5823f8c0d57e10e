//! Kernels as programs launch them: a function of a module, or a library's kernel standing for one
//! function in each context.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use harp_cuda_abi::types::*;
use harp_softgpu_engine::{Kernel, Signature};

use crate::attributes::{REGISTERS, SHARED_PER_BLOCK, SHARED_PER_BLOCK_OPTIN};
use crate::call::Outcome;
use crate::context::Context;
use crate::handles::{handle_of, Registry};
use crate::image::Refusal;
use crate::library::LibraryKernel;
use crate::module::Module;
use crate::settings::settings;

/// What a `CUfunction` handle may name: CUDA accepts a `CUkernel` there too.
pub enum Launchable {
    Function(Arc<Function>),
    Kernel(Arc<LibraryKernel>),
}

/// Live functions and kernels.
pub static LAUNCHABLES: Registry<Launchable> = Registry::new();

/// Attributes that programs may set; shared between a library's kernel and its functions.
#[derive(Debug)]
pub struct Preferences {
    /// Bytes of dynamic shared memory that a launch may ask for, -1 for what the kernel leaves of
    /// the usual limit.
    dynamic_shared: AtomicI32,
    /// Percent of the cache to use as shared memory, -1 for the driver's choice: no effect.
    carveout: AtomicI32,
    non_portable_cluster: AtomicI32,
    cluster_policy: AtomicI32,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            dynamic_shared: AtomicI32::new(-1),
            carveout: AtomicI32::new(-1),
            non_portable_cluster: AtomicI32::new(0),
            cluster_policy: AtomicI32::new(0),
        }
    }
}

/// One kernel of a module.
pub struct Function {
    pub name: std::ffi::CString,
    module: Weak<Module>,
    context: Weak<Context>,
    signature: Signature,
    kernel: OnceLock<Outcome<Arc<Kernel>>>,
    preferences: Arc<Preferences>,
    handle: OnceLock<usize>,
}

impl Function {
    /// A function of `module`, known by a handle from now on.
    pub fn new(module: &Arc<Module>, name: &str, signature: Signature) -> Arc<Self> {
        let function = Arc::new(Self {
            name: std::ffi::CString::new(name).unwrap_or_default(),
            module: Arc::downgrade(module),
            context: module
                .context()
                .map(|context| Arc::downgrade(&context))
                .unwrap_or_default(),
            signature,
            kernel: OnceLock::new(),
            preferences: Arc::default(),
            handle: OnceLock::new(),
        });
        let launchable = Arc::new(Launchable::Function(function.clone()));
        let handle: CUfunction = LAUNCHABLES.insert(launchable);
        let _ = function.handle.set(handle as usize);
        function
    }

    /// The handle of this function.
    pub fn handle(&self) -> CUfunction {
        self.handle.get().copied().unwrap_or_default() as CUfunction
    }

    /// Its module.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where that was unloaded.
    pub fn module(&self) -> Outcome<Arc<Module>> {
        self.module.upgrade().ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    /// Whether it was loaded into `context`.
    pub fn is_of(&self, context: &Context) -> bool {
        core::ptr::eq(self.context.as_ptr(), context)
    }

    /// Its parameters.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The decoded kernel. What is wrong with its PTX is said on stderr the first time.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_PTX`, the same every time.
    pub fn kernel(&self) -> Outcome<Arc<Kernel>> {
        let decode = || {
            let name = self.name.to_string_lossy();
            self.module()?
                .decode(&name)
                .map_err(|refusal| refusal.tell())
        };
        self.kernel.get_or_init(decode).clone()
    }

    /// Decodes the kernel.
    ///
    /// # Errors
    /// What is wrong with its PTX; nothing is said on stderr.
    pub fn decode_now(&self) -> Result<(), Refusal> {
        let name = self.name.to_string_lossy();
        let gone = |code| Refusal {
            code,
            words: format!("{name} was unloaded"),
        };
        let kernel = self.module().map_err(gone)?.decode(&name)?;
        let _ = self.kernel.set(Ok(kernel));
        Ok(())
    }

    /// Whether the kernel was decoded (`cuFuncIsLoaded`).
    pub fn is_loaded(&self) -> bool {
        self.kernel.get().is_some()
    }

    /// Most dynamic shared memory that a launch may ask for.
    pub fn dynamic_shared_max(&self, kernel: &Kernel) -> u32 {
        match self.preferences.dynamic_shared.load(Ordering::Relaxed) {
            unset if unset < 0 => SHARED_PER_BLOCK.saturating_sub(kernel.shared_bytes()),
            bytes => bytes as u32,
        }
    }

    /// `cuFuncGetAttribute`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for an unknown attribute; as for [`Function::kernel`].
    pub fn attribute(&self, attribute: CUfunction_attribute) -> Outcome<i32> {
        let kernel = self.kernel()?;
        let (major, minor) = settings().compute_capability;
        Ok(match attribute {
            CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK => kernel.max_threads() as i32,
            CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES => kernel.shared_bytes() as i32,
            CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES => kernel.const_bytes() as i32,
            CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES => kernel.local_bytes() as i32,
            CU_FUNC_ATTRIBUTE_NUM_REGS => registers(&kernel) as i32,
            CU_FUNC_ATTRIBUTE_PTX_VERSION => self.module()?.target() as i32,
            CU_FUNC_ATTRIBUTE_BINARY_VERSION => major * 10 + minor,
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES => {
                self.dynamic_shared_max(&kernel) as i32
            }
            CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT => {
                self.preferences.carveout.load(Ordering::Relaxed)
            }
            CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED => self
                .preferences
                .non_portable_cluster
                .load(Ordering::Relaxed),
            CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE => {
                self.preferences.cluster_policy.load(Ordering::Relaxed)
            }
            CU_FUNC_ATTRIBUTE_CACHE_MODE_CA
            | CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET
            | CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH
            | CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT
            | CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH
            | CU_FUNC_ATTRIBUTE_DEVICE_NODE_UPDATE_SUPPORTED
            | CU_FUNC_ATTRIBUTE_SHARED_MEMORY_MODE => 0,
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        })
    }

    /// `cuFuncSetAttribute`.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for an attribute that cannot be set or a value out of range; as
    /// for [`Function::kernel`].
    pub fn set_attribute(&self, attribute: CUfunction_attribute, value: i32) -> Outcome {
        let most = SHARED_PER_BLOCK_OPTIN.saturating_sub(self.kernel()?.shared_bytes());
        let (cell, allowed) = match attribute {
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES => {
                (&self.preferences.dynamic_shared, 0..=most as i32)
            }
            CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT => {
                (&self.preferences.carveout, -1..=100)
            }
            CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED => {
                (&self.preferences.non_portable_cluster, 0..=1)
            }
            CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE => {
                (&self.preferences.cluster_policy, 0..=2)
            }
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        };
        if !allowed.contains(&value) {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        cell.store(value, Ordering::Relaxed);
        Ok(())
    }
}

/// Registers of a thread as occupancy counts them. An interpreter has as many as the kernel names;
/// what it reports is never more than lets the kernel's largest block run.
pub fn registers(kernel: &Kernel) -> u32 {
    let most = (REGISTERS / kernel.max_threads().max(1) / 8 * 8).min(255);
    kernel.registers().clamp(16, most.max(16))
}

/// The function that a handle means: itself, or a kernel's function in the current context.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` where it names neither; the codes of loading a kernel's module.
pub fn get(handle: CUfunction) -> Outcome<Arc<Function>> {
    match &*LAUNCHABLES.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)? {
        Launchable::Function(function) => Ok(function.clone()),
        Launchable::Kernel(kernel) => kernel.function_in(&Context::current()?),
    }
}

/// As [`get`] for a known current context.
///
/// # Errors
/// As for [`get`].
pub fn get_in(handle: CUfunction, context: &Arc<Context>) -> Outcome<Arc<Function>> {
    match &*LAUNCHABLES.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)? {
        Launchable::Function(function) => Ok(function.clone()),
        Launchable::Kernel(kernel) => kernel.function_in(context),
    }
}

/// The function that a handle names: for calls that take no kernel in its place.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` where it names none.
pub fn proper(handle: CUfunction) -> Outcome<Arc<Function>> {
    match LAUNCHABLES.get(handle).as_deref() {
        Some(Launchable::Function(function)) => Ok(function.clone()),
        _ => Err(CUDA_ERROR_INVALID_HANDLE),
    }
}

/// The kernel that a handle names.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` where it names none.
pub fn kernel(handle: CUkernel) -> Outcome<Arc<LibraryKernel>> {
    match LAUNCHABLES.get(handle).as_deref() {
        Some(Launchable::Kernel(kernel)) => Ok(kernel.clone()),
        _ => Err(CUDA_ERROR_INVALID_HANDLE),
    }
}

/// Makes a library's kernel known by a handle.
pub fn publish_kernel(kernel: Arc<LibraryKernel>) -> CUkernel {
    let launchable = Arc::new(Launchable::Kernel(kernel));
    LAUNCHABLES.insert::<CUkern_st>(launchable.clone());
    handle_of(&launchable)
}
