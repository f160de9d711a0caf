"""Write a migration from what the tables (fleet/store/models.py) have and the migrations do not.

Usage: .venv/bin/python scripts/make_migration.py "what changes"
       .venv/bin/python scripts/make_migration.py --first     write 0001 again, while no release has shipped it
Look at what was written before it is committed; a test holds that migrations and tables agree on both databases.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import ScriptDirectory

from cellfleet.fleet.store.database import Database, alembic_config

FOLDER = Path(__file__).resolve().parents[1] / "src/cellfleet/fleet/store/migrations/versions"


def main(message: str) -> None:
    first = message == "--first"
    with tempfile.TemporaryDirectory() as folder:
        database = Database("sqlite:///empty.db", Path(folder))
        if not first:
            database.upgrade()
        with database.engine.begin() as connection:
            config = alembic_config(connection)
            config.attributes["first"] = first
            if first:
                config.set_main_option("version_locations", folder)
            number = 1 + len(list(ScriptDirectory.from_config(config).walk_revisions()))
            made = command.revision(
                config, "first tables" if first else message, autogenerate=True, rev_id=f"{number:04}"
            )
        database.close()
        assert made is not None
        assert not isinstance(made, list)
        path = FOLDER / Path(made.path).name
        shutil.move(made.path, path)
    ruff = Path(sys.executable).with_name("ruff")
    subprocess.run([ruff, "format", "--quiet", path], check=True)
    subprocess.run([ruff, "check", "--fix", "--quiet", path], check=True)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
