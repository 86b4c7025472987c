"""A little of the hostile use of `hostile_use.py`, which a person runs in full."""

import pytest
from hostile_use import Reporter, try_commands, try_files, try_kills


@pytest.mark.parametrize(("attempt", "count"), [(try_commands, 12), (try_files, 13), (try_kills, 4)])
def test_hostile_use_loses_nothing_and_ends_in_a_sentence(attempt, count):
    report = Reporter()
    attempt(count, 0, report)
    assert sum(report.tried.values()) == count
    assert not report.faults, "\n".join(report.faults)
