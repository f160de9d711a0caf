"""The pages in a browser: signing in, halting a deployment with the keyboard alone, parts that refresh by themselves,
nothing on the console, and what assistive programs need."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cellfleet.fleet.context import Context
from cellfleet.fleet.store.models import Deployment, Device
from support_accessibility import CHECKS
from support_browser import browser, served, sign_in, wait, wait_for_text

Fleet = tuple[str, Any, Context]
MOST_TABS = 60
WATCH_REFRESHES = """
window.refused = []
addEventListener("htmx:beforeRequest", (event) => window.refused.push(event.defaultPrevented))
"""
"""Notes of each refresh that is due whether the page refused it; at the window, so after the page has decided."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of twelve instruments, served."""
    with served(tmp_path_factory.mktemp("fleet"), 12) as found:
        yield found


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """A browser."""
    with browser() as found:
        yield found


@pytest.fixture(autouse=True)
def nothing_on_the_console(driver: Any) -> Iterator[None]:
    """Errors and violations of the content policy are on the console."""
    driver.get_log("browser")
    yield
    assert [e for e in driver.get_log("browser") if "favicon" not in e["message"]] == []


def at(driver: Any, fleet: Fleet, path: str) -> None:
    """Go to a page, signed in."""
    if driver.get_cookie("cellfleet_session") is None or fleet[0] not in driver.current_url:
        sign_in(driver, fleet[0])
    driver.get(f"{fleet[0]}{path}")
    driver.execute_script("window.sameDocument = true")


def active(driver: Any) -> Any:
    return driver.switch_to.active_element


def enter(driver: Any, name: str, text: str) -> None:
    """Type into a field; again when the part that holds it is replaced meanwhile."""

    def entered(d: Any) -> bool:
        try:
            field = d.find_element(By.ID, name)
            field.clear()
            field.send_keys(text)
            return bool(d.find_element(By.ID, name).get_attribute("value") == text)
        except StaleElementReferenceException:
            return False

    wait(driver).until(entered)


def press_until(driver: Any, wanted: str) -> None:
    """Press Tab until the focus is on the element of this selector."""
    for _ in range(MOST_TABS):
        active(driver).send_keys(Keys.TAB)
        if active(driver).get_attribute("outerHTML") and driver.execute_script(
            "return document.activeElement.matches(arguments[0])", wanted
        ):
            return
    raise AssertionError(f"{wanted} is not reached with {MOST_TABS} times Tab")


def test_a_deployment_is_halted_with_the_keyboard_alone(driver: Any, fleet: Fleet) -> None:
    address, filled, context = fleet
    number = filled.deployments["running"]
    driver.delete_all_cookies()
    driver.get(f"{address}/deployments/{number}?lang=en")
    assert "/sign-in" in driver.current_url
    assert active(driver).get_attribute("name") == "name"
    active(driver).send_keys("ada", Keys.TAB)
    active(driver).send_keys("a long password", Keys.ENTER)
    wait(driver).until(lambda d: f"/deployments/{number}" in d.current_url)
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert active(driver).get_attribute("class") == "skip"
    active(driver).send_keys(Keys.ENTER)
    press_until(driver, "#halt-reason")
    outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    active(driver).send_keys("the curves look odd", Keys.ENTER)
    wait_for_text(driver, "#halted", "ada: the curves look odd")
    with context.reading() as db:
        assert db.get_one(Deployment, number).state == "halted"


def test_a_part_refreshes_without_loading_the_page_and_keeps_the_focus(driver: Any, fleet: Fleet) -> None:
    _, filled, context = fleet
    name = filled.devices[0]
    at(driver, fleet, f"/devices/{name}?lang=en")
    driver.execute_script("document.getElementById('by-count').focus()")
    driver.execute_script("document.querySelector('details').open = true")
    with context.sessions() as db:
        device = db.query(Device).filter_by(name=name).one()
        device.alarms = {"two-machines": "reports come from two machines with this key"}
    wait_for_text(driver, "#live", "reports come from two machines with this key")
    assert driver.execute_script("return window.sameDocument") is True
    assert active(driver).get_attribute("id") == "by-count"
    assert driver.execute_script("return document.querySelector('details').open") is True
    assert "unwell" in driver.find_element(By.ID, "said").get_attribute("textContent")
    wait(driver).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, ".chart canvas")) == 2)
    with context.sessions() as db:
        db.query(Device).filter_by(name=name).one().alarms = {}


def test_what_is_being_typed_is_not_replaced(driver: Any, fleet: Fleet) -> None:
    _, filled, context = fleet
    number = filled.deployments["halted"]
    at(driver, fleet, f"/deployments/{number}?lang=en")
    enter(driver, "resume-reason", "half a sent")
    driver.execute_script("document.getElementById('main').focus()")
    with context.sessions() as db:
        row = db.get_one(Deployment, number)
        row.halted_reason, row.halted_data = "something new", None
    driver.execute_script(WATCH_REFRESHES)
    wait(driver).until(lambda d: len(d.execute_script("return window.refused")) >= 2)
    assert all(driver.execute_script("return window.refused"))
    field = driver.find_element(By.ID, "resume-reason")
    assert field.get_attribute("value") == "half a sent"
    field.clear()
    wait_for_text(driver, "#halted", "something new")


def test_the_server_being_away_is_told(driver: Any, fleet: Fleet) -> None:
    at(driver, fleet, "/?lang=en")
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        wait(driver).until(lambda d: d.find_element(By.ID, "offline").is_displayed())
        wait_for_text(driver, "#offline", "does not answer")
    finally:
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": False})
    wait(driver).until(lambda d: not d.find_element(By.ID, "offline").is_displayed())
    driver.get_log("browser")  # the failed requests


def views(filled: Any) -> list[str]:
    return [
        "/", f"/devices/{filled.devices[0]}", f"/devices/{filled.devices[0]}/frames/{filled.experiment}/B2_t0035",
        "/deployments", f"/deployments/{filled.deployments['running']}", f"/deployments/{filled.deployments['halted']}",
        "/deployments/new", "/releases", f"/releases/{filled.releases['1.2.0']}", "/provisioning", "/audit?check=1",
        "/people",
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 400])
def test_pages_do_for_assistive_programs_and_small_screens(driver: Any, fleet: Fleet, width: int, scheme: str) -> None:
    at(driver, fleet, "/")
    mode = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 760}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mode)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    found = {}
    try:
        for path in views(fleet[1]):
            driver.get(f"{fleet[0]}{path}{'&' if '?' in path else '?'}lang={'zh-TW' if scheme == 'dark' else 'en'}")
            problems = json.loads(driver.execute_script(CHECKS))
            if problems:
                found[path] = problems[:12]
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert found == {}
