-- Transition states that are stored, combined and finished.
\encoding UTF8
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;
CREATE SCHEMA aggregate_state;
SET search_path = aggregate_state;
SET timezone = 'UTC';
SET intervalstyle = 'postgres';

-- the functions themselves
SELECT kafka.final_value('count()', kafka.partial_state('count()'), NULL::bigint) FROM generate_series(1, 3);
SELECT kafka.final_value('sum(numeric)', kafka.partial_state('sum(numeric)', x), NULL::numeric)
  FROM (VALUES (0.1), (0.2), (NULL)) AS t (x);
SELECT kafka.final_value('sum(numeric)',
           kafka.combine_states('sum(numeric)', kafka.partial_state('sum(numeric)', x) FILTER (WHERE x > 1),
                                kafka.partial_state('sum(numeric)', x) FILTER (WHERE x <= 1)),
           NULL::numeric)
  FROM (VALUES (0.1), (0.2), (1e100)) AS t (x);

-- no rows, and NULL for a state: as before the first row
SELECT kafka.final_value('count()', kafka.partial_state('count()'), NULL::bigint) AS count,
       kafka.partial_state('sum(numeric)', 1.0) AS sum_state,
       kafka.final_value('sum(numeric)', kafka.partial_state('sum(numeric)', 1.0), NULL::numeric) AS sum
 WHERE false;
SELECT kafka.final_value('count()', NULL, NULL::bigint) AS count,
       kafka.final_value('sum(numeric)', NULL, NULL::numeric) AS sum,
       kafka.combine_states('max(int)', NULL, NULL) AS nothing,
       kafka.combine_states('max(anyarray)', NULL, NULL) AS nothing_of_a_type;

---------------------------------------------------------------------------
-- Every aggregate of this server that has a combine function: three batches
-- combined against the plain aggregate over all rows.
---------------------------------------------------------------------------

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');

-- Values of each type: the ordinary, the extreme and the special.
CREATE TABLE type_values (type regtype PRIMARY KEY, literals text[]);
INSERT INTO type_values VALUES
    ('bool', '{t,f,t,t}'),
    ('int2', '{1,-32768,32767,0}'),
    ('int4', '{1,-2147483648,2147483647,0}'),
    ('int8', '{1,-9223372036854775808,9223372036854775807,0}'),
    ('numeric', '{1.10,-0.0000000000000000000001,1e130,123456789012345678901234567890.123456789,0.000,NaN,Infinity,-Infinity}'),
    ('float4', '{1.5,-0,0,1e38,-1e-37,NaN,Infinity}'),
    ('float8', '{1.5,-0,0,1e300,-1e-300,0.1,NaN,-Infinity}'),
    ('money', '{1.10,-5.00,92233720368547.00}'),
    ('oid', '{0,1,4294967295}'),
    ('xid8', '{0,1,18446744073709551615}'),
    ('tid', '{"(0,1)","(7,3)","(7,2)"}'),
    ('pg_lsn', '{0/0,16/B374D848,FFFFFFFF/FFFFFFFF}'),
    ('text', '{a,"",B,é,z}'),
    ('bpchar', '{a,"b ",B}'),
    ('bytea', '{"\\x00","\\xff00","\\x"}'),
    ('date', '{2000-01-01,-infinity,infinity,4713-01-01 BC}'),
    ('time', '{00:00,24:00:00,12:34:56.789}'),
    ('timetz', '{00:00+00,23:59:59.999999-12,12:00+05:30}'),
    ('timestamp', '{2000-01-01,infinity,-infinity,1999-12-31 23:59:59.999999}'),
    ('timestamptz', '{2000-01-01,infinity,-infinity,1999-12-31 23:59:59.999999+03}'),
    ('interval', '{1 day,-3 mons,04:05:06.789,1 year 2 mons -3 days,00:00}'),
    ('inet', '{10.0.0.1,10.0.0.0/8,"::1"}'),
    ('bit', '{1,0,1}'),
    ('varbit', '{1010,0110,1111}'),
    ('int4[]', '{"{1,2}","{NULL,3}","{}"}'),
    ('mood', '{happy,sad,ok}'),
    ('int4range', '{"[1,10)","[3,7]","(,)"}'),
    ('int4multirange', '{"{[1,10)}","{[3,7],[8,20]}","{(,)}"}');

-- what stands for a polymorphic type
CREATE FUNCTION concrete_type(type regtype) RETURNS regtype LANGUAGE sql AS $$
    SELECT CASE type::text WHEN 'anyarray' THEN 'int4[]' WHEN 'anyenum' THEN 'mood' WHEN 'anyrange' THEN 'int4range'
                           WHEN 'anymultirange' THEN 'int4multirange' WHEN 'anynonarray' THEN 'text'
                           WHEN 'anyelement' THEN 'text' WHEN '"any"' THEN 'text' ELSE type::text END::regtype
$$;

-- Nearly equal, for sums of floats: PostgreSQL's own parallel plans add them in any order, too.
CREATE FUNCTION same(a text, b text, type regtype) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF a IS NOT DISTINCT FROM b THEN RETURN true; END IF;
    IF a IS NULL OR b IS NULL OR type::text NOT IN ('real', 'double precision') THEN RETURN false; END IF;
    RETURN abs(a::float8 - b::float8) <= CASE type::text WHEN 'real' THEN 1e-6 ELSE 1e-12 END * greatest(abs(a::float8), abs(b::float8));
END $$;

-- Runs a query of the aggregate in both ways; what differs, or the error that only one of them raises.
CREATE FUNCTION compare(aggregate regprocedure) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    types regtype[] := ARRAY(SELECT concrete_type(t::regtype) FROM pg_proc, unnest(proargtypes) WITH ORDINALITY AS a (t, n)
                              WHERE pg_proc.oid = aggregate ORDER BY n);
    name text := (SELECT quote_ident(proname) FROM pg_proc WHERE oid = aggregate);
    columns text := '';
    result_type regtype;
    groups record;
    g int;
    by_group boolean;
    plain text;
    stepwise text;
BEGIN
    -- Rows of each group: 1 a bit of everything, 2 all NULL, 3 one batch only, 4 one row, 5 all values,
    -- 6 ordinary values only, 7 the NULLs in a batch of their own
    CREATE TEMP TABLE input (id serial, grp int, batch int);
    FOR i IN 1 .. cardinality(types) LOOP
        EXECUTE format('ALTER TABLE input ADD a%s %s', i, CASE types[i] WHEN 'bit'::regtype THEN 'bit(1)' ELSE types[i]::text END);
        columns := columns || format(', a%s', i);
    END LOOP;
    FOR groups IN SELECT * FROM unnest(ARRAY[9, 4, 5, 1, 24, 12, 9]) WITH ORDINALITY AS t (n, number) LOOP
        FOR row IN 0 .. groups.n - 1 LOOP
            EXECUTE format('INSERT INTO input (grp, batch%s) VALUES ($1, $2%s)', columns,
                (SELECT coalesce(string_agg(
                            CASE WHEN groups.number = 2 OR (groups.number = 1 AND (row + i) % 4 = 0) OR (groups.number = 7 AND row % 3 = 1) THEN ', NULL'
                                 ELSE format(', %L', v.literals[1 + (row + i - 1) %
                                     CASE groups.number WHEN 6 THEN 2 ELSE cardinality(v.literals) END]) END, '' ORDER BY i), '')
                   FROM unnest(types) WITH ORDINALITY AS t (type, i) LEFT JOIN type_values v ON v.type = t.type))
            USING groups.number, CASE WHEN groups.number = 3 THEN 1 ELSE row % 3 END;
        END LOOP;
    END LOOP;
    EXECUTE format('SELECT pg_typeof(%s(%s)) FROM input WHERE false', name, coalesce(nullif(substr(columns, 3), ''), '*'))
       INTO result_type;

    -- Group 0 has no rows at all.  Without GROUP BY a batch without rows has a state, with it there is none (NULL).
    FOR g, by_group IN SELECT n, b FROM generate_series(0, 7) n, unnest(ARRAY[false, true]) b WHERE n > 0 OR NOT b LOOP
        BEGIN
            EXECUTE format('SELECT %s(%s)::text FROM (SELECT * FROM input WHERE grp = $1 ORDER BY batch, id) i', name,
                           coalesce(nullif(substr(columns, 3), ''), '*')) INTO plain USING g;
        EXCEPTION WHEN OTHERS THEN
            plain := SQLSTATE;
        END;
        BEGIN
            EXECUTE format($query$
                SELECT kafka.final_value(%1$L, kafka.combine_states(%1$L, kafka.combine_states(%1$L, s.states[1], s.states[2]), s.states[3]), NULL::%3$s)::text
                  FROM (SELECT ARRAY(SELECT (SELECT kafka.partial_state(%1$L%2$s)
                                               FROM (SELECT * FROM input WHERE grp = $1 AND batch = b ORDER BY id) i %4$s)
                                       FROM generate_series(0, 2) b ORDER BY b)) s (states) $query$,
                aggregate, columns, result_type, CASE WHEN by_group THEN 'GROUP BY grp' END) INTO stepwise USING g;
        EXCEPTION WHEN OTHERS THEN
            stepwise := SQLSTATE;
        END;
        IF NOT same(plain, stepwise, result_type) THEN
            RETURN NEXT format('%s, group %s: %s, but in steps %s', aggregate, g, plain, stepwise);
        END IF;
    END LOOP;
    DROP TABLE input;
END $$;

CREATE VIEW combinable AS
SELECT a.aggfnoid::oid::regprocedure AS aggregate,
       -- row types of no fixed columns can't be received
       NOT 'record'::regtype = ANY (p.proargtypes) AS storable
  FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid
 WHERE a.aggcombinefn <> 0 AND a.aggkind = 'n' AND p.pronamespace = 'pg_catalog'::regnamespace;

-- a type that is missing above would make the comparison worthless
SELECT DISTINCT concrete_type(t::regtype) FROM combinable, pg_proc, unnest(proargtypes) t
 WHERE storable AND pg_proc.oid = aggregate AND concrete_type(t::regtype) NOT IN (SELECT type FROM type_values);
SELECT count(*) > 120 AS many, bool_or(aggregate = 'regr_slope(float8,float8)'::regprocedure) AS with_regr_slope
  FROM combinable WHERE storable;
SELECT compare(aggregate) FROM combinable WHERE storable;

-- the others are refused, each with the reason
CREATE FUNCTION refusal(statement text) RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    message := 'no error';
    RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN NEXT;
END $$;
SELECT DISTINCT r.code, r.detail COLLATE "C" AS detail
  FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid,
       refusal(format('SELECT kafka.partial_state(%L%s)', a.aggfnoid::oid::regprocedure,
                      (SELECT coalesce(string_agg(', NULL::' || concrete_type(t::regtype), ''), '') FROM unnest(proargtypes) t))) r
 WHERE p.pronamespace = 'pg_catalog'::regnamespace AND a.aggcombinefn = 0
 ORDER BY 1, 2;

---------------------------------------------------------------------------
-- Aggregates that users write
---------------------------------------------------------------------------

-- transition types: by value, by reference, composite, array; strict or not; with and without an initial value
CREATE FUNCTION add_strict(a int8, b int8) RETURNS int8 IMMUTABLE STRICT LANGUAGE sql AS 'SELECT a + b';
CREATE AGGREGATE sum_strict(int8) (SFUNC = add_strict, STYPE = int8, COMBINEFUNC = add_strict);
CREATE AGGREGATE sum_from_zero(int8) (SFUNC = add_strict, STYPE = int8, COMBINEFUNC = add_strict, INITCOND = '0');
CREATE FUNCTION add_loose(a int8, b int8) RETURNS int8 IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN coalesce(a + b, a, b); END';
CREATE AGGREGATE sum_loose(int8) (SFUNC = add_loose, STYPE = int8, COMBINEFUNC = add_loose);

CREATE FUNCTION longer(a text, b text) RETURNS text IMMUTABLE STRICT LANGUAGE plpgsql
    AS 'BEGIN RETURN CASE WHEN length(b) > length(a) THEN b ELSE a END; END';
CREATE AGGREGATE longest(text) (SFUNC = longer, STYPE = text, COMBINEFUNC = longer);

CREATE TYPE extent AS (low numeric, high numeric, rows int, note text);
CREATE FUNCTION extent_add(state extent, x numeric, note text) RETURNS extent IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN ROW(least(state.low, x), greatest(state.high, x), coalesce(state.rows, 0) + 1, coalesce(state.note || note, state.note, note));
END $$;
CREATE FUNCTION extent_combine(a extent, b extent) RETURNS extent IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN ROW(least(a.low, b.low), greatest(a.high, b.high), coalesce(a.rows, 0) + coalesce(b.rows, 0), concat(a.note, b.note));
END $$;
CREATE FUNCTION extent_text(state extent) RETURNS text IMMUTABLE LANGUAGE sql
    AS $$ SELECT format('%s..%s (%s) %s', state.low, state.high, coalesce(state.rows, 0), state.note) $$;
CREATE AGGREGATE extent(numeric, text) (SFUNC = extent_add, STYPE = extent, COMBINEFUNC = extent_combine,
                                        FINALFUNC = extent_text, FINALFUNC_MODIFY = read_write);

-- expanded arrays, that array_append changes in place
CREATE AGGREGATE collect(int8) (SFUNC = array_append, STYPE = int8[], COMBINEFUNC = array_cat, INITCOND = '{}');
CREATE FUNCTION collect_add(state int8[], x int8) RETURNS int8[] IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    state[coalesce(cardinality(state), 0) + 1] := x;
    RETURN state;
END $$;
CREATE AGGREGATE collect_plpgsql(int8) (SFUNC = collect_add, STYPE = int8[], COMBINEFUNC = array_cat);
-- polymorphic, with a final function that wants to know the types
CREATE FUNCTION describe(state anyarray, x anyelement) RETURNS text IMMUTABLE LANGUAGE sql
    AS $$ SELECT coalesce(array_to_string(state, '+', '-'), 'nothing') || ' of ' || pg_typeof(x) $$;
CREATE AGGREGATE collect_any(anycompatible) (SFUNC = array_append, STYPE = anycompatiblearray, COMBINEFUNC = array_cat);
CREATE FUNCTION any_append(state anyarray, x anyelement) RETURNS anyarray IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN state || x; END';
CREATE FUNCTION any_cat(a anyarray, b anyarray) RETURNS anyarray IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN a || b; END';
CREATE AGGREGATE described(anyelement) (SFUNC = any_append, STYPE = anyarray, COMBINEFUNC = any_cat,
                                        FINALFUNC = describe, FINALFUNC_EXTRA);
-- a state that becomes NULL: a strict transition function is not called again, a strict combine function neither
CREATE FUNCTION null_above(a int8, b int8) RETURNS int8 IMMUTABLE STRICT LANGUAGE sql AS 'SELECT CASE WHEN a + b <= 100 THEN a + b END';
CREATE AGGREGATE sum_to_100(int8) (SFUNC = null_above, STYPE = int8, COMBINEFUNC = null_above, INITCOND = '0');
-- a final function that makes something of a NULL state
CREATE FUNCTION or_nothing(state text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT coalesce(state, 'nothing') $$;
CREATE AGGREGATE longest_or_nothing(text) (SFUNC = longer, STYPE = text, COMBINEFUNC = longer, FINALFUNC = or_nothing);

-- bigints that can be added
UPDATE type_values SET literals = '{1,-5,22,0}' WHERE type = 'int8'::regtype;
SELECT compare(oid) FROM pg_proc WHERE pronamespace = 'aggregate_state'::regnamespace AND prokind = 'a'
   AND proname NOT IN ('collect_any', 'sum_to_100');

SELECT collect_any(x), kafka.final_value('collect_any(anycompatible)', kafka.partial_state('collect_any(anycompatible)', x), NULL::int[]) FROM generate_series(1, 3) x;
SELECT described(x), kafka.final_value('described(anyelement)', kafka.combine_states('described(anyelement)',
           kafka.partial_state('described(anyelement)', x) FILTER (WHERE x < 1.0), kafka.partial_state('described(anyelement)', x)), NULL::text)
  FROM (VALUES (1.0), (2.0)) AS t (x);
-- 60 and 60 are null for good, whatever follows
WITH sixty AS (SELECT kafka.partial_state('sum_to_100(bigint)', 60::bigint) AS state)
SELECT kafka.final_value('sum_to_100(bigint)', state, NULL::bigint) AS once,
       kafka.final_value('sum_to_100(bigint)', kafka.combine_states('sum_to_100(bigint)', state, state), NULL::bigint) AS twice,
       kafka.final_value('sum_to_100(bigint)', kafka.combine_states('sum_to_100(bigint)',
           kafka.combine_states('sum_to_100(bigint)', state, state), state), NULL::bigint) AS thrice,
       kafka.final_value('sum_to_100(bigint)', kafka.combine_states('sum_to_100(bigint)',
           state, kafka.combine_states('sum_to_100(bigint)', state, state)), NULL::bigint) AS other_way_round
  FROM sixty;

---------------------------------------------------------------------------
-- Types, collations, names
---------------------------------------------------------------------------

-- the collation goes with the state
SELECT kafka.final_value('min(text)', kafka.combine_states('min(text)', kafka.partial_state('min(text)', x COLLATE "C"),
           kafka.partial_state('min(text)', upper(x) COLLATE "C")), NULL::text),
       kafka.final_value('min(text)', kafka.partial_state('min(text)', x COLLATE "POSIX"), NULL::text)
  FROM (VALUES ('a'), ('b')) AS t (x);
SELECT kafka.combine_states('min(text)', kafka.partial_state('min(text)', x COLLATE "C"), kafka.partial_state('min(text)', x COLLATE "POSIX"))
  FROM (VALUES ('a')) AS t (x);
-- so do the argument types, where the aggregate takes any
SELECT kafka.combine_states('max(anyarray)', kafka.partial_state('max(anyarray)', ARRAY[1]), kafka.partial_state('max(anyarray)', ARRAY['a'::text]));
SELECT kafka.final_value('max(anyarray)', kafka.partial_state('max(anyarray)', ARRAY[1]), NULL::text[]);
SELECT kafka.final_value('max(anyenum)', kafka.partial_state('max(anyenum)', 'happy'::mood), NULL::mood);
-- binary compatible types will do, others won't
SELECT kafka.final_value('max(text)', kafka.partial_state('max(text)', 'a'::varchar), NULL::varchar);
SELECT kafka.partial_state('sum(numeric)', 1);
SELECT kafka.partial_state('sum(numeric)');
SELECT kafka.partial_state('sum(numeric)', 1.0, 2.0);
SELECT kafka.partial_state('max(text)', 'a');
SELECT kafka.partial_state('max(anyarray)', 1);
SELECT kafka.final_value('sum(bigint)', kafka.partial_state('sum(bigint)', 1::bigint), NULL::bigint);

-- what is not an aggregate, or no constant
SELECT kafka.partial_state(NULL, 1);
SELECT kafka.combine_states(NULL, NULL, NULL);
SELECT kafka.final_value(NULL, NULL, NULL::int);
SELECT kafka.partial_state('lower(text)', 'A'::text);
SELECT kafka.combine_states('lower(text)', NULL, NULL);
SELECT kafka.combine_states('numeric_avg_deserialize(bytea,internal)', '\x00', '\x00');
SELECT kafka.final_value(0, NULL, NULL::int);
SELECT kafka.partial_state(aggregate) FROM (SELECT 'count()'::regprocedure AS aggregate OFFSET 0) t;
-- refused, politely
SELECT kafka.partial_state('sum(int)', x) OVER (ORDER BY x) FROM generate_series(1, 3) x;
SELECT kafka.partial_state(DISTINCT 'sum(int)', x) FROM generate_series(1, 3) x;
SELECT * FROM refusal($$ SELECT kafka.partial_state('percentile_cont(float8,float8)', 0.5::float8, 1::float8) $$) \gx
SELECT * FROM refusal($$ SELECT kafka.partial_state('json_agg(anyelement)', 1) $$) \gx
SET client_min_messages = warning;
CREATE TYPE opaque;
CREATE FUNCTION opaque_in(cstring) RETURNS opaque IMMUTABLE STRICT LANGUAGE internal AS 'textin';
CREATE FUNCTION opaque_out(opaque) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'textout';
CREATE TYPE opaque (INPUT = opaque_in, OUTPUT = opaque_out);
RESET client_min_messages;
CREATE FUNCTION opaque_first(a opaque, b opaque) RETURNS opaque IMMUTABLE STRICT LANGUAGE sql AS 'SELECT a';
CREATE AGGREGATE opaque_any(opaque) (SFUNC = opaque_first, STYPE = opaque, COMBINEFUNC = opaque_first);
SELECT * FROM refusal($$ SELECT kafka.partial_state('opaque_any(opaque)', 'x'::opaque) $$) \gx

---------------------------------------------------------------------------
-- States that nobody made
---------------------------------------------------------------------------

CREATE TABLE states AS
SELECT kafka.partial_state('sum(numeric)', x::numeric) AS numeric_sum,
       kafka.partial_state('stddev(numeric)', x::numeric) AS numeric_stddev,
       kafka.partial_state('avg(bigint)', x) AS bigint_avg,
       kafka.partial_state('corr(float8,float8)', x::float8, sqrt(x)) AS corr,
       kafka.partial_state('max(anyarray)', ARRAY[x]) AS max_array
  FROM generate_series(1::bigint, 10) x;
-- of another aggregate
SELECT * FROM refusal($$ SELECT kafka.final_value('sum(numeric)', numeric_stddev, NULL::numeric) FROM states $$) \gx
SELECT code, message FROM refusal($$ SELECT kafka.combine_states('avg(numeric)', numeric_sum, numeric_sum) FROM states $$);
SELECT code, message FROM refusal($$ SELECT kafka.combine_states('sum(numeric)', NULL, '\x') $$);
-- with any byte changed, with bytes left out or added
SELECT DISTINCT column_name, r.code
  FROM states, LATERAL (VALUES ('sum(numeric)', 'numeric', numeric_sum), ('stddev(numeric)', 'numeric', numeric_stddev), ('avg(bigint)', 'numeric', bigint_avg),
                               ('corr(float8,float8)', 'float8', corr), ('max(anyarray)', 'bigint[]', max_array)) v (column_name, type, state),
       LATERAL (SELECT set_byte(state, i, get_byte(state, i) # bits) FROM generate_series(0, length(state) - 1) i, unnest(ARRAY[1, 128, 255]) bits
                UNION ALL SELECT substr(state, 1, i) FROM generate_series(0, length(state) - 1) i
                UNION ALL SELECT state || '\x00') changed (bytes),
       LATERAL refusal(format('SELECT kafka.final_value(%L, %L, NULL::%s)', column_name, bytes, type)) r
 ORDER BY 1, 2;
-- renamed: the states of the old name are not taken for those of another
SELECT kafka.partial_state('sum_strict(bigint)', 1::bigint) AS state \gset
ALTER AGGREGATE sum_strict(int8) RENAME TO sum_renamed;
SELECT code, message, hint FROM refusal(format('SELECT kafka.final_value(%L, %L, NULL::bigint)', 'sum_renamed(bigint)', :'state')) \gx
ALTER AGGREGATE sum_renamed(int8) RENAME TO sum_strict;
SELECT kafka.final_value('sum_strict(bigint)', :'state', NULL::bigint);
-- an argument's type that was dropped and made again
CREATE TYPE hue AS ENUM ('red', 'green');
SELECT kafka.partial_state('max(anyenum)', 'green'::hue) AS state \gset
DROP TYPE hue;
SELECT code, message, hint FROM refusal(format('SELECT kafka.combine_states(%L, %L, NULL)', 'max(anyenum)', :'state')) \gx
CREATE TYPE hue AS ENUM ('green', 'red');
SELECT kafka.final_value('max(anyenum)', :'state', NULL::hue);
-- array_agg (from PostgreSQL 16 on) keeps the type's number in its state
DO $$
DECLARE
    state bytea;
BEGIN
    IF current_setting('server_version_num')::int < 160000 THEN RETURN; END IF;
    state := kafka.partial_state('array_agg(anynonarray)', m) FROM unnest(enum_range(NULL::hue)) m;
    ASSERT kafka.final_value('array_agg(anynonarray)', kafka.combine_states('array_agg(anynonarray)', state, state), NULL::hue[]) = '{green,red,green,red}';
    DROP TYPE hue;
    CREATE TYPE hue AS ENUM ('green', 'red');
    BEGIN
        PERFORM kafka.combine_states('array_agg(anynonarray)', state, state);
        ASSERT false, 'took another type''s state';
    EXCEPTION WHEN feature_not_supported THEN
        ASSERT SQLERRM = 'aggregate state was made with another type "aggregate_state.hue"', SQLERRM;
    END;
END $$;
-- the key is nobody's to read
SELECT count(*) FROM kafka.state_key;
-- dumped and restored, there are several: each is good for the states that it sealed
INSERT INTO kafka.state_key SELECT '\x000102030405060708090a0b0c0d0e0f';
SELECT kafka.final_value('sum(numeric)', numeric_sum, NULL::numeric) FROM states;
BEGIN;
DELETE FROM kafka.state_key WHERE secret <> '\x000102030405060708090a0b0c0d0e0f';
SELECT encode(kafka.partial_state('count()'), 'hex') FROM generate_series(1, 3);
SELECT code, message FROM refusal($$ SELECT kafka.final_value('sum(numeric)', numeric_sum, NULL::numeric) FROM states $$);
DELETE FROM kafka.state_key;
SELECT code, message FROM refusal($$ SELECT kafka.partial_state('count()') $$);
ROLLBACK;
DELETE FROM kafka.state_key WHERE secret = '\x000102030405060708090a0b0c0d0e0f';

---------------------------------------------------------------------------
-- Privileges
---------------------------------------------------------------------------

CREATE ROLE regress_state_user;
CREATE ROLE regress_state_owner;
GRANT USAGE, CREATE ON SCHEMA aggregate_state TO regress_state_user, regress_state_owner;
ALTER AGGREGATE longest(text) OWNER TO regress_state_owner;
REVOKE EXECUTE ON FUNCTION longest(text) FROM PUBLIC;
SELECT kafka.partial_state('longest(text)', 'abc'::text) AS state \gset
SET ROLE regress_state_user;
SELECT longest('abc');
SELECT kafka.partial_state('longest(text)', 'abc'::text);
SELECT kafka.combine_states('longest(text)', :'state', :'state');
SELECT kafka.final_value('longest(text)', :'state', NULL::text);
SELECT kafka.final_value('sum(numeric)', kafka.partial_state('sum(numeric)', 1.0), NULL::numeric);
SELECT secret FROM kafka.state_key;
RESET ROLE;
GRANT pg_read_all_data TO regress_state_user;
SET ROLE regress_state_user;
SELECT secret FROM kafka.state_key;
RESET ROLE;
-- the aggregate's owner must have the right to its parts
GRANT EXECUTE ON FUNCTION longest(text) TO PUBLIC;
REVOKE EXECUTE ON FUNCTION longer(text, text) FROM PUBLIC;
SELECT longest('abc');
SELECT kafka.partial_state('longest(text)', 'abc'::text);
GRANT EXECUTE ON FUNCTION longer(text, text) TO PUBLIC;

---------------------------------------------------------------------------
-- Plans: hashed with spilling, sorted, many groups, long states
---------------------------------------------------------------------------

CREATE TABLE many AS SELECT i % 20000 AS grp, i AS x, (i % 7)::numeric / 3 AS y FROM generate_series(1, 60000) i;
ANALYZE many;
SET enable_sort = off;
SET work_mem = '64kB';
EXPLAIN (COSTS OFF) SELECT grp, kafka.partial_state('sum(numeric)', y) FROM many GROUP BY grp;
CREATE TABLE hashed AS
SELECT grp, kafka.partial_state('count()') AS c, kafka.partial_state('sum(numeric)', y) AS s, kafka.partial_state('max(int)', x) AS m,
       kafka.partial_state('collect(bigint)', x::bigint) AS l
  FROM many GROUP BY grp;
SET enable_sort = on;
SET enable_hashagg = off;
CREATE TABLE sorted AS
SELECT grp, kafka.partial_state('count()') AS c, kafka.partial_state('sum(numeric)', y) AS s, kafka.partial_state('max(int)', x) AS m,
       kafka.partial_state('collect(bigint)', x::bigint) AS l
  FROM many GROUP BY grp;
RESET enable_hashagg;
RESET work_mem;
SELECT count(*) FROM hashed JOIN sorted USING (grp, c, s, m);
SELECT count(*) FROM
       (SELECT grp, count(*), sum(y), max(x), array_agg(x ORDER BY x) FROM many GROUP BY grp) a (grp, c, s, m, l)
  JOIN (SELECT grp, kafka.final_value('count()', c, NULL::bigint), kafka.final_value('sum(numeric)', s, NULL::numeric),
               kafka.final_value('max(int)', m, NULL::int),
               ARRAY(SELECT x::int FROM unnest(kafka.final_value('collect(bigint)', l, NULL::bigint[])) x ORDER BY x)
          FROM hashed) b (grp, c, s, m, l) USING (grp, c, s, m, l);
-- of 16 MB
SELECT length(state), length(kafka.combine_states('max(text)', state, NULL)),
       kafka.final_value('max(text)', kafka.combine_states('max(text)', state, other), NULL::text) = repeat('x', 16000000) AS right
  FROM (SELECT kafka.partial_state('max(text)', repeat('x', 16000000)) AS state,
               kafka.partial_state('max(text)', repeat('w', 16000000)) AS other) t;
-- grouping sets, a rescan
SELECT grp, kafka.final_value('sum(int)', kafka.partial_state('sum(int)', x), NULL::bigint)
  FROM (VALUES (1, 1), (1, 2), (2, 3)) t (grp, x) GROUP BY ROLLUP (grp) ORDER BY grp;
SELECT i, (SELECT kafka.final_value('sum(int)', kafka.partial_state('sum(int)', x), NULL::bigint) FROM generate_series(1, i) x) FROM generate_series(0, 3) i;

-- rows are compared byte for byte: what is equal may differ, and nulls are the same
SELECT kafka.rows_differ(1, 1) AS same, kafka.rows_differ(1, 2) AS other, kafka.rows_differ(1.0, 1.00) AS scale,
       kafka.rows_differ(NULL::int, NULL::int) AS nulls, kafka.rows_differ(NULL::int, 0) AS one_null,
       kafka.rows_differ(1, 1, 'a'::text, 'a'::text, '{}'::json, '{}'::json) AS of_any_type, kafka.rows_differ('0'::float8, '-0'::float8) AS zeros,
       kafka.rows_differ(1, 1, 'a'::text, 'b'::text) AS second, kafka.rows_differ((-1)::int2, (-1)::int2, 4294967295::oid, (-1)::int::oid) AS short;
SELECT kafka.rows_differ(long.a, repeat('x', 100000)) AS toasted, kafka.rows_differ(long.a, repeat('x', 99999)) AS shorter
FROM (VALUES (repeat('x', 100000))) long (a);
SELECT kafka.rows_differ(1, 2, 3);
SELECT kafka.rows_differ(1, 1, 1, 1::bigint);
SELECT kafka.rows_differ(VARIADIC ARRAY[1, 2]);

SET client_min_messages = warning;
DROP SCHEMA aggregate_state CASCADE;
DROP ROLE regress_state_user;
DROP ROLE regress_state_owner;
