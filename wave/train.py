"""Trainer: one training as a generator of metrics; the ancestor and both stages run through it."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from timm.data.mixup import Mixup
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from .errors import Diverged, WaveError
from .losses import distillation_loss
from .optimiser import cosine_schedule, parameter_groups
from .progress import Metrics, Progress
from .recipe import Batch, Recipe
from .spec import TargetSpec
from .teacher import Teacher
from .typed import averaged, enable_checkpointing, mixed

Batches = Callable[[int], Iterator[Batch]]
"""``batches(step)`` iterates over training batches from that step on."""


class Trainer:
    """One training: ``for metrics in trainer.run(batches): ...``.

    Its state dict saves it; it resumes bit for bit.

    Args:
        model: Gives logits (B, K), or a list of them when called with the sampler's sizes
            (:class:`wave.MultiSize`). It may be wrapped in DDP.
        recipe: The settings.
        steps: All steps of the training (:meth:`Recipe.total_steps`).
        teacher: Gives logits for the same images, unless batches carry them.
        sampler: The further sizes of each step (:class:`wave.SizeSampler`).
        feature_weight: Weight of the distance between the features of ``model``, a MultiSize, and
            those of ``teacher``, a :class:`wave.Teacher`; 0 for none.
        annealing: Whether step s of S, counted from 0, has s/S of the labels' loss and the rest of
            the teacher's (teacher annealing, Clark et al., ACL 2019).
        num_classes: K; needed for mixup and cutmix.
        seed: For mixup and cutmix.
        device: Where the model is, and batches are brought to.

    Raises:
        WaveError: ``annealing`` with a recipe that has only one of the two losses.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> batch = Batch(torch.randn(8, 1, 2, 2), torch.randint(2, (8,)))
    >>> trainer = Trainer(model, Recipe(steps=3, batch_size=8, log_every=1), steps=3)
    >>> [metrics["step"] for metrics in trainer.run(lambda step: iter([batch] * 3))]
    [1, 2, 3]
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        steps: int,
        *,
        teacher: nn.Module | None = None,
        sampler: Callable[[int], Sequence[TargetSpec]] | None = None,
        feature_weight: float = 0.0,
        annealing: bool = False,
        num_classes: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.inner: nn.Module = getattr(model, "module", model)
        self.recipe = recipe
        self.steps = steps
        self.step = 0
        self.teacher = teacher
        self.sampler = sampler
        self.feature_weight = feature_weight
        self.annealing = annealing
        self.seed = seed
        self.device = torch.device(device)
        if annealing and not (recipe.kl_weight and recipe.ce_weight):
            raise WaveError(
                "annealing goes from a teacher to the labels; the recipe has "
                f"kl_weight={recipe.kl_weight:g} and ce_weight={recipe.ce_weight:g}; "
                "give both a weight"
            )
        if recipe.checkpoint_activations:
            enable_checkpointing(self.inner)
        if recipe.compile:
            for module in self.inner.modules():
                if type(module).__name__ == "Block":
                    module.compile()  # pyright: ignore[reportUnknownMemberType]
        self.optimizer = torch.optim.AdamW(parameter_groups(self.inner, recipe), lr=recipe.lr)
        self.scheduler = cosine_schedule(self.optimizer, recipe, steps=steps)
        self.ema: ModelEmaV3 | None = None
        if recipe.ema_decay:
            self.ema = ModelEmaV3(self.inner, recipe.ema_decay, use_warmup=True)
        self.mixup: Mixup | None = None
        if recipe.mixup or recipe.cutmix:
            # Without smoothing here: the loss smooths labels, and once is enough.
            self.mixup = Mixup(
                recipe.mixup, recipe.cutmix, label_smoothing=0.0, num_classes=num_classes
            )

    @property
    def result(self) -> nn.Module:
        """The model to evaluate and keep: the moving average where there is one."""
        return self.inner if self.ema is None else averaged(self.ema)

    def run(self, batches: Batches, until: int | None = None) -> Iterator[Metrics]:
        """Train from the current step on.

        Args:
            batches: ``batches(step)`` iterates over batches from that step on.
            until: The step to stop at; by default the last.

        Yields:
            Metrics every ``recipe.log_every`` steps, and at the end.

        Raises:
            Diverged: At the first report, if the loss is not finite.
        """
        until = min(until or self.steps, self.steps)
        self.model.train()
        stream = batches(self.step) if self.step < until else iter(())
        progress = Progress(self.device)
        while self.step < until:
            batch = next(stream)
            loss = self._train(batch)
            progress.add(loss, images=len(batch.images))
            if self.step % self.recipe.log_every == 0 or self.step == until:
                yield self._metrics(progress)
                progress = Progress(self.device)

    def _metrics(self, progress: Progress) -> Metrics:
        lr = float(self.optimizer.param_groups[0]["lr"])
        metrics = progress.metrics(self.step, self.steps, lr=lr)
        if not math.isfinite(metrics["loss"]):
            raise Diverged(
                f"the loss is {metrics['loss']} at step {self.step}; lower lr={self.recipe.lr} "
                "or raise warmup_steps"
            )
        return metrics

    def _train(self, batch: Batch) -> Tensor:
        """One step of the optimiser."""
        # A warm-up is counted from 1: it starts at min_lr, and step 0 would train with just that.
        self.scheduler.step_update(self.step + 1 if self.recipe.warmup_steps else self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        if self.recipe.clip_grad:
            nn.utils.clip_grad_norm_(self.inner.parameters(), self.recipe.clip_grad)
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.inner, self.step)  # pyright: ignore[reportUnknownMemberType]
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        cached = batch.teacher_logits
        if self.mixup is not None:
            images, labels = self._mixed(self.mixup, images, labels=labels, cached=cached)
        sizes = self.sampler(self.step) if self.sampler else ()
        bfloat16 = self.recipe.precision == "bfloat16"
        apart = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            if self.feature_weight:
                teacher, outputs, apart = self._with_features(images, sizes)
            else:
                teacher = self._teacher_logits(images, cached)
                outputs = self.model(images, sizes) if self.sampler else self.model(images)
        if self.annealing and teacher is None:
            raise WaveError(
                "annealing goes from a teacher to the labels: "
                "give a teacher, or batches with its logits"
            )
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        share = self.step / self.steps if self.annealing else None
        losses = [
            distillation_loss(logits, labels, teacher=teacher, recipe=self.recipe, share=share)
            for logits in outputs
        ]
        loss = torch.stack(losses).mean()
        if apart is None:
            return loss
        # Features are the teacher's side of the loss, so they anneal with it.
        return loss + self.feature_weight * (1 - (share or 0)) * apart

    def _with_features(
        self, images: Tensor, sizes: Sequence[TargetSpec]
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Logits of teacher and student from one forward each, and their features' distance."""
        if not isinstance(self.teacher, Teacher):
            raise TypeError(f"features need a Teacher, not {type(self.teacher).__name__}")
        features = self.teacher.features(images)
        outputs, apart = self.model(images, sizes, features)
        return features.logits, outputs, apart

    def _teacher_logits(self, images: Tensor, cached: Tensor | None) -> Tensor | None:
        if cached is not None:
            return cached.to(self.device)
        if self.teacher is None or not self.recipe.kl_weight:
            return None
        return self.teacher(images)

    def _mixed(
        self, mixup: Mixup, images: Tensor, labels: Tensor, cached: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Images mixed in pairs, and their labels as probabilities."""
        if cached is not None:
            raise WaveError(
                "mixup and cutmix change the images: cached teacher logits do not fit; "
                "switch one off"
            )
        if len(images) % 2:
            raise WaveError(
                f"mixup and cutmix mix pairs, and a batch here has {len(images)} images; "
                "give an even one"
            )
        # timm's Mixup draws from numpy's global generator: seeded by step, a resume draws alike.
        np.random.seed((self.seed * 1_000_003 + self.step) % 2**32)  # noqa: NPY002
        # A copy: timm mixes in place, and on the CPU these are the loader's own images.
        return mixed(mixup, images.clone(), labels=labels)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resume needs, for ``torch.load(weights_only=True)`` to read."""
        state = {
            "step": self.step,
            "model": self.inner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.ema is not None:
            state["ema"] = self.result.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of the same training."""
        self.step = int(state["step"])
        self.inner.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.result.load_state_dict(state["ema"])
