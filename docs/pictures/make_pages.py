"""Pictures of the fleet's pages: fills a database, serves it on loopback, and photographs every view in headless Chromium.

    python docs/pictures/make_pages.py FOLDER [--devices 3 --devices 500] [--width 1440 --width 400] [--language en]
    python docs/pictures/make_pages.py FOLDER --readme

Needs the environment of development; Chromium is installed by apt when the machine has none.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from PIL import Image  # noqa: E402

from support_browser import browser, served, sign_in, wait  # noqa: E402
from support_fleet_data import Filled  # noqa: E402

README = {"fleet": ("fleet.png", 1120, 1200)}
"""View -> file of the README, height that is kept, width it is scaled to."""


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", type=int, action="append")
    parser.add_argument("--width", type=int, action="append")
    parser.add_argument("--language", choices=("en", "zh-TW"), action="append")
    parser.add_argument("--view", action="append", help="only views whose name has this text")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--viewport", type=int, default=0, help="height of the picture (default: the whole page)")
    parser.add_argument("--readme", action="store_true", help="fleet.png of the README beside this script, no others")
    asked = parser.parse_args()
    if asked.readme:
        asked.devices, asked.width, asked.language, asked.view = [24], [1440], ["en"], list(README)
    asked.folder.mkdir(parents=True, exist_ok=True)
    for devices in asked.devices or (3, 500):
        with (
            tempfile.TemporaryDirectory() as home,
            served(Path(home), devices) as (address, filled, _),
            browser() as driver,
        ):
            for width in asked.width or (1440, 400):
                for language in asked.language or ("en", "zh-TW"):
                    photograph(driver, address, filled, asked, devices, width, language)
    if asked.readme:
        for view, (name, height, width) in README.items():
            smaller(asked.folder / f"24-1440-en-{view}.png", Path(__file__).with_name(name), height, width)


def smaller(source: Path, target: Path, height: int, width: int) -> None:
    """The top of a picture, scaled to a width, with 256 colours."""
    with Image.open(source) as whole:
        top = whole.convert("RGB").crop((0, 0, whole.width, min(height, whole.height)))
    scaled = top.resize((width, top.height * width // top.width), Image.Resampling.LANCZOS)
    scaled.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(target, optimize=True)


def views(filled: Filled) -> dict[str, str]:
    """Name of the picture -> address."""
    device = filled.devices[0]
    return {
        "sign-in": "/sign-in",
        "fleet": "/",
        "device": f"/devices/{device}",
        "frame": f"/devices/{device}/frames/{filled.experiment}/B2_t0035",
        "deployments": "/deployments",
        "deployment": f"/deployments/{filled.deployments['running']}",
        "halted": f"/deployments/{filled.deployments['halted']}",
        "new": "/deployments/new",
        "releases": "/releases",
        "release": f"/releases/{filled.releases['1.1.0']}",
        "override": f"/releases/{filled.releases['1.2.0']}",
        "provisioning": "/provisioning",
        "audit": "/audit?check=1",
        "people": "/people",
        "missing": "/devices/nobody",
    }


def photograph(driver: Any, address: str, filled: Filled, asked: Any, devices: int, width: int, language: str) -> None:
    """All views at one width in one language."""
    mode = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 760}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mode)
    scheme = [
        {"name": "prefers-color-scheme", "value": asked.scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    for name, path in views(filled).items():
        if asked.view and not any(text in name for text in asked.view):
            continue
        driver.delete_all_cookies()
        if name != "sign-in":
            sign_in(driver, address)
        driver.get(f"{address}{path}{'&' if '?' in path else '?'}lang={language}")
        wait(driver).until(_drawn)
        height = asked.viewport or driver.execute_script("return document.documentElement.scrollHeight")
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, 6000), "scale": 1}
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        file = asked.folder / f"{devices}-{width}-{language}-{name}.png"
        file.write_bytes(base64.b64decode(shot["data"]))
        sys.stdout.write(f"{file}  {width} x {height}{f'  WIDER THAN THE SCREEN: {wide}' if wide > width else ''}\n")


def _drawn(driver: Any) -> bool:
    """All pictures are loaded and all charts have a canvas."""
    done: bool = driver.execute_script(
        "return document.readyState === 'complete' && [...document.images].every(i => i.complete || i.loading === 'lazy') &&"
        "[...document.querySelectorAll('[data-chart]')].every(c => c.querySelector('canvas'))"
    )
    return done


if __name__ == "__main__":
    main()
