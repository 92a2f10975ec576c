"""What a rule finds: which rule, what is wrong, what to do.

Rules have names that do not change, so that people and programs can refer to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """Whether a release with this finding may be published."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Something that is checked.

    Attributes:
        id: its name, which does not change.
        severity: what a finding is.
        title: what it finds, in one line.
    """

    id: str
    severity: Severity
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFinding:
    """What a rule found.

    Attributes:
        rule: by which it was found.
        why: what is wrong.
        todo: what to do about it.
    """

    rule: Rule
    why: str
    todo: str

    @property
    def is_error(self) -> bool:
        """Whether it speaks against publishing."""
        return self.rule.severity is Severity.ERROR

    def __str__(self) -> str:
        """One line of text."""
        return f"{self.rule.id}: {self.why}; {self.todo}"
