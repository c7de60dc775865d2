"""A study in words, for terminals."""

from autoctr.report.text import study_text, trial_text

__all__ = ["study_text", "trial_text"]
