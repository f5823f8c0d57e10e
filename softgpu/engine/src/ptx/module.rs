//! The index of a module's text: what it declares, and where its functions' bodies are.
//!
//! Bodies are skipped by matching braces, so that a module of a million lines is ready in
//! milliseconds; they are decoded when a kernel is first asked for.

use std::collections::HashMap;

use super::declaration::{parse_name, parse_type, Declaration};
use super::initializer::{self, Initializer, Relocation};
use super::lexer::{Lexer, Place, Token};
use super::types::Space;
use super::{expression, PtxError};
use crate::exec::windows;

/// A variable of module scope in `.global` or `.const` memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub space: Space,
    /// Bytes; 0 for an array without an extent that is defined elsewhere.
    pub size: u64,
    /// Bytes that its address must be a multiple of.
    pub align: u64,
    /// Initial bytes; what follows them is zero.
    pub init: Vec<u8>,
    /// Addresses to be written over `init`.
    pub relocations: Vec<Relocation>,
    /// Declared here (`.extern`) and defined in another module.
    pub external: bool,
    /// Visible outside the module (`.visible`, `.weak`, `.common`, `.extern`).
    pub visible: bool,
    /// A texture, sampler or surface reference: it has a name but no memory.
    pub opaque: bool,
}

impl Variable {
    /// The variable's initial contents with addresses filled in. `address_of` is asked for every
    /// symbol; the error is the name of the first that it does not know.
    pub fn image(&self, address_of: &dyn Fn(&str) -> Option<u64>) -> Result<Vec<u8>, String> {
        let mut bytes = self.init.clone();
        for relocation in &self.relocations {
            let address =
                address_of(&relocation.symbol).ok_or_else(|| relocation.symbol.clone())?;
            let value = address.wrapping_add_signed(relocation.addend);
            let value = value
                .checked_shr(relocation.shift)
                .unwrap_or(0)
                .to_le_bytes();
            let (start, count) = (relocation.offset as usize, relocation.bytes as usize);
            bytes[start..start + count].copy_from_slice(&value[..count]);
        }
        Ok(bytes)
    }
}

/// A variable of module scope in `.shared` memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedVariable {
    pub name: String,
    pub size: u64,
    pub align: u64,
    /// `.extern .shared x[]`: the launch says how large it is.
    pub dynamic: bool,
}

/// Where a function's parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// A kernel (`.entry`), not a `.func`.
    pub entry: bool,
    /// Just after `(` of the return parameters.
    pub returns: Option<Place>,
    /// Just after `(` of the parameters.
    pub params: Option<Place>,
    /// Just after the parameters: `.maxntid` and its like.
    pub attributes: Place,
    /// Just after `{`; `None` if only declared.
    pub body: Option<Place>,
}

/// Functions of the driver that are written in PTX themselves, and how their names begin.
const SYSCALLS: &[u8] = include_bytes!("syscalls.ptx");
const SYSCALL_PREFIX: &str = "__cuda_syscall_CGS_";

/// The index of one PTX text. Cheap to build; function bodies are decoded by [`Module::kernel`].
#[derive(Debug)]
pub struct Module {
    pub(crate) text: Vec<u8>,
    version: (u32, u32),
    target: u32,
    pub(crate) functions: Vec<Function>,
    by_name: HashMap<String, usize>,
    variables: Vec<Variable>,
    pub(crate) shared: Vec<SharedVariable>,
}

impl Module {
    /// Indexes a PTX text (trailing NUL bytes are allowed).
    ///
    /// # Errors
    /// A text that is not PTX, or whose declarations cannot be read.
    pub fn parse(mut ptx: Vec<u8>) -> Result<Module, PtxError> {
        let end = ptx.iter().rposition(|&c| c != 0).map_or(0, |last| last + 1);
        ptx.truncate(end);
        let mut module = Module::index(&ptx)?;
        if module.lacks_syscalls() {
            ptx.push(b'\n');
            ptx.extend(SYSCALLS);
            module = Module::index(&ptx)?;
        }
        module.text = ptx;
        Ok(module)
    }

    /// Whether functions are declared but not defined that [`SYSCALLS`] defines.
    fn lacks_syscalls(&self) -> bool {
        self.functions
            .iter()
            .any(|function| function.body.is_none() && function.name.starts_with(SYSCALL_PREFIX))
    }

    fn index(ptx: &[u8]) -> Result<Module, PtxError> {
        let mut module = Module {
            text: vec![],
            version: (0, 0),
            target: 0,
            functions: vec![],
            by_name: HashMap::new(),
            variables: vec![],
            shared: vec![],
        };
        Indexer {
            text: ptx,
            lexer: Lexer::new(ptx),
            module: &mut module,
        }
        .run()?;
        if module.version == (0, 0) {
            return Err(PtxError::new(1, "no `.version`: this is not PTX"));
        }
        Ok(module)
    }

    /// The `.version` of the text: major, minor.
    pub fn isa_version(&self) -> (u32, u32) {
        self.version
    }

    /// The number in `.target sm_…`: 86 for `sm_86`.
    pub fn target(&self) -> u32 {
        self.target
    }

    /// Names of the kernels that have bodies, in the order of the text.
    pub fn kernels(&self) -> Vec<&str> {
        let defined = self
            .functions
            .iter()
            .filter(|f| f.entry && f.body.is_some());
        defined.map(|f| f.name.as_str()).collect()
    }

    /// Variables of module scope in `.global` and `.const` memory.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// The device address of the function or kernel named `name`, for tables of functions in
    /// initialised variables. It can be called, not read.
    pub fn function_address(&self, name: &str) -> Option<u64> {
        let index = self.function(name)? as u64;
        Some(windows::CODE + (index + 1) * windows::CODE_STEP)
    }

    /// The function or kernel named `name`.
    pub(crate) fn function(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// A reader of the text that starts at `place`.
    pub(crate) fn lexer(&self, place: Place) -> Lexer<'_> {
        Lexer::at(&self.text, place)
    }
}

struct Indexer<'a, 'm> {
    text: &'a [u8],
    lexer: Lexer<'a>,
    module: &'m mut Module,
}

#[derive(Clone, Copy, Default)]
struct Linkage {
    external: bool,
    visible: bool,
}

impl<'a> Indexer<'a, '_> {
    fn run(&mut self) -> Result<(), PtxError> {
        let mut linkage = Linkage::default();
        let mut aliases = vec![];
        loop {
            let line = self.lexer.line();
            let directive = match self.lexer.next() {
                Token::End => break,
                Token::Directive(directive) => directive,
                Token::Punct(b';') => continue,
                token => {
                    let message = format!("expected a directive, found {}", token.describe());
                    return Err(PtxError::new(line, message));
                }
            };
            match directive {
                ".extern" => (linkage.external, linkage.visible) = (true, true),
                ".visible" | ".weak" | ".common" => linkage.visible = true,
                ".version" => self.module.version = self.version()?,
                ".target" => self.module.target = self.target()?,
                ".address_size" => self.address_size()?,
                ".file" | ".loc" => self.lexer.skip_line(),
                ".pragma" => self.lexer.skip_statement()?,
                ".section" => self.section()?,
                ".alias" => {
                    let alias = self.lexer.word()?;
                    self.lexer.expect(b',')?;
                    aliases.push((line, alias, self.lexer.word()?));
                    self.lexer.expect(b';')?;
                }
                ".entry" | ".func" => self.function(directive == ".entry")?,
                ".global" => self.variable(Space::Global, linkage)?,
                ".const" => self.variable(Space::Const, linkage)?,
                ".shared" => self.shared(linkage)?,
                ".reg" | ".tex" => self.lexer.skip_statement()?,
                _ => {
                    let message = format!("`{directive}` is not known at module scope");
                    return Err(PtxError::new(line, message));
                }
            }
            if !matches!(directive, ".extern" | ".visible" | ".weak" | ".common") {
                linkage = Linkage::default();
            }
        }
        for (line, alias, target) in aliases {
            let Some(target) = self.module.function(target) else {
                return Err(PtxError::new(line, format!("`{target}` is not a function")));
            };
            self.module.by_name.insert(alias.to_string(), target);
        }
        Ok(())
    }

    fn version(&mut self) -> Result<(u32, u32), PtxError> {
        if let Token::Number(text) = self.lexer.peek() {
            if let Some((major, minor)) = text.split_once('.') {
                if let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) {
                    self.lexer.next();
                    return Ok((major, minor));
                }
            }
        }
        Err(self.lexer.unexpected("a version such as 8.0"))
    }

    fn target(&mut self) -> Result<u32, PtxError> {
        let mut target = 0;
        loop {
            let word = self.lexer.word()?;
            if let Some(number) = word.strip_prefix("sm_") {
                let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                target = digits
                    .parse()
                    .map_err(|_| PtxError::new(self.lexer.line(), format!("target `{word}`")))?;
            }
            if !self.lexer.accept(b',') {
                return Ok(target);
            }
        }
    }

    fn address_size(&mut self) -> Result<(), PtxError> {
        let line = self.lexer.line();
        match self.lexer.next() {
            Token::Number("64") => Ok(()),
            token => {
                let message = format!("`.address_size` {}: only 64 is supported", token.describe());
                Err(PtxError::new(line, message))
            }
        }
    }

    /// `.section .debug_str { … }`
    fn section(&mut self) -> Result<(), PtxError> {
        while self.lexer.peek() != Token::Punct(b'{') {
            if self.lexer.next() == Token::End {
                return Err(self.lexer.unexpected("`{`"));
            }
        }
        self.lexer.next();
        self.skip_braces()
    }

    fn variable(&mut self, space: Space, linkage: Linkage) -> Result<(), PtxError> {
        let ty = parse_type(&mut self.lexer)?;
        loop {
            let declaration = parse_name(&mut self.lexer, ty)?;
            let Initializer { bytes, relocations } = match self.lexer.accept(b'=') {
                true => initializer::parse(&mut self.lexer, &declaration, self.text.len())?,
                false => Initializer::default(),
            };
            let size = declaration.bytes()?.max(bytes.len() as u64);
            self.add_variable(&declaration, space, linkage, (size, bytes, relocations));
            if !self.lexer.accept(b',') {
                return self.lexer.expect(b';');
            }
        }
    }

    fn add_variable(
        &mut self,
        declaration: &Declaration<'_>,
        space: Space,
        linkage: Linkage,
        (size, init, relocations): (u64, Vec<u8>, Vec<Relocation>),
    ) {
        let variable = Variable {
            name: declaration.name.to_string(),
            space,
            size,
            align: declaration.align(),
            init,
            relocations,
            external: linkage.external,
            visible: linkage.visible,
            opaque: declaration.ty.opaque,
        };
        // A declaration may come before the definition.
        match self
            .module
            .variables
            .iter_mut()
            .find(|v| v.external && v.name == variable.name)
        {
            Some(declared) if !variable.external => *declared = variable,
            Some(_) => {}
            None => self.module.variables.push(variable),
        }
    }

    fn shared(&mut self, linkage: Linkage) -> Result<(), PtxError> {
        let ty = parse_type(&mut self.lexer)?;
        loop {
            let declaration = parse_name(&mut self.lexer, ty)?;
            self.module.shared.push(SharedVariable {
                name: declaration.name.to_string(),
                size: declaration.bytes()?,
                align: declaration.align(),
                dynamic: linkage.external || declaration.dimensions.contains(&None),
            });
            if !self.lexer.accept(b',') {
                return self.lexer.expect(b';');
            }
        }
    }

    fn function(&mut self, entry: bool) -> Result<(), PtxError> {
        while let Token::Directive(".noreturn") = self.lexer.peek() {
            self.lexer.next();
        }
        let returns = self.parenthesis()?;
        let name = self.lexer.word()?.to_string();
        let params = self.parenthesis()?;
        let attributes = self.lexer.place();
        loop {
            match self.lexer.peek() {
                Token::Punct(b'{') => break,
                Token::Punct(b';') => break,
                Token::End => return Err(self.lexer.unexpected("a body or `;`")),
                _ => self.lexer.next(),
            };
        }
        let body = match self.lexer.next() {
            Token::Punct(b'{') => {
                let place = self.lexer.place();
                self.skip_braces()?;
                Some(place)
            }
            _ => None,
        };
        let function = Function {
            name,
            entry,
            returns,
            params,
            attributes,
            body,
        };
        match self.module.by_name.get(&function.name) {
            // A definition replaces its declaration; a second definition is the linker's to refuse.
            Some(&known) if function.body.is_some() => self.module.functions[known] = function,
            Some(_) => {}
            None => {
                let index = self.module.functions.len();
                self.module.by_name.insert(function.name.clone(), index);
                self.module.functions.push(function);
            }
        }
        Ok(())
    }

    /// Skips a parenthesised list if one comes next; the place just inside it.
    fn parenthesis(&mut self) -> Result<Option<Place>, PtxError> {
        if !self.lexer.accept(b'(') {
            return Ok(None);
        }
        let place = self.lexer.place();
        let mut depth = 1;
        while depth > 0 {
            match self.lexer.next() {
                Token::Punct(b'(') => depth += 1,
                Token::Punct(b')') => depth -= 1,
                Token::End => return Err(self.lexer.unexpected("`)`")),
                _ => {}
            }
        }
        Ok(Some(place))
    }

    /// Skips to just after the `}` that closes a `{` already taken.
    fn skip_braces(&mut self) -> Result<(), PtxError> {
        let Place { mut at, mut line } = self.lexer.place();
        let mut depth = 1usize;
        while at < self.text.len() {
            // Most pieces of code hold nothing of interest but the ends of lines.
            if let Some(piece) = self.text.get(at..at + PIECE) {
                let (mut interesting, mut lines) = (false, 0);
                for &c in piece {
                    interesting |= (c == b'{') | (c == b'}') | (c == b'/') | (c == b'"');
                    lines += u8::from(c == b'\n');
                }
                if !interesting {
                    (at, line) = (at + PIECE, line + u32::from(lines));
                    continue;
                }
            }
            // Look at this piece byte by byte.
            let end = (at + PIECE).min(self.text.len());
            while at < end {
                let c = self.text[at];
                at += 1;
                match c {
                    b'\n' => line += 1,
                    b'{' => depth += 1,
                    b'}' => {
                        depth -= 1;
                        if depth == 0 {
                            self.lexer.jump(Place { at, line });
                            return Ok(());
                        }
                    }
                    b'/' | b'"' => {
                        let after = skip_opaque(self.text, at - 1);
                        let skipped = &self.text[at..after];
                        line += skipped.iter().filter(|&&c| c == b'\n').count() as u32;
                        at = after;
                    }
                    _ => {}
                }
            }
        }
        Err(PtxError::new(line, "a body without its closing `}`"))
    }
}

/// Bytes that are looked at together while a body is skipped.
const PIECE: usize = 32;

/// The end of the comment or string that starts at `at`; `at + 1` if none does.
fn skip_opaque(text: &[u8], at: usize) -> usize {
    let rest = &text[at..];
    let end = |found: Option<usize>| at + found.unwrap_or(rest.len());
    if rest.starts_with(b"//") {
        end(rest.iter().position(|&c| c == b'\n'))
    } else if rest.starts_with(b"/*") {
        end(rest
            .get(2..)
            .and_then(|r| r.windows(2).position(|w| w == b"*/"))
            .map(|p| p + 4))
    } else if rest[0] == b'"' {
        end(rest[1..].iter().position(|&c| c == b'"').map(|p| p + 2))
    } else {
        at + 1
    }
}

/// Reads up to three comma-separated extents (`.maxntid 16, 16`); missing ones are 1.
pub(crate) fn parse_extents(lexer: &mut Lexer<'_>) -> Result<[u32; 3], PtxError> {
    let mut extents = [1; 3];
    for (index, extent) in extents.iter_mut().enumerate() {
        if index > 0 && !lexer.accept(b',') {
            break;
        }
        let value = expression::parse(lexer)?.bits();
        *extent = u32::try_from(value)
            .map_err(|_| PtxError::new(lexer.line(), format!("extent {value} is too large")))?;
    }
    Ok(extents)
}
