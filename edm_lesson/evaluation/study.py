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
from edm_lesson.evaluation.judge import Judge, check_digits, check_set_size, evaluate
from edm_lesson.evaluation.table import Row, TableFile, summary, text_table
from edm_lesson.training.trainer import images_of, train_in

STUDIES = {path.stem: path for path in sorted((CONFIG_FOLDER / "studies").glob("*.yaml"))}


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
        check_digits(config)
        return replace(config, training=replace(config.training, images=self.images, seed=seed, sample_every=0))

    def file(self, folder: Path | str) -> TableFile:
        """What was measured of the study that is kept in `folder`."""
        return TableFile(Path(folder, f"{self.name}.csv"), ("study", "row", "seed", "num_samples", "num_steps"))

    def run(self, folder: Path | str, row: str, seed: int) -> tuple[Path, Config]:
        """Where in `folder` a row is trained with `seed`, and how; refuses a run there with other settings."""
        out, config = Path(folder, row.replace(" ", "_"), f"seed{seed}"), self.settings(row, seed)
        if (out / "config.yaml").exists() and load_config(out / "config.yaml") != config:
            raise LessonError(
                f"{out} was trained with other settings than row {row!r} has with {self.images:,} images. "
                "Choose another --out, or the same --images."
            )
        return out, config


def load_study(name: str, images: int | None = None, only: Sequence[str] = ()) -> Study:
    """The study of that name, with the rows `only` (default: all), each trained on `images` (default: its own)."""
    check_choice("study", name, STUDIES)
    tree: Any = OmegaConf.to_container(OmegaConf.load(STUDIES[name]))
    budget = tree["images"] if images is None else images
    check_count("images", budget)
    rows: dict[str, tuple[str, list[str]]] = {}
    before: list[str] = []
    for row, entry in tree["rows"].items():
        settings = [*before, *entry["settings"]]
        rows[row] = entry["what"], settings
        before = settings if tree["cumulative"] else []
    for row in only:
        check_choice("row", row, rows)
    return Study(name, tree["config"], budget, {row: rows[row] for row in rows if row in (only or rows)})


def results_of(
    study: Study, folder: Path | str, seeds: int | None = None, num_samples: int = 2000, num_steps: int = 18
) -> list[Row]:
    """What was measured so far, row by row, with the seeds 0 to `seeds` - 1 (default: all there are)."""
    alike = {"num_samples": num_samples, "num_steps": num_steps}.items()
    found = [row for row in study.file(folder).read().values() if row.items() >= alike]
    found = [row for row in found if row["row"] in study.rows and (seeds is None or row["seed"] < seeds)]
    return sorted(found, key=lambda row: (list(study.rows).index(row["row"]), row["seed"]))


def run_study(
    study: Study, make_judge: Callable[[int], Judge], folder: Path | str, *, seeds: int = 1, num_samples: int = 2000,
    num_steps: int = 18, device: str | torch.device | None = None,
) -> list[Row]:  # fmt: skip
    """Train and measure what is missing of the rows with the seeds 0 to `seeds` - 1; all their results.

    All rows get their first seed, then their second, and so on. `make_judge(num_samples)` is called when the first run
    has been trained. EDM's deterministic sampler draws for it, whatever the row was trained for. What was interrupted
    is taken up at its last checkpoint; several processes may work on different rows of one folder.
    """
    check_count("seeds", seeds, maximum=1000)
    check_set_size("num_samples", num_samples)
    check_count("num_steps", num_steps)
    device, judge = choose_device(device), cache(lambda: make_judge(num_samples))
    runs = {(row, seed): study.run(folder, row, seed) for seed in range(seeds) for row in study.rows}

    def measure(wanted: Row) -> Row:
        row, seed = wanted["row"], wanted["seed"]
        out, config = runs[row, seed]
        print(f"{study.name} {row}, seed {seed}: {study.rows[row][0]}", flush=True)
        trainer = train_in(out, config, images_of(config), device, resume=True)
        denoiser = load_denoiser(out, device)
        found = {"images": trainer.images_seen, "seconds": round(trainer.seconds, 1)}
        found |= {"parameters": sum(map(torch.numel, denoiser.parameters())), "nfe": DESIGNS["edm"].nfe(num_steps)}
        return found | evaluate(denoiser, judge(), seed, num_steps=num_steps, progress=True)

    alike = {"study": study.name, "num_samples": num_samples, "num_steps": num_steps}
    wanted = [alike | {"row": row, "seed": seed} for row, seed in runs]
    study.file(folder).complete(wanted, measure, progress=False)
    return results_of(study, folder, seeds, num_samples, num_steps)


def study_table(study: Study, results: Sequence[Row], seeds: int = 1) -> str:
    """A table as text: mean ± spread over the seeds so far, how many there are of `seeds`, and what each row is."""
    lines = []
    for row, (what, _) in study.rows.items():
        found = [result for result in results if result["row"] == row]
        cells = summary(found, ("distance_ratio", "recognised")) if found else {"distance ratio": "missing"}
        lines.append({"row": row, **cells, "seeds": f"{len(found)}/{seeds}", "what": what})
    return text_table(lines, left=("row", "what"))
