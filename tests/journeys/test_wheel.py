"""The wheel: installed elsewhere, with the libraries of a device only, it segments; nothing of the checkout is in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from support_bundle import discs, tiny_bundle
from support_images import write_tiff

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = (
    *("torch", "monai", "mlflow", "sqlalchemy", "pyarrow", "jinja2", "openvino", "scipy", "zarr", "yaozarrs"),
    *("imagecodecs", "bioimageio", "yaml", "pycocotools", "onnxscript", "skimage"),
)
"""Libraries that no device installs."""
ONLY = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
import cellfleet
assert cellfleet.__file__.startswith(sys.argv.pop(1)), cellfleet.__file__
from cellfleet.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git keeps, so that the checkout's own build is left alone."""
    where = tmp_path_factory.mktemp("wheel")
    source = where / "source"
    wanted = ("cpp", "src", "pyproject.toml", "README.md", "LICENSE")
    source.mkdir()
    for name in wanted:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "-w", "dist", "./source"],
        cwd=where, env={**os.environ, "PIP_CONSTRAINT": str(ROOT / "requirements.lock")}, check=True,
    )  # fmt: skip
    (built,) = (where / "dist").glob("cellfleet-*.whl")
    return built


def elsewhere(installed: Path, *line: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python where the wheel is and the checkout is not: without `site`, which would add the editable install."""
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("CELLFLEET_")},
        "PYTHONPATH": os.pathsep.join([str(installed), sysconfig.get_paths()["purelib"]]),
        "CELLFLEET_CACHE": str(cwd / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-S", *map(str, line)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed in it."""
    target = tmp_path_factory.mktemp("elsewhere") / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    return target


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_what_is_in_it(wheel: Path) -> None:
    inside = names(wheel)
    sources = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src" / "cellfleet").rglob("*.py")}
    assert sources <= set(inside)
    assert any(re.fullmatch(r"cellfleet/_kernels\.[\w.-]+", name) for name in inside)
    templates = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.j2")}
    templates |= {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.html")}
    assert templates
    assert templates <= set(inside)
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_nothing_else_is_in_it(wheel: Path) -> None:
    for name in names(wheel):
        assert name.startswith(("cellfleet/", "cellfleet-")), name
        assert "test" not in name.lower().replace("selftest", "")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            for folder in (ROOT, wheel.parent.parent, Path.home()):
                assert os.fspath(folder).encode() + b"/" not in data, f"{name} names {folder}"


def test_the_base_needs_no_more_than_a_device_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
        (entry,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "cellfleet=cellfleet.cli.entry:main" in archive.read(entry).decode().replace(" ", "")
    base = {
        re.split(r"[^\w.-]", line.split()[1])[0].lower()
        for line in lines
        if line.startswith("Requires-Dist") and "extra ==" not in line
    }
    assert base
    assert not base & set(EXTRAS)


def test_a_device_segments_with_it(installed: Path, tmp_path: Path) -> None:
    """Segment, show and lineage outside the checkout, where the libraries of the extras cannot be imported."""
    bundle = tiny_bundle(tmp_path)
    write_tiff(tmp_path / "frames" / "t0.tif", discs(0)[0])

    def device(*argv: str) -> str:
        return elsewhere(installed, "-c", ONLY, ",".join(EXTRAS), installed, *argv, cwd=tmp_path).stdout

    facts = json.loads(device("segment", str(bundle), "frames", "--out", "out", "--json"))
    assert (facts["objects"], facts["parquet"]) == (6, False)
    assert "pip install 'cellfleet[tables]'" in device("segment", str(bundle), "frames", "--out", "out")
    assert facts["bundle_sha256"] in device("bundle", "show", str(bundle))
    masks = list(Path(facts["folder"]).glob("masks/*.tif"))
    assert facts["run_digest"] in device("lineage", str(masks[0]), "--bundle", str(bundle))
    assert device("--version").startswith("cellfleet ")
    device("init", "project")


def test_the_program_itself_starts(installed: Path, tmp_path: Path) -> None:
    program = installed / "bin" / ("cellfleet.exe" if os.name == "nt" else "cellfleet")
    done = elsewhere(installed, program, "--help", cwd=tmp_path)
    assert "segment" in done.stdout


def test_every_extra_that_a_hint_names_exists() -> None:
    extras = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    )
    named = {
        extra.strip()
        for file in [*(ROOT / "src").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for group in re.findall(r"cellfleet\[([\w, -]+)\]", file.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert named
    assert named <= extras
