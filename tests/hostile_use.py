"""Hostile use: random command lines, damaged files and kills, and what must hold after each.

    python tests/hostile_use.py [--commands 1000] [--files 300] [--kills 100] [--seed 0]

A command line, whatever is in it: ends by itself and in time, with at most a sentence and never a traceback; changes no
file but those that it is asked to write, and leaves nothing that is written in part. A damaged file is refused by its
name, or read where nobody could notice. After a kill the same command goes on or begins anew, and ends as if nothing
had happened. `test_hostile_use` does a little of it; each fault is printed with what repeats it.
"""

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import types
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
import typer
from forks import CONTEXT
from PIL import Image

from edm_lesson import cli
from edm_lesson.checkpoints import load_tensors
from edm_lesson.course import NOTEBOOKS
from edm_lesson.data import load_images

TINY = """
network: {model_channels: 8, channel_mult: [1], num_blocks: 1}
data: {name: s.npz, img_resolution: 8}
training: {images: 48, batch_size: 4, warmup: 8, log_every: 8, save_every: 16, sample_every: 0}
"""
HOSTILE = [
    "",
    " ",
    "-1",
    "0",
    "x",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "10000000000",
    "9" * 30,
    "0.5",
    "1,2,x",
    "0-99999999999",
    "[",
    "{a: b}",
    "!!python/object/apply:os.mkdir [sprung]",
    "${oc.env:HOME}",
    "\x1b[31mred",
    "my 😀",
    "\u202etxt",
    "a" * 5000,
    "--",
    "-",
    "\n",
    "%s%n",
    "/",
    ".",
    "..",
    "/dev/null",
    "/dev/zero",
    "pipe",
    "missing",
    "missing/a.png",
    "locked",
    "a.png",
    "empty",
    "noise.bin",
    "bomb.yaml",
    "run/config.yaml",
    "s.npz",
    "t.yaml",
    "run",
    "pictures",
    "mnist",
    "meta",
    "cuda:99",
    "cpu",
    "edm",
    "lesson",
]
SENSIBLE = {
    "config": ["t.yaml", "smoke"],
    "out": ["new", "run", "a.png", "a.npz", "new/b.png", "new.csv"],
    "data": ["s.npz", "pictures"],
    "set_": ["training.images=16", "sigma_data=0.5", "network.model_channels=4"],
    "minutes": ["0.001"],
    "device": ["cpu"],
    "checkpoint": ["run"],
    "num_samples": ["2", "20"],
    "num_steps": ["1", "2"],
    "seed": ["0", "7"],
    "labels": ["0"],
    "sampler": ["edm", "vp"],
    "batch_size": ["1", "8"],
    "seeds": ["1"],
    "images": ["4"],
    "plot": ["p.png"],
    "only": ["A", "00"],
    "runs": ["run"],
    "name": ["ablation", "choices"],
    "solver": ["heun", "euler"],
    "parameter": ["train_images=16"],
}
SECONDS = 20  # for a command of any sort, on a machine that is busy with two of them
WRITTEN_UNASKED = {"runs", "curves.png", "digits.png", "lab", "notebooks"}  # where nothing else is given
TOO_LONG = 700  # characters of the longest sentence


def make_desk(folder):
    """What stands in the folder that commands run in: a run, pictures, and things that are no files or no good."""
    os.chdir(folder)
    chance = np.random.default_rng(0)
    np.savez("s.npz", images=chance.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8))
    Path("t.yaml").write_text(TINY)
    Path("pictures/cats").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(chance.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(f"pictures/cats/{number}.png")
    Image.new("L", (8, 8)).save("a.png")
    Path("mnist").mkdir()
    Path("notebooks").mkdir()
    for path in NOTEBOOKS.glob("0[03]_*.ipynb"):
        shutil.copy(path, "notebooks")
    shutil.copy(NOTEBOOKS / "notation.md", "notebooks")
    Path("empty").touch()
    Path("noise.bin").write_bytes(chance.bytes(4000))
    Path("bomb.yaml").write_text(
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 30))
    )
    os.mkfifo("pipe")
    Path("locked").mkdir(mode=0o500)
    assert run_here(["train", "--config", "t.yaml", "--device", "cpu", "--out", "run"], Path("log")) == 0


def run_here(arguments, log):
    """The exit code of a command line in this process; what it prints goes to the file `log`."""
    with (
        open(log, "w", encoding="utf-8", errors="surrogateescape") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        sys.argv = ["edm-lesson", *arguments]
        try:
            cli.main()
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=file)
            return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        return 0


def child(arguments, folder, log, prepare=None):
    """What a forked process does: a command line in `folder`, with bounds to time and memory."""
    os.chdir(folder)
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    small_world()
    if prepare:
        prepare()
    try:
        code = run_here(arguments, log)
    except BaseException:
        with open(log, "a") as file:
            traceback.print_exc(file=file)
        code = 99
    used = resource.getrusage(resource.RUSAGE_SELF)
    Path(f"{log}.seconds").write_text(str(used.ru_utime + used.ru_stime))
    sys.exit(code if 0 <= code < 256 else 1)


def small_world():
    """What would take minutes: MNIST has 600 digits, notebooks are not executed, and no server is started."""
    from edm_lesson.course import kernel, lab, run, store
    from edm_lesson.evaluation import judge
    from edm_lesson.training import trainer

    def load_few(*arguments, **settings):
        images = load_images(*arguments, **settings)
        return replace(images, pixels=images.pixels[:600], labels=images.labels[:600])

    judge.load_images = trainer.load_images = load_few
    run.execute = store.execute = kernel.execute = lambda client, **_: client.nb
    lab.NOTEBOOKS = Path("notebooks").resolve()  # the desk's: some commands store them
    sys.modules["jupyterlab.labapp"] = types.SimpleNamespace(LabApp=types.SimpleNamespace(launch_instance=print))


def contents(folder):
    """A digest of each file in `folder`, by its path."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run_apart(arguments, folder, log, seconds=3 * SECONDS, prepare=None):
    """A command line in a process of its own: its exit code, None where it had to be killed; how long it computed; and
    what it printed."""
    process = CONTEXT.Process(target=child, args=(arguments, folder, log, prepare), daemon=True)
    process.start()
    process.join(seconds)
    code = process.exitcode
    process.kill()
    process.join()
    used = Path(f"{log}.seconds")
    took = float(used.read_text()) if code is not None and code >= 0 and used.exists() else seconds
    return code, took, printed(log)


def printed(log):
    """What went to the file `log`, if there is one."""
    return log.read_text(errors="replace") if log.exists() else ""


def left_in_part(files):
    """The complaint, if any, about `files` that were written in part only."""
    parts = [name for name in files if ".part" in name]
    return [f"left {parts}"] if parts else []


@contextlib.contextmanager
def desks(*makers):
    """A folder for logs, and a function that gives a fresh desk in it, made once by the `makers`, at each call."""
    with tempfile.TemporaryDirectory() as place:
        pattern, desk = Path(place, "pattern"), Path(place, "desk")
        pattern.mkdir()
        for maker in makers:
            in_child(maker, pattern)

        def fresh_desk():
            shutil.rmtree(desk, ignore_errors=True)
            shutil.copytree(pattern, desk, ignore=lambda *_: ["pipe", "log"])
            os.mkfifo(desk / "pipe")
            return desk

        yield Path(place), fresh_desk


def complaints(code, took, text):
    """What is wrong with how a command ended."""
    lines = [line for line in text.replace("\r", "\n").splitlines() if "%|" not in line]
    said = "\n".join(line for line in lines if line.startswith("edm-lesson: ")) or "\n".join(lines[-3:])
    working = code == -signal.SIGXCPU and "img/s" in text
    if code is None or (code < 0 and not working) or code == 99 or "Traceback (most recent call last)" in text:
        yield f"ended with {code} after {took:.0f} s"
    if code and len(said) > TOO_LONG:
        yield f"{len(said)} characters in one message"
    if any(not (character.isprintable() or character in "\n\t") for character in said):
        yield "characters that can't be seen in a message"


def random_command(chance):
    """A command line that nobody would type, most of it sensible, some of it hostile."""
    commands = typer.main.get_command(cli.app).commands
    name = chance.choice([*commands, "train", "sample", "evaluate"])
    line, hostility = [name], chance.choice([0.1, 0.3, 0.6])
    for parameter in commands[name].params:
        argument = isinstance(parameter, click.Argument)
        if parameter.name == "help" or not (argument or chance.random() < 0.35 or parameter.name in ("device", "out")):
            continue
        hostile = chance.random() < hostility
        value = chance.choice(HOSTILE if hostile else SENSIBLE.get(parameter.name, HOSTILE))
        if argument:
            line.append(value)
        elif getattr(parameter, "is_flag", False):
            line.append(parameter.opts[0])
        else:
            line += [parameter.opts[0], value]
    if chance.random() < 0.05:
        line.insert(chance.randrange(len(line) + 1), chance.choice(HOSTILE))
    return line


def try_commands(count, seed, report):
    """Run random command lines on a desk that is put in order after each."""
    chance = random.Random(seed)
    with desks(make_desk) as (place, fresh_desk):
        for _ in range(count):
            arguments = random_command(chance)
            desk = fresh_desk()
            before = contents(desk)
            code, took, text = run_apart(arguments, desk, place / "log")
            after = contents(desk)
            found = [*complaints(code, took, text), *left_in_part(after)]
            if code and code > 0 and took > 5:
                found.append(f"refused after {took:.0f} s of computing")
            if lost := [name for name in before if name not in after]:
                found.append(f"lost {lost}")
            asked = {value.split("/")[0] for value in arguments} | WRITTEN_UNASKED
            if changed := [n for n in before if n in after and before[n] != after[n] and n.split("/")[0] not in asked]:
                found.append(f"changed {changed}")
            if code and (changed := [n for n in ("a.png", "s.npz", "t.yaml") if after.get(n) != before[n]]):
                found.append(f"failed, and changed {changed}")
            if (desk / "sprung").exists():
                found.append("ran code out of a value")
            report("command", arguments, found, text)


def in_child(function, *arguments):
    """Call `function` in a process of its own, whose folder and limits are not ours."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, f"{function.__name__} failed"


# What reads each file
GO_ON = "train --resume --out run"
FEW = "--num-samples 2 --num-steps 2"
COLORS = "train --config t.yaml --set data.img_channels=3 --data pictures --out new"
MEASURE = "evaluate --checkpoint digits --num-samples 4 --seeds 1"
READERS = {
    "run/checkpoint.safetensors": GO_ON,
    "run/denoiser.safetensors": f"sample --checkpoint run/denoiser.safetensors {FEW}",
    "run/metrics.jsonl": "curves run",
    "run/environment.json": GO_ON,
    "run/config.yaml": f"sample --checkpoint run {FEW}",
    "t.yaml": "train --config t.yaml --out new",
    "s.npz": "train --config t.yaml --out new",
    "pictures/cats/0.png": COLORS,
    "pictures/cats/1.jpg": COLORS,
    "runs/evaluation.csv": f"{MEASURE} --num-steps 2",
    "shipped/MNIST/raw/t10k-labels-idx1-ubyte.gz": f"{MEASURE} --num-steps 1 --out new.csv",
    "shipped/pretrained/lesson.safetensors": "sample --num-samples 1 --num-steps 1",
}
SIGNED = (".safetensors", ".gz")  # any change of which must be noticed


def damage(content, chance):
    """`content` with one thing wrong, as disks, editors, broken downloads and people leave it."""
    start = chance.choice([chance.randrange(len(content) + 1), chance.randrange(min(len(content), 400) + 1)])
    length, noise = (
        chance.choice([1, 4, 100, 10_000]),
        bytes(chance.randrange(256) for _ in range(chance.choice([1, 8]))),
    )
    return chance.choice(
        [
            content[:start],
            content[start:],
            b"",
            bytes(len(content)),
            content + noise,
            content + content[:start],
            content[:start] + noise + content[start:],
            content[:start] + noise + content[start + len(noise) :],
            content[:start] + content[start + length :],
            content[:start] + bytes(length) + content[start + length :],
            content[:start]
            + chance.choice([b"NaN", b"1e999", b"9" * 400, b'"', b"\n", b",", b"[]", b"{}", b"null"])
            + content[start:],
            chance.choice(
                [
                    b"[]",
                    b"null",
                    b"{}",
                    b"\xff\xfe",
                    b"PK\x03\x04",
                    b"\x1f\x8b",
                    b"\x89PNG\r\n\x1a\n",
                    b"%!PS-Adobe-3.0 EPSF-3.0\n",
                ]
            ),
        ]
    )


def furnish(folder):
    """Add to the desk what only some need: a model of digits, what was measured of it, and another picture."""
    os.chdir(folder)
    small_world()
    tiny = "--set network.model_channels=8 --set training.images=32 --set training.sample_every=0"
    for line in (f"train --config smoke {tiny} --out digits", f"{MEASURE} --num-steps 1"):
        assert run_here([*line.split(), "--device", "cpu"], Path("log")) == 0, Path("log").read_text()
    Image.new("RGB", (300, 200), "red").save("pictures/cats/1.jpg")


def link_shipped(folder):
    """Links to all data of the repository, in place of a copy."""
    from edm_lesson.data import data_folder

    for part in ("MNIST", "pretrained"):
        for path in (data_folder() / part).rglob("*.*"):
            if path.is_file():
                link = Path(folder, "shipped", path.relative_to(data_folder()))
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)


def try_files(count, seed, report):
    """Damage one file on the desk at a time, and let a command read it."""
    chance = random.Random(seed)
    with desks(make_desk, furnish) as (place, fresh_desk):
        for number in range(count):
            name = list(READERS)[number % len(READERS)]
            desk = fresh_desk()
            link_shipped(desk)
            path = desk / name
            whole = path.read_bytes()
            path.unlink()
            path.write_bytes(damaged := damage(whole, chance))
            before = contents(desk)
            data = DataIn(desk / "shipped")
            line = READERS[name].split()
            line += ["--device", "cpu"] * (line[0] != "curves")
            code, took, text = run_apart(line, desk, place / "log", prepare=data)
            after = contents(desk)
            found = [*complaints(code, took, text), *left_in_part(after)]
            if code and path.stem not in text:
                found.append("refused without the file's name")
            if not code and damaged != whole and path.suffix in SIGNED:
                found.append("read as if it were whole")
            if code and (
                changed := [each for each in before if after.get(each) != before[each] and "lock" not in each]
            ):
                found.append(f"refused, and changed {changed}")
            report("file", [name, *line], found, text, damaged)


class DataIn:
    """Sets where the shipped data lies; can be sent to another process."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self):
        os.environ["EDM_LESSON_DATA"] = str(self.folder)


class AsOneOf:
    """Makes a process number `rank` of two that torchrun would have started."""

    def __init__(self, rank, port):
        self.rank, self.port = str(rank), str(port)

    def __call__(self):
        os.environ.update(
            TORCHELASTIC_RUN_ID="storm",
            RANK=self.rank,
            LOCAL_RANK=self.rank,
            WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=self.port,
        )


class Started:
    """A command line in processes of its own: one, "two" that train together, or those of "torchrun"."""

    def __init__(self, line, kind, folder, logs):
        arguments = [*line.split(), "--device", "cpu"]
        self.logs, self.processes, self.torchrun = logs, [], None
        if kind == "torchrun":
            command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "edm_lesson"]
            with open(logs[0], "w") as log:
                self.torchrun = subprocess.Popen([*command, *arguments], cwd=folder, stdout=log, stderr=log)
            return
        port = free_port()
        for log, place in zip(logs, [AsOneOf(0, port), AsOneOf(1, port)] if kind == "two" else [None], strict=False):
            self.processes.append(CONTEXT.Process(target=child, args=(arguments, folder, log, place), daemon=True))
            self.processes[-1].start()

    def wait(self, seconds=3 * SECONDS):
        """The exit codes; None for what had to be ended."""
        if self.torchrun:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.torchrun.wait(seconds)
            if self.torchrun.poll() is None:
                self.torchrun.terminate()
                self.torchrun.wait()
                return [None]
            return [self.torchrun.returncode]
        for process in self.processes:
            process.join(seconds)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
            process.join()
        return codes

    def kill(self, moment, chance):
        """Kill one of the processes after so many seconds; of two, the other is told to end soon after, as torchrun
        does, which itself is only told to end. Whether it was still running."""
        if self.torchrun:
            time.sleep(moment)
            running = self.torchrun.poll() is None
            self.torchrun.send_signal(signal.SIGTERM)
            return running
        victim = chance.choice(self.processes)
        victim.join(moment)
        running = victim.is_alive()
        victim.kill()
        for process in self.processes:
            process.join(5)
            if process.is_alive() and running:
                process.terminate()
        return running

    def text(self):
        """What was printed."""
        return "\n".join(map(printed, self.logs))


def free_port():
    """A port that nobody uses at the moment."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


TRAIN = "train --config t.yaml --out new"
LINES = {
    "train": TRAIN,
    "two": TRAIN,
    "sample": "sample --checkpoint run --num-samples 64 --num-steps 4 --out new.npz",
    "evaluate": f"{MEASURE} --num-steps 2,3 --out new.csv",
    "torchrun": TRAIN,
}
KILLED = ["train", "two", "sample", "two", "train", "evaluate", "two", "train", "sample", "torchrun"]


def try_kills(count, seed, report):
    """Kill training, training in two processes, sampling and measuring at random moments; then let them go on."""
    chance = random.Random(seed)
    with desks(make_desk, furnish) as (place, fresh_desk):
        logs, wholes, lengths = [place / "log", place / "log 2"], {}, {}
        for kind in [KILLED[number % len(KILLED)] for number in range(count)]:
            if kind not in wholes:  # how long it takes, and what it ends with
                desk = fresh_desk()
                begun = time.monotonic()
                assert not any(Started(LINES[kind], kind, desk, logs).wait()), logs[0].read_text()
                lengths[kind], wholes[kind] = time.monotonic() - begun, result(desk)
            desk = fresh_desk()
            moment, found = chance.uniform(0, lengths[kind]), []
            first = Started(LINES[kind], kind, desk, logs)
            killed = first.kill(moment, chance)
            if None in first.wait():
                found.append("didn't end when another had")
            if killed and kind == "two" and "Traceback" in first.text():
                found.append("the other process ended with a traceback")
            before = first.text()
            saved = list((desk / "new").glob("checkpoint*.safetensors"))
            line = "train --resume --out new" if saved else LINES[kind]
            again = Started(line, kind, desk, logs)
            if any(codes := again.wait()):
                found.append(f"{line} afterwards ended with {codes}")
            elif result(desk) != wholes[kind]:
                found.append("ended otherwise than without the kill")
            found += left_in_part(contents(desk))
            report("kill", [kind, LINES[kind], f"after {moment:.2f} s"], found, f"{before}\n----\n{again.text()}")


def result(folder):
    """What commands left in `folder` that must not depend on kills, in a form that can be compared."""
    found = {}
    if (path := folder / "new" / "denoiser.safetensors").exists():
        found |= {name: tensor.numpy().tobytes() for name, tensor in load_tensors(path)[0].items()}
    if (path := folder / "new.npz").exists():
        found["images"] = np.load(path)["images"].tobytes()
    if (path := folder / "new.csv").exists():
        with open(path) as file:
            rows = [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(file)]
        found["rows"] = sorted(map(str, rows))
    return found


class Reporter:
    """Counts what was tried, and prints each fault with what repeats it."""

    def __init__(self):
        self.tried, self.faults = {}, []

    def __call__(self, kind, arguments, found, text, damaged=None):
        self.tried[kind] = self.tried.get(kind, 0) + 1
        if found:
            said = io.StringIO()
            print(f"{kind} {self.tried[kind]}: {json.dumps(arguments)[:600]}: {'; '.join(found)}", file=said)
            if damaged is not None:
                print(f"    with {damaged[:150]!r} ({len(damaged)} bytes)", file=said)
            print("    " + "\n    ".join(text.strip().splitlines()[-6:])[-1500:], file=said)
            self.faults.append(said.getvalue())
            print(said.getvalue(), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("commands", 1000), ("files", 300), ("kills", 100), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args()
    report, begun = Reporter(), time.monotonic()
    for attempt, count in ((try_commands, given.commands), (try_files, given.files), (try_kills, given.kills)):
        if count:
            attempt(count, given.seed, report)
    tried = ", ".join(f"{count} {kind}s" for kind, count in report.tried.items())
    print(f"{tried}: {len(report.faults)} faults in {time.monotonic() - begun:.0f} s")
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())
