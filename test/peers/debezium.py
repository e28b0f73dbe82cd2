"""Debezium's JDBC sink in a standalone Kafka Connect: one task that writes a topic's messages into a table.

Set up to be fast: many rows a statement and a transaction, as arrays that PostgreSQL unnests.
"""

import json
import urllib.error
import urllib.request

from harness import paths
from harness.kafka import LOGGING, PRODUCTION
from harness.processes import Process

JARS = paths.CACHE / "peers" / "debezium" / "jars"
HEAP = ("-Xms256M", "-Xmx2G")  # what connect-standalone.sh gives it
BATCH_SIZE = 10_000
NAME = "bench"

WORKER = """
bootstrap.servers={address}
listeners=http://127.0.0.1:{port}
offset.storage.file.filename={directory}/offsets
plugin.discovery=service_load
key.converter=org.apache.kafka.connect.converters.ByteArrayConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=true
value.converter.schema.content={schema}
consumer.auto.offset.reset=earliest
consumer.isolation.level=read_committed
consumer.max.poll.records={batch_size}
consumer.fetch.min.bytes=1000000
consumer.max.partition.fetch.bytes=10000000
"""

CONNECTOR = """
name={name}
connector.class=io.debezium.connector.jdbc.JdbcSinkConnector
tasks.max=1
topics={topic}
connection.url={url}
connection.username=postgres
connection.password=
connection.pool.min_size=1
connection.pool.acquire_increment=1
collection.name.format={table}
insert.mode=insert
primary.key.mode=none
schema.evolution=none
use.reduction.buffer=false
dialect.postgres.unnest.insert.enabled=true
batch.size={batch_size}
"""


class Connect:
    """Runs from its creation to stop(); process is its harness.processes.Process."""

    def __init__(self, run_directory, address, topic, fields, url, table):
        """fields: of the messages, as in a schema of Connect's; url: of the database for JDBC."""
        directory = run_directory.subdirectory("debezium")
        self.log = run_directory.logs / "debezium.log"
        self._port = paths.free_port()
        schema = json.dumps({"type": "struct", "optional": False, "fields": fields})
        texts = {"worker.properties": WORKER.format(address=address, port=self._port, directory=directory,
                                                    schema=schema, batch_size=BATCH_SIZE),
                 "connector.properties": CONNECTOR.format(name=NAME, topic=topic, url=url, table=table,
                                                          batch_size=BATCH_SIZE),
                 "log4j2.properties": LOGGING}
        for name, text in texts.items():
            (directory / name).write_text(text)
        self.process = Process("Debezium", ["java", *PRODUCTION, *HEAP, "-cp", f"{JARS}/*",
                                            f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}",
                                            "org.apache.kafka.connect.cli.ConnectStandalone",
                                            directory / "worker.properties", directory / "connector.properties"],
                               self.log)

    def require_running(self):
        """An error when the task has failed: Connect itself goes on then."""
        if not self.process.is_running():
            paths.show_tail(self.log)
            raise RuntimeError("Kafka Connect has ended")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self._port}/connectors/{NAME}/status", timeout=10) as answer:
                status = json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return  # it does not listen yet, or has no connector yet
        for task in status["tasks"]:
            if task["state"] == "FAILED":
                raise RuntimeError(f"Debezium has failed:\n{task['trace']}")

    def stop(self):
        self.process.stop()
