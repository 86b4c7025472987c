"""Configurations: one YAML file a model, read strictly into dataclasses."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from edm_lesson import LessonError
from edm_lesson.checks import check_choice, check_count, check_number
from edm_lesson.designs import DESIGNS, NETWORKS

CONFIG_FOLDER = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class DataConfig:
    """What to train on, see `data.load_images`; `center` takes the images' mean off, see `preconditioning.Centered`."""

    name: str = "mnist"
    img_resolution: int = 28
    img_channels: int = 1
    center: bool = False

    def __post_init__(self) -> None:
        if "${" in self.name or self.name != self.name.encode(errors="ignore").decode():  # a reference; no text at all
            raise ValueError(f"data.name is {self.name!r}, which no YAML file can hold; rename that folder or file.")


@dataclass(frozen=True)
class DesignConfig:
    """Which column of Table 1 each row is taken from: edm, vp, ve or iddpm; see `designs`."""

    preconditioning: str = "edm"
    loss: str = "edm"
    sampler: str = "edm"

    def __post_init__(self) -> None:
        for row, column in vars(self).items():
            check_choice(f"design.{row}", column, DESIGNS)


@dataclass(frozen=True)
class NetworkConfig:
    """The raw network, lesson, ddpmpp, ncsnpp or adm, and its settings; see `networks`.

    `label_dim` > 0 trains with class labels. Augmentation adds its labels by itself.
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

    def __post_init__(self) -> None:
        check_choice("network.name", self.name, NETWORKS)
        check_count("len(network.channel_mult)", len(self.channel_mult))
        for mult in self.channel_mult:
            check_count("network.channel_mult", mult)
        for name, minimum in {"model_channels": 4, "num_blocks": 1, "patch_size": 1, "label_dim": 0}.items():
            check_count(f"network.{name}", getattr(self, name), minimum)
        if self.model_channels % 4:
            raise ValueError(f"network.model_channels is {self.model_channels}; it must be a multiple of 4.")


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

    def __post_init__(self) -> None:
        for name in ("images", "log_every", "save_every"):
            check_count(f"training.{name}", getattr(self, name), maximum=10**15)
        for name in ("warmup", "ema_half_life", "sample_every"):
            check_count(f"training.{name}", getattr(self, name), minimum=0)
        check_count("training.batch_size", self.batch_size, maximum=10**6)
        check_count("training.seed", self.seed, minimum=0, maximum=2**32 - 1)
        check_number("training.learning_rate", self.learning_rate, above=0)
        check_number("training.ema_rampup", self.ema_rampup, above=0)
        check_number("training.clip_norm", self.clip_norm, above=0, at_most=math.inf)
        check_choice("training.precision", self.precision, ("auto", "float32", "bf16", "fp16"))


@dataclass(frozen=True)
class Config:
    """A model and how it is trained. `sigma_data` serves EDM's preconditioning and its loss alike."""

    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    design: DesignConfig = field(default_factory=DesignConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    sigma_data: float = 0.5
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_number("sigma_data", self.sigma_data, at_least=1e-6, at_most=1e6)
        if self.design.loss != "edm" and self.loss != LossConfig():
            found = f"loss.P_mean is {self.loss.P_mean} and loss.P_std {self.loss.P_std}; only EDM's loss has them"
            raise ValueError(f"{found}, and design.loss is {self.design.loss}: leave them out.")


def config_names() -> list[str]:
    """The names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml"))


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of that name (`config_names()`) or in that YAML file.

    `overrides` such as "training.batch_size=32" change single settings. What is wrong there is told with its key.
    """
    name, names = str(name_or_path), config_names()
    path = CONFIG_FOLDER / f"{name}.yaml" if name in names else Path(name).expanduser()
    if not path.is_file() or path.stat().st_size > 1e6:
        offer = f"{_nearest(name, names)}; there are {', '.join(names)}, or give a file of at most 1 MB."
        raise LessonError(f"There is no configuration {name!r}{offer}")
    if wrong := [text for text in overrides if "=" not in text]:
        raise LessonError(f"{wrong[0]!r} is no setting; write it as section.key=value, such as training.batch_size=32.")
    try:  # a key given twice, code, and what would unfold without end are refused there
        trees = [OmegaConf.to_container(tree) for tree in (OmegaConf.load(path), OmegaConf.from_dotlist([*overrides]))]
    except Exception as error:  # YAMLError, and whatever else a YAML reader stumbles over
        told = " ".join(str(error).split())
        raise LessonError(f"{' '.join([str(path), *overrides])} is not valid YAML: {told}") from error
    return config_from_dict(*trees, source=name)


def config_from_dict(*trees: Any, source: str = "configuration") -> Config:
    """A `Config` out of nested dictionaries, as of `dataclasses.asdict`; later ones come before earlier ones."""
    config = OmegaConf.structured(Config)
    for tree in trees:
        _fill(config, tree, source)
    return cast(Config, OmegaConf.to_object(config))


def config_to_yaml(config: Config) -> str:
    """The text of a file that `load_config` reads."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _nearest(word, words):
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _fill(node, tree, source, where=""):
    """Put the values of nested dictionaries into `node`, OmegaConf's; what is wrong there is told with its key."""
    if not isinstance(tree, dict):
        raise LessonError(f"{source}: {where.rstrip('.') or 'the file'} is {tree!r}; it must be a section with keys.")
    OmegaConf.set_readonly(node, False)
    for key, value in tree.items():
        if f"{where}{key}" == "data.centre":  # its name in version 0.1
            key = "center"
        if key not in list(node):
            nearest = _nearest(str(key), list(node))
            raise LessonError(f"{source}: unknown key {where}{key}{nearest}. Keys: {', '.join(node)}.")
        if isinstance(node[key], DictConfig):
            _fill(node[key], value, source, f"{where}{key}.")
            continue
        if any(mark in str(value) for mark in ("${", "???")):  # OmegaConf's, for references (to secrets) and gaps
            raise LessonError(f"{source}: {where}{key} is {value!r}; references are not followed, so write the value.")
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        wanted = words.get(type(node[key]), "a list of whole numbers such as [1, 2]")
        try:
            OmegaConf.update(node, key, value)
        except Exception as error:  # OmegaConf's, or one of a conversion
            raise LessonError(f"{source}: {where}{key} is {value!r}; it must be {wanted}.") from error
