//! Users and groups, from the text of `/etc/passwd` and `/etc/group`.
//!
//! Parsed here and not asked of the C library, whose name service loads plugins: a static binary in an empty image has none. A user whom only
//! LDAP knows is thus a number without a name, which is all that the kernel needs.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind as IoKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::{Error, ErrorKind, Result, policy};

/// How much of a file is read: more than any real one, and an end to one that has none.
const LIMIT: u64 = 16 << 20;

/// How many supplementary groups a process may have, `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65536;

/// Whom to run something as: what the kernel asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// Real, effective and saved user.
    pub uid: u32,
    /// Real, effective and saved group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A user with what the two files say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What the kernel needs.
    pub user: User,
    /// For `USER` and `LOGNAME`.
    pub name: Option<OsString>,
    /// For `HOME`; an absolute path.
    pub home: Option<PathBuf>,
    /// For `SHELL`; an absolute path.
    pub shell: Option<PathBuf>,
}

impl Account {
    /// Looks a user up in the text of `/etc/passwd` and `/etc/group`.
    ///
    /// Without a GID it gets its own group, or the one of its number if the text does not know it, and all its supplementary groups. With
    /// the GID of a group that is not its own it gets that one alone: who names a narrower group means it.
    ///
    /// Lines that are not well-formed are passed over, as the C library does; the first that fits counts.
    pub fn find(id: policy::User, passwd: &[u8], group: &[u8]) -> Self {
        let entry =
            passwd.split(|byte| *byte == b'\n').filter_map(PasswdEntry::parse).find(|entry| entry.uid == id.uid);
        let own = entry.as_ref().map_or(id.uid, |entry| entry.gid);
        let gid = id.gid.unwrap_or(own);
        let mut groups = Vec::new();
        if let Some(entry) = &entry
            && gid == own
        {
            groups = supplementary(entry.name, group);
            groups.retain(|group| *group != gid);
            groups.insert(0, gid);
            groups.truncate(MOST_GROUPS);
        }
        let absolute =
            |text: &[u8]| Some(PathBuf::from(OsString::from_vec(text.to_vec()))).filter(|path| path.is_absolute());
        Self {
            user: User { uid: id.uid, gid, groups },
            name: entry.as_ref().map(|entry| OsString::from_vec(entry.name.to_vec())),
            home: entry.as_ref().and_then(|entry| absolute(entry.home)),
            shell: entry.as_ref().and_then(|entry| absolute(entry.shell)),
        }
    }

    /// Looks a user up in this machine's `/etc/passwd` and `/etc/group`. A file that is not there knows nobody.
    ///
    /// # Errors
    /// `Io` when a file is there and can't be read.
    pub fn read(id: policy::User) -> Result<Self> {
        Ok(Self::find(id, &text(Path::new("/etc/passwd"))?, &text(Path::new("/etc/group"))?))
    }
}

/// Tells who called `sudo`: from SUDO_UID and SUDO_GID, which count only when this process runs as root.
pub fn sudo_user() -> Option<policy::User> {
    sudo_user_from(rustix::process::geteuid().is_root(), |name| std::env::var(name).ok())
}

fn sudo_user_from(root: bool, variable: impl Fn(&str) -> Option<String>) -> Option<policy::User> {
    let uid = number(variable("SUDO_UID")?.as_bytes()).filter(|_| root)?;
    Some(policy::User { uid, gid: variable("SUDO_GID").and_then(|gid| number(gid.as_bytes())) })
}

/// A line of `/etc/passwd`.
///
/// # References
/// `passwd(5)`
struct PasswdEntry<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
    shell: &'a [u8],
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.splitn(8, |byte| *byte == b':').collect();
        let [name, _password, uid, gid, _comment, home, shell] = fields.as_slice() else { return None };
        Some(Self {
            name: usable_name(name)?,
            uid: number(uid)?,
            gid: number(gid)?,
            home: no_nul(home)?,
            shell: no_nul(shell)?,
        })
    }
}

/// The groups that list that user as a member.
///
/// # References
/// `group(5)`
fn supplementary(user: &[u8], text: &[u8]) -> Vec<u32> {
    let mut groups: Vec<u32> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.splitn(5, |byte| *byte == b':').collect();
            let [name, _password, gid, members] = fields.as_slice() else { return None };
            usable_name(name)?;
            members.split(|byte| *byte == b',').any(|member| member == user).then(|| number(gid))?
        })
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// Not empty, no comment, no `+` or `-` of NIS, nothing that can't be an environment variable's value.
fn usable_name(name: &[u8]) -> Option<&[u8]> {
    let first = name.first()?;
    if matches!(first, b'#' | b'+' | b'-') { None } else { no_nul(name) }
}

fn no_nul(text: &[u8]) -> Option<&[u8]> {
    (!text.contains(&0)).then_some(text)
}

/// A user's or group's number: decimal digits only, and not the one that means "leave as it is" to the kernel.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number| *number != u32::MAX)
}

fn text(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(LIMIT).read_to_end(&mut text)) {
        Ok(_) => Ok(text),
        Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(Error::new(ErrorKind::Io, format!("can't read {}", path.display())).because(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n# a comment\n+::::::\nann:x:1000:100:Ann,,,:/home/ann:/bin/sh\nbob:x:1001:1001::home:\nagain:x:1000:0::/:/bin/false\n";
    const GROUP: &[u8] = b"root:x:0:\nusers:x:100:ann\nwheel:x:10:bob,ann\naudio:x:29:ann\naudio2:x:29:ann\nmost:x:7:anna,an\n-x:x:8:ann\n";

    fn find(id: &str) -> Account {
        Account::find(id.parse().unwrap(), PASSWD, GROUP)
    }

    #[test]
    fn a_known_user_has_its_group_and_all_supplementary_ones() {
        let ann = find("1000");
        assert_eq!(ann.user, User { uid: 1000, gid: 100, groups: vec![100, 10, 29] });
        assert_eq!(
            (ann.name.unwrap(), ann.home.unwrap(), ann.shell.unwrap()),
            ("ann".into(), "/home/ann".into(), "/bin/sh".into())
        );
        let bob = find("1001");
        assert_eq!((bob.home, bob.shell), (None, None), "a relative home and no shell are none");
    }

    #[test]
    fn a_group_that_is_not_its_own_stands_alone() {
        assert_eq!(find("1000:65534").user, User { uid: 1000, gid: 65534, groups: vec![] });
        assert_eq!(find("1000:100").user, find("1000").user);
    }

    #[test]
    fn an_unknown_user_has_the_group_of_its_number_and_no_other() {
        let stranger = find("4242");
        assert_eq!(stranger.user, User { uid: 4242, gid: 4242, groups: vec![] });
        assert_eq!((stranger.name, stranger.home), (None, None));
    }

    #[test]
    fn lines_that_are_not_well_formed_never_count() {
        for line in [
            "ann:x:1000:100",
            "ann:x:1000:100:::/bin/sh:more",
            ":x:1000:100::/:/",
            "ann:x:1000:-1::/:/",
            "a\0n:x:1000:100::/:/",
            "ann:x:01000000000:1::/:/",
        ] {
            assert_eq!(Account::find("1000".parse().unwrap(), line.as_bytes(), b"").user.gid, 1000, "{line}");
        }
    }

    #[test]
    fn sudo_counts_for_root_only() {
        let environment = |name: &str| match name {
            "SUDO_UID" => Some("1000".to_owned()),
            "SUDO_GID" => Some("100".to_owned()),
            _ => None,
        };
        assert_eq!(sudo_user_from(true, environment), Some(policy::User { uid: 1000, gid: Some(100) }));
        assert_eq!(sudo_user_from(false, environment), None);
        assert_eq!(sudo_user_from(true, |_| None), None);
        assert_eq!(sudo_user_from(true, |name| (name == "SUDO_UID").then(|| "x".to_owned())), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_or_gives_the_kernel_a_number_it_would_misread(
            passwd in proptest::collection::vec(prop_oneof![Just(b':'), Just(b'\n'), Just(b'1'), any::<u8>()], 0..200),
            group in proptest::collection::vec(prop_oneof![Just(b':'), Just(b'\n'), Just(b'1'), Just(b','), any::<u8>()], 0..200),
            uid in 0u32..20,
        ) {
            let account = Account::find(policy::User { uid, gid: None }, &passwd, &group);
            prop_assert_eq!(account.user.uid, uid);
            prop_assert!(account.user.gid != u32::MAX && !account.user.groups.contains(&u32::MAX));
        }
    }
}
