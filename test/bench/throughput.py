"""A part of make bench: an append stream against COPY FROM the same rows, and against consumers of other kinds.

By environment: ROWS (2000000), PAIRS (5) of COPY and stream, PYTHON_CONSUMER (1; 0 leaves it out), PEERS (see bench/peers.py).
"""

from bench import contenders, pairs, peers, rows
from bench.environment import describe, say, size, start_servers

PEER_SETTINGS = {"listen_addresses": "127.0.0.1"}  # what runs in Java has no Unix sockets


def measure(directory):
    count = size("ROWS", 2_000_000)
    db, broker = start_servers(directory, PEER_SETTINGS if peers.named() else None)
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    broker.create_topic("orders", rows.PARTITIONS)

    say(f"producing {count} messages")
    csv_path = directory.path / "rows.csv"
    result = {"servers": describe(db), "producer": rows.produce(count, broker.address, "orders", csv_path)}
    result.update(pairs.measure(db, csv_path, count, size("PAIRS", 5), say))
    if size("PYTHON_CONSUMER", 1):
        say("the consumer in Python")
        result["python"] = contenders.python_consumer(db, broker.address, "orders", count)
        pairs.require_same_table(db, "by_python")
    for name in peers.named():
        peer = peers.PEERS[name]
        say(peer.label)
        result[name] = peer.measure(db, broker.address, "orders", count, directory)
        pairs.require_same_table(db, f"by_{name}")
    return result


def lines(result):
    stream, producer, copy = result["stream"], result["producer"], result["copy"]["rows_per_second"]
    yield "messages", (f"{producer['rows']:,} of {producer['bytes_per_message']} bytes, 8 columns, {rows.PARTITIONS} partitions, "
                       f"{producer['compression']}; produced at {producer['rows_per_second']:,} rows/s")
    yield "COPY FROM csv", f"{copy:,.0f} rows/s (median of {len(result['copy_runs'])}); {result['copy']['cpu_seconds']:.2f} CPU s"
    yield "stream, start to last commit", (f"{stream['rows_per_second']:,.0f} rows/s, {pairs.ratio_text(result)} of COPY; "
                                           f"{stream['cpu_seconds']:.2f} CPU s, {stream['private_memory_mb']:.0f} MB private")
    if "python" in result:
        python = result["python"]
        yield "consumer in Python", (f"{python['rows_per_second']:,.0f} rows/s, {python['rows_per_second'] / copy:.2f} of COPY; "
                                     f"{python['cpu_seconds']:.1f} CPU s")
    for name, peer in peers.PEERS.items():
        if name in result:
            steady = result[name]["steady_rows_per_second"]
            yield peer.label, (f"{steady:,.0f} rows/s steady, {steady / copy:.2f} of COPY; "
                               f"{result[name]['rows_per_second']:,.0f} with its start")


def bars(result):
    """Of COPY's rate."""
    copy = result["copy"]["rows_per_second"]
    yield "stream", result["ratio"]
    if "python" in result:
        yield "consumer in Python", result["python"]["rows_per_second"] / copy
    for name, peer in peers.PEERS.items():
        if name in result:
            yield f"{peer.label}, steady", result[name]["steady_rows_per_second"] / copy
