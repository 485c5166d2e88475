//! Files of ours in directories that a hostile program may write to.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::rand::{GetRandomFlags, getrandom};

/// A name in a directory that is opened before the program runs, and kept.
///
/// The program may be allowed to write there: what it puts in the way, a link that leads elsewhere above all, is never followed, and the directory is
/// the one that was meant, wherever it was moved and whatever stands in its place.
pub struct Place {
    folder: OwnedFd,
    name: OsString,
}

impl Place {
    /// Opens the directory of a path.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or(ErrorKind::IsADirectory)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        Ok(Self { folder: openat(CWD, parent, flags, Mode::empty())?, name })
    }

    /// The same, for a file that is to be replaced: one that is there must be a regular one, and another can be made beside it.
    pub fn of_file(path: &Path) -> Result<Self> {
        let place = Self::open(path)?;
        // A device, or a link to one, would be gone from the machine.
        if place.identity().is_some_and(|(kind, ..)| kind != FileType::RegularFile) {
            return Err(Error::new(ErrorKind::InvalidInput, "only a regular file can be replaced"));
        }
        let (_, beside) = place.beside()?;
        unlinkat(&place.folder, &beside, AtFlags::empty())?;
        Ok(place)
    }

    /// Replaces the file at once: whoever reads sees the old text or the new one.
    pub fn replace(&self, text: &str) -> Result<()> {
        let (mut new, beside) = self.beside()?;
        let renamed = |()| renameat(&self.folder, &beside, &self.folder, &self.name).map_err(Error::from);
        new.write_all(text.as_bytes()).and_then(renamed).inspect_err(|_| {
            // The error that matters is the first.
            let _ = unlinkat(&self.folder, &beside, AtFlags::empty());
        })
    }

    /// What has the name now: what it is, and which.
    pub fn identity(&self) -> Option<(FileType, u64, u64)> {
        let stat = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((FileType::from_raw_mode(stat.st_mode), stat.st_dev, stat.st_ino))
    }

    /// Takes the name away.
    pub fn remove(&self) -> Result<()> {
        Ok(unlinkat(&self.folder, &self.name, AtFlags::empty())?)
    }

    /// A new file. Nobody can know its name beforehand.
    fn beside(&self) -> Result<(File, OsString)> {
        let mut random = [0; 8];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let mut beside = OsString::from(".");
        beside.push(&self.name);
        beside.push(format!(".{:016x}", u64::from_ne_bytes(random)));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.folder, &beside, flags, Mode::from_raw_mode(0o666))?;
        Ok((file.into(), beside))
    }
}
