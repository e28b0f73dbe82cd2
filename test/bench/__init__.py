"""make bench: the speed of a stream beside COPY and beside a consumer in Python."""
