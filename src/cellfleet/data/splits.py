"""Drawing train, validation and test: by group, stratified, and from the names alone.

No random numbers: candidates are taken in the order of SHA-256 of their group's name, so the same data set gives the
same split on every machine, in every folder and in every order of files.

The rule: a *unit* is a group (with groups that share pixels joined). First the test split, then the validation split
takes units until it holds its share of the images, rounded up, and of every stratum that it must show. Each next
unit comes from the stratum that is furthest below its share. A unit is left alone when a split that comes later, or
training, would then lack one of its strata. A stratum of three or more units is so in every split, one of two is in
train and test, one of a single unit in train alone. A split that would be empty so gets the unit that costs training least.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cellfleet.canonical import sha256_hex
from cellfleet.data.records import SPLITS, SplitName
from cellfleet.errors import ConfigError, DataError

_PRIORITY: tuple[SplitName, ...] = ("train", "test", "validation")
_DRAWN: tuple[SplitName, ...] = ("test", "validation")


@dataclass(frozen=True)
class Member:
    """One image for the draw: its id, group, stratum, and the digest of its pixels (equal ones stay together)."""

    id: str
    group: str
    stratum: str
    pixels: str = ""


@dataclass(frozen=True)
class Unit:
    """What must stay together: its groups' names, its images, and how many of them each stratum has."""

    key: str
    ids: tuple[str, ...]
    strata: Mapping[str, int]

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.ids)


def draw(members: Iterable[Member], validation_fraction: float, test_fraction: float) -> dict[str, SplitName]:
    """Draw the splits.

    Args:
        members: the images, in any order.
        validation_fraction, test_fraction: shares of the images, in (0, 1), together below 1.

    Returns:
        The split of every image id.

    Raises:
        ConfigError: shares that leave nothing for training.
        DataError: fewer than three units.
    """
    if validation_fraction + test_fraction >= 1:
        raise ConfigError(
            f"data.validation_fraction {validation_fraction} and data.test_fraction {test_fraction} leave no image to "
            "train on",
            hint="choose shares that add up to less than 1",
        )
    units = units_of(members)
    if len(units) < 3:
        names = ", ".join(u.key for u in units)
        raise DataError(
            f"{len(units)} group(s) ({names}) cannot be drawn into train, validation and test",
            hint="add images of other groups; or name the splits in a column `split` of index.csv",
        )
    placed = _Draw(units, {"validation": validation_fraction, "test": test_fraction}).run()
    return {i: split for u in units for i in u.ids for split in (placed[u.key],)}


def units_of(members: Iterable[Member]) -> list[Unit]:
    """Join images of one group, and groups that share pixels; units in the order of the digests of their names."""
    by_group: dict[str, list[Member]] = defaultdict(list)
    for m in sorted(members, key=lambda m: m.id):
        by_group[m.group].append(m)
    leader = {g: g for g in by_group}
    first_with: dict[str, str] = {}
    for group in sorted(by_group):
        for m in by_group[group]:
            if m.pixels:
                _join(leader, group, first_with.setdefault(m.pixels, group))
    joined: dict[str, list[Member]] = defaultdict(list)
    for group in sorted(by_group):
        joined[_lead(leader, group)] += by_group[group]
    units = [Unit(k, tuple(m.id for m in ms), Counter(m.stratum for m in ms)) for k, ms in joined.items()]
    return sorted(units, key=lambda u: (sha256_hex(f"cellfleet split 1: {u.key}".encode()), u.key))


def absent_strata(members: Iterable[Member], splits: Mapping[str, SplitName]) -> list[tuple[str, list[SplitName], int]]:
    """Strata that are not in every split: (stratum, the splits that lack it, number of its units), sorted."""
    listed = list(members)
    units = units_of(listed)
    seen = {(m.stratum, splits[m.id]) for m in listed}
    count = Counter(s for u in units for s in u.strata)
    lacking = [(s, [p for p in SPLITS if (s, p) not in seen], count[s]) for s in sorted(count)]
    return [entry for entry in lacking if entry[1]]


def _lead(leader: dict[str, str], group: str) -> str:
    while leader[group] != group:
        group = leader[group]
    return group


def _join(leader: dict[str, str], a: str, b: str) -> None:
    low, high = sorted((_lead(leader, a), _lead(leader, b)))
    leader[high] = low


class _Draw:
    """The state of one draw: which unit is where; what is not drawn is training."""

    def __init__(self, units: list[Unit], fractions: Mapping[SplitName, float]) -> None:
        self.units = units
        self.free = list(units)
        self.taken: dict[SplitName, list[Unit]] = {s: [] for s in _DRAWN}
        self.total = Counter[str]()
        for u in units:
            self.total.update(u.strata)
        count = Counter(s for u in units for s in u.strata)
        # A stratum of n units must be in the first n splits of the priority.
        self.needed_in = {s: _PRIORITY[: min(n, 3)] for s, n in count.items()}
        self.fractions = fractions

    def run(self) -> dict[str, SplitName]:
        for split in _DRAWN:
            self._fill(split)
        for _ in self.units:
            if not self._repair():
                break
        for split in _DRAWN:
            if not self.taken[split]:
                self._give_one(split)
        placed: dict[str, SplitName] = {u.key: "train" for u in self.free}
        placed.update({u.key: split for split, us in self.taken.items() for u in us})
        return placed

    def _fill(self, split: SplitName) -> None:
        goal = math.ceil(self.fractions[split] * sum(u.size for u in self.units) - 1e-9)
        while True:
            have = self._have(split)
            size = sum(u.size for u in self.taken[split])
            missing = {s for s, where in self.needed_in.items() if split in where and not have[s]}
            if not missing and size >= goal:
                return
            unit = self._next(split, missing, have, max(goal - size, 1))
            if unit is None:
                return
            self.free.remove(unit)
            self.taken[split].append(unit)

    def _next(self, split: SplitName, missing: set[str], have: Counter[str], room: int) -> Unit | None:
        """The next unit of the stratum furthest below its share; one that fits into the room if there is one."""
        share = self.fractions[split]
        behind = {s: share * n - have[s] for s, n in self.total.items() if not missing or s in missing}
        for stratum in sorted(behind, key=lambda s: (-behind[s], s)):
            mine = [u for u in self.free if stratum in u.strata and self._may_take(u, split)]
            if mine:
                order = {u.key: i for i, u in enumerate(self.units)}
                return min(mine, key=lambda u: (max(u.size - room, 0), order[u.key]))
        return None

    def _give_one(self, split: SplitName) -> None:
        """A split that no stratum can spare a unit for still gets one: the unit that costs training least."""
        left = self._have("train")
        order = {u.key: i for i, u in enumerate(self.units)}
        unit = min(self.free, key=lambda u: (sum(left[s] == n for s, n in u.strata.items()), u.size, order[u.key]))
        self.free.remove(unit)
        self.taken[split].append(unit)

    def _may_take(self, unit: Unit, split: SplitName) -> bool:
        """Whether the splits that come after still find a unit of each of this one's strata."""
        later = 2 if split == "test" else 1
        if len(self.free) <= later:
            return False
        for s in unit.strata:
            waiting = sum(1 for p in self.needed_in[s] if p == "train" or (p == "validation" and split == "test"))
            if sum(1 for u in self.free if s in u.strata) <= waiting:
                return False
        return True

    def _have(self, split: SplitName) -> Counter[str]:
        have = Counter[str]()
        for u in self.free if split == "train" else self.taken[split]:
            have.update(u.strata)
        return have

    def _gaps(self) -> int:
        return sum(1 for s, where in self.needed_in.items() for p in where if not self._have(p)[s])

    def _repair(self) -> bool:
        """Units of several strata can block each other: move or swap two units when that fills a gap."""
        before = self._gaps()
        if before == 0:
            return False
        places: dict[SplitName, list[Unit]] = {"train": self.free, **self.taken}
        for a in _PRIORITY:
            for b in _PRIORITY:
                for u in list(places[a]) if a != b else []:
                    for v in (None, *places[b]):
                        self._swap(places, a, b, u, v)
                        if self._gaps() < before and all(places.values()):
                            return True
                        self._swap(places, b, a, u, v)
        return False

    @staticmethod
    def _swap(places: dict[SplitName, list[Unit]], a: SplitName, b: SplitName, u: Unit, v: Unit | None) -> None:
        places[a].remove(u)
        places[b].append(u)
        if v is not None:
            places[b].remove(v)
            places[a].append(v)
