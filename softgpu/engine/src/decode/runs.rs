//! Finds runs of loads and stores that have one base register, so that all but the first need not
//! look at the addresses of every lane (see `exec::memory::known`).

use super::draft::field::A;
use super::draft::{Draft, Reg, RunKey};
use crate::exec::inst::{Action, Flags};

/// A run that may go on.
#[derive(Clone, Copy)]
struct Run {
    base: Reg,
    key: RunKey,
    /// Its first access in the block.
    first: usize,
    number: usize,
}

/// Marks the runs of one block.
pub fn mark(block: &mut [Draft]) {
    let mut open: Vec<Run> = vec![];
    for index in 0..block.len() {
        let draft = &block[index];
        if !matches!(draft.action, Action::Lane(_) | Action::Block(_)) {
            open.clear(); // lanes may leave, or others come
            continue;
        }
        let access = draft.access.filter(|_| draft.guard.is_none());
        if let Some(key) = access {
            let base = draft.regs[A];
            match open
                .iter()
                .position(|run| run.base == base && run.key == key)
            {
                Some(found) => {
                    let run = open.remove(found);
                    block[run.first]
                        .flags
                        .set_run(run.number, Flags::NOTES_ADDRESSES);
                    block[index]
                        .flags
                        .set_run(run.number, Flags::KNOWN_ADDRESSES);
                    open.push(run);
                }
                None => {
                    // The run that was used the longest ago gives way.
                    let number = match open.len() {
                        Flags::RUNS => open.remove(0).number,
                        _ => (0..Flags::RUNS)
                            .find(|number| open.iter().all(|run| run.number != *number))
                            .unwrap_or(0),
                    };
                    open.push(Run {
                        base,
                        key,
                        first: index,
                        number,
                    });
                }
            }
        }
        for reg in block[index].written() {
            open.retain(|run| run.base != reg);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draft::field::D;
    use super::*;

    fn load(d: u32, base: u32) -> Draft {
        // Any operation does: only what it reads and writes matters here.
        let action = Action::Block(crate::exec::memory::fence);
        let mut draft = Draft::new(action, 1).def(D, Reg(d)).arg(A, Reg(base));
        draft.access = Some(RunKey {
            shared: true,
            bytes: 4,
        });
        draft
    }

    fn roles(block: &mut [Draft]) -> String {
        mark(block);
        let role = |draft: &Draft| match draft.flags {
            flags if flags.has(Flags::NOTES_ADDRESSES) => 'N',
            flags if flags.has(Flags::KNOWN_ADDRESSES) => 'K',
            _ => '-',
        };
        block.iter().map(role).collect()
    }

    #[test]
    fn two_interleaved_runs() {
        let mut block = [
            load(10, 1),
            load(11, 2),
            load(12, 1),
            load(13, 2),
            load(14, 3),
        ];
        assert_eq!(roles(&mut block), "NNKK-");
        assert_ne!(block[0].flags.run_number(), block[1].flags.run_number());
        assert_eq!(block[0].flags.run_number(), block[2].flags.run_number());
    }

    #[test]
    fn a_run_ends_where_its_register_or_its_lanes_change() {
        assert_eq!(roles(&mut [load(10, 1), load(1, 1), load(11, 1)]), "NK-");
        let exit = Draft::new(Action::Exit, 1);
        assert_eq!(roles(&mut [load(10, 1), exit, load(11, 1)]), "---");
        let mut guarded = load(11, 1);
        guarded.guard = Some((Reg(9), false));
        assert_eq!(roles(&mut [load(10, 1), guarded, load(12, 1)]), "N-K");
        let mut wider = load(11, 1);
        wider.access = Some(RunKey {
            shared: true,
            bytes: 8,
        });
        assert_eq!(roles(&mut [load(10, 1), wider]), "--");
    }

    #[test]
    fn the_oldest_of_too_many_runs_is_forgotten() {
        let mut block: Vec<Draft> = (1..=5).map(|base| load(20 + base, base)).collect();
        block.extend([load(30, 5), load(31, 1)]);
        assert_eq!(roles(&mut block), "----NK-");
    }
}
