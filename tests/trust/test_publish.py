"""What the server takes from a publisher: signed, upward, whole; and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellfleet.canonical import sha256_hex
from cellfleet.trust import TrustFolder, check_published
from cellfleet.trust.folder import ArtifactBytes, Publication
from cellfleet.trust.layout import ReleaseFacts, file_name, newest, target_path, version_in
from cellfleet.trust.metadata import meta_of
from cellfleet.trust.metadata_builder import target
from cellfleet.trust.publish import anchors_of, check_director_roots, named, newer_files
from cellfleet.trust.refusals import BadMetadata, BadSignature, Expired, MixedUp, NotUpward, RolledBack, Untrusted
from cellfleet.trust.rotation import renew, rotate
from cellfleet.trust.tuf_types import Targets
from support_trust import START, Site, files_fetch, secret, stranger


def signed(site: Site, version: str = "1.0.0", content: bytes = b"bytes") -> Publication:
    artifact = ArtifactBytes(sha256_hex(content), len(content))
    return site.folder.publish(
        artifact, kind="model", name="cells", version=version, secrets=secret, now=site.now, hardware={"gpu": True}
    )


def forged(site: Site, role: str, change: Callable[[Targets], None], **key: Any) -> dict[str, bytes]:
    """The files that somebody with keys sends; the server's stay as they are."""
    before = dict(site.image)
    site.forge_image(role, change, **key)
    new = {n: d for n, d in site.image.items() if before.get(n) != d and n != "timestamp.json"}
    site.image = before
    return new


def naming(path: str, content: bytes = b"x", **facts: Any) -> Callable[[Targets], None]:
    given: dict[str, Any] = {"release_counter": 1, "kind": "model", "name": "cells", "version": "1.0.0", **facts}
    made = target(path, len(content), sha256_hex(content), ReleaseFacts.model_validate(given))
    return lambda targets: targets.targets.update({path: made})


def path_of(content: bytes = b"x", version: str = "1.0.0") -> str:
    return target_path("model", "cells", version, sha256_hex(content))


def test_the_first_root_is_trusted_by_an_empty_server_only(site: Site) -> None:
    accepted = check_published({}, site.folder.image_files(), START)
    assert set(accepted.files) == set(site.folder.image_files()) - {"timestamp.json"}
    assert (accepted.root_version, accepted.snapshot_name, accepted.named) == (1, "1.snapshot.json", {})


def test_a_release_is_taken(site: Site) -> None:
    made = signed(site)
    accepted = check_published(site.image, made.files, site.now)
    assert set(accepted.files) == {"2.models.json", "2.snapshot.json"}
    assert accepted.snapshot == made.files["2.snapshot.json"]
    (found,) = accepted.added
    assert (found.target_path, found.counter, found.length, found.hardware) == (made.target_path, 1, 5, {"gpu": True})
    assert accepted.named == {made.target_path: found}


def test_what_is_there_already_changes_nothing(site: Site) -> None:
    site.publish()
    accepted = check_published(site.image, site.folder.image_files(), site.now)
    assert (accepted.files, accepted.added) == ({}, ())


def test_two_publishers_at_once(site: Site) -> None:
    """The second is refused, takes what the server has, and publishes again."""
    mine, theirs = signed(site), signed(site, "2.0.0", b"other")
    site.take(theirs.files)
    with pytest.raises(NotUpward, match=r"2\.models\.json is already published") as e:
        site.take(mine.files)
    assert "fetch the files of the server" in e.value.hint
    assert site.folder.adopt(site.image, site.now) == ["2.models.json", "2.snapshot.json"]
    again = signed(site)
    assert again.counter == 2
    site.take(again.files)
    assert sorted(n.version for n in site.named.values()) == ["1.0.0", "2.0.0"]


def test_a_folder_that_is_behind_catches_up(site: Site, tmp_path: Path) -> None:
    """Another copy of the folder published and rotated."""
    shutil.copytree(site.folder.path, tmp_path / "copy")
    behind = TrustFolder.load(tmp_path / "copy")
    site.publish()
    rotate(site.folder, "snapshot", secret, site.now)
    site.serve()
    files = newer_files(files_fetch(site.image), behind.image_files())
    assert sorted(files) == ["2.models.json", "2.root.json", "3.snapshot.json"]
    assert behind.adopt(files, site.now) == sorted(files)
    assert newer_files(files_fetch(site.image), behind.image_files()) == {}
    assert behind.next_counter("model", "cells") == 2


@pytest.mark.parametrize("answer", [b"<html>sign in</html>", b"{}", b'{"signed": {}, "signatures": []}'])
def test_a_server_that_sends_something_else(site: Site, answer: bytes) -> None:
    with pytest.raises(BadMetadata, match="the server's timestamp"):
        newer_files(lambda name, _most: answer if name == "timestamp.json" else None, site.folder.image_files())
    assert newer_files(files_fetch({}), site.folder.image_files()) == {}


def test_a_publisher_takes_nothing_forged_from_a_server(site: Site) -> None:
    site.forge_image("models", naming(path_of()), stranger())
    with pytest.raises(BadSignature):
        site.folder.adopt(site.image, site.now)
    assert site.folder.next_counter("model", "cells") == 1


def test_an_older_snapshot_is_refused(site: Site) -> None:
    first = signed(site)
    site.publish()
    site.publish("1.1.0")
    del site.image["2.snapshot.json"], site.image["2.models.json"]  # a server need not keep old ones
    with pytest.raises(NotUpward, match="snapshot 2 was sent, but 3 is already published"):
        site.take(first.files)


def test_a_snapshot_that_leads_back_is_refused(site: Site) -> None:
    site.publish()
    before = dict(site.image)
    site.forge_snapshot(lambda s: s.meta.update({"models.json": meta_of(1, site.image["1.models.json"])}))
    new = {n: d for n, d in site.image.items() if n not in before}
    with pytest.raises(RolledBack, match=r"models\.json"):
        check_published(before, new, site.now)


@pytest.mark.parametrize("role", ["models", "allowances", "software"])
def test_a_role_that_a_stranger_signed(site: Site, role: str) -> None:
    new = forged(site, role, lambda _t: None, signer=stranger())
    with pytest.raises(BadSignature, match=f"{role} 2"):
        check_published(site.image, new, site.now)


def test_a_snapshot_that_a_stranger_signed(site: Site) -> None:
    before = dict(site.image)
    site.forge_snapshot(lambda _s: None, stranger())
    with pytest.raises(BadSignature, match="snapshot 2"):
        check_published(before, {"2.snapshot.json": site.image["2.snapshot.json"]}, site.now)


def test_a_file_that_was_not_sent(site: Site) -> None:
    made = signed(site)
    del made.files["2.models.json"]
    with pytest.raises(BadMetadata, match=r"2\.models\.json, which was not sent"):
        check_published(site.image, made.files, site.now)


def test_a_file_of_another_publication(site: Site) -> None:
    made, other = signed(site), signed(site, "2.0.0", b"other")
    with pytest.raises(MixedUp, match="models 2"):
        check_published(site.image, {**made.files, "2.models.json": other.files["2.models.json"]}, site.now)


def test_metadata_that_has_expired(site: Site) -> None:
    site.pass_time(days=400)
    with pytest.raises(Expired, match="snapshot 1"):
        check_published(site.image, {}, site.now)
    renew(site.folder, "snapshot", secret, site.now)
    with pytest.raises(Expired, match="targets 1"):
        check_published(site.image, site.folder.image_files(), site.now)
    for role in ("targets", "models", "software", "allowances"):
        renew(site.folder, role, secret, site.now)
    site.take(site.folder.image_files())


@pytest.mark.parametrize(
    ("content", "facts", "match"),
    [
        (b"bytes 2", {"release_counter": 1, "version": "1.1.0"}, "same release counter 1"),
        (b"bytes 2", {"release_counter": 2, "version": "1.0.0"}, "same version with other bytes"),
    ],
)
def test_releases_that_contradict_each_other(site: Site, content: bytes, facts: dict[str, Any], match: str) -> None:
    site.publish()
    new = forged(site, "models", naming(path_of(content, facts["version"]), content, **facts))
    with pytest.raises(NotUpward, match=match):
        check_published(site.image, new, site.now)


def test_a_counter_that_is_not_above_those_before(site: Site) -> None:
    site.publish()
    first = site.publish("1.1.0").target_path

    def replace(targets: Targets) -> None:
        del targets.targets[first]
        naming(path_of(b"y", "1.2.0"), b"y", release_counter=2, version="1.2.0")(targets)

    new = forged(site, "models", replace)
    with pytest.raises(NotUpward, match="its release counter 2 is not above 2"):
        check_published(site.image, new, site.now)


def test_a_published_release_never_changes(site: Site) -> None:
    path = site.publish(content=b"x").target_path
    new = forged(site, "models", naming(path, release_counter=5))
    with pytest.raises(NotUpward, match="must not change"):
        check_published(site.image, new, site.now)


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("models/cells/1.0.0/000000000000.bundle.zip", {}),
        (path_of(), {"name": "other"}),
        (path_of(), {"version": "9.0.0"}),
        (path_of(), {"kind": "software"}),
    ],
)
def test_facts_that_do_not_fit_the_path(site: Site, path: str, facts: dict[str, Any]) -> None:
    new = forged(site, "models", naming(path, **facts))
    with pytest.raises(BadMetadata, match="do not match its path"):
        check_published(site.image, new, site.now)


def test_allowances_are_looked_at_too(site: Site) -> None:
    new = forged(site, "allowances", naming("allowances/model/cells/3-1"))
    with pytest.raises(BadMetadata, match="allowances"):
        check_published(site.image, new, site.now)


@pytest.mark.parametrize("key", ["root-1", "targets", "snapshot", "timestamp", "models"])
def test_rotated_keys_are_taken(site: Site, key: str) -> None:
    site.publish()
    rotate(site.folder, key, secret, site.now)
    accepted = check_published(site.image, site.folder.image_files(), site.now)
    assert accepted.files
    assert accepted.root_version == (1 if key == "models" else 2)
    site.take(accepted.files)
    assert site.publish("1.1.0").counter == 2


def test_roots_without_the_one_between_are_not_followed(site: Site) -> None:
    for _ in range(2):
        rotate(site.folder, "snapshot", secret, site.now)
    new = site.folder.image_files()
    del new["2.root.json"]
    with pytest.raises(BadSignature, match="snapshot 3"):
        check_published(site.image, new, site.now)


def test_roots_of_the_director(site: Site, tmp_path: Path) -> None:
    rotate(site.folder, "director", secret, site.now)
    new = site.folder.director_files()
    assert check_director_roots(site.director_roots, new, site.now) == {"2.root.json": new["2.root.json"]}
    assert check_director_roots(new, new, site.now) == {}
    other = Site(tmp_path / "other")
    rotate(other.folder, "director", secret, site.now)
    stolen = {"2.root.json": other.folder.director_files()["2.root.json"]}
    with pytest.raises(BadSignature):
        check_director_roots(site.director_roots, stolen, site.now)
    with pytest.raises(NotUpward):
        check_director_roots(site.director_roots, other.director_roots, site.now)
    with pytest.raises(BadMetadata, match=r"no 1\.root\.json"):
        check_director_roots({}, stolen, site.now)


def test_an_empty_repository_names_nothing() -> None:
    assert named({}) == {}
    with pytest.raises(BadMetadata):
        check_published({}, {}, START)


def test_anchors_are_those_of_the_first_roots(site: Site) -> None:
    before = site.folder.anchors()
    assert before == anchors_of(site.image["1.root.json"], site.director_roots["1.root.json"])
    rotate(site.folder, "root-3", secret, site.now)
    assert TrustFolder.load(site.folder.path).anchors() == before


@given(st.text(max_size=30), st.sampled_from(["root", "snapshot", "models"]))
def test_a_version_is_read_of_exactly_the_names_that_are_written(name: str, role: str) -> None:
    assert version_in(name, role) == 0 or name == file_name(role, version_in(name, role))


@given(st.integers(1, 10**14))
def test_the_newest_is_the_highest_number(version: int) -> None:
    files = {file_name("models", v): b"%d" % v for v in (version, version + 1, 9)}
    assert newest(files, "models") == (max(version + 1, 9), b"%d" % max(version + 1, 9))
    assert newest(files, "root") is None


def test_files_of_any_bytes_are_refused_or_change_nothing(site: Site) -> None:
    names = st.sampled_from(["2.root.json", "2.snapshot.json", "2.models.json", "../2.root.json", "", "9.models.json"])

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.dictionaries(names, st.binary(max_size=100), max_size=3))
    def offer(new: dict[str, bytes]) -> None:
        try:
            accepted = check_published(site.image, new, site.now)
        except Untrusted:
            return
        assert accepted.files == {}

    offer()


def test_only_what_is_lacking_is_fetched(site: Site) -> None:
    have = site.folder.image_files()
    site.publish()
    rotate(site.folder, "root-1", secret, site.now)
    site.serve()
    asked: list[str] = []
    files = newer_files(files_fetch(site.image, asked), have)
    assert asked == ["timestamp.json", "2.root.json", "3.root.json", "2.snapshot.json", "2.models.json"]
    assert sorted(files) == ["2.models.json", "2.root.json", "2.snapshot.json"]
    asked.clear()
    named_now = set(site.image) - {"timestamp.json", "1.snapshot.json", "1.models.json"}
    assert set(newer_files(files_fetch(site.image, asked), {})) == named_now
    assert asked[1] == "1.root.json"
    asked.clear()
    newer_files(files_fetch(site.image, asked), site.image)
    assert asked == ["timestamp.json", "3.root.json"]
