"""A private Apache Kafka: one node, broker and controller in one (KRaft)."""

import queue
import shutil
import signal
import subprocess
import threading

from harness import paths
from harness.processes import Process, suspend, wait_until

SETTINGS = """
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={directory}/data
auto.create.topics.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
group.initial.rebalance.delay.ms=0
log.cleaner.backoff.ms=500
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
"""

LOGGING = """
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c{1}: %m%n
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
"""

# starts fast, and leaves memory for others; stops all its threads for some tens of milliseconds at times
SMALL = ("-Xmx512m", "-XX:+UseSerialGC")
# what kafka-server-start.sh gives it
PRODUCTION = ("-server", "-Xms1G", "-Xmx1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
              "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent")


def _has_leaders(topic):
    return all(partition.leader >= 0 for partition in topic.partitions.values())


class Broker:
    """Controls: start, stop, kill, suspend, resume.  Its address stays the same.

    What connects to proxied_port is sent on to proxy_port, where a test may have a proxy.
    """

    def __init__(self, run_directory, name="kafka", java_options=SMALL):
        self.directory = run_directory.subdirectory(name)
        self.log = run_directory.logs / f"{name}.log"
        self.java_options = java_options
        self.port = paths.free_port()
        self.controller_port = paths.free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.proxied_port = paths.free_port()
        self.proxy_port = paths.free_port()
        self.process = None
        self._suspended = False
        self._admin = None

    def create(self):
        text = SETTINGS.format(controller_port=self.controller_port, directory=self.directory)
        text += self.listener_settings()
        self._settings = self.directory / "server.properties"
        self._settings.write_text(text)
        self._logging = self.directory / "log4j2.properties"
        self._logging.write_text(LOGGING)
        with open(self.log, "ab") as log:
            subprocess.run(self._java("kafka.tools.StorageTool", "format", "--standalone",
                                      "-t", "a2Fma2FfaW5nZXN0X3Rlcw", "-c", self._settings),
                           stdout=log, stderr=log, check=True)
        return self

    def listener_settings(self):
        """What of server.properties is about listeners."""
        own = f"PLAINTEXT://127.0.0.1:{self.port}"
        return (f"listeners={own},PROXIED://127.0.0.1:{self.proxied_port},"
                f"CONTROLLER://127.0.0.1:{self.controller_port}\n"
                f"advertised.listeners={own},PROXIED://127.0.0.1:{self.proxy_port}\n"
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n")

    def _java(self, main_class, *arguments):
        return ["java", *self.java_options, "-XX:-UsePerfData", "-cp", f"{paths.KAFKA_JARS}/*",
                f"-Dlog4j2.configurationFile={self._logging}", main_class, *map(str, arguments)]

    def start(self, outlive=False):
        self.process = Process("Kafka", self._java("kafka.Kafka", self._settings), self.log,
                               outlive=outlive)
        self._wait_until_ready()
        return self

    def _wait_until_ready(self):
        try:
            wait_until(self._is_ready, timeout=120, interval=0.05, what="Kafka answers, and leads all partitions")
        except Exception:
            paths.show_tail(self.log)
            raise

    def _is_ready(self):
        """It answers before it has been let in again by the controller, and leads its partitions.

        And it names leaders before it answers for them: seconds, with hundreds of partitions on a busy machine.
        """
        metadata = self._metadata()
        # asked afterwards: when this broker could not listen, the answer was another's
        if not self.process.is_running():
            raise RuntimeError("Kafka did not start")
        if not metadata or not metadata.brokers:
            return False
        return all(_has_leaders(topic) for topic in metadata.topics.values()) and self._answers_for(metadata.topics)

    def _answers_for(self, topics):
        """Are there offsets of all partitions?"""
        from confluent_kafka import KafkaException, TopicPartition
        from confluent_kafka.admin import OffsetSpec
        request = {TopicPartition(name, partition): OffsetSpec.latest()
                   for name, topic in topics.items() for partition in topic.partitions}
        if not request:
            return True
        try:
            self._finish(self.admin().list_offsets(request, request_timeout=5))
        except KafkaException:
            return False
        except TimeoutError:
            self._admin = None  # as in _metadata
            return False
        return True

    def _metadata(self):
        """None when nothing answers.

        The client has been seen to wait for minutes, whatever the time-out, on a broker that was just starting on a
        busy machine: then another one is asked.
        """
        from confluent_kafka import KafkaException
        client = self.admin()
        answers = queue.SimpleQueue()

        def ask():
            try:
                answers.put(client.list_topics(timeout=1))
            except KafkaException:
                answers.put(None)

        threading.Thread(target=ask, daemon=True).start()
        try:
            return answers.get(timeout=10)
        except queue.Empty:
            self._admin = None
            return None

    def admin(self):
        """The one client for requests; it must live as long as its answers are awaited."""
        from confluent_kafka.admin import AdminClient
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0,
                                       "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100})
        return self._admin

    def stop(self, timeout=60):
        self._suspended = False
        self.process.stop(signal.SIGTERM, timeout)

    def kill(self):
        self._suspended = False
        self.process.stop(signal.SIGKILL)

    def suspend(self):
        self._suspended = True
        suspend(self.process.pid)

    def resume(self):
        self._suspended = False
        self.process.send(signal.SIGCONT)
        self._wait_until_ready()

    def ensure_running(self):
        """Puts right what a test left: resumes or starts the broker."""
        if self._suspended:
            self.resume()
        if not self.process.is_running():
            self.start()

    def create_topic(self, name, partitions=1, **config):
        """Old timestamps in tests: messages are kept for ever unless config says otherwise."""
        from confluent_kafka.admin import NewTopic
        config = {"retention.ms": "-1", **{key.replace("_", "."): str(value) for key, value in config.items()}}
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        self._request_when_let_in(lambda: self.admin().create_topics([topic]))
        self._wait_for_partitions(name, partitions)

    def _request_when_let_in(self, request):
        """Makes a request that needs brokers for new partitions: one that was suspended or started just now may still be fenced."""
        from confluent_kafka import KafkaError, KafkaException

        def done():
            try:
                self._finish(request())
                return True
            except KafkaException as error:
                if error.args[0].code() != KafkaError.INVALID_REPLICATION_FACTOR:
                    raise
                return False

        wait_until(done, what="the broker takes new partitions")

    def add_partitions(self, name, total):
        from confluent_kafka.admin import NewPartitions
        self._request_when_let_in(lambda: self.admin().create_partitions([NewPartitions(name, total)]))
        self._wait_for_partitions(name, total)

    def delete_records(self, name, before):
        """Removes the messages in front of these offsets, as retention does; before: partition -> offset."""
        from confluent_kafka import TopicPartition
        self._finish(self.admin().delete_records([TopicPartition(name, *end) for end in before.items()]))

    def delete_topic(self, name):
        self._finish(self.admin().delete_topics([name]))
        wait_until(lambda: name not in self.admin().list_topics(timeout=10).topics,
                   what=f"topic {name} is gone")

    def recreate_topic(self, topic, partitions=None):
        """Deletes a Topic and creates it anew, empty."""
        self.delete_topic(topic.name)
        self.create_topic(topic.name, partitions or topic.partitions)
        topic.partitions_added(partitions or topic.partitions)

    def recreate_topic_at_once(self, topic):
        """The same, without waiting until anybody has heard of it."""
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import NewTopic
        self._finish(self.admin().delete_topics([topic.name]))
        while True:
            try:
                return self._request_when_let_in(lambda: self.admin().create_topics([NewTopic(topic.name, topic.partitions, 1)]))
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

    def _wait_for_partitions(self, name, total):
        def all_have_leaders():
            topic = self.admin().list_topics(timeout=10).topics.get(name)
            return topic and len(topic.partitions) == total and _has_leaders(topic)
        wait_until(all_have_leaders, what=f"topic {name} has {total} partitions")

    @staticmethod
    def _finish(futures):
        for future in futures.values():
            future.result(timeout=30)

    def remove(self):
        if self.process and self.process.is_running():
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
