"""Targets and delegated roles: who may name what, and what an instrument makes of invalid ones."""

from __future__ import annotations

import pytest

from cellfleet.canonical import sha256_hex
from cellfleet.trust.layout import ReleaseFacts
from cellfleet.trust.metadata_builder import target
from cellfleet.trust.refusals import (
    BadMetadata,
    BadSignature,
    Expired,
    MixedUp,
    NotNamed,
)
from cellfleet.trust.tuf_types import Targets
from cellfleet.wire.states import ArtifactRef
from support_trust import NOTHING, Site, check


def test_targets_of_another_version_under_a_name(site: Site) -> None:
    site.publish()
    site.publish("1.1.0")
    site.order(None)
    site.image["3.models.json"] = site.image["2.models.json"]
    with pytest.raises(MixedUp, match="models 3"):
        site.refreshed()


def test_the_snapshot_key_cannot_publish(site: Site) -> None:
    """Whoever has every key but that of the role names no release."""
    site.order(None)
    site.forge_image("models", lambda _t: None, site.key("snapshot"))
    with pytest.raises(BadSignature, match="models 2"):
        site.refreshed()


def test_a_role_names_only_what_it_may(site: Site) -> None:
    facts = ReleaseFacts(release_counter=9, kind="software", name="engine", version="1.0.0")
    path = "software/engine/1.0.0/abcdefabcdef.zip"
    site.forge_image("models", lambda t: t.targets.update({path: target(path, 3, sha256_hex(b"bad"), facts)}))
    release = ArtifactRef(
        kind="software", name="engine", version="1.0.0", counter=9, target_path=path,
        sha256=sha256_hex(b"bad"), length=3,
    )  # fmt: skip
    site.order(release)
    with pytest.raises(NotNamed, match="image repository"):
        check(site, release)


@pytest.mark.parametrize("terminating", [True, False])
def test_of_two_roles_with_one_path_a_terminating_first_one_decides_alone(site: Site, terminating: bool) -> None:
    """``models`` comes first. If it is terminating and does not name the path, what ``software`` says is not asked."""
    facts = ReleaseFacts(release_counter=9, kind="model", name="cells", version="9.0.0")
    path = "models/cells/9.0.0/abcdefabcdef.bundle.zip"

    def share(targets: Targets) -> None:
        assert targets.delegations is not None
        assert targets.delegations.roles is not None
        roles = targets.delegations.roles
        assert list(roles)[:2] == ["models", "software"]
        roles["models"].terminating = terminating
        roles["software"].paths = ["models/*/*/*"]

    site.forge_image("targets", share)
    site.forge_image("software", lambda t: t.targets.update({path: target(path, 3, sha256_hex(b"bad"), facts)}))
    release = ArtifactRef(
        kind="model", name="cells", version="9.0.0", counter=9, target_path=path,
        sha256=sha256_hex(b"bad"), length=3,
    )  # fmt: skip
    site.order(release)
    if terminating:
        with pytest.raises(NotNamed, match="image repository"):
            check(site, release)
    else:
        assert check(site, release) == ""


@pytest.mark.parametrize("terminating", [True, False])
def test_of_two_roles_that_name_a_path_the_first_one_counts(site: Site, terminating: bool) -> None:
    release = site.publish()

    def share(targets: Targets) -> None:
        assert targets.delegations is not None
        assert targets.delegations.roles is not None
        targets.delegations.roles["models"].terminating = terminating
        targets.delegations.roles["software"].paths = ["models/*/*/*"]

    site.forge_image("targets", share)
    facts = ReleaseFacts(release_counter=1, kind="model", name="cells", version="1.0.0")
    path = release.target_path
    site.forge_image("software", lambda t: t.targets.update({path: target(path, 3, sha256_hex(b"bad"), facts)}))
    site.order(release)
    assert site.refreshed().check(release, NOTHING).sha256 == release.sha256


@pytest.mark.parametrize("left_out", [["models"], ["models", "software", "allowances"]])
def test_a_repository_with_fewer_roles(site: Site, left_out: list[str]) -> None:
    facts = ReleaseFacts(release_counter=1, kind="software", name="engine", version="1.0.0")
    path = "software/engine/1.0.0/abcdefabcdef.zip"
    site.forge_image("software", lambda t: t.targets.update({path: target(path, 3, sha256_hex(b"new"), facts)}))

    def drop(targets: Targets) -> None:
        assert targets.delegations is not None
        roles = targets.delegations.roles or {}
        kept = {n: r for n, r in roles.items() if n not in left_out}
        targets.delegations.roles = kept
        if not kept:
            targets.delegations = None

    site.forge_image("targets", drop)
    release = ArtifactRef(
        kind="software", name="engine", version="1.0.0", counter=1, target_path=path,
        sha256=sha256_hex(b"new"), length=3,
    )  # fmt: skip
    site.order(release)
    if "software" in left_out:
        with pytest.raises(NotNamed, match="image repository"):
            check(site, release)
    else:
        assert check(site, release) == ""


def test_what_the_targets_name_themselves_needs_no_role(site: Site) -> None:
    """As in TUF: the delegating role comes before those to which it delegates."""
    facts = ReleaseFacts(release_counter=9, kind="model", name="cells", version="9.0.0")
    path = "models/cells/9.0.0/abcdefabcdef.bundle.zip"
    site.forge_image("targets", lambda t: t.targets.update({path: target(path, 3, sha256_hex(b"top"), facts)}))
    release = ArtifactRef(
        kind="model", name="cells", version="9.0.0", counter=9, target_path=path,
        sha256=sha256_hex(b"top"), length=3,
    )  # fmt: skip
    site.order(release)
    assert check(site, release) == ""


def test_a_role_that_this_version_does_not_know(site: Site) -> None:
    release = site.publish()

    def delegate(targets: Targets) -> None:
        assert targets.delegations is not None
        roles = targets.delegations.roles
        assert roles is not None
        role = roles.pop("models")
        role.name = "weights"
        targets.delegations.roles = {"weights": role, **roles}

    site.forge_image("targets", delegate)
    site.order(release)
    with pytest.raises(BadMetadata, match="delegates to the unknown role weights"):
        check(site, release)


def test_targets_whose_facts_make_no_sense(site: Site) -> None:
    release = site.publish()
    site.order(release)

    def change(targets: Targets) -> None:
        targets.targets[release.target_path].unrecognized_fields["custom"] = {"release_counter": "many"}

    site.forge_image("models", change)
    with pytest.raises(BadMetadata, match="release_counter"):
        check(site, release)


def test_targets_that_have_expired(site: Site) -> None:
    site.order(None)
    site.pass_time(days=366)
    site.forge_snapshot(lambda _s: None)
    site.order(None)
    with pytest.raises(Expired, match="targets 1"):
        site.refreshed()
