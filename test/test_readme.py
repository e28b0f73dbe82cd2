"""The README's examples, run as they are written there: only the address of the broker,
the names of topics and a start date are replaced."""

import json
import re

import pytest

from expectations import values
from harness import paths

README = (paths.SOURCE / "README.md").read_text()
TEN_O_CLOCK = "2026-11-03 10:{:02}:00+00"


def section(heading):
    """The text below the one heading that starts so, up to the next of any level."""
    found = re.findall(rf"^#+ {re.escape(heading)}.*\n((?:(?!#+ ).*\n)*)", without_shell_blocks(README), re.MULTILINE)
    assert len(found) == 1, f"README.md has {len(found)} sections {heading!r}"
    return found[0]


def without_shell_blocks(text):
    """Comments in them look like headings."""
    return re.sub(r"^```sh\n.*?^```\n", "", text, flags=re.MULTILINE | re.DOTALL)


def sql_blocks(text):
    blocks = re.findall(r"^```sql\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks, "no example in this section"
    return blocks


@pytest.fixture
def examples(empty_db, kafka, new_topic):
    return Examples(empty_db, kafka, new_topic)


class Examples:
    """A database in which blocks of the README are run; each topic they name is a new one."""

    def __init__(self, db, kafka, new_topic):
        self.db = db
        self.address = kafka.address
        self.new_topic = new_topic
        self.topics = {}
        db.run("SET timezone = 'UTC'")
        (opening,) = sql_blocks(section("kafka_ingest"))
        # up to the topic table, which the other examples read
        self.declarations, self.first_stream = re.fullmatch(
            r"(.*?CREATE FOREIGN TABLE .*?;)(.*)", opening, re.DOTALL).groups()
        self.run(self.declarations)

    def topic(self, name):
        return self.topics.setdefault(name, self.new_topic(1))

    def run(self, block):
        block = re.sub(r"bootstrap_servers '[^']*'", f"bootstrap_servers '{self.address}'", block)
        block = re.sub(r"\btopic '([^']*)'", lambda found: f"topic '{self.topic(found[1]).name}'", block)
        block = re.sub(r"starting_timestamp => '[^']*'", "starting_timestamp => '2020-01-01 00:00+00'", block)
        return self.db.run(block)

    def order(self, number, customer, amount, minute=0):
        return {"order_id": number, "customer": {"name": customer}, "amount": amount,
                "ordered_at": TEN_O_CLOCK.format(minute)}

    def send(self, *orders):
        """Orders as (customer, amount) or (customer, amount, minute), and what comes of them."""
        self.topic("orders").produce(*(self.order(number, *order) for number, order in enumerate(orders, 1)))
        for stream in self.db.column("SELECT name FROM kafka.stream"):
            self.db.process_all_available(stream)


def test_opening(examples):
    examples.topic("orders").produce(examples.order(1, "Ann", 10.5), examples.order(2, "Bob", 2))
    examples.run(examples.first_stream)
    examples.send(("Eve", 3))
    assert values(examples.db, "SELECT customer, amount::text FROM orders") == [
        ("Ann", "10.5"), ("Bob", "2"), ("Eve", "3")]


def test_running_totals(examples):
    (block,) = sql_blocks(section("Running totals"))
    examples.run(block)
    examples.send(("Ann", 10), ("Bob", 1.50), (None, 99))
    assert values(examples.db, "SELECT customer, orders, revenue::text FROM revenue") == [
        ("Ann", 1, "10"), ("Bob", 1, "1.5")]
    examples.send(("Ann", 0.25), ("Eve", 7))
    assert values(examples.db, "SELECT customer, orders, revenue::text FROM revenue") == [
        ("Ann", 2, "10.25"), ("Bob", 1, "1.5"), ("Eve", 1, "7")]


def test_leaderboard(examples):
    (block,) = sql_blocks(section("Leaderboard"))
    examples.run(block)
    examples.send(*((f"c{number}", number) for number in range(1, 16)))
    leaders = "SELECT customer, revenue::int FROM top_customers ORDER BY revenue DESC"
    assert examples.db.run(leaders) == [(f"c{number}", number) for number in range(15, 5, -1)]
    examples.send(("c1", 100))
    assert examples.db.run(leaders) == [("c1", 101)] + [(f"c{number}", number) for number in range(15, 6, -1)]


def test_five_minute_windows(examples):
    create, *queries = sql_blocks(section("Five-minute windows"))
    examples.run(create)
    examples.send(("Ann", 1, 1), ("Ann", 1, 4), ("Bob", 1, 7))
    written = "SELECT to_char(window_start, 'HH24:MI'), orders FROM orders_per_5min"
    assert values(examples.db, written) == []
    examples.send(("Ann", 1, 15))
    assert values(examples.db, written) == [("10:00", 2)]
    examples.send(("late", 1, 2), ("Ann", 1, 30))
    assert values(examples.db, written) == [("10:00", 2), ("10:05", 1), ("10:15", 1)]
    # queries for create_stream or a SELECT of one's own
    for query in queries:
        assert examples.run(query)


def test_upsert(examples):
    (block,) = sql_blocks(section("Upsert"))
    examples.run(block)
    table = re.findall(r"^\| `(\{.*?\})` \| (?:`(.*?)`|null) \| (.*?) \|$", section("Upsert"), re.MULTILINE)
    assert len(table) >= 5
    (name,) = set(examples.topics) - {"orders"}
    before = []
    for key, value, afterwards in table:
        examples.topic(name).produce(value or None, key=key)
        examples.db.process_all_available("customers")
        rows = re.findall(r"\((\d+), (\w+), (\w+)\)", afterwards)
        expected = [(int(number), *rest) for number, *rest in rows] or before
        assert values(examples.db, "SELECT id, name, country FROM customers") == expected, (key, value)
        before = expected


def test_fan_out(examples):
    (block,) = sql_blocks(section("Fan-out"))
    examples.run(block)
    with examples.db.connect() as listener:
        listener.execute("LISTEN orders_in")
        examples.send(("Ann", 100), ("Bob", 100.01), ("Eve", 500))
        notified = next(listener.notifies(timeout=30))
    assert json.loads(notified.payload)["stream"] == "fan_out"
    assert values(examples.db, "SELECT customer FROM big_orders") == [("Bob",), ("Eve",)]
    assert examples.db.value("SELECT sum(orders)::int FROM order_log") == 3
