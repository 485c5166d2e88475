//! Files that are whole at every moment, though a hostile program may write to the directory that they are in.

use std::fs::{self, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

/// Replaces a file at once: whoever reads sees the old text or the new one.
///
/// The program inside may see the directory and be allowed to write to it: what it put in the way, a link that leads elsewhere above all, is never
/// followed, and nothing of anybody's is removed but the file that is replaced. It can't know the name that the text is written under first.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let name = path.file_name().ok_or(ErrorKind::IsADirectory)?;
    let mut random = [0; 8];
    getrandom(&mut random, GetRandomFlags::empty()).map_err(Error::from)?;
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{:016x}", u64::from_ne_bytes(random)));
    let beside = path.with_file_name(beside);
    let mut new = OpenOptions::new().write(true).create_new(true).open(&beside)?;
    new.write_all(text.as_bytes()).and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        // The error that matters is the first.
        let _ = fs::remove_file(&beside);
    })
}
