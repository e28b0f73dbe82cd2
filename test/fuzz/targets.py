"""The libFuzzer targets: which sources each is built from, and how to run one."""

import dataclasses
import pathlib
import subprocess

from harness import paths
from harness.postgres import DEBIAN

HERE = paths.TEST / "fuzz"
POSTGRES = pathlib.Path(f"/usr/lib/postgresql/{DEBIAN}")
FOUND = paths.SOURCE / "log" / "fuzz"
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]


@dataclasses.dataclass(frozen=True)
class Target:
    sources: tuple  # in src/
    share: float    # of the time


TARGETS = {
    "json": Target(("json_scanner.c", "json_unescape.c", "json_fields.c", "json_field_tree.c"), 0.6),
    "csv": Target(("decode_csv.c",), 0.15),
    "direct": Target(("decode_direct.c", "decode_numeric.c"), 0.2),
    "path": Target(("topic_path.c",), 0.05),
}


def build_target(name, directory):
    """Compiles a target into a directory; returns the program."""
    program = directory / f"fuzz_{name}"
    headers = subprocess.run([POSTGRES / "bin/pg_config", "--includedir-server"], check=True, stdout=subprocess.PIPE,
                             text=True).stdout.strip()
    subprocess.run(
        ["clang", "-g", "-O1", "-D_GNU_SOURCE", "-w", *SANITIZERS, f"-I{headers}", f"-I{paths.SOURCE}/src", f"-I{HERE}",
         HERE / f"fuzz_{name}.c", HERE / "runtime.c", *(paths.SOURCE / "src" / source for source in TARGETS[name].sources),
         f"-L{POSTGRES}/lib", "-lpgcommon", "-lpgport", "-lm", "-o", program], check=True)
    return program


def run_target(name, directory, seed, seconds):
    """Fuzzes for so long; True when nothing was found."""
    program = build_target(name, directory)
    corpus = directory / f"corpus_{name}"
    corpus.mkdir(exist_ok=True)
    FOUND.mkdir(parents=True, exist_ok=True)
    dictionary = HERE / f"{name}.dict"
    log = directory / f"fuzz_{name}.log"
    with open(log, "wb") as output:
        result = subprocess.run(
            [program, f"-max_total_time={seconds}", f"-seed={seed}", "-max_len=4096", "-timeout=20", "-detect_leaks=0",
             "-print_final_stats=1", f"-artifact_prefix={FOUND}/{name}-",
             *([f"-dict={dictionary}"] if dictionary.exists() else []), corpus, HERE / "seeds" / name],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    lines = log.read_text(errors="replace").splitlines()
    runs = next((line.split()[-1] for line in lines if line.startswith("stat::number_of_executed_units")), "?")
    print(f"fuzz {name}: {runs} inputs, {'nothing found' if result.returncode == 0 else 'FOUND'}", flush=True)
    if result.returncode != 0:
        print("\n".join(lines[-50:]), flush=True)
    return result.returncode == 0
