//! Instructions between lanes: shuffles, votes, matches, reductions, and lanes that meet in them
//! from different places.

mod device;

use device::{kernel, params, Device};

/// Runs `body` with one block of `threads`; it leaves a result in `%r50`, and `%rd1` is where it is
/// stored.
fn results(threads: u32, body: &str) -> Vec<u32> {
    let device = Device::new(1);
    let out = device.upload(&vec![0xdead_beefu32; threads as usize]);
    let ptx = kernel(
        ".param .u64 out",
        &format!(
            "ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmov.u32 %r2, %laneid;\n\
             mul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd1, %rd1, %rd2;\n{body}\n\
             st.global.u32 [%rd1], %r50;\nret;"
        ),
    );
    device
        .launch(&ptx, "k", [1, 1, 1], [threads, 1, 1], params().u64(out))
        .unwrap();
    device.download(out, threads as usize)
}

#[test]
fn shuffles_move_values_within_segments() {
    let lanes = |f: fn(u32) -> u32| (0..32).map(f).collect::<Vec<u32>>();
    let shuffle = |text: &str| results(32, &format!("mul.lo.u32 %r3, %r1, 10;\n{text}"));
    assert_eq!(
        shuffle("shfl.sync.down.b32 %r50, %r3, 3, 31, -1;"),
        lanes(|l| if l + 3 < 32 { 10 * (l + 3) } else { 10 * l })
    );
    assert_eq!(
        shuffle("shfl.sync.up.b32 %r50, %r3, 2, 0, -1;"),
        lanes(|l| if l >= 2 { 10 * (l - 2) } else { 10 * l })
    );
    assert_eq!(
        shuffle("shfl.sync.bfly.b32 %r50, %r3, 5, 31, -1;"),
        lanes(|l| 10 * (l ^ 5))
    );
    assert_eq!(
        shuffle("shfl.sync.idx.b32 %r50, %r3, 7, 31, -1;"),
        lanes(|_| 70)
    );
    // Segments of eight lanes: c is 0x1800 | 0x1f for idx and down, 0x1800 for up.
    assert_eq!(
        shuffle("shfl.sync.idx.b32 %r50, %r3, 1, 0x181f, -1;"),
        lanes(|l| 10 * (l / 8 * 8 + 1))
    );
    assert_eq!(
        shuffle("shfl.sync.up.b32 %r50, %r3, 1, 0x1800, -1;"),
        lanes(|l| if l % 8 == 0 { 10 * l } else { 10 * (l - 1) })
    );
    // The predicate tells whether the source was in range.
    assert_eq!(
        shuffle("shfl.sync.down.b32 %r4|%p1, %r3, 16, 31, -1;\nselp.u32 %r50, 1, 0, %p1;"),
        lanes(|l| u32::from(l < 16))
    );
}

#[test]
fn votes_matches_and_reductions() {
    let all = |value: u32| vec![value; 32];
    let odd = "and.b32 %r3, %r1, 1;\nsetp.ne.s32 %p1, %r3, 0;\n";
    let vote = |text: &str| results(32, &format!("{odd}{text}"));
    assert_eq!(
        vote("vote.sync.ballot.b32 %r50, %p1, -1;"),
        all(0xaaaa_aaaa)
    );
    assert_eq!(
        vote("vote.ballot.sync.b32 %r50, !%p1, -1;"),
        all(0x5555_5555)
    );
    assert_eq!(
        vote("vote.sync.any.pred %p2, %p1, -1;\nselp.u32 %r50, 1, 0, %p2;"),
        all(1)
    );
    assert_eq!(
        vote("vote.sync.all.pred %p2, %p1, -1;\nselp.u32 %r50, 1, 0, %p2;"),
        all(0)
    );
    assert_eq!(
        vote("vote.sync.uni.pred %p2, %p1, -1;\nselp.u32 %r50, 1, 0, %p2;"),
        all(0)
    );
    assert_eq!(
        results(
            32,
            "shr.u32 %r3, %r1, 3;\nmatch.any.sync.b32 %r50, %r3, -1;"
        ),
        (0..32).map(|l| 0xffu32 << (l / 8 * 8)).collect::<Vec<_>>()
    );
    assert_eq!(
        results(
            32,
            "mov.b64 %rd5, 77;\nmatch.all.sync.b64 %r3|%p1, %rd5, -1;\nselp.u32 %r50, %r3, 0, %p1;"
        ),
        all(u32::MAX)
    );
    assert_eq!(results(32, "redux.sync.add.u32 %r50, %r1, -1;"), all(496));
    assert_eq!(
        results(
            32,
            "sub.s32 %r3, 5, %r1;\nredux.sync.min.s32 %r50, %r3, -1;"
        ),
        all(-26i32 as u32)
    );
    assert_eq!(results(32, "redux.sync.xor.b32 %r50, %r1, -1;"), all(0));
    assert_eq!(
        results(32, "elect.sync %r3|%p1, -1;\nselp.u32 %r50, 1, 0, %p1;"),
        (0..32).map(|l| u32::from(l == 0)).collect::<Vec<_>>()
    );
}

#[test]
fn active_lanes_are_those_of_the_branch() {
    let seen = results(
        32,
        "mov.u32 %r50, 0;\nsetp.lt.u32 %p1, %r1, 5;\n@!%p1 bra $END;\nactivemask.b32 %r50;\n$END:",
    );
    assert_eq!(seen[..5], [31; 5]);
    assert_eq!(seen[5..], [0; 27]);
}

#[test]
fn lanes_meet_in_a_shuffle_from_both_sides_of_a_branch() {
    // Two textually different shuffles, one member mask: both halves take part in one exchange.
    let seen = results(
        32,
        "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra $LOW;\n\
         add.u32 %r3, %r1, 1000;\nshfl.sync.bfly.b32 %r50, %r3, 16, 31, -1;\nbra $END;\n\
         $LOW:\nadd.u32 %r3, %r1, 2000;\nshfl.sync.bfly.b32 %r50, %r3, 16, 31, -1;\n$END:",
    );
    let expected: Vec<u32> = (0..32)
        .map(|l| {
            if l < 16 {
                1000 + (l + 16)
            } else {
                2000 + (l - 16)
            }
        })
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn masks_partition_a_warp() {
    // Each half votes under its own mask, at one place.
    let seen = results(
        32,
        "setp.lt.u32 %p1, %r1, 12;\nselp.b32 %r3, 0xfff, 0xfffff000, %p1;\n\
         and.b32 %r4, %r1, 1;\nsetp.eq.u32 %p2, %r4, 0;\nvote.sync.ballot.b32 %r50, %p2, %r3;",
    );
    assert_eq!(seen[..12], [0x555; 12]);
    assert_eq!(seen[12..], [0x5555_5000; 20]);
}

#[test]
fn lanes_that_exited_are_not_waited_for() {
    let device = Device::new(1);
    let out = device.upload(&[0u32; 32]);
    let ptx = kernel(
        ".param .u64 out",
        "ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n\
         add.s64 %rd1, %rd1, %rd2;\nsetp.ge.u32 %p1, %r1, 10;\n@%p1 exit;\n\
         redux.sync.add.u32 %r2, %r1, -1;\nbar.warp.sync -1;\nst.global.u32 [%rd1], %r2;\nret;",
    );
    device
        .launch(&ptx, "k", [1, 1, 1], [32, 1, 1], params().u64(out))
        .unwrap();
    let seen = device.download::<u32>(out, 32);
    assert_eq!(seen[..10], [45; 10]);
    assert_eq!(seen[10..], [0; 22]);
}

#[test]
fn a_warp_reduction_over_a_partial_warp() {
    // 40 threads: the second warp has eight lanes, as its mask says.
    let seen = results(
        40,
        "setp.lt.u32 %p1, %r1, 32;\nselp.b32 %r3, 0xffffffff, 0xff, %p1;\n\
         redux.sync.max.u32 %r50, %r1, %r3;",
    );
    assert_eq!(seen[..32], [31; 32]);
    assert_eq!(seen[32..], [39; 8]);
}

#[test]
fn a_loop_with_different_counts_and_a_sync_inside() {
    // Lane l makes l % 4 + 1 turns; in each turn the lanes still there add up their numbers.
    let seen = results(
        32,
        "and.b32 %r3, %r1, 3;\nmov.u32 %r50, 0;\nmov.u32 %r4, 0;\n\
         $LOOP:\nsetp.le.u32 %p1, %r4, %r3;\nvote.sync.ballot.b32 %r5, %p1, -1;\n\
         setp.eq.u32 %p2, %r5, 0;\n@%p2 bra $END;\n@!%p1 bra $NEXT;\n\
         redux.sync.add.u32 %r6, %r1, %r5;\nadd.u32 %r50, %r50, %r6;\n\
         $NEXT:\nadd.u32 %r4, %r4, 1;\nbra $LOOP;\n$END:",
    );
    let turn = |t: u32| (0..32u32).filter(|l| l % 4 >= t).sum::<u32>();
    let expected: Vec<u32> = (0..32).map(|l| (0..=l % 4).map(turn).sum()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn special_registers() {
    assert_eq!(results(70, "mov.u32 %r50, %warpid;")[31..34], [0, 1, 1]);
    assert_eq!(results(70, "mov.u32 %r50, %nwarpid;")[0], 3);
    assert_eq!(results(33, "mov.u32 %r50, %laneid;")[30..], [30, 31, 0]);
    assert_eq!(results(32, "mov.u32 %r50, %lanemask_lt;")[5], 31);
    assert_eq!(results(32, "mov.u32 %r50, %lanemask_le;")[31], u32::MAX);
    assert_eq!(results(32, "mov.u32 %r50, %lanemask_ge;")[31], 1 << 31);
    assert_eq!(results(32, "mov.u32 %r50, %lanemask_gt;")[31], 0);
    assert_eq!(results(32, "mov.u32 %r50, %lanemask_eq;")[4], 16);
    assert_eq!(results(32, "mov.u32 %r50, WARP_SZ;")[4], 32);
    assert_eq!(results(32, "add.u32 %r50, %tid.x, %ntid.x;")[4], 36);
    assert_ne!(
        results(32, "mov.u64 %rd5, %globaltimer;\ncvt.u32.u64 %r50, %rd5;")[0],
        0
    );
}
