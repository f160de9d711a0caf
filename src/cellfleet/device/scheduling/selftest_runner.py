"""Runs the self-test: a separate segmenter segments golden frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellfleet.device.interfaces import GoldenOutcome, SelfTested
from cellfleet.device.scheduling.worker import NotUnderstood, SegmenterWorker
from cellfleet.wire.reason import because, text_reason
from cellfleet.wire.segmenter import Failed, SelfTestRequest, SelfTestResult


def run_selftest(process: SegmenterWorker, golden_of: Sequence[Path], timeout_s: float) -> SelfTested:
    """Segment the golden frames of bundles with a segmenter.

    Args:
        process: a segmenter that was just started; it is killed here only if it hangs.
        golden_of: bundles.
        timeout_s: longest wait for its start, and for its answer.

    Returns:
        Its results; a refusal, a crash, a hang or an invalid answer is a ``problem``.
    """
    slot = process.slot
    if not process.wait(timeout_s, lambda p: p.ready_s is not None):
        problem = process.refusal or (
            process.why_ended() if process.ended_s is not None else because("selftest.not-ready", seconds=timeout_s)
        )
        return SelfTested(slot.variant, "", 0.0, (), problem)
    process.ask(SelfTestRequest(golden_of=tuple(str(p) for p in golden_of)))
    answered = process.wait(timeout_s, lambda p: p.request is not None and p.request.answer is not None)
    variant, digest = process.ready.variant, process.ready.run_digest
    request = process.take_answer()
    if not answered or request is None or request.answer is None:
        if process.ended_s is None:
            process.kill()
            return SelfTested(variant, digest, 0.0, (), because("selftest.no-answer", seconds=timeout_s))
        return SelfTested(variant, digest, 0.0, (), process.why_ended())
    answer = request.answer
    memory_mb = max(process.ready.memory_mb, answer.memory_mb)
    match answer:
        case SelfTestResult():
            results = tuple(GoldenOutcome(**r.model_dump(exclude={"frames"})) for r in answer.results)
            return SelfTested(variant, digest, memory_mb, results)
        case Failed():
            return SelfTested(variant, digest, memory_mb, (), text_reason(answer.message or "no message"))
        case NotUnderstood():
            return SelfTested(variant, digest, memory_mb, (), because("selftest.not-understood", detail=answer.detail))
    return SelfTested(variant, digest, memory_mb, (), because("selftest.not-understood", detail=answer.event))
