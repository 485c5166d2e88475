//! What the user wants: who may be reached, and how.
//!
//! Pure: nothing here opens a file, resolves a name or looks at the machine. The parsers take text and say where a
//! wrong value stood ([`Origin`]).
//!
//! Flags, variables and a file each become a [`Layer`]; [`Settings::from_layers`] puts the stronger over the weaker and
//! gives the [`Policy`] and the [`RunOptions`]. A caller of the library has [`Policy::builder`].

mod allow;
mod authority;
mod capability;
pub(crate) mod credential;
mod dns;
#[cfg(test)]
mod document;
mod endpoint;
mod file;
mod files;
mod host;
mod layer;
mod near;
mod origin;
mod patterns;
mod pool;
#[cfg(test)]
mod properties;
mod proxy;
pub(crate) mod request_rule;
mod run;
mod seccomp;
mod settings;
pub(crate) mod special;
mod tampering;
mod told;
mod variables;
mod words;
mod write;

pub use allow::{AllowEntry, AllowHost, HostPattern};
pub use capability::{Capabilities, Capability};
pub use credential::{Credential, CredentialName, Places, SecretSource, SniCheck};
pub use dns::{DnsGrace, DnsMode};
pub use endpoint::{Endpoint, EndpointHost, Transport};
pub use files::{FilePath, LandlockMode};
pub use host::{DnsName, Host};
pub use layer::{Key, Layer};
pub(crate) use patterns::PatternMap;

pub use origin::{Origin, PolicyError, Sourced};
pub use pool::PoolPrefix;
pub use proxy::{Credentials, ProxyAt, ProxyUrl};
pub use request_rule::{PathError, RequestRule, Scheme, canonical_path};
pub use run::{EnvVar, RunOptions, SandboxName, User};
pub use seccomp::SeccompMode;
pub use settings::{Policy, PolicyBuilder, Settings};
pub use tampering::OnTampering;
pub use told::{EventsFormat, EventsTo, LearnTo, MetricsTo};
pub use variables::Variables;
