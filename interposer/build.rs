//! Names the shared object as programs look for it: a preloaded file of any name whose SONAME is
//! `libcuda.so.1` satisfies every later `dlopen("libcuda.so.1")`. It is never unmapped, because its
//! threads and handlers run its code until the process ends.
fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
