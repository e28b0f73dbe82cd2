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

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
