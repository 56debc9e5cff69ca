"""The model server that endpoints run, and the supervisor that keeps it. Stands alone: imports nothing else of mlstack."""
