"""Studies: the same training with one thing changed at a time, each repeated with several seeds and measured alike.

runs/studies/ablation/
  A/seed0/      the run of row A with training seed 0, as `edm-lesson train` keeps one
  ablation.csv  a line for each that was measured; ablation.png the same as a picture
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from edm_lesson import LessonError
from edm_lesson.checkpoints import load_denoiser
from edm_lesson.checks import check_choice, check_count
from edm_lesson.config import CONFIG_FOLDER, Config, load_config
from edm_lesson.data import choose_device
from edm_lesson.designs import DESIGNS
from edm_lesson.evaluation.judge import Judge, batch_size_for, evaluate
from edm_lesson.evaluation.table import MEASURES, Row, TableFile, summary, text_table
from edm_lesson.training.trainer import images_of, train_in


@dataclass(frozen=True)
class Study:
    """What is compared: `rows`, {name: (what it is, settings of `load_config`)}, from the same `config` and budget."""

    name: str
    config: str
    images: int
    rows: dict[str, tuple[str, list[str]]]

    def settings(self, row: str, seed: int) -> Config:
        """The configuration of a row, to be trained with `seed`."""
        config = load_config(self.config, self.rows[row][1])
        return replace(config, training=replace(config.training, images=self.images, seed=seed, sample_every=0))


def study_names() -> list[str]:
    """The names of the studies that come with the package."""
    return sorted(path.stem for path in (CONFIG_FOLDER / "studies").glob("*.yaml"))


def load_study(name: str, images: int | None = None) -> Study:
    """The study of that name (`study_names()`), each training on `images` images (default: the study's own number)."""
    check_choice("study", name, study_names())
    tree: Any = OmegaConf.to_container(OmegaConf.load(CONFIG_FOLDER / "studies" / f"{name}.yaml"))
    budget = tree["images"] if images is None else images
    check_count("images", budget)
    rows: dict[str, tuple[str, list[str]]] = {}
    before: list[str] = []
    for row, entry in tree["rows"].items():
        settings = [*before, *entry["settings"]]
        rows[row] = entry["what"], settings
        before = settings if tree["cumulative"] else []
    return Study(name, tree["config"], budget, rows)


def study_file(study: Study, folder: Path | str) -> TableFile:
    """The CSV file of a study that is kept in `folder`."""
    key = ("study", "row", "seed", "num_samples", "num_steps")
    other = ("images", "parameters", "nfe", *MEASURES[:4], "seconds")
    return TableFile(Path(folder) / f"{study.name}.csv", key, other)


def results_of(
    study: Study, folder: Path | str, seeds: int | None = None, num_samples: int = 2000, num_steps: int = 18
) -> list[Row]:
    """What was measured so far, row by row, with the seeds 0 to `seeds` - 1 (default: all there are)."""
    alike = {"num_samples": num_samples, "num_steps": num_steps}.items()
    found = [row for row in study_file(study, folder).read().values() if row.items() >= alike]
    found = [row for row in found if row["row"] in study.rows and (seeds is None or row["seed"] < seeds)]
    return sorted(found, key=lambda row: (list(study.rows).index(row["row"]), row["seed"]))


def check_study(study: Study, rows: Sequence[str], seeds: int, num_samples: int) -> None:
    """Refuse `rows` that `study` hasn't, and numbers that make no sense."""
    check_count("seeds", seeds)
    check_count("num_samples", num_samples, minimum=2)
    for row in rows:
        check_choice("row", row, study.rows)


def run_study(
    study: Study, make_judge: Callable[[int], Judge], folder: Path | str, rows: Sequence[str] | None = None, *,
    seeds: int = 1, num_samples: int = 2000, num_steps: int = 18, device: str | torch.device | None = None,
    progress: bool = True,
) -> list[Row]:  # fmt: skip
    """Train and measure what is missing of `rows` (default: all) with the seeds 0 to `seeds` - 1; all results so far.

    All rows get their first seed, then their second, and so on. `make_judge(num_samples)`, called when the first run
    has been trained, gives the judge of the samples, which EDM's deterministic sampler draws in `num_steps` steps,
    whatever the row was trained for. What was interrupted is taken up at its last checkpoint; several processes may
    work on different rows of one folder. A run in the folder that had other settings is refused.
    """
    check_study(study, rows or (), seeds, num_samples)
    device, judge = choose_device(device), cache(lambda: make_judge(num_samples))
    alike: Row = {"study": study.name, "num_samples": num_samples, "num_steps": num_steps}
    wanted = [alike | {"row": row, "seed": seed} for seed in range(seeds) for row in rows or study.rows]

    def run_of(row: Row) -> tuple[Path, Config]:
        out = Path(folder, row["row"].replace(" ", "_"), f"seed{row['seed']}")
        config = study.settings(row["row"], row["seed"])
        if (out / "config.yaml").exists() and load_config(out / "config.yaml") != config:
            raise LessonError(
                f"{out} was trained with other settings than row {row['row']!r} has with {study.images:,} images. "
                "Choose another --out, or the same --images."
            )
        return out, config

    def measure(row: Row) -> Row:
        if progress:
            print(f"{study.name} {row['row']}, seed {row['seed']}: {study.rows[row['row']][0]}", flush=True)
        out, config = run_of(row)
        trainer = train_in(out, config, images_of(config), device, resume=True, progress=progress)
        denoiser = load_denoiser(out, device)
        found = {"images": trainer.images_seen, "seconds": round(trainer.seconds, 1)}
        found |= {"parameters": sum(map(torch.numel, denoiser.parameters())), "nfe": DESIGNS["edm"].nfe(num_steps)}
        how = {"num_steps": num_steps, "batch_size": batch_size_for(device), "progress": progress}
        return found | evaluate(denoiser, judge(), row["seed"], **how)

    for row in wanted:
        run_of(row)  # what is wrong there is said before hours of training
    study_file(study, folder).complete(wanted, measure)
    return results_of(study, folder, seeds, num_samples, num_steps)


def study_table(study: Study, results: Sequence[Row], seeds: int = 1) -> str:
    """A table as text: each row with what it is, ratio and share recognised as mean ± spread over the seeds so far.

    Rows that lack seeds are marked with how many there are of how many.
    """
    lines = []
    for row, (what, _) in study.rows.items():
        found = [result for result in results if result["row"] == row]
        cells = summary(found, ("distance_ratio", "recognised")) if found else {"distance ratio": "missing"}
        lines.append({"row": row, **cells, "seeds": f"{len(found)}/{seeds}", "what": what})
    return text_table(lines, left=("row", "what"))
