"""Configurations: one YAML file a model, read strictly into dataclasses.

Units: images are counted in images (not batches), noise levels in the units of the images.
"""

import contextlib
import dataclasses
import difflib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from edm_lesson import LessonError
from edm_lesson.checks import check_choice, check_count, check_number

CONFIG_FOLDER = Path(__file__).parent / "configs"
COLUMNS = ("edm", "vp", "ve", "iddpm")
NETWORKS = ("lesson", "ddpmpp", "ncsnpp", "adm")
PRECISIONS = ("auto", "float32", "bf16", "fp16")


@dataclass(frozen=True)
class DataConfig:
    """What to train on; see `data.load_images`."""

    name: str = "mnist"
    img_resolution: int = 28
    img_channels: int = 1
    centre: bool = False


@dataclass(frozen=True)
class DesignConfig:
    """Which column of Table 1 each row is taken from: edm, vp, ve or iddpm; see `designs`."""

    preconditioning: str = "edm"
    loss: str = "edm"
    sampler: str = "edm"

    def __post_init__(self):
        for row, column in vars(self).items():
            check_choice(f"design.{row}", column, COLUMNS)


@dataclass(frozen=True)
class NetworkConfig:
    """The raw network, lesson, ddpmpp, ncsnpp or adm, and its settings; see `networks`.

    `label_dim` > 0 trains with class labels. `patch_size` is the lesson U-Net's alone, `label_dropout` that of the
    others. Augmentation adds its labels by itself.
    """

    name: str = "lesson"
    model_channels: int = 16
    channel_mult: tuple[int, ...] = (1, 3, 8)
    num_blocks: int = 1
    attn_resolutions: tuple[int, ...] = ()
    patch_size: int = 1
    dropout: float = 0.0
    label_dim: int = 0
    label_dropout: float = 0.0

    def __post_init__(self):
        check_choice("network.name", self.name, NETWORKS)
        if self.name != "lesson" and self.patch_size != 1:
            raise ValueError(f"network.patch_size is {self.patch_size}; {self.name} takes whole images: leave it at 1.")
        if self.name == "lesson" and self.label_dropout:
            raise ValueError(
                f"network.label_dropout is {self.label_dropout}; the lesson U-Net has none: leave it at 0, or take "
                "another network."
            )


@dataclass(frozen=True)
class LossConfig:
    """The noise levels that EDM's loss trains on, ln sigma ~ N(P_mean, P_std^2); see `losses.EDMLoss`."""

    P_mean: float = -1.2
    P_std: float = 1.2


@dataclass(frozen=True)
class AugmentConfig:
    """Non-leaking augmentation with probability `p`, 0 for none; see `augment.AugmentPipe`."""

    p: float = 0.0
    xflip: float = 1.0
    yflip: float = 1.0
    scale: float = 1.0
    rotate: float = 1.0
    aniso: float = 1.0
    translate: float = 1.0


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. `images`, `warmup`, `ema_half_life` and what ends in `_every` are counted in images.

    The learning rate rises linearly over `warmup` images and falls along a cosine to 0 at `images`. `ema_rampup`
    keeps the EMA's half-life below that share of the images seen so far. A gradient longer than `clip_norm` is
    shortened to that; `inf` leaves all as they are. `precision`: auto, float32, bf16 or fp16. `sample_every` 0 draws
    no sample grids.
    """

    images: int = 500_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 10_000
    ema_half_life: int = 20_000
    ema_rampup: float = 0.05
    clip_norm: float = 5.0
    precision: str = "auto"
    seed: int = 0
    log_every: int = 3_200
    save_every: int = 64_000
    sample_every: int = 64_000

    def __post_init__(self):
        for name in ("images", "batch_size", "log_every", "save_every"):
            check_count(f"training.{name}", getattr(self, name))
        for name in ("warmup", "ema_half_life", "sample_every", "seed"):
            check_count(f"training.{name}", getattr(self, name), minimum=0)
        check_number("training.learning_rate", self.learning_rate, above=0)
        check_number("training.ema_rampup", self.ema_rampup, above=0)
        check_number("training.clip_norm", self.clip_norm, above=0, infinite=True)
        check_choice("training.precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class Config:
    """A model and how it is trained. `sigma_data`, in [1e-6, 1e6], serves EDM's preconditioning and its loss alike."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    design: DesignConfig = field(default_factory=DesignConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sigma_data: float = 0.5
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self):
        check_number("sigma_data", self.sigma_data, at_least=1e-6, at_most=1e6)
        if self.design.loss != "edm" and self.loss != LossConfig():
            raise ValueError(
                f"loss.P_mean is {self.loss.P_mean} and loss.P_std {self.loss.P_std}; only EDM's loss has them, and "
                f"design.loss is {self.design.loss}: leave them out."
            )


def config_names():
    """The names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))


def load_config(name_or_path, overrides=()):
    """The configuration of that name (`config_names()`) or in that YAML file.

    `overrides` such as "training.batch_size=32" change single settings. Raises `LessonError` for a file that is
    missing or no YAML, an unknown key or name (the nearest valid one is given) and a value of the wrong type.
    """
    path = CONFIG_FOLDER / f"{name_or_path}.yaml"
    if str(name_or_path) not in config_names():
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            hint = _nearest(str(name_or_path), config_names())
            raise LessonError(
                f"There is no configuration {str(name_or_path)!r}{hint}; "
                f"there are {', '.join(config_names())}, or give a file."
            )
    tree = _parse(path.read_bytes(), str(path)) or {}
    if not isinstance(tree, dict):
        config_from_dict(tree, str(name_or_path))  # says what it is instead
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise LessonError(
                f"{override!r} is no setting; write it as section.key=value, such as training.batch_size=32."
            )
        *sections, last = key.strip().split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
            if not isinstance(branch, dict):
                raise LessonError(f"{key}: {section} is a value, not a section.")
        branch[last] = _parse(value, override)
    return config_from_dict(tree, str(name_or_path))


def config_from_dict(tree, source="configuration"):
    """A `Config` out of nested dictionaries, checked strictly; the inverse of `config_to_dict`."""
    return _build(Config, tree, source, "")


def config_to_dict(config):
    """Nested dictionaries of plain values, ready for YAML or JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))  # tuples become lists


class _StrictLoader(yaml.SafeLoader):
    """YAML without silent surprises: a key given twice is an error, and 1e-3 is a number."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise LessonError(
                    f"{key} is given twice in the section that starts on line {node.start_mark.line + 1}; keep one."
                )
        return super().construct_mapping(node, deep)


def _parse(text, source):
    try:
        return yaml.load(text, _StrictLoader)
    except LessonError:
        raise
    except Exception as error:  # YAMLError, and whatever else PyYAML stumbles over
        raise LessonError(f"{source} is not valid YAML: {error}") from error


def _nearest(word, words):
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _build(cls, tree, source, where):
    if not isinstance(tree, dict):
        raise LessonError(f"{source}: {where.rstrip('.') or 'the file'} is {tree!r}; it must be a section with keys.")
    kinds = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        if key not in kinds:
            raise LessonError(
                f"{source}: unknown key {where}{key}{_nearest(str(key), kinds)}. Keys: {', '.join(kinds)}."
            )
        if dataclasses.is_dataclass(kinds[key]):
            values[key] = _build(kinds[key], value, source, f"{where}{key}.")
        else:
            values[key] = _convert(kinds[key], value, source, f"{where}{key}")
    return cls(**values)


def _convert(kind, value, source, where):
    if isinstance(kind, types.GenericAlias):  # tuple[int, ...]
        if not isinstance(value, (list, tuple)):
            raise LessonError(f"{source}: {where} is {value!r}; it must be a list such as [1, 2].")
        return tuple(_convert(typing.get_args(kind)[0], entry, source, where) for entry in value)
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            value = float(value)
    if type(value) is not kind:
        word = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
        raise LessonError(f"{source}: {where} is {value!r}; it must be {word}.")
    return value
