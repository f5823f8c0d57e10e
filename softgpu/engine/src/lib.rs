pub mod exec { pub mod lanes; }
pub mod ops { }

