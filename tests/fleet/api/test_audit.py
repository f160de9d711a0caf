"""Events over the API: newest first, in portions, by what they begin with."""

from __future__ import annotations

from cellfleet.fleet import audit
from cellfleet.fleet.context import Context
from support_fleet import World


def note(context: Context, count: int, word: str = "thing") -> None:
    for i in range(count):
        with context.sessions() as db:
            audit.record(db, context, "person:anna", f"{word}.done", f"{word}:{i}", "because", number=i, name="é\u4e2d")


def test_events_over_the_api(context: Context, world: World) -> None:
    viewer = world.as_role("viewer")
    note(context, 3, "door")
    note(context, 2, "window")
    first = viewer.get("/api/v1/audit", params={"limit": 2}).json()
    assert [e["subject"] for e in first["items"]] == ["window:1", "window:0"]
    older = viewer.get("/api/v1/audit", params={"limit": 100, "after": first["next"]}).json()
    assert [e["seq"] for e in older["items"]] == [3, 2, 1]
    assert older["next"] == ""
    doors = viewer.get("/api/v1/audit", params={"subject": "door:"}).json()["items"]
    assert len(doors) == 3
    assert viewer.get("/api/v1/audit", params={"subject": "d%"}).json()["items"] == []
    verdict = viewer.get("/api/v1/audit/verify").json()
    assert (verdict["whole"], verdict["count"], verdict["broken_at"]) == (True, 5, None)
