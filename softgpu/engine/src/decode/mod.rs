//! From the index of a module to kernels that run.
//!
//! One function goes through: [`function`] reads its body into drafts over virtual registers
//! (with [`moves`], [`arithmetic`], [`memory`], [`control`] and [`warp`] for the families of
//! instructions), [`fuse`] joins products and sums, [`flow`] finds blocks and loops, [`copies`] removes moves, [`flow::Layout`] puts
//! the blocks in order, [`runs`] marks
//! accesses that share addresses, [`slots`] assigns storage. [`link`] joins the functions of a kernel.

mod arithmetic;
mod control;
mod copies;
mod draft;
mod flow;
mod function;
mod fuse;
mod link;
mod memory;
mod moves;
mod program;
mod runs;
mod scope;
mod slots;
mod warp;

use std::sync::Arc;

use crate::exec::kernel::{Kernel, Param};
use crate::ptx::lexer::{Place, Token};
use crate::ptx::literal::Literal;
use crate::ptx::module::{parse_extents, Module};
use crate::ptx::{expression, PtxError};

pub use scope::FrameSpan;
pub use slots::Storage;

/// The most bytes that a kernel's parameters may take, as on every device since compute capability 7.0.
const PARAMETERS_MAX: u64 = 32764;

/// What a kernel takes, known without decoding its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub params: Vec<Param>,
    /// Bytes of all parameters.
    pub param_bytes: u32,
    /// `.maxntid` or `.reqntid`, as threads of a block; 1024 where neither is given.
    pub max_threads: u32,
    /// `.reqntid`
    pub required_block: Option<[u32; 3]>,
    /// `.maxnreg`: most registers of a thread.
    pub max_registers: Option<u32>,
}

impl Module {
    /// The parameters and launch bounds of `kernel`; `None` if there is no such kernel, its
    /// declaration cannot be read, or its parameters are too many bytes.
    pub fn signature(&self, kernel: &str) -> Option<Signature> {
        let function = &self.functions[self.function(kernel)?];
        if !function.entry {
            return None;
        }
        let mut signature = Signature {
            max_threads: 1024,
            ..Signature::default()
        };
        if let Some(place) = function.params {
            let mut top = 0u64;
            for declaration in function::parameter_list(&mut self.lexer(place)).ok()? {
                let align = declaration.align();
                let offset = u32::try_from(top.next_multiple_of(align)).ok()?;
                let size = u32::try_from(declaration.bytes().ok()?).ok()?;
                signature.params.push(Param {
                    offset,
                    size,
                    align: align as u32,
                });
                top = u64::from(offset) + u64::from(size);
            }
            if top > PARAMETERS_MAX {
                return None;
            }
            signature.param_bytes = top as u32;
        }
        self.attributes(function.attributes, &mut signature).ok()?;
        Some(signature)
    }

    /// Decodes `name` and every function that it can call. `address_of` gives the addresses of
    /// the module's variables in global and constant memory.
    ///
    /// # Errors
    /// A kernel that is not in the module, or that uses what this engine does not execute: the
    /// error names the opcode and line.
    pub fn kernel(
        &self,
        name: &str,
        address_of: &dyn Fn(&str) -> Option<u64>,
    ) -> Result<Arc<Kernel>, PtxError> {
        let found = self
            .function(name)
            .filter(|&index| self.functions[index].entry);
        let Some(index) = found else {
            return Err(PtxError::new(
                0,
                format!("kernel `{name}` is not in the module"),
            ));
        };
        let line = self.functions[index].attributes.line;
        let unreadable = || {
            PtxError::new(
                line,
                format!("the declaration of `{name}` is malformed or too long"),
            )
        };
        let signature = self.signature(name).ok_or_else(unreadable)?;
        link::kernel(self, index, signature, address_of).map(Arc::new)
    }

    /// The text with `.maxnreg` on every kernel that has none: what a limit on the compiler's command
    /// line or in a link's options means.
    pub fn with_max_registers(&self, registers: u32) -> Vec<u8> {
        let limit = format!("\n.maxnreg {registers}\n");
        let mut text = Vec::with_capacity(self.text.len() + 64);
        let mut done = 0;
        let kernels = self.functions.iter().filter(|function| {
            let signature = self.signature(&function.name);
            function.body.is_some()
                && signature.is_some_and(|signature| signature.max_registers.is_none())
        });
        let mut places: Vec<usize> = kernels.map(|function| function.attributes.at).collect();
        places.sort_unstable();
        for place in places {
            text.extend(&self.text[done..place]);
            text.extend(limit.as_bytes());
            done = place;
        }
        text.extend(&self.text[done..]);
        text
    }

    fn attributes(&self, place: Place, signature: &mut Signature) -> Result<(), PtxError> {
        let mut lexer = self.lexer(place);
        while let Token::Directive(directive) = lexer.peek() {
            lexer.next();
            match directive {
                ".maxntid" | ".reqntid" => {
                    let extents = parse_extents(&mut lexer)?;
                    let threads = extents.iter().fold(1, |n: u32, &e| n.saturating_mul(e));
                    signature.max_threads = threads.clamp(1, 1024);
                    if directive == ".reqntid" {
                        signature.required_block = Some(extents);
                    }
                }
                ".maxnreg" => {
                    if let Literal::Integer { bits, .. } = expression::parse(&mut lexer)? {
                        signature.max_registers = Some(bits.min(u64::from(u32::MAX)) as u32);
                    }
                }
                ".minnctapersm" | ".maxnctapersm" | ".maxclusterrank" => {
                    expression::parse(&mut lexer)?;
                }
                ".reqnctapercluster" => {
                    parse_extents(&mut lexer)?;
                }
                ".pragma" => lexer.skip_statement()?,
                _ => {}
            }
        }
        Ok(())
    }
}
