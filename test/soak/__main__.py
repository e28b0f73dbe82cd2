"""make soak: mixes load and faults for a while, then counts; exit status 1 if anything is wrong.

    test/run.sh soak --seconds=600 [--seed=N] [--postgres-version=18]

The seed decides which faults come, in which order, and what is produced; how
they meet is the machine's affair.  The logs of a run that fails are kept.
"""

import argparse
import random
import sys
import time
import traceback

from harness import build, paths
from harness.kafka import Broker
from harness.postgres import KNOWN, VERSIONS, Cluster
from harness.processes import clean_up_at_exit, stop_all
from soak.faults import Faults
from soak.load import Load
from soak.observer import Observer
from soak.streams import Streams


def soak(options, run_directory):
    version = options.postgres_version
    broker = Broker(run_directory).create().start()
    cluster = Cluster(build.build(version, run_directory), run_directory, "soak").create().start()
    streams = Streams(cluster, broker)
    streams.create()
    faults = Faults(streams, broker, cluster, random.Random(f"faults {options.seed}"))
    deadline = time.monotonic() + options.seconds
    with Load(streams, f"load {options.seed}") as load, Observer(streams) as observer:
        while time.monotonic() < deadline:
            faults.inject_one()
            load.check()
            observer.check()
            streams.check_states()
        faults.mend()
    streams.wait_until_done()
    counts = streams.compare()
    print(f"{sum(faults.counts.values())} faults ({', '.join(f'{n} {w}' for w, n in sorted(faults.counts.items()))}); "
          f"{observer.snapshots} snapshots; {counts}", flush=True)
    observer.check()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10 ** 6))
    parser.add_argument("--postgres-version", type=int, choices=KNOWN, default=VERSIONS[-1])
    options = parser.parse_args()
    clean_up_at_exit()
    print(f"soak: SEED={options.seed}, {options.seconds} s, PostgreSQL {options.postgres_version}", flush=True)
    run_directory = paths.RunDirectory()
    good = False
    try:
        soak(options, run_directory)
        good = True
    except Exception:
        traceback.print_exc()
        print(f"logs: {run_directory.keep_logs(f'soak-{options.seed}')}", flush=True)
    finally:
        stop_all()
        run_directory.remove()
    print(f"soak: SEED={options.seed}: {'exact' if good else 'FAILED'}", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
