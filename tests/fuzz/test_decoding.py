"""Any bytes as frame, payload or manifest: they decode, or raise ReleaseKitError."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from releasekit import ReleaseKitError, apply_delta, make_delta
from releasekit.codec import Ulp, ulp
from releasekit.codec.chunks import parse_table
from releasekit.manifest_parser import parse
from releasekit.tensors import DTYPES, Word
from tests.builders import RawTensor, model_folder

Words = NDArray[Any]

WORDS = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


def refusal(call: Callable[[], object]) -> str | None:
    """The words that refuse the call; None if it goes through."""
    try:
        call()
    except ReleaseKitError as error:
        message = str(error)
    else:
        return None
    assert message.isprintable()
    return message


def decodes(frame: bytes, base: Words, word: Word, row: int) -> None:
    """Decodes into memory with a guard on both sides, or is refused in words."""
    guarded = np.full(base.size + 16, 0x5A, base.dtype)
    out = guarded[8:-8]
    out[:] = base
    refused = refusal(lambda: ulp.decode(frame, out, word=word, row=row, where="w"))
    assert refused is None or refused.startswith("w: ")
    assert set(guarded[:8].tolist()) == set(guarded[-8:].tolist()) == {0x5A}


@st.composite
def bases(draw: st.DrawFn) -> tuple[Words, Word]:
    # Few layouts, as loops are compiled for each.
    word = DTYPES[draw(st.sampled_from(["BF16", "F32", "F8_E4M3", "I64"]))].word
    size = draw(st.integers(1, 300))
    source = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.frombuffer(source.bytes(size * word.bits // 8), WORDS[word.bits]), word


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes of `valid` with some of them changed, inserted, repeated or cut out."""
    data = valid
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, min(40, len(data))) | st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 1, 1, 1, 4, 30])))
        start = draw(st.integers(0, len(data)))
        new = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\0", b"\xff", b"\xff" * 4, data[start : start + 10]])
            | st.just(
                bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[begin:end])
            )
        )
        data = data[:begin] + new + data[end:]
    return data


@given(base=bases(), frame=st.binary(max_size=200), row=st.integers(1, 400))
def test_frames_of_any_bytes(base: tuple[Words, Word], frame: bytes, row: int) -> None:
    decodes(frame, *base, row)


@given(
    base=bases(),
    shift=st.sampled_from([0, 0, 0, 3, 255]),
    groups=st.lists(
        st.tuples(st.integers(0, 800), st.integers(0, 300), st.binary(max_size=30)),
        max_size=6,
    ),
    rows=st.binary(max_size=20),
    row=st.integers(1, 400),
)
def test_frames_whose_sizes_add_up(
    base: tuple[Words, Word],
    shift: int,
    groups: list[tuple[int, int, bytes]],
    rows: bytes,
    row: int,
) -> None:
    groups.sort()
    frame = struct.pack("<BBHI", 2, shift, len(groups), len(rows))
    frame += b"".join(struct.pack("<HII", g[0], g[1], len(g[2])) for g in groups)
    decodes(frame + rows + b"".join(g[2] for g in groups), *base, row)


@given(base=bases(), row=st.integers(1, 200), data=st.data())
def test_mutated_frames(base: tuple[Words, Word], row: int, data: st.DataObject) -> None:
    words, word = base
    source = np.random.default_rng(words.size)
    steps = source.integers(0, 100, words.size) * (source.random(words.size) < 0.3)
    target = words + steps.astype(words.dtype)
    target[0] |= words.dtype.type(1)
    frame = ulp.encode(words, target, word=word, row=row)
    decodes(data.draw(mutated(frame)), words, word, row)
    other = np.roll(words, 1) ^ words.dtype.type(5)
    decodes(frame, other, word, row)


@given(
    table=st.lists(st.integers(0, 2**32 - 1), max_size=9),
    total=st.none() | st.integers(0, 2**63 - 1),
)
def test_tables_of_any_sizes(table: list[int], total: int | None) -> None:
    packed = struct.pack(f"<{len(table)}I", *table)
    true = len(packed) + sum(table)
    nbytes = true if total is None else total
    if refusal(lambda: parse_table(packed, nbytes, "w")) is not None:
        assert nbytes != true
        return
    edges = parse_table(packed, nbytes, "w")
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (0, sum(table)) == (0, nbytes - len(packed))


# A whole release whose publisher means harm: digests are right, content is not.


class Attack:
    """A small release, and a way to change its files with all digests put right."""

    def __init__(self, root: Path) -> None:
        self.root = root
        source = np.random.default_rng(7)
        base: dict[str, RawTensor] = {}
        target: dict[str, RawTensor] = {}
        for number, label in enumerate(["BF16", "F32", "I64", "F16"]):
            bits = DTYPES[label].bits
            values = (source.standard_normal(3000) * 0.1).astype(np.float32).view(np.uint32)
            wide = values.astype(np.uint64) << np.uint64(32) >> np.uint64(64 - bits)
            words = wide.astype(WORDS[bits])
            moved = words + (source.random(3000) < 0.3).astype(words.dtype)
            base[f"w{number}"] = (label, (30, 100), words.tobytes())
            target[f"w{number}"] = (label, (30, 100), moved.tobytes())
        target["new"] = ("F32", (3, 100), source.bytes(1200))
        self.base = model_folder(root / "base", base)
        model_folder(root / "target", target)
        self.release = root / "release"
        make_delta(self.base, root / "target", self.release, codec=Ulp(chunk=1024))
        self.shard = self.release / "delta-00001-of-00001.safetensors"
        self.data = self.shard.read_bytes()
        self.manifest = (self.release / "release.json").read_bytes()
        self.header = 8 + int.from_bytes(self.data[:8], "little")

    def publish(self, shard: bytes, manifest: bytes | None = None) -> None:
        self.shard.write_bytes(shard)
        if manifest is None:
            document = json.loads(self.manifest)
            digest = hashlib.sha256(shard).hexdigest()
            document["shards"][0] |= {"size": len(shard), "sha256": digest}
            manifest = json.dumps(document).encode()
        (self.release / "release.json").write_bytes(manifest)
        files = [p for p in self.release.iterdir() if p.name != "SHA256SUMS"]
        lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}" for p in files]
        (self.release / "SHA256SUMS").write_text("".join(f"{x}\n" for x in sorted(lines)))

    def apply(self) -> bool:
        """Whether a rebuild goes through; then what it makes is right."""
        out = self.root / "out"
        if refusal(lambda: apply_delta(self.base, self.release, out, threads=2)):
            assert not out.exists()
            shutil.rmtree(self.root / "out.partial", ignore_errors=True)
            return False
        assert (out / "model.safetensors").read_bytes() == (
            self.root / "target" / "model.safetensors"
        ).read_bytes()
        shutil.rmtree(out)
        return True


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    made = Attack(tmp_path_factory.mktemp("attack"))
    yield made
    shutil.rmtree(made.root)


def test_the_attack_is_on_a_release_that_is_sound(attack: Attack) -> None:
    attack.publish(attack.data)
    assert attack.apply()


@settings(max_examples=settings().max_examples // 2)
@given(data=st.data())
def test_mutated_payloads(attack: Attack, data: st.DataObject) -> None:
    payloads = attack.data[attack.header :]
    changed = bytearray(payloads)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] ^= data.draw(st.integers(1, 255))
    attack.publish(attack.data[: attack.header] + changed)
    # Some changes mean nothing, such as a `last` between two indices that do not occur.
    assert attack.apply() or changed != payloads


@settings(max_examples=settings().max_examples // 3)
@given(data=st.data())
def test_mutated_shards(attack: Attack, data: st.DataObject) -> None:
    shard = data.draw(mutated(attack.data))
    attack.publish(shard)
    attack.apply()


TOKENS = [b"null", b"-1", b"0", b"99999999999", b'"x"', b'"same"', b'"alias"', b"[]", b"{}"]


@given(data=st.data())
def test_mutated_manifests(attack: Attack, data: st.DataObject) -> None:
    document = attack.manifest
    for _ in range(data.draw(st.integers(1, 3))):
        # Whole values change places, so that most of the results are JSON.
        ends = [i for i, byte in enumerate(document) if byte in b",:[{}]\n"]
        place = data.draw(st.integers(0, len(ends) - 2))
        begin, end = ends[place] + 1, ends[place + 1]
        other = data.draw(st.integers(0, len(ends) - 2))
        value = document[ends[other] + 1 : ends[other + 1]]
        new = data.draw(st.sampled_from([*TOKENS, value, value, b"", b'"\\u001b[2J\\n"']))
        document = document[:begin] + new + document[end:]
    refused = refusal(lambda: parse(document))
    if refused is None:
        manifest = parse(document)
        assert parse(manifest.pack()) == manifest
    else:
        assert refused.startswith("release.json")
