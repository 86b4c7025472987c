"""The raw network F: `network(x, c_noise, class_labels=None, augment_labels=None) -> F`, shaped like x."""

from edm_lesson.networks.layers import PositionalEmbedding, ResidualBlock, SelfAttention
from edm_lesson.networks.unet import LessonUNet

__all__ = ["LessonUNet", "PositionalEmbedding", "ResidualBlock", "SelfAttention"]
