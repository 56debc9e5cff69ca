"""Estimate how demand falls with the price: models/demand.json, metrics/fit.json."""

import csv
import json
from pathlib import Path

import numpy as np


def main() -> None:
    """Fit log(units) = base + slope · price + lift · weekend by least squares; slope is per unit of currency."""
    with Path("data/sales.csv").open(encoding="utf-8") as file:
        days = [{name: float(value) for name, value in day.items()} for day in csv.DictReader(file)]
    inputs = np.array([[1.0, day["price"], day["weekend"]] for day in days])
    demand = np.log([day["units"] for day in days])
    (base, slope, lift), *_ = np.linalg.lstsq(inputs, demand, rcond=None)

    residuals = demand - inputs @ np.array([base, slope, lift])
    r2 = 1 - np.sum(residuals**2) / np.sum((demand - demand.mean()) ** 2)
    curve = {"base": round(float(base), 6), "slope": round(float(slope), 6), "lift": round(float(lift), 6)}
    for path, content in (("models/demand.json", curve), ("metrics/fit.json", {"r2": round(float(r2), 4)})):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"{path}: {content}")


if __name__ == "__main__":
    main()
