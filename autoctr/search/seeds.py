"""Every random draw of a study comes from (study seed, trial number, purpose), so that nothing has to be pickled."""

from __future__ import annotations

import hashlib


def derive(seed: int, number: int, purpose: str) -> int:
    """A seed in 0..2^31 - 1."""
    digest = hashlib.blake2b(f"{seed}:{number}:{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1
