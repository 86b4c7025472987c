"""Training: the step, the loop, and the folder that a run leaves behind."""

from edm_lesson.training.step import ema_decay, learning_rate_share, make_ema, train_step
from edm_lesson.training.trainer import Trainer, images_in, train_in
