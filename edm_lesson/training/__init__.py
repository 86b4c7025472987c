"""Training: the step, the loop, and the folder that a run leaves behind."""

from edm_lesson.training.step import (
    batch_indices,
    choose_precision,
    ema_decay,
    learning_rate_share,
    make_ema,
    train_step,
)
from edm_lesson.training.trainer import Trainer, images_in, images_of, train_in

__all__ = [
    "Trainer",
    "batch_indices",
    "choose_precision",
    "ema_decay",
    "images_in",
    "images_of",
    "learning_rate_share",
    "make_ema",
    "train_in",
    "train_step",
]
