EXTENSION = kafka_ingest
MODULE_big = kafka_ingest
PGFILEDESC = "kafka_ingest - ingest Kafka topics into tables, exactly once"

DATA = $(wildcard sql/kafka_ingest--*.sql)
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))

PKG_CONFIG ?= pkg-config
PG_CPPFLAGS = $(shell $(PKG_CONFIG) --cflags rdkafka libcjson) -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
SHLIB_LINK = $(shell $(PKG_CONFIG) --libs rdkafka libcjson)

REGRESS = $(filter-out kafka_ingest--%,$(basename $(notdir $(wildcard sql/*.sql))))
REGRESS_OPTS = --inputdir=.

# These install what they need, so PostgreSQL need not be here yet.
DEVELOPMENT_GOALS = check check-faults check-all check-sanitize check-spark fuzz soak demo demo-stop bench bench-check format check-format
ifeq ($(filter $(DEVELOPMENT_GOALS),$(MAKECMDGOALS)),)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS does not track headers
$(OBJS): $(wildcard src/*.h)

else
.PHONY: $(DEVELOPMENT_GOALS)

# Every suite on every supported PostgreSQL; the last line is "N passed, N failed".
check:
	@test/run.sh harness.check

# The faults that take long: restores, upgrades, hundreds of streams, a thousand partitions; and a short fuzz.
check-faults:
	@KAFKA_INGEST_PACKAGES="$(FUZZ_PACKAGES)" test/run.sh harness.check faults

check-all:
	@KAFKA_INGEST_PACKAGES="$(FUZZ_PACKAGES)" test/run.sh harness.check main faults

# The tests of "check" on one version, with AddressSanitizer and UndefinedBehaviorSanitizer.
check-sanitize:
	@test/run.sh harness.check sanitize

# Looks for messages that the decoders get wrong; SEED=... repeats a run.
FUZZ_PACKAGES = clang libclang-rt-dev
fuzz: SECONDS = 300
fuzz:
	@KAFKA_INGEST_PACKAGES="$(FUZZ_PACKAGES)" test/run.sh fuzz --seconds=$(SECONDS) $(if $(SEED),--seed=$(SEED))

# Load in every mode and random faults, and an exact count at the end; SEED=... repeats a run.
soak: SECONDS = 300
soak:
	@test/run.sh soak --seconds=$(SECONDS) $(if $(SEED),--seed=$(SEED)) $(if $(VERSION),--postgres-version=$(VERSION))

# The same topics through Spark Structured Streaming (fetched: 500 MB) and streams give the same tables.
check-spark:
	@PEERS=spark test/run.sh harness.check_spark

# A private PostgreSQL and Kafka with a stream between them, to look at for an hour.
demo:
	@test/run.sh demo

demo-stop:
	@test/run.sh demo stop

# A stream beside COPY, a Python consumer and plain SQL; latency, scale.  PARTS and sizes: see test/bench/.
# PEERS="spark" adds Spark, PEERS="debezium" Debezium's JDBC sink, PEERS="spark debezium" both.
bench:
	@PEERS="$(PEERS)" test/run.sh bench

# A few pairs of COPY and stream: fails when the ratio is far too low.  Also the end of make check.
bench-check:
	@test/run.sh bench.regression

format:
	clang-format -i src/*.[ch]

check-format:
	clang-format --dry-run -Werror src/*.[ch]

endif
