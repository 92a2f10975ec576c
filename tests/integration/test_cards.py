"""`releasekit card` as publishers run it, and the cards as their readers take them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard, close_session, constants
from markdown_it import MarkdownIt

from releasekit import Licensing, PrivateKey, make_delta
from releasekit.signing.keys import write_pair
from tests.builders import model_folder
from tests.integration.tools import (
    COMMAND,
    as_raw,
    digests,
    fine_tuned,
    llama,
    numbers,
)
from tests.integration.tools import in_process as releasekit
from tests.integration.tools import releasekit as subprocess_of

CARDS = Path(__file__).parent.parent / "cards"
LLAMA_2 = (
    "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta "
    "Platforms, Inc. All Rights Reserved.\n"
)
#: Made anew by each signature.
SIGNATURES = {"model.sig", "rebuilt.model.sig", "SHA256SUMS"}


@dataclass(frozen=True)
class Release:
    """A folder with a card, what its card was made of, and what the command said."""

    folder: Path
    base: Path
    key: Path
    said: dict[str, Any]

    def copy(self, place: Path) -> Path:
        shutil.copytree(self.folder, place)
        return place


def card(*arguments: str | Path) -> dict[str, Any]:
    done = releasekit("card", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture(scope="module")
def freewilly1(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A signed delta on LLaMA, as FreeWilly1 was."""
    place = tmp_path_factory.mktemp("freewilly1")
    source = np.random.default_rng(1)
    tensors = llama(source, layers=1, hidden=32, vocabulary=64)
    base = model_folder(place / "llama-65b", tensors)
    (base / "LICENSE").write_text("LLaMA LICENSE AGREEMENT\n")
    target = model_folder(place / "target", fine_tuned(source, tensors))
    (target / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    key = PrivateKey.generate()
    write_pair(key, place / "publisher.pem", None)
    delta = place / "DELTA"
    make_delta(
        base,
        target,
        delta,
        name="FreeWilly1",
        sign_key=key,
        licensing=Licensing(license="cc-by-nc-4.0", bases=("llama-1",), rebuilt="llama-1"),
    )
    facts = CARDS / "freewilly1.toml"
    said = card(delta, "--facts", facts, "--sign-key", place / "publisher.pem")
    return Release(delta, base, place / "publisher.pem", said)


@pytest.fixture(scope="module")
def freewilly2(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Full weights in float32 on Llama 2, as FreeWilly2 was."""
    place = tmp_path_factory.mktemp("freewilly2")
    source = np.random.default_rng(2)
    tensors = llama(source, layers=1, hidden=32, vocabulary=64)
    base = model_folder(place / "Llama-2-70b-hf", tensors)
    (base / "LICENSE.txt").write_text("LLAMA 2 COMMUNITY LICENSE AGREEMENT\n")
    (base / "USE_POLICY.md").write_text("# Llama 2 Acceptable Use Policy\n")
    (base / "Notice").write_text(LLAMA_2)
    tuned = fine_tuned(source, tensors)
    wide = {name: as_raw(numbers(tensor), "F32") for name, tensor in tuned.items()}
    folder = model_folder(place / "FreeWilly2", wide, shards=2)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    terms = place / "beluga.txt"
    terms.write_text("STABLE BELUGA NON-COMMERCIAL COMMUNITY LICENSE AGREEMENT\n")
    said = card(
        *(folder, "--facts", CARDS / "freewilly2.toml", "--base", base),
        *("--license-file", terms),
    )
    return Release(folder, base, terms, said)


@pytest.fixture(params=["freewilly1", "freewilly2"])
def release(request: pytest.FixtureRequest) -> Release:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Release)
    return found


def loaded(folder: Path) -> Any:
    return ModelCard.load(folder / "README.md")


# What huggingface_hub reads.


def test_the_delta_as_huggingface_hub_reads_it(freewilly1: Release) -> None:
    data = loaded(freewilly1.folder).data
    assert data.license == "cc-by-nc-4.0"
    assert data.base_model == "huggyllama/llama-65b"
    assert data.base_model_relation == "finetune"
    assert data.tags == ["llama", "orca", "releasekit", "delta"]
    assert data.library_name == "releasekit"
    assert data.language == ["en"]
    assert data.extra_gated_prompt.startswith("FreeWilly1 may be used for research only")
    assert data.model_name == "FreeWilly1"
    assert [(r.dataset_name, r.metric_value) for r in data.eval_results] == [
        ("ARC-Challenge", 68.2),
        ("HellaSwag", 85.9),
        ("MMLU", 64.8),
        ("TruthfulQA", 55.8),
    ]


def test_the_model_as_huggingface_hub_reads_it(freewilly2: Release) -> None:
    data = loaded(freewilly2.folder).data
    assert (data.license, data.license_name, data.license_link) == (
        *("other", "stable-beluga-nc", "LICENSE"),
    )
    assert data.base_model == "meta-llama/Llama-2-70b-hf"
    assert data.base_model_relation == "finetune"
    assert data.tags == ["llama-2", "orca", "releasekit"]
    assert data.library_name == "transformers"
    assert data.extra_gated_prompt.startswith("FreeWilly2 may be used for research only")
    assert [(r.dataset_name, r.metric_value, r.metric_args) for r in data.eval_results] == [
        ("ARC-Challenge", 71.1, {"num_few_shot": 25}),
        ("HellaSwag", 86.4, {"num_few_shot": 10}),
        ("MMLU", 68.8, {"num_few_shot": 5}),
        ("TruthfulQA", 59.4, {"num_few_shot": 0}),
    ]


def test_the_averages_are_those_of_the_leaderboard(
    freewilly1: Release, freewilly2: Release
) -> None:
    for release, kind, model, base, text in (
        (freewilly1, "delta", 68.67, 64.23, "| **68.67** | **64.23** | **+4.4** |"),
        (freewilly2, "model", 71.42, 66.8, "| **71.42** | **66.8** | **+4.6** |"),
    ):
        assert release.said["kind"] == kind
        assert release.said["missing"] == release.said["findings"] == []
        assert release.said["averages"] == {
            "open-llm-leaderboard": {"model": model, "base": base}
        }
        document = release.folder / "evaluations" / "evaluations.json"
        (suite,) = json.loads(document.read_bytes())["suites"]
        assert (suite["model"]["average"], suite["base"]["average"]) == (model, base)
        assert f"| **Average** | | {text}" in loaded(release.folder).text


def test_the_card_tells_all_that_a_reader_needs(freewilly1: Release) -> None:
    text = loaded(freewilly1.folder).text
    manifest = json.loads((freewilly1.folder / "release.json").read_bytes())
    known = digests(freewilly1.folder)
    for part in (
        "> **This repository holds a delta, not a model:**",
        f"| Identity of the rebuilt model | `{manifest['target']['identity']}` |",
        f"| Identity of the base | `{manifest['base']['identity']}` |",
        f"| SHA-256 of `release.json` | `{known['release.json']}` |",
        f"| Fingerprint of the key | `{freewilly1.said['key']}` |",
        "### Instruction:\n{instruction}\n\n### Response:",
        "| Orca-style, unpacked | 512 | 3e-5, cosine to 3e-6 | 100 steps | 1e-6 |",
        "| this delta | [Creative Commons Attribution-NonCommercial 4.0 International ",
        "| the rebuilt model | [LLaMA License Agreement](",
        "| LLaMA-65B | [LLaMA License Agreement](",
        "> LLaMA is licensed under the LLaMA License, Copyright (c) Meta Platforms, Inc. ",
    ):
        assert part in text


def test_every_link_in_the_card_leads_somewhere(release: Release) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(loaded(release.folder).text)
    parts = [child for token in tokens for child in (token, *(token.children or ()))]
    links = [str(part.attrs["href"]) for part in parts if "href" in part.attrs]
    links += re.findall(r'(?:src|srcset)="([^"]*)"', loaded(release.folder).text)
    here = {link for link in links if "://" not in link and not link.startswith("#")}
    assert len(here) >= 5
    for link in here:
        assert (release.folder / link).is_file(), link
    assert releasekit("card", release.folder, "--check", "-q").returncode == 0


def test_result_files_travel_as_they_are(release: Release) -> None:
    table = (CARDS / "leaderboard.csv").read_bytes()
    for role in ("model", "base"):
        assert (
            release.folder / "evaluations" / role / "leaderboard.csv"
        ).read_bytes() == table


# Written again.


def test_the_same_command_changes_nothing(freewilly2: Release, tmp_path: Path) -> None:
    folder = freewilly2.copy(tmp_path / "FreeWilly2")
    before = digests(folder)
    facts = CARDS / "freewilly2.toml"
    said = card(folder, "--facts", facts, "--base", freewilly2.base)
    assert digests(folder) == before
    assert said["averages"] == freewilly2.said["averages"]
    # What the card before knew of licences and evaluations need not be said again.
    text = facts.read_text().partition("[licenses]")[0]
    (tmp_path / "facts.toml").write_text(text)
    card(folder, "--facts", tmp_path / "facts.toml")
    assert digests(folder) == before


def test_a_signed_release_is_signed_again(freewilly1: Release, tmp_path: Path) -> None:
    folder = freewilly1.copy(tmp_path / "DELTA")
    before = digests(folder)
    refused = releasekit("card", folder, "--facts", CARDS / "freewilly1.toml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"error: {folder}: is signed, and would no longer be what was signed: give "
        "--sign-key to sign it again, or --unsign to remove the signature\n"
    )
    assert digests(folder) == before
    facts = CARDS / "freewilly1.toml"
    card(folder, "--facts", facts, "--sign-key", freewilly1.key)
    after = digests(folder)
    assert {path for path in after if after[path] != before[path]} <= SIGNATURES
    assert before.keys() == after.keys()
    public = freewilly1.key.with_suffix(".pub.pem")
    for arguments in (
        ("verify", folder),
        (
            *("apply-delta", "--base", freewilly1.base, "--delta", folder),
            *("--out", tmp_path / "out", "--accept-license"),
        ),
    ):
        done = releasekit(*arguments, "--public-key", public, "-q")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_release_can_be_left_unsigned(freewilly1: Release, tmp_path: Path) -> None:
    folder = freewilly1.copy(tmp_path / "DELTA")
    said = card(folder, "--facts", CARDS / "freewilly1.toml", "--unsign", "--no-chart")
    assert said["key"] is None
    assert not (folder / "model.sig").exists()
    assert "This release is not signed" in loaded(folder).text
    assert "model_signing" not in loaded(folder).text
    done = subprocess.run(
        ["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert releasekit("verify", folder, "-q").returncode == 0


def test_licences_of_a_delta_are_not_set_here(freewilly1: Release) -> None:
    before = digests(freewilly1.folder)
    done = releasekit(
        *("card", freewilly1.folder, "--license", "mit", "--sign-key", freewilly1.key)
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {freewilly1.folder}: the licences of a delta go into the model that it "
        "rebuilds, and are set when it is made; give --license and --base-license to "
        "make-delta\n"
    )
    for option in ("--name", "--base"):
        done = releasekit(
            *("card", freewilly1.folder, option, "x", "--sign-key", freewilly1.key)
        )
        assert done.stderr == (
            f"error: {freewilly1.folder}: --name and --base are for full models; a delta "
            "says both itself\n"
        )
    assert digests(freewilly1.folder) == before


# The commands that the card prints.


def commands(folder: Path, section: str) -> str:
    text = loaded(folder).text.partition(f"\n## {section}\n")[2]
    found = re.search(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_commands_of_the_card_run(freewilly1: Release, tmp_path: Path) -> None:
    freewilly1.copy(tmp_path / "DELTA")
    public = freewilly1.key.with_suffix(".pub.pem")
    shutil.copy(public, tmp_path / "publisher.pub.pem")
    script = [
        commands(freewilly1.folder, section)
        for section in ("Rebuild the model", "Verification")
    ]
    text = "".join(script)
    assert "pip install releasekit\n" in text
    text = text.replace("huggyllama/llama-65b", shlex.quote(str(freewilly1.base)))
    text = text.replace("stabilityai/FreeWilly1-Delta-SafeTensor", "DELTA")
    # Neither is under test, nor need be here.
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith(("pip install ", "model_signing ", "hf download "))
    ]
    # As a script has to: there is nobody to ask.
    lines = [line + " --accept-license" * ("--out" in line) for line in lines]
    command = f'releasekit() {{ {shlex.join(COMMAND)} "$@"; }}'
    done = subprocess.run(
        ["bash", "-euc", "\n".join([command, *lines])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CARDS.parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("releasekit") == 0
    assert "model.safetensors: OK" in done.stdout
    assert (tmp_path / "FreeWilly1" / "model.safetensors").is_file()


# Checks.


def test_what_is_wrong_with_a_card_is_listed(freewilly2: Release, tmp_path: Path) -> None:
    folder = freewilly2.copy(tmp_path / "FreeWilly2")
    (folder / "LICENSE").unlink()
    done = releasekit("card", folder, "--check")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == (
        'error card-license-other: license_link: "LICENSE" is not there; add the file, or '
        "correct it\n"
        "found  1 errors, 0 warnings\n"
    )
    done = releasekit("card", folder, "--check", "--json")
    assert done.returncode == 3
    said = json.loads(done.stdout)
    assert said["path"] == str(folder / "README.md")
    assert said["ok"] is False
    (finding,) = said["findings"]
    assert (finding["rule"], finding["severity"]) == ("card-license-other", "error")


def test_warnings_alone_are_no_failure(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# Hi\n")
    done = releasekit("card", tmp_path, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("warning card-library: library_name: is missing")
    assert done.stdout.endswith("0 errors, 1 warnings\n")


def test_the_hub_is_asked_only_in_a_check(tmp_path: Path) -> None:
    done = releasekit("card", tmp_path, "--online")
    assert done.returncode == 2
    assert "--online asks the Hub what --check does not know; add it" in done.stderr


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Validator)
        length = int(self.headers["Content-Length"])
        self.server.asked.append((self.path, json.loads(self.rfile.read(length))))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class Validator(HTTPServer):
    """What the Hub has to check cards with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.answer = b"{}"
        self.asked: list[tuple[str, Any]] = []


def point_to(address: str, patch: pytest.MonkeyPatch) -> None:
    """Take what is at an address for the Hub, here and in processes started from here."""
    patch.setenv("HF_ENDPOINT", address)
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.delenv("HF_HUB_OFFLINE", raising=False)
    # huggingface_hub read its variables when it was imported.
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()  # it may know the proxies of before


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Validator]:
    with Validator() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def good(tmp_path: Path) -> Path:
    folder = tmp_path / "good"
    folder.mkdir()
    text = "---\nlicense: mit\nlibrary_name: x\n---\n# Größe\n"
    (folder / "README.md").write_text(text)
    return folder


def online(folder: Path) -> CompletedProcess[str]:
    return releasekit("card", folder, "--check", "--online")


def test_the_hub_is_asked_what_it_takes(hub: Validator, good: Path) -> None:
    done = online(good)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "found  0 errors, 0 warnings\n"
    ((path, asked),) = hub.asked
    assert path == "/api/validate-yaml"
    assert asked["repoType"] == "model"
    assert asked["content"].splitlines() == (good / "README.md").read_text().splitlines()


def test_what_the_hub_refuses_is_told(hub: Validator, good: Path) -> None:
    hub.status, hub.answer = 400, b'"license"\n must be one of \xc2\xabmit\xc2\xbb'
    done = subprocess_of("card", good, "--check", "--online")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == (
        'error card-refused: "license" must be one of «mit»; mend README.md\n'
        "found  1 errors, 0 warnings\n"
    )


def test_a_hub_that_fails_says_nothing_of_the_card(hub: Validator, good: Path) -> None:
    hub.status, hub.answer = 500, b"oops"
    done = online(good)
    assert (done.returncode, done.stdout) == (8, "")
    address = os.environ["HF_ENDPOINT"]
    assert done.stderr.startswith(
        f"error: {good / 'README.md'}: {address} could not check the card: "
    )
    assert done.stderr.endswith("; try again later, or leave --online out\n")


def test_a_hub_that_is_not_there_is_told(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
    point_to(address, monkeypatch)
    done = online(good)
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr.startswith(
        f"error: {good / 'README.md'}: {address} could not check the card: "
    )


def test_nobody_is_asked_offline(
    hub: Validator, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = online(good)
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr == (
        f"error: {good / 'README.md'}: the Hub cannot be asked: HF_HUB_OFFLINE is set\n"
    )
    assert hub.asked == []


# What people see.


def test_a_summary_tells_what_was_written_and_what_is_missing(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", {"w": ("F32", [1], bytes(4))})
    done = releasekit("card", folder, "--license", "apache-2.0", "--no-chart", "-v")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: card-library: library_name: is missing, so the Hub guesses what loads "
        "the model; name it, e.g. transformers\n"
        f"warning: {folder / 'README.md'}: facts that users look for are not stated: "
        "card.summary, card.description, card.developers, card.languages, card.usage, "
        "prompt.format, training.data, training.decontamination, training.procedure, "
        "limits.text; give them with --facts\n"
    )
    assert done.stdout == (
        f"card    {folder / 'README.md'}, of model (model)\n"
        "files   5\n"
        "signed  no; see `releasekit sign`\n"
        "        LICENSE\n"
        "        NOTICE\n"
        "        README.md\n"
        "        licenses/apache-2.0/LICENSE.txt\n"
        "        licenses/chain.json\n"
    )
    (folder / "README.md").write_text(
        (folder / "README.md").read_text().replace("## Limits", "## My limits")
    )
    done = releasekit("card", folder, "--no-chart")
    assert "kept    limits: edited by hand; --force writes them anew\n" in done.stdout
