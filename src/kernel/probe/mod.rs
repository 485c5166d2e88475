//! Finds out whether a command can be fenced here, by doing everything that it takes, elsewhere.
//!
//! Every link, rule and forwarding flag is made in namespaces that are made for it and gone with it. Of the caller's own
//! namespace a probe only reads. What it can't help: the kernel loads the modules that it has for what is asked for.

mod feature;
mod host;
mod rules;

use std::error::Error as StdError;
use std::os::fd::AsFd;

use rustix::io::Errno;

use self::feature as features;
use super::child::{self, Child, ChildSpec, ExecError};
use super::forwarding::{self, Forwarding};
use super::identity::{Logged, Means, Program, Way};
use super::landlock;
use super::link::wire;
use super::netns::Netns;
use super::passwd::{self, User};
use super::rtnetlink::{Batch, Request, RouteTo, Veth};
use super::{KernelError, nftables, rtnetlink};
use crate::doctor::{Check, Feature, Report, Status};
use crate::link::{IfIndex, Mtu, Pool};
use crate::plan::{HostView, Outside, Plan, PlanError};
use crate::policy::{Policy, SeccompMode};
use crate::{Error, ErrorKind, Result};

const LOOPBACK: IfIndex = IfIndex(1);

/// Who a command is when nobody says otherwise and it is not to be root: overflowuid(5), in every kernel.
const NOBODY: u32 = 65534;

/// Tries everything that `run` uses, and says what is there.
///
/// Never fails: what can't be tried is reported as that. Takes some 100 ms.
///
/// # Privileges
///
/// None. Without `CAP_SYS_ADMIN` most features can't be tried, and come as [`Status::Unknown`].
pub fn report() -> Report {
    let mut probe = Probe::default();
    host::privileges(&mut probe);
    let scratch = probe.check(features::NETNS, Scratch::new());
    probe.wire(scratch.as_ref());
    probe.rules(scratch.as_ref());
    probe.whole_fence(scratch.is_some());
    probe.direct(scratch.as_ref());
    probe.command(scratch.as_ref());
    probe.who(scratch.as_ref());
    let mut facts = host::facts();
    let foreign = host::foreign(&mut facts);
    Report { checks: probe.checks, facts, foreign }
}

/// What a try came to.
struct Outcome {
    status: Status,
    detail: Option<String>,
}

impl Outcome {
    fn yes() -> Self {
        Self { status: Status::Yes, detail: None }
    }

    fn no(why: impl Into<String>) -> Self {
        Self { status: Status::No, detail: Some(why.into()) }
    }

    fn unknown(why: impl Into<String>) -> Self {
        Self { status: Status::Unknown, detail: Some(why.into()) }
    }

    fn of<T>(result: &Result<T>) -> Self {
        match result {
            Ok(_) => Self::yes(),
            Err(error) if is_absence(error) => Self::no(error.chain()),
            Err(error) => Self::unknown(match error.advice() {
                Some(advice) => format!("{}; {advice}", error.chain()),
                None => error.chain(),
            }),
        }
    }
}

/// Whether an error says that the thing itself is missing, and not that the try went wrong or that too much is in use just now.
fn is_absence(error: &Error) -> bool {
    if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Privilege) {
        return true;
    }
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<KernelError>() {
            // A probe names nothing that it has not made itself, so what is not there is a module. EINVAL was the
            // answer to unknown table flags before Linux 5.12.
            return matches!(error.errno, libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
                || (error.errno == libc::EINVAL && error.operation.starts_with("create table"));
        }
        cause = error.source();
    }
    false
}

/// Two namespaces that nobody else knows of: one plays the host, one the sandbox.
struct Scratch {
    outside: Netns,
    inside: Netns,
}

impl Scratch {
    fn new() -> Result<Self> {
        let (outside, up) =
            Netns::create_with(|| rtnetlink::Socket::open()?.commit(Batch::from([Request::up(LOOPBACK)])).map(|_| ()))?;
        up?;
        Ok(Self { outside, inside: Netns::new()? })
    }

    /// Does something in the namespace that plays the host.
    fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.outside.run(work)?
    }
}

#[derive(Default)]
struct Probe {
    checks: Vec<Check>,
}

impl Probe {
    fn push(&mut self, feature: Feature, outcome: Outcome) {
        self.checks.push(Check { feature, status: outcome.status, detail: outcome.detail, blocked_by: None });
    }

    /// Notes that a feature can't be tried without another one.
    fn blocked(&mut self, feature: Feature, by: Feature) {
        self.checks.push(Check { feature, status: Status::Unknown, detail: None, blocked_by: Some(by.name) });
    }

    /// Whether the last try went well.
    fn went_well(&self) -> bool {
        self.checks.last().is_some_and(|check| check.status == Status::Yes)
    }

    /// Notes what a try came to, and passes on what it gave.
    fn check<T>(&mut self, feature: Feature, result: Result<T>) -> Option<T> {
        self.push(feature, Outcome::of(&result));
        result.ok()
    }

    /// Tries something that takes the scratch namespaces.
    fn within<T>(
        &mut self,
        feature: Feature,
        scratch: Option<&Scratch>,
        attempt: impl FnOnce(&Scratch) -> Result<T>,
    ) -> Option<T> {
        match scratch {
            Some(scratch) => self.check(feature, attempt(scratch)),
            None => {
                self.blocked(feature, features::NETNS);
                None
            }
        }
    }

    fn wire(&mut self, scratch: Option<&Scratch>) {
        self.within(features::VETH, scratch, |scratch| {
            scratch.run(|| {
                let veth = Veth::new("probe0", "probe1").peer_in(&scratch.inside).up();
                rtnetlink::Socket::open()?.commit(Batch::from([Request::create_veth(&veth)]))
            })
        });
        self.within(features::IPV6, scratch, |scratch| {
            scratch.run(|| rtnetlink::Socket::open()?.commit(Batch::from([Request::no_link_local(LOOPBACK)])))
        });
        if let Some(words) = self.within(features::EXT_ACK, scratch, |scratch| scratch.run(refused_route))
            && !words
        {
            self.refine(Outcome::no("the kernel refuses a wrong route without a word"));
        }
    }

    fn rules(&mut self, scratch: Option<&Scratch>) {
        self.within(features::NFTABLES, scratch, |scratch| scratch.run(|| nftables::Socket::open()?.generation()));
        // Without nf_tables at all, its parts are not so much missing as out of reach.
        let usable = self.went_well();
        for (feature, transaction) in rules::ALL {
            match scratch {
                Some(_) if !usable => self.blocked(feature, features::NFTABLES),
                scratch => drop(self.within(feature, scratch, |scratch| {
                    let transaction = transaction()?;
                    scratch.run(|| nftables::Socket::open()?.commit(&transaction))
                })),
            }
        }
    }

    /// Makes a wire and both rulesets as `run` would, in namespaces of their own.
    fn whole_fence(&mut self, possible: bool) {
        if !possible {
            for feature in [features::FENCE, features::ROUTING] {
                self.blocked(feature, features::NETNS);
            }
            return;
        }
        let outside = match Scratch::new().and_then(stand) {
            Ok(outside) => outside,
            Err(error) => {
                self.push(features::FENCE, Outcome::of::<()>(&Err(error)));
                self.blocked(features::ROUTING, features::FENCE);
                return;
            }
        };
        self.push(features::FENCE, Outcome::yes());
        self.check(features::ROUTING, outside.route());
    }

    /// What direct endpoints take besides rules.
    fn direct(&mut self, scratch: Option<&Scratch>) {
        let forward = |scratch: &Scratch, wanted: Forwarding| {
            scratch.run(|| {
                let mut links = rtnetlink::Socket::open()?;
                let before = forwarding::read(&mut links, LOOPBACK)?;
                forwarding::set(&mut links, LOOPBACK, wanted)?;
                let after = forwarding::read(&mut links, LOOPBACK)?;
                // The next probe starts from where this one did.
                forwarding::set(&mut links, LOOPBACK, before)?;
                if after == wanted {
                    return Ok(());
                }
                let what = format!("{wanted:?} was asked for, and the kernel has {after:?}");
                Err(Error::new(ErrorKind::Verify, what))
            })
        };
        self.within(features::FORWARD4, scratch, |scratch| forward(scratch, Forwarding { v4: true, v6: false }));
        // An old kernel is no hindrance where the host is a router: that is asked of the host itself, and only read.
        if host::is_router6() {
            self.push(features::FORWARD6, Outcome::yes());
            self.note("net.ipv6.conf.all.forwarding is on");
        } else {
            self.within(features::FORWARD6, scratch, |scratch| forward(scratch, Forwarding { v4: false, v6: true }));
        }
    }

    fn command(&mut self, scratch: Option<&Scratch>) {
        let errno = |errno: Errno, what: &str| Error::new(kind_of(errno), what).because(errno);
        // It can't be taken back, so a thread of its own gives up what it might gain.
        let given_up = std::thread::spawn(|| rustix::thread::set_no_new_privs(true)).join().unwrap_or(Err(Errno::IO));
        self.check(features::NO_NEW_PRIVS, given_up.map_err(|no| errno(no, "can't set no_new_privs")));
        let closed = child::close_ranges(&[(u32::MAX, u32::MAX)]);
        self.check(features::CLOSE_RANGE, closed.map_err(|no| errno(no, "can't close a range of file descriptors")));

        // The same holds of a filter.
        let filtered = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true)?;
            child::confine(&child::filter(SeccompMode::Default, None))
        });
        let filtered = filtered.join().unwrap_or(Err(Errno::IO));
        self.check(features::SECCOMP, filtered.map_err(|no| errno(no, "can't put a thread under a seccomp filter")));
        if self.went_well() {
            self.note(&format!("default refuses {}", SeccompMode::Default.refused().join(", ")));
        }

        let landlock = match landlock::version() {
            Ok(version) => Outcome { detail: Some(format!("version {version}")), ..Outcome::yes() },
            Err(reason) => Outcome::no(reason),
        };
        self.push(features::LANDLOCK, landlock);

        self.within(features::CHILD, scratch, |scratch| nearly_run(scratch, |spec| spec.pid_namespace = false));
        let runs = self.went_well();
        self.within(features::PID_NAMESPACE, scratch, |scratch| nearly_run(scratch, |_| ()));
        let separate = self.went_well();
        if !runs {
            return self.blocked(features::USER, features::CHILD);
        }
        let caller = passwd::sudo_user();
        let uid = caller.map_or(NOBODY, |user| user.uid);
        let gid = caller.and_then(|user| user.gid).unwrap_or(uid);
        self.within(features::USER, scratch, |scratch| {
            nearly_run(scratch, |spec| {
                spec.pid_namespace = separate;
                spec.user = Some(User { uid, gid, groups: vec![gid] });
            })
        });
        if self.went_well() {
            self.note(&format!("tried with {uid}:{gid}"));
        } else if caller.is_some() {
            self.note("ringfence was called through sudo, so `run` needs --user 0:0");
        }
    }

    /// What tells who tried.
    fn who(&mut self, scratch: Option<&Scratch>) {
        self.within(features::WHO_BPF, scratch, |scratch| {
            Program::load()?.attach(&scratch.inside, Logged::Refused).map(drop)
        });
        self.within(features::WHO_SECCOMP, scratch, |scratch| {
            Means::find(Way::Seccomp)?;
            nearly_run(scratch, |spec| {
                spec.pid_namespace = false;
                spec.notify = true;
            })
        });
    }

    /// Says something about the last check.
    fn note(&mut self, text: &str) {
        if let Some(last) = self.checks.last_mut() {
            let detail = last.detail.take().map_or_else(|| text.to_owned(), |before| format!("{before}; {text}"));
            last.detail = Some(detail);
        }
    }

    /// Puts another outcome in place of the last check's.
    fn refine(&mut self, outcome: Outcome) {
        if let Some(last) = self.checks.last_mut() {
            (last.status, last.detail) = (outcome.status, outcome.detail);
        }
    }
}

fn kind_of(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOSYS | Errno::INVAL => ErrorKind::Unsupported,
        Errno::PERM | Errno::ACCESS => ErrorKind::Privilege,
        _ => ErrorKind::Kernel,
    }
}

/// Asks for a route that can't be, and says whether the kernel said why it can't.
fn refused_route() -> Result<bool> {
    let impossible = |error: ipnet::AddrParseError| Error::new(ErrorKind::Policy, "no prefix").because(error);
    let to = RouteTo::new("203.0.113.0/24".parse().map_err(impossible)?);
    let route = Request::add_route(&to.via(std::net::Ipv4Addr::new(198, 51, 100, 1).into()).on(LOOPBACK));
    let answers = rtnetlink::Socket::open()?.try_each(Batch::from([route]))?;
    Ok(matches!(answers.first(), Some(Err(refusal)) if refusal.error.extended_ack.is_some()))
}

/// Goes all the way that a command goes but for its last step: there is no program of an empty name.
fn nearly_run(scratch: &Scratch, edit: impl FnOnce(&mut ChildSpec)) -> Result<()> {
    let mut spec = ChildSpec::new("");
    edit(&mut spec);
    match Child::spawn(scratch.inside.as_fd(), spec) {
        Err(error) if error.source().is_some_and(|cause| cause.is::<ExecError>()) => Ok(()),
        Err(error) => Err(error),
        Ok(child) => {
            drop(child);
            Err(Error::new(ErrorKind::Child, "the kernel executes a program without a name"))
        }
    }
}

/// A fence that stands between two scratch namespaces.
struct Fence {
    scratch: Scratch,
    table: nftables::Socket,
    outside: Outside,
}

/// Builds the fence of a policy with direct endpoints, and reads it back.
fn stand(scratch: Scratch) -> Result<Fence> {
    let open = || Ok::<_, Error>((rtnetlink::Socket::open()?, nftables::Socket::open()?));
    let (mut links, mut table) = scratch.run(open)?;
    let (mut inner_links, mut inner_rules) = scratch.inside.run(open)??;
    let wire = wire(&mut links, &mut inner_links, &Pool::default(), Mtu::default())?;
    let policy = Policy::builder().direct("203.0.113.9:443")?.direct_udp("[2001:db8::9]:443")?.build()?;
    let view = HostView {
        wire: wire.pair.clone(),
        host_index: wire.host_index.0,
        table_suffix: "doctor".to_owned(),
        resolved: Default::default(),
        no_proxy: None,
    };
    let plan = Plan::new(&policy, &view)?;
    inner_rules.commit(&plan.inside.create())?;
    inner_rules.verify(&plan.inside)?;
    let outside = Outside::new(&view.table_suffix).map_err(PlanError::from)?;
    let ruleset = outside.ruleset()?;
    table.commit(&ruleset.create())?;
    table.verify(&ruleset)?;
    Ok(Fence { scratch, table, outside })
}

impl Fence {
    /// Adds what direct endpoints need, and reads it back.
    fn route(mut self) -> Result<()> {
        self.table.commit(&self.outside.add_routing()?)?;
        self.table.verify(&self.outside.routing_ruleset()?)?;
        drop(self.scratch);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(operation: &str, errno: i32, kind: ErrorKind) -> Outcome {
        let operation = operation.to_owned();
        let leaf = KernelError {
            operation: operation.clone(),
            object: None,
            attribute: None,
            errno,
            extended_ack: None,
            hint: None,
        };
        Outcome::of::<()>(&Err(
            Error::new(ErrorKind::Kernel, "outer").because(Error::new(kind, operation).because(leaf))
        ))
    }

    #[test]
    fn only_what_can_mean_nothing_else_is_a_no() {
        let status = |operation, errno| refused(operation, errno, ErrorKind::Kernel).status;
        assert_eq!(status("add chain netdev egress probe", libc::EOPNOTSUPP), Status::No);
        assert_eq!(status("add rule inet log probe", libc::ENOENT), Status::No);
        assert_eq!(status("create table inet owner", libc::EINVAL), Status::No);
        for (operation, errno) in [
            ("add rule inet log probe", libc::EINVAL),
            ("create table inet owner", libc::ENOMEM),
            ("commit the transaction", libc::EBUSY),
        ] {
            let outcome = refused(operation, errno, ErrorKind::Kernel);
            assert_eq!(outcome.status, Status::Unknown, "{operation}");
            assert!(outcome.detail.is_some_and(|detail| detail.contains(operation)));
        }
    }

    #[test]
    fn a_missing_privilege_is_a_no_and_a_lost_thread_is_not() {
        let of = |kind| Outcome::of::<()>(&Err(Error::new(kind, "x"))).status;
        assert_eq!([of(ErrorKind::Privilege), of(ErrorKind::Unsupported)], [Status::No; 2]);
        assert_eq!([of(ErrorKind::Io), of(ErrorKind::Child), of(ErrorKind::Exhausted)], [Status::Unknown; 3]);
    }

    #[test]
    fn a_feature_that_was_not_tried_names_the_one_that_it_waits_for() {
        let mut probe = Probe::default();
        probe.rules(None);
        probe.whole_fence(false);
        assert!(probe.checks.iter().all(|check| check.status == Status::Unknown && check.blocked_by.is_some()));
        let names: std::collections::BTreeSet<&str> = probe.checks.iter().map(|check| check.feature.name).collect();
        assert_eq!(names.len(), probe.checks.len(), "two checks of one name");
    }
}
