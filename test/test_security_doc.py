"""doc/security.md: its six commands are enough, and not more than enough."""

import re

from expectations import error
from harness import paths
from harness.topic import Topic
from roles import Roles
from test_readme import sql_blocks

TEXT = (paths.SOURCE / "doc" / "security.md").read_text()


def test_least_privilege_in_six_commands(empty_db, secure_kafka):
    db = empty_db
    db.run("CREATE EXTENSION kafka_ingest")
    (block,) = sql_blocks(TEXT)
    role = f"{db.name}_ingest"
    commands = re.sub(r"\bingest\b", role, block).split(";\n")[:-1]
    assert len(commands) == 6
    certificate, key = secure_kafka.client.certificate, secure_kafka.client.key
    fill = {"bootstrap_servers '[^']*'": f"bootstrap_servers '{secure_kafka.addresses['mutual']}'",
            r"ssl_ca_pem '\.\.\.'": f"ssl_ca_pem '{secure_kafka.authority.pem}'",
            r"ssl_certificate_pem '\.\.\.'": f"ssl_certificate_pem '{certificate}'",
            r"ssl_key_pem '\.\.\.'": f"ssl_key_pem '{key}', ssl_key_password 'key-Secret-1'"}
    for pattern, value in fill.items():
        commands = [re.sub(pattern, lambda _: value, command) for command in commands]
    secure_kafka.create_topic("orders", 1)
    secure_kafka.allow("orders")
    roles = Roles(db)
    roles.names["ingest"] = role
    try:
        db.run(commands[0])
        db.run("CREATE FOREIGN TABLE orders_topic (order_id bigint) SERVER prod OPTIONS (topic 'orders')")
        db.run("CREATE TABLE orders (LIKE orders_topic); CREATE TABLE other (LIKE orders_topic)")
        for command in commands[1:]:
            db.run(command)
        Topic(secure_kafka.address, "orders", 1, secure_kafka.admin()).produce({"order_id": 1}, {"order_id": 2})
        roles.run("SELECT kafka.create_stream('orders', source => 'orders_topic', target => 'orders')", "ingest")
        db.process_all_available("orders")
        assert db.column("SELECT order_id FROM orders ORDER BY 1") == [1, 2]
        for statement in ("SELECT * FROM orders", "DELETE FROM orders", "DELETE FROM kafka.stream",
                          "CREATE SERVER s FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'x')",
                          "ALTER SERVER prod OPTIONS (ADD client_id 'x')",
                          "SELECT kafka.create_stream('o', source => 'orders_topic', target => 'other')"):
            with error("permission denied|must be owner", sqlstate="42501"):
                roles.run(statement, "ingest")
    finally:
        roles.drop()
