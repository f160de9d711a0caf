"""The battery that judges segmenter programs: ours keeps every promise, and each promise can be broken."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from conformance.bench import Bench
from conformance.program import PromiseBroken

from conformance import promises
from simulators.segmenter import Change, Crash, ThreadedSegmenter
from support_bundle import tiny_bundle
from support_once import Once

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
Facts = dict[str, Any]
Edit = Callable[[Facts, Facts], object]
"""Changes an answer, given the request (empty for the first line)."""


@pytest.fixture(scope="session")
def bundle(once: Once) -> Path:
    def make(where: Path) -> None:
        tiny_bundle(where)

    folder = once("tiny-bundle", make)
    return next((folder / "bundles").glob("*.zip"))


@pytest.fixture
def bench_of(bundle: Path, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def new(change: Change, at_end: int = 0, patience_s: float = PATIENCE_S) -> Bench:
        made.append(Bench(lambda a: ThreadedSegmenter(a, change, at_end), bundle, tmp_path, patience_s))
        return made[-1]

    yield new
    for bench in made:
        bench.close()


def judge(bundle: Path, command: str, *extra: str) -> subprocess.CompletedProcess[str]:
    """Run the battery as its page says."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "conformance", "--segmenter", command]
    argv += ["--bundle", str(bundle), *extra]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_our_program_keeps_every_promise(bundle: Path) -> None:
    done = judge(bundle, f"{sys.executable} -m cellfleet.device.segmenter.main --threads 1")
    assert done.returncode == 0, done.stdout
    assert f"{len(promises.PROMISES)} passed" in done.stdout


def test_a_program_that_is_silent_breaks_promises(bundle: Path, tmp_path: Path) -> None:
    program = tmp_path / "silent.py"
    program.write_text("import sys; sys.stdin.read()", encoding="utf-8")
    done = judge(bundle, f"{sys.executable} {program}", "--patience-s", "0.2", "-k", "segments_a_frame")
    assert done.returncode == 1
    assert "PromiseBroken: there is no line after 0 s" in done.stdout


def test_the_battery_says_what_it_needs(bundle: Path) -> None:
    done = judge(bundle, "")
    assert done.returncode != 0
    assert "--segmenter COMMAND --bundle FILE" in done.stdout + done.stderr


def edited(edit: Edit) -> Change:
    """A program whose answers are changed."""

    def change(request: bytes, answer: bytes) -> Sequence[bytes]:
        found = json.loads(answer)
        try:
            asked = json.loads(request or b"{}")
        except (ValueError, RecursionError):
            asked = {}
        edit(asked if isinstance(asked, dict) else {}, found)
        return [json.dumps(found).encode()]

    return change


def on(event: str, edit: Callable[[Facts], object]) -> Change:
    """A program whose answers of one kind are changed."""
    return edited(lambda _, answer: edit(answer) if answer["event"] == event else None)


def put(event: str, **fields: Any) -> Change:
    return on(event, lambda answer: answer.update(fields))


def in_row(**fields: Any) -> Change:
    return on("segmented", lambda answer: answer["row"].update(fields))


def fresh_digest(answer: Facts) -> None:
    answer["run_digest"] = f"{time.monotonic_ns():064x}"


def touch_mask(answer: Facts) -> None:
    Path(answer["files"]["mask"]).touch()


def mask_by_folder(answer: Facts) -> None:
    answer["row"]["mask_sha256"] = f"{int(answer['row']['experiment'][1:]):064x}"


def never_waits(asked: Facts, answer: Facts) -> None:
    if asked.get("do") == "ping":
        answer["id"] = 1


def no_thumbnail(answer: Facts) -> None:
    Path(answer["files"].get("thumbnail", "/none")).unlink(missing_ok=True)


def thumbnail_is_text(answer: Facts) -> None:
    if "thumbnail" in answer["files"]:
        Path(answer["files"]["thumbnail"]).write_text("no picture", encoding="utf-8")


def default_counts_first(asked: Facts, answer: Facts) -> None:
    if answer["event"] == "segmented" and asked.get("default_pixel_size_um"):
        answer["row"]["per_mm2"] = 1.0


def dies_of(what: bytes, code: int = 1) -> Change:
    """A program that ends when it reads that."""

    def change(request: bytes, answer: bytes) -> Sequence[bytes]:
        if what in request:
            raise Crash(code)
        return [answer]

    return change


def twice(request: bytes, answer: bytes) -> Sequence[bytes]:
    return [answer, answer] if b'"ping"' in request else [answer]


def chatters(request: bytes, answer: bytes) -> Sequence[bytes]:
    return [b"loading ...", answer] if not request else [answer]


def selftest_result(**fields: Any) -> Change:
    return on("selftest", lambda answer: answer["results"][0].update(fields))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            on("ready", lambda a: a.pop("run_digest")),
            'Ready differs from its schema: "run_digest" is a required property',
        ),
        (in_row(count="six"), "Segmented differs from its schema: row.count: "),
    ],
)
def test_a_line_that_differs_from_its_schema_is_named_with_the_wrong_field(
    bench_of: Callable[..., Bench], change: Change, text: str
) -> None:
    with pytest.raises(PromiseBroken) as broken:
        promises.segments_a_frame(bench_of(change))
    assert str(broken.value).startswith(text)


WRONG: dict[str, tuple[promises.Promise, Change]] = {
    "it chatters on standard output": (promises.segments_a_frame, chatters),
    "ready without a run digest": (promises.segments_a_frame, on("ready", lambda a: a.pop("run_digest"))),
    "another protocol": (promises.segments_a_frame, put("ready", protocol=2)),
    "a run digest that is none": (promises.segments_a_frame, put("ready", run_digest="latest")),
    "not a number": (promises.segments_a_frame, put("segmented", memory_mb=float("nan"))),
    "another run digest at each start": (
        promises.ready_with_the_same_run_digest_each_time,
        on("ready", fresh_digest),
    ),
    "ready with what is not a bundle": (
        promises.refuses_what_is_no_bundle,
        on("refused", lambda a: a.update(event="ready", protocol=1, run_digest="a" * 64, variant="x/y")),
    ),
    "a refusal without a reason": (promises.refuses_what_is_no_bundle, put("refused", message="")),
    "a row of another frame": (promises.segments_a_frame, in_row(frame="other")),
    "a row of another run": (promises.segments_a_frame, in_row(run_digest="d" * 64)),
    "a row of another bundle": (promises.segments_a_frame, in_row(bundle_sha256="d" * 64)),
    "a row of another variant": (promises.segments_a_frame, in_row(variant="x/y")),
    "a count that is not that of the mask": (promises.segments_a_frame, in_row(count=7)),
    "a count that is not a number": (promises.segments_a_frame, in_row(count="six")),
    "no total time": (promises.segments_a_frame, in_row(timings_ms={"network": 1.0})),
    "no mask file": (promises.segments_a_frame, on("segmented", lambda a: a["files"].pop("mask"))),
    "a mask file that is not there": (
        promises.segments_a_frame,
        on("segmented", lambda a: a["files"].update(mask="gone.tif")),
    ),
    "it segments a frame again": (promises.answers_again_from_the_row, on("segmented", touch_mask)),
    "a mask that depends on the folder": (
        promises.gives_the_same_mask_for_the_same_frame,
        on("segmented", mask_by_folder),
    ),
    "no thumbnail on the disk": (promises.writes_thumbnails, on("segmented", no_thumbnail)),
    "a thumbnail that is no picture": (promises.writes_thumbnails, on("segmented", thumbnail_is_text)),
    "thumbnails that are not named": (promises.writes_thumbnails, put("segmented", files={})),
    "the default pixel size counts first": (promises.pixel_sizes_by_rank, edited(default_counts_first)),
    "no density": (promises.pixel_sizes_by_rank, in_row(per_mm2=None)),
    "the model is to blame for a file that is gone": (
        promises.blames_the_frame_for_its_bytes,
        put("failed", kind="model"),
    ),
    "a failure without a message": (promises.blames_the_frame_for_its_bytes, put("failed", message="")),
    "the frame is to blame for a full disk": (
        promises.blames_the_disk_when_results_cannot_be_written,
        put("failed", kind="frame"),
    ),
    "the disk is to blame for a wrong channel": (promises.blames_the_model_for_the_rest, put("failed", kind="disk")),
    "an answer with the id of another request": (promises.answers_requests_that_wait, edited(never_waits)),
    "two answers to one ping": (promises.answers_requests_that_wait, twice),
    "golden frames below the least": (promises.tests_itself, selftest_result(ap50=0.1)),
    "a least of its own": (promises.tests_itself, selftest_result(least_ap50=0.0)),
    "golden frames with a problem": (promises.tests_itself, selftest_result(problem="x")),
    "golden frames left out": (promises.tests_itself, selftest_result(frames=[])),
    "a time that is not measured": (promises.tests_itself, selftest_result(worst_ms=0.0)),
    "an AP above 1": (promises.tests_itself, selftest_result(ap50=1.5)),
    "no result for the wrong bundle": (
        promises.names_the_bundle_that_it_cannot_test_with,
        on("selftest", lambda a: a["results"].pop()),
    ),
    "no problem with the wrong bundle": (
        promises.names_the_bundle_that_it_cannot_test_with,
        on("selftest", lambda a: a["results"][-1].update(problem="")),
    ),
    "tables of other frames": (promises.writes_tables, put("tables", frames=5)),
    "a line that is no JSON ends it": (promises.survives_what_it_does_not_understand, dies_of(b"no json")),
    "an unknown request ends it": (promises.survives_what_it_does_not_understand, dies_of(b"dance")),
    "an unknown request is answered by pong": (
        promises.survives_what_it_does_not_understand,
        edited(lambda asked, a: a.update(event="pong") if asked.get("do") == "dance" else None),
    ),
    "an unknown field is an error": (
        promises.ignores_fields_that_it_does_not_know,
        edited(lambda asked, a: a.update(event="failed") if "of-tomorrow" in asked else None),
    ),
    "it ends before it answers": (promises.ends_with_its_input, dies_of(b'"ping"', 0)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_program_breaks_the_promise(bench_of: Callable[..., Bench], name: str) -> None:
    promise, change = WRONG[name]
    with pytest.raises(PromiseBroken):
        promise(bench_of(change))


def test_a_wrong_exit_code_breaks_the_promise(bench_of: Callable[..., Bench]) -> None:
    with pytest.raises(PromiseBroken, match="the exit code at the end of the input is 1"):
        promises.ends_with_its_input(bench_of(lambda _, answer: [answer], at_end=1))


def test_a_program_that_goes_on_without_its_agent_breaks_the_promise(bench_of: Callable[..., Bench]) -> None:
    running: list[ThreadedSegmenter] = []

    def hangs(request: bytes, answer: bytes) -> Sequence[bytes]:
        if request:
            running[-1].killed.wait(PATIENCE_S)
        return [answer]

    bench = bench_of(hangs, patience_s=5.0)

    def start(arguments: Sequence[str]) -> ThreadedSegmenter:
        running.append(ThreadedSegmenter(arguments, hangs))
        return running[-1]

    lasting = Bench(start, bench.bundle, bench.folder, 5.0)
    with pytest.raises(PromiseBroken, match="has not ended"):
        promises.ends_when_its_agent_is_killed(lasting)


@pytest.mark.parametrize("promise", promises.PROMISES, ids=lambda p: p.__name__)
def test_the_segmenter_of_other_tests_keeps_every_promise(
    bench_of: Callable[..., Bench], promise: promises.Promise
) -> None:
    promise(bench_of(lambda _, answer: [answer]))


def test_every_promise_can_be_broken() -> None:
    by_hand = {promises.ends_with_its_input, promises.ends_when_its_agent_is_killed}
    assert {promise for promise, _ in WRONG.values()} | by_hand == set(promises.PROMISES)
