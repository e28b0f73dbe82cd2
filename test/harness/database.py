"""One database of a test, with short words for what tests do to it."""

import collections
import contextlib
import itertools

import psycopg
from psycopg import sql

from harness.processes import wait_until

_numbers = itertools.count(1)

Notice = collections.namedtuple("Notice", "message_primary message_hint")


class Database:
    """A new database; run() uses one connection in autocommit, connect() opens more."""

    def __init__(self, cluster, extension=True, name=None):
        self.cluster = cluster
        self.name = name or f"test_{next(_numbers)}"
        self._connection = None
        if name is None:
            with psycopg.connect(cluster.conninfo("postgres"), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {self.name} TEMPLATE template0")
            if extension:
                self.run("CREATE EXTENSION kafka_ingest")

    def connect(self, autocommit=True, **options):
        """A connection whose statements end after a minute, so that no test hangs."""
        return psycopg.connect(self.cluster.conninfo(self.name), autocommit=autocommit,
                               **{"options": "-c statement_timeout=60s", **options})

    @property
    def connection(self):
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
        return self._connection

    def reconnect(self, timeout=30):
        """After a restart of the server: waits until it lets us in again."""
        def connected():
            try:
                self._connection = self.connect()
                return True
            except psycopg.OperationalError:
                return False
        wait_until(connected, timeout, what=f"a connection to {self.name}")

    def run(self, statement, *parameters):
        """Executes a statement with %s parameters; returns its rows, if any."""
        cursor = self.connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else None

    def value(self, statement, *parameters):
        """The first column of the first row."""
        return self.run(statement, *parameters)[0][0]

    def create_extension(self, name):
        """Returns whether this PostgreSQL has it: there are wheels without contrib."""
        if not self.run("SELECT 1 FROM pg_available_extensions WHERE name = %s", name):
            return False
        self.run(f"CREATE EXTENSION {name}")
        return True

    @contextlib.contextmanager
    def server_setting(self, name, value):
        """A setting of the whole server, until it ends; its processes take it up when they get to it."""
        self.run(f"ALTER SYSTEM SET {name} = '{value}'")
        self.run("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            self.run(f"ALTER SYSTEM RESET {name}")
            self.run("SELECT pg_reload_conf()")

    @contextlib.contextmanager
    def notices(self):
        """Gives a list of what is said until it ends, each a Notice."""
        notices = []

        def note(notice):
            # its fields are gone with the result that it came with
            notices.append(Notice(notice.message_primary, notice.message_hint))

        self.connection.add_notice_handler(note)
        try:
            yield notices
        finally:
            self.connection.remove_notice_handler(note)

    def column(self, statement, *parameters):
        return [row[0] for row in self.run(statement, *parameters)]

    # --- streams -----------------------------------------------------------

    def create_server(self, address, name="broker", **options):
        options = {"bootstrap_servers": address, **options}
        listed = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(str(value)))
                                    for key, value in options.items())
        self.connection.execute(sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER kafka OPTIONS ({})")
                                .format(sql.Identifier(name), listed))

    def create_topic_table(self, topic, columns="id bigint", name="topic", **options):
        """CREATE FOREIGN TABLE; columns is SQL text."""
        options = {"topic": getattr(topic, "name", topic), "format": "json", **options}
        listed = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(key), sql.Literal(str(value)))
                                    for key, value in options.items())
        self.connection.execute(
            sql.SQL("CREATE FOREIGN TABLE {} ({}) SERVER broker OPTIONS ({})")
            .format(sql.Identifier(name), sql.SQL(columns), listed))

    def create_tables(self, topic, **options):
        """A topic table "topic" and a table "target" that say which message a row comes from."""
        self.create_topic_table(topic, "id bigint, p int OPTIONS (metadata 'partition'), "
                                       "o bigint OPTIONS (metadata 'offset')", **options)
        self.run("CREATE TABLE target (LIKE topic)")

    def create_stream(self, name="s", **arguments):
        """kafka.create_stream with named arguments; target is "target" unless given."""
        if "query" not in arguments:
            arguments.setdefault("source", "topic")
        arguments.setdefault("target", "target")
        self.call("create_stream", name, **arguments)

    def call(self, function, name="s", **arguments):
        """Calls one of the stream functions, with arguments by name."""
        listed = "".join(f", {key} => %s" for key in arguments)
        return self.run(f"SELECT kafka.{function}(%s{listed})", name, *arguments.values())

    def process_all_available(self, name="s", timeout="30 s"):
        self.call("process_all_available", name, timeout=timeout)

    def status(self, name="s"):
        """The stream's row of kafka.stream_status, by column name."""
        return self._named_row("SELECT * FROM kafka.stream_status WHERE stream = %s", name)

    def _named_row(self, statement, *parameters):
        cursor = self.connection.execute(statement, parameters)
        names = [column.name for column in cursor.description]
        row = cursor.fetchone()
        return collections.namedtuple("Row", names)(*row) if row else None

    def wait_for_state(self, *states, name="s", timeout=30):
        def reached():
            status = self.status(name)
            return status if status and status.state in states else None
        return wait_until(reached, timeout,
                          what=lambda: f"state {states} of stream {name}: it is {self.status(name)}")

    def wait_for_error(self, text, sqlstate=None, timeout=30):
        """Returns the status of a stream that backs off, when its error or the error's detail has this text."""
        def seen():
            status = self.status()
            return status if (status.state == "backing off" and sqlstate in (None, status.last_error_sqlstate)
                              and text in f"{status.last_error} {status.last_error_detail}") else None
        return wait_until(seen, timeout, what=lambda: f"{sqlstate or ''} {text}: it is {self.status()}")

    def wait_for(self, statement, expected=True, timeout=30):
        """Waits until the statement's value is the expected one."""
        wait_until(lambda: self.value(statement) == expected, timeout,
                   what=lambda: f"{statement} gives {expected!r}: it gives {self.value(statement)!r}")

    def worker_pid(self, name="s", timeout=30):
        return wait_until(lambda: self.status(name).pid, timeout,
                          what=lambda: f"worker of {name}: {self.status(name)}")

    def next_offsets(self, name="s"):
        return dict(self.run("SELECT partition, next_offset FROM kafka.stream_offset WHERE stream = %s", name))

    # --- end of life -------------------------------------------------------

    def drop(self):
        """Drops the streams, then the database."""
        if self._connection is not None:
            self._connection.close()
        def dropped():
            try:
                connection.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
                return True
            except psycopg.errors.ObjectInUse:  # by a worker that is ending: PostgreSQL waits 5 s for it
                return False
        with psycopg.connect(self.cluster.conninfo("postgres"), autocommit=True) as connection:
            wait_until(dropped, what=f"the end of database {self.name}")
