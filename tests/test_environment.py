"""The ways to set up agree with each other: pyproject.toml, environment.yml, the Makefile, and the wheel."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()


def test_conda_brings_python_and_pip_the_rest_as_make_does():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert listed == [f"python{PROJECT['project']['requires-python']}", "pip", {"pip": ["-e .[notebooks,test]"]}]
    assert '-e ".[notebooks,test]"' in MAKEFILE


def test_the_workflow_tests_the_oldest_and_newest_python_that_are_claimed_by_targets_that_exist():
    claimed = [name.rpartition(" ")[2] for name in PROJECT["project"]["classifiers"] if "Python :: 3." in name]
    assert PROJECT["project"]["requires-python"] == f">={claimed[0]}"
    texts = [path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")]
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    tested = {entry["target"]: entry["python"] for entry in workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]}
    assert tested["test-oldest"] == claimed[0]
    assert tested["unit"] == claimed[-1]
    assert f"OLDEST ?= python{claimed[0]}\n" in MAKEFILE
    assert {"schedule", "push", "pull_request"} <= set(workflow[True])  # YAML 1.1 reads `on` so
    targets = {*tested, *re.findall(r"make ([\w-]+)", "".join(texts))}
    assert {"lint", "course", "site", "test-installed", "test-browser"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE), f"there is no make {target}"


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_make_uses_an_active_environment_and_makes_one_otherwise(variable, tmp_path):
    bare = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX")}

    def commands(environment):
        run = subprocess.run(
            ["make", "-n", "course"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return run.stdout

    active = commands({**bare, variable: str(tmp_path)})
    assert f'"{tmp_path}/bin/edm-lesson" course' in active
    assert f'"{ROOT}/.venv/bin/edm-lesson" course' in commands(bare)


@pytest.fixture(scope="module")
def wheel_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder


def run_away_from_the_repository(folder, code):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDM_LESSON")}
    environment |= {"PYTHONPATH": str(folder / "site"), "EDM_LESSON_CACHE": str(folder / "cache")}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_works_where_no_shipped_file_is_needed(wheel_folder):
    code = """
import torch, edm_lesson
from edm_lesson.config import config_names, load_config
from edm_lesson.data import Images
from edm_lesson.samplers import sample_images
from edm_lesson.training import Trainer
assert "site" in edm_lesson.__file__, edm_lesson.__file__
assert {"lesson", "smoke"} <= set(config_names())
images = Images(torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8), torch.zeros(64, dtype=torch.long))
trainer = Trainer(load_config("smoke", ["training.images=64"]), images, device="cpu").train(progress=False)
print(tuple(sample_images(trainer.ema_denoiser, 2, num_steps=2).shape))
"""
    run = run_away_from_the_repository(wheel_folder, code)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(2, 1, 28, 28)"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [("sample", "edm-lesson train --config lesson"), ("course", "they come with the repository")],
)
def test_the_wheel_says_what_is_missing_and_what_to_do(wheel_folder, arguments, hint):
    code = f"import sys; sys.argv = ['edm-lesson', '{arguments}']; from edm_lesson.cli import main; main()"
    run = run_away_from_the_repository(wheel_folder, code)
    assert run.returncode == 1
    assert hint in run.stderr
    assert "Traceback" not in run.stderr
