"""A card's sections, from templates: one file each, which a maintainer can replace.

Templates are Jinja's, and see a `View`: facts, what the release is, its licences, its
evaluations. A maintainer's folder is looked in first; a template there, of the name of one
of ours, stands in for it, and others add sections after those. Names that a template asks
for and the view has not are errors, so that no card has a blank in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from releasekit.errors import FormatError, UsageError
from releasekit.evals import compare
from releasekit.evals.compare import Comparison, Row, SuiteComparison

TEMPLATES: Final = Path(__file__).parent / "templates"
SUFFIX: Final = ".md.j2"
#: The sections, in order.
SECTIONS: Final = (
    *("title", "model", "rebuild", "base", "weights", "prompt", "training"),
    *("evaluations", "limits", "license", "verification", "citation"),
)
#: Those that say what a maintainer said.
OF_FACTS: Final = frozenset(SECTIONS) - {
    *("weights", "evaluations", "license", "verification"),
}
_NAME: Final = re.compile(r"[a-z][a-z0-9-]*")
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_FENCE: Final = re.compile(r"`{3,}")  # indented, too, or after a bare \r
_MARKUP: Final = re.compile(r"[\\`*\[\]<>]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BLOCK: Final = re.compile(r"^(`{3,})[^`\n]*\n.*?^\1`*[ ]*$", re.MULTILINE | re.DOTALL)


def render(view: Mapping[str, Any], folder: Path | None = None) -> dict[str, str]:
    """The text of each section, by its name, in order; some may be empty.

    Args:
        view: what templates may name.
        folder: of templates that stand in for ours, or add to them.

    Raises:
        UsageError: if there is no such folder, or it holds none.
        FormatError: if a template is malformed, or asks for what there is not.
    """
    names = list(SECTIONS)
    if folder is not None:
        own = sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
        if not own:
            raise UsageError(
                f"{folder}: holds no templates; expected some of "
                f"{', '.join(name + SUFFIX for name in SECTIONS)}, or more"
            )
        for name in own:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{folder / (name + SUFFIX)}: expected a name of lower-case letters, "
                    "digits and hyphens"
                )
        names += [name for name in own if name not in SECTIONS]
    environment = _own_environment() if folder is None else _environment(folder, TEMPLATES)
    return {name: _render(environment, name, view) for name in names}


def _render(
    environment: ImmutableSandboxedEnvironment, name: str, view: Mapping[str, Any]
) -> str:
    try:
        text = environment.get_template(name + SUFFIX).render(view)
    except TemplateError as error:
        line = f", line {error.lineno}" if hasattr(error, "lineno") else ""
        raise FormatError(f"template {name}{SUFFIX}{line}: {error}") from None
    except UnicodeDecodeError as error:
        raise FormatError(
            f"template {name}{SUFFIX}: not UTF-8 at byte {error.start}"
        ) from None
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise FormatError(f"template {name}{SUFFIX}: {error}") from None
    except (RecursionError, MemoryError):
        raise FormatError(f"template {name}{SUFFIX}: has no end") from None
    parts, end = [], 0
    for block in _BLOCK.finditer(text):  # code, which is shown as it is
        parts += [_tidied(text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, _tidied(text[end:])]).strip("\n")


def _tidied(text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANK_LINES.sub("\n\n", lines)


@cache  # to compile templates takes longer than to fill them in
def _own_environment() -> ImmutableSandboxedEnvironment:
    return _environment(TEMPLATES)


def _environment(*places: Path) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader([FileSystemLoader(place) for place in places]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, in which HTML may stand
    )
    environment.filters |= {
        "attribute": attribute,
        "cell": cell,
        "count": count,
        "difference": compare.difference,
        "fenced": fenced,
        "figure": compare.figure,
        "mean": compare.mean,
        "has_errors": _has_errors,
        "label": label,
        "metric": _metric,
        "notes": _notes,
        "shots": _shots,
        "size": size,
        "table": table,
    }
    return environment


def cell(text: object) -> str:
    """Text for a cell of a table: on one line, and within the cell."""
    plain = " ".join(str(text).split())
    return plain.replace("\\", "\\\\").replace("|", "\\|")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table of rows with the same columns."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def label(text: str) -> str:
    """Text for a link: what Markdown reads into names is no markup."""
    return _MARKUP.sub(r"\\\g<0>", text)


def attribute(text: str) -> str:
    """Text for an attribute of HTML."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace('"', "&quot;")


def fenced(text: str, language: str = "text") -> str:
    """A block of code, whatever is in it."""
    marks = max((len(found) for found in _FENCE.findall(text)), default=2)
    fence = "`" * max(3, marks + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def size(nbytes: int) -> str:
    """`1.31 GB`: bytes in powers of 1000, as the Hub counts them."""
    return _scaled(nbytes, ("B", "kB", "MB", "GB", "TB"))


def count(number: int) -> str:
    """`65.3 billion`: a number of parameters."""
    return _scaled(number, ("", "thousand", "million", "billion", "trillion")).strip()


def _scaled(number: int, units: Iterable[str]) -> str:
    value, names = float(number), list(units)
    for name in names:
        if value < 999.5 or name == names[-1]:
            break
        value /= 1000
    return f"{value:.3g} {name}"


def _shots(row: Row) -> str:
    """The n-shot of a row, of both models if they differ."""
    shots = [figure.shots for figure in (row.model, row.base) if figure is not None]
    return " / ".join(dict.fromkeys("?" if n is None else str(n) for n in shots)) or "–"


def _metric(row: Row) -> str:
    """The metric of a row, of both models if they differ."""
    figures = [figure for figure in (row.model, row.base) if figure is not None]
    return " / ".join(dict.fromkeys(figure.measure for figure in figures)) or "–"


def _has_errors(comparison: Comparison) -> bool:
    """Whether a table shows the standard error of a difference."""
    errors = [row.stderr for row in comparison.others]
    for suite in comparison.suites:
        errors += [suite.stderr, *(row.stderr for row in suite.rows)]
    return any(error is not None for error in errors)


def _notes(suite: SuiteComparison) -> list[str]:
    """What there is to know of a suite's figures: of the model's, the base's, and both."""
    notes = list(suite.model.notes)
    if suite.base is not None:
        notes += [f"Base: {note}" for note in suite.base.notes if note not in notes]
    for row in suite.rows:
        notes += [f"{row.title} cannot be compared: {reason}." for reason in row.reasons]
        notes += [f"{row.title}: {remark}." for remark in row.remarks]
    return list(dict.fromkeys(notes))
