"""Imports point one way: kron, spec <- bank <- linear <- vit <- resampling <- initialisation.

Between packages they point downwards: cluster -> pipelines.config -> wave, and the levels of each as listed here.
"""

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAIN = ["kron", "spec", "bank", "linear", "vit", "resampling", "initialisation"]
LIBRARY = {"torch", "torchvision", "timm", "safetensors", "numpy"}
HEAVY = ("ray", "mlflow", "pyarrow", "pydantic", "click", "rich", "matplotlib", "sklearn")


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def module(file: Path) -> str:
    """wave/baselines/sws.py -> wave.baselines.sws; a package's __init__.py -> the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[tuple[str, int, bool]]:
    """(absolute module name, line, relative?) of every import statement, at any depth, TYPE_CHECKING included."""
    package = module(file) if file.name == "__init__.py" else module(file).rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, False
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield base, node.lineno, node.level > 0
            for alias in node.names:  # `from . import kron` imports a module, and so may `from .baselines import sws`
                yield f"{base}.{alias.name}", node.lineno, node.level > 0


def graph(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    known = {module(file) for file in files(package)}
    return {
        module(file): {name for name, _, _ in imports(file) if name in known and name not in (module(file), package)}
        for file in files(package)
    }


@pytest.mark.parametrize("package", ["wave", "pipelines", "cluster"])
def test_no_cycle(package: str):
    try:
        TopologicalSorter(graph(package)).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("package", ["wave", "pipelines", "cluster"])
def test_no_import_inside_a_function(package: str):
    found = [
        f"{file.relative_to(ROOT)}:{inner.lineno}"
        for file in files(package)
        if file.parent.name != "cli"  # commands import when they run, so that --help is quick
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not found


def test_the_chain_of_the_library():
    """No module reaches, directly or through others, one that stands after it in the chain."""
    direct = graph("wave")

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        todo = [name]
        while todo:
            new = direct.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    wrong = [
        f"{name} reaches {later}"
        for index, name in enumerate(CHAIN)
        for later in CHAIN[index + 1 :]
        if f"wave.{later}" in reached(f"wave.{name}")
    ]
    assert not wrong
    assert "wave.spec" not in reached("wave.kron")


def test_the_library_imports_itself_relatively_and_its_requirements_alone():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files("wave")
        for name, line, relative in imports(file)
        if not (relative and name.split(".")[0] == "wave")
        and not (not relative and name.split(".")[0] in LIBRARY | set(sys.stdlib_module_names) - {"wave"})
    ]
    assert not wrong


PIPELINES = ["config", "runtime", "data registry", "ancestors", "stages", "comparison", "report", "cli"]
CLUSTER = ["errors constants", "local", "jobs", "deploy doctor", "cli"]


@pytest.mark.parametrize(("package", "order"), [("pipelines", PIPELINES), ("cluster", CLUSTER)])
def test_packages_import_only_what_is_below_them(package: str, order: list[str]):
    """Packages on one level do not import each other; at most nine levels and forty arrows."""
    level = {name: index for index, names in enumerate(order) for name in names.split()}
    arrows: dict[tuple[str, str], str] = {}
    for file in files(package):
        own = module(file).split(".")[1:2]
        for name, line, _ in imports(file):
            other = name.split(".")[1:2] if name.startswith(f"{package}.") else []
            if own and other and own != other and own != ["__main__"]:
                arrows[own[0], other[0]] = f"{file.relative_to(ROOT)}:{line} imports {name}"
    wrong = [place for (own, other), place in arrows.items() if level[own] <= level[other]]
    assert not wrong
    assert len(order) <= 9
    assert len(arrows) <= 40


def test_every_package_says_what_it_holds():
    lacking = [
        str(folder.relative_to(ROOT))
        for top in ("wave", "pipelines", "cluster")
        for folder in sorted({file.parent for file in files(top)})
        if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    ]
    assert not lacking


ELSEWHERE = [("pipelines", ("cluster", "tests")), ("cluster", ("wave", "tests"))]


@pytest.mark.parametrize(("package", "never"), ELSEWHERE)
def test_the_other_packages_look_one_way(package: str, never: tuple[str, ...]):
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files(package)
        for name, line, _ in imports(file)
        if name.split(".")[0] in never
    ]
    assert not wrong


def test_cluster_uses_the_configuration_of_pipelines_and_nothing_else_of_it():
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files("cluster")
        for name, line, _ in imports(file)
        if name.split(".")[0] == "pipelines" and not f"{name}.".startswith("pipelines.config.")
    ]
    assert not wrong


def test_importing_the_library_loads_nothing_of_the_pipeline():
    code = "import json, sys, wave; print(json.dumps([wave.__file__, sorted({n.split('.')[0] for n in sys.modules})]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=600
    )
    file, loaded = json.loads(done.stdout.splitlines()[-1])
    assert Path(file) == ROOT / "wave" / "__init__.py"
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["models", "list", "--help"], ["no-such"]])
def test_help_and_mistyped_commands_load_no_heavy_module(arguments: list[str]):
    code = (
        "import json, sys\nfrom pipelines.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & ({*HEAVY, "torch", "timm", "numpy", "scipy", "fastapi"} - {"click"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import ray.train", {"ray.train"}),
        ("def f():\n    from ..kron import kron_sum", {"wave.kron", "wave.kron.kron_sum"}),
        ("from . import sws", {"wave.baselines", "wave.baselines.sws"}),
    ],
)
def test_imports_are_read_as_python_reads_them(text: str, expected: set[str], monkeypatch: pytest.MonkeyPatch):
    file = ROOT / "wave" / "baselines" / "any.py"
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    assert {name for name, _, _ in imports(file)} == expected
