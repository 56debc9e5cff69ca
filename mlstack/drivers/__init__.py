"""What can be made, and how. `base.py` has the Protocols, `registry.py` the one table of kinds and targets."""
