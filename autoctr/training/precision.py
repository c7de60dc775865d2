"""With which numbers a device computes training steps best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from autoctr.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16")


def find_precision(word: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` is the second where the device multiplies matrices of such numbers.

    Raises:
        UserError: for an unknown word.
    """
    if word not in PRECISIONS:
        raise UserError(f"unknown precision {word!r}; legal are {', '.join(PRECISIONS)}")
    if word != "auto":
        return word
    return "bf16" if has_bf16_products(device) else "fp32"


def has_bf16_products(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices, and does not merely emulate them."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    told: Callable[[], Mapping[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)  # older torch does not tell
    present = told()
    return any(present.get(name, False) for name in ("avx512_bf16", "amx_tile", "sve_bf16"))
