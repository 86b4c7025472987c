"""`@checked`: rules stand above a function, see its arguments by name, and leave everything else as it was."""

import inspect

import pytest
import torch

from edm_lesson.checks import check_count, check_number, checked


def check_order(low, high):
    if low > high:
        raise ValueError(f"low is {low} and high is {high}")


@checked(check_order, low=check_number, count=check_count)
def spread(low, high=3.0, *, count=2):
    """Numbers from `low` to `high`."""
    return torch.linspace(low, high, count)


class Counter:
    @checked(start=check_count)
    def __init__(self, start=1):
        self.start = start

    @classmethod
    @checked(text=lambda name, value: check_count(name, len(value)))
    def from_text(cls, text):
        return cls(len(text))

    @checked(lambda self, step: check_order(step, self.start))
    def minus(self, step):
        return self.start - step


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spread("1"), "low is '1'; it must be a finite number"),
        (lambda: spread(1, count=0), "count is 0; it must be a whole number, 1 or more"),
        (lambda: spread(4), r"low is 4 and high is 3\.0"),
        (lambda: spread(low=2, high=1), "low is 2 and high is 1"),
        (lambda: Counter(start=0.5), "start is 0.5"),
        (lambda: Counter.from_text(""), "text is 0"),
        (lambda: Counter(2).minus(3), "low is 3 and high is 2"),
    ],
)
def test_impossible_arguments_are_refused_however_they_are_given(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_function_stays_what_it_was():
    assert spread(1, 2, count=3).tolist() == [1, 1.5, 2]
    assert Counter.from_text("abc").minus(1) == 2
    assert (spread.__name__, spread.__doc__) == ("spread", "Numbers from `low` to `high`.")
    assert list(inspect.signature(spread).parameters) == ["low", "high", "count"]
    with pytest.raises(TypeError, match="missing a required argument: 'low'"):
        spread()


def test_a_compiled_graph_is_without_checks():
    @checked(x=lambda name, value: pytest.fail(f"{name} was looked at"))
    def double(x):
        return 2 * x

    compiled = torch.compile(double, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(torch.ones(2)), 2 * torch.ones(2))
    with pytest.raises(pytest.fail.Exception):
        double(torch.ones(2))


@pytest.mark.parametrize(
    ("limits", "fine", "wrong", "wanted"),
    [
        ({}, [0, -1e300, 2.5], [float("nan"), float("inf"), None, "1", 1j, [1]], "a finite number"),
        ({"above": 0}, [1e-300], [0, -1], "a finite number above 0"),
        ({"at_least": 0, "at_most": 1}, [0, 1], [-0.1, 1.1], "a finite number, 0 or more, 1 or less"),
        (
            {"at_least": 0, "at_most": float("inf")},
            [float("inf")],
            [-float("inf"), float("nan")],
            "a number, 0 or more",
        ),
    ],
)
def test_numbers_within_limits(limits, fine, wrong, wanted):
    for value in fine:
        check_number("beta", value, **limits)
    for value in wrong:
        with pytest.raises(ValueError, match="beta is .*; it must be " + wanted):
            check_number("beta", value, **limits)
