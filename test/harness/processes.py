"""Server processes: started, remembered by pid, and ended by pid in every way
this program may end."""

import atexit
import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import threading
import time

_running = []
_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Process:
    """A started program; its output goes to a log file.

    outlive: it may go on after this program, if leave_running() says so.
    stdin, stdout: subprocess.PIPE to talk with it.
    """

    def __init__(self, name, arguments, log, user=None, outlive=False, stop_signal=signal.SIGTERM,
                 environment=None, stdin=subprocess.DEVNULL, stdout=None):
        self.name = name
        self.log = log
        self.stop_signal = stop_signal
        identity = {}
        if user:
            entry = pwd.getpwnam(user)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with open(log, "ab") as output:
            # A session of its own: Ctrl-C is for us, we end it in order.
            self._popen = subprocess.Popen(
                [str(argument) for argument in arguments], stdin=stdin, stdout=stdout or output, stderr=output,
                start_new_session=True, cwd="/", **identity,
                env={**os.environ, **(environment or {})},
                preexec_fn=None if outlive else _end_with_parent)
        self.pid = self._popen.pid
        self.stdin = self._popen.stdin
        self.stdout = self._popen.stdout
        _running.append(self)

    def is_running(self):
        return self._popen.poll() is None

    def send(self, signal_number):
        if self.is_running():
            os.kill(self.pid, signal_number)

    def wait(self, timeout):
        self._popen.wait(timeout)

    def stop(self, signal_number=None, timeout=30):
        """Ends the process and returns how many seconds that took."""
        started = time.monotonic()
        self.send(signal.SIGCONT)
        self.send(signal_number or self.stop_signal)
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            print(f"{self.name} (pid {self.pid}) did not stop in {timeout} s: killing it",
                  file=sys.stderr)
            self.send(signal.SIGKILL)
            self.wait(timeout)
        if self in _running:
            _running.remove(self)
        return time.monotonic() - started


def _end_with_parent():
    """Runs in the child: if this program is killed, the servers go as well.

    "Parent" is the thread that starts the server: it must outlast it.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stop_all():
    for process in reversed(list(_running)):
        process.stop()


def leave_running():
    """Lets the processes live on; returns what stop_left_running() needs to know."""
    left = [{"pid": process.pid, "start_time": start_time(process.pid), "signal": process.stop_signal}
            for process in reversed(_running)]
    _running.clear()
    return left


def stop_left_running(left):
    """Ends processes of an earlier program, but not a stranger with the same pid."""
    for process in left:
        if process["pid"] == os.getpid() or start_time(process["pid"]) != process["start_time"]:
            continue
        os.kill(process["pid"], process["signal"])
        wait_until(lambda: start_time(process["pid"]) != process["start_time"], 60,
                   what=f"the end of process {process['pid']}")


def start_time(pid):
    """When a process started, in clock ticks since boot; None when it is not running."""
    try:
        fields = stat_fields(f"/proc/{pid}")
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def stat_fields(directory):
    """What /proc says of a process or a thread, from its state on: see proc_pid_stat(5), where that is field 3."""
    with open(f"{directory}/stat") as file:
        return file.read().rpartition(")")[2].split()


def cpu_seconds(pid):
    """Of all threads of a process so far."""
    fields = stat_fields(f"/proc/{pid}")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def suspend(pid):
    """Stops all threads of a process until SIGCONT; they stop when one of them has had the processor."""
    os.kill(pid, signal.SIGSTOP)
    threads = f"/proc/{pid}/task"
    wait_until(lambda: all(stat_fields(f"{threads}/{thread}")[0] == "T" for thread in os.listdir(threads)), interval=0.001,
               what=f"process {pid} stands still")


def clean_up_at_exit():
    """Makes SIGTERM and SIGHUP end the program in order, as Ctrl-C does; call once."""
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.default_int_handler)


atexit.register(stop_all)


@contextlib.contextmanager
def beside(work):
    """Until the block ends, another thread runs work(stop), which ends when the event stop is set."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=[stop])
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def wait_until(condition, timeout=30, interval=0.01, what=None):
    """Returns condition()'s first true value; an error after timeout seconds.

    what: a text, or a function that returns one, for the error.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            text = what() if callable(what) else what or getattr(condition, "__name__", "condition")
            raise TimeoutError(f"not within {timeout} s: {text}")
        time.sleep(interval)
