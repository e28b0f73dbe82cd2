"""Runs streaming queries in Spark, in Spark's own Python environment.

Reads a job in JSON per line of standard input and answers each with a line of
JSON; the other side is spark.py, which says what is in a job.
"""

import datetime
import json
import os
import shutil
import sys
import tempfile
import traceback

from pyspark.sql import SparkSession, functions

from canonical import canonical, moment


def start():
    return (SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.sql.streaming.numRecentProgressUpdates", "10000")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .getOrCreate())


def source(spark, job):
    """The topic as kafka_ingest's topic table shows it, with the watermark."""
    messages = (spark.readStream.format("kafka")
                .option("kafka.bootstrap.servers", job["address"])
                .option("kafka.isolation.level", "read_committed")
                .option("subscribe", job["topic"])
                .options(**{"startingOffsets": "earliest", **job["starting"]}))
    if job["batch_size"]:
        messages = messages.option("maxOffsetsPerTrigger", job["batch_size"])
    rows = messages.load().select(
        functions.from_json(functions.col("value").cast("string"), job["columns"]).alias("row"),
        functions.col("partition").alias("kafka_partition"), functions.col("offset").alias("kafka_offset"))
    rows = rows.select("row.*", "kafka_partition", "kafka_offset")
    if job["watermark"]:
        rows = rows.withWatermark(*job["watermark"])
    if job["deduplicate_by"]:
        rows = rows.dropDuplicatesWithinWatermark(job["deduplicate_by"])
    return rows


def run(spark, job):
    """Runs the query over what is in the topic now; returns what each batch did."""
    source(spark, job).createOrReplaceTempView("topic")
    written = {}

    def record(batch, batch_id):
        written[batch_id] = [[canonical(value) for value in row] for row in batch.collect()]

    checkpoint = tempfile.mkdtemp(prefix="spark.")
    try:
        query = (spark.sql(job["query"]).writeStream.outputMode(job["mode"]).foreachBatch(record)
                 .option("checkpointLocation", checkpoint).trigger(availableNow=True).start())
        query.awaitTermination()
        progress = {report["batchId"]: report for report in query.recentProgress if report["batchId"] in written}
    finally:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return [summary(rows, progress[batch_id]) for batch_id, rows in sorted(written.items())]


def summary(rows, report):
    states = report["stateOperators"]
    watermark = report.get("eventTime", {}).get("watermark")
    if watermark is not None:
        watermark = moment(datetime.datetime.fromisoformat(watermark.replace("Z", "+00:00")))
    return {"rows": rows, "input_rows": report["numInputRows"], "watermark": watermark,
            "late_rows": sum(state["numRowsDroppedByWatermark"] for state in states),
            "state_rows": sum(state["numRowsTotal"] for state in states)}


def main():
    # answers have the real standard output for themselves
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    spark = start()
    spark.sparkContext.setLogLevel("ERROR")
    for line in sys.stdin:
        try:
            answer = {"batches": run(spark, json.loads(line))}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    spark.stop()


if __name__ == "__main__":
    main()
