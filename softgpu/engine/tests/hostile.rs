//! Texts that nobody wrote for good: mutations of real kernels never panic, and what still decodes
//! stays in its own memory.

mod device;

use device::Device;
use harp_softgpu_engine::{Launch, Module};

const TEXTS: [&str; 4] = [
    include_str!("ptx/saxpy.ptx"),
    include_str!("ptx/reduce.ptx"),
    include_str!("ptx/matmul.ptx"),
    include_str!("ptx/mandelbrot.ptx"),
];

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// Changes a few places of `text`.
fn mutate(text: &str, random: &mut Random) -> Vec<u8> {
    const SNIPPETS: [&str; 24] = [
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ";",
        ":",
        ",",
        ".",
        "%r1",
        "%rd1",
        "%p1",
        "0x7fffffffffffffff",
        "-1",
        "<",
        ">",
        "/*",
        "\"",
        "@%p1 ",
        "bra $LOOP;",
        ".reg .b64 %r<9>;",
        ".param .b64 x[9];",
        "ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%rd1];",
    ];
    let mut text = text.as_bytes().to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(text.len());
        match random.below(8) {
            // Another register, offset or constant: what most often still decodes.
            0..4 => {
                let digit = text[at..].iter().position(u8::is_ascii_digit);
                if let Some(digit) = digit {
                    text[at + digit] = b'0' + random.below(10) as u8;
                }
            }
            4 => text[at] = random.below(256) as u8,
            5 => {
                let end = (at + random.below(40)).min(text.len());
                text.drain(at..end);
            }
            6 => {
                let from = random.below(text.len());
                let piece: Vec<u8> = text[from..]
                    .iter()
                    .take(random.below(60))
                    .copied()
                    .collect();
                text.splice(at..at, piece);
            }
            _ => {
                let snippet = SNIPPETS[random.below(SNIPPETS.len())];
                text.splice(at..at, snippet.bytes());
            }
        }
        if text.is_empty() {
            break;
        }
    }
    text
}

#[test]
fn mutated_texts_do_no_harm() {
    let mut random = Random(1);
    let device = Device::new(1);
    let data = device.upload(&[0u64; 64]);
    let (mut parsed, mut decoded) = (0, 0);
    for turn in 0..4_000 {
        let text = mutate(TEXTS[turn % TEXTS.len()], &mut random);
        let Ok(module) = Module::parse(text) else {
            continue;
        };
        parsed += 1;
        for name in module.kernels() {
            let Ok(kernel) = module.kernel(name, &|_| Some(data)) else {
                continue;
            };
            decoded += 1;
            let params = [data, data, data, 5, 5]
                .iter()
                .flat_map(|p| p.to_le_bytes())
                .collect();
            let launch = Launch {
                block: [40, 1, 1],
                params,
                ..Launch::default()
            };
            // Faults are fine; loops without an end are stopped.
            device.run_for(&kernel, launch, 20);
        }
    }
    assert!(
        parsed > 400 && decoded > 100,
        "{parsed} parsed, {decoded} decoded: too few to tell"
    );
}

#[test]
fn deep_and_long_texts_end_soon() {
    let header = ".version 8.0\n.target sm_80\n.address_size 64\n";
    let in_body = |body: String| format!("{header}.visible .entry k()\n{{\n{body}\nret;\n}}\n");
    let jumps = |n: usize| {
        let mut text = String::from(".reg .pred %p<2>;\n");
        for label in 0..n {
            text += &format!(
                "L{label}:\n@%p1 bra L{};\n@!%p1 bra L{};\n",
                n - 1 - label,
                label / 2
            );
        }
        text
    };
    for text in [
        "{".repeat(100_000),
        format!("{header}{}", ".section x {".repeat(50_000)),
        in_body("{".repeat(1_000) + &"}".repeat(1_000)),
        in_body(".reg .b32 %r<4294967295>;\nmov.u32 %r4294967294, 1;".into()),
        in_body(".local .b8 x[1000000000000];".into()),
        in_body(".shared .b8 x[1000000];".into()),
        in_body(jumps(3_000)),
        format!("{header}.global .b8 x[2][281474976710655] = {{{{1}}, {{2}}}};"),
        format!("{header}.visible .entry k(.param .b8 x[281474976710655]) {{ ret; }}"),
        in_body(
            ".reg .b32 %r<3000>;\n".to_string()
                + &(0..3_000)
                    .map(|n| format!("add.u32 %r{n}, %r{}, %r{};\n", 2_999 - n, n / 2))
                    .collect::<String>(),
        ),
    ] {
        if let Ok(module) = Module::parse(text.into_bytes()) {
            let _ = module.kernel("k", &|_| None);
        }
    }
}

#[test]
fn parameters_take_as_many_bytes_as_on_a_device_at_most() {
    let with = |bytes: u32| {
        let text = format!(
            ".version 8.1\n.target sm_70\n.address_size 64\n\
             .visible .entry k(.param .u64 first, .param .b8 rest[{bytes}]) {{ ret; }}"
        );
        let module = Module::parse(text.into_bytes()).unwrap();
        module.signature("k").map(|signature| signature.param_bytes)
    };
    assert_eq!(with(32764 - 8), Some(32764));
    assert_eq!(with(32764 - 7), None);
}
