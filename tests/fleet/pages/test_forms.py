"""Forms: role and session are checked on the server, a viewer sees no button, and what is done is in the tables."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cellfleet.fleet.context import Context
from cellfleet.fleet.people import access, accounts
from cellfleet.fleet.store.models import AuditEvent, Deployment, Device, DeviceGroup, Release, User
from support_fleet import TestClient, World
from support_fleet_data import Filled


def posts(page: str) -> set[str]:
    """Addresses that forms of a page post to."""
    return set(re.findall(r'<form method="post" action="([^"]+)"', page)) - {"/sign-out"}


def forms(filled: Filled) -> dict[str, dict[str, str]]:
    """Everything that can be posted, with fields that would do."""
    running, halted = filled.deployments["running"], filled.deployments["halted"]
    device = filled.devices[0]
    return {
        f"/deployments/{running}/halt": {"reason": "looks odd"},
        f"/deployments/{running}/cancel": {"reason": "no more"},
        f"/deployments/{running}/approve": {},
        f"/deployments/{halted}/resume": {"reason": "looked at"},
        "/deployments/new": {"release_id": str(filled.releases["1.1.0"]), "group": "pilot", "size_0": "1"},
        f"/releases/{filled.releases['1.1.0']}/withdraw": {"reason": "a bug"},
        f"/devices/{device}/group": {"group": "asia"},
        f"/devices/{device}/tags": {"tags": "a b"},
        f"/devices/{device}/alarms": {"reason": "looked at"},
        f"/devices/{device}/revoke": {"reason": "stolen"},
        "/provisioning/claims": {"note": "x", "hours": "2"},
        "/provisioning/groups": {"name": "new-group"},
        "/provisioning/Graz-new/accept": {"group": "pilot"},
        "/provisioning/Graz-new/reject": {},
        "/people": {"name": "eve", "role": "admin", "password": "long enough 1"},
        "/people/viewer/role": {"role": "admin"},
        "/people/viewer/disable": {},
        "/people/viewer/enable": {},
    }


def state(context: Context) -> dict[str, Any]:
    """What forms could change."""
    with context.reading() as db:
        return {
            "deployments": [(d.id, d.state) for d in db.query(Deployment).order_by(Deployment.id)],
            "releases": [(r.id, r.withdrawn_at) for r in db.query(Release).order_by(Release.id)],
            "devices": [(d.id, d.state, d.group_id, d.tags) for d in db.query(Device).order_by(Device.id)],
            "groups": [g.name for g in db.query(DeviceGroup)],
            "people": [(u.name, u.role, u.disabled) for u in db.query(User).order_by(User.name)],
            "audit": db.query(AuditEvent).count(),
        }


def test_a_viewer_sees_no_forms_and_is_refused(filled: Filled, tab: Any, context: Context) -> None:
    mine = tab("viewer")
    pages = ["/", f"/devices/{filled.devices[0]}", "/deployments", "/releases", "/provisioning", "/audit"]
    pages += [f"/deployments/{n}" for n in filled.deployments.values()]
    pages += [f"/releases/{n}" for n in filled.releases.values()]
    for address in pages:
        assert posts(mine.get(address).text) == set(), address
    before = state(context)
    for address, fields in forms(filled).items():
        refused = mine.post(address, 403, **fields)
        assert "the role" in refused.text, address
    assert state(context) == before
    mine.get("/deployments/new", 403)
    mine.get("/people", 403)


@pytest.mark.parametrize("csrf", ["", "x" * 43])
def test_a_form_of_another_site_is_refused(filled: Filled, tab: Any, context: Context, csrf: str) -> None:
    mine = tab("admin")
    tab("viewer")
    before = state(context)
    for address, fields in forms(filled).items():
        assert mine.post(address, 403, **{**fields, "csrf": csrf}).status_code == 403
    assert state(context) == before


def test_nobody_can_post(filled: Filled, client: TestClient, context: Context) -> None:
    before = state(context)
    for address, fields in forms(filled).items():
        assert client.post(address, data=fields, headers={"accept": "text/html"}).status_code == 401, address
    assert state(context) == before


@pytest.mark.usefixtures("publisher")
def test_an_operator_halts_with_a_reason(filled: Filled, tab: Any, context: Context) -> None:
    mine, number = tab("operator"), filled.deployments["running"]
    address = f"/deployments/{number}"
    assert posts(mine.get(address).text) == {f"{address}/halt", f"{address}/cancel"}
    mine.post(f"{address}/halt", 422, reason="  ")
    answer = mine.post(f"{address}/halt", reason="the curves look odd")
    page = mine.text(answer.headers["location"])
    assert "The deployment is halted." in page
    assert "operator: the curves look odd" in page
    assert "deployment halted operator the curves look odd" in page
    assert posts(mine.get(address).text) == {f"{address}/resume", f"{address}/cancel"}
    mine.post(f"{address}/halt", 409, reason="again")
    mine.post(f"{address}/cancel", reason="given up")
    with context.reading() as db:
        assert db.get_one(Deployment, number).state == "cancelled"


@pytest.mark.usefixtures("filled")
def test_an_operator_accepts_into_a_group(tab: Any, context: Context) -> None:
    mine = tab("operator")
    assert "Graz-new" in mine.text("/provisioning")
    answer = mine.post("/provisioning/Graz-new/accept", group="pilot")
    assert "The instrument is accepted." in mine.text(answer.headers["location"])
    with context.reading() as db:
        device = db.query(Device).filter_by(name="Graz-new").one()
        assert device.state == "accepted"
        assert device.group_id == db.query(DeviceGroup).filter_by(name="pilot").one().id
    page = mine.post("/provisioning/nobody/accept", 404)
    assert "there is no instrument nobody" in page.text


@pytest.mark.usefixtures("filled")
def test_a_claim_token_is_shown_once(tab: Any, world: World) -> None:
    world.trust()
    mine = tab("operator")
    answer = mine.post("/provisioning/claims", 200, note="Basel, bench 4", hours="2")
    token = re.search(r'id="token">([^<]+)<', answer.text)
    assert token is not None
    assert answer.headers["cache-control"] == "no-store"
    again = mine.get("/provisioning").text
    assert token[1] not in again
    assert "Basel, bench 4" in again
    mine.post("/provisioning/claims", 422, hours="-3")
    mine.post("/provisioning/claims", 422, hours="nan")


def test_groups_and_tags(filled: Filled, tab: Any, context: Context) -> None:
    mine, name = tab("operator"), filled.devices[0]
    mine.post("/provisioning/groups", name="japan", description="customers in Japan")
    mine.post("/provisioning/groups", 409, name="japan")
    mine.post(f"/devices/{name}/group", group="japan")
    mine.post(f"/devices/{name}/tags", tags="20x, CO2,20x")
    with context.reading() as db:
        device = db.query(Device).filter_by(name=name).one()
        assert device.tags == ["20x", "CO2"]
    assert "japan" in mine.text(f"/devices/{name}")
    mine.post(f"/devices/{name}/revoke", 422)
    mine.post(f"/devices/{name}/revoke", reason="sold")
    assert "revoked" in mine.text(f"/devices/{name}")


def test_alarms_are_cleared_with_a_reason(filled: Filled, tab: Any, context: Context) -> None:
    mine, name = tab("operator"), filled.devices[0]
    assert f"/devices/{name}/alarms" not in posts(mine.get(f"/devices/{name}").text)
    with context.sessions() as db:
        db.query(Device).filter_by(name=name).one().alarms = {"two-machines": "two machines use one key"}
    assert f"/devices/{name}/alarms" in posts(mine.get(f"/devices/{name}").text)
    mine.post(f"/devices/{name}/alarms", 422)
    mine.post(f"/devices/{name}/alarms", reason="the old host was switched on again")
    assert "two machines use one key" not in mine.text(f"/devices/{name}")
    assert "the old host was switched on again" in tab("viewer").text("/audit")


def test_an_operator_withdraws(filled: Filled, tab: Any) -> None:
    number = filled.releases["1.1.0"]
    tab("viewer").post(f"/releases/{number}/withdraw", 403, reason="a bug")
    mine = tab("operator")
    mine.post(f"/releases/{number}/withdraw", 422)
    mine.post(f"/releases/{number}/withdraw", reason="a bug")
    assert "withdrawn" in mine.text(f"/releases/{number}")
    assert f'value="{number}"' not in mine.get("/deployments/new").text


def test_a_form_with_a_mistake_keeps_what_was_typed(filled: Filled, tab: Any) -> None:
    mine = tab("operator")
    fields = {
        "release_id": str(filled.releases["1.1.0"]),
        "group": "europe",
        "reason": "typed with care",
        "size_0": "many",
    }
    page = mine.post("/deployments/new", 422, **fields)
    assert "is not a size" in page.text
    assert 'value="typed with care"' in page.text
    busy = mine.post("/deployments/new", 409, **{**fields, "size_0": "1"})
    assert "has not ended" in busy.text


def test_what_is_chosen_for_a_new_deployment(filled: Filled, tab: Any) -> None:
    page = tab("operator").get("/deployments/new").text
    assert f'<option value="{filled.releases["1.1.0"]}" selected>' in page  # 1.2.0 is newer, but was forced out
    asked = tab("operator").get(f"/deployments/new?release={filled.releases['1.0.0']}").text
    assert f'<option value="{filled.releases["1.0.0"]}" selected>' in asked


@pytest.mark.usefixtures("filled")
def test_people_are_for_admins(tab: Any, context: Context) -> None:
    mine = tab("admin")
    tab("operator").post("/people", 403, name="eve", role="admin", password="long enough 1")
    mine.post("/people", 422, name="eve", role="viewer", password="short")
    mine.post("/people", name="eve", role="viewer", password="long enough 1")
    mine.post("/people", 409, name="eve", role="viewer", password="long enough 1")
    mine.post("/people/eve/role", role="operator")
    mine.post("/people/eve/disable")
    with context.reading() as db:
        eve = accounts.find(db, "eve")
        assert (eve.role, eve.disabled) == ("operator", True)
    assert mine.post("/people/admin/role", 409, role="viewer").status_code == 409


def sign_in(client: TestClient, **fields: str) -> Any:
    page = client.get("/sign-in?next=/releases", headers={"accept": "text/html"})
    form = re.search(r'name="form" value="([^"]+)"', page.text)
    assert form is not None
    return client.post("/sign-in", data={"form": form[1], "next": "/releases", **fields}, follow_redirects=False)


def test_signing_in_and_out(context: Context, client: TestClient) -> None:
    with context.sessions() as db:
        accounts.add(db, context, "server", "ada", "viewer", "a long password")
    wrong = sign_in(client, name="ada", password="something else")
    assert wrong.status_code == 401
    assert "that name or password is wrong" in wrong.text
    assert 'value="ada"' in wrong.text
    right = sign_in(client, name="ada", password="a long password")
    assert (right.status_code, right.headers["location"]) == (303, "/releases")
    assert "HttpOnly" in right.headers["set-cookie"]
    home = client.get("/")
    csrf = re.search(r'name="csrf" value="([^"]+)"', home.text)
    assert csrf is not None
    out = client.post("/sign-out", data={"csrf": csrf[1]}, follow_redirects=False)
    assert out.headers["location"].startswith("/sign-in")
    assert client.get("/", follow_redirects=False).status_code == 303


def test_a_forged_sign_in_is_refused(context: Context, client: TestClient) -> None:
    with context.sessions() as db:
        accounts.add(db, context, "server", "ada", "viewer", "a long password")
    fields = {"name": "ada", "password": "a long password", "form": "guess"}
    assert client.post("/sign-in", data=fields, headers={"accept": "text/html"}).status_code == 403
    assert access.COOKIE not in client.cookies


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"]
)
def test_signing_in_leads_to_this_server_only(to: str) -> None:
    from cellfleet.fleet.pages.page_request import safe_next

    assert safe_next(to) == "/"
    assert safe_next("/devices/x?by=count") == "/devices/x?by=count"
