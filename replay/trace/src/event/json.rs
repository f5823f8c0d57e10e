//! Writes JSON, in the order in which it is said.

use std::fmt::{Display, Write};

/// An object being written.
#[derive(Default)]
pub struct Json {
    pub text: String,
}

impl Json {
    /// Opens what is a value where it stands.
    pub fn open(&mut self, bracket: char) {
        self.comma();
        self.text.push(bracket);
    }

    pub fn close(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    pub fn begin(&mut self) {
        self.open('{');
    }

    pub fn end(&mut self) {
        self.close('}');
    }

    pub fn begin_object(&mut self, key: &str) {
        self.key(key);
        self.begin();
    }

    pub fn end_object(&mut self) {
        self.end();
    }

    pub fn begin_list(&mut self, key: &str) {
        self.key(key);
        self.open('[');
    }

    pub fn end_list(&mut self) {
        self.close(']');
    }

    fn comma(&mut self) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.text.push(',');
        }
    }

    pub fn key(&mut self, key: &str) {
        self.text_item(key);
        self.text.push(':');
    }

    /// A value that is written as it is shown.
    pub fn item(&mut self, value: impl Display) {
        self.comma();
        // Strings take whatever is written.
        let _ = write!(self.text, "{value}");
    }

    pub fn text_item(&mut self, text: &str) {
        self.comma();
        self.text
            .push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    pub fn number(&mut self, key: &str, number: impl Into<u64>) {
        self.key(key);
        self.item(number.into());
    }

    pub fn maybe(&mut self, key: &str, number: Option<impl Into<u64>>) {
        self.key(key);
        match number {
            Some(number) => self.item(number.into()),
            None => self.item("null"),
        }
    }

    pub fn flag(&mut self, key: &str, flag: bool) {
        self.key(key);
        self.item(flag);
    }

    pub fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        self.text_item(text);
    }

    /// A value that is JSON already.
    pub fn verbatim(&mut self, key: &str, json: &str) {
        self.key(key);
        self.item(json);
    }

    pub fn hex(&mut self, key: &str, bytes: &[u8]) {
        self.key(key);
        self.comma();
        self.text.reserve(2 * bytes.len() + 2);
        self.text.push('"');
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for byte in bytes {
            self.text.push(DIGITS[usize::from(byte >> 4)].into());
            self.text.push(DIGITS[usize::from(byte & 15)].into());
        }
        self.text.push('"');
    }
}
