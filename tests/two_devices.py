"""A second device for a machine that has one: within `TwoDevices` it refuses what a GPU refuses.

Tensors on it are of the class `Moved`; they hold their numbers on the CPU. An operation takes tensors of one device,
and single numbers of the CPU's beside; NumPy reads none of the other's; a generator draws for its own.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cpu", 1)  # PyTorch knows the name; nothing else uses it
HOME = torch.device("cpu")
plainly = torch._C.DisableTorchFunction  # within it, nobody looks


class Moved(torch.Tensor):
    """A tensor on the second device."""

    def __format__(self, spec):
        return self.item().__format__(spec) if self.ndim == 0 else super().__format__(spec)


class Watched(torch.nn.Parameter):
    """A parameter of a network that was moved there."""


def placed(values, kind):
    """The tensors in `values` as `kind`, `Moved` or `torch.Tensor`."""
    with plainly():
        return tree_map_only(torch.Tensor, lambda x: x if type(x) is kind else x.as_subclass(kind), values)


def refuse_strangers(what, values):
    """Raise where `values` hold a tensor of the CPU's with more than one number."""
    for tensor in tree_leaves(values):
        if isinstance(tensor, torch.Tensor) and tensor.ndim and not isinstance(tensor, Moved | Watched):
            raise RuntimeError(f"{what}: expected all tensors on one device, found {tuple(tensor.shape)} on another")


class TwoDevices(TorchFunctionMode):
    """Within it `DEVICE` is a place of its own."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", str(function))
        with plainly():
            leaves = tree_leaves((args, kwargs))
            moved = any(isinstance(leaf, Moved) for leaf in leaves)
            if function == torch.Tensor.device.__get__:
                return DEVICE if moved or isinstance(args[0], Watched) else HOME
            if name in ("numpy", "__array__") and moved:
                raise TypeError("can't convert a tensor of the second device to numpy; use .cpu() first")
            names = [leaf for leaf in leaves if isinstance(leaf, torch.device | str)]
            target = next((leaf for leaf in names if isinstance(leaf, torch.device)), None)
            if name == "cpu" or (name == "to" and "cpu" in names):
                target = HOME
            elif name == "to" and target is None and len(args) > 1 and isinstance(args[1], torch.Tensor):
                target = DEVICE if isinstance(args[1], Moved) else HOME
            elif name.startswith(("_fused", "_foreach")):  # of an optimizer, whose state is the parameters' own
                target = None
            elif target is None and moved:
                target = DEVICE
                if name not in ("__getitem__", "__set__"):  # indices may come from the CPU
                    refuse_strangers(name, leaves)
            drawn = kwargs.get("generator")
            if target == DEVICE and drawn is not None and not getattr(drawn, "moved", False):
                raise RuntimeError(f"{name}: expected a generator of the second device, found one of the CPU's")
            if DEVICE in names:
                args, kwargs = tree_map_only(torch.device, lambda _: HOME, (args, kwargs))
            result = function(*args, **kwargs)
        return result if target is None else placed(result, Moved if target == DEVICE else torch.Tensor)


def watch(network):
    """Let a network that was moved refuse what was not; inside, it computes as ever."""
    guards = []

    def before(module, args, kwargs):
        if not guards:
            refuse_strangers(type(module).__name__, (args, kwargs))
            args, kwargs = placed((args, kwargs), torch.Tensor)
        guards.append(plainly())
        guards[-1].__enter__()
        return args, kwargs

    def after(module, args, kwargs, result):
        if guards:
            guards.pop().__exit__(None, None, None)
        return result if guards else placed(result, Moved)

    for parameter in network.parameters():
        parameter.__class__ = Watched
    for module in network.modules():
        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True, always_call=True)
    return network
