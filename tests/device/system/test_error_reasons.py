"""Errors as reasons: every way in which trust or a bundle is refused has a code of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cellfleet.bundle import refusals as bundle_refusals
from cellfleet.device.system.error_reasons import CODES, error_reason
from cellfleet.errors import BundleError, CellfleetError, DeviceError, NetworkError, StorageError, TrustError
from cellfleet.trust import refusals as trust_refusals
from cellfleet.wire.reason import english
from cellfleet.wire.reason_texts import TEXTS


def below(kind: type[CellfleetError]) -> Iterator[type[CellfleetError]]:
    for found in kind.__subclasses__():
        yield found
        yield from below(found)


def test_every_refusal_has_a_code_of_its_own() -> None:
    refusals = {
        kind.__name__
        for root, module in ((TrustError, trust_refusals), (BundleError, bundle_refusals))
        for kind in below(root)
        if kind.__module__ == module.__name__ and not kind.__subclasses__()
    }
    assert len(refusals) >= 25
    assert refusals - set(CODES) == set()
    assert len(set(CODES.values())) == len(CODES)
    assert set(CODES.values()) <= set(TEXTS)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (trust_refusals.Expired("it ended", hint="ask"), "trust.expired", "signed metadata has expired: it ended; ask"),
        (trust_refusals.DownloadBroke("cut", fetched_bytes=1, hint="later"), "error.network", "the network fails: cut; later"),
        (bundle_refusals.TooLarge("a file", hint=""), "bundle.too-large", "the bundle exceeds a limit: a file"),
        (NetworkError("no route"), "error.network", "the network fails: no route"),
        (StorageError("full"), "error.storage", "the disk refuses: full"),
        (DeviceError("no slot"), "error.other", "no slot"),
    ],
)  # fmt: skip
def test_the_nearest_class_gives_the_code(error: CellfleetError, code: str, text: str) -> None:
    reason = error_reason(error)
    assert (reason.code, english(reason)) == (code, text)
