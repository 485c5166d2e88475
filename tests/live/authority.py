"""Answers for names over UDP: python3 authority.py ADDRESS '{"name": [ttl, ["address", ...]]}'. Several addresses take turns if ttl is negative."""
import ipaddress, json, socket, struct, sys

names, turn = json.loads(sys.argv[2]), {}
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 53))
print("up", flush=True)
while True:
    query, peer = sock.recvfrom(4096)
    try:
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
        question = query[12 : at + 5]
        ttl, all = names.get(".".join(labels).lower(), (None, []))
        found = [ipaddress.ip_address(a) for a in all]
        found = [a for a in found if a.version == {1: 4, 28: 6}.get(kind)]
        if ttl is not None and ttl < 0 and found:
            n = turn[at, kind] = turn.get((at, kind), -1) + 1
            found, ttl = [found[n % len(found)]], -ttl
        answers = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(a.packed)) + a.packed for a in found)
        code = 0 if ttl is not None else 3
        header = query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(found), 0, 0)
        sock.sendto(header + question + answers, peer)
    except Exception as error:
        print(error, file=sys.stderr, flush=True)
