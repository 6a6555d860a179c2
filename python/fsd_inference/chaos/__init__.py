"""Seeded faults in runs over real processes and an emulated AWS, and what becomes of each run."""
