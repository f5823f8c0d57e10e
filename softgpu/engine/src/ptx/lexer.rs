//! Tokens of PTX text.
//!
//! A word keeps its suffixes: `ld.global.v2.f32`, `%tid.x` and `.shared::cta` are one token each,
//! which is what every reader of statements wants.

use super::PtxError;

/// One token; text is borrowed from the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// An identifier or an opcode with its suffixes.
    Word(&'a str),
    /// A word that starts with a dot, dot included.
    Directive(&'a str),
    /// A number as written.
    Number(&'a str),
    /// What stands between double quotes.
    Text(&'a [u8]),
    /// Any other single byte.
    Punct(u8),
    /// The end of the text.
    End,
}

impl Token<'_> {
    /// The token as a reader would quote it in an error.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(s) | Token::Directive(s) | Token::Number(s) => format!("`{s}`"),
            Token::Text(_) => "a string".into(),
            Token::Punct(c) if c.is_ascii_graphic() => format!("`{}`", *c as char),
            Token::Punct(c) => format!("byte {c:#04x}"),
            Token::End => "the end of the text".into(),
        }
    }
}

/// A place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: usize,
    pub line: u32,
}

/// A reader of tokens with one token of look-ahead.
#[derive(Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    peeked: Option<(Token<'a>, usize, u32)>,
}

const fn is_word_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%')
}

const fn is_word_part(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$')
}

impl<'a> Lexer<'a> {
    /// Reads `text` from its start.
    pub fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer::at(text, Place { at: 0, line: 1 })
    }

    /// Reads `text` from `place`.
    pub fn at(text: &'a [u8], place: Place) -> Lexer<'a> {
        Lexer {
            text,
            at: place.at,
            line: place.line,
            peeked: None,
        }
    }

    /// The line of the token that comes next.
    pub fn line(&mut self) -> u32 {
        self.peek();
        self.peeked.map_or(self.line, |(_, _, line)| line)
    }

    /// Just after the last token that was taken.
    pub fn place(&self) -> Place {
        Place {
            at: self.at,
            line: self.line,
        }
    }

    /// Goes on at `place`.
    pub fn jump(&mut self, place: Place) {
        (self.at, self.line, self.peeked) = (place.at, place.line, None);
    }

    /// The next token, left in place.
    pub fn peek(&mut self) -> Token<'a> {
        if let Some((token, _, _)) = self.peeked {
            return token;
        }
        let mut ahead = (self.at, self.line);
        let token = self.scan(&mut ahead);
        self.peeked = Some((token, ahead.0, ahead.1));
        token
    }

    /// Takes the next token.
    #[allow(clippy::should_implement_trait)] // ends with a token, not with None
    pub fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        if let Some((_, at, line)) = self.peeked.take() {
            (self.at, self.line) = (at, line);
        }
        token
    }

    /// Takes the next token if it is the punctuation `c`.
    pub fn accept(&mut self, c: u8) -> bool {
        let found = self.peek() == Token::Punct(c);
        if found {
            self.next();
        }
        found
    }

    /// Takes the punctuation `c` or fails.
    pub fn expect(&mut self, c: u8) -> Result<(), PtxError> {
        match self.accept(c) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("`{}`", c as char))),
        }
    }

    /// Takes a word or fails.
    pub fn word(&mut self) -> Result<&'a str, PtxError> {
        match self.peek() {
            Token::Word(word) => {
                self.next();
                Ok(word)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// The error for finding the next token where `wanted` should stand.
    pub fn unexpected(&mut self, wanted: &str) -> PtxError {
        let found = self.peek().describe();
        PtxError::new(self.line(), format!("expected {wanted}, found {found}"))
    }

    /// Takes tokens up to and including the next `;`.
    pub fn skip_statement(&mut self) -> Result<(), PtxError> {
        loop {
            match self.next() {
                Token::Punct(b';') => return Ok(()),
                Token::End => return Err(PtxError::new(self.line, "a statement without `;`")),
                _ => {}
            }
        }
    }

    /// Takes what is left of the current line (`.loc` and `.file` end with it).
    pub fn skip_line(&mut self) {
        self.peeked = None;
        while self.at < self.text.len() && self.text[self.at] != b'\n' {
            self.at += 1;
        }
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn skip_blank(&self, ahead: &mut (usize, u32)) {
        let (at, line) = ahead;
        loop {
            match self.byte(*at) {
                b'\n' => {
                    *at += 1;
                    *line += 1;
                }
                b' ' | b'\t' | b'\r' => *at += 1,
                b'/' if self.byte(*at + 1) == b'/' => {
                    while *at < self.text.len() && self.text[*at] != b'\n' {
                        *at += 1;
                    }
                }
                b'/' if self.byte(*at + 1) == b'*' => {
                    *at += 2;
                    while *at < self.text.len() && !self.text[*at..].starts_with(b"*/") {
                        *line += u32::from(self.text[*at] == b'\n');
                        *at += 1;
                    }
                    *at = (*at + 2).min(self.text.len());
                }
                _ => return,
            }
        }
    }

    fn scan(&self, ahead: &mut (usize, u32)) -> Token<'a> {
        self.skip_blank(ahead);
        let start = ahead.0;
        if start >= self.text.len() {
            return Token::End;
        }
        let c = self.text[start];
        if is_word_start(c) {
            ahead.0 = self.word_end(start + 1);
            return Token::Word(self.ascii(start, ahead.0));
        }
        if c == b'.' && is_word_start(self.byte(start + 1)) {
            // `.reg.b16` is two of them.
            ahead.0 = (start + 1..)
                .find(|at| !is_word_part(self.byte(*at)))
                .unwrap_or(start + 1);
            return Token::Directive(self.ascii(start, ahead.0));
        }
        if c.is_ascii_digit() {
            ahead.0 = self.number_end(start);
            return Token::Number(self.ascii(start, ahead.0));
        }
        if c == b'"' {
            let mut end = start + 1;
            while end < self.text.len() && self.text[end] != b'"' {
                ahead.1 += u32::from(self.text[end] == b'\n');
                end += 1;
            }
            ahead.0 = (end + 1).min(self.text.len());
            return Token::Text(&self.text[start + 1..end]);
        }
        ahead.0 = start + 1;
        Token::Punct(c)
    }

    /// The end of the word whose first byte was before `at`.
    fn word_end(&self, mut at: usize) -> usize {
        loop {
            let c = self.byte(at);
            if is_word_part(c) {
                at += 1;
            } else if c == b'.' && is_word_part(self.byte(at + 1)) {
                at += 2;
            } else if c == b':' && self.byte(at + 1) == b':' && is_word_part(self.byte(at + 2)) {
                at += 3;
            } else {
                return at;
            }
        }
    }

    fn number_end(&self, start: usize) -> usize {
        let radix_prefix = self.byte(start) == b'0' && self.byte(start + 1).is_ascii_alphabetic();
        let mut at = start;
        loop {
            let c = self.byte(at);
            let exponent_sign = matches!(c, b'+' | b'-')
                && !radix_prefix
                && at > start
                && matches!(self.byte(at - 1), b'e' | b'E');
            if !(c.is_ascii_alphanumeric() || c == b'.' || exponent_sign) {
                return at;
            }
            at += 1;
        }
    }

    fn ascii(&self, start: usize, end: usize) -> &'a str {
        // The callers' byte classes are ASCII only, so this cannot fail.
        std::str::from_utf8(&self.text[start..end]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut out = vec![];
        loop {
            match lexer.next() {
                Token::End => return out,
                token => out.push(token),
            }
        }
    }

    #[test]
    fn suffixes_stay_with_their_word() {
        assert_eq!(
            tokens("@!%p1 ld.shared::cta.v2.f32 {%f1,%f2}, [%rd1+-8]; // x\n$L_1: .reg"),
            [
                Token::Punct(b'@'),
                Token::Punct(b'!'),
                Token::Word("%p1"),
                Token::Word("ld.shared::cta.v2.f32"),
                Token::Punct(b'{'),
                Token::Word("%f1"),
                Token::Punct(b','),
                Token::Word("%f2"),
                Token::Punct(b'}'),
                Token::Punct(b','),
                Token::Punct(b'['),
                Token::Word("%rd1"),
                Token::Punct(b'+'),
                Token::Punct(b'-'),
                Token::Number("8"),
                Token::Punct(b']'),
                Token::Punct(b';'),
                Token::Word("$L_1"),
                Token::Punct(b':'),
                Token::Directive(".reg"),
            ]
        );
    }

    #[test]
    fn numbers_end_where_operators_start() {
        assert_eq!(
            tokens("0x1e-5"),
            [
                Token::Number("0x1e"),
                Token::Punct(b'-'),
                Token::Number("5")
            ]
        );
        assert_eq!(tokens("1.5e-5"), [Token::Number("1.5e-5")]);
        assert_eq!(tokens("0f3F800000"), [Token::Number("0f3F800000")]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let mut lexer = Lexer::new(b"a /* \n\n */ b \"x\ny\" c");
        assert_eq!((lexer.line(), lexer.next()), (1, Token::Word("a")));
        assert_eq!((lexer.line(), lexer.next()), (3, Token::Word("b")));
        assert_eq!(lexer.next(), Token::Text(b"x\ny"));
        assert_eq!((lexer.line(), lexer.next()), (4, Token::Word("c")));
    }

    #[test]
    fn unfinished_text_ends() {
        for text in ["/*", "\"", "/* *", ".", "0", "a.", "a::"] {
            tokens(text);
        }
    }
}
