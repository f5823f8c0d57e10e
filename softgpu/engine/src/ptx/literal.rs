//! Numbers as PTX writes them.

/// A constant operand before an instruction says how to read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Literal {
    /// A 64-bit integer; `unsigned` if written with `U` or too large for a signed one.
    Integer { bits: u64, unsigned: bool },
    /// `0f` and eight hexadecimal digits: the bits of a 32-bit float.
    Single(u32),
    /// A decimal float, or `0d` and sixteen hexadecimal digits.
    Double(f64),
}

impl Literal {
    /// A signed integer.
    pub fn int(value: i64) -> Literal {
        Literal::Integer {
            bits: value as u64,
            unsigned: false,
        }
    }

    /// The value for an operand that is not a float: integers as they are, floats as their bits.
    pub fn bits(self) -> u64 {
        match self {
            Literal::Integer { bits, .. } => bits,
            Literal::Single(bits) => u64::from(bits),
            Literal::Double(value) => value.to_bits(),
        }
    }
}

/// Reads a number token; `None` if it is not one.
pub fn parse(text: &str) -> Option<Literal> {
    let bytes = text.as_bytes();
    if bytes.len() > 2 && bytes[0] == b'0' {
        let digits = &text[2..];
        match bytes[1] {
            b'f' | b'F' if digits.len() == 8 => {
                return u32::from_str_radix(digits, 16).ok().map(Literal::Single);
            }
            b'd' | b'D' if digits.len() == 16 => {
                let bits = u64::from_str_radix(digits, 16).ok()?;
                return Some(Literal::Double(f64::from_bits(bits)));
            }
            b'x' | b'X' => return integer(digits, 16),
            b'b' | b'B' => return integer(digits, 2),
            _ => {}
        }
    }
    if text.contains(['.', 'e', 'E']) {
        return text.parse().ok().map(Literal::Double);
    }
    match bytes {
        [b'0', rest @ ..] if rest.first().is_some_and(u8::is_ascii_digit) => integer(&text[1..], 8),
        _ => integer(text, 10),
    }
}

fn integer(text: &str, radix: u32) -> Option<Literal> {
    let digits = text.strip_suffix(['U', 'u']).unwrap_or(text);
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None; // from_str_radix would take a sign
    }
    let bits = u64::from_str_radix(digits, radix).ok()?;
    Some(Literal::Integer {
        bits,
        unsigned: digits.len() != text.len() || bits > i64::MAX as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let unsigned = |bits| {
            Some(Literal::Integer {
                bits,
                unsigned: true,
            })
        };
        assert_eq!(parse("42"), Some(Literal::int(42)));
        assert_eq!(parse("0"), Some(Literal::int(0)));
        assert_eq!(parse("017"), Some(Literal::int(15)));
        assert_eq!(parse("0x1F"), Some(Literal::int(31)));
        assert_eq!(parse("0b101U"), unsigned(5));
        assert_eq!(parse("0xFFFFFFFFFFFFFFFF"), unsigned(u64::MAX));
        assert_eq!(parse("0f3F800000"), Some(Literal::Single(0x3f80_0000)));
        assert_eq!(parse("0d3FF8000000000000"), Some(Literal::Double(1.5)));
        assert_eq!(parse("2.5e-1"), Some(Literal::Double(0.25)));
    }

    #[test]
    fn refuses_what_is_not_a_number() {
        for text in [
            "0x",
            "0xg",
            "9q",
            "0f3F8",
            "18446744073709551616",
            "1.2.3",
            "08",
            "0x+1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
