"""Several processes that train one model, each on its share of every batch: `torchrun … -m edm_lesson train …`.

All of them draw sigma, noise and augmentation for the whole batch, so that together they do what one process does.
In a process on its own nothing here does anything.
"""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist

from edm_lesson.checks import check_choice


def join_processes(device: str | None = None) -> str | None:
    """Join the processes that torchrun started, if any; returns this one's device, then a GPU of its own or the CPU."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return device
    processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    device = device or ("cuda" if gpus else "cpu")
    check_choice("device with torchrun", device, ("cpu", "cuda"))  # which gives each process one of its own
    if device == "cuda" and gpus < processes:
        raise ValueError(
            f"torchrun started {processes} processes for {gpus} GPUs; lower --nproc-per-node, or add --device cpu."
        )
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    atexit.register(dist.destroy_process_group)
    return device


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0 on."""
    return dist.get_rank() if world_size() > 1 else 0


def is_first() -> bool:
    """Whether this process is number 0, the one that writes, logs and talks for all."""
    return rank() == 0


@contextmanager
def together() -> Iterator[None]:
    """Say in one sentence, a `ConnectionError`, that another process has ended, whatever torch says of it in there."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ConnectionError("Another process of this run has ended; mend what it said, and --resume.") from error


def largest(number: float) -> float:
    """The largest `number` that a process holds, for all of them; `ConnectionError` where one has ended."""
    if world_size() == 1:
        return number
    held = torch.tensor(number, dtype=torch.float64)
    with together():
        dist.all_reduce(held, dist.ReduceOp.MAX)
    return held.item()


def wait_for_all() -> None:
    """Wait until every process has come here."""
    largest(0)


def any_stopped(signals: list[int]) -> bool:
    """Whether any process holds signals in its list `signals`; if so, all do afterwards, and stop at the same step."""
    number = int(largest(max(signals, default=0)))
    if number and not signals:
        signals.append(number)
    return number > 0


def share_of(batch_size: int) -> slice:
    """Which images of a batch are this process's."""
    processes, size = world_size(), batch_size // world_size()
    if batch_size % processes:
        raise ValueError(
            f"training.batch_size is {batch_size}; for {processes} processes take a multiple of {processes}."
        )
    return slice(rank() * size, (rank() + 1) * size)


def loss_of_share(loss: Callable, share: slice, seed: int) -> Callable:
    """`loss` of the images `share` alone, with sigma, noise and augmentation as they are drawn for the whole batch.

    Dropout's draws follow from `seed` and are others in every process.
    """
    if world_size() == 1:
        return loss

    def shared_loss(denoiser, images, class_labels=None):
        def denoise_share(x, sigma, *labels):
            if not is_first():
                torch.manual_seed(seed + rank())
            denoised, own = torch.zeros_like(x), [each if each is None else each[share] for each in labels]
            denoised[share] = denoiser(x[share], sigma[share], *own)
            return denoised

        return loss(denoise_share, images, class_labels)[share]

    return shared_loss


def mean_over_processes(tensor: Tensor) -> Tensor:
    """The mean of each process's `tensor`, which it overwrites."""
    if world_size() > 1:
        dist.all_reduce(tensor)
        tensor /= world_size()
    return tensor
