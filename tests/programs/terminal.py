"""Runs a fenced interactive shell at a new terminal and types at it. Prints what it saw."""
import os, pty, re, select, sys, time

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])

seen = ""


def until(pattern):
    """Reads until `pattern` is there, and takes all up to it."""
    global seen
    deadline = time.monotonic() + 20
    while not (found := re.search(pattern, seen)):
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {pattern!r}: {seen!r}")
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            seen += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # EIO: everybody at the other end has closed it
            sys.exit(f"the terminal was closed, waiting for {pattern!r}: {seen!r}")
    seen = seen[found.end():]
    return found


def type_in(text):
    os.write(terminal, text.encode())


until("> ")
type_in("test -t 0 -a -t 1 -a -t 2 && echo a ter''minal\n")
until("a terminal")
print("a terminal")
type_in("echo $((6 * 7))\n")
until("42")
print(42)
# Job control: an interrupt ends the program in the foreground and not the shell, a stopped one comes back. Each says itself that it runs: a key
# that comes before that is the shell's.
type_in("sh -c 'echo sl\"\"eeping; exec sleep 1000'\n")
until("sleeping")
type_in("\x03")
type_in("echo inter''rupted\n")
until("interrupted")
print("interrupted")
# It has no child: one that is stopped between vfork and exec would keep its parent from being stopped.
type_in("sh -c 'echo stop\"\"ping; exec sed -u s/x/res\"\"umed/'\n")
until("stopping")
type_in("\x1a")
until("Stopped")
type_in("fg\n")
until("sed")
type_in("x\n")
until("resumed")
print("resumed")
type_in("\x04")
type_in("exit 3\n")
_, status = os.waitpid(pid, 0)
print("exit", os.waitstatus_to_exitcode(status))
