"""Make a release of somebody else's additive delta, so that it gets what it lacks.

The model is never written: the sum of base and delta is encoded as it is read. What comes
out rebuilds the model that the publisher's script would have made, file by file, with
digests, from the same base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from releasekit.authenticity import DEFAULT_POLICY, refuse_unsigned
from releasekit.checkpoint.derived import Sharded
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import locate
from releasekit.codec import Ulp
from releasekit.conversion import beside_as_written, dtype_name
from releasekit.delta.making.make import DEFAULT_SHARD_NBYTES as DEFAULT_PAYLOADS
from releasekit.delta.making.make import MakeResult, make_release
from releasekit.delta.notary import Label, Notary, Source
from releasekit.device.choose import AUTO as AUTO_DEVICE
from releasekit.errors import UsageError
from releasekit.foreign.apply import open_sum
from releasekit.foreign.recipes import AUTO
from releasekit.foreign.recognise import Origin, recognise
from releasekit.licensing.drawing import papers_of
from releasekit.licensing.terms import NO_LICENSE, Licensing
from releasekit.progress import ProgressCallback
from releasekit.resources import DEFAULT_MAX_MEMORY
from releasekit.sharding import DEFAULT_SHARD_NBYTES, index_of
from releasekit.signing.keys import PrivateKey
from releasekit.versions import FIRST


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What was released.

    Attributes:
        made: the release.
        recipe: the script whose arithmetic was done.
        why: how the delta was recognised.
        dtype: of the model's floats.
        notes: what users should know of.
    """

    made: MakeResult
    recipe: str
    why: str
    dtype: str
    notes: tuple[str, ...]


def import_delta(
    base: str | Path,
    delta: str | Path,
    out: str | Path,
    *,
    recipe: str = AUTO,
    dtype: str | None = None,
    order: str | None = None,
    name: str | None = None,
    version: str = FIRST,
    publisher: str | None = None,
    sign_key: PrivateKey | None = None,
    succession: str | Path | None = None,
    licensing: Licensing = NO_LICENSE,
    accept: Sequence[str | Path] = (),
    codec: Ulp | None = None,
    model_shard_nbytes: int = DEFAULT_SHARD_NBYTES,
    shard_nbytes: int = DEFAULT_PAYLOADS,
    force: bool = False,
    device: str = AUTO_DEVICE,
    threads: int | None = None,
    max_memory: int = DEFAULT_MAX_MEMORY,
    progress: ProgressCallback | None = None,
) -> ImportResult:
    """Release somebody else's additive delta as one of ours, in a new folder `out`.

    The delta is read as `apply_foreign` reads it, with `recipe`, `dtype` and `order`. What
    it makes is laid out in files of at most `model_shard_nbytes` of tensors, and released
    with the files beside the delta as `make_delta` does, with all other arguments. The
    release's name is by default the delta folder's. Raises as both of them do.
    """
    given, given_base = str(delta), base
    label = Label(name=name or _name_of(given), version=version, publisher=publisher)
    label.check()
    base, delta = locate(base, progress), locate(delta, progress)
    if (origin := recognise(delta, recipe)) is not Origin.ADDITIVE:
        what = "XOR files" if origin is Origin.XOR else "a release of releasekit already"
        raise UsageError(
            f"{delta}: is {what}, and not imported: rebuild the model with apply-delta, "
            "and release it with make-delta if need be"
        )
    refuse_unsigned(given, DEFAULT_POLICY.of(given))
    with open_sum(
        base,
        delta,
        recipe=recipe,
        dtype=dtype,
        order=order,
        shard_nbytes=model_shard_nbytes,
    ) as total:
        others = beside_as_written(total.found.root, total.others, total.recipe.dtype)
        codec = codec or Ulp()
        of_delta = Source.of("delta", given, total.found)
        notary = Notary.of(
            sources=(
                Source.of("base", given_base, find(base)),
                replace(of_delta, files=(*of_delta.files, *total.others)),
            ),
            parameters={
                "command": "import-delta",
                "recipe": total.recipe.name,
                "dtype": dtype_name(total.recipe.dtype),
                "order": total.recipe.order.value,
                "model_shard_nbytes": model_shard_nbytes,
                "codec": codec.to_json(),
                "shard_nbytes": shard_nbytes,
                **licensing.parameters,
            },
            key=sign_key,
            succession=succession,
        )
        made = make_release(
            total.inputs[0],
            Sharded(total.model, total.shards),
            others | index_of(total.shards),
            Path(out),
            label=label,
            notary=notary,
            papers=papers_of(licensing, label.name, given_base, base),
            inputs=(base, delta),
            accept=accept,
            shard_nbytes=shard_nbytes,
            codec=codec,
            force=force,
            device=device,
            threads=threads,
            max_memory=max_memory,
            progress=progress,
        )
        return ImportResult(
            made=made,
            recipe=total.recipe.name,
            why=total.pair.why,
            dtype=dtype_name(total.recipe.dtype),
            notes=total.pair.notes,
        )


def _name_of(delta: str) -> str:
    """What a delta is called: a folder's name, or that of a model on the Hub."""
    path = Path(delta)
    if path.exists():
        return path.resolve().name
    return delta.partition("@")[0].rpartition("/")[2]
