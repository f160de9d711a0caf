"""``cellfleet init``: a project folder with a commented project file."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cellfleet.cli.common import JsonOption, print_json, say
from cellfleet.config import PROJECT_FILE, Settings
from cellfleet.config.model import Section
from cellfleet.errors import ConfigError
from cellfleet.ports import make_dir, write_atomic

_GITIGNORE = "/keys/*.pem\n/runs/\n/bundles/\n/evaluations/\n"


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The project folder; made if missing.")],
    as_json: JsonOption = False,
) -> None:
    """Write a commented cellfleet.toml and a .gitignore into DIR; never overwrite an existing project file."""
    file = folder / PROJECT_FILE
    if file.exists():
        raise ConfigError(f"{file} already exists", hint="edit it, or use another folder")
    make_dir(folder)
    write_atomic(file, project_text({"model.name": model_name(folder)}).encode())
    ignore = folder / ".gitignore"
    if not ignore.exists():
        write_atomic(ignore, _GITIGNORE.encode())
    if as_json:
        print_json({"project": str(file)})
        return
    say(f"made {file}")
    say(f"next: put images/ and masks/ into {folder / 'data'}, then `cellfleet data validate -p {folder}`")


def model_name(folder: Path) -> str:
    """Derive a model name from a folder's name."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("-._")[:64].rstrip("-._")
    return name or "cells"


MODELLING = ("model", "data", "training", "gate", "optimize", "bundle", "evaluation", "segment", "lineage")
SERVER = ("fleet",)
INSTRUMENT = ("device", "camera", "agent", "segment")


def project_text(values: Mapping[str, Any], sections: Iterable[str] = MODELLING) -> str:
    """Make the text of a project file: every setting with its meaning and default, commented out unless it is set.

    Args:
        values: ``section.key`` -> value to set.
        sections: sections to write.

    Returns:
        TOML.
    """
    parts = [
        "# The project file of cellfleet. Every line that is commented out shows a default.\n"
        "# Environment variables (CELLFLEET_TRAINING__EPOCHS=20) and flags (--set training.epochs=20) override it.\n"
    ]
    for section in sections:
        kind = Settings.model_fields[section].annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            parts.append(_section_text(section, kind, values))
    return "\n".join(parts)


def _section_text(section: str, kind: type[Section], values: Mapping[str, Any]) -> str:
    doc = (kind.__doc__ or "").partition(": ")[2]
    lines = [f"[{section}]  # {doc}"]
    for key, info in kind.model_fields.items():
        lines += [f"# {x}" for x in textwrap.wrap(info.description or "", 110)]
        own = values.get(f"{section}.{key}")
        if own is not None:
            lines.append(f"{key} = {_toml(own)}")
        elif info.default is None:
            lines.append(f"# {key} =")
        else:
            lines.append(f"# {key} = {_toml(info.default)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)
