"""The model server that endpoints run, and what keeps it. Stands alone: imports nothing else of mlstack."""
