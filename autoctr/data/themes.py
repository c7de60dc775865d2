"""From a click log by theme to labelled rows: the Taobao pipeline of MLoRA (arXiv 2408.08913)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.data.hashing import uniforms, words

Integers = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ThemeLog:
    """Clicks and sampled negatives of D themes, split into train, valid and test.

    Row arrays, all of length N: ``user_id``, ``item_id``, ``theme_id`` hold the raw ids (int64), ``domain``
    int32 0..D-1 in the order of ``themes``, ``label`` int8 (1 click, 0 sampled negative), ``split`` int8 (0
    train, 1 valid, 2 test). Rows stand in the order of (domain, label descending, user, item).

    Per domain: ``themes`` the raw theme id, ``rho`` the ratio of positives to negatives, ``items`` the size
    of the item set that negatives were drawn from.
    """

    user_id: Integers
    item_id: Integers
    theme_id: Integers
    domain: npt.NDArray[np.int32]
    label: npt.NDArray[np.int8]
    split: npt.NDArray[np.int8]
    themes: tuple[int, ...]
    rho: tuple[float, ...]
    items: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.user_id)


def first_themes(theme: Integers, count: int) -> Integers:
    """The first ``count`` distinct themes in the order of their first appearance."""
    values, first = np.unique(theme, return_index=True)
    return values[np.argsort(first)][:count]


def build_theme_log(user: Integers, item: Integers, theme: Integers, themes: Integers, seed: int = 0) -> ThemeLog:
    """Turn clicks into labelled, split rows.

    ``user``, ``item``, ``theme`` are the clicks that have both vectors and a theme among ``themes``, in the
    order of the log. Of a (user, item) pair that comes again only the first click counts.

    Negatives are drawn against all the positives of the user in that domain, those of valid and test
    included, as in the reference: probabilities are comparable between models, not
    calibrated for serving.
    """
    order = np.lexsort((np.arange(len(user)), item, user))
    again = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    first = np.sort(order[np.concatenate([[True], ~again])]) if len(user) else order
    user, item, theme = user[first], item[first], theme[first]
    parts: list[dict[str, npt.NDArray[Any]]] = []
    rhos, sizes = [], []
    for domain, name in enumerate(themes.tolist()):
        rho = round(0.2 + 0.3 * float(uniforms(seed, "rho", name)[0]), 2)
        clicks = np.flatnonzero(theme == name)
        clicks = clicks[np.lexsort((item[clicks], user[clicks]))]
        pool = np.unique(item[clicks])
        negative_user, negative_item = sample_negatives(user[clicks], item[clicks], rho, seed, name)
        rhos.append(rho)
        sizes.append(len(pool))
        both_users = np.concatenate([user[clicks], negative_user])
        both_items = np.concatenate([item[clicks], negative_item])
        label = np.repeat(np.asarray([1, 0], np.int8), [len(clicks), len(negative_user)])
        # one group for all positives, one for the negatives of each user
        group = np.where(label == 1, -1, np.unique(both_users, return_inverse=True)[1])
        draw = words(seed, "theme split", np.full(len(label), name), label, both_users, both_items)
        parts.append(
            {
                "user_id": both_users,
                "item_id": both_items,
                "theme_id": np.full(len(label), name, np.int64),
                "domain": np.full(len(label), domain, np.int32),
                "label": label,
                "split": split_groups(group, draw),
            }
        )
    empty = {"user_id": user[:0], "item_id": item[:0], "theme_id": theme[:0]}
    empty |= {"domain": np.empty(0, np.int32), "label": np.empty(0, np.int8), "split": np.empty(0, np.int8)}
    columns = {key: np.concatenate([part[key] for part in [*parts, empty]]) for key in empty}
    return ThemeLog(**columns, themes=tuple(themes.tolist()), rho=tuple(rhos), items=tuple(sizes))


def sample_negatives(user: Integers, item: Integers, rho: float, seed: int, theme: int) -> tuple[Integers, Integers]:
    """Draw floor(n_pos / rho) items per user, uniformly without replacement, from the domain's other items.

    ``user`` and ``item`` are the distinct clicks of one domain. A user with too few other items gets all of
    them. Every (theme, user) has a stream of its own: candidate k is a hash of (seed, theme, user, k), and
    candidates that are positives or came before are passed over. So a user's negatives depend on neither the
    order of the rows nor on other users.

    Returns: users and items of the negatives, sorted by user, then item.
    """
    pool, item_index = np.unique(item, return_inverse=True)
    users, user_index, positives = np.unique(user, return_inverse=True, return_counts=True)
    clicked = np.sort(user_index.astype(np.int64) * len(pool) + item_index)
    wanted = np.minimum(np.floor(positives / rho + 1e-9).astype(np.int64), len(pool) - positives)
    drawn = [np.empty(0, np.int64)]
    open_users = np.flatnonzero(wanted)
    everything = open_users[wanted[open_users] == len(pool) - positives[open_users]]
    for one in everything:
        keys = np.arange(one * len(pool), (one + 1) * len(pool))
        drawn.append(keys[~_among(keys, clicked)])
    open_users = np.setdiff1d(open_users, everything)
    length = 2.0
    while len(open_users):
        tries = ((wanted[open_users] + positives[open_users]) * length).astype(np.int64) + 4
        owner = np.repeat(open_users, tries)
        position = np.arange(len(owner)) - np.repeat(np.cumsum(tries) - tries, tries)
        draw = uniforms(seed, "negatives", np.full(len(owner), theme), users[owner], position)
        keys = owner * len(pool) + (draw * len(pool)).astype(np.int64)
        fresh = np.sort(np.unique(keys, return_index=True)[1])
        fresh = fresh[~_among(keys[fresh], clicked)]
        rank = _rank_in_runs(owner[fresh])
        chosen = fresh[rank < wanted[owner[fresh]]]
        found = np.bincount(owner[chosen], minlength=len(users))
        done = found >= wanted
        drawn.append(keys[chosen[done[owner[chosen]]]])
        open_users = open_users[~done[open_users]]
        length *= 2
    keys = np.sort(np.concatenate(drawn))
    return users[keys // len(pool)] if len(keys) else keys, pool[keys % len(pool)] if len(keys) else keys


def split_groups(group: npt.NDArray[Any], draw: npt.NDArray[np.uint64]) -> npt.NDArray[np.int8]:
    """60/20/20 inside every group in the order of ``draw``: floor(0.6 n) train, to floor(0.8 n) valid, then test.

    Returns: int8 [N], 0 train, 1 valid, 2 test; groups of fewer than five rows lean to test, as in the
    reference.
    """
    order = np.lexsort((draw, group))
    runs = group[order]
    rank = _rank_in_runs(runs)
    size = np.unique(runs, return_inverse=True, return_counts=True)
    total = size[2][size[1]]
    split = np.empty(len(group), np.int8)
    split[order] = (rank >= total * 3 // 5).astype(np.int8) + (rank >= total * 4 // 5).astype(np.int8)
    return split


def _rank_in_runs(values: npt.NDArray[Any]) -> Integers:
    starts = (
        np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])) if len(values) else np.empty(0, np.int64)
    )
    return np.arange(len(values)) - np.repeat(starts, np.diff(np.append(starts, len(values))))


def _among(keys: Integers, ordered: Integers) -> npt.NDArray[np.bool_]:
    place = np.searchsorted(ordered, keys)
    found: npt.NDArray[np.bool_] = (place < len(ordered)) & (ordered[np.minimum(place, len(ordered) - 1)] == keys)
    return found
