"""Makes tests/compat/v1: releases of format 1, frozen for tests/integration/test_compat.py.

    python -m tests.compat.make_v1

run once, in the repository's root. Whatever comes later must rebuild them byte for byte, so
they are not made again once anybody has a release of this format; until then, remove the
folder first.

    base, target      the checkpoints; the target is what must come back
    ulp, add          signed releases of it, with either codec
    old.pub.pem       the publisher's first key, which vouches for the one that signed
    new.pub.pem       that one
    SHA256SUMS        of all of these

The private keys are not kept.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from releasekit import Add, PrivateKey, Ulp, make_delta
from releasekit.signing.succession import vouch
from tests.builders import RawTensor, model_folder
from tests.integration.tools import Model, as_raw, digests, numbers, trained, weights

V1 = Path(__file__).parent / "v1"
CHUNK = 1024  # the smallest, so that most tensors take several


def frozen_pair() -> tuple[Model, Model]:
    """A base and a fine-tune: each operation, each width of words, and odd values."""
    source = np.random.default_rng(1)
    same = weights(source, "BF16", 4, 64)
    base: Model = {
        "embed": weights(source, "BF16", 14, 64),
        "head": weights(source, "BF16", 12, 64),
        "layer.bf16": weights(source, "BF16", 20, 64),
        "layer.f16": weights(source, "F16", 8, 64),
        "layer.f32": weights(source, "F32", 9, 32),
        "layer.f64": weights(source, "F64", 64),
        "layer.f8": ("F8_E4M3", (16, 32), source.bytes(512)),
        "cast.f32": weights(source, "F32", 6, 32),
        "cast.bf16": weights(source, "BF16", 6, 32),
        "dropped": weights(source, "F16", 3, 5),
        "mask": ("BOOL", (100,), bytes(n % 3 == 0 for n in range(100))),
        "same": same,
        "steps": ("I64", (), (1000).to_bytes(8, "little")),
        "table": ("I32", (200,), np.arange(200, dtype="<i4").tobytes()),
    }
    head = trained(source, base["head"])
    target: Model = {
        "embed": grown(source, base["embed"], 16),  # rows more
        "head": ("BF16", (7, 64), head[2][: 7 * 64 * 2]),  # rows less
        "tied": ("BF16", (7, 64), head[2][: 7 * 64 * 2]),  # an alias
        "layer.bf16": odd(trained(source, base["layer.bf16"])),
        "layer.f16": trained(source, base["layer.f16"]),
        "layer.f32": trained(source, base["layer.f32"]),
        "layer.f64": trained(source, base["layer.f64"]),
        "layer.f8": changed(source, base["layer.f8"]),
        "cast.f32": trained(source, base["cast.f32"], "BF16"),
        "cast.bf16": trained(source, base["cast.bf16"], "F32"),
        "mask": changed(source, base["mask"]),
        "new": weights(source, "F16", 5, 33),
        "none": ("F32", (0, 4), b""),
        "same": same,
        "steps": ("I64", (), (1020).to_bytes(8, "little")),
        "table": ("I32", (200,), (np.arange(200, dtype="<i4") * 3).tobytes()),
    }
    return base, target


def grown(source: np.random.Generator, tensor: RawTensor, rows: int) -> RawTensor:
    """A tensor after training, with more rows."""
    values = numbers(trained(source, tensor))
    more = source.standard_normal((rows - len(values), *values.shape[1:])) * 0.02
    return as_raw(np.concatenate([values, more]), tensor[0])


def odd(tensor: RawTensor) -> RawTensor:
    """A tensor of BF16 with the values in it that arithmetic would lose."""
    label, shape, data = tensor
    words = np.frombuffer(data, "<u2").copy()
    # −0, the infinities, quiet and signalling NaN with payloads, the least subnormal
    words[5:12] = [0x8000, 0x7F80, 0xFF80, 0x7FC1, 0xFFC0, 0x7F81, 0x0001]
    return label, shape, words.tobytes()


def changed(source: np.random.Generator, tensor: RawTensor) -> RawTensor:
    """A tensor of bytes, some of which have another last bit."""
    label, shape, data = tensor
    flips = source.random(len(data)) < 0.1
    return label, shape, (np.frombuffer(data, np.uint8) ^ flips).astype(np.uint8).tobytes()


def main() -> None:
    """Make the folder, all of it or none."""
    if V1.exists():
        sys.exit(f"{V1}: is frozen; remove it if nobody has a release of this format yet")
    base, target = frozen_pair()
    old, new = PrivateKey.generate("P-384"), PrivateKey.generate()
    with tempfile.TemporaryDirectory(dir=V1.parent) as folder:
        made = Path(folder) / "v1"
        model_folder(made / "base", base, shards=2)
        model_folder(made / "target", target, shards=3, metadata={"format": "pt", "a": "ä"})
        (made / "target" / "config.json").write_text('{"model_type": "llama"}\n')
        (made / "target" / "nested").mkdir()
        (made / "target" / "nested" / "some notes.txt").write_bytes(b"\xff\0notes\n")
        links = Path(folder) / "links"
        links.write_bytes(vouch(old, new.public))
        for name, codec, shard in (
            ("ulp", Ulp(chunk=CHUNK), 1500),
            ("add", Add(chunk=CHUNK), 500),
        ):
            make_delta(
                made / "base",
                made / "target",
                made / name,
                name="Frozen",
                version="1.0",
                publisher="releasekit",
                codec=codec,
                shard_nbytes=shard,
                sign_key=new,
                succession=links,
            )
        for name, key in (("old", old), ("new", new)):
            (made / f"{name}.pub.pem").write_bytes(key.public.pem)
        lines = [f"{digest}  {name}\n" for name, digest in digests(made).items()]
        (made / "SHA256SUMS").write_text("".join(lines))
        made.rename(V1)
    size = sum(path.stat().st_size for path in V1.rglob("*") if path.is_file())
    print(f"{V1}: {len(lines)} files, {size} bytes")


if __name__ == "__main__":
    main()
