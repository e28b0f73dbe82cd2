"""Databases in other encodings than UTF-8: text is converted, or on_error applies; nothing is stored wrong."""

import json

import psycopg
import pytest

from harness.database import Database

TEXTS = ["plain", "é", "日本", "😀", "€", ""]
FITS = {
    "LATIN1": {"plain", "é", ""},
    "EUC_JP": {"plain", "é", "日本", ""},
    "SQL_ASCII": {"plain", "é", "日本", "😀", "€", ""},  # bytes as they are
}


@pytest.fixture
def encoded_db(postgres, kafka, request):
    name = f"encoded_{request.param.lower()}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'")
    database = Database(postgres, name=name)
    database.run("CREATE EXTENSION kafka_ingest")
    database.create_server(kafka.address)
    database.encoding = request.param
    yield database
    database.drop()


@pytest.mark.parametrize("encoded_db", FITS, indirect=True)
@pytest.mark.parametrize("format_, escaped", [("json", False), ("json", True), ("text", False), ("csv", False)])
def test_text_is_converted_or_refused(encoded_db, new_topic, format_, escaped):
    db, topic = encoded_db, new_topic()
    db.create_topic_table(topic, "t text" if format_ != "json" else "t text, j jsonb", format=format_)
    db.run("CREATE TABLE target (LIKE topic)")
    if format_ == "json":
        topic.produce(*(json.dumps({"t": text, "j": [text]}, ensure_ascii=escaped) for text in TEXTS))
    else:
        topic.produce(*(f'"{text}"' if format_ == "csv" else text for text in TEXTS))
    db.create_stream(on_error="dead_letter")
    db.process_all_available()
    # SQL_ASCII takes bytes, but an escape names a character that it doesn't know.
    fits = {"plain", ""} if escaped and db.encoding == "SQL_ASCII" else FITS[db.encoding]
    db.run("SET client_encoding = 'SQL_ASCII'")
    stored = "textsend(t)" if db.encoding == "SQL_ASCII" else f"convert(textsend(t), '{db.encoding}', 'UTF8')"
    stored = db.column(f"SELECT {stored} FROM target")
    assert sorted(stored) == sorted(text.encode() for text in fits)
    letters = db.run("SELECT \"offset\", textsend(error_sqlstate) FROM kafka.dead_letter ORDER BY 1")
    assert [offset for offset, _ in letters] == [n for n, text in enumerate(TEXTS) if text not in fits]
    # without a client encoding, text comes as bytes
    assert {bytes(state) for _, state in letters} <= {b"22P05", b"22021"}
