"""The place of a failure stays for a while, for whoever wants to look into it."""

from tests.unit.runner.runner_place import Place, wait_until


def test_the_place_of_a_failure_is_kept_until_it_is_asked_to_end(place: Place) -> None:
    """The failure is recorded at once, what was made so far is still there, and the exit code is the command's."""
    place.order("open('half.txt', 'w').write('half'); raise SystemExit(3)")
    with place.start(MLSTACK_KEEP_FAILED="600") as process:
        wait_until(lambda: bool(place.ends()))
        assert place.ends()[0].exit_code == 3
        assert (place.work / "project" / "half.txt").read_text() == "half"
        assert process.stdout is not None
        wait_until(lambda: "is kept for 600 s" in process.stdout.readline())  # type: ignore[union-attr] # asked above
        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 3


def test_a_success_is_not_kept(place: Place) -> None:
    """Nor is what was asked to end."""
    place.order("open('out.txt', 'w').write('made')")
    code, said = place.run(MLSTACK_KEEP_FAILED="600")
    assert code == 0
    assert "kept" not in said
