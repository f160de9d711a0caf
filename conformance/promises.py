"""The promises of the segmenter protocol (docs/fleet.md), one function each; it raises ``PromiseBroken``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from conformance.bench import Bench
from conformance.program import Facts, Program, require

from cellfleet.canonical import sha256_file
from cellfleet.runtime.results.mask_file import read_labels
from cellfleet.wire.segmenter import REFUSED_EXIT

Promise = Callable[[Bench], None]


def ready_with_the_same_run_digest_each_time(bench: Bench) -> None:
    """The first line is ``ready``; the same bundle gives the same run digest."""
    with bench.shared(), bench.new() as again:
        second = again.first_line()
        require(second["event"] == "ready", f"the second start gives {second}")
        digests = bench.ready["run_digest"], second["run_digest"]
        require(digests[0] == digests[1], f"two starts with one bundle have two run digests: {digests}")


def refuses_what_is_no_bundle(bench: Bench) -> None:
    """A file that is not a bundle: ``refused`` with a message, no other line, exit code 3."""
    wrong = bench.folder / "wrong.zip"
    wrong.write_bytes(b"PK no bundle")
    with bench.started("--bundle", str(wrong)) as program:
        line = program.first_line()
        require(line["event"] == "refused", f"a file that is not a bundle gives {line}")
        require(line.get("message"), "the refusal has no message")
        code = program.exit_code()
        require(code == REFUSED_EXIT, f"the exit code of a refusal is {code}, not {REFUSED_EXIT}")
        require(not program.rest(), "a line follows the refusal")


def segments_a_frame(bench: Bench) -> None:
    """The row belongs to the frame, the bundle and the run; the mask is on the disk and has ``count`` objects."""
    with bench.shared() as program:
        request = bench.frame(bench.out())
        answer = _segmented(program, request)
        row, ready = answer["row"], bench.ready
        for name in ("experiment", "frame"):
            require(row[name] == request["facts"][name], f"the row's {name} is {row[name]!r}")
        require(row["run_digest"] == ready["run_digest"], "the row's run digest is not that of ready")
        require(row["variant"] == ready["variant"], "the row's variant is not that of ready")
        require(row["bundle_sha256"] == bench.sha256, "the row's bundle_sha256 is not that of the bundle")
        require(row.get("timings_ms", {}).get("total", 0) > 0, "timings_ms has no total")
        files = answer.get("files", {})
        require("mask" in files, f"no mask among the files: {files}")
        for kind, path in files.items():
            require(Path(path).exists(), f"{kind}: {path} is not there")
        count = len(np.unique(read_labels(Path(files["mask"])))) - 1
        require(count == row["count"], f"the mask has {count} objects, the row says {row['count']}")


def answers_again_from_the_row(bench: Bench) -> None:
    """A frame that is segmented already is not segmented again: same mask, the file stays as it is."""
    with bench.shared() as program:
        request = bench.frame(bench.out())
        first = _segmented(program, request)
        mask = Path(first["files"]["mask"])
        before = mask.stat().st_mtime_ns
        second = _segmented(program, request)
        require(second["row"]["mask_sha256"] == first["row"]["mask_sha256"], "the second answer has another mask")
        require(second["files"].get("mask") == str(mask), "the second answer names another mask file")
        require(mask.stat().st_mtime_ns == before, "the mask was written again")


def gives_the_same_mask_for_the_same_frame(bench: Bench) -> None:
    """The run digest decides the mask: the same bytes in another experiment give the same mask."""
    with bench.shared() as program:
        masks = {_segmented(program, bench.frame(bench.out()))["row"]["mask_sha256"] for _ in range(2)}
        require(len(masks) == 1, "one frame has two masks under one run digest")


def writes_thumbnails(bench: Bench) -> None:
    """With ``thumbnail``: two JPEG files, named in ``files``."""
    with bench.shared() as program:
        out = bench.out()
        path = bench.folder / "pictures" / f"{out.name}.jpg"
        files = _segmented(program, bench.frame(out) | {"thumbnail": str(path)})["files"]
        expected = {"thumbnail": path, "thumbnail_overlay": path.with_name(f"{out.name}.overlay.jpg")}
        for kind, where in expected.items():
            require(files.get(kind) == str(where), f"{kind} is {files.get(kind)!r}, not {where}")
            require(where.is_file() and where.read_bytes()[:3] == b"\xff\xd8\xff", f"{where} is no JPEG file")


def pixel_sizes_by_rank(bench: Bench) -> None:
    """``pixel_size_um`` counts first; ``default_pixel_size_um`` counts where neither request nor file has one."""
    with bench.shared() as program:
        size = bench.golden[0].pixel_size_um or 0.5
        found = {}
        for told, default in ((size, None), (size, 2 * size), (None, size), (2 * size, size)):
            sizes = {"pixel_size_um": told, "default_pixel_size_um": default}
            row = _segmented(program, bench.frame(bench.out()) | sizes)["row"]
            require(row.get("per_mm2") is not None, f"per_mm2 is missing although the pixel size is known: {sizes}")
            found[told, default] = row["per_mm2"]
        one, both, fallback, other = found.values()
        require(one == both, "default_pixel_size_um counts although the request gives pixel_size_um")
        require(one == fallback, "default_pixel_size_um does not count where nothing else gives a size")
        require(other != one or one == 0, "pixel_size_um makes no difference")


def blames_the_frame_for_its_bytes(bench: Bench) -> None:
    """A raw file that is not there, cannot be read or has changed: ``failed`` with the kind ``frame``."""
    with bench.shared() as program:
        gone = bench.frame(bench.out())
        Path(gone["frame"]).unlink()
        _failed(program, gone, "frame", "a raw file that is not there")
        changed = bench.frame(bench.out())
        changed["facts"]["sha256"] = "0" * 64
        _failed(program, changed, "frame", "a raw file with another SHA-256")
        for data in (b"", b"II*\x00 and then nothing"):
            broken = bench.frame(bench.out())
            Path(broken["frame"]).write_bytes(data)
            broken["facts"]["sha256"] = sha256_file(Path(broken["frame"]))
            _failed(program, broken, "frame", "a raw file that is not an image")
        _segmented(program, bench.frame(bench.out()))


def blames_the_disk_when_results_cannot_be_written(bench: Bench) -> None:
    """A results folder that cannot be made: ``failed`` with the kind ``disk``; the same request goes well later."""
    with bench.shared() as program:
        out = bench.out()
        request = bench.frame(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(b"in the way")
        _failed(program, request, "disk", "a results folder that cannot be made")
        out.unlink()
        _segmented(program, request)


def blames_the_model_for_the_rest(bench: Bench) -> None:
    """Channels that the model does not have: ``failed`` with the kind ``model``."""
    with bench.shared() as program:
        request = bench.frame(bench.out()) | {"channels": ["no-such-channel"]}
        _failed(program, request, "model", "a channel that the model does not have")


def answers_requests_that_wait(bench: Bench) -> None:
    """A ping and two frames, sent without waiting: each gets one answer."""
    with bench.shared() as program:
        out = bench.out()
        kinds = {
            program.send(bench.frame(out, 0)): "segmented",
            program.send({"do": "ping"}): "pong",
            program.send(bench.frame(out, 1)): "segmented",
            program.send({"do": "ping"}): "pong",
        }
        found = {answer["id"]: answer["event"] for answer in (program.answer() for _ in kinds)}
        require(found == kinds, f"four requests {kinds} are answered by {found}")


def tests_itself(bench: Bench) -> None:
    """``selftest``: the golden frames of its own bundle are segmented as well as the bundle demands."""
    with bench.shared() as program:
        answer = program.ask({"do": "selftest", "golden_of": [str(bench.bundle)]})
        require(answer["event"] == "selftest", f"a self-test gives {answer}")
        require([r["of"] for r in answer["results"]] == [str(bench.bundle)], "there is not one result per bundle")
        (own,) = answer["results"]
        require(not own.get("problem"), f"its own golden frames have a problem: {own.get('problem')}")
        require(len(own.get("frames", ())) == len(bench.golden), "its own golden frames are not all there")
        require(own["worst_ms"] > 0, "worst_ms is not measured")
        least = bench.least(bench.ready["variant"])
        for name, least_of_bundle in least.items():
            if least_of_bundle is not None:
                require(own[f"least_{name}"] == least_of_bundle, f"least_{name} is {own[f'least_{name}']}, not {least}")
            require(own[name] >= own[f"least_{name}"], f"{name} is {own[name]}, the least is {own[f'least_{name}']}")


def names_the_bundle_that_it_cannot_test_with(bench: Bench) -> None:
    """``selftest`` with a file that is not a bundle: a ``problem`` of that result, or ``failed`` with a message."""
    with bench.shared() as program:
        wrong = bench.folder / "no-bundle.zip"
        wrong.write_bytes(b"PK no bundle")
        paths = [str(bench.bundle), str(wrong)]
        answer = program.ask({"do": "selftest", "golden_of": paths})
        if answer["event"] == "failed":
            require(answer.get("message"), "the failure has no message")
            return
        require([r["of"] for r in answer["results"]] == paths, "the results are not in the order of the request")
        problems = [bool(r.get("problem")) for r in answer["results"]]
        require(problems == [False, True], f"the results have these problems: {problems}")


def writes_tables(bench: Bench) -> None:
    """``tables`` counts the frames that are segmented in ``out``; a program that writes none answers ``failed``."""
    with bench.shared() as program:
        out = bench.out()
        objects = sum(_segmented(program, bench.frame(out, i))["row"]["count"] for i in range(2))
        answer = program.ask({"do": "tables", "out": str(out)})
        require(answer["event"] in ("tables", "failed"), f"a request for tables gives {answer}")
        if answer["event"] == "tables":
            found = answer.get("frames"), answer.get("objects")
            require(found == (2, objects), f"the tables have {found} frames and objects, not {(2, objects)}")


def survives_what_it_does_not_understand(bench: Bench) -> None:
    """Lines that are no request are answered by ``failed``, and nothing ends."""
    with bench.shared() as program:
        for line in (b"no json", b"[]", b"{}", b'"x"', b"\xff\xfe\x00", b'{"id": null}', b"9" * 100_000, b"[" * 9_999):
            program.send(line)
            answer = program.answer()
            require(answer["event"] == "failed", f"{line[:20]!r} gives {answer}")
            require(answer["id"] is None, f"{line[:20]!r} has no id, its answer has {answer['id']}")
        for request in ({"do": "dance"}, {"do": "segment"}, {"do": "segment", "facts": []}, {"do": "tables", "out": 1}):
            answer = program.ask(request)
            require(answer["event"] == "failed", f"{request} gives {answer}")
        require(program.ask({"do": "ping"})["event"] == "pong", "a ping after wrong lines has no pong")


def ignores_fields_that_it_does_not_know(bench: Bench) -> None:
    """A newer agent may send more: the frame is segmented all the same."""
    with bench.shared() as program:
        request = bench.frame(bench.out()) | {"of-tomorrow": {"a": [1]}}
        request["facts"]["of-tomorrow"] = "x"
        _segmented(program, request)


def ends_with_its_input(bench: Bench) -> None:
    """The end of the input ends it with exit code 0, after the answers to what came before."""
    with bench.new() as program:
        program.first_line()
        program.send({"do": "ping"})
        code = program.end()
        require(code == 0, f"the exit code at the end of the input is {code}")
        require(program.answer()["event"] == "pong", "the ping before the end of the input has no answer")
        require(not program.rest(), "there is a line that answers nothing")


def ends_when_its_agent_is_killed(bench: Bench) -> None:
    """The input ends while a frame is worked on: nothing stays behind."""
    with bench.new() as program:
        program.first_line()
        program.send(bench.frame(bench.out()))
        program.end()


PROMISES: tuple[Promise, ...] = (
    ready_with_the_same_run_digest_each_time,
    refuses_what_is_no_bundle,
    segments_a_frame,
    answers_again_from_the_row,
    gives_the_same_mask_for_the_same_frame,
    writes_thumbnails,
    pixel_sizes_by_rank,
    blames_the_frame_for_its_bytes,
    blames_the_disk_when_results_cannot_be_written,
    blames_the_model_for_the_rest,
    answers_requests_that_wait,
    tests_itself,
    names_the_bundle_that_it_cannot_test_with,
    writes_tables,
    survives_what_it_does_not_understand,
    ignores_fields_that_it_does_not_know,
    ends_with_its_input,
    ends_when_its_agent_is_killed,
)


def _segmented(program: Program, request: Facts) -> Facts:
    answer = program.ask(request)
    require(answer["event"] == "segmented", f"a frame that is fine gives {answer}")
    return answer


def _failed(program: Program, request: Facts, kind: str, what: str) -> None:
    answer = program.ask(request)
    require(answer["event"] == "failed", f"{what} gives {answer}")
    require(answer.get("kind", "model") == kind, f"{what} has the kind {answer.get('kind')!r}, not {kind!r}")
    require(answer.get("message"), f"{what} has no message")
