//! Names the shared object as programs look for it: a preloaded file of any name whose SONAME is
//! `libcuda.so.1` satisfies every later `dlopen("libcuda.so.1")`. It is never unmapped, because its
//! threads run its code until the process ends. What it says of its own functions means its own, also
//! in a process that has another libcuda loaded before it.
fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
