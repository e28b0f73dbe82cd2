"""Contenders of other projects, that PEERS names and run.sh installs."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

from bench import contenders
from harness.processes import wait_until
from peers import spark as spark_peer
from peers.debezium import Connect
from peers.spark import PYTHON

SPARK_COLUMNS = ("order_id bigint, customer string, product string, quantity int, price decimal(10,2), paid boolean, "
                 "ordered_at timestamp, country string")
# As Debezium's connectors describe such columns
DEBEZIUM_FIELDS = [{"optional": False, **field} for field in (
    {"field": "order_id", "type": "int64"},
    {"field": "customer", "type": "string"},
    {"field": "product", "type": "string"},
    {"field": "quantity", "type": "int32"},
    {"field": "price", "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
     "parameters": {"scale": "2"}},
    {"field": "paid", "type": "boolean"},
    {"field": "ordered_at", "type": "string", "name": "io.debezium.time.ZonedTimestamp", "version": 1},
    {"field": "country", "type": "string"})]


def named():
    """The peers that this run shall measure."""
    return [name for name in (os.environ.get("PEERS") or "").split() if name in PEERS]


def spark(db, address, topic, count, directory):
    """Spark Structured Streaming, foreachBatch and JDBC; into the table by_spark."""
    contenders.prepare(db, "by_spark")
    url = (f"jdbc:postgresql://127.0.0.1:{db.cluster.port}/{db.name}"
           "?reWriteBatchedInserts=true&stringtype=unspecified")
    job = {"address": address, "topic": topic, "columns": SPARK_COLUMNS, "url": url, "table": "by_spark",
           "batch_size": max(count // 10, 10_000), "checkpoint": str(directory.subdirectory("spark-checkpoint"))}
    script = spark_peer.DRIVER.with_name("spark_to_postgres.py")
    with open(directory.logs / "spark-bench.log", "wb") as log:
        process = subprocess.Popen([PYTHON, script, json.dumps(job)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=log, text=True, env={**os.environ, **spark_peer.environment()})
        output = process.communicate()[0]
    if process.returncode != 0:
        raise RuntimeError(f"Spark failed, see {log.name}")
    measured = json.loads(output.splitlines()[-1])
    return {"rows_per_second": count / measured["seconds"], **measured}


def debezium(db, address, topic, count, directory):
    """Debezium's JDBC sink in Kafka Connect; into the table by_debezium, which must get what by_copy has."""
    contenders.prepare(db, "by_debezium")
    url = f"jdbc:postgresql://127.0.0.1:{db.cluster.port}/{db.name}?reWriteBatchedInserts=true"
    started = time.monotonic()
    connect = Connect(directory, address, topic, DEBEZIUM_FIELDS, url, "by_debezium")
    # less what COPY may have extended it by beyond the last row
    full_size = db.value("SELECT pg_relation_size('by_copy')") - 2**20

    def rows_when(part):
        """Waits for this part of the rows and returns how many there are; counts only when the size says it's worth it."""
        def reached():
            if db.value("SELECT pg_relation_size('by_debezium')") < full_size * part * 0.98:
                connect.require_running()
                return 0
            rows = db.value("SELECT count(*) FROM by_debezium")
            return rows if rows >= count * part else 0
        return wait_until(reached, timeout=1800, interval=0.2, what=f"{part:.0%} of the rows in by_debezium"), time.monotonic()

    # the first tenth warms up the JVM, as with Spark
    early_rows, early = rows_when(0.1)
    rows, end = rows_when(1)
    usage = contenders.process_usage(connect.process.pid)
    connect.stop()
    return {"rows_per_second": rows / (end - started), "steady_rows_per_second": (rows - early_rows) / (end - early),
            "seconds": end - started, **usage}


class Peer(NamedTuple):
    label: str
    measure: Callable    # (db, address, topic, count, directory) -> figures; into the table "by_" and its name


PEERS = {"spark": Peer("Spark 3.5, JDBC", spark), "debezium": Peer("Debezium 3.5, JDBC", debezium)}
