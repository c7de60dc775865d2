"""A winner as a folder that runs without autoctr."""
