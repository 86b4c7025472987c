"""Training: the step, the loop, and the folder that a run leaves behind."""

from edm_lesson.training.trainer import (
    Trainer,
    batch_indices,
    choose_precision,
    ema_decay,
    learning_rate_share,
    make_ema,
    train_step,
)

__all__ = ["Trainer", "batch_indices", "choose_precision", "ema_decay", "learning_rate_share", "make_ema", "train_step"]
