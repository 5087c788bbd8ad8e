"""The commands page: every command with its arguments, options and help, as click knows them."""

import re
from collections.abc import Iterator

import click

from cluster import cli as cluster_cli
from pipelines.cli import main as pipelines_cli

HEAD = """# Commands

This page is generated from the code. Run commands from the root of a checkout, after
`. .venv/bin/activate`. `-h` after any command prints its help.

| exit code | meaning |
| --- | --- |
| 0 | Everything asked for is there. |
| 1 | A check of `doctor` failed. |
| 2 | Something given cannot work; one line says what would. |
| 130 | Interrupted; the same command continues. |

`python -m cluster submit --follow` exits with the job's own code.
"""


def page() -> str:
    """The whole page."""
    groups = {"python -m pipelines": pipelines_cli.main, "python -m cluster": cluster_cli.cli}
    lines = [HEAD]
    for name, group in groups.items():
        lines += [f"## {name}", "", sentence(group.help or ""), ""]
        for path, command in commands(name, group):
            lines.append(section(path, command))
    return "\n".join(lines)


def commands(path: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    """Every command that is not a group, in the order of their names."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(f"{path} {name}", command)
        else:
            yield f"{path} {name}", command


def section(path: str, command: click.Command) -> str:
    """One command: usage, help, options."""
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    lines = [f"### {path.removeprefix('python -m ')}", "", f"    {usage}", ""]
    lines += [sentence(paragraph) + "\n" for paragraph in (command.help or "").replace("\b", "").split("\n\n")]
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        lines += ["| option | what it does |", "| --- | --- |"]
        lines += [f"| {spelling(option, context)} | {meaning(option)} |" for option in options] + [""]
    return "\n".join(lines)


def spelling(option: click.Option, context: click.Context) -> str:
    """The option's names and what it takes."""
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    return f"`{', '.join(option.opts)}{value}`".replace("|", "\\|")


def meaning(option: click.Option) -> str:
    """Its help, and its default where the help shows one."""
    text = sentence(option.help or "").replace("|", "\\|")
    return f"{text} Default: {option.default}." if option.show_default else text


def sentence(text: str) -> str:
    """One line, words in capitals that stand for arguments as code."""
    return re.sub(r"(?<![\w`.:/])([A-Z]{3,}(?:\.\w+)?)(?![\w`@.]*`)", r"`\1`", " ".join(text.split()))
