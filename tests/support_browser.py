"""Headless Chromium, and a fleet server with a filled database on a free port of loopback."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from cellfleet.config.fleet import FleetSection
from cellfleet.config.project import Project, Settings
from cellfleet.fleet import trust_repository
from cellfleet.fleet.app import create_app
from cellfleet.fleet.context import Context, open_context
from cellfleet.fleet.people import accounts
from cellfleet.trust import TrustFolder
from support_fleet_data import Filled, fill
from support_rollout import PASSPHRASE, secrets
from support_waiting import PATIENCE_S, wait_until

NAME, PASSWORD = "ada", "a long password"
ONLINE = "CELLFLEET_ONLINE_PASSPHRASE"
PARTS = Path(__file__).resolve().parents[1] / "scripts" / "chromium-parts.sh"


@contextmanager
def browser() -> Iterator[Any]:
    """A driver of headless Chromium, which is installed when the machine has none; it keeps the console's log."""
    found = subprocess.run(["sh", str(PARTS)], check=True, stdout=subprocess.PIPE, text=True).stdout.split("\n")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    try:
        yield driver
    finally:
        driver.quit()


def wait(driver: Any) -> WebDriverWait[Any]:
    """Waits with a deadline."""
    return WebDriverWait(driver, PATIENCE_S, poll_frequency=0.1)


def wait_for_text(driver: Any, selector: str, words: str) -> None:
    """Wait until the first element of a selector contains words; the element may be replaced meanwhile."""
    script = "return document.querySelector(arguments[0])?.textContent ?? ''"
    wait(driver).until(lambda d: words in d.execute_script(script, selector))


def sign_in(driver: Any, address: str) -> None:
    """Sign in through the form."""
    driver.get(f"{address}/sign-in?lang=en")
    driver.find_element("name", "name").send_keys(NAME)
    driver.find_element("name", "password").send_keys(PASSWORD)
    driver.find_element("css selector", "main form button").click()
    wait(driver).until(lambda d: "/sign-in" not in d.current_url)


@contextmanager
def served(home: Path, devices: int, role: str = "admin") -> Iterator[tuple[str, Filled, Context]]:
    """A filled fleet with one person, served; its address, what was written, and its context."""
    before = os.environ.get(ONLINE)
    os.environ[ONLINE] = PASSPHRASE
    settings = Settings(fleet=FleetSection(max_logins_per_min=1000, max_requests_per_min=100_000))
    context = open_context(Project(root=home, settings=settings, found=True))
    filled = fill(context, devices)
    TrustFolder.init(context.path(context.settings.trust), secrets, context.clock.now())
    trust_repository.take_folder(context)
    with context.sessions() as db:
        accounts.add(db, context, "server", NAME, role, PASSWORD)
    server = uvicorn.Server(uvicorn.Config(create_app(context), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{_port(server, thread)}", filled, context
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        context.close()
        os.environ.pop(ONLINE)
        if before is not None:
            os.environ[ONLINE] = before


def _port(server: uvicorn.Server, thread: threading.Thread) -> int:
    wait_until(lambda: server.started, "the server starts", alive=thread.is_alive)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
