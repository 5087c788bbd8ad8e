"""Give committed results the keys of ``KEY_VERSION`` 1; run once, with the results of that committed.

``python -m benchmarks.migrate_keys [--check]``, from the root of the checkout. Earlier keys had no
version, and each setting that came later was left out of them where it was off. This script holds the
functions that made those keys. It computes both keys of every cell that a committed experiment can
have, of the templates of every variant, and of the committed ancestors, and replaces one by the other
in ``benchmarks/results`` and ``benchmarks/artifacts``. Nothing else in a line changes. A row whose
cell no experiment has keeps its earlier key, which identifies it and which nothing will ask for.

It stops unless each earlier key has exactly one later key and the other way round, no line is lost,
and every cell whose rows were found before is found after. ``--check`` writes nothing.

The templates' own ``templates.json`` names the earlier key of the ancestor. It stays: nothing reads
that name, and the digest of the templates, which the keys of sizes hold, would change with it.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pipelines.ancestors.record import ancestor_key
from pipelines.comparison.cells import Cell, is_ours, unreachable
from pipelines.comparison.keys import cell_key
from pipelines.comparison.variants import variants
from pipelines.config.experiment import Experiment, load
from pipelines.data.batches import augment_of
from pipelines.data.dataset import Dataset
from pipelines.runtime.keys import key_of
from pipelines.stages import distil
from wave.baselines import BASELINES
from wave.spec import TargetSpec

ROOT = Path(__file__).resolve().parents[1]
RESULTS, ARTIFACTS = ROOT / "benchmarks/results", ROOT / "benchmarks/artifacts"
FURTHER = {
    "fashion_mnist": ("fashion_mnist_again", "fashion_mnist_stage1"),
    "fashion_mnist_larger": ("fashion_mnist_larger_stage1",),
}
"""Results files that an experiment's settings made besides the one that they name."""
DIGESTS = {
    "fashion-mnist": "151408abc469e9f45eedca5b65c3ee02ea1fb2e8206414c4ea4335d86b360a32",
    "digits-28": "315350906e923142efa4a070d7602067b1f4ff74b430667fa9980ed1980ca384",
}
"""Of the data sets, as committed templates name them."""

# --- the earlier keys ------------------------------------------------------------------------------


def earlier_key_of(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _switched_on(settings: Any) -> Any:
    if isinstance(settings, Mapping):
        kept = {k: _switched_on(v) for k, v in settings.items()}
        return {k: v for k, v in kept.items() if v or isinstance(v, str)}
    if isinstance(settings, list | tuple):
        return [_switched_on(v) for v in settings]
    return settings


def _made_by(experiment: Experiment) -> dict[str, Any]:
    where = {"workers", "resources_per_worker", "use_gpu", "max_failures"}
    rules = experiment.distil
    return {**rules.model_dump(mode="json", exclude=where), "annealing": rules.anneals}


def _stage1_settings(experiment: Experiment) -> dict[str, Any]:
    costs = ("recipe", "sizes", "sizes_per_step", "cost_power", "auxiliary", "feature_weight", "annealing")
    made_by = _made_by(experiment)
    settings: dict[str, Any] = _switched_on({k: v for k, v in made_by.items() if k in costs})
    if experiment.data.changes_images:
        settings["augment"] = augment_of(experiment.data)
    return settings


def _method_settings(experiment: Experiment) -> dict[str, Any]:
    rule = {"depth", "width_scale", "symmetry", "symmetry_strength", "scalers"}
    if experiment.initialise.width != "even":
        rule.add("width")
    settings: dict[str, Any] = {
        "templates": experiment.templates.model_dump(mode="json"),
        "distil": _made_by(experiment),
        "scaler_steps": experiment.evaluate.scaler_steps,
        "resampling": experiment.initialise.model_dump(mode="json", include=rule),
    }
    if experiment.evaluate.scaler_steps:
        settings["recipe"] = experiment.initialise.model_dump(mode="json", include={"recipe"})
    return settings


def earlier_cell_key(cell: Cell, experiments: Mapping[str, Experiment]) -> str:
    own = experiments[""]
    fixed = own.evaluate.model_dump(mode="json", include={"batch_size", "train_images", "test_images"})
    ancestor = own.ancestor.model_dump(mode="json")
    parts: list[object] = [asdict(cell), fixed, own.data.held_out, ancestor, own.seed]
    if is_ours(cell.method):
        parts.append(_method_settings(experiments[cell.method]))
    elif BASELINES[cell.method].stage1 is not None:
        parts.append(_stage1_settings(own))
    losses = {**own.distil.losses, "annealing": own.distil.anneals}
    if cell.distilled and losses != {"kl_weight": 1.0, "ce_weight": 0.0, "tau": 1.0, "annealing": False}:
        parts.append(losses)
    if cell.transfer:
        parts.append(own.data.name)
    if own.data.changes_images:
        parts.append(augment_of(own.data))
    return earlier_key_of("cell", *_switched_on(parts))


def earlier_ancestor_key(experiment: Experiment, digest: str) -> str:
    settings = experiment.ancestor.model_dump(mode="json")
    assert experiment.ancestor.source == "train"
    return earlier_key_of("ancestor", settings, experiment.seed, digest, 0, augment_of(experiment.data))


def earlier_templates_key(experiment: Experiment, ancestor: str) -> str:
    later = ("feature_weight", "annealing")
    settings = {k: v for k, v in _made_by(experiment).items() if v or k not in later}
    shapes = experiment.templates.model_dump(mode="json")
    rule = str(distil.resampling(experiment)).replace("width='even', ", "")
    augment = augment_of(experiment.data)
    return earlier_key_of("templates", ancestor, shapes, settings, rule, augment, experiment.seed)


# --- from the earlier to the later -----------------------------------------------------------------


def possible_cells(experiment: Experiment) -> Iterator[Cell]:
    """Every cell of every study at every rate of it or of the comparison, chosen or only tried."""
    rules = experiment.evaluate
    shape = (int(str(experiment.ancestor.model_args[k])) for k in ("embed_dim", "depth"))
    source = TargetSpec(*shape)
    for study in rules.studies:
        data = study.data or experiment.data
        rates = dict.fromkeys([*rules.learning_rates, *(study.learning_rates or [])])
        sizes = [size.spec() for size in study.sizes]
        for method, size, seed, lr, held_out in product(study.methods, sizes, study.seeds, rates, (False, True)):
            if unreachable(method, source, size) is None:
                yield Cell(
                    method, size.embed_dim, size.depth, seed, lr, tuple(study.steps), data.name,
                    transfer=study.data is not None, held_out=held_out, distilled=study.distilled,
                    num_heads=size.num_heads, mlp_ratio=size.mlp_ratio,
                )  # fmt: skip


def keys_of(experiment: Experiment) -> dict[str, str]:
    """Earlier key -> later key of all cells, of the ancestor, and of the templates of all variants."""
    experiments = variants(experiment)
    digest = DIGESTS[experiment.data.name]
    before = earlier_ancestor_key(experiment, digest)
    after = ancestor_key(experiment, cast(Dataset, SimpleNamespace(digest=digest)))
    found = {before: after}
    found[earlier_key_of("canonical", before, digest, experiment.seed)] = key_of(
        "canonical", after, digest, experiment.seed
    )
    for own in experiments.values():
        found[earlier_templates_key(own, before)] = distil.key(own, {"key": after})
    for cell in possible_cells(experiment):
        key = cell_key(cell, experiments)
        if found.setdefault(earlier_cell_key(cell, experiments), key) != key:
            raise SystemExit(f"{experiment.name}: {cell}: one earlier key, two later ones")
    if len(set(found.values())) != len(found):
        raise SystemExit(f"{experiment.name}: two earlier keys have the same later one")
    return found


def migrate(path: Path, later: Mapping[str, str], write: bool) -> str:
    """Replace the keys of one file of lines or of one record, prove that nothing is lost, and say so."""
    before = path.read_text()
    whole = path.suffix == ".json"
    lines = [before] if whole else before.splitlines(keepends=True)
    changed: list[str] = []
    for line in lines:
        key = json.loads(line)["key"]
        assert line.count(f'"key": "{key}"') == 1
        changed.append(line.replace(f'"key": "{key}"', f'"key": "{later.get(key, key)}"'))
    old = [json.loads(line) for line in lines]
    new = [json.loads(line) for line in changed]
    for one, other in zip(old, new, strict=True):
        assert {**one, "key": ""} == {**other, "key": ""}
    had, has = ({row["key"] for row in rows} for rows in (old, new))
    done = {key for key in had if key in later or key in later.values()}
    assert len(had) == len(has)
    assert {key for key in later.values() if key in has} == {later.get(key, key) for key in done}
    if write:
        path.write_text("".join(changed))
    rows = sum(row["key"] in done for row in old)
    return (
        f"{path.relative_to(ROOT)}: {len(old)} lines of {len(had)} keys; {rows} lines of "
        f"{len(done)} keys are an experiment's, {len(old) - rows} of {len(had) - len(done)} are not"
    )


def main(write: bool) -> None:
    """Migrate every experiment that names a results file, and the artifacts of the same name."""
    for file in sorted((ROOT / "pipelines/experiments").glob("*.toml")):
        experiment = load(file)
        if not experiment.evaluate.results:
            continue
        later = keys_of(experiment)
        stem = Path(experiment.evaluate.results).stem
        for name in (stem, *FURTHER.get(stem, ())):
            print(migrate(RESULTS / f"{name}.jsonl", later, write))
        for record in sorted((ARTIFACTS / experiment.name).glob("*.json")):
            print(migrate(record, later, write))


if __name__ == "__main__":
    main(write="--check" not in sys.argv[1:])
