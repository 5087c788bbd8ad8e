"""What every section is, and rules that pydantic has no words for: text of a pattern, one for a whole union, a mistake
across keys."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from wave.recipe import Recipe


class Section(BaseModel):
    """A table of the file: frozen, no unknown keys, no conversion between types but from whole numbers to decimals."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def given(self, key: str) -> bool:
        """Whether a setting has another value than its default."""
        return getattr(self, key) != type(self).model_fields[key].default


class SettingError(ValueError):
    """A mistake in one key of a section; ``key`` is relative to the section, "" for the section itself."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def check_once(key: str, entries: Iterable[object]) -> None:
    """Raise :class:`SettingError` of ``key`` if an entry of its list stands there more than once."""
    if twice := [str(entry) for entry, count in Counter(entries).items() if count > 1]:
        raise SettingError(key, f"names {', '.join(twice)} more than once")


def matches(pattern: str, rule: str) -> AfterValidator:
    """A check that text is a full match of ``pattern``; ``rule`` is the mistake's text."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def share(amount: float) -> float:
    """A check of an amount of a resource: Ray knows none smaller than a ten-thousandth."""
    if round(amount, 4) != amount:
        raise PydanticCustomError("rule", "should be a multiple of 0.0001, Ray's smallest share")
    return amount


class Says:
    """Behind a union: its one rule, in place of what each member would say."""

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return {**handler(source), "custom_error_type": "rule", "custom_error_message": self.rule}  # type: ignore


_DEFAULTS = {field.name: field.default for field in fields(Recipe)}


OF_ANCESTOR = ("tau", "kl_weight", "template_lr_scale", "scaler_lr_scale")


def check_unused(recipe: Recipe | None, names: tuple[str, ...], why: str) -> None:
    """Raise :class:`SettingError` for the first of ``names`` that has another value than its default."""
    for name in names if recipe is not None else ():
        if (value := getattr(recipe, name)) != _DEFAULTS[name]:
            raise SettingError(f"recipe.{name}", f"={value} has no effect: {why}; leave it out")
