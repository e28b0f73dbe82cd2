"""Fixtures of the comparison with Spark; the servers are those of ../conftest.py."""

import pytest

from peers.spark import Spark

pytest.register_assert_rewrite("comparison")


@pytest.fixture(scope="session")
def spark(run_directory):
    return Spark(run_directory)
