"""Images on the device, and where they come from."""

from edm_lesson.data.sources import (
    IMAGE_SUFFIXES,
    MNIST_ARCHIVES,
    Images,
    cache_folder,
    choose_device,
    data_folder,
    load_images,
    normalise,
    save_grid,
    to_uint8,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "MNIST_ARCHIVES",
    "Images",
    "cache_folder",
    "choose_device",
    "data_folder",
    "load_images",
    "normalise",
    "save_grid",
    "to_uint8",
]
