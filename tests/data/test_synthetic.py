"""Synthetic scenes: the truth is exact, every effect does what it says, the same seed gives the same bytes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from cellfleet.config.model import DataSection
from cellfleet.data import DataSetVersion, freeze, validate
from cellfleet.data.annotations.objects import check_objects
from cellfleet.data.records import SPLITS
from cellfleet.data.synthetic import (
    ROUND,
    SPREAD,
    CellKind,
    SceneParams,
    SyntheticFrame,
    simulate,
    write_data_set,
    write_time_lapse,
)
from cellfleet.data.synthetic.params import scene_params
from cellfleet.errors import CellfleetError, DataError, StorageError
from cellfleet.ports import silent

SMALL = SceneParams(height_px=160, width_px=192)
QUIET = SMALL.changed(flicker=0, photons=1e7, read_noise_e=0, debris=0, vignetting=0, gradient=0)


def first(params: SceneParams, seed: int = 4) -> SyntheticFrame:
    return next(simulate(params, 1, seed))


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def sharpness(image: NDArray[Any]) -> float:
    return float(np.mean(cv2.Laplacian(image.astype(np.float64), cv2.CV_64F) ** 2))


# ------------------------------------------------------------------------------------------------ determinism


def test_the_same_seed_gives_the_same_frames_whatever_the_number_of_threads() -> None:
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = list(simulate(SMALL, 3, 7))
        cv2.setNumThreads(4)
        four = list(simulate(SMALL, 3, 7))
    finally:
        cv2.setNumThreads(threads)
    for a, b in zip(one, four, strict=True):
        assert a.pixels.tobytes() == b.pixels.tobytes()
        assert a.labels.tobytes() == b.labels.tobytes()
        assert (a.tracks, a.ended) == (b.tracks, b.ended)


def test_another_seed_gives_another_scene() -> None:
    assert (first(SMALL, 1).labels != first(SMALL, 2).labels).any()
    assert (first(SMALL.changed(kinds=(SPREAD,)), 1).pixels != first(SMALL.changed(kinds=(SPREAD,)), 2).pixels).any()


def test_optics_and_camera_change_no_cell() -> None:
    other = SMALL.changed(defocus_um=10, photons=200, debris=60, bubbles=2, halo_strength=0.2, exposure=0.5)
    for a, b in zip(simulate(SMALL, 2, 5), simulate(other, 2, 5), strict=True):
        assert (a.labels == b.labels).all()
        assert (a.pixels != b.pixels).any()


# ------------------------------------------------------------------------------------------------ ground truth


@pytest.mark.parametrize("seed", range(4))
def test_each_label_is_one_piece_and_has_a_track(seed: int) -> None:
    for frame in simulate(SMALL, 3, seed, stride=12):
        check = check_objects(frame.labels, 20)
        assert (check.pieces, check.small) == ((), ())
        areas = np.bincount(frame.labels.ravel())
        assert [t.id for t in frame.tracks] == [int(i) for i in np.flatnonzero(areas) if i]
        for t in frame.tracks:
            ys, xs = np.nonzero(frame.labels == t.id)
            assert t.area_px == areas[t.id]
            assert np.allclose((t.y_px, t.x_px), (ys.mean(), xs.mean()), atol=1e-3)


def test_the_mask_is_what_was_drawn() -> None:
    """Without halo, blur and noise, the picture differs from the empty dish exactly where there are labels."""
    bare = QUIET.changed(halo_strength=0, blur_um=0, background_rad=0, bit_depth=16)
    frame = first(bare)
    empty = int(np.median(frame.pixels[frame.labels == 0]))
    outside = np.abs(frame.pixels[frame.labels == 0].astype(int) - empty)
    assert outside.max() <= 60, "nothing is drawn where there is no label (but for 1e7 electrons' shot noise)"
    inside = np.abs(frame.pixels[frame.labels > 0].astype(int) - empty)
    assert (inside > 60).mean() > 0.97


def test_cells_keep_their_numbers_as_they_move() -> None:
    params = SMALL.changed(frame_interval_s=120)
    a, b = list(simulate(params, 2, 3))
    both = {t.id for t in a.tracks} & {t.id for t in b.tracks}
    assert len(both) > 0.9 * len(a.tracks)
    moved = 0
    for i in both:
        here, there = a.labels == i, b.labels == i
        assert (here & there).sum() > 0.3 * min(here.sum(), there.sum())
        moved += bool((here != there).any())
    assert moved > 0.9 * len(both)


def test_cells_touch_and_cover_a_believable_share_of_the_dish() -> None:
    frame = first(SceneParams())
    labels = frame.labels
    touching = (labels[:, 1:] != labels[:, :-1]) & (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
    assert touching.sum() > 50
    assert 0.15 < (labels > 0).mean() < 0.6
    assert {t.kind for t in frame.tracks} == {"spread", "round"}


def test_kinds_have_the_size_that_was_asked_for() -> None:
    for kind in (SPREAD, ROUND):
        frame = first(SceneParams(kinds=(kind,), height_px=512, width_px=512))
        inner = [t.area_px for t in frame.tracks if 60 < t.y_px < 452 and 60 < t.x_px < 452 and t.state == "growing"]
        asked = np.pi * (kind.radius_um / SceneParams().pixel_size_um) ** 2
        assert np.mean(inner) == pytest.approx(asked, rel=0.2)


# ------------------------------------------------------------------------------------------------ lives


def restless(**values: Any) -> SceneParams:
    kind = CellKind.model_validate({**ROUND.model_dump(), "density_per_mm2": 700, **values})
    return SMALL.changed(kinds=(kind,))


def test_a_division_makes_two_daughters_where_the_mother_was() -> None:
    film = list(simulate(restless(division_h=6, mitosis_h=0.7, death_per_h=0), 20, 2))
    where: dict[int, tuple[float, float]] = {}
    divided = 0
    for frame in film:
        for end in frame.ended:
            assert end.fate == "divided"
            daughters = [t for t in frame.tracks if t.parent == end.id]
            assert all(t.born_s == end.ended_s for t in daughters)
            if end.id in where and len(daughters) == 2:
                divided += 1
                y, x = np.mean([(t.y_px, t.x_px) for t in daughters], axis=0)
                assert np.hypot(y - where[end.id][0], x - where[end.id][1]) < 12
            assert end.id not in {t.id for t in frame.tracks}
        where = {t.id: (t.y_px, t.x_px) for t in frame.tracks}
    assert divided >= 5


def test_cells_round_up_before_they_divide_and_turn_bright() -> None:
    film = list(simulate(SMALL.changed(kinds=(SPREAD,), debris=0), 8, 11, stride=3))
    contrast: dict[str, list[float]] = {"growing": [], "dividing": []}
    for frame in film:
        for t in frame.tracks:
            if t.state in contrast and t.area_px > 100:
                contrast[t.state].append(float(frame.pixels[frame.labels == t.id].std()))
    assert len(contrast["dividing"]) >= 3
    assert np.median(contrast["dividing"]) > 1.5 * np.median(contrast["growing"])


def test_dying_cells_shrink_and_vanish() -> None:
    film = list(simulate(restless(division_h=900, growth=0, death_per_h=0.15, dying_h=2), 30, 6))
    areas: dict[int, list[int]] = {}
    for frame in film:
        inner = [t for t in frame.tracks if 20 < t.y_px < 140 and 20 < t.x_px < 172]
        for t in inner:
            if t.state == "dying":
                areas.setdefault(t.id, []).append(t.area_px)
    whole = [a for a in areas.values() if len(a) >= 10]
    assert len(whole) >= 3
    assert all(a[-1] < 0.5 * a[0] for a in whole)
    died = {end.id for frame in film for end in frame.ended if end.fate == "died"}
    last = {t.id for t in film[-1].tracks}
    assert len(died) >= 5
    assert not died & last


def test_growth_and_speed() -> None:
    def drift(speed: float) -> float:
        a, b = list(simulate(restless(speed_um_h=speed, death_per_h=0, density_per_mm2=120), 2, 1, stride=6))
        there = {t.id: t for t in b.tracks}
        return float(np.median([np.hypot(t.y_px - there[t.id].y_px, t.x_px - there[t.id].x_px)
                                for t in a.tracks if t.id in there]))  # fmt: skip

    assert drift(30) > 3 * drift(1)
    a, b = list(simulate(restless(division_h=10, division_spread=0, death_per_h=0), 2, 1, stride=12))
    there = {t.id: t.area_px for t in b.tracks if t.state == "growing"}
    grown = [there[t.id] / t.area_px for t in a.tracks if t.state == "growing" and t.id in there and t.area_px > 150]
    assert np.median(grown) > 1.04


# ------------------------------------------------------------------------------------------------ effects


def test_noise_raises_the_local_variance() -> None:
    quiet, shot = first(QUIET), first(QUIET.changed(photons=500))
    read = first(QUIET.changed(photons=5000, read_noise_e=400))
    background = cv2.erode((quiet.labels == 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0

    def grain(frame: SyntheticFrame) -> float:
        return float(np.diff(frame.pixels.astype(int), axis=1)[background[:, 1:]].std())

    assert grain(shot) > 3 * grain(quiet)
    assert grain(read) > 3 * grain(quiet)


def test_vignetting_darkens_the_corners_and_the_gradient_one_side() -> None:
    flat, dark = first(QUIET), first(QUIET.changed(vignetting=0.5))
    ratio = dark.pixels.astype(float) / np.maximum(flat.pixels, 1)
    assert ratio[:8, :8].mean() == pytest.approx(0.5, abs=0.06)
    assert ratio[76:84, 92:100].mean() == pytest.approx(1.0, abs=0.02)
    tilted = first(QUIET.changed(gradient=0.4, gradient_deg=0)).pixels / np.maximum(flat.pixels.astype(float), 1)
    assert tilted[:, -8:].mean() - tilted[:, :8].mean() == pytest.approx(0.4, abs=0.08)


def test_defocus_blurs() -> None:
    energies = [sharpness(first(QUIET.changed(defocus_um=z)).pixels) for z in (0, 5, 15)]
    assert energies[0] > 2 * energies[1] > 4 * energies[2]
    assert sharpness(first(QUIET.changed(defocus_um=-5)).pixels) == energies[1]


def test_the_halo_brightens_a_ring_around_cells() -> None:
    """Measured on spread cells that are neither dividing nor dying: thick cells bend light out of every band."""
    calm = SPREAD.model_copy(update={"death_per_h": 0.0, "division_h": 9000.0})
    rings = []
    for strength in (0.0, 0.4, 0.9):
        frame = first(QUIET.changed(kinds=(calm,), halo_strength=strength))
        cells = (frame.labels > 0).astype(np.uint8)
        near = cv2.dilate(cells, np.ones((5, 5), np.uint8)) - cells
        far = cv2.dilate(cells, np.ones((41, 41), np.uint8)) == 0
        rings.append(float(frame.pixels[near > 0].mean() - frame.pixels[far].mean()))
    assert rings[2] > rings[1] + 3 > rings[0] + 6


@pytest.mark.parametrize("effect", [{"debris": 150}, {"bubbles": 3}])
def test_debris_and_bubbles_are_seen_but_are_no_cells(effect: dict[str, Any]) -> None:
    clean, dirty = first(QUIET), first(QUIET.changed(**effect))
    assert (clean.labels == dirty.labels).all()
    empty = clean.labels == 0
    assert (np.abs(clean.pixels.astype(int) - dirty.pixels)[empty] > 15).sum() > 100


def test_exposure_gain_and_bit_depth() -> None:
    usual = np.median(first(QUIET).pixels)
    assert usual == pytest.approx(0.49 * 255, abs=3)
    assert np.median(first(QUIET.changed(exposure=0.5)).pixels) == pytest.approx(usual / 2, abs=2)
    assert np.median(first(QUIET.changed(gain=1.5)).pixels) == pytest.approx(usual * 1.5, abs=3)
    deep = first(QUIET.changed(bit_depth=16)).pixels
    assert deep.dtype == np.uint16
    assert np.median(deep) == pytest.approx(0.49 * 65535, rel=0.02)
    assert (first(QUIET.changed(exposure=6)).pixels == 255).mean() > 0.5


def test_flicker_changes_the_light_from_frame_to_frame() -> None:
    def spread(flicker: float) -> float:
        film = simulate(QUIET.changed(flicker=flicker), 6, 1)
        return float(np.std([np.median(f.pixels) for f in film]))

    assert spread(0.1) > spread(0) + 3


def test_pixels_and_um_agree() -> None:
    kinds = (CellKind.model_validate({**ROUND.model_dump(), "density_per_mm2": 2000}),)
    coarse = first(SceneParams(height_px=128, width_px=128, pixel_size_um=0.8, kinds=kinds))
    fine = first(SceneParams(height_px=256, width_px=256, pixel_size_um=0.4, kinds=kinds))
    big = np.median([t.area_px for t in fine.tracks]) / np.median([t.area_px for t in coarse.tracks])
    assert big == pytest.approx(4, rel=0.25)


def test_like_real_phase_contrast(shared_data: Path) -> None:
    """Grey background in the middle, dark bodies, bright halos: percentiles near those of real images."""
    real = np.asarray(tifffile.imread(sorted((shared_data / "usiigaci_phase" / "images").glob("*.tif"))[::9]), np.uint8)
    ours = np.stack([np.asarray(first(SceneParams(kinds=(SPREAD,)), s).pixels, np.uint8) for s in range(3)])
    for percentile, tolerance in ((5, 25), (50, 12), (95, 30)):
        assert np.percentile(ours, percentile) == pytest.approx(np.percentile(real, percentile), abs=tolerance)


# ------------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"height_px": 10}, "height_px"),
        ({"pixel_size_um": 0}, "pixel_size_um"),
        ({"photons": float("nan")}, "photons"),
        ({"bit_depth": 12}, "bit_depth"),
        ({"sparkle": 1}, "sparkle"),
        ({"kinds": ()}, "kinds"),
        ({"kinds": (SPREAD, SPREAD)}, "same name"),
        ({"kinds": ({"name": "x", "division_h": 1, "mitosis_h": 0.9},)}, "division_h"),
        ({"kinds": ({"name": "No/Path"},)}, "name"),
    ],
)
def test_bad_parameters_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        scene_params(values)
    with pytest.raises(DataError, match=said):
        SceneParams().changed(**values)


def test_settings() -> None:
    params = SceneParams().with_settings(["defocus_um=8", "round.speed_um_h = 20", "bit_depth=16"])
    assert (params.defocus_um, params.bit_depth) == (8, 16)
    assert [k.speed_um_h for k in params.kinds] == [SPREAD.speed_um_h, 20]
    for text, said in (
        ("defocus", "not name=value"),
        ("defocus_mm=1", "unknown parameter"),
        ("flat.speed_um_h=1", "no kind of cell"),
        ("round.speed=1", "unknown parameter"),
        ("kinds=1", "not name=value"),
        ("defocus_um=far", "defocus_um"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            SceneParams().with_settings([text])
        assert caught.value.hint


def test_impossible_scenes_are_refused() -> None:
    for frames, seed, stride in ((0, 0, 1), (1, -1, 1), (1, 0, 0)):
        with pytest.raises(DataError, match="at least"):
            simulate(SMALL, frames, seed, stride=stride)
    with pytest.raises(DataError, match="no room"):
        simulate(SceneParams().with_settings(["spread.density_per_mm2=3000"]), 1, 0)
    with pytest.raises(DataError, match="too many"):
        simulate(SceneParams(height_px=8192, width_px=8192), 1, 0)


def test_a_dish_without_cells() -> None:
    nobody = SMALL.with_settings(["spread.density_per_mm2=0", "round.density_per_mm2=0"])
    frames = list(simulate(nobody, 2, 0))
    assert not any(f.labels.any() or f.tracks for f in frames)


def test_the_page_lists_every_parameter() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "synthetic.md").read_text(encoding="utf-8")
    scene = {n: (f"{f.default:g}", f.description) for n, f in SceneParams.model_fields.items() if n != "kinds"}
    kinds = {
        n: (f"{getattr(SPREAD, n):g}", f"{getattr(ROUND, n):g}", f.description)
        for n, f in CellKind.model_fields.items()
        if n != "name"
    }
    for name, cells in [*scene.items(), *kinds.items()]:
        assert f"| `{name}` | {' | '.join(map(str, cells))} |\n" in page


# ------------------------------------------------------------------------------------------------ on the disk


def test_a_data_set_is_valid_and_freezes_with_every_kind_in_every_split(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_data_set(tmp_path / "data", SMALL, 3, lambda done, total, _: seen.append((done, total)), frames=2)
    assert seen == [(i + 1, 24) for i in range(24)]
    assert validate(DataSection(source="data"), tmp_path) == []
    version = freeze(DataSection(source="data"), tmp_path)
    for split in SPLITS:
        assert {e.stratum for e in version.split(split)} == {"spread", "round"}
    assert {e.group for e in version.entries} == {f"{row}{n:02d}" for row in "AB" for n in range(1, 7)}
    assert {e.pixel_size_um for e in version.entries} == {0.8}
    assert_the_tables_agree(tmp_path / "data", version)


def assert_the_tables_agree(folder: Path, version: DataSetVersion) -> None:
    cells = rows(folder / "cells.csv")
    assert len(cells) == sum(e.objects for e in version.entries)
    tracks = {(r["well"], r["id"]): r for r in rows(folder / "tracks.csv")}
    for cell in cells:
        track = tracks[cell["file"][:3], cell["id"]]
        assert (track["kind"], track["parent"]) == (cell["kind"], cell["parent"])
        frame = int(cell["file"][-5])
        assert int(track["first_frame"]) <= frame <= int(track["last_frame"])
    assert {r["fate"] for r in tracks.values()} == {"", "divided", "died"}
    scene = json.loads((folder / "scene.json").read_text(encoding="utf-8"))
    assert scene_params(scene["params"]) == SMALL
    wells = {s["well"]: s for s in scene["sequences"]}
    again = list(simulate(SMALL.changed(kinds=(ROUND,)), 2, wells["B02"]["seed"], stride=scene["stride"]))
    assert (tifffile.imread(folder / "images" / "B02_t001.tif") == again[1].pixels).all()
    assert (tifffile.imread(folder / "masks" / "B02_t001.tif") == again[1].labels).all()


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_data_set(tmp_path / name, SMALL, seed, sequences=1, frames=1)
    a, b, c = (files(tmp_path / n) for n in "abc")
    assert a == b
    assert set(a) == set(c)
    assert all(a[n] != c[n] for n in a if n != "tracks.csv")


def test_a_time_lapse_for_replay(tmp_path: Path) -> None:
    write_time_lapse(tmp_path / "film", SMALL, 5, frames=4, well="C07")
    names = [f"C07_t{i:03d}.tif" for i in range(4)]
    assert sorted(p.name for p in (tmp_path / "film" / "images").iterdir()) == names
    index = rows(tmp_path / "film" / "index.csv")
    assert [float(r["time_s"]) for r in index] == [0, 600, 1200, 1800]
    assert {(r["group"], r["stratum"]) for r in index} == {("C07", "spread+round")}
    kinds = {r["kind"] for r in rows(tmp_path / "film" / "cells.csv")}
    assert kinds == {"spread", "round"}


def test_a_full_folder_is_refused_and_an_empty_one_is_used(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not an empty folder"):
        write_data_set(full, SMALL, 0, sequences=1, frames=1)
    assert files(full) == {"mine.txt": b"keep"}
    with pytest.raises(DataError, match="not an empty folder"):
        write_data_set(full / "mine.txt", SMALL, 0, sequences=1, frames=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_data_set(empty, SMALL, 0, sequences=1, frames=1)
    assert (empty / "index.csv").is_file()
    with pytest.raises(StorageError):
        write_data_set(full / "mine.txt" / "below", SMALL, 0, sequences=1, frames=1)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, _total: int, _note: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_data_set(tmp_path / "data", SMALL, 0, interrupt, sequences=1, frames=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"sequences": 0}, {"sequences": 100}, {"frames": 0}, {"stride": 0}, {"seed": -1}])
def test_bad_numbers_leave_nothing(tmp_path: Path, wrong: dict[str, int]) -> None:
    numbers = {"sequences": 1, "frames": 1, "stride": 1, **wrong}
    seed = numbers.pop("seed", 0)
    with pytest.raises(CellfleetError):
        write_data_set(tmp_path / "data", SMALL, seed, silent, **numbers)
    assert list(tmp_path.iterdir()) == []
