"""`apply --json-into FILE`: the person sees text, the file gets what `--json` would give, from one run."""

import json

import pytest

from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e


def test_apply_writes_its_events_into_a_file_too(applied: Workspace) -> None:
    applied.edit("mlstack.yaml", "depth: 4", "depth: 2")
    done = applied.mlstack("apply", "--yes", "--json-into", "events.jsonl")
    assert "Apply complete!" in done.stdout
    lines = [json.loads(line) for line in (applied.root / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["type"] == "version"
    kinds = [line["type"] for line in lines]
    assert kinds.count("apply_complete") == 2, "train and evaluate"
    assert "change_summary" in kinds


def test_stream_is_whole_also_when_there_is_nothing_to_do(applied: Workspace) -> None:
    for command in (["apply", "--yes", "--json-into", "events.jsonl"], ["run"], ["destroy", "--yes"]):
        lines = [json.loads(line) for line in applied.mlstack(*command, "--json").stdout.splitlines()]
        assert [line["type"] for line in lines] == ["version", "change_summary", "change_summary"], command
        assert lines[-1]["changes"]["outcome"] == "done"
    written = (applied.root / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["type"] for line in written] == ["version", "change_summary", "change_summary"]


def test_file_that_cannot_be_written_is_said_before_anything_is_done(applied: Workspace) -> None:
    applied.edit("mlstack.yaml", "depth: 4", "depth: 2")
    lock = (applied.root / "dvc.lock").read_bytes()
    done = applied.mlstack("apply", "--yes", "--json-into", "no/such/folder.jsonl", code=1)
    assert "cannot be written" in done.stderr
    assert (applied.root / "dvc.lock").read_bytes() == lock
