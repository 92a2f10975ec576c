"""One byte of a release changed, anywhere: it is noticed, or it changes nothing.

The release is small, so that thousands of changes reach each part of it many times.
tests/slow runs more of the same, with another seed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from releasekit import (
    FormatError,
    Policy,
    PrivateKey,
    ReleaseKitError,
    Verification,
    apply_delta,
    make_delta,
    verify,
)
from releasekit.codec import Ulp
from releasekit.signing.succession import vouch
from tests.builders import model_folder
from tests.integration.tools import Model, fine_tuned, weights

FLIPS = 2000  # of the signed release
UNSIGNED_FLIPS = 200  # less those of signatures
SEED = 1

SHARDS = [f"delta-{number:05}-of-00002.safetensors" for number in (1, 2)]
PARTS = ("length", "header", "data")
OTHERS = {"config.json": '{"model_type": "llama"}\n', "tokenizer/größe.txt": "abc\n"}
TARGET_FILES = [f"target/{name}" for name in OTHERS]
SUMS = "SHA256SUMS"
#: Regions, by a shard's part or a file's name, with how many of 200 changes each gets: most
#: go where a rebuild reads.
UNSIGNED_REGIONS = {
    **{f"{shard} {part}": 17 for shard in SHARDS for part in PARTS},
    **dict.fromkeys(["release.json", SUMS], 17),
    **dict.fromkeys(["rebuilt.SHA256SUMS", "provenance.json", "config.json"], 5),
    **dict.fromkeys(TARGET_FILES, 5),
}
REGIONS = UNSIGNED_REGIONS | {
    "model.sig": 17,
    "key-succession.jsonl": 17,
    "rebuilt.model.sig": 5,
}
#: Those that a rebuild of the signed release holds against a digest byte for byte.
HELD = {"release.json", SUMS, "model.sig", *TARGET_FILES}


def key(number: int) -> PrivateKey:
    """The same key for the same number, so that the release is the same in each run."""
    return PrivateKey(ec.derive_private_key(number, ec.SECP256R1()))


class Flips:
    """A base, a fine-tune, its release, and what becomes of that with a byte changed."""

    def __init__(self, root: Path, *, signed: bool) -> None:
        source = np.random.default_rng(17)
        base: Model = {
            name: weights(source, label, 24, 32)
            for name, label in {"kept": "BF16", "half": "BF16", "full": "F32"}.items()
        }
        target = fine_tuned(source, base)
        target["kept"] = base["kept"]
        target["new"] = weights(source, "F32", 2, 16)
        self.base = model_folder(root / "base", base)
        made = model_folder(root / "target", target)
        for name, text in OTHERS.items():
            (made / name).parent.mkdir(exist_ok=True)
            (made / name).write_text(text)
        self.published = _contents(made)
        self.release = root / "release"
        self.out = root / "out"
        old, new = key(1), key(2)
        links = root / "links.jsonl"
        links.write_bytes(vouch(old, new.public))
        self.policies = [Policy()]
        if signed:
            # The signer's key, and one that vouches for it.
            self.policies = []
            for name, pair in {"new": new, "old": old}.items():
                (root / f"{name}.pub.pem").write_bytes(pair.public.pem)
                self.policies.append(Policy(public_key=root / f"{name}.pub.pem"))
        make_delta(
            self.base,
            made,
            self.release,
            name="flips",
            codec=Ulp(chunk=1024),
            shard_nbytes=2200,
            sign_key=new if signed else None,
            succession=links if signed else None,
        )

    def spans(self, region: str) -> tuple[Path, int, int]:
        """The file of a region, and where in it the region begins and ends."""
        name, _, part = region.partition(" ")
        path = self.release / name
        size = path.stat().st_size
        if not part:
            return path, 0, size
        start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
        edges = [0, 8, start, size]
        at = PARTS.index(part)
        return path, edges[at], edges[at + 1]

    def verified(self, policy: Policy) -> Verification | None:
        """What `verify` returns; None if it refuses, in words fit for a terminal."""
        try:
            return verify(self.release, policy=policy, threads=1)
        except ReleaseKitError as error:
            message = str(error)
        assert message.isprintable()
        return None

    def rebuilds(self, policy: Policy) -> bool:
        """Whether a rebuild goes through, and then makes exactly what was published."""
        try:
            apply_delta(self.base, self.release, self.out, policy=policy, threads=1)
        except ReleaseKitError as error:
            message = str(error)
        else:
            assert _contents(self.out) == self.published
            shutil.rmtree(self.out)
            return True
        assert message.isprintable()
        assert not os.path.lexists(self.out)
        return False

    def remove_partial(self) -> None:
        """Have the next rebuild start afresh."""
        shutil.rmtree(self.out.with_name("out.partial"), ignore_errors=True)


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def changed(path: Path, at: int, value: int) -> Iterator[None]:
    """A file with another byte at a place, for a moment."""
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        before = file.read(1)
        file.seek(at)
        file.write(bytes([value]))
        try:
            yield
        finally:
            file.seek(at)
            file.write(before)


def changes(flips: Flips, region: str, count: int, seed: int) -> Iterator[tuple[int, int]]:
    """Places in a region's file and other values for them: bit flips, and any values."""
    source = random.Random(f"{seed} {region}")
    path, begin, end = flips.spans(region)
    data = path.read_bytes()
    for number in range(count):
        at = source.randrange(begin, end)
        if number % 2:
            yield at, data[at] ^ 1 << source.randrange(8)
        else:
            yield at, (data[at] + source.randrange(1, 256)) % 256


def check_signed(flips: Flips, region: str, count: int, seed: int) -> Counter[str]:
    """Change a signed release; says how often it was refused, and rebuilt all the same."""
    path = flips.spans(region)[0]
    outcomes: Counter[str] = Counter()
    for number, (at, value) in enumerate(changes(flips, region, count, seed)):
        policy = flips.policies[number // 2 % len(flips.policies)]  # with each kind
        where = f"{path.name}: byte {at} is {value:#04x}, {policy.public_key}"
        flips.remove_partial()
        with changed(path, at, value):
            found = flips.verified(policy)
            assert found is None or not found.ok, f"{where}: verify finds it good"
            rebuilt = flips.rebuilds(policy)
        assert not rebuilt or region not in HELD, f"{where}: is rebuilt"
        outcomes["rebuilt" if rebuilt else "refused"] += 1
    check_sound(flips)
    return outcomes


def check_unsigned(flips: Flips, region: str, count: int, seed: int) -> None:
    """Change an unsigned release: all is noticed that means something."""
    path = flips.spans(region)[0]
    for at, value in changes(flips, region, count, seed):
        where = f"{path.name}: byte {at} is {value:#04x}"
        means_nothing = region == SUMS and (at in marks(flips) and value == ord("*"))
        flips.remove_partial()
        with changed(path, at, value):
            found = flips.verified(Policy())
            good = found is not None and found.ok
            assert good == means_nothing, f"{where}: verify finds it good: {good}"
            rebuilt = flips.rebuilds(Policy())
        # Other lines of the list are not what a rebuild goes by.
        held = region in HELD and region != SUMS
        assert not (held and rebuilt), f"{where}: is rebuilt"
    check_sound(flips)


def check_sound(flips: Flips) -> None:
    """The release is as it was; what the last failure left does a rebuild no harm."""
    for policy in flips.policies:
        found = flips.verified(policy)
        assert found is not None
        assert found.ok
        assert flips.rebuilds(policy)


def marks(flips: Flips) -> set[int]:
    """Where in SHA256SUMS the second space of a line is: `*` there says the same."""
    places, start = set(), 0
    for line in (flips.release / SUMS).read_bytes().splitlines(keepends=True):
        places.add(start + 65)
        start += len(line)
    return places


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Flips:
    return Flips(tmp_path_factory.mktemp("signed"), signed=True)


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Flips:
    return Flips(tmp_path_factory.mktemp("unsigned"), signed=False)


def test_the_regions_are_all_of_the_release(signed: Flips, unsigned: Flips) -> None:
    for flips, regions in ((signed, REGIONS), (unsigned, UNSIGNED_REGIONS)):
        check_sound(flips)
        covered: Counter[str] = Counter()
        for region in regions:
            path, begin, end = flips.spans(region)
            assert begin < end
            covered[path.relative_to(flips.release).as_posix()] += end - begin
        sizes = {name: len(data) for name, data in _contents(flips.release).items()}
        assert covered == sizes


#: Those that stand for others, in every run; the whole is for longer proofs.
_TYPICAL = ("delta-00002-of-00002.safetensors data", "release.json", "model.sig")


@pytest.mark.parametrize(
    "region",
    [
        pytest.param(region, marks=() if region in _TYPICAL else pytest.mark.slow)
        for region in REGIONS
    ],
)
def test_a_changed_byte_of_a_signed_release(signed: Flips, region: str) -> None:
    check_signed(signed, region, FLIPS * REGIONS[region] // 200, SEED)


@pytest.mark.parametrize("region", UNSIGNED_REGIONS)
def test_a_changed_byte_of_an_unsigned_release(unsigned: Flips, region: str) -> None:
    check_unsigned(unsigned, region, UNSIGNED_FLIPS * REGIONS[region] // 200, SEED)


def test_the_mark_before_a_path_says_nothing_in_either_list(
    signed: Flips, unsigned: Flips
) -> None:
    for at in marks(unsigned):
        with changed(unsigned.release / SUMS, at, ord("*")):
            found = unsigned.verified(Policy())
            assert found is not None
            assert found.ok
    # But for a signature, which is over the list's bytes.
    for at in marks(signed):
        with changed(signed.release / SUMS, at, ord("*")):
            found = signed.verified(signed.policies[0])
            assert found is not None
            assert not found.ok


def test_a_changed_signature_is_refused_by_whoever_knows_its_key(signed: Flips) -> None:
    path, _, size = signed.spans("model.sig")
    data = path.read_bytes()
    begin = data.index(b'"sig":') + 7
    for at in range(begin, data.index(b'"', begin)):
        with changed(path, at, data[at] ^ 1), pytest.raises(ReleaseKitError) as caught:
            verify(signed.release, policy=signed.policies[0])
        assert str(caught.value).startswith(f"{path}: ")
    with changed(path, size - 1, ord("\n")), pytest.raises(FormatError):
        verify(signed.release, policy=signed.policies[0])
