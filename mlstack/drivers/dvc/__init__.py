"""Data, models and results in DVC's own files and cache."""
