"""Where things are on this machine."""

import os
import pathlib
import shutil
import socket
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]
TEST = SOURCE / "test"
CACHE = pathlib.Path(os.environ["KAFKA_INGEST_CACHE"])
KAFKA_JARS = CACHE / "kafka-4.1.0"
KEPT_LOGS = SOURCE / "log"  # of runs that failed; ignored by git


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
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def show_tail(path, lines=30):
    """Prints the end of a log file to stderr."""
    path = pathlib.Path(path)
    if path.exists():
        text = path.read_text(errors="replace").splitlines()[-lines:]
        print(f"--- end of {path}", *text, sep="\n", file=sys.stderr)
