//! Device `printf`: C's conversions over a buffer of arguments, each aligned to its size.

use super::fault::Violation;
use super::machine::Machine;
use super::memory::{copy_out, text_at};

/// Widest field and greatest precision: a bound on what one conversion can print.
const WIDTH_MAX: usize = 4096;
/// Most arguments of one call (CUDA's limit).
const ARGUMENTS_MAX: u64 = 32;

/// One `%…` conversion.
#[derive(Clone, Debug, Default, PartialEq)]
struct Conversion {
    left: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    /// Bytes of an integer argument.
    size: u8,
    letter: u8,
}

/// The argument buffer of a call.
struct Arguments<'m, 'g> {
    machine: &'m Machine<'g>,
    lane: (usize, usize),
    next: u64,
    taken: u64,
}

impl Arguments<'_, '_> {
    fn take(&mut self, bytes: u64) -> Result<u64, Violation> {
        self.next = self.next.next_multiple_of(bytes);
        let mut value = [0; 8];
        let address = self.next;
        if self.taken == ARGUMENTS_MAX
            || !copy_out(
                self.machine,
                address,
                self.lane,
                &mut value[..bytes as usize],
            )
        {
            return Err(Violation::Address {
                address,
                bytes: bytes as u32,
            });
        }
        self.next += bytes;
        self.taken += 1;
        Ok(u64::from_le_bytes(value))
    }

    fn text(&mut self) -> Result<Vec<u8>, Violation> {
        match self.take(8)? {
            0 => Ok(b"(null)".to_vec()),
            address => text_at(self.machine, address, self.lane)
                .ok_or(Violation::Address { address, bytes: 1 }),
        }
    }
}

/// Appends the text that `format` makes of the arguments at `address`; how many were used.
pub fn format(
    machine: &Machine<'_>,
    format: &[u8],
    address: u64,
    lane: (usize, usize),
    out: &mut Vec<u8>,
) -> Result<u64, Violation> {
    let mut arguments = Arguments {
        machine,
        lane,
        next: address,
        taken: 0,
    };
    let mut rest = format;
    while let Some(percent) = rest.iter().position(|&c| c == b'%') {
        out.extend_from_slice(&rest[..percent]);
        rest = &rest[percent + 1..];
        let mut take_width = || Ok(arguments.take(4)? as i32);
        match parse(rest, &mut take_width)? {
            Some((conversion, length)) => {
                rest = &rest[length..];
                print(&conversion, &mut arguments, out)?;
            }
            None => out.push(b'%'),
        }
    }
    out.extend_from_slice(rest);
    Ok(arguments.taken)
}

/// Reads a conversion after its `%`, and its length; `None` if it is none. `star` gives the value
/// of a `*`.
fn parse(
    text: &[u8],
    star: &mut dyn FnMut() -> Result<i32, Violation>,
) -> Result<Option<(Conversion, usize)>, Violation> {
    let mut conversion = Conversion {
        size: 4,
        ..Conversion::default()
    };
    let mut at = 0;
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    loop {
        match byte(at) {
            b'-' => conversion.left = true,
            b'+' => conversion.plus = true,
            b' ' => conversion.space = true,
            b'#' => conversion.alternate = true,
            b'0' => conversion.zero = true,
            _ => break,
        }
        at += 1;
    }
    let mut number = |at: &mut usize| -> Result<Option<i64>, Violation> {
        if byte(*at) == b'*' {
            *at += 1;
            return Ok(Some(star()?.into()));
        }
        let mut value = None;
        while byte(*at).is_ascii_digit() {
            let digit = i64::from(byte(*at) - b'0');
            value = Some((value.unwrap_or(0) * 10 + digit).min(WIDTH_MAX as i64));
            *at += 1;
        }
        Ok(value)
    };
    if let Some(width) = number(&mut at)? {
        conversion.left |= width < 0;
        conversion.width = (width.unsigned_abs() as usize).min(WIDTH_MAX);
    }
    if byte(at) == b'.' {
        at += 1;
        let precision = number(&mut at)?.unwrap_or(0);
        conversion.precision = usize::try_from(precision)
            .ok()
            .map(|precision| precision.min(WIDTH_MAX));
    }
    loop {
        match byte(at) {
            b'h' => conversion.size = if conversion.size == 2 { 1 } else { 2 },
            b'l' | b'j' | b'z' | b't' => conversion.size = 8,
            b'L' => {}
            _ => break,
        }
        at += 1;
    }
    conversion.letter = byte(at);
    let known = b"diouxXcsfFeEgGaAp%".contains(&conversion.letter);
    Ok(known.then_some((conversion, at + 1)))
}

fn print(
    conversion: &Conversion,
    arguments: &mut Arguments<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), Violation> {
    match conversion.letter {
        b'%' => out.push(b'%'),
        b'c' => {
            let c = arguments.take(4)? as u8;
            pad(conversion, out, b"", &[c]);
        }
        b's' => {
            let text = arguments.text()?;
            let count = conversion.precision.unwrap_or(text.len()).min(text.len());
            pad(conversion, out, b"", &text[..count]);
        }
        b'p' => match arguments.take(8)? {
            0 => pad(conversion, out, b"", b"(nil)"),
            address => pad(conversion, out, b"0x", format!("{address:x}").as_bytes()),
        },
        b'd' | b'i' => {
            let bits = arguments.take(if conversion.size == 8 { 8 } else { 4 })?;
            let unused = 64 - 8 * u32::from(conversion.size);
            let value = ((bits << unused) as i64) >> unused;
            let digits = with_precision(conversion, value.unsigned_abs().to_string(), value == 0);
            number(conversion, out, sign(conversion, value < 0), &digits);
        }
        b'o' | b'u' | b'x' | b'X' => {
            let bits = arguments.take(if conversion.size == 8 { 8 } else { 4 })?;
            let unused = 64 - 8 * u32::from(conversion.size);
            let value = bits << unused >> unused;
            let (prefix, digits) = match conversion.letter {
                b'o' => ("0", format!("{value:o}")),
                b'x' => ("0x", format!("{value:x}")),
                b'X' => ("0X", format!("{value:X}")),
                _ => ("", value.to_string()),
            };
            let prefix = if conversion.alternate && value != 0 {
                prefix
            } else {
                ""
            };
            let digits = with_precision(conversion, digits, value == 0);
            number(conversion, out, prefix.as_bytes(), &digits);
        }
        _ => {
            let value = f64::from_bits(arguments.take(8)?);
            let sign = sign(conversion, value.is_sign_negative() && !value.is_nan());
            let (prefix, text) = float(conversion, value.abs());
            let finite = Conversion {
                zero: conversion.zero && value.is_finite(),
                ..conversion.clone()
            };
            let sign = [sign, prefix].concat();
            pad(&finite, out, &sign, text.as_bytes());
        }
    }
    Ok(())
}

fn sign(conversion: &Conversion, negative: bool) -> &'static [u8] {
    match (negative, conversion.plus, conversion.space) {
        (true, ..) => b"-",
        (false, true, _) => b"+",
        (false, false, true) => b" ",
        _ => b"",
    }
}

/// Integers: a precision is the least number of digits, and none at all for a zero.
fn with_precision(conversion: &Conversion, digits: String, is_zero: bool) -> String {
    match conversion.precision {
        Some(0) if is_zero => String::new(),
        Some(least) => format!("{digits:0>least$}"),
        None => digits,
    }
}

/// An integer: a precision switches padding with zeros off.
fn number(conversion: &Conversion, out: &mut Vec<u8>, prefix: &[u8], digits: &str) {
    let zero = conversion.zero && conversion.precision.is_none();
    pad(
        &Conversion {
            zero,
            ..conversion.clone()
        },
        out,
        prefix,
        digits.as_bytes(),
    );
}

/// Pads to the width: spaces before the prefix, zeros after it.
fn pad(conversion: &Conversion, out: &mut Vec<u8>, prefix: &[u8], body: &[u8]) {
    let missing = conversion.width.saturating_sub(prefix.len() + body.len());
    let fill = |out: &mut Vec<u8>, c: u8| out.resize(out.len() + missing, c);
    if !conversion.left && !conversion.zero {
        fill(out, b' ');
    }
    out.extend_from_slice(prefix);
    if !conversion.left && conversion.zero {
        fill(out, b'0');
    }
    out.extend_from_slice(body);
    if conversion.left {
        fill(out, b' ');
    }
}

/// The digits of a float that is not negative, and what comes before padding zeros.
fn float(conversion: &Conversion, value: f64) -> (&'static [u8], String) {
    let upper = conversion.letter.is_ascii_uppercase();
    let (prefix, text): (&[u8], String) = if value.is_nan() {
        (b"", "nan".into())
    } else if value.is_infinite() {
        (b"", "inf".into())
    } else {
        match conversion.letter.to_ascii_lowercase() {
            b'f' => (
                b"",
                fixed(
                    value,
                    conversion.precision.unwrap_or(6),
                    conversion.alternate,
                ),
            ),
            b'e' => (
                b"",
                exponent(
                    value,
                    conversion.precision.unwrap_or(6),
                    conversion.alternate,
                ),
            ),
            b'g' => (b"", general(value, conversion)),
            _ if upper => (b"0X", hexadecimal(value, conversion.precision)),
            _ => (b"0x", hexadecimal(value, conversion.precision)),
        }
    };
    (
        prefix,
        if upper {
            text.to_ascii_uppercase()
        } else {
            text
        },
    )
}

fn fixed(value: f64, precision: usize, point: bool) -> String {
    let text = format!("{value:.precision$}");
    if point && precision == 0 {
        text + "."
    } else {
        text
    }
}

fn exponent(value: f64, precision: usize, point: bool) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let sign = if power < 0 { '-' } else { '+' };
    let point = if point && precision == 0 { "." } else { "" };
    format!("{digits}{point}e{sign}{:02}", power.abs())
}

fn general(value: f64, conversion: &Conversion) -> String {
    let precision = conversion.precision.unwrap_or(6).max(1);
    let rounded = format!("{value:.*e}", precision - 1);
    let power: i32 = rounded
        .split_once('e')
        .and_then(|(_, p)| p.parse().ok())
        .unwrap_or(0);
    let (text, tail) = if power < -4 || power >= precision as i32 {
        let text = exponent(value, precision - 1, conversion.alternate);
        let (digits, power) = text.split_at(text.find('e').unwrap_or(text.len()));
        (digits.to_string(), power.to_string())
    } else {
        let decimals = (precision as i32 - 1 - power).max(0) as usize;
        (fixed(value, decimals, conversion.alternate), String::new())
    };
    if conversion.alternate || !text.contains('.') {
        return text + &tail;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_string() + &tail
}

fn hexadecimal(value: f64, precision: Option<usize>) -> String {
    let bits = value.to_bits();
    let (mut power, mut fraction) = ((bits >> 52) as i32 - 1023, bits & ((1 << 52) - 1));
    let mut lead = 1;
    if power == -1023 {
        (lead, power) = (0, if fraction == 0 { 0 } else { -1022 });
    }
    let mut digits = 13;
    if let Some(wanted) = precision.filter(|&wanted| wanted < 13) {
        // Round to even at the digit that stays.
        let drop = 4 * (13 - wanted) as u32;
        let whole = u64::from(lead as u32) << 52 | fraction;
        let half = 1u64 << (drop - 1);
        let odd = whole >> drop & 1;
        let rounded = (whole + half - 1 + odd) >> drop << drop;
        (lead, fraction) = ((rounded >> 52) as i32, rounded & ((1 << 52) - 1));
        digits = wanted;
    }
    let mut text = format!("{fraction:013x}");
    text.truncate(digits);
    match precision {
        None => text.truncate(text.trim_end_matches('0').len()),
        Some(wanted) => text = format!("{text:0<wanted$}"),
    }
    let point = if text.is_empty() { "" } else { "." };
    format!("{lead}{point}{text}p{power:+}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Conversion {
        parse(text.as_bytes(), &mut || Ok(-7)).unwrap().unwrap().0
    }

    fn real(spec: &str, value: f64) -> String {
        let conversion = read(spec);
        let (prefix, text) = float(&conversion, value);
        let mut out = vec![];
        pad(&conversion, &mut out, prefix, text.as_bytes());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn conversions_are_read() {
        let star = read("*.3lld");
        assert_eq!(
            (star.left, star.width, star.precision, star.size),
            (true, 7, Some(3), 8)
        );
        assert_eq!(read("hhu").size, 1);
        assert!(parse(b"y", &mut || Ok(0)).unwrap().is_none());
        assert!(parse(b"", &mut || Ok(0)).unwrap().is_none());
        assert_eq!(read("99999999999999999999d").width, WIDTH_MAX);
    }

    #[test]
    fn floats_are_printed_as_c_does() {
        for (spec, value, expected) in [
            ("f", 1.5, "1.500000"),
            (".0f", 2.5, "2"),
            ("8.3f", 2.71449, "   2.714"),
            ("08.3f", 2.71449, "0002.714"),
            ("e", 12345.678, "1.234568e+04"),
            (".0e", 0.00025, "3e-04"),
            ("g", 100000.0, "100000"),
            ("g", 1e6, "1e+06"),
            ("g", 0.0001, "0.0001"),
            ("g", 0.00001234, "1.234e-05"),
            ("G", 1e-10, "1E-10"),
            ("g", 0.0, "0"),
            ("#g", 1.0, "1.00000"),
            ("a", 1.0, "0x1p+0"),
            ("a", 0.1, "0x1.999999999999ap-4"),
            (".2a", 1.999, "0x2.00p+0"),
            ("a", 0.0, "0x0p+0"),
            ("f", f64::INFINITY, "inf"),
            ("F", f64::NAN, "NAN"),
        ] {
            assert_eq!(real(spec, value), expected, "%{spec} of {value}");
        }
    }
}
