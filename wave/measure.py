"""What a model can do and what it costs: accuracy, logits, parameters and multiply-accumulates."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .recipe import Batch


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[Batch], device: torch.device | str = "cpu") -> float:
    """Fraction of images whose largest logit is the label; the model's training mode is restored."""
    was_training, right, total = model.training, 0, 0
    model.eval()
    for batch in batches:
        output = model(batch.images.to(device))
        logits = output if isinstance(output, Tensor) else output[0]
        right += int((logits.argmax(1) == batch.labels.to(device)).sum())
        total += len(batch.labels)
    model.train(was_training)
    return right / total


@torch.no_grad()
def all_logits(model: nn.Module, batches: Iterable[Batch], device: torch.device | str = "cpu") -> Tensor:
    """Logits of every image in the order of the batches, float32 (n, K) on the CPU; the training mode is restored."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(batch.images.to(device)).float().cpu() for batch in batches])
    model.train(was_training)
    return logits


def num_parameters(model: nn.Module) -> int:
    """Entries of all parameters."""
    return sum(p.numel() for p in model.parameters())


def macs(model: nn.Module, img_size: int, in_chans: int) -> int:
    """Multiply-accumulates of one image's forward pass: matrices, convolutions and attention's two products."""
    device, was_training = next(model.parameters()).device, model.training
    # The counter does not know the CPU's fused attention: written out, it is counted alike on every device.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.eval()(torch.zeros(1, in_chans, img_size, img_size, device=device))
    model.train(was_training)
    return counter.get_total_flops() // 2
