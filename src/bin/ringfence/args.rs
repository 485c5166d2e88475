//! The command line, as clap reads it. Values stay text here; `settings` hands them to the library's parsers with their origin.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

/// The subcommand that the demo runs in its fences.
pub const PROBE: &str = "__probe";

/// Puts a command in a network namespace, lets out only what its policy names, refuses all else at once.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub subcommand: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Fence a command; the exit status is the command's (128+N for signal N).
    Run(Box<RunArguments>),
    /// Show what `run` would do, without doing it: wire, both rulesets, environment.
    Plan(Box<PlanArguments>),
    /// Show or change the policy of a sandbox that runs, by the name it was given with `run --name`.
    Policy(ChangeArguments),
    /// Say which kernel features and privileges are there, and what each is needed for.
    Doctor(DoctorArguments),
    /// Follow an nflog group of other rules as JSON lines, until SIGINT or SIGTERM; what a fence refuses is read by its supervisor: use `run --events`.
    Events(EventsArguments),
    /// Save, restore or list the whole nftables ruleset of a network namespace.
    Rules(RulesArguments),
    /// Build a small internet out of namespaces on this machine and show the fence at work in it.
    Demo,
    /// What runs in the fences of the demo.
    #[command(name = PROBE, hide = true)]
    Probe,
}

/// Flags that make the policy. Every one has a key of the same name in a policy file, and how often it may be said is for the library to judge:
/// twice the same is no error.
#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArguments {
    /// Destination that the built-in proxy lets through: a name, `*.example.com`, an address or a prefix, or the requests
    /// that it does: 'GET|HEAD https://api.example.com/v1/*' (repeatable).
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// Secret that the built-in proxy puts into requests, and the program never sees (repeatable): NAME=env:VARIABLE,
    /// file:PATH or command:PROGRAM ARG…, then `,to=HOST[:PORT]` and `,in=header+query+path+body`.
    #[arg(long, value_name = "NAME=SOURCE,to=HOST")]
    pub credential: Vec<String>,
    /// Whether TLS through the built-in proxy must be for the very host that was asked for: `check` (unless told) or `any`.
    #[arg(long, value_name = "MODE")]
    pub sni: Vec<String>,
    /// Go through this HTTP proxy, reached from the host; with no --allow, it alone decides.
    #[arg(long, value_name = "URL|HOST:PORT")]
    pub proxy: Vec<String>,
    /// Use a proxy at an address that the sandbox itself can route to.
    #[arg(long, value_name = "ADDR:PORT")]
    pub proxy_at: Vec<String>,
    /// Direct TCP endpoint, past the proxy (repeatable, comma-separated).
    #[arg(long, value_name = "HOST:PORT")]
    pub direct: Vec<String>,
    /// Direct UDP endpoint (repeatable, comma-separated).
    #[arg(long, value_name = "HOST:PORT")]
    pub direct_udp: Vec<String>,
    /// Direct TCP endpoint at port 443 of a host (repeatable, comma-separated).
    #[arg(long, value_name = "HOST")]
    pub direct_host: Vec<String>,
    /// Who answers questions about names inside: `auto` (built in, for names of the policy), `open` (for every name), `off`, or a
    /// resolver that the sandbox asks itself.
    #[arg(long, value_name = "auto|open|off|IP[:PORT]")]
    pub dns: Vec<String>,
    /// How long an address of a direct name stays open after its answer has run out, 15 unless told.
    #[arg(long, value_name = "SECONDS")]
    pub dns_grace: Vec<String>,
    /// Name, or `*.NAME`, whose addresses may be private, though it looks public (repeatable, comma-separated).
    #[arg(long, value_name = "NAME")]
    pub private_name: Vec<String>,
    /// Let everything pass, tell what would be refused, and print the policy that would have allowed it.
    #[arg(long, overrides_with = "audit")]
    pub audit: bool,
    /// What to do when somebody else changes the rules of the fence: `report`, `mend` (unless told), or `end` the sandbox.
    #[arg(long, value_name = "report|mend|end")]
    pub tampering: Vec<String>,
    /// Prefix that addresses of sandboxes come from, 10.200.0.0/16 unless told (once for IPv4, once for IPv6).
    #[arg(long, value_name = "PREFIX")]
    pub pool: Vec<String>,
    /// Policy file (TOML).
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RunArguments {
    // What is flattened comes last, here and below: its heading would be that of whatever stood behind it.
    /// The command and its arguments.
    #[arg(last = true, value_name = "CMD", required = true)]
    pub command: Vec<OsString>,
    #[command(flatten)]
    pub policy: PolicyArguments,
    #[command(flatten)]
    pub options: OptionArguments,
}

/// Flags that are about the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Command")]
pub struct OptionArguments {
    /// User to run as, by number; the user who called sudo unless told, where there is one.
    #[arg(long, value_name = "UID[:GID]")]
    pub user: Vec<String>,
    /// Variable for the command's environment (repeatable).
    #[arg(long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Name of the sandbox: its namespace is visible to ip-netns(8) under that name.
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    /// No PID namespace of its own.
    #[arg(long, overrides_with = "share_pid")]
    pub share_pid: bool,
    /// Leave no capability.
    #[arg(long, conflicts_with = "keep_caps", overrides_with = "drop_caps")]
    pub drop_caps: bool,
    /// Capabilities to keep, instead of those that Docker keeps without NET_RAW (repeatable, comma-separated).
    #[arg(long, value_name = "CAP,…")]
    pub keep_caps: Vec<String>,
    #[command(flatten)]
    pub confinement: ConfinementArguments,
    #[command(flatten)]
    pub telling: TellingArguments,
}

/// Flags about the files that the command may touch, and the system calls that it may make.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Files and system calls")]
pub struct ConfinementArguments {
    /// Keep the command from files with Landlock: `off`, `best-effort` or `required`; off unless told, or paths are named.
    #[arg(long, value_name = "MODE")]
    pub landlock: Vec<String>,
    /// Path that the command may read, besides what ordinary programs need (repeatable).
    #[arg(long, value_name = "PATH")]
    pub ro: Vec<String>,
    /// Path that the command may write, besides its working directory and what ordinary programs need (repeatable).
    #[arg(long, value_name = "PATH")]
    pub rw: Vec<String>,
    /// System calls that are refused: `default`, `userns` (the same, but new user namespaces may be made) or `off`.
    #[arg(long, value_name = "MODE")]
    pub seccomp: Vec<String>,
}

/// Flags about what is told, and to whom.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is told")]
pub struct TellingArguments {
    /// Tell what is refused, a JSON object a line, to a file, standard error (`-`) or an open descriptor.
    #[arg(long, value_name = "FILE|-|fd:N")]
    pub events: Vec<String>,
    /// In which words events are told: `json`, our own, or `ocsf`.
    #[arg(long, value_name = "FORMAT")]
    pub events_format: Vec<String>,
    /// Show what the fence counts, in the words of Prometheus: a file that is replaced from time to time, or a socket that answers HTTP.
    #[arg(long, value_name = "FILE|unix:PATH")]
    pub metrics: Vec<String>,
    /// With --audit, write the policy that would have allowed what was used to this file.
    #[arg(long, value_name = "FILE")]
    pub learn: Vec<String>,
    /// Say nothing but errors.
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say what is done; twice, with every detail.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Args)]
pub struct PlanArguments {
    /// How the plan is shown.
    #[arg(long, value_enum, default_value_t = PlanFormat::Text)]
    pub format: PlanFormat,
    #[command(flatten)]
    pub policy: PolicyArguments,
    #[command(flatten)]
    pub confinement: ConfinementArguments,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PlanFormat {
    Text,
    Json,
    Nft,
    Dot,
}

#[derive(Debug, Args)]
pub struct ChangeArguments {
    #[command(subcommand)]
    pub change: Change,
}

#[derive(Debug, clap::Subcommand)]
pub enum Change {
    /// Print the policy as it is now, as a policy file.
    Show(NamedArguments),
    /// Put another policy in its place, and cut what that does not let through.
    Set(Box<SetArguments>),
    /// Add destinations and direct endpoints.
    Allow(EntryArguments),
    /// Take destinations and direct endpoints away, and cut their flows.
    Revoke(EntryArguments),
}

#[derive(Debug, Args)]
pub struct NamedArguments {
    /// Name of the sandbox.
    #[arg(value_name = "SANDBOX")]
    pub sandbox: String,
}

#[derive(Debug, Args)]
pub struct SetArguments {
    #[command(flatten)]
    pub named: NamedArguments,
    #[command(flatten)]
    pub policy: PolicyArguments,
}

#[derive(Debug, Args)]
pub struct EntryArguments {
    /// Destination of the built-in proxy's (repeatable, comma-separated).
    #[arg(long, value_name = "HOST[:PORT]")]
    pub allow: Vec<String>,
    /// Direct TCP endpoint (repeatable, comma-separated).
    #[arg(long, value_name = "HOST:PORT")]
    pub direct: Vec<String>,
    /// Direct UDP endpoint (repeatable, comma-separated).
    #[arg(long, value_name = "HOST:PORT")]
    pub direct_udp: Vec<String>,
    /// Direct TCP endpoint at port 443 of a host (repeatable, comma-separated).
    #[arg(long, value_name = "HOST")]
    pub direct_host: Vec<String>,
    #[command(flatten)]
    pub named: NamedArguments,
}

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// How the report is shown.
    #[arg(long, value_enum, default_value_t = DoctorFormat::Text)]
    pub format: DoctorFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum DoctorFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Network namespace that the group is in: a path, or a name that ip-netns(8) knows; the caller's own unless told.
    #[arg(long, value_name = "PATH|NAME")]
    pub netns: Option<OsString>,
    /// Number of the group.
    #[arg(long, value_name = "N")]
    pub group: u16,
}

#[derive(Debug, Args)]
pub struct RulesArguments {
    #[command(subcommand)]
    pub what: Rules,
    /// Network namespace that the ruleset is of: a path, or a name that ip-netns(8) knows; the caller's own unless told.
    #[arg(long, value_name = "PATH|NAME", global = true)]
    pub netns: Option<OsString>,
}

#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub enum Rules {
    /// Print the whole ruleset as JSON.
    Save,
    /// Load what `save` printed from standard input, in one transaction, in place of the whole ruleset that is there.
    Restore,
    /// Print the whole ruleset in nft(8) syntax.
    List,
}
