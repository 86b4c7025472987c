"""Sweeps: how good a model's digits are over steps, solver, rho, churn and design, as one tidy CSV.

A row is one sampling seed at one setting. A sweep that was stopped is taken up where it stopped: rows that the file has
are not measured again.
"""

import csv
import hashlib
import os
import time
from itertools import product
from pathlib import Path

import torch
from tqdm.auto import tqdm

from edm_lesson.checks import check_choice, check_count
from edm_lesson.designs import DESIGNS
from edm_lesson.evaluation import evaluate_seed, mean_and_spread
from edm_lesson.samplers.general import default_range

SETTINGS = ("design", "solver", "num_steps", "sigma_max", "rho", "S_churn")
KEY = ("weights", "num_samples", *SETTINGS, "seed")  # what tells rows apart
MEASURED = ("nfe", "distance_ratio", "recognised", "nearest", "copies", "seconds")
WORDS = ("weights", "design", "solver")


class SweepError(RuntimeError):
    """A file is no sweep's; the message says which and what to do."""


def sweep_points(design=("edm",), solver=(None,), num_steps=(18,), sigma_max=(None,), rho=(7.0,), S_churn=(0.0,)):
    """Every combination of the choices, each once, as dictionaries of `SETTINGS`.

    `solver` and `sigma_max` None are the design's own; `rho` is None where the design has no use for it. Raises
    `ValueError` for a design or solver that there is not.
    """
    points = []
    for values in product(design, solver, num_steps, sigma_max, rho, S_churn):
        point = dict(zip(SETTINGS, values, strict=True))
        check_choice("design", point["design"], DESIGNS)
        rows = DESIGNS[point["design"]].sampler
        point["solver"] = point["solver"] or rows["solver"]
        check_choice("solver", point["solver"], ("heun", "euler"))
        if point["sigma_max"] is None:
            point["sigma_max"] = default_range(rows["discretization"])[1]
        if rows["discretization"] != "edm":
            point["rho"] = None
        if point not in points:
            points.append(point)
    return points


def sweep(denoiser, judge, points, path, seeds=3, batch_size=250, progress=True):
    """Measure `judge.count` samples of `denoiser` at each of `points` with each of `seeds` seeds; the rows, as a list.

    The CSV file `path` is read first and written after every row. All points get their first seed, then their second,
    and so on. Raises `SweepError` where `path` is no sweep's, and `ValueError` for settings that can't be sampled.
    """
    check_count("seeds", seeds)
    path, weights = Path(path), digest(denoiser)
    rows = read_sweep(path)
    measured = {key_of(row): row for row in rows}
    wanted = [
        {"weights": weights, "num_samples": judge.count, **point, "seed": seed}
        for seed in range(seeds)
        for point in points
    ]
    missing = [row for row in wanted if key_of(row) not in measured]
    for row in tqdm(missing, unit="point", disable=not progress):
        design, started = DESIGNS[row["design"]], time.perf_counter()
        settings = {name: row[name] for name in SETTINGS[1:] if row[name] is not None}
        found = evaluate_seed(denoiser, judge, row["seed"], sampler=design.sample, batch_size=batch_size, **settings)
        row["nfe"] = row["num_steps"] if row["solver"] == "euler" else 2 * row["num_steps"] - 1
        row |= {name: found[name] for name in MEASURED if name in found}
        row["seconds"] = round(time.perf_counter() - started, 2)
        rows.append(row)
        measured[key_of(row)] = row
        write_rows(path, (*KEY, *MEASURED), rows)
    return [measured[key_of(row)] for row in wanted]


def digest(denoiser):
    """Twelve hexadecimal digits that tell a denoiser's weights from others."""
    total = hashlib.sha256()
    for name, tensor in sorted(denoiser.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()[:12]


def key_of(row):
    """What tells a row from others, as text: numbers are compared as they are written in the file."""
    return tuple(as_text(row[name]) for name in KEY)


def as_text(value):
    """A value as it is written in the file: numbers with at most ten digits, nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.10g}"


def read_sweep(path):
    """The rows of a sweep's CSV file; none where there is no file. Raises `SweepError` for another file."""
    if not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        try:
            if tuple(reader.fieldnames or ()) != (*KEY, *MEASURED):
                raise ValueError(f"its columns are {', '.join(reader.fieldnames or ['none'])}")
            return [
                {name: text if name in WORDS else float(text) if text else None for name, text in row.items()}
                for row in reader
            ]
        except (ValueError, TypeError, UnicodeDecodeError) as error:
            raise SweepError(f"{path} holds no sweep ({error}). Choose another file, or move it away.") from error


def write_rows(path, columns, rows):
    """Write the `columns` of `rows`, a list of dictionaries, to the CSV file `path`, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([as_text(row[name]) for name in columns] for row in rows)
    os.replace(part, path)


def groups_of(rows):
    """`rows` of one sweep as {setting that varies: value, …} -> rows of all its seeds: a list of pairs."""
    varied = [name for name in SETTINGS if len({as_text(row[name]) for row in rows}) > 1] or ["num_steps"]
    groups = {}
    for row in rows:
        groups.setdefault(tuple(as_text(row[name]) for name in varied), []).append(row)
    return [(dict(zip(varied, values, strict=True)), group) for values, group in groups.items()]


def sweep_table(rows):
    """A table as text: what varies, network evaluations, ratio and share recognised, mean ± spread over the seeds."""
    groups = groups_of(rows)
    names = list(groups[0][0])
    lines = ["".join(f"{name:>10}" for name in names) + f"{'NFE':>6}  {'distance ratio':>16}  {'recognised':>16}"]
    for values, group in groups:
        ratio, recognised = ([row[name] for row in group] for name in ("distance_ratio", "recognised"))
        lines.append(
            "".join(f"{value or '–':>10}" for value in values.values())
            + f"{group[0]['nfe']:>6g}  {mean_and_spread(ratio):>16}  {mean_and_spread(recognised, 100, 1) + ' %':>16}"
        )
    return "\n".join(lines)


def sweep_lines(rows, measure="distance_ratio"):
    """What to draw of a sweep: the name of the x axis, and {line: (x, list of one value a seed)}, sorted by x.

    x is the number of network evaluations where that varies, or else the number that does.
    """
    groups = groups_of(rows)
    numbers = [name for name in groups[0][0] if name not in WORDS]
    x = "nfe" if len({row["nfe"] for row in rows}) > 1 or not numbers else numbers[-1]
    lines = {}
    for values, group in groups:
        name = ", ".join(
            value if key in WORDS else f"{key} {value or '–'}"
            for key, value in values.items()
            if key not in (x, "num_steps" if x == "nfe" else x)
        )
        lines.setdefault(name, []).append((group[0][x], [row[measure] for row in group]))
    return x, {name: tuple(zip(*sorted(points), strict=True)) for name, points in lines.items()}
