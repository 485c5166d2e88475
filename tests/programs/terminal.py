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
        if time.monotonic() > deadline or not select.select([terminal], [], [], 1)[0] and time.monotonic() > deadline:
            sys.exit(f"waited in vain for {pattern!r}: {seen!r}")
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
# Job control: an interrupt ends the program in the foreground and not the shell, a stopped one comes back.
type_in("echo sl''eeping; sleep 1000\n")
until("sleeping")
time.sleep(0.3)
type_in("\x03")
type_in("echo inter''rupted\n")
until("interrupted")
print("interrupted")
type_in("echo stop''ping; sh -c 'sleep 1; echo res''umed'\n")
until("stopping")
time.sleep(0.3)
type_in("\x1a")
until("Stopped")
type_in("fg\n")
until("resumed")
print("resumed")
type_in("exit 3\n")
_, status = os.waitpid(pid, 0)
print("exit", os.waitstatus_to_exitcode(status))
