"""Online keys that are rotated while the server runs: what it signs from then on is signed by the new ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cellfleet.errors import TrustError
from cellfleet.fleet import trust_repository
from cellfleet.fleet.context import Context
from cellfleet.fleet.refusals import RequestRefused
from cellfleet.fleet.store.models import TrustFile
from cellfleet.trust import TrustFolder, Verifier
from cellfleet.trust.rotation import rotate
from support_fleet import World
from support_rollout import Publisher, secrets


def verifier_of(context: Context, publisher: Publisher, home: Path, device: str) -> Verifier:
    """An instrument that reads the server's table."""

    def fetch(*folders: str) -> Callable[[str, int], bytes | None]:
        def read(name: str, _most_bytes: int) -> bytes | None:
            with context.reading() as db:
                found = [f for f in (db.get(TrustFile, folder + name) for folder in folders) if f is not None]
                return found[0].content if found else None

        return read

    return Verifier(
        home,
        TrustFolder.load(publisher.folder).anchors(),
        fetch("image/"),
        fetch(f"director/{device}/", "director/"),
        context.clock,
        device_id=device,
    )


@pytest.mark.parametrize("key", ["timestamp", "director", "root-1", "snapshot", "allowances"])
def test_instruments_go_on_after_a_rotation(
    context: Context, publisher: Publisher, world: World, later: Callable[[float], None], tmp_path: Path, key: str
) -> None:
    device = world.device("a-1", group="a")
    trust_repository.renew(context)
    instrument = verifier_of(context, publisher, tmp_path / "home", device.device_id)
    instrument.refresh()
    later(60)
    rotate(TrustFolder.load(publisher.folder), key, secrets, context.clock.now())
    later(1)
    assert trust_repository.take_folder(context)
    later(1)
    trust_repository.renew(context)
    instrument.refresh()
    assert trust_repository.renew(context) == 0, "once"


def test_a_key_without_its_root_is_not_signed_with(context: Context, publisher: Publisher) -> None:
    """The folder is being copied to the server: the book came, the root did not yet."""
    context.service(trust_repository.LoadedKeys).get()
    rotate(TrustFolder.load(publisher.folder), "director", secrets, context.clock.now())
    root = publisher.folder / "director" / "2.root.json"
    content = root.read_bytes()
    root.unlink()
    with pytest.raises(RequestRefused, match="does not know the key director") as e:
        context.service(trust_repository.LoadedKeys).get()
    assert e.value.status == 503
    root.write_bytes(content)
    context.service(trust_repository.LoadedKeys).get()


def test_a_folder_of_another_publisher_is_refused(context: Context, publisher: Publisher, tmp_path: Path) -> None:
    other = TrustFolder.init(tmp_path / "other", secrets, context.clock.now())
    rotate(other, "snapshot", secrets, context.clock.now())
    for name in ("2.root.json", "2.snapshot.json"):
        (publisher.folder / "image" / name).write_bytes(other.image_files()[name])
    with pytest.raises(TrustError):
        trust_repository.take_folder(context)
