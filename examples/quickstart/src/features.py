"""What the model sees: the columns, their order and how a table is read. Training and evaluation share this file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

FEATURES = (
    "age",
    "sex",
    "bmi",
    "blood_pressure",
    "total_cholesterol",
    "ldl",
    "hdl",
    "cholesterol_ratio",
    "log_triglycerides",
    "glucose",
)
TARGET = "progression"


def load(path: Path) -> tuple[Table, Table]:
    """Return the features, (n, 10) float64, and the progression one year after baseline, (n,) float64."""
    with path.open(encoding="utf-8") as file:
        header = file.readline().strip().split(",")
        rows = np.loadtxt(file, delimiter=",", ndmin=2)
    return rows[:, [header.index(name) for name in FEATURES]], rows[:, header.index(TARGET)]
