//! A device for tests: memory is ordinary vectors, what kernels print is kept.

#![allow(dead_code)] // each test file uses its part

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harp_softgpu_engine::{
    Console, DeviceMemory, Fault, Grid, Kernel, Launch, Module, PtxError, Scratch, Text,
};

/// Allocations and printed text.
#[derive(Default)]
pub struct Device {
    memory: Arc<Allocations>,
    printed: Arc<Printed>,
    /// OS threads that run blocks.
    pub threads: usize,
}

#[derive(Default)]
struct Allocations(Mutex<Vec<Box<[u64]>>>);

impl DeviceMemory for Allocations {
    fn range_of(&self, address: u64) -> Option<Range<u64>> {
        let ranges = self.0.lock().unwrap();
        let range = |words: &[u64]| {
            let start = words.as_ptr() as u64;
            start..start + 8 * words.len() as u64
        };
        ranges
            .iter()
            .map(|words| range(words))
            .find(|range| range.contains(&address))
    }
}

#[derive(Default)]
struct Printed(Mutex<Vec<u8>>);

impl Console for Printed {
    fn print(&self, texts: Vec<Text>) {
        let mut printed = self.0.lock().unwrap();
        printed.extend(texts.into_iter().flat_map(|text| text.bytes));
    }

    fn complain(&self, line: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(line);
    }
}

/// The parameters of a kernel, each at its natural alignment.
#[derive(Clone, Default)]
pub struct Params(Vec<u8>);

impl Params {
    pub fn u64(mut self, value: u64) -> Params {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Params {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn f32(self, value: f32) -> Params {
        self.u32(value.to_bits())
    }

    /// The parameters as a launch takes them.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// Parameters, none yet.
pub fn params() -> Params {
    Params::default()
}

impl Device {
    /// A device whose blocks run on `threads` OS threads.
    pub fn new(threads: usize) -> Device {
        Device {
            threads,
            ..Device::default()
        }
    }

    /// Memory with the bytes of `values`; its address.
    pub fn upload<T: Copy>(&self, values: &[T]) -> u64 {
        let bytes = size_of_val(values);
        let mut words = vec![0u64; bytes.div_ceil(8).max(1)].into_boxed_slice();
        // SAFETY: the destination has at least as many bytes; T is plain data in every test.
        unsafe {
            let to = words.as_mut_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(values.as_ptr().cast(), to, bytes);
        }
        let address = words.as_ptr() as u64;
        self.memory.0.lock().unwrap().push(words);
        address
    }

    /// `count` values at `address`.
    pub fn download<T: Copy + Default>(&self, address: u64, count: usize) -> Vec<T> {
        let range = self
            .memory
            .range_of(address)
            .expect("an address that was uploaded");
        assert!(address + (count * size_of::<T>()) as u64 <= range.end);
        let mut values = vec![T::default(); count];
        // SAFETY: the range was just checked.
        unsafe {
            let to = values.as_mut_ptr();
            std::ptr::copy_nonoverlapping(address as *const T, to, count);
        }
        values
    }

    /// The memory, for a grid of its own.
    pub fn memory(&self) -> Arc<dyn DeviceMemory> {
        self.memory.clone()
    }

    /// What kernels have printed since the last call.
    pub fn printed(&self) -> String {
        let text = std::mem::take(&mut *self.printed.0.lock().unwrap());
        String::from_utf8(text).unwrap()
    }

    /// A launch that nobody runs yet.
    pub fn grid(&self, kernel: &Arc<Kernel>, launch: Launch) -> Grid {
        Grid::new(
            kernel.clone(),
            launch,
            self.memory.clone(),
            self.printed.clone(),
        )
    }

    /// Runs a launch to its end.
    pub fn run(&self, kernel: &Arc<Kernel>, launch: Launch) -> Result<(), Fault> {
        let grid = self.grid(kernel, launch);
        std::thread::scope(|scope| {
            for _ in 1..self.threads {
                scope.spawn(|| grid.work(&mut Scratch::new()));
            }
            grid.work(&mut Scratch::new());
        });
        assert!(grid.is_finished());
        grid.fault().map_or(Ok(()), Err)
    }

    /// Runs a launch, and cancels it after `milliseconds`.
    pub fn run_for(&self, kernel: &Arc<Kernel>, launch: Launch, milliseconds: u64) {
        let grid = self.grid(kernel, launch);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| grid.work(&mut Scratch::new()));
            let deadline = Instant::now() + Duration::from_millis(milliseconds);
            while !worker.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(50));
            }
            grid.cancel();
        });
    }

    /// Runs kernel `name` of a module without variables.
    pub fn launch(
        &self,
        ptx: &str,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        params: Params,
    ) -> Result<(), Fault> {
        let kernel = decode(ptx, name).unwrap_or_else(|error| panic!("{error}"));
        self.run(
            &kernel,
            Launch {
                grid,
                block,
                params: params.0,
                ..Launch::default()
            },
        )
    }

    /// The same with all of a launch's settings.
    pub fn launch_with(
        &self,
        ptx: &str,
        name: &str,
        launch: Launch,
        params: Params,
    ) -> Result<(), Fault> {
        let kernel = decode(ptx, name).unwrap_or_else(|error| panic!("{error}"));
        self.run(
            &kernel,
            Launch {
                params: params.0,
                ..launch
            },
        )
    }
}

/// Kernel `name` of a module without variables.
pub fn decode(ptx: &str, name: &str) -> Result<Arc<Kernel>, PtxError> {
    Module::parse(ptx.as_bytes().to_vec())?.kernel(name, &|_| None)
}

/// A module with one kernel `k`: its parameters and body.
pub fn kernel(parameters: &str, body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k({parameters})\n{{\n\
         .reg .pred %p<20>;\n.reg .b16 %rs<20>;\n.reg .b32 %r<60>;\n.reg .f32 %f<40>;\n\
         .reg .b64 %rd<40>;\n.reg .f64 %fd<20>;\n{body}\n}}\n"
    )
}
