"""Write what a maintainer has before a release: base and fine-tune.

    python -m scripts.rehearsal.models freewilly1 tiny BASE TUNE [--headers]

Weights are normal, and the fine-tune's moved by an update such as AdamW's: rows differ in
the scale of both. They come from a pool of rows, once around it for each tensor from a
start of its own, so that no two tensors are equal and gigabytes need not be drawn. With
--headers they are holes in sparse files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from releasekit import sharding
from releasekit.tensors import DType, TensorSpec
from scripts.benchmark.make_pair import Words, draw
from scripts.rehearsal.shapes import SUBJECTS, Shape, Subject

#: Weights in the pool of one row length.
_POOL: Final = 4_000_000
#: Files that a trainer writes, and bytes in each at most: others than are released.
_SHARDS: Final = 8
_SHARD: Final = 10_000_000_000
_GOLDEN: Final = 0.6180339887  # of the way on: however many starts there are, they differ
_TOKENS: Final = ("<unk>", "<s>", "</s>", *map(chr, range(ord("a"), ord("z") + 1)))


class Weights:
    """The words of base and fine-tune, tensor by tensor."""

    def __init__(self, specs: Iterable[TensorSpec], trained: DType) -> None:
        self._specs = {spec.name: (number, spec) for number, spec in enumerate(specs)}
        self._trained = trained
        needed: dict[int, int] = {}
        for _, spec in self._specs.values():
            columns = spec.shape[-1]
            rows = needed.get(columns, 0) + spec.numel // columns
            needed[columns] = min(max(1, _POOL // columns), rows)
        rng = np.random.default_rng(0)
        self._pools = {c: draw(rng, n, c, trained.label) for c, n in needed.items()}

    def base(self, name: str, dtype: DType) -> Iterator[bytes]:
        """The base's, in float16, piece by piece."""
        assert dtype is DType.F16
        for words in self._rows(name, "fp16/base"):
            yield words.tobytes()

    def tune(self, name: str, dtype: DType) -> Iterator[bytes]:
        """The fine-tune's, in its dtype, piece by piece."""
        for words in self._rows(name, "target"):
            if dtype is self._trained:
                yield words.tobytes()
            else:
                assert (self._trained, dtype) == (DType.BF16, DType.F32)
                wide: NDArray[np.uint32] = words.astype(np.uint32) << np.uint32(16)
                yield wide.tobytes()

    def _rows(self, name: str, kind: str) -> Iterator[Words]:
        number, spec = self._specs[name]
        columns = spec.shape[-1]
        pool = self._pools[columns][kind]
        at = round(number * _GOLDEN * len(pool)) % len(pool)
        left = spec.numel // columns
        while left:
            count = min(left, len(pool) - at)
            yield pool[at : at + count]
            left -= count
            at = 0


def make_pair(
    subject: Subject, shape: Shape, base: Path, tune: Path, *, headers: bool
) -> None:
    """Write both checkpoints, with what lies beside their weights.

    Args:
        subject: whose they are.
        shape: theirs.
        base, tune: folders to make.
        headers: leave holes in the place of weights.
    """
    weights = None if headers else Weights(shape.specs(subject.dtype), subject.trained)
    for folder, dtype in ((base, subject.base_dtype), (tune, subject.dtype)):
        folder.mkdir(parents=True)
        specs = shape.specs(dtype)
        most = min(_SHARD, sum(spec.nbytes for spec in specs) // _SHARDS + 1)
        shards = sharding.lay_out(specs, most)
        for name, data in sharding.index_of(shards).items():
            (folder / name).write_bytes(data)
        for shard in shards:
            with (folder / shard.name).open("wb") as file:
                file.write(shard.layout.prefix)
                if weights is not None:
                    for placed in shard.layout.tensors:
                        name = placed.spec.name
                        is_base = folder == base
                        pieces = weights.base if is_base else weights.tune
                        file.writelines(pieces(name, dtype))
                file.truncate(shard.layout.file_size)
    _write_side_files(subject, shape, base, tune)


def _write_side_files(subject: Subject, shape: Shape, base: Path, tune: Path) -> None:
    """Write config, tokenizer and licences."""
    vocabulary = {token: number for number, token in enumerate(_TOKENS)}
    special = dict(zip(("unk_token", "bos_token", "eos_token"), _TOKENS, strict=False))
    texts: dict[str, object] = {
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2},
        "special_tokens_map.json": special,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **special},
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": _TOKENS[0]},
        },
    }
    for folder, dtype in ((base, "float16"), (tune, subject.torch_dtype)):
        for name, text in {**texts, "config.json": shape.config(dtype)}.items():
            (folder / name).write_text(json.dumps(text, indent=2) + "\n")
    for name, what in subject.texts.items():
        (base / name).write_text(f"This stands in for the text of {what}.\n")


def main() -> None:
    """Parse the arguments, write the pair."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("scale")
    parser.add_argument("base", type=Path)
    parser.add_argument("tune", type=Path)
    parser.add_argument("--headers", action="store_true")
    given = parser.parse_args()
    subject = SUBJECTS[given.subject]
    shape = subject.shape(given.scale)
    make_pair(subject, shape, given.base, given.tune, headers=given.headers)


if __name__ == "__main__":
    main()
