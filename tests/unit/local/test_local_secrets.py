"""Secrets: where they are found, what is refused, and that no form of them is shown."""

import base64
import json
import pickle
import subprocess
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlstack.diagnostics import MlstackError
from mlstack.drivers.secrets import Masker, SecretValues, resolve_secrets
from mlstack.spec.address import Address
from mlstack.spec.spec import SecretRef

STAGE = Address("stages.train")


def resolve(root: Path, environment: dict[str, str] | None = None, **uris: str) -> SecretValues:
    references = {name: SecretRef(uri) for name, uri in uris.items()}
    return resolve_secrets(references, address=STAGE, root=root, environment=environment or {})


def problem(root: Path, environment: dict[str, str] | None = None, **uris: str) -> str:
    with pytest.raises(MlstackError) as raised:
        resolve(root, environment, **uris)
    (found,) = raised.value.diagnostics
    assert found.code == "secret-unavailable"
    assert found.address == STAGE
    assert found.hint
    return found.detail


def test_variable_and_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from file\n")
    found = resolve(tmp_path, {"HF": "from variable"}, A="env://HF", B="file://token", C=f"file://{tmp_path / 'token'}")
    assert found.reveal() == {"A": "from variable", "B": "from file", "C": "from file"}


def test_only_the_last_line_ending_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"line 1\nline 2\n\r\n")
    assert resolve(tmp_path, KEY="file://key").reveal() == {"KEY": "line 1\nline 2\n"}


def test_what_is_missing_is_named_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(MlstackError) as raised:
        resolve(tmp_path, A="env://NO_SUCH", B="file://nowhere", C="vault://x")
    details = [found.detail for found in raised.value.diagnostics]
    assert details[0] == "A of stages.train is env://NO_SUCH: the variable NO_SUCH is not set"
    assert "No such file" in details[1]
    assert "vault:// is not known" in details[2]


def test_empty_too_large_binary_and_nul(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "large").write_text("x" * (1024 * 1024 + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "nul").write_bytes(b"a\0b")
    assert "is empty" in problem(tmp_path, {"E": ""}, A="env://E")
    assert "is empty" in problem(tmp_path, A="file://empty")
    assert "larger than 1 MiB" in problem(tmp_path, A="file://large")
    assert "not UTF-8" in problem(tmp_path, A="file://binary")
    assert "NUL byte" in problem(tmp_path, A="file://nul")


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


def test_a_file_that_git_tracks_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "token").write_text("s3cr3t")
    (tmp_path / "other").write_text("s3cr3t")
    git(tmp_path, "add", "token")
    detail = problem(tmp_path, A="file://token")
    assert "Git tracks" in detail
    assert "s3cr3t" not in detail
    assert resolve(tmp_path, A="file://other").reveal() == {"A": "s3cr3t"}
    (tmp_path / "link").symlink_to("token")
    assert "Git tracks" in problem(tmp_path, A="file://link")


def test_values_are_never_shown_nor_written() -> None:
    values = SecretValues({"TOKEN": "hunter22"})
    assert "hunter22" not in repr(values) + str(values) + f"{values}" + repr(values.masker())
    assert "TOKEN" in repr(values)
    with pytest.raises(TypeError):
        msgspec.json.encode(values)
    with pytest.raises(TypeError):
        pickle.dumps(values)
    with pytest.raises(TypeError):
        json.dumps(values)


def test_short_values_are_not_masked_and_said() -> None:
    values = SecretValues({"PIN": "123", "LONG": "1234"})
    assert values.unmasked() == ("PIN",)
    assert values.masker().text("123 1234") == "123 ***"


@pytest.mark.parametrize("value", ["hunter22", 'say "yes" \\ now', "pa ss/w&rd=ü", "it's mine", "x" * 40])
def test_common_encodings(value: str) -> None:
    data = value.encode()
    forms = [
        value,
        json.dumps({"token": value}),
        json.dumps({"message": json.dumps({"token": value})}),
        json.dumps({"token": value}, ensure_ascii=False),
        repr({"token": value}),
        f"https://host/?token={quote(value)}",
        f"https://host/?token={quote_plus(value)}",
        data.hex(),
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode(),
    ]
    for form in forms:
        shown = Masker([value]).text(f"before {form} after")
        assert "***" in shown, form
        assert value not in shown
        assert base64.b64encode(data).decode().rstrip("=")[:-2] not in shown


@given(st.binary(max_size=7), st.binary(max_size=7))
def test_base64_of_text_around_the_secret(before: bytes, after: bytes) -> None:
    secret = "correct-horse-battery"
    shown = Masker([secret]).text(base64.b64encode(before + secret.encode() + after).decode())
    assert "***" in shown
    for shift in range(3):
        assert base64.b64encode(b"\0" * shift + secret.encode())[4:20].decode() not in shown


def test_every_line_of_a_value_is_masked() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0BAQ\n}\n"
    shown = Masker([key]).text("got kqhkiG9w0BAQ and\r\nMIIEvQIBADANBg\r\n } done")
    assert shown == "got *** and\r\n***\r\n } done"


@given(st.text(min_size=4, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_no_value_ever_comes_through(value: str, before: str, after: str) -> None:
    try:
        shown = Masker([value]).text(before + value + after)
    except UnicodeEncodeError:
        return  # lone surrogates that no file or variable can hold
    assert value not in shown or value in "***"
