//! `cuLink*`: the linker of a device that takes PTX puts texts one after the other.

use std::sync::{Arc, Mutex, PoisonError};

use harp_cuda_abi::types::*;
use harp_cuda_image::embedded;
use harp_softgpu_engine::Module as Program;

use crate::call::Outcome;
use crate::handles::Registry;
use crate::image::{code_of, texts_of, Refusal};
use crate::jit_options::JitOptions;

/// Live link operations.
pub static LINKS: Registry<Link> = Registry::new();

/// One link operation.
pub struct Link {
    /// The program keeps what they name until it destroys the operation.
    options: JitOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    complete: bool,
}

impl Link {
    /// `cuLinkCreate`.
    pub fn create(options: JitOptions) -> CUlinkState {
        LINKS.insert(Arc::new(Self {
            options,
            state: Mutex::default(),
        }))
    }

    /// The link operation that a handle names.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_HANDLE` where it names none.
    pub fn get(handle: CUlinkState) -> Outcome<Arc<Self>> {
        LINKS.get(handle).ok_or(CUDA_ERROR_INVALID_HANDLE)
    }

    /// Notes a refusal in the program's log and says it on stderr; the code is for the program.
    pub fn refuse(&self, refusal: Refusal) -> CUresult {
        self.options.report(&refusal.words);
        refusal.tell()
    }

    /// Adds an input: PTX text, a fatbin that holds some, host objects that hold fatbins, or an archive
    /// of these.
    ///
    /// # Errors
    /// What is wrong with the input, machine code in particular.
    pub fn add(&self, input: &[u8]) -> Result<(), Refusal> {
        let mut texts = Vec::new();
        for part in embedded(input)? {
            for ptx in texts_of(part)? {
                let program = Program::parse(ptx.text.clone())
                    .map_err(|error| Refusal::of_ptx("link", &error))?;
                match self.options.max_registers {
                    Some(most) => texts.extend(program.with_max_registers(most)),
                    None => texts.extend(ptx.text),
                }
                texts.push(b'\n');
            }
        }
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .text
            .extend(texts);
        Ok(())
    }

    /// `cuLinkComplete`: the linked image, which lives as long as this operation.
    ///
    /// # Errors
    /// What is wrong with the whole.
    pub fn complete(&self) -> Result<(*const u8, usize), Refusal> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.complete {
            code_of(&state.text)?;
            // Images of text end with NUL.
            state.text.push(0);
            state.complete = true;
        }
        Ok((state.text.as_ptr(), state.text.len()))
    }
}
