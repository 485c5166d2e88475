//! Capabilities: which there are, which the command keeps.

use std::fmt;

use crate::policy::Capability;
use crate::{Error, ErrorKind};

/// A set of capabilities, bit `n` for capability number `n`.
///
/// # References
/// `capabilities(7)`, `linux/capability.h`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// What Docker keeps, without `CAP_NET_RAW`: a raw socket would let its owner write packets that no rule on ports can judge.
    pub const DOCKER_WITHOUT_NET_RAW: Self = Self(
        1 << 0        // CHOWN
            | 1 << 1  // DAC_OVERRIDE
            | 1 << 3  // FOWNER
            | 1 << 4  // FSETID
            | 1 << 5  // KILL
            | 1 << 6  // SETGID
            | 1 << 7  // SETUID
            | 1 << 8  // SETPCAP
            | 1 << 10 // NET_BIND_SERVICE
            | 1 << 18 // SYS_CHROOT
            | 1 << 27 // MKNOD
            | 1 << 29 // AUDIT_WRITE
            | 1 << 31, // SETFCAP
    );

    /// What is harmless to other networks than the command's own, even if its user namespace is theirs as well: what Docker keeps.
    pub const OF_ONE_NETWORK: Self = Self(Self::DOCKER_WITHOUT_NET_RAW.0 | 1 << 13);

    /// Takes the kernel's bit mask.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Gives the kernel's bit mask.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Says whether capability number `number` is in it.
    pub const fn has(self, number: u32) -> bool {
        number < u64::BITS && self.0 & (1 << number) != 0
    }

    /// What is in both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this and not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Says whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The capabilities in it, one set each, lowest number first.
    pub fn each(self) -> impl Iterator<Item = Self> {
        (0..u64::BITS).map(|number| Self(1 << number)).filter(move |one| self.0 & one.0 != 0)
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, number) in (0..u64::BITS).filter(|number| self.has(*number)).enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            match Capability::all().find(|known| u32::from(known.number()) == number) {
                Some(known) => known.fmt(f)?,
                None => write!(f, "{number}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapabilitySet({self})")
    }
}

impl FromIterator<Capability> for CapabilitySet {
    fn from_iter<T: IntoIterator<Item = Capability>>(capabilities: T) -> Self {
        capabilities.into_iter().fold(Self::EMPTY, |set, capability| set.or(Self(1 << capability.number())))
    }
}

/// Which capabilities the command may hold. What is left out also leaves its bounding set, so nothing it runs can get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Capabilities {
    /// What Docker keeps, without `CAP_NET_RAW`, as far as the caller has it. Effective for uid 0 only.
    #[default]
    Default,
    /// None.
    None,
    /// Exactly these; ambient, thus effective at once, for a user who is not uid 0.
    Keep(CapabilitySet),
    /// Every capability of the caller's; ambient for a user who is not uid 0.
    ///
    /// Without a [user namespace](super::ChildSpec::user_namespace) of its own, a command with `CAP_SYS_ADMIN` can leave its namespaces, one with `CAP_SYS_PTRACE` can read the reaper, whose memory is a copy of
    /// the supervisor's. Only for a caller that trusts the command with that.
    All,
}

impl Capabilities {
    /// Gives those of them that reach past the command's network namespace, unless it has a user namespace of its own:
    /// `CAP_NET_ADMIN` and whatever else Docker does not keep.
    pub fn reaching_out(self) -> CapabilitySet {
        let kept = match self {
            Self::Default | Self::None => CapabilitySet::EMPTY,
            Self::Keep(set) => set,
            Self::All => rustix::thread::capabilities(None)
                .map_or(CapabilitySet::from_bits(u64::MAX), |ours| CapabilitySet::from_bits(ours.permitted.bits())),
        };
        kept.without(CapabilitySet::OF_ONE_NETWORK)
    }
}

/// Which bits go where before `execve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CapabilityPlan {
    /// What stays in the bounding set.
    pub bounding: CapabilitySet,
    /// Permitted and effective.
    pub held: CapabilitySet,
    /// Inheritable and ambient.
    pub ambient: CapabilitySet,
}

impl CapabilityPlan {
    /// Plans for a command that will run as root or not, when the caller holds `ours`.
    ///
    /// # Errors
    /// `Privilege` when the caller names capabilities that it does not have itself.
    pub fn new(wanted: Capabilities, root: bool, ours: CapabilitySet) -> Result<Self, Error> {
        let (bounding, explicit) = match wanted {
            Capabilities::Default => (CapabilitySet::DOCKER_WITHOUT_NET_RAW.and(ours), false),
            Capabilities::None => (CapabilitySet::EMPTY, false),
            Capabilities::Keep(set) => {
                let missing = set.without(ours);
                if !missing.is_empty() {
                    return Err(Error::new(
                        ErrorKind::Privilege,
                        format!("can't keep {missing}: not held by ringfence itself"),
                    )
                    .hint("start ringfence with these capabilities, or leave them out"));
                }
                (set, true)
            }
            Capabilities::All => (ours, true),
        };
        // With uid 0, execve(2) gives what is in the bounding set and, because of no_new_privs, permitted before.
        // Anyone else gets only what is ambient.
        Ok(match (root, explicit) {
            (true, _) => Self { bounding, held: bounding, ambient: CapabilitySet::EMPTY },
            (false, true) => Self { bounding, held: bounding, ambient: bounding },
            (false, false) => Self { bounding, held: CapabilitySet::EMPTY, ambient: CapabilitySet::EMPTY },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &str) -> CapabilitySet {
        names.split(',').map(|name| name.parse::<Capability>().unwrap()).collect()
    }

    #[test]
    fn the_default_is_what_docker_keeps_without_net_raw() {
        let named = set(
            "CHOWN,DAC_OVERRIDE,FSETID,FOWNER,MKNOD,SETGID,SETUID,SETFCAP,SETPCAP,NET_BIND_SERVICE,SYS_CHROOT,KILL,AUDIT_WRITE",
        );
        assert_eq!(CapabilitySet::DOCKER_WITHOUT_NET_RAW, named);
        // Docker's CapBnd is 00000000a80425fb; bit 13 is NET_RAW.
        assert_eq!(named.bits(), 0xa804_25fb & !(1 << 13));
    }

    #[test]
    fn a_set_is_shown_by_names() {
        assert_eq!(set("NET_ADMIN,KILL").to_string(), "CAP_KILL,CAP_NET_ADMIN");
        assert_eq!(CapabilitySet::from_bits(1 << 63).to_string(), "63");
    }

    #[test]
    fn a_plan_never_holds_what_it_bounds_away_nor_what_we_lack() {
        let ours = set("KILL,CHOWN,NET_RAW,SYS_ADMIN");
        for wanted in [Capabilities::Default, Capabilities::None, Capabilities::Keep(set("KILL")), Capabilities::All] {
            for root in [true, false] {
                let plan = CapabilityPlan::new(wanted, root, ours).unwrap();
                assert!(plan.held.without(plan.bounding).is_empty() && plan.ambient.without(plan.held).is_empty());
                assert!(plan.bounding.without(ours).is_empty());
                assert!(root || wanted != Capabilities::Default || plan.held.is_empty());
            }
        }
        let refused = CapabilityPlan::new(Capabilities::Keep(set("BPF,KILL")), true, ours).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.to_string().as_str()),
            (ErrorKind::Privilege, "can't keep CAP_BPF: not held by ringfence itself")
        );
    }
}
