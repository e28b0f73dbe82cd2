"""make bench: prints a table and writes bench-results/TIME.json.  Sizes by environment:

    ROWS              messages in the topic (2000000)
    PAIRS             runs of COPY and stream, one after the other (3)
    TRICKLE_SECONDS   length of the latency measurement (20), TRICKLE_RATE messages/s (100)
    PYTHON_CONSUMER   0 leaves the consumer in Python out
    POSTGRES_VERSION  15 or 18 (15)
"""

import datetime
import json
import os
import platform
import statistics
import sys

from bench import contenders, latency, rows
from harness import build, paths
from harness.database import Database
from harness.kafka import Broker
from harness.postgres import Cluster
from harness.processes import clean_up_at_exit, stop_all

SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h",
            "synchronous_commit": "on", "fsync": "on", "wal_level": "replica", "autovacuum": "off"}
SHOWN_SETTINGS = (*SETTINGS, "wal_compression", "full_page_writes", "server_version")


def size(name, default):
    return int(os.environ.get(name) or default)


def say(text):
    print(text, flush=True)


def summary(runs):
    """Medians of what the runs measured."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0] if runs[0][key] is not None}


def measure(directory):
    count, pairs = size("ROWS", 2_000_000), size("PAIRS", 3)
    version = size("POSTGRES_VERSION", 15)
    say(f"building, starting PostgreSQL {version} and Kafka")
    installation = build.build(version, directory)
    cluster = Cluster(installation, directory, "bench", SETTINGS).create().start()
    broker = Broker(directory).create().start()
    db = Database(cluster)
    db.create_server(broker.address)
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    db.run("SET statement_timeout = 0; SET client_min_messages = warning")
    broker.create_topic("orders", rows.PARTITIONS)

    say(f"producing {count} messages")
    csv_path = directory.path / "rows.csv"
    result = {"at": datetime.datetime.now().isoformat(timespec="seconds"), "machine": platform.platform(),
              "cpus": os.cpu_count(), "librdkafka": db.value("SELECT kafka.library_version()"),
              "settings": {name: db.value(f"SHOW {name}") for name in SHOWN_SETTINGS},
              "producer": rows.produce(count, broker.address, "orders", csv_path)}

    copies, streams = [], []
    for number in range(1, pairs + 1):
        copies.append(contenders.copy(db, csv_path, count))
        streams.append(contenders.stream(db, count))
        ratio = streams[-1]["rows_per_second"] / copies[-1]["rows_per_second"]
        say(f"pair {number}: COPY {copies[-1]['rows_per_second']:,.0f} rows/s, "
            f"stream {streams[-1]['rows_per_second']:,.0f} rows/s, ratio {ratio:.2f}")
        if contenders.checksum(db, "by_copy") != contenders.checksum(db, "by_stream"):
            raise RuntimeError("the stream's table differs from COPY's")
    result.update(copy=summary(copies), stream=summary(streams), copy_runs=copies, stream_runs=streams)
    result["ratio"] = statistics.median(stream["rows_per_second"] / copy["rows_per_second"]
                                        for copy, stream in zip(copies, streams))
    if size("PYTHON_CONSUMER", 1):
        say("the consumer in Python")
        result["python"] = contenders.python_consumer(db, broker.address, "orders", count)
        if contenders.checksum(db, "by_copy") != contenders.checksum(db, "by_python"):
            raise RuntimeError("the Python consumer's table differs from COPY's")
    say("latency at a trickle")
    result["latency"] = latency.measure(db, broker, size("TRICKLE_RATE", 100), size("TRICKLE_SECONDS", 20))
    return result


def show(result):
    stream, producer = result["stream"], result["producer"]
    lines = [
        ("messages", f"{producer['rows']:,} of {producer['bytes_per_message']} bytes, 8 columns, "
                     f"{rows.PARTITIONS} partitions, {producer['compression']}"),
        ("produced at", f"{producer['rows_per_second']:,} rows/s"),
        ("COPY FROM csv", f"{result['copy']['rows_per_second']:,.0f} rows/s (median of {len(result['copy_runs'])})"),
        ("stream, start to last commit", f"{stream['rows_per_second']:,.0f} rows/s"),
        ("stream, within batches", f"{stream.get('rows_per_second_in_batches', 0):,.0f} rows/s, "
                                   f"{stream['batches']:.0f} batches"),
        ("stream / COPY", f"{result['ratio']:.2f} (median of pairs); tables identical"),
        ("worker", f"{stream['cpu_seconds']:.2f} CPU s, peak {stream['peak_memory_mb']:.0f} MB with shared "
                   f"buffers, {stream['private_memory_mb']:.0f} MB private at the end"),
    ]
    if "python" in result:
        lines.append(("consumer in Python", f"{result['python']['rows_per_second']:,.0f} rows/s, "
                                            f"{result['python']['cpu_seconds']:.1f} CPU s"))
    trickle = result["latency"]
    lines.append((f"produce to visible, {trickle['messages_per_second']}/s",
                  f"p50 {trickle['p50_ms']} ms, p90 {trickle['p90_ms']} ms, p99 {trickle['p99_ms']} ms, "
                  f"max {trickle['max_ms']} ms"))
    lines.append(("settings", ", ".join(f"{name} {value}" for name, value in result["settings"].items())))
    lines.append(("machine", f"{result['cpus']} CPUs, {result['machine']}, librdkafka {result['librdkafka']}"))
    width = max(len(name) for name, _ in lines)
    say("\n" + "\n".join(f"{name:{width}}  {value}" for name, value in lines))


def main():
    clean_up_at_exit()
    directory = paths.RunDirectory()
    try:
        result = measure(directory)
    except Exception:
        say(f"logs: {directory.keep_logs('bench')}")
        raise
    finally:
        stop_all()
        directory.remove()
    show(result)
    results = paths.SOURCE / "bench-results"
    results.mkdir(exist_ok=True)
    path = results / f"{result['at'].replace(':', '')}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    say(f"\nwritten to {path.relative_to(paths.SOURCE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
