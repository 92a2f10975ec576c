"""The README and FORMAT.md say what is so: commands run, tables match the code."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from releasekit.card.checks import RULES as CARD_RULES
from releasekit.cli.exits import EPILOG, EXIT_CODES
from releasekit.licenses.rules import RULES
from releasekit.tensors import DType
from tests.builders import model_folder
from tests.fakehub import TOKEN, FakeHub
from tests.integration.tools import here, measured_briefly

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text()
_FORMAT = (_ROOT / "releasekit" / "FORMAT.md").read_text()

#: Commands that set up a machine; scripts/test has run the same by the time this runs.
_SET_UP = re.compile(
    r"pip install|scripts/(test|prove|fuzz|quickstart|rehearse|hub-versions)\b"
)
#: Somebody else's program, which only scripts/prove has.
_STOCK = "model_signing "


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", _README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def models(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Path:
    """BASE, TARGET and others, as the README calls them; and a Hub to publish on."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1 << 16, (64, 64), np.uint16)
    target = base + rng.integers(0, 3, base.shape, np.uint16)
    newer = target + rng.integers(0, 3, base.shape, np.uint16)
    for name, words in (("BASE", base), ("TARGET", target), ("TARGET2", newer)):
        model_folder(tmp_path / name, {"w": ("BF16", [64, 64], words.tobytes())})
    buffer = {"x.rotary_emb.inv_freq": ("F32", [1], bytes(4))}
    other = {"w": ("BF16", [64, 64], base.tobytes())} | buffer
    model_folder(tmp_path / "OTHER", other)
    model_folder(tmp_path / "FOREIGN", {"w": ("F16", [64, 64], target.tobytes())})
    (tmp_path / "TARGET" / "config.json").write_text("{}")
    (tmp_path / "BASE" / "LICENSE").write_text("the text of the base's licence")
    (tmp_path / "card.toml").write_text(_blocks("toml")[0])
    for name in ("results.csv", "base.csv"):
        (tmp_path / name).write_text(_blocks("csv")[0])
    (tmp_path / "passphrase.txt").write_text("a secret of mine\n")
    (tmp_path / "TARGET" / "pytorch_model.bin").write_bytes(b"a second copy")
    return tmp_path


def _run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_in_the_readme_runs(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the text, each from where the reader would be."""
    measured_briefly(monkeypatch)
    _run_all(models, stock=None, brief=True)


@pytest.mark.slow
def test_every_command_in_the_readme_runs_in_full(models: Path) -> None:
    """The stock tool's too, where scripts/prove has named that program."""
    _run_all(models, stock=os.environ.get("RELEASEKIT_MODEL_SIGNING"), brief=False)


def _run_all(models: Path, *, stock: str | None, brief: bool) -> None:
    ran = 0
    for block in _blocks("sh"):
        for line in block.splitlines():
            if not line.strip() or _SET_UP.search(line):
                continue
            if line.startswith(_STOCK):
                if stock is None:
                    continue
                line = line.replace(_STOCK, f"{stock} ", 1)
            if "make-delta" in line and "--force" not in line:
                (models / "TARGET" / "pytorch_model.bin").unlink(missing_ok=True)
            if "make-delta" in line and "--out DELTA" in line and "--force" not in line:
                _remove(models / "DELTA")
            if "--out REBUILT" in line:
                _remove(models / "REBUILT")
            if brief and "scripts/bench.py WORK --pair" in line:  # the one that is quick
                line += " --only 'copy + sha256'"
            line = line.replace("scripts/", f"{_ROOT}/scripts/")
            words = shlex.split(line, comments=True)
            if words[0] == "releasekit":  # in this process, which saves starting another
                with chdir(models):
                    told = here(*words[1:])
                assert told.code == 0, f"{line}\n{told.stdout}{told.stderr}"
            else:
                done = _run(line, models)
                assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            ran += 1
    assert ran >= 45
    same = (models / "REBUILT" / "model.safetensors").read_bytes()
    assert same == (models / "TARGET" / "model.safetensors").read_bytes()


def test_the_python_examples_run(models: Path) -> None:
    """Each after the one before it, whose files it uses."""
    (models / "TARGET" / "pytorch_model.bin").unlink()
    printed = []
    for example in _blocks("python"):
        said = io.StringIO()
        with chdir(models), redirect_stdout(said):
            exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
        printed.append(said.getvalue())
    assert len(printed) == 6
    assert "LICENSE" in printed[4]
    assert "'changed'>: 1" in printed[5]
    assert "w torch.bfloat16 (64, 64)" in printed[0]


def test_exit_codes_are_the_same_in_readme_help_and_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \|$", _README, re.MULTILINE)
    table = {int(code): (meaning, names) for code, meaning, names in rows}
    for code, (meaning, _) in table.items():
        assert re.search(rf"^  {code} +{re.escape(meaning)}$", EPILOG, re.MULTILINE)
    for error, code in EXIT_CODES.items():
        assert f"`{error.__name__}`" in table[code][1]


def test_the_readme_lists_every_rule() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (error|warning) \| (.*?) \|$", _README, re.M)
    rules = [*RULES, *CARD_RULES]
    assert rows == [(rule.id, rule.severity.value, rule.title) for rule in rules]


def test_the_format_lists_every_dtype() -> None:
    words = {
        name: tuple(map(int, numbers))
        for names, *numbers in re.findall(
            r"^\| (.*?) \| (\d+) \| (\d+) \| (\d+) \|$", _FORMAT, re.MULTILINE
        )
        for name in re.findall(r"[A-Z][A-Z0-9_]+", names)
    }
    for dtype in DType:
        word = dtype.word
        if word.exponent_bits:
            assert words[dtype.label] == (word.bits, word.exponent_bits, word.mantissa_bits)
        else:
            assert dtype.label not in words


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
