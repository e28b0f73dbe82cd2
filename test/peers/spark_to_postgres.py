"""The benchmark's Spark job, in Spark's own Python environment: a topic into a table by JDBC.

Gets a job in JSON as its argument and prints what it measured as JSON.
"""

import json
import sys
import time

from pyspark.sql import SparkSession, functions


def main():
    started = time.monotonic()
    job = json.loads(sys.argv[1])
    spark = (SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
             .config("spark.sql.session.timeZone", "UTC").getOrCreate())
    spark.sparkContext.setLogLevel("ERROR")
    messages = (spark.readStream.format("kafka").option("kafka.bootstrap.servers", job["address"])
                .option("subscribe", job["topic"]).option("startingOffsets", "earliest")
                .option("kafka.isolation.level", "read_committed")
                .option("maxOffsetsPerTrigger", job["batch_size"]).load())
    rows = messages.select(functions.from_json(functions.col("value").cast("string"), job["columns"]).alias("row"))
    rows = rows.select("row.*")
    batches = []

    def write(batch, _batch_id):
        begun = time.monotonic()
        (batch.write.format("jdbc").mode("append").option("url", job["url"]).option("user", "postgres")
         .option("driver", "org.postgresql.Driver").option("dbtable", job["table"])
         .option("batchsize", 10_000).save())
        batches.append(time.monotonic() - begun)

    query = (rows.writeStream.foreachBatch(write).option("checkpointLocation", job["checkpoint"])
             .trigger(availableNow=True).start())
    query.awaitTermination()
    reports = [report for report in query.recentProgress if report["numInputRows"]]
    spark.stop()
    # the first batch compiles the query and warms up the JVM
    steady = reports[1:] or reports
    milliseconds = sum(report["durationMs"]["triggerExecution"] for report in steady)
    print(json.dumps({"seconds": time.monotonic() - started, "batches": len(reports),
                      "steady_rows_per_second": sum(report["numInputRows"] for report in steady) / milliseconds * 1000}))


if __name__ == "__main__":
    main()
