//! What a command sees in place of the host's files.
//!
//! Each is mounted over its path in the command's own mount namespace, where nobody else sees it. The paths may be anything: a symbolic link is covered
//! itself, wherever it leads or does not. A path that is not there is left alone, for there is nothing to mount on.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, fchmod, fstat, mkdirat, open, openat, stat};
use rustix::io::{Errno, write};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, move_mount, open_tree, unmount};

use super::spec::c_string;
use crate::{Error, ErrorKind, Result};

/// What a command sees at a path, in place of what the host has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cover {
    /// A file with this content, the command's own: what it writes there nobody else reads.
    File {
        /// Where.
        path: PathBuf,
        /// What it holds.
        content: Vec<u8>,
    },
    /// A directory with nothing in it.
    Nothing {
        /// Where.
        path: PathBuf,
    },
}

/// Most covers of one command: there is no memory to be had where they are made.
const MOST: usize = 32;

/// A [`Cover`] of which nothing needs memory any more.
pub(super) struct PreparedCover {
    path: CString,
    /// The directory that the path is in.
    parent: CString,
    content: Option<Vec<u8>>,
}

/// Prepares all covers of a command.
pub(super) fn prepare(covers: Vec<Cover>) -> Result<Vec<PreparedCover>> {
    if covers.len() > MOST {
        let what = format!("{} paths can't be covered: {MOST} can at most", covers.len());
        return Err(Error::new(ErrorKind::Child, what));
    }
    covers.into_iter().map(PreparedCover::new).collect()
}

impl PreparedCover {
    fn new(cover: Cover) -> Result<Self> {
        let (path, content) = match cover {
            Cover::File { path, content } => (path, Some(content)),
            Cover::Nothing { path } => (path, None),
        };
        let parent = path.parent().filter(|_| path.is_absolute()).ok_or_else(|| {
            Error::new(ErrorKind::Child, format!("`{}` can't be covered: it is no absolute path", path.display()))
        })?;
        let what = "a path to be covered";
        Ok(Self { parent: c_string(parent.into(), what)?, path: c_string(path.into(), what)?, content })
    }

    /// Takes hold of what is to be covered, if it is there and of the right kind.
    fn target(&self) -> Outcome<Option<OwnedFd>> {
        let kind = if self.content.is_some() { OFlags::NOFOLLOW } else { OFlags::DIRECTORY };
        let target = match open(&self.path, OFlags::PATH | OFlags::CLOEXEC | kind, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => other?,
        };
        let is_directory = FileType::from_raw_mode(fstat(&target)?.st_mode) == FileType::Directory;
        Ok((is_directory == self.content.is_none()).then_some(target))
    }

    /// A path to the directory it is in that leads onto what is mounted there.
    fn place(&self) -> Outcome<&CStr> {
        // "/" itself, and a link that leads there, go on to mean what is below such a mount: a file would be made in the host's root directory. The way up from the root
        // stays there, and does look for mounts.
        let (root, parent) = (stat(c"/")?, stat(&self.parent)?);
        let is_root = (root.st_dev, root.st_ino) == (parent.st_dev, parent.st_ino);
        Ok(if is_root { c"/.." } else { &self.parent })
    }

    /// Makes what is to be seen, and takes hold of it.
    fn make(&self, place: &OwnedFd, name: &CStr) -> Outcome<OwnedFd> {
        match &self.content {
            Some(content) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(place, name, flags, Mode::empty())?;
                // Not with the file's birth: the caller's umask may take away what every user needs.
                fchmod(&file, Mode::from_raw_mode(0o644))?;
                let mut rest = content.as_slice();
                while !rest.is_empty() {
                    match write(&file, rest) {
                        Ok(0) => return Err(Errno::IO),
                        Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                        Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno),
                    }
                }
            }
            None => mkdirat(place, name, Mode::from_raw_mode(0o555))?,
        }
        open_tree(place, name, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
    }
}

type Outcome<T> = std::result::Result<T, Errno>;

/// Covers what there is to cover. Only makes system calls.
///
/// With `before_proc`, a new /proc is about to be mounted over the old one.
///
/// # Kernel
/// 5.2
///
/// # References
/// `open_tree(2)`, `move_mount(2)`
#[doc(alias = "open_tree")]
#[doc(alias = "move_mount")]
pub(super) fn cover_all(covers: &[PreparedCover], before_proc: bool) -> Outcome<()> {
    let mut targets: Fds = [const { None }; MOST];
    // One of them covered could hide another: so all are found first.
    for (target, cover) in targets.iter_mut().zip(covers) {
        *target = cover.target()?;
    }
    let Some((_, first)) = targets.iter().zip(covers).find(|(target, _)| target.is_some()) else { return Ok(()) };
    // A file has to be made on a mount, and a mount at some place. Where /proc will be covered anyway, nothing has to be taken away again: that waits for
    // all processors (RCU), a millisecond or more. Otherwise nothing is sure to be there but the directory of what is to be covered.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mount = |place: &CStr| mount(c"tmpfs", place, c"tmpfs", flags, c"mode=0755,size=32m,nr_inodes=40");
    let made = if before_proc && mount(c"/proc").is_ok() {
        make_all(c"/proc", covers, &targets)?
    } else {
        let place = first.place()?;
        mount(place)?;
        let made = make_all(place, covers, &targets);
        unmount(place, UnmountFlags::DETACH)?;
        made?
    };
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    for (made, target) in made.iter().zip(&targets) {
        if let (Some(made), Some(target)) = (made, target) {
            move_mount(made, c"", target, c"", onto)?;
        }
    }
    Ok(())
}

type Fds = [Option<OwnedFd>; MOST];

fn make_all(place: &CStr, covers: &[PreparedCover], targets: &Fds) -> Outcome<Fds> {
    let place = open(place, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut made: Fds = [const { None }; MOST];
    for (number, ((made, cover), target)) in (b'0'..).zip(made.iter_mut().zip(covers).zip(targets)) {
        if target.is_some() {
            let name = [number, 0];
            *made = Some(cover.make(&place, CStr::from_bytes_until_nul(&name).map_err(|_| Errno::INVAL)?)?);
        }
    }
    Ok(made)
}
