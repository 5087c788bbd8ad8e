"""The examples in docstrings run and print what they say, and what a user calls has one."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

import wave

ROOT = Path(__file__).resolve().parents[2]
MODULES = [info.name for info in pkgutil.walk_packages(wave.__path__, "wave.")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", ["wave", *MODULES])
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0


def public(module: ModuleType) -> list[object]:
    """Functions and classes of a module, and the methods of its classes, without underscores."""
    found: list[object] = []
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not own or not callable(value):
            continue
        found.append(value)
        if inspect.isclass(value):
            methods = inspect.getmembers(value, inspect.isfunction)
            found += [method for key, method in methods if not key.startswith("_")]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_whatever_is_public_says_what_it_is(name: str):
    module = importlib.import_module(name)
    assert module.__doc__
    undocumented = [value for value in public(module) if not inspect.getdoc(value)]
    assert not undocumented


def test_all_names_exist_once():
    assert len(set(wave.__all__)) == len(wave.__all__)
    assert all(hasattr(wave, name) for name in wave.__all__)
