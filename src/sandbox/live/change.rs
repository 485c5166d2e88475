//! Changes of a policy by order.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::plan::permanent;
use crate::policy::{AllowEntry, Endpoint, EndpointHost, HostPattern, Origin, Policy, Sourced, special};
use crate::{Error, ErrorKind, Result};

use super::super::host::{Admission, Reach};
use super::super::known::{self, Known};
use super::super::secrets;
use super::{Live, Turn, allow_list, gone, told_apart};

/// A line of a policy that can be added and taken away while a sandbox stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A direct endpoint.
    Direct(Endpoint),
    /// A destination of the built-in proxy's.
    Allow(AllowEntry),
}

impl From<Endpoint> for Entry {
    fn from(endpoint: Endpoint) -> Self {
        Entry::Direct(endpoint)
    }
}

impl From<AllowEntry> for Entry {
    fn from(entry: AllowEntry) -> Self {
        Entry::Allow(entry)
    }
}

impl fmt::Display for Entry {
    /// Shows it as the flag that says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::policy::Transport::{Tcp, Udp};
        match self {
            Entry::Direct(to) if to.transport == Tcp => write!(f, "--direct {to}"),
            Entry::Direct(to) => {
                debug_assert_eq!(to.transport, Udp);
                write!(f, "--direct-udp {to}")
            }
            Entry::Allow(entry) => write!(f, "--allow {entry}"),
        }
    }
}

/// Changes the policy of a sandbox while it stands. All clones are one; it does not keep the sandbox.
///
/// A change is one transaction on each side of the fence: there is no moment at which some of it holds, on that side. When a call returns, it
/// holds. The environment of a program that runs already, `NO_PROXY` among it, stays as it was.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use ringfence::policy::{Endpoint, Policy, Transport};
/// use ringfence::{Command, Host, Sandbox};
///
/// let policy = Policy::builder().direct("203.0.113.9:5432")?.build()?;
/// let sandbox = Sandbox::prepare(&Host::open()?, policy).await?;
/// let control = sandbox.control();
/// let mut running = sandbox.spawn(Command::new("my-agent")).await?;
/// let backup = Endpoint::parse("203.0.113.10:5432", Transport::Tcp)?;
/// control.allow([backup.clone()]).await?;
/// control.revoke([backup]).await?;
/// running.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Control(pub(in crate::sandbox) Arc<Live>);

impl Control {
    /// The policy as it is now.
    pub fn policy(&self) -> Policy {
        self.0.policy()
    }

    /// Adds entries to the policy. What is there already is no error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] for a destination of the proxy's where the proxy does not run, and for a wildcard without the built-in resolver;
    /// [`ErrorKind::Resolve`] for a name without an address, where the built-in resolver is off; [`ErrorKind::Kernel`] for an address without a route;
    /// [`ErrorKind::Conflict`] when the sandbox is gone. Nothing has changed then.
    pub async fn allow<T: Into<Entry>>(&self, entries: impl IntoIterator<Item = T>) -> Result<()> {
        let entries: Vec<Entry> = entries.into_iter().map(Into::into).collect();
        self.change(move |policy| {
            for entry in entries {
                match entry {
                    Entry::Direct(to) if policy.direct.iter().any(|there| there.value == to) => {}
                    Entry::Direct(to) => policy.direct.push(Sourced::new(to, Origin::Api)),
                    Entry::Allow(to) if policy.allow.iter().any(|there| there.value == to) => {}
                    // The upstream alone decides: a list would take away, not add.
                    Entry::Allow(_) if policy.allow.is_empty() && policy.proxy.is_some() => {}
                    Entry::Allow(to) => policy.allow.push(Sourced::new(to, Origin::Api)),
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes entries out of the policy, and cuts what they alone let through: flows are ended, connections inside aborted, the proxy's tunnels
    /// reset.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] for an entry that the policy does not have, and for the last destination of a proxy behind which an upstream would then
    /// decide alone; [`ErrorKind::Conflict`] when the sandbox is gone. Nothing has changed then. An error of another kind can mean that packets
    /// are refused already and a connection was not told.
    pub async fn revoke<T: Into<Entry>>(&self, entries: impl IntoIterator<Item = T>) -> Result<()> {
        let entries: Vec<Entry> = entries.into_iter().map(Into::into).collect();
        self.change(move |policy| {
            for entry in entries {
                let before = policy.direct.len() + policy.allow.len();
                match &entry {
                    Entry::Direct(to) => policy.direct.retain(|there| there.value != *to),
                    Entry::Allow(to) => policy.allow.retain(|there| there.value != *to),
                }
                if policy.direct.len() + policy.allow.len() == before {
                    return Err(Error::new(ErrorKind::Policy, format!("`{entry}` is not in the policy"))
                        .hint("an entry is revoked as it was allowed: ringfence policy show lists them"));
                }
                if matches!(entry, Entry::Allow(_)) && policy.allow.is_empty() && policy.proxy.is_some() {
                    return Err(upstream_alone(&format!("`{entry}` is the last destination")));
                }
            }
            Ok(())
        })
        .await
    }

    /// Puts another policy in the place of the present one, and cuts what it does not let through. What it does not say of `pool`, `dns`, `audit`,
    /// `proxy`, `proxy-at`, `sni` and `credential`, which a sandbox is made with, stays as it is, and so does `tampering`, which can change.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Policy`] when it says otherwise of these, or has a destination of the built-in proxy's where that does not run; otherwise as [`allow`](Self::allow) and [`revoke`](Self::revoke).
    pub async fn replace(&self, policy: Policy) -> Result<()> {
        self.change(move |now| {
            let mut policy = policy;
            let unsaid = |origin: &Origin| *origin == Origin::Default;
            if unsaid(&policy.dns.origin) {
                policy.dns = now.dns.clone();
            }
            if unsaid(&policy.audit.origin) {
                policy.audit = now.audit.clone();
            }
            if unsaid(&policy.pool.origin) {
                policy.pool = now.pool.clone();
            }
            if unsaid(&policy.tampering.origin) {
                policy.tampering = now.tampering.clone();
            }
            if unsaid(&policy.sni.origin) {
                policy.sni = now.sni.clone();
            }
            if policy.credentials.is_empty() {
                policy.credentials = now.credentials.clone();
            }
            if policy.proxy.is_none() && now.proxy.is_some() && policy.allow.is_empty() && !now.allow.is_empty() {
                return Err(upstream_alone("the new policy has no destination"));
            }
            policy.proxy = policy.proxy.or_else(|| now.proxy.clone());
            policy.proxy_at = policy.proxy_at.or_else(|| now.proxy_at.clone());
            fixed(now, &policy)?;
            *now = policy;
            Ok(())
        })
        .await
    }

    async fn change(&self, edit: impl FnOnce(&mut Policy) -> Result<()>) -> Result<()> {
        let _one = self.0.changing.lock().await;
        let old = self.0.policy();
        let mut new = old.clone();
        edit(&mut new)?;
        if let Some(first) = new.allow.first()
            && !self.0.proxied
        {
            let what =
                format!("`--allow {}` needs the built-in proxy, which this sandbox was started without", first.value);
            return Err(Error::new(ErrorKind::Policy, what).hint("start it with --allow"));
        }
        let https = |entry: &&Sourced<AllowEntry>| secrets::takes_tls(&entry.value);
        if let Some(first) = new.allow.iter().find(https)
            && !self.0.intercepted
        {
            let what = format!(
                "`--allow '{}'` has TLS looked into, and the program of this sandbox was started without an authority to trust for that",
                first.value
            );
            return Err(Error::new(ErrorKind::Policy, what).hint("start it with the rule, or with a credential"));
        }
        new.check()?;
        // Without the built-in resolver, names are resolved here; those that were before stay as they are.
        let mut asked = new.clone();
        if !new.dns.value.is_built_in() {
            asked.direct.retain(|to| !old.direct.iter().any(|there| there.value.host == to.value.host));
        }
        let known = known::names(&asked, self.0.resolver.as_ref(), &self.0.names).await?;
        let turn = self.0.turn().await;
        self.0.hand.does(move || turn.apply(new, &known)).await?
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// Nobody means to open everything by taking the last entry of a list away.
fn upstream_alone(why: &str) -> Error {
    Error::new(ErrorKind::Policy, format!("{why}, and without one the upstream proxy decides alone"))
        .hint("say `--proxy` with it, if that is meant: ringfence policy set --proxy URL NAME")
}

/// Refuses a policy that differs in what can't change.
fn fixed(old: &Policy, new: &Policy) -> Result<()> {
    fn same<T: PartialEq + fmt::Display>(key: &str, old: Option<&T>, new: Option<&T>) -> Result<()> {
        let shown = |value: Option<&T>| value.map_or_else(|| "none".to_owned(), T::to_string);
        if old == new {
            return Ok(());
        }
        let what =
            format!("`{key}` can't change while a sandbox stands: it is {}, and would be {}", shown(old), shown(new));
        Err(Error::new(ErrorKind::Policy, what).hint("start a new sandbox with it"))
    }
    fn value<T>(sourced: &Sourced<T>) -> &T {
        &sourced.value
    }
    same("dns", Some(&old.dns.value), Some(&new.dns.value))?;
    same("audit", Some(&old.audit.value), Some(&new.audit.value))?;
    same("proxy", old.proxy.as_ref().map(value), new.proxy.as_ref().map(value))?;
    same("proxy-at", old.proxy_at.as_ref().map(value), new.proxy_at.as_ref().map(value))?;
    same("sni", Some(&old.sni.value), Some(&new.sni.value))?;
    let credentials = |policy: &Policy| {
        let mut all: Vec<String> = policy.credentials.iter().map(|credential| credential.value.to_string()).collect();
        all.sort_unstable();
        (!all.is_empty()).then(|| all.join("; "))
    };
    same("credential", credentials(old).as_ref(), credentials(new).as_ref())?;
    let pool = |policy: &Policy| format!("{}, {}", policy.pool.value.v4, policy.pool.value.v6);
    same("pool", Some(&pool(old)), Some(&pool(new)))
}

impl Turn {
    /// Has another policy hold. Blocks.
    fn apply(mut self, new: Policy, known: &Known) -> Result<()> {
        let live = self.live.clone();
        let mut state = live.state();
        let now = Instant::now();
        let must = |policy: &Policy| permanent(policy).into_iter().map(|to| to.address).collect::<BTreeSet<IpAddr>>();
        // What is open for good by its address has to be reachable; so it is when a sandbox is made.
        let new_addresses = must(&new).difference(&must(&state.policy)).copied().collect();
        let admission = state.admission.as_mut().ok_or_else(gone)?;
        admission.route(&new_addresses, new.has_direct_names())?;
        let known = may_open(&new, known, admission)?;
        let (hosts, led) = told_apart(&new, &known, now);
        let change = state.book.change(&new, &hosts, &led, now);
        drop(state);
        // While packets still pass, so that the reset reaches the peer, too;
        if !change.close.is_empty() {
            self.abort(&change.close);
        }
        let changes = !change.close.is_empty() || !change.open.is_empty();
        if changes {
            self.commit_outside(&change.close, &change.open)?;
        }
        // From here on it holds. Should a program that may do so have spoilt the rules inside, or made them slow, what is revoked is cut all the
        // same, and what is allowed may be refused there.
        let mut state = live.state();
        state.book = change.next;
        *live.scope.write().unwrap_or_else(std::sync::PoisonError::into_inner) = state.book.scope.clone();
        live.allow.send_replace(allow_list(&new));
        state.policy = new;
        drop(state);
        live.sooner.notify_one();
        let inside = if changes { self.commit_inside(&change.close, &change.open) } else { Ok(()) };
        if change.close.is_empty() {
            return inside;
        }
        // and once more for what was opened in between.
        self.abort(&change.close);
        inside.and(self.cut(&change.close))
    }
}

/// What is known of names, without what a name may not open and what can't be reached.
fn may_open(policy: &Policy, known: &Known, admission: &mut Admission) -> Result<Known> {
    let mut may = Known::new();
    for (name, addresses) in known {
        let private = policy.dns.value.is_built_in() || policy.may_be_private(name);
        let exact = EndpointHost::Pattern(HostPattern::Exact(name.clone()));
        let addresses: Vec<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        for (address, reach) in addresses.iter().zip(admission.reach(&addresses)?) {
            let own = (reach == Reach::Own).then_some("an address of this host");
            match special::refused_to_name(*address, private).map(special::Class::name).or(own) {
                Some(class) if policy.direct.iter().any(|to| to.value.host == exact) => {
                    let what = format!("`{name}` resolves to {address}, {class}, which a name may not open");
                    return Err(Error::new(ErrorKind::Policy, what));
                }
                // What a wildcard happens to cover is not what was meant: the host itself is in its own file.
                Some(_) => {}
                None if reach == Reach::Ready => may.entry(name.clone()).or_default().push(*address),
                None => {}
            }
        }
    }
    Ok(may)
}
