//! Runs one operation on given lanes, with every compiled copy, and checks what holds for all
//! operations: copies agree bit for bit, inactive lanes and absent warps stay untouched.

use crate::exec::lanes::{Lanes, Masks, Operands, LANES, WARPS};
use crate::ops::{lookup_at, Class, Level, OpDesc};

/// The copies that this machine can run.
pub fn levels() -> Vec<Level> {
    let mut levels = vec![Level::Baseline];
    if Level::detect() != Level::Baseline {
        levels.push(Level::detect());
    }
    levels
}

/// What stands in a lane that nothing has written.
const UNTOUCHED: u64 = 0xa5a5_5a5a_a5a5_5a5a;

/// The registers of one warp group: sources a, b, c, e and a destination, each predicate or not.
struct Group {
    regs: Vec<u64>,
    preds: Vec<Masks>,
}

const DESTINATION: u32 = 8;
const SECOND_DESTINATION: u32 = 9;

/// What one run left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The destination lanes, predicates as 0 and 1.
    pub d: Vec<u64>,
    /// The second destination.
    pub q: Vec<u64>,
    pub carry: Vec<u64>,
}

impl Group {
    fn new() -> Group {
        Group {
            regs: vec![UNTOUCHED; 16 * WARPS * LANES],
            preds: vec![[0; WARPS]; 16],
        }
    }

    fn put(&mut self, slot: u32, class: Class, lane: usize, value: u64) {
        let (warp, bit) = (lane / LANES, lane % LANES);
        match class {
            Class::Pred => {
                let mask = &mut self.preds[slot as usize][warp];
                *mask = *mask & !(1 << bit) | ((value & 1) as u32) << bit;
            }
            // Rubbish above 16 bits: operations must not look there.
            Class::W16 => self.words(slot)[lane] = value as u32 & 0xffff | 0x5eed_0000,
            Class::W32 => self.words(slot)[lane] = value as u32,
            Class::W64 => self.regs[slot as usize * WARPS * LANES + lane] = value,
        }
    }

    fn get(&mut self, slot: u32, class: Class, lane: usize) -> u64 {
        match class {
            Class::Pred => (self.preds[slot as usize][lane / LANES] >> (lane % LANES) & 1).into(),
            Class::W16 => (self.words(slot)[lane] & 0xffff).into(),
            Class::W32 => self.words(slot)[lane].into(),
            Class::W64 => self.regs[slot as usize * WARPS * LANES + lane],
        }
    }

    /// A register of 32-bit lanes. Each register has two slots here, wide or not.
    fn words(&mut self, slot: u32) -> &mut [u32] {
        let words = &mut self.regs[slot as usize * WARPS * LANES..];
        // SAFETY: a `u64` is two `u32`; the lifetime is that of the borrow.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), WARPS * LANES) }
    }
}

/// One operation with its operands' lanes.
pub struct Case {
    desc: OpDesc,
    pub imm: i64,
    pub carry: Masks,
}

impl Case {
    pub fn new(name: &str) -> Case {
        Case::at(name, Level::detect())
    }

    fn at(name: &str, level: Level) -> Case {
        let parts: Vec<&str> = name.split('.').collect();
        let desc = lookup_at(&parts, level).unwrap_or_else(|| panic!("no {name}"));
        Case {
            desc,
            imm: desc.imm,
            carry: [0; WARPS],
        }
    }

    /// Lays out up to 256 rows of sources; `exec` says which lanes are active.
    pub fn prepare(&self, rows: &[[u64; 4]], exec: Masks) -> Prepared<'_> {
        assert!(rows.len() <= WARPS * LANES);
        let mut group = Group::new();
        for (slot, &class) in self.desc.srcs.iter().enumerate() {
            for (lane, row) in rows.iter().enumerate() {
                group.put(slot as u32, class, lane, row[slot]);
            }
        }
        let number = |index: u32, class: Option<&Class>| match class {
            Some(Class::Pred) | None => index,
            Some(_) => index * 2, // every register here has two slots
        };
        let source = |index: u32| number(index, self.desc.srcs.get(index as usize));
        let operands = Operands {
            d: number(DESTINATION, self.desc.dst.as_ref()),
            d2: if self.desc.dst2 {
                SECOND_DESTINATION
            } else {
                u32::MAX
            },
            a: source(0),
            b: source(1),
            c: source(2),
            e: source(3),
            imm: self.imm,
        };
        let warps = rows.len().div_ceil(LANES);
        Prepared {
            case: self,
            group,
            operands,
            exec,
            warps,
            carry: self.carry,
        }
    }

    fn run_masked(&self, rows: &[[u64; 4]], exec: Masks) -> Outcome {
        let mut prepared = self.prepare(rows, exec);
        prepared.repeat(1);
        let Prepared {
            mut group,
            carry,
            warps,
            ..
        } = prepared;
        let class = self.desc.dst.unwrap_or(Class::Pred);
        let lanes = || 0..warps * LANES;
        Outcome {
            d: lanes()
                .map(|lane| group.get(DESTINATION, class, lane))
                .collect(),
            q: lanes()
                .map(|lane| group.get(SECOND_DESTINATION, Class::Pred, lane))
                .collect(),
            carry: lanes()
                .map(|l| (carry[l / LANES] >> (l % LANES) & 1).into())
                .collect(),
        }
    }

    fn untouched(&self) -> u64 {
        match self.desc.dst.unwrap_or(Class::Pred) {
            Class::Pred => 0,
            Class::W16 => UNTOUCHED & 0xffff,
            Class::W32 => UNTOUCHED & 0xffff_ffff,
            Class::W64 => UNTOUCHED,
        }
    }
}

/// An operation with its registers laid out.
pub struct Prepared<'c> {
    case: &'c Case,
    group: Group,
    operands: Operands,
    exec: Masks,
    warps: usize,
    carry: Masks,
}

impl Prepared<'_> {
    pub fn repeat(&mut self, times: u32) {
        let mut lanes = Lanes {
            regs: self.group.regs.as_mut_ptr().cast(),
            preds: self.group.preds.as_mut_ptr(),
            exec: self.exec,
            warps: self.warps,
            carry: self.carry,
        };
        for _ in 0..times {
            // SAFETY: every operand's register exists with the class that the operation declares.
            unsafe { (self.case.desc.f)(&mut lanes, &self.operands) };
        }
        self.carry = lanes.carry;
    }
}

/// Runs the operation on any number of rows and returns its results.
pub fn run(name: &str, rows: &[[u64; 4]]) -> Vec<u64> {
    run_case(name, rows, |_| ()).d
}

/// Runs one row.
pub fn one(name: &str, row: &[u64]) -> u64 {
    let mut full = [0; 4];
    full[..row.len()].copy_from_slice(row);
    run(name, &[full])[0]
}

/// Runs with every copy and under several masks, checks them against each other, and returns
/// what all rows gave.
pub fn run_case(name: &str, rows: &[[u64; 4]], setup: impl Fn(&mut Case)) -> Outcome {
    let mut whole = Outcome {
        d: vec![],
        q: vec![],
        carry: vec![],
    };
    for rows in rows.chunks(WARPS * LANES) {
        let mut agreed: Option<Outcome> = None;
        for level in levels() {
            let mut case = Case::at(name, level);
            setup(&mut case);
            let full = case.run_masked(rows, [u32::MAX; WARPS]);
            let masks = [
                0x0000_0001,
                0x8000_0000,
                0x5555_5555,
                0x7fff_fffe,
                0,
                3,
                0xffff,
                !0,
            ];
            let masked = case.run_masked(rows, masks);
            for lane in 0..full.d.len() {
                let active = masks[lane / LANES] >> (lane % LANES) & 1 != 0;
                let expected = if active {
                    full.d[lane]
                } else {
                    case.untouched()
                };
                assert_eq!(masked.d[lane], expected, "{name}, {level:?}, lane {lane}");
                let expected = if active { full.q[lane] } else { 0 };
                assert_eq!(masked.q[lane], expected, "{name} q, {level:?}, lane {lane}");
                let before = (case.carry[lane / LANES] >> (lane % LANES) & 1).into();
                let expected = if active { full.carry[lane] } else { before };
                assert_eq!(
                    masked.carry[lane], expected,
                    "{name} carry, {level:?}, lane {lane}"
                );
            }
            match &agreed {
                None => agreed = Some(full),
                Some(first) => {
                    for (lane, row) in rows.iter().enumerate() {
                        // Of several f64 NaN operands, any may lend its payload.
                        let both_nan = name.ends_with("f64")
                            && f64::from_bits(first.d[lane]).is_nan()
                            && f64::from_bits(full.d[lane]).is_nan();
                        assert!(
                            both_nan || first.d[lane] == full.d[lane],
                            "{name} of {row:x?}: copies differ: {:x} {:x}",
                            first.d[lane],
                            full.d[lane]
                        );
                    }
                    assert_eq!(
                        first.q[..rows.len()],
                        full.q[..rows.len()],
                        "{name}: q differs"
                    );
                    assert_eq!(first.carry, full.carry, "{name}: carry differs");
                }
            }
        }
        let mut agreed = agreed.expect("at least one copy");
        agreed.d.truncate(rows.len());
        agreed.q.truncate(rows.len());
        agreed.carry.truncate(rows.len());
        whole.d.extend(agreed.d);
        whole.q.extend(agreed.q);
        whole.carry.extend(agreed.carry);
    }
    whole
}

/// A small generator of test numbers (xorshift64*), with a fondness for edges.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// An integer with a random number of significant bits, now and then negated.
    pub fn integer(&mut self) -> u64 {
        let (bits, how) = (self.bits(), self.bits());
        let value = bits >> (how & 63);
        match how >> 6 & 7 {
            0 | 1 => value.wrapping_neg(),
            2 => value & value.wrapping_neg(),
            _ => value,
        }
    }

    /// The code of an `f32`: any, near 1, of few bits, or an edge.
    pub fn f32(&mut self) -> u32 {
        let (bits, how) = (self.bits() as u32, self.bits());
        match how & 7 {
            0 | 1 => bits,
            2 | 3 => {
                let exponent = 106 + (how >> 8) as u32 % 40;
                (bits & 0x807f_ffff) | exponent << 23
            }
            4 => bits & 0xfff0_0000,
            5 => bits & 0x807f_ffff, // subnormal
            6 => F32_EDGES[(how >> 8) as usize % F32_EDGES.len()],
            _ => F32_EDGES[(how >> 8) as usize % F32_EDGES.len()] ^ (bits & 3),
        }
    }

    /// The code of an `f64`, likewise.
    pub fn f64(&mut self) -> u64 {
        let (bits, how) = (self.bits(), self.bits());
        match how & 7 {
            0 => bits,
            1 | 2 => bits & 0x800f_ffff_ffff_ffff | (0x3f0 + (how >> 8) % 40) << 52,
            3 => bits & 0xfffe_0000_0000_0000,
            4 => bits & 0x800f_ffff_ffff_ffff,
            5 => (f32::from_bits(self.f32()) as f64).to_bits(),
            6 => F64_EDGES[(how >> 8) as usize % F64_EDGES.len()],
            _ => F64_EDGES[(how >> 8) as usize % F64_EDGES.len()] ^ (bits & 3),
        }
    }
}

pub const F32_EDGES: &[u32] = &[
    0x0000_0000,
    0x8000_0000,
    0x0000_0001,
    0x8000_0001,
    0x007f_ffff,
    0x807f_ffff,
    0x0080_0000,
    0x8080_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3f00_0000,
    0x3fc0_0000,
    0x4020_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_0000,
    0x7f80_0001,
    0x7fff_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x4f80_0000,
    0x5f00_0000,
    0xdf00_0000,
    0x5f80_0000,
    0x4eff_ffff,
    0x477f_e000,
    0x477f_f000,
    0x477f_efff,
    0x3880_0000,
    0x3300_0000,
    0x3300_0001,
    0x387f_e000,
    0x7e80_0000,
    0x7e80_0001,
    0x4b00_0000,
    0x4b80_0001,
    0x3eff_ffff,
    0x3f7f_ffff,
    0x3f80_0001,
];

pub const F64_EDGES: &[u64] = &[
    0,
    1 << 63,
    1,
    1 << 63 | 1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x8010_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ff8_0000_0000_0000,
    0x4004_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0000,
    0x41e0_0000_0000_0000,
    0xc1e0_0000_0000_0000,
    0x41f0_0000_0000_0000,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x43f0_0000_0000_0000,
    0x47ef_ffff_e000_0000,
    0x47ef_ffff_f000_0000,
    0x36a0_0000_0000_0000,
    0x3690_0000_0000_0000,
    0x3690_0000_0000_0001,
    0x3810_0000_0000_0000,
    0x380f_ffff_ffff_ffff,
    0x40ef_fe00_0000_0000,
    0x3e60_0000_0000_0000,
    0x4340_0000_0000_0000,
    0x4330_0000_0000_0001,
];
