"""Where things are on this machine."""

import os
import pathlib
import random
import shutil
import socket
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
TEST = SOURCE / "test"
CACHE = pathlib.Path(os.environ["KAFKA_INGEST_CACHE"])
KAFKA_JARS = CACHE / "kafka-4.1.0"
KEPT_LOGS = SOURCE / "log"  # of runs that failed; ignored by git

_system_random = random.SystemRandom()  # tests seed the other one: two programs would draw the same ports
_port_claims = []  # sockets that live as long as this program


class RunDirectory:
    """A temporary directory that the servers' users may enter.

    Its path is short: a Unix socket's may have 107 bytes.
    """

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="kafka_ingest.", dir="/tmp"))
        self.path.chmod(0o755)
        self.logs = self.subdirectory("log")

    def subdirectory(self, name, owner=None):
        directory = self.path / name
        directory.mkdir(exist_ok=True)
        if owner:
            shutil.chown(directory, owner)
        return directory

    def keep_logs(self, name):
        """Copies the logs to log/NAME in the checkout and returns that path."""
        kept = KEPT_LOGS / name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.logs, kept)
        return kept

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def free_port():
    """A port that nobody listens on, and that no other program gets from here while this one runs.

    It lies below those that the system gives to outgoing connections: whoever asks
    for a port now and listens on it later would find it taken by one of them.
    """
    while True:
        port = _system_random.randrange(12_000, 32_000)
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as listener:
            try:
                claim.bind(f"\0kafka_ingest-port-{port}")  # the system lets it go when this program ends
                listener.bind(("127.0.0.1", port))
            except OSError:
                claim.close()
                continue
        _port_claims.append(claim)
        return port


def show_tail(path, lines=30):
    """Prints the end of a log file to stderr."""
    path = pathlib.Path(path)
    if path.exists():
        text = path.read_text(errors="replace").splitlines()[-lines:]
        print(f"--- end of {path}", *text, sep="\n", file=sys.stderr)
