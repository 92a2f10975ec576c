"""What somebody may write into a release's licences, and what whoever uses it is told.

One case a threat, named after it. The chain lies in the release as its publisher put it
there, so that no digest is wrong; nothing is written where the model was to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from releasekit import (
    FormatError,
    LicenseError,
    apply_delta,
    check_licenses,
    make_delta,
    manifest_parser,
    open_delta,
    plan_apply,
    preflight,
    sums,
)
from releasekit.digest import sha256_hex
from releasekit.manifest import MANIFEST, SUMS
from tests.builders import model_folder
from tests.integration.tools import digests, releasekit

Document = dict[str, Any]
TEXT = {"path": "licenses/x/LICENSE", "kind": "license", "sha256": "0" * 64}
GRANT: Document = {
    "of": "Tune",
    "id": "x",
    "name": "Terms",
    "hub": "mit",
    "url": "https://x.example/",
    "commercial": True,
    "research_only": False,
    "acceptance": True,
    "summary": "Do as you like.",
    "texts": [TEXT],
}
CHAIN: Document = {
    "format": "releasekit-licenses/1",
    "bases": [],
    "release": GRANT,
    "teachers": [],
}


def release(folder: Path, chain: bytes) -> tuple[Path, Path]:
    """A base, and a release whose publisher wrote its chain by other means."""
    base = model_folder(folder / "base", {"w": ("BF16", [2], b"abcd")})
    target = model_folder(folder / "target", {"w": ("BF16", [2], b"abce")})
    (target / "licenses").mkdir()
    (target / "licenses/chain.json").write_bytes(json.dumps(CHAIN).encode())
    out = folder / "release"
    make_delta(base, target, out)
    place = "target/licenses/chain.json"
    (out / place).write_bytes(chain)
    manifest = manifest_parser.parse((out / MANIFEST).read_bytes())
    (entry,) = manifest.files
    entry = replace(entry, size=len(chain), sha256=sha256_hex(chain))
    (out / MANIFEST).write_bytes(replace(manifest, files=(entry,)).pack())
    listed = sums.parse_sums((out / SUMS).read_bytes(), SUMS)
    for name in (place, MANIFEST):
        listed[name] = sha256_hex((out / name).read_bytes())
    (out / SUMS).write_bytes(sums.format_sums(listed))
    return base, out


def changed(change: Callable[[Document], object]) -> bytes:
    document = deepcopy(CHAIN)
    change(document["release"])
    return json.dumps(document).encode()


def text(path: str) -> Callable[[Document], object]:
    return lambda grant: grant["texts"][0].update(path=path)


LINE = "expected a line of 1 to 1000 printable characters, found"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a text above the folder": (
        changed(text("licenses/../../x")),
        'release.texts[0].path: path "licenses/../../x" has a ".." segment',
    ),
    "a text at an absolute path": (
        changed(text("/etc/passwd")),
        'release.texts[0].path: path "/etc/passwd" is absolute; expected one relative to '
        "the release",
    ),
    "a text in place of the weights": (
        changed(text("model.safetensors")),
        'release.texts[0].path: expected one below licenses/, found "model.safetensors"',
    ),
    "a text in place of the chain": (
        changed(text("licenses/chain.json")),
        'release.texts[0].path: expected one below licenses/, found "licenses/chain.json"',
    ),
    "a name that clears the terminal": (
        changed(lambda grant: grant.update(name="\x1b[2JFree")),
        f'release.name: {LINE} "\\u001b[2JFree"',
    ),
    "a name that reads backwards": (
        changed(lambda grant: grant.update(name="\u202eeerF")),
        f'release.name: {LINE} "\\u202eeerF"',
    ),
    "terms of several lines": (
        changed(lambda grant: grant.update(notice="a\nwarning: b")),
        f'release.notice: {LINE} "a\\nwarning: b"',
    ),
    "terms without an end": (
        changed(lambda grant: grant.update(summary="x" * 2001)),
        "release.summary: expected a line of 1 to 2000 printable characters, found "
        f'"{"x" * 59}…"',
    ),
    "terms that another parser reads as accepted": (
        json.dumps(CHAIN).replace('"acceptance": true', '"acceptance": true, '
                                  '"acceptance": false').encode(),
        'key "acceptance" appears twice',
    ),
    "terms that are no yes or no": (
        changed(lambda grant: grant.update(acceptance=0)),
        "release.acceptance: expected true or false, found 0",
    ),
    "terms that nobody asked for": (
        changed(lambda grant: grant.update(accepted=True)),
        'release: unknown field "accepted"',
    ),
    "a chain of the future": (
        json.dumps(CHAIN | {"format": "releasekit-licenses/2"}).encode(),
        'format: expected "releasekit-licenses/1", found "releasekit-licenses/2": a newer '
        "releasekit may know it; update with `pip install -U releasekit`",
    ),
    "a chain without an end": (
        b" " * (1 << 20) + json.dumps(CHAIN).encode(),
        "expected at most 1048576 bytes, found",
    ),
    "a chain that exhausts the stack": (
        b'{"bases":' + b"[" * 100_000,
        "nested deeper than 64 levels",
    ),
    "a chain that is no text": (b"\xff\xfe", "not UTF-8 at byte 0"),
}  # fmt: skip


@pytest.mark.parametrize("threat", HOSTILE)
def test_hostile_licences_stop_the_rebuild(tmp_path: Path, threat: str) -> None:
    chain, message = HOSTILE[threat]
    base, delta = release(tmp_path, chain)
    before = digests(tmp_path)
    path = delta / "target/licenses/chain.json"
    calls: list[Callable[[], object]] = [
        lambda: apply_delta(base, delta, tmp_path / "out", accept_license=True),
        lambda: plan_apply(base, delta, tmp_path / "out"),
        lambda: open_delta(delta, base, accept_license=True),
    ]
    for call in calls:
        with pytest.raises(FormatError) as error:
            call()
        assert str(error.value).startswith(f"{path}: {message}")
        assert str(error.value).isprintable()
    found = preflight(base, delta)
    assert not found.ok
    assert [finding.kind for finding in found.findings] == ["FormatError"]
    # The same in a folder that is checked.
    assert digests(tmp_path) == before
    model = tmp_path / "model/licenses/chain.json"
    model.parent.mkdir(parents=True)
    model.write_bytes(chain)
    with pytest.raises(FormatError) as error:
        check_licenses(tmp_path / "model")
    assert str(error.value).startswith(f"{model}: {message}")


def test_what_is_printable_is_what_the_terminal_gets(tmp_path: Path) -> None:
    """Letters of any script are no harm; what the page says of itself is shown as it is."""
    base, delta = release(tmp_path, changed(lambda grant: grant.update(name="Größe 重")))
    done = releasekit(
        *("apply-delta", "--base", base, "--delta", delta, "--out", tmp_path / "out")
    )
    assert done.returncode == 7
    assert done.stderr.splitlines()[1] == "  Größe 重 (commercial use allowed)"


def test_a_text_that_the_release_lacks_is_not_where_users_are_sent(tmp_path: Path) -> None:
    base, delta = release(tmp_path, changed(lambda grant: None))
    with pytest.raises(LicenseError) as error:
        apply_delta(base, delta, tmp_path / "out")
    assert str(error.value) == (
        f"{delta}: Terms must be accepted before the model is used: read "
        "https://x.example/, then give --accept-license (in Python: accept_license=True)"
    )


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (b"\xff", "not UTF-8 at byte 0"),
        (b"---\nlicense: mit\nlicense: cc-by-nc-4.0\n---\n", "not valid YAML: "),
        (b"---\nlicense: !!python/name:os.system\n---\n", "not valid YAML: could not "),
        (b"---\n- license\n---\n", "metadata: expected a YAML mapping of names"),
        (b"---\n1: mit\n---\n", "metadata: expected a YAML mapping of names"),
        (b"---\nlicense: 2023-99-99\n---\n", "not valid YAML: month must be in 1..12"),
        (b"x" * ((1 << 22) + 1), "expected at most 4194304 bytes, found 4194305"),
    ],
)
def test_a_hostile_card_stops_the_check(tmp_path: Path, card: bytes, message: str) -> None:
    (tmp_path / "README.md").write_bytes(card)
    with pytest.raises(FormatError) as error:
        check_licenses(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'README.md'}: {message}")
    assert str(error.value).isprintable()
