"""Writes docs/cli.md from the program itself: commands with their options, settings, exit codes.

Run it with ``python docs/make_reference.py``; ``tests/test_docs.py`` checks that the page is current.
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any

import typer

from cellfleet.cli.exit_codes import ExitCode
from cellfleet.cli.main import COMMANDS, build_app
from cellfleet.config import ENV_PREFIX, Settings

PAGE = Path(__file__).resolve().parent / "cli.md"

_EXIT = {
    ExitCode.OK: "done",
    ExitCode.FINDINGS: "completed with findings: errors in the data, versions that differ, a failed gate or self-test, "
    "unreadable frames",
    ExitCode.USAGE: "wrong flags or settings",
    ExitCode.REFUSED: "an input that cannot be read, used or trusted",
    ExitCode.STORAGE: "a disk operation failed; no partial file is left",
    ExitCode.INTERNAL: "a defect of cellfleet",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C; no partial file is left",
}


def page() -> str:
    """The complete page, Markdown."""
    parts = [
        "# Command line and settings",
        "",
        "Generated from the program by `python docs/make_reference.py`.",
        "",
        "Every command reads settings from `cellfleet.toml` (in the current folder, a folder above, or `--project`), then "
        f"from the environment (`{ENV_PREFIX}TRAINING__EPOCHS=20`), then from flags (`--set training.epochs=20`). Results go "
        "to standard output, progress and errors to standard error. `--json` prints JSON only.",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "| --- | --- |",
        *(f"| {int(code)} | {_EXIT[code]} |" for code in ExitCode),
        "",
        "## Commands",
        "",
    ]
    for name in COMMANDS:
        command: Any = typer.main.get_command(build_app(name))
        parts += _command(f"cellfleet {name}", command.commands[name])
    parts += ["## Settings", ""]
    for section, info in Settings.model_fields.items():
        kind: Any = info.annotation
        parts += [f"### [{section}]", "", f"{(kind.__doc__ or '').partition(': ')[2]}", ""]
        parts += ["| key | default | meaning |", "| --- | --- | --- |"]
        for key, value in kind.model_fields.items():
            default = "" if value.default is None else f"`{_plain(value.default)}`"
            parts.append(f"| `{section}.{key}` ({_type(value.annotation)}) | {default} | {value.description} |")
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _command(name: str, command: Any) -> list[str]:
    if getattr(command, "commands", None):
        out: list[str] = []
        for sub, child in command.commands.items():
            out += _command(f"{name} {sub}", child)
        return out
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = " ".join([name, *(_argument(p) for p in arguments)])
    lines = [f"### {name}", "", " ".join((command.help or "").split()), "", "```", f"{usage} [OPTIONS]", "```", ""]
    lines += [f"- `{_argument(p)}`: {p.help}" for p in arguments if getattr(p, "help", "")]
    lines += [f"- `{_names(p)}`: {p.help}" for p in options if getattr(p, "help", "")]
    return [*lines, ""]


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _names(option: Any) -> str:
    names = ", ".join(option.opts) + (f" / {', '.join(option.secondary_opts)}" if option.secondary_opts else "")
    takes = "" if option.is_flag else f" {option.metavar or option.opts[0].lstrip('-').upper()}"
    return names + takes


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_plain(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _type(kind: Any) -> str:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_type(k) for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(f'"{v}"' for v in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"list of {_type(typing.get_args(kind)[0])}"
    names = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false"}
    return names.get(kind.__name__, str(kind.__name__))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
