//! Measures the engine: best of several runs, on one thread and on two. Rates are per second of
//! processor time, so that a busy machine does not matter much; the wall time stands beside.
//! An argument selects the cases whose names contain it.

#[path = "../tests/device/mod.rs"]
mod device;

use std::sync::Arc;
use std::time::{Duration, Instant};

use device::{decode, params, Device, Params};
use harp_softgpu_engine::{Kernel, Launch, Scratch};

const RUNS: usize = 7;

/// What a run took: wall time, and processor time of all threads.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    processor: Duration,
}

fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The best of several runs.
fn best(mut run: impl FnMut()) -> Took {
    run();
    let timed = |_| {
        let start = (Instant::now(), processor_time());
        run();
        Took {
            wall: start.0.elapsed(),
            processor: processor_time() - start.1,
        }
    };
    (0..RUNS)
        .map(timed)
        .min_by_key(|took| took.processor)
        .unwrap()
}

/// Measures one case; `work` is asked after the first run.
fn measure(name: &str, unit: &str, work: impl Fn() -> f64, run: impl FnMut()) {
    if std::env::args()
        .nth(1)
        .is_some_and(|wanted| !name.contains(&wanted))
    {
        return;
    }
    let took = best(run);
    let [wall, processor] = [took.wall, took.processor].map(|time| time.as_secs_f64());
    let rate = work() / processor;
    println!(
        "{name:28} {rate:10.3} {unit:9} (processor {:.3} ms, wall {:.3} ms)",
        processor * 1e3,
        wall * 1e3
    );
}

struct Case<'d> {
    device: &'d Device,
    kernel: Arc<Kernel>,
}

impl Case<'_> {
    fn run(&self, grid: [u32; 3], block: [u32; 3], params: &Params) {
        let launch = Launch {
            grid,
            block,
            params: params.bytes(),
            ..Launch::default()
        };
        self.device.run(&self.kernel, launch).unwrap();
    }
}

fn main() {
    for threads in [1, 2] {
        println!("{threads} threads");
        let device = Device::new(threads);
        let case = |ptx, name| Case {
            device: &device,
            kernel: decode(ptx, name).unwrap(),
        };

        let n = 1usize << 22;
        let (x, y) = (device.upload(&vec![1f32; n]), device.upload(&vec![1f32; n]));
        let elements = || n as f64 / 1e9;
        let saxpy = case(include_str!("../tests/ptx/saxpy.ptx"), "saxpy");
        let all = params().u64(x).u64(y).f32(2.0).u32(n as u32);
        let blocks = [n as u32 / 256, 1, 1];
        measure("saxpy 4M", "Gelem/s", elements, || {
            saxpy.run(blocks, [256, 1, 1], &all)
        });

        let reduce = case(include_str!("../tests/ptx/reduce.ptx"), "reduce");
        let all = params().u64(x).u64(y).u32(n as u32);
        measure("reduce 4M, barriers", "Gelem/s", elements, || {
            reduce.run(blocks, [256, 1, 1], &all)
        });

        let size = 512u32;
        let matmul = case(include_str!("../tests/ptx/matmul.ptx"), "matmul");
        let matrices = params().u64(x).u64(x + (1 << 20)).u64(y).u32(size);
        let operations = 2.0 * f64::from(size).powi(3) / 1e9;
        measure(
            "matmul 512, 16x16 tiles",
            "GFLOP/s",
            || operations,
            || matmul.run([size / 16, size / 16, 1], [16, 16, 1], &matrices),
        );

        let mandelbrot = case(include_str!("../tests/ptx/mandelbrot.ptx"), "mandelbrot");
        let plane = params().u64(y).u32(512).u32(512).u32(256);
        let steps = || {
            let steps = device.download::<u32>(y, 512 * 512);
            steps.iter().map(|&n| f64::from(n)).sum::<f64>() / 1e9
        };
        measure("mandelbrot 512, 256 steps", "Giter/s", steps, || {
            mandelbrot.run([32, 32, 1], [16, 16, 1], &plane)
        });

        let empty = case(include_str!("../tests/ptx/empty.ptx"), "empty");
        for block in [32, 256] {
            measure(
                &format!("empty, 100k blocks of {block}"),
                "Mblock/s",
                || 0.1,
                || empty.run([100_000, 1, 1], [block, 1, 1], &params()),
            );
        }
        let first = params().u64(x).u64(y).f32(2.0).u32(1);
        measure(
            "guarded, 100k blocks of 32",
            "Mblock/s",
            || 0.1,
            || saxpy.run([100_000, 1, 1], [32, 1, 1], &first),
        );
        let mut scratch = Scratch::new();
        measure(
            "launches of one block",
            "Mlaunch/s",
            || 0.01,
            || {
                for _ in 0..10_000 {
                    let launch = Launch {
                        block: [32, 1, 1],
                        params: first.bytes(),
                        ..Launch::default()
                    };
                    let grid = device.grid(&saxpy.kernel, launch);
                    grid.work(&mut scratch);
                }
            },
        );
    }
}
