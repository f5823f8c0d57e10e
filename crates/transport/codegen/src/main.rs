//! Generates `crates/transport/src/generated/` from `proto/harp/data/v1/session.proto`.
//!
//! `cargo run` writes the file; `cargo run -- --check` fails if it differs from the committed one.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const PROTO: &str = "harp/data/v1/session.proto";
const GENERATED: &str = "harp.data.v1.rs";

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let target = root.join("crates/transport/src/generated").join(GENERATED);
    let output = env::temp_dir().join(format!("harp-transport-codegen-{}", std::process::id()));
    fs::create_dir_all(&output)?;
    let files = protox::compile([root.join("proto").join(PROTO)], [root.join("proto")])?;
    prost_build::Config::new()
        .out_dir(&output)
        .compile_fds(files)?;
    let fresh = fs::read_to_string(output.join(GENERATED))?;
    fs::remove_dir_all(&output)?;

    if env::args().any(|argument| argument == "--check") {
        if fs::read_to_string(&target)? != fresh {
            return Err(format!("{} is stale: run this without --check", target.display()).into());
        }
    } else {
        fs::write(&target, fresh)?;
    }
    Ok(())
}
