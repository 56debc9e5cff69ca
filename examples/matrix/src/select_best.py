"""Take the run with the smallest error: models/best.joblib and metrics/best.json."""

import json
import shutil
from pathlib import Path


def main() -> None:
    """Read every score; on a tie the smaller depth and seed win, so that the choice does not depend on order."""
    found = Path("runs").glob("*/score.json")
    scores = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in found}
    best = min(scores, key=lambda run: (scores[run]["rmse"], scores[run]["depth"], scores[run]["seed"]))
    for run in sorted(scores):
        print(f"{run.name}: rmse {scores[run]['rmse']}{'  <- best' if run == best else ''}")

    Path("models").mkdir(exist_ok=True)
    shutil.copyfile(best / "model.joblib", "models/best.joblib")
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/best.json").write_text(json.dumps(scores[best], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
