"""How far will the disease progress within a year? model.joblib, metrics.json."""

import argparse
import json
from pathlib import Path

import joblib
import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

TABLE = Path("../../features/table.csv")


def main() -> None:
    """Judge by five-fold cross-validation, then learn from all patients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, required=True)
    options = parser.parse_args()

    table = np.loadtxt(TABLE, delimiter=",", skiprows=1)
    features, target = table[:, :-1], table[:, -1]
    model = make_pipeline(StandardScaler(), Ridge(alpha=options.alpha))
    errors = -cross_val_score(model, features, target, cv=5, scoring="neg_mean_squared_error")
    joblib.dump(model.fit(features, target), "model.joblib")
    metrics = {"rmse": round(float(np.sqrt(errors.mean())), 4)}
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(metrics)


if __name__ == "__main__":
    main()
