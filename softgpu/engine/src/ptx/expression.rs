//! Constant expressions: C's operators over 64-bit integers and doubles.

use super::lexer::{Lexer, Token};
use super::literal::{self, Literal};
use super::PtxError;

/// Deepest nesting of parentheses and unary operators.
const DEPTH_MAX: u32 = 64;

/// Reads a constant expression; stops before the first token that cannot continue it.
pub fn parse(lexer: &mut Lexer<'_>) -> Result<Literal, PtxError> {
    ternary(lexer, 0)
}

/// Whether a constant expression starts with the next token.
pub fn starts(lexer: &mut Lexer<'_>) -> bool {
    match lexer.peek() {
        Token::Number(_) => true,
        Token::Punct(c) => matches!(c, b'-' | b'+' | b'~' | b'('),
        Token::Word(word) => word == "WARP_SZ",
        _ => false,
    }
}

fn deeper(lexer: &mut Lexer<'_>, depth: u32) -> Result<u32, PtxError> {
    if depth < DEPTH_MAX {
        return Ok(depth + 1);
    }
    Err(PtxError::new(
        lexer.line(),
        format!("an expression nested deeper than {DEPTH_MAX}"),
    ))
}

fn ternary(lexer: &mut Lexer<'_>, depth: u32) -> Result<Literal, PtxError> {
    let depth = deeper(lexer, depth)?;
    let condition = binary(lexer, 0, depth)?;
    if !lexer.accept(b'?') {
        return Ok(condition);
    }
    let yes = ternary(lexer, depth)?;
    lexer.expect(b':')?;
    let no = ternary(lexer, depth)?;
    Ok(if condition.bits() != 0 { yes } else { no })
}

/// A binary operator: how tightly it binds, its spelling, how many tokens spell it.
type Operator = (u8, &'static str, u8);

/// The binary operator that comes next.
fn operator(lexer: &mut Lexer<'_>) -> Option<Operator> {
    let Token::Punct(first) = lexer.peek() else {
        return None;
    };
    let second = {
        let mut ahead = lexer.clone();
        ahead.next();
        match ahead.peek() {
            Token::Punct(c) => c,
            _ => 0,
        }
    };
    Some(match (first, second) {
        (b'|', b'|') => (1, "||", 2),
        (b'&', b'&') => (2, "&&", 2),
        (b'|', _) => (3, "|", 1),
        (b'^', _) => (4, "^", 1),
        (b'&', _) => (5, "&", 1),
        (b'=', b'=') => (6, "==", 2),
        (b'!', b'=') => (6, "!=", 2),
        (b'<', b'<') => (8, "<<", 2),
        (b'>', b'>') => (8, ">>", 2),
        (b'<', b'=') => (7, "<=", 2),
        (b'>', b'=') => (7, ">=", 2),
        (b'<', _) => (7, "<", 1),
        (b'>', _) => (7, ">", 1),
        (b'+', _) => (9, "+", 1),
        (b'-', _) => (9, "-", 1),
        (b'*', _) => (10, "*", 1),
        (b'/', _) => (10, "/", 1),
        (b'%', _) => (10, "%", 1),
        _ => return None,
    })
}

fn binary(lexer: &mut Lexer<'_>, tightness: u8, depth: u32) -> Result<Literal, PtxError> {
    let depth = deeper(lexer, depth)?;
    let mut left = unary(lexer, depth)?;
    while let Some((binds, spelling, tokens)) = operator(lexer).filter(|op| op.0 > tightness) {
        for _ in 0..tokens {
            lexer.next();
        }
        let right = binary(lexer, binds, depth)?;
        left = apply(spelling, left, right).ok_or_else(|| {
            PtxError::new(
                lexer.line(),
                format!("constant `{spelling}` has no value here"),
            )
        })?;
    }
    Ok(left)
}

fn unary(lexer: &mut Lexer<'_>, depth: u32) -> Result<Literal, PtxError> {
    let depth = deeper(lexer, depth)?;
    match lexer.peek() {
        Token::Number(text) => match literal::parse(text) {
            Some(value) => {
                lexer.next();
                Ok(value)
            }
            None => Err(PtxError::new(
                lexer.line(),
                format!("`{text}` is not a number"),
            )),
        },
        Token::Word("WARP_SZ") => {
            lexer.next();
            Ok(Literal::int(32))
        }
        Token::Punct(b'(') => {
            lexer.next();
            if let Token::Directive(cast @ (".s64" | ".u64")) = lexer.peek() {
                lexer.next();
                lexer.expect(b')')?;
                let bits = unary(lexer, depth)?.bits();
                return Ok(Literal::Integer {
                    bits,
                    unsigned: cast == ".u64",
                });
            }
            let value = ternary(lexer, depth)?;
            lexer.expect(b')')?;
            Ok(value)
        }
        Token::Punct(op @ (b'-' | b'+' | b'~' | b'!')) => {
            lexer.next();
            let value = unary(lexer, depth)?;
            Ok(match (op, value) {
                (b'+', value) => value,
                (b'-', Literal::Integer { bits, unsigned }) => Literal::Integer {
                    bits: bits.wrapping_neg(),
                    unsigned,
                },
                (b'-', Literal::Single(bits)) => Literal::Single(bits ^ 1 << 31),
                (b'-', Literal::Double(value)) => Literal::Double(-value),
                (b'!', value) => Literal::int(i64::from(value.bits() == 0)),
                (_, Literal::Integer { bits, unsigned }) => Literal::Integer {
                    bits: !bits,
                    unsigned,
                },
                _ => return Err(PtxError::new(lexer.line(), "`~` of a float")),
            })
        }
        _ => Err(lexer.unexpected("a constant")),
    }
}

fn apply(op: &str, left: Literal, right: Literal) -> Option<Literal> {
    let (
        Literal::Integer {
            bits: a,
            unsigned: ua,
        },
        Literal::Integer {
            bits: b,
            unsigned: ub,
        },
    ) = (left, right)
    else {
        return apply_float(op, as_double(left), as_double(right));
    };
    let unsigned = ua || ub;
    let (x, y) = (a as i64, b as i64);
    let truth = |value: bool| Some(Literal::int(i64::from(value)));
    let ordering = if unsigned { a.cmp(&b) } else { x.cmp(&y) };
    let shift = u32::try_from(b).unwrap_or(64);
    let bits = match op {
        "||" => return truth(a != 0 || b != 0),
        "&&" => return truth(a != 0 && b != 0),
        "==" => return truth(a == b),
        "!=" => return truth(a != b),
        "<" => return truth(ordering.is_lt()),
        ">" => return truth(ordering.is_gt()),
        "<=" => return truth(ordering.is_le()),
        ">=" => return truth(ordering.is_ge()),
        "|" => a | b,
        "^" => a ^ b,
        "&" => a & b,
        "<<" => a.checked_shl(shift).unwrap_or(0),
        ">>" if ua => a.checked_shr(shift).unwrap_or(0),
        ">>" => x.checked_shr(shift).unwrap_or(x >> 63) as u64,
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "*" => a.wrapping_mul(b),
        "/" if unsigned => a.checked_div(b)?,
        "/" => x.checked_div(y)? as u64,
        "%" if unsigned => a.checked_rem(b)?,
        _ => x.checked_rem(y)? as u64,
    };
    Some(Literal::Integer { bits, unsigned })
}

fn apply_float(op: &str, a: f64, b: f64) -> Option<Literal> {
    Some(Literal::Double(match op {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        _ => return None,
    }))
}

/// The value of a literal as a double.
pub fn as_double(literal: Literal) -> f64 {
    match literal {
        Literal::Integer {
            bits,
            unsigned: true,
        } => bits as f64,
        Literal::Integer {
            bits,
            unsigned: false,
        } => bits as i64 as f64,
        Literal::Single(bits) => f64::from(f32::from_bits(bits)),
        Literal::Double(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Literal, PtxError> {
        parse(&mut Lexer::new(text.as_bytes()))
    }

    #[test]
    fn binds_like_c() {
        for (text, expected) in [
            ("1+2*3", 7),
            ("(1+2)*3", 9),
            ("-8>>1", -4),
            ("1<<4|1", 17),
            ("7-2-1", 4),
            ("~0", -1),
            ("3>2?10:20", 10),
            ("1==2||4!=5", 1),
            ("WARP_SZ-1", 31),
            ("- -3", 3),
        ] {
            assert_eq!(value(text), Ok(Literal::int(expected)), "{text}");
        }
        assert_eq!(value("1.5+1"), Ok(Literal::Double(2.5)));
        assert_eq!(value("-0f3F800000"), Ok(Literal::Single(0xbf80_0000)));
    }

    #[test]
    fn hostile_input_is_an_error() {
        assert!(value("1/0").is_err());
        assert!(value(&"(".repeat(100_000)).is_err());
        assert!(value(&"-".repeat(100_000)).is_err());
        assert!(value(&"1?".repeat(100_000)).is_err());
        assert!(value("").is_err());
    }
}
