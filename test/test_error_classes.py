"""The README's table of SQLSTATEs, end to end: what on_error decides, what is tried again, what stops a stream.

Code of the user's (a trigger, a constraint, a function in the query, ...) refuses chosen messages with
chosen SQLSTATEs: table "fault" says which, and a test mends the cause by deleting from it.
"""

import collections
import json
import re

import pytest

from harness import paths
from harness.processes import wait_until

MESSAGES = 300

# Of every class one, and the ones that have been or might be treated otherwise than their class.
OF_MESSAGES = ["21000", "22000", "22003", "22012", "22P02", "22P05", "23000", "23502", "23503", "23505", "23514", "23P01",
               "27000", "44000", "54000", "54001", "54011", "P0000", "P0001", "P0004", "22ZZZ"]
OF_ENVIRONMENT = ["08000", "08006", "28000", "28P01", "40001", "40P01", "40002", "53000", "53100", "53200", "53300", "53400",
                  "55006", "55P03", "57014", "57P01", "57P03", "58000", "58030", "58P01", "HV00N", "HV00R"]
OF_DEFINITION = ["09000", "0A000", "25006", "26000", "2BP01", "38000", "3D000", "3F000", "42000", "42501", "42601", "42703",
                 "42804", "42883", "42P01", "55000", "2200H", "HV000", "HV00J", "XX000", "XX001", "XX002", "ZZ999"]


def documented_classes():
    """The README's table: SQLSTATE, or its first two characters -> class."""
    section = (paths.SOURCE / "README.md").read_text().split("\n## When something fails\n")[1]
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \|$", section, re.M)[:4]
    assert rows[0][1] == "SQLSTATE" and rows[3][1] == "all others"
    classes = {}
    for (_, states, _), name in zip(rows[1:], ("message", "environment")):
        for state in states.split(", "):
            state, _, exception = state.partition(" but ")
            classes[state] = name
            classes.update({exception: "definition"} if exception else {})
    return classes


def documented(sqlstate, classes=documented_classes()):
    return classes.get(sqlstate) or classes.get(sqlstate[:2]) or "definition"


def known_sqlstates(installation):
    """All errors that PostgreSQL has a name for."""
    directory = installation.run("pg_config", "--sharedir").stdout.strip()
    with open(f"{directory}/errcodes.txt") as file:
        return re.findall(r"^(\w{5})\s+E\s", file.read(), re.M)


def test_the_lists_follow_the_documentation():
    for states, name in ((OF_MESSAGES, "message"), (OF_ENVIRONMENT, "environment"), (OF_DEFINITION, "definition")):
        assert {state: documented(state) for state in states} == dict.fromkeys(states, name)
    assert {state[:2] for state in OF_MESSAGES + OF_ENVIRONMENT} >= {state[:2] for state in documented_classes()}


# --- streams whose messages are refused ------------------------------------

@pytest.fixture
def refusing(db, topic):
    """A topic with ids 1 to MESSAGES, and what refuses some of them."""
    db.create_topic_table(topic, "id bigint, p int OPTIONS (metadata 'partition'), o bigint OPTIONS (metadata 'offset')")
    db.run("""
        CREATE TABLE fault (stream text, id bigint, sqlstate text, PRIMARY KEY (stream, id));
        CREATE FUNCTION accept(stream text, message bigint) RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE code text;
        BEGIN
            SELECT sqlstate INTO code FROM public.fault f WHERE f.stream = accept.stream AND f.id = message;
            IF FOUND THEN
                PERFORM nextval(format('public.attempts_%s', stream));  -- stays when the batch rolls back
                RAISE EXCEPTION 'message % is refused', message USING ERRCODE = code, DETAIL = 'It is said so.';
            END IF;
            RETURN true;
        END $$;
        CREATE FUNCTION accept_row() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM public.accept(tg_argv[0], new.id);
            IF tg_when = 'INSTEAD OF' THEN
                EXECUTE format('INSERT INTO public.rows_%s SELECT $1.*', tg_argv[0]) USING new;
            END IF;
            RETURN new;
        END $$""")
    topic.produce_sequence(MESSAGES)
    return Refusing(db, topic)


TRIGGER = "CREATE TRIGGER refuse BEFORE INSERT ON rows_{0} FOR EACH ROW EXECUTE FUNCTION accept_row('{0}')"
CHOICE = "FROM topic WHERE public.accept('{0}', id)"

# Where a message is refused: SQL before create_stream, and its arguments.
PLACES = {
    "trigger": (TRIGGER, {}),
    "constraint": ("ALTER TABLE rows_{0} ADD CHECK (public.accept('{0}', id))", {}),
    "query": ("", {"query": "SELECT id, p, o " + CHOICE}),
    "view": ("CREATE VIEW view_{0} AS SELECT * FROM rows_{0}; "
             + TRIGGER.replace("BEFORE INSERT ON rows", "INSTEAD OF INSERT ON view"), {"target": "view_{0}"}),
    "upsert": ("ALTER TABLE rows_{0} ADD PRIMARY KEY (id); " + TRIGGER, {"mode": "update"}),
    "aggregate": ("ALTER TABLE rows_{0} ADD PRIMARY KEY (id)",
                  {"mode": "update", "query": "SELECT id, min(p) AS p, min(o) AS o " + CHOICE + " GROUP BY id"}),
    "foreach_batch": (TRIGGER + "; CREATE PROCEDURE write_{0}(batch bigint) LANGUAGE sql "
                      "AS 'INSERT INTO public.rows_{0} SELECT * FROM public.topic'",
                      {"foreach_batch": "public.write_{0}(bigint)", "target": None}),
}


class Refusing:
    def __init__(self, db, topic):
        self.db = db
        self.topic = topic
        self.places = {(message.partition(), message.offset()): json.loads(message.value())["id"]
                       for message in topic.messages()}

    def create_stream(self, name, faults, place="trigger", **options):
        """faults: id -> SQLSTATE."""
        sql, arguments = PLACES[place]
        self.db.run(f"CREATE TABLE rows_{name} (id bigint, p int, o bigint); CREATE SEQUENCE attempts_{name}")
        if sql:
            self.db.run(sql.format(name))
        for id, sqlstate in faults.items():
            self.db.run("INSERT INTO fault VALUES (%s, %s, %s)", name, id, sqlstate)
        arguments = {"target": f"rows_{name}",
                     **{key: value and value.format(name) for key, value in arguments.items()}, **options}
        self.db.create_stream(name, **arguments)

    def place(self, id):
        """Its partition and offset."""
        return next(place for place, produced in self.places.items() if produced == id)

    def stands_at(self, name, id, status, left_out=()):
        """Is all before the message committed, and is it named?"""
        partition, offset = self.place(id)
        assert status.last_error_detail == (f'It is said so. The batch was at topic "{self.topic.name}", '
                                            f"partition {partition}, offset {offset}.")
        return self.assert_exact(name, left_out, complete=False)[partition] == offset

    def mend(self, id=None):
        self.db.run("DELETE FROM fault WHERE id = coalesce(%s, id)", id)

    def attempts(self, name):
        return self.db.value(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts_{name}")

    def letters(self, name):
        """id -> SQLSTATE."""
        return {self.places[partition, offset]: sqlstate for partition, offset, sqlstate in self.db.run(
            'SELECT partition, "offset", error_sqlstate FROM kafka.dead_letter WHERE stream = %s', name)}

    def assert_exact(self, name, left_out=(), complete=True):
        """The rows are the messages before the stored offsets, but for those that are left out."""
        offsets, rows = self.db.run(
            "SELECT (SELECT jsonb_object_agg(partition, next_offset) FROM kafka.stream_offset WHERE stream = %s), "
            f"(SELECT array_agg(ARRAY[p, o, id]) FROM rows_{name})", name)[0]
        offsets = {int(partition): offset for partition, offset in offsets.items()}
        expected = {(*place, id) for place, id in self.places.items() if place[1] < offsets[place[0]]}
        expected -= {row for row in expected if row[2] in left_out}
        assert collections.Counter(map(tuple, rows or ())) == collections.Counter(expected)
        if complete:
            assert offsets == self.topic.offsets()
        return offsets


# --- errors of messages: on_error decides ----------------------------------

def spread(sqlstates):
    """The SQLSTATEs on ids that lie apart, next to each other, first and last."""
    ids = [1, 2, *range(3, MESSAGES - 1, (MESSAGES - 4) // max(len(sqlstates) - 3, 1))][:len(sqlstates) - 1] + [MESSAGES]
    return dict(zip(ids, sqlstates))


@pytest.mark.parametrize("on_error", ["skip", "dead_letter"])
def test_messages_that_are_left_out(refusing, installation, on_error):
    """Every SQLSTATE that the table gives to messages."""
    sqlstates = sorted({state for state in known_sqlstates(installation) if documented(state) == "message"} | {*OF_MESSAGES})
    assert len(sqlstates) >= 80
    faults = spread(sqlstates)
    assert len(faults) == len(sqlstates)
    refusing.create_stream("s", faults, on_error=on_error)
    refusing.db.process_all_available()
    refusing.assert_exact("s", left_out=faults)
    assert refusing.letters("s") == (faults if on_error == "dead_letter" else {})
    status = refusing.db.status()
    assert (status.errors, status.restarts, status.last_error) == (len(faults), 0, None)


@pytest.mark.parametrize("place", PLACES)
def test_dead_letters_of_every_place(refusing, place):
    db = refusing.db
    faults = spread(["21000", "22012", "23514", "27000", "44000", "54000", "54001", "P0001"])
    refusing.create_stream("s", faults, place, on_error="dead_letter")
    db.process_all_available()
    refusing.assert_exact("s", left_out=faults)
    assert refusing.letters("s") == faults
    for partition, offset, message, detail in db.run(
            'SELECT partition, "offset", error_message, error_detail FROM kafka.dead_letter'):
        assert message == f"message {refusing.places[partition, offset]} is refused"
        assert detail == (f'It is said so. Topic "{refusing.topic.name}", partition {partition}, offset {offset}.')
    refusing.mend()
    assert db.run("SELECT * FROM kafka.retry_dead_letters('s')") == [(len(faults), len(faults), 0)]
    refusing.assert_exact("s")
    assert refusing.letters("s") == {}


def test_messages_that_stop(refusing):
    """Each is come to in turn, and either left out or, its cause mended, written."""
    db = refusing.db
    faults = spread(OF_MESSAGES)
    refusing.create_stream("s", faults, on_error="stop")
    met, left_out = [], []
    for number in range(len(faults)):
        status = db.wait_for_state("failed")
        place = re.fullmatch(rf'It is said so\. Topic "{refusing.topic.name}", partition (\d), offset (\d+)\.',
                             status.last_error_detail)
        partition, offset = map(int, place.groups())
        id = refusing.places[partition, offset]
        assert (status.last_error_sqlstate, status.last_error) == (faults[id], f"message {id} is refused")
        assert "kafka.start_stream" in status.last_error_hint and "kafka.skip_message" in status.last_error_hint
        assert refusing.assert_exact("s", left_out, complete=False)[partition] == offset
        met.append(id)
        if number % 2:
            refusing.mend(id)
        else:
            db.run("SELECT kafka.skip_message('s', %s, %s, %s)", refusing.topic.name, partition, offset)
            left_out.append(id)
        db.call("start_stream")
    db.process_all_available()
    assert sorted(met) == sorted(faults)
    refusing.assert_exact("s", left_out)
    assert refusing.letters("s") == {}
    status = db.status()
    assert (status.errors, status.last_error) == (len(left_out), None)


# --- errors of the environment: tried again --------------------------------

BAD = 200  # the id of a message that is bad by itself
FAULTY = 100  # at this one the environment fails


@pytest.mark.parametrize("on_error", ["stop", "skip", "dead_letter"])
def test_what_passes_by_itself(refusing, on_error):
    """Another message of the batch is bad by itself: it alone is left out, in the end."""
    db = refusing.db
    bad = {} if on_error == "stop" else {BAD: "P0001"}
    names = {f"s{state.lower()}": state for state in OF_ENVIRONMENT}
    for name, state in names.items():
        refusing.create_stream(name, {FAULTY: state, **bad}, on_error=on_error)
    pids = {name: db.worker_pid(name) for name in names}
    for name, state in names.items():
        def tried_again():
            status = db.status(name)
            assert status.state != "failed", status
            return (status.state, status.last_error_sqlstate) == ("backing off", state) and \
                refusing.attempts(name) >= 2 and status
        status = wait_until(tried_again, what=lambda: f"{name} tries again: {db.status(name)}")
        assert status.last_error == f"message {FAULTY} is refused" and status.retry_at > status.since
        assert refusing.stands_at(name, FAULTY, status, bad)
        assert "kafka.skip_message" in status.last_error_hint
        assert FAULTY not in refusing.letters(name)
    refusing.mend(FAULTY)
    for name in names:
        db.process_all_available(name)
        refusing.assert_exact(name, bad)
        assert refusing.letters(name) == (bad if on_error == "dead_letter" else {})
        status = db.status(name)
        assert (status.errors, status.restarts, status.pid) == (len(bad), 0, pids[name]), "the worker stays"


@pytest.mark.parametrize("place", [place for place in PLACES if place != "trigger"])
def test_a_deadlock_at_every_place(refusing, place):
    db = refusing.db
    refusing.create_stream("s", {FAULTY: "40P01", BAD: "22012"}, place, on_error="dead_letter")
    wait_until(lambda: refusing.attempts("s") >= 2 and db.status().last_error_sqlstate == "40P01")
    assert refusing.stands_at("s", FAULTY, db.wait_for_state("backing off"), [BAD])
    assert FAULTY not in refusing.letters("s")
    refusing.mend(FAULTY)
    db.process_all_available()
    refusing.assert_exact("s", [BAD])
    assert refusing.letters("s") == {BAD: "22012"}


def test_a_message_that_never_passes_can_be_left_out(refusing):
    db = refusing.db
    refusing.create_stream("s", {FAULTY: "53200"})
    assert refusing.stands_at("s", FAULTY, db.wait_for_state("backing off"))
    db.call("stop_stream")
    db.run("SELECT kafka.skip_message('s', %s, %s, %s)", refusing.topic.name, *refusing.place(FAULTY))
    db.call("start_stream")
    db.process_all_available()
    refusing.assert_exact("s", [FAULTY])


# --- all others: the stream stops ------------------------------------------

@pytest.mark.parametrize("on_error", ["stop", "skip", "dead_letter"])
def test_what_stops_a_stream(refusing, on_error):
    db = refusing.db
    names = {f"s{state.lower()}": state for state in OF_DEFINITION}
    for name, state in names.items():
        refusing.create_stream(name, {FAULTY: state}, on_error=on_error)
    for name, state in names.items():
        status = db.wait_for_state("failed", name=name)
        assert (status.last_error_sqlstate, status.last_error) == (state, f"message {FAULTY} is refused")
        assert status.last_error_detail.startswith("It is said so.")
        # it has said so before it ends
        db.wait_for(f"SELECT pid FROM kafka.stream_status WHERE stream = '{name}'", None)
        assert refusing.attempts(name) >= 3, "it was not believed at once"
        offsets = refusing.assert_exact(name, complete=False)
        place = refusing.place(FAULTY)
        assert offsets[place[0]] <= place[1]
        assert (refusing.letters(name), status.errors) == ({}, 0)
    refusing.mend()
    for name in names:
        db.call("start_stream", name)
    for name in names:
        db.process_all_available(name)
        refusing.assert_exact(name)
        assert db.status(name).last_error is None


@pytest.mark.parametrize("place", PLACES)
def test_a_surprise_stops_at_the_message(refusing, place):
    """Raised by code of the user's, it is that of one message, and so can be left out."""
    db = refusing.db
    refusing.create_stream("s", {FAULTY: "ZZ999"}, place)
    status = db.wait_for_state("failed")
    partition, offset = refusing.place(FAULTY)
    assert refusing.stands_at("s", FAULTY, status)
    assert "kafka.skip_message" in status.last_error_hint
    db.run("SELECT kafka.skip_message('s', %s, %s, %s)", refusing.topic.name, partition, offset)
    db.call("start_stream")
    db.process_all_available()
    refusing.assert_exact("s", [FAULTY])


def test_a_surprise_among_dead_letters(refusing):
    db = refusing.db
    bad = {50: "23514", BAD: "P0001"}
    refusing.create_stream("s", {**bad, FAULTY: "ZZ999"}, on_error="dead_letter")
    db.wait_for_state("failed")
    partition, offset = refusing.place(FAULTY)
    assert refusing.assert_exact("s", bad, complete=False)[partition] == offset
    db.run("SELECT kafka.skip_message('s', %s, %s, %s)", refusing.topic.name, partition, offset)
    db.call("start_stream")
    db.process_all_available()
    refusing.assert_exact("s", [*bad, FAULTY])
    assert refusing.letters("s") == bad


# --- errors that PostgreSQL itself raises ----------------------------------

@pytest.mark.parametrize("sqlstate, setup, arguments", [
    ("21000", "", {"query": "SELECT id, (SELECT n FROM generate_series(1, CASE id WHEN 7 THEN 2 ELSE 1 END) n) AS n FROM topic"}),
    ("22012", "", {"query": "SELECT id, (1 / (id - 7))::int AS n FROM topic"}),
    ("22003", "", {"query": "SELECT id, (CASE id WHEN 7 THEN 3000000000 ELSE 1 END)::int AS n FROM topic"}),
    ("44000", "CREATE VIEW checked AS SELECT * FROM target WHERE id <> 7 WITH CHECK OPTION", {"target": "checked"}),
    ("54000", "ALTER TABLE target ADD t text; CREATE INDEX ON target (t)",
     {"query": "SELECT id, (SELECT string_agg(md5(n::text), '') FROM generate_series(1, CASE id WHEN 7 THEN 1000 ELSE 1 END) n) "
               "AS t FROM topic"}),
    ("54001", "CREATE FUNCTION dive(n bigint) RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
              "RETURN CASE WHEN n > 0 THEN public.dive(n - 1) ELSE 1 END; END $$",
     {"query": "SELECT id, public.dive(CASE id WHEN 7 THEN 1000000 ELSE 1 END) AS n FROM topic"}),
    ("27000", "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.id = 7 THEN "
              "UPDATE public.target SET n = 5 WHERE id = 7; END IF; RETURN new; END $$; "
              "ALTER TABLE target ADD PRIMARY KEY (id); INSERT INTO target VALUES (7, 0); "
              "CREATE TRIGGER touch BEFORE UPDATE OF id ON target FOR EACH ROW EXECUTE FUNCTION touch(); "
              "CREATE TRIGGER touch_all BEFORE UPDATE ON target FOR EACH ROW WHEN (new.n IS NULL) EXECUTE FUNCTION touch()",
     {"mode": "update", "query": "SELECT id, NULL::int AS n FROM topic"}),
])
def test_what_postgresql_raises(db, new_topic, sqlstate, setup, arguments):
    topic = new_topic()
    db.create_topic_table(topic)
    db.run("CREATE TABLE target (id bigint, n int)")
    if setup:
        db.run(setup)
    topic.produce_sequence(20)
    db.create_stream(on_error="dead_letter", **arguments)
    db.process_all_available()
    assert db.run('SELECT "offset", error_sqlstate FROM kafka.dead_letter') == [(6, sqlstate)]
    assert db.column("SELECT id FROM target WHERE id <> 7 ORDER BY id") == [id for id in range(1, 21) if id != 7]
    assert db.next_offsets() == topic.offsets()
