"""What you read is what runs: what a notebook builds is the package's, apart from docstrings and `@checked`."""

import ast
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
# Notebook -> module -> names. Complete: a name that a notebook builds and the package holds must stand here.
TAUGHT = {
    "01": {"ideal": ["IdealDenoiser", "score"]},
    "02": {"schedules": ["edm_sigmas", "vp_sigmas", "ve_sigmas", "iddpm_table", "iddpm_sigmas"]},
    "03": {"preconditioning": ["Precond", "EDMPrecond"]},
    "04": {"losses": ["DenoisingLoss", "EDMLoss"]},
    "05": {"networks.unet": ["PositionalEmbedding", "SelfAttention", "ResidualBlock", "LessonUNet"]},
    "06": {"training.step": ["train_step", "ema_decay"]},
    "07": {"samplers.edm": ["euler_step", "heun_step"]},
    "08": {"samplers.edm": ["add_churn", "edm_sampler"]},
    "09": {
        "schedules": ["LinearSchedule", "VESchedule", "VPSchedule", "unscaled", "vp_scale"],
        "samplers.general": ["ode_slope", "solver_step", "general_sampler"],
    },
    "10": {"evaluation.distance": ["frechet_distance", "real_distance", "distance_ratio"]},
    "11": {
        "augment": [
            "affine",
            "compose",
            "flip",
            "scale",
            "rotate",
            "stretch",
            "translate",
            "resample",
            "AugmentPipe",
        ]
    },
}
MODULES = sorted(
    ".".join(path.relative_to(ROOT / "edm_lesson").with_suffix("").parts)
    for path in (ROOT / "edm_lesson").rglob("*.py")
    if "exercises" not in path.parts
)
NOTEBOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}


def is_checked(decorator):
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", None) == "checked"


def definitions(source):
    """{name: syntax tree without docstrings and `@checked`} of the functions and classes at the top of `source`."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for inner in ast.walk(node):
                if isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
                    if ast.get_docstring(inner) is not None:
                        inner.body = inner.body[1:] or [ast.Pass()]
                    inner.decorator_list = [each for each in inner.decorator_list if not is_checked(each)]
            found[node.name] = ast.unparse(node)
    return found


def built_in(notebook):
    cells = [cell for cell in nbformat.read(NOTEBOOKS[notebook], as_version=4).cells if cell.id != "set-up"]
    return {name: tree for cell in cells if cell.cell_type == "code" for name, tree in definitions(cell.source).items()}


def held_by(module):
    return definitions((ROOT / "edm_lesson" / Path(*module.split("."))).with_suffix(".py").read_text())


@pytest.mark.parametrize(
    ("notebook", "module", "name"),
    [
        (notebook, module, name)
        for notebook, modules in TAUGHT.items()
        if notebook in NOTEBOOKS
        for module, names in modules.items()
        for name in names
    ],
)
def test_what_the_notebook_builds_is_what_the_package_holds(notebook, module, name):
    built = built_in(notebook)
    assert name in built, f"{NOTEBOOKS[notebook].name} no longer builds {name}"
    assert built[name] == held_by(module)[name], f"{name} differs between {NOTEBOOKS[notebook].name} and {module}"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_nothing_else_of_the_package_is_built_in_a_notebook(notebook):
    public = {name for module in MODULES for name in held_by(module)}
    listed = {name for names in TAUGHT.get(notebook, {}).values() for name in names}
    twice = (built_in(notebook).keys() & public) - listed
    assert not twice, f"{NOTEBOOKS[notebook].name} builds {sorted(twice)} too: import it, or list it above"
