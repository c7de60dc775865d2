"""One small candidate, and the methods that tests switch on in it."""

from __future__ import annotations

from typing import Any

from autoctr.model.architecture import FIXED
from autoctr.model.candidate import Candidate

MEMBER = Candidate(
    embedding=4, width=8, blocks=2, wiring=FIXED["parallel"](2), batch=64, epochs=3, learning_rate=0.02, dropout=0.1,
    averaging=0.9, seed=7,
)  # fmt: skip
LEARN: dict[str, Any] = {"architecture": "learn", "wiring": None, "architecture_rate": 0.1, "warmup": 0.1}
TICKETS: dict[str, Any] = {"keep_rate": 0.4, "ticket_rounds": 2, "ticket_epochs": 0.5, "rewind": 0.2}
