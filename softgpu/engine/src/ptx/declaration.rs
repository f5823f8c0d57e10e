//! Declarations of registers, variables and parameters: everything but their initial values.

use super::expression;
use super::lexer::{Lexer, Token};
use super::literal::Literal;
use super::types::Scalar;
use super::PtxError;

/// Most dimensions of an array.
const DIMENSIONS_MAX: usize = 8;
/// Largest alignment PTX allows on a variable, in bytes.
const ALIGN_MAX: u64 = 1 << 12;

/// What stands before the names: `.align 8 .v2 .f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    pub scalar: Scalar,
    /// Elements of a vector type, else 1.
    pub vector: u32,
    /// Explicit alignment in bytes.
    pub align: Option<u64>,
    /// A texture, sampler or surface reference: it has a name but no bytes here.
    pub opaque: bool,
}

/// One declared name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration<'a> {
    pub name: &'a str,
    pub ty: Type,
    /// Extents of an array; `None` is `[]`.
    pub dimensions: Vec<Option<u64>>,
    /// `<n>`: registers `name0` to `name(n-1)`.
    pub range: Option<u64>,
    pub line: u32,
}

impl Declaration<'_> {
    /// Bytes of one array element.
    pub fn element_bytes(&self) -> u64 {
        u64::from(self.ty.scalar.bytes) * u64::from(self.ty.vector)
    }

    /// Bytes of the variable; an array without an extent has none of its own.
    pub fn bytes(&self) -> Result<u64, PtxError> {
        let too_big = || PtxError::new(self.line, format!("`{}` is too large", self.name));
        let mut bytes = self.element_bytes();
        for extent in &self.dimensions {
            bytes = bytes.checked_mul(extent.unwrap_or(0)).ok_or_else(too_big)?;
        }
        if bytes > 1 << 48 {
            return Err(too_big());
        }
        Ok(bytes)
    }

    /// Bytes that the variable's address is a multiple of.
    pub fn align(&self) -> u64 {
        self.ty
            .align
            .unwrap_or(0)
            .max(self.element_bytes().next_power_of_two())
    }
}

/// Reads the type that follows a state space.
pub fn parse_type(lexer: &mut Lexer<'_>) -> Result<Type, PtxError> {
    let (mut scalar, mut vector, mut align, mut opaque) = (None, 1, None, false);
    if lexer.accept(b'[') {
        expression::parse(lexer)?; // constant banks: `.const[2]`
        lexer.expect(b']')?;
    }
    while let Token::Directive(directive) = lexer.peek() {
        lexer.next();
        match &directive[1..] {
            "align" => align = Some(alignment(lexer)?),
            "v2" => vector = 2,
            "v4" => vector = 4,
            "v8" => vector = 8,
            "ptr" => skip_pointer_attributes(lexer)?,
            "attribute" => {
                lexer.expect(b'(')?;
                while !lexer.accept(b')') {
                    if lexer.next() == Token::End {
                        return Err(lexer.unexpected("`)`"));
                    }
                }
            }
            "texref" | "samplerref" | "surfref" => opaque = true,
            name => match Scalar::from_name(name) {
                Some(ty) => scalar = Some(ty),
                None => {
                    let message = format!("`{directive}` in a declaration");
                    return Err(PtxError::new(lexer.line(), message));
                }
            },
        }
    }
    let scalar = match scalar {
        Some(scalar) => scalar,
        None if opaque => Scalar {
            kind: super::types::Kind::Bits,
            bytes: 8,
        },
        None => return Err(lexer.unexpected("a type")),
    };
    Ok(Type {
        scalar,
        vector,
        align,
        opaque,
    })
}

fn alignment(lexer: &mut Lexer<'_>) -> Result<u64, PtxError> {
    let line = lexer.line();
    match expression::parse(lexer)? {
        Literal::Integer { bits, .. } if bits.is_power_of_two() && bits <= ALIGN_MAX => Ok(bits),
        _ => Err(PtxError::new(
            line,
            "an alignment that is not a power of two up to 4096",
        )),
    }
}

/// `.ptr .global .align 8` on a kernel parameter says what it points to: nothing to check here.
fn skip_pointer_attributes(lexer: &mut Lexer<'_>) -> Result<(), PtxError> {
    while let Token::Directive(directive) = lexer.peek() {
        match directive {
            ".global" | ".const" | ".shared" | ".local" => {
                lexer.next();
            }
            ".align" => {
                lexer.next();
                alignment(lexer)?;
            }
            _ => break,
        }
    }
    Ok(())
}

/// Reads one name with its extents.
pub fn parse_name<'a>(lexer: &mut Lexer<'a>, ty: Type) -> Result<Declaration<'a>, PtxError> {
    let line = lexer.line();
    let name = lexer.word()?;
    let (mut dimensions, mut range) = (vec![], None);
    if lexer.accept(b'<') {
        range = Some(extent(lexer)?);
        lexer.expect(b'>')?;
    }
    while lexer.accept(b'[') {
        if dimensions.len() == DIMENSIONS_MAX {
            return Err(PtxError::new(
                line,
                format!("`{name}` has too many dimensions"),
            ));
        }
        if lexer.accept(b']') {
            dimensions.push(None);
        } else {
            dimensions.push(Some(extent(lexer)?));
            lexer.expect(b']')?;
        }
    }
    Ok(Declaration {
        name,
        ty,
        dimensions,
        range,
        line,
    })
}

fn extent(lexer: &mut Lexer<'_>) -> Result<u64, PtxError> {
    let line = lexer.line();
    if let Token::Number(text) = lexer.peek() {
        // Not an expression: in `<16>` the `>` ends it.
        if let Some(Literal::Integer { bits, .. }) = super::literal::parse(text) {
            lexer.next();
            if matches!(lexer.peek(), Token::Punct(b'>' | b']')) {
                return Ok(bits);
            }
        }
    }
    Err(PtxError::new(line, "an extent that is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Declaration<'_>, u64), PtxError> {
        let mut lexer = Lexer::new(text.as_bytes());
        let ty = parse_type(&mut lexer)?;
        let declaration = parse_name(&mut lexer, ty)?;
        let bytes = declaration.bytes()?;
        Ok((declaration, bytes))
    }

    #[test]
    fn sizes_and_alignments() {
        for (text, bytes, align) in [
            (".u64 .ptr .global .align 16 p", 8, 8),
            (".align 8 .b8 s[300]", 300, 8),
            (".align 4 .f32 tile[16][17]", 16 * 17 * 4, 4),
            (".v4 .f32 v", 16, 16),
            (".align 16 .b8 dynamic[]", 0, 16),
            ("[3] .b16 h", 2, 2),
        ] {
            let (declaration, size) = read(text).unwrap();
            assert_eq!((size, declaration.align()), (bytes, align), "{text}");
        }
        assert_eq!(read(".b32 %r<128>").unwrap().0.range, Some(128));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(read(".b64 x[0xffffffffffffffff]").is_err());
        assert!(read(".b8 x[0x1000000000000][2]").is_err());
        assert!(read(".align 3 .b8 x").is_err());
        assert!(read(".b8 x[1][1][1][1][1][1][1][1][1]").is_err());
        assert!(read("x").is_err());
    }
}
