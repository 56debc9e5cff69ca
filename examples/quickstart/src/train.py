"""Learn how far diabetes progresses within a year: models/progression.joblib."""

import argparse
from pathlib import Path

import joblib
from features import load
from sklearn.ensemble import GradientBoostingRegressor

MODEL = Path("models/progression.joblib")


def main() -> None:
    """Fit gradient-boosted trees; the same data, parameters and seed give the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--trees", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()

    features, target = load(Path("data/train.csv"))
    model = GradientBoostingRegressor(
        max_depth=options.depth, n_estimators=options.trees, learning_rate=0.05, random_state=options.seed
    )
    model.fit(features, target)
    MODEL.parent.mkdir(exist_ok=True)
    joblib.dump(model, MODEL)
    print(f"{MODEL}: {options.trees} trees of depth {options.depth}, learnt from {len(target)} patients")


if __name__ == "__main__":
    main()
