"""Mounts a file system of its own, in which there is one program, `sh`, and stops telling that file's attributes, or what is in it.

frozen.py told DIRECTORY EVENTS   lets what that program starts be refused something, and says whether events are told meanwhile
frozen.py stuck DIRECTORY         ends with a thread that waits for the attributes and can't be killed; says the file system's number
frozen.py held DIRECTORY ...      says the file system's number, and once there is a file DIRECTORY.armed a thread that can't be killed keeps the lock of this
                                  process's memory, so that all who read there (ps, too) wait until the connection is aborted. Another one goes on sending
"""

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000
# Of linux/fuse.h.
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = (
    1, 2, 3, 14, 15, 18, 25, 26, 27, 29, 36, 42)
ROOT, PROGRAM = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


def check(answer):
    if answer != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(directory):
    """Mounts it in a mount namespace of this process's, and in a user namespace where that takes one; gives the device."""
    if libc.unshare(NEW_MOUNTS) != 0:
        check(libc.unshare(NEW_USER | NEW_MOUNTS))
        for name, text in [('setgroups', 'deny'), ('uid_map', '0 0 1'), ('gid_map', '0 0 1')]:
            with open(f'/proc/self/{name}', 'w') as file:
                file.write(text)
    device = os.open('/dev/fuse', os.O_RDWR)
    options = f'fd={device},rootmode=40000,user_id=0,group_id=0'.encode()
    check(libc.mount(b'none', directory.encode(), b'fuse', 0, options))
    return device


def serve(device, told, unanswered):
    """Answers until SIGUSR1. Writes a line to `told` then, and one for each question of a kind that it leaves without an answer from then on."""
    frozen = False

    def freeze(*_):
        nonlocal frozen
        frozen = True
        os.write(told, b'\n')

    signal.signal(signal.SIGUSR1, freeze)
    with open('/bin/sh', 'rb') as file:
        program = file.read()

    def attributes(node):
        size, mode, links = (4096, 0o40755, 2) if node == ROOT else (len(program), 0o100755, 1)
        return struct.pack('<6Q10I', node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)

    while True:
        question = os.read(device, 1 << 17)
        _, what, unique, node = struct.unpack('<IIQQ', question[:24])
        error, answer = 0, b''
        if what == INIT:
            answer = struct.pack('<4I2H2I2H8I', 7, 31, 65536, 0, 16, 12, 65536, 1, 0, 0, *[0] * 8)
        elif what == LOOKUP and question[40:].rstrip(b'\0') == b'sh':
            answer = struct.pack('<4Q2I', PROGRAM, 0, 1000, 0, 0, 0) + attributes(PROGRAM)
        elif what == LOOKUP:
            error = -2
        elif what == unanswered and frozen and node == PROGRAM:
            os.write(told, b'\n')
            continue
        elif what == GETATTR:
            answer = struct.pack('<Q2I', 0, 0, 0) + attributes(node)
        elif what in (OPEN, OPENDIR):
            # What is read of the program stays in memory (FOPEN_KEEP_CACHE), until somebody maps it who opens it later (FOPEN_DIRECT_IO): he waits for what
            # is still being read.
            direct = frozen and unanswered == READ
            answer = struct.pack('<Q2I', 7, 0 if what == OPENDIR else 3 if direct else 2, 0)
        elif what == READ:
            _, offset, size = struct.unpack('<QQI', question[40:60])
            answer = program[offset:offset + size]
        elif what in (FORGET, INTERRUPT, BATCH_FORGET):
            continue
        elif what not in (RELEASE, FLUSH, RELEASEDIR):
            error = -38
        os.write(device, struct.pack('<IiQ', 16 + len(answer), error, unique) + answer)


def started(directory, unanswered=GETATTR):
    """Mounts and serves it; gives the server, and what the server tells by."""
    os.makedirs(directory, exist_ok=True)
    device = mount(directory)
    hears, tells = os.pipe()
    server = os.fork()
    if server == 0:
        serve(device, tells, unanswered)
    os.stat(f'{directory}/sh')
    return server, hears


def told(directory, events):
    server, hears = started(directory)
    again = f'kill -USR1 {server}; read frozen; {sys.executable} -I {sys.argv[0]} refused {events}; true'
    subprocess.run([f'{directory}/sh', '-c', again], stdin=hears, check=True)


def refused(events):
    """The child of a program whose file nobody is told of."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(('203.0.113.10', 200), 10)
        except OSError:
            pass
        with open(events) as file:
            if '203.0.113.10' in file.read():
                return print('told', flush=True)
        time.sleep(0.1)
    print('not told', flush=True)


def stuck(directory, *_):
    server, hears = started(directory)
    number = os.minor(os.stat(directory).st_dev)
    os.kill(server, signal.SIGUSR1)
    os.read(hears, 1)
    threading.Thread(target=os.stat, args=[f'{directory}/sh'], daemon=True).start()
    os.read(hears, 1)
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
    print(number, flush=True)
    os._exit(4)


def held(directory, *_):
    server, hears = started(directory, READ)
    print(os.minor(os.stat(directory).st_dev), flush=True)
    while not os.path.exists(f'{directory}.armed'):
        time.sleep(0.1)
    # From before the lock is held on, so that it needs no more memory.
    threading.Thread(target=send, daemon=True).start()
    time.sleep(1)
    read = os.open(f'{directory}/sh', os.O_RDONLY)
    os.kill(server, signal.SIGUSR1)
    os.read(hears, 1)
    mapped = os.open(f'{directory}/sh', os.O_RDONLY)
    threading.Thread(target=os.read, args=[read, 4096], daemon=True).start()
    os.read(hears, 1)
    libc.mmap(None, 4096, 1, 2, mapped, 0)  # PROT_READ, MAP_PRIVATE


def send():
    """Sends what is refused."""
    to = struct.pack('=H', socket.AF_INET) + struct.pack('>H', 301) + socket.inet_aton('203.0.113.10') + bytes(8)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    number = sender.fileno()
    while True:
        libc.sendto(number, b'x', 1, 0, to, 16)
        time.sleep(0.2)


globals()[sys.argv[1]](*sys.argv[2:])
