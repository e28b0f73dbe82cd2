"""Fuzzers of the decoding code: libFuzzer with sanitizers on what compiles
without a server, and generated messages against a server's own input functions."""
