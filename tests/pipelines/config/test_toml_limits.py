"""TOML that would take minutes or stacks to read is refused at once, in one line; what only looks like it is read."""

import time
from pathlib import Path

import pytest

from pipelines.config.experiment import load
from pipelines.config.toml import apply_overrides, parse_value, read_toml
from wave.errors import WaveError

LONG = {
    "a key of 50,000 parts": (".".join("a" * 50_000) + " = 1", "a key of more than 32 parts"),
    "with blanks": (" . ".join(["a"] * 30_000) + "=1", "a key of more than 32 parts"),
    "in quotes": (".".join(['"a"'] * 20_000) + " = 1", "a key of more than 32 parts"),
    "of a table": ("[" + ".".join("a" * 50_000) + "]", "a key of more than 32 parts"),
    "of a table in a line": ("x = {" + ".".join("a" * 40_000) + " = 1}", "a key of more than 32 parts"),
    "after a string": ("x = '''\n'''\n" + ".".join("a" * 50_000) + " = 1", "a key of more than 32 parts"),
    "lists in lists": ("a = " + "[" * 100_000 + "]" * 100_000, "more than 32 tables or lists"),
    "tables in tables": ("a = " + "{a = " * 10_000 + "1" + "}" * 10_000, "more than 32 tables or lists"),
    "a whole number": ("seed = " + "1" * 400, "a number of more than 64 digits"),
    "a decimal": ("seed = " + "1" * 399 + ".5", "a number of more than 64 digits"),
    "hexadecimal": ("seed = 0x" + "f" * 40, "seed is a whole number beyond 64 bits"),
    "sixteen bytes": ("seed = 99999999999999999999", "seed is a whole number beyond 64 bits"),
    "no end": ("#" * 3_000_000, "more than 256 KiB"),
    "quotes without end": ('a = "' + '\\"' * 100_000, "not valid TOML"),
}


@pytest.mark.parametrize("name", LONG)
def test_refused_at_once_in_one_line(name: str, tmp_path: Path) -> None:
    text, words = LONG[name]
    (tmp_path / "x.toml").write_text(text)
    start = time.process_time()
    with pytest.raises(WaveError, match=words) as caught:
        load(tmp_path / "x.toml")
    assert time.process_time() - start < 3
    assert str(caught.value).startswith(f"{tmp_path}/x.toml: ")
    assert "\n" not in str(caught.value)


def test_a_long_key_by_hand() -> None:
    start = time.process_time()
    with pytest.raises(WaveError, match="a key of more than 32 parts"):
        apply_overrides({}, [".".join("a" * 50_000) + "=1"])
    assert time.process_time() - start < 1
    assert parse_value("1" * 400) == "1" * 400  # text, which no number's setting takes


def test_text_and_comments_may_look_like_anything(tmp_path: Path) -> None:
    dots, digits = "a." * 5_000, "9" * 500
    (tmp_path / "x.toml").write_text(
        f"# {dots} {digits} {'[' * 99}\na = \"{dots}\"\nb = '{digits}'\nc = '''\n{'[' * 99}'''\n"
    )
    assert read_toml(tmp_path / "x.toml") == {"a": dots, "b": digits, "c": "[" * 99}
