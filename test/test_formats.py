"""From bytes to rows: formats, metadata columns, tombstones, exact numbers."""

import datetime

from expectations import error, values


def ingest(db, *produced, topic, columns, **options):
    """Produces messages and returns the rows of a target like the topic table."""
    db.create_topic_table(topic, columns, **options)
    db.run("CREATE TABLE target (LIKE topic)")
    topic.produce(*produced)
    db.create_stream()
    db.process_all_available()


def test_numbers_arrive_exact(db, topic):
    long_numeric = "123456789012345678901234567890.123456789012345678901234567891"
    ingest(db, '{"b": 9007199254740993, "n": %s}' % long_numeric,
           '{"b": -9223372036854775808, "n": "%s"}' % long_numeric,
           '{"b": 9223372036854775807, "n": 1e3}',
           topic=topic, columns="b bigint, n numeric")
    assert values(db, "SELECT b, n::text FROM target") == [
        (-9223372036854775808, long_numeric), (9007199254740993, long_numeric), (9223372036854775807, "1000")]


def test_json_types(db, topic):
    ingest(db, """{"t": "a\\u00e9\\n\\"b\\"", "i": 7, "f": 0.1, "r": 1e-3, "y": true, "d": "2026-02-03",
                  "ts": "2026-02-03T04:05:06.789Z", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                  "j": {"x": [1, 2.50, null]}, "jb": {"b": 1, "a": 9007199254740993}, "a": [1, null, 3],
                  "ta": ["x", "y,z"], "m": [[1, 2], [3, 4]], "s": 12, "o": {"k": "v"}}""",
           topic=topic, columns="t text, i int, f float8, r real, y boolean, d date, ts timestamptz, u uuid, "
                                "j json, jb jsonb, a int[], ta text[], m int[], s text, o text")
    assert db.run("SELECT t, i, f, r::text, y, d::text, ts::text, u::text, jb::text, a, ta, m, s FROM target") == [
        ('aé\n"b"', 7, 0.1, "0.001", True, "2026-02-03", "2026-02-03 04:05:06.789+00",
         "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", '{"a": 9007199254740993, "b": 1}', [1, None, 3],
         ["x", "y,z"], [[1, 2], [3, 4]], "12")]
    assert db.run("SELECT j #>> '{x,1}', o::json ->> 'k' FROM target") == [("2.50", "v")]


def test_paths_into_objects_and_arrays(db, topic):
    ingest(db, '{"a": {"b": {"c": 5}}, "l": [{"x": 1}, {"x": 2}]}', '{"a": {"b": null}, "l": []}', '{}',
           topic=topic, columns="c int OPTIONS (path 'a.b.c'), second int OPTIONS (path 'l.1.x'), "
                                "b jsonb OPTIONS (path 'a.b')")
    assert values(db, "SELECT c, second, b::text FROM target") == [
        (5, 2, '{"c": 5}'), (None, None, None), (None, None, None)]


def test_epochs(db, topic):
    ingest(db, '{"s": 1600000000, "ms": 1600000000123, "us": 1600000000123456}',
           topic=topic, columns="s timestamptz OPTIONS (epoch 's'), ms timestamptz OPTIONS (epoch 'ms'), "
                                "us timestamp OPTIONS (epoch 'us')")
    assert db.run("SELECT s::text, ms::text, us::text FROM target") == [
        ("2020-09-13 12:26:40+00", "2020-09-13 12:26:40.123+00", "2020-09-13 12:26:40.123456")]


def test_unknown_fields(db, new_topic):
    ignoring, strict = new_topic(), new_topic()
    ingest(db, {"id": 1, "other": 2}, topic=ignoring, columns="id bigint")
    assert db.column("SELECT id FROM target") == [1]
    db.create_topic_table(strict, name="strict", unknown_field="error")
    strict.produce({"id": 1, "other": 2})
    db.create_stream("strict", source="strict")
    status = db.wait_for_state("failed", name="strict")
    assert "other" in f"{status.last_error} {status.last_error_detail}"


def test_text_and_bytea(db, new_topic):
    texts, bytes_ = new_topic(), new_topic()
    db.create_topic_table(texts, "line text", name="texts", format="text")
    db.create_topic_table(bytes_, "content bytea", name="bytes", format="bytea")
    db.run("CREATE TABLE text_target (LIKE texts); CREATE TABLE bytea_target (LIKE bytes)")
    texts.produce("one line", "", "ünïcode \\ \"quoted\"\ttab", None)
    bytes_.produce(b"\x00\xff\\x", b"", None)
    db.create_stream("t", source="texts", target="text_target")
    db.create_stream("b", source="bytes", target="bytea_target")
    db.process_all_available("t")
    db.process_all_available("b")
    assert values(db, "SELECT line FROM text_target") == sorted(
        [("one line",), ("",), ("ünïcode \\ \"quoted\"\ttab",), (None,)], key=repr)
    assert values(db, "SELECT content FROM bytea_target") == sorted(
        [(b"\x00\xff\\x",), (b"",), (None,)], key=repr)


def test_csv(db, topic):
    ingest(db, 'a,1,"x ""y"", z"', ',2,', '"",3,"two\nlines"', "b,4,plain\r\n", topic=topic,
           columns="t text, n int, u text", format="csv")
    assert values(db, "SELECT n, t, u FROM target") == sorted(
        [(1, "a", 'x "y", z'), (2, None, None), (3, "", "two\nlines"), (4, "b", "plain")], key=repr)


def test_metadata_columns(db, topic):
    db.create_topic_table(topic, """id bigint, t text OPTIONS (metadata 'topic'),
        p int OPTIONS (metadata 'partition'), o bigint OPTIONS (metadata 'offset'),
        at timestamptz OPTIONS (metadata 'timestamp'), at_type text OPTIONS (metadata 'timestamp_type'),
        key text OPTIONS (metadata 'key'), raw_key bytea OPTIONS (metadata 'key'),
        value bytea OPTIONS (metadata 'value'), headers kafka.header[] OPTIONS (metadata 'headers')""")
    db.run("CREATE TABLE target (LIKE topic)")
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=datetime.timezone.utc)
    topic.produce('{"id": 1}', partition=2, key="k1", timestamp=int(moment.timestamp() * 1000),
                  headers=[("a", b"1"), ("a", b"\xff"), ("empty", b""), ("null", None)])
    topic.produce('{"id": 2}', partition=1)
    db.create_stream()
    db.process_all_available()
    assert db.run("SELECT id, t, p, o, at, at_type, key, raw_key, value FROM target ORDER BY id")[0] == (
        1, topic.name, 2, 0, moment, "create_time", "k1", b"k1", b'{"id": 1}')
    assert db.run("SELECT h.key, h.value FROM target, unnest(headers) WITH ORDINALITY AS h(key, value, n) "
                  "WHERE id = 1 ORDER BY n") == [("a", b"1"), ("a", b"\xff"), ("empty", b""), ("null", None)]
    assert db.run("SELECT key, raw_key, coalesce(cardinality(headers), 0) FROM target WHERE id = 2") == [
        (None, None, 0)]


def test_log_append_time(db, new_topic):
    topic = new_topic(message_timestamp_type="LogAppendTime")
    ingest(db, {"id": 1}, topic=topic, columns="id bigint, at timestamptz OPTIONS (metadata 'timestamp'), "
                                               "at_type text OPTIONS (metadata 'timestamp_type')")
    assert db.run("SELECT id, at_type, at > now() - interval '1 minute' FROM target") == [
        (1, "log_append_time", True)]


def test_tombstones(db, new_topic):
    for option, expected in (("row", [(1, None), (None, "dead")]), ("skip", [(1, None)])):
        topic = new_topic()
        name = f"topic_{option}"
        db.create_topic_table(topic, "id bigint, key text OPTIONS (metadata 'key')", name=name, null_value=option)
        db.run(f"CREATE TABLE target_{option} (LIKE {name})")
        topic.produce({"id": 1})
        topic.produce(None, key="dead")
        db.create_stream(option, source=name, target=f"target_{option}")
        db.process_all_available(option)
        assert values(db, f"SELECT id, key FROM target_{option}") == sorted(expected, key=repr)
        assert db.next_offsets(option) == topic.offsets()


def test_tombstone_as_error(db, new_topic):
    topic = new_topic()
    db.create_topic_table(topic, null_value="error")
    db.run("CREATE TABLE target (id bigint)")
    topic.produce({"id": 1}, None)
    db.create_stream()
    assert "offset 1" in db.wait_for_state("failed").last_error_detail


def test_decode_message_needs_no_broker(db):
    db.create_topic_table("anything", "id bigint, name text OPTIONS (path 'a.name')")
    assert db.run("SELECT (kafka.decode_message(NULL::topic, '{\"id\": 7, \"a\": {\"name\": \"x\"}}')).*") == [
        (7, "x")]
    with error("bigint", sqlstate="22P02"):
        db.run("SELECT kafka.decode_message(NULL::topic, '{\"id\": \"x\"}')")


def test_compression_and_large_messages(db, topic):
    from confluent_kafka import Producer
    db.create_topic_table(topic, "id bigint, text text")
    db.run("CREATE TABLE target (LIKE topic)")
    for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        producer = Producer({"bootstrap.servers": topic.address, "compression.type": codec,
                             "message.max.bytes": 10_000_000})
        topic.produce_all([{"value": {"id": number, "text": codec * 1_000_000}}], producer)
    db.create_stream()
    db.process_all_available()
    assert values(db, "SELECT id, length(text) FROM target") == [
        (0, 4_000_000), (1, 4_000_000), (2, 6_000_000), (3, 3_000_000), (4, 4_000_000)]


def test_metadata_alone_shows_any_message(db, topic):
    """What can't be decoded can still be looked at."""
    db.create_topic_table(topic, "id bigint, raw bytea OPTIONS (metadata 'value'), "
                                 "o bigint OPTIONS (metadata 'offset')")
    topic.produce(b"\xff no JSON", {"id": 1})
    assert db.run("SELECT raw, o FROM topic ORDER BY o") == [(b"\xff no JSON", 0), (b'{"id": 1}', 1)]
    with error("invalid byte sequence"):
        db.run("SELECT id FROM topic")
