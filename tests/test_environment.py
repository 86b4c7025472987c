"""The ways to set up agree with each other: pyproject.toml, environment.yml, the Makefile, the wheel."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import iter_modules

import pytest
import yaml

import edm_lesson

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


def test_the_pages_of_the_api_list_every_part_of_the_package():
    listed = set(re.findall(r"^   edm_lesson\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), flags=re.MULTILINE))
    assert listed == {part.name for part in iter_modules(edm_lesson.__path__)} - {"__main__", "cli"}


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


PYTHON = """#!/bin/sh
# Stands in for a Python of version 3.{minor}; says what it was asked to do.
echo "$0 $*" >> {log}
case "$*" in
    *version_info*) echo 3.{minor};;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";;
    "-m pip --version") [ -e "${{0%/*}}/pip" ];;
    "-m ensurepip") {ensurepip} && touch "${{0%/*}}/pip";;
    "-m pip install "*) [ -e "${{0%/*}}/pip" ] && cp "$0" "${{0%/*}}/edm-lesson";;
esac
"""


@pytest.fixture
def set_up(tmp_path):
    """`make setup` in a folder with a space, where all Pythons are stand-ins: exit code, words, what they had to do."""
    folder, log = tmp_path / "my course", tmp_path / "log"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)

    def call(*variables, minor=11, ensurepip="true", **environment):
        python = tmp_path / f"python3.{minor}"
        python.write_text(PYTHON.format(minor=minor, log=f"'{log}'", ensurepip=ensurepip))
        python.chmod(0o755)
        log.write_text("")
        bare = {
            key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX", "MAKEFLAGS")
        }
        command = ["make", "setup", *variables]
        if not variables:
            environment["PYTHON"] = str(python)
        done = subprocess.run(command, cwd=folder, env=bare | environment, capture_output=True, text=True)
        asked = [line.partition(" -m ")[2].partition(" ")[0] for line in log.read_text().splitlines() if " -m " in line]
        return done.returncode, done.stdout, asked

    call.folder = folder
    return call


def test_make_sets_up_once_and_again_what_was_made_in_half_or_lost_its_python(set_up):
    assert set_up()[2] == ["venv", "pip", "ensurepip", "pip"]
    assert set_up()[2] == [], "it is up to date"
    (set_up.folder / ".venv" / "bin" / "edm-lesson").unlink()
    assert set_up()[2] == ["pip", "pip"]
    python = set_up.folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/gone/python3.11")
    assert set_up()[2] == ["venv", "pip", "pip"]


def test_make_gives_pip_to_an_environment_without_or_says_what_is_missing(set_up, tmp_path):
    code, said, asked = set_up(ensurepip="false")
    assert code
    assert asked == ["venv", "pip", "ensurepip"]
    assert "has no pip, and its Python brings none" in said
    shutil.rmtree(set_up.folder / ".venv")
    code, _, asked = set_up()
    assert (code, asked[-2:]) == (0, ["ensurepip", "pip"])


def test_make_says_that_an_environment_is_of_another_python_or_has_none(set_up, tmp_path):
    assert set_up()[0] == 0
    set_up(minor=12)  # makes the stand-in
    code, said, asked = set_up(f"PYTHON={tmp_path / 'python3.12'}", minor=12)
    assert code
    assert not asked
    assert f".venv has Python 3.11, not 3.12 as PYTHON={tmp_path / 'python3.12'} asks" in said
    assert set_up(f"PYTHON={tmp_path / 'python3.11'}")[0] == 0
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        code, said, asked = set_up(**{variable: str(tmp_path / "active")})
        assert code
        assert not asked
        assert f"{tmp_path / 'active'}, has no Python" in said
    assert not (tmp_path / "active").exists()


def test_make_clean_keeps_what_was_trained(tmp_path):
    for name in ("runs/mine/checkpoint.safetensors", "runs/course/00_tour.ipynb", "site/index.html"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    said = subprocess.run(
        ["make", "-f", ROOT / "Makefile", "clean"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"checkpoint.safetensors", "pyproject.toml"}
    assert "yours to remove" in said


NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"asked for the network: {event} {arguments}")

sys.addaudithook(refuse)
"""
LOOK = """
import edm_lesson
from edm_lesson.checkpoints import load_denoiser
from edm_lesson.course import find_notebooks

load_denoiser("lesson")
print(edm_lesson.__file__, len(find_notebooks()))
"""


@pytest.mark.installs
def test_the_wheel_samples_evaluates_and_trains_where_there_is_no_repository_and_no_network(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= 40e6
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_folder, (site,) = tmp_path / "venv" / "bin", (tmp_path / "venv" / "lib").glob("python*/site-packages")
    for path in Path(yaml.__file__).parents[1].iterdir():  # all that is installed here but this package
        if "edm_lesson" not in path.name and path.suffix != ".pth" and not (site / path.name).exists():
            (site / path.name).symlink_to(path)
    install = [bin_folder / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDM_LESSON", "PYTHON", "XDG"))}

    def call(*command):
        return subprocess.run(
            [bin_folder / command[0], *command[1:]],
            cwd=elsewhere,
            env=kept | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )

    assert "asked for the network" in call("python", "-c", "import socket; socket.getaddrinfo('pypi.org', 1)").stderr
    for command in (
        ["python", "-c", LOOK],
        ["edm-lesson", "sample", "--num-samples", "4", "--out", "digits.png"],
        ["edm-lesson", "evaluate", "--num-samples", "100", "--num-steps", "4", "--seeds", "1"],
        ["edm-lesson", "train", "--config", "smoke", "--set", "training.images=640"],
    ):
        done = call(*command)
        assert done.returncode == 0, done.stderr
        if command[0] == "python":
            place, count = done.stdout.split()
            assert Path(place).is_relative_to(site)
            assert int(count) == len(list((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")))
    assert {path.name for path in elsewhere.iterdir()} == {"digits.png", "runs"}
