"""``python -m autoctr``."""

from autoctr.cli import main

main()
