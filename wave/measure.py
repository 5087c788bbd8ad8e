"""What a model can do and what it costs: accuracy, logits, parameters, multiply-accumulates."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .recipe import Batch


@torch.no_grad()
def accuracy(
    model: nn.Module, batches: Iterable[Batch], device: torch.device | str = "cpu"
) -> float:
    """Return the fraction of images, 0 to 1, whose largest logit is that of the label.

    Args:
        model: Gives logits (B, K), or a list that starts with them; its mode is restored.
        batches: Images and labels.
        device: Where the model is.
    """
    was_training = model.training
    model.eval()
    right, total = 0, 0
    for batch in batches:
        output = model(batch.images.to(device))
        logits = output if isinstance(output, Tensor) else output[0]
        right += int((logits.argmax(1) == batch.labels.to(device)).sum())
        total += len(batch.labels)
    model.train(was_training)
    return right / total


@torch.no_grad()
def all_logits(
    model: nn.Module, batches: Iterable[Batch], device: torch.device | str = "cpu"
) -> Tensor:
    """Return the logits of every image in the order of the batches, float32 (n, K) on the CPU.

    Args:
        model: Gives logits (B, K); its mode is restored.
        batches: Images.
        device: Where the model is.
    """
    was_training = model.training
    model.eval()
    logits = torch.cat([model(batch.images.to(device)).float().cpu() for batch in batches])
    model.train(was_training)
    return logits


def num_parameters(model: nn.Module) -> int:
    """Return the number of entries of all parameters.

    >>> num_parameters(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, img_size: int, in_chans: int) -> int:
    """Return the multiply-accumulates of one image's forward pass.

    Matrices, convolutions and the two products of attention are counted.

    Args:
        model: Its mode is restored.
        img_size: Side of the image, in pixels.
        in_chans: Channels of the image.

    >>> import timm
    >>> macs(timm.create_model("vit_tiny_patch16_224"), img_size=224, in_chans=3)
    1253683200
    """
    device, was_training = next(model.parameters()).device, model.training
    # The counter does not know the CPU's fused attention: written out, all devices count alike.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.eval()(torch.zeros(1, in_chans, img_size, img_size, device=device))
    model.train(was_training)
    return counter.get_total_flops() // 2
