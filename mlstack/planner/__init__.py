"""Pure: from desired, prior and observed to a plan. Nothing in here reads or writes the world."""
