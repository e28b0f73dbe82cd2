"""Contenders of other projects, that PEERS names and run.sh installs."""

import json
import os
import subprocess

from bench import contenders
from peers import spark as spark_peer
from peers.spark import PYTHON

NAMES = ("spark",)
SPARK_COLUMNS = ("order_id bigint, customer string, product string, quantity int, price decimal(10,2), paid boolean, "
                 "ordered_at timestamp, country string")


def named():
    """The peers that this run shall measure."""
    return [name for name in (os.environ.get("PEERS") or "").split() if name in NAMES]


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
