"""Types of single settings: paths, counts, shares, amounts of a resource."""

from typing import Annotated

from pydantic import AfterValidator, Field

from pipelines.config.validation import matches, share
from wave.spec import KINDS

_PATH = r"(?=.{0,1024}\Z)[^/\x00]{0,255}(/[^/\x00]{0,255})*"


PathText = Annotated[str, matches(_PATH, "should be a path of at most 1024 characters, 255 a part, none of them NUL")]


Count = Annotated[int, Field(ge=1)]


Block = tuple[Count, Count]


Share = Annotated[float, Field(ge=0, le=1)]


Amount = Annotated[float, Field(ge=0), AfterValidator(share)]


_COUNT = "a whole number of at least 1"


_PAIR = f"[rows, columns], each {_COUNT}"


_KINDS = ", ".join(KINDS)


Name = Annotated[str, matches(r"[A-Za-z0-9_-]{1,64}", "should be 1 to 64 letters, digits, - or _")]


RegistryName = Annotated[
    str, matches(r"[^/:\x00-\x1f]{0,200}", "should be at most 200 characters, none of them / or :")
]
