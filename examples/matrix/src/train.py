"""Fit one combination of the matrix and judge it by cross-validation: runs/depth-<depth>-seed-<seed>/."""

import argparse
import json
from pathlib import Path

import joblib
import numpy as np
from features import load
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_score


def main() -> None:
    """Write model.joblib and score.json (rmse over five folds that are the same for all combinations)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--trees", type=int, required=True)
    options = parser.parse_args()

    features, target = load(Path("data/diabetes.csv"))
    model = GradientBoostingRegressor(
        max_depth=options.depth,
        n_estimators=options.trees,
        learning_rate=0.05,
        subsample=0.7,
        random_state=options.seed,
    )
    folds = KFold(n_splits=5, shuffle=True, random_state=0)
    errors = cross_val_score(model, features, target, cv=folds, scoring="neg_mean_squared_error")
    rmse = round(float(np.sqrt(-errors.mean())), 4)

    run = Path(f"runs/depth-{options.depth}-seed-{options.seed}")
    run.mkdir(parents=True, exist_ok=True)
    joblib.dump(model.fit(features, target), run / "model.joblib")
    score = {"depth": options.depth, "seed": options.seed, "rmse": rmse}
    (run / "score.json").write_text(json.dumps(score) + "\n", encoding="utf-8")
    print(score)


if __name__ == "__main__":
    main()
