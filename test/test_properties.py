"""Properties of librdkafka that would load, run, read, write or listen; hosts that may be connected to."""

import contextlib
import itertools
import socket
import subprocess
import threading

import psycopg
import pytest
from psycopg import sql

from expectations import assert_exact, error
from harness.processes import wait_until
from roles import Roles

NOT_AN_OPTION = "HV00D"
DENIED = "42501"


class Markers:
    """A library, a command, files and a socket that tell when they are touched."""

    def __init__(self, directory):
        directory.chmod(0o777)
        self.directory = directory
        self.loaded, self.ran, self.written = (directory / name for name in ("loaded", "ran", "written"))
        source = directory / "marker.c"
        source.write_text(f"""#include <fcntl.h>
            __attribute__((constructor)) static void mark(void) {{ open("{self.loaded}", O_CREAT | O_WRONLY, 0666); }}
            int conf_init(void) {{ mark(); return 0; }} int bind_engine(void) {{ mark(); return 0; }}""")
        self.library = directory / "marker.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", self.library, source], check=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/token"
        self.connections = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self.connections.append(self.listener.accept())

    def assert_untouched(self):
        assert not [path.name for path in (self.loaded, self.ran, self.written) if path.exists()]
        assert not self.connections

    def properties(self):
        """By librdkafka's own names."""
        return {
            "plugin.library.paths": self.library, "ssl.engine.location": self.library, "ssl.engine.id": "dynamic",
            "ssl.providers": "legacy", "sasl.kerberos.kinit.cmd": f"touch {self.ran}",
            "sasl.kerberos.keytab": self.written, "sasl.oauthbearer.token.endpoint.url": self.url,
            "sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.config": "principal=x",
            "enable.sasl.oauthbearer.unsecure.jwt": "true", "offset.store.path": self.written,
            "offset.store.method": "file", "topic.offset.store.path": self.written, "test.mock.num.brokers": "3",
            "ssl.keystore.location": self.written, "ssl.keystore.password": "Secret", "debug": "all",
            "interceptors": "x", "log_cb": "x", "resolve_cb": "x", "opaque": "x", "default_topic_conf": "x",
            "enable.auto.commit": "true", "group.id": "x", "statistics.interval.ms": "1", "log_level": "7",
            "client.dns.lookup": "resolve_canonical_bootstrap_servers_only", "partitioner": "random"}


@pytest.fixture
def markers(run_directory):
    markers = Markers(run_directory.subdirectory("markers"))
    yield markers
    markers.listener.close()


def spellings(name):
    """As a hostile user would write it."""
    return {name, name.replace(".", "_"), name.upper(), name.title(), f" {name}", f"{name} ", name.replace(".", "_", 1)}


@pytest.fixture
def roles(db):
    roles = Roles(db, "app")
    roles.run("GRANT USAGE ON FOREIGN DATA WRAPPER kafka TO {app}; GRANT USAGE ON FOREIGN SERVER broker TO {app};"
              "CREATE SCHEMA app AUTHORIZATION {app}")
    roles.run("CREATE SERVER own FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:1')", "app")
    yield roles
    roles.drop()


def test_unprivileged_role_tries_the_whole_list(roles, markers):
    statements = [sql.SQL(text) for text in (
        "CREATE SERVER bad FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'localhost:1', {} {})",
        "ALTER SERVER own OPTIONS (ADD {} {})", "ALTER SERVER own OPTIONS (SET {} {})",
        "CREATE USER MAPPING FOR CURRENT_USER SERVER own OPTIONS ({} {})",
        "CREATE FOREIGN TABLE app.bad (a int) SERVER own OPTIONS (topic 't', {} {})")]
    with roles.acting_as("app"):
        for name, value in markers.properties().items():
            for spelling, statement in itertools.product(spellings(name), statements):
                with pytest.raises(psycopg.Error) as caught:
                    roles.db.connection.execute(statement.format(sql.Identifier(spelling), sql.Literal(str(value))))
                # SET of what is not there is refused before the validator sees it
                assert caught.value.sqlstate in (NOT_AN_OPTION, "42704"), (spelling, caught.value)
    markers.assert_untouched()


@pytest.mark.parametrize("catalog, column, key", [
    ("pg_foreign_server", "srvoptions", "srvname = 'broker'"),
    ("pg_user_mapping", "umoptions", "umserver = (SELECT oid FROM pg_foreign_server WHERE srvname = 'broker')")])
def test_tampered_catalog_row(db, topic, markers, catalog, column, key):
    """What got past the validator gets no further, in a SELECT and in a worker that runs."""
    db.create_tables(topic)
    db.run("CREATE USER MAPPING FOR PUBLIC SERVER broker")
    topic.produce_sequence(30)
    db.create_stream()
    assert_exact(db, topic)
    before = db.value(f"SELECT {column} FROM {catalog} WHERE {key}")
    for name, value in markers.properties().items():
        db.run(f"UPDATE {catalog} SET {column} = %s WHERE {key}", [*(before or []), f"{name}={value}"])
        with error(f'"{name}"', sqlstate=NOT_AN_OPTION):
            db.run("SELECT * FROM topic")
    topic.produce_sequence(30, first=31)
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == NOT_AN_OPTION
    markers.assert_untouched()
    db.run(f"UPDATE {catalog} SET {column} = %s WHERE {key}", before)
    db.call("start_stream")
    assert_exact(db, topic)


def test_secrets_are_no_options_of_servers_and_tables(roles):
    for name in ("sasl_password", "sasl.username", "ssl_key_pem", "ssl.key.password"):
        for statement in ("ALTER SERVER broker OPTIONS (ADD {} 'do not tell')",
                          "CREATE FOREIGN TABLE t (a int) SERVER broker OPTIONS (topic 't', {} 'do not tell')"):
            with error("not allowed for a server|invalid option", sqlstate=NOT_AN_OPTION) as caught:
                roles.db.connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
            assert "do not tell" not in str(caught.value)


# --- kafka_ingest.allowed_hosts --------------------------------------------

@pytest.fixture
def allow(postgres, db):
    """allow("host, ...") sets kafka_ingest.allowed_hosts and waits until sessions have it."""
    def set_hosts(hosts):
        db.connection.execute(sql.SQL("ALTER SYSTEM SET kafka_ingest.allowed_hosts = {}").format(sql.Literal(hosts)))
        db.run("SELECT pg_reload_conf()")
        db.wait_for("SELECT current_setting('kafka_ingest.allowed_hosts')", hosts)

    yield set_hosts
    db.run("ALTER SYSTEM RESET kafka_ingest.allowed_hosts")
    db.run("SELECT pg_reload_conf()")
    db.wait_for("SELECT current_setting('kafka_ingest.allowed_hosts')", "")


ALLOWED = [
    ("kafka.example.com", "kafka.example.com", True),
    ("kafka.example.com", "KAFKA.Example.COM:1234", True),
    ("kafka.example.com", "kafka.example.com.evil.org", False),
    ("kafka.example.com", "kafka.example.com, other.example.com", False),
    ("kafka.example.com:9092", "kafka.example.com", True),
    ("kafka.example.com:9092", "kafka.example.com:9093", False),
    ("*.example.com", "a.b.example.com:1", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", "evilexample.com", False),
    ("10.1.0.0/16", "10.1.2.3:9092,10.1.255.255", True),
    ("10.1.0.0/16", "10.2.0.0", False),
    ("10.1.0.0/16:9092", "10.1.0.1:9093", False),
    ("10.1.0.128/25", "10.1.0.127", False),
    ("[2001:db8::]/32", "[2001:db8:1::1]:9092", True),
    ("2001:db8::1", "[2001:db8::2]:9092", False),
    ("kafka.example.com", "PLAINTEXT://kafka.example.com:9092", True),
    ("kafka.example.com", "PLAINTEXT://evil.org/kafka.example.com", False),
    ("kafka.example.com", "kafka.example.com@evil.org", False),
    ("*.example.com", "[127.0.0.1].example.com:9092", False),
    ("*.example.com", "PLAINTEXT://[evil.org]x.example.com", False),
    ("10.1.0.0/16", "[10.2.0.0]10.1.0.1", False),
]


def test_allowed_hosts_of_servers(db, allow):
    for number, (hosts, servers, allowed) in enumerate(ALLOWED):
        allow(hosts)
        statement = sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers {})").format(
            sql.Identifier(f"s{number}"), sql.Literal(servers))
        if allowed:
            db.connection.execute(statement)
        else:
            with error("is not allowed", detail="kafka_ingest.allowed_hosts", sqlstate=DENIED):
                db.connection.execute(statement)


def test_allowed_hosts_that_make_no_sense(db):
    for hosts in ("a b", "*", "10.0.0.0/33", "host:0", "host:x", "[::1", "*.", "x*.com"):
        with error("invalid value for parameter", sqlstate="22023"):
            db.connection.execute(
                sql.SQL("ALTER SYSTEM SET kafka_ingest.allowed_hosts = {}").format(sql.Literal(hosts)))


def test_hosts_disallowed_while_a_stream_runs(db, topic, allow):
    db.create_tables(topic)
    topic.produce_sequence(30)
    db.create_stream()
    assert_exact(db, topic)
    allow("kafka.example.com")
    wait_until(lambda: db.wait_for_state("failed").last_error_sqlstate == DENIED)
    with error("not allowed", sqlstate=DENIED):
        db.run("SELECT * FROM topic")
    allow("127.0.0.0/8")
    topic.produce_sequence(30, first=31)
    db.call("start_stream")
    assert_exact(db, topic)


def test_broker_that_sends_us_elsewhere(db, secure_kafka, allow):
    """Addresses that a cluster tells of are checked before they are connected to."""
    secure_kafka.create_topic("redirected", 1)
    db.run("DROP SERVER broker")
    db.create_server(secure_kafka.addresses["redirecting"], socket_timeout_ms=3000)
    db.create_topic_table("redirected")
    assert db.value("SELECT count(*) FROM topic") == 0
    allow("localhost")
    with error("could not reach", detail="at address 127.0.0.1, port .* is not in kafka_ingest.allowed_hosts"):
        db.run("SELECT * FROM topic")
    allow("localhost, 127.0.0.1/32")
    assert db.value("SELECT count(*) FROM topic") == 0
