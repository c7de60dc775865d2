"""Theme data from a planted click model: the raw files of Tianchi 9716, and the best AUC to be had on them.

The planted score of user u and item i in theme d, from latent vectors z_u and y_i that can be read off the
written 128-number vectors by a rotation of each of their 4 pieces::

    x   = alive_d * [z_u, y_i]                                  theme d hears only its alive inputs
    s_d = scale_d (sum_k c_k x_k x_(F+k)  +  relu(x (W + A_d B_d) + b) v)

so products, per-theme low-rank adaptation and pieces that are noise in some themes each carry part of the
signal. User u makes n_u clicks in each theme it visits, and its set S of clicked items has P(S) proportional
to ``exp(sum of s_d(u, i) over S)``: independent clicks with odds exp(s), given their number. The number is
itself readable from the user's vector, hence no ranker is asked for something it could not know.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoctr.atomic import replacing
from autoctr.errors import UserError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

TRUTHS = ("full", "additive", "shared")
TRUTH_FILE = "truth.npz"

WIDTH = 128
PIECES = 4  # of a vector, equally wide, each with its share of the factors
FACTORS = 12
UNITS = 16
USERS_BLOCK = 256
RANKS = (2, 3, 0, 1, 4, 2, 1, 0, 3, 1)  # of A_d B_d, one per theme, the largest theme first
NOISY = (1, 3, 4, 6, 8)  # themes that hear one piece only of the users' and the items' vectors
DECAY = 0.72  # each theme's rows as a share of the next larger one's

# Set by trial so that each part is worth one to three points of WAUC to a network fitted on 90,000 rows.
_SPREAD = 1.4  # standard deviation of one user's scores over the items
_PRODUCTS = 1.0  # mean size of c
_ADAPTATION = 2.0  # norm of A_d B_d over that of W
_NOISE = 0.4  # standard deviation of the directions of a vector that mean nothing; the others have 1
_CLICKS, _ACTIVITY = 6.0, 0.4  # clicks of a user in a theme: median, standard deviation of the logarithm


@dataclasses.dataclass(frozen=True)
class Truth:
    """A planted click model and the population it was planted in: D themes, U users, I items, F factors.

    ``users`` [U, F] and ``items`` [I, F] are the latent vectors, ``clicks`` [U] how many clicks a user makes
    in a theme (at most a sixth of the theme's pool, so that negatives do not run out), ``pools`` [D, I] which
    items a theme offers. ``products`` [F] is c; ``weight`` [2F, H], ``bias`` [H] and ``head`` [H] are the
    teacher layer, ``down`` [D, 2F, R] and ``up`` [D, R, H] its adaptation (columns beyond ``ranks`` [D] are
    zero), ``alive`` [D, 2F] the inputs a theme hears.
    """

    variant: str
    theme_ids: Integers
    user_ids: Integers
    item_ids: Integers
    users: Floats
    items: Floats
    clicks: Integers
    pools: Booleans
    products: Floats
    weight: Floats
    bias: Floats
    head: Floats
    down: Floats
    up: Floats
    ranks: Integers
    alive: Booleans
    scale: Floats

    def score(self, theme: int, users: Floats, items: Floats) -> Floats:
        """Planted scores in theme number ``theme`` (0..D-1).

        Args:
            theme: position of the theme in ``theme_ids``.
            users: latent vectors [n, F].
            items: latent vectors [m, F].

        Returns:
            Scores s_d, [n, m].
        """
        factors = users.shape[1]
        users, items = users * self.alive[theme, :factors], items * self.alive[theme, factors:]
        weight = self.weight + self.down[theme] @ self.up[theme]
        hidden = (users @ weight[:factors])[:, None] + (items @ weight[factors:] + self.bias)[None]
        scores: Floats = (users * self.products) @ items.T + np.maximum(hidden, 0.0) @ self.head
        scores *= self.scale[theme]
        return scores

    def counts(self, theme: int) -> Integers:
        """How many clicks every user would make in theme number ``theme``, [U]."""
        counts: Integers = np.minimum(self.clicks, max(1, int(self.pools[theme].sum()) // 6))
        return counts

    def save(self, file: Path) -> None:
        """Write to ``file`` without pickling."""
        with file.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **dataclasses.asdict(self))

    @classmethod
    def load(cls, file: Path) -> Truth:
        """Inverse of :meth:`save`.

        Raises:
            UserError: if ``file`` is not such a file.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                values: dict[str, Any] = {f.name: arrays[f.name] for f in dataclasses.fields(cls)}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{file} does not hold a planted truth ({error}); generate the data again") from error
        return cls(**{**values, "variant": str(values["variant"])})


def simulate(folder: Path, rows: int = 150_000, seed: int = 0, truth: str = "full") -> None:
    """Write ``theme_click_log.csv``, ``user_embedding.csv``, ``item_embedding.csv`` and ``truth.npz``.

    The log holds clicks only, as the original does; the loader adds two to five negatives per click.

    Args:
        folder: where the files go; created, and files of those names in it are replaced.
        rows: about how many rows, clicks and sampled negatives, the ten themes have together.
        seed: of everything that is drawn.
        truth: ``full``; ``additive``: user and item never interact; ``shared``: all themes are alike.

    Raises:
        UserError: for an unknown ``truth`` or fewer rows than ten themes need.
    """
    if truth not in TRUTHS:
        raise UserError(f"unknown truth {truth!r}; choose one of {', '.join(TRUTHS)}")
    if rows < 2000:
        raise UserError(f"{rows} rows are too few for {len(RANKS)} themes of unequal size; ask for 2000 or more")
    population = np.random.default_rng([seed, 0])
    planted, user_vectors, item_vectors, visits = _plant(rows, seed, truth, population)
    log = draw_clicks(planted, visits, np.random.default_rng([seed, 1]))
    _write(Path(folder), planted, user_vectors, item_vectors, log, np.random.default_rng([seed, 2]))


def draw_clicks(truth: Truth, visits: list[Integers], rng: np.random.Generator) -> Integers:
    """Draw the clicks of every visit.

    Args:
        truth: the planted model.
        visits: per theme the positions of the users who visit it.
        rng: source of randomness.

    Returns:
        One row per click: positions of user, item and theme, [clicks, 3].
    """
    parts = []
    for theme, visitors in enumerate(visits):
        pool = np.flatnonzero(truth.pools[theme])
        counts = truth.counts(theme)
        for start in range(0, len(visitors), USERS_BLOCK):
            block = visitors[start : start + USERS_BLOCK]
            weights = _weights(truth.score(theme, truth.users[block], truth.items[pool]))
            user, item = np.nonzero(_draw_sets(weights, counts[block], rng))
            parts.append(np.stack([block[user], pool[item], np.full(len(user), theme)], axis=1))
    return np.concatenate(parts)


def _weights(scores: Floats) -> Floats:
    """Click odds exp(s) up to a factor per user that keeps sums over sets within range."""
    weights: Floats = np.exp(scores - scores.mean(axis=1, keepdims=True))
    return weights


def _sums(weights: Floats, size: int) -> Floats:
    """Sums, over all sets of 0..size items from position i on, of the product of their weights.

    Elementary symmetric polynomials; [items + 1, users, size + 1].
    """
    users, items = weights.shape
    sums = np.zeros((items + 1, users, size + 1))
    sums[items, :, 0] = 1.0
    for item in reversed(range(items)):
        sums[item] = sums[item + 1]
        sums[item, :, 1:] += weights[:, item, None] * sums[item + 1, :, :-1]
    return sums


def _draw_sets(weights: Floats, counts: Integers, rng: np.random.Generator) -> Booleans:
    """Sets of ``counts[u]`` items with P(S) proportional to the product of their weights; [users, items].

    Walks through the items and takes each with its exact probability given what was taken before.
    """
    users, items = weights.shape
    sums = _sums(weights, int(counts.max()))
    taken = np.zeros((users, items), dtype=np.bool_)
    left, every, uniform = counts.copy(), np.arange(users), rng.random((items, users))
    for item in range(items):
        with_it = weights[:, item] * sums[item + 1, every, np.maximum(left - 1, 0)]
        taken[:, item] = (left > 0) & (uniform[item] * sums[item, every, left] < with_it)
        left -= taken[:, item]
    return taken


def inclusion(weights: Floats, counts: Integers) -> Floats:
    """Probability that an item is among a user's clicks: the exact share of the sets that hold it.

    Args:
        weights: click odds exp(s), up to a factor per user, [users, items].
        counts: clicks per user, [users].

    Returns:
        Probabilities, [users, items].
    """
    users, items = weights.shape
    size = int(counts.max(initial=0))
    sums = _sums(weights, size)
    before = np.zeros((users, size + 1))
    before[:, 0] = 1.0
    every = np.arange(users)[:, None]
    others = counts[:, None] - 1 - np.arange(size + 1)
    reachable, others = others >= 0, np.maximum(others, 0)
    result = np.empty_like(weights)
    for item in range(items):
        after = np.where(reachable, sums[item + 1][every, others], 0.0)
        result[:, item] = weights[:, item] * (before * after).sum(axis=1)
        before[:, 1:] += weights[:, item, None] * before[:, :-1]
    chances: Floats = np.minimum(result / sums[0][every, counts[:, None]], 1.0)
    return chances


def _plant(
    rows: int, seed: int, variant: str, rng: np.random.Generator
) -> tuple[Truth, Floats, Floats, list[Integers]]:
    """Draw the model and its population; the visits are, per theme, the positions of its users."""
    themes = len(RANKS)
    size = DECAY ** np.arange(themes)
    wanted = np.maximum(rows * size / size.sum() / (1.0 + _negatives_per_click()), 20.0)
    # Pairs must not recur across themes (the pipeline drops duplicates): even and odd themes split the items,
    # and a user visits at most one theme of each kind.
    pool_sizes = np.clip(wanted / 12, 18, 240).astype(np.int64)
    half = int(pool_sizes.max() * 5 // 3)
    needed = wanted / np.minimum(_CLICKS, pool_sizes // 6)
    visitors = int(1.3 * max(needed[0::2].sum(), needed[1::2].sum())) + 20
    users, user_vectors = _vectors(visitors, rng)
    items, item_vectors = _vectors(2 * half, rng)
    clicks = np.clip(np.rint(_CLICKS * np.exp(_ACTIVITY * users[:, FACTORS])), 2, 20).astype(np.int64)
    pools = np.zeros((themes, 2 * half), dtype=np.bool_)
    for theme in range(themes):
        pools[theme, theme % 2 * half + rng.permutation(half)[: pool_sizes[theme]]] = True
    model = _model(variant, np.random.default_rng([seed, 3]))
    truth = Truth(
        variant=variant,
        theme_ids=_labels(themes, 100, np.random.default_rng([seed, 4])),
        user_ids=_labels(visitors, 1_000_000, rng),
        item_ids=_labels(2 * half, 10_000_000, rng),
        users=users[:, :FACTORS],
        items=items[:, :FACTORS],
        clicks=clicks,
        pools=pools,
        scale=np.ones(themes),
        **model,
    )
    visits: list[Integers] = [np.empty(0, dtype=np.int64)] * themes
    for kind in (0, 1):
        waiting = rng.permutation(visitors)
        for theme in range(kind, themes, 2):
            reached = np.cumsum(truth.counts(theme)[waiting])
            count = max(2, int(np.searchsorted(reached, wanted[theme])))
            visits[theme], waiting = waiting[:count], waiting[count:]
    return dataclasses.replace(truth, scale=_scale(truth)), user_vectors, item_vectors, visits


def _negatives_per_click() -> float:
    """Mean of 1 / rho for rho uniform on [0.2, 0.5], less what rounding down takes."""
    return float(np.log(0.5 / 0.2) / 0.3) - 0.5 / _CLICKS


def piece_of_factors() -> Integers:
    """The piece of the written vector that each factor can be read off, [F]."""
    return np.repeat(np.arange(PIECES), FACTORS // PIECES)


def _vectors(count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Latent vectors and, last, the activity, [count, F + 1]; and the vectors to write, [count, 128].

    Every piece is a rotation of its factors, in the first piece of the activity too, and of directions that mean
    nothing.
    """
    signal, width = FACTORS + 1, WIDTH // PIECES
    latent = np.concatenate(
        [rng.standard_normal((count, signal)), _NOISE * rng.standard_normal((count, WIDTH - signal))], axis=1
    )
    pieces = np.append(piece_of_factors(), 0)
    pieces = np.append(pieces, np.repeat(np.arange(PIECES), width - np.bincount(pieces)))
    rotation = np.zeros((WIDTH, WIDTH))
    for piece in range(PIECES):
        columns = slice(piece * width, (piece + 1) * width)
        rotation[pieces == piece, columns] = np.linalg.qr(rng.standard_normal((width, width)))[0]
    vectors = np.round(latent @ rotation, 3)
    return vectors @ rotation[:signal].T, vectors


def _labels(count: int, start: int, rng: np.random.Generator) -> Integers:
    """Distinct ids in no particular order, with gaps as in the original files."""
    labels: Integers = start + rng.choice(10 * count, size=count, replace=False).astype(np.int64)
    return labels


def _model(variant: str, rng: np.random.Generator) -> dict[str, Any]:
    """Parameters of the planted score; all variants draw the same numbers, then drop what they do without."""
    themes, inputs, rank = len(RANKS), 2 * FACTORS, max(RANKS)
    weight = rng.standard_normal((inputs, UNITS)) / np.sqrt(inputs)
    bias = 0.5 * rng.standard_normal(UNITS)
    head = rng.choice([-1.0, 1.0], UNITS) * rng.uniform(0.7, 1.3, UNITS)
    products = _PRODUCTS * rng.choice([-1.0, 1.0], FACTORS) * rng.uniform(0.7, 1.3, FACTORS)
    down = rng.standard_normal((themes, inputs, rank))
    up = rng.standard_normal((themes, rank, UNITS))
    alive = np.ones((themes, inputs), dtype=np.bool_)
    heard = rng.permutation(PIECES)
    for turn, theme in enumerate(NOISY):
        alive[theme] = np.tile(piece_of_factors() == heard[turn % PIECES], 2)
    ranks = np.array(RANKS, dtype=np.int64)
    if variant == "additive":
        products = np.zeros_like(products)
        weight[:FACTORS] = 0.0
        down[:, :FACTORS] = 0.0
    if variant == "shared":
        ranks, alive = np.zeros_like(ranks), np.ones_like(alive)
    for theme, kept in enumerate(ranks):
        down[theme, :, kept:] = 0.0
        up[theme, kept:] = 0.0
        norm = np.linalg.norm(down[theme] @ up[theme])
        if kept:
            up[theme] *= _ADAPTATION * np.linalg.norm(weight) / norm
    return {
        "products": products,
        "weight": weight,
        "bias": bias,
        "head": head,
        "down": down,
        "up": up,
        "ranks": ranks,
        "alive": alive,
    }


def _scale(truth: Truth) -> Floats:
    """Factors that give a user's scores one spread in all themes, measured on the same pairs."""
    users, items = truth.users[:300], truth.items[:300]
    spreads = [truth.score(theme, users, items).std(axis=1).mean() for theme in range(len(truth.ranks))]
    return _SPREAD / np.array(spreads)


def _write(
    folder: Path,
    truth: Truth,
    user_vectors: Floats,
    item_vectors: Floats,
    log: Integers,
    rng: np.random.Generator,
) -> None:
    import polars as pl

    log = log[rng.permutation(len(log))]
    start = np.datetime64("2018-12-02", "ms")
    moment = start + np.sort(1000 * rng.integers(0, 6 * 86_400, len(log))).astype("timedelta64[ms]")
    clicks = pl.DataFrame(
        {
            "user_id": truth.user_ids[log[:, 0]],
            "item_id": truth.item_ids[log[:, 1]],
            "theme_id": truth.theme_ids[log[:, 2]],
            "reach_time": pl.Series(moment).dt.strftime("%Y%m%d%H%M%S"),
        }
    )
    with replacing(folder / "theme_click_log.csv") as file:
        clicks.write_csv(file)
    for name, ids, vectors in (
        ("user", truth.user_ids, user_vectors),
        ("item", truth.item_ids, item_vectors),
    ):
        text = [" ".join([format(x, ".3f") for x in row]) for row in vectors.tolist()]
        with replacing(folder / f"{name}_embedding.csv") as file:
            pl.DataFrame({f"{name}_id": ids, "emb": text}).write_csv(file)
    with replacing(folder / TRUTH_FILE) as file:
        truth.save(file)


def log_odds(
    truth: Truth,
    users: npt.NDArray[Any],
    items: npt.NDArray[Any],
    themes: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    part: Booleans | None = None,
) -> Floats:
    """Log posterior odds that a row is a click.

    Arguments as for :func:`ceiling`, which derives the formula.

    Returns:
        One value per row of ``part``; infinite where the item cannot have been a negative.
    """
    part = np.ones(len(users), dtype=np.bool_) if part is None else part
    user = _positions(truth.user_ids, users, "user")
    item = _positions(truth.item_ids, items, "item")
    theme = _positions(truth.theme_ids, themes, "theme")
    click = np.asarray(labels) > 0.5
    visits, visit = np.unique(theme * len(truth.user_ids) + user, return_inverse=True)
    clicks = np.bincount(visit[click], minlength=len(visits))
    negatives = np.bincount(visit[~click], minlength=len(visits))
    kept = np.bincount(visit[~click & part], minlength=len(visits))
    kept_share = np.bincount(negatives, kept) / np.maximum(np.bincount(negatives, negatives), 1)
    result = np.zeros(len(users))
    for number in np.unique(theme[part]):
        inside = theme == number
        pool = np.flatnonzero(truth.pools[number])
        column = np.cumsum(truth.pools[number]) - 1
        offered = len(np.unique(item[inside & click]))
        click_share = (inside & click & part).sum() / max((inside & click).sum(), 1)
        present = np.unique(visit[inside])
        latent = truth.users[visits[present] % len(truth.user_ids)]
        chances = np.concatenate(
            [
                inclusion(
                    _weights(truth.score(number, latent[start : start + USERS_BLOCK], truth.items[pool])),
                    clicks[present[start : start + USERS_BLOCK]],
                )
                for start in range(0, len(present), USERS_BLOCK)
            ]
        )
        missed = np.log1p(-np.minimum(chances, 1.0 - 1e-15))
        missed_by_all = missed.sum(axis=0)
        rows = np.flatnonzero(inside & part)
        at, of = visit[rows], column[item[rows]]
        own = np.searchsorted(present, at)
        clicked_by_another = -np.expm1(missed_by_all[of] - missed[own, of])
        as_click = chances[own, of] * click_share * np.maximum(offered - clicks[at], 1)
        as_negative = np.exp(missed[own, of]) * clicked_by_another * negatives[at] * kept_share[negatives[at]]
        with np.errstate(divide="ignore"):
            result[rows] = np.log(as_click) - np.log(as_negative)
    return result[part]


def _positions(known: Integers, asked: npt.NDArray[Any], word: str) -> Integers:
    order = np.argsort(known)
    asked = np.asarray(asked).astype(np.int64)
    found = order[np.minimum(np.searchsorted(known, asked, sorter=order), len(known) - 1)]
    if not np.array_equal(known[found], asked):
        raise UserError(f"the rows hold a {word} that the planted truth does not know; generate the data again")
    return found


def ceiling(
    truth_file: Path,
    users: npt.NDArray[Any],
    items: npt.NDArray[Any],
    themes: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    part: Booleans | None = None,
) -> dict[str, Any]:
    """AUC, per theme and row-weighted, of the best ranking by user vector, item vector and theme.

    The AUC is greatest for a ranking by P(label = 1 | row is there, u, i, d) within a theme. Write, for one
    user and theme, N for the items the theme offers, n and m for the user's clicks and sampled negatives, S
    for the clicked set and pi_i = P(i in S) for sets of n items with P(S) proportional to exp(sum of s over
    S). Then

    - item i is there as a click with probability pi_i,
    - and as a negative with probability (1 - pi_i) o_i m / (N - n): given S, the negatives are m of the other
      N - n items, each as likely as any other, and the pipeline offers an item only if someone clicked it, which
      a user other than u did with probability o_i = 1 - prod over v != u of (1 - pi_i of v).

    Of all clicks of the theme the share q_d falls into the split that is ranked, of the negatives of a user
    with m of them the share q(m) (they are split user by user and small groups are rounded, so q depends on
    m). Hence::

        odds = pi_i q_d (N - n) / ((1 - pi_i) o_i m q(m))

    pi_i holds the user's normaliser, which exp(s) lacks. What is conditioned on is exactly what a ranker can
    see: n is a function of the user's vector (and the size of the theme), m of n and the theme. Rankers that
    look at the labels of the user's other rows are not meant. N, the number of items clicked at all, is taken
    as it came out.

    Args:
        truth_file: ``truth.npz`` as :func:`simulate` wrote it.
        users: raw user ids of all rows of all splits, [rows].
        items: raw item ids, [rows].
        themes: raw theme ids, [rows].
        labels: 1 for a click and 0 for a sampled negative, [rows].
        part: which rows are ranked, [rows]; all of them if left out.

    Returns:
        What :func:`weighted_auc` returns, for the rows of ``part``.

    Raises:
        UserError: if the truth cannot be read or is that of other rows.
    """
    part = np.ones(len(users), dtype=np.bool_) if part is None else part
    odds = log_odds(Truth.load(truth_file), users, items, themes, labels, part)
    return weighted_auc(odds, np.asarray(labels)[part], np.asarray(themes)[part], np.asarray(users)[part])


def weighted_auc(
    scores: Floats, labels: npt.NDArray[Any], themes: npt.NDArray[Any], users: npt.NDArray[Any]
) -> dict[str, Any]:
    """AUC per theme and weighted by the themes' rows, each with a 95 % interval.

    The intervals are DeLong's with users as clusters: a user's rows count as one observation.

    Returns:
        JSON-ready: ``{"wauc": x, "interval": [low, high], "themes": {theme: {"auc", "interval", "rows"}}}``;
        a theme whose rows are of one class has None for both and is left out of ``wauc``.
    """
    owners, owner = np.unique(users, return_inverse=True)
    total: Floats = np.zeros(len(owners))
    rows, wauc = 0, 0.0
    report: dict[str, Any] = {}
    for theme in np.unique(themes):
        inside = themes == theme
        positive = np.asarray(labels)[inside] > 0.5
        entry: dict[str, Any] = {"auc": None, "interval": None, "rows": int(inside.sum())}
        report[str(theme)] = entry
        if positive.all() or not positive.any():
            continue
        auc, influence = _auc(scores[inside], positive)
        moved = np.bincount(owner[inside], influence, minlength=len(owners)).astype(np.float64)
        entry["auc"], entry["interval"] = auc, _interval(auc, moved)
        rows, wauc = rows + entry["rows"], wauc + entry["rows"] * auc
        total = total + entry["rows"] * moved
    if not rows:
        return {"wauc": None, "interval": None, "themes": report}
    return {"wauc": wauc / rows, "interval": _interval(wauc / rows, total / rows), "themes": report}


def _auc(scores: Floats, positive: Booleans) -> tuple[float, Floats]:
    """AUC and each row's influence on it: DeLong's structural components, centred, over their number."""
    ones, zeros = np.sort(scores[positive]), np.sort(scores[~positive])
    component = np.empty(len(scores))
    for mask, others in ((positive, zeros), (~positive, ones)):
        below = np.searchsorted(others, scores[mask], "left") + np.searchsorted(others, scores[mask], "right")
        component[mask] = below / (2 * len(others))
    component[~positive] = 1.0 - component[~positive]
    auc = float(component[positive].mean())
    return auc, (component - auc) / np.where(positive, len(ones), len(zeros))


def _interval(value: float, influence: Floats) -> list[float]:
    """95 % interval from the influence of independent clusters."""
    error = 1.96 * float(np.sqrt((influence**2).sum()))
    return [max(0.0, value - error), min(1.0, value + error)]
