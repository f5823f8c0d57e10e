//! Instructions as written: guard, opcode, operands.

use super::expression;
use super::lexer::{Lexer, Token};
use super::literal::Literal;
use super::PtxError;

/// Most operands of one instruction, list or vector.
const OPERANDS_MAX: usize = 512;

/// One operand as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, special register, variable, function or label, with a constant added to it.
    Name { name: &'a str, addend: i64 },
    /// A constant.
    Literal(Literal),
    /// `[base]` with a displacement.
    Address { base: Base<'a>, offset: i64 },
    /// `{a, b, …}`
    Vector(Vec<Operand<'a>>),
    /// `(a, b, …)`: arguments of a call.
    List(Vec<Operand<'a>>),
    /// `p|q`: two destinations.
    Pair(&'a str, &'a str),
    /// `!p`
    Not(&'a str),
}

/// What an address is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base<'a> {
    /// A register or variable.
    Name(&'a str),
    /// Nothing: the displacement is the address.
    Absolute,
}

/// One instruction as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction<'a> {
    /// Predicate that must hold (or, if `true`, must not).
    pub guard: Option<(&'a str, bool)>,
    /// The opcode with its suffixes.
    pub opcode: &'a str,
    pub operands: Vec<Operand<'a>>,
    pub line: u32,
}

/// Reads the operands that follow `opcode`, and the `;`.
pub fn parse<'a>(
    lexer: &mut Lexer<'a>,
    guard: Option<(&'a str, bool)>,
    opcode: &'a str,
    line: u32,
) -> Result<Instruction<'a>, PtxError> {
    let mut operands = Vec::with_capacity(4);
    let is_call = opcode == "call" || opcode.starts_with("call.");
    while !lexer.accept(b';') {
        if !operands.is_empty() {
            lexer.expect(b',')?;
        }
        if operands.len() == OPERANDS_MAX {
            return Err(PtxError::new(
                line,
                format!("`{opcode}` with too many operands"),
            ));
        }
        operands.push(match is_call && lexer.accept(b'(') {
            true => Operand::List(sequence(lexer, b')')?),
            false => operand(lexer)?,
        });
    }
    Ok(Instruction {
        guard,
        opcode,
        operands,
        line,
    })
}

/// Reads a guard, `@p` or `@!p`, whose `@` was taken.
pub fn guard<'a>(lexer: &mut Lexer<'a>) -> Result<(&'a str, bool), PtxError> {
    let negated = lexer.accept(b'!');
    Ok((lexer.word()?, negated))
}

fn sequence<'a>(lexer: &mut Lexer<'a>, end: u8) -> Result<Vec<Operand<'a>>, PtxError> {
    let mut items = vec![];
    while !lexer.accept(end) {
        if !items.is_empty() {
            lexer.expect(b',')?;
        }
        if items.len() == OPERANDS_MAX {
            return Err(PtxError::new(lexer.line(), "a list with too many operands"));
        }
        items.push(simple(lexer)?);
    }
    Ok(items)
}

fn operand<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, PtxError> {
    match lexer.peek() {
        Token::Punct(b'{') => {
            lexer.next();
            Ok(Operand::Vector(sequence(lexer, b'}')?))
        }
        Token::Punct(b'[') => {
            lexer.next();
            let address = address(lexer)?;
            lexer.expect(b']')?;
            Ok(address)
        }
        _ => simple(lexer),
    }
}

/// An operand that may also stand in a list.
fn simple<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, PtxError> {
    if expression::starts(lexer) {
        return Ok(Operand::Literal(expression::parse(lexer)?));
    }
    if lexer.accept(b'!') {
        return Ok(Operand::Not(lexer.word()?));
    }
    let name = lexer.word()?;
    if lexer.accept(b'|') {
        return Ok(Operand::Pair(name, lexer.word()?));
    }
    let addend = displacement(lexer)?;
    Ok(Operand::Name { name, addend })
}

/// An optional `+constant` or `-constant`.
fn displacement(lexer: &mut Lexer<'_>) -> Result<i64, PtxError> {
    let minus = match lexer.peek() {
        Token::Punct(b'+') => false,
        Token::Punct(b'-') => true,
        _ => return Ok(0),
    };
    lexer.next();
    match expression::parse(lexer)? {
        Literal::Integer { bits, .. } if minus => Ok((bits as i64).wrapping_neg()),
        Literal::Integer { bits, .. } => Ok(bits as i64),
        _ => Err(PtxError::new(
            lexer.line(),
            "a displacement that is not an integer",
        )),
    }
}

fn address<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, PtxError> {
    if let Token::Word(name) = lexer.peek() {
        if name != "WARP_SZ" {
            lexer.next();
            return Ok(Operand::Address {
                base: Base::Name(name),
                offset: displacement(lexer)?,
            });
        }
    }
    match expression::parse(lexer)? {
        Literal::Integer { bits, .. } => Ok(Operand::Address {
            base: Base::Absolute,
            offset: bits as i64,
        }),
        _ => Err(PtxError::new(
            lexer.line(),
            "an address that is not an integer",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(text: &str) -> Result<Instruction<'_>, PtxError> {
        let mut lexer = Lexer::new(text.as_bytes());
        let opcode = lexer.word()?;
        parse(&mut lexer, None, opcode, 1)
    }

    fn name(name: &str) -> Operand<'_> {
        Operand::Name { name, addend: 0 }
    }

    #[test]
    fn operands_of_every_shape() {
        let read = |text| instruction(text).unwrap().operands;
        assert_eq!(
            read("setp.lt.s32 %p1|%p2, %r1, -5;"),
            [
                Operand::Pair("%p1", "%p2"),
                name("%r1"),
                Operand::Literal(Literal::int(-5))
            ]
        );
        assert_eq!(
            read("ld.v2.f32 {%f1, _}, [%rd1+-8];"),
            [
                Operand::Vector(vec![name("%f1"), name("_")]),
                Operand::Address {
                    base: Base::Name("%rd1"),
                    offset: -8
                }
            ]
        );
        assert_eq!(
            read("call.uni (r), f, (a, 7);"),
            [
                Operand::List(vec![name("r")]),
                name("f"),
                Operand::List(vec![name("a"), Operand::Literal(Literal::int(7))])
            ]
        );
        assert_eq!(
            read("mov.u64 %rd1, table+16;"),
            [
                name("%rd1"),
                Operand::Name {
                    name: "table",
                    addend: 16
                }
            ]
        );
        assert_eq!(read("and.pred %p1, !%p2, %p3;")[1], Operand::Not("%p2"));
        assert_eq!(read("ret;"), []);
        assert_eq!(
            read("st.b32 [64], (1+2);"),
            [
                Operand::Address {
                    base: Base::Absolute,
                    offset: 64
                },
                Operand::Literal(Literal::int(3))
            ]
        );
    }

    #[test]
    fn malformed_statements_are_errors() {
        for text in [
            "add a b;",
            "add a,",
            "ld a, [;",
            "ld a, [b;",
            "call (;",
            "mov a, {b",
            "x 1.5+;",
        ] {
            assert!(instruction(text).is_err(), "{text}");
        }
    }
}
