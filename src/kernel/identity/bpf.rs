//! bpf(2): maps, programs and links.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use rustix::io::Errno;

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const BTF_LOAD: libc::c_int = 18;
const LINK_CREATE: libc::c_int = 28;

/// `BPF_PROG_TYPE_NETFILTER` and `BPF_NETFILTER`.
const PROG_TYPE: u32 = 32;
const ATTACH_TYPE: u32 = 45;

/// `NF_INET_LOCAL_OUT`.
const LOCAL_OUT: u32 = 3;

/// Kinds of map.
pub(super) const HASH: u32 = 1;
pub(super) const ARRAY: u32 = 2;
pub(super) const LRU_HASH: u32 = 9;
/// `BPF_F_MMAPABLE`.
pub(super) const MMAPABLE: u32 = 1024;

/// The part of `union bpf_attr` for `BPF_MAP_CREATE` that is used here.
#[repr(C)]
pub(super) struct MapShape {
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Load {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
    description: u32,
    function_size: u32,
    functions: u64,
    function_count: u32,
    _padding: u32,
}

/// Packed, or its padding would be a field into which newer kernels write.
#[repr(C, packed(4))]
struct Describe {
    description: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
}

/// `struct bpf_func_info`: where a function begins, and its type.
#[repr(C)]
struct FunctionInfo {
    at: u32,
    kind: u32,
}

#[repr(C)]
struct Link {
    prog: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    family: u32,
    hook: u32,
    priority: i32,
    netfilter_flags: u32,
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` must be what `command` takes, with padding zero, and its addresses those of memory that is as long as it says.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<RawFd, Errno> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of the struct; the rest is the caller's word.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // A descriptor or 0.
    Ok(answer as RawFd)
}

/// # Safety
/// As [`bpf`]; and the command must be one that returns a new descriptor.
unsafe fn bpf_fd<T>(command: libc::c_int, attributes: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's word.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel made the descriptor just now, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a map.
pub(super) fn create_map(shape: &MapShape) -> Result<OwnedFd, Errno> {
    // SAFETY: five numbers and no address, as the command takes them.
    unsafe { bpf_fd(MAP_CREATE, shape) }
}

/// Puts a value under a key. Both must be as long as the map's are.
///
/// # Safety
/// The sizes of `K` and `V` must be those that the map was made with.
pub(super) unsafe fn update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> Result<(), Errno> {
    let element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        _padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    // SAFETY: key and value are alive and, as the caller says, of the map's sizes; the kernel only reads them.
    unsafe { bpf(MAP_UPDATE_ELEM, &element) }.map(drop)
}

/// Takes a key out.
///
/// # Safety
/// The size of `K` must be the one that the map was made with.
pub(super) unsafe fn delete<K>(map: BorrowedFd<'_>, key: &K) -> Result<(), Errno> {
    let element = Element {
        map: map.as_raw_fd().cast_unsigned(),
        _padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the key is alive and, as the caller says, of the map's size; the kernel only reads it.
    unsafe { bpf(MAP_DELETE_ELEM, &element) }.map(drop)
}

/// The number of [`FUNCTIONS`]' one function.
const FUNCTION: u32 = 3;

/// A description of a program in which every function is of one type, `static int ringfence(void)`: the kernel calls those alone back that are
/// described, and believes nothing of it.
///
/// # References
/// `Documentation/bpf/btf.rst`
#[rustfmt::skip]
const FUNCTIONS: [u32; 20] = [
    // Magic, version; length of this header; where types and strings lie behind it, and how long they are.
    if cfg!(target_endian = "little") { 0x0001_eb9f } else { 0xeb9f_0100 }, 24, 0, 40, 40, 16,
    // 1: an integer of four bytes, signed, 32 bits. Its name is at 1.
    1, 1 << 24, 4, 1 << 24 | 32,
    // 2: what takes nothing and returns it.
    0, 13 << 24, 1,
    // 3: a function of that type, static. Its name is at 5.
    5, 12 << 24, 2,
    word(b"\0int"), word(b"\0rin"), word(b"gfen"), word(b"ce\0\0"),
];

const fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_ne_bytes(*bytes)
}

fn describe() -> Result<OwnedFd, Errno> {
    let attributes = Describe {
        description: FUNCTIONS.as_ptr() as u64,
        log: 0,
        size: size_of_val(&FUNCTIONS) as u32,
        log_size: 0,
        log_level: 0,
    };
    // SAFETY: the description is a constant, and as long as is said; the kernel only reads it.
    unsafe { bpf_fd(BTF_LOAD, &attributes) }
}

/// Loads a program of eight-byte instructions for a hook of netfilter, whose functions begin at these. A refusal comes with the last words of the
/// kernel's verifier.
pub(super) fn load(
    instructions: &[u8],
    functions: impl IntoIterator<Item = u32>,
    license: &CStr,
    name: [u8; 16],
) -> Result<OwnedFd, (Errno, Option<String>)> {
    let description = describe().map_err(|errno| (errno, None))?;
    let functions: Vec<_> = functions.into_iter().map(|at| FunctionInfo { at, kind: FUNCTION }).collect();
    let mut attributes = Load {
        prog_type: PROG_TYPE,
        instruction_count: (instructions.len() / 8) as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        expected_attach_type: ATTACH_TYPE,
        description: description.as_raw_fd().cast_unsigned(),
        function_size: size_of::<FunctionInfo>() as u32,
        functions: functions.as_ptr() as u64,
        function_count: functions.len() as u32,
        _padding: 0,
    };
    // SAFETY: instructions, functions and license are alive; the counts are those of whole ones, and the license ends with NUL.
    let refused = match unsafe { bpf_fd(PROG_LOAD, &attributes) } {
        Ok(program) => return Ok(program),
        Err(errno) => errno,
    };
    if matches!(refused, Errno::PERM) {
        return Err((refused, None));
    }
    let mut log = vec![0u8; 1 << 20];
    (attributes.log_level, attributes.log_size, attributes.log) = (1, log.len() as u32, log.as_mut_ptr() as u64);
    // SAFETY: as above; the kernel writes no more than `log_size` bytes to the log, which is alive.
    match unsafe { bpf_fd(PROG_LOAD, &attributes) } {
        Ok(program) => Ok(program),
        Err(errno) => {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let text = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned();
            Err((errno, Some(text)))
        }
    }
}

/// Puts a program at the output hook of the calling thread's network namespace, for as long as the descriptor is open.
#[doc(alias = "BPF_LINK_CREATE")]
pub(super) fn link(program: BorrowedFd<'_>, family: u32, priority: i32) -> Result<OwnedFd, Errno> {
    let attributes = Link {
        prog: program.as_raw_fd().cast_unsigned(),
        target: 0,
        attach_type: ATTACH_TYPE,
        flags: 0,
        family,
        hook: LOCAL_OUT,
        priority,
        netfilter_flags: 0,
    };
    // SAFETY: numbers and no address, as the command takes them.
    unsafe { bpf_fd(LINK_CREATE, &attributes) }
}

/// The values of an array map, shared with the kernel.
pub(super) struct Mapped {
    address: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: the memory belongs to no thread; it is only reached through [`Mapped::at`], whose callers take it that the kernel writes at any time.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `length` bytes of the values.
    pub fn new(map: BorrowedFd<'_>, length: usize) -> Result<Self, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, map.as_raw_fd(), 0) };
        match NonNull::new(address) {
            Some(address) if address.as_ptr() != libc::MAP_FAILED => Ok(Self { address, length }),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    /// The address `offset` bytes in, if `size` bytes from there are mapped.
    pub fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(size)?;
        // SAFETY: within the mapping, as just looked at.
        (end <= self.length).then(|| unsafe { self.address.cast::<u8>().add(offset) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and nobody holds an address into it: `at` is asked anew each time.
        unsafe { libc::munmap(self.address.as_ptr(), self.length) };
    }
}
