"""make fuzz: fuzzes the decoders for a while; exit status 1 if anything was found.

    test/run.sh fuzz --seconds=600 [--seed=N]

What libFuzzer finds is left in log/fuzz/ in the checkout; run it again with

    test/run.sh fuzz --reproduce=log/fuzz/json-crash-...
"""

import argparse
import pathlib
import random
import subprocess
import sys
import time

from fuzz.targets import TARGETS, build_target, run_target
from harness import build, paths
from harness.postgres import DEBIAN
from harness.processes import clean_up_at_exit, stop_all

SHARE_OF_LIBFUZZER = 0.6


def compare_with_server(seconds, seed, run_directory):
    """The property tests of the decoder with new seeds, until the time is over."""
    installation = build.build(DEBIAN, run_directory)
    numbers = random.Random(seed)
    deadline = time.monotonic() + seconds
    while True:
        number = numbers.randrange(10 ** 9)
        print(f"property tests with --seed={number}", flush=True)
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--tb=short", "-x", f"--seed={number}", f"--postgres-version={DEBIAN}",
             f"--installation={installation.directory}", str(paths.TEST / "test_decode_properties.py")],
            cwd=paths.SOURCE, stdin=subprocess.DEVNULL)
        if result.returncode != 0:
            print(f"FOUND by the property tests: test/run.sh pytest test/test_decode_properties.py --seed={number}")
            return False
        if time.monotonic() > deadline:
            return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10 ** 9))
    parser.add_argument("--reproduce", type=pathlib.Path, help="an input that was found, TARGET-...")
    options = parser.parse_args()
    clean_up_at_exit()
    run_directory = paths.RunDirectory()
    try:
        if options.reproduce:
            name = options.reproduce.name.split("-")[0]
            sys.exit(subprocess.run([build_target(name, run_directory.path), options.reproduce]).returncode)
        print(f"seed {options.seed}, {options.seconds} s", flush=True)
        good = True
        for name, target in TARGETS.items():
            seconds = max(int(options.seconds * SHARE_OF_LIBFUZZER * target.share), 1)
            good &= run_target(name, run_directory.path, options.seed, seconds)
        good &= compare_with_server(options.seconds * (1 - SHARE_OF_LIBFUZZER), options.seed, run_directory)
    finally:
        stop_all()
        run_directory.remove()
    print("nothing found" if good else "FOUND, see above", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
