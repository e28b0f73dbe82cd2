"""Builds and installs the extension into a private copy of PostgreSQL, from a
copy of the source, so that the checkout stays clean."""

import os
import shutil
import subprocess

from harness import librdkafka, paths
from harness.postgres import DEBIAN, Installation

# The wheels were built by other compilers, whose flags pg_config repeats.
DEBIAN_FLAGS = ["COPT=-Werror"]
WHEEL_FLAGS = ["CFLAGS=-O2 -fPIC -fvisibility=hidden -fno-strict-aliasing -fwrapv -Werror"]

# Errors end the process, and with it the test.
SANITIZED_VERSION = 18  # Debian's PostgreSQL 15 hangs with the sanitizers' runtime loaded
SANITIZED = ["CFLAGS=-O1 -g -fPIC -fvisibility=hidden -fno-strict-aliasing -fwrapv -fno-omit-frame-pointer "
             "-fsanitize=address,undefined -fno-sanitize=alignment -fno-sanitize-recover=undefined",
             "COPT=-fsanitize=address,undefined"]


class BuildError(Exception):
    pass


def source_tree(run_directory, version):
    return run_directory.path / f"source{version}"


def directory(run_directory, version):
    """Where build() puts the copy of PostgreSQL."""
    return run_directory.path / f"pg{version}"


def build(version, run_directory, sanitized=False):
    """Returns an Installation with the extension in it, or raises BuildError.

    sanitized: built, and run, with AddressSanitizer and UndefinedBehaviorSanitizer.
    """
    installation = Installation.copy(version, directory(run_directory, version))
    tree = source_tree(run_directory, version)
    tree.mkdir()
    for name in ("Makefile", "kafka_ingest.control", "LICENSE"):
        shutil.copy(paths.SOURCE / name, tree)
    for name in ("src", "sql", "expected"):
        shutil.copytree(paths.SOURCE / name, tree / name, ignore=shutil.ignore_patterns("*.o", "*.bc"))
    log = run_directory.logs / f"build{version}.log"
    try:
        flags = SANITIZED if sanitized else []
        make(installation, tree, log, "-j2", *flags, "all")
        make(installation, tree, log, *flags, "install")
    except subprocess.CalledProcessError as error:
        raise BuildError(f"the build on PostgreSQL {version} failed, see {log}") from error
    if sanitized:
        run_sanitized(installation, run_directory)
    return installation


def run_sanitized(installation, run_directory):
    """Programs of the installation run with the sanitizers' runtime from now on."""
    reports = run_directory.subdirectory("sanitizer")
    reports.chmod(0o777)
    installation.sanitizer_preload = subprocess.run(["gcc", "-print-file-name=libasan.so"], check=True, stdout=subprocess.PIPE,
                                                    text=True).stdout.strip()
    installation.sanitizer_log = reports / "report"


def make(installation, tree, log, *arguments, environment=None):
    """Runs make in a source tree for an installation; output is appended to log."""
    newer = {"CPATH": str(librdkafka.include_directory())} if librdkafka.wanted() and installation.version != DEBIAN else {}
    with open(log, "ab") as output:
        subprocess.run(["make", "-s", "-C", str(tree), f"PG_CONFIG={installation.pg_config}", "with_llvm=no",
                        *(DEBIAN_FLAGS if installation.version == DEBIAN else WHEEL_FLAGS), *arguments], check=True, stdin=subprocess.DEVNULL,
                       stdout=output, stderr=subprocess.STDOUT,
                       env={**os.environ, **installation.environment(), "MAKEFLAGS": "", "MAKELEVEL": "",
                            **newer, **(environment or {})})
