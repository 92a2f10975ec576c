"""`release.toml`: a whole release in one file, from checkpoint to Hub.

    [release]  name, version
               kind           "delta" on a base, or "full" weights
               target         the model: a folder, or a file of one
               base           of a delta, or what a full model was made from: a path, or
                              org/name@revision on the Hub
               out            folder to make; by default NAME-delta, or NAME-full
               publisher      of a delta: whose release it is
               exclude        patterns of files in the target to leave out
               accept_base    other copies of the base that users may have
               base_release   the release that rebuilds the base, if this upgrades it
               codec          "ulp", or "add" for other tools as well
               shard_size     "2GB"
               dtype          of full weights: "float16", "bfloat16" or "float32", or the
                              "smallest" of these that holds every value
               sign_key, passphrase_file, succession
               report         folder for the pictures; none by default
    [hub]      repo           org/name; without it nothing is published
               visibility     "public" or "private"
               gated          "auto" or "manual"
               revision       a branch
               xet            whether to upload by Xet
    and the tables of `card.facts`: what only the maintainer knows, licences, evaluations

A file of several releases has [[sweep]], too: see `releasing.sweep`.

Paths are relative to the file. Every fault is told with the path of its field.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from releasekit import sizes, stricttoml
from releasekit.card.facts import Facts
from releasekit.card.facts import parse_tables as parse_facts
from releasekit.hub.address import is_reference
from releasekit.names import is_publisher, is_title
from releasekit.strictjson import Record
from releasekit.versions import EXPECTED, is_version

DELTA: Final = "delta"
FULL: Final = "full"
_CODECS: Final = ("ulp", "add")
_DTYPES: Final = ("float16", "bfloat16", "float32", "smallest")
#: What a path is, for messages.
PATH: Final = "a path: some text, without control characters"
#: What the release's name on the Hub is, for messages.
REPO: Final = "the release's id on the Hub, org/name"
#: What a title is, for messages.
TITLE: Final = "a line of 1 to 200 characters"
#: Bytes of a folder's name that is made of a title: others are made of it in turn.
_MAX_STEM: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """What a `release.toml` says; paths are as they stand in it.

    Fields are the keys of [release] and [hub]; `hub_revision` is that of [hub]. `public` is
    None where nothing is said of the visibility.
    """

    name: str
    version: str
    kind: str
    target: str
    out: str
    base: str | None = None
    publisher: str | None = None
    exclude: tuple[str, ...] = ()
    accept_base: tuple[str, ...] = ()
    base_release: str | None = None
    codec: str = "ulp"
    shard_nbytes: int | None = None
    dtype: str | None = None
    sign_key: str | None = None
    passphrase_file: str | None = None
    succession: str | None = None
    report: str | None = None
    repo: str | None = None
    public: bool | None = None
    gated: str | None = None
    hub_revision: str = "main"
    xet: bool = True
    facts: Facts


def parse(document: bytes, subject: str) -> ReleaseFile:
    """Read a `release.toml`.

    Raises:
        FormatError: with the path of the field that is wrong, what was expected, and what
            was found.
    """
    return parse_tables(stricttoml.loads(document, subject), subject)


def parse_tables(document: object, subject: str, path: str = "") -> ReleaseFile:
    """The same of what TOML came to; `path` is where it stands in its file."""
    facts = parse_facts(document, subject, path)
    root = Record(document, subject, path)
    release, hub = root.record("release"), root.optional_record("hub")
    kind = release.choice("kind", (DELTA, FULL))
    name = _fitting(release, "name", is_title, TITLE)
    version = _fitting(release, "version", is_version, EXPECTED)
    found = ReleaseFile(
        name=name,
        version=version,
        kind=kind,
        target=_path(release, "target"),
        out=_optional_path(release, "out") or default_out(name, kind),
        base=_path(release, "base") if kind == DELTA else _optional_path(release, "base"),
        publisher=release.optional_text("publisher"),
        exclude=release.optional_texts("exclude"),
        accept_base=_paths(release, "accept_base"),
        base_release=_optional_path(release, "base_release"),
        codec=_choice(release, "codec", _CODECS) or "ulp",
        shard_nbytes=_size(release, "shard_size"),
        dtype=_choice(release, "dtype", _DTYPES),
        sign_key=_optional_path(release, "sign_key"),
        passphrase_file=_optional_path(release, "passphrase_file"),
        succession=_optional_path(release, "succession"),
        report=_optional_path(release, "report"),
        facts=facts,
        **(_hub(hub) if hub is not None else {}),
    )
    release.close()
    _check(release, found)
    if facts.repo not in (None, found.repo) and found.repo is not None:
        raise root.record("card").fault("repo", f'"{found.repo}", as [hub] says, or none')
    return found


def default_out(name: str, kind: str) -> str:
    """The folder that a release is made in, where none is named."""
    stem = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    stem = stem.encode()[:_MAX_STEM].decode(errors="ignore").strip(".-")
    # Not the name alone: a model's own folder is often called so, and would be in the way.
    return f"{stem or 'release'}-{kind}"


def is_repo(text: str) -> bool:
    """Whether a repository on the Hub may be called so."""
    return is_reference(text) and "@" not in text


def _hub(hub: Record) -> dict[str, Any]:
    """What [hub] says; it may be empty, and then nothing is published."""
    repo = _fitting(hub, "repo", is_repo, REPO) if hub.has("repo") else None
    visibility = _choice(hub, "visibility", ("public", "private"))
    revision = hub.optional_text("revision")
    said = {
        "repo": repo,
        "public": None if visibility is None else visibility == "public",
        "gated": _choice(hub, "gated", ("auto", "manual")),
        "hub_revision": "main" if revision is None else revision,
        "xet": hub.flag("xet", default=True),
    }
    hub.close()
    if repo is None and (others := hub.keys()):
        raise hub.fault(others[0], "repo beside it")
    if revision is not None and not is_reference(f"{repo}@{revision}"):
        raise hub.fault("revision", "the name of a branch")
    return said


def _check(release: Record, found: ReleaseFile) -> None:
    """Refuse what does not go together."""
    if found.publisher is not None and not is_publisher(found.publisher):
        raise release.fault("publisher", "a name as organisations on the Hub have")
    of_delta = ("codec", "accept_base", "base_release", "exclude", "publisher")
    others = ("dtype",) if found.kind == DELTA else of_delta
    for key in others:
        if release.has(key):
            raise release.fault(key, f'none: kind = "{found.kind}" has no such choice')
    for key in ("passphrase_file", "succession"):
        if getattr(found, key) is not None and found.sign_key is None:
            raise release.fault(key, "sign_key beside it")
    for key, path in (("out", found.out), ("report", found.report)):
        if path is not None and PurePath(path).name in ("", ".."):
            raise release.fault(key, "a folder to make")


def is_path(text: str) -> bool:
    """Whether text can name a file."""
    # NUL ends a path on every system; the others only make messages unreadable.
    return bool(text.strip()) and not any(c < " " or c == "\x7f" for c in text)


def _path(record: Record, key: str) -> str:
    return _fitting(record, key, is_path, PATH)


def _optional_path(record: Record, key: str) -> str | None:
    return _path(record, key) if record.has(key) else None


def _paths(record: Record, key: str) -> tuple[str, ...]:
    paths = record.optional_texts(key)
    if not all(map(is_path, paths)):
        raise record.fault(key, f"an array, each item {PATH}")
    return paths


def _fitting(record: Record, key: str, fits: Callable[[str], bool], expected: str) -> str:
    text = record.text(key)
    if not fits(text):
        raise record.fault(key, expected)
    return text


def _choice(record: Record, key: str, options: Collection[str]) -> str | None:
    return record.choice(key, options) if record.has(key) else None


def _size(record: Record, key: str) -> int | None:
    text = record.optional_text(key)
    nbytes = sizes.parse(text) if text is not None else None
    if text is not None and not nbytes:
        raise record.fault(key, sizes.EXPECTED)
    return nbytes
