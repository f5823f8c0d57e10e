//! Whole kernels as nvcc writes them.

mod device;

use device::{params, Device};

const SAXPY: &str = include_str!("ptx/saxpy.ptx");
const REDUCE: &str = include_str!("ptx/reduce.ptx");
const MATMUL: &str = include_str!("ptx/matmul.ptx");
const MANDELBROT: &str = include_str!("ptx/mandelbrot.ptx");

#[test]
fn saxpy_over_a_length_that_no_block_divides() {
    for threads in [1, 2] {
        let device = Device::new(threads);
        let n = 10_007;
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let y = vec![1f32; n];
        let (dx, dy) = (device.upload(&x), device.upload(&y));
        let arguments = params().u64(dx).u64(dy).f32(2.0).u32(n as u32);
        device
            .launch(SAXPY, "saxpy", [40, 1, 1], [256, 1, 1], arguments)
            .unwrap();
        let expected: Vec<f32> = x.iter().map(|x| 2.0 * x + 1.0).collect();
        assert_eq!(device.download::<f32>(dy, n), expected);
    }
}

#[test]
fn a_sum_by_a_tree_with_barriers() {
    let device = Device::new(2);
    for block in [32u32, 64, 256, 1024] {
        let (blocks, n) = (7u32, 7 * block - 5);
        let values: Vec<f32> = (0..n).map(|i| (i % 11) as f32).collect();
        let (input, output) = (
            device.upload(&values),
            device.upload(&vec![0f32; blocks as usize]),
        );
        let arguments = params().u64(input).u64(output).u32(n);
        device
            .launch(REDUCE, "reduce", [blocks, 1, 1], [block, 1, 1], arguments)
            .unwrap();
        let expected: Vec<f32> = values
            .chunks(block as usize)
            .map(|c| c.iter().sum())
            .collect();
        assert_eq!(
            device.download::<f32>(output, blocks as usize),
            expected,
            "block {block}"
        );
    }
}

#[test]
fn a_tiled_matrix_product() {
    let device = Device::new(2);
    let n = 96usize;
    let a: Vec<f32> = (0..n * n).map(|i| ((i * 7) % 13) as f32).collect();
    let b: Vec<f32> = (0..n * n).map(|i| ((i * 5) % 11) as f32).collect();
    let c = device.upload(&vec![0f32; n * n]);
    let arguments = params()
        .u64(device.upload(&a))
        .u64(device.upload(&b))
        .u64(c)
        .u32(n as u32);
    device
        .launch(MATMUL, "matmul", [6, 6, 1], [16, 16, 1], arguments)
        .unwrap();
    let c = device.download::<f32>(c, n * n);
    for (index, value) in c.iter().enumerate() {
        let (row, column) = (index / n, index % n);
        let expected: f32 = (0..n).map(|k| a[row * n + k] * b[k * n + column]).sum();
        assert_eq!(*value, expected, "row {row}, column {column}");
    }
}

#[test]
fn a_loop_that_every_lane_leaves_at_its_own_time() {
    let device = Device::new(2);
    let (width, height, limit) = (64u32, 48u32, 100u32);
    let out = device.upload(&vec![0u32; (width * height) as usize]);
    let arguments = params().u64(out).u32(width).u32(height).u32(limit);
    device
        .launch(MANDELBROT, "mandelbrot", [4, 3, 1], [16, 16, 1], arguments)
        .unwrap();
    for (index, seen) in device
        .download::<u32>(out, (width * height) as usize)
        .iter()
        .enumerate()
    {
        let (x, y) = (index as u32 % width, index as u32 / width);
        let re = (x as f32 / width as f32).mul_add(3.0, -2.0);
        let im = (y as f32 / height as f32).mul_add(2.0, -1.0);
        let (mut a, mut b, mut steps) = (0f32, 0f32, 0);
        while steps < limit && a * a + b * b <= 4.0 {
            (a, b) = (a * a - b * b + re, (a * b).mul_add(2.0, im));
            steps += 1;
        }
        assert_eq!(*seen, steps, "at {x}, {y}");
    }
}
