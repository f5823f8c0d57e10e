//! How two runs of bytes differ: exactly, or as numbers within a tolerance.

use half::f16;
use serde_json::{json, Value};

/// What data consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F64,
    F32,
    F16,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::F64 => 8,
            Element::F32 => 4,
            Element::F16 => 2,
        }
    }

    fn value(self, bytes: &[u8]) -> f64 {
        match (self, bytes) {
            (Element::F64, [a, b, c, d, e, f, g, h]) => {
                f64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h])
            }
            (Element::F32, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]).into(),
            (Element::F16, [a, b]) => f16::from_le_bytes([*a, *b]).into(),
            _ => f64::NAN,
        }
    }
}

/// Numbers are equal that differ by no more than `absolute + relative * |the recorded one|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
    pub element: Element,
}

impl Tolerance {
    /// Reads `ABS` or `ABS,REL`, for elements of that name.
    pub fn parse(text: &str, element: &str) -> Option<Tolerance> {
        let (absolute, relative) = text.split_once(',').unwrap_or((text, "0"));
        let number = |text: &str| {
            let number: f64 = text.trim().parse().ok()?;
            (number >= 0.0).then_some(number)
        };
        Some(Tolerance {
            absolute: number(absolute)?,
            relative: number(relative)?,
            element: match element {
                "f64" => Element::F64,
                "f32" => Element::F32,
                "f16" => Element::F16,
                _ => return None,
            },
        })
    }

    fn allows(&self, recorded: f64, replayed: f64) -> bool {
        if recorded.is_nan() || replayed.is_nan() {
            return recorded.is_nan() && replayed.is_nan();
        }
        recorded == replayed
            || (recorded - replayed).abs() <= self.absolute + self.relative * recorded.abs()
    }
}

/// Where two runs of bytes of one length differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// Elements (bytes, where nothing is said of elements) that differ, and how many there are.
    pub count: u64,
    pub of: u64,
    pub unit: &'static str,
    /// Of the first one, in bytes.
    pub offset: u64,
    /// Its values.
    pub recorded: String,
    pub replayed: String,
}

impl Deviation {
    pub fn json(&self) -> Value {
        json!({
            "count": self.count,
            "of": self.of,
            "unit": self.unit,
            "offset": self.offset,
            "recorded": self.recorded,
            "replayed": self.replayed,
        })
    }
}

/// How two runs of bytes of one length differ; `None` if they do not.
pub fn deviation(
    recorded: &[u8],
    replayed: &[u8],
    tolerance: Option<&Tolerance>,
) -> Option<Deviation> {
    match tolerance {
        Some(tolerance) => of_numbers(recorded, replayed, tolerance),
        None => of_bytes(recorded, replayed),
    }
}

fn of_bytes(recorded: &[u8], replayed: &[u8]) -> Option<Deviation> {
    let differs = |at: &usize| recorded[*at] != replayed[*at];
    let first = (0..recorded.len()).find(differs)?;
    let count = (first..recorded.len()).filter(differs).count();
    // The word around it says more than the byte.
    let start = first / 4 * 4;
    let word = |bytes: &[u8]| {
        let bytes = &bytes[start..bytes.len().min(start + 4)];
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match bytes {
            [a, b, c, d] => format!("{digits} ({:?})", f32::from_le_bytes([*a, *b, *c, *d])),
            _ => digits,
        }
    };
    Some(Deviation {
        count: count as u64,
        of: recorded.len() as u64,
        unit: "bytes",
        offset: first as u64,
        recorded: word(recorded),
        replayed: word(replayed),
    })
}

fn of_numbers(recorded: &[u8], replayed: &[u8], tolerance: &Tolerance) -> Option<Deviation> {
    let size = tolerance.element.bytes();
    let value = |bytes| tolerance.element.value(bytes);
    let (then, now) = (recorded.chunks_exact(size), replayed.chunks_exact(size));
    let rest = then.remainder() != now.remainder();
    let mut differing = then
        .zip(now)
        .enumerate()
        .filter(|(_, (then, now))| !tolerance.allows(value(then), value(now)));
    let Some((first, (a, b))) = differing.next() else {
        // What is no whole element is compared as it is.
        return rest.then(|| of_bytes(recorded, replayed)).flatten();
    };
    Some(Deviation {
        count: 1 + differing.count() as u64,
        of: (recorded.len() / size) as u64,
        unit: "elements",
        offset: (first * size) as u64,
        recorded: format!("{:?}", value(a)),
        replayed: format!("{:?}", value(b)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect()
    }

    #[test]
    fn bytes_that_differ_are_counted_and_the_first_is_shown() {
        let then = floats(&[1.0, 2.0, 3.0]);
        assert_eq!(deviation(&then, &then, None), None);
        let now = floats(&[1.0, 2.5, 4.0]);
        let found = deviation(&then, &now, None).unwrap();
        assert_eq!((found.count, found.of, found.offset), (2, 12, 6));
        assert_eq!(found.recorded, "00000040 (2.0)");
        assert_eq!(found.replayed, "00002040 (2.5)");
    }

    #[test]
    fn numbers_within_the_tolerance_are_equal() {
        let then = floats(&[1.0, 100.0, f32::NAN, f32::INFINITY, 0.0]);
        let now = floats(&[1.05, 104.0, f32::NAN, f32::INFINITY, -0.0]);
        let differs = |text| deviation(&then, &now, Some(&Tolerance::parse(text, "f32").unwrap()));
        assert_eq!(differs("0.1,0.05"), None);
        let found = differs("0.1").unwrap();
        assert_eq!((found.count, found.of, found.offset), (1, 5, 4));
        assert_eq!((&*found.recorded, &*found.replayed), ("100.0", "104.0"));
        assert_eq!(differs("0,0.01").unwrap().count, 2);
        let nan = floats(&[f32::NAN]);
        let tolerance = Tolerance::parse("9", "f32");
        assert!(deviation(&nan, &floats(&[1.0]), tolerance.as_ref()).is_some());
    }

    #[test]
    fn what_is_no_whole_element_is_compared_exactly() {
        let tolerance = Tolerance::parse("1", "f16").unwrap();
        let then = [0x00, 0x3c, 7];
        assert_eq!(deviation(&then, &[0x00, 0x3e, 7], Some(&tolerance)), None);
        let found = deviation(&then, &[0x00, 0x3e, 8], Some(&tolerance)).unwrap();
        assert_eq!(found.unit, "bytes");
    }

    #[test]
    fn a_tolerance_is_one_or_two_numbers() {
        assert!(Tolerance::parse("1e-6,1e-5", "f64").is_some());
        for (text, element) in [("", "f32"), ("-1", "f32"), ("1,2,3", "f32"), ("1", "i8")] {
            assert_eq!(Tolerance::parse(text, element), None);
        }
    }
}
