"""An origin for tests: a token API, a git host, a Python and an npm registry, each behind a password, over TLS or not.

usage: stand_in.py ADDRESS PORT ROOT [CERTIFICATE KEY]

What it was sent is appended to ROOT/heard, one request head a line as JSON.
"""

import base64
import hashlib
import http.server
import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile

ADDRESS, PORT, ROOT = sys.argv[1], int(sys.argv[2]), sys.argv[3]
TOKEN = "s3cr3t/Token+of=the&api"
LOCK = threading.Lock()


def wheel():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("fenced.py", "ANSWER = 42\n")
        archive.writestr("fenced-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fenced\nVersion: 1.0\n")
        archive.writestr("fenced-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("fenced-1.0.dist-info/RECORD", "")
    return out.getvalue()


def tarball():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in [("package.json", '{"name":"fenced","version":"1.0.0"}'), ("index.js", "module.exports = 42\n")]:
            info = tarfile.TarInfo("package/" + name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


WHEEL, TARBALL = wheel(), tarball()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="text/plain", headers=()):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def password(self):
        """User and password of Basic, if the password is right."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        user, _, password = base64.b64decode(token).decode().partition(":")
        return user if password == TOKEN else None

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def handle_any(self):
        body = self.body()
        with LOCK, open(os.path.join(ROOT, "heard"), "a") as heard:
            json.dump({"line": self.requestline, "headers": self.headers.items(), "body": body.decode("latin1")[:4096]}, heard)
            heard.write("\n")
        path = self.path.partition("?")[0]
        scheme = "https" if len(sys.argv) > 4 else "http"
        base = f"{scheme}://{self.headers['Host']}"
        if path == "/open":
            self.answer(200, "open\n")
        elif path == "/token":
            right = self.headers.get("Authorization") == "Bearer " + TOKEN
            self.answer(200 if right else 401, "welcome\n" if right else "who are you\n")
        elif path.startswith("/echo"):
            head = self.requestline + "\n" + "".join(f"{name}: {value}\n" for name, value in self.headers.items())
            echoed = self.headers.get("Authorization", "")
            self.answer(200, head + body.decode("latin1"), headers=[("X-Echo", echoed)])
        elif self.password() is None:
            self.answer(401, "who are you\n", headers=[("WWW-Authenticate", 'Basic realm="test"')])
        elif path.startswith("/git/"):
            self.git(path, body)
        elif path == "/simple/fenced/":
            digest = hashlib.sha256(WHEEL).hexdigest()
            name = "fenced-1.0-py3-none-any.whl"
            self.answer(200, f'<a href="{base}/files/{name}#sha256={digest}">{name}</a>', "text/html")
        elif path.startswith("/files/") and path.endswith(".whl"):
            self.answer(200, WHEEL, "application/octet-stream")
        elif path == "/npm/fenced":
            dist = {"tarball": f"{base}/npm/fenced.tgz", "shasum": hashlib.sha1(TARBALL).hexdigest()}
            version = {"name": "fenced", "version": "1.0.0", "dist": dist}
            document = {"name": "fenced", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            self.answer(200, json.dumps(document), "application/json")
        elif path == "/npm/fenced.tgz":
            self.answer(200, TARBALL, "application/octet-stream")
        else:
            self.answer(404, "no such thing\n")

    def git(self, path, body):
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": ROOT,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path[len("/git"):],
            "QUERY_STRING": self.path.partition("?")[2],
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": self.password(),
            "REMOTE_ADDR": self.client_address[0],
        }
        out = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True).stdout
        head, _, answer = out.partition(b"\r\n\r\n")
        headers = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in headers if name.lower() == "status"), 200)
        kind = next((value for name, value in headers if name.lower() == "content-type"), "text/plain")
        self.answer(status, answer, kind)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def get_request(self):
        stream, client = super().get_request()
        if len(sys.argv) > 4:
            # The handshake is done by whoever reads first, so that nobody waits for a silent one.
            stream = CONTEXT.wrap_socket(stream, server_side=True, do_handshake_on_connect=False)
        return stream, client

    def handle_error(self, *_):
        pass


if len(sys.argv) > 4:
    CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CONTEXT.load_cert_chain(sys.argv[4], sys.argv[5])
    CONTEXT.set_alpn_protocols(["http/1.1"])
Server((ADDRESS, PORT), Handler).serve_forever()
