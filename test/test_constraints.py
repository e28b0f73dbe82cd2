"""Whatever the target refuses is refused for that message alone; the rest of its batch goes in."""

import pytest

SETUP = """
CREATE TABLE known (v int PRIMARY KEY);
INSERT INTO known SELECT v FROM generate_series(0, 99) v WHERE v <> 13;
CREATE DOMAIN not_thirteen AS int CHECK (VALUE <> 13);
CREATE FUNCTION refuse_thirteen() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF new.v = 13 THEN RAISE 'thirteen'; END IF; RETURN new; END $$;
"""

# What refuses the value 13 (of a unique column: a second one), and how.
CONSTRAINTS = {
    "NOT NULL": ("CREATE TABLE target (id bigint, v int, n int NOT NULL GENERATED ALWAYS AS (nullif(v, 13)) STORED)", "23502"),
    "CHECK": ("CREATE TABLE target (id bigint, v int CHECK (v <> 13))", "23514"),
    "UNIQUE": ("CREATE TABLE target (id bigint, v int UNIQUE); INSERT INTO target VALUES (-1, 13)", "23505"),
    "exclusion": ("CREATE TABLE target (id bigint, v int, EXCLUDE USING btree (v WITH =)); INSERT INTO target VALUES (-1, 13)",
                  "23P01"),
    "foreign key": ("CREATE TABLE target (id bigint, v int REFERENCES known)", "23503"),
    "deferred foreign key": ("CREATE TABLE target (id bigint, v int REFERENCES known DEFERRABLE INITIALLY DEFERRED)", "23503"),
    "domain": ("CREATE TABLE target (id bigint, v not_thirteen)", "23514"),
    "generated column": ("CREATE TABLE target (id bigint, v int, g int GENERATED ALWAYS AS (1 / (v - 13)) STORED)", "22012"),
    "row trigger": ("CREATE TABLE target (id bigint, v int); CREATE TRIGGER t BEFORE INSERT ON target FOR EACH ROW "
                    "EXECUTE FUNCTION refuse_thirteen()", "P0001"),
    "deferred trigger": ("CREATE TABLE target (id bigint, v int); CREATE CONSTRAINT TRIGGER t AFTER INSERT ON target DEFERRABLE "
                         "INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_thirteen()", "P0001"),
    "no partition": ("CREATE TABLE target (id bigint, v int) PARTITION BY RANGE (v); "
                     "CREATE TABLE low PARTITION OF target FOR VALUES FROM (0) TO (13); "
                     "CREATE TABLE high PARTITION OF target FOR VALUES FROM (14) TO (1000)", "23514"),
}
BAD = (0, 50, 99)  # the first of the batch, one within, the last


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_only_the_bad_messages_are_kept_out(db, new_topic, constraint):
    definition, sqlstate = CONSTRAINTS[constraint]
    topic = new_topic()
    db.create_topic_table(topic, "id bigint, v int")
    db.run(SETUP)
    db.run(definition)
    topic.produce(*({"id": n, "v": 13 if n in BAD else 99 if n == 13 else n} for n in range(100)
                    if constraint not in ("UNIQUE", "exclusion") or n != 13))
    numbers = [n for n in range(100) if constraint not in ("UNIQUE", "exclusion") or n != 13]
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    assert db.column("SELECT id FROM target WHERE id >= 0 ORDER BY id") == [n for n in numbers if n not in BAD]
    letters = db.run('SELECT "offset", error_sqlstate, error_detail FROM kafka.dead_letter ORDER BY "offset"')
    assert [(offset, state) for offset, state, _ in letters] == [(numbers.index(n), sqlstate) for n in BAD]
    assert all(f"offset {offset}" in detail for offset, _, detail in letters)
    assert db.next_offsets() == topic.offsets()
