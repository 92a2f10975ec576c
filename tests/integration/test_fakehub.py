"""The Hub of the tests is as huggingface_hub, with nothing patched, expects one."""

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    hf_hub_url,
)
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata, http_get
from huggingface_hub.hf_api import RepoFile, RepoFolder

from tests.fakehub import OTHER_TOKEN, READ_TOKEN, TOKEN, Answer, FakeHub, Request, path_of

NAME = "org/model"
WEIGHTS = "model.safetensors"
DATA = bytes(range(256)) * 1000
FILES: dict[str, bytes | Path] = {"README.md": b"# A model\n", WEIGHTS: DATA}

pytestmark = [
    # Those that use the double show in every run that it works.
    pytest.mark.slow,
    # The client hands its HTTP library files in a way that this calls outdated.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


@pytest.fixture
def api(hub: FakeHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture
def repo(hub: FakeHub, api: HfApi) -> str:
    """An empty repository, as the Hub makes it."""
    return str(api.create_repo(NAME).repo_id)


def adding(**files: bytes) -> list[CommitOperationAdd]:
    """Operations; a double underscore in a keyword is a slash, a single one a dot."""
    names = {key: key.replace("__", "/").replace("_", ".") for key in files}
    return [CommitOperationAdd(names[key], data) for key, data in files.items()]


def publish(api: HfApi, **options: Any) -> Any:
    operations = adding(model_safetensors=DATA, config_json=b"{}")
    return api.create_commit(NAME, operations, commit_message="Publish", **options)


def refusal(act: Callable[[], object]) -> tuple[int, str | None]:
    with pytest.raises(HfHubHTTPError) as raised:
        act()
    return raised.value.response.status_code, raised.value.server_message


# What is published.


def test_who_one_is(hub: FakeHub, api: HfApi) -> None:
    hub.orgs = {"acme"}
    told = api.whoami()
    assert (told["name"], [org["name"] for org in told["orgs"]]) == ("me", ["acme"])
    assert told["auth"]["accessToken"]["role"] == "write"
    assert api.whoami(token=READ_TOKEN)["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match=r"^Invalid user token"):
        api.whoami(token="hf_wrong")


def test_a_repository_is_made_once(hub: FakeHub, api: HfApi) -> None:
    assert api.create_repo(NAME, private=True) == f"{hub.url}/{NAME}"
    assert api.create_repo(NAME, exist_ok=True).repo_id == NAME
    assert refusal(lambda: api.create_repo(NAME)) == (
        409,
        "You already created this model repo",
    )
    assert list(hub.files(NAME)) == [".gitattributes"]
    assert hub.repos[NAME].private
    api.delete_repo(NAME)
    assert not api.repo_exists(NAME)


def test_settings(hub: FakeHub, api: HfApi, repo: str) -> None:
    api.update_repo_settings(repo, private=True, gated="manual")
    info = api.model_info(repo, expand=["private", "gated", "sha"])
    assert (info.private, info.gated, info.sha) == (True, "manual", hub.head(repo))
    assert info.siblings is None
    api.update_repo_settings(repo, private=False, gated=False)
    info = api.model_info(repo)
    assert (info.private, info.gated) == (False, False)


def test_files_are_committed(hub: FakeHub, api: HfApi, repo: str) -> None:
    before = hub.head(repo)
    done = publish(api, parent_commit=before, commit_description="All of it.")
    assert done.oid == hub.head(repo)
    assert done.commit_url == f"{hub.url}/{repo}/commit/{done.oid}"
    assert hub.files(repo)[WEIGHTS] == DATA
    (file,) = api.get_paths_info(repo, [WEIGHTS, "none"], revision=done.oid)
    assert isinstance(file, RepoFile)
    assert file.lfs is not None
    assert (file.size, file.lfs.sha256) == (len(DATA), hashlib.sha256(DATA).hexdigest())
    newest, first = api.list_repo_commits(repo)
    assert (newest.title, newest.message, first.commit_id) == (
        "Publish",
        "All of it.",
        before,
    )
    assert hub.leaked() == []


def test_a_stored_file_is_not_sent_again(hub: FakeHub, api: HfApi, repo: str) -> None:
    publish(api)
    hub.requests.clear()
    done = api.create_commit(repo, adding(other_bin=DATA), commit_message="Again")
    assert hub.asked("^PUT ") == []
    assert hub.files(repo)["other.bin"] == DATA
    again = api.create_commit(repo, adding(other_bin=DATA), commit_message="Nothing new")
    assert again.oid == done.oid


def test_a_large_file_comes_in_parts(
    hub: FakeHub, api: HfApi, repo: str, tmp_path: Path
) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(21_000_000))
    api.upload_file(path_or_fileobj=large, path_in_repo="large.bin", repo_id=repo)
    assert len(hub.asked("^PUT /lfs/.*/[1-3][?]")) == 3
    got = api.hf_hub_download(repo, "large.bin", cache_dir=tmp_path / "cache")
    assert Path(got).read_bytes() == large.read_bytes()
    assert [r.host.partition(":")[0] for r in hub.requests if r.method == "PUT"] == [
        "localhost"
    ] * 3
    assert hub.leaked() == []


def test_which_files_go_to_lfs(hub: FakeHub, api: HfApi, repo: str) -> None:
    operations = adding(a_bin=b"text", b_txt=b"text", c_dat=b"\0", d_txt=b"x" * 10_000_000)
    api.preupload_lfs_files(repo, operations)
    assert [op._upload_mode for op in operations] == ["lfs", "regular", "lfs", "lfs"]


def test_ignored_files_are_left_out(hub: FakeHub, api: HfApi, repo: str) -> None:
    publish(api)
    api.create_commit(
        repo,
        [CommitOperationAdd(".gitignore", b"*.log\nbuild/\n!keep.log\n")],
        commit_message="Ignore",
    )
    files = adding(a_log=b"", b__c_log=b"", keep_log=b"1", build__x=b"", x__build__y=b"")
    api.create_commit(repo, files, commit_message="Try")
    assert "keep.log" in hub.files(repo)
    assert not {"a.log", "b/c.log", "build/x", "x/build/y"} & set(hub.files(repo))


def test_files_are_copied_and_deleted(hub: FakeHub, api: HfApi, repo: str) -> None:
    publish(api)
    operations: list[Any] = [
        CommitOperationCopy(WEIGHTS, "copy.safetensors"),
        CommitOperationCopy("config.json", "sub/config.json"),
        CommitOperationDelete("config.json"),
    ]
    api.create_commit(repo, operations, commit_message="Move")
    assert hub.files(repo)["copy.safetensors"] == DATA
    assert hub.files(repo)["sub/config.json"] == b"{}"
    assert "config.json" not in hub.files(repo)
    api.delete_folder("sub", repo)
    assert "sub/config.json" not in hub.files(repo)
    with pytest.raises(
        RemoteEntryNotFoundError, match="A file with this name doesn't exist"
    ):
        api.delete_file("none.txt", repo)


def test_a_file_is_copied_by_the_hub_alone(hub: FakeHub, api: HfApi, repo: str) -> None:
    publish(api)
    lines: list[dict[str, Any]] = [
        {"key": "header", "value": {"summary": "Copy"}},
        {"key": "copyFile", "value": {"path": "b.bin", "srcPath": WEIGHTS}},
    ]
    sent = "\n".join(json.dumps(line) for line in lines)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(
        f"{hub.url}/api/models/{repo}/commit/main", content=sent, headers=headers
    )
    assert answer.json()["commitOid"] == hub.head(repo)
    assert hub.files(repo)["b.bin"] == DATA


def test_a_commit_on_what_has_moved_is_refused(hub: FakeHub, api: HfApi, repo: str) -> None:
    before = hub.head(repo)
    publish(api)
    assert refusal(lambda: api.delete_file("config.json", repo, parent_commit=before)) == (
        412,
        "A commit has happened since. Please refresh and try again.",
    )


def test_a_pointer_to_nothing_is_refused(hub: FakeHub, api: HfApi, repo: str) -> None:
    (operation,) = adding(model_safetensors=DATA)
    operation._upload_mode, operation._is_uploaded = "lfs", True
    with pytest.raises(
        BadRequestError, match="pointed to a file that does not exist: model"
    ):
        api.create_commit(repo, [operation], commit_message="Lie")


def test_pull_requests(hub: FakeHub, api: HfApi, repo: str) -> None:
    before = hub.head(repo)
    pull = publish(api, create_pr=True, commit_description="Please")
    assert pull.pr_url == f"{hub.url}/{repo}/discussions/1"
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    assert hub.head(repo) == before
    assert hub.files(repo, "refs/pr/1")[WEIGHTS] == DATA
    api.create_commit(
        repo, adding(more_txt=b"1"), commit_message="More", revision="refs/pr/1"
    )
    (listed,) = api.get_repo_discussions(repo, discussion_status="open")
    assert (listed.num, listed.title, listed.is_pull_request) == (1, "Publish", True)
    assert list(api.get_repo_discussions(repo, discussion_type="discussion")) == []
    details = api.get_discussion_details(repo, 1)
    assert details.target_branch == "refs/heads/main"
    assert [event.type for event in details.events] == ["comment", "commit", "commit"]
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [ref.name for ref in refs.pull_requests or []] == ["refs/pr/1"]
    api.merge_pull_request(repo, 1)
    assert api.get_discussion_details(repo, 1).merge_commit_oid == hub.head(repo)
    assert hub.files(repo)["more.txt"] == b"1"


def test_a_pull_request_begins_at_its_parent(hub: FakeHub, api: HfApi, repo: str) -> None:
    before = hub.head(repo)
    publish(api)
    api.create_commit(
        repo, adding(x_txt=b""), commit_message="x", create_pr=True, parent_commit=before
    )
    assert set(hub.files(repo, "refs/pr/1")) == {".gitattributes", "x.txt"}


def test_a_tag_is_made_once_and_never_moved(hub: FakeHub, api: HfApi, repo: str) -> None:
    api.create_tag(repo, tag="v1", revision=hub.head(repo)[:7])
    before = hub.head(repo)
    publish(api)
    api.create_tag(repo, tag="v1", exist_ok=True)
    assert refusal(lambda: api.create_tag(repo, tag="v1")) == (
        409,
        "Tag reference exists already",
    )
    (tag,) = api.list_repo_refs(repo).tags
    assert (tag.ref, tag.target_commit) == ("refs/tags/v1", before)
    with pytest.raises(RevisionNotFoundError):
        api.create_tag(repo, tag="v2", revision="none")
    api.delete_tag(repo, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(repo, tag="v1")


def test_branches(hub: FakeHub, api: HfApi, repo: str) -> None:
    api.create_branch(repo, branch="feature/x")
    api.create_branch(repo, branch="feature/x", exist_ok=True)
    assert refusal(lambda: api.create_branch(repo, branch="feature/x"))[0] == 409
    publish(api, revision="feature/x")
    assert sorted(hub.files(repo, "feature/x")) == [
        ".gitattributes",
        "config.json",
        WEIGHTS,
    ]
    assert list(hub.files(repo)) == [".gitattributes"]
    api.delete_branch(repo, branch="feature/x")
    assert [ref.name for ref in api.list_repo_refs(repo).branches] == ["main"]


def test_a_folder_is_uploaded(hub: FakeHub, api: HfApi, repo: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    for path, data in (("README.md", b"---\nlicense: mit\n---\n"), ("sub/x.bin", DATA)):
        (tmp_path / "model" / path).write_bytes(data)
    api.upload_folder(repo_id=repo, folder_path=tmp_path / "model")
    assert hub.files(repo)["sub/x.bin"] == DATA
    info = api.model_info(repo, expand=["cardData"])
    assert info.card_data is not None
    assert info.card_data.license == "mit"


def test_cards_are_checked(api: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match='- "license_name" is required when "license" is'):
        api.create_commit(
            repo, adding(README_md=b"---\nlicense: other\n---\n"), commit_message="x"
        )
    with pytest.warns(UserWarning, match="empty or missing yaml metadata in repo card"):
        api.create_commit(repo, adding(README_md=b"# Model\n"), commit_message="x")


# What is listed and downloaded.


def test_listings_come_in_pages(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, {f"{folder}/{n}.txt": b"" for folder in "ab" for n in range(4)})
    hub.page = 3
    entries = list(api.list_repo_tree(NAME, recursive=True, expand=True))
    assert len([e for e in entries if isinstance(e, RepoFile)]) == 8
    assert [e.path for e in entries if isinstance(e, RepoFolder)] == ["a", "b"]
    assert len(hub.asked("/tree/")) == 4
    assert [e.path for e in api.list_repo_tree(NAME, "a")] == [
        f"a/{n}.txt" for n in range(4)
    ]
    assert [e.path for e in api.list_repo_tree(NAME)] == ["a", "b"]
    (entry,) = api.get_paths_info(NAME, "a/0.txt", expand=True)
    assert entry.last_commit is not None
    assert entry.last_commit.oid == hub.head(NAME)


def test_sizes_and_digests(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, FILES)
    readme, weights = api.model_info(NAME, files_metadata=True).siblings or []
    blob = hashlib.sha1(b"blob 10\0# A model\n").hexdigest()
    assert (readme.size, readme.blob_id, readme.lfs) == (10, blob, None)
    assert weights.lfs is not None
    for name, etag in (("README.md", blob), (WEIGHTS, weights.lfs.sha256)):
        metadata = get_hf_file_metadata(hf_hub_url(NAME, name, endpoint=hub.url))
        assert (metadata.etag, metadata.commit_hash) == (etag, hub.head(NAME))
    assert metadata.size == len(DATA)
    assert metadata.location.startswith(f"{hub.cdn}/{etag}?Expires=")


def test_ranges(hub: FakeHub) -> None:
    hub.put(NAME, FILES)

    def get(asked: str) -> httpx.Response:
        address = hub.download_address(hashlib.sha256(DATA).hexdigest())
        return httpx.get(address, headers={"Range": asked})

    answer = get("bytes=10-19")
    assert (answer.status_code, answer.content) == (206, DATA[10:20])
    assert answer.headers["content-range"] == "bytes 10-19/256000"
    assert get("bytes=255990-").content == DATA[-10:]
    assert get("bytes=-5").content == DATA[-5:]
    answer = get("bytes=256000-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */256000")


def test_what_is_not_there(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, FILES)
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download(NAME, "none.txt")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(NAME, WEIGHTS, revision="none")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(NAME, "none"))
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/none")
    assert not api.file_exists(NAME, "none.txt")
    assert not api.revision_exists(NAME, "none")


# Who may what.


def test_a_token_that_only_reads(hub: FakeHub, api: HfApi, repo: str) -> None:
    publish(api)
    reader = HfApi(endpoint=hub.url, token=READ_TOKEN)
    assert reader.model_info(repo).sha == hub.head(repo)
    reader.auth_check(repo)
    message = "Forbidden: you must use a write token to upload to a repository."
    for act in (
        lambda: publish(reader),
        lambda: reader.create_tag(repo, tag="v1"),
        lambda: reader.update_repo_settings(repo, private=True),
        lambda: reader.auth_check(repo, write=True),
    ):
        assert refusal(act) == (403, message)
    assert refusal(lambda: reader.create_repo("org/new")) == (
        403,
        'You don\'t have the rights to create a model under the namespace "org"',
    )


def test_a_stranger_may_only_ask_to_pull(hub: FakeHub, api: HfApi, repo: str) -> None:
    stranger = HfApi(endpoint=hub.url, token=OTHER_TOKEN)
    assert refusal(lambda: publish(stranger)) == (
        403,
        "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request",
    )
    publish(stranger, create_pr=True)
    (pull,) = api.get_repo_discussions(repo, author="other")
    assert pull.num == 1


def test_a_private_model_is_unknown_to_others(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, FILES)
    hub.repos[NAME].private = True
    assert api.model_info(NAME).private
    for token, status in ((False, 401), (OTHER_TOKEN, 404)):
        with pytest.raises(RepositoryNotFoundError) as raised:
            api.model_info(NAME, token=token)
        assert raised.value.response.status_code == status
    with pytest.raises(
        HfHubHTTPError, match="Invalid credentials in Authorization"
    ) as wrong:
        api.model_info(NAME, token="hf_wrong")
    assert wrong.type is HfHubHTTPError
    hub.orgs = {"acme"}
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(NAME)


@pytest.mark.parametrize("gated", ["auto", "manual"])
def test_a_gated_model(hub: FakeHub, api: HfApi, gated: str, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    api.update_repo_settings(NAME, gated=gated)  # type: ignore[arg-type]
    stranger = HfApi(endpoint=hub.url, token=OTHER_TOKEN)
    assert stranger.model_info(NAME).gated == gated
    for act in (
        lambda: stranger.auth_check(NAME),
        lambda: stranger.hf_hub_download(NAME, WEIGHTS, cache_dir=tmp_path),
    ):
        with pytest.raises(GatedRepoError, match="you are not in the authorized list"):
            act()
    api.auth_check(NAME)
    hub.repos[NAME].granted.add("other")
    stranger.auth_check(NAME)
    stranger.hf_hub_download(NAME, WEIGHTS, cache_dir=tmp_path)


def test_a_full_storage(hub: FakeHub, api: HfApi) -> None:
    api.create_repo(NAME, private=True)
    hub.quota = len(DATA) - 1
    assert refusal(lambda: publish(api)) == (
        403,
        "Private repository storage limit reached, please upgrade your plan to increase "
        "your private storage limit.",
    )
    hub.quota = len(DATA)
    publish(api)


# Addresses that expire.


def test_an_expired_upload(hub: FakeHub, api: HfApi, repo: str) -> None:
    hub.expire_uploads(1)
    with pytest.raises(RuntimeError, match="Error while uploading 'model") as raised:
        publish(api)
    cause = raised.value.__cause__
    assert isinstance(cause, HfHubHTTPError)
    assert (cause.response.status_code, "Request has expired" in str(cause)) == (403, True)
    publish(api)


def test_an_expired_download(hub: FakeHub, api: HfApi, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    hub.expire_downloads(1)
    status, message = refusal(
        lambda: api.hf_hub_download(NAME, WEIGHTS, cache_dir=tmp_path)
    )
    assert status == 403
    assert message is not None
    assert message.endswith("<Message>Request has expired</Message></Error>")
    api.hf_hub_download(NAME, WEIGHTS, cache_dir=tmp_path)
    address = hub.download_address("0" * 64)
    assert httpx.get(address.replace("Expires=", "Expires=9")).status_code == 403
    assert httpx.get(address).status_code == 404


# Faults.


def test_a_rate_limit(hub: FakeHub, api: HfApi, repo: str) -> None:
    limit = {"RateLimit": '"api";r=0;t=7', "RateLimit-Policy": '"fixed";"api";q=500;w=300'}
    hub.fault(match="/commit/", status=429, headers=limit | {"Retry-After": "7"})
    with pytest.raises(HfHubHTTPError, match=r"Retry after 7 seconds \(0/500") as raised:
        publish(api)
    assert raised.value.response.headers["retry-after"] == "7"


def test_faults_wait_their_turn(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, FILES)
    hub.fault(match="/revision/", skip=1, times=math.inf, status=418)
    statuses = [
        httpx.get(f"{hub.url}/api/models/{NAME}/revision/main").status_code
        for _ in range(4)
    ]
    assert statuses == [200, 418, 418, 418]


@pytest.mark.parametrize("status", [None, 504])
def test_a_commit_lands_and_the_answer_is_lost(
    hub: FakeHub, api: HfApi, repo: str, status: int | None
) -> None:
    before = hub.head(repo)
    hub.fault(match="/commit/", after=True, status=status)
    with pytest.raises((HfHubHTTPError, httpx.NetworkError)):
        publish(api)
    assert len(hub.asked("/commit/")) == 1  # the client does not try again
    assert hub.head(repo) != before
    assert hub.files(repo)[WEIGHTS] == DATA


def test_an_upload_is_stored_and_the_answer_is_lost(
    hub: FakeHub, api: HfApi, repo: str
) -> None:
    hub.fault(match="^PUT ", after=True)
    publish(api)  # the client puts it once more
    assert len(hub.asked("^PUT ")) == 2


def test_a_request_is_not_even_read(hub: FakeHub, api: HfApi, repo: str) -> None:
    before = hub.head(repo)
    hub.fault(match="/commit/", before=True)
    # The reset meets the client as it writes or as it reads.
    with pytest.raises((httpx.NetworkError, httpx.RemoteProtocolError)):
        publish(api)
    assert hub.head(repo) == before


@pytest.mark.parametrize("reset", [False, True])
def test_an_upload_breaks(hub: FakeHub, api: HfApi, repo: str, reset: bool) -> None:
    hub.fault(match="^PUT ", cut=1000, reset=reset)
    publish(api)
    assert len(hub.asked("^PUT ")) == 2
    assert hub.files(repo)[WEIGHTS] == DATA


@pytest.mark.parametrize("reset", [False, True])
def test_a_download_breaks(hub: FakeHub, tmp_path: Path, reset: bool) -> None:
    hub.put(NAME, FILES)
    hub.fault(match="^GET /cdn/", cut=100_000, reset=reset)
    url = hf_hub_url(NAME, WEIGHTS, endpoint=hub.url)
    with (tmp_path / "got").open("wb") as file:
        if reset:  # which escapes the client as it is
            with pytest.raises(httpx.ReadError):
                http_get(url, file)
        else:
            http_get(url, file, expected_size=len(DATA))
    assert ((tmp_path / "got").read_bytes() == DATA) is not reset


def test_silence(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.fault(match="/cdn/", stall=30)
    hub.fault(match="/cdn/", stall=30, at=1000)
    address = hub.download_address(hashlib.sha256(DATA).hexdigest())
    for got in (0, 1000):
        count = 0
        with (  # noqa: PT012
            pytest.raises(httpx.ReadTimeout),
            httpx.stream("GET", address, timeout=0.2) as answer,
        ):
            for piece in answer.iter_raw():
                count += len(piece)
        assert count == got


def test_a_stall_ends(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.fault(match="/cdn/", stall=0.1, at=1000)
    began = time.monotonic()
    assert httpx.get(hub.download_address(hashlib.sha256(DATA).hexdigest())).content == DATA
    assert time.monotonic() - began >= 0.1


def test_a_slow_line(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    hub.fault(match="/cdn/", rate=1_000_000)
    began = time.monotonic()
    httpx.get(hub.download_address(hashlib.sha256(DATA).hexdigest()))
    assert time.monotonic() - began >= 0.2


def test_somebody_else_is_faster(hub: FakeHub, api: HfApi, repo: str) -> None:
    before = hub.head(repo)
    hub.fault(match="/commit/", call=lambda request: hub.put(repo, {"theirs.txt": b""}))
    assert refusal(lambda: publish(api, parent_commit=before))[0] == 412
    assert list(hub.files(repo)) == ["theirs.txt"]


# Lies.


def test_other_sizes_and_digests_in_listings(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, FILES)

    def lie(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            if path_of(entry) == WEIGHTS:
                entry["size"] = 7
                entry["lfs"] |= dict.fromkeys(("sha256", "oid"), "0" * 64) | {"size": 7}

    hub.listing(lie)
    (_, sibling) = api.model_info(NAME, files_metadata=True).siblings or []
    (_, listed) = api.list_repo_tree(NAME)
    (path,) = api.get_paths_info(NAME, WEIGHTS)
    for each in (sibling, listed, path):
        assert (each.size, each.lfs.sha256) == (7, "0" * 64)  # type: ignore[union-attr]


def test_names_that_leave_the_folder(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, FILES)
    names = ["../x", "/etc/x", "C:\\x", "a\x00b", "README.MD"]
    hub.listing(lambda entries: [{"rfilename": name} for name in names])
    told = api.model_info(NAME, revision="main").siblings or []
    assert [sibling.rfilename for sibling in told] == names


def test_a_listing_changes_meanwhile(hub: FakeHub, api: HfApi) -> None:
    hub.put(NAME, FILES)
    hub.listing(lambda entries: [], match="/tree/", skip=1, times=1)
    counts = [len(list(api.list_repo_tree(NAME))) for _ in range(3)]
    assert counts == [2, 0, 2]


def test_other_headers_and_places(hub: FakeHub) -> None:
    hub.put(NAME, FILES)

    def lie(request: Request, answer: Answer) -> None:
        answer.set("X-Linked-Size", "7")
        answer.set("x-linked-etag", '"0"')
        answer.set("Location", "ftp://elsewhere/x")
        answer.set("X-Repo-Commit", "no commit")

    hub.rewrite("^HEAD .*/resolve/", lie)
    metadata = get_hf_file_metadata(hf_hub_url(NAME, WEIGHTS, endpoint=hub.url))
    assert (metadata.size, metadata.etag, metadata.location, metadata.commit_hash) == (
        7,
        "0",
        "ftp://elsewhere/x",
        "no commit",
    )


def test_other_contents(hub: FakeHub) -> None:
    hub.put(NAME, FILES)
    address = hub.download_address(hashlib.sha256(DATA).hexdigest())
    hub.rewrite("/cdn/", lambda request, answer: Answer(200, b"whole", answer.headers))
    answer = httpx.get(address, headers={"Range": "bytes=1-2"})
    assert (answer.status_code, answer.content) == (200, b"whole")


@pytest.mark.parametrize(("told", "error"), [("9", "received 5 bytes"), ("2", None)])
def test_a_false_length(hub: FakeHub, told: str, error: str | None) -> None:
    hub.put(NAME, FILES)
    hub.rewrite("/cdn/", lambda _, __: Answer(200, b"12345", {"Content-Length": told}))
    address = hub.download_address(hashlib.sha256(DATA).hexdigest())
    if error:
        with pytest.raises(httpx.RemoteProtocolError, match=error):
            httpx.get(address)
    else:
        assert httpx.get(address).content == b"12"


def test_a_body_without_an_end(hub: FakeHub) -> None:
    def endless(request: Request, answer: Answer) -> Answer:
        return Answer(200, iter(lambda: b"x" * 10_000, b""))

    hub.rewrite("/api/models/", endless, times=1)
    count = 0
    with httpx.stream("GET", f"{hub.url}/api/models/{NAME}") as answer:
        for piece in answer.iter_raw():
            if (count := count + len(piece)) > 1_000_000:
                break
    assert count > 1_000_000


# Chunks.


def test_xet_there_and_back(xet_hub: FakeHub, tmp_path: Path) -> None:
    api = HfApi(endpoint=xet_hub.url, token=TOKEN)
    api.create_repo(NAME)
    large = tmp_path / WEIGHTS
    large.write_bytes(os.urandom(2_000_000))
    operations = [CommitOperationAdd(WEIGHTS, large), *adding(s_bin=b"s" * 1000)]
    api.create_commit(NAME, operations, commit_message="Publish")
    assert xet_hub.asked("^PUT |/lfs/") == []
    (file,) = api.get_paths_info(NAME, WEIGHTS)
    assert isinstance(file, RepoFile)
    assert file.lfs is not None
    assert file.lfs.sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
    url = hf_hub_url(NAME, WEIGHTS, endpoint=xet_hub.url)
    metadata = get_hf_file_metadata(url)
    assert metadata.xet_file_data is not None
    assert metadata.xet_file_data.file_hash == file.xet_hash
    got = api.snapshot_download(NAME, cache_dir=tmp_path / "cache")
    assert (Path(got) / WEIGHTS).read_bytes() == large.read_bytes()
    assert (Path(got) / "s.bin").read_bytes() == b"s" * 1000
    assert xet_hub.asked("/cdn/") == []
    # Who knows no chunks gets it whole.
    assert httpx.get(url, follow_redirects=True).content == large.read_bytes()


def test_xet_of_a_model_that_was_there(xet_hub: FakeHub, tmp_path: Path) -> None:
    xet_hub.put(NAME, FILES)
    api = HfApi(endpoint=xet_hub.url)
    got = api.hf_hub_download(NAME, WEIGHTS, cache_dir=tmp_path / "cache")
    assert Path(got).read_bytes() == DATA
    assert len(xet_hub.asked("/xet-read-token/")) == 1
    assert xet_hub.asked("/cdn/") == []


# Alone.


def test_it_goes_on_where_it_was_killed(hub: FakeHub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fakehub", "--root", str(tmp_path / "alone")]
    commits = []
    for run in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            try:
                assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
                api = HfApi(endpoint=url, token=TOKEN)
                if run == 0:
                    api.create_repo(NAME)
                    publish(api, create_pr=True)
                info = api.model_info(NAME, revision="refs/pr/1")
                commits.append(info.sha)
                got = httpx.get(
                    hf_hub_url(NAME, WEIGHTS, revision="refs/pr/1", endpoint=url),
                    follow_redirects=True,
                )
                assert got.content == DATA
            finally:
                process.send_signal(signal.SIGKILL)
    assert commits[0] == commits[1]
