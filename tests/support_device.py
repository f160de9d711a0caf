"""Releases of the tiny bundle in two versions, built once per session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellfleet.canonical import sha256_file
from cellfleet.wire.states import ReleaseRef
from simulators.world import World, release_of
from support_bundle import tiny_bundle
from support_onnx import tiny_spec


@dataclass(frozen=True)
class Releases:
    """``old`` and ``new``, and the files of both by digest."""

    old: ReleaseRef
    new: ReleaseRef
    files: dict[str, Path]


def make_releases(folder: Path) -> Releases:
    """Build them below a folder."""
    made, files = [], {}
    for counter, version in enumerate(("1.0.0", "1.1.0"), 1):
        path = tiny_bundle(folder / version, tiny_spec(version=version))
        sha256 = sha256_file(path)
        files[sha256] = path
        made.append(release_of(sha256, version, counter, path.stat().st_size))
    return Releases(made[0], made[1], files)


def world_with_old(root: Path, releases: Releases) -> World:
    """An instrument on which the old release is active and committed."""
    world = World(root, releases.files)
    world.desire(releases.old)
    world.run(world.idle)
    assert world.active == releases.old.sha256
    return world
