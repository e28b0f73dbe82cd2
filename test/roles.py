"""Roles of a test: made for it, and gone after it with all they own."""

import contextlib

from psycopg import sql


class Roles:
    """Roles by short names; in statements {ingest} stands for the role "ingest"."""

    def __init__(self, db, *names):
        self.db = db
        self.names = {name: f"{db.name}_{name}" for name in names}
        for role in self.names.values():
            db.run(f"CREATE ROLE {role}")

    def run(self, statement, role=None):
        """Executes a statement as one of the roles, or as the superuser."""
        statement = statement.format(**self.names) if "{" in statement else statement
        if role is None:
            return self.db.run(statement)
        with self.acting_as(role):
            return self.db.run(statement)

    @contextlib.contextmanager
    def acting_as(self, role):
        self.db.connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(self.names.get(role, role))))
        try:
            yield
        finally:
            self.db.connection.execute("RESET ROLE")

    def drop(self):
        self.db.run("RESET ROLE")
        for name in self.db.column("SELECT name FROM kafka.stream"):
            self.db.call("drop_stream", name)
        for role in self.names.values():
            if self.db.value("SELECT count(*) FROM pg_roles WHERE rolname = %s", role):
                self.db.run(f"DROP OWNED BY {role} CASCADE")
                self.db.run(f"DROP ROLE {role}")
