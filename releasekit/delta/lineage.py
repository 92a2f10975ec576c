"""Releases that build on each other: v1.1 as a delta on what v1.0 rebuilds.

A lineage is rebuilt in one pass. What the earlier releases make is read by range, in
memory, as the one after them needs it, and is never written; so the disk needs room for the
last model alone, and the base of all is the only one that must be there. Each release is
trusted, licensed and checked for itself. A lineage of one release is the usual case, and
costs nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from releasekit.admission import remember
from releasekit.authenticity import Authenticity, Policy, authenticate
from releasekit.checkpoint import Checkpoint, StoredCheckpoint
from releasekit.checkpoint.locate import Located
from releasekit.codec import ulp
from releasekit.delta.base import check_base, open_base
from releasekit.delta.consent import Consent, agree, read_terms
from releasekit.delta.rebuild import Rebuild
from releasekit.delta.release import Release, read_manifest
from releasekit.delta.supply import Supply
from releasekit.delta.trusted import open_trusted
from releasekit.delta.virtual import VirtualCheckpoint
from releasekit.errors import UsageError
from releasekit.licenses.chain import Chain, Grant
from releasekit.manifest import Manifest, WeightEntry

#: A release, or several that build on each other, in whatever order: paths, or on the Hub.
Deltas = str | Path | Sequence[str | Path]


def named(deltas: Deltas) -> tuple[str | Path, ...]:
    """The releases, each as the caller named it.

    Raises:
        UsageError: if there are none.
    """
    if isinstance(deltas, (str, Path)):
        return (deltas,)
    if not deltas:
        raise UsageError("delta: expected at least one release, found none")
    return tuple(deltas)


def one_alone(deltas: Sequence[str | Path]) -> str | Path:
    """Another tool's delta, which others cannot build on; UsageError if there are more."""
    if len(deltas) > 1:
        raise UsageError(
            f"{', '.join(map(str, deltas))}: not all are releases of releasekit, and "
            "others cannot be applied together: apply one after another"
        )
    return deltas[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One release of a lineage.

    Attributes:
        release: the release, open.
        authenticity: whose it is.
        policy: what was asked of it.
    """

    release: Release
    authenticity: Authenticity
    policy: Policy


@dataclass(frozen=True, kw_only=True)
class Line:
    """Releases, open, each made on what the one before it rebuilds.

    Attributes:
        releases: the releases, in the order in which they are applied.
    """

    releases: tuple[Release, ...]

    @property
    def last(self) -> Release:
        """The release whose model is rebuilt."""
        return self.releases[-1]

    @property
    def titles(self) -> tuple[str, ...]:
        """Name and version of each release, in that order."""
        manifests = (release.manifest for release in self.releases)
        return tuple(f"{manifest.name} {manifest.version}" for manifest in manifests)

    @property
    def base_nbytes(self) -> int:
        """Bytes of the base that a rebuild reads."""
        names = dict.fromkeys(self.last.manifest.target)
        for release in reversed(self.releases):
            manifest = release.manifest
            makers = dict.fromkeys(manifest.operations[n].of or n for n in names)
            names = dict.fromkeys(n for n in makers if manifest.predictor(n) is not None)
        return sum(self.releases[0].manifest.base[name].spec.nbytes for name in names)

    @property
    def delta_nbytes(self) -> int:
        """Bytes of the releases that a rebuild reads."""
        return sum(
            entry.size for r in self.releases for entry in r.manifest.stored.values()
        )

    def open_base(self, where: Located) -> StoredCheckpoint:
        """Open what the first release was made on; raises as `base.open_base`."""
        return open_base(where.path, self.releases[0].manifest, where.coming)

    def check_base(self, base: Checkpoint) -> tuple[str, ...]:
        """Hold a base against the first release; as `base.check_base`."""
        first = self.releases[0]
        return check_base(first.manifest, base, first.folder)

    def check_files(self) -> None:
        """See that every file that a rebuild reads is there; IntegrityError if not."""
        for release in self.releases:
            release.check_files()

    def footing(self, base: Checkpoint) -> Checkpoint:
        """What the last release is rebuilt on: `base`, or what the others make of it."""
        found = base
        for release in self.releases[:-1]:
            found = VirtualCheckpoint(release, found)
        return found

    def rebuild(self, base: Checkpoint, combine: ulp.Combine = ulp.combine) -> Rebuild:
        """Makes the last release's model.

        Args:
            base: what the first release was made on.
            combine: adds the last release's residuals.
        """
        return Rebuild(self.last, self.footing(base), combine)

    def virtual(self, base: Checkpoint) -> VirtualCheckpoint:
        """The last release's model, to be read by range."""
        return VirtualCheckpoint(self.last, self.footing(base))

    def supply(
        self, base: StoredCheckpoint, where: Located, entries: Iterable[WeightEntry]
    ) -> Supply:
        """What making some of the last model's files takes from the Hub."""
        return Supply.of(self.releases, base, where, entries)


@dataclass(frozen=True, kw_only=True)
class Lineage(Line):
    """The same, and whose they are.

    Attributes:
        links: the releases, in the order in which they are applied.
    """

    links: tuple[Link, ...]

    @property
    def authenticity(self) -> Authenticity:
        """Whose the last release is."""
        return self.links[-1].authenticity

    def agree(self, consent: Consent) -> Chain | None:
        """See that the user accepts the terms of every release; as `consent.agree`.

        Returns:
            The licences of the model that is rebuilt.
        """
        for release, _ in self.terms():
            agree(release, consent)
        return read_terms(self.last)

    def terms(self) -> Iterator[tuple[Release, list[Grant]]]:
        """Licences that restrict use, with the release to ask about; the last one first.

        Nobody is asked twice for the same terms, whichever models they are of.
        """
        known: set[Grant] = set()
        for release in reversed(self.releases):
            chain = read_terms(release)
            grants = {replace(g, of=""): g for g in (chain.grants if chain else ())}
            new = [g for same, g in grants.items() if same not in known and not g.free]
            known |= grants.keys()
            if new:
                yield release, new

    def remember(self) -> None:
        """Note in the trust file what was rebuilt."""
        for link in self.links:
            release = link.release
            remember(link.authenticity, release.manifest, release.key, link.policy)


@contextmanager
def open_lineage(
    deltas: Sequence[str | Path], found: Sequence[Located], policy: Policy
) -> Iterator[Lineage]:
    """Open releases that build on each other.

    Args:
        deltas: each as the caller named it.
        found: where each is.
        policy: what is asked of their signatures. That a later version was rebuilt here
            speaks against the last alone: the others are its past.

    Raises:
        UsageError: if they do not build on each other.
        SignatureError, FormatError, IntegrityError: as `open_trusted`.
    """
    order = _order(deltas, found, policy)
    with ExitStack() as stack:
        links = []
        for index in order:
            asked = policy.of(deltas[index])
            lenient = asked
            if index != order[-1]:
                lenient = replace(asked, allow_downgrade=True)
            at = found[index]
            opened, authenticity = open_trusted(at.path, lenient, at.coming)
            release = stack.enter_context(opened)
            links.append(Link(release=release, authenticity=authenticity, policy=asked))
        for before, after in pairwise(links):
            # Once more: these manifests were read anew.
            if not _fits(before.release.manifest, after.release.manifest):
                raise UsageError(
                    f"{after.release.folder}: has changed while it was read; try again"
                )
        yield Lineage(releases=tuple(link.release for link in links), links=tuple(links))


def path_to(
    tip: str | Path, folder: Path, others: Sequence[tuple[str | Path, Path]]
) -> list[tuple[str | Path, Path]]:
    """Which of some releases lead to one, and in what order, that one last.

    Args:
        tip: the release, as it was named.
        folder: where it is.
        others: releases that may lead to it: as they were named, and where they are.

    Raises:
        UsageError, FormatError, IntegrityError: as `read_manifest`.
    """
    if not others:
        return [(tip, folder)]
    known = [(name, path, read_manifest(path, None)[0]) for name, path in others]
    found = [(tip, folder, read_manifest(folder, None)[0])]
    while before := [one for one in known if _fits(one[2], found[0][2])]:
        known.remove(before[0])  # else releases that undo each other would lead on for ever
        found.insert(0, before[0])
    return [(name, path) for name, path, _ in found]


def _fits(before: Manifest, after: Manifest) -> bool:
    """Whether what one release rebuilds serves as the base of another."""
    if before.target_identity == after.base_identity:
        return True
    # Of what else is accepted, a publisher says that it has all that is read of the base.
    return before.target_identity in after.accepted and all(
        before.target.get(name) == spec
        and before.operations[name].digest == after.base[name].digest
        for name, spec in after.predictors.items()
    )


def _order(
    deltas: Sequence[str | Path], found: Sequence[Located], policy: Policy
) -> list[int]:
    """In what order releases build on each other, as indices; for `open_lineage`.

    Nothing in a release is read before its signature was checked, the order neither.
    """
    if len(deltas) == 1:
        return [0]
    manifests = []
    names: dict[str, str] = {}
    for delta, at in zip(deltas, found, strict=True):
        signed = authenticate(at.path, policy.of(delta)).files
        manifest, key = read_manifest(at.path, signed)
        if key in names:
            raise UsageError(
                f"{names[key]} and {delta}: are the same release, {manifest.name} "
                f"{manifest.version}: name it once"
            )
        names[key] = str(delta)
        manifests.append(manifest)
    named = list(names.values())
    before: dict[int, int] = {}
    for index, after in enumerate(manifests):
        fitting = [i for i, m in enumerate(manifests) if i != index and _fits(m, after)]
        if len(fitting) > 1:
            one, other = (named[i] for i in fitting[:2])
            raise UsageError(
                f"{one} and {other}: rebuild the same model, which {named[index]} is "
                "made on: name one of them"
            )
        if fitting:
            before[index] = fitting[0]
    tips = set(range(len(named))) - set(before.values())
    order = [min(tips)] if tips else []
    while order and order[0] in before:
        order.insert(0, before[order[0]])
    if len(order) == len(named):
        return order
    starts = [index for index in range(len(named)) if index not in before]
    if len(starts) < 2:
        raise UsageError(
            "delta: the releases do not lead from a base to a model: "
            f"{', '.join(named)}: name only those that build on each other"
        )
    texts = [f"{named[i]} on {manifests[i].base_identity}" for i in starts]
    raise UsageError(
        f"delta: the releases do not build on each other: {'; '.join(texts)}, and no other "
        "of them rebuilds either: name all from the base to the model that you want, and "
        "no others"
    )
