"""The `release.toml` that `releasekit init` writes: all that one may say, with comments.

What is known stands as a value, what is not as a comment to be filled in, so that the file
can be read at once, and tells what is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from releasekit.errors import UsageError
from releasekit.license_files import load_catalogue
from releasekit.names import is_title, shown
from releasekit.releasing.file import (
    DELTA,
    FULL,
    PATH,
    REPO,
    TITLE,
    default_out,
    is_path,
    is_repo,
)

# TOML's basic strings may have no DEL, nor escapes of half a character.
_DEL: Final = "\x7f"
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What is known of a release beforehand; None where nothing is."""

    kind: str | None = None
    name: str | None = None
    target: str | None = None
    base: str | None = None
    repo: str | None = None
    license: str | None = None
    base_license: str | None = None
    sign_key: str | None = None

    def check(self) -> None:
        """Refuse an answer that is none, as UsageError."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (fault := fault_of(field.name, value)):
                raise UsageError(f"{field.name} {shown(value)}: {fault}")

    @property
    def missing(self) -> tuple[str, ...]:
        """Fields to be filled in before a release can be made, as far as can be told."""
        wanted = {
            "release.name": self.name,
            "release.kind": self.kind,
            "release.target": self.target,
            "release.base": self.base or self.kind == FULL,
            "licenses.license": self.license,
            "licenses.bases": self.base_license or self.kind == FULL,
        }
        return tuple(path for path, value in wanted.items() if not value)


def fault_of(name: str, answer: str) -> str | None:
    """What is wrong with an answer, which is checked as `parse` would; None if nothing."""
    if _SURROGATE.search(answer):
        return "expected text in this terminal's encoding"
    return _CHECKS[name](answer) if name in _CHECKS else _check_path(answer)


def _check_kind(text: str) -> str | None:
    return None if text in (DELTA, FULL) else f"expected {DELTA} or {FULL}"


def _check_name(text: str) -> str | None:
    return None if is_title(text) else f"expected {TITLE}"


def _check_repo(text: str) -> str | None:
    return None if is_repo(text) else f"expected {REPO}"


def _check_license(text: str) -> str | None:
    catalogue = load_catalogue()
    return None if catalogue.find(text) else f"is not known; {catalogue.hint(text)}"


def _check_path(text: str) -> str | None:
    return None if is_path(text) else f"expected {PATH}"


_CHECKS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "kind": _check_kind,
    "name": _check_name,
    "repo": _check_repo,
    "license": _check_license,
    "base_license": _check_license,
}


def draft(answers: Answers) -> bytes:
    """The file's text; UsageError if an answer is none."""
    answers.check()
    kind = answers.kind or DELTA
    out = default_out(answers.name or "my-tune", kind)
    lines = [
        "# A release: edit this, then run `releasekit release`. Paths are relative to it.",
        "",
        "[release]",
        _line("name", answers.name, "my-tune"),
        'version = "1.0"  # higher for each release; a published one never changes',
        _line("kind", answers.kind, DELTA, _KIND),
        _line("target", answers.target, "my-tune", "the model: a folder"),
        _line("base", answers.base, "org/name", _BASE[kind]),
        _line("out", None, out, "folder to make"),
        *_OF_KIND[kind],
        '# shard_size = "2GB"  # most bytes of a weight file',
        '# report = "report"  # folder for pictures of it; the card takes over the summary',
        _line("sign_key", answers.sign_key, "acme.pem", "made by `releasekit keygen`"),
        '# passphrase_file = "passphrase.txt"  # of the key; by default it is asked for',
        '# succession = "succession.json"  # of the key: see rotate-key',
        "",
        "[hub]  # nothing is published unless repo is named",
        _line("repo", answers.repo, "acme/my-tune"),
        '# visibility = "public"  # opened when all is done; a new one is private',
        '# gated = "auto"  # users agree to the licence first; "manual": you let them in',
        '# revision = "main"  # the branch',
        "",
        "[licenses]  # see `releasekit licenses list`",
        _line("license", answers.license, "apache-2.0"),
        _list("bases", answers.base_license, "apache-2.0", "of the base, and of its bases"),
        '# files = ["apache-2.0=LICENSE.txt"]  # texts that do not lie beside the base',
        '# teachers = ["gpt-4"]  # whose outputs it was trained on',
        "",
        *_FACTS,
    ]
    return "\n".join([*lines, ""]).encode()


_KIND = '"delta": the difference from a base; "full": all weights'
_BASE = {
    DELTA: "what the delta is on: a path, or on the Hub",
    FULL: "what it was made from: its licences are taken over",
}
_OF_DELTA = (
    '# publisher = "acme"  # whose release it is',
    '# exclude = ["*.bin"]  # files of the target to leave out',
    '# accept_base = ["other-copy-of-the-base"]  # copies that users may have',
    '# base_release = "acme/my-tune-delta@v1.0"  # rebuilds the base: this is an upgrade',
    '# codec = "add"  # for tools that add a delta; as large as the model',
)
_OF_FULL = (
    '# dtype = "smallest"  # that holds every value; or "bfloat16"; by default as it is',
)
_OF_KIND = {DELTA: _OF_DELTA, FULL: _OF_FULL}
_FACTS = (
    "[card]  # what only you know; what is not stated is listed, never made up",
    '# summary = "A model that follows instructions."',
    '# description = "Fine-tuned from …, on …"',
    '# developers = ["Acme"]',
    '# languages = ["en"]',
    "",
    "[base]",
    '# id = "org/name"  # on the Hub, for the card',
    "",
    "[prompt]",
    '# format = "### User:\\n{instruction}\\n"',
    "",
    "[training]",
    '# data = "600,000 examples, of which …"',
    '# decontamination = "Examples of the benchmarks were removed."',
    '# procedure = "Two epochs at a learning rate of 1e-5."',
    "",
    "[limits]",
    '# text = "Tested in English only."',
    "",
    "[evaluations]  # files of lm-evaluation-harness, or tables",
    '# model = ["results.json"]',
    '# base = ["base-results.json"]',
)


def _line(key: str, value: str | None, example: str, comment: str = "") -> str:
    """A field, or a comment in its place."""
    mark = "# " if value is None else ""
    text = f"{mark}{key} = {_quoted(example if value is None else value)}"
    return f"{text}  # {comment}" if comment else text


def _list(key: str, value: str | None, example: str, comment: str) -> str:
    mark = "# " if value is None else ""
    return f"{mark}{key} = [{_quoted(example if value is None else value)}]  # {comment}"


def _quoted(text: str) -> str:
    """A basic string of TOML: one of JSON, with one more character escaped."""
    return json.dumps(text, ensure_ascii=False).replace(_DEL, "\\u007f")
