"""Does what it is told, line by line, and says how it went in one line each."""
import errno, os, socket, sys, time

kept = {}


def name(error):
    if isinstance(error, socket.gaierror):
        return "gaierror"
    return errno.errorcode.get(error.errno, str(error)) if isinstance(error, OSError) else repr(error)


def connect(kind, host, port):
    found = socket.getaddrinfo(host, int(port), type=kind)
    error = None
    for family, kind, proto, _, address in found:
        try:
            sock = socket.socket(family, kind)
            sock.settimeout(3)
            sock.connect(address)
            return sock
        except OSError as e:
            error = e
    raise error


def do(words):
    match words:
        case ["tcp", host, port]:
            sock = connect(socket.SOCK_STREAM, host, port)
            return "connected " + sock.getpeername()[0]
        case ["keep", key, host, port]:
            kept[key] = connect(socket.SOCK_STREAM, host, port)
            return "connected " + kept[key].getpeername()[0]
        case ["echo", key]:
            kept[key].sendall(b"x")
            return "echoed " + str(kept[key].recv(1) == b"x")
        case ["close", key]:
            kept.pop(key).close()
            return "closed"
        case ["udp", host, port]:
            sock = connect(socket.SOCK_DGRAM, host, port)
            sock.sendall(b"x")
            return "answered " + sock.recv(64).decode()
        case ["ping", host]:
            six = ":" in host
            sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, 58 if six else 1)
            sock.settimeout(3)
            # The kernel adds the checksum of ICMPv6 alone.
            sock.sendto(b"\x80\0\0\0\0\7\0\1" if six else b"\x08\0\xf7\xf7\0\7\0\1", (host, 0))
            while sock.recv(64)[0 if six else 20] != (129 if six else 0):
                pass
            return "answered"
        case ["own", host]:
            # The address that it would send from. Connecting a datagram socket sends nothing.
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            sock.connect((host, 9))
            return sock.getsockname()[0]
        case ["listen", key]:
            sock = kept[key] = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            return f"listening {sock.getsockname()[1]}"
        case ["download", proto, host, port]:
            # Reports the first byte at once, and the end.
            sock = connect(socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM, host, port)
            sock.settimeout(10)
            sock.sendall(b"go")
            print("first", len(sock.recv(65536)) > 0, flush=True)
            while True:
                try:
                    if not sock.recv(65536):
                        return "ended"
                except OSError as error:
                    return "cut " + name(error)
        case ["resolve", host]:
            return " ".join(sorted({to[4][0] for to in socket.getaddrinfo(host, 1, type=socket.SOCK_STREAM)}))
        case ["abstract", path]:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect("\0" + path)
            return "connected"
        case ["proxy", host, port]:
            # A tunnel through the built-in proxy, kept as `tunnel`.
            sock = kept["tunnel"] = connect(socket.SOCK_STREAM, "127.0.0.1", 3128)
            sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                part = sock.recv(1)
                if not part:
                    break
                head += part
            return head.split(b"\r\n")[0].decode()
        case ["wait", key]:
            kept[key].settimeout(10)
            data = kept[key].recv(1)
            return "ended" if not data else "data"
        case ["env", key]:
            return os.environ.get(key, "")
        case ["sleep", seconds]:
            time.sleep(float(seconds))
            return "slept"


for line in sys.stdin:
    try:
        print(do(line.split()), flush=True)
    except Exception as error:
        print(name(error), flush=True)
