"""Proposing candidates, running trials and keeping the study. The only part that knows Optuna and SQLite."""
