"""The table paper | released code | ours, and why, from data/paper/settings.yaml and the profiles."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import Field, model_validator

from . import paper, profiles

PROFILES = ("paper-7b", "paper-32b")
SAME = "same"


class Setting(paper.Strict):
    """A setting or a behaviour in the paper, in the released code ("same": as in the paper) and here.

    Either `key`, a dotted setting of the profiles paper-7b and paper-32b with its `expected` values there, or
    `ours`, a text; `switch`: how theirs is had; `difference`: its number in the list of differences.
    """

    setting: str
    paper: str
    released: str
    key: str | None = None
    expected: tuple[Any, Any] | None = None
    ours: str | None = None
    switch: str | None = None
    difference: int | None = Field(default=None, ge=1, le=11)
    why: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> Setting:
        if (self.key is None) == (self.ours is None) or (self.key is None) != (self.expected is None):
            raise ValueError(f"{self.setting}: expected a key with its two expected values, or ours")
        return self

    @property
    def differs(self) -> bool:
        """Whether the paper and the released code differ, or one of them leaves a choice."""
        return self.released != SAME


@cache
def settings() -> tuple[Setting, ...]:
    """All rows, in order."""
    return paper.load(paper.DATA / "settings.yaml", tuple[Setting, ...])


def in_profiles(key: str) -> tuple[Any, Any]:
    """The values of a dotted setting in the profiles paper-7b and paper-32b; KeyError for an unknown key."""
    return tuple(_value(profiles.load(name).model_dump(mode="json"), key) for name in PROFILES)


def _value(settings: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(settings, dict) or part not in settings:
            raise KeyError(f"profiles have no setting {key!r}")
        settings = settings[part]
    return settings


def markdown(only_differences: bool = False) -> str:
    """The table as Markdown; `only_differences`: rows in which paper and released code are not the same."""
    lines = ["| | paper | released code | ours | why, or how to have theirs |", "|---|---|---|---|---|"]
    for row in settings():
        if row.differs or not only_differences:
            switch = f"theirs: `{row.switch}`" if row.switch else ""
            remark = "; ".join(filter(None, (row.why, switch)))
            cells = (row.setting, row.paper, row.released, _ours(row), remark)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _ours(row: Setting) -> str:
    if row.key is None:
        return row.ours or ""
    small, large = (_shown(value) for value in in_profiles(row.key))
    values = small if small == large else f"{small} (7B), {large} (32B)"
    return f"{values} (`{row.key}`)"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
