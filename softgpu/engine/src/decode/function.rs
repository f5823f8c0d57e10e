//! Reads one function's body into [`Draft`]s.

use std::collections::HashMap;

use super::draft::{Draft, Pinned, Reg, Width};
use super::fuse::fuse;
use super::program::{Program, SharedPlace};
use super::scope::{FrameSpan, Scopes, Symbol};
use crate::exec::inst::Action;
use crate::exec::special::{self, Named};
use crate::exec::windows;
use crate::ptx::declaration::{parse_name, parse_type, Declaration};
use crate::ptx::lexer::{Lexer, Place, Token};
use crate::ptx::literal::Literal;
use crate::ptx::module::Function;
use crate::ptx::statement::{self, Base, Instruction, Operand};
use crate::ptx::types::Space;
use crate::ptx::{expression, PtxError};

/// Most bytes of one thread's frames.
pub const FRAME_MAX: u64 = 512 << 10;
/// Most bytes of a kernel's parameters.
const PARAMS_MAX: u64 = 32_764;

/// A function before its blocks are put in order.
pub struct FunctionDraft {
    pub name: String,
    pub drafts: Vec<Draft>,
    /// For each label number, the draft it stands before.
    pub labels: Vec<usize>,
    pub frame_bytes: u32,
    pub returns: Vec<FrameSpan>,
    pub params: Vec<FrameSpan>,
}

/// What an address starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Register(Reg),
    Constant(u64),
    /// The start of dynamic shared memory, known when everything is decoded.
    DynamicShared,
}

/// An address operand, resolved.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    /// The state space, where a variable's name tells it.
    pub space: Option<Space>,
    pub place: Origin,
    pub offset: i64,
}

/// A label as an instruction names it; numbers in drafts index these.
struct LabelUse<'a> {
    name: &'a str,
    scope: u32,
    line: u32,
}

/// The state of reading one body.
pub struct Builder<'p, 'm> {
    pub program: &'p mut Program<'m>,
    pub entry: bool,
    pub scopes: Scopes<'m>,
    drafts: Vec<Draft>,
    label_uses: Vec<LabelUse<'m>>,
    label_places: HashMap<(u32, &'m str), usize>,
    /// First free byte of the frame, and the most that was ever in use.
    frame_top: u64,
    frame_high: u64,
    /// Frame tops to return to when scopes close.
    frame_marks: Vec<u64>,
    frame_base: Option<Reg>,
    /// The guard of the instruction being read.
    guard: Option<(Reg, bool)>,
    /// The line of the instruction being read.
    pub line: u32,
}

/// Reads the body of `function`, which must have one.
pub fn read<'m>(
    program: &mut Program<'m>,
    function: &'m Function,
    body: Place,
) -> Result<FunctionDraft, PtxError> {
    let mut builder = Builder {
        program,
        entry: function.entry,
        scopes: Scopes::new(),
        drafts: vec![],
        label_uses: vec![],
        label_places: HashMap::new(),
        frame_top: 0,
        frame_high: 0,
        frame_marks: vec![],
        frame_base: None,
        guard: None,
        line: body.line,
    };
    let returns = builder.parameters(function.returns)?;
    let params = builder.parameters(function.params)?;
    let mut lexer = builder.program.module.lexer(body);
    builder.body(&mut lexer)?;
    let mut labels = builder.resolve_labels()?;
    fuse(&mut builder.drafts, &mut labels);
    Ok(FunctionDraft {
        name: function.name.clone(),
        drafts: builder.drafts,
        labels,
        frame_bytes: builder.frame_high.next_multiple_of(16) as u32,
        returns,
        params,
    })
}

/// Reads a parenthesised list of parameters from just inside it.
pub fn parameter_list<'a>(lexer: &mut Lexer<'a>) -> Result<Vec<Declaration<'a>>, PtxError> {
    let mut list = vec![];
    while !lexer.accept(b')') {
        if !list.is_empty() {
            lexer.expect(b',')?;
        }
        let line = lexer.line();
        match lexer.next() {
            Token::Directive(".param") => {}
            Token::Directive(".reg") => {
                return Err(PtxError::new(line, "a function with `.reg` parameters"));
            }
            token => {
                let message = format!("expected `.param`, found {}", token.describe());
                return Err(PtxError::new(line, message));
            }
        }
        let ty = parse_type(lexer)?;
        let declaration = match lexer.peek() {
            // Prototypes may leave names out.
            Token::Punct(b',' | b')') => Declaration {
                name: "_",
                ty,
                dimensions: vec![],
                range: None,
                line,
            },
            _ => parse_name(lexer, ty)?,
        };
        list.push(declaration);
    }
    Ok(list)
}

impl FunctionDraft {
    /// A function that cannot run and says so when it is called.
    pub fn illegal(function: &Function, line: u32) -> FunctionDraft {
        FunctionDraft {
            name: function.name.clone(),
            drafts: vec![Draft::new(Action::Illegal, line)],
            labels: vec![],
            frame_bytes: 0,
            returns: vec![],
            params: vec![],
        }
    }
}

impl<'m> Builder<'_, 'm> {
    /// Declares a function's parameters: in the frame, or for a kernel in parameter space.
    fn parameters(&mut self, list: Option<Place>) -> Result<Vec<FrameSpan>, PtxError> {
        let Some(place) = list else { return Ok(vec![]) };
        let (mut spans, mut top) = (vec![], 0u64);
        for declaration in parameter_list(&mut self.program.module.lexer(place))? {
            let (bytes, align) = (declaration.bytes()?, declaration.align());
            let span = if self.entry {
                let offset = top.next_multiple_of(align);
                top = offset + bytes;
                if top > PARAMS_MAX {
                    return Err(PtxError::new(
                        declaration.line,
                        "too many bytes of parameters",
                    ));
                }
                let span = FrameSpan {
                    offset: offset as u32,
                    bytes: bytes as u32,
                };
                self.scopes
                    .declare(declaration.name, Symbol::KernelParam(span));
                span
            } else {
                self.frame_variable(&declaration)?
            };
            spans.push(span);
        }
        Ok(spans)
    }

    /// Gives a variable bytes of the frame.
    fn frame_variable(&mut self, declaration: &Declaration<'m>) -> Result<FrameSpan, PtxError> {
        let span = self.frame_bytes(declaration.bytes()?, declaration.align())?;
        self.scopes.declare(declaration.name, Symbol::Frame(span));
        Ok(span)
    }

    /// Takes bytes of the frame until the scope closes.
    pub fn frame_bytes(&mut self, bytes: u64, align: u64) -> Result<FrameSpan, PtxError> {
        let offset = self.frame_top.next_multiple_of(align.max(1));
        self.frame_top = offset.saturating_add(bytes);
        if self.frame_top > FRAME_MAX {
            return Err(self.error("more local memory than a thread may have"));
        }
        self.frame_high = self.frame_high.max(self.frame_top);
        Ok(FrameSpan {
            offset: offset as u32,
            bytes: bytes as u32,
        })
    }

    fn body(&mut self, lexer: &mut Lexer<'m>) -> Result<(), PtxError> {
        loop {
            self.line = lexer.line();
            match lexer.next() {
                Token::Punct(b'{') => {
                    self.frame_marks.push(self.frame_top);
                    self.scopes.enter(self.line)?;
                }
                Token::Punct(b'}') => {
                    if !self.scopes.leave() {
                        break;
                    }
                    self.frame_top = self.frame_marks.pop().unwrap_or(0);
                }
                Token::Punct(b';') => {}
                Token::Punct(b'@') => {
                    let guard = statement::guard(lexer)?;
                    let opcode = lexer.word()?;
                    self.instruction(statement::parse(lexer, Some(guard), opcode, self.line)?)?;
                }
                Token::Word(word) if lexer.accept(b':') => self.label(lexer, word)?,
                Token::Word(word) => {
                    self.instruction(statement::parse(lexer, None, word, self.line)?)?;
                }
                Token::Directive(directive) => self.directive(lexer, directive)?,
                token => {
                    let message = format!("expected a statement, found {}", token.describe());
                    return Err(self.error(message));
                }
            }
        }
        // Falling off the end leaves the function.
        let end = if self.entry {
            Action::Exit
        } else {
            Action::Return
        };
        self.drafts.push(Draft::new(end, self.line));
        Ok(())
    }

    fn directive(&mut self, lexer: &mut Lexer<'m>, directive: &str) -> Result<(), PtxError> {
        let space = match directive {
            ".loc" | ".file" => {
                lexer.skip_line();
                return Ok(());
            }
            ".pragma" => return lexer.skip_statement(),
            ".reg" | ".local" | ".param" | ".shared" | ".extern" => directive,
            _ => return Err(self.error(format!("`{directive}` is not known inside a function"))),
        };
        if space == ".extern" {
            return Err(self.error("`.extern` inside a function"));
        }
        let ty = parse_type(lexer)?;
        loop {
            let declaration = parse_name(lexer, ty)?;
            match space {
                ".reg" => {
                    let registers = &mut self.program.registers;
                    self.scopes.declare_registers(&declaration, registers)?;
                }
                ".shared" => {
                    let (bytes, align) = (declaration.bytes()?, declaration.align());
                    let offset = self.program.shared.place(bytes, align, self.line)?;
                    self.scopes
                        .declare(declaration.name, Symbol::Shared(offset));
                }
                _ => {
                    self.frame_variable(&declaration)?;
                }
            }
            if !lexer.accept(b',') {
                return lexer.expect(b';');
            }
        }
    }

    /// A label, or the name of a directive that needs one.
    fn label(&mut self, lexer: &mut Lexer<'m>, name: &'m str) -> Result<(), PtxError> {
        match lexer.peek() {
            Token::Directive(".branchtargets") => {
                lexer.next();
                let mut targets = vec![];
                loop {
                    targets.push(lexer.word()?);
                    if !lexer.accept(b',') {
                        break;
                    }
                }
                self.scopes.declare(name, Symbol::BranchTargets(targets));
                lexer.expect(b';')
            }
            Token::Directive(".callprototype") => {
                lexer.next();
                let returns = self.prototype_part(lexer)?;
                lexer.word()?;
                let params = self.prototype_part(lexer)?;
                self.scopes
                    .declare(name, Symbol::Prototype { returns, params });
                lexer.skip_statement()
            }
            Token::Directive(".calltargets") => lexer.skip_statement(),
            _ => {
                let place = self.drafts.len();
                if self
                    .label_places
                    .insert((self.scopes.current(), name), place)
                    .is_some()
                {
                    return Err(self.error(format!("label `{name}` stands twice")));
                }
                Ok(())
            }
        }
    }

    fn prototype_part(&mut self, lexer: &mut Lexer<'m>) -> Result<Vec<u32>, PtxError> {
        if !lexer.accept(b'(') {
            return Ok(vec![]);
        }
        let list = parameter_list(lexer)?;
        list.iter()
            .map(|declaration| Ok(declaration.bytes()?.min(u64::from(u32::MAX)) as u32))
            .collect()
    }

    fn instruction(&mut self, instruction: Instruction<'m>) -> Result<(), PtxError> {
        self.line = instruction.line;
        self.guard = match instruction.guard {
            None => None,
            Some((name, negated)) => Some((self.register(name, Width::Predicate)?, negated)),
        };
        self.translate(&instruction)
    }

    fn translate(&mut self, instruction: &Instruction<'m>) -> Result<(), PtxError> {
        let parts: Vec<&str> = instruction.opcode.split('.').collect();
        match parts[0] {
            "mov" if parts.last() != Some(&"pred") => self.mov(instruction),
            "cvta" => self.cvta(instruction, &parts),
            "isspacep" => self.isspacep(instruction, &parts),
            "ld" | "ldu" => self.load(instruction, &parts),
            "st" => self.store(instruction, &parts),
            "atom" | "red" if parts.get(1) != Some(&"async") => self.atomic(instruction, &parts),
            "cp" => self.copy_async(instruction, &parts),
            "prefetch" | "prefetchu" | "applypriority" | "discard" => Ok(()),
            "createpolicy" => self.create_policy(instruction),
            "membar" | "fence" => self.fence(&parts),
            "bra" => self.branch(instruction),
            "brx" => self.branch_table(instruction),
            "call" => self.call(instruction),
            "ret" => self.leave(),
            "exit" => self.emit_plain_action(Action::Exit),
            "trap" | "brkpt" => self.emit_plain_action(Action::Trap),
            "nanosleep" => self.emit_plain_action(Action::Sleep),
            "griddepcontrol" => Ok(()),
            "bar" if parts.get(1) == Some(&"warp") => self.warp_sync(instruction),
            "bar" | "barrier" => self.barrier(instruction, &parts),
            "shfl" | "vote" | "match" | "redux" | "activemask" | "elect" => {
                self.warp(instruction, &parts)
            }
            _ => self.arithmetic(instruction, &parts),
        }
    }

    fn emit_plain_action(&mut self, action: Action) -> Result<(), PtxError> {
        self.emit(Draft::new(action, self.line));
        Ok(())
    }

    /// Appends an instruction under the guard of the one being read.
    pub fn emit(&mut self, mut draft: Draft) {
        draft.guard = self.guard;
        self.drafts.push(draft);
    }

    /// Appends an instruction whose effect is harmless in lanes that the guard excludes.
    pub fn emit_unguarded(&mut self, draft: Draft) {
        self.drafts.push(draft);
    }

    /// The number of a label that an instruction jumps to.
    pub fn label_use(&mut self, name: &'m str) -> u32 {
        let (scope, line) = (self.scopes.current(), self.line);
        self.label_uses.push(LabelUse { name, scope, line });
        self.label_uses.len() as u32 - 1
    }

    /// Finds the draft that each label use means, innermost scope first.
    fn resolve_labels(&mut self) -> Result<Vec<usize>, PtxError> {
        let find = |use_: &LabelUse<'m>| {
            let mut scope = Some(use_.scope);
            while let Some(id) = scope {
                if let Some(&place) = self.label_places.get(&(id, use_.name)) {
                    return Ok(place);
                }
                scope = self.scopes.parent(id);
            }
            Err(PtxError::new(
                use_.line,
                format!("label `{}` is not in this function", use_.name),
            ))
        };
        self.label_uses.iter().map(find).collect()
    }

    /// An error at the current line.
    pub fn error(&self, message: impl Into<String>) -> PtxError {
        PtxError::new(self.line, message)
    }

    /// The error for an instruction this engine does not execute.
    pub fn unsupported(&self, opcode: &str) -> PtxError {
        self.error(format!("instruction `{opcode}` is not supported"))
    }

    /// The error for operands that do not fit the instruction.
    pub fn bad_operands(&self, instruction: &Instruction<'_>) -> PtxError {
        self.error(format!("operands that do not fit `{}`", instruction.opcode))
    }

    /// A register for an intermediate value.
    pub fn temporary(&mut self, width: Width) -> Reg {
        self.program.registers.create(width)
    }

    /// The register that always holds `bits`.
    pub fn constant(&mut self, bits: u64, width: Width) -> Reg {
        self.program.registers.constant(bits, width)
    }

    /// The declared or special register `name`, of any width.
    pub fn any_register(&mut self, name: &str) -> Result<Reg, PtxError> {
        match self.scopes.lookup(name, &mut self.program.registers) {
            Some(Symbol::Register(reg)) => return Ok(reg),
            Some(_) => return Err(self.error(format!("`{name}` is not a register"))),
            None => {}
        }
        match special::by_name(name) {
            Some(Named::Special(special)) => {
                let width = if special.is_wide() {
                    Width::Double
                } else {
                    Width::Word
                };
                Ok(self.program.registers.pin(Pinned::Special(special), width))
            }
            Some(Named::Timer(_)) => Err(self.error(format!("`{name}` can only be read by `mov`"))),
            None => Err(self.error(format!("`{name}` is not declared"))),
        }
    }

    /// The register `name`, which must be `width` wide.
    pub fn register(&mut self, name: &str, width: Width) -> Result<Reg, PtxError> {
        let reg = self.any_register(name)?;
        match self.program.registers.width(reg) == width {
            true => Ok(reg),
            false => Err(self.error(format!("register `{name}` has the wrong size here"))),
        }
    }

    /// The register that an instruction writes; `_` is one that nobody reads.
    pub fn destination(&mut self, operand: &Operand<'_>, width: Width) -> Result<Reg, PtxError> {
        let reg = match operand {
            Operand::Name {
                name: "_",
                addend: 0,
            } => return Ok(self.temporary(width)),
            Operand::Name { name, addend: 0 } => self.register(name, width)?,
            _ => return Err(self.error("expected a register to write")),
        };
        match self.program.registers.pinned(reg) {
            None => Ok(reg),
            Some(_) => Err(self.error("a special register cannot be written")),
        }
    }

    /// A register or an integer.
    pub fn source(&mut self, operand: &Operand<'_>, width: Width) -> Result<Reg, PtxError> {
        match operand {
            Operand::Name { name, addend: 0 } => self.register(name, width),
            Operand::Literal(Literal::Integer { bits, .. }) => Ok(self.constant(*bits, width)),
            _ => Err(self.error("expected a register or an integer")),
        }
    }

    /// The register with the start of this function's frame in the thread's local memory.
    pub fn frame_base(&mut self) -> Reg {
        if self.entry {
            return self.constant(0, Width::Word);
        }
        if let Some(reg) = self.frame_base {
            return reg;
        }
        let reg = self.temporary(Width::Word);
        self.frame_base = Some(reg);
        // At the very start, so that it comes before every use.
        let action = Action::Block(crate::exec::moves::frame_address);
        let draft = Draft::new(action, self.line).def(super::draft::field::D, reg);
        self.drafts.insert(0, draft);
        for place in self.label_places.values_mut() {
            *place += 1;
        }
        reg
    }

    /// What an address operand means.
    pub fn address(&mut self, operand: &Operand<'_>) -> Result<Located, PtxError> {
        match *operand {
            Operand::Address {
                base: Base::Name(name),
                offset,
            } => self.locate(name, offset),
            Operand::Address {
                base: Base::Absolute,
                offset,
            } => Ok(Located {
                space: None,
                place: Origin::Constant(0),
                offset,
            }),
            _ => Err(self.error("expected an address")),
        }
    }

    /// The address of the variable `name`, or the value of the register, plus `offset`.
    pub fn locate(&mut self, name: &str, offset: i64) -> Result<Located, PtxError> {
        let located = |space, place, more: u32| {
            Ok(Located {
                space: Some(space),
                place,
                offset: offset.wrapping_add(more.into()),
            })
        };
        match self.scopes.lookup(name, &mut self.program.registers) {
            Some(Symbol::Register(reg)) => {
                return Ok(Located {
                    space: None,
                    place: Origin::Register(reg),
                    offset,
                });
            }
            // Local addresses count from a kernel's frame, which is the lowest.
            Some(Symbol::Frame(span)) if self.entry => {
                return located(Space::Local, Origin::Constant(0), span.offset);
            }
            Some(Symbol::Frame(span)) => {
                let base = self.frame_base();
                return located(Space::Local, Origin::Register(base), span.offset);
            }
            Some(Symbol::KernelParam(span)) => {
                return located(Space::Param, Origin::Constant(windows::PARAM), span.offset);
            }
            Some(Symbol::Shared(at)) => return located(Space::Shared, Origin::Constant(0), at),
            Some(_) => return Err(self.error(format!("`{name}` has no address"))),
            None => {}
        }
        if special::by_name(name).is_some() {
            let place = Origin::Register(self.any_register(name)?);
            return Ok(Located {
                space: None,
                place,
                offset,
            });
        }
        match self.program.shared_variable(name, self.line)? {
            Some(SharedPlace::Static(at)) => located(Space::Shared, Origin::Constant(0), at),
            Some(SharedPlace::Dynamic) => located(Space::Shared, Origin::DynamicShared, 0),
            None => {
                let (space, address) = self.program.global_address(name, self.line)?;
                located(space, Origin::Constant(address), 0)
            }
        }
    }

    /// The register with the start of an address: `width` wide unless it is a register already.
    pub fn base(&mut self, origin: Origin, width: Width) -> Reg {
        match origin {
            Origin::Register(reg) => reg,
            Origin::Constant(bits) => self.constant(bits, width),
            Origin::DynamicShared => self.program.registers.pin(Pinned::DynamicShared, width),
        }
    }

    /// A literal as bits of an operand of type `float` (its width; 0: not a float).
    pub fn literal_bits(&self, literal: Literal, float: u8) -> Result<u64, PtxError> {
        Ok(match (float, literal) {
            (32, Literal::Single(bits)) => u64::from(bits),
            (32, Literal::Double(value)) => u64::from((value as f32).to_bits()),
            (64, Literal::Single(_) | Literal::Double(_)) => {
                expression::as_double(literal).to_bits()
            }
            (32 | 64, Literal::Integer { bits: 1.., .. }) => {
                return Err(self.error("an integer where a float is expected"));
            }
            (16, Literal::Single(_) | Literal::Double(_)) => {
                return Err(self.error("a 16-bit float is written as its bits, such as 0x3C00"));
            }
            (_, literal) => literal.bits(),
        })
    }
}
