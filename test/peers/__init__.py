"""Other programs that take messages from Kafka to tables, to compare with; run.sh
installs them when PEERS names them."""
