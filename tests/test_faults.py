"""Faults: killed at any moment, full disks, damaged and foreign files, no network, a checkout that can only be read.

What a single file refuses is also tested where it belongs: test_checkpoints, test_data, test_config, test_runs.
"""

import errno
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from forks import CONTEXT, exit_codes, forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from edm_lesson import LessonError
from edm_lesson.checkpoints import load_checkpoint, load_denoiser, previous_path
from edm_lesson.config import CONFIG_FOLDER, Config, load_config
from edm_lesson.data import Images, load_images
from edm_lesson.training import Trainer
from edm_lesson.training.run import checkpoint_path, read_metrics

ROOT = Path(__file__).resolve().parent.parent
CHANGES = {"os.mkdir", "os.link", "os.rename", "os.remove"}


def trainer_of(folder=None, images=96, *overrides):
    tiny = ["batch_size=4", "warmup=8", "log_every=8", "save_every=8", "sample_every=0"]
    tiny = [f"training.{setting}" for setting in (f"images={images}", *tiny)]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8, generator=generator)
    few = Images(pixels, torch.zeros(50, dtype=torch.long))
    overrides = ["network.model_channels=8", "network.dropout=0.1", *tiny, *overrides]
    return Trainer(load_config("smoke", overrides), few, folder, "cpu")


def go_on(folder, images=96):
    """Train into `folder` to the end, from its checkpoint if there is one."""
    trainer, path = trainer_of(folder, images), checkpoint_path(folder)
    if path.exists():
        trainer.resume()
    assert path.exists() or not previous_path(path).exists(), "a run that has saved is never without a checkpoint"
    return trainer.train(progress=False)


def outcome(folder):
    """All that a run into `folder` ends with but the time it took: every tensor, the losses, the metrics."""
    checkpoint = load_checkpoint(checkpoint_path(folder))
    tensors = {name: tensor.numpy().tobytes() for name, tensor in checkpoint.tensors.items()}
    state = {name: value for name, value in checkpoint.state.items() if name != "seconds"}
    times = ("seconds", "images_per_second")
    return tensors, state, [{k: v for k, v in line.items() if k not in times} for line in read_metrics(folder)]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("never stopped")
    go_on(folder)
    return folder


def train_when_told(folder, ready):
    ready.set()
    go_on(folder)


def test_killed_at_twenty_random_moments_a_run_ends_with_the_weights_of_one_never_stopped(never_stopped, tmp_path):
    killed, length, chance = 0, 1.0, random.Random(0)
    for attempt in range(100):
        folder, ready = tmp_path / str(attempt), CONTEXT.Event()
        with forked((train_when_told, folder, ready)) as (process,):
            ready.wait(60)
            moment = chance.uniform(0, length)
            process.join(moment)
            process.kill()
            process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            length *= 0.8  # it takes less time than that here
            continue
        killed += 1
        go_on(folder)
        assert outcome(folder) == outcome(never_stopped), f"killed after {moment:.3f} s"
        if killed == 20:
            return
    pytest.fail(f"only {killed} of {attempt + 1} runs were killed before they ended")


def train_until_change(folder, number, images):
    """Train, and be killed just before the change of that `number` to what is in `folder`: files made, renamed, …"""
    changes = itertools.count(1)

    def watch(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        inside = (writes or event in CHANGES) and str(arguments[0]).startswith(str(folder))
        if inside and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    go_on(folder, images)


def test_killed_before_any_of_its_changes_to_files_a_run_goes_on_exactly(tmp_path):
    go_on(tmp_path / "whole", images=16)
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        (code,) = exit_codes((train_until_change, folder, number, 16))
        go_on(folder, images=16)
        assert outcome(folder) == outcome(tmp_path / "whole"), f"killed before change {number}"
        assert {path.name for path in folder.iterdir() if "previous" not in path.name} == {
            ".lock", "checkpoint.safetensors", "config.yaml", "environment.json", "metrics.jsonl",
        }, "what was written in part is gone"  # fmt: skip
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 15, "two checkpoints, each written, renamed and kept"


@pytest.fixture
def full(monkeypatch):
    """Let no checkpoints below some folders be written any more: the disk is full."""
    where, sync = [], os.fsync

    def fsync(number):
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        if path.suffix == ".safetensors" and any(path.is_relative_to(each) for each in where):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(number)

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files have no names here")
    monkeypatch.setattr(os, "fsync", fsync)
    return where


@pytest.fixture
def limit(monkeypatch):
    """Limit the size of all files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("said", ["No space left on device", "File too large"])
def test_where_there_is_no_room_the_checkpoint_is_kept_and_with_room_the_run_goes_on(
    said, full, limit, never_stopped, tmp_path, monkeypatch
):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    run = tmp_path / "run"
    trainer = trainer_of(run).train(until=16, progress=False)
    kept = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    if said == "File too large":
        limit(len(kept["checkpoint.safetensors"]) - 1000)
    else:
        full.append(tmp_path)
    with pytest.raises(LessonError, match=rf"Can't write .*{said}.*What was there before is unchanged") as stop:
        trainer.train(progress=False)
    limit(resource.RLIM_INFINITY)
    full.clear()
    assert stop.value.__notes__ == ["What was learned since the last checkpoint is not saved."]
    assert {path.name: path.read_bytes() for path in run.glob("*.safetensors*")} == kept
    assert {path.name for path in tmp_path.rglob("*run*")} == {"run"}, "what could not be filled is gone"
    shutil.copytree(run, tmp_path / "later")
    go_on(tmp_path / "later")
    assert outcome(tmp_path / "later") == outcome(never_stopped)
    trainer.train(progress=False)
    assert outcome(run) == outcome(never_stopped), "the model in memory had lost nothing"


@pytest.mark.parametrize("beside", [True, False])
def test_where_the_folder_is_full_what_was_learned_is_saved_elsewhere(beside, full, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    disk, run = tmp_path / "disk", tmp_path / "disk" / "run"
    full.append(run if beside else disk)
    with pytest.raises(LessonError, match=r"Can't write .*No space left") as stop:
        trainer_of(run, 96, "training.save_every=32").train(progress=False)
    (found,) = (disk if beside else tmp_path / "temporary").glob("run-*")
    said = f"Stopped and saved after 32 images. Go on with: edm-lesson train --resume --out {found}"
    assert stop.value.__notes__ == [said]
    assert trainer_of(found, 96, "training.save_every=32").resume().images_seen == 32


def test_a_disk_on_which_files_have_one_name_only_keeps_the_checkpoint_before_as_well(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    go_on(tmp_path, images=24)
    assert load_checkpoint(checkpoint_path(tmp_path)).state["images_seen"] == 24
    assert load_checkpoint(previous_path(checkpoint_path(tmp_path))).state["images_seen"] == 16


CELL = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from edm_lesson.samplers import sample_images
from test_faults import trainer_of
torch.set_num_threads(1)
trainer = trainer_of(Path({folder!r}), 4_000_000)
"""


def test_a_kernel_interrupt_leaves_a_usable_model_and_a_checkpoint_that_goes_on_exactly(tmp_path):
    from jupyter_client.manager import start_new_kernel

    def execute(code):
        reply = client.execute_interactive(code, timeout=120, output_hook=lambda message: None)["content"]
        assert reply["status"] == "ok", reply

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        execute(CELL.format(tests=str(ROOT / "tests"), folder=str(tmp_path)))
        cell = client.execute("trainer.train(progress=False)")
        deadline = time.monotonic() + 120
        while not checkpoint_path(tmp_path).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=120))["parent_header"].get("msg_id") != cell:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        seen = load_checkpoint(checkpoint_path(tmp_path)).state["images_seen"]
        execute(f"assert trainer.images_seen == {seen}")
        execute("assert sample_images(trainer.ema_denoiser, 2, num_steps=2).isfinite().all()")
        execute(f"trainer.train(until={seen + 8}, progress=False)")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    trainer_of(tmp_path / "whole", 4_000_000).train(until=seen + 8, progress=False)
    found, expected = (load_checkpoint(checkpoint_path(folder)).tensors for folder in (tmp_path, tmp_path / "whole"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The bytes of a denoiser's checkpoint, and a path to put damaged ones."""
    path = tmp_path_factory.mktemp("small") / "denoiser.safetensors"
    trainer_of().save_denoiser(path)
    return path.read_bytes(), path


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_checkpoint_with_any_piece_replaced_is_refused(small, data):
    content, path = small
    near = st.one_of(st.integers(0, 20), st.integers(0, 4000), st.integers(0, len(content)))  # the header is in front
    start = data.draw(near)
    piece = data.draw(st.one_of(st.binary(min_size=1, max_size=12), st.just(b"\xff" * 8), st.just(b"9" * 30)))
    end = data.draw(st.sampled_from([start, start + len(piece), start + 1, len(content)]))
    damaged = content[:start] + piece + content[end:]
    path.write_bytes(damaged)
    if damaged != content:
        with pytest.raises(LessonError, match=r"denoiser\.safetensors"):
            load_denoiser(path, "cpu")


def other_files(folder):
    """Files that are no checkpoint, whatever their names say."""
    (folder / "empty").touch()
    (folder / "text").write_text("edm_lesson: {}\n" * 100)
    (folder / "zeros").write_bytes(bytes(5000))
    (folder / "folder").mkdir()
    (folder / "folder" / "checkpoint.safetensors").mkdir(parents=True)
    Image.new("L", (28, 28)).save(folder / "picture", "png")
    with zipfile.ZipFile(folder / "archive", "w") as archive:
        archive.writestr("checkpoint.safetensors", bytes(100))
    np.savez(folder / "arrays.npz", images=np.zeros((2, 1, 28, 28), np.uint8))
    torch.save({"model": torch.zeros(3)}, folder / "pickle")
    save_file({"weight": torch.zeros(3)}, folder / "foreign")
    return sorted(path for path in folder.iterdir())


def test_other_files_are_refused_as_checkpoints_in_one_sentence(run, tmp_path):
    (tmp_path / "files").mkdir()
    for path in other_files(tmp_path / "files"):
        code, _, message = run("sample", "--device", "cpu", "--checkpoint", path, "--out", tmp_path / "x.png")
        assert code not in (0, None), path
        assert path.name in message, (path, message)
        assert message.startswith("edm-lesson: "), message
        assert not (tmp_path / "x.png").exists()


def test_a_model_without_a_run_is_no_checkpoint_to_go_on_with(run, tmp_path):
    trainer_of().save_denoiser(checkpoint_path(tmp_path))
    code, _, message = run("train", "--resume", "--device", "cpu", "--out", tmp_path)
    assert code not in (0, None)
    assert "holds a model alone, to sample from; training can't go on with it" in message


def test_weights_of_another_network_are_refused(tmp_path):
    trainer = trainer_of(tmp_path)
    del trainer.ema.module.network.conv_out.bias
    trainer.save_denoiser(tmp_path / "other.safetensors")
    with pytest.raises(LessonError, match="are not those of the network in its configuration"):
        load_denoiser(tmp_path / "other.safetensors", "cpu")


def test_a_damaged_environment_is_told_and_damaged_metrics_are_refused(tmp_path):
    trainer_of(tmp_path).train(until=16, progress=False)
    (tmp_path / "environment.json").write_bytes(b"\xff{")
    with pytest.warns(UserWarning, match="won't end bitwise as if never interrupted: torch was None"):
        trainer_of(tmp_path).resume().train(until=24, progress=False)
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes().replace(b"loss", b"l\0ss", 1).replace(b'"', b"", 1))
    with pytest.raises(LessonError, match=r"metrics\.jsonl is damaged .*Move it away: the run can go on without it"):
        trainer_of(tmp_path).resume().train(progress=False)
    metrics.unlink()
    trainer_of(tmp_path).resume().train(progress=False)


TRAPS = [
    "!!python/object/apply:os.mkdir [{trap}]",
    "!!python/object/new:os.mkdir [{trap}]",
    "sigma_data: !!python/object/apply:os.mkdir [{trap}]",
    "training: {{images: !!python/object/apply:os.mkdir [{trap}]}}",
    "? !!python/object/apply:os.mkdir [{trap}]\n: 1",
]


@pytest.mark.parametrize("text", TRAPS)
def test_a_configuration_that_would_run_code_is_refused_and_runs_nothing(tmp_path, text):
    trap = tmp_path / "sprung"
    (tmp_path / "trap.yaml").write_text(text.format(trap=trap))
    with pytest.raises(LessonError, match=r"trap\.yaml is not valid YAML"):
        load_config(tmp_path / "trap.yaml")
    with pytest.raises(LessonError):
        load_config("smoke", [f"sigma_data=!!python/object/apply:os.mkdir [{trap}]"])
    assert not trap.exists()


LESSON = (CONFIG_FOLDER / "lesson.yaml").read_bytes()
PIECES = st.one_of(
    st.binary(max_size=6),
    st.text(max_size=6).map(str.encode),
    st.sampled_from(
        [b"!!bool x", b"!!int ''", b"!!timestamp x", b"&a [*a]", b"2020-99-99", b"- ", b"[" * 2000, b"9" * 400]
    ),
)


@pytest.fixture(scope="module")
def any_yaml(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "damaged.yaml"


@settings(deadline=None, max_examples=150)
@given(st.integers(0, len(LESSON)), st.integers(0, 12), PIECES, st.sampled_from([(), ("training.images=5",)]))
def test_a_configuration_with_any_piece_replaced_is_read_or_refused(any_yaml, start, length, piece, overrides):
    any_yaml.write_bytes(LESSON[:start] + piece + LESSON[start + length :])
    try:
        config = load_config(any_yaml, overrides)
    except (LessonError, ValueError):
        return
    assert isinstance(config, Config)


@contextmanager
def refused_by_name(path):
    """What happens inside works, or raises a `LessonError` that names the file."""
    refusal = None
    try:
        yield
    except LessonError as error:
        refusal = str(error)
    assert refusal is None or path.name in refusal


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "mine.npz"
    np.savez_compressed(path, images=np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8), labels=np.arange(4))
    return path.read_bytes(), path


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_npz_file_is_refused_or_holds_images(archive, data):
    content, path = archive
    start = data.draw(st.integers(0, len(content)))
    piece = data.draw(st.binary(min_size=1, max_size=8))
    end = data.draw(st.sampled_from([start, start + len(piece), len(content)]))
    path.write_bytes(content[:start] + piece + content[end:])
    with refused_by_name(path):
        images = load_images(path)
        assert images.pixels.dtype == torch.uint8
        assert images.labels.shape == (len(images),)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda file: np.save(file, np.zeros((2, 1, 8, 8), np.uint8)), "can't be read as an .npz file"),
        (lambda file: np.savez(file, images=np.zeros((2, 1, 8, 8), np.uint8), labels=np.zeros(3, int)), "labels"),
        (lambda file: np.savez(file, images=np.zeros((2, 1, 8, 8), np.uint8), labels=np.array([-1, 0])), "labels"),
        (lambda file: np.savez(file, images=np.zeros((2, 1, 8, 8), np.uint8), labels=np.zeros(2)), "labels"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(tmp_path, save, message):
    with open(tmp_path / "mine.npz", "wb") as file:
        save(file)
    with pytest.raises(LessonError, match=message):
        load_images(tmp_path / "mine.npz")


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    Image.MAX_IMAGE_PIXELS, limit = 1000, Image.MAX_IMAGE_PIXELS  # no gigabytes for a damaged size
    folder = tmp_path_factory.mktemp("album")
    pixels = torch.randint(0, 256, (9, 9, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = {}
    for suffix in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        Image.fromarray(pixels.numpy()).save(folder / f"a.{suffix}")
        pictures[suffix] = (folder / f"a.{suffix}").read_bytes()
        (folder / f"a.{suffix}").unlink()
    yield folder, pictures
    Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it has put up with
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_picture_is_refused_or_shows_something(album, data):
    folder, pictures = album
    suffix = data.draw(st.sampled_from(sorted(pictures)))
    start = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(pictures[suffix]))))
    piece = data.draw(st.binary(max_size=4))
    end = data.draw(st.sampled_from([start + len(piece), start + len(piece), len(pictures[suffix])]))
    path = folder / f"a.{suffix}"
    path.write_bytes(pictures[suffix][:start] + piece + pictures[suffix][end:])
    with refused_by_name(path):
        assert load_images(folder, img_resolution=8).pixels.shape == (1, 3, 8, 8)
    path.unlink()


NO_NETWORK = """
import os, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        target = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments
        host = target if isinstance(target, str) else target[0]
        if not str(host).startswith(("127.", "localhost", "::1", "/", "None", "0.0.0.0")) and host not in (b"", ""):
            with open(os.environ["ATTEMPTS"], "a") as file:
                file.write(f"{event} {target}\\n")
            raise OSError("the network is unreachable")

sys.addaudithook(refuse)
"""

COMMANDS = """
import errno, socket
from edm_lesson.cli import app

if {read_only}:
    try:
        open({root!r} + "/written", "w")
    except OSError as error:
        assert error.errno == errno.EROFS, error
    else:
        raise AssertionError("the checkout can be written to: this tests nothing")
tiny = ["--device", "cpu", "--config", "smoke", "--set", "training.images=64", "--set", "training.sample_every=64"]
app(["train", *tiny], standalone_mode=False)
app(["train", *tiny[:2], "--resume", "--out", "runs/smoke"], standalone_mode=False)
app(["sample", "--device", "cpu", "--num-steps", "2", "--checkpoint", "runs/smoke"], standalone_mode=False)
app(["sample", "--device", "cpu", "--num-steps", "2", "--out", "lesson.npz"], standalone_mode=False)
app(["course", "--only", "02"], standalone_mode=False)
"""


def read_only_checkout():
    """The beginning of a command that sees the checkout read-only, root or not; a reason where there is none here."""
    mount = f"mount --bind '{ROOT}' '{ROOT}' && mount -o remount,ro,bind '{ROOT}'"
    for unshare in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        start = [*unshare, "sh", "-c", mount + ' && exec "$@"', "sh"]
        if shutil.which("unshare") and subprocess.run([*start, "true"], capture_output=True).returncode == 0:
            return start, None
    return [], "unshare can't mount the checkout read-only here: not root, and no user namespaces"


def test_all_works_in_a_foreign_home_elsewhere_without_network_and_writes_nothing_to_the_checkout(tmp_path):
    home, elsewhere, site = tmp_path / "Zoë's hôme 家", tmp_path / "work in progress ñ", tmp_path / "site"
    for folder in (home, elsewhere, site):
        folder.mkdir()
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDM_LESSON", "XDG", "JUPYTER"))}
    environment = kept | {"HOME": str(home), "PYTHONPATH": str(site), "ATTEMPTS": str(tmp_path / "attempts")}
    start, reason = read_only_checkout()
    commands = COMMANDS.format(read_only=not reason, root=str(ROOT))

    def call(code):
        command = [*start, sys.executable, "-c", code]
        return subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=1500)

    asked = call("import urllib.request; urllib.request.urlopen('http://example.org')")
    assert "the network is unreachable" in asked.stderr
    assert (tmp_path / "attempts").read_text().startswith("socket."), "this test notices an attempt"
    (tmp_path / "attempts").unlink()

    done = call(commands)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "attempts").exists(), (tmp_path / "attempts").read_text()
    assert {path.name for path in elsewhere.iterdir()} == {"digits.png", "lesson.npz", "runs"}
    assert (elsewhere / "runs" / "course" / "02_the_sigma_schedule.ipynb").exists()
    assert not (home / ".cache" / "edm_lesson").exists(), "MNIST is read in memory"
    if reason:
        pytest.skip(f"All but the read-only checkout was tested. {reason}.")
