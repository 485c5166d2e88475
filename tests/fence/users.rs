//! What a program may try that keeps capabilities: they are those of a user namespace of its own, and worth nothing on the host.

use std::process::Stdio;

use ringfence::kernel::child::{Capabilities, CapabilitySet};
use ringfence::kernel::rtnetlink;
use ringfence::policy::Policy;
use ringfence::{Command, ErrorKind, Host, Sandbox, SandboxOptions};

use super::support::{Outer, PROBE, Shape, finish, python, skip, until};
use super::{CONTROL, DIRECT, clean, nothing_else_was_seen, proves};

/// Everything that could be of use against the host.
const MUCH: &str = "--keep-caps NET_ADMIN,NET_RAW,NET_BROADCAST,SYS_ADMIN,SYS_PTRACE,SYS_MODULE,SYS_RAWIO,SYS_CHROOT,\
                    BPF,PERFMON,DAC_OVERRIDE,DAC_READ_SEARCH,SETUID,SETGID,SETPCAP,KILL,MKNOD";

/// Whether iproute2 is there; without it, says so loudly.
fn iproute2() -> bool {
    let there = std::process::Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !there {
        skip("no iproute2 for links of the program's own");
    }
    there
}

/// The number of the host's uplink, which is no secret.
fn uplink(outer: &Outer) -> u32 {
    outer.host.run(|| rtnetlink::Socket::open().unwrap().link_named("up0").unwrap().index.0).unwrap()
}

/// Opens a namespace and enters it, by way of the user namespace that owns it, if need be. Says which of the two steps was refused.
const ENTER: &str = "
import ctypes, fcntl, os, sys
enter = ctypes.CDLL(None, use_errno=True).setns
def setns(fd, kind):
    if enter(fd, kind):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
for pid in sys.argv[1:]:
    for how in ['setns', 'pidfd', 'owner']:
        try:
            if how == 'pidfd':
                setns(os.pidfd_open(int(pid)), 0x40000000)
            else:
                fd = os.open(f'/proc/{pid}/ns/net', os.O_RDONLY)
                if how == 'owner':
                    setns(fcntl.ioctl(fd, 0xb701), 0x10000000)
                setns(fd, 0x40000000)
            print('GOT', how, pid, flush=True)
            os.system('ip link')
        except OSError as error:
            print('refused', how, pid, error, flush=True)
    for name in ['root', 'cwd', 'fd/3', 'ns/net', 'ns/user', 'ns/mnt']:
        try:
            os.stat(f'/proc/{pid}/{name}')
            print('GOT', name, pid, flush=True)
        except OSError as error:
            print('refused', name, pid, error, flush=True)
";

#[test]
fn links_on_the_hosts_network() {
    proves(&["The host's own links, and any other namespace, with whatever capabilities are kept."]);
    for router in [false, true] {
        let (Some(outer), Some(python)) = (Outer::shaped(Shape { router, ..Shape::default() }), python()) else {
            return;
        };
        if !iproute2() {
            return;
        }
        let wire = outer.watch();
        let index = uplink(&outer);
        // The control: with the host's own CAP_NET_ADMIN it takes no more than that.
        let plain = format!(
            "exec unshare --net sh -c 'ip link add c0 type veth peer name c1 netns '$PPID'
                ip link add link if{index} name m0 link-netnsid 0 type macvlan && echo GOT'"
        );
        // `$PPID` must be somebody on the host, which the thread that starts the shell is not, as far as /proc shows.
        let shell = format!("sh -c {}; exit 0", quoted(&plain));
        let said = outer.output(std::process::Command::new("sh").args(["-c", &shell]));
        assert_eq!(String::from_utf8_lossy(&said.stdout), "GOT\n", "{}", String::from_utf8_lossy(&said.stderr));
        until("the control is gone", || clean(&outer));

        for flags in ["", "--share-pid", "--user 65534:65534"] {
            let attempts = [
                format!("ip link add link if{index} name m1 link-netnsid 0 type macvlan mode bridge"),
                format!("ip link add link if{index} name m2 link-netnsid 0 type macvlan mode passthru"),
                format!("ip link add link if{index} name m3 link-netnsid 0 type macvtap"),
                format!("ip link add link if{index} name i1 link-netnsid 0 type ipvlan mode l2"),
                format!("ip link add link if{index} name l1 link-netnsid 0 type vlan id 5"),
                "ip link add name v1 link-netnsid 0 type veth peer name v2".to_owned(),
                "ip link add name t1 link-netnsid 0 type gre remote 203.0.113.9 local 198.51.100.1".to_owned(),
            ];
            let attempts: String = attempts.map(|attempt| format!("{attempt} 2>&1 && echo GOT a link\n")).concat();
            let moves = if flags == "--share-pid" {
                "supervisor=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)
                 for pid in $PPID $supervisor 1; do readlink /proc/$pid/ns/net && echo GOT a namespace; done
                 for pid in $supervisor 1; do
                    ip link add name v3 type veth peer name v4 netns $pid && echo GOT a link
                    ip link set eth0 netns $pid && echo GOT the host
                    nsenter --target $pid --net true && echo GOT the host
                    nsenter --target $pid --user --net true && echo GOT the host
                 done
                 ENTER $supervisor 1"
            } else {
                // The reaper, which is in the sandbox's network, but not in its user namespace.
                "for what in net user mnt pid; do nsenter --target 1 --$what true && echo GOT $what of the reaper; done
                 ENTER 1"
            };
            let script = format!(
                "{attempts}{}
                 unshare --mount mount -o remount,rw,bind /proc/sys && echo GOT /proc/sys
                 umount /proc/sys && echo GOT /proc/sys
                 mount -t tmpfs none /mnt && echo GOT a mount
                 unshare --mount --pid --fork mount -t proc none /mnt && echo GOT a procfs
                 hostname stolen && echo GOT the name
                 {python} -I {PROBE} {}",
                moves.replace("ENTER", &format!("{python} -I -c {}", quoted(ENTER))),
                CONTROL.trim_start_matches("+ ")
            );
            let said = outer.run(&format!("{DIRECT} {MUCH} {flags}"), &["sh", "-c", &script]);
            assert!(!said.contains("GOT"), "{flags}: {said}");
            // Refused for want of the capability there, whatever kinds of links this kernel has.
            assert_eq!(said.matches("RTNETLINK answers: Operation not permitted").count(), 7, "{flags}: {said}");
            assert!(said.matches("refused").count() >= 9, "{flags}: {said}");
        }
        nothing_else_was_seen(&wire);
    }
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', r"'\''"))
}

#[test]
fn in_its_own_network_it_may_do_everything() {
    let (Some(outer), true) = (Outer::new(), iproute2()) else { return };
    for flags in ["", "--share-pid", "--user 65534:65534"] {
        let script = "set -e
            ip link add v0 type veth peer name v1; ip link set v0 up; ip addr add 192.0.2.1/24 dev v0
            ip link add link eth0 name m0 type macvlan; ip link del m0
            ip link set eth0 promisc on; tc qdisc add dev eth0 root tbf rate 1mbit burst 2000 limit 10000
            nft list ruleset | grep -q ringfence; nft flush ruleset; test -z \"$(nft list ruleset)\"; nft add table inet mine
            unshare --net ip link set lo up
            if test $(id -u) = 0; then unshare --mount mount -t tmpfs none /mnt; fi
            ip link del v0; echo all of it";
        let said = outer.run(&format!("{DIRECT} {MUCH} --tampering report {flags}"), &["sh", "-c", script]);
        assert_eq!(said, "all of it\n", "{flags}");
    }
}

/// The fields of /proc/self/status that tell who somebody is, and the user namespace.
const WHO: &str = "sed -n 's/^\\(Uid\\|Gid\\|Groups\\|Cap[A-Z][a-z]*\\|NoNewPrivs\\):[[:space:]]*/\\1 /p' /proc/self/status \
                   | tr -s '\\t ' ' '; cat /proc/self/uid_map | tr -s ' '; readlink /proc/self/ns/user";

#[test]
fn it_holds_what_it_was_to_keep() {
    let Some(outer) = Outer::new() else { return };
    let ours = std::fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    for (kept, bits, own) in
        [("NET_RAW,CHOWN", 0x2001u64, false), ("NET_ADMIN,CHOWN", 0x1001, true), (&MUCH[12..], 0, true)]
    {
        for (user, ids, ambient) in [("", "0 0 0 0", false), ("--user 65534:65533", "65534 65534 65534 65534", true)] {
            for more in ["", "--share-pid"] {
                let said = outer.run(&format!("--keep-caps {kept} {user} {more}"), &["sh", "-c", WHO]);
                let field = |name: &str| {
                    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                    line.unwrap_or_else(|| panic!("no {name} in {said}")).trim().to_owned()
                };
                let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
                let bits = if bits == 0 { set("CapBnd") } else { bits };
                assert_eq!(bits.count_ones() as usize, kept.split(',').count(), "{said}");
                let extra = if ambient { bits } else { 0 };
                let sets = ["CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"].map(set);
                assert_eq!(sets, [bits, bits, bits, extra, extra], "--keep-caps {kept} {user}: {said}");
                assert_eq!((field("Uid").as_str(), field("NoNewPrivs").as_str()), (ids, "1"));
                assert_eq!(!said.contains(&ours), own, "--keep-caps {kept}: {said}");
                let first = map.split_whitespace().next().unwrap();
                assert!(said.contains(&format!(" {first} ")), "{said}");
            }
        }
    }
}

#[test]
fn files_are_as_they_were() {
    let Some(outer) = Outer::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "somebody's\n").unwrap();
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let script = format!(
        "cd {0}; cat secret 2>/dev/null || echo no; stat -c %u:%g secret; chown 12:34 secret 2>/dev/null && stat -c %u:%g secret; pwd",
        directory.path().display()
    );
    let here = directory.path().display();
    let all = outer.run("--keep-caps NET_ADMIN,DAC_OVERRIDE,CHOWN --user 0:0", &["sh", "-c", &script]);
    assert_eq!(all, format!("somebody's\n65534:65534\n12:34\n{here}\n"));
    let none = outer.run("--keep-caps NET_ADMIN --user 0:0", &["sh", "-c", &script]);
    assert_eq!(none, format!("no\n12:34\n{here}\n"));
}

#[test]
fn root_of_another_sandbox_has_no_power_there() {
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    let wire = outer.watch();
    // Root with what Docker keeps and no more, who sees every process: were the other's user namespace root's, he had all capabilities in it.
    let flags = format!("run {DIRECT} --keep-caps NET_ADMIN --user 0:0 -- sh -c");
    let mut other = outer.ringfence(flags.split_whitespace().chain(["echo $$; exec cat"]));
    let mut other = outer.spawn(other.arg("").stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut line = String::new();
    let mut said = std::io::BufReader::new(other.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    // Its command is the only grandchild of the supervisor, whose children are the reaper and a guard.
    let script = format!(
        "for child in $(cat /proc/{0}/task/*/children); do command=\"$command $(cat /proc/$child/task/*/children)\"; done
                  test -n \"$command\" || exit 9
         {python} -I -c {1} $command",
        other.id(),
        quoted(ENTER)
    );
    let said = outer.run("--user 0:0 --share-pid --direct 203.0.113.9:9", &["sh", "-c", &script]);
    assert!(!said.contains("GOT") && said.matches("refused").count() == 9, "{said}");
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    assert!(wire.strangers(|_| false).is_empty());
}

/// Becomes the owner of user namespaces by every call there is, and enters a namespace by way of the user namespace that owns it.
const BECOME: &str = "
import ctypes, errno, fcntl, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
owner = max(int(first) + int(count) - 1 for first, _, count in (line.split() for line in open('/proc/self/uid_map')))
network = os.open(sys.argv[1], os.O_RDONLY)
for name, ids in [('setresuid', (-1, -1, owner)), ('setresuid', (-1, owner, -1)), ('setresuid', (owner, owner, owner)),
                  ('setreuid', (owner, -1)), ('setreuid', (owner, owner)), ('setuid', (owner,))]:
    try:
        getattr(os, name)(*ids)
        print('GOT', name, os.getresuid(), flush=True)
    except OSError as error:
        print('refused', name, errno.errorcode[error.errno], flush=True)
# Whoever is another user still is one of the host's.
os.setresuid(1, 1, 0)
os.setresuid(0, 0, 0)
if libc.setns(fcntl.ioctl(network, 0xb701), 0x10000000) == 0 or libc.setns(network, 0x40000000) == 0:
    print('GOT a namespace', flush=True)
try:
    print('GOT', socket.create_connection(('203.0.113.9', 5432), 10))
except OSError as error:
    print('refused', error.errno == errno.ECONNREFUSED)
";

#[test]
fn nobody_becomes_the_owner_of_a_sandbox() {
    let (Some(outer), Some(python)) = (Outer::new(), python()) else { return };
    let wire = outer.watch();
    let name = format!("owned-{}", std::process::id());
    let flags = format!("run {DIRECT} --name {name} --keep-caps NET_ADMIN --user 0:0 -- sh -c");
    let mut other = outer.ringfence(flags.split_whitespace().chain(["echo up; exec cat"]));
    let mut other = outer.spawn(other.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut said = std::io::BufReader::new(other.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
    for flags in
        ["--seccomp off", "--seccomp userns", "", "--seccomp off --share-pid", "--seccomp off --keep-caps SETUID"]
    {
        let said =
            outer.run(&format!("--user 0:0 {flags}"), &[python, "-I", "-c", BECOME, &format!("/run/netns/{name}")]);
        assert!(!said.contains("GOT") && said.matches("EPERM").count() == 6, "{flags}: {said}");
        assert!(said.ends_with("refused True\n"), "{flags}: {said}");
    }
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    assert!(wire.strangers(|_| false).is_empty());
}

/// Of which number that is, the user namespace decides.
#[test]
fn nobody_is_started_as_the_owner() {
    let Some(outer) = Outer::new() else { return };
    let output = outer.output(&mut outer.ringfence(["run", "--user", "4294967294", "--", "true"]));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "`4294967294` is no number from 0 to 4294967293";
    assert!(output.status.code() == Some(125) && said.contains(expected), "{said}");

    // In a user namespace with so many users.
    let run = |users: u32, user: &str, command: &str| {
        let ringfence = env!("CARGO_BIN_EXE_ringfence");
        let script = format!("echo up; read go; exec {ringfence} run --dns off --user {user} -- {command}");
        let mut child = std::process::Command::new("unshare");
        child.args(["--user", "--net", "--mount", "sh", "-c", &script]).stdin(Stdio::piped());
        let mut child = outer.spawn(child.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{}/{map}", child.id()), format!("0 0 {users}\n")).unwrap();
        }
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        let output = finish(child);
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = run(1000, "999:0", "true");
    let expected = "can't run as user 999: the user namespaces of sandboxes belong to that number";
    assert!(code == Some(125) && said.contains(expected), "{said}");
    let id_of = |user: u32| format!("setpriv --reuid {user} id -u");
    assert_eq!(run(1000, "0:0", &id_of(998)), (Some(0), "998\n".into()));
    let (code, said) = run(1000, "0:0", &id_of(999));
    assert!(code != Some(0) && said.contains("Operation not permitted"), "{said}");
    // Everybody there is the owner, and stays who that is.
    assert_eq!(run(1, "0:0", &id_of(0)), (Some(0), "0\n".into()));
}

#[test]
fn the_library_refuses_what_would_hold_on_the_host() {
    let Some(outer) = Outer::new() else { return };
    let start = |capabilities: Capabilities, user_namespace: bool| {
        let policy = Policy::builder().allow("203.0.113.9").unwrap().build().unwrap();
        let started = async move {
            let host = Host::open()?;
            let options = SandboxOptions { user_namespace, ..SandboxOptions::default() };
            let sandbox = Sandbox::prepare_with(&host, policy, options).await?;
            let mut running = sandbox.spawn(Command::new("true").capabilities(capabilities)).await?;
            let status = running.wait().await?;
            running.close().await?;
            Ok::<_, ringfence::Error>(status.code_for_shell())
        };
        let run = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(started);
        outer.host.run(run).unwrap()
    };
    let set = |names: &str| names.split(',').map(|name| name.parse().unwrap()).collect::<CapabilitySet>();
    for within in [Capabilities::Default, Capabilities::None, Capabilities::Keep(set("NET_RAW,CHOWN,KILL"))] {
        assert_eq!(start(within, false).unwrap(), 0, "{within:?}");
        assert_eq!(start(within, true).unwrap(), 0, "{within:?}");
    }
    for beyond in [Capabilities::Keep(set("KILL,NET_ADMIN")), Capabilities::Keep(set("BPF")), Capabilities::All] {
        let error = start(beyond, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Policy, "{error:?}");
        let named = if beyond == Capabilities::Keep(set("BPF")) { "CAP_BPF" } else { "CAP_NET_ADMIN" };
        assert!(error.to_string().contains(named) && !error.to_string().contains("CAP_KILL"), "{error}");
        assert_eq!(error.advice(), Some("prepare the sandbox with SandboxOptions::user_namespace"));
        assert_eq!(start(beyond, true).unwrap(), 0, "{beyond:?}");
    }
    until("everything is gone", || clean(&outer));
}
