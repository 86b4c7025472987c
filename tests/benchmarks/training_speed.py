"""What makes training fast here: `python tests/benchmarks/training_speed.py [--device cpu] [--config lesson]`.

Images a second with the same network and batch, as ratios to a plain loop as in common lessons: float32, a `DataLoader`
with workers, an average over every parameter by itself, and the loss read at every step. Then each measure alone, all
together (which is what `Trainer` does), and with `torch.compile` on top. Last: how much of a step its convolutions and
matrix products take alone, and what the sampler adds to its network calls. Run it on an otherwise idle machine; a table
goes to the screen and JSON to `--out`.
"""

import argparse
import copy
import json
import math
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from edm_lesson.config import load_config
from edm_lesson.data import choose_device, load_images, normalize
from edm_lesson.designs import build_denoiser, build_loss
from edm_lesson.samplers import edm_sampler
from edm_lesson.training import Trainer, ema_decay, make_ema, train_step
from edm_lesson.training.run import describe_environment
from edm_lesson.training.step import choose_precision

MEASURES = (
    "data on the device",
    "half precision",
    "channels_last",
    "fused optimiser",
    "EMA in one call",
    "loss unread",
)


class PlainImages(Dataset):
    """MNIST as common lessons read it: one image at a time, normalised in a worker."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return normalize(self.images.pixels[index])


def endless(loader, device):
    while True:
        for x in loader:
            yield x.to(device)


def cut_from(images, batch_size):
    while True:
        yield images.batch(torch.randint(len(images), (batch_size,)).to(images.pixels.device, non_blocking=True))


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_a_call(action, device, least=4.0):
    """The mean time of `action` over at least `least` seconds, after three calls to warm up."""
    for _ in range(3):
        action()
    synchronise(device)
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < least:
        action()
        calls += 1
    synchronise(device)
    return (time.perf_counter() - started) / calls


def make_step(config, images, device, measures):
    """One training step with some of `MEASURES`; with none of them, the plain loop's."""
    batch = config.training.batch_size
    layout = torch.channels_last if "channels_last" in measures else torch.contiguous_format
    denoiser, loss = build_denoiser(config).to(device, memory_format=layout).train(), build_loss(config)
    optimizer = torch.optim.Adam(denoiser.parameters(), 1e-4, fused="fused optimiser" in measures, foreach=False)
    if "data on the device" in measures:
        batches = cut_from(images.to(device), batch)
    else:
        loader = DataLoader(PlainImages(images.to("cpu")), batch, shuffle=True, num_workers=2, drop_last=True)
        batches = endless(loader, device)
    dtype = choose_precision("auto", device) if "half precision" in measures else torch.float32
    if "half precision" in measures and dtype == torch.float32:
        dtype = torch.bfloat16  # measured also where it isn't the default
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    ema = make_ema(denoiser, lambda: ema_decay(batch, 20_000))
    averages = copy.deepcopy(denoiser)

    def step():
        value = train_step(denoiser, loss, optimizer, next(batches), None, math.inf, autocast, scaler)
        if "EMA in one call" in measures:
            ema.update_parameters(denoiser)
        else:
            with torch.no_grad():
                for average, parameter in zip(averages.parameters(), denoiser.parameters(), strict=True):
                    average.mul_(0.999).add_(parameter, alpha=0.001)
        if "loss unread" not in measures:
            value.item()

    return step


def products_alone(config, device):
    """Actions that do the convolutions and matrix products of one step of the lesson's training, and nothing else."""
    batch, dtype = config.training.batch_size, choose_precision("auto", device)
    denoiser = build_denoiser(config).to(device, memory_format=torch.channels_last)
    calls = []

    def note(module, inputs, _):
        calls.append((module, tuple(inputs[0].shape)))

    handles = [m.register_forward_hook(note) for m in denoiser.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    size = config.data.img_resolution
    with torch.no_grad():
        denoiser(torch.zeros(batch, config.data.img_channels, size, size, device=device), 1.0)
    for handle in handles:
        handle.remove()
    work = []
    for module, shape in calls:
        module = copy.deepcopy(module).to(dtype)
        x = torch.randn(shape, device=device, dtype=dtype)
        if x.ndim == 4:
            x = x.to(memory_format=torch.channels_last)
        x.requires_grad_()
        work.append((module, x, torch.ones_like(module(x))))

    def run():
        for module, x, slope in work:
            module(x).backward(slope)

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
    parser.add_argument("--config", default="lesson")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each measurement takes at least")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes a minute")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/training_speed.json"))
    options = parser.parse_args()
    device, config, images = choose_device(options.device), load_config(options.config), load_images("mnist")
    batch, rows = config.training.batch_size, {}

    def measure(name, step):
        rows[name] = batch / seconds_a_call(step, device, options.seconds)
        print(f"{name:<34} {rows[name]:9.0f} images/s  {rows[name] / rows['plain loop']:6.2f} ×", flush=True)

    environment = describe_environment(device, choose_precision("auto", device))
    print(", ".join(f"{name} {environment[name]}" for name in ("device", "cpu", "threads", "torch", "precision")))
    measure("plain loop", make_step(config, images, device, ()))
    for name in MEASURES:
        measure(f"+ {name}", make_step(config, images, device, {name}))
    measure("all of them", make_step(config, images, device, set(MEASURES)))
    trainer = Trainer(config, images, device=device)
    measure("edm-lesson train", trainer.step)
    step = batch / rows["edm-lesson train"]
    if not options.no_compile:
        compiled = Trainer(config, images, device=device)
        compiled.denoiser.network.compile()
        measure("edm-lesson train, compiled", compiled.step)

    products = seconds_a_call(products_alone(config, device), device, options.seconds)
    print(f"\na training step: {step * 1e3:.1f} ms; its convolutions and products alone: {products * 1e3:.1f} ms "
          f"({products / step:.0%})")  # fmt: skip

    denoiser = trainer.ema_denoiser
    shape = (64, config.data.img_channels, config.data.img_resolution, config.data.img_resolution)
    latents, level = torch.randn(shape, device=device), torch.zeros(64, device=device)
    with torch.no_grad():
        bare = 35 * seconds_a_call(lambda: denoiser.network(latents, level), device, options.seconds)
    whole = seconds_a_call(lambda: edm_sampler(denoiser, latents, num_steps=18), device, options.seconds)
    print(f"64 samples at 18 steps: {whole:.3f} s; 35 bare network calls: {bare:.3f} s ({whole / bare - 1:+.1%})")
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    if peak:
        print(f"peak memory: {peak:.0f} MB")

    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"images_per_second": rows, "step_seconds": step, "products_seconds": products}
    result |= {"sampler_seconds": whole, "bare_calls_seconds": bare, "peak_memory_MB": peak, "environment": environment}
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
