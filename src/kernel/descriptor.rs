//! Descriptors that whoever started this process has left open for it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::fs::OFlags;

use crate::{Error, ErrorKind, Result};

/// Lowest number that is no standard stream's.
const ABOVE_STDIO: RawFd = 3;

/// Takes a second reference, close-on-exec, to descriptor `number`, to write to it.
///
/// To be called before anything is opened: later, the number may be a descriptor of this process's own making.
///
/// # Errors
///
/// [`ErrorKind::Io`] when there is no such descriptor, or it can't be written to.
#[doc(alias = "F_DUPFD_CLOEXEC")]
pub fn inherited(number: u32) -> Result<OwnedFd> {
    let failed =
        |cause: io::Error| Error::new(ErrorKind::Io, format!("can't write to descriptor {number}")).because(cause);
    let raw = RawFd::try_from(number).map_err(|_| failed(io::Error::from(rustix::io::Errno::BADF)))?;
    // SAFETY: takes two numbers and touches no memory of ours; a number that is not open is an error.
    let copy = unsafe { libc::fcntl(raw, libc::F_DUPFD_CLOEXEC, ABOVE_STDIO) };
    if copy < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made it, for nobody else.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    let flags = rustix::fs::fcntl_getfl(&copy).map_err(|errno| failed(errno.into()))?;
    if (flags & OFlags::RWMODE) == OFlags::RDONLY || flags.contains(OFlags::PATH) {
        return Err(Error::new(ErrorKind::Io, format!("can't write to descriptor {number}: it is open for reading")));
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_second_reference_writes_to_the_same_file() {
        let (mut reader, writer) = io::pipe().unwrap();
        let copy = inherited(u32::try_from(writer.as_raw_fd()).unwrap()).unwrap();
        assert_ne!(copy.as_raw_fd(), writer.as_raw_fd());
        drop(writer);
        std::fs::File::from(copy).write_all(b"said").unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "said");
    }

    #[test]
    fn what_can_not_be_written_to_is_refused() {
        let (reader, _writer) = io::pipe().unwrap();
        let error = inherited(u32::try_from(reader.as_raw_fd()).unwrap()).unwrap_err();
        assert!(error.chain().contains("open for reading"), "{error:?}");
        for number in [1_000_000, u32::MAX] {
            assert!(inherited(number).unwrap_err().chain().contains("Bad file descriptor"));
        }
    }
}
