"""Recipe settings that a stage does not read: given all the same, they are a mistake."""

from dataclasses import fields

from pipelines.config.validation import SettingError
from wave.recipe import Recipe

_DEFAULTS = {field.name: field.default for field in fields(Recipe)}
OF_ANCESTOR = ("tau", "kl_weight", "template_lr_scale", "scaler_lr_scale")


def check_unused(recipe: Recipe | None, names: tuple[str, ...], why: str) -> None:
    """Raise :class:`SettingError` for the first of ``names`` that has another value than its default."""
    for name in names if recipe is not None else ():
        if (value := getattr(recipe, name)) != _DEFAULTS[name]:
            raise SettingError(f"recipe.{name}", f"={value} has no effect: {why}; leave it out")
