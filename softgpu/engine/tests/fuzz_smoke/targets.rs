//! What is fuzzed, shared by the short run here and by cargo-fuzz.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use harp_softgpu_engine::{Console, DeviceMemory, Grid, Launch, Module, Scratch, Text};

/// Any text: indexing it and decoding all its kernels ends with a result or an error.
pub fn texts(text: &[u8]) {
    let Ok(module) = Module::parse(text.to_vec()) else {
        return;
    };
    for variable in module.variables() {
        let _ = variable.image(&|_| Some(0));
    }
    for name in module.kernels() {
        let _ = module.signature(name);
        let _ = module.kernel(name, &|_| Some(0x2000_0000_0000));
    }
}

/// One allocation of 4 KiB between words that nothing may change.
struct Memory(Box<[u64; 3 * WORDS]>);

const WORDS: usize = 512;
const UNTOUCHED: u64 = 0x5afe_5afe_5afe_5afe;

impl Memory {
    fn new() -> Memory {
        let mut words = Box::new([UNTOUCHED; 3 * WORDS]);
        words[WORDS..2 * WORDS].fill(0);
        Memory(words)
    }

    fn address(&self) -> u64 {
        self.0[WORDS..].as_ptr() as u64
    }

    fn check(&self) {
        let around = self.0[..WORDS].iter().chain(&self.0[2 * WORDS..]);
        assert!(around.copied().all(|word| word == UNTOUCHED));
    }
}

impl DeviceMemory for Memory {
    fn range_of(&self, address: u64) -> Option<Range<u64>> {
        let range = self.address()..self.address() + 8 * WORDS as u64;
        range.contains(&address).then_some(range)
    }
}

struct Silent;

impl Console for Silent {
    fn print(&self, _: Vec<Text>) {}
    fn complain(&self, _: &[u8]) {}
}

/// The body of a kernel: whatever it does, it stays in its own memory and can be stopped.
pub fn bodies(body: &[u8]) {
    let Ok(body) = std::str::from_utf8(body) else {
        return;
    };
    let text = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n\
         .reg .pred %p<9>;\n.reg .b16 %h<9>;\n.reg .b32 %r<9>;\n.reg .b64 %d<9>;\n\
         .reg .f32 %f<9>;\n.shared .align 16 .b8 s[256];\n.local .align 16 .b8 l[64];\n\
         ld.param.u64 %d1, [p];\n{body}\n}}\n"
    );
    let Ok(module) = Module::parse(text.into_bytes()) else {
        return;
    };
    let Ok(kernel) = module.kernel("k", &|_| None) else {
        return;
    };
    let memory = Arc::new(Memory::new());
    let launch = Launch {
        grid: [2, 1, 1],
        block: [70, 1, 1],
        params: memory.address().to_le_bytes().to_vec(),
        ..Launch::default()
    };
    let grid = Grid::new(kernel, launch, memory.clone(), Arc::new(Silent));
    std::thread::scope(|scope| {
        let work = scope.spawn(|| grid.work(&mut Scratch::new()));
        for _ in 0..400 {
            if grid.is_finished() || work.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        grid.cancel();
        if let Err(panic) = work.join() {
            std::panic::resume_unwind(panic);
        }
    });
    memory.check();
}
