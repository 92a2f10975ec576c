"""Meta's checkpoints are read as transformers' own converter converts them.

The converter stands in transformers up to version 4; scripts/prove installs 4.44.2. It
writes bf16 whatever it is given, so that fp16 is compared after that rounding, and bf16
as it is. Only its conversion of a tokenizer is not run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.meta import MetaCheckpoint, hf_config
from releasekit.tensors import DType
from tests.llama import Llama
from tests.slow import peers

pytestmark = pytest.mark.slow

CODE = """
import json, sys
import transformers
from transformers.models.llama.convert_llama_weights_to_hf import write_model
print("transformers", transformers.__version__)
for source, out, parts, version, vocab in json.loads(sys.argv[1]):
    write_model(out, source, num_shards=parts, llama_version=version, vocab_size=vocab)
"""
FP16, LLAMA_3 = torch.float16, (("rope_theta", 500000.0), ("vocab_size", 48))
#: By the version that the converter is told; 192 is the width that it works out.
MODELS = {
    "fp16": ("1", Llama(ffn=192, dtype=FP16)),
    "fp16_of_two": ("1", Llama(ffn=192, parts=2, dtype=FP16, zipped=False)),
    "bf16": ("2", Llama(ffn=192)),
    "bf16_of_two": ("2", Llama(ffn=192, parts=2)),
    "grouped": ("2", Llama(ffn=192, heads=16, kv=4)),
    "grouped_of_two": ("2", Llama(ffn=192, parts=2, heads=16, kv=4, zipped=False)),
    "grouped_of_eight": ("2", Llama(ffn=192, parts=8, heads=16, kv=8)),
    "llama_3_of_two": ("3", Llama(ffn=192, parts=2, kv=4, rows=True, said=LLAMA_3)),
    "llama_3_of_four": ("3.1", Llama(ffn=192, parts=4, kv=4, rows=True, said=LLAMA_3)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Each model as Meta has it, and as it was converted."""
    root = tmp_path_factory.mktemp("models")
    jobs, made = [], {}
    for name, (version, model) in MODELS.items():
        source, out = model.save(root / name), root / f"{name}-converted"
        made[name] = source, out
        jobs.append([str(source), str(out), model.parts, version, model.vocab])
    print(peers.run(CODE, json.dumps(jobs)).splitlines()[0])
    return made


@pytest.mark.parametrize("name", MODELS)
def test_tensors_are_those_of_the_converter(
    folders: dict[str, tuple[Path, Path]], name: str
) -> None:
    source, out = folders[name]
    with open_checkpoint(source) as ours, open_checkpoint(out) as theirs:
        assert set(ours.specs) == set(theirs.specs)
        for tensor, spec in theirs.specs.items():
            mine = ours.specs[tensor]
            assert (mine.shape, spec.dtype) == (spec.shape, DType.BF16)
            data = np.empty(mine.nbytes, np.uint8)
            ours.read(tensor, 0, data)
            if mine.dtype is DType.F16:
                rounded = torch.from_numpy(data).view(torch.float16).bfloat16()
                data = rounded.view(torch.uint8).numpy()
            converted = np.empty(spec.nbytes, np.uint8)
            theirs.read(tensor, 0, converted)
            assert np.array_equal(data, converted), tensor
        print(f"{name}: {len(theirs.specs)} tensors are the same")


@pytest.mark.parametrize("name", MODELS)
def test_the_config_is_that_of_the_converter(
    folders: dict[str, tuple[Path, Path]], name: str
) -> None:
    source, out = folders[name]
    with open_checkpoint(source) as checkpoint:
        assert isinstance(checkpoint, MetaCheckpoint)
        config = hf_config(checkpoint.params, checkpoint.specs)
    converted = json.loads((out / "config.json").read_text())
    dtype = config.pop("torch_dtype")  # it says float16, whatever it wrote
    assert dtype == ("float16" if name.startswith("fp16") else "bfloat16")
    assert config.items() <= converted.items()
