//! Any text: indexing it and decoding all its kernels ends with a result or an error.

#![no_main]

use harp_softgpu_engine::Module;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: Vec<u8>| {
    let Ok(module) = Module::parse(text) else {
        return;
    };
    for variable in module.variables() {
        let _ = variable.image(&|_| Some(0));
    }
    for name in module.kernels() {
        let _ = module.signature(name);
        let _ = module.kernel(name, &|_| Some(0x2000_0000_0000));
    }
});
