"""The chain over the API."""

from __future__ import annotations

from support_fleet import TestClient
from support_fleet_lineage import Story


def test_what_is_not_there(story: Story, client: TestClient) -> None:
    story.segment()
    for path in ("XYZ-404/p1/A1_0001", "XYZ-001/p1/A1_0009", "XYZ-001/p9/A1_0001", f"run/{'0' * 64}"):
        assert story.http.get(f"/api/v1/lineage/{path}").status_code == 404
    assert story.http.get("/api/v1/lineage/XYZ-001/..%2f..%2fetc/passwd").status_code in (404, 422)
    assert client.get("/api/v1/lineage/XYZ-001/p1/A1_0001").status_code == 401
