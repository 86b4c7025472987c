"""The raw network F: `network(x, c_noise, class_labels=None, augment_labels=None) -> F`, shaped like x."""

from edm_lesson.networks.paper import ADM, DDPMpp, NCSNpp
from edm_lesson.networks.unet import LessonUNet, PositionalEmbedding, ResidualBlock, SelfAttention
