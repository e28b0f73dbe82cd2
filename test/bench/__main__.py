"""make bench: prints a table and writes it as bench-results/TIME.json and TIME.svg.  By environment:

    ROWS              messages in the topic (2000000)
    PAIRS             runs of COPY and stream, one after the other (3)
    TRICKLE_SECONDS   length of the latency measurement (20), TRICKLE_RATE messages/s (100)
    PYTHON_CONSUMER   0 leaves the consumer in Python out
    PEERS             "spark" measures Spark, too (fetched: 500 MB), "debezium" Debezium's JDBC sink (60 MB), "spark debezium" both
    POSTGRES_VERSION  Debian's, 16 or 18 (Debian's)
"""

import datetime
import json
import os
import platform
import sys

from bench import chart, contenders, latency, pairs, peers, rows
from bench.environment import SETTINGS, run, say, size, start_servers
from harness import paths

PEER_SETTINGS = {"listen_addresses": "127.0.0.1"}  # what runs in Java has no Unix sockets
SHOWN_SETTINGS = (*SETTINGS, "wal_compression", "full_page_writes", "server_version")


def measure(directory):
    count = size("ROWS", 2_000_000)
    db, broker = start_servers(directory, PEER_SETTINGS if peers.named() else None)
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    broker.create_topic("orders", rows.PARTITIONS)

    say(f"producing {count} messages")
    csv_path = directory.path / "rows.csv"
    result = {"at": datetime.datetime.now().isoformat(timespec="seconds"), "machine": platform.platform(),
              "cpus": os.cpu_count(), "librdkafka": db.value("SELECT kafka.library_version()"),
              "settings": {name: db.value(f"SHOW {name}") for name in SHOWN_SETTINGS},
              "producer": rows.produce(count, broker.address, "orders", csv_path)}

    result.update(pairs.measure(db, csv_path, count, size("PAIRS", 3), say))
    if size("PYTHON_CONSUMER", 1):
        say("the consumer in Python")
        result["python"] = contenders.python_consumer(db, broker.address, "orders", count)
        pairs.require_same_table(db, "by_python")
    for name in peers.named():
        peer = peers.PEERS[name]
        say(peer.label)
        result[name] = peer.measure(db, broker.address, "orders", count, directory)
        pairs.require_same_table(db, f"by_{name}")
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
    for name, peer in peers.PEERS.items():
        if name in result:
            lines.append((peer.label, f"{result[name]['steady_rows_per_second']:,.0f} rows/s steady, "
                                 f"{result[name]['rows_per_second']:,.0f} with its start"))
    trickle = result["latency"]
    lines.append((f"produce to visible, {trickle['messages_per_second']}/s",
                  f"p50 {trickle['p50_ms']} ms, p90 {trickle['p90_ms']} ms, p99 {trickle['p99_ms']} ms, "
                  f"max {trickle['max_ms']} ms"))
    lines.append(("settings", ", ".join(f"{name} {value}" for name, value in result["settings"].items())))
    lines.append(("machine", f"{result['cpus']} CPUs, {result['machine']}, librdkafka {result['librdkafka']}"))
    width = max(len(name) for name, _ in lines)
    say("\n" + "\n".join(f"{name:{width}}  {value}" for name, value in lines))


def draw(result):
    """The rates as a picture, in SVG."""
    rates = [("COPY FROM csv", result["copy"]["rows_per_second"]), ("stream", result["stream"]["rows_per_second"])]
    if "python" in result:
        rates.append(("consumer in Python", result["python"]["rows_per_second"]))
    for name, peer in peers.PEERS.items():
        if name in result:
            rates.append((f"{peer.label}, steady", result[name]["steady_rows_per_second"]))
            rates.append((f"{peer.label}, with its start", result[name]["rows_per_second"]))
    copy = rates[0][1]
    settings = result["settings"]
    return chart.bar_chart(
        f"{result['producer']['rows']:,} JSON messages into a table: rows/s",
        [(name, rate, f"{rate:,.0f} ({rate / copy:.2f})") for name, rate in rates],
        f"{result['cpus']} CPUs with the broker; PostgreSQL {settings['server_version']}, "
        f"librdkafka {result['librdkafka']}; {result['at']}")


def main():
    result = run(measure)
    show(result)
    results = paths.SOURCE / "bench-results"
    results.mkdir(exist_ok=True)
    path = results / f"{result['at'].replace(':', '')}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    path.with_suffix(".svg").write_text(draw(result))
    say(f"\nwritten to {path.relative_to(paths.SOURCE)} and .svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
