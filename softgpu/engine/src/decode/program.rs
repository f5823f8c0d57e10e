//! What the functions of one kernel have in common while they are decoded: registers, shared
//! memory, the addresses of variables, and which functions are needed.

use std::collections::HashMap;

use super::draft::Registers;
use super::function::{self, FunctionDraft};
use super::scope::FrameSpan;
use crate::ptx::module::Module;
use crate::ptx::types::Space;
use crate::ptx::PtxError;

/// Most bytes of shared memory that a block may have: what the largest devices offer.
pub const SHARED_MAX: u64 = 227 << 10;
/// Most functions of one kernel.
const FUNCTIONS_MAX: usize = 1 << 16;

/// The layout of a block's static shared memory.
#[derive(Default)]
pub struct SharedLayout {
    top: u64,
    /// Alignment that the dynamic part wants, 0 if there is none.
    dynamic_align: u64,
    variables: HashMap<String, SharedPlace>,
}

/// Where a shared variable of module scope lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedPlace {
    Static(u32),
    /// At the end of the static part, which is known when everything is decoded.
    Dynamic,
}

impl SharedLayout {
    /// Takes `bytes` of shared memory.
    pub fn place(&mut self, bytes: u64, align: u64, line: u32) -> Result<u32, PtxError> {
        let offset = self.top.next_multiple_of(align.max(1));
        let top = offset.saturating_add(bytes);
        if top > SHARED_MAX {
            return Err(PtxError::new(
                line,
                "more shared memory than a block may have",
            ));
        }
        self.top = top;
        Ok(offset as u32)
    }

    /// Bytes of the static part; the dynamic part starts after them.
    pub fn bytes(&self) -> u32 {
        self.top.next_multiple_of(self.dynamic_align.max(1)) as u32
    }
}

/// Who a call site calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The function with this number in the program.
    Known(usize),
    /// Whatever function has the address in a register, if its parameters have these sizes.
    Unknown { returns: Vec<u32>, params: Vec<u32> },
    /// A function that the engine provides.
    System,
}

/// A call as the caller sees it.
#[derive(Clone, Debug)]
pub struct CallDraft {
    pub callee: Callee,
    /// Where in the caller's frame the arguments are, and the results go.
    pub params: Vec<FrameSpan>,
    pub returns: Vec<FrameSpan>,
    pub line: u32,
}

/// A kernel being decoded.
pub struct Program<'m> {
    pub module: &'m Module,
    address_of: &'m dyn Fn(&str) -> Option<u64>,
    pub registers: Registers,
    pub shared: SharedLayout,
    /// Index in the module of each function of the program; the kernel is number 0.
    pub order: Vec<usize>,
    numbers: HashMap<usize, usize>,
    pub calls: Vec<CallDraft>,
    /// Label numbers of each `brx.idx` list.
    pub tables: Vec<Vec<u32>>,
    /// How many instructions cache a range of memory.
    pub sites: u32,
}

impl<'m> Program<'m> {
    /// A program that consists of the kernel with index `kernel`.
    pub fn new(
        module: &'m Module,
        kernel: usize,
        address_of: &'m dyn Fn(&str) -> Option<u64>,
    ) -> Program<'m> {
        Program {
            module,
            address_of,
            registers: Registers::default(),
            shared: SharedLayout::default(),
            order: vec![kernel],
            numbers: HashMap::from([(kernel, 0)]),
            calls: vec![],
            tables: vec![],
            sites: 0,
        }
    }

    /// Decodes the kernel and every function that it can reach.
    pub fn read_all(&mut self) -> Result<Vec<FunctionDraft>, PtxError> {
        let module = self.module;
        let mut drafts = vec![];
        let mut indirect = false;
        loop {
            while drafts.len() < self.order.len() {
                let first = drafts.is_empty();
                let function = &module.functions[self.order[drafts.len()]];
                let Some(body) = function.body else {
                    let message = format!("function `{}` is not defined", function.name);
                    return Err(PtxError::new(function.attributes.line, message));
                };
                match function::read(self, function, body) {
                    Ok(draft) => drafts.push(draft),
                    // Only reachable through a pointer that may never be called: fails if it is.
                    Err(error) if indirect && !first => {
                        drafts.push(FunctionDraft::illegal(function, error.line));
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut callees = self.calls.iter().map(|call| &call.callee);
            let unknown = callees.any(|callee| matches!(callee, Callee::Unknown { .. }));
            if indirect || !unknown {
                return Ok(drafts);
            }
            indirect = true;
            for (index, function) in module.functions.iter().enumerate() {
                if !function.entry && function.body.is_some() {
                    self.number(index, 0)?;
                }
            }
        }
    }

    /// The program's number for a function of the module, which is decoded later.
    pub fn number(&mut self, index: usize, line: u32) -> Result<usize, PtxError> {
        if let Some(&number) = self.numbers.get(&index) {
            return Ok(number);
        }
        if self.order.len() == FUNCTIONS_MAX {
            return Err(PtxError::new(line, "too many functions"));
        }
        let number = self.order.len();
        self.order.push(index);
        self.numbers.insert(index, number);
        Ok(number)
    }

    /// A new place to cache a range of memory.
    pub fn new_site(&mut self) -> u32 {
        self.sites += 1;
        self.sites - 1
    }

    /// Where the shared variable `name` of module scope lies, or `None` if there is none.
    pub fn shared_variable(
        &mut self,
        name: &str,
        line: u32,
    ) -> Result<Option<SharedPlace>, PtxError> {
        if let Some(&place) = self.shared.variables.get(name) {
            return Ok(Some(place));
        }
        let Some(variable) = self.module.shared.iter().find(|v| v.name == name) else {
            return Ok(None);
        };
        let place = if variable.dynamic {
            self.shared.dynamic_align = self.shared.dynamic_align.max(variable.align);
            SharedPlace::Dynamic
        } else {
            SharedPlace::Static(self.shared.place(variable.size, variable.align, line)?)
        };
        self.shared.variables.insert(name.to_string(), place);
        Ok(Some(place))
    }

    /// The address of a variable in global or constant memory, or of a function.
    pub fn global_address(&mut self, name: &str, line: u32) -> Result<(Space, u64), PtxError> {
        if let Some(variable) = self.module.variables().iter().find(|v| v.name == name) {
            if let (false, Some(address)) = (variable.opaque, (self.address_of)(name)) {
                return Ok((variable.space, address));
            }
            return Err(PtxError::new(line, format!("`{name}` has no address")));
        }
        match self.module.function_address(name) {
            Some(address) => Ok((Space::Global, address)),
            None => Err(PtxError::new(line, format!("`{name}` is not declared"))),
        }
    }
}
