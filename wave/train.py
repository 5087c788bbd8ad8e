"""The losses and the training loop, as a generator of metrics: ancestor, stage 1 and stage 2 all run through it."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict, cast

import numpy as np
import torch
from timm.data.mixup import Mixup
from timm.optim._param_groups import param_groups_weight_decay  # pyright: ignore[reportUnknownVariableType]
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import Diverged, WaveError
from .recipe import Batch, Precision, Recipe
from .spec import TargetSpec
from .teacher import Teacher

__all__ = ["Batch", "Metrics", "Precision", "Recipe", "Trainer", "distillation_loss"]


NO_DECAY = ("*pos_embed", "*cls_token", "*reg_token", "*dist_token")


class Metrics(TypedDict):
    """One line of progress: the step just done, mean loss since the last line, rate, speed, seconds still to go."""

    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float


def distillation_loss(
    logits: Tensor, target: Tensor, teacher: Tensor | None, recipe: Recipe, share: float | None = None
) -> Tensor:
    """``kl_weight * tau^2 * KL(softmax(teacher/tau) || softmax(logits/tau)) + ce_weight * CE(logits, target)``.

    ``logits`` and ``teacher`` (B, K); ``target`` labels (B,) or probabilities (B, K). WAVE, stage 1. With
    ``share``, from 0 to 1, the second term is multiplied by it and the first by the rest (teacher annealing, Clark et
    al., ACL 2019).
    """
    loss = logits.new_zeros((), dtype=torch.float32)
    logits = logits.float()
    kl_share, ce_share = (1.0, 1.0) if share is None else (1 - share, share)
    if recipe.ce_weight * ce_share:
        entropy = F.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
        loss = loss + recipe.ce_weight * ce_share * entropy
    if recipe.kl_weight and teacher is not None:
        student, wanted = (F.log_softmax(z.float() / recipe.tau, dim=1) for z in (logits, teacher))
        divergence = F.kl_div(student, wanted, log_target=True, reduction="batchmean")
        loss = loss + recipe.kl_weight * kl_share * recipe.tau**2 * divergence
    return loss


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """timm's two weight-decay groups, split further by the learning-rate scale of templates and scalers."""
    groups: list[dict[str, Any]] = []
    names = {id(p): n for n, p in model.named_parameters()}
    decay = cast(Any, param_groups_weight_decay)(model, recipe.weight_decay, no_weight_decay_list=NO_DECAY)
    for group in cast(list[dict[str, Any]], decay):
        by_scale: dict[float, list[nn.Parameter]] = {}
        for p in group["params"]:
            name = names[id(p)]
            scale = recipe.scaler_lr_scale if name.endswith(".scalers") else 1.0
            scale = recipe.template_lr_scale if "templates." in name else scale
            by_scale.setdefault(scale, []).append(p)
        # timm's scheduler multiplies every rate of the schedule, warm-up and floor too, by a group's lr_scale.
        groups += [{**group, "params": ps, "lr_scale": s} for s, ps in by_scale.items() if s > 0]
    return groups


class Trainer:
    """One training: ``for metrics in trainer.run(batches): ...``, to be saved and resumed with its state dict.

    ``model`` gives logits, or a list of logits when called with ``sampler``'s sizes
    (:class:`wave.multisize.MultiSize`); it may be wrapped in DDP. ``batches(step)`` iterates over batches from that
    step on. ``teacher`` gives logits for the same images unless batches carry them; with a ``feature_weight`` its
    features too, and their distance from those of the model, a MultiSize, is added to the loss by this weight. With
    ``annealing`` step s of S has s/S of the labels' loss and the rest of the teacher's, s from 0. Raises
    :class:`Diverged` at the first report of a loss that is not finite.
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
        self.model, self.recipe, self.steps, self.teacher = model, recipe, steps, teacher
        self.feature_weight, self.annealing = feature_weight, annealing
        self.sampler, self.seed, self.device, self.step = sampler, seed, torch.device(device), 0
        self.inner: nn.Module = getattr(model, "module", model)
        if annealing and not (recipe.kl_weight and recipe.ce_weight):
            given = f"kl_weight={recipe.kl_weight:g} and ce_weight={recipe.ce_weight:g}"
            raise WaveError(f"annealing goes from a teacher to the labels; the recipe has {given}; give both a weight")
        if recipe.checkpoint_activations:
            cast(Any, self.inner).set_grad_checkpointing(True)
        if recipe.compile:
            for module in self.inner.modules():
                if type(module).__name__ == "Block":
                    module.compile()  # pyright: ignore[reportUnknownMemberType]
        self.optimizer = torch.optim.AdamW(parameter_groups(self.inner, recipe), lr=recipe.lr)
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=steps,
            lr_min=recipe.min_lr,
            warmup_t=recipe.warmup_steps,
            warmup_lr_init=recipe.min_lr if recipe.warmup_steps else 0,
            warmup_prefix=False,
            t_in_epochs=False,
        )
        self.ema = ModelEmaV3(self.inner, recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        self.mixup = None
        if recipe.mixup or recipe.cutmix:
            # Labels are smoothed once, by the loss.
            self.mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=0.0, num_classes=num_classes)

    @property
    def result(self) -> nn.Module:
        """The model to evaluate and keep: the moving average where there is one."""
        return cast(nn.Module, self.ema.module) if self.ema is not None else self.inner

    def _loss(self, batch: Batch) -> Tensor:
        images, labels = (t.to(self.device, non_blocking=True) for t in batch[:2])
        cached = batch.teacher_logits
        if self.mixup is not None:
            if cached is not None:
                raise WaveError("mixup and cutmix change the images: cached teacher logits do not fit; switch one off")
            np.random.seed((self.seed * 1_000_003 + self.step) % 2**32)  # noqa: NPY002 (what timm's Mixup draws from)
            if len(images) % 2:
                raise WaveError(
                    f"mixup and cutmix mix pairs, and a batch here has {len(images)} images; give an even one"
                )
            # A copy: timm mixes in place, and on the CPU these are the loader's own images.
            images, labels = cast(Any, self.mixup)(images.clone(), labels)
        sizes, apart = self.sampler(self.step) if self.sampler else (), None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            teacher = cached.to(self.device) if cached is not None else None
            if self.feature_weight:
                features = cast(Teacher, self.teacher).features(images)
                teacher = features.logits
                outputs, apart = self.model(images, sizes, features)
            else:
                if teacher is None and self.teacher is not None and self.recipe.kl_weight:
                    teacher = self.teacher(images)
                outputs = self.model(images, sizes) if self.sampler else self.model(images)
        if self.annealing and teacher is None:
            raise WaveError("annealing goes from a teacher to the labels: give a teacher, or batches with its logits")
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        share = self.step / self.steps if self.annealing else None
        losses = [distillation_loss(z, labels, teacher, self.recipe, share) for z in outputs]
        loss = torch.stack(losses).mean()
        return loss if apart is None else loss + self.feature_weight * (1 - (share or 0)) * apart

    def run(self, batches: Callable[[int], Iterator[Batch]], until: int | None = None) -> Iterator[Metrics]:
        """Train from the current step to ``until`` (default: the end), yielding every ``log_every`` steps and last."""
        until = min(until or self.steps, self.steps)
        self.model.train()
        total, count, images, start = torch.zeros((), device=self.device), 0, 0, time.perf_counter()
        stream = batches(self.step) if self.step < until else iter(())
        while self.step < until:
            batch = next(stream)
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
            total, count, images = total + loss.detach(), count + 1, images + len(batch.images)
            if self.step % self.recipe.log_every == 0 or self.step == until:
                mean, seconds = float(total) / count, time.perf_counter() - start
                if not np.isfinite(mean):
                    raise Diverged(
                        f"the loss is {mean} at step {self.step}; lower lr={self.recipe.lr} or raise warmup_steps"
                    )
                yield Metrics(
                    step=self.step,
                    steps=self.steps,
                    loss=mean,
                    lr=float(self.optimizer.param_groups[0]["lr"]),
                    images_per_second=images / seconds,
                    seconds_left=(self.steps - self.step) * seconds / count,
                )
                total, count, images, start = torch.zeros((), device=self.device), 0, 0, time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs, tensors and plain types only (``torch.load(weights_only=True)`` reads it)."""
        state = {"step": self.step, "model": self.inner.state_dict(), "optimizer": self.optimizer.state_dict()}
        return state if self.ema is None else {**state, "ema": self.result.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state_dict` of the same training."""
        self.step = int(state["step"])
        self.inner.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.result.load_state_dict(state["ema"])
