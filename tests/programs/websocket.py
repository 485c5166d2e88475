"""A WebSocket (RFC 6455) over plain sockets: serve ADDRESS PORT, or ask HOST PORT through the proxy of $http_proxy."""
import base64, hashlib, os, socket, struct, sys, urllib.parse


def accept_of(key):
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    return base64.b64encode(digest).decode()


def head(stream):
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line.decode().strip())
    fields = dict(line.split(": ", 1) for line in lines[1:])
    return (lines or [""])[0], {name.lower(): value for name, value in fields.items()}


def send(stream, opcode, payload, mask):
    key = os.urandom(4) if mask else b""
    body = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload)) if mask else payload
    stream.write(struct.pack("!BB", 0x80 | opcode, (0x80 if mask else 0) | len(payload)) + key + body)
    stream.flush()


def receive(stream):
    first, second = stream.read(2)
    key = stream.read(4) if second & 0x80 else None
    payload = stream.read(second & 0x7F)
    return first & 0x0F, bytes(byte ^ key[i % 4] for i, byte in enumerate(payload)) if key else payload


def serve(address, port):
    for connection in iter(lambda listener=socket.create_server((address, port)): listener.accept()[0], None):
        with connection, connection.makefile("rwb") as stream:
            _, fields = head(stream)
            if "sec-websocket-key" not in fields:
                continue
            accept = accept_of(fields["sec-websocket-key"])
            stream.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
            stream.flush()
            while True:
                opcode, payload = receive(stream)
                send(stream, opcode, payload if opcode == 8 else b"echo: " + payload, False)
                if opcode == 8:
                    break


def ask(host, port):
    proxy = urllib.parse.urlsplit(os.environ["http_proxy"])
    with socket.create_connection((proxy.hostname, proxy.port), 20) as connection, connection.makefile("rwb") as stream:
        stream.write(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        stream.flush()
        status, _ = head(stream)
        assert " 200 " in status, status
        key = base64.b64encode(os.urandom(16)).decode()
        stream.write(f"GET /chat HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        stream.flush()
        status, fields = head(stream)
        assert " 101 " in status and fields["sec-websocket-accept"] == accept_of(key), (status, fields)
        for word in (b"first", b"second"):
            send(stream, 1, word, True)
            print(receive(stream)[1].decode())
        send(stream, 8, b"", True)
        assert receive(stream)[0] == 8 and stream.read() == b""
        print("closed")


{"serve": serve, "ask": ask}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
