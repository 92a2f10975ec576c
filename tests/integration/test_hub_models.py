"""Models and deltas by their names on the Hub, through every command that takes one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from releasekit import (
    UsageError,
    apply_delta,
    apply_foreign,
    convert,
    identify,
    import_delta,
    inspect,
    make_delta,
    open_delta,
    preflight,
)
from tests import foreign
from tests.fakehub import FakeHub
from tests.foreign import model, save, tuned
from tests.integration.tools import digests
from tests.integration.tools import in_process as releasekit

BASE = model(1)
TARGET = tuned(BASE)


def files_of(folder: Path) -> dict[str, bytes | Path]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in paths}


@pytest.fixture
def target(hub: FakeHub, tmp_path: Path) -> Path:
    """A fine-tune here; on the Hub its base in two forms, a release, and a plain delta."""
    base = save(BASE, tmp_path / "base", "bin")
    (base / "model.gguf").write_bytes(b"GGUF, and far too large to download")
    target = save(TARGET, tmp_path / "target")
    make_delta(base, target, tmp_path / "release")
    hub.put("org/base", files_of(base))
    hub.put("org/release", files_of(tmp_path / "release"))
    delta = save(foreign.subtract(TARGET, BASE), tmp_path / "delta", "bin")
    hub.put("org/delta", files_of(delta))
    old = hub.put("org/base", files_of(save(TARGET, tmp_path / "wrong")), branch="wrong")
    assert old
    return target


def test_base_and_release_by_name(hub: FakeHub, target: Path, tmp_path: Path) -> None:
    checked = preflight("org/base@main", "org/release")
    assert checked.ok, checked.findings
    apply_delta("org/base@main", "org/release", tmp_path / "out")
    assert digests(tmp_path / "out") == digests(target)
    with open_delta("org/release", "org/base") as opened:
        state = opened.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in TARGET.items())
    assert not hub.asked("gguf")


def test_another_revision_is_another_model(target: Path, tmp_path: Path) -> None:
    found = preflight("org/base@wrong", "org/release")
    assert [finding.kind for finding in found.findings] == ["fine-tune"]
    assert identify("org/base@wrong").identity != identify("org/base").identity
    assert identify("org/base").identity == identify(tmp_path / "base").identity


def test_somebody_elses_delta_by_name(target: Path, tmp_path: Path) -> None:
    made = apply_foreign("org/base", "org/delta", tmp_path / "out")
    assert made.recipe == "fastchat"
    import_delta("org/base", "org/delta", tmp_path / "imported")
    apply_delta("org/base", tmp_path / "imported", tmp_path / "again")
    whole = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    again = safetensors.torch.load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


def test_somebody_elses_delta_that_is_a_weight_file_alone(
    hub: FakeHub, target: Path, tmp_path: Path
) -> None:
    """Nothing of it comes before it is to be used, so its folder is not there yet."""
    plain = save(foreign.subtract(TARGET, BASE), tmp_path / "plain")
    hub.put("org/plain", {"model.safetensors": plain / "model.safetensors"})
    found = preflight("org/base", "org/plain")
    assert found.ok, found.findings
    done = releasekit(
        *("apply-delta", "--base", "org/base", "--delta", "org/plain"),
        *("--recipe", "fastchat", "--out", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr


def test_conversion_by_name(target: Path, tmp_path: Path) -> None:
    made = convert("org/base", tmp_path / "out")
    assert made.identity == identify(tmp_path / "base").identity
    assert len(inspect("org/base").tensors) == len(BASE)
    make_delta("org/base", target, tmp_path / "again", accept=["org/base"])
    assert digests(tmp_path / "again").keys() == digests(tmp_path / "release").keys()


def test_on_the_command_line(target: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--base", "org/base", "--delta", "org/release", "--out", out, "--json")
    done = releasekit("apply-delta", *arguments)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(target)
    missing = releasekit("identify", "org/none", "--json")
    assert missing.returncode == 8
    assert json.loads(missing.stdout)["error"]["type"] == "HubError"


@pytest.mark.parametrize("name", ["none/model.safetensors", "no/such/folder", "none"])
def test_a_path_that_is_not_there_is_no_name(hub: FakeHub, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        identify(name)
    assert str(caught.value) == f"{name}: no such file or folder"
    assert not hub.asked(".")
