"""That both repositories must say the same, who may go back, bytes without sense, and what is kept on the disk."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellfleet.canonical import sha256_hex
from cellfleet.errors import StorageError
from cellfleet.ports import write_atomic
from cellfleet.trust.layout import AllowanceFacts, allowance_path
from cellfleet.trust.metadata import ISSUED_AT, load
from cellfleet.trust.metadata_builder import allowance_target
from cellfleet.trust.refusals import (
    BadMetadata,
    Disagree,
    Downgrade,
    EndlessData,
    NotNamed,
    Untrusted,
    WrongDevice,
)
from cellfleet.trust.rotation import rotate
from cellfleet.trust.tuf_types import Root, Targets, Timestamp
from cellfleet.wire.states import ArtifactRef
from support_trust import DEVICE, NOTHING, OTHER, Site, check, files_fetch, secret

# --- steps 7 to 9: both must say the same


def test_metadata_of_another_instrument(site: Site) -> None:
    release = site.publish()
    site.order(release, OTHER)
    with pytest.raises(WrongDevice, match=OTHER):
        site.verifier(DEVICE, director=files_fetch(site.director_files(OTHER))).refresh()
    site.order(None, OTHER)  # also while it names nothing
    with pytest.raises(WrongDevice, match=OTHER):
        site.verifier(DEVICE, director=files_fetch(site.director_files(OTHER))).refresh()


def test_a_stolen_director_key_cannot_install(site: Site) -> None:
    site.publish()
    evil = ArtifactRef(
        name="cells", version="9.9.9", counter=99, target_path="models/cells/9.9.9/abcdefabcdef.bundle.zip",
        sha256=sha256_hex(b"evil"), length=4,
    )  # fmt: skip
    site.order(evil)
    with pytest.raises(NotNamed, match="image repository"):
        check(site, evil)


def test_a_stolen_director_key_cannot_put_other_bytes_under_a_published_path(site: Site) -> None:
    release = site.publish()
    evil = release.model_copy(update={"sha256": sha256_hex(b"evil"), "length": 4})
    site.order(evil)
    for said in (release, evil):
        with pytest.raises(Disagree, match="different bytes"):
            check(site, said)


def test_a_stolen_director_key_cannot_downgrade(site: Site) -> None:
    old = site.publish()
    site.publish("1.1.0")
    site.order(old)
    with pytest.raises(Downgrade, match="below the installed 2") as e:
        check(site, old, installed=2)
    assert "trust allow" in e.value.hint
    site.order(old, counter=3)  # nor by a lie about the counter
    with pytest.raises(Disagree, match="release counters"):
        check(site, old.model_copy(update={"counter": 3}), installed=2)


def test_stolen_image_keys_cannot_install_without_the_director(site: Site) -> None:
    release = site.publish()
    site.order(None)
    with pytest.raises(NotNamed, match="director"):
        check(site, release)


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "software"},
        {"name": "other"},
        {"version": "1.0.1"},
        {"counter": 2},
        {"sha256": "0" * 64},
        {"length": 999},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_desired_state_that_says_otherwise(site: Site, changed: dict[str, Any]) -> None:
    release = site.publish()
    site.order(release)
    with pytest.raises(Disagree, match="desired state"):
        check(site, release.model_copy(update=changed))


def test_a_target_for_another_instrument_in_a_file_for_this_one(site: Site) -> None:
    release = site.publish()
    site.order(release)
    site.forge_director(lambda t: t.targets[release.target_path].custom.update({"device_id": OTHER}))
    verifier = site.refreshed()
    with pytest.raises(WrongDevice, match=f"{release.target_path}: it is for {OTHER}"):
        verifier.check(release, NOTHING)
    with pytest.raises(WrongDevice):
        verifier.offered()


# --- step 10: allowances


def allow(site: Site, **changed: Any) -> None:
    given: dict[str, Any] = {
        "kind": "model", "name": "cells", "from_counter": 3, "to_counter": 1, "device_id": DEVICE,
        "expires": site.now + timedelta(days=1), "reason": "1.2.0 misses small cells",
    }  # fmt: skip
    made = site.folder.allow(**{**given, **changed}, secrets=secret, now=site.now)
    site.take(made.files)


@pytest.fixture
def old(site: Site) -> ArtifactRef:
    """The first of three releases, ordered although the third is installed."""
    release = site.publish()
    site.publish("1.1.0")
    site.publish("1.2.0")
    site.order(release)
    return release


@pytest.mark.parametrize("device", [DEVICE, None])
def test_an_allowance_lets_it_go_back(site: Site, old: ArtifactRef, device: str | None) -> None:
    allow(site, device_id=device)
    assert check(site, old, installed=3) == "1.2.0 misses small cells"


@pytest.mark.parametrize(
    "changed", [{"device_id": OTHER}, {"from_counter": 2}, {"to_counter": 2}], ids=lambda c: next(iter(c))
)
def test_an_allowance_for_something_else(site: Site, old: ArtifactRef, changed: dict[str, Any]) -> None:
    allow(site, **changed)
    with pytest.raises(Downgrade, match="no allowance"):
        check(site, old, installed=3)


def test_an_allowance_that_has_expired(site: Site, old: ArtifactRef) -> None:
    allow(site, expires=site.now + timedelta(hours=1))
    site.pass_time(hours=2)
    with pytest.raises(Downgrade, match="expired"):
        check(site, old, installed=3)


def test_an_allowance_ends_at_its_very_second(site: Site, old: ArtifactRef) -> None:
    allow(site, expires=site.now + timedelta(hours=1))
    site.pass_time(minutes=59, seconds=59)
    assert check(site, old, installed=3)
    site.pass_time(seconds=1)
    with pytest.raises(Downgrade, match="expired"):
        check(site, old, installed=3)


def test_an_allowance_whose_path_promises_more_than_it_says(site: Site, old: ArtifactRef) -> None:
    facts = AllowanceFacts(
        from_counter=2, to_counter=1, device_id=DEVICE, expires=site.now + timedelta(days=1), reason="other"
    )
    path = allowance_path("model", "cells", 3, 1, DEVICE)
    site.forge_image("allowances", lambda t: t.targets.update({path: allowance_target(path, facts)}))
    with pytest.raises(Downgrade, match="does not match its name"):
        check(site, old, installed=3)


def test_only_the_role_of_allowances_allows(site: Site, old: ArtifactRef) -> None:
    facts = AllowanceFacts(
        from_counter=3, to_counter=1, device_id=DEVICE, expires=site.now + timedelta(days=1), reason="forged"
    )
    path = allowance_path("model", "cells", 3, 1, DEVICE)
    site.forge_image("models", lambda t: t.targets.update({path: allowance_target(path, facts)}))
    with pytest.raises(Downgrade, match="no allowance"):
        check(site, old, installed=3)


# --- step 11: bytes without end, bytes without sense


def test_a_file_that_is_too_long(site: Site) -> None:
    site.order(None)
    site.image["timestamp.json"] += b" " * (1 << 16)
    with pytest.raises(EndlessData, match="timestamp"):
        site.refreshed()


def test_the_greatest_length_is_what_the_metadata_names(site: Site) -> None:
    site.order(None)
    asked: dict[str, int] = {}

    def fetch(name: str, most_bytes: int) -> bytes | None:
        asked[name] = most_bytes
        return site.image.get(name)

    site.verifier(image=fetch).refresh()
    assert {n: b for n, b in asked.items() if n.startswith("1.") and "root" not in n} == {
        n: len(d) for n, d in site.image.items() if n.startswith("1.") and "root" not in n
    }
    assert asked["timestamp.json"] == 1 << 16


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"signed":{"_type":"timestamp"}}']
)
def test_a_file_that_is_no_metadata(site: Site, data: bytes) -> None:
    site.order(None)
    site.image["timestamp.json"] = data[: 1 << 16]
    with pytest.raises(BadMetadata, match="timestamp"):
        site.refreshed()


def test_metadata_of_another_kind_under_a_name(site: Site) -> None:
    site.order(None)
    site.image["timestamp.json"] = site.image["1.snapshot.json"]
    with pytest.raises(BadMetadata, match="snapshot metadata instead of timestamp"):
        site.refreshed()


# --- what is kept


def _all_files(site: Site) -> list[Path]:
    return sorted(p for p in (site.root / "home").rglob("*") if p.is_file())


def test_a_power_cut_at_any_write_leaves_an_instrument_that_goes_on(site: Site) -> None:
    release = site.publish()
    site.order(release)
    rotate(site.folder, "root-1", secret, site.now)
    site.serve()
    for cut in range(40):
        left = [cut]

        def write(path: Path, data: bytes, left: list[int] = left) -> None:
            if left[0] == 0:
                raise StorageError("the power went")
            left[0] -= 1
            write_atomic(path, data)

        home = f"cut-{cut}"
        try:
            site.verifier(home=home, write=write).refresh()
        except StorageError:
            pass
        else:
            break
        again = site.verifier(home=home)
        again.refresh()
        assert again.check(release, NOTHING).counter == 1
    assert 8 < cut < 39


def test_files_that_were_damaged_on_the_disk_are_fetched_again(site: Site) -> None:
    release = site.publish()
    site.order(release)
    site.refreshed()
    for path in _all_files(site):
        for damage in (b"", b"\0" * 500, path.read_bytes()[:-7]):
            path.write_bytes(damage)
            assert check(site, release) == ""
            assert path.read_bytes() not in (b"", damage)


# --- foreign bytes never do anything but be refused


def _mutations(data: bytes) -> st.SearchStrategy[bytes]:
    document = json.loads(data)
    paths = list(_paths(document))
    odd = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=9),
        st.just([]),
        st.just({}),
    )
    cuts = st.integers(0, len(data)).map(lambda n: data[:n])
    swaps = st.tuples(st.sampled_from(paths), odd).map(lambda pair: _with(document, *pair))
    return st.one_of(st.binary(max_size=200), cuts, swaps)


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Any:
    if before:
        yield before
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _paths(child, (*before, key))


def _with(document: Any, path: tuple[Any, ...], value: Any) -> bytes:
    copy = json.loads(json.dumps(document))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(copy).encode()


@pytest.mark.parametrize(
    "name", ["2.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json", "2.models.json"]
)
def test_changed_files_are_refused_with_one_of_our_errors(site: Site, name: str) -> None:
    release = site.publish()
    site.order(release)
    rotate(site.folder, "root-1", secret, site.now)
    site.serve()
    good = dict(site.image)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(_mutations(good[name]))
    def refuse(data: bytes) -> None:
        verifier = site.verifier(image=files_fetch({**good, name: data}), home="fuzzed", write=lambda _p, _d: None)
        try:
            verifier.refresh()
        except Untrusted:
            return
        # the same facts in other words (white space), or a signature that was not needed
        assert verifier.check(release, NOTHING).sha256 == release.sha256

    refuse()


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([Root, Timestamp, Targets]))
def test_any_bytes_are_read_or_refused(data: bytes, kind: Any) -> None:
    with pytest.raises(BadMetadata):
        load(kind, data, "somewhere")


@pytest.mark.parametrize("value", [None, 5, "yesterday", "2026-99-99T00:00:00Z"])
def test_a_time_of_signing_that_makes_no_sense_is_left_out(site: Site, value: Any) -> None:
    site.order(None)
    stamp = json.loads(site.image["timestamp.json"])
    stamp["signed"][ISSUED_AT] = value
    loaded = load(Timestamp, json.dumps(stamp).encode(), "t")
    from cellfleet.trust.metadata import issued_at

    assert issued_at(loaded.signed) is None
