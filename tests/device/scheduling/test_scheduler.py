"""The work of an instrument, with real segmenter processes and real bundles: nothing lost, nothing drawn twice."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from cellfleet.device.camera.frame_store import ExperimentFile
from cellfleet.device.scheduling.experiment_store import CLOSED
from cellfleet.device.scheduling.pins import read_pins
from cellfleet.errors import DeviceError
from cellfleet.runtime import read_mask_metadata
from cellfleet.runtime.results.run_folder import read_runs
from cellfleet.wire.reason import because, english, text_reason
from support_scheduler import Instrument

MakeFn = Callable[..., Instrument]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFn]:
    made: list[Instrument] = []

    def new(real: bool = False, **settings: str) -> Instrument:
        made.append(Instrument(tmp_path / f"home{len(made)}", real, **settings))
        return made[-1]

    yield new
    for instrument in made:
        instrument.close()


def drawn_once(instrument: Instrument, facts: ExperimentFile, count: int, pin: int = 1) -> None:
    """Every frame has one row under the pin, on the disk and in what the server is told."""
    names = Counter(row.frame for row in instrument.rows(facts, pin))
    assert len(names) == count
    assert set(names.values()) == {1}
    told = Counter((e.frame, e.pin) for e in instrument.sink.of("segmented") if e.experiment == facts.experiment)
    assert {name: told[name, pin] for name in names} == dict.fromkeys(names, 1)


def test_frames_become_masks_tables_and_events(make: MakeFn) -> None:
    box = make(real=True)
    slot = box.slot()
    facts = box.begin()
    names = [box.take(facts, i) for i in range(4)]
    work = box.open(slot)
    box.until(work, lambda: len(box.outcomes) == 4)
    assert {o.slot for o in box.outcomes} == {slot.sha256}
    assert all(o.result == "segmented" and o.live and o.milliseconds > 0 and o.memory_mb > 20 for o in box.outcomes)
    assert box.seen.experiment == facts.experiment
    box.end(facts)
    box.until(work, lambda: not work.pinned())
    drawn_once(box, facts, 4)
    results = box.home.results / facts.experiment
    (pin,) = read_pins(results)
    assert (pin.number, pin.bundle_sha256, pin.release_id) == (1, slot.sha256, 7)
    run = results / pin.run_digest[:12]
    for name in names:
        mask = read_mask_metadata(run / "masks" / f"{name}.tif")
        assert mask["run_digest"] == pin.run_digest
        assert mask["count"] == 6
        assert (run / "overlays" / f"{name}.png").is_file()
    table = (run / "frames.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 5
    assert "feature_focus_fine" in table[0]
    row = box.sink.of("segmented")[0]
    assert row.count == 6
    assert row.features["noise"] > 0
    assert {"total", "network", "watch", "read", "write", "wait"} <= set(row.timings_ms)
    assert [e.pin for e in box.sink.of("experiment")] == [0, 1, 1]
    assert box.sink.of("experiment")[-1].ended_at is not None
    assert len(box.sink.of("taken")) == 4
    counted = work.counters()
    assert (counted.taken, counted.stored, counted.segmented, counted.failed) == (4, 4, 4, 0)


def test_an_experiment_stays_open_until_the_sink_took_everything(make: MakeFn) -> None:
    """A power cut while the spool's disk refuses: what was not told is told after the restart."""
    box = make()
    slot, facts = box.slot(), box.begin()
    names = {box.take(facts, i) for i in range(2)}
    box.end(facts)
    box.sink.refuses = True
    work = box.open(slot)
    box.until(work, lambda: len(box.outcomes) == 2)
    for _ in range(20):
        box.poll(work)
    closed = box.home.results / facts.experiment / CLOSED
    assert not closed.exists()
    work.close()
    box.sink.refuses = False
    again = box.open(slot)
    box.until(again, closed.exists)
    assert {e.frame for e in box.sink.of("segmented")} == {e.frame for e in box.sink.of("taken")} == names


def test_frames_wait_for_a_slot(make: MakeFn) -> None:
    box = make()
    facts = box.begin()
    box.take(facts, 0)
    work = box.open(None)
    seen = box.poll(work)
    assert (seen.pending, seen.segmenter, seen.ready) == (1, "stopped", False)
    work.switch(box.slot())
    box.until(work, lambda: box.outcomes)
    assert box.seen.segmenter == "running"


def test_a_segmenter_that_is_killed_in_mid_frame(make: MakeFn) -> None:
    box = make(real=True)
    facts = box.begin()
    (box.flags / "hang-any").touch()
    for i in range(3):
        box.take(facts, i)
    work = box.open(box.slot())
    box.until(work, lambda: (box.flags / "begun").exists())
    ((_, pid),) = box.poll(work).pids
    os.kill(pid, signal.SIGKILL)
    box.until(work, lambda: len(box.outcomes) == 3)
    drawn_once(box, facts, 3)
    assert [t.kind for t in box.losses] == ["crash"]
    assert box.seen.restarts == 1
    assert not psutil.pid_exists(pid)
    assert [e.kind for e in box.sink.of("incident")] == ["segmenter-crash"]


def test_a_segmenter_that_dies_between_the_row_and_its_answer_does_not_draw_twice(make: MakeFn) -> None:
    box = make(real=True)
    facts = box.begin()
    name = box.take(facts, 0)
    (box.flags / "die-any").touch()
    work = box.open(box.slot())
    box.until(work, lambda: box.outcomes)
    drawn_once(box, facts, 1)
    (run,) = [p for p in (box.home.results / facts.experiment).iterdir() if p.is_dir()]
    assert [p.name for p in (run / "rows").iterdir()] == [f"{name}.json"]
    assert len(box.losses) == 1


def test_a_frame_that_kills_two_segmenters_failed_and_the_others_go_on(make: MakeFn) -> None:
    box = make()
    facts = box.begin()
    names = [box.take(facts, i) for i in range(3)]
    (box.flags / f"crash-{names[1]}").touch()
    (box.flags / "for-ever").touch()
    slot = box.slot()
    work = box.open(slot)
    box.until(work, lambda: len(box.outcomes) == 3)
    drawn_once(box, facts, 2)
    (failed,) = box.failures(facts)
    assert failed.frame == names[1]
    assert "2 segmenters were lost with it" in failed.reason
    assert len(box.losses) == 2
    blamed = [o.slot for o in box.outcomes if o.result == "failed"]
    assert blamed == [slot.sha256]
    assert work.counters().failed == 1


def test_a_segmenter_that_hangs_is_ended_and_the_frame_tried_again(make: MakeFn) -> None:
    box = make(agent__frame_timeout_s="1")
    facts = box.begin()
    name = box.take(facts, 0)
    (box.flags / f"hang-{name}").touch()
    work = box.open(box.slot())
    box.until(work, lambda: box.outcomes)
    drawn_once(box, facts, 1)
    assert [t.kind for t in box.losses] == ["hang"]
    assert box.losses[0].reason.code == "segmenter.hung"


def test_frames_that_cannot_be_read_blame_no_slot(make: MakeFn) -> None:
    box = make()
    facts = box.begin()
    box.take(facts, 0, b"")
    box.take(facts, 1, b"\x89PNG\r\n\x1a\n and then nothing")
    gone = box.take(facts, 2)
    (box.home.frames / facts.experiment / f"{gone}.png").unlink()
    changed = box.take(facts, 3)
    (box.home.frames / facts.experiment / f"{changed}.png").write_bytes(b"other bytes")
    box.take(facts, 4)
    work = box.open(box.slot())
    box.until(work, lambda: len(box.outcomes) == 5)
    assert [o.slot for o in box.outcomes if o.result == "failed"] == [""] * 4
    reasons = [f.reason for f in box.failures(facts)]
    assert any("0 bytes" in r for r in reasons)
    assert any("no such file" in r for r in reasons)
    assert any("SHA-256 differs" in r for r in reasons)
    assert box.losses == []
    counted = work.counters()
    assert (counted.taken, counted.stored, counted.segmented, counted.failed) == (5, 4, 1, 4)


def test_a_switch_without_a_pause_leaves_pinned_experiments_alone(make: MakeFn) -> None:
    box = make()
    old, new = box.slot("1.0.0"), box.slot("2.0.0", level=0.5)
    first = box.begin(1)
    box.take(first, 0)
    work = box.open(old)
    box.until(work, lambda: len(box.outcomes) == 1)
    warm = work.warm(new)
    assert warm.variant == "onnxruntime/fp32"
    assert warm.memory_mb > 20
    box.poll(work)
    work.switch(new)
    assert box.poll(work).gap_s == 0
    assert box.seen.ready
    box.take(first, 1)
    box.until(work, lambda: len(box.outcomes) == 2)
    assert work.pinned() == {old.sha256}
    box.end(first)
    second = box.begin(2)
    box.take(second, 0)
    box.until(work, lambda: len(box.outcomes) == 3)
    assert [o.slot for o in box.outcomes] == [old.sha256, old.sha256, new.sha256]
    box.until(work, lambda: work.pinned() == {new.sha256})
    box.until(work, lambda: [s for s, _ in box.seen.pids] == [new.sha256])


def test_a_gap_is_measured(make: MakeFn) -> None:
    box = make(real=True)
    work = box.open(box.slot())
    gaps: list[float] = []

    def note() -> bool:
        gaps.append(box.seen.gap_s)
        return True

    box.until(work, lambda: note() and box.seen.ready)
    ((_, pid),) = box.seen.pids
    box.poll(work)
    assert box.poll(work).gap_s == 0
    os.kill(pid, signal.SIGKILL)
    gaps.clear()
    box.until(work, lambda: note() and box.seen.ready and box.seen.pids[0][1] != pid)
    box.poll(work)
    assert max([*gaps, box.seen.gap_s]) > 0.05


def test_repin_draws_the_whole_experiment_again_with_the_good_slot(make: MakeFn) -> None:
    box = make()
    good, bad = box.slot("1.0.0"), box.slot("2.0.0", level=99)
    work = box.open(good)
    activated = datetime.now(UTC)
    work.switch(bad)
    done, running = box.begin(1), None
    for i in range(2):
        box.take(done, i)
    box.until(work, lambda: len(box.outcomes) == 2)
    box.end(done)
    box.until(work, lambda: not work.pinned())
    running = box.begin(2)
    for i in range(3):
        box.take(running, i)
    box.until(work, lambda: len(box.outcomes) == 5)
    box.outcomes.clear()
    work.switch(good)
    work.repin(bad, good, activated, text_reason("it segments nothing"))
    work.repin(bad, good, activated, text_reason("it segments nothing"))
    assert work.counters().segmented == 0
    box.take(running, 3)
    box.until(work, lambda: len(box.outcomes) == 6)
    assert {o.slot for o in box.outcomes} == {good.sha256}
    assert [o.live for o in box.outcomes].count(True) == 1
    for facts, count in ((done, 2), (running, 4)):
        drawn_once(box, facts, count, pin=2)
        pins = read_pins(box.home.results / facts.experiment)
        assert [p.number for p in pins] == [1, 2]
        assert pins[1].reason == text_reason("it segments nothing")
        assert all(row.count == 6 for row in box.rows(facts, 2))
        runs = read_runs(box.home.results / facts.experiment)
        assert [r["supersedes"] for r in runs] == [None, pins[0].run_digest]
    assert len(box.rows(running, 1)) == 3
    assert work.counters().segmented == 6
    box.until(work, lambda: bad.sha256 not in {s for s, _ in box.seen.pids})


def test_repin_after_a_power_cut(make: MakeFn) -> None:
    """The agent died right after the pins were written: the next one goes on where it was."""
    box = make()
    good, bad = box.slot("1.0.0"), box.slot("2.0.0", level=0.5)
    facts = box.begin()
    for i in range(3):
        box.take(facts, i)
    work = box.open(bad)
    box.until(work, lambda: len(box.outcomes) == 3)
    work.close()
    with (box.home.results / facts.experiment / "outcomes.jsonl").open("ab") as torn:
        torn.write(b'{"event":"segm')
    again = box.open(bad)
    again.repin(bad, good, facts.started_at, because("pin.rolled-back"))
    again.close()
    third = box.open(good)
    third.repin(bad, good, facts.started_at, because("pin.rolled-back"))
    box.until(third, lambda: third.counters().segmented == 3)
    drawn_once(box, facts, 3, pin=2)
    assert [p.number for p in read_pins(box.home.results / facts.experiment)] == [1, 2]


def test_a_restart_draws_what_is_missing_and_nothing_else(make: MakeFn) -> None:
    box = make()
    slot = box.slot()
    facts = box.begin()
    for i in range(2):
        box.take(facts, i)
    work = box.open(slot)
    box.until(work, lambda: len(box.outcomes) == 2)
    work.close()
    before = [r.segmented_at for r in box.rows(facts)]
    box.take(facts, 2)
    box.end(facts)
    again = box.open(slot)
    box.until(again, lambda: not again.pinned())
    drawn_once(box, facts, 3)
    assert [r.segmented_at for r in box.rows(facts)][:2] == before
    again.close()
    third = box.open(slot)
    seen = box.poll(third)
    assert (seen.pending, seen.experiment) == (0, None)
    assert third.counters().segmented == 3


def test_live_frames_come_before_the_backlog(make: MakeFn) -> None:
    box = make()
    old = datetime.now(UTC) - timedelta(hours=1)
    facts = box.begin()
    backlog = [box.take(facts, i, at=old) for i in range(3)]
    live = [box.take(facts, i) for i in range(3, 5)]
    work = box.open(box.slot())
    box.until(work, lambda: len(box.outcomes) == 5)
    assert [o.frame for o in box.outcomes] == [*live, *backlog]
    assert [o.live for o in box.outcomes] == [True, True, False, False, False]


def test_a_bundle_that_is_refused(make: MakeFn) -> None:
    box = make()
    slot = box.slot()
    slot.bundle.unlink()
    slot.bundle.write_bytes(b"no bundle")
    work = box.open(None)
    with pytest.raises(DeviceError, match="bundle"):
        work.warm(slot)
    tested = work.selftest(slot, [slot.bundle], 30)
    assert "bundle" in english(tested.problem)
    facts = box.begin()
    box.take(facts, 0)
    work.switch(slot)
    box.until(work, lambda: box.seen.segmenter == "failing" and box.seen.pending == 1)
    assert box.seen.problems
    assert box.outcomes == []


def test_selftest(make: MakeFn) -> None:
    box = make()
    own, other = box.slot("1.0.0"), box.slot("2.0.0", level=99)
    work = box.open(None)
    good = work.selftest(own, [own.bundle, other.bundle], 30)
    assert good.problem is None
    assert [r.ap50 for r in good.results] == [1, 1]
    assert good.results[0].agreement == 1
    assert good.results[0].least_ap50 > 0.9
    assert good.memory_mb > 20
    bad = work.selftest(other, [other.bundle, own.bundle], 30)
    assert [r.ap50 for r in bad.results] == [0, 0]
    other_engine = work.selftest(own.__class__(**{**vars(own), "variant": "tensorrt/int8"}), [], 30)
    assert "no variant" in english(other_engine.problem)


def test_a_selftest_that_hangs_or_crashes_is_a_problem(make: MakeFn, tmp_path: Path) -> None:
    for name, code in (("hang", "import time; time.sleep(600)"), ("crash", "import os; os.abort()")):
        program = tmp_path / f"{name}.py"
        program.write_text(code, encoding="utf-8")

        box = make(device__software=f"{sys.executable} {program}")
        slot = box.slot()
        tested = box.open(None).selftest(slot, [slot.bundle], 1)
        assert tested.results == ()
        assert tested.problem


def test_a_full_disk_holds_frames_back_and_loses_none(make: MakeFn) -> None:
    box = make()
    facts = box.begin()
    box.take(facts, 0)
    results = box.home.results
    results.write_bytes(b"in the way, as a full disk would be")
    work = box.open(box.slot())
    box.until(work, lambda: box.seen.problems)
    assert box.outcomes == []
    results.unlink()
    box.until(work, lambda: box.outcomes)
    drawn_once(box, facts, 1)


def test_another_engine_draws_the_whole_experiment_again(make: MakeFn) -> None:
    box = make()
    slot = box.slot()
    facts = box.begin()
    box.take(facts, 0)
    work = box.open(slot)
    box.until(work, lambda: box.outcomes)
    work.close()
    file = box.home.results / facts.experiment / "pins.jsonl"
    pin: dict[str, Any] = json.loads(file.read_bytes())
    file.write_text(json.dumps(pin | {"run_digest": "0" * 64}) + "\n", encoding="utf-8")
    box.take(facts, 1)
    again = box.open(slot)
    box.until(again, lambda: again.counters().segmented == 2)
    drawn_once(box, facts, 2, pin=2)
    reason = read_pins(box.home.results / facts.experiment)[-1].reason
    assert reason is not None
    assert reason.code == "pin.segmenter-changed"


def test_no_segmenter_stays_behind(make: MakeFn) -> None:
    box = make(real=True)
    work = box.open(box.slot())
    box.until(work, lambda: box.seen.ready)
    pids = [pid for _, pid in box.seen.pids]
    work.close()
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_program_that_is_not_there(make: MakeFn) -> None:
    box = make(device__software="/no/such/program --fast")
    slot = box.slot()
    work = box.open(slot)
    box.until(work, lambda: box.seen.segmenter == "failing")
    assert any("/no/such/program cannot be started" in english(p) for p in box.seen.problems)
    assert "cannot be started" in english(work.selftest(slot, [slot.bundle], 5).problem)
    assert [e.kind for e in box.sink.of("incident")] == ["segmenter-refused"]


def test_a_program_whose_words_are_no_text(make: MakeFn, tmp_path: Path) -> None:
    """What a program says of its failures, or leaves in its log when it crashes, ends nobody."""
    program = tmp_path / "odd.py"
    program.write_text(
        "import json, sys\n"
        "ready = {'event': 'ready', 'run_digest': 'a' * 64, 'variant': 'x\\0y', 'engine': '\\ud800'}\n"
        "print(json.dumps(ready), flush=True)\n"
        "for line in sys.stdin:\n"
        "    r = json.loads(line)\n"
        "    if r.get('facts', {}).get('frame', '').startswith('f00001'):\n"
        "        sys.stderr.write('a tail of \\0\\0 zeros\\n')\n"
        "        sys.exit(9)\n"
        "    print(json.dumps({'id': r['id'], 'event': 'failed', 'message': 'a\\0b\\ud800c'}), flush=True)\n",
        encoding="utf-8",
    )
    box = make(device__software=f"{sys.executable} {program}")
    facts = box.begin()
    for i in range(3):
        box.take(facts, i)
    work = box.open(box.slot())
    box.until(work, lambda: len(box.outcomes) == 3)
    reasons = [f.reason for f in box.failures(facts)]
    assert [r for r in reasons if "a b?c" in r] == ["the segmenter reports: a b?c"] * 2
    assert any("a tail of    zeros" in r for r in reasons)


def test_a_program_that_chatters_and_lies(make: MakeFn, tmp_path: Path) -> None:
    """Lines that are not of the protocol are passed over; a row of another frame or run is no result."""
    program = tmp_path / "liar.py"
    program.write_text(
        "import json, sys\n"
        "print('hello', flush=True)\n"
        "print(json.dumps({'event': 'ready', 'run_digest': 'a' * 64, 'variant': 'x/y'}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    r = json.loads(line)\n"
        "    print('[1, 2]', flush=True)\n"
        "    row = {'experiment': 'other', 'frame': r.get('facts', {}).get('frame', 'f'), 'run_digest': 'a' * 64,\n"
        "        'bundle_sha256': 'b' * 64, 'variant': 'x', 'count': 1, 'confluence_percent': 1, 'mask_sha256': 'c' * 64,\n"
        "        'segmented_at': '2026-01-01T00:00:00Z'}\n"
        "    if row['frame'].startswith('f00001'): row = {'count': 'many'}\n"
        "    if row.get('frame', '').startswith('f00002'):\n"
        "        row |= {'experiment': r['facts']['experiment'], 'run_digest': 'd' * 64}\n"
        "    memory = [float('nan'), 'much', -1][r['id'] % 3]\n"
        "    print(json.dumps({'id': r['id'], 'event': 'segmented', 'row': row, 'memory_mb': memory}), flush=True)\n",
        encoding="utf-8",
    )
    box = make(device__software=f"{sys.executable} {program}")
    facts = box.begin()
    for i in range(3):
        box.take(facts, i)
    work = box.open(box.slot())
    box.until(work, lambda: len(box.outcomes) == 3)
    assert {o.result for o in box.outcomes} == {"failed"}
    reasons = [f.reason for f in box.failures(facts)]
    assert "answered for another frame" in reasons[0]
    assert "is not understood" in reasons[1]
    assert "another run than announced" in reasons[2]
    assert {o.memory_mb for o in box.outcomes} == {0.0}
    assert box.seen.ready
