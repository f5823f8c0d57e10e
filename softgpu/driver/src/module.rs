//! Modules: programs loaded into a context, with memory for their variables.

use core::ffi::c_void;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use harp_cuda_abi::types::*;
use harp_softgpu_engine::{Kernel, Variable};

use crate::call::Outcome;
use crate::context::Context;
use crate::function::{Function, Launchable, LAUNCHABLES};
use crate::handles::{handle_of, Registry};
use crate::image::{code_at, Code, Refusal};
use crate::library;
use crate::memory::heap::{Origin, GRANULE};

/// Live modules.
pub static MODULES: Registry<Module> = Registry::new();

/// Where a variable of a module is.
#[derive(Clone, Copy, Debug)]
pub struct Global {
    pub address: u64,
    pub size: u64,
}

/// One loaded image.
pub struct Module {
    context: Weak<Context>,
    code: Code,
    globals: HashMap<String, Global>,
    /// The allocation that holds the variables, 0 for none.
    memory: u64,
    functions: Mutex<HashMap<String, Arc<Function>>>,
}

impl Module {
    /// Loads code into a context: gives variables memory and their initial values.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY`; a refusal in words where a variable refers to an unknown symbol.
    pub fn load(context: &Arc<Context>, code: Code) -> Result<Arc<Self>, Refusal> {
        let (mut globals, size) = lay_out(code.program.variables());
        let no_memory = |code| Refusal {
            code,
            words: "no memory for the module".into(),
        };
        let heap = &context.device.heap;
        let memory = match size {
            0 => 0,
            size => heap
                .allocate(size, context.id, Origin::Plain)
                .map_err(no_memory)?,
        };
        for global in globals.values_mut() {
            global.address += memory;
        }
        let module = Arc::new(Self {
            context: Arc::downgrade(context),
            code,
            globals,
            memory,
            functions: Mutex::default(),
        });
        if let Err(symbol) = module.initialize(size) {
            let _ = heap.free(memory);
            let words =
                format!("a variable's initial value refers to `{symbol}`, not defined here");
            return Err(Refusal {
                code: CUDA_ERROR_INVALID_PTX,
                words,
            });
        }
        Ok(module)
    }

    /// Stores the variables' initial values; the error is a symbol that nothing defines.
    fn initialize(&self, size: u64) -> Result<(), String> {
        if size == 0 {
            return Ok(());
        }
        // SAFETY: the allocation was just made for this module and has `size` bytes.
        let memory =
            unsafe { std::slice::from_raw_parts_mut(self.memory as *mut u8, size as usize) };
        memory.fill(0);
        for variable in self
            .code
            .program
            .variables()
            .iter()
            .filter(|found| has_memory(found))
        {
            let image = variable.image(&|symbol| self.address_of(symbol))?;
            let start = (self.globals[&variable.name].address - self.memory) as usize;
            memory[start..start + image.len()].copy_from_slice(&image);
        }
        Ok(())
    }

    /// The address of a variable or function.
    fn address_of(&self, symbol: &str) -> Option<u64> {
        let variable = self.globals.get(symbol).map(|global| global.address);
        variable.or_else(|| self.code.program.function_address(symbol))
    }

    /// A variable by name.
    pub fn global(&self, name: &str) -> Option<Global> {
        self.globals.get(name).copied()
    }

    /// The context that it was loaded into.
    ///
    /// # Errors
    /// `CUDA_ERROR_CONTEXT_IS_DESTROYED` where that is gone.
    pub fn context(&self) -> Outcome<Arc<Context>> {
        self.context
            .upgrade()
            .ok_or(CUDA_ERROR_CONTEXT_IS_DESTROYED)
    }

    /// A function by name; the same object every time.
    ///
    /// # Errors
    /// `CUDA_ERROR_NOT_FOUND` where there is no such kernel.
    pub fn function(self: &Arc<Self>, name: &str) -> Outcome<Arc<Function>> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let signature = self
            .code
            .program
            .signature(name)
            .ok_or(CUDA_ERROR_NOT_FOUND)?;
        let function = Function::new(self, name, signature);
        functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }

    /// Decodes a kernel.
    ///
    /// # Errors
    /// A refusal that names the opcode and the line.
    pub fn decode(&self, name: &str) -> Result<Arc<Kernel>, Refusal> {
        let kernel = self
            .code
            .program
            .kernel(name, &|symbol| self.address_of(symbol));
        kernel.map_err(|error| Refusal::of_ptx(name, &error))
    }

    /// The `.target` of the program: 86 for `sm_86`.
    pub fn target(&self) -> u32 {
        self.code.program.target()
    }

    /// Names of all kernels.
    pub fn kernel_names(&self) -> Vec<&str> {
        self.code.program.kernels()
    }

    /// Decodes the kernel of a module that has just one: what is wrong with it is then the answer
    /// to the load, with words for its log. Larger modules are decoded kernel by kernel.
    fn decode_if_single(self: &Arc<Self>) -> Result<(), Refusal> {
        let [name] = self.kernel_names()[..] else {
            return Ok(());
        };
        match self.function(name) {
            Ok(function) => function.decode_now(),
            Err(code) => Err(Refusal {
                code,
                words: format!("{name} cannot be read"),
            }),
        }
    }

    /// Ends the module: its functions' handles are dead, its variables' memory is free.
    pub fn end(&self) {
        let functions = core::mem::take(
            &mut *self
                .functions
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for function in functions.into_values() {
            LAUNCHABLES.remove(function.handle());
        }
        if let (Some(context), true) = (self.context.upgrade(), self.memory != 0) {
            context.drain();
            let _ = context.device.heap.free(self.memory);
        }
    }
}

fn has_memory(variable: &Variable) -> bool {
    !variable.external && !variable.opaque
}

/// Places of all variables from the start of one allocation, and its size. Of several with one name
/// (a header's constants in files that were linked) the first counts.
fn lay_out(variables: &[Variable]) -> (HashMap<String, Global>, u64) {
    let mut places = HashMap::new();
    let mut end = 0u64;
    for variable in variables.iter().filter(|variable| has_memory(variable)) {
        if places.contains_key(&variable.name) {
            continue;
        }
        // 16 bytes apart at least: programs read neighbours of small variables in one go.
        let address = end.next_multiple_of(variable.align.clamp(16, GRANULE));
        places.insert(
            variable.name.clone(),
            Global {
                address,
                size: variable.size,
            },
        );
        end = address + variable.size;
    }
    (places, end)
}

/// Loads the image at a pointer into the current context.
///
/// # Errors
/// The codes of `cuModuleLoadData`.
///
/// # Safety
/// `image` points to a readable image or wrapper.
pub unsafe fn load_in_memory(image: *const c_void) -> Outcome<CUmodule> {
    // SAFETY: the caller's promise.
    unsafe { try_load_in_memory(image)?.map_err(Refusal::tell) }
}

/// As [`load_in_memory`]; a refusal of the image itself is the caller's to report.
///
/// # Errors
/// The code of the current context.
///
/// # Safety
/// As for [`load_in_memory`].
pub unsafe fn try_load_in_memory(image: *const c_void) -> Outcome<Result<CUmodule, Refusal>> {
    let context = Context::current()?;
    // SAFETY: the caller's promise.
    let loaded = unsafe { code_at(image) }
        .and_then(|code| Module::load(&context, code))
        .and_then(|module| module.decode_if_single().map(|()| module));
    Ok(loaded.map(|module| MODULES.insert(module)))
}

/// The module that a handle names.
///
/// # Errors
/// `CUDA_ERROR_INVALID_HANDLE` where it names none.
pub fn get(handle: CUmodule) -> Outcome<Arc<Module>> {
    MODULES.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
}

/// Handles of all functions of a module.
///
/// # Errors
/// As for [`get`].
pub fn functions_of(handle: CUmodule) -> Outcome<Vec<CUfunction>> {
    let module = get(handle)?;
    let names: Vec<String> = module
        .kernel_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    names
        .iter()
        .map(|name| Ok(module.function(name)?.handle()))
        .collect()
}

/// The handle of a live module.
pub fn handle(module: &Arc<Module>) -> CUmodule {
    handle_of(module)
}

/// Ends the modules of a context that is being wiped.
pub fn end_all_of(context: &Arc<Context>) {
    library::forget_context(context);
    for module in MODULES.remove_where(|module| module.context.as_ptr() == Arc::as_ptr(context)) {
        module.end();
    }
    LAUNCHABLES.remove_where(|launchable| match launchable {
        Launchable::Function(function) => function.is_of(context),
        Launchable::Kernel(_) => false,
    });
}
