"""Topic tables of random columns, with random messages, good and bad ones."""

import random

DEFINITIONS = """
CREATE TYPE color AS ENUM ('red', 'green');
CREATE FUNCTION refuse(value int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF value = 7 THEN RAISE EXCEPTION 'seven' USING ERRCODE = '22000'; ELSIF value = 8 THEN RAISE EXCEPTION 'eight'; END IF;
    RETURN value IS DISTINCT FROM 9; END $$;
CREATE DOMAIN never_null AS text NOT NULL;
CREATE DOMAIN checked_null AS text CHECK (VALUE IS NOT NULL);
CREATE DOMAIN refusing AS int CHECK (public.refuse(VALUE));
CREATE DOMAIN refusing_null AS refusing NOT NULL;
CREATE TYPE pair AS (a int, b checked_null);
"""

# a type: good and bad values as JSON has them, defaults
NO_TEXT = [b'"\\u0000"', b'"\xff"']
TYPES = {
    "int": ([b"1", b'"2"'], [b'"x"', b"99999999999", b"1.5", b"[]", *NO_TEXT], ["1", "NULL"]),
    "numeric(6,2)": ([b"1", b"2.345", b'"NaN"'], [b"1e9", b'"abc"', b"true"], ["3.1"]),
    "text": ([b'"a"', b"5", b'"\xc3\xa9"'], [b'"\\ud800"', *NO_TEXT], ["'usual'", "NULL"]),
    "timestamptz": ([b'"2026-01-01T00:00:00Z"'], [b'"2026-13-45"', b"5"], ["'2026-01-01'"]),
    "bool": ([b"true", b'"f"'], [b'"x"', b"[]"], ["true"]),
    "uuid": ([b'"00000000-0000-0000-0000-000000000001"'], [b'"zz"'], ["'00000000-0000-0000-0000-000000000002'"]),
    "jsonb": ([b'{"a": 1}', b"[null]"], [b'{"a": "\\u0000"}', b"1e999999"], ["'{}'"]),
    "color": ([b'"red"', b'"green"'], [b'"blue"', b"3"], ["'red'"]),
    "int[]": ([b"[1, 2]", b"[]", b"[null]"], [b'[1, "x"]', b"{}", b"[[1], [1, 2]]"], ["'{1}'"]),
    "never_null": ([b'"a"', b'"b"'], [b"null", *NO_TEXT], ["'usual'", "NULL"]),
    "checked_null": ([b'"a"'], [b"null", *NO_TEXT], ["'usual'", "NULL"]),
    "refusing": ([b"1", b"2"], [b"7", b"8", b"9", b'"x"'], ["1", "NULL"]),
    "refusing_null": ([b"1", b"2"], [b"7", b"8", b"9", b"null"], ["1"]),
    "pair": ([b'{"a": 1, "b": "x"}', b'{"b": "x"}'], [b'{"a": 1}', b"3"], ["'(1,x)'"]),
    "tsquery": ([b'"a & b"'], [b'"a & "'], ["'a'"]),
    "regclass": ([b'"pg_class"'], [b'"no_such"'], ["'pg_class'"]),
    "aclitem": ([b'"=r/postgres"'], [b'"=r/no_such"', b'"' + b"x" * 70 + b'"'], ["'=r/postgres'"]),
}
BASE_TYPES = {"never_null": "text", "checked_null": "text", "refusing": "bigint", "refusing_null": "int", "text": "varchar(2)"}
NO_VALUES = [None, b"{broken", b"", b"[]", b"null", b'{"n": 1} x', b'{"n": 1, "n": 2}']
NO_KEYS = [None, b"no number", b"\xff", b"99999999999", b"", b"null", b"{}"]


class RandomTopic:
    """What it is of is decided by the seed.  columns: pairs of name and type, as in topic_columns, the first an int "n"."""

    def __init__(self, seed, has_array=False):
        self.random = random.Random(seed)
        self.badness = self.pick(0.02, 0.06, 0.25)
        self.format = "json" if has_array else self.pick("json", "json", "csv", "text")
        self.key_format = self.pick("text", "json")
        self.topic_options = {"format": self.format, "key_format": self.key_format, "null_value": self.pick("row", "skip", "error")}
        if self.format == "json":
            self.topic_options["unknown_field"] = self.pick("ignore", "error")
        self.columns = [("n", self.pick("int", "int", "refusing", "refusing_null"))]
        if self.format != "text":
            self.columns += [(f"c{number}", self.pick(*TYPES)) for number in range(self.random.randrange(5))]
        if has_array:
            self.columns.append(("elements", "int[]"))
        key = "k {} OPTIONS (key '{}')".format(self.pick("int", "refusing"), "true" if self.key_format == "text" else "id")
        self.topic_columns = ", ".join([f"{name} {type}{self.default(type)}" for name, type in self.columns]
                                       + [key, "o bigint OPTIONS (metadata 'offset')"])
        self.names = ", ".join([name for name, _ in self.columns] + ["k", "o"])
        self.messages = [self.message() for _ in range(self.pick(20, 40, 40, 300))]

    def pick(self, *choices):
        return self.random.choice(choices)

    def some(self, choices, share=0.2):
        return [choice for choice in choices if self.random.random() < share]

    def default(self, type):
        return f" DEFAULT {self.pick(*TYPES[type][2])}" if self.random.random() < 0.3 else ""

    def message(self):
        key = str(self.random.randrange(1, 10)).encode()
        key = b'{"id": %s}' % key if self.key_format == "json" else key
        key = self.pick(*NO_KEYS) if self.random.random() < self.badness else key
        if self.random.random() < max(self.badness, 0.05):
            return {"key": key, "value": self.pick(None, *NO_VALUES)}
        fields = [(name.encode(), self.field(name, type)) for name, type in self.columns]
        if self.format == "json":
            fields += [(b"new", self.pick(b"1", b"1e", *NO_TEXT))] * (self.random.random() < self.badness)
            self.random.shuffle(fields)
            return {"key": key, "value": b"{%s}" % b", ".join(b'"%s": %s' % field for field in fields if field[1] is not None)}
        texts = [(b"" if text in (None, b"null") else text.strip(b'"')) for _, text in fields]
        if self.format == "csv":
            texts = [b'"%s"' % text.replace(b'"', b'""') if b"," in text else text for text in texts]
        return {"key": key, "value": b",".join(texts)}

    def field(self, name, type):
        """Bytes of JSON, or None: it is missing."""
        good, bad, _ = TYPES[type]
        if self.random.random() < self.badness:
            return self.pick(None, b"null", *bad)
        return str(self.random.randrange(1, 40)).encode() if name == "n" else self.pick(*good)
