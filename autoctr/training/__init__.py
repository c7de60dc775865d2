"""Batches, optimisers, metrics and the fit of a cohort. Knows no database."""
