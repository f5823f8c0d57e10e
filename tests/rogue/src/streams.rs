//! Recorded streams: frame after frame, each behind its length as a u32.

use std::io::{self, Write};
use std::path::Path;

pub fn write_frame(file: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    file.write_all(&(frame.len() as u32).to_le_bytes())?;
    file.write_all(frame)
}

pub fn read(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut rest = &bytes[..];
    let mut frames = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*head) as usize;
        let (frame, after) = after
            .split_at_checked(len)
            .ok_or_else(|| format!("{}: cut short", path.display()))?;
        frames.push(frame.to_vec());
        rest = after;
    }
    Ok(frames)
}
