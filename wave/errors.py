"""The errors that a person can cause.

Their text is one line: what was given, the rule, and the nearest thing that works.
"""


class WaveError(ValueError):
    """A request that cannot be met; ``str(error)`` is one line that says why and what to change."""


class Diverged(WaveError):
    """A loss was NaN or infinite; the message names the step."""
