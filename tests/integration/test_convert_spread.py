"""A conversion in parts: as shares of an array job, and by a pool of processes."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import releasekit
from releasekit import ConvertResult, IntegrityError, ReleaseKitError, UsageError, convert
from releasekit.checkpoint import open_checkpoint
from releasekit.checkpoint.sighting import Sighting
from releasekit.conversion import parts
from releasekit.conversion.spread import (
    ConvertShare,
    convert_share,
    convert_spread,
    finish_convert,
)
from releasekit.output import OutputFolder, Sharing, partial_of
from releasekit.parts.records import Done, Records
from releasekit.parts.split import Share
from releasekit.parts.tasks import Advance, Batch, Here, Needs, Task
from releasekit.sharding import lay_out
from tests.builders import RawTensor, model_folder
from tests.integration.tools import as_raw, digests, good, here
from tests.integration.tools import releasekit as run
from tests.llama import Llama

SIZE = 3000  # bytes of a shard: each model makes several
DTYPES = (None, "bfloat16", "smallest")
_NUMBERS = np.random.default_rng(0).standard_normal(500)


def layer(number: int, label: str = "F32", *, of: str = "BF16") -> RawTensor:
    """Numbers that a smaller dtype holds, too."""
    values = torch.tensor(np.roll(_NUMBERS, number), dtype=torch.float32)
    kind = {"BF16": torch.bfloat16, "F32": torch.float32}[of]
    return as_raw(values.to(kind).float().numpy(), label)


def model(count: int = 4, **others: RawTensor) -> dict[str, RawTensor]:
    return {f"layer.{number}": layer(number) for number in range(count)} | others


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return containers(tmp_path_factory.mktemp("models"))


def containers(root: Path) -> dict[str, Path]:
    """Models in each container; fp32 that is bf16, and some that is not."""
    mixed = model(norm=layer(9, of="F32"), wide=layer(5, "F64"), half=layer(6, "F16"))
    shards = model_folder(root / "shards", mixed, shards=3)
    (shards / "config.json").write_text('{"torch_dtype": "float32"}')
    (shards / "tokenizer.json").write_text("{}")
    (root / "bin").mkdir()
    state = {
        name: torch.frombuffer(bytearray(data), dtype=torch.float32)
        for name, (_, _, data) in model().items()
    }
    torch.save(state, root / "bin" / "pytorch_model.bin")
    return {
        "safetensors": shards,
        "PyTorch": root / "bin",
        "Meta": Llama(parts=2, heads=8, kv=2).save(root / "meta"),
    }


def share(
    source: Path, out: Path, number: int, count: int, dtype: str | None = None
) -> ConvertShare:
    return convert_share(
        source,
        out,
        share=Share(number, count),
        dtype=dtype,
        shard_nbytes=SIZE,
        look_nbytes=SIZE,
    )


def finish(source: Path, out: Path, dtype: str | None = None) -> ConvertResult:
    return finish_convert(source, out, dtype=dtype, shard_nbytes=SIZE, look_nbytes=SIZE)


def spread(source: Path, out: Path, dtype: str | None = None) -> ConvertResult:
    return convert_spread(
        source, out, pool=Here(), dtype=dtype, shard_nbytes=SIZE, look_nbytes=SIZE
    )


def said(made: ConvertResult) -> ConvertResult:
    """All that a result says but for who did it, where, and when."""
    return replace(made, out=Path(), kept=(), workers=(), seconds=0)


@pytest.mark.parametrize("container", ["safetensors", "PyTorch", "Meta"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_make_what_one_process_makes(
    models: dict[str, Path], tmp_path: Path, container: str, dtype: str | None
) -> None:
    source = models[container]
    whole = convert(source, tmp_path / "whole", dtype=dtype, shard_nbytes=SIZE)
    made = spread(source, tmp_path / "spread", dtype)
    assert digests(tmp_path / "spread") == digests(tmp_path / "whole")
    assert said(made) == said(whole)
    assert sum(name.endswith(".safetensors") for name in made.files) > 1
    (worker,) = made.workers
    assert worker.name.endswith(f":{os.getpid()}")
    out = tmp_path / "shares"
    seen = [share(source, out, number, 3, dtype).again for number in (3, 1, 2)]
    if dtype == "smallest" and container != "Meta":  # which is in bf16
        assert seen == [True, True, False]  # the last finds that all was looked at
        seen = [share(source, out, number, 3, dtype).again for number in (3, 1, 2)]
    assert seen == [False] * 3
    assert said(finish(source, out, dtype)) == said(whole)
    assert digests(out) == digests(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "spread", "shares"}


def test_shares_keep_what_is_done(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    done = [share(source, out, number, 2) for number in (1, 2)]
    names = [name for one in done for name in one.parts]
    assert len(names) == len(set(names)) > 3
    again = share(source, out, 1, 2)
    assert (again.parts, again.nbytes, again.again) == ((), 0, False)
    assert again.kept == done[0].parts
    assert done[0].name == str(source)
    lost = partial_of(out) / "new" / done[0].parts[0]
    lost.write_bytes(lost.read_bytes()[:-1])
    assert share(source, out, 1, 2).parts == (lost.name,)
    made = finish(source, out)
    assert made.kept == ()
    assert sum(worker.parts for worker in made.workers) == len(names)


def test_a_share_that_was_stopped_goes_on(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    finish_file = OutputFolder.finish
    finished: list[str] = []

    def stop(self: OutputFolder, name: str, final: str) -> None:
        if len(finished) == 2:
            raise KeyboardInterrupt
        finish_file(self, name, final)
        finished.append(final)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            share(source, out, 1, 1)
    again = share(source, out, 1, 1)
    assert list(again.kept) == finished
    finish(source, out)
    convert(source, tmp_path / "whole", shard_nbytes=SIZE)
    assert digests(out) == digests(tmp_path / "whole")


def test_looks_are_kept(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    first = share(source, out, 1, 2, "smallest")
    assert first.again
    assert first.nbytes == 0
    assert all(name.startswith("look ") for name in first.parts)
    again = share(source, out, 1, 2, "smallest")
    assert (again.parts, again.kept, again.again) == ((), first.parts, True)


@pytest.mark.parametrize("dtype", [None, "smallest"])
def test_what_is_missing_is_named(
    models: dict[str, Path], tmp_path: Path, dtype: str | None
) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    with pytest.raises(UsageError) as none:
        finish(source, out, dtype)
    assert str(none.value) == (
        f"{out}.partial: is not there: do all shares first, with --shard 1/N to --shard N/N"
    )
    assert not partial_of(out).exists()
    share(source, out, 1, 2, dtype)
    with pytest.raises(ReleaseKitError) as caught:
        finish(source, out, dtype)
    names = {
        None: '"model-00001-of-00006.safetensors", "model-00002-of-00006.safetensors", '
        '"model-00004-of-00006.safetensors"',
        "smallest": '"look 1 of 6", "look 2 of 6", "look 4 of 6"',
    }
    assert str(caught.value) == (
        f"{out}.partial: 3 of 6 parts are not done: {names[dtype]}: run the shares again "
        "that were stopped; what is done is kept"
    )
    assert not out.exists()
    share(source, out, 2, 2, dtype)
    share(source, out, 1, 2, dtype)
    finish(source, out, dtype)
    convert(source, tmp_path / "whole", dtype=dtype, shard_nbytes=SIZE)
    assert digests(out) == digests(tmp_path / "whole")


def test_finishing_other_work_loses_nothing(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    for number in (1, 2):
        share(source, out, number, 2)
    with pytest.raises(UsageError, match="holds other work"):
        finish(source, out, "bfloat16")
    with pytest.raises(UsageError, match="holds other work"):
        share(source, out, 1, 2, "bfloat16")
    finish(source, out)


def test_finishing_twice_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    share(source, out, 1, 1)
    finish(source, out)
    with pytest.raises(UsageError, match="exists already"):
        finish(source, out)
    with pytest.raises(UsageError, match="is not there: do all shares first"):
        finish_convert(source, out, force=True)


def test_shares_may_replace_a_model(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = models["PyTorch"], tmp_path / "out"
    convert(source, out)
    convert_share(source, out, share=Share(1, 1), force=True, dtype="float16")
    assert digests(out) == digests(convert(source, tmp_path / "same").out)
    finish_convert(source, out, force=True, dtype="float16")
    halves = convert(source, tmp_path / "halves", dtype="float16")
    assert digests(out) == digests(halves.out)


def test_one_process_and_many_go_on_with_each_others_files(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    half = share(source, out, 1, 2)
    made = convert(source, out, shard_nbytes=SIZE)
    assert sorted(made.kept) == sorted(half.parts)
    assert made.uncounted == made.kept
    other = tmp_path / "other"
    half = share(source, other, 1, 2, "bfloat16")
    made = spread(source, other, "bfloat16")
    assert sorted(made.kept) == sorted(half.parts)
    assert made.uncounted == ()
    whole = convert(source, tmp_path / "whole", dtype="bfloat16", shard_nbytes=SIZE)
    assert made.rounded == whole.rounded > 0


def test_a_record_that_cannot_be_read_has_its_part_done_again(
    models: dict[str, Path], tmp_path: Path
) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    names = share(source, out, 1, 1).parts
    records = Records(partial_of(out))
    done = records.read()
    facts = dict(done[names[0]].facts)
    spoilt: list[dict[str, object]] = [
        {},
        facts | {"tensors": ["0"]},
        facts | {"tensors": []},
        facts | {"header": "0" * 64},
        facts | {"rounded": -1},
        facts | {"holders": {"F32": [1]}},
    ]
    for damage in spoilt:
        records.note(replace(done[names[0]], facts=damage))
        assert share(source, out, 1, 1).parts == (names[0],)
    finish(source, out)
    smaller = tmp_path / "smaller"
    share(source, smaller, 1, 2, "smallest")
    records = Records(partial_of(smaller))
    (first, *_) = (done for done in records.read().values())
    for bad in ({}, dict(first.facts) | {"look": "0" * 64}):
        records.note(replace(first, facts=bad))
        assert share(source, smaller, 1, 2, "smallest").parts == (first.name,)


def test_a_source_that_changes_is_other_work(tmp_path: Path) -> None:
    source, out = model_folder(tmp_path / "in", model()), tmp_path / "out"
    share(source, out, 1, 2)
    file = source / "model.safetensors"
    os.utime(file, ns=(0, 0))
    for run_again in (lambda: share(source, out, 2, 2), lambda: finish(source, out)):
        with pytest.raises(UsageError, match="holds other work, or the same with other"):
            run_again()


class Elsewhere(Here):
    """A pool whose machines find another model under the path."""

    def __init__(self, path: Path, other: Path) -> None:
        self._path, self._other = path, other

    def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
        for path in self._path.iterdir():
            path.unlink()
        for path in self._other.iterdir():
            (self._path / path.name).write_bytes(path.read_bytes())
        return super().run(batch, advance)


SAME = "every machine must find the same model under this path, and nothing may write to it"


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        (
            model(5),
            '"model.safetensors": expected 8,312 bytes, as where the work was begun, found '
            "10,376 bytes",
        ),
        (
            {f"LAYER.{n}": layer(n) for n in range(4)},
            "expected the tensors that were there where the work was begun, found others, "
            "or other dtypes or shapes",
        ),
        (
            model() | {"layer.2": layer(7)},
            'expected in tensor "layer.2" the values that were there where the work was '
            "begun, found others",
        ),
    ],
    ids=["size", "header", "values"],
)
def test_a_machine_that_finds_another_model_is_told(
    tmp_path: Path, other: dict[str, RawTensor], fault: str
) -> None:
    source = model_folder(tmp_path / "in", model())
    pool = Elsewhere(source, model_folder(tmp_path / "other", other))
    with pytest.raises(IntegrityError) as caught:
        convert_spread(source, tmp_path / "out", pool=pool)
    assert str(caught.value) == f"{source}: {fault}: {SAME}"
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", model(), shards=2)
    one = model_folder(tmp_path / "one", model())
    with open_checkpoint(source) as seen, open_checkpoint(one) as found:
        sighting = Sighting.of(seen)
        sighting.check(seen)
        with pytest.raises(IntegrityError) as caught:
            sighting.check(found)
    assert str(caught.value) == (
        f'{one}: "model-00001-of-00002.safetensors": expected 4,176 bytes, as where the '
        f"work was begun, found no such file: {SAME}"
    )


def test_a_machine_that_finds_another_output_is_told(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", model())
    with open_checkpoint(source) as checkpoint:
        spec = parts.Converting(
            source=source,
            sighting=Sighting.of(checkpoint),
            out=tmp_path / "out",
            key="convert x",
            dtype=None,
            casts=(),
            threads=1,
            max_memory=1 << 30,
        )
        (shard,) = lay_out(checkpoint.specs.values(), 1 << 30)
    task = Task(name=shard.name, nbytes=1, detail=shard)
    with (
        OutputFolder(tmp_path / "out", key="convert y", sharing=Sharing.PARTS),
        pytest.raises(ReleaseKitError, match="is not the folder of this work"),
    ):
        parts.write_part(spec, task, lambda nbytes: None)


def test_a_part_says_what_it_takes(models: dict[str, Path], tmp_path: Path) -> None:
    asked: list[Needs] = []

    class Asked(Here):
        threads: int | None = 2

        def run(self, batch: Batch[Any], advance: Advance) -> Iterator[Done]:
            asked.append(batch.needs)
            return super().run(batch, advance)

    source = models["Meta"]
    convert_spread(source, tmp_path / "out", pool=Asked())
    with open_checkpoint(source) as checkpoint:
        tensors = len(checkpoint.specs)
    (needs,) = asked
    assert needs.threads == 2
    assert 128 << 20 < needs.memory_nbytes - 1_100 * tensors < 200 << 20
    with pytest.raises(UsageError, match="raise --max-memory"):
        convert_spread(source, tmp_path / "no", pool=Here(), max_memory=1 << 20)


def test_the_command_does_shares(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = models["safetensors"], tmp_path / "out"
    asked = ("convert", source, out, "--dtype", "smallest", "--shard-size", "3KB")
    first = good(*asked, "--shard", "2/2", "--json").json
    assert (first["share"], first["again"], first["parts"]) == ("2/2", True, [])
    other = good(*asked, "--shard", "1/2", "--json").json  # which has the only look
    assert (other["again"], other["parts"][0]) == (False, "look 1 of 1")
    shown = good(*asked, "--shard", "2/2").stdout.splitlines()
    assert shown[0] == f"share  2/2 of {source}, for {out}"
    assert shown[-1] == (
        "next   once all shares are done, the same with --finish instead of --shard"
    )
    done = good(*asked, "--finish", "--json").json
    assert (
        sum(worker["parts"] for worker in done["workers"])
        == len([name for name in done["files"] if name.endswith(".safetensors")]) + 1
    )
    assert done["uncounted"] == []
    convert(source, tmp_path / "whole", dtype="smallest", shard_nbytes=SIZE)
    assert digests(out) == digests(tmp_path / "whole")


def test_a_share_says_that_there_is_more_to_do(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "in", model())
    asked = ("convert", source, tmp_path / "out", "--dtype", "smallest")
    shown = good(*asked, "--shard", "2/2").stdout.splitlines()
    assert shown[-1] == (
        "next   once all shares are done, the same shares again: there is more to do then"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "1/2", "--finish"), "--shard and --finish: give one of them"),
        (("--engine", "dask"), "expected local, ray, or ray:ADDRESS"),
        (("--shard", "3/2"), "expected i/n"),
    ],
)
def test_what_does_not_go_together_is_refused(
    models: dict[str, Path], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = here("convert", models["PyTorch"], tmp_path / "out", *options)
    assert done.code == 2
    assert message in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [("--shard", "1/2"), ("--finish",)])
def test_models_on_the_hub_are_to_be_fetched_first(
    tmp_path: Path, how: tuple[str, ...]
) -> None:
    done = here("convert", "org/base", tmp_path / "out", *how)
    assert done.code == 2
    assert "releasekit fetch org/base --out FOLDER" in done.error


@pytest.mark.slow
def test_ray_converts_to_the_same(models: dict[str, Path], tmp_path: Path) -> None:
    # In a process of its own: Ray leaves threads behind in one that had a cluster.
    source, out = models["safetensors"], tmp_path / "out"
    asked = ("convert", source, out, "--dtype", "smallest", "--shard-size", "3KB")
    done = run(*asked, "--engine", "ray", "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    convert(source, tmp_path / "whole", dtype="smallest", shard_nbytes=SIZE)
    assert digests(out) == digests(tmp_path / "whole")
    workers = json.loads(done.stdout)["workers"]
    assert sum(worker["parts"] for worker in workers) == 1 + sum(
        path.suffix == ".safetensors" for path in out.iterdir()
    )
    assert all(not worker["name"].endswith(f":{os.getpid()}") for worker in workers)
    assert releasekit.verify(out).ok
