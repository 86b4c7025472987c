"""Saving and loading: safetensors files that carry their configuration and a digest of all they hold.

A checkpoint is tensors and a JSON header, nothing that could run. It is written whole or not at all, and
verified before a single weight is used.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from stat import S_ISREG
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from edm_lesson import LessonError
from edm_lesson.checks import check_count
from edm_lesson.config import Config, config_from_dict
from edm_lesson.data import choose_device, data_folder
from edm_lesson.data.files import written
from edm_lesson.designs import build_denoiser, parameters_at_least

PRETRAINED = ("lesson", "lesson-conditional")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: the configuration, named tensors, and plain values such as `images_seen`."""

    config: Config
    tensors: dict[str, Tensor]
    state: dict

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `name` and a dot, without that prefix."""
        return {key[len(name) + 1 :]: tensor for key, tensor in self.tensors.items() if key.startswith(f"{name}.")}

    def restore(self, name: str, module: Module | None = None) -> Module:
        """Give `module`, or a new denoiser, the weights of the part `name`; returns it."""
        try:
            tensors = self.part(name)
            if module is None:
                if parameters_at_least(self.config) > sum(map(torch.numel, tensors.values())):
                    raise ValueError("there are too few")  # before room is made for more
                module = build_denoiser(self.config)
            types = [{key: each.dtype for key, each in of.items()} for of in (tensors, module.state_dict())]
            if types[0] != types[1]:
                raise ValueError("their names or types differ")
            module.load_state_dict(tensors)
            return module
        except (RuntimeError, ValueError) as error:
            found = f"The weights {name!r} of the checkpoint are not those of the network in its configuration"
            raise LessonError(f"{found}: take the version of edm_lesson that wrote it, or train again.") from error


def save_checkpoint(
    path: str | Path, config: Config, tensors: dict[str, Tensor], keep_previous: bool = False, **state: Any
) -> str:
    """Write named `tensors`, the `config` and plain values to `path`; the rest is as in `save_tensors`."""
    return save_tensors(path, tensors, {"config": asdict(config), "state": state}, keep_previous)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The `Checkpoint` in the file `path`, verified; its tensors are on the CPU.

    A `LessonError` says what is wrong with the file, and offers the one before it where that is whole and this isn't.
    """
    path = Path(path).expanduser()
    try:
        return _load_checkpoint(path)
    except LessonError as error:
        if isinstance(error.__cause__, OSError):  # it can't be read, and may be the best there is
            raise
        try:
            seen = _load_checkpoint(previous_path(path)).state["images_seen"]
        except LessonError:
            raise error from None
        raise LessonError(
            f"{error} The one before it, {previous_path(path).name}, is whole ({seen:,} images); "
            f"go on from there with: edm-lesson train --resume --previous --out {quote(str(path.parent))}"
        ) from error


def _load_checkpoint(path):
    tensors, header = load_tensors(path)
    if not isinstance(header, dict) or not header.keys() >= {"config", "state"}:
        raise LessonError(f"{path} holds no denoiser: its header is {header!s:.100}. Give another.")
    with well_formed(path):
        config, state = config_from_dict(header["config"], source=str(path)), header["state"]
        check_count("images_seen", state["images_seen"], minimum=0)
        offset = state.pop("offset", [])  # what version 0.1 took off the images
        if any(offset):  # the denoiser takes that off itself today
            config = replace(config, data=replace(config.data, center=True))
            mean = torch.tensor(offset * (config.data.img_channels // len(offset))).reshape(-1, 1, 1)
            for name in [name for name in tensors if not name.startswith("optimizer.")]:
                part, _, rest = name.partition(".")
                tensors |= {f"{part}.denoiser.{rest}": tensors.pop(name), f"{part}.mean": mean}
    return Checkpoint(config, tensors, state)


@contextmanager
def well_formed(path: str | Path) -> Iterator[None]:
    """Refuse, whatever goes wrong with it, what the file `path` holds: it is whole, but was not written here."""
    try:
        yield
    except LessonError:
        raise
    except Exception as error:  # it may hold anything
        raise LessonError(f"{path} is whole, but malformed ({error!r:.200}). Take another, or train again.") from None


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """What `optimizer` remembers of every parameter, as tensors named `optimizer.<number>.<what>`."""
    state = optimizer.state_dict()["state"].items()
    return {f"optimizer.{k}.{name}": torch.as_tensor(value) for k, values in state for name, value in values.items()}


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give Adam back what `optimizer_tensors` took, without the prefix; its settings are not changed."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for number, parameter in enumerate(parameters if tensors else []):
        step, *moments = (tensors[f"{number}.{name}"] for name in ("step", "exp_avg", "exp_avg_sq"))
        if any((each.shape, each.dtype) != (parameter.shape, parameter.dtype) for each in moments) or step.ndim:
            raise ValueError(f"optimizer.{number} is not shaped like its parameter")
        # fused Adam walks through memory: moments must be laid out like their parameter
        first, second = (torch.empty_like(parameter).copy_(each) for each in moments)
        state[number] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def previous_path(path: str | Path) -> Path:
    """Where the checkpoint before the one at `path` is kept: beside it, `checkpoint.previous.safetensors`."""
    return Path(path).with_name(f"{Path(path).stem}.previous{Path(path).suffix}")


def save_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict, keep_previous: bool = False) -> str:
    """Write named `tensors` and `header`, a dictionary of plain values, to `path` with a SHA-256 over both, returned.

    An older file is replaced only once all is written; with `keep_previous` it stays at `previous_path`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    digest = _digest(text, tensors)
    with written(path, previous_path(path) if keep_previous else None) as part:
        part.write_bytes(save(tensors, {"edm_lesson": text, "digest": digest}))
    return digest


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors, on the CPU, and the header that `save_tensors` wrote to `path`, verified."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if "edm_lesson" not in metadata:
        raise LessonError(f"{path} was not written by edm_lesson: it has no configuration. Load its weights by hand.")
    found, expected = _digest(metadata["edm_lesson"], tensors), metadata.get("digest")
    if found != expected:
        raise LessonError(f"{path} is damaged or was changed: its digest is {found}, not {expected}. Take another.")
    with well_formed(path):
        return tensors, json.loads(metadata["edm_lesson"])


@contextmanager
def _opened(path):
    """The file `path`, opened; where that can't be read, an `OSError` is the cause of the `LessonError`."""
    try:
        if not S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is no file")
        with open(path, "rb"), safe_open(path, framework="pt") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise LessonError(
            f"There is no checkpoint {path}; train one: edm-lesson train --out {quote(str(Path(path).parent))}"
        ) from None
    except OSError as error:
        raise LessonError(
            f"{path} can't be read ({error.strerror or error}), and may be whole: see to the disk and who may read it."
        ) from error
    except (SafetensorError, ValueError) as error:
        raise LessonError(f"{path} is no checkpoint, or was cut short ({error}). Take another, or train.") from error


def metadata_of(path: str | Path) -> dict[str, str]:
    """What `save_tensors` wrote to `path` beside the tensors: `digest` and, as JSON, `edm_lesson`; not verified."""
    with _opened(path) as file:
        return file.metadata() or {}


def load_denoiser(name_or_path: str | Path, device: torch.device | str | None = None) -> Module:
    """The denoiser in a checkpoint, averaged weights (EMA), in evaluation mode, without gradients, with its `config`.

    Its `class_names` are those of the classes that it was trained on, as far as they have names.

    `name_or_path` is "lesson" or "lesson-conditional", the models that come with the course, a checkpoint file, or the
    folder of a training run. `device` defaults to the best there is (`data.choose_device`).
    """
    device = choose_device(device)  # refused before anything is read
    path = find_checkpoint(name_or_path)
    checkpoint = load_checkpoint(path)
    denoiser = checkpoint.restore("ema")
    denoiser.config = checkpoint.config
    with well_formed(path):
        denoiser.class_names = tuple(map(str, checkpoint.state.get("class_names", ())))
    return denoiser.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The file that a name in `PRETRAINED`, the folder of a run or a path stand for.

    Of a run, that of the averaged weights alone where it is as new as the checkpoint: no older, after as many images.
    """
    if name_or_path in PRETRAINED:
        path = data_folder() / "pretrained" / f"{name_or_path}.safetensors"
        if not path.is_file():
            raise LessonError(
                f"The pretrained model {name_or_path!r} is not at {path}. Set EDM_LESSON_DATA to the folder that holds "
                f"pretrained/, or train: edm-lesson train --config {name_or_path} --out runs/{name_or_path}"
            )
        return path
    path = Path(name_or_path).expanduser()
    if not path.is_dir():
        return path
    whole, alone = path / "checkpoint.safetensors", path / "denoiser.safetensors"
    try:
        seen = [json.loads(metadata_of(each)["edm_lesson"])["state"]["images_seen"] for each in (alone, whole)]
        return alone if alone.stat().st_mtime >= whole.stat().st_mtime and seen[0] == seen[1] else whole
    except Exception:  # one is missing or damaged, as is said when it is loaded
        return whole


def _digest(header, tensors):
    """SHA-256 over the header and every tensor: name, dtype, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
