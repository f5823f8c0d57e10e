//! The body of a kernel: whatever it does, it stays in its own memory and can be stopped.

#![no_main]

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use harp_softgpu_engine::{Console, DeviceMemory, Grid, Launch, Module, Scratch};
use libfuzzer_sys::fuzz_target;

/// One allocation of 4 KiB.
struct Memory(Box<[u64; 512]>);

impl DeviceMemory for Memory {
    fn range_of(&self, address: u64) -> Option<Range<u64>> {
        let start = self.0.as_ptr() as u64;
        let range = start..start + 4096;
        range.contains(&address).then_some(range)
    }
}

struct Silent;

impl Console for Silent {
    fn print(&self, _: &[u8]) {}
}

fuzz_target!(|body: &str| {
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
    let memory = Arc::new(Memory(Box::new([0; 512])));
    let params = (memory.0.as_ptr() as u64).to_le_bytes().to_vec();
    let launch = Launch {
        grid: [2, 1, 1],
        block: [70, 1, 1],
        params,
        ..Launch::default()
    };
    let grid = Grid::new(kernel, launch, memory, Arc::new(Silent));
    std::thread::scope(|scope| {
        scope.spawn(|| grid.work(&mut Scratch::new()));
        for _ in 0..50 {
            if grid.is_finished() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        grid.cancel();
    });
});
