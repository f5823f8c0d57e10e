//! Libraries: images that belong to no context and are loaded into each that uses them.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use harp_cuda_abi::types::*;
use harp_softgpu_engine::Signature;

use crate::call::Outcome;
use crate::context::Context;
use crate::function::{publish_kernel, Function, LAUNCHABLES};
use crate::handles::{handle_of, Registry};
use crate::image::{Code, Refusal};
use crate::module::{Module, MODULES};

/// Live libraries.
pub static LIBRARIES: Registry<Library> = Registry::new();

/// One library.
pub struct Library {
    code: Code,
    /// Its module in each context, by context id.
    modules: Mutex<HashMap<u64, Arc<Module>>>,
    kernels: Mutex<HashMap<String, CUkernelHandle>>,
}

/// A handle that may be kept in a table: only its number counts.
#[derive(Clone, Copy)]
struct CUkernelHandle(usize);

impl Library {
    /// Makes a library of `code` known; nothing is loaded yet.
    pub fn publish(code: Code) -> CUlibrary {
        let library = Self {
            code,
            modules: Mutex::default(),
            kernels: Mutex::default(),
        };
        LIBRARIES.insert(Arc::new(library))
    }

    /// The library that a handle names.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where it names none.
    pub fn get(handle: CUlibrary) -> Outcome<Arc<Self>> {
        LIBRARIES.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    /// The library's module in `context`, loaded at first use.
    ///
    /// # Errors
    /// The codes of loading.
    pub fn module_in(&self, context: &Arc<Context>) -> Outcome<Arc<Module>> {
        let mut modules = lock(&self.modules);
        if let Some(module) = modules.get(&context.id) {
            return Ok(module.clone());
        }
        let module = Module::load(context, self.code.clone()).map_err(Refusal::tell)?;
        MODULES.insert::<CUmod_st>(module.clone());
        modules.insert(context.id, module.clone());
        Ok(module)
    }

    /// A kernel by name; the same handle every time.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_FOUND` where there is no such kernel.
    pub fn kernel(self: &Arc<Self>, name: &str) -> Outcome<CUkernel> {
        let mut kernels = lock(&self.kernels);
        if let Some(handle) = kernels.get(name) {
            return Ok(handle.0 as CUkernel);
        }
        let signature = self
            .code
            .program
            .signature(name)
            .ok_or(CUDA_ERROR_NOT_FOUND)?;
        let handle = publish_kernel(Arc::new(LibraryKernel {
            library: Arc::downgrade(self),
            name: CString::new(name).map_err(|_| CUDA_ERROR_NOT_FOUND)?,
            signature,
            functions: Mutex::default(),
        }));
        kernels.insert(name.to_owned(), CUkernelHandle(handle as usize));
        Ok(handle)
    }

    /// Names of all kernels.
    pub fn kernel_names(&self) -> Vec<&str> {
        self.code.program.kernels()
    }

    /// Ends the library: its modules in every context and all kernel handles.
    pub fn end(&self) {
        for handle in core::mem::take(&mut *lock(&self.kernels)).into_values() {
            LAUNCHABLES.remove(handle.0 as CUkernel);
        }
        for module in core::mem::take(&mut *lock(&self.modules)).into_values() {
            MODULES.remove(handle_of::<_, CUmod_st>(&module));
            module.end();
        }
    }
}

/// Forgets the modules in a context that is being wiped; their owner ends them.
pub fn forget_context(context: &Context) {
    for library in LIBRARIES.all() {
        lock(&library.modules).remove(&context.id);
    }
}

/// One kernel of a library.
pub struct LibraryKernel {
    library: Weak<Library>,
    pub name: CString,
    /// Its parameters, which are the same in every context and known without one.
    pub signature: Signature,
    /// Its function in each context used so far, by context id.
    functions: Mutex<Vec<(u64, Weak<Function>)>>,
}

impl LibraryKernel {
    /// Its library.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where that was unloaded.
    pub fn library(&self) -> Outcome<Arc<Library>> {
        self.library.upgrade().ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    /// Its function in `context`; loads the library there at first use.
    ///
    /// # Errors
    /// The codes of loading.
    pub fn function_in(&self, context: &Arc<Context>) -> Outcome<Arc<Function>> {
        let known = |functions: &[(u64, Weak<Function>)]| {
            let found = functions.iter().find(|(id, _)| *id == context.id);
            found.and_then(|(_, function)| function.upgrade())
        };
        if let Some(function) = known(&lock(&self.functions)) {
            return Ok(function);
        }
        let module = self.library()?.module_in(context)?;
        let function = module.function(&self.name.to_string_lossy())?;
        let mut functions = lock(&self.functions);
        functions.retain(|(id, _)| *id != context.id);
        functions.push((context.id, Arc::downgrade(&function)));
        Ok(function)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
