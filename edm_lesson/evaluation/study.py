"""Studies: the same training with one thing changed at a time, each repeated with several seeds and measured alike.

runs/studies/ablation/
  A/seed0/      the run of row A with training seed 0, as `edm-lesson train` keeps one; result.json once it is measured
  ablation.csv  a line for each of them; ablation.png the same as a picture
"""

import csv
import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from edm_lesson import LessonError
from edm_lesson.checkpoints import load_denoiser
from edm_lesson.checks import check_choice, check_count
from edm_lesson.config import CONFIG_FOLDER, config_to_dict, load_config
from edm_lesson.data import choose_device, load_images
from edm_lesson.designs import DESIGNS
from edm_lesson.evaluation import batch_size_for, evaluate_seed, mean_and_spread
from edm_lesson.evaluation.sweep import as_text
from edm_lesson.training import Trainer
from edm_lesson.training.run import checkpoint_path, describe_environment, write_text

COLUMNS = (
    *("study", "row", "seed", "images", "parameters", "num_samples", "num_steps", "nfe"),
    *("distance_ratio", "recognised", "nearest", "copies", "seconds"),
)


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


def read_result(study, folder, row, seed, num_samples=None, num_steps=None):
    """What was measured of a `row` with a `seed`; None where nothing was.

    Raises `LessonError` where it was trained with other settings, where it was measured with another `num_samples` or
    `num_steps` than are given here, and where the file is damaged.
    """
    path = run_folder(folder, row, seed) / "result.json"
    if not path.exists():
        return None
    again = f"move {path} away to measure the run anew, without training"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        measured, config = result["measured"], result["config"]
    except (ValueError, TypeError, KeyError) as error:
        raise LessonError(f"{path} is damaged ({error}); {again}.") from error
    if config != config_to_dict(study.settings(row, seed)):
        raise LessonError(
            f"{path.parent} was trained with other settings than row {row!r} has with {study.images:,} images. "
            "Choose another --out, or the same --images."
        )
    for name, wanted in {"num_samples": num_samples, "num_steps": num_steps}.items():
        if wanted not in (None, measured[name]):
            raise LessonError(
                f"{path.parent} was measured with {name} {measured[name]}, not {wanted}. Choose the same number or "
                f"another --out, or {again}."
            )
    return measured


def results_of(study, folder, seeds=None, num_samples=None, num_steps=None):
    """What was measured so far with the seeds 0 to `seeds` - 1 (default: all there are), as `read_result` gives it.

    A list of dictionaries of `COLUMNS`, row by row and seed by seed.
    """
    found = []
    for row in study.rows:
        there = sorted(int(path.name[4:]) for path in run_folder(folder, row, 0).parent.glob("seed*[0-9]"))
        for seed in there if seeds is None else range(seeds):
            found.append(read_result(study, folder, row, seed, num_samples, num_steps))
    return [measured for measured in found if measured]


def write_table(study, folder):
    """Write all that was measured in `folder`, whatever the seed, to its CSV file; several processes may do so."""
    path = Path(folder) / f"{study.name}.csv"
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([as_text(measured[name]) for name in COLUMNS] for measured in results_of(study, folder))
    os.replace(part, path)


def run_study(
    study, make_judge, folder, rows=None, seeds=1, num_samples=2000, num_steps=18, device=None, progress=True
):
    """Train and measure what is missing of `rows` (default: all) with the seeds 0 to `seeds` - 1; all results so far.

    All rows get their first seed, then their second, and so on. `make_judge(num_samples)`, called when the first run
    has been trained, gives the judge of the samples, which EDM's deterministic sampler draws in `num_steps` steps,
    whatever the row was trained for. What was interrupted is taken up at its last checkpoint; several processes may
    work on different rows of one folder. The CSV file is written after every run, with all seeds that were measured.
    Raises `LessonError` where a run in the folder had other settings or was measured otherwise, and `ValueError` for a
    row that there is not, and for numbers that make no sense.
    """
    check_study(study, rows, seeds, num_samples)
    folder, device, judge = Path(folder), choose_device(device), cache(lambda: make_judge(num_samples))
    if folder.exists() and not folder.is_dir():
        raise LessonError(f"{folder} is a file; a study is kept in a folder. Choose another --out.")
    measure = {"num_samples": num_samples, "num_steps": num_steps}
    results_of(study, folder, seeds, **measure)  # what is wrong there is said before hours of training
    for seed in range(seeds):
        for row in rows or study.rows:
            if read_result(study, folder, row, seed, **measure):
                continue
            if progress:
                print(f"{study.name} {row}, seed {seed}: {study.rows[row][0]}", flush=True)
            measured = train_and_measure(study, judge, folder, row, seed, num_steps, device, progress)
            path = run_folder(folder, row, seed) / "result.json"
            facts = {"measured": measured, "config": config_to_dict(study.settings(row, seed))}
            write_text(path, json.dumps({**facts, "environment": describe_environment(device)}, indent=2) + "\n")
            write_table(study, folder)
    write_table(study, folder)
    return results_of(study, folder, seeds, **measure)


def check_study(study, rows, seeds, num_samples):
    """Refuse `rows` that `study` hasn't, and numbers that make no sense. Raises `ValueError`."""
    check_count("seeds", seeds)
    check_count("num_samples", num_samples, minimum=2)
    for row in rows or ():
        check_choice("row", row, study.rows)


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
        "nfe": DESIGNS["edm"].nfe(num_steps),
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
