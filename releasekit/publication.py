"""Publish a release, or a full model, on the Hugging Face Hub.

First everything that can be known beforehand: whether the files are what their lists say,
whose they are, whether licences and card keep their rules, what the Hub has already. Then
the contents go up one by one, and one commit makes them all appear, on top of the commit
that was looked at. What the Hub then lists is held against the digests here, and only then
is the version tagged. A new repository is private until all that is done.

Each step looks at what is there, so that a run that was stopped anywhere is continued by
another one. A version that is tagged does not change: the same files are there already, and
others are another version.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from releasekit.authenticity import DEFAULT_POLICY, Authenticity, Policy
from releasekit.authenticity import Status as SignatureStatus
from releasekit.delta.diagnosis import is_release
from releasekit.delta.release import read_manifest
from releasekit.digest import hash_file
from releasekit.errors import (
    FormatError,
    HubError,
    IntegrityError,
    LicenseError,
    UsageError,
)
from releasekit.findings import RuleFinding
from releasekit.licenses.chain import Chain
from releasekit.licensing.clearance import CARD, MAX_CARD, check_licenses
from releasekit.manifest import MANIFEST, MAX_MANIFEST, SIGNATURE, SUMS
from releasekit.manifest_parser import parse
from releasekit.names import listed, safe_path, shown
from releasekit.presentation.writing import check_card
from releasekit.progress import ProgressCallback, Stage
from releasekit.received import PASSED_OVER, read_small, refuse_private_key
from releasekit.verification import Status, verify
from releasekit.versions import EXPECTED, is_version

if TYPE_CHECKING:
    from releasekit.hub.listing import Listing
    from releasekit.hub.publishing import Local, Repository

_MAIN: Final = "main"
#: Bytes of a file that the Hub takes at most.
_MAX_FILE: Final = 500 * 10**9
#: Bytes of a file in which a private key is looked for.
_MAX_KEY_FILE: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishPlan:
    """What publishing does.

    Attributes:
        folder: the release.
        name: what it is called.
        version: its version; None for a model that has none.
        kind: "delta", or "model" for full weights.
        repo: organisation and name on the Hub.
        url: what people open in a browser.
        revision: the branch that it goes to, or is proposed for.
        pull_request: whether it is proposed, rather than committed.
        head: the commit that the branch is at, or begins at; None if there is none.
        new_branch: whether the branch is made, from main.
        exists: whether the repository is there.
        upload: files to commit, and their sizes.
        same: files that the branch has already.
        remove: files of the branch that are none of the release, and go.
        tag: what the commit will be called; None for a pull request, or without a version.
        published: whether that tag is there already, with the same files.
        was_private: whether the repository is private now.
        private: whether it will be.
        was_gated: whether the Hub asks who downloads it to agree first: "auto", "manual".
        gated: whether it will.
        findings: what is worth knowing of licences and card; no errors.
        authenticity: whose the release is.
        notes: what else ought to be known.
    """

    folder: Path
    name: str
    version: str | None
    kind: str
    repo: str
    url: str
    revision: str
    pull_request: bool
    head: str | None
    new_branch: bool
    exists: bool
    upload: dict[str, int]
    same: tuple[str, ...]
    remove: tuple[str, ...]
    tag: str | None
    published: bool
    was_private: bool
    private: bool
    was_gated: str | None
    gated: str | None
    findings: tuple[RuleFinding, ...]
    authenticity: Authenticity
    notes: tuple[str, ...]

    @property
    def upload_nbytes(self) -> int:
        """Bytes to send at most: what the Hub has from before is not sent again."""
        return sum(self.upload.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was published.

    Attributes:
        plan: what was to be done.
        commit: the commit that has the files.
        proposed: the revision of the pull request; None if there is none.
    """

    plan: PublishPlan
    commit: str
    proposed: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How to publish.

    Attributes:
        revision: branch to publish to; made if there is none.
        create_pr: propose it as a pull request to that branch.
        public: let everybody see the repository, or nobody but its owner; None leaves it
            as it is, and a new one private.
        gated: "auto" or "manual": have the Hub ask who downloads to agree first; None does
            what the licences demand.
        version: of a full model; a release has its own.
        force: remove files of the branch that belong to something else.
        xet: whether to upload by Xet, where that is installed.
    """

    revision: str = _MAIN
    create_pr: bool = False
    public: bool | None = None
    gated: str | None = None
    version: str | None = None
    force: bool = False
    xet: bool = True


def plan_publish(
    folder: str | Path,
    repo: str,
    wishes: Wishes = Wishes(),
    *,
    policy: Policy = DEFAULT_POLICY,
    license_folders: Iterable[str | Path] = (),
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> PublishPlan:
    """Check all that `publish` checks, and say what it would do; changes nothing.

    The arguments and errors are those of `publish`.
    """
    from releasekit.hub.answers import bounded

    work = _Work(Path(folder), repo, wishes, policy, tuple(license_folders), threads)
    with bounded():
        return work.survey(progress)[0]


def publish(
    folder: str | Path,
    repo: str,
    wishes: Wishes = Wishes(),
    *,
    policy: Policy = DEFAULT_POLICY,
    license_folders: Iterable[str | Path] = (),
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Published:
    """Publish a release, or a model with its list or signature, as `repo` on the Hub.

    Args:
        folder: the release, or the folder of a full model with SHA256SUMS or model.sig.
        repo: organisation, or user, and name; made if it is not there.
        wishes: how.
        policy: what is asked of its signature.
        license_folders: licence records, besides those that come with the package.
        threads: files hashed at once; by default one a processor.
        progress: called with the bytes of each stage.

    Raises:
        UsageError: if the version is published with other files, or the branch holds
            something else.
        FormatError: if the release is malformed, or its card breaks a rule.
        IntegrityError: if a file is not what its list says, here or on the Hub.
        SignatureError: if `policy` refuses it.
        LicenseError: if it breaks a rule of its licences.
        HubError: if the Hub refuses, or cannot be reached. What was uploaded is kept.
    """
    from releasekit.hub.answers import bounded

    work = _Work(Path(folder), repo, wishes, policy, tuple(license_folders), threads)
    with bounded():
        plan, files, repository = work.survey(progress)
        return _carry_out(plan, files, repository, progress)


def _carry_out(
    plan: PublishPlan,
    files: Mapping[str, Local],
    repository: Repository,
    progress: ProgressCallback | None,
) -> Published:
    """Do what a plan says."""
    head = plan.head
    if not plan.exists:
        repository.create()
        head = _begun(repository)
    if plan.new_branch and not plan.published:
        repository.branch(str(head))
    # Before any file can be seen by whom it should not.
    if plan.private and not plan.was_private and plan.exists:
        repository.show(public=False)
    if plan.gated is not None and plan.gated != plan.was_gated:
        repository.gate(plan.gated)
    commit, proposal = str(head), None
    if plan.published:
        commit = _at(repository, str(plan.tag)).commit
    elif plan.upload or plan.remove:
        stage = Stage(progress, "upload", plan.upload_nbytes)
        repository.upload(
            {name: files[name] for name in plan.upload},
            stage.advance,
            propose=plan.pull_request,
        )
        commit, proposal = _commit(plan, commit, files, repository)
    _compare(plan, files, repository, commit)
    if plan.tag is not None and not plan.published:
        repository.tag(plan.tag, commit, f"{plan.name} {plan.version}")
    if not plan.private and (plan.was_private or not plan.exists):
        repository.show(public=True)
    return Published(plan=plan, commit=commit, proposed=proposal)


def _begun(repository: Repository) -> str:
    """The commit that a new repository begins with, if it is new."""
    listing = _at(repository, _MAIN)
    if others := _others({}, listing):
        raise HubError(
            f"{repository.address.reference}: was not there before, and has "
            f"{listed(others)} now: look at it, and run again"
        )
    return listing.commit


def _commit(
    plan: PublishPlan, head: str, files: Mapping[str, Local], repository: Repository
) -> tuple[str, str | None]:
    """Commit or propose what was uploaded; the commit, and the proposal's revision."""
    title = f"Release {plan.name} {plan.version or ''}".rstrip()
    total = sum(file.nbytes for file in files.values())
    message = title, f"{len(files)} files, {total:,} bytes, checked against {SUMS}."

    def holds(listing: Listing) -> bool:
        return not _differences(files, listing)

    if plan.pull_request:
        return repository.propose(head, plan.remove, message, holds)
    return repository.commit(head, plan.remove, message, holds), None


def _compare(
    plan: PublishPlan, files: Mapping[str, Local], repository: Repository, commit: str
) -> None:
    """Hold what the Hub lists of a commit against the digests here."""
    listing = _at(repository, commit)
    if plan.gated not in (None, listing.gated) and not plan.pull_request:
        raise HubError(
            f"{repository.address.reference}: access was to be gated ({plan.gated}), and "
            f"is not ({listing.gated or 'open'}); look at its settings, and run again"
        )
    if wrong := _differences(files, listing):
        raise IntegrityError(
            f"{repository.address.page} ({commit}): {listed(wrong)}: not as it was sent; "
            "it was not tagged, nor shown to anybody: run again"
        )


def _at(repository: Repository, revision: str) -> Listing:
    """What a revision holds that must be there."""
    listing = repository.listing(revision)
    if listing is None:
        raise IntegrityError(
            f"{repository.address.page}: {revision} is gone, which was there before: look "
            "at it, and run again"
        )
    return listing


def _differences(files: Mapping[str, Local], listing: Listing) -> list[str]:
    """Files that a listing lacks, has otherwise, or has besides."""
    from releasekit.hub.publishing import is_there

    wrong = [name for name, file in files.items() if not is_there(file, name, listing)]
    return [*wrong, *_others(files, listing)]


def _others(files: Mapping[str, Local], listing: Listing) -> list[str]:
    """Files of a listing that are none of these, but for git's settings."""
    return sorted(listing.files.keys() - files.keys() - set(PASSED_OVER))


@dataclass(frozen=True, slots=True)
class _Work:
    """A release, and how to publish it."""

    folder: Path
    repo: str
    wishes: Wishes
    policy: Policy
    license_folders: tuple[str | Path, ...]
    threads: int | None

    def survey(
        self, progress: ProgressCallback | None
    ) -> tuple[PublishPlan, dict[str, Local], Repository]:
        """Check everything; what to do, the files, and where they go."""
        from releasekit.hub.address import Address
        from releasekit.hub.publishing import Repository, is_there

        wishes = self._checked()
        address = Address.of(self.repo)
        if wishes.revision != _MAIN:
            address = Address.of(f"{self.repo}@{wishes.revision}")
        name, version, kind = self._label()
        repository = Repository(address, xet=wishes.xet)
        repository.require_login()
        main = repository.listing(_MAIN)
        head = main if wishes.revision == _MAIN else repository.listing()
        if wishes.create_pr and head is None:
            raise UsageError(
                f"{address.reference}: is not there, and a pull request is made to "
                "something: leave --create-pr out, or correct the name"
            )
        tag = f"v{version}" if version is not None and not wishes.create_pr else None
        tagged = repository.listing(tag) if tag and main is not None else None

        was_private = main.private if main is not None else True
        private = was_private if wishes.public is None else not wishes.public
        chain, findings = self._cleared(public=not private)
        repository.check_card(read_small(self.folder / CARD, MAX_CARD).decode())
        files, authenticity = self._verified(progress)

        changed = _differences(files, tagged) if tagged is not None else []
        published = tagged is not None and not changed
        if changed:
            raise UsageError(
                f"{address.name}: version {version} is published as {tag}, with other "
                f"files ({listed(changed)}), and does not change: make "
                "the release anew with a higher --version"
            )
        new_branch = head is None and wishes.revision != _MAIN
        head = main if new_branch else head  # which it begins at
        there = tagged if published else head
        same = tuple(name for name, file in files.items() if is_there(file, name, there))
        remove = tuple(_others(files, there)) if there is not None else ()
        other = _name_at(repository, there) if kind == "delta" else None
        if not wishes.force and other not in (None, name):
            raise UsageError(
                f"{address.name}: holds the release {shown(str(other))}, and this one is "
                f"{shown(name)}: choose another name on the Hub, or give --force to put it "
                "in that one's place (its history keeps it)"
            )
        if remove and not (wishes.force or _is_ours(there, kind)):
            raise UsageError(
                f"{address.name}: holds files that are none of this release: "
                f"{listed(remove)}: choose another name, or give --force to remove them "
                "from its newest commit (its history keeps them)"
            )
        is_same = len(same) == len(files) and not remove
        was_gated = main.gated if main is not None else None
        plan = PublishPlan(
            folder=self.folder,
            name=name,
            version=version,
            kind=kind,
            repo=address.name,
            url=address.page,
            revision=wishes.revision,
            pull_request=wishes.create_pr,
            head=head.commit if head is not None else None,
            new_branch=new_branch,
            exists=main is not None,
            upload={n: file.nbytes for n, file in files.items() if n not in same},
            same=same,
            remove=remove,
            tag=tag,
            published=published,
            was_private=was_private,
            private=private,
            was_gated=was_gated,
            gated=was_gated if wishes.create_pr else self._gate(chain, was_gated),
            findings=findings,
            authenticity=authenticity,
            notes=tuple(self._notes(version, authenticity, is_same=is_same)),
        )
        return plan, files, repository

    def _checked(self) -> Wishes:
        """The wishes, if they do not contradict each other."""
        wishes = self.wishes
        if wishes.create_pr and (wishes.public is not None or wishes.gated is not None):
            raise UsageError(
                "a pull request changes files only: leave --public, --private and --gated "
                "out, or --create-pr"
            )
        if "@" in self.repo:
            raise UsageError(
                f"{self.repo}: expected org/name; name the branch with --revision"
            )
        return wishes

    def _label(self) -> tuple[str, str | None, str]:
        """Name, version and kind of what is published."""
        if not self.folder.is_dir():
            raise UsageError(f"{self.folder}: expected the folder of a release, or a model")
        given = self.wishes.version
        if is_release(self.folder):
            manifest = read_manifest(self.folder, None)[0]
            if given not in (None, manifest.version):
                raise UsageError(
                    f"{self.folder}: is version {manifest.version}, as it was made; leave "
                    "--version out, or make it anew"
                )
            return manifest.name, manifest.version, "delta"
        if not any((self.folder / name).is_file() for name in (SUMS, SIGNATURE)):
            raise UsageError(
                f"{self.folder}: has no {MANIFEST}, {SUMS} or {SIGNATURE}, so nobody could "
                "check it: make a release of it, or sign it with `releasekit sign`"
            )
        if given is not None and not is_version(given):
            raise UsageError(f"--version {given}: expected {EXPECTED}")
        return self.repo.rpartition("/")[2], given, "model"

    def _cleared(self, *, public: bool) -> tuple[Chain | None, tuple[RuleFinding, ...]]:
        """The licences, and what is worth knowing of them and of the card."""
        card = check_card(self.folder)
        if errors := [found for found in card if found.is_error]:
            raise FormatError(
                f"{self.folder / CARD}: breaks rules: {_sentences(errors)}; then look with "
                "`releasekit card --check`"
            )
        cleared = check_licenses(self.folder, public=public, folders=self.license_folders)
        if errors := [found for found in cleared.findings if found.is_error]:
            raise LicenseError(
                f"{self.folder}: breaks rules of its licences: {_sentences(errors)}; then "
                "look with `releasekit licenses check`"
            )
        return cleared.chain, tuple(dict.fromkeys([*cleared.findings, *card]))

    def _verified(
        self, progress: ProgressCallback | None
    ) -> tuple[dict[str, Local], Authenticity]:
        """All files, each of which is what its list says, and whose they are."""
        from releasekit.hub.publishing import Local

        # The trust file may demand the signature of whose repository it is.
        policy = replace(self.policy, owner=self.policy.owner or self.repo.split("/")[0])
        found = verify(self.folder, policy=policy, threads=self.threads, progress=progress)
        if not found.ok:
            wrong = {
                status: [f.path for f in found.files if f.status is status]
                for status in Status
            }
            del wrong[Status.GOOD]
            told = [
                f"{status.value} {listed(names)}"
                for status, names in wrong.items()
                if names
            ]
            raise IntegrityError(
                f"{self.folder}: {'; '.join(told)}: make the release anew, or remove what "
                "is unexpected"
            )
        digests = {file.path: str(file.found) for file in found.files}
        for name in (SUMS, SIGNATURE):
            if (self.folder / name).is_file() and name not in digests:
                digests[name] = hash_file(self.folder / name)
        files = {}
        for name, digest in sorted(digests.items()):
            path = self.folder / safe_path(name, str(self.folder))
            nbytes = path.stat().st_size
            if nbytes > _MAX_FILE:
                raise UsageError(
                    f"{path}: has {nbytes:,} bytes, and the Hub takes files of "
                    f"{_MAX_FILE:,}: make the release with a smaller --shard-size"
                )
            if nbytes <= _MAX_KEY_FILE:
                refuse_private_key(path)
            files[name] = Local(path=path, nbytes=nbytes, sha256=digest)
        return files, found.authenticity

    def _gate(self, chain: Chain | None, now: str | None) -> str | None:
        """How the Hub is to ask those who download it."""
        if self.wishes.gated is not None:
            return self.wishes.gated
        grants = chain.grants if chain is not None else ()
        if now is None and any(grant.acceptance or grant.research_only for grant in grants):
            return "auto"
        return now

    def _notes(
        self, version: str | None, authenticity: Authenticity, *, is_same: bool
    ) -> Iterator[str]:
        if authenticity.status is SignatureStatus.UNSIGNED:
            yield "not signed: users cannot tell whose it is; see `releasekit sign`"
        elif authenticity.status is SignatureStatus.UNCHECKED:
            yield (
                "signed, but by a key that is not trusted here: check it with --public-key"
            )
        if self.wishes.create_pr and is_same:
            yield f"{self.wishes.revision} has the same files already: nothing to propose"
        if version is None and not self.wishes.create_pr:
            yield "no version: nothing is tagged; give one with --version"


def _is_ours(listing: Listing | None, kind: str) -> bool:
    """Whether what is there was published as this is: a newer version takes its place."""
    if listing is None or (MANIFEST in listing.files) != (kind == "delta"):
        return False  # full weights are no newer version of a delta, nor a delta of them
    return any(name in listing.files for name in (MANIFEST, SUMS, SIGNATURE))


def _name_at(repository: Repository, listing: Listing | None) -> str | None:
    """What the delta is called that a commit holds; None if it holds none of ours."""
    if listing is None or MANIFEST not in listing.files:
        return None
    try:
        return parse(repository.content(listing, MANIFEST, MAX_MANIFEST)).name
    except FormatError:
        return None


def _sentences(findings: Iterable[RuleFinding]) -> str:
    return "; ".join(map(str, findings))
