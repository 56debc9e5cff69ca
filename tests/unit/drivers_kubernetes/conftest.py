"""What holds for all of these tests: the variables of whoever runs them say nothing about the stores of projects."""

import pytest


@pytest.fixture(autouse=True)
def no_store_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
