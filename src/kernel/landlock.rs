//! Landlock rulesets: planned paths are opened and become a ruleset that the child puts itself under.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, make_bitflags,
};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::plan::{FileAccess, Files};
use crate::policy::{LandlockMode, Origin};
use crate::{Error, ErrorKind, Result};

/// The rights that are asked for: of files as of Linux 6.10, where ioctl(2) on devices came, and of scopes as of 6.12.
const RIGHTS: ABI = ABI::V5;
const SCOPES: ABI = ABI::V6;

/// Below, truncate(2) of a file that may not be written is not refused: no fence around files.
const LEAST: i32 = 3;

/// How much of a plan the kernel enforces.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enforcement {
    /// Nobody asked for it.
    Off,
    /// Everything that was asked for.
    Fully,
    /// Files, but not all of their rights; what is missing, in words.
    Partly {
        /// What a command may do all the same.
        missing: Vec<&'static str>,
    },
    /// Nothing.
    Not {
        /// Why.
        reason: &'static str,
    },
}

/// A ruleset for a command, and what became of its plan.
#[derive(Debug)]
pub struct Landlock {
    /// What the child restricts itself with; absent where nothing is enforced.
    pub ruleset: Option<OwnedFd>,
    /// How much is enforced.
    pub enforcement: Enforcement,
    /// Paths that could not be opened, and why. The rest holds without them.
    pub skipped: Vec<(PathBuf, io::ErrorKind)>,
}

/// The version of the kernel's Landlock; `None` where there is none, with the reason.
///
/// # Kernel
///
/// 5.13
///
/// # References
///
/// `landlock_create_ruleset(2)`, `LANDLOCK_CREATE_RULESET_VERSION`
pub fn version() -> std::result::Result<i32, &'static str> {
    const VERSION: libc::c_uint = 1 << 0;
    // SAFETY: with this flag the kernel reads no memory; it asks for a null pointer and size zero.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0usize, VERSION) };
    match i32::try_from(version) {
        Ok(version) if version > 0 => Ok(version),
        _ => match io::Error::last_os_error().raw_os_error() {
            Some(libc::EOPNOTSUPP) => Err("Landlock is built into this kernel and switched off: it is not in lsm="),
            Some(libc::ENOSYS) => Err("this kernel has no Landlock"),
            _ => Err("Landlock can't be asked for its version"),
        },
    }
}

impl Landlock {
    /// Opens the planned paths and makes the ruleset.
    ///
    /// Runs with the supervisor's privileges, so that paths which the command's user can't reach can be named too; what the user
    /// may do with them, the file system's own permissions say.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] when it is required and the kernel has no Landlock, or one that can't keep a file from being
    /// truncated. A path that can't be opened is no error.
    ///
    /// # Kernel
    ///
    /// 5.13; 6.2 where it is required
    pub fn new(files: &Files) -> Result<Self> {
        let nothing = |enforcement| Ok(Self { ruleset: None, enforcement, skipped: Vec::new() });
        let required = match files.mode.value {
            LandlockMode::Off => return nothing(Enforcement::Off),
            LandlockMode::BestEffort => false,
            LandlockMode::Required => true,
        };
        let unsupported = |what: String| {
            let what = format!("{}: landlock is required, and {what}", files.mode.origin);
            Err(Error::new(ErrorKind::Unsupported, what).hint("`--landlock best-effort` goes on without"))
        };
        let version = match version() {
            Ok(version) => version,
            Err(reason) if required => return unsupported(reason.to_owned()),
            Err(reason) => {
                tracing::debug!(reason, "files are not kept from the command");
                return nothing(Enforcement::Not { reason });
            }
        };
        if required && version < LEAST {
            return unsupported(format!("version {version} of it can't keep a file from being truncated (Linux 6.2)"));
        }
        let (ruleset, skipped) = ruleset(files)?;
        for (path, origin, why) in &skipped {
            // Nobody asked for what is of the baseline, and few machines have all of it.
            if *origin == Origin::Default {
                tracing::debug!(path = %path.display(), %why, "not given to the command");
            } else {
                let why = match why {
                    io::ErrorKind::NotFound => "does not exist".to_owned(),
                    why => format!("can't be opened ({why})"),
                };
                tracing::warn!("{origin}: `{}` {why}, and is left out", path.display());
            }
        }
        let enforcement = match missing(version) {
            missing if missing.is_empty() => Enforcement::Fully,
            missing => Enforcement::Partly { missing },
        };
        tracing::debug!(version, ?enforcement, "files are kept from the command");
        let skipped = skipped.into_iter().map(|(path, _, why)| (path, why)).collect();
        Ok(Self { ruleset, enforcement, skipped })
    }
}

/// What a command may do under a Landlock of that version, though the plan does not say so.
fn missing(version: i32) -> Vec<&'static str> {
    let by_version = [
        (3, "truncate files that it may not write"),
        (5, "use ioctl(2) on devices that it inherited open"),
        (6, "signal processes, and connect to abstract sockets, outside"),
    ];
    by_version.into_iter().filter(|(since, _)| version < *since).map(|(_, what)| what).collect()
}

type Skipped = Vec<(PathBuf, Origin, io::ErrorKind)>;

fn ruleset(files: &Files) -> Result<(Option<OwnedFd>, Skipped)> {
    let failed =
        |error: landlock::RulesetError| Error::new(ErrorKind::Kernel, "can't make a Landlock ruleset").because(error);
    // What this kernel does not know is left out here, and told by its version.
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(SCOPES)))
        .and_then(|ruleset| ruleset.create())
        .map_err(failed)?;
    let mut skipped = Vec::new();
    for rule in &files.rules {
        match opened(&rule.path) {
            Ok((fd, file_type)) => {
                let beneath = PathBeneath::new(fd, rights(rule.access, file_type));
                ruleset = ruleset.add_rule(beneath).map_err(failed)?;
            }
            Err(error) => skipped.push((rule.path.clone(), rule.origin.clone(), error.kind())),
        }
    }
    Ok((ruleset.into(), skipped))
}

/// Opens a path without reading it, and says what it is.
fn opened(path: &Path) -> io::Result<(OwnedFd, FileType)> {
    let fd = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let file_type = FileType::from_raw_mode(fstat(&fd)?.st_mode);
    Ok((fd, file_type))
}

/// The kernel refuses rights of a directory for what is none. Nobody makes devices: a block device in /tmp is the whole disk.
fn rights(access: FileAccess, file_type: FileType) -> BitFlags<AccessFs> {
    let all = match access {
        FileAccess::Read => AccessFs::from_read(RIGHTS),
        FileAccess::Write => AccessFs::from_all(RIGHTS) & !make_bitflags!(AccessFs::{MakeChar | MakeBlock}),
    };
    match file_type {
        FileType::Directory => all,
        FileType::CharacterDevice | FileType::BlockDevice => all & AccessFs::from_file(RIGHTS),
        _ => all & AccessFs::from_file(RIGHTS) & !BitFlags::from(AccessFs::IoctlDev),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_fit_what_a_path_is() {
        let on = |file_type| rights(FileAccess::Write, file_type);
        assert!(on(FileType::Directory).contains(AccessFs::MakeReg));
        assert!(!on(FileType::Directory).intersects(make_bitflags!(AccessFs::{MakeChar | MakeBlock})));
        assert!(on(FileType::CharacterDevice).contains(AccessFs::IoctlDev));
        assert!(!on(FileType::RegularFile).intersects(make_bitflags!(AccessFs::{IoctlDev | ReadDir | MakeReg})));
        let read = rights(FileAccess::Read, FileType::Directory);
        assert_eq!(read, make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir}));
    }

    #[test]
    fn older_versions_say_what_they_let_pass() {
        assert_eq!(missing(6), Vec::<&str>::new());
        assert_eq!(missing(5).len(), 1);
        assert_eq!(missing(1).len(), 3);
    }
}
