"""What the tests of publishing share: releases to publish, and what the Hub has then."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from tests.builders import model_folder
from tests.fakehub import FakeHub
from tests.integration.tools import Done, Model, digests, good, here, small_pair, weights

REPO: Final = "acme/tune"
#: What the Hub puts into a new repository.
OWN: Final = ".gitattributes"


@dataclass(frozen=True)
class Shelf:
    """Releases by their publisher, each made when it is first asked for."""

    root: Path

    @cached_property
    def text(self) -> Path:
        """A licence."""
        path = self.root / "mit.txt"
        path.write_text("MIT\n")
        return path

    @property
    def key(self) -> Path:
        return self.pair("acme")

    @property
    def public(self) -> Path:
        return self.key.with_name("acme.pub.pem")

    def pair(self, name: str) -> Path:
        """A private key; the public one lies beside it."""
        path = self.root / f"{name}.pem"
        if not path.exists():
            good("keygen", path, "--no-passphrase")
        return path

    @cached_property
    def base(self) -> Path:
        folder = model_folder(self.root / "base", small_pair()[0])
        (folder / "LICENSE").write_text("LLaMA LICENSE AGREEMENT\n")
        return folder

    @cached_property
    def tune(self) -> Path:
        folder = model_folder(self.root / "tuned", small_pair()[1])
        (folder / "config.json").write_text("{}")
        (folder / "größe").mkdir()
        (folder / "größe" / "leer.txt").touch()
        return folder

    def delta(
        self, out: Path, *options: str | Path, version: str = "1.0", name: str = "Tune"
    ) -> Path:
        """A release of the fine-tune."""
        paths = ("--base", self.base, "--target", self.tune, "--out", out)
        if "--license" not in options:
            options = (*options, "--license", "mit", "--license-file", f"mit={self.text}")
            options = (*options, "--base-license", "mit")
        good("make-delta", *paths, "--name", name, "--version", version, *options)
        good("card", out)
        return out

    @cached_property
    def plain(self) -> Path:
        """An unsigned delta."""
        return self.delta(self.root / "plain")

    @cached_property
    def newer(self) -> Path:
        """Its next version."""
        return self.delta(self.root / "newer", version="1.1")

    @cached_property
    def signed(self) -> Path:
        """The delta, signed by acme."""
        folder = Path(shutil.copytree(self.plain, self.root / "signed"))
        good("card", folder, "--sign-key", self.key)
        return folder

    @cached_property
    def llama(self) -> Path:
        """A delta on LLaMA, which is for research only."""
        options = ("--license", "cc-by-nc-4.0", "--base-license", "llama-1")
        return self.delta(self.root / "llama", *options, "--rebuilt-license", "llama-1")

    @cached_property
    def weights(self) -> Path:
        """The model that it rebuilds, with a list."""
        rebuilt, folder = self.root / "rebuilt", self.root / "weights"
        paths = ("--base", self.base, "--delta", self.llama, "--out", rebuilt)
        good("apply-delta", *paths, "--accept-license")
        good("convert", rebuilt, folder)
        good("card", folder)
        return folder

    @cached_property
    def model(self) -> Path:
        """Full weights in two shards of more than a MiB, with SHA256SUMS."""
        return self.full(self.root / "model")

    def full(self, out: Path, *, second: int = 2) -> Path:
        """Full weights whose second shard is drawn from that seed."""
        tensors: Model = {
            f"layer.{number}": weights(np.random.default_rng(seed), "BF16", 600, 1000)
            for number, seed in enumerate((1, second))
        }
        source = model_folder(out.with_name(f"{out.name}.in"), tensors, shards=2)
        (source / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        good("convert", source, out, "--shard-size", "1.3MB")
        licence = ("--license", "mit", "--license-file", f"mit={self.text}")
        good("card", out, "--name", "Model", *licence)
        return out


def copy(folder: Path, place: Path) -> Path:
    """A release, to be spoiled."""
    return Path(shutil.copytree(folder, place))


def publish(folder: Path, *options: str | Path, repo: str = REPO) -> Done:
    """`releasekit publish`, as its user runs it."""
    return here("publish", folder, repo, *options)


def refused(done: Done, code: int) -> str:
    """The message of a run that failed so."""
    assert done.code == code, done.stdout + done.stderr
    return done.error


def has(hub: FakeHub, folder: Path, revision: str = "main", repo: str = REPO) -> bool:
    """Whether a revision holds just these files."""
    held = hub.repos[repo].commits[hub.head(repo, revision)].files
    there = {
        name: content.sha256 or digest_of(hub, content.etag)
        for name, content in held.items()
        if name != OWN
    }
    return there == digests(folder)


def digest_of(hub: FakeHub, etag: str) -> str:
    import hashlib

    return hashlib.sha256(hub.content(etag).read_bytes()).hexdigest()


def commits(hub: FakeHub, repo: str = REPO) -> list[str]:
    """Titles of the branch's commits, newest first, but for the Hub's own."""
    found, titles = hub.repos[repo], []
    at = found.commits[hub.head(repo)]
    while at.parent is not None:
        titles.append(at.title)
        at = found.commits[at.parent]
    return titles


def asked(hub: FakeHub) -> list[str]:
    """What was asked for, in short: the method, and what of the Hub."""
    return [f"{request.method} {_kind(request.route)}" for request in hub.requests]


def _kind(route: str) -> str:
    """What a route is for; the names and digests in it left out."""
    for word in ("validate-yaml", "repos/create", "settings", "preupload", "batch"):
        if word in route:
            return word.rpartition("/")[2]
    for word in ("verify", "commit", "tag", "branch", "discussions", "revision", "lfs"):
        if f"/{word}" in route:
            return word
    return route


def writes(hub: FakeHub) -> list[str]:
    """Of what was asked, all that changes something."""
    reads = ("GET", "HEAD", "POST validate-yaml", "POST preupload", "POST batch")
    return [each for each in asked(hub) if not each.startswith(reads)]


def sent(hub: FakeHub) -> Counter[str]:
    """How often each content was put into LFS."""
    routes = [r.route for r in hub.requests if r.method == "PUT" and "/lfs/" in r.route]
    return Counter(route.split("/")[4] for route in routes)
