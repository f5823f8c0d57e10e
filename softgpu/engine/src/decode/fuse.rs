//! Fuses products with sums: `mul` and then `add` or `sub` of its result, none of them with a
//! rounding, round once.
//!
//! The PTX manual allows it, and `ptxas` does it on every GPU (`--fmad=true` is its default). The
//! compilers before it rely on that: NVRTC writes a difference with a product as `mul` and `sub`.
//! A program that wants two roundings says so with `.rn`, which never fuses.

use super::draft::field::{A, B, C, D};
use super::draft::{Draft, Reg, RegMap};
use crate::exec::inst::Action;
use crate::ops;

/// Products that may still find their sum: how far back one is looked for.
const OPEN_MAX: usize = 32;

/// A step that may become half of a fused one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub kind: Kind,
    ty: &'static str,
    ftz: bool,
    sat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Product,
    Sum,
    Difference,
}

impl Step {
    /// Of an opcode, given as its parts; none for what never fuses.
    pub fn of(parts: &[&str]) -> Option<Step> {
        let (&opcode, rest) = parts.split_first()?;
        let (&last, flags) = rest.split_last()?;
        let kind = match opcode {
            "mul" => Kind::Product,
            "add" => Kind::Sum,
            "sub" => Kind::Difference,
            _ => return None,
        };
        let ty = ["f32", "f64", "f16", "f16x2", "bf16", "bf16x2"]
            .into_iter()
            .find(|&ty| ty == last)?;
        let (mut ftz, mut sat) = (false, false);
        for &flag in flags {
            match flag {
                "ftz" => ftz = true,
                "sat" => sat = true,
                _ => return None,
            }
        }
        // A clamped product is another number. Differences of halves have no fused form here.
        let half = ty.contains("16");
        let refused = kind == Kind::Product && sat || kind == Kind::Difference && half;
        (!refused).then_some(Step { kind, ty, ftz, sat })
    }

    fn takes(self, product: Step) -> bool {
        self.ty == product.ty && self.ftz == product.ftz
    }

    /// The fused operation with this name.
    fn operation(self, name: &str) -> Option<ops::OpDesc> {
        let mut parts = vec![name, "rn"];
        parts.extend(self.ftz.then_some("ftz"));
        parts.extend(self.sat.then_some("sat"));
        parts.push(self.ty);
        ops::lookup(&parts)
    }
}

/// A product whose result is read once.
struct Open {
    step: Step,
    index: usize,
    d: Reg,
    a: Reg,
    b: Reg,
}

/// Fuses what can be fused within straight pieces of code. Drafts that are no longer needed go,
/// and `labels` follow.
pub fn fuse(drafts: &mut Vec<Draft>, labels: &mut [usize]) {
    let lonely = read_once(drafts);
    if lonely.is_empty() {
        return;
    }
    let mut targets = vec![false; drafts.len() + 1];
    for &label in labels.iter() {
        targets[label] = true;
    }
    let mut open: Vec<Open> = vec![];
    let mut gone = vec![false; drafts.len()];
    for index in 0..drafts.len() {
        let draft = &mut drafts[index];
        if targets[index] || !matches!(draft.action, Action::Lane(_) | Action::Block(_)) {
            open.clear();
        }
        if let Some(place) = joined(draft, &open) {
            gone[open.remove(place).index] = true;
        }
        open.retain(|product| {
            draft
                .written()
                .all(|reg| reg != product.a && reg != product.b)
        });
        let d = draft.regs[D];
        match draft.step {
            Some(step) if step.kind == Kind::Product && lonely.contains_key(&d) => {
                if open.len() == OPEN_MAX {
                    open.remove(0);
                }
                let (a, b) = (draft.regs[A], draft.regs[B]);
                if d != a && d != b {
                    open.push(Open {
                        step,
                        index,
                        d,
                        a,
                        b,
                    });
                }
            }
            _ => {}
        }
    }
    remove(drafts, labels, &gone);
}

/// Registers that one product writes, and nothing else, and that are read once.
fn read_once(drafts: &[Draft]) -> RegMap<()> {
    let mut count: RegMap<(u32, u32)> = RegMap::default();
    for draft in drafts {
        if draft.step.is_some_and(|step| step.kind == Kind::Product) && draft.guard.is_none() {
            count.insert(draft.regs[D], (0, 0));
        }
    }
    if count.is_empty() {
        return RegMap::default();
    }
    for draft in drafts {
        for reg in draft.written() {
            count.entry(reg).and_modify(|(defs, _)| *defs += 1);
        }
        for reg in draft.read() {
            count.entry(reg).and_modify(|(_, uses)| *uses += 1);
        }
    }
    let once = |(reg, counts): (Reg, (u32, u32))| (counts == (1, 1)).then_some((reg, ()));
    count.into_iter().filter_map(once).collect()
}

/// Makes a sum or difference with an open product one fused operation; says with which.
fn joined(draft: &mut Draft, open: &[Open]) -> Option<usize> {
    let step = draft.step.filter(|step| step.kind != Kind::Product)?;
    if draft.guard.is_some() {
        return None;
    }
    let find = |reg: Reg| {
        open.iter()
            .position(|product| product.d == reg && step.takes(product.step))
    };
    let (a, b) = (draft.regs[A], draft.regs[B]);
    let (place, name, other) = match (step.kind, find(a), find(b)) {
        (Kind::Sum, Some(place), _) => (place, "fma", b),
        (Kind::Sum, None, Some(place)) => (place, "fma", a),
        (Kind::Difference, Some(place), _) => (place, "a*b-c", b),
        (Kind::Difference, None, Some(place)) => (place, "c-a*b", a),
        _ => return None,
    };
    let operation = step.operation(name)?;
    let fused = Draft::new(Action::Lane(operation.f), draft.line)
        .imm(operation.imm)
        .def(D, draft.regs[D])
        .arg(A, open[place].a)
        .arg(B, open[place].b)
        .arg(C, other);
    *draft = fused;
    Some(place)
}

/// Takes drafts out; labels stand before the same drafts as before.
fn remove(drafts: &mut Vec<Draft>, labels: &mut [usize], gone: &[bool]) {
    let mut places = Vec::with_capacity(drafts.len() + 1);
    let mut place = 0;
    for &gone in gone {
        places.push(place);
        place += usize::from(!gone);
    }
    places.push(place);
    for label in labels {
        *label = places[*label];
    }
    let mut gone = gone.iter();
    drafts.retain(|_| gone.next() == Some(&false));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_without_rounding() {
        let of = |opcode: &str| Step::of(&opcode.split('.').collect::<Vec<_>>());
        assert!(of("mul.f64").is_some_and(|step| step.kind == Kind::Product));
        assert!(of("add.ftz.sat.f32").is_some_and(|step| step.ftz && step.sat));
        for opcode in [
            "mul.rn.f32",
            "mul.sat.f32",
            "mul.lo.s32",
            "add.s32",
            "sub.f16",
            "fma.rn.f32",
        ] {
            assert_eq!(of(opcode), None, "{opcode}");
        }
        let (sum, product) = (of("add.ftz.f32").unwrap(), of("mul.f32").unwrap());
        assert!(!sum.takes(product));
    }
}
