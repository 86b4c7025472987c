"""What training needs of a GPU's memory: `python tests/benchmarks/memory.py [--config edm] [--batch-size 64]`.

Counts weights, gradients, Adam's two moments, the moving average, and all that the forward pass keeps for the backward
pass in half precision; the last of four images on the CPU, for which one image's share is the same in any batch. With
`--device cuda` three steps are trained there, and the peak that PyTorch reports is printed beside it.
"""

import argparse
from dataclasses import replace

import torch

from edm_lesson.config import load_config
from edm_lesson.data import Images, choose_device
from edm_lesson.designs import build_denoiser, build_loss
from edm_lesson.training import Trainer

GIB = 2**30


def kept_for_backward(config, batch=4):
    """Bytes that the forward pass of one image keeps, weights not counted, in bf16 autocast on the CPU."""
    denoiser, loss, kept = build_denoiser(config), build_loss(config), {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in denoiser.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and len(tensor.shape) and tensor.shape[0] == batch:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # so that its address is not used again
        return tensor

    held, data = [], config.data
    images = torch.zeros(batch, data.img_channels, data.img_resolution, data.img_resolution)
    labels = torch.zeros(batch, dtype=torch.long) if config.network.label_dim else None
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss(denoiser, images, labels).mean()
    return sum(kept.values()) / batch, sum(parameter.numel() for parameter in denoiser.parameters())


def measured(config, device):
    """Bytes at the peak of three training steps on a CUDA `device`."""
    data = config.data
    size = (config.training.batch_size, data.img_channels, data.img_resolution, data.img_resolution)
    images = Images(torch.zeros(size, dtype=torch.uint8), torch.zeros(size[0], dtype=torch.long))
    trainer = Trainer(config, images, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(3):
        trainer.step()
    return torch.cuda.max_memory_allocated(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="edm")
    parser.add_argument("--batch-size", type=int, help="default: the configuration's")
    parser.add_argument("--device", default="cpu", help="cpu counts; cuda measures, too")
    options = parser.parse_args()

    config = load_config(options.config)
    batch = options.batch_size or config.training.batch_size
    config = replace(config, training=replace(config.training, batch_size=batch))
    kept, parameters = kept_for_backward(config)
    rows = {
        "weights, gradients, two moments, average (float32)": 5 * 4 * parameters,
        f"kept for the backward pass, {batch} images": batch * kept,
    }
    for name, size in rows.items():
        print(f"{name:55} {size / GIB:6.2f} GiB")
    print(f"{'together':55} {sum(rows.values()) / GIB:6.2f} GiB")
    device = choose_device(options.device)
    if device.type == "cuda":
        print(f"{'measured: peak of three steps':55} {measured(config, device) / GIB:6.2f} GiB")


if __name__ == "__main__":
    main()
