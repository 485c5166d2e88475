//! Which files a command may touch under Landlock: what ordinary programs need, and what the policy adds.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::policy::{LandlockMode, Origin, RunOptions, Sourced};

/// What may be done with a path and all below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileAccess {
    /// Reading, listing, executing.
    Read,
    /// Reading, writing, creating, removing, truncating, renaming; of devices, ioctl(2).
    Write,
}

/// A path, and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRule {
    /// The path.
    pub path: PathBuf,
    /// What may be done.
    pub access: FileAccess,
    /// Who said so. What nobody said is of the baseline, and not worth a word where it is missing.
    pub origin: Origin,
}

/// Which files a command may touch, and whether that is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Files {
    /// Whether, and who said so.
    pub mode: Sourced<LandlockMode>,
    /// What is let through; all else is refused.
    pub rules: Vec<FileRule>,
}

/// Programs, libraries, and what they read to find out where they are.
const READ: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/proc",
    "/sys",
    // Where /etc/resolv.conf and the time zone may lead to.
    "/run/systemd/resolve",
];

/// Places for files of no lasting worth, and devices without which no terminal can be had: a new pseudo-terminal is opened
/// by /dev/ptmx for reading and writing, and appears below /dev/pts.
const WRITE: [&str; 12] = [
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/pts",
];

/// Graphics processors, where there are any.
const DEVICES: [&str; 9] = [
    "/dev/dri",
    "/dev/kfd",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
    "/dev/dxg",
    "/dev/accel",
];

/// Of NVIDIA's numbered devices, so many are looked for.
const NUMBERED: usize = 16;

impl Files {
    /// Plans it: the baseline, the working directory for writing, and what the options name.
    ///
    /// Paths of the options without a mode mean that it is required: who names paths does not mean all files.
    pub fn new(options: &RunOptions, working_directory: Option<&Path>) -> Self {
        let named = options.ro.iter().chain(&options.rw).next();
        let mode = match (&options.landlock, named) {
            (Some(mode), _) => mode.clone(),
            (None, Some(path)) => Sourced::new(LandlockMode::Required, path.origin.clone()),
            (None, None) => Sourced::new(LandlockMode::Off, Origin::Default),
        };
        let mut rules = Vec::new();
        if mode.value != LandlockMode::Off {
            let rule = |path: &Path, access, origin: &Origin| FileRule {
                path: path.to_owned(),
                access,
                origin: origin.clone(),
            };
            rules.extend(READ.map(|path| rule(Path::new(path), FileAccess::Read, &Origin::Default)));
            let write = WRITE.iter().chain(&DEVICES).map(PathBuf::from);
            let write = write.chain((0..NUMBERED).map(|number| PathBuf::from(format!("/dev/nvidia{number}"))));
            rules.extend(write.map(|path| rule(&path, FileAccess::Write, &Origin::Default)));
            // The root as working directory is nobody's choice of files, but where services and containers start.
            let own = working_directory.filter(|path| path.parent().is_some());
            rules.extend(own.map(|path| rule(path, FileAccess::Write, &Origin::Default)));
            let said = |paths: &[Sourced<crate::policy::FilePath>], access| -> Vec<FileRule> {
                paths.iter().map(|path| rule(path.value.as_path(), access, &path.origin)).collect()
            };
            rules.extend(said(&options.ro, FileAccess::Read));
            rules.extend(said(&options.rw, FileAccess::Write));
        }
        Self { mode, rules }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(landlock: Option<LandlockMode>, ro: &[&str], rw: &[&str]) -> RunOptions {
        let paths = |paths: &[&str]| {
            paths.iter().map(|path| Sourced::new(path.parse().unwrap(), Origin::Flag("--ro".into()))).collect()
        };
        RunOptions {
            landlock: landlock.map(|mode| Sourced::new(mode, Origin::Flag("--landlock".into()))),
            ro: paths(ro),
            rw: paths(rw),
            ..RunOptions::default()
        }
    }

    fn has(files: &Files, path: &str, access: FileAccess) -> bool {
        files.rules.iter().any(|rule| rule.path == Path::new(path) && rule.access == access)
    }

    #[test]
    fn nothing_is_planned_unless_asked_for() {
        let files = Files::new(&options(None, &[], &[]), Some(Path::new("/work")));
        assert_eq!(files.mode.value, LandlockMode::Off);
        assert!(files.rules.is_empty());
        let off = Files::new(&options(Some(LandlockMode::Off), &["/srv"], &[]), Some(Path::new("/work")));
        assert!(off.rules.is_empty());
    }

    #[test]
    fn a_terminal_can_be_had_and_the_working_directory_written() {
        let files = Files::new(&options(Some(LandlockMode::BestEffort), &["/srv"], &["/data"]), Some(Path::new("/w")));
        for path in ["/dev/ptmx", "/dev/pts", "/dev/null", "/tmp", "/w", "/data"] {
            assert!(has(&files, path, FileAccess::Write), "{path}");
        }
        for path in ["/usr", "/etc", "/srv"] {
            assert!(has(&files, path, FileAccess::Read) && !has(&files, path, FileAccess::Write), "{path}");
        }
    }

    #[test]
    fn who_names_paths_means_it() {
        let files = Files::new(&options(None, &["/srv"], &[]), None);
        assert_eq!(files.mode.value, LandlockMode::Required);
        assert_eq!(files.mode.origin, Origin::Flag("--ro".into()));
    }

    #[test]
    fn the_root_as_working_directory_opens_nothing() {
        let files = Files::new(&options(Some(LandlockMode::Required), &[], &[]), Some(Path::new("/")));
        assert!(!files.rules.iter().any(|rule| rule.path == Path::new("/")));
    }
}
