//! Names inside a function: registers, variables, labels, and the braces that bound them.

use std::collections::HashMap;

use super::draft::{Reg, RegMap, Registers, Width};
use crate::ptx::declaration::Declaration;
use crate::ptx::PtxError;

/// Bytes in a function's frame: a local variable or a parameter of it or of a call it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSpan {
    /// From the start of the frame.
    pub offset: u32,
    pub bytes: u32,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq)]
pub enum Symbol<'a> {
    Register(Reg),
    /// A register of a vector type.
    Vector(Vec<Reg>),
    /// `.local`, or `.param` of a function or call.
    Frame(FrameSpan),
    /// A kernel's parameter: its place among the parameters.
    KernelParam(FrameSpan),
    /// Offset in the block's shared memory.
    Shared(u32),
    /// `.callprototype`: sizes of returns and parameters.
    Prototype {
        returns: Vec<u32>,
        params: Vec<u32>,
    },
    /// `.branchtargets`
    BranchTargets(Vec<&'a str>),
}

/// `.reg .b32 %r<count>`: registers are created when first named.
struct Range {
    width: Width,
    count: u64,
    created: RegMap<Reg>,
}

#[derive(Default)]
struct Scope<'a> {
    /// Number in [`Scopes::parents`].
    id: u32,
    symbols: HashMap<&'a str, Symbol<'a>>,
    ranges: HashMap<&'a str, Range>,
}

/// Deepest nesting of braces.
const DEPTH_MAX: usize = 256;

/// The scopes that are open, and the shape of all that were.
pub struct Scopes<'a> {
    open: Vec<Scope<'a>>,
    /// For each scope ever opened, the one around it.
    parents: Vec<u32>,
}

impl<'a> Scopes<'a> {
    /// The outermost scope of a function, open.
    pub fn new() -> Scopes<'a> {
        Scopes {
            open: vec![Scope::default()],
            parents: vec![0],
        }
    }

    /// Opens a scope.
    pub fn enter(&mut self, line: u32) -> Result<(), PtxError> {
        if self.open.len() == DEPTH_MAX {
            return Err(PtxError::new(line, "scopes nested too deeply"));
        }
        let id = self.parents.len() as u32;
        self.parents.push(self.current());
        self.open.push(Scope {
            id,
            ..Scope::default()
        });
        Ok(())
    }

    /// Closes the innermost scope; false if it was the function's own.
    pub fn leave(&mut self) -> bool {
        self.open.pop();
        !self.open.is_empty()
    }

    /// The innermost scope.
    pub fn current(&self) -> u32 {
        self.open.last().map_or(0, |scope| scope.id)
    }

    /// The scope around `scope`; the outermost has none.
    pub fn parent(&self, scope: u32) -> Option<u32> {
        (scope != 0).then(|| self.parents[scope as usize])
    }

    /// Declares `name` in the innermost scope.
    pub fn declare(&mut self, name: &'a str, symbol: Symbol<'a>) {
        if let Some(scope) = self.open.last_mut() {
            scope.symbols.insert(name, symbol);
        }
    }

    /// Declares the registers of one `.reg` declarator.
    pub fn declare_registers(
        &mut self,
        declaration: &Declaration<'a>,
        registers: &mut Registers,
    ) -> Result<(), PtxError> {
        let unsupported = || {
            let message = format!("register `{}` of an unsupported type", declaration.name);
            PtxError::new(declaration.line, message)
        };
        let width = Width::of_bytes(declaration.ty.scalar.bytes).ok_or_else(unsupported)?;
        if let Some(count) = declaration.range {
            if declaration.ty.vector != 1 {
                return Err(unsupported());
            }
            if let Some(scope) = self.open.last_mut() {
                let range = Range {
                    width,
                    count,
                    created: RegMap::default(),
                };
                scope.ranges.insert(declaration.name, range);
            }
        } else if declaration.ty.vector == 1 {
            self.declare(declaration.name, Symbol::Register(registers.create(width)));
        } else {
            let lanes = (0..declaration.ty.vector)
                .map(|_| registers.create(width))
                .collect();
            self.declare(declaration.name, Symbol::Vector(lanes));
        }
        Ok(())
    }

    /// What `name` means, searching outwards. Element names (`%v.x`) are registers.
    pub fn lookup(&mut self, name: &str, registers: &mut Registers) -> Option<Symbol<'a>> {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (base, number) = name.split_at(name.len() - digits);
        // A name with a leading zero (`%r01`) is not one of a range's.
        let number = match number.strip_prefix('0') {
            Some(rest) if !rest.is_empty() => None,
            _ => number.parse::<u32>().ok(),
        };
        for scope in self.open.iter_mut().rev() {
            if let (Some(number), Some(range)) = (number, scope.ranges.get_mut(base)) {
                if u64::from(number) < range.count {
                    let create = || registers.create(range.width);
                    let reg = *range.created.entry(Reg(number)).or_insert_with(create);
                    return Some(Symbol::Register(reg));
                }
            }
            if let Some(symbol) = scope.symbols.get(name) {
                return Some(symbol.clone());
            }
        }
        let (vector, element) = name.rsplit_once('.')?;
        let element = match element {
            "x" | "r" => 0,
            "y" | "g" => 1,
            "z" | "b" => 2,
            "w" | "a" => 3,
            _ => return None,
        };
        let in_scope = |scope: &Scope<'a>| match scope.symbols.get(vector) {
            Some(Symbol::Vector(lanes)) => lanes.get(element).copied(),
            _ => None,
        };
        self.open
            .iter()
            .rev()
            .find_map(in_scope)
            .map(Symbol::Register)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptx::declaration::{parse_name, parse_type};
    use crate::ptx::lexer::Lexer;

    fn declare<'a>(scopes: &mut Scopes<'a>, registers: &mut Registers, text: &'a str) {
        let mut lexer = Lexer::new(text.as_bytes());
        let ty = parse_type(&mut lexer).unwrap();
        let declaration = parse_name(&mut lexer, ty).unwrap();
        scopes.declare_registers(&declaration, registers).unwrap();
    }

    #[test]
    fn ranges_shadow_and_end_with_their_scope() {
        let (mut scopes, mut registers) = (Scopes::new(), Registers::default());
        declare(&mut scopes, &mut registers, ".b32 %r<4000000000>");
        let outer = scopes.lookup("%r7", &mut registers);
        assert!(outer.is_some());
        assert_eq!(scopes.lookup("%r7", &mut registers), outer);
        scopes.enter(1).unwrap();
        declare(&mut scopes, &mut registers, ".b64 %r<8>");
        assert_ne!(scopes.lookup("%r7", &mut registers), outer);
        assert_eq!(scopes.lookup("%r07", &mut registers), None);
        assert!(scopes.leave());
        assert_eq!(scopes.lookup("%r7", &mut registers), outer);
        assert!(!scopes.leave());
    }

    #[test]
    fn elements_of_vectors() {
        let (mut scopes, mut registers) = (Scopes::new(), Registers::default());
        declare(&mut scopes, &mut registers, ".v2 .f32 %v");
        assert!(scopes.lookup("%v.y", &mut registers).is_some());
        assert!(scopes.lookup("%v.z", &mut registers).is_none());
    }
}
