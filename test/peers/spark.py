"""Spark Structured Streaming as the tests see it: give it a query and a topic, get what each batch did."""

import dataclasses
import json
import subprocess

from harness import paths
from harness.processes import Process

DIRECTORY = paths.CACHE / "peers" / "spark"
PYTHON = DIRECTORY / "venv" / "bin" / "python"
DRIVER = paths.TEST / "peers" / "spark_driver.py"


class SparkError(Exception):
    """What Spark says about a query that it refuses or that fails."""


@dataclasses.dataclass
class Batch:
    rows: list         # what the query emitted, values as by canonical()
    input_rows: int
    watermark: str     # the one that the batch ran with
    late_rows: int     # as Spark counts: groups of a batch, not messages
    state_rows: int    # after the batch


def environment():
    """What a Python process needs to start Spark with the connector's jars."""
    jars = ",".join(str(jar) for jar in sorted((DIRECTORY / "jars").glob("*.jar")))
    return {"PYSPARK_SUBMIT_ARGS": f"--jars {jars} --driver-memory 1g pyspark-shell", "TZ": "UTC",
            "PYSPARK_PYTHON": str(PYTHON), "PYTHONPATH": "", "SPARK_LOCAL_IP": "127.0.0.1"}


class Spark:
    """One running Spark, for many queries one after the other."""

    def __init__(self, run_directory):
        self.log = run_directory.logs / "spark.log"
        self.process = Process("Spark", [PYTHON, DRIVER], self.log, environment=environment(),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, topic, columns, query, mode="append", batch_size=None, watermark=None, deduplicate_by=None,
            starting=None):
        """Runs a query of the view "topic" over all that is in the topic (trigger availableNow).

        columns: as in a Spark schema, read from the messages' JSON; kafka_partition and kafka_offset are there, too
        watermark: column and delay
        starting: options of Spark's source that say where to start
        Returns the batches, or raises SparkError.
        """
        job = {"address": topic.address, "topic": topic.name, "columns": columns, "query": query, "mode": mode,
               "batch_size": batch_size, "watermark": watermark, "deduplicate_by": deduplicate_by,
               "starting": starting or {}}
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            paths.show_tail(self.log)
            raise RuntimeError("Spark has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise SparkError(answer["error"])
        return [Batch(**batch) for batch in answer["batches"]]
