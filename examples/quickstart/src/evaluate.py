"""Judge the model on patients that it has not seen: metrics/test.json and plots/predictions.csv."""

import json
from pathlib import Path

import joblib
import numpy as np
from features import load

METRICS = Path("metrics/test.json")
PREDICTIONS = Path("plots/predictions.csv")


def main() -> None:
    """Write the root mean squared error (rmse), R² and the mean absolute error, all of the target's unit but R²."""
    features, actual = load(Path("data/test.csv"))
    predicted = joblib.load("models/progression.joblib").predict(features)
    errors = predicted - actual
    metrics = {
        "mae": round(float(np.mean(np.abs(errors))), 4),
        "r2": round(float(1 - np.sum(errors**2) / np.sum((actual - actual.mean()) ** 2)), 4),
        "rmse": round(float(np.sqrt(np.mean(errors**2))), 4),
    }
    METRICS.parent.mkdir(exist_ok=True)
    METRICS.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    PREDICTIONS.parent.mkdir(exist_ok=True)
    with PREDICTIONS.open("w", encoding="utf-8") as file:
        file.write("actual,predicted\n")
        file.writelines(f"{a:.1f},{p:.1f}\n" for a, p in zip(actual, predicted, strict=True))
    print(f"{METRICS}: {metrics}")


if __name__ == "__main__":
    main()
