"""One look for all figures, input checks shared by them, and saving."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..runs import write_bytes

Rows = Iterable[Mapping[str, Any]] | pd.DataFrame

FILE = Path(__file__).with_name("reasonrank.mplstyle")
BLACK, GREY, ORANGE, SKY, GREEN = "#000000", "#7f7f7f", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
ABOVE = {"textcoords": "offset points", "ha": "center", "va": "bottom"}  # of a text over a data point
WIDTH = 9.0  # inches: 900 px on a page at 100 dpi

# The same system has the same colour and marker in every figure.
SYSTEMS = {
    "retriever": (GREY, "o"),
    "zero-shot": (SKY, "s"),
    "SFT": (ORANGE, "^"),
    "SFT + RL": (BLUE, "D"),
    "SFT (this run)": (RED, "v"),
    "SFT + RL (this run)": (GREEN, "P"),
    "listwise": (BLUE, "D"),
    "pointwise": (RED, "v"),
}


def style() -> AbstractContextManager[None]:
    """The project's look, for figures drawn inside the context; settings outside stay as they are."""
    return plt.style.context(FILE, after_reset=True)


def drawing(what: str = "", *keys: str, shares: Sequence[str] = ()) -> Callable[..., Callable[..., Figure]]:
    """A function that draws: in `style()`, and with nothing left open in pyplot, so that a notebook shows it once.

    Where `what` names it, its first argument is `checked`: rows with `keys`, `shares` among them in 0..1.
    """

    def decorator(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        @wraps(draw)
        def wrapper(*args: Any, **kwargs: Any) -> Figure:
            if what:
                args = (checked(args[0], keys, what, shares), *args[1:])
            with style():
                figure = draw(*args, **kwargs)
            plt.close(figure)
            return figure

        return wrapper

    return decorator


def look(system: str, position: int = 0) -> tuple[str, str]:
    """Colour and marker of a system; one that is not known takes the colour of its position."""
    system = system.removesuffix(" (released adapter)")
    return SYSTEMS.get(system, (CYCLE[position % len(CYCLE)], MARKERS[position % len(MARKERS)]))


def checked(rows: Rows, keys: Sequence[str], what: str, shares: Sequence[str] = ()) -> pd.DataFrame:
    """The rows as a table. ValueError where there are none, or names the row and the key that is missing, or the
    value of `shares` that is outside 0..1, as one already in percent is."""
    found = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else [dict(row) for row in rows]
    if not found:
        raise ValueError(f"{what}: no rows to draw, expected at least one with {', '.join(keys)}")
    for number, row in enumerate(found, start=1):
        if missing := [key for key in keys if key not in row]:
            raise ValueError(f"{what}, row {number}: no {', '.join(missing)}; expected {', '.join(keys)}")
        if odd := [key for key in shares if not 0 <= row[key] <= 1]:
            raise ValueError(f"{what}, row {number}: {odd[0]} = {row[odd[0]]}: expected a value in 0..1")
    return pd.DataFrame(found)


def whiskers(rows: pd.DataFrame, value: str, low: str, high: str, scale: float = 1) -> list[pd.Series]:
    """Lengths of the intervals below and above the values, times `scale`, as errorbar takes them."""
    below, above = rows[value] - rows[low], rows[high] - rows[value]
    return [scale * below.clip(lower=0), scale * above.clip(lower=0)]


def save(figure: Figure, path: Path | str) -> Path:
    """Write a PNG at 150 dpi, whole or not at all; the same figure gives the same bytes."""
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"{path.name}: expected a name that ends in .png")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return write_bytes(path, content.getvalue())
