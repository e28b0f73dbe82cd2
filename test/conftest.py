"""Fixtures of the end-to-end tests: a real Kafka and a real PostgreSQL for the
session, a database and topics for each test.

    test/run.sh pytest test -k restart --postgres-version 18
"""

import itertools
import os
import pathlib

import pytest

from harness import build, paths
from harness.database import Database
from harness.kafka import Broker
from harness.postgres import KNOWN, VERSIONS, Cluster, Installation
from harness.processes import clean_up_at_exit, stop_all
from harness.secure_kafka import PASSWORD, SecureBroker
from harness.topic import Topic

_numbers = itertools.count(1)


def pytest_addoption(parser):
    parser.addoption("--postgres-version", type=int, choices=KNOWN, default=VERSIONS[0])
    parser.addoption("--sanitize", action="store_true", help="build and run with AddressSanitizer and "
                                                             "UndefinedBehaviorSanitizer (PostgreSQL 18)")
    parser.addoption("--seed", default="0", help="for what is generated at random")
    parser.addoption("--installation", help="directory of a PostgreSQL copy with the extension in it; "
                                            "default: a new one is built")


def pytest_configure():
    clean_up_at_exit()


@pytest.fixture(scope="session")
def run_directory(request):
    directory = paths.RunDirectory()
    yield directory
    stop_all()
    reports = list(directory.path.glob("sanitizer/*"))
    for report in reports:
        print(f"\n{report.name}:\n{report.read_text()[:6000]}")
    if request.session.testsfailed or reports:
        # one of several processes that share the tests has a name of its own
        process = os.environ.get("PYTEST_XDIST_WORKER", "")
        kept = directory.keep_logs(f"pytest-{request.config.getoption('--postgres-version')}{process}")
        print(f"\nlogs of the servers: {kept}")
    directory.remove()


@pytest.fixture(scope="session")
def installation(request, run_directory):
    version = request.config.getoption("--postgres-version")
    directory = request.config.getoption("--installation")
    if directory:
        installation = Installation(version, pathlib.Path(directory))
        if request.config.getoption("--sanitize"):
            build.run_sanitized(installation, run_directory)
        return installation
    return build.build(version, run_directory, sanitized=request.config.getoption("--sanitize"))


@pytest.fixture(scope="session")
def session_broker(run_directory):
    return Broker(run_directory).create().start()


@pytest.fixture(scope="session")
def session_secure_broker(run_directory):
    broker = SecureBroker(run_directory).create().start()
    yield broker
    broker.stop()


@pytest.fixture
def secure_kafka(session_secure_broker):
    """The broker with TLS, SASL and access control, running, alice's password as it was."""
    session_secure_broker.ensure_running()
    session_secure_broker.set_password(PASSWORD)
    return session_secure_broker


@pytest.fixture(scope="session")
def session_postgres(installation, run_directory):
    return Cluster(installation, run_directory, "main").create().start()


@pytest.fixture
def kafka(session_broker):
    """The broker, running; a test may stop, kill or suspend it."""
    session_broker.ensure_running()
    yield session_broker
    session_broker.ensure_running()


@pytest.fixture
def postgres(session_postgres):
    """The server, running; a test may restart it."""
    if not session_postgres.process.is_running():
        session_postgres.start()
    return session_postgres


@pytest.fixture
def new_cluster(installation, run_directory):
    """Makes further servers: new_cluster(settings) is created but not started."""
    clusters = []

    def make(settings=None, primary=None, environment=None):
        cluster = Cluster(installation, run_directory, f"extra{next(_numbers)}", settings, environment)
        clusters.append(cluster)
        return cluster.create_standby(primary) if primary else cluster.create()

    yield make
    for cluster in clusters:
        cluster.remove()


@pytest.fixture
def new_topic(kafka):
    """Makes topics: new_topic(partitions=3, cleanup_policy="compact")."""
    def make(partitions=1, **config):
        topic = Topic(kafka.address, f"topic-{next(_numbers)}", partitions, kafka.admin())
        kafka.create_topic(topic.name, partitions, **config)
        return topic
    return make


@pytest.fixture
def topic(new_topic):
    """An empty topic of three partitions."""
    return new_topic(3)


@pytest.fixture
def empty_db(postgres, request):
    """A new database without the extension."""
    database = Database(postgres, extension=False)
    yield database
    database.drop()


@pytest.fixture
def connection(empty_db):
    """A plain psycopg connection (no autocommit) to a new database without the extension."""
    with empty_db.connect(autocommit=False) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def db(empty_db, kafka):
    """A new database with the extension and a server "broker" for our Kafka."""
    empty_db.run("CREATE EXTENSION kafka_ingest")
    empty_db.create_server(kafka.address)
    return empty_db


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Shows what PostgreSQL logged during a test that failed."""
    cluster = item.funcargs.get("postgres")
    start = cluster.log.stat().st_size if cluster else 0
    outcome = yield
    if cluster and outcome.excinfo is not None:
        with open(cluster.log, "rb") as log:
            log.seek(start)
            text = log.read()[-6000:].decode(errors="replace")
        item.add_report_section("call", "PostgreSQL's log", text)
        item.user_properties.append(("PostgreSQL's log", text))  # for the report that check.py reads
