"""A Griffe extension: Sphinx roles and doctests in docstrings become Markdown."""

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":\w+:`[~.]*([^`]+)`")
CODE = re.compile(r"``([^`]+)``")
DOCTEST = re.compile(r"((?:^ *(?:>>>|\.\.\.) .*\n?)+(?:^(?!\s*$).*\n?)*)", re.MULTILINE)


class Markdown(Extension):
    """Rewrites every docstring once."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Code in double backticks and roles as code; examples in a fence."""
        if obj.docstring is None:
            return
        text = CODE.sub(r"`\1`", ROLE.sub(r"`\1`", obj.docstring.value))
        obj.docstring.value = DOCTEST.sub(lambda found: f"```python\n{found[1].rstrip()}\n```\n", text)
