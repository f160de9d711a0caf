"""Record cellfleet of an older commit for the journeys of `tests/journeys`, as small archives.

    .venv/bin/python scripts/record_previous.py side    # its sources
    .venv/bin/python scripts/record_previous.py site    # a project, a database and an instrument, made by those sources

Needs the git history; the recordings are committed, so that a shallow clone and a source archive can run the journeys.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support_bundle import discs  # noqa: E402
from support_images import write_tiff  # noqa: E402
from support_journeys import TOML  # noqa: E402
from support_pairing import GROUP, QUICK, SECRETS, Pairing  # noqa: E402
from support_previous import REVISION, SIDE, SITE, Side, unpack_side  # noqa: E402
from support_training import tiny_data  # noqa: E402
from support_waiting import wait_until  # noqa: E402

SLOW = {"camera.interval_s": "1.5", "camera.plate": "plate 7"}
VERSIONS = ("0.1.0", "0.2.0")
LEFT_OUT = re.compile(r"\.pt$|\.log$|mlflow\.db$|^evaluations/.*(report\.html|/overlays/.*)$")
"""Weights, logs and pictures: large, and no later version reads them."""


def record_side(revision: str) -> None:
    """Pack `src/cellfleet` of a commit."""
    command = ["git", "-C", str(ROOT), "archive", f"{revision}:src", "cellfleet"]
    found = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(found)) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    write_archive(SIDE, files)


def record_site() -> None:
    """Make a project from data to bundles, release it, and stop an instrument in the middle of its second update."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "site"
        side = Side("previous", Path(folder) / "side")
        unpack_side(Path(folder) / "side")
        site = Pairing(root, side, side)
        _train(site)
        with site.serving():
            QUICK.update(SLOW)
            site.provision()
            with site.running():
                for version in VERSIONS:
                    _publish(site, version)
                assert site.deploy(VERSIONS[0])["state"] == "succeeded"
                assert site.deploy(VERSIONS[1], selftest_max_memory_mb=1)["state"] == "refused"
                _stop_deferred(site)
        files = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    facts = {"root": str(root), "token": site.token}
    files["recorded.json"] = json.dumps(facts).encode()
    write_archive(SITE, {n: b for n, b in files.items() if not LEFT_OUT.search(n)})


def _train(site: Pairing) -> None:
    """Two versions of a small model, from images to evaluated bundles, and masks of the first."""
    run = lambda *argv: site.device.run(*argv, cwd=site.root, **SECRETS)  # noqa: E731
    tiny_data(site.root / "data")
    write_tiff(site.root / "frames-to-segment" / "A1.tif", discs(3)[0])
    settings = site.root / "cellfleet.toml"
    settings.write_text(TOML, encoding="utf-8")
    run("data", "freeze")
    run("train")
    for version in VERSIONS:
        settings.write_text(TOML.replace('name = "discs"', f'name = "discs"\nversion = "{version}"'), encoding="utf-8")
        run("export")
        run("optimize")
        run("bundle", "build")
        run("evaluate", _bundle(version))
    run("segment", _bundle(VERSIONS[0]), "frames-to-segment", "--out", "out")
    run("trust", "init")
    text = settings.read_text(encoding="utf-8")
    site.found_project()
    settings.write_text(text + settings.read_text(encoding="utf-8"), encoding="utf-8")


def _bundle(version: str) -> str:
    return f"bundles/discs-{version}.bundle.zip"


def _publish(site: Pairing, version: str) -> None:
    variables = {"CELLFLEET_SERVER": site.address, "CELLFLEET_API_TOKEN": site.token, **SECRETS}
    made = site.device.facts("release", "publish", _bundle(version), cwd=site.root, **variables)
    site.releases[version] = int(made["release"]["release_id"])


def _stop_deferred(site: Pairing) -> None:
    """Offer the second version while a lease holds updates back, and go on for a while without the server."""
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    lease = {"holder": "plate reader", "reason": "a long experiment runs", "expires_at": until}
    (site.home / "inhibit").mkdir(exist_ok=True)
    (site.home / "inhibit" / "reader.json").write_text(json.dumps(lease), encoding="utf-8")
    body = {"release_id": site.releases[VERSIONS[1]], "group": GROUP, "phases": [{"percent": 100}]}
    site.api.post("/api/v1/deployments", body)
    wait_until(lambda: _status(site)["state"] == "deferred", lambda: _status(site))
    wait_until(lambda: _status(site)["health"]["spool_items"] < 3, lambda: _status(site))
    assert site.process is not None
    assert site.process.stdin is not None
    site.process.stdin.close()
    site.process.wait(60)
    wait_until(lambda: _status(site)["health"]["spool_items"] >= 6, lambda: _status(site))


def _status(site: Pairing) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((site.home / "state" / "status.json").read_bytes())
    return found


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    """A tar.xz of files that depends on their names and bytes only."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(plain.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    sys.stdout.write(f"{path.relative_to(ROOT)}: {len(files)} files, {path.stat().st_size / 1000:.0f} kB\n")


def main() -> int:
    """Record what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["side", "site"])
    parser.add_argument("--revision", default=REVISION)
    options = parser.parse_args()
    record_side(options.revision) if options.what == "side" else record_site()
    return 0


if __name__ == "__main__":
    sys.exit(main())
