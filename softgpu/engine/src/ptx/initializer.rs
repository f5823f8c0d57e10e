//! Initial values of variables.

use super::declaration::Declaration;
use super::expression::{self, as_double};
use super::lexer::{Lexer, Token};
use super::literal::Literal;
use super::types::Kind;
use super::PtxError;

/// A place in a variable that holds (part of) the address of a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// First byte within the variable.
    pub offset: u64,
    /// Bytes to write, little endian: 1 to 8.
    pub bytes: u32,
    /// Bits to shift the address right before it is written (`0xFF00(symbol)` wants byte 1).
    pub shift: u32,
    /// The variable or function whose address is meant.
    pub symbol: String,
    /// Added to the address.
    pub addend: i64,
}

/// What a variable starts as; bytes after `bytes` are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initializer {
    pub bytes: Vec<u8>,
    pub relocations: Vec<Relocation>,
}

/// Bytes of padding that a text may ask for beyond its own length.
const PADDING_MAX: usize = 1 << 20;

/// Reads the value after `=`. `budget` is the length of the module's text: what padding between
/// nested rows may reach in all.
pub fn parse(
    lexer: &mut Lexer<'_>,
    declaration: &Declaration<'_>,
    budget: usize,
) -> Result<Initializer, PtxError> {
    let mut writer = Writer {
        declaration,
        limit: budget + PADDING_MAX,
        out: Initializer::default(),
    };
    let mut at = 0;
    match lexer.peek() {
        Token::Punct(b'{') => writer.braces(lexer, &mut at, 0)?,
        _ => writer.element(lexer, &mut at)?,
    }
    // Trailing zeros are what memory has anyway.
    Ok(writer.out)
}

struct Writer<'a> {
    declaration: &'a Declaration<'a>,
    limit: usize,
    out: Initializer,
}

impl Writer<'_> {
    /// Reads `{ … }` for the array (or vector) at nesting `level`, whose first byte is `*at`.
    fn braces(
        &mut self,
        lexer: &mut Lexer<'_>,
        at: &mut u64,
        level: usize,
    ) -> Result<(), PtxError> {
        if level > self.declaration.dimensions.len() {
            return Err(PtxError::new(
                lexer.line(),
                "an initialiser nested deeper than its array",
            ));
        }
        lexer.expect(b'{')?;
        let start = *at;
        let mut first = true;
        while !lexer.accept(b'}') {
            if !first {
                lexer.expect(b',')?;
                if lexer.accept(b'}') {
                    break; // a trailing comma
                }
            }
            first = false;
            match lexer.peek() {
                Token::Punct(b'{') => self.braces(lexer, at, level + 1)?,
                _ => self.element(lexer, at)?,
            }
        }
        if level > 0 {
            *at = start.saturating_add(self.row_bytes(level));
        }
        Ok(())
    }

    /// Bytes of what one brace at `level` fills.
    fn row_bytes(&self, level: usize) -> u64 {
        let inner = &self.declaration.dimensions[level..];
        inner
            .iter()
            .fold(self.declaration.element_bytes(), |bytes, extent| {
                bytes.saturating_mul(extent.unwrap_or(1))
            })
    }

    /// Reads one scalar, string or address.
    fn element(&mut self, lexer: &mut Lexer<'_>, at: &mut u64) -> Result<(), PtxError> {
        let line = lexer.line();
        let scalar = self.declaration.ty.scalar;
        match lexer.peek() {
            Token::Text(text) => {
                lexer.next();
                for &byte in text.iter().chain(&[0]) {
                    self.put(line, at, &[byte])?;
                }
                return Ok(());
            }
            Token::Word(word) if word != "WARP_SZ" => {
                let (symbol, addend) = symbol(lexer)?;
                return self.address(line, at, scalar.bytes, 0, symbol, addend);
            }
            _ => {}
        }
        let value = expression::parse(lexer)?;
        if lexer.peek() == Token::Punct(b'(') {
            // `0xFF00(symbol)`: the byte of an address that the mask selects.
            let mask = value.bits();
            let shift = mask.trailing_zeros();
            if mask == 0 || shift % 8 != 0 || mask >> shift != 0xff {
                return Err(PtxError::new(
                    line,
                    "an address mask that does not select one byte",
                ));
            }
            lexer.next();
            let (symbol, addend) = symbol(lexer)?;
            lexer.expect(b')')?;
            return self.address(line, at, 1, shift, symbol, addend);
        }
        let bits = match (scalar.kind, scalar.bytes, value) {
            (Kind::Float, 4, Literal::Single(bits)) => u64::from(bits),
            (Kind::Float, 4, value) => u64::from((as_double(value) as f32).to_bits()),
            (Kind::Float, 8, value) => as_double(value).to_bits(),
            (_, _, value) => value.bits(),
        };
        self.put(
            line,
            at,
            &u128::from(bits).to_le_bytes()[..scalar.bytes as usize],
        )
    }

    fn address(
        &mut self,
        line: u32,
        at: &mut u64,
        bytes: u32,
        shift: u32,
        symbol: &str,
        addend: i64,
    ) -> Result<(), PtxError> {
        let offset = *at;
        self.put(line, at, &[0; 8][..bytes.min(8) as usize])?;
        let symbol = symbol.to_string();
        self.out.relocations.push(Relocation {
            offset,
            bytes: bytes.min(8),
            shift,
            symbol,
            addend,
        });
        Ok(())
    }

    fn put(&mut self, line: u32, at: &mut u64, bytes: &[u8]) -> Result<(), PtxError> {
        let size = self.declaration.bytes()?;
        let unsized_array = self.declaration.dimensions.contains(&None);
        let end = at.saturating_add(bytes.len() as u64);
        if end > size && !unsized_array {
            let message = format!("too many initial values for `{}`", self.declaration.name);
            return Err(PtxError::new(line, message));
        }
        let start = usize::try_from(*at).unwrap_or(usize::MAX);
        if start > self.limit {
            let message = format!(
                "initial values of `{}` lie too far apart",
                self.declaration.name
            );
            return Err(PtxError::new(line, message));
        }
        self.out.bytes.resize(start, 0);
        self.out.bytes.extend_from_slice(bytes);
        *at = end;
        Ok(())
    }
}

/// `symbol`, `symbol+8`, `generic(symbol)+8`: variables have generic addresses from the start.
fn symbol<'a>(lexer: &mut Lexer<'a>) -> Result<(&'a str, i64), PtxError> {
    let mut name = lexer.word()?;
    if name == "generic" && lexer.accept(b'(') {
        name = lexer.word()?;
        lexer.expect(b')')?;
    }
    let sign = match lexer.peek() {
        Token::Punct(b'+') => 1,
        Token::Punct(b'-') => -1,
        _ => return Ok((name, 0)),
    };
    lexer.next();
    let addend = expression::parse(lexer)?.bits() as i64;
    Ok((name, addend.wrapping_mul(sign)))
}

#[cfg(test)]
mod tests {
    use super::super::declaration::{parse_name, parse_type};
    use super::*;

    fn read(text: &str) -> Result<Initializer, PtxError> {
        let mut lexer = Lexer::new(text.as_bytes());
        let ty = parse_type(&mut lexer)?;
        let declaration = parse_name(&mut lexer, ty)?;
        lexer.expect(b'=')?;
        parse(&mut lexer, &declaration, text.len())
    }

    #[test]
    fn numbers_rows_and_strings() {
        assert_eq!(read(".u32 x = 7").unwrap().bytes, [7, 0, 0, 0]);
        assert_eq!(read(".b8 s[3] = \"hi\"").unwrap().bytes, *b"hi\0");
        assert_eq!(
            read(".f32 f[2] = {1.0, 0f40000000}").unwrap().bytes,
            [0, 0, 128, 63, 0, 0, 0, 64]
        );
        assert_eq!(read(".f64 f = 2").unwrap().bytes, 2f64.to_le_bytes());
        assert_eq!(
            read(".b8 m[2][3] = {{1, 2}, {3}}").unwrap().bytes,
            [1, 2, 0, 3]
        );
        assert_eq!(read(".s16 n[] = {-1, }").unwrap().bytes, [255, 255]);
    }

    #[test]
    fn addresses_become_relocations() {
        let read = read(".u64 t[2] = {0, generic(table)+16}").unwrap();
        assert_eq!(read.bytes, [0; 16]);
        assert_eq!(
            read.relocations,
            [Relocation {
                offset: 8,
                bytes: 8,
                shift: 0,
                symbol: "table".into(),
                addend: 16
            }]
        );
    }

    #[test]
    fn one_byte_of_an_address() {
        let read = read(".b8 t[2] = {0xFF(f), 0xFF00(f)}").unwrap();
        assert_eq!(
            (read.relocations[1].offset, read.relocations[1].shift),
            (1, 8)
        );
    }

    #[test]
    fn hostile_values_are_errors() {
        assert!(read(".u8 x[2] = {1, 2, 3}").is_err());
        assert!(read(".u8 x[3][0x100000000] = {{1}, {2}, {3}}").is_err());
        assert!(read(&format!(".u8 x[9] = {}", "{".repeat(10_000))).is_err());
        assert!(read(".u8 x = ").is_err());
    }
}
