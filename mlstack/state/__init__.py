"""The recorded state: reader and store, journal, locks, history, runs, backends."""
