"""The settings page: every field of an experiment's models, with its type, range, default and description."""

import ast
import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipelines.config.experiment import Experiment

HEAD = """# Settings

One TOML file describes one run. This page is generated from the code: every section with every
setting, its default, and what it does. `--set section.key=value` overrides a setting on the command
line, and an empty value removes it. A setting without an effect, an unknown key or an impossible
value is an error that names the nearest thing that works.

The smallest useful file names the data, the ancestor, the sizes to sample and the sizes to
register, as in the [tutorial](../tutorial.md). Larger ones are in `pipelines/experiments/`.
"""
RECIPES = "Recipes: [ancestor.recipe], [distil.recipe], [initialise.recipe]"
WORDS = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of the page."""

    name: str
    kind: str
    default: str
    text: str


def page() -> str:
    """The whole page; raises :class:`SystemExit` naming the first setting without a description."""
    parts = [HEAD, table(Experiment, skip_sections=True, title="Top level", anchor="top-level")]
    shown: set[type] = {Experiment}
    for path, model in sections(Experiment):
        if model in shown:
            continue
        shown.add(model)
        title = (
            f"[{path}]"
            if not is_recipe(model)
            else f"{RECIPES}: [ancestor.recipe], [distil.recipe], [initialise.recipe]"
        )
        parts.append(table(model, title=title, anchor=anchor(model)))
    return "\n".join(parts)


def sections(model: type, path: str = "") -> Iterator[tuple[str, type]]:
    """Dotted path and model of everything nested in ``model``, each before what is nested in it."""
    for name, annotation in annotations(model).items():
        for nested in models(annotation):
            own = f"{path}.{name}" if path else name
            yield own, nested
            yield from sections(nested, own)


def models(annotation: Any) -> list[type]:
    """The models that a field holds: itself, in a list, or as members of a union."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return [annotation]
    return [model for part in get_args(annotation) for model in models(part)]


def annotations(model: type) -> dict[str, Any]:
    """Field -> annotation, metadata included; inherited fields first."""
    hints = get_type_hints(model, include_extras=True)
    if issubclass(model, BaseModel):
        return {name: hints[name] for name in model.model_fields}
    return {field.name: hints[field.name] for field in dataclasses.fields(model)}


def is_recipe(model: type) -> bool:
    """Whether it is the recipe of a training, which several sections share."""
    return dataclasses.is_dataclass(model)


def anchor(model: type) -> str:
    """The section's anchor: its model's name, in small letters and hyphens."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", model.__name__).lower()


def table(model: type, *, title: str, anchor: str, skip_sections: bool = False) -> str:
    """One section of the page."""
    lines = [f"## {title} {{ #{anchor} }}", "", first_paragraph(model), ""]
    lines += ["| setting | type | default | what it does |", "| --- | --- | --- | --- |"]
    for name, annotation in annotations(model).items():
        setting = Setting(name, kind(annotation), default(model, name), described(model, name))
        if skip_sections and models(annotation):
            where = " and ".join(f"[`[{name}]`](#{globals()['anchor'](m)})" for m in models(annotation))
            setting = dataclasses.replace(setting, kind=where)
        lines.append(f"| `{setting.name}` | {setting.kind} | {setting.default} | {setting.text} |".replace("\n", " "))
    return "\n".join(lines) + "\n"


def first_paragraph(model: type) -> str:
    """Of the docstring, with Sphinx's roles turned into code."""
    text = inspect.getdoc(model) or ""
    text = " ".join(text.split("\n\n")[0].split())
    return re.sub(r"(?::\w+)?:?``?([^`]+)``?", r"`\1`", re.sub(r":\w+:`~?\.?([^`]+)`", r"``\1``", text))


def described(model: type, name: str) -> str:
    """The field's own sentence: the string below it in the source of the class that declares it."""
    for owner in model.__mro__:
        text = docstrings(owner).get(name)
        if text:
            return text.replace("|", "\\|")
    raise SystemExit(f"{model.__module__}.{model.__name__}.{name} has no description; write a sentence below the field")


def docstrings(model: type) -> dict[str, str]:
    """Field -> the string literal below it."""
    if model.__module__.partition(".")[0] not in ("wave", "pipelines"):
        return {}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = " ".join(below.value.value.split())
    return found


def kind(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """The type of a setting in words, with its range."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0], (*arguments[1:], *metadata))
    if origin is Literal:
        return " or ".join(f"`{toml(value)}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(kind(member, metadata) for member in arguments if member is not type(None)))
    if origin is list:
        return f"list of {plural(arguments[0])}"
    if origin is tuple:
        return "list of numbers" if arguments[-1] is Ellipsis else f"list of {len(arguments)} {plural(arguments[0])}"
    if origin is dict:
        return "table" if get_origin(arguments[1]) else f"table of {plural(arguments[1])}"
    if models(annotation):
        return f"[{annotation.__name__}](#{anchor(annotation)})" if not is_recipe(annotation) else "[recipe](#recipe)"
    return WORDS[annotation] + bounds(metadata)


def plural(annotation: Any) -> str:
    """The type of a list's entries, without their range."""
    text = kind(annotation).partition(",")[0]
    return f"{text}s" if text.endswith("number") else text


def bounds(metadata: tuple[Any, ...]) -> str:
    """The range that annotations give, in words."""
    limits = [rule for field in metadata for rule in (*getattr(field, "metadata", ()), field)]
    found: dict[type, Any] = {
        type(rule): next(iter(dataclasses.asdict(rule).values())) for rule in limits if rules(rule)
    }
    words: list[str] = []
    if Ge in found and Le in found:
        words.append(f"{found.pop(Ge)} to {found.pop(Le)}")
    named = {Ge: "at least {}", Gt: "above {}", Le: "at most {}", Lt: "below {}"}
    named |= {MaxLen: "at most {} characters", MinLen: "not empty"}
    words += [named[kind].format(value) for kind, value in found.items()]
    return f", {', '.join(words)}" if words else ""


def rules(rule: Any) -> bool:
    """Whether it limits a value."""
    return isinstance(rule, Ge | Gt | Le | Lt | MaxLen | MinLen)


def default(model: type, name: str) -> str:
    """The default as TOML, or that there is none."""
    if issubclass(model, BaseModel):
        field = model.model_fields[name]
        value = PydanticUndefined if field.is_required() else field.get_default(call_default_factory=True)
    else:
        value = next(f.default for f in dataclasses.fields(model) if f.name == name)
        value = PydanticUndefined if value is dataclasses.MISSING else value
    if value is PydanticUndefined:
        return "required"
    if value is None or value == "" or models(type(value)):
        return ""
    return f"`{toml(value)}`"


def toml(value: Any) -> str:
    """A value as it is written in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join("{ ... }" if isinstance(v, BaseModel) else toml(v) for v in value) + "]"
    return str(value)
