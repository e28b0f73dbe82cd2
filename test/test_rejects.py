"""What stands behind a bad message in its batch is judged as it would be without it."""

import itertools

import pytest

from expectations import error

BROKEN = b"{broken"


def letters(db, stream="s"):
    return dict(db.run('SELECT "offset", error_sqlstate FROM kafka.dead_letter WHERE stream = %s', stream))


@pytest.fixture
def domains(db):
    db.run("CREATE DOMAIN never_null AS text NOT NULL; CREATE DOMAIN checked AS text CHECK (VALUE IS NOT NULL)")


# --- fields that are missing, messages without a value ----------------------

@pytest.mark.parametrize("bad_first", [True, False])
def test_missing_fields_have_their_defaults(db, new_topic, domains, bad_first):
    topic = new_topic(1)
    values = [{"id": 1}, {"id": 2, "d": "given"}, {"id": 3, "d": None}]
    topic.produce_all({"value": value} for value in ([BROKEN, *values] if bad_first else [*values, BROKEN]))
    streams = list(itertools.product(("topic_table", "target"), {"never_null": "23502", "checked": "23514"}.items(), ("skip", "dead_letter")))
    for number, (default_of, (domain, _), on_error) in enumerate(streams):
        default = {default_of: "DEFAULT 'usual'"}
        db.create_topic_table(topic, f"id int, d {domain} {default.get('topic_table', '')}", name=f"topic{number}")
        db.run(f"CREATE TABLE target{number} (id int, d text {default.get('target', '')})")
        db.create_stream(f"s{number}", source=f"topic{number}", target=f"target{number}", on_error=on_error)
    for number, (default_of, (domain, sqlstate), on_error) in enumerate(streams):
        db.process_all_available(f"s{number}")
        assert db.run(f"SELECT * FROM target{number} ORDER BY id") == [(1, "usual"), (2, "given")], streams[number]
        assert db.status(f"s{number}").errors == 2
        bad = {0: "22P02", 3: sqlstate} if bad_first else {2: sqlstate, 3: "22P02"}
        assert letters(db, f"s{number}") == (bad if on_error == "dead_letter" else {})


@pytest.mark.parametrize("bad_first", [True, False])
def test_missing_fields_without_a_default_are_bad(db, new_topic, domains, bad_first):
    """Also where another column has one."""
    topic = new_topic(1)
    db.create_topic_table(topic, "id int, d never_null, e text DEFAULT 'usual'")
    db.run("CREATE TABLE target (LIKE topic)")
    topic.produce_all({"value": value} for value in [BROKEN] * bad_first + [{"id": 1, "d": "given"}, {"id": 2}])
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [(1, "given", "usual")]
    assert letters(db) == ({0: "22P02", 2: "23502"} if bad_first else {1: "23502"})


def test_skipped_values(db, new_topic, domains):
    topic = new_topic(1)
    db.create_topic_table(topic, "id int, d never_null", null_value="skip")
    db.run("CREATE TABLE target (LIKE topic)")
    topic.produce_all({"value": value} for value in (BROKEN, None, {"id": 1, "d": "given"}, None))
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [(1, "given")]
    assert letters(db) == {0: "22P02"}


@pytest.mark.parametrize("bad_first", [True, False])
def test_tombstones(db, new_topic, domains, bad_first):
    topic = new_topic(1)
    db.create_topic_table(topic, "k int OPTIONS (key 'true'), d never_null", key_format="text")
    db.run("CREATE TABLE target (k int PRIMARY KEY, d text)")
    messages = [{"key": b"1", "value": {"d": "a"}}, {"key": b"2", "value": {"d": "b"}}, {"key": b"1", "value": None},
                {"key": b"no number", "value": None}, {"value": None}]
    bad = [{"key": b"9", "value": BROKEN}]
    topic.produce_all(bad + messages if bad_first else messages + bad)
    db.create_stream(mode="update", on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [(2, "b")]
    assert letters(db) == {(number + bad_first) % 6: state for number, state in ((3, "22P02"), (4, "22004"), (5, "22P02"))}


@pytest.mark.parametrize("values", [[None], [None, BROKEN]])
def test_defaults_behind_a_tombstone_without_a_key(db, new_topic, domains, values):
    """It is found when the scan is over."""
    topic = new_topic(1)
    db.create_topic_table(topic, "k int OPTIONS (key 'id'), d never_null DEFAULT 'usual', e text DEFAULT 'also'", key_format="json")
    db.run("CREATE TABLE target (k int PRIMARY KEY, d text, e text)")
    topic.produce_all([{"key": b"{}", "value": value} for value in values] + [{"key": b'{"id": %d}' % n, "value": {}} for n in range(100)])
    db.create_stream(mode="update", on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT * FROM target ORDER BY k") == [(n, "usual", "also") for n in range(100)]
    assert letters(db) == dict(enumerate(["23502", "22P02"][:len(values)]))


def test_a_batch_that_fails_after_its_scans(db, new_topic, domains):
    """The plan, the executor and the subtransaction of each are gone."""
    topic = new_topic(1)
    db.create_topic_table(topic, "id int, d never_null DEFAULT 'usual'")
    db.run("""CREATE TABLE target (LIKE topic);
        CREATE PROCEDURE write(batch_id bigint) LANGUAGE plpgsql AS $$ BEGIN
            BEGIN
                EXECUTE 'INSERT INTO public.target SELECT * FROM public.topic';
                RAISE unique_violation;
            EXCEPTION WHEN unique_violation THEN
            END;
            EXECUTE 'INSERT INTO public.target SELECT * FROM public.topic';
            IF EXISTS (SELECT FROM public.target WHERE id % 5 = 0) THEN RAISE EXCEPTION 'a fifth'; END IF;
        END $$""")
    topic.produce_all({"value": BROKEN if n == 8 else {"id": n}} for n in range(1, 20))
    db.call("create_stream", source="topic", foreach_batch="write(bigint)", on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT * FROM target ORDER BY id") == [(n, "usual") for n in range(1, 20) if n % 5 and n != 8]
    assert letters(db) == {4: "P0001", 7: "22P02", 9: "P0001", 14: "P0001"}


def test_tombstones_that_are_ignored(db, new_topic, domains):
    topic = new_topic(1)
    db.create_topic_table(topic, "k int OPTIONS (key 'true'), d never_null", key_format="text")
    db.run("CREATE TABLE target (k int PRIMARY KEY, d text)")
    topic.produce_all([{"value": BROKEN}, {"key": b"1", "value": {"d": "a"}}, {"key": b"1", "value": None}, {"value": None}])
    db.create_stream(mode="update", on_error="dead_letter", on_tombstone="ignore")
    db.process_all_available()
    assert db.run("SELECT * FROM target") == [(1, "a")]
    assert letters(db) == {0: "22P02"}


def test_aggregates(db, new_topic, domains):
    topic = new_topic(1)
    db.create_topic_table(topic, "id int, d never_null DEFAULT 'usual'")
    db.run("CREATE TABLE target (d text PRIMARY KEY, n bigint)")
    topic.produce_all({"value": value} for value in (BROKEN, {"id": 1}, {"id": 2, "d": "given"}, {"id": 3}))
    db.create_stream(mode="update", query="SELECT d, count(*) AS n FROM topic GROUP BY d", on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT * FROM target ORDER BY d") == [("given", 1), ("usual", 2)]
    assert letters(db) == {0: "22P02"}


# --- values whose error on_error does not decide about ----------------------

@pytest.mark.parametrize("path", ["buffered", "planned"])
def test_a_value_that_stops_the_stream(db, new_topic, path):
    """It stands at the message, which the status names, and skip_message leaves out."""
    topic = new_topic(1)
    bad = {3: BROKEN, 5: {"id": 5, "v": 5}, 8: b'{"id": "x"}', 20: {"id": 20, "v": 7}, 25: BROKEN}
    topic.produce_all({"value": bad.get(n, {"id": n, "v": 1})} for n in range(30))
    db.run("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'")
    states = {"ZZ999": "failed", "42703": "failed", "40001": "backing off", "53200": "backing off", "57014": "backing off"}
    for name in map(str.lower, states):
        db.run(f"CREATE FUNCTION refuse{name}(value int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN IF value = 7 THEN "
               f"RAISE EXCEPTION 'seven' USING ERRCODE = '{name.upper()}'; END IF; RETURN true; END $$; "
               f"CREATE DOMAIN refusing{name} AS int CHECK (public.refuse{name}(VALUE)); "
               f"CREATE TABLE target{name} (id int, v int CHECK (v <> 5))")
        db.create_topic_table(topic, f"id int, v refusing{name}", name=f"topic{name}")
        if path == "planned":
            db.run(f"CREATE TRIGGER nothing BEFORE INSERT ON target{name} FOR EACH ROW EXECUTE FUNCTION nothing()")
        db.create_stream(name, source=f"topic{name}", target=f"target{name}", on_error="dead_letter")
    for sqlstate, state in states.items():
        name = sqlstate.lower()
        db.wait_for(f"SELECT next_offset FROM kafka.stream_offset WHERE stream = '{name}'", 20)
        status = db.wait_for_state(state, name=name)
        assert status.last_error_sqlstate == sqlstate
        assert f'opic "{topic.name}", partition 0, offset 20' in status.last_error_detail
        assert status.last_error_detail.count("offset 20") == 1
        assert "kafka.skip_message" in status.last_error_hint
        assert db.next_offsets(name) == {0: 20}
        assert db.column(f"SELECT id FROM target{name} ORDER BY id") == [n for n in range(20) if n not in bad]
        assert letters(db, name) == {3: "22P02", 5: "23514", 8: "22P02"}
        db.call("stop_stream", name)
        db.run("SELECT kafka.skip_message(%s, %s, 0, 20)", name, topic.name)
        db.call("start_stream", name)
        db.process_all_available(name)
        assert db.column(f"SELECT id FROM target{name} ORDER BY id") == [n for n in range(30) if n not in bad]
        assert letters(db, name) == {3: "22P02", 5: "23514", 8: "22P02", 25: "22P02"}


@pytest.mark.parametrize("path", ["buffered", "planned"])
def test_a_sequence_at_its_end_stops_the_stream(db, new_topic, path):
    """No message is to blame, and all that come after it would be left out."""
    topic = new_topic(1)
    db.create_topic_table(topic, "v text")
    db.run("CREATE TABLE target (id int GENERATED ALWAYS AS IDENTITY (MAXVALUE 20), v text)")
    if path == "planned":
        db.run("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; "
               "CREATE TRIGGER nothing BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION nothing()")
    topic.produce_all({"value": {"v": str(n)}} for n in range(30))
    db.create_stream(on_error="skip")
    status = db.wait_for_state("failed")
    assert status.last_error_sqlstate == "2200H" and "offset" in status.last_error_detail
    assert status.errors == 0
    db.run("ALTER TABLE target ALTER id SET MAXVALUE 1000")
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT v::int FROM target ORDER BY 1") == list(range(30))


@pytest.mark.parametrize("behind_bad", [True, False])
def test_unknown_fields(db, new_topic, behind_bad):
    topic = new_topic(1)
    db.create_topic_table(topic, "id int", unknown_field="error")
    db.run("CREATE TABLE target (LIKE topic)")
    topic.produce_all({"value": value} for value in [BROKEN] * behind_bad + [{"id": 1}, {"id": 2, "new": 1}, {"id": 3}])
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 3]
    assert letters(db) == ({0: "22P02", 2: "22P04"} if behind_bad else {1: "22P04"})


def test_unknown_fields_that_come_again(db, new_topic):
    """The decoder remembers names that no column takes, up to some number and length: each is an error all the same."""
    topic = new_topic(1)
    db.create_topic_table(topic, "id int, a int OPTIONS (path 'o.a')", unknown_field="error")
    db.run("CREATE TABLE target (LIKE topic)")
    names = ["x", "x", "y", "x", r"\u0078", *(f"n{number}" for number in range(300)), "n7", "n299", "n299", "l" * 70, "l" * 70, "m" * 64,
             "m" * 64, "x"]
    good = [b'{"id": 0, "o": {"a": 1, "x": 2, "id": 3}}', b'{"id": 0, "o": {"a": 1, "x": 2}}', b'{"o": {"x": 2, "a": 1}, "id": 0}']
    bad = [text.encode() for name in names for text in (f'{{"{name}": 1, "id": 5}}', f'{{"id": 5, "{name}": {{"id": 5}}, "o": null}}')]
    messages = [message for pair in zip(bad, itertools.cycle(good)) for message in pair]
    topic.produce_all({"value": value} for value in messages)
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.run("SELECT id, a, count(*) FROM target GROUP BY 1, 2") == [(0, 1, len(bad))]
    assert letters(db) == {offset: "22P04" for offset, value in enumerate(messages) if value not in good}


# --- what is done about them ------------------------------------------------

@pytest.mark.parametrize("first", [[], [{"id": 1}]])
def test_skip_a_message_behind_places_without_one(db, new_topic, first):
    """Aborted messages and the markers of transactions: the offset that the status names is the one to skip."""
    topic = new_topic(1)
    db.create_topic_table(topic, "id int")
    db.run("CREATE TABLE target (LIKE topic)")
    topic.produce(*first)
    with topic.transaction(commit=False) as produce:
        produce(b"aborted")
    topic.wait_for_markers()
    topic.produce(BROKEN, {"id": 2})
    db.create_stream()
    bad = len(first) + 2
    assert f"offset {bad}" in db.wait_for_state("failed").last_error_detail
    with error(f"does not stand at offset {bad + 1}", detail=f"next message is that of offset {bad}", sqlstate="22023"):
        db.run("SELECT kafka.skip_message('s', %s, 0, %s)", topic.name, bad + 1)
    db.run("SELECT kafka.skip_message('s', %s, 0, %s)", topic.name, bad)
    assert db.next_offsets() == {0: bad + 1}
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1] * len(first) + [2]
    assert db.status().errors == 1


@pytest.mark.parametrize("constraint", ["foreign key", "trigger"])
def test_retry_with_deferred_constraints(db, new_topic, constraint):
    topic = new_topic(1)
    db.create_topic_table(topic, "id int, v int")
    db.run("CREATE TABLE known (id int PRIMARY KEY); INSERT INTO known VALUES (1), (2), (3); CREATE TABLE target (id int, v int)")
    if constraint == "foreign key":
        db.run("ALTER TABLE target ADD FOREIGN KEY (v) REFERENCES known DEFERRABLE INITIALLY DEFERRED")
    else:
        db.run("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.v NOT IN (SELECT id FROM public.known) "
               "THEN RAISE EXCEPTION 'unknown'; END IF; RETURN NULL; END $$; CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON target "
               "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()")
    topic.produce_all({"value": {"id": n, "v": n}} for n in range(1, 6))
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 2, 3]
    assert db.run("SELECT * FROM kafka.retry_dead_letters('s')") == [(2, 0, 2)]
    db.run("INSERT INTO known VALUES (4)")
    assert db.run("SELECT * FROM kafka.retry_dead_letters('s')") == [(2, 1, 1)]
    assert db.column("SELECT id FROM target ORDER BY id") == [1, 2, 3, 4]
    # what the caller has deferred before is checked first, as the caller
    with db.connect(autocommit=False) as session:
        session.execute("INSERT INTO target VALUES (7, 7)")
        with error("violates foreign key" if constraint == "foreign key" else "unknown"):
            session.execute("SELECT kafka.retry_dead_letters('s')")
