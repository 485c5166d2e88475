//! The program, fitted to the structs of the kernel that runs.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use aya_obj::Object;

use crate::wire::btf::Btf;
use crate::{Error, ErrorKind, Result};

/// What clang made of `refused.bpf.c`.
static OBJECT: &[u8] = include_bytes!("refused.bpf.o");

/// Where the kernel describes its structs.
const DESCRIPTION: &str = "/sys/kernel/btf/vmlinux";

/// Reads the program, its offsets those of this kernel.
pub(super) fn fitted() -> Result<Object> {
    let kernel = Description::open().map_err(|error| unreadable().because(error))?;
    let mut object = Object::parse(OBJECT).map_err(broken)?;
    // Of the kernel's hundred thousand types the program knows some forty. To have all of them parsed takes fifty times as long.
    let known = object.btf.as_ref().map(aya_obj::btf::Btf::to_bytes).unwrap_or_default();
    let known = Btf::parse(&known).and_then(|known| Btf::parse(kernel.bytes())?.cut(&known.structs()?));
    let known = known.map_err(|error| unreadable().because(error))?;
    let known = aya_obj::btf::Btf::parse(&known, Default::default()).map_err(|error| unreadable().because(error))?;
    object.relocate_btf(&known).map_err(|error| {
        Error::new(ErrorKind::Unsupported, "the kernel's structs are not those that the program knows").because(error)
    })?;
    Ok(object)
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Unsupported, "can't read the kernel's description of its structs")
        .hint("this needs CONFIG_DEBUG_INFO_BTF and /sys/kernel/btf/vmlinux")
}

pub(super) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unsupported, "the program can't be prepared for this kernel").because(error)
}

/// The bytes of the description.
enum Description {
    /// The kernel's own. Since Linux 6.16.
    Mapped(NonNull<libc::c_void>, usize),
    /// A copy, which the kernel hands out by the page.
    Read(Vec<u8>),
}

impl Description {
    fn open() -> std::io::Result<Self> {
        let file = File::open(DESCRIPTION)?;
        // Of another file somebody could change the bytes, or cut them off, while they are looked at.
        let constant = rustix::fs::fstatfs(&file)?.f_type == libc::SYSFS_MAGIC;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        if constant && length > 0 {
            // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
            let address = unsafe {
                libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0)
            };
            if let Some(address) = NonNull::new(address).filter(|address| address.as_ptr() != libc::MAP_FAILED) {
                return Ok(Self::Mapped(address, length));
            }
        }
        std::fs::read(DESCRIPTION).map(Self::Read)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: mapped by `open` with this length until this is dropped. It is the kernel's constant data: nobody writes there, and it is as
            // long as the file says, or the kernel would not have mapped it.
            Self::Mapped(address, length) => unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), *length) },
            Self::Read(bytes) => bytes,
        }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        if let Self::Mapped(address, length) = self {
            // SAFETY: this is the mapping that `open` made, and nobody holds a borrow of it.
            unsafe { libc::munmap(address.as_ptr(), *length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every instruction of the object, as bytes.
    fn instructions(object: &Object) -> Vec<(String, Vec<[u8; 8]>)> {
        let words = |function: &aya_obj::Function| {
            let bytes = function.instructions.iter().map(|one| {
                // SAFETY: an instruction is eight bytes without padding.
                unsafe { std::mem::transmute_copy::<_, [u8; 8]>(one) }
            });
            (function.name.clone(), bytes.collect())
        };
        object.functions.values().map(words).collect()
    }

    /// Where the kernel has no description of itself there is nothing to compare.
    fn described() -> bool {
        let described = std::fs::exists(DESCRIPTION).unwrap();
        if !described {
            assert!(std::env::var_os("RINGFENCE_TEST_KERNEL").is_none_or(|how| how != "require"), "no {DESCRIPTION}");
            eprintln!("SKIPPED: no {DESCRIPTION}");
        }
        described
    }

    #[test]
    fn the_program_is_the_one_that_the_whole_description_makes() {
        if !described() {
            return;
        }
        let start = std::time::Instant::now();
        let ours = instructions(&fitted().unwrap());
        let took = start.elapsed();
        let start = std::time::Instant::now();
        let mut object = Object::parse(OBJECT).unwrap();
        let unfitted = instructions(&object);
        object.relocate_btf(&aya_obj::btf::Btf::from_sys_fs().unwrap()).unwrap();
        println!("fitted in {took:?}, by the whole description in {:?}", start.elapsed());
        let whole = instructions(&object);
        assert!(ours == whole);
        // Nor are the two the same because nothing was done.
        assert!(whole != unfitted);
        let changed: usize = whole
            .iter()
            .zip(&unfitted)
            .map(|((_, new), (_, old))| new.iter().zip(old).filter(|(new, old)| new != old).count())
            .sum();
        assert!(changed > 50, "{changed}");
    }

    #[test]
    fn mapped_or_read_the_description_is_the_same() {
        if !described() {
            return;
        }
        let kernel = Description::open().unwrap();
        assert!(kernel.bytes() == std::fs::read(DESCRIPTION).unwrap());
        let structs = Btf::parse(kernel.bytes()).unwrap().structs().unwrap();
        assert!(structs.contains(&b"task_struct".as_slice()) && structs.len() > 1000, "{}", structs.len());
    }
}
