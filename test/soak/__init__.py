"""A randomised soak: load in every mode, faults of every kind, and an exact count at the end."""
