"""Tests of autoctr.export."""
