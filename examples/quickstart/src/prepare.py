"""Split the patients into those to learn from and those to be judged by: data/train.csv and data/test.csv."""

import argparse
import random
from pathlib import Path

SOURCE = Path("data/diabetes.csv")
TEST_SHARE = 0.25


def main() -> None:
    """Shuffle with a fixed seed, so that the split is the same on every machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()

    header, *patients = SOURCE.read_text(encoding="utf-8").splitlines()
    random.Random(options.seed).shuffle(patients)
    cut = round(len(patients) * TEST_SHARE)
    for path, rows in ((Path("data/test.csv"), patients[:cut]), (Path("data/train.csv"), patients[cut:])):
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        print(f"{path}: {len(rows)} patients")


if __name__ == "__main__":
    main()
