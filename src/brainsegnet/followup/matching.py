"""Which lesions of two or more scans of one patient are the same: the rule `overlap-then-nearest`.

Lesions are brought to one grid by rigid registration. Two lesions of successive scans are linked if they share a tenth
or more of the smaller one. A lesion that is linked to none is then linked to the nearest such lesion of the other scan,
if their centres are no more than `REACH_MM` apart: a small lesion may miss itself by the error of the registration.
The nearest pair is linked first, and equal distances go to the larger lesions.

Linked lesions are one group. One with several lesions before and one after has merged, one with one before and several
after has split. This follows the steps of Santoro-Fernandes et al. (Phys Med Biol 2021; 66:155017): registration,
dilation, clusters of lesions, and assignment of what is left. Here overlap takes the place of dilation, as in the
lesion scores of ISLES 2022, so that neighbours stay apart.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from scipy import ndimage

from brainsegnet._types import Array, Millimetres
from brainsegnet.errors import GridMismatch
from brainsegnet.metrics.shapes import box_of_both

RULE = "overlap-then-nearest"
LEAST_SHARE = 0.1
"""Share of the smaller lesion that two lesions must have in common."""
REACH_MM = 3.0
"""Distance between the centres of two lesions that overlap no other, up to which they count as one."""
Outcome = Literal["new", "vanished", "same", "merged", "split", "merged and split"]
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Match:
    """Lesions of two scans that belong together, by their numbers; none before is a new one, none after has vanished.

    Examples:
        >>> Match((), (1,)).kind, Match((1, 2), (1,)).kind, Match((1,), (1,)).kind
        ('new', 'merged', 'same')
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def kind(self) -> Outcome:
        """What happened, apart from volumes."""
        if not self.before:
            return "new"
        if not self.after:
            return "vanished"
        if len(self.before) > 1:
            return "merged" if len(self.after) == 1 else "merged and split"
        return "same" if len(self.after) == 1 else "split"


@dataclass(frozen=True)
class Track:
    """A group of lesions over all scans.

    Attributes:
        lesions: Of each scan, the numbers of its lesions in the group; there may be none.
    """

    lesions: tuple[tuple[int, ...], ...]


def match_lesions(before: Array, after: Array, spacing_mm: Millimetres) -> list[Match]:
    """Match the lesions of two scans.

    Args:
        before: Numbers of the lesions (D, H, W), the largest lesion first; 0 is no lesion.
        after: The same of the later scan, on the same grid.
        spacing_mm: Of this grid.

    Returns:
        Each lesion in one match. Those with lesions before come first, in the order of their first number.

    Raises:
        GridMismatch: the arrays differ in shape.

    Examples:
        >>> before, after = np.zeros((2, 1, 1, 12), np.uint16)
        >>> before[..., 1:4], before[..., 5:7], after[..., 2:7], after[..., 11] = 1, 2, 1, 2
        >>> [(match.kind, match.before, match.after) for match in match_lesions(before, after, (1, 1, 1))]
        [('merged', (1, 2), (1,)), ('new', (), (2,))]
    """
    if before.shape != after.shape:
        raise GridMismatch(f"lesions before are {before.shape} but after {after.shape}; bring both to one grid")
    box = box_of_both(before, after)
    before, after = before[box], after[box]
    links = find_overlaps(before, after)
    free = [_present(one) - {link[side] for link in links} for side, one in enumerate((before, after))]
    links += find_nearest(before, after, spacing_mm, *free)
    nodes = [("before", n) for n in _present(before)] + [("after", n) for n in _present(after)]
    groups = join(nodes, [(("before", a), ("after", b)) for a, b in links])
    matches = [
        Match(*(tuple(sorted(n for when, n in group if when == side)) for side in ("before", "after")))
        for group in groups
    ]
    return sorted(matches, key=lambda match: (not match.before, match.before, match.after))


def find_overlaps(before: Array, after: Array) -> list[tuple[int, int]]:
    """The pairs of numbers of lesions that share `LEAST_SHARE` of the smaller one or more."""
    sizes = [np.bincount(one[one > 0]) for one in (before, after)]
    both, width = (before > 0) & (after > 0), len(sizes[1])
    shared = np.bincount(before[both].astype(np.int64) * width + after[both])
    pairs = [(*divmod(int(code), width), int(shared[code])) for code in np.flatnonzero(shared)]
    return [(a, b) for a, b, count in pairs if count >= LEAST_SHARE * min(sizes[0][a], sizes[1][b])]


def find_nearest(
    before: Array, after: Array, spacing_mm: Millimetres, free_before: Iterable[int], free_after: Iterable[int]
) -> list[tuple[int, int]]:
    """Pairs of free lesions with centres no more than `REACH_MM` apart, the nearest first, each lesion once."""
    names = sorted(free_before), sorted(free_after)
    if not (names[0] and names[1]):
        return []
    centres = [
        np.array(ndimage.center_of_mass(one > 0, one, found)) * spacing_mm
        for one, found in zip((before, after), names, strict=True)
    ]
    apart = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2).round(6)
    near = sorted((apart[i, j], a, b) for i, a in enumerate(names[0]) for j, b in enumerate(names[1]))
    links: list[tuple[int, int]] = []
    for mm, a, b in near:
        if mm <= REACH_MM and all(a != one and b != other for one, other in links):
            links.append((a, b))
    return links


def follow_lesions(numbers: Sequence[Sequence[int]], matches: Sequence[Sequence[Match]]) -> list[Track]:
    """Join the matches of successive scans to tracks over all scans.

    Args:
        numbers: Of each scan, the numbers of its lesions.
        matches: Of each scan but the first, its matches with the scan before.

    Returns:
        Each lesion in one track, in the order of their first lesions.

    Examples:
        >>> follow_lesions([[1], [1], [1, 2]], [[Match((1,), (1,))], [Match((1,), (2,)), Match((), (1,))]])
        [Track(lesions=((1,), (1,), (2,))), Track(lesions=((), (), (1,)))]
    """
    nodes = [(scan, number) for scan, found in enumerate(numbers) for number in found]
    edges = [
        ((scan, a), (scan + 1, b))
        for scan, found in enumerate(matches)
        for match in found
        for a in match.before
        for b in match.after
    ]
    tracks = []
    for group in join(nodes, edges):
        tracks.append(tuple(tuple(sorted(n for at, n in group if at == scan)) for scan in range(len(numbers))))
    return [Track(lesions) for lesions in sorted(tracks, key=lambda lesions: [one or (1 << 30,) for one in lesions])]


def join(nodes: Iterable[T], edges: Iterable[tuple[T, T]]) -> list[list[T]]:
    """The connected components of a graph, each in the order of its nodes."""
    home = {node: number for number, node in enumerate(nodes)}
    for a, b in edges:
        old, new = home[a], home[b]
        home = {node: new if at == old else at for node, at in home.items()} if old != new else home
    groups: dict[int, list[T]] = {}
    for node, number in home.items():
        groups.setdefault(number, []).append(node)
    return list(groups.values())


def _present(numbers: Array) -> set[int]:
    return set(np.flatnonzero(np.bincount(numbers[numbers > 0])).tolist())
