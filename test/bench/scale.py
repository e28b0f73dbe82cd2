"""A part of make bench: what more workers, partitions, idle streams and rows cost.

By environment:

    SCALE_ROWS        messages of the parts about workers and partitions (4000000)
    SCALE_MOST_ROWS   messages of the largest run of the part about rows (10000000)
    SCALE_STREAMS     idle streams, in steps of ten (100)
    IDLE_SECONDS      length of the idle measurement (60)
    SCALE_PARTS       which: "idle workers partitions rows" (all)
"""

import os
import statistics
import time

from bench import contenders, rows
from bench.environment import describe, say, size, start_servers
from harness.processes import wait_until

PAIRS = 3


# --- one run of a stream ---------------------------------------------------

def run_stream(db, source, count, workers=1):
    """From the commit of create_stream to the commit of the last row; CPU seconds of all its workers."""
    contenders.prepare(db, "by_stream")
    db.create_stream("bench", source=source, target="by_stream", workers=workers)
    started = time.monotonic()
    db.process_all_available("bench", timeout="60 min")
    seconds = time.monotonic() - started
    usage = [contenders.process_usage(pid) for pid in db.status("bench").pids]
    db.call("drop_stream", "bench")
    if db.value("SELECT count(*) FROM by_stream") != count:
        raise RuntimeError(f"not {count} rows in the table")
    cpu = sum(one["cpu_seconds"] for one in usage)
    return {"rows_per_second": count / seconds, "cpu_seconds_per_million_rows": cpu / count * 1e6,
            "private_memory_mb": sum(one["private_memory_mb"] for one in usage), "load": os.getloadavg()[0]}


def median(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def make_topic(db, broker, name, partitions, count):
    broker.create_topic(name, partitions)
    db.create_topic_table(name, rows.COLUMNS, name=f"{name}_topic")
    rows.produce_again_and_again(count, broker.address, name, partitions)
    return f"{name}_topic"


# --- parts -----------------------------------------------------------------

def measure_workers(db, broker):
    """One and two workers, one after the other."""
    count = size("SCALE_ROWS", 4_000_000)
    source = make_topic(db, broker, "by_workers", 4, count)
    runs = {1: [], 2: []}
    for pair in range(1, PAIRS + 1):
        for workers in runs:
            runs[workers].append(run_stream(db, source, count, workers))
        ratio = runs[2][-1]["rows_per_second"] / runs[1][-1]["rows_per_second"]
        say(f"workers, pair {pair}: {runs[1][-1]['rows_per_second']:,.0f} and {runs[2][-1]['rows_per_second']:,.0f} "
            f"rows/s, ratio {ratio:.2f}, load {os.getloadavg()[0]:.1f}")
    ratios = [two["rows_per_second"] / one["rows_per_second"] for one, two in zip(runs[1], runs[2])]
    return {"rows": count, "runs": {str(workers): median(some) for workers, some in runs.items()},
            "ratio": statistics.median(ratios), "ratios": ratios}


def measure_partitions(db, broker):
    count = size("SCALE_ROWS", 4_000_000)
    sources = {partitions: make_topic(db, broker, f"partitions_{partitions}", partitions, count)
               for partitions in (1, 4, 16, 64)}
    runs = {partitions: [] for partitions in sources}
    for _ in range(PAIRS):
        for partitions, source in sources.items():
            runs[partitions].append(run_stream(db, source, count))
            say(f"{partitions} partitions: {runs[partitions][-1]}")
    return {"rows": count, "runs": {str(partitions): median(some) for partitions, some in runs.items()}}


def measure_rows(db, broker):
    """Cost per row from 10^5 rows on."""
    result = {}
    count = 100_000
    while count <= size("SCALE_MOST_ROWS", 10_000_000):
        source = make_topic(db, broker, f"rows_{count}", 4, count)
        repeats = PAIRS if count <= 1_000_000 else 1
        result[str(count)] = median([run_stream(db, source, count) for _ in range(repeats)])
        say(f"{count} rows: {result[str(count)]}")
        db.run("DROP TABLE by_stream")
        broker.delete_topic(f"rows_{count}")
        count *= 10
    return result


def memory(pid):
    """Proportional and private memory in MB, and threads, of a process."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        rollup = dict(line.split(":", 1) for line in list(file)[1:])
    kilobytes = {name: int(value.split()[0]) for name, value in rollup.items()}
    return {"pss_mb": kilobytes["Pss"] / 1024,
            "private_mb": (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) / 1024,
            "threads": len(os.listdir(f"/proc/{pid}/task")), "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def measure_idle(db, broker):
    """What streams cost that have nothing to do."""
    result = {"streams": {}}
    db.run("CREATE TABLE idle (id bigint)")
    for partitions in (1, 4):
        broker.create_topic(f"idle_{partitions}", partitions)
        db.create_topic_table(f"idle_{partitions}", name=f"idle_topic_{partitions}")
        created = 0
        wanted = 1
        while wanted <= (size("SCALE_STREAMS", 100) if partitions == 1 else 1):
            started = time.monotonic()
            for number in range(created, wanted):
                db.create_stream(f"idle_{partitions}_{number}", source=f"idle_topic_{partitions}", target="idle")
            created = wanted
            wait_until(lambda: db.value("SELECT count(*) FROM kafka.stream_status WHERE state = 'idle'") == wanted,
                       timeout=600, what=f"{wanted} idle streams")
            start_seconds = time.monotonic() - started
            name = f"{wanted} stream(s) of {partitions} partition(s)"
            result["streams"][name] = {
                **idle_usage(db, broker), "seconds_to_create_and_start": start_seconds}
            say(f"{name}: {result['streams'][name]}")
            wanted *= 10
        for name in db.column("SELECT stream FROM kafka.stream_status"):
            db.call("drop_stream", name)
    slots = int(db.value("SHOW kafka_ingest.max_stream_workers"))
    result["shared_memory_kb_per_worker"] = db.value(
        "SELECT allocated_size FROM pg_shmem_allocations WHERE name = 'kafka_ingest'") / slots / 1024
    return result


def idle_usage(db, broker):
    pids = db.column("SELECT pid FROM kafka.stream_status WHERE pid IS NOT NULL")
    broker_pid = broker.process.pid
    before = {pid: contenders.process_usage(pid)["cpu_seconds"] for pid in [*pids, broker_pid]}
    seconds = size("IDLE_SECONDS", 60)
    started = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - started
    after = {pid: contenders.process_usage(pid)["cpu_seconds"] for pid in before}
    per_minute = {pid: (after[pid] - before[pid]) * 60 / elapsed for pid in before}
    every = [memory(pid) for pid in pids]
    return {**{name: statistics.median(one[name] for one in every) for name in every[0]},
            "cpu_seconds_per_minute_and_stream": statistics.mean(per_minute[pid] for pid in pids),
            "broker_cpu_seconds_per_minute": per_minute[broker_pid], "load": os.getloadavg()[0]}


PARTS = {"idle": measure_idle, "workers": measure_workers, "partitions": measure_partitions, "rows": measure_rows}


def measure(directory):
    db, broker = start_servers(directory, {"shared_buffers": "512MB", "max_worker_processes": 128, "max_connections": 150,
                                           "kafka_ingest.max_stream_workers": 128})
    db.create_topic_table("orders", rows.COLUMNS, name="orders_topic")
    result = {"servers": describe(db)}
    for name in (os.environ.get("SCALE_PARTS") or " ".join(PARTS)).split():
        result[name] = PARTS[name](db, broker)
    return result


def cost(run_of_stream):
    return (f"{run_of_stream['rows_per_second']:,.0f} rows/s, {run_of_stream['cpu_seconds_per_million_rows']:.2f} CPU s per million rows, "
            f"{run_of_stream['private_memory_mb']:.0f} MB private")


def lines(result):
    if "idle" in result:
        for name, idle in result["idle"]["streams"].items():
            yield f"idle: {name}", (f"{idle['pss_mb']:.1f} MB each (private {idle['private_mb']:.1f}), {idle['threads']:.0f} threads, "
                                    f"{idle['descriptors']:.0f} descriptors, {idle['cpu_seconds_per_minute_and_stream']:.3f} CPU s a minute "
                                    f"each; the broker {idle['broker_cpu_seconds_per_minute']:.1f}")
        yield "shared memory", f"{result['idle']['shared_memory_kb_per_worker']:.0f} kB for each worker that there may be"
    if "workers" in result:
        for workers, runs in result["workers"]["runs"].items():
            yield f"{workers} worker(s)", cost(runs)
        yield "2 workers / 1", f"{result['workers']['ratio']:.2f} ({', '.join(f'{ratio:.2f}' for ratio in result['workers']['ratios'])})"
    if "partitions" in result:
        for partitions, runs in result["partitions"]["runs"].items():
            yield f"{partitions} partition(s)", cost(runs)
    for count, runs in result.get("rows", {}).items():
        yield f"{int(count):,} rows", cost(runs)
