"""Every exercise of every notebook: the solution passes, the stub doesn't, and the usual mistakes are named."""

import ast
import random
import re
from pathlib import Path

import nbformat
import pytest
import torch
import yaml

from edm_lesson.exercises import Attempt, NotAttempted, Wrong, check, compare

ROOT = Path(__file__).resolve().parent.parent
MISTAKES = {
    entry["exercise"]: entry["mistakes"]
    for path in sorted((ROOT / "tests" / "mistakes").glob("*.yaml"))
    for entry in yaml.safe_load(path.read_text())
}


def find_exercises():
    """{name: (definitions before it, its stub, its folded solution)} of all notebooks."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        definitions, waiting = [], None
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and cell.id != "set-up":
                names = re.findall(r'^check\("(\d\d\.\d)"', cell.source, flags=re.MULTILINE)
                if names:
                    (waiting,) = names
                    found[waiting] = ("\n".join(definitions), cell.source, None)
                else:
                    definitions += [
                        ast.unparse(node)
                        for node in ast.parse(cell.source).body
                        if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
                    ]
            elif waiting and "<summary>Solution</summary>" in cell.source:
                (solution,) = re.findall(r"```python\n(.*?)```", cell.source, flags=re.DOTALL)
                found[waiting], waiting = (*found[waiting][:2], solution), None
    return found


EXERCISES = find_exercises()


def verdict(name, source, capsys):
    """What `check` prints about the function that `source` defines last."""
    before, stub, _ = EXERCISES[name]
    (function,) = re.findall(rf'^check\("{name}", (\w+)\)', stub, flags=re.MULTILINE)
    space = {}
    exec(before, space)
    exec(source, space)
    capsys.readouterr()
    check(name, space[function])
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_not_attempted_and_the_solution_passes(name, capsys):
    _, stub, solution = EXERCISES[name]
    assert solution, f"exercise {name} has no folded solution"
    assert verdict(name, stub.replace("check(", "# check("), capsys) == f"○ {name} not attempted yet"
    for _ in range(3):  # its input is random
        assert verdict(name, solution, capsys) == f"✓ {name} solved"


@pytest.mark.parametrize("name", EXERCISES)
def test_usual_mistakes_are_named(name, capsys):
    solution = EXERCISES[name][2]
    mistakes = MISTAKES.get(name, [])
    assert len(mistakes) >= 2, f"exercise {name} needs at least two mistakes in tests/mistakes"
    for mistake in mistakes:
        assert mistake["replace"] in solution, f"{mistake['replace']!r} is not in the solution of {name}"
        for _ in range(3):
            told = verdict(name, solution.replace(mistake["replace"], mistake["by"]), capsys)
            assert told.startswith(f"✗ {name}"), f"{mistake} passes: {told}"
            assert re.search(mistake["says"], told), f"{mistake} is told: {told}"


def test_every_notebook_but_the_tour_has_two_or_three_and_no_mistake_is_without_exercise():
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        number = path.name[:2]
        count = sum(name.startswith(number) for name in EXERCISES)
        assert number == "00" or count in (2, 3), f"{path.name} has {count} exercises"
    assert MISTAKES.keys() == EXERCISES.keys()


def double(x):
    return 2 * x


def test_an_answer_is_compared_on_every_case_and_mistakes_are_recognised():
    cases = [(torch.randn(3),) for _ in range(3)]
    compare(Attempt(double), double, cases)
    mistakes = [(lambda x: x**2, "you squared")]
    with pytest.raises(Wrong, match="you squared"):
        compare(Attempt(lambda x: x * x), double, cases, mistakes)
    with pytest.raises(Wrong, match=r"\(tensor of shape \(3,\)\), entry \d, is .* is expected"):
        compare(Attempt(lambda x: x), double, cases, mistakes)
    with pytest.raises(Wrong, match=r"has shape \(\); \(3,\) is expected"):
        compare(Attempt(torch.sum), double, cases)
    with pytest.raises(Wrong, match="returns a str; a number or a tensor"):
        compare(Attempt(str), double, cases)
    with pytest.raises(Wrong, match="is nan"):
        compare(Attempt(lambda x: x * torch.nan), double, cases)
    with pytest.raises(Wrong, match="raises ZeroDivisionError"):
        compare(Attempt(lambda x: 1 / 0), double, cases)
    with pytest.raises(NotAttempted):
        compare(Attempt(lambda x: None), double, cases)


def test_checking_leaves_the_random_numbers_of_the_notebook_alone(capsys):
    from edm_lesson.exercises import EXERCISES as registered
    from edm_lesson.exercises import exercise

    exercise("99.1")(lambda attempt: compare(attempt, double, [(torch.randn(2),)]))
    try:
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        check("99.1", double)
        assert torch.equal(torch.rand(3), expected)
        assert capsys.readouterr().out == "✓ 99.1 solved\n"
    finally:
        del registered["99.1"]


def test_checking_leaves_pythons_random_numbers_alone(capsys):
    state = random.getstate()
    check("05.1", lambda layers: 1)
    assert capsys.readouterr().out.startswith("✗ 05.1")
    assert random.getstate() == state


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match=r"no exercise '99\.9'"):
        check("99.9", double)
