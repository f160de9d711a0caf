"""The form of a new deployment as a request."""

from __future__ import annotations

import pytest

from cellfleet.fleet.pages.deployment_form import DEFAULTS, request_of
from cellfleet.fleet.pages.page_request import Form
from cellfleet.fleet.refusals import RequestRefused

GOOD = {**DEFAULTS, "release_id": "2", "group": "pilot"}


def test_an_untouched_form_is_one_instrument_then_the_rest() -> None:
    request = request_of(Form(GOOD))
    assert [(p.count, p.percent, p.soak_s) for p in request.phases] == [(1, None, 3600.0), (None, 100.0, 0.0)]
    assert request.window is None
    assert not request.needs_approval


def test_everything_can_be_said() -> None:
    more = {
        "size_1": "25 %", "failures_1": "2", "success_1": "90", "approval_1": "1", "size_2": "100%", "silent_2": "5",
        "window_start": "22:00", "window_end": "05:00", "window_offset": "8", "needs_approval": "1", "reason": " why ",
    }  # fmt: skip
    request = request_of(Form({**GOOD, **more}))
    second = request.phases[1]
    assert (second.percent, second.max_failures, second.min_success_percent, second.approval) == (25.0, 2, 90.0, True)
    assert request.phases[2].silent_after_s == 300
    assert request.window is not None
    assert (request.window.start, request.window.end, request.window.utc_offset_min) == ("22:00", "05:00", 480)
    assert (request.needs_approval, request.reason) == (True, "why")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size_0": "", "size_1": ""}, "no-phase"),
        ({"size_0": "many"}, "bad-size"),
        ({"size_0": "1.5"}, "bad-size"),
        ({"size_0": "-3"}, "bad-size"),
        ({"size_0": "nan"}, "bad-size"),
        ({"size_0": "101%"}, "not-understood"),
        ({"soak_0": "a while"}, "not-a-number"),
        ({"soak_0": "nan"}, "not-a-number"),
        ({"soak_0": "1e308"}, "not-a-number"),
        ({"failures_0": "1e99"}, "not-a-number"),
        ({"release_id": ""}, "not-understood"),
        ({"group": "../x"}, "not-understood"),
        ({"window_start": "25:99"}, "not-understood"),
        ({"reason": "x" * 600}, "too-long"),
    ],
)
def test_mistakes_are_told(change: dict[str, str], word: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        request_of(Form({**GOOD, **change}))
    assert refused.value.code == word
    assert refused.value.status == 422
