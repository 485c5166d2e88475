//! What `run` needs of the kernel and of its caller, in words.

use crate::doctor::Feature;

const NF_TABLES: &str = "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET, or: modprobe nf_tables";

const fn required(name: &'static str, needed_for: &'static str, how: &'static str) -> Feature {
    Feature { name, required: true, needed_for, without: "nothing can be fenced", how }
}

const fn optional(name: &'static str, needed_for: &'static str, without: &'static str, how: &'static str) -> Feature {
    Feature { name, required: false, needed_for, without, how }
}

// Privileges.
pub(super) const CAPABILITIES: Feature = required(
    "capabilities",
    "namespaces and mounts (CAP_SYS_ADMIN), links and rules (CAP_NET_ADMIN), taking capabilities from the command (CAP_SETPCAP)",
    "run it with sudo; in a container, add the capabilities: --cap-add NET_ADMIN --cap-add SYS_ADMIN",
);
pub(super) const HOST_ADMIN: Feature = required(
    "CAP_NET_ADMIN on the host",
    "the host's end of the wire, and the fence there",
    "CAP_NET_ADMIN in the user namespace that owns the present network namespace: run it with sudo, or give the user \
     namespace a network namespace of its own (unshare --user --map-root-user --net)",
);
pub(super) const HOST_ENTRY: Feature = required(
    "entering the host's namespace",
    "work on the host's side from any thread",
    "CAP_SYS_ADMIN in the user namespace that owns the present network namespace, and in one's own",
);

// The wire.
pub(super) const NETNS: Feature = required(
    "network namespaces",
    "every sandbox",
    "CONFIG_NET_NS, and CAP_SYS_ADMIN: run it with sudo, or in a user namespace: unshare --user --map-root-user --net",
);
pub(super) const VETH: Feature =
    required("veth", "the wire between sandbox and host", "CONFIG_VETH, or: modprobe veth");
pub(super) const IPV6: Feature = optional(
    "IPv6 without link-local addresses",
    "IPv6 in a sandbox",
    "the sandbox has IPv4 alone",
    "CONFIG_IPV6, and a kernel that was not started with ipv6.disable=1",
);
pub(super) const EXT_ACK: Feature = optional(
    "extended acknowledgements",
    "errors that say in the kernel's own words what was wrong",
    "errors give a number and the operation alone",
    "Linux 4.15 or later",
);

// The rules.
pub(super) const NFTABLES: Feature = required("nf_tables", "both rulesets", NF_TABLES);
pub(super) const INET: Feature = required("tables of family inet", "rules for IPv4 and IPv6 at once", NF_TABLES);
pub(super) const CONCAT: Feature =
    required("concatenated sets", "address, protocol and port of an endpoint in one look-up", NF_TABLES);
pub(super) const REJECT: Feature =
    required("reject", "refusing at once", "CONFIG_NFT_REJECT, or: modprobe nft_reject_inet");
pub(super) const LOG: Feature = required(
    "log to an nflog group",
    "handing refused packets to whoever listens",
    "CONFIG_NFT_LOG and CONFIG_NETFILTER_NETLINK_LOG, or: modprobe -a nft_log nfnetlink_log",
);
pub(super) const EGRESS: Feature = required(
    "netdev egress hook",
    "stopping frames that pass by the output hook, as those of AF_PACKET do",
    "Linux 5.16 or later, with CONFIG_NETFILTER_EGRESS and CONFIG_NF_TABLES_NETDEV",
);
pub(super) const OWNER: Feature = required(
    "owner tables",
    "a table on the host that goes with its supervisor, even a killed one",
    "Linux 5.12 or later",
);
pub(super) const PERSIST: Feature = optional(
    "persistent owner tables",
    "programs that use the library and want a table to outlive its owner; `run` does not",
    "a table with an owner goes with it",
    "Linux 6.9 or later",
);
pub(super) const FENCE: Feature = required(
    "the whole fence",
    "everything: wire and both rulesets are made in scratch namespaces, committed and read back",
    "see what is missing above",
);

// Direct endpoints.
pub(super) const CONNTRACK: Feature = optional(
    "conntrack",
    "direct endpoints: telling answers from new flows",
    "--direct, --direct-udp, --direct-host and --proxy-at fail; --allow and --proxy work",
    "CONFIG_NF_CONNTRACK and CONFIG_NFT_CT, or: modprobe -a nf_conntrack nft_ct",
);
pub(super) const MASQUERADE: Feature = optional(
    "masquerade",
    "direct endpoints: lending a flow the host's address, IPv4 and IPv6",
    "--direct, --direct-udp, --direct-host and --proxy-at fail; --allow and --proxy work",
    "CONFIG_NFT_NAT and CONFIG_NFT_MASQ, or: modprobe -a nft_chain_nat nft_masq",
);
pub(super) const ROUTING: Feature = optional(
    "the fence with direct endpoints",
    "direct endpoints: what they add to the host's rules, committed and read back",
    "--direct, --direct-udp, --direct-host and --proxy-at fail; --allow and --proxy work",
    "see what is missing above",
);
pub(super) const FORWARD4: Feature = optional(
    "IPv4 forwarding of one interface",
    "direct endpoints with an IPv4 address",
    "they fail; --allow and --proxy work",
    "CAP_NET_ADMIN; it is set over rtnetlink and needs no writable /proc/sys",
);
pub(super) const FORWARD6: Feature = optional(
    "IPv6 forwarding of one interface",
    "direct endpoints with an IPv6 address",
    "they fail; those with an IPv4 address, --allow and --proxy work",
    "Linux 6.17 or later (force_forwarding) and a procfs that may be written; or make the host a router yourself: \
     sysctl net.ipv6.conf.all.forwarding=1",
);

// The command.
pub(super) const NO_NEW_PRIVS: Feature =
    required("no_new_privs", "keeping set-uid programs from giving the command more", "Linux 3.5 or later");
pub(super) const CLOSE_RANGE: Feature = required(
    "close_range",
    "keeping the supervisor's files from the command",
    "Linux 5.9 or later, and a seccomp filter that knows it",
);
pub(super) const SECCOMP: Feature = required(
    "seccomp filters",
    "refusing system calls that get round the fence: --seccomp",
    "CONFIG_SECCOMP_FILTER, and Linux 4.14 or later",
);
pub(super) const CHILD: Feature = required(
    "a command in a mount namespace",
    "every command: clone3, pidfd, read-only /proc/sys, capability sets",
    "CAP_SYS_ADMIN and CAP_SETPCAP, Linux 5.9 or later, and a seccomp filter that knows clone3",
);
pub(super) const PID_NAMESPACE: Feature = optional(
    "PID namespace with its own /proc",
    "keeping the command from seeing, and outliving, others",
    "`run` needs --share-pid",
    "CONFIG_PID_NS; in a container that masks parts of /proc: --security-opt systempaths=unconfined, or --share-pid",
);
pub(super) const LANDLOCK: Feature = optional(
    "Landlock",
    "keeping the command from files: --landlock, --ro, --rw",
    "--landlock required fails, --landlock best-effort keeps it from no file",
    "Linux 5.13 or later (6.2 to keep files from being truncated), CONFIG_SECURITY_LANDLOCK, and `landlock` in lsm=",
);
pub(super) const USER: Feature = optional(
    "becoming another user",
    "--user, and running as the user who called sudo",
    "the command runs as whoever runs ringfence; --user fails",
    "CAP_SETUID and CAP_SETGID; in a user namespace, more than one mapped user (newuidmap)",
);

// Who tried.
pub(super) const WHO_BPF: Feature = optional(
    "who tried: by BPF",
    "the process behind each refused packet, for certain",
    "by seccomp, which costs each attempt more and can't prove as much",
    "Linux 6.4 with CONFIG_NETFILTER_BPF_LINK and CONFIG_DEBUG_INFO_BTF; CAP_BPF and CAP_PERFMON on the machine",
);
pub(super) const WHO_SECCOMP: Feature = optional(
    "who tried: by seccomp",
    "the process behind each refused packet where there is no BPF",
    "without BPF, too, events say unknown, and the user alone",
    "Linux 5.9, CAP_SYS_PTRACE, and kernel.yama.ptrace_scope below 3",
);
