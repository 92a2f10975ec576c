"""Colours of pages and charts, light and dark.

Kinds have those of Okabe and Ito's palette, which most people with impaired colour vision
can tell apart (https://jfly.uni-koeln.de/color/); grids have viridis, whose steps look even
and whose lightness alone tells its order (https://bids.github.io/colormap/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: One for each kind of tensor, in their order.
KINDS: Final = (
    "#0072b2",  # blue
    "#e69f00",  # orange
    "#d55e00",  # vermilion
    "#009e73",  # bluish green
    "#56b4e9",  # sky blue
    "#cc79a7",  # reddish purple
    "#8c959f",  # grey, in black's place, which would vanish on a dark page
)
#: Viridis in 24 steps, from the smallest to the largest value.
SCALE: Final = (
    *("#440154", "#471164", "#482071", "#472e7c", "#443b84", "#3f4889", "#3a548c"),
    *("#34608d", "#2f6c8e", "#2a768e", "#26818e", "#228b8d", "#1f958b", "#1fa088"),
    *("#24aa83", "#2fb47c", "#42be71", "#58c765", "#70cf57", "#8bd646", "#a8db34"),
    *("#c5e021", "#e2e418", "#fde725"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """A page's own colours.

    Attributes:
        suffix: of files drawn with it.
        page: background.
        card: background of what stands out.
        text: of words.
        faint: of less important ones.
        grid: of lines.
        zero: of cells that are 0 on a scale that has no 0.
    """

    suffix: str
    page: str
    card: str
    text: str
    faint: str
    grid: str
    zero: str


LIGHT: Final = Theme(
    suffix="",
    page="#ffffff",
    card="#f6f8fa",
    text="#1f2328",
    faint="#59636e",
    grid="#d9dee3",
    zero="#e7ebef",
)
DARK: Final = Theme(
    suffix="-dark",
    page="#0d1117",
    card="#161b22",
    text="#e6edf3",
    faint="#9aa4af",
    grid="#2b333d",
    zero="#262d36",
)
