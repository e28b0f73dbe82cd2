"""make demo: messages from a private Kafka arrive in a private PostgreSQL.

Everything stays up for an hour, or until make demo-stop, with one order a second.  POSTGRES_VERSIONS=18: on that version.
"""

import datetime
import json
import random
import shutil
import sys
import time

from harness import build, paths
from harness.kafka import Broker
from harness.postgres import VERSIONS, Cluster
from harness.processes import (Process, clean_up_at_exit, leave_running, stop_all, stop_left_running,
                               wait_until)
from harness.topic import Topic

STATE = paths.CACHE / "demo.json"
LIFETIME = 3600  # seconds
BURST = 20_000   # orders that are produced at once, before the trickle
PARTITIONS = 3

CREATE_SERVER = """CREATE EXTENSION kafka_ingest;
CREATE SERVER demo_cluster FOREIGN DATA WRAPPER kafka
    OPTIONS (bootstrap_servers '{address}');"""

CREATE_TABLES = """CREATE FOREIGN TABLE orders_topic (
    order_id        bigint,
    customer        text        OPTIONS (path 'customer.name'),
    amount          numeric,
    ordered_at      timestamptz,
    kafka_partition int         OPTIONS (metadata 'partition'),
    kafka_offset    bigint      OPTIONS (metadata 'offset')
) SERVER demo_cluster OPTIONS (topic 'orders', format 'json');
CREATE TABLE orders (LIKE orders_topic);"""

CREATE_STREAM = "SELECT kafka.create_stream('orders', source => 'orders_topic', target => 'orders');"

COUNT = "SELECT count(*) AS orders, sum(amount) AS revenue, max(ordered_at) AS latest FROM orders;"

EXACTNESS = """WITH committed AS (
    SELECT t.* FROM orders_topic t JOIN kafka.stream_offset o
        ON o.stream = 'orders' AND o.partition = t.kafka_partition AND t.kafka_offset < o.next_offset)
SELECT (SELECT count(*) FROM orders) AS rows,
       (SELECT count(*) FROM (TABLE committed EXCEPT ALL TABLE orders) m) AS missing,
       (SELECT count(*) FROM (TABLE orders EXCEPT ALL TABLE committed) s) AS surplus;"""


def heading(text):
    print(f"\n== {text}", flush=True)


class Psql:
    """Shows SQL as it is executed, and what it returns."""

    def __init__(self, cluster, database):
        self.cluster = cluster
        self.database = database

    def show(self, statement):
        print("\n" + "\n".join(f"    {line}" for line in statement.splitlines()))
        output = self.cluster.psql(self.database, statement, "-P", "null=-").rstrip()
        if output:
            print("\n" + "\n".join(f"  {line}" for line in output.splitlines()), flush=True)

    def value(self, statement):
        return self.cluster.psql(self.database, statement, "-At").strip()


def run():
    stop(quiet=True)
    directory = paths.RunDirectory()
    try:
        show(directory)
    except BaseException as error:
        stop_all()
        if isinstance(error, Exception):
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            print(f"logs: {directory.keep_logs('demo')}", file=sys.stderr)
        directory.remove()
        sys.exit(1)
    STATE.write_text(json.dumps({"directory": str(directory.path), "processes": leave_running()}))


def show(directory):
    version = VERSIONS[0]
    heading(f"Building the extension, starting PostgreSQL {version} and Apache Kafka 4.1.0 (private, on free ports)")
    installation = build.build(version, directory)
    cluster = Cluster(installation, directory, "postgres").create().start(outlive=True)
    cluster.psql("postgres", "CREATE DATABASE demo")
    broker = Broker(directory).create().start(outlive=True)
    broker.create_topic("orders", PARTITIONS)
    Process("the producer", [sys.executable, "-m", "demo", "produce", broker.address],
            directory.logs / "producer.log", outlive=True)
    print(f"Kafka listens on {broker.address}; a producer writes orders as JSON to its topic \"orders\":")
    print("    " + json.dumps(an_order(1)))

    psql = Psql(cluster, "demo")
    heading("A connection, a topic table, and a target table")
    psql.show(CREATE_SERVER.format(address=broker.address))
    psql.show(CREATE_TABLES)
    heading("A look at the topic, straight from Kafka")
    wait_until(lambda: psql.value("SELECT count(*) FROM (SELECT FROM orders_topic LIMIT 3) t") == "3")
    psql.show("SELECT * FROM orders_topic LIMIT 3;")
    heading("The stream: from now on, every message becomes a row, once")
    psql.show(CREATE_STREAM)
    heading("Rows arrive")
    for goal in (1, BURST // 2, BURST, BURST + 3):
        wait_until(lambda: int(psql.value("SELECT count(*) FROM orders")) >= goal, timeout=60, interval=0.1,
                   what=lambda: "the rows arrive: " + psql.value("SELECT * FROM kafka.stream_status"))
        psql.show(COUNT)
    heading("How it is going")
    psql.show("SELECT stream, state, pid, messages, bytes, restarts, last_error FROM kafka.stream_status;")
    psql.show("SELECT partition, next_offset, high_watermark, lag FROM kafka.stream_lag ORDER BY partition;")
    heading("The checkpoint: rows and offsets are committed together, in one transaction")
    psql.show("SELECT partition, next_offset, batch_id FROM kafka.stream_offset ORDER BY partition;")
    heading("Is it exact? Every committed message of the topic against every row of the table")
    psql.show(EXACTNESS)
    if psql.value(EXACTNESS).split("|")[1:] != ["0", "0"]:
        raise RuntimeError("the table differs from the topic")

    print(f"""
It keeps running for {LIFETIME // 60} minutes, with one order a second. Look around:

    psql "{cluster.conninfo('demo')}"

    SELECT * FROM orders ORDER BY ordered_at DESC LIMIT 5 \\watch 1
    SELECT kafka.stop_stream('orders');
    SELECT kafka.start_stream('orders');

Logs: {directory.logs}
Stop and remove everything: make demo-stop""", flush=True)


def an_order(number):
    return {"order_id": number, "customer": {"name": random.choice(("Ada", "Grace", "Edsger", "Barbara"))},
            "amount": round(random.uniform(1, 500), 2),
            "ordered_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")}


def produce(address):
    """The background: a burst, then one order a second, then the end of the demo."""
    topic = Topic(address, "orders", PARTITIONS)
    end = time.monotonic() + LIFETIME
    number = 0
    while time.monotonic() < end:
        count = 2000 if number < BURST else 1
        topic.produce_all({"value": an_order(n), "partition": n % PARTITIONS}
                          for n in range(number + 1, number + count + 1))
        number += count
        time.sleep(0.2 if number < BURST else 1)
    stop(quiet=True)


def stop(quiet=False):
    """Ends what a demo left running and removes its directory."""
    if STATE.exists():
        state = json.loads(STATE.read_text())
        stop_left_running(state["processes"])
        shutil.rmtree(state["directory"], ignore_errors=True)
        STATE.unlink()
        print("the demo is stopped and removed", flush=True)
    elif not quiet:
        print("no demo is running")


if __name__ == "__main__":
    clean_up_at_exit()
    actions = {"run": run, "stop": stop, "produce": produce}
    actions[sys.argv[1] if len(sys.argv) > 1 else "run"](*sys.argv[2:])
