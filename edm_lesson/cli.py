"""The command line: `edm-lesson train`, `sample`, `evaluate`, `course` and the rest: `edm-lesson --help`."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from edm_lesson import LessonError, __version__, visible

app = typer.Typer(
    help="Train and sample EDM diffusion models (Karras et al. 2022), and run the course that builds them.\n\n"
    "Example: edm-lesson sample --num-samples 16 --out digits.png",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DEVICE = typer.Option(help="cpu, cuda, cuda:1, mps; default: the best.")
CHECKPOINT = typer.Option(help="lesson, lesson-conditional, a checkpoint, or a run's folder.")
PICTURES = (".png", ".svg", ".pdf")
SAMPLER = typer.Option(help="edm, vp, ve, iddpm (Table 1) or dpmpp_2m (for few steps); default: the model's own.")


def main() -> None:
    """Run the command line; what users can mend is told in one sentence, without a traceback."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 (open to the end)
        stream.reconfigure(errors="backslashreplace")  # Windows' cp1252 has no σ, and a file's name may be no text
        setattr(sys, name, stream)
    try:
        app()
    except ModuleNotFoundError as error:
        _end(f"{error}. Notebooks need more than the package: pip install 'edm_lesson[notebooks]'")
    except (LessonError, ValueError, OSError) as error:
        _end(str(error))
    except (RuntimeError, MemoryError) as error:  # PyTorch and pathlib have no errors of their own for these
        if type(error) is RuntimeError and not any(word in str(error) for word in ("memory", "home directory")):
            raise
        _end(f"This machine can't do that ({str(error) or 'no memory'}): take fewer or smaller images, or set HOME.")
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(message):
    """Exit with `message` in one line of a few hundred characters, and with the notes of what was raised."""
    message, notes = visible(message), map(visible, getattr(sys.exception(), "__notes__", []))
    short = message if len(message) < 500 else f"{message[:300]} […] {message[-150:]}"
    sys.exit(" ".join([f"edm-lesson: {short}", *notes]))


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """What stands before a command."""
    if version:
        print(f"edm-lesson {__version__}")
        raise typer.Exit


@app.command()
def train(
    config: Annotated[str | None, typer.Option(help="A configuration's name or YAML file; default: lesson.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/<configuration>.")] = None,
    data: Annotated[str | None, typer.Option(help="mnist, fashion_mnist, cifar10, a folder or an .npz file.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value; may be repeated.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Measure, and train for about so long.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    previous: Annotated[bool, typer.Option("--previous", help="Resume from the checkpoint before the newest.")] = False,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Train a model; Ctrl-C saves, --resume goes on. Several GPUs: torchrun --nproc-per-node 2 -m edm_lesson train.

    Example: edm-lesson train --config lesson --out runs/mine --set training.images=100000
    """
    from edm_lesson.checkpoints import load_checkpoint
    from edm_lesson.checks import check_number
    from edm_lesson.config import load_config
    from edm_lesson.data import NAMED_SETS, choose_device
    from edm_lesson.data.files import check_output
    from edm_lesson.training.distributed import is_first, join_processes, share_of
    from edm_lesson.training.run import check_memory, checkpoint_path, refuse_a_run
    from edm_lesson.training.trainer import STOPPING, images_in, images_of, train_in

    device, resume, set_ = join_processes(device), resume or previous, set_ or []
    say = print if is_first() else lambda *_, **__: None
    changes = {"--config": config if out else None, "--data": data, "--set": set_, "--minutes": minutes}
    config = config or "lesson"
    out = out or Path("runs", Path(config).stem)
    if resume and any(changes.values()):
        given = ", ".join(option for option, value in changes.items() if value)
        raise ValueError(f"The configuration of the run in {out} is kept when it goes on; leave out {given}.")
    if data in NAMED_SETS and Path(data).is_dir():
        raise ValueError(f"--data {data} may mean a set or a folder: write ./{data}, or --set data.name={data}.")
    if minutes is not None and any(setting.startswith("training.images=") for setting in set_):
        raise ValueError("--minutes and training.images both say how long to train; give one of them.")
    if minutes is not None:
        check_number("--minutes", minutes, above=0)
    if not resume:
        refuse_a_run(out)
    check_output(out / "config.yaml")
    settings = load_checkpoint(checkpoint_path(out, previous)).config if resume else load_config(config, set_)
    if data:
        settings = replace(settings, data=replace(settings.data, name=data))
    check_memory(settings, choose_device(device))
    share_of(settings.training.batch_size)  # the last that can be refused before images are read
    images = images_of(settings)
    say(*_look_at(images, settings, own=not resume and settings.data.name not in NAMED_SETS), sep="\n")
    if minutes is not None:
        budget = images_in(minutes, settings, images, device)
        settings = replace(settings, training=replace(settings.training, images=budget))
        say(f"{minutes:g} minutes are about {budget:,} images here: training.images={budget}")
    for number in [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]:
        if signal.getsignal(number) == signal.SIG_DFL:  # and is not ignored, as by nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        train_in(out, settings, images, device, resume, previous=previous)
    except (KeyboardInterrupt, SystemExit) as stop:
        say("\n".join(getattr(stop, "__notes__", ["Stopped."])), file=sys.stderr)
        raise
    say(f"{out} holds what it learned; see more with: edm-lesson sample --checkpoint {quote(str(out))}")


def _look_at(images, settings, own):
    """What there is to say of images to train on, sentence by sentence; `ValueError` where nothing can be learned."""
    measured, wanted = images.statistics(settings.data.center)["std"], settings.network.label_dim
    yield f"{images}; standard deviation {measured:.3f}"
    if measured < 1e-3:
        raise ValueError(f"All pictures in {settings.data.name} are of the same shade; give others with --data.")
    if measured < 0.05:
        yield "They are nearly of one shade: make sure that they were read as they are meant"
    elif abs(measured / settings.sigma_data - 1) > 0.3:
        yield f"sigma_data is {settings.sigma_data}, far from that: consider --set sigma_data={measured:.3f}"
    classes = len(images.class_names) or int(images.labels.max()) + 1
    if classes > 1 and not wanted and own:
        yield f"{classes} classes are not used; to train with them add --set network.label_dim={classes}"
    if wanted > classes:
        yield f"network.label_dim is {wanted}, but there are {classes} classes: the others are never trained"


@app.command()
def curves(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")] = Path("curves.png"),
) -> None:
    """Draw the loss of one or more runs over the images that they were trained on.

    Example: edm-lesson curves runs/lesson runs/mine
    """
    from edm_lesson.data.files import check_output, written
    from edm_lesson.plots.lines import curves, smooth
    from edm_lesson.training.run import read_metrics

    out, lines = out if out.suffix else out.with_suffix(".png"), {}
    check_output(out, *PICTURES)
    for run in runs:
        metrics = read_metrics(run)
        if not metrics:
            raise LessonError(f"{run} has no metrics yet: training.log_every images must be trained on first.")
        lines[str(run)] = [line["images"] for line in metrics], smooth([line["loss"] for line in metrics])
    with written(out) as part:
        curves(lines, "images", "loss, smoothed", logx=True).savefig(part)
    print(f"{out} shows the loss of {', '.join(lines)}")


@app.command()
def sample(
    checkpoint: Annotated[str, CHECKPOINT] = "lesson",
    num_samples: Annotated[int, typer.Option(help="How many images.")] = 64,
    num_steps: Annotated[int, typer.Option(help="Steps: N of edm ask the network 2N − 1 times, of dpmpp_2m N.")] = 18,
    seed: Annotated[int, typer.Option(help="Two seeds share no image.")] = 0,
    labels: Annotated[str | None, typer.Option(help="Classes to draw in turn: 0-9 or 3,1,4; default: all.")] = None,
    sampler: Annotated[str | None, SAMPLER] = None,
    sigma_min: Annotated[float | None, typer.Option(help="Lowest level but 0; edm: 0.002, dpmpp_2m: 0.05.")] = None,
    sigma_max: Annotated[float | None, typer.Option(help="Highest noise level; default for edm: 80.")] = None,
    rho: Annotated[float | None, typer.Option(help="Exponent of edm's levels (Eq. 5); default: 7.")] = None,
    s_churn: Annotated[float, typer.Option("--S-churn", help="Amount of fresh noise (Algorithm 2).")] = 0.0,
    s_min: Annotated[float, typer.Option("--S-min", help="Lowest level with churn.")] = 0.0,
    s_max: Annotated[float, typer.Option("--S-max", help="Highest level with churn.")] = float("inf"),
    s_noise: Annotated[float, typer.Option("--S-noise", help="Scale of the fresh noise.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Images at a time; changes no image.")] = 64,
    film: Annotated[bool, typer.Option("--film", help="Draw every second step of each image.")] = False,
    out: Annotated[Path, typer.Option(help="A grid .png, or .npz with uint8 `images`.")] = Path("digits.png"),
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Draw images from a trained model.

    Example: edm-lesson sample --num-samples 16 --num-steps 18 --out digits.png
    """
    from edm_lesson.checkpoints import load_denoiser
    from edm_lesson.checks import check_choice, check_count
    from edm_lesson.data import name_classes, save_grid, to_uint8
    from edm_lesson.data.files import check_output, written
    from edm_lesson.designs import SAMPLERS
    from edm_lesson.samplers import sample_images

    check_output(out, ".png", ".npz")
    check_count("num_samples", num_samples, maximum=10_000 if out.suffix == ".png" else 10**12)
    classes: Sequence[int] = parse_labels(labels) if labels is not None else ()
    if film and (out.suffix == ".npz" or num_samples > min(batch_size, 16) or num_steps > 1000):
        wanted = f"{num_samples} in {num_steps} steps as {out}"
        raise ValueError(f"--film draws at most 16 images of one batch, in 1000 steps, as a .png, not {wanted}.")
    denoiser = load_denoiser(checkpoint, device)
    word = denoiser.config.design.sampler if sampler is None else sampler
    check_choice("--sampler", word, SAMPLERS)
    if rho is not None and word not in ("edm", "dpmpp_2m"):
        raise ValueError(f"--rho is {rho}, but the noise levels of {word} have none; leave it out, or take edm.")
    classes = classes or range(denoiser.label_dim)[: len(denoiser.class_names) or None]
    frames, names = [], []

    def keep(step, sigma, x, denoised):
        if step % 2 == 0:
            frames.append(x / max(1.0, sigma))
            names.append(f"σ = {sigma:.2g}")

    levels: dict[str, Any] = {"sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho}
    samples = sample_images(
        denoiser, num_samples, seed=seed, classes=classes or None, batch_size=batch_size, progress=True,
        sampler=SAMPLERS[word].sample, num_steps=num_steps, S_churn=s_churn, S_min=s_min, S_max=s_max, S_noise=s_noise,
        callback=keep if film else None, **{name: value for name, value in levels.items() if value is not None},
    )  # fmt: skip
    pixels = to_uint8(samples)
    if film:
        from edm_lesson.plots import strip

        with written(out) as part:
            strip([*frames, samples], [*names, "σ = 0"]).savefig(part)
    elif out.suffix == ".npz":
        import numpy as np

        with written(out) as part:
            np.savez_compressed(part, images=pixels.numpy())
    else:
        save_grid(pixels, out)
    in_turn = f", the classes in turn: {name_classes(classes, denoiser.class_names)}" if classes else ""
    print(f"{num_samples} images in {out}{in_turn}")


@app.command()
def evaluate(
    checkpoint: Annotated[str, CHECKPOINT] = "lesson",
    sampler: Annotated[str | None, SAMPLER] = None,
    solver: Annotated[str | None, typer.Option(help="heun, euler or both; default: the sampler's.")] = None,
    num_steps: Annotated[str, typer.Option(help="Numbers of steps.")] = "18",
    sigma_max: Annotated[str | None, typer.Option(help="Highest noise levels; default: the sampler's.")] = None,
    rho: Annotated[str, typer.Option(help="Exponents of EDM's levels (Eq. 5).")] = "7",
    s_churn: Annotated[str, typer.Option("--S-churn", help="Amounts of fresh noise (Algorithm 2).")] = "0",
    num_samples: Annotated[int, typer.Option(help="Digits per seed; ratios of other numbers differ.")] = 2000,
    seeds: Annotated[int, typer.Option(help="How many times to sample, each with other seeds.")] = 3,
    batch_size: Annotated[int | None, typer.Option(help="Images at a time; default: the fastest.")] = None,
    out: Annotated[Path, typer.Option(help="CSV file of all models, gone on with.")] = Path("runs/evaluation.csv"),
    plot: Annotated[Path | None, typer.Option(help="Draw the ratios, too: .png, .svg or .pdf.")] = None,
    own_digits: Annotated[bool, typer.Option("--own-digits", help="Measure a model of digits of your own.")] = False,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Measure a model's digits: Fréchet distance ratio, share recognised, memorisation; stopped, it goes on.

    Settings take one value or several; all their combinations are measured.

    Example: edm-lesson evaluate --checkpoint runs/lesson --num-steps 4,8,18 --solver heun,euler
    """
    from edm_lesson.checkpoints import load_denoiser
    from edm_lesson.data.files import check_output, written
    from edm_lesson.evaluation import Judge
    from edm_lesson.evaluation.sweep import sweep, sweep_lines, sweep_points, sweep_table

    if plot:
        check_output(plot, *PICTURES, name="--plot")
    denoiser = load_denoiser(checkpoint, device)
    points = sweep_points(
        design=[denoiser.config.design.sampler] if sampler is None else sampler.split(","),
        solver=[None] if solver is None else solver.split(","),
        num_steps=numbers("--num-steps", num_steps, int),
        sigma_max=[None] if sigma_max is None else numbers("--sigma-max", sigma_max),
        rho=numbers("--rho", rho),
        S_churn=numbers("--S-churn", s_churn),
    )
    rows = sweep(
        denoiser, lambda count: Judge(count, device=device), points, out,
        num_samples=num_samples, seeds=seeds, checkpoint=checkpoint, batch_size=batch_size, own_digits=own_digits,
    )  # fmt: skip
    if plot:
        from edm_lesson.plots import curves

        x, lines = sweep_lines(rows)
        with written(plot) as part:
            curves(lines, "network evaluations" if x == "nfe" else x, "distance ratio", x == "nfe", True).savefig(part)
    print(f"{sweep_table(rows)}\nEvery seed's figures are in {out}" + (f", their ratios in {plot}" if plot else ""))


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="ablation (the paper's Table 2 on MNIST) or choices (MNIST's own).")],
    only: Annotated[str | None, typer.Option(help="Rows, such as A,D; default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many times to train each row, with seeds.")] = 1,
    images: Annotated[int | None, typer.Option(help="Train each on so many images; default: the study's own.")] = None,
    num_samples: Annotated[int, typer.Option(help="Digits per run; ratios of other numbers differ.")] = 2000,
    status: Annotated[bool, typer.Option("--status", help="Only say what is done and what is missing.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder, gone on with; default: runs/studies/<name>.")] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Train the same model with one thing changed at a time, and compare; stopped, it goes on where it was.

    Example: edm-lesson study ablation --only A,D,E,F --seeds 3
    """
    from edm_lesson.data.files import check_output, written
    from edm_lesson.evaluation import Judge
    from edm_lesson.evaluation.study import load_study, results_of, run_study, study_table

    rows = () if only is None else only.split(",")
    chosen, out = load_study(name, images, rows), out or Path("runs", "studies", name)
    print(study_table(chosen, results_of(chosen, out, seeds, num_samples), seeds))
    if status:
        return
    check_output(out / f"{name}.png")
    results = run_study(
        chosen, lambda count: Judge(count, device=device), out, seeds=seeds, num_samples=num_samples, device=device
    )
    print(study_table(chosen, results, seeds))
    from edm_lesson.plots import dot_plot

    ratios = {row: [found["distance_ratio"] for found in results if found["row"] == row] for row in chosen.rows}
    with written(out / f"{name}.png") as part:
        dot_plot(ratios, f"distance ratio after {chosen.images:,} images", logx=True).savefig(part)
    print(f"Every run's figures are in {out / f'{name}.csv'}, their picture in {out / f'{name}.png'}")


def numbers(option: str, text: str, kind: type = float) -> list:
    """The numbers typed after `option`, such as 7 or 4,8,18."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"{option} is {text!r}; write {'whole ' * (kind is int)}numbers, such as 7 or 4,8,18."
        ) from None


def parse_labels(text: str) -> list[int]:
    """The classes in a text such as "3,1,4" or "0-9"."""
    classes: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        words = first.isdecimal() and (last or first).isdecimal()
        if not words or not int(first) <= int(last or first) < 100_000 or len(classes) > 100_000:
            raise ValueError(f"--labels is {text!r}; write classes as 7, as 3,1,4 or as a range 0-9.")
        classes += range(int(first), int(last or first) + 1)
    return classes


@app.command()
def course(
    only: Annotated[str | None, typer.Option(help="Numbers of notebooks, such as 00,02; default: all.")] = None,
    setting: Annotated[Literal["seconds", "minutes", "full"], typer.Option(help="How long to train.")] = "seconds",
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="Set a parameter. May be repeated.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the executed copies.")] = Path("runs/course"),
    store: Annotated[bool, typer.Option("--store", help="Execute the notebooks and store them in place.")] = False,
    colab: Annotated[bool, typer.Option("--colab", help="Only write Colab's link and set-up cell.")] = False,
) -> None:
    """Run the notebooks from top to bottom and say how long each took.

    Example: edm-lesson course --only 00,03 -p train_images=3200
    """
    from edm_lesson.course import refresh_notebooks, run_course, store_notebooks

    parameter = parameter or []
    if unclear := [text for text in parameter if "=" not in text]:
        raise ValueError(f"-p is {unclear[0]!r}; write NAME=VALUE, as in train_images=3200.")
    if colab:
        refresh_notebooks(only)
    elif store:
        store_notebooks(only)
    else:
        run_course(only, out, dict(text.split("=", 1) for text in parameter), setting)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where your copies live; never overwritten.")] = Path("lab"),
) -> None:
    """Open JupyterLab on your own copies of the notebooks; further options are handed to JupyterLab.

    Example: edm-lesson lab --port 9999
    """
    from edm_lesson.course import open_lab

    open_lab(folder, context.args)
