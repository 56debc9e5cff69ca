"""What of a cache is in use: folders with their files, the run-cache with its outputs, provenance with its subjects."""

import json
import math
from pathlib import Path

from mlstack.drivers.dvc.garbage import (
    Inventory,
    Sorted,
    hashes_in,
    read_cache,
    reading_of,
    remove_from_cache,
    sort_out,
)
from mlstack.drivers.dvc.objects import Objects
from mlstack.drivers.leftovers import Item

USED, TRY, SHARED = "a" * 32, "b" * 32, "c" * 32
FOLDER = "d" * 32 + ".dir"
KEY, VALUE = "1" * 64, "2" * 64


def put(cache: Path, md5: str, content: str = "x", *, legacy: bool = False) -> None:
    top = cache if legacy else cache / "files" / "md5"
    path = top / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def put_run(cache: Path, md5: str, *, key: str = KEY) -> None:
    folder = cache / "runs" / key[:2] / key
    folder.mkdir(parents=True)
    text = f"cmd: true\nouts:\n- path: out\n  md5: {md5}\n  size: 1\n"
    (folder / VALUE).write_text(text)


def put_statement(cache: Path, md5: str, *, key: str = KEY, names: str = "") -> str:
    folder = cache / "provenance" / key[:2] / key
    folder.mkdir(parents=True)
    dependencies = [{"name": names}]
    statement = {"subject": [{"digest": {"md5": md5}}], "predicate": {"resolvedDependencies": dependencies}}
    (folder / f"{VALUE}.json").write_text(json.dumps(statement))
    (folder / f"{VALUE}.statement.sig").write_text("signed")
    (folder / f"{VALUE}.{'0' * 16}.model.sig").write_text("signed")
    return f"provenance/{key[:2]}/{key}/{VALUE}.json"


def sorted_out(cache: Path, *used: str, before: float = math.inf) -> Sorted:
    return sort_out(read_cache(cache), set(used), reading=reading_of(Objects(cache)), before=before)


def names(items: tuple[Item, ...]) -> set[str]:
    return {item.name for item in items}


def test_a_folder_keeps_its_files_and_what_no_one_names_goes(tmp_path: Path) -> None:
    put(tmp_path, FOLDER, json.dumps([{"md5": SHARED, "relpath": "a"}]))
    put(tmp_path, SHARED)
    put(tmp_path, TRY)
    put(tmp_path, USED, legacy=True)
    found = sorted_out(tmp_path, FOLDER, USED)
    assert names(found.kept.objects) == {FOLDER, SHARED, USED}
    assert names(found.garbage.objects) == {TRY}
    assert names(sorted_out(tmp_path, USED).garbage.objects) == {FOLDER, SHARED, TRY}


def test_a_listing_that_is_lost_or_damaged_is_said_only_where_it_matters(tmp_path: Path) -> None:
    put(tmp_path, USED)
    assert sorted_out(tmp_path, FOLDER, USED).unread == ()
    put(tmp_path, TRY)
    assert sorted_out(tmp_path, FOLDER, USED).unread == (FOLDER,)
    put(tmp_path, FOLDER, '[{"md5": "')
    assert sorted_out(tmp_path, FOLDER, USED).unread == (FOLDER,)


def test_a_run_stays_while_its_outputs_do_and_a_new_one_keeps_them(tmp_path: Path) -> None:
    put(tmp_path, TRY)
    put_run(tmp_path, TRY)
    assert sorted_out(tmp_path, TRY).garbage == Inventory()
    gone = sorted_out(tmp_path)
    assert (len(gone.garbage.runs), names(gone.garbage.objects)) == (1, {TRY})
    young = sorted_out(tmp_path, before=0.0)
    assert (young.garbage, young.young) == (Inventory(), 1)


def test_provenance_stays_with_what_it_is_about(tmp_path: Path) -> None:
    bill = f"provenance/33/{'3' * 64}/{'4' * 32}.cdx.json"
    (tmp_path / bill).parent.mkdir(parents=True)
    (tmp_path / bill).write_text("{}")
    about_used = put_statement(tmp_path, USED, names=bill)
    about_try = put_statement(tmp_path, TRY, key="5" * 64)
    found = sorted_out(tmp_path, USED)
    assert {about_used, bill} <= names(found.kept.statements)
    assert len(found.kept.statements) == 4
    assert about_try in names(found.garbage.statements)
    assert len(found.garbage.statements) == 3


def test_removing_begins_with_what_names_others(tmp_path: Path) -> None:
    put(tmp_path, FOLDER, json.dumps([{"md5": SHARED, "relpath": "a"}]))
    put(tmp_path, SHARED)
    put_run(tmp_path, FOLDER)
    gone = [item.name for item, error in remove_from_cache(tmp_path, sorted_out(tmp_path).garbage) if error is None]
    assert gone == [f"runs/11/{KEY}/{VALUE}", FOLDER, SHARED]
    assert read_cache(tmp_path) == Inventory()


def test_every_hash_in_a_text_counts_whatever_the_text_is() -> None:
    text = f"<<<<<<< ours\n md5: {USED}\n=======\n- {{md5: {FOLDER}, x: {KEY}}}\n"
    assert hashes_in([text.encode()]) == {USED, FOLDER}
