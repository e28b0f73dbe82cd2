"""What the tests, the demo and the benchmark stand on: private PostgreSQL
servers with the extension built into a private copy of PostgreSQL, and a private
single-node Apache Kafka, all in one temporary directory on free ports."""
