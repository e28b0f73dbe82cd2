"""Whether a message becomes a row, a dead letter or nothing depends on that message alone.

In an upsert also on the earlier good messages of its key.  Never on which others of its batch are bad, nor on how the
batch is cut.  Topic tables, targets and messages are random, from fixed seeds; what a stream makes of them that takes each
message as a batch of its own is what streams must make of them that take all, or seven, at once.
"""

import collections

import pytest

from random_topics import BASE_TYPES, DEFINITIONS, RandomTopic

TARGET_DEFINITIONS = """
CREATE TABLE known (id int PRIMARY KEY); INSERT INTO known SELECT generate_series(1, 25);
CREATE FUNCTION before_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.n = 11 THEN RAISE EXCEPTION 'eleven'; ELSIF new.n = 13 THEN new.n = 14; END IF; RETURN new; END $$;
CREATE FUNCTION no_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.n = 12 THEN RETURN NULL; END IF; RETURN new; END $$;
CREATE FUNCTION after_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.n = 15 THEN RAISE EXCEPTION 'fifteen' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$;
CREATE FUNCTION after_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (SELECT FROM added WHERE n = 16) THEN RAISE EXCEPTION 'sixteen'; END IF; RETURN NULL; END $$;
"""

CASES = 3  # of each mode

CONSTRAINTS = ["CHECK (n <> 5)", "CHECK (public.refuse(n::int))", "CHECK (n IS NOT NULL)", "FOREIGN KEY (n) REFERENCES known",
               "FOREIGN KEY (n) REFERENCES known DEFERRABLE INITIALLY DEFERRED", "g int GENERATED ALWAYS AS (100 / (n - 6)) STORED"]
UNIQUE = ["UNIQUE (n)", "UNIQUE (n) DEFERRABLE INITIALLY DEFERRED", "EXCLUDE (n WITH =)"]
INDEXES = ["INDEX ON {target} ((100 / (n - 17)))", "INDEX ON {target} (n) WHERE 10 / (n - 18) > 0"]
TRIGGERS = ["TRIGGER b BEFORE INSERT ON {target} FOR EACH ROW EXECUTE FUNCTION before_row()",
            "TRIGGER n BEFORE INSERT ON {target} FOR EACH ROW EXECUTE FUNCTION no_row()",
            "TRIGGER a AFTER INSERT ON {target} FOR EACH ROW EXECUTE FUNCTION after_row()",
            "CONSTRAINT TRIGGER c AFTER INSERT ON {target} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION after_row()",
            "TRIGGER s AFTER INSERT ON {target} REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION after_statement()"]


class Case(RandomTopic):
    """A topic, a target and a stream: statements and arguments with {topic} and {target}."""

    def __init__(self, mode, number):
        super().__init__(f"{mode} {number}", has_array=mode == "lateral")
        self.mode = mode
        self.stream = getattr(self, mode)()

    def table(self, *further, key="k int", indexes=INDEXES):
        columns = [f"{name} {self.pick(type, BASE_TYPES.get(type, type))}{self.default(type)}" for name, type in self.columns]
        return [f"CREATE TABLE {{target}} ({', '.join([*columns, key, 'o bigint', *self.some(CONSTRAINTS), *further])})",
                *("CREATE " + index for index in self.some(indexes, 0.1))]

    def buffered(self):
        self.setup = self.table(*self.some(UNIQUE))
        return {"source": "{topic}"}

    def planned(self):
        self.setup = self.table(*self.some(UNIQUE)) + ["CREATE " + trigger for trigger in self.some(TRIGGERS, 0.4) or TRIGGERS]
        return {"source": "{topic}"}

    def query(self):
        self.setup = self.table("e numeric", *self.some(UNIQUE))
        return {"query": f"SELECT {self.names}, 100.0 / (n - 10) AS e FROM {{topic}} WHERE {self.pick('true', '12 / (n - 4) > 1')}"}

    def lateral(self):
        """A message makes several rows."""
        self.setup = self.table("e int")
        return {"query": f"SELECT {self.names}, 10 / (x - 2) AS e FROM {{topic}}, unnest(elements) AS x"}

    def view(self):
        self.setup = self.table(*self.some(UNIQUE)) + [
            f"CREATE VIEW {{target}}_view AS SELECT {self.names} FROM {{target}}",
            f"CREATE FUNCTION {{target}}_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.{{target}} "
            f"({self.names}) VALUES (new.{self.names.replace(', ', ', new.')}); RETURN new; END $$",
            "CREATE TRIGGER w INSTEAD OF INSERT ON {target}_view FOR EACH ROW EXECUTE FUNCTION {target}_write()"]
        return {"source": "{topic}", "target": "{target}_view"}

    def upsert(self):
        self.setup = self.table(key="k int PRIMARY KEY") + [
            "CREATE " + trigger for trigger in self.some(TRIGGERS, 0.1) if "no_row" not in trigger]  # see README
        return {"source": "{topic}", "mode": "update", "on_tombstone": self.pick("delete", "delete", "ignore"),
                **self.pick({}, {"version_column": "n"})}

    def aggregate(self):
        self.setup = ["CREATE TABLE {target} (g int PRIMARY KEY, c bigint, s numeric, d bigint)"]
        return {"mode": "update", "query": "SELECT coalesce(100 / (n - 6), 0) AS g, count(*) AS c, sum(100 / (n - 10)) AS s, "
                f"count({self.columns[-1][0]}) AS d FROM {{topic}} WHERE {self.pick('true', '12 / (n - 4) > 1')} GROUP BY 1"}

    def foreach_batch(self):
        self.setup = self.table(*self.some(UNIQUE)) + [
            "CREATE TABLE {target}_keys (k int CHECK (k <> 3))",
            "CREATE PROCEDURE {target}_write(batch_id bigint) LANGUAGE plpgsql SET search_path = public AS $$ BEGIN "
            f"INSERT INTO {{target}} ({self.names}) SELECT {self.names} FROM {{topic}}; "
            "INSERT INTO {target}_keys SELECT k FROM {topic}; END $$"]
        return {"source": "{topic}", "foreach_batch": "{target}_write(bigint)", "target": None}


BATCHES = {"one": {"max_offsets_per_trigger": 1}, "all": {}, "seven": {"max_offsets_per_trigger": 7}, "skipping": {"on_error": "skip"}}
Outcome = collections.namedtuple("Outcome", "rows letters next_offsets errors")


def create(db, topic, case, number):
    """Its tables, and a stream of each of BATCHES, whose names these are with the number."""
    table = f"topic_{number}"
    db.create_topic_table(topic, case.topic_columns, name=table, **case.topic_options)
    for name, options in BATCHES.items():
        names = {"{topic}": table, "{target}": f"{name}_{number}"}
        for statement in case.setup:
            db.run(replaced(statement, names))
        arguments = {"target": "{target}", "on_error": "dead_letter", **case.stream, **options}
        db.call("create_stream", names["{target}"],
                **{key: replaced(value, names) for key, value in arguments.items() if value is not None})


def replaced(text, names):
    for name, value in names.items():
        text = text.replace(name, value) if isinstance(text, str) else text
    return text


def outcome(db, name):
    db.process_all_available(name, timeout="50 s")
    rows = collections.Counter(db.column(f"SELECT t::text FROM {name} AS t"))
    letters = dict(db.run('SELECT "offset", error_sqlstate FROM kafka.dead_letter WHERE stream = %s', name))
    return Outcome(rows, letters, db.next_offsets(name), db.status(name).errors)


def overtaken(case, offsets):
    """Those of messages that share their key with others: an upsert need not have written them."""
    keys = [(message["key"] or b"").strip(b'{"id: }') for message in case.messages]
    return {offset for offset in offsets if case.mode == "upsert" and keys.count(keys[offset]) > 1}


@pytest.mark.parametrize("mode", ["buffered", "planned", "query", "lateral", "view", "upsert", "aggregate", "foreach_batch"])
def test_batches_of_one_and_of_many(db, new_topic, mode):
    db.run(DEFINITIONS + TARGET_DEFINITIONS)
    cases = [Case(mode, number) for number in range(CASES)]
    for number, case in enumerate(cases):
        topic = new_topic()
        topic.produce_all(case.messages)
        create(db, topic, case, number)
    for number, case in enumerate(cases):
        one, every, seven, skipping = (outcome(db, f"{name}_{number}") for name in BATCHES)
        for batches in (every, seven):
            assert batches.rows == one.rows, (mode, number)
            assert batches.next_offsets == one.next_offsets == {0: len(case.messages)}
            assert batches.letters.items() <= one.letters.items(), (mode, number)
            assert one.letters.keys() - batches.letters.keys() <= overtaken(case, one.letters), (mode, number)
        assert skipping.rows == one.rows and skipping.errors == every.errors == len(every.letters), (mode, number)
