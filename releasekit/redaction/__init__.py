"""What of a text may leave the machine: no secrets, no owners, no folders.

A `Redactor` is told what is known: secrets, the user's names and folders, the machine's
names, and paths. It takes these out, and what looks like them, and puts marks in their
place: `<secret>`, `<user>`, `<host>`, `<mail>`, `<address>`, `<path-1>`, and `~`. What has
been redacted stays as it is if that is done again. It errs on the side of taking too much.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from releasekit.redaction.places import Places
from releasekit.redaction.secrets import MARK, hider, secrets_of

__all__ = ["Private", "Redactor", "hider", "secrets_of"]

#: Names that tell of no one, and stand in ordinary text.
_NOBODY: Final = frozenset(("root", "localhost"))
#: Letters from which a name is taken out of longer words as well, such as `alices`.
_LONG: Final = 5
_MAIL: Final = r"(?<![\w.+-])[\w.+-]++@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"
_IPV4: Final = (
    r"(?<![0-9.])(?!127\.|0\.0\.0\.0)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9]|\.[0-9])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """What is known of a machine, and must not leave it.

    Attributes:
        secrets: tokens, passwords and the like.
        homes: absolute paths of the user's own folder.
        users: names of the user.
        hosts: names of the machine.
        paths: what else is known to be a path, such as a command's options.
    """

    secrets: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class Redactor:
    """Takes out of texts what must not leave; numbers folders alike in all of them."""

    def __init__(self, private: Private) -> None:
        """Prepare to take out what is known, and what looks like it."""
        self._hide = hider(private.secrets)
        self._places = Places(private.homes, private.paths)
        self._names = re.compile(
            "|".join(
                (
                    f"(?P<kept>{MARK})",
                    f"(?P<mail>{_MAIL})",
                    f"(?P<address>{_IPV4})",
                    *_group("user", private.users),
                    *_group("host", private.hosts),
                )
            ),
            re.IGNORECASE,
        )

    def text(self, text: str) -> str:
        """What may leave of a text."""
        # A name that is gone makes a word, or an end, of what stood beside it. This ends:
        # whatever changes has fewer characters outside marks than before.
        before = None
        while before != text:
            before, text = text, self._named(self._places.text(self._hide(text)))
        return text

    def path(self, path: str) -> str:
        """What may leave of a path, which is taken whole, whatever is in it."""
        return self._hide(self._named(self._places.path(self._hide(path))))

    def value(self, value: object) -> object:
        """What may leave of a value that JSON can hold, or of a path; keys are kept."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, os.PathLike):
            return self.path(os.fspath(value))
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def _named(self, text: str) -> str:
        return self._names.sub(_marked, text)


def _marked(found: re.Match[str]) -> str:
    return found[0] if found["kept"] else f"<{found.lastgroup}>"


def _group(name: str, words: Iterable[str]) -> list[str]:
    """A pattern for names: long ones anywhere, short ones as words."""
    wanted = {word for word in words if len(word) > 1 and word.lower() not in _NOBODY}
    if not wanted:
        return []
    parts = [
        re.escape(word)
        if len(word) >= _LONG
        else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
        for word in sorted(wanted, key=lambda word: (-len(word), word))
    ]
    return [f"(?P<{name}>{'|'.join(parts)})"]
