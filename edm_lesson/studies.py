"""Studies: the same training with one thing changed at a time, each repeated with several seeds and measured alike.

runs/studies/ablation/
  A/seed0/      the run of row A with training seed 0, as `edm-lesson train` keeps one; result.json once it is measured
  ablation.csv  a line for each of them; ablation.png the same as a picture
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from edm_lesson.checkpoints import load_denoiser
from edm_lesson.checks import check_choice, check_count
from edm_lesson.config import CONFIG_FOLDER, config_to_dict, load_config
from edm_lesson.data import choose_device, load_images
from edm_lesson.evaluation import batch_size_for, evaluate_seed, mean_and_spread
from edm_lesson.runs import checkpoint_path, describe_environment
from edm_lesson.sweeps import write_rows
from edm_lesson.training import Trainer

COLUMNS = (
    *("study", "row", "seed", "images", "parameters", "num_samples", "num_steps", "nfe"),
    *("distance_ratio", "recognised", "nearest", "copies", "seconds"),
)


class StudyError(RuntimeError):
    """A study can't go on; the message says why and what to do."""


@dataclass(frozen=True)
class Study:
    """What is compared: `rows`, {name: (what it is, settings of `load_config`)}, from the same `config` and budget."""

    name: str
    config: str
    images: int
    rows: dict

    def settings(self, row, seed):
        """The `Config` of a row, to be trained with `seed`. Raises `ValueError` for a row that there is not."""
        check_choice("row", row, self.rows)
        config = load_config(self.config, self.rows[row][1])
        return replace(config, training=replace(config.training, images=self.images, seed=seed, sample_every=0))


def study_names():
    """The names of the studies that come with the package."""
    return sorted(path.stem for path in (CONFIG_FOLDER / "studies").glob("*.yaml"))


def load_study(name, images=None):
    """The study of that name (`study_names()`), each training on `images` images (default: the study's own number).

    Raises `ValueError` for a name that there is not.
    """
    check_choice("study", name, study_names())
    tree = yaml.safe_load((CONFIG_FOLDER / "studies" / f"{name}.yaml").read_text(encoding="utf-8"))
    budget = tree["images"] if images is None else images
    check_count("images", budget)
    rows, before = {}, []
    for row, entry in tree["rows"].items():
        settings = [*before, *entry["settings"]]
        rows[row] = entry["what"], settings
        before = settings if tree["cumulative"] else []
    return Study(name, tree["config"], budget, rows)


def run_folder(folder, row, seed):
    """Where the run of a `row` with a `seed` lies in the study's folder."""
    return Path(folder) / row.replace(" ", "_") / f"seed{seed}"


def read_result(study, folder, row, seed):
    """What was measured of a `row` with a `seed`; None where nothing was.

    Raises `StudyError` where it was measured with other settings.
    """
    path = run_folder(folder, row, seed) / "result.json"
    if not path.exists():
        return None
    result = json.loads(path.read_text())
    if result["config"] != config_to_dict(study.settings(row, seed)):
        raise StudyError(
            f"{path.parent} was trained with other settings than row {row!r} has with {study.images:,} images. "
            "Choose another --out, or the same --images."
        )
    return result["measured"]


def results_of(study, folder, seeds):
    """All that was measured so far, row by row and seed by seed, as a list of dictionaries of `COLUMNS`."""
    found = [read_result(study, folder, row, seed) for row in study.rows for seed in range(seeds)]
    return [measured for measured in found if measured]


def run_study(study, make_judge, folder, rows=None, seeds=1, num_steps=18, device=None, progress=True):
    """Train and measure what is missing of `rows` (default: all) with the seeds 0 to `seeds` - 1; all results so far.

    All rows get their first seed, then their second, and so on. `make_judge()`, called when the first run has been
    trained, gives the judge of the samples, which EDM's deterministic sampler draws in `num_steps` steps, whatever the
    row was trained for. What was interrupted is taken up at its last checkpoint; several processes may work on
    different rows of one folder. The CSV file is written after every run. Raises `StudyError` where a run in the
    folder had other settings, and `ValueError` for a row that there is not.
    """
    check_count("seeds", seeds)
    for row in rows or ():
        check_choice("row", row, study.rows)
    folder, device, judge = Path(folder), choose_device(device), cache(make_judge)
    for seed in range(seeds):
        for row in rows or study.rows:
            if read_result(study, folder, row, seed):
                continue
            if progress:
                print(f"{study.name} {row}, seed {seed}: {study.rows[row][0]}", flush=True)
            measured = train_and_measure(study, judge, folder, row, seed, num_steps, device, progress)
            path = run_folder(folder, row, seed) / "result.json"
            facts = {"measured": measured, "config": config_to_dict(study.settings(row, seed))}
            path.write_text(json.dumps({**facts, "environment": describe_environment(device)}, indent=2) + "\n")
            write_rows(folder / f"{study.name}.csv", COLUMNS, results_of(study, folder, seeds))
    return results_of(study, folder, seeds)


def train_and_measure(study, judge, folder, row, seed, num_steps, device, progress):
    """One run of `run_study`, from where it stands to its measurement: a dictionary of `COLUMNS`."""
    config, out = study.settings(row, seed), run_folder(folder, row, seed)
    data = config.data
    images = load_images(
        data.name, img_resolution=data.img_resolution, img_channels=data.img_channels, centre=data.centre
    )
    trainer = Trainer(config, images, out, device)
    if checkpoint_path(out).exists():
        trainer.resume()
    trainer.train(progress=progress)
    trainer.save_denoiser(out / "denoiser.safetensors")
    denoiser = load_denoiser(out, device)
    settings = {"num_steps": num_steps, "batch_size": batch_size_for(device), "progress": progress}
    found = evaluate_seed(denoiser, judge(), seed, **settings)
    return {
        "study": study.name,
        "row": row,
        "seed": seed,
        "images": trainer.images_seen,
        "parameters": sum(parameter.numel() for parameter in denoiser.parameters()),
        "num_samples": judge().count,
        "num_steps": num_steps,
        "nfe": 2 * num_steps - 1,
        **{name: found[name] for name in ("distance_ratio", "recognised", "nearest", "copies")},
        "seconds": round(trainer.seconds, 1),
    }


def study_table(study, results, seeds=1):
    """A table as text: each row with what it is, ratio and share recognised as mean ± spread over the seeds so far.

    Rows that lack seeds are marked with how many there are of how many.
    """
    wide = max(len(row) for row in study.rows)
    lines = [f"{'':<{wide}}  {'distance ratio':>16}  {'recognised':>14}  {'seeds':>5}"]
    for row, (what, _) in study.rows.items():
        found = [result for result in results if result["row"] == row]
        if found:
            ratio, recognised = ([result[name] for result in found] for name in ("distance_ratio", "recognised"))
            told = f"{mean_and_spread(ratio):>16}  {mean_and_spread(recognised, 100, 1) + ' %':>14}"
        else:
            told = f"{'missing':>16}  {'':>14}"
        lines.append(f"{row:<{wide}}  {told}  {f'{len(found)}/{seeds}':>5}  {what}")
    return "\n".join(lines)
