"""What stands before the names of a model's tensors: wrappers of training programs, and the models around it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.ancestors.weight_file import State, Weights, Which
from wave.errors import WaveError

ANCHORS = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "conv_proj.weight",
    "class_embedding",
)
"""Names by which a ViT is known: timm's and DINOv2's, transformers', torchvision's, CLIP's."""
_AVERAGED = ("teacher", "ema", "ema_model", "model_ema", "module_ema", "momentum_encoder", "target_encoder")
_TRAINED = ("student", "model", "module", "net", "base_encoder", "context_encoder", "online_encoder")
_HEADS = ("head", "fc", "classifier", "heads.head", "linear", "linear_head")
"""Names of a classifier beside the model that it belongs to."""
_OF_CLIP = ("visual.", "visual.trunk.")
"""timm reads these itself, the projection beside the tower included."""


def unwrapped(weights: Weights, path: Path, which: Which | None) -> tuple[Weights, str]:
    """The tensors of the one ViT in a state dict without the prefix before their names, and that prefix.

    A classifier beside the model stays; what else is left out is told. Raises :class:`WaveError` where
    there is no ViT or more than one, unless one of two is the average of the other, and where the file
    lacks the weights that are asked for.
    """
    state = weights.state
    prefixes = _prefixes(state)
    if not prefixes:
        first = ", ".join(list(state)[:3])
        raise WaveError(
            f"{path}: no ViT that this program knows: its tensors are named {first}, ...; expected are names such as "
            f"timm's {ANCHORS[0]} and blocks.0.norm1.weight, or those of transformers, torchvision or CLIP"
        )
    prefix, kind = _one_of(prefixes, path, which)
    kind = kind or weights.which
    if which is not None and which != (kind or "raw"):
        other = "EMA" if which == "ema" else "raw"
        has = weights.taken if kind == weights.which else prefix.rstrip(".")
        raise WaveError(f"{path}: holds no {other} weights, only {has or 'one model'}; leave out ancestor.weights")
    notes = list(weights.notes)
    if kind != weights.which or (kind and len(prefixes) > 1):
        words = "averaged (EMA) weights" if kind == "ema" else "raw weights"
        others = "".join(f"; it also holds {name}" for name in prefixes if name != prefix)
        notes.append(f"{words} ({prefix.rstrip('.')}) of {path.name}{others}")
    inside = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    left = [name for name in state if not name.startswith((prefix, *(p for p in prefixes if p)))]
    tower = next((end for end in reversed(_OF_CLIP) if f".{prefix}".endswith(f".{end}")), "")
    if tower or "class_embedding" in inside:
        inside = _clip(inside, state, prefix, tower)
        left = [name for name in left if not name.endswith("visual.head.proj.weight")]
    elif prefix:
        head = _head_beside(state, left, inside)
        inside |= {name: state[other] for name, other in head.items()}
        left = [name for name in left if name not in head.values()]
        taken = f", and {', '.join(head.values())} beside it" if head else ""
        notes.append(f"{path.name}: the model under the prefix {prefix}{taken}")
    if left:
        notes.append(f"{path.name}: {len(left)} tensors beside the model are left out, such as {left[0]}")
    return Weights(inside, kind, tuple(notes)), prefix


def _prefixes(state: State) -> list[str]:
    """What stands before the anchors."""
    found = {
        name.removesuffix(anchor): None
        for anchor in ANCHORS
        for name in state
        if name == anchor or name.endswith(f".{anchor}")
    }
    clips = {name for name in found if f"{name}class_embedding" in state}
    return [name for name in found if name not in clips or f"{name}conv1.weight" in state]


def _one_of(prefixes: Sequence[str], path: Path, which: Which | None) -> tuple[str, Which | None]:
    """One prefix, the average before what it is the average of unless ``which`` says otherwise."""
    groups: dict[Which, list[str]] = {"ema": _with(prefixes, _AVERAGED), "raw": []}
    groups["raw"] = [name for name in prefixes if name not in groups["ema"]]
    if len(prefixes) == 1:
        return prefixes[0], "ema" if groups["ema"] else None
    wanted: Which = which or "ema"
    if len(groups["ema"]) == 1 and len(groups["raw"]) == 1 and (_with(groups["raw"], _TRAINED) or "" in groups["raw"]):
        return groups[wanted][0], wanted
    named = " and ".join(repr(name) for name in prefixes[:4])
    raise WaveError(f"{path}: holds {len(prefixes)} models, under the prefixes {named}; keep those of one of them")


def _with(prefixes: Iterable[str], words: Sequence[str]) -> list[str]:
    return [name for name in prefixes if not set(words).isdisjoint(name.split("."))]


def _head_beside(state: State, left: Sequence[str], inside: State) -> dict[str, str]:
    """A linear classifier that stands beside its model: its names in the model, and those in the file."""
    if "embeddings.cls_token" in inside:
        return {name: name for name in left if name.partition(".")[0].endswith("classifier")}
    if any(name.startswith(("head.", "heads.")) for name in inside):
        return {}
    width = max((t.shape[-1] for name, t in inside.items() if name.endswith(("cls_token", "class_token"))), default=0)
    for name in _HEADS:
        found = {f"head.{leaf}": f"{name}.{leaf}" for leaf in ("weight", "bias") if f"{name}.{leaf}" in left}
        if len(found) == 2 and state[f"{name}.weight"].shape[1:] == (width,):
            return found
    return {}


def _clip(inside: State, state: State, prefix: str, tower: str) -> State:
    """The tower under the names by which timm's own reader knows it."""
    tower = tower or "visual."
    around = prefix.removesuffix(tower)
    tensors = {tower + name: t for name, t in inside.items()}
    projection = f"{around}visual.head.proj.weight"
    if projection in state:
        tensors["visual.head.proj.weight"] = state[projection]
    return tensors
