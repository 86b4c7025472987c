"""Public functions say what they take and return; `make lint` has mypy look at whether that fits together."""

import ast
from pathlib import Path

import pytest

import edm_lesson

PACKAGE = Path(edm_lesson.__file__).parent
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if "exercises" not in path.parts]


def public_functions(body, prefix=""):
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            yield f"{prefix}{node.name}", node


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_public_functions_are_annotated(path):
    missing = []
    for name, function in public_functions(ast.parse(path.read_text(encoding="utf-8")).body):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        missing += [f"{name}({a.arg})" for a in every if a and a.annotation is None and a.arg not in ("self", "cls")]
        if function.returns is None and not name.endswith("__init__"):
            missing.append(f"{name} -> ?")
    assert not missing
