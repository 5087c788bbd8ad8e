"""What the library computes today, as hashes, moments and losses: `python -m tests.wave.golden`
writes golden.json.

Bits depend on the processor and on torch's version, moments do not: both are recorded, with what
they were made on.
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import wave
from tests.wave.models import FAMILIES, PIXELS, images, spec_of, tiny
from wave.baselines import BASELINES
from wave.multisize import inverse_cost

FILE = Path(__file__).with_name("golden.json")
ARTIFACT = (
    Path(__file__).resolve().parents[2] / "benchmarks" / "artifacts" / "fashion-mnist" / "templates"
)
SIZES = {
    "64 x 4": wave.TargetSpec(64, 4),
    "128 x 8": wave.TargetSpec(128, 8),
    "100 x 5": wave.TargetSpec(100, 5, num_classes=7, img_size=56, num_heads=10, mlp_ratio=3.0),
}
WIDTHS = [("leading", "auto"), ("even", "copies"), ("leading", "sqrt"), ("even", "none")]
DEPTHS = ["nearest", "linear", "identity"]
SYMMETRIES = ["none", "split", "noise"]
OPTIONS = [(DEPTHS[i % 3], WIDTHS[i % 4], SYMMETRIES[(i + i // 3) % 3]) for i in range(12)]
STEPS = 20


def machine() -> str:
    """What the bits of a float32 matrix product depend on."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), model
        )
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} {model} {vectors} torch {torch.__version__}"


def fingerprint(state: Mapping[str, Tensor]) -> dict[str, object]:
    """sha256 over names and bytes, the sum of all entries and the sum of their squares."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    entries = torch.cat([tensor.detach().flatten().double() for tensor in state.values()])
    return {
        "sha256": digest.hexdigest(),
        "sum": float(entries.sum()),
        "squares": float(entries.square().sum()),
    }


def weights() -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Every state that the library computes from given weights, by a name for readers."""
    templates = wave.Templates.load(ARTIFACT)
    for name, size in SIZES.items():
        yield f"initialise {name}", wave.initialise(templates, size).state_dict()
    for name in FAMILIES:
        yield f"canonical: {name}", wave.canonical(tiny(name), images(8)).state_dict()
        yield f"condense: {name}", wave.condense(tiny(name), spec_of(tiny(name))).state_dict()
    for depth, (width, scale), symmetry in OPTIONS:
        options = wave.Resampling(
            depth=depth, width=width, width_scale=scale, symmetry=symmetry, strength=0.3
        )
        for size in (
            wave.TargetSpec(40, 3),
            wave.TargetSpec(8, 5),
            wave.TargetSpec(20, 1, num_heads=4, img_size=24),
        ):
            ancestor = tiny("qk_norm")
            state = wave.condense(
                ancestor, spec_of(ancestor), size=size_in_blocks(size), options=options
            )
            built = wave.Templates.of(state, wave.Family.of(ancestor), options, {})
            model = wave.initialise(built, size)
            yield f"resample: {depth} {width} {scale} {symmetry} {size.name}", model.state_dict()
    yield from baselines()


def size_in_blocks(size: wave.TargetSpec) -> wave.TargetSpec:
    """A size that templates of 8 x 8 build without cropping, of the given depth."""
    return wave.TargetSpec(24, size.depth)


def baselines() -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    ancestor = tiny()
    family = wave.Family.of(ancestor)
    for name, baseline in BASELINES.items():
        for size in (
            wave.TargetSpec(24, 3),
            wave.TargetSpec(8, 1),
            wave.TargetSpec(16, 5, num_classes=3, img_size=24),
        ):
            if baseline.reach(family.size, family.resolve(size)):
                continue
            torch.manual_seed(0)
            start = baseline.stage1(family, 0, ancestor) if baseline.stage1 else ancestor
            target = replace(size, num_classes=None, img_size=None) if name == "ligo" else size
            yield (
                f"baseline: {name} {size.name}",
                baseline.initialise(start, family, target, 3, batches),
            )


def batches(step: int) -> Iterator[wave.Batch]:
    while True:
        labels = torch.randint(0, 5, (8,), generator=torch.Generator().manual_seed(step))
        yield wave.Batch(images(8, 3, PIXELS, seed=step), labels)
        step += 1


def losses(trainer: wave.Trainer) -> list[float]:
    return [metrics["loss"] for metrics in trainer.run(batches)]


def stage1_model(ancestor: VisionTransformer) -> wave.MultiSize:
    family, options = wave.Family.of(ancestor), wave.Resampling()
    auxiliary = wave.condense(wave.canonical(ancestor, images(8)), spec_of(ancestor))
    return wave.MultiSize(auxiliary, family, family.size, options, always=True)


def trainings() -> Iterator[tuple[str, list[float]]]:
    """The losses of 20 steps of both stages on random images."""
    ancestor, sizes = tiny(), [wave.TargetSpec(8, 1), wave.TargetSpec(24, 3)]
    common = {"steps": STEPS, "batch_size": 8, "warmup_steps": 2, "log_every": 1}
    stage1 = wave.Recipe(
        **common, tau=2.0, template_lr_scale=0.5, ema_decay=0.9, label_smoothing=0.1
    )
    model = stage1_model(ancestor)
    sampler = wave.SizeSampler(sizes, weights=inverse_cost(sizes))
    statistics = ((0.5,) * 3, (0.25,) * 3)
    teacher = wave.Teacher(ancestor, *statistics)
    more = {
        "teacher": teacher,
        "sampler": sampler,
        "feature_weight": 0.5,
        "annealing": True,
        "seed": 1,
    }
    trainer = wave.Trainer(model, stage1, STEPS, **more)
    yield "stage 1", losses(trainer)
    options = wave.Resampling()
    templates = wave.Templates.of(trainer.result.auxiliary, wave.Family.of(ancestor), options, {})
    stage2 = wave.Recipe(**common, scaler_lr_scale=2.0, mixup=0.2, cutmix=0.5)
    for scalers in ("resample", "random"):
        small = wave.target_model(templates, sizes[1], scalers=scalers, seed=2)
        trainer = wave.Trainer(small, stage2, STEPS, teacher=teacher, num_classes=5, seed=1)
        yield f"stage 2, scalers {scalers}", losses(trainer)


def measure() -> dict[str, object]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "machine": machine(),
            "weights": {name: fingerprint(state) for name, state in weights()},
            "losses": dict(trainings()),
        }
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    FILE.write_text(json.dumps(measure(), indent=1) + "\n")
