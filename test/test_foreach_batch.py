"""foreach_batch, notify and explain_stream."""

import json

import pytest

from expectations import error


def create_procedure(db, body, arguments="batch_id bigint"):
    db.run(f"CREATE PROCEDURE public.write_batch({arguments}) LANGUAGE plpgsql AS $$ BEGIN {body} END $$")


def create_foreach_stream(db, name="s", **arguments):
    db.call("create_stream", name, source="topic", foreach_batch="public.write_batch(bigint)", **arguments)


def test_one_stream_writes_several_tables(db, topic):
    db.create_topic_table(topic, "id bigint, kind text")
    db.run("CREATE TABLE evens (id bigint); CREATE TABLE odds (id bigint); CREATE TABLE batches (batch_id bigint, n int)")
    create_procedure(db, """
        INSERT INTO public.evens SELECT id FROM public.topic WHERE id % 2 = 0;
        INSERT INTO public.odds SELECT id FROM public.topic WHERE id % 2 = 1;
        INSERT INTO public.batches SELECT batch_id, count(*) FROM public.topic;""")
    topic.produce_sequence(300)
    create_foreach_stream(db, max_offsets_per_trigger=50)
    db.process_all_available()
    assert db.column("SELECT id FROM evens ORDER BY id") == list(range(2, 301, 2))
    assert db.column("SELECT id FROM odds ORDER BY id") == list(range(1, 301, 2))
    assert db.value("SELECT sum(n)::int FROM batches") == 300
    assert db.value("SELECT count(*) = count(DISTINCT batch_id) AND max(n) <= 50 FROM batches")
    assert db.next_offsets() == topic.offsets()


def test_an_error_rolls_everything_back(db, topic):
    db.create_topic_table(topic, "id bigint")
    db.run("CREATE TABLE first (id bigint); CREATE TABLE second (id bigint CHECK (id <> 7))")
    create_procedure(db, """
        INSERT INTO public.first SELECT id FROM public.topic;
        INSERT INTO public.second SELECT id FROM public.topic;""")
    topic.produce(*({"id": n, "partition": 0} for n in range(1, 11)))
    create_foreach_stream(db)
    failed = db.wait_for_state("failed")
    assert failed.last_error_sqlstate == "23514"
    assert "offset" in failed.last_error_detail
    assert db.value("SELECT array_agg(id ORDER BY id) FROM first") == db.value(
        "SELECT array_agg(id ORDER BY id) FROM second")
    assert 7 not in db.column("SELECT id FROM first")
    db.run("ALTER TABLE second DROP CONSTRAINT second_id_check")
    db.call("start_stream")
    db.process_all_available()
    assert db.column("SELECT id FROM first ORDER BY id") == list(range(1, 11))
    assert db.column("SELECT id FROM second ORDER BY id") == list(range(1, 11))


def test_the_detail_of_a_procedure_is_told_from_the_place(db, topic):
    db.create_topic_table(topic, "id bigint")
    create_procedure(db, "RAISE EXCEPTION 'no' USING DETAIL = 'dd', ERRCODE = '23514';")
    topic.produce({"id": 1, "partition": 0})
    create_foreach_stream(db)
    assert db.wait_for_state("failed").last_error_detail.startswith('dd. Topic "')


def test_what_is_refused(db, topic):
    db.create_topic_table(topic, "id bigint")
    db.run("CREATE TABLE target (LIKE topic)")
    create_procedure(db, "NULL;", "batch_id int")
    with error("procedure", sqlstate="42809", hint="CREATE PROCEDURE"):
        db.call("create_stream", source="topic", foreach_batch="public.write_batch(int)", start=False)
    create_procedure(db, "NULL;")
    with error("either a target or foreach_batch"):
        db.call("create_stream", source="topic", foreach_batch="public.write_batch(bigint)", target="target",
                start=False)
    with error("either a target or foreach_batch"):
        db.call("create_stream", source="topic", start=False)
    with error("foreach_batch"):
        create_foreach_stream(db, on_conflict="ignore", start=False)
    with error("foreach_batch"):
        create_foreach_stream(db, mode="update", start=False)
    # the procedure reads the topic table, whatever the query leaves out
    with error("needs a topic table as its source", hint="source => 'topic'"):
        db.call("create_stream", query="SELECT id FROM topic WHERE id = 1", foreach_batch="public.write_batch(bigint)",
                start=False)


def test_a_procedure_can_not_stop_its_own_stream(db, topic):
    db.create_topic_table(topic, "id bigint")
    create_procedure(db, "PERFORM kafka.stop_stream('s');")
    create_foreach_stream(db)
    topic.produce({"id": 1})
    assert "cannot stop itself" in db.wait_for_state("failed").last_error


def test_a_procedure_can_not_wait_for_its_own_stream(db, topic):
    db.create_topic_table(topic, "id bigint")
    create_procedure(db, "PERFORM kafka.process_all_available('s');")
    create_foreach_stream(db)
    topic.produce({"id": 1})
    failed = db.wait_for_state("failed")
    assert "cannot wait for itself" in failed.last_error
    assert "another session" in failed.last_error_hint


@pytest.mark.parametrize("statement,sqlstate,hint", [
    ("COMMIT;", "2D000", "leave COMMIT and ROLLBACK out"),
    ("ROLLBACK;", "2D000", "leave COMMIT and ROLLBACK out"),
    ("CREATE TEMPORARY TABLE scratch (id int);", "42501", "can't be done in a batch"),
    ("LISTEN news;", "42501", "can't be done in a batch")])
def test_what_a_batch_can_not_do(db, topic, statement, sqlstate, hint):
    db.create_topic_table(topic, "id bigint")
    create_procedure(db, statement)
    topic.produce({"id": 1})
    create_foreach_stream(db)
    failed = db.wait_for_state("failed")
    assert (failed.last_error_sqlstate, hint in failed.last_error_hint) == (sqlstate, True), failed.last_error_hint
    db.run("DROP PROCEDURE public.write_batch(bigint)")
    create_procedure(db, "NULL;")
    db.call("start_stream")
    db.process_all_available()


def test_a_dropped_procedure_stops_the_stream(db, topic):
    db.create_topic_table(topic, "id bigint")
    create_procedure(db, "NULL;")
    create_foreach_stream(db)
    db.process_all_available()
    db.run("DROP PROCEDURE public.write_batch(bigint)")
    topic.produce({"id": 1})
    assert "dropped" in db.wait_for_state("failed").last_error


def test_notify_after_each_commit(db, topic):
    db.create_tables(topic)
    with db.connect() as listener:
        listener.execute("LISTEN batches")
        db.create_stream(notify="batches")
        topic.produce_sequence(30)
        db.process_all_available()
        rows = 0
        for notice in listener.notifies(timeout=20):
            payload = json.loads(notice.payload)
            rows += payload["num_input_rows"]
            assert payload["stream"] == "s" and payload["batch_id"] >= 1
            assert set(payload["end_offsets"]) <= {"0", "1", "2"}
            if rows == 30:
                break
        assert rows == 30


def test_explain_shows_the_path(db, topic):
    db.create_tables(topic)
    db.create_stream("fast", start=False)
    lines = db.column("SELECT * FROM kafka.explain_stream('fast')")
    assert any("fast append" in line for line in lines), lines
    assert any(line.startswith("Statement: INSERT INTO public.target") for line in lines), lines
    assert any(topic.name in line for line in lines), lines
    db.run("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;"
           "CREATE TRIGGER t BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION nothing()")
    assert any("planned INSERT" in line for line in db.column("SELECT * FROM kafka.explain_stream('fast')"))
    create_procedure(db, "NULL;")
    create_foreach_stream(db, "each", start=False)
    assert any("CALL public.write_batch" in line for line in db.column("SELECT * FROM kafka.explain_stream('each')"))
    with error("does not exist"):
        db.column("SELECT * FROM kafka.explain_stream('nope')")
    with error('argument "name" must not be null', sqlstate="22004"):
        db.column("SELECT * FROM kafka.explain_stream(NULL)")


def test_only_the_owner_explains(db, topic):
    db.run("DROP ROLE IF EXISTS kafka_stranger")
    db.create_tables(topic)
    db.create_stream(start=False)
    db.run("CREATE ROLE kafka_stranger")
    try:
        db.run("SET ROLE kafka_stranger")
        with error("must be owner"):
            db.column("SELECT * FROM kafka.explain_stream('s')")
    finally:
        db.run("RESET ROLE")
        db.run("DROP ROLE kafka_stranger")
