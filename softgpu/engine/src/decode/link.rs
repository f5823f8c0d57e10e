//! Joins the functions of a kernel: one address space of instructions, slots and frames.

use std::sync::atomic::{AtomicU64, Ordering};

use super::draft::{field, Draft, Pinned, Registers, Width};
use super::flow::{Flow, Layout};
use super::function::{FunctionDraft, FRAME_MAX};
use super::program::{Callee, Program};
use super::slots::{Assignment, Storage};
use super::{copies, runs, FrameSpan, Signature};
use crate::exec::inst::{Action, Flags, Guard, Inst, NONE};
use crate::exec::kernel::{CallSite, Content, Function, Kernel, Pin};
use crate::exec::lanes::Operands;
use crate::exec::windows;
use crate::ptx::module::Module;
use crate::ptx::types::Space;
use crate::ptx::PtxError;

/// Most slots of a kernel: 64 MiB of registers for a warp group.
const SLOTS_MAX: u32 = 1 << 16;
/// Local memory for calls whose depth is not known, in bytes of a thread.
const RECURSION_BYTES: u32 = 16 << 10;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Decodes the kernel with index `index` in `module`.
pub fn kernel(
    module: &Module,
    index: usize,
    signature: Signature,
    address_of: &dyn Fn(&str) -> Option<u64>,
) -> Result<Kernel, PtxError> {
    let mut program = Program::new(module, index, address_of);
    let mut drafts = program.read_all()?;
    let shared_bytes = program.shared.bytes();
    let dynamic = Pinned::Constant(shared_bytes.into());
    program.registers.settle(Pinned::DynamicShared, dynamic);

    let layouts: Vec<Layout> = drafts
        .iter_mut()
        .map(|draft| {
            let flow = Flow::new(&draft.drafts, &draft.labels, &program.tables);
            let kept = copies::propagate(&flow, &mut draft.drafts, &mut program.registers);
            let mut layout =
                Layout::new(&flow, &draft.drafts, &kept, &draft.labels, &program.tables);
            for block in 0..layout.starts.len() {
                let range = layout.block(block);
                runs::mark(&mut layout.code[range]);
            }
            layout
        })
        .collect();

    let mut linker = Linker {
        assignment: Assignment::default(),
        registers: &program.registers,
        pins: Default::default(),
        truths: vec![],
        code: vec![],
        tables: vec![vec![]; program.tables.len()],
    };
    linker.pin(&layouts);
    let mut functions = vec![];
    for ((draft, layout), &index) in drafts.iter().zip(&layouts).zip(&program.order) {
        let start = linker.code.len() as u32;
        let storage = linker.function(layout)?;
        functions.push(Function {
            name: draft.name.clone(),
            start,
            address: windows::CODE + (index as u64 + 1) * windows::CODE_STEP,
            frame_bytes: draft.frame_bytes,
            params: draft.params.clone(),
            returns: draft.returns.clone(),
            storage,
            recursive: false,
        });
    }
    let calls = call_sites(&program, &functions)?;
    let local_bytes = mark_recursion(&program, &drafts, &mut functions);
    let constants = module
        .variables()
        .iter()
        .filter(|v| v.space == Space::Const);
    Ok(Kernel {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        name: drafts[0].name.clone(),
        isa_version: module.isa_version(),
        slots: linker.assignment.slots_used,
        predicates: linker.assignment.predicates_used,
        code: linker.code,
        pins: linker.pins,
        truths: linker.truths,
        sites: program.sites,
        functions,
        calls,
        tables: linker.tables,
        params: signature.params,
        shared_bytes,
        const_bytes: constants.map(|variable| variable.size).sum(),
        local_bytes,
        max_threads: signature.max_threads,
        required_block: signature.required_block,
        max_registers: signature.max_registers,
    })
}

struct Linker<'p> {
    assignment: Assignment,
    registers: &'p Registers,
    pins: [Vec<Pin>; 3],
    truths: Vec<(u32, bool)>,
    code: Vec<Inst>,
    tables: Vec<Vec<u32>>,
}

impl Linker<'_> {
    /// Gives slots to the pinned registers that are still read.
    fn pin(&mut self, layouts: &[Layout]) {
        let code = layouts.iter().flat_map(|layout| &layout.code);
        for reg in code.flat_map(|draft| draft.read()) {
            let Some(value) = self.registers.pinned(reg) else {
                continue;
            };
            if self.assignment.slot(reg).is_some() {
                continue;
            }
            let width = self.registers.width(reg);
            let slot = self.assignment.pin(reg, width);
            let content = match value {
                Pinned::Truth(truth) => {
                    self.truths.push((slot, truth));
                    continue;
                }
                Pinned::Constant(bits) => Content::Constant(bits),
                Pinned::Param {
                    offset,
                    bytes,
                    signed,
                } => Content::Param {
                    offset,
                    bytes,
                    signed,
                },
                Pinned::Special(special) => Content::Special(special),
                Pinned::DynamicShared => Content::Constant(0), // settled before this
            };
            self.pins[content.level() as usize].push(Pin {
                slot,
                wide: width == Width::Double,
                content,
            });
        }
    }

    /// Appends one function.
    fn function(&mut self, layout: &Layout) -> Result<Storage, PtxError> {
        let storage = self.assignment.assign(layout, self.registers);
        let line = layout.code.first().map_or(0, |draft| draft.line);
        if self.assignment.slots_used > SLOTS_MAX || self.assignment.predicates_used > SLOTS_MAX {
            return Err(PtxError::new(
                line,
                "a function with too many live registers",
            ));
        }
        let base = self.code.len();
        let address = |block: u32| (base + layout.starts[block as usize]) as u32;
        for draft in &layout.code {
            let mut inst = self.instruction(draft);
            if let Action::Branch(block) = inst.action {
                inst.action = Action::Branch(address(block));
            }
            self.code.push(inst);
        }
        for (site, blocks) in &layout.tables {
            self.tables[*site as usize] = blocks.iter().map(|&block| address(block)).collect();
        }
        // Lanes may arrive at the start of a block, and after whatever can hold them back.
        for &start in &layout.starts {
            if let Some(inst) = self.code.get_mut(base + start) {
                inst.flags.add(Flags::LEADER);
            }
        }
        for index in base + 1..self.code.len() {
            if let Action::Barrier(_)
            | Action::Warp(_)
            | Action::Call
            | Action::CallIndirect
            | Action::Sleep = self.code[index - 1].action
            {
                self.code[index].flags.add(Flags::LEADER);
            }
        }
        Ok(storage)
    }

    fn instruction(&self, draft: &Draft) -> Inst {
        let slot = |field: usize| self.assignment.slot(draft.regs[field]).unwrap_or(NONE);
        let guard = match draft.guard {
            None => Guard::ALWAYS,
            Some((reg, negated)) => {
                Guard::new(self.assignment.slot(reg).unwrap_or_default(), negated)
            }
        };
        Inst {
            action: draft.action,
            operands: Operands {
                d: slot(field::D),
                d2: slot(field::D2),
                a: slot(field::A),
                b: slot(field::B),
                c: slot(field::C),
                e: slot(field::E),
                imm: draft.imm,
            },
            guard,
            site: draft.site,
            line: draft.line,
            flags: draft.flags,
        }
    }
}

/// Whether a call's arguments and results are those of a function. Callers compiled apart may take a
/// result that a function does not have, as linkers of machine code let them: they must not use it.
fn fits(call: (&[FrameSpan], &[FrameSpan]), function: &Function) -> bool {
    let same = |a: &[FrameSpan], b: &[FrameSpan]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.bytes == b.bytes)
    };
    let taken = call.1.is_empty() || function.returns.is_empty() || same(call.1, &function.returns);
    same(call.0, &function.params) && taken
}

fn call_sites(program: &Program<'_>, functions: &[Function]) -> Result<Vec<CallSite>, PtxError> {
    let site = |call: &super::program::CallDraft| {
        let sizes_match = |spans: &[FrameSpan], sizes: &[u32]| {
            spans.len() == sizes.len()
                && spans.iter().zip(sizes).all(|(s, bytes)| s.bytes == *bytes)
        };
        let callee = match &call.callee {
            Callee::Known(number) => {
                let function = &functions[*number];
                if !fits((&call.params, &call.returns), function) {
                    let message = format!("arguments that do not fit `{}`", function.name);
                    return Err(PtxError::new(call.line, message));
                }
                Some(*number as u32)
            }
            Callee::Unknown { returns, params } => {
                if !sizes_match(&call.params, params) || !sizes_match(&call.returns, returns) {
                    return Err(PtxError::new(
                        call.line,
                        "arguments that do not fit the prototype",
                    ));
                }
                None
            }
            Callee::System => None,
        };
        Ok(CallSite {
            callee,
            params: call.params.clone(),
            returns: call.returns.clone(),
        })
    };
    program.calls.iter().map(site).collect()
}

/// Marks functions that may be active twice in a thread, and computes the local memory of a
/// thread: the deepest chain of frames.
fn mark_recursion(
    program: &Program<'_>,
    drafts: &[FunctionDraft],
    functions: &mut [Function],
) -> u32 {
    let callees: Vec<Vec<usize>> = drafts
        .iter()
        .map(|draft| {
            let mut callees = vec![];
            for call in draft.drafts.iter().filter_map(|draft| match draft.action {
                Action::Call | Action::CallIndirect => Some(&program.calls[draft.site as usize]),
                _ => None,
            }) {
                match &call.callee {
                    Callee::Known(number) => callees.push(*number),
                    _ => callees.extend(
                        (1..functions.len())
                            .filter(|&f| fits((&call.params, &call.returns), &functions[f])),
                    ),
                }
            }
            callees.sort_unstable();
            callees.dedup();
            callees
        })
        .collect();
    let mut callers = vec![vec![]; functions.len()];
    for (caller, callees) in callees.iter().enumerate() {
        callees
            .iter()
            .for_each(|&callee| callers[callee].push(caller));
    }
    // Peel off functions all of whose callees are peeled off: what stays can reach a cycle.
    let mut waiting: Vec<usize> = callees.iter().map(Vec::len).collect();
    let mut ready: Vec<usize> = (0..functions.len()).filter(|&f| waiting[f] == 0).collect();
    let mut depth = vec![None; functions.len()];
    while let Some(function) = ready.pop() {
        let below = callees[function]
            .iter()
            .filter_map(|&callee| depth[callee])
            .max();
        depth[function] = Some(below.unwrap_or(0) + u64::from(functions[function].frame_bytes));
        for &caller in &callers[function] {
            waiting[caller] -= 1;
            if waiting[caller] == 0 {
                ready.push(caller);
            }
        }
    }
    for (function, depth) in functions.iter_mut().zip(&depth) {
        function.recursive = depth.is_none();
    }
    let frames: u64 = functions
        .iter()
        .map(|function| u64::from(function.frame_bytes))
        .sum();
    let bytes = depth[0].unwrap_or(frames + u64::from(RECURSION_BYTES));
    bytes.min(FRAME_MAX) as u32
}
