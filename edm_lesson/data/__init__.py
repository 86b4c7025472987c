"""Images on the device, and where they come from."""

from edm_lesson.data.images import Images, choose_device, name_classes, normalize, save_grid, to_uint8
from edm_lesson.data.sources import MNIST_ARCHIVES, NAMED_SETS, cache_folder, data_folder, load_images
