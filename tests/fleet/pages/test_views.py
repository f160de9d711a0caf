"""Every view answers, in both languages, shows what is in the tables, and asks the database no more when there is more."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event

from cellfleet.fleet.context import Context
from cellfleet.fleet.ingest import results
from cellfleet.fleet.store.models import Device, FrameRow, ResultRow
from support_fleet import TestClient
from support_fleet_data import Filled, fill


def addresses(filled: Filled) -> list[str]:
    """Every view."""
    device = filled.devices[0]
    return [
        "/",
        "/?show=eyes&q=10x&group=europe",
        "/?page=99",
        f"/devices/{device}",
        f"/devices/{device}?by=count&row=B",
        f"/devices/{filled.devices[-1]}",
        f"/devices/{device}/frames/{filled.experiment}/B2_t0005",
        "/deployments",
        "/deployments?show=halted",
        *(f"/deployments/{n}" for n in filled.deployments.values()),
        "/deployments/new",
        "/releases",
        *(f"/releases/{n}" for n in filled.releases.values()),
        "/provisioning",
        "/audit?check=1",
        "/people",
    ]


@pytest.mark.parametrize("language", ["en", "zh-TW"])
def test_every_view_answers_in_both_languages(filled: Filled, tab: Any, language: str) -> None:
    mine = tab("admin", language)
    for address in addresses(filled):
        page = mine.get(address)
        assert f'<html lang="{"zh-Hant-TW" if language == "zh-TW" else "en"}">' in page.text, address
        assert page.text.count("<h1") == 1, address
        assert page.headers["content-language"] == language


def test_views_of_an_empty_fleet_say_what_to_do_next(tab: Any) -> None:
    mine = tab("admin")
    assert "Create a claim token" in mine.text("/")
    assert "cellfleet release publish" in mine.text("/releases")
    assert "No releases yet" in mine.text("/deployments/new")
    assert "No instrument is waiting." in mine.text("/provisioning")


def test_nobody_is_led_to_the_form_and_back(client: TestClient) -> None:
    answer = client.get("/devices/x?by=count", headers={"accept": "text/html"}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=/devices/x%3Fby%3Dcount"
    live = client.get("/?part=live", headers={"accept": "text/html"}, follow_redirects=False)
    assert live.status_code == 401


@pytest.mark.usefixtures("filled")
def test_the_fleet_says_who_is_unwell_and_why(tab: Any) -> None:
    page = tab("viewer").text("/")
    assert "Hsinchu-003 unwell the disk is nearly full: 412 MB free; the limit is 1024 MB" in page
    assert "silent not heard since" in page
    assert (
        "Hsinchu-003"
        not in tab("viewer")
        .text("/?show=well")
        .split("Instruments", 2)[-1]
        .split("entries")[0]
        .split("Last report")[-1]
    )


def test_an_instrument_says_what_runs_since_when_and_why(filled: Filled, tab: Any) -> None:
    page = tab("viewer").text(f"/devices/{filled.devices[0]}")
    assert "Model neural-cells 1.1.0 Since" in page
    assert "deployment 1 by ada: finer outlines" in page
    assert "216 of 216" not in page
    assert "36 of 36 frames segmented" in page


def test_a_halted_deployment_says_why_in_the_readers_language(filled: Filled, tab: Any) -> None:
    address = f"/deployments/{filled.deployments['halted']}"
    assert "Failures in phase 1: 1; the limit is 0" in tab("viewer").text(address)
    chinese = tab("viewer", "zh-TW").text(address)
    assert "拒絕了發行版：自我測試：" in chinese
    assert "第 1 階段有 1 台失敗，上限 0 台" in chinese


def test_a_deployment_that_is_cancelled_still_says_why_it_halted(filled: Filled, tab: Any) -> None:
    address = f"/deployments/{filled.deployments['halted']}"
    why = "refused the release"
    assert why in tab("viewer").text(address)
    tab("operator").post(f"{address}/cancel", reason="the model is withdrawn")
    text = tab("viewer").text(address)
    assert "Halted, and cancelled after that" in text
    assert why in text
    assert "not started" not in text


def test_an_override_is_shown_wherever_the_release_is(filled: Filled, tab: Any) -> None:
    mine = tab("viewer")
    reason = "Customer in Leiden needs debris-heavy plates today"
    for address in (
        "/releases",
        f"/releases/{filled.releases['1.2.0']}",
        f"/deployments/{filled.deployments['halted']}",
    ):
        page = mine.text(address)
        assert "override" in page or "published although its gate failed" in page, address
        assert reason in page, address
    assert "override" in mine.text("/")


def test_a_release_shows_numbers_decision_and_lineage(filled: Filled, tab: Any) -> None:
    page = tab("viewer").text(f"/releases/{filled.releases['1.1.0']}")
    assert "Approver Dr Lin Mei-hua" in page
    assert "AP@0.5, at least 0.823 0.600" in page
    assert "4f1c2a9d0be37715" in page
    assert "Data set version" in page


def test_the_mask_of_a_frame_is_traced_to_its_data(filled: Filled, tab: Any) -> None:
    page = tab("viewer").text(f"/devices/{filled.devices[0]}/frames/{filled.experiment}/B2_t0005")
    assert "4f1c2a9d0be37715" in page
    assert "Lineage complete" in page


def test_what_did_not_change_is_answered_with_304(filled: Filled, tab: Any) -> None:
    mine = tab("viewer")
    for address in (
        "/?part=live",
        f"/devices/{filled.devices[0]}?part=live",
        f"/deployments/{filled.deployments['running']}?part=live",
    ):
        first = mine.get(address)
        assert "<html" not in first.text, address
        again = mine.get(address, 304, **{"if-none-match": first.headers["etag"]})
        assert again.content == b""


def test_a_part_changes_when_the_tables_do(filled: Filled, tab: Any, context: Context) -> None:
    mine = tab("viewer")
    first = mine.get("/?part=live")
    with context.sessions() as db:
        device = db.query(Device).filter_by(name=filled.devices[0]).one()
        device.alarms = {"two-machines": "reports come from two machines with this key"}
    second = mine.get("/?part=live", **{"if-none-match": first.headers["etag"]})
    assert "reports come from two machines with this key" in second.text


@pytest.mark.usefixtures("filled")
def test_what_is_not_there_is_a_page_of_the_same_look(tab: Any) -> None:
    mine = tab("viewer")
    for address in ("/nowhere", "/devices/nobody", "/deployments/999", "/deployments/word", "/releases/77777777777777"):
        page = mine.get(address, 404)
        assert 'class="sheet"' in page.text, address
        assert "To the fleet" in page.text
    assert "there is no instrument nobody" in mine.text("/devices/nobody", 404)
    assert "找不到 instrument nobody" in tab("viewer", "zh-TW").text("/devices/nobody", 404)


def test_names_and_reasons_are_escaped(filled: Filled, tab: Any, context: Context) -> None:
    evil = '<script>alert("x")</script>'
    with context.sessions() as db:
        device = db.query(Device).filter_by(name=filled.devices[0]).one()
        device.alarms = {"x": evil}
        device.reported = {
            **device.reported,
            "experiment": evil,
            "health": {**device.reported["health"], "problems": [evil]},
        }
    for address in ("/", f"/devices/{filled.devices[0]}", f"/?q={evil}"):
        assert evil not in tab("viewer").get(address).text, address


def statements(context: Context, tab: Any, addresses: list[str]) -> dict[str, int]:
    """How many statements each view sends to the database."""
    counts: dict[str, int] = {}
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            sent.append(statement)

    mine = tab("admin")
    event.listen(context.database.engine, "before_cursor_execute", note)
    try:
        for address in addresses:
            mine.get(address)  # limits of rate are reserved in portions
            sent.clear()
            mine.get(address)
            counts[address] = len(sent)
    finally:
        event.remove(context.database.engine, "before_cursor_execute", note)
    return counts


def test_more_instruments_take_no_more_queries(context: Context, tab: Any) -> None:
    filled = fill(context, 60, frames=2, with_pictures=False)
    found = statements(
        context,
        tab,
        ["/", "/deployments", f"/deployments/{filled.deployments['running']}", "/releases", "/provisioning"],
    )
    assert max(found.values()) <= 14, found


def test_a_page_counts_frames_as_the_api_does(context: Context, filled: Filled, tab: Any) -> None:
    """A row can come before its frame is known; it counts when the frame does."""
    with context.sessions() as db:
        device = db.query(Device).filter_by(name=filled.devices[0]).one()
        row = (
            db.query(ResultRow).filter_by(device_id=device.id, experiment=filled.experiment, superseded_by=None).first()
        )
        assert row is not None
        values = {c.name: getattr(row, c.name) for c in ResultRow.__table__.columns if c.name != "id"}
        db.add(ResultRow(**{**values, "frame": "Z9_t0001"}))
    with context.reading() as db:
        counts = {e.name: c for e, c in results.experiments(db, device.id)}[filled.experiment]
    assert counts.rows == counts.segmented + 1
    page = tab("viewer").text(f"/devices/{filled.devices[0]}?experiment={filled.experiment}")
    assert f"{counts.segmented:,} of {counts.taken:,} frames segmented" in page


def test_curves_of_a_long_experiment_are_averaged_in_the_database(context: Context, filled: Filled, tab: Any) -> None:
    with context.sessions() as db:
        device = db.query(Device).filter_by(name=filled.devices[0]).one()
        now = context.clock.now()
        for i in range(1000):
            name = f"A1_x{i:04d}"
            frame = FrameRow(
                device_id=device.id, experiment=filled.experiment, name=name, index=5000 + i, well="A1", time_s=60.0 * i,
                taken_at=now, sha256="0" * 64, bytes=1,
            )  # fmt: skip
            row = ResultRow(
                device_id=device.id, experiment=filled.experiment, frame=name, pin=1, run_digest="1" * 64,
                bundle_sha256="2" * 64, variant="v", count=i, confluence_percent=i / 10, details={}, mask_sha256="3" * 64,
                segmented_at=now,
            )  # fmt: skip
            db.add_all((frame, row))
    from cellfleet.fleet.pages.queries.device_queries import MAX_POINTS, curves, plate

    with context.reading() as db:
        points = curves(db, device.id, filled.experiment, ["A1"])["A1"]
        assert 100 < len(points) <= MAX_POINTS + 2
        assert points == sorted(points)
        assert points[-1][1] == pytest.approx(99.8, abs=0.3)
        newest = {r.well: r for r in plate(db, device.id, filled.experiment)}
        assert newest["A1"].count == 999
    assert "A1" in tab("viewer").text(f"/devices/{filled.devices[0]}")
