"""TLS, client certificates, SASL and access control, on a broker that has them."""

import itertools
import shutil

import pytest
from psycopg import sql

from expectations import assert_exact, error
from harness import librdkafka
from harness.database import Database
from harness.processes import wait_until
from harness.secure_kafka import ALICE, MECHANISMS, PASSWORD
from harness.topic import Topic

_numbers = itertools.count(1)
UNREACHABLE = "HV00N"
NOT_AUTHENTICATED = "28000"


@pytest.fixture
def topic(secure_kafka):
    """A topic that alice may read, with 300 messages."""
    topic = Topic(secure_kafka.address, f"secure-{next(_numbers)}", 3, secure_kafka.admin())
    secure_kafka.create_topic(topic.name, 3)
    secure_kafka.allow(topic.name)
    topic.produce_sequence(300)
    return topic


def map_user(db, command="CREATE", **options):
    """CREATE USER MAPPING with options, or ALTER ... SET."""
    word = sql.SQL("SET " if command == "ALTER" else "")
    listed = sql.SQL(", ").join(word + sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(value))
                                for key, value in options.items())
    db.run(sql.SQL(command) + sql.SQL(" USER MAPPING FOR CURRENT_USER SERVER broker OPTIONS ({})").format(listed))


def use(db, broker, listener, **options):
    """The server "broker" of the database is this listener."""
    protocol = "sasl_ssl" if listener == "sasl" else "ssl"
    db.create_server(broker.addresses[listener],
                     **{"security_protocol": protocol, "ssl_ca_pem": broker.authority.pem,
                        "socket_timeout_ms": 3000, "reconnect_backoff_max_ms": 200, **options})


def use_password(db, broker, mechanism="SCRAM-SHA-512", password=PASSWORD):
    use(db, broker, "sasl", sasl_mechanism=mechanism)
    map_user(db, sasl_username=ALICE, sasl_password=password)


@pytest.fixture
def log(postgres):
    """The server's log since the start of the test."""
    start = postgres.log.stat().st_size
    return lambda: postgres.log.read_bytes()[start:].decode(errors="replace")


@pytest.fixture
def bare_db(empty_db):
    empty_db.run("CREATE EXTENSION kafka_ingest")
    return empty_db


def assert_secret_nowhere(secret, db, log):
    """Not in the log, nor in what the views and the activity show."""
    assert secret not in log()
    for view in ("kafka.stream", "kafka.stream_status", "kafka.stream_progress", "kafka.dead_letter",
                 "pg_stat_activity"):
        assert secret not in db.value(f"SELECT coalesce(string_agg(v::text, ' '), '') FROM {view} v "
                                      "WHERE v::text NOT LIKE '%%string_agg%%'")


def assert_stream_reads(db, topic):
    db.create_tables(topic)
    assert db.value("SELECT count(*) FROM topic") == 300
    db.create_stream()
    assert_exact(db, topic)
    topic.produce_sequence(300, first=301)
    assert_exact(db, topic)


# --- ways in ---------------------------------------------------------------

def test_tls_with_a_private_authority(bare_db, secure_kafka, topic):
    use(bare_db, secure_kafka, "ssl")
    assert_stream_reads(bare_db, topic)


def test_mutual_tls(bare_db, secure_kafka, topic, log):
    use(bare_db, secure_kafka, "mutual")
    map_user(bare_db, ssl_certificate_pem=secure_kafka.client.certificate, ssl_key_pem=secure_kafka.client.key,
             ssl_key_password="key-Secret-1")
    assert_stream_reads(bare_db, topic)
    assert_secret_nowhere("key-Secret-1", bare_db, log)
    assert_secret_nowhere(secure_kafka.client.key.splitlines()[1], bare_db, log)


def test_certificates_in_files(bare_db, secure_kafka, topic, run_directory):
    """Paths of the server's host, for those who may read files there anyway."""
    files = run_directory.subdirectory("certificates")
    for name, text in (("ca", secure_kafka.authority.pem), ("certificate", secure_kafka.client.certificate),
                       ("key", secure_kafka.client.key)):
        (files / name).write_text(text)
    bare_db.create_server(secure_kafka.addresses["mutual"], security_protocol="ssl",
                          ssl_ca_location=files / "ca", ssl_certificate_location=files / "certificate",
                          ssl_key_location=files / "key")
    map_user(bare_db, ssl_key_password="key-Secret-1")
    assert_stream_reads(bare_db, topic)


def test_sasl_plain_over_tls(bare_db, secure_kafka, topic, log):
    use_password(bare_db, secure_kafka, "PLAIN")
    assert_stream_reads(bare_db, topic)
    assert_secret_nowhere(PASSWORD, bare_db, log)


def test_secrets_with_every_statement_logged(new_cluster, secure_kafka, topic):
    """The remedy of doc/security.md for one's own statements; all others have no secrets."""
    cluster = new_cluster({"log_min_messages": "debug5", "log_statement": "all", "log_min_duration_statement": "0",
                           "debug_print_plan": "on"}).start()
    db = Database(cluster)
    db.run("SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_min_duration_statement = -1;"
           "SET debug_print_plan = off")
    use_password(db, secure_kafka, "PLAIN")
    with error("already exists"):
        map_user(db, sasl_username=ALICE, sasl_password=PASSWORD)
    db.run("RESET ALL")
    assert_stream_reads(db, topic)
    db.run("EXPLAIN VERBOSE SELECT * FROM topic; SELECT kafka.explain_stream('s'); SELECT kafka.verify_stream('s')")
    assert "kafka.explain_stream" in cluster.log.read_text()
    assert_secret_nowhere(PASSWORD, db, cluster.log.read_text)


def test_a_small_queue_of_an_authenticated_connection(bare_db, secure_kafka, topic):
    """Fetching is held back and goes on many times."""
    use_password(bare_db, secure_kafka, "PLAIN")
    bare_db.run("ALTER SERVER broker OPTIONS (ADD queued_max_messages_kbytes '100', ADD fetch_message_max_bytes '50000')")
    bare_db.create_tables(topic)
    topic.produce_all({"value": {"id": number, "padding": "x" * 1000}, "partition": number % 3}
                      for number in range(301, 20_301))
    bare_db.create_stream()
    assert_exact(bare_db, topic)


# --- SCRAM: librdkafka before 2.6.1 can't at a Kafka of today ---------------

@pytest.fixture(scope="module")
def new_library(run_directory):
    """The librdkafka that the Python client brings along."""
    copy = run_directory.path / "librdkafka.so.1"
    shutil.copy(librdkafka.library(), copy)
    copy.chmod(0o755)
    return copy


@pytest.fixture
def new_library_db(new_cluster, new_library):
    cluster = new_cluster({"log_min_messages": "debug5", "kafka_ingest.metadata_refresh_interval": "1s"},
                          environment={"LD_PRELOAD": str(new_library)}).start()
    db = Database(cluster)
    assert tuple(map(int, db.value("SELECT kafka.library_version()").split("."))) > (2, 6, 0)
    return db


@pytest.mark.parametrize("mechanism", MECHANISMS[1:])
def test_scram_over_tls(new_library_db, secure_kafka, topic, mechanism):
    db = new_library_db
    use_password(db, secure_kafka, mechanism)
    assert_stream_reads(db, topic)
    assert_secret_nowhere(PASSWORD, db, db.cluster.log.read_text)


def test_password_changed_under_load(new_library_db, secure_kafka, topic):
    """The old password is refused; ALTER USER MAPPING gives the new one: nothing lost, nothing twice."""
    db = new_library_db
    use_password(db, secure_kafka)
    db.create_tables(topic)
    db.create_stream(max_offsets_per_trigger=50)
    written = 300
    for number in range(3):
        secret = f"next-Secret-{number}"
        topic.produce_sequence(600, first=written + 1)
        secure_kafka.set_password(secret)
        map_user(db, "ALTER", sasl_password="wrong-Secret-9")
        wait_until(lambda: db.status().last_error_sqlstate == NOT_AUTHENTICATED)
        topic.produce_sequence(600, first=written + 601)
        map_user(db, "ALTER", sasl_password=secret)
        written += 1200
        assert_exact(db, topic)
    log = db.cluster.log.read_text()
    for secret in ("next-Secret", "wrong-Secret", PASSWORD):
        assert secret not in "".join(line for line in log.splitlines() if "USER MAPPING" not in line)


@pytest.mark.parametrize("mechanism", MECHANISMS[1:])
def test_scram_with_the_library_in_use(bare_db, secure_kafka, topic, mechanism):
    """One that is too old to know how says so."""
    use_password(bare_db, secure_kafka, mechanism)
    if tuple(map(int, bare_db.value("SELECT kafka.library_version()").split("."))) > (2, 6, 0):
        assert_stream_reads(bare_db, topic)
        return
    bare_db.create_tables(topic)
    assert_refused(bare_db, NOT_AUTHENTICATED, "authentication", hint=r"takes librdkafka 2\.6\.1")


# --- closed doors ----------------------------------------------------------

def assert_refused(db, sqlstate, message=".", detail=None, hint=None):
    """SELECT and create_stream say so."""
    for attempt in (lambda: db.run("SELECT * FROM topic"), db.create_stream):
        with error(message, detail, hint, sqlstate) as caught:
            attempt()
        assert "Secret" not in str(caught.value)


def test_wrong_password(bare_db, secure_kafka, topic, log):
    use_password(bare_db, secure_kafka, "PLAIN", "wrong-Secret-2")
    bare_db.create_tables(topic)
    assert_refused(bare_db, NOT_AUTHENTICATED, "authentication", hint="user mapping")
    assert_secret_nowhere("wrong-Secret-2", bare_db, log)


@pytest.mark.parametrize("listener, detail, hint", [
    ("unknown_authority", "authority is not known", "ssl_ca_pem"),
    ("expired", "has expired", "Renew"),
    ("wrong_host", "another host name", "names of the certificate")])
def test_certificate_that_is_not_trusted(bare_db, secure_kafka, topic, listener, detail, hint):
    use(bare_db, secure_kafka, listener)
    bare_db.create_tables(topic)
    assert_refused(bare_db, UNREACHABLE, detail=detail, hint=hint)


@pytest.mark.parametrize("options", [
    {"enable_ssl_certificate_verification": "false"}, {"ssl_endpoint_identification_algorithm": "none"}])
def test_switched_off_verification(bare_db, secure_kafka, topic, options):
    """Of the name, or of all: what a superuser's server says."""
    use(bare_db, secure_kafka, "wrong_host", **options)
    bare_db.create_topic_table(topic)
    assert bare_db.value("SELECT count(*) FROM topic") == 300


def test_no_client_certificate(bare_db, secure_kafka, topic):
    use(bare_db, secure_kafka, "mutual")
    bare_db.create_tables(topic)
    assert_refused(bare_db, UNREACHABLE, hint="ssl_certificate_pem")


def test_wrong_key_password(bare_db, secure_kafka, topic, log):
    use(bare_db, secure_kafka, "mutual")
    map_user(bare_db, ssl_certificate_pem=secure_kafka.client.certificate, ssl_key_pem=secure_kafka.client.key,
             ssl_key_password="wrong-Secret-3")
    bare_db.create_tables(topic)
    assert_refused(bare_db, UNREACHABLE, "set up", hint="user mapping")
    assert_secret_nowhere("wrong-Secret-3", bare_db, log)


def test_plaintext_to_a_tls_port(bare_db, secure_kafka, topic):
    bare_db.create_server(secure_kafka.addresses["ssl"], socket_timeout_ms=3000)
    bare_db.create_tables(topic)
    assert_refused(bare_db, UNREACHABLE, detail="security.protocol|[Dd]isconnected|brokers are down", hint="security_protocol")


def test_tls_to_a_plaintext_port(bare_db, secure_kafka, topic):
    use(bare_db, secure_kafka, "redirecting", socket_timeout_ms=3000)
    bare_db.create_tables(topic)
    assert_refused(bare_db, UNREACHABLE, hint="security_protocol")


# --- a stream that runs, and is locked out ---------------------------------

def test_topic_that_the_user_may_not_read(bare_db, secure_kafka, topic):
    use_password(bare_db, secure_kafka, "PLAIN")
    bare_db.create_tables(topic)
    with secure_kafka.forbidden(topic.name):
        assert_refused(bare_db, NOT_AUTHENTICATED, "permission denied", hint="READ and DESCRIBE")


def test_access_revoked_and_restored(bare_db, secure_kafka, topic):
    use_password(bare_db, secure_kafka, "PLAIN")
    bare_db.create_tables(topic)
    bare_db.create_stream()
    assert_exact(bare_db, topic)
    with secure_kafka.forbidden(topic.name):
        bare_db.wait_for_error(topic.name, NOT_AUTHENTICATED)
        topic.produce_sequence(300, first=301)
        assert bare_db.value("SELECT count(*) FROM target") == 300
    assert_exact(bare_db, topic)


def test_password_made_wrong_and_right(bare_db, secure_kafka, topic, log):
    use_password(bare_db, secure_kafka, "PLAIN")
    bare_db.create_tables(topic)
    bare_db.create_stream()
    assert_exact(bare_db, topic)
    map_user(bare_db, "ALTER", sasl_password="wrong-Secret-4")
    topic.produce_sequence(300, first=301)  # wakes the worker up
    bare_db.wait_for_error("authentication", NOT_AUTHENTICATED)
    map_user(bare_db, "ALTER", sasl_password=PASSWORD)
    assert_exact(bare_db, topic)
    assert_secret_nowhere("wrong-Secret-4", bare_db, log)
    assert_secret_nowhere(PASSWORD, bare_db, log)


def test_certificate_expires_on_a_running_stream(bare_db, secure_kafka, topic):
    """As seen after a reconnect: the stream says why, and goes on with the next certificate."""
    use(bare_db, secure_kafka, "ssl")
    bare_db.create_tables(topic)
    bare_db.create_stream()
    assert_exact(bare_db, topic)
    set_server = "ALTER SERVER broker OPTIONS (SET bootstrap_servers '{}')".format
    bare_db.run(set_server(secure_kafka.addresses["expired"]))
    topic.produce_sequence(300, first=301)  # wakes the worker up
    bare_db.wait_for_error("has expired", UNREACHABLE)
    topic.produce_sequence(300, first=601)
    bare_db.run(set_server(secure_kafka.addresses["ssl"]))
    assert_exact(bare_db, topic)
