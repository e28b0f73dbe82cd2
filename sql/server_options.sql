-- Options of servers and user mappings: the closed list, and how it refuses
-- what is not on it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS kafka_ingest;
RESET client_min_messages;

-- librdkafka's names, or the same with underscores
CREATE SERVER names FOREIGN DATA WRAPPER kafka
    OPTIONS (bootstrap_servers 'broker:9092', "security.protocol" 'SASL_SSL', sasl_mechanism 'scram-sha-512',
             fetch_min_bytes '1', "socket.timeout.ms" '5000', isolation_level 'read_uncommitted');
ALTER SERVER names OPTIONS (SET fetch_min_bytes '2', ADD client_id 'a client');
CREATE SERVER alias FOREIGN DATA WRAPPER kafka OPTIONS ("metadata.broker.list" 'broker:9092', "sasl.mechanisms" 'PLAIN');
DROP SERVER alias;

-- required
CREATE SERVER bad FOREIGN DATA WRAPPER kafka;
CREATE SERVER bad FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers ' ');
CREATE SERVER bad FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'b', security_protocol 'sasl_plaintext');
ALTER SERVER names OPTIONS (DROP bootstrap_servers);
ALTER SERVER names OPTIONS (DROP sasl_mechanism);

-- one name for one thing
CREATE SERVER bad FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'b', "bootstrap.servers" 'c');
ALTER SERVER names OPTIONS (ADD "metadata.broker.list" 'c');
ALTER SERVER names OPTIONS (ADD socket_timeout_ms '1000');

-- unknown, and librdkafka's that run or load or read or write or listen
\set VERBOSITY terse
ALTER SERVER names OPTIONS (ADD nonsense 'x');
ALTER SERVER names OPTIONS (ADD "Client.Rack" 'x');
ALTER SERVER names OPTIONS (ADD " client.rack" 'x');
ALTER SERVER names OPTIONS (ADD "plugin.library.paths" 'x');
ALTER SERVER names OPTIONS (ADD plugin_library_paths 'x');
ALTER SERVER names OPTIONS (ADD "ssl.providers" 'x');
ALTER SERVER names OPTIONS (ADD "ssl.engine.location" 'x');
ALTER SERVER names OPTIONS (ADD "ssl.engine.id" 'x');
ALTER SERVER names OPTIONS (ADD "sasl.kerberos.kinit.cmd" 'x');
ALTER SERVER names OPTIONS (ADD "sasl.oauthbearer.token.endpoint.url" 'x');
ALTER SERVER names OPTIONS (ADD "test.mock.num.brokers" '3');
ALTER SERVER names OPTIONS (ADD "offset.store.path" 'x');
ALTER SERVER names OPTIONS (ADD "topic.offset.store.path" 'x');
ALTER SERVER names OPTIONS (ADD "debug" 'all');
ALTER SERVER names OPTIONS (ADD "log_cb" 'x');
ALTER SERVER names OPTIONS (ADD "enable.auto.commit" 'true');
ALTER SERVER names OPTIONS (ADD "auto.offset.reset" 'latest');
ALTER FOREIGN DATA WRAPPER kafka OPTIONS (ADD bootstrap_servers 'b');
ALTER SERVER names OPTIONS (ADD "ssl.keystore.location" 'x');
ALTER SERVER names OPTIONS (ADD "interceptors" 'x');
ALTER SERVER names OPTIONS (ADD "log_level" '7');
ALTER SERVER names OPTIONS (ADD "builtin.features" 'x');
\set VERBOSITY default

-- files and switched-off verification: superusers and pg_read_server_files, for as long as one
-- of them owns the server
CREATE ROLE regress_kafka_app;
GRANT USAGE ON FOREIGN DATA WRAPPER kafka TO regress_kafka_app;
SET ROLE regress_kafka_app;
CREATE SERVER app FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'broker.invalid', ssl_ca_location '/etc/passwd');
CREATE SERVER app FOREIGN DATA WRAPPER kafka OPTIONS (bootstrap_servers 'broker.invalid');
ALTER SERVER app OPTIONS (ADD "ssl.key.location" '/etc/passwd');
ALTER SERVER app OPTIONS (ADD enable_ssl_certificate_verification 'False');
ALTER SERVER app OPTIONS (ADD ssl_endpoint_identification_algorithm 'NONE');
ALTER SERVER app OPTIONS (ADD enable_ssl_certificate_verification 'true', ADD ssl_endpoint_identification_algorithm 'HTTPS');
ALTER SERVER app OPTIONS (DROP enable_ssl_certificate_verification, DROP ssl_endpoint_identification_algorithm);
CREATE USER MAPPING FOR regress_kafka_app SERVER app OPTIONS (ssl_key_location '/etc/passwd');
RESET ROLE;
CREATE FOREIGN TABLE app_topic (a int) SERVER app OPTIONS (topic 't');
GRANT SELECT ON app_topic TO regress_kafka_app;
ALTER SERVER app OPTIONS (ADD ssl_ca_location '/etc/passwd');
SELECT * FROM app_topic;
SET ROLE regress_kafka_app;
SELECT * FROM app_topic;
ALTER SERVER app OPTIONS (ADD client_id 'x');
RESET ROLE;
ALTER SERVER app OPTIONS (DROP ssl_ca_location, ADD enable_ssl_certificate_verification 'false');
SELECT * FROM app_topic;
SET client_min_messages = warning;
DROP SERVER app CASCADE;
RESET client_min_messages;
DROP OWNED BY regress_kafka_app;
DROP ROLE regress_kafka_app;

-- values are checked as librdkafka would
ALTER SERVER names OPTIONS (SET "security.protocol" 'tls');
ALTER SERVER names OPTIONS (SET sasl_mechanism 'GSSAPI');
ALTER SERVER names OPTIONS (ADD ssl_endpoint_identification_algorithm 'some');
ALTER SERVER names OPTIONS (ADD enable_ssl_certificate_verification 'perhaps');
\set VERBOSITY terse
ALTER SERVER names OPTIONS (SET fetch_min_bytes '-1');
ALTER SERVER names OPTIONS (SET fetch_min_bytes '1x');
ALTER SERVER names OPTIONS (SET fetch_min_bytes '0x10');
ALTER SERVER names OPTIONS (ADD socket_keepalive_enable 'perhaps');
ALTER SERVER names OPTIONS (SET isolation_level 'snapshot');
ALTER SERVER names OPTIONS (SET "socket.timeout.ms" '4294977296');
ALTER SERVER names OPTIONS (SET "socket.timeout.ms" '99999999999999999999');
\set VERBOSITY default

-- secrets belong to user mappings, the rest to servers
ALTER SERVER names OPTIONS (ADD sasl_password 'do not tell');
ALTER SERVER names OPTIONS (ADD ssl_ca_pem '-----BEGIN CERTIFICATE----- x -----BEGIN ENCRYPTED PRIVATE KEY----- do not tell');
CREATE USER MAPPING FOR PUBLIC SERVER names OPTIONS (ssl_certificate_pem '-----BEGIN PRIVATE KEY----- do not tell');
CREATE USER MAPPING FOR PUBLIC SERVER names OPTIONS (client_id 'x');
CREATE USER MAPPING FOR PUBLIC SERVER names OPTIONS (sasl_username 'u', sasl_password 'do not tell', "sasl.password" 'do not tell');
CREATE USER MAPPING FOR PUBLIC SERVER names OPTIONS (sasl_username 'u', sasl_passwort 'do not tell');
CREATE USER MAPPING FOR PUBLIC SERVER names OPTIONS (sasl_username 'u', sasl_password '');
CREATE USER MAPPING FOR PUBLIC SERVER names OPTIONS (sasl_username 'u', "sasl.password" 'do not tell', ssl_certificate_pem 'c', ssl_key_pem 'k');

-- a catalog row that got past the validator does not get past the scan
CREATE FOREIGN TABLE tampered (a int) SERVER names OPTIONS (topic 't');
UPDATE pg_foreign_server SET srvoptions = srvoptions || '{plugin.library.paths=/tmp/x}' WHERE srvname = 'names';
SELECT * FROM tampered;

SELECT kafka.library_version() ~ '^\d+\.\d+\.\d+' AS library_version;

SET client_min_messages = warning;
DROP SERVER names CASCADE;
