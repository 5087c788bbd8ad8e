"""Do copies made by growing need their symmetry broken? Grown models trained on with each option, by accuracy.

``python -m benchmarks.symmetry RUN_FOLDER DATA_FOLDER OUT.jsonl``: RUN_FOLDER is the output of a finished run. The
auxiliary size is grown to twice its width by ``width_scale = "copies"`` (the function is preserved), then all weights
are trained for 100 steps. One line of JSON a run; the same command again does only what is missing.
"""

import datetime
import json
import sys
from pathlib import Path

import torch

from pipelines.data.batches import MemoryBatches, eval_batches
from pipelines.data.dataset import open_dataset
from pipelines.runtime.provenance import machine
from wave import Recipe, Resampling, TargetSpec, Templates, Trainer, accuracy, initialise

OPTIONS = [("none", 0.0), ("split", 0.1), ("split", 0.5), ("noise", 0.03), ("noise", 0.1)]


def main(run: str, data: str, out: str) -> None:
    templates, dataset = Templates.load(Path(run) / "templates"), open_dataset(data)
    target = TargetSpec(2 * templates.size.embed_dim, templates.size.depth)
    test = dataset.arrays("test")
    torch.set_num_threads(1)
    lines = Path(out).read_text().splitlines() if Path(out).is_file() else []
    done = {(row["symmetry"], row["strength"], row["seed"]) for row in map(json.loads, lines)}
    for seed in range(3):  # outermost: an interrupted run has every option as often
        for symmetry, strength in OPTIONS:
            if (symmetry, strength, seed) in done:
                continue
            options = Resampling(width_scale="copies", symmetry=symmetry, strength=strength, seed=seed)  # type: ignore[arg-type]
            model = initialise(templates, target, options)
            batches = MemoryBatches(*dataset.arrays("train"), dataset.mean, dataset.std, 64, seed)
            row: dict[str, object] = {"symmetry": symmetry, "strength": strength, "seed": seed, "size": target.name}
            row["before"] = accuracy(model, eval_batches(*test, dataset.mean, dataset.std, 256))
            trainer = Trainer(
                model, Recipe(steps=100, batch_size=64, lr=1e-3, warmup_steps=10, kl_weight=0), 100, seed=seed
            )
            row["loss"] = [round(m["loss"], 4) for m in trainer.run(batches)]
            row["after"] = accuracy(model, eval_batches(*test, dataset.mean, dataset.std, 256))
            row |= {"machine": machine(), "date": str(datetime.date.today())}
            with Path(out).open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
