"""Runs elsewhere, seen from here: the code bundle, the order, the runner's packages, and what came out.

The other side is `mlstack.runner`. Imported only when something runs, never by a plan.
"""
