"""A comparison's report: all tables and figures from raw rows, as one page, pictures, and Markdown."""

from pathlib import Path

from pipelines.comparison.cells import size_of
from pipelines.config.experiment import Experiment
from pipelines.report.choices import choice_table, differences
from pipelines.report.cost import against_direct, cost_table, costs
from pipelines.report.drawing import png
from pipelines.report.evidence import Evidence, StudyEvidence
from pipelines.report.figures import ablation_figure, cost_figure, curves, share_figure
from pipelines.report.page import Part, markdown, page
from pipelines.report.structure import examples, layers_figure, template_figure
from pipelines.report.tables import study_tables
from pipelines.report.win_loss import Judged, WinLoss, losses, rule, win_loss, win_loss_table
from pipelines.runtime.files import write_text
from wave.errors import WaveError
from wave.storage import Templates


def compare(experiment: Experiment, into: str | None = None) -> Path:
    """Write ``report/`` in the output folder: ``comparison.html``, one PNG per figure, ``tables.md``.

    The tables are written to the Markdown file ``into`` as well. Returns the page's path; raises
    :class:`WaveError`.
    """
    if into is not None and Path(into).suffix != ".md":
        raise WaveError(f"--into {into} is not a Markdown file; nearest: {Path(into).with_suffix('.md')}")
    evidence = Evidence(experiment)
    parts = sections(evidence)
    text = markdown(experiment.name, parts)
    if into is not None:
        write_text(Path(into), text)
    folder = evidence.workspace.root / "report"
    pictures = {name: png(figure) for part in parts for name, _, figure in part.figures}
    write_text(folder / "tables.md", text)
    for name, data in pictures.items():
        (folder / f"{name}.png").write_bytes(data)
    write_text(folder / "comparison.html", page(f"{experiment.name}: the comparison", parts, pictures))
    return folder / "comparison.html"


def sections(evidence: Evidence) -> list[Part]:
    """Everything that a comparison's report says, in order."""
    studies: list[Part | None] = []
    judged: dict[tuple[str, bool], set[Judged]] = {}
    changed = changes(evidence)
    for found in evidence.studies:
        seen = judged.setdefault((found.cells.dataset, found.study.distilled), set())
        counted = [against for against in win_loss(found, seen) if against.any_cell]
        studies.append(_study(evidence, found, changed, counted))
    parts = [_summary(evidence), _direct(evidence), *studies, _structure(evidence)]
    return [part for part in parts if part is not None]


def _summary(evidence: Evidence) -> Part:
    """What was measured, what is missing, and ours against every baseline."""
    part = Part("Summary")
    dates = sorted({str(row.get("date", "unknown")) for row in evidence.rows})
    machines = sorted({str(row.get("machine", "unknown")) for row in evidence.rows})
    source = evidence.source
    name = evidence.experiment.name
    part.text += [
        f"Settings of {name}, by python -m pipelines evaluate; {dates[0]} to {dates[-1]}; "
        f"on {' and on '.join(machines)}.",
        f"The ancestor is {source.embed_dim} wide and {source.depth} deep; sizes are width x depth. "
        "Accuracy on the test set, unless a study says otherwise, in per cent, ± one standard "
        "deviation over seeds; the best of a column is bold; learning rates were chosen on held-out "
        "training images.",
    ]
    for found in evidence.studies:
        lacking = missing(found)
        if lacking:
            part.text.append(f"Missing: {lacking} of the cells of study {found.study.name} have not been run.")
    if evidence.others:
        part.text.append(f"{evidence.others} cells in {evidence.path.name} belong to other settings and are not shown.")
    return part


def missing(found: StudyEvidence) -> int:
    """Cells of a study that are not there: method, size and seed."""
    sizes = sum(len(found.cells.reached(method)) for method in found.study.methods)
    there = {(row["method"], size_of(row), row["seed"]) for row in found.rows}
    return sizes * len(found.study.seeds) - len(there)


def changes(evidence: Evidence) -> dict[str, str]:
    """What each variant changes beyond the settings that all of them share."""
    return differences({v.name: v.set for v in evidence.experiment.evaluate.variants})


def _study(evidence: Evidence, found: StudyEvidence, changed: dict[str, str], counted: list[WinLoss]) -> Part | None:
    if not found.rows:
        return None
    where = f", on {found.cells.dataset}" if found.cells.transfer else ""
    part = Part(f"Study {found.study.name}{where}")
    if found.cells.transfer:
        part.text.append("Other data than the ancestor's; every method starts with a classifier drawn at random.")
    if found.study.held_out:
        part.text.append("Accuracy on held-out images instead of the test set: to choose between methods.")
    if found.study.distilled:
        part.text.append(
            "Every method is trained with the losses of stage 1, by the ancestor's logits too, all through."
        )
    name = found.study.name
    part.add(f"{name}_steps", "Training curves", curves(evidence, found))
    shares = share_figure(found, evidence.experiments)
    part.add(f"{name}_curve", "Accuracy against the share of the ancestor's parameters", shares)
    if sum(method.startswith("wave_") for method in found.study.methods) > 1:
        part.add(f"{name}_variants", "Ours under other settings", ablation_figure(found, changed))
    if counted:
        part.tables.append(win_loss_table(found, counted))
        part.text.append(rule(found))
        part.lists = losses(counted) or ["nowhere in this study"]
    if found.study.held_out and len(found.study.methods) > 1:
        part.tables.append(choice_table(found, evidence.experiments))
    part.tables += study_tables(found)
    return part


def _direct(evidence: Evidence) -> Part | None:
    """Against direct training: few steps against many, cost, curves."""
    part = Part("Against direct training")
    table, found = against_direct(evidence), costs(evidence)
    if table is not None:
        part.tables.append(table)
    if found:
        part.tables.append(cost_table(found))
        part.add("cost", "Total cost against the number of sizes", cost_figure(found))
    elif table is not None:
        part.text.append("The cost of stage 1 is in no row; without it there is no break-even point to show.")
    return part if part.tables or part.figures else None


def _structure(evidence: Evidence) -> Part | None:
    """From the run's folder, where it is."""
    workspace = evidence.workspace
    files = workspace.templates / "templates.json", workspace.ancestor / "config.json"
    if not all(file.is_file() for file in files):
        return None
    templates = Templates.load(workspace.templates)
    sizes = examples(evidence.studies[0].cells.sizes, evidence.source)
    part = Part("Structure")
    part.add("templates", "The templates", template_figure(templates))
    part.text.append(
        "Layers: the first principal component of each layer's weights, the ancestor's scaled to "
        "[-1, 1], in the form that stage 1 started from. Models of its width are projected on its "
        "component and share its scale; others have their own, its sign following the ancestor's. "
        "Sizes are as the templates give them, with no training."
    )
    part.add("layers", "Layers after PCA against their position", layers_figure(workspace, templates, sizes))
    return part
