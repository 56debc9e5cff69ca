"""Carries out a plan: walk, journal, events. Prints nothing."""
