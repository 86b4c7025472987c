"""Every recipe of the README does what it says: each block of commands, and every command in a sentence."""

import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest
import typer
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

from edm_lesson import cli
from edm_lesson.course import colab

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", README)]
DOCUMENTS = [README, (ROOT / "data" / "README.md").read_text()]
COMMANDS = sorted(
    {
        " ".join(found.partition("#")[0].split())
        for text in DOCUMENTS
        for found in re.findall(r"(?:edm-lesson|-m edm_lesson) [a-z][^`\n]*", text.replace("\\\n", ""))
        if "…" not in found
    }
)


def block(word):
    """The one block with `word` in it."""
    (found,) = [text for text in BLOCKS if word in text]
    return found.strip()


def lines(text):
    """Commands as a shell reads them: without remarks and continued lines."""
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", "").splitlines() if line.strip()]


def test_every_block_is_tried_here():
    tried = ["make course", "archive/v", "-m venv", "download.pytorch.org", "google.colab", "evaluate", "my_pictures"]
    tried += ["torchrun"]
    assert sorted(BLOCKS) == sorted({text for word in tried for text in BLOCKS if word in text})
    assert len(BLOCKS) == len(tried)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_takes_what_is_written(command):
    name, *arguments = shlex.split(command)[1 if command.startswith("edm-lesson") else 2 :]
    typer.main.get_command(cli.app).commands[name].make_context(name, arguments)


def test_benchmarks_and_targets_that_are_named_exist():
    for script in re.findall(r"\b((?:tests|data)/[\w/]+\.py)", README):
        assert (ROOT / script).exists(), script
    for target in {line[1] for line in lines(block("make course"))} | set(re.findall(r"`make ([\w-]+)`", README)):
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_what_is_installed_has_the_extras_the_address_and_the_version_that_are_written():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address, ref = colab.repository()
    (install, *_) = lines(block("archive/v"))
    assert install == ["pip", "install", f"edm_lesson[notebooks] @ {address}/archive/{ref}.tar.gz"]
    for extras in re.findall(r"install[^\n]*\[([\w,]+)\]", README):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (packages,) = lines(block("download.pytorch.org"))
    assert [re.match(r"\w+", package)[0] for package in project["dependencies"]][1:3] == packages[2:4]


def test_setting_up_without_make(tmp_path):
    """With stand-ins for Python's venv, pip and the command, which say what they were asked."""
    (tmp_path / "bin").mkdir()
    made = "mkdir -p .venv/bin; echo 'PATH=$PWD/.venv/bin:$PATH' > .venv/bin/activate"
    for name in ("pip", "edm-lesson"):
        made += f"; printf '#!/bin/sh\\necho {name} $*' > .venv/bin/{name}; chmod +x .venv/bin/{name}"
    (tmp_path / "bin" / "python3").write_text(f"#!/bin/sh\n[ \"$*\" = '-m venv .venv' ] && {{ {made}; }}")
    (tmp_path / "bin" / "python3").chmod(0o755)
    recipe = f"{block('-m venv')}\n{block('download.pytorch.org')}"
    done = subprocess.run(
        ["bash", "-euc", recipe], cwd=tmp_path, env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}, text=True, stdout=-1
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[:2] == ["pip install -e .[notebooks,test]", "edm-lesson course"]
    assert done.stdout.splitlines()[2].startswith("pip install torch torchvision --index-url https://")


@pytest.fixture
def colab_cell(tmp_path, monkeypatch):
    """Run the recipe's cell as a notebook in /content does, in a root of its own."""
    content, drive = tmp_path / "root" / "content", tmp_path / "the Drive"
    module = types.ModuleType("google.colab")
    module.drive = types.SimpleNamespace(mount=lambda path: Path(path).exists() or Path(path).symlink_to(drive))
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    (drive / "MyDrive").mkdir(parents=True)
    content.mkdir(parents=True)
    monkeypatch.chdir(content)
    shell = InteractiveShell.instance()
    yield lambda: shell.run_cell(block("google.colab").replace("/content", str(content))).raise_error()
    InteractiveShell.clear_instance()


def test_the_drive_keeps_what_is_trained_and_what_had_been_trained_before(colab_cell, tmp_path):
    runs, kept = tmp_path / "root" / "runs", tmp_path / "the Drive" / "MyDrive" / "edm_lesson"

    def train(name, weights):
        (runs / name).mkdir(parents=True, exist_ok=True)
        (runs / name / "checkpoint").write_text(weights)

    train("06_full", "tried before")
    colab_cell()
    train("06_full", "hours")
    colab_cell()  # once more does nothing
    assert runs.is_symlink()
    runs.unlink()  # a new session
    colab_cell()
    assert (runs / "06_full" / "checkpoint").read_text() == "hours"
    assert sorted(path.read_text() for path in kept.rglob("checkpoint")) == ["hours", "tried before"]


def test_a_run_of_ones_own_pictures(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)):
        folder = tmp_path / "my_pictures" / ("cats", "dogs")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    train, sample = lines(block("my_pictures"))
    small = [f"training.{name}" for name in ("images=32", "batch_size=4", "log_every=8", "sample_every=0")]
    small += ["network.model_channels=8", "network.channel_mult=[1]"]
    less = {"train": [word for setting in small for word in ("--set", setting)], "sample": ["--num-steps", "2"]}
    resume, curves = ("edm-lesson train --resume --out runs/mine", "edm-lesson curves runs/mine")
    assert {resume, curves} <= set(COMMANDS)
    for _, name, *arguments in (train, sample, resume.split(), curves.split()):
        added = [] if "--resume" in arguments else less.get(name, [])
        code, _, said = run(name, *arguments, *added, *(["--device", "cpu"] if name != "curves" else []))
        assert not code, said
    assert min(Image.open("mine.png").size) > 8 * 32
    assert Path("curves.png").exists()


def test_the_lines_of_python_sample_digits():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    found = {}
    exec(code.replace("num_steps=18", "num_steps=2"), found)
    assert found["digits"].shape == (16, 1, 28, 28)
