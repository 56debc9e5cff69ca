"""How demand is estimated and what price follows from it."""
