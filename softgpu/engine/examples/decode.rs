//! Decodes every kernel of the PTX files named on the command line and says what is missing.

use std::collections::BTreeMap;
use std::time::Instant;

use harp_softgpu_engine::Module;

fn main() {
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    let (mut decoded, mut failed) = (0, 0);
    for path in std::env::args().skip(1) {
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("{path}: {error}");
                continue;
            }
        };
        let lines = text.iter().filter(|&&c| c == b'\n').count();
        let start = Instant::now();
        let module = match Module::parse(text) {
            Ok(module) => module,
            Err(error) => {
                println!("{path}: {error}");
                failed += 1;
                continue;
            }
        };
        let indexed = start.elapsed();
        let address_of = |_: &str| Some(0x2000_0000_0000);
        let kernels = module.kernels();
        for &kernel in &kernels {
            match module.kernel(kernel, &address_of) {
                Ok(_) => decoded += 1,
                Err(error) => {
                    println!("{path}: {kernel}: {error}");
                    *missing.entry(error.message).or_default() += 1;
                    failed += 1;
                }
            }
        }
        let took = start.elapsed() - indexed;
        println!(
            "{path}: {lines} lines indexed in {indexed:?}, {} kernels in {took:?} ({:.2} us a line)",
            kernels.len(),
            took.as_secs_f64() * 1e6 / lines.max(1) as f64
        );
    }
    for (message, count) in &missing {
        println!("{count:6} {message}");
    }
    println!("{decoded} kernels decoded, {failed} failures");
}
