"""A model that is no estimator: it reads a demand curve and answers with the price that earns most."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


class PricingModel:
    """What the endpoint runs. The server makes one, calls `load` once and `predict` for every request."""

    inputs: ClassVar = [
        {"name": "unit_cost", "datatype": "FP64", "shape": [-1]},
        {"name": "weekend", "datatype": "BOOL", "shape": [-1]},
    ]

    def load(self, path: str) -> None:
        """Read the curve that `pricing/fit.py` wrote."""
        self.curve: dict[str, float] = json.loads(Path(path).read_text(encoding="utf-8"))

    def predict(self, inputs: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Return the most profitable price and the units expected at it, each of shape (n,).

        Profit is (price - cost) · exp(base + slope · price + …); its derivative is zero at price = cost - 1 / slope.
        """
        price = inputs["unit_cost"] - 1 / self.curve["slope"]
        log_units = self.curve["base"] + self.curve["slope"] * price + self.curve["lift"] * inputs["weekend"]
        return {"price": np.round(price, 2), "units": np.round(np.exp(log_units), 1)}
