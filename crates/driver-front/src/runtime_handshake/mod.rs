//! What programs that link the CUDA runtime, cuBLAS or cuFFT ask of a driver beyond its documented
//! API: private function tables (`cuGetExportTable`) and a self-test answer.
//!
//! Everything of the kind lives here, behind the cargo feature `runtime-handshake`; `docs/legal.md`
//! says why. Without it `cuGetExportTable` refuses every table and clients of the documented API
//! still work.

mod integrity;
mod tables;

pub use tables::export_table;
