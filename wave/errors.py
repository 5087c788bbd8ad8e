"""The one error a person can cause: a single line with what was given, the rule and the nearest thing that works."""


class WaveError(ValueError):
    """Something a person asked for cannot be done; ``str(error)`` is one line that says why and what to change."""


class Diverged(WaveError):
    """A loss was NaN or infinite; the message names the step."""
