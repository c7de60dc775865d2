"""Slow, obvious numpy statement of autoctr's equations, for checking the real implementation.

Everything is float64 and concerns one network (no member axis). Row vectors: ``x @ W + b``. A function takes
one row ``[h]`` or a batch ``[B, h]`` alike unless it says otherwise. Nothing here imports torch or autoctr.
"""
