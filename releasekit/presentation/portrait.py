"""What a folder holds, as a card tells of it: a delta or a model, its name, its licences.

A full model's licences are drawn up here, if any are named; those of a delta were when it
was made. Files that an earlier card put there are not taken for the maintainer's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from releasekit import strictjson
from releasekit.card.facts import Facts
from releasekit.card.view import DeltaView, ModelView
from releasekit.checkpoint import open_found
from releasekit.checkpoint.discover import find
from releasekit.checkpoint.locate import look
from releasekit.delta.diagnosis import is_release
from releasekit.delta.release import read_manifest
from releasekit.digest import hash_file
from releasekit.errors import FormatError, UsageError
from releasekit.license_files import kind_of, read_chain
from releasekit.licenses.chain import FOLDER, LICENSE, NOTICE, Chain, Kind
from releasekit.licenses.records import Catalogue
from releasekit.licensing.drawing import draw_up, name_of
from releasekit.licensing.terms import Licensing
from releasekit.manifest import SUMS
from releasekit.names import is_title, shown
from releasekit.operations import Op
from releasekit.received import files_in, read_small

_CONFIG = "config.json"
_MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """What a card is of.

    Attributes:
        name: what it is called.
        weights: the delta, or the weights.
        chain: its licences; None if it has none.
        catalogue: what is known of licences.
        papers: files to write for its licences, the bytes of each by its path.
        removed: paths of texts that an earlier card wrote, and are no longer its.
        library: what loads it, as far as its config tells.
        derived: whether it has a base.
        sums: whether there is a list of digests.
    """

    name: str
    weights: DeltaView | ModelView
    chain: Chain | None
    catalogue: Catalogue
    library: str | None
    derived: bool
    sums: bool
    papers: Mapping[str, bytes] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    @property
    def delta(self) -> bool:
        """Whether it is a delta."""
        return isinstance(self.weights, DeltaView)


def portray(
    path: Path,
    facts: Facts,
    name: str | None,
    licensing: Licensing,
    base: str | Path | None,
) -> Portrait:
    """Look at a folder, and draw up the licences of a full model.

    Args:
        path: the folder.
        facts: what the maintainer says.
        name: what a model is called; None for its folder's name.
        licensing: the licences of a full model.
        base: where those of its base lie; None to look nowhere.

    Raises:
        UsageError: if there is neither a release nor a model, or a name is wrong.
        FormatError, IntegrityError: if what is there is malformed or damaged.
    """
    catalogue = licensing.catalogue()
    sums = (path / SUMS).is_file()
    if is_release(path):
        if name is not None or base is not None:
            raise UsageError(
                f"{path}: --name and --base are for full models; a delta says both itself"
            )
        release = _delta(path)
        return Portrait(
            name=release[0],
            weights=release[1],
            chain=read_chain(path),
            catalogue=catalogue,
            library=None,
            derived=True,
            sums=sums,
        )
    name = name or path.resolve().name
    if not is_title(name):
        raise UsageError(f"name {shown(name)}: expected a line of 1 to 200 characters")
    with open_found(find(path)) as checkpoint:
        weights = ModelView.of(checkpoint.specs.values())
    chain, papers = read_chain(path), {}
    removed: set[str] = set()
    if not licensing.says_nothing or base is not None:
        folder = look(base) if base is not None else None
        of_base = facts.base_id or (name_of(base) if base is not None else "")
        own = _own_files(path, chain)
        drawn = draw_up(
            licensing,
            name,
            folder,
            of_base,
            delta=False,
            beside={
                n: path / n for n in own if kind_of(n) in (Kind.LICENSE, Kind.USE_POLICY)
            },
            before=path if chain is not None else None,
        )
        papers = drawn.rebuilt(own)
        if chain is not None:
            removed = {t.path for g in chain.grants for t in g.texts}
            if LICENSE not in own and (path / LICENSE).is_file():
                removed.add(LICENSE)
            removed -= papers.keys()
        chain = drawn.chain
    derived = facts.base_id is not None or bool(chain and chain.bases)
    return Portrait(
        name=name,
        weights=weights,
        chain=chain,
        catalogue=catalogue,
        library=_library(path),
        derived=derived,
        sums=sums,
        papers=papers,
        removed=tuple(sorted(removed)),
    )


def _delta(path: Path) -> tuple[str, DeltaView]:
    manifest, digest = read_manifest(path, None)
    own = (
        spec
        for name, spec in manifest.target.items()
        if manifest.operations[name].op is not Op.ALIAS
    )
    weights = ModelView.of(own)
    before = manifest.predecessor
    return manifest.name, DeltaView(
        version=manifest.version,
        base_identity=manifest.base_identity,
        accepted=manifest.accepted,
        target_identity=manifest.target_identity,
        manifest_sha256=digest,
        predecessor=before.title if before is not None else None,
        predecessor_hub=before.hub if before is not None else None,
        published_nbytes=sum(entry.size for entry in manifest.stored.values()),
        rebuilt_nbytes=manifest.rebuilt_nbytes,
        parameters=weights.parameters,
        dtypes=weights.dtypes,
        base_dtypes=ModelView.of(tensor.spec for tensor in manifest.base.values()).dtypes,
    )


def _own_files(path: Path, chain: Chain | None) -> dict[str, Path | bytes]:
    """Files of the maintainer's: not what an earlier card wrote for the licences."""
    texts = {text.sha256 for grant in chain.grants for text in grant.texts} if chain else ()
    own: dict[str, Path | bytes] = {}
    # Where the maintainer has a NOTICE of their own, ours lies below `licenses/`.
    ours = chain is not None and not (path / FOLDER / NOTICE).is_file()
    for name in files_in(path):
        made = name.startswith(f"{FOLDER}/") or (ours and name == NOTICE)
        if chain is not None and name == LICENSE:
            made = hash_file(path / name) in texts
        if not made:
            own[name] = path / name
    return own


def _library(path: Path) -> str | None:
    """`transformers`, if the config is one of its."""
    file = path / _CONFIG
    if not file.is_file():
        return None
    try:
        config = strictjson.loads(read_small(file, _MAX_CONFIG), str(file))
    except FormatError:
        return None  # somebody else's file, which nothing here depends on
    known = isinstance(config, dict) and {"architectures", "model_type"} & config.keys()
    return "transformers" if known else None
