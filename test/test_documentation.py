"""What doc/guarantees.md names exists."""

import re

from harness import paths


def test_every_test_that_is_named_exists():
    text = (paths.SOURCE / "doc" / "guarantees.md").read_text()
    for file, test in re.findall(r"`((?:faults/)?test_\w+\.py)(?:::(\w+))?`", text):
        path = paths.TEST / file
        assert path.exists(), file
        assert not test or f"def {test}(" in path.read_text(), f"{file}::{test}"
    for file in re.findall(r"`((?:src|sql|test)/[\w/]+\.\w+)`", text):
        assert (paths.SOURCE / file).exists(), file
