#!/usr/bin/env python3
"""Writes what the kernel says about a ruleset into fuzz/corpus/{netlink,nftables}, one datagram a file, and what it says
about refused packets into fuzz/corpus/{nflog,packet}, about flows into conntrack, about sockets into inet_diag, about links, addresses and
routes into rtnetlink. What more than one decoder reads goes into netfilter too.

Run it in a network namespace of its own, as root:

    unshare -n fuzz/capture.py
"""
import pathlib
import socket
import struct
import subprocess

NETFILTER, ROUTE = 12, 0
REQUEST, ACK, DUMP = 1, 4, 0x300
RULES = """
table inet guard {
    comment "kept"
    set direct4 { type ipv4_addr . inet_proto . inet_service; size 64; elements = { 203.0.113.9 . tcp . 443 comment "web", 203.0.113.9 . udp . 53 }; }
    set ranges { type ipv6_addr; flags interval; elements = { 2001:db8::/64, 2001:db8:1::1-2001:db8:1::9 }; }
    set fading { type inet_service; flags timeout; timeout 1h; elements = { 80 timeout 10m, 443 }; }
    chain refuse { counter meta l4proto tcp reject with tcp reset; reject with icmpx admin-prohibited; }
    chain output {
        type filter hook output priority 0; policy drop;
        oif 1 accept
        ip daddr . ip protocol . th dport @direct4 counter accept comment "direct"
        ip6 daddr @ranges tcp dport != @fading accept
        ct state established,related ct status dnat accept
        meta mark & 0xff == 0x1 limit rate over 10/second burst 7 packets drop
        meta skuid 1000-2000 log group 1 prefix "bypass-tcp " snaplen 96 queue-threshold 1
        goto refuse
    }
    chain leave { type nat hook postrouting priority srcnat; masquerade; }
}
table netdev wire { chain egress { type filter hook egress device "lo" priority 0; meta protocol arp accept; }; }
table ip foreign { chain x { ip ttl set 3; tcp option maxseg size set 1000; }; }
"""

# Without the rules above, for connection tracking puts fragments together before anything else sees them.
REFUSE = """
flush ruleset
table inet refuse { chain output {
    type filter hook output priority 0; policy accept;
    meta l4proto tcp log prefix "bypass-tcp" group 1 snaplen 128 queue-threshold 1 drop
    meta l4proto udp log prefix "bypass-udp" group 1 snaplen 128 queue-threshold 1 drop
    meta l4proto icmp log prefix "bypass-icmp" group 1 snaplen 128 queue-threshold 1 drop
    icmpv6 type echo-request log prefix "bypass-icmpv6" group 1 snaplen 128 queue-threshold 1 drop
    meta l4proto != icmpv6 log prefix "bypass-other" group 1 snaplen 128 queue-threshold 1 drop
}; }
"""
LINK = """
link add wire0 type veth peer name wire1
link set wire1 up
link set wire0 up
addr add 10.200.0.2/24 dev wire0
addr add 2001:db8:200::2/64 dev wire0 nodad
route add default dev wire0
route add ::/0 dev wire0
"""


def ask(protocol, kind, flags, payload):
    """One question; gives each datagram of the answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as s:
        for option in (11, 10):  # NETLINK_EXT_ACK, NETLINK_CAP_ACK
            s.setsockopt(270, option, 1)
        s.settimeout(0.5)
        s.sendto(struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload, (0, 0))
        found = []
        try:
            while len(found) < 4:
                found.append(s.recv(1 << 16))
                if struct.unpack_from("=H", found[-1], 4)[0] in (2, 3):
                    break
        except TimeoutError:
            pass
        return found


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def logged():
    """What nflog says of one refused packet of each kind."""
    subprocess.run(["ip", "-batch", "-"], input=LINK, text=True, check=True)
    subprocess.run(["nft", "-f", "-"], input=REFUSE, text=True, check=True)
    four, six, port = "203.0.113.10", "2001:db8::a", 443
    found = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as s:
        # Bind, 128 bytes of each packet, one at a time, numbered.
        settings = attribute(1, b"\1") + attribute(2, struct.pack(">IBB", 128, 2, 0))
        settings += attribute(5, struct.pack(">I", 1)) + attribute(6, struct.pack(">H", 3))
        s.sendto(struct.pack("=IHHII", 20 + len(settings), 4 << 8 | 1, REQUEST | ACK, 1, 0) + b"\0\0\0\1" + settings, (0, 0))
        s.settimeout(2)
        s.recv(1 << 16)

        def refused(name, family, kind, protocol, payload, setup=lambda sender: None):
            with socket.socket(family, kind, protocol) as sender:
                sender.setblocking(False)
                setup(sender)
                try:
                    to = (four if family == socket.AF_INET else six, 0 if kind == socket.SOCK_RAW else port)
                    sender.connect(to) if kind == socket.SOCK_STREAM else sender.sendto(payload, to)
                except (BlockingIOError, PermissionError):
                    pass
                found["refused-" + name] = s.recv(1 << 16)

        in4, in6, raw = socket.AF_INET, socket.AF_INET6, socket.SOCK_RAW
        refused("tcp", in4, socket.SOCK_STREAM, 0, b"")
        refused("tcp6", in6, socket.SOCK_STREAM, 0, b"")
        refused("udp", in4, socket.SOCK_DGRAM, 0, b"question")
        refused("udp6-marked", in6, socket.SOCK_DGRAM, 0, b"question", lambda s: s.setsockopt(socket.SOL_SOCKET, 36, 0xCAFE))
        refused("udp-cut", in4, socket.SOCK_DGRAM, 0, b"long" * 100)
        refused("udp-options", in4, socket.SOCK_DGRAM, 0, b"x", lambda s: s.setsockopt(0, 4, b"\x07\x0b\x04" + bytes(9)))
        refused("udp6-hop-options", in6, socket.SOCK_DGRAM, 0, b"x", lambda s: s.setsockopt(41, 54, b"\0\0\1\4" + bytes(4)))
        refused("icmp", in4, raw, 1, b"\x08\0\xf7\xf6\0\7\0\1")
        refused("icmpv6", in6, raw, 58, b"\x80\0\0\0\0\7\0\1")
        refused("sctp", in4, raw, 132, struct.pack(">HHII", 1000, port, 0, 0))
        refused("gre", in4, raw, 47, bytes(8))
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, 7, 0x2000, 64, 17, 0, socket.inet_aton("10.200.0.2"), socket.inet_aton(four))
        refused("fragment-first", in4, raw, 255, head + struct.pack(">HHHH", 1000, port, 8, 0))
        refused("fragment-last", in4, raw, 255, head.replace(b"\x20\0\x40", b"\0\1\x40") + b"the rest")
    return found


FLOWS = """
flush ruleset
table inet flows { chain output { type filter hook output priority 0; ct state new accept; }; }
"""


def connections():
    """What conntrack and sock_diag(7) say of a TCP connection and a connected UDP socket of each family, open and half closed."""
    subprocess.run(["nft", "-f", "-"], input=FLOWS, text=True, check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    kept, found = [], {}
    for family, loopback, number in (socket.AF_INET, "127.0.0.1", 2), (socket.AF_INET6, "::1", 10):
        server = socket.socket(family, socket.SOCK_STREAM)
        server.bind((loopback, 0))
        server.listen()
        open_one = socket.create_connection(server.getsockname()[:2])
        half = socket.create_connection(server.getsockname()[:2])
        half.shutdown(socket.SHUT_WR)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.connect((loopback, 53))
        udp.send(b"x")
        kept += [server, open_one, half, udp]
        # CTNETLINK's own number is 1, IPCTNL_MSG_CT_GET is 1; then the family.
        found[f"conntrack/flows{number}"] = ask(NETFILTER, 1 << 8 | 1, REQUEST | DUMP, bytes([number, 0, 0, 0]))
        for protocol in 6, 17:
            which = struct.pack("=BBBBI", number, protocol, 0, 0, 0xFFF) + bytes(48)
            found[f"inet_diag/sockets{number}-{protocol}"] = ask(4, 20, REQUEST | DUMP, which)
    return found


def main():
    corpus = pathlib.Path(__file__).parent / "corpus"
    subprocess.run(["nft", "-f", "-"], input=RULES, text=True, check=True)
    everything = bytes(4)
    answers = {}
    for name, kind in (("tables", 1), ("chains", 4), ("rules", 7), ("sets", 10), ("generation", 16)):
        flags = REQUEST | (0 if name == "generation" else DUMP)
        answers[name] = ask(NETFILTER, 10 << 8 | kind, flags, everything)
    for name in ("direct4", "ranges", "fading"):
        which = attribute(1, b"guard\0") + attribute(2, name.encode() + b"\0")
        answers["elements-" + name] = ask(NETFILTER, 10 << 8 | 13, REQUEST | DUMP, b"\1\0\0\0" + which)
    answers["no-such-table"] = ask(NETFILTER, 10 << 8 | 1, REQUEST | ACK, b"\1\0\0\0" + attribute(1, b"nobody\0"))
    answers["no-name"] = ask(NETFILTER, 10 << 8 | 1, REQUEST | ACK, b"\1\0\0\0")
    for name, datagrams in answers.items():
        for number, datagram in enumerate(datagrams):
            # Large ones by their first messages: a fuzzer gets more out of short seeds.
            for target in ("nftables", "netlink"):
                folder = corpus / target
                folder.mkdir(parents=True, exist_ok=True)
                at = 0
                for index in range(64):
                    if at + 16 > len(datagram):
                        break
                    length = struct.unpack_from("=I", datagram, at)[0]
                    (folder / f"{name}-{number}-{index}").write_bytes(datagram[at : at + length])
                    at += length + -length % 4
    links = ask(ROUTE, 18, REQUEST | DUMP, bytes(16)) + ask(ROUTE, 26, REQUEST | DUMP, bytes(12))
    for number, datagram in enumerate(links):
        (corpus / "netlink" / f"route-{number}").write_bytes(datagram)
    (corpus / "netfilter").mkdir(parents=True, exist_ok=True)
    for seed in (corpus / "nftables").glob("*-[0-9]-[0-9]*"):
        (corpus / "netfilter" / seed.name).write_bytes(seed.read_bytes())
    for name, datagram in logged().items():
        (corpus / "nflog").mkdir(parents=True, exist_ok=True)
        for target in ("nflog", "netfilter"):
            (corpus / target / name).write_bytes(datagram)
        at = 20
        while at + 4 <= len(datagram):
            length, kind = struct.unpack_from("=HH", datagram, at)
            if kind == 9:
                (corpus / "packet").mkdir(parents=True, exist_ok=True)
                packet = datagram[at + 4 : at + length]
                # The target takes the version by its first byte.
                (corpus / "packet" / name).write_bytes(bytes([packet[0] >> 4]) + packet)
            at += length + -length % 4
    # By now there are links with addresses, and routes through them.
    for name, kind, header in (("links", 18, 16), ("addresses", 22, 8), ("routes", 26, 12)):
        (corpus / "rtnetlink").mkdir(parents=True, exist_ok=True)
        at, datagram = 0, ask(ROUTE, kind, REQUEST | DUMP, bytes(header))[0]
        for index in range(16):
            if at + 16 > len(datagram):
                break
            length = struct.unpack_from("=I", datagram, at)[0]
            (corpus / "rtnetlink" / f"{name}-{index}").write_bytes(datagram[at : at + length])
            at += length + -length % 4
    for name, datagrams in connections().items():
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_bytes(datagrams[0])
        if name.startswith("conntrack/"):
            (corpus / "netfilter" / name.removeprefix("conntrack/")).write_bytes(datagrams[0])


if __name__ == "__main__":
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise SystemExit("there are links here: run it as `unshare -n fuzz/capture.py`")
    main()
