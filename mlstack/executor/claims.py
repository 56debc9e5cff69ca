"""Claiming the run of a stage: whoever has the record carries it out, and a killed one's is taken over."""

import os

import msgspec

from mlstack.diagnostics import Diagnostic
from mlstack.drivers.open_runs import is_owner_alive
from mlstack.executor.walk import StepError
from mlstack.executor.work import Work
from mlstack.spec.spec import Stage
from mlstack.state.identity import host_name, process_started
from mlstack.state.state import RunRecord


def claim_run(work: Work, stage: Stage, fingerprint: str) -> tuple[RunRecord, bool]:
    """Claim the run, or take over the claim of an owner that is gone. Raises when a live owner has it.

    Also returns whether it was inherited: then its process may go on, or may have ended since, uncollected. That holds
    for a mere claim as well, since its owner can have died between the start and the note of it.
    """
    ours = RunRecord(
        address=stage.address,
        fingerprint=fingerprint,
        status="claimed",
        host=host_name(),
        owner_pid=os.getpid(),
        owner_started=process_started(os.getpid()) or 0.0,
        apply_id=work.apply_id,
        claimed_at=work.now(),
    )
    if work.hands.remote_runner(stage) is None:
        ours = msgspec.structs.replace(ours, folder=str(work.hands.order_of(stage, ours).folder))
    theirs = work.store.claim(ours)
    if theirs is None:
        return ours, False
    is_inherited = theirs.status in ("claimed", "running")
    if is_inherited:
        if is_owner_alive(theirs):
            raise StepError(_claimed(stage, theirs))
        ours = msgspec.structs.replace(
            ours,
            status=theirs.status,
            pid=theirs.pid,
            started=theirs.started,
            attempt=theirs.attempt,
            host=theirs.host,
            claimed_at=theirs.claimed_at,
            remote=theirs.remote,
        )
    if not work.store.take_over(theirs, ours):
        raise StepError(_claimed(stage, theirs))
    return ours, is_inherited


def _claimed(stage: Stage, theirs: RunRecord) -> Diagnostic:
    return Diagnostic(
        code="run-claimed",
        summary="Another mlstack runs this stage at this moment",
        detail=f"The run {theirs.fingerprint[:12]} of {stage.address} is claimed by process {theirs.owner_pid} on "
        f"{theirs.host}.",
        hint="Wait until it is done, and apply again: its result will be restored.",
        address=stage.address,
    )
