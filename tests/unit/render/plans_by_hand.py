"""Hand-made plans that between them use every action and every reason."""

from typing import Any

from mlstack.diagnostics import Diagnostic, Position, Severity
from mlstack.graph.change import Action, Change, FieldDiff, Reason, ReasonCode
from mlstack.planner.plan import Plan, Scope, Step
from mlstack.spec.address import Address, kind_of
from mlstack.spec.spec import SecretRef

OLD, NEW = "3f2a1b9c" + "0" * 24, "9d8e7f6a" + "1" * 24
C = ReasonCode


def reason(code: ReasonCode, subject: str = "", before: Any = None, after: Any = None) -> Reason:
    return Reason(code=code, subject=subject, before=before, after=after)


def change(address: str, action: Action, *reasons: Reason, **rest: Any) -> Change:
    where = Address(address)
    return Change(address=where, kind=kind_of(where), action=action, reasons=reasons, **rest)


def plan_of(*changes: Change, **rest: Any) -> Plan:
    ordered = tuple(sorted(changes, key=lambda c: c.address))
    settings: dict[str, Any] = {
        "project": "wine-quality",
        "environment": "local",
        "profile": None,
        "mlstack_version": "0.1.0",
        "created": "2026-01-31T12:00:00+00:00",
        "scope": Scope(),
        "steps": tuple(Step(address=c.address, action=c.action) for c in changes if c.action is not Action.NO_OP),
        "digest": "ab" * 32,
        "lineage": "11111111-2222-3333-4444-555555555555",
        "serial": 7,
        "commit": "c0ffee" + "0" * 34,
        "dirty": False,
        **rest,
    }
    return Plan(changes=ordered, **settings)


def stages_plan() -> Plan:
    outs = (FieldDiff(path="outs.model", before=OLD, unknown=True),)
    return plan_of(
        change("datasets.wine", Action.CREATE, reason(C.NOT_FETCHED, "https://example.org/wine.csv")),
        change("datasets.raw", Action.UPDATE, reason(C.CONTENT_CHANGED, "data/raw", OLD + ".dir", NEW + ".dir")),
        change("datasets.web", Action.UPDATE, reason(C.SOURCE_CHANGED, "", "https://a.org/1", "https://a.org/2")),
        change(
            "stages.prepare",
            Action.RUN,
            reason(C.DEP_CHANGED, "src/prepare.py", OLD, NEW),
            fields=(FieldDiff(path="outs.train", before=OLD, unknown=True),),
        ),
        change(
            "stages.train",
            Action.RUN,
            reason(C.PARAM_CHANGED, "depth", 6, 8),
            reason(C.COMMAND_CHANGED, "", "python src/train.py", "python src/train.py --fast"),
            reason(C.DEP_ADDED, "src/helpers.py", None, NEW),
            reason(C.DEP_REMOVED, "src/old.py", OLD, None),
            reason(C.UPSTREAM_CHANGES, "stages.prepare"),
            fields=outs,
        ),
        change("stages.first", Action.RUN, reason(C.NOT_RECORDED), fields=(FieldDiff(path="outs.a", unknown=True),)),
        change("stages.env", Action.RUN, reason(C.ENV_CHANGED, "", {"OMP": "1"}, {"OMP": "2"})),
        change("stages.packages", Action.RUN, reason(C.ENVIRONMENT_CHANGED, "numpy", "2.0.1", "2.1.0")),
        change("stages.outs", Action.RUN, reason(C.OUTS_CHANGED, "", ["a.bin"], ["b.bin"])),
        change("stages.gone", Action.RUN, reason(C.OUT_MISSING, "models/gone.bin")),
        change("stages.forced", Action.RUN, reason(C.FORCED)),
        change("stages.report", Action.RUN, reason(C.ALWAYS)),
        change(
            "stages.cached",
            Action.RESTORE,
            reason(C.IN_RUN_CACHE),
            reason(C.PARAM_CHANGED, "depth", 8, 6),
            fields=(FieldDiff(path="outs.model", before=OLD, after=NEW),),
        ),
        change("stages.going", Action.FOLLOW, reason(C.RUNNING, "pid 4711"), reason(C.NOT_RECORDED)),
        change("stages.stale", Action.CANCEL, reason(C.SUPERSEDED, "a1b2c3d4e5f6")),
        change("stages.renamed", Action.MOVE, reason(C.MOVED, "stages.fit"), previous_address=Address("stages.fit")),
        change(
            "stages.typo", Action.ACCEPT, reason(C.ACCEPTED, "only a comment"), reason(C.DEP_CHANGED, "src/typo.py")
        ),
        change("stages.definition", Action.UPDATE, reason(C.DEFINITION_CHANGED)),
        change("stages.removed", Action.FORGET, reason(C.REMOVED_FROM_FILE)),
        change("compute.local", Action.NO_OP, reason(C.THIS_MACHINE)),
        change("datasets.small", Action.NO_OP, reason(C.TRACKED_BY_GIT)),
        change("stages.fine", Action.NO_OP, reason(C.UP_TO_DATE), not_checked="the remote was not asked"),
    )


def endpoints_plan() -> Plan:
    variants = {"main": {"version": OLD, "weight": 100}}
    before = {"port": 8080, "host": "box", "variants": variants, "token": "s3cr3t", "env": {"A": "1"}}
    return plan_of(
        change(
            "models.wine",
            Action.UPDATE,
            reason(C.UPSTREAM_CHANGES, "stages.train"),
            fields=(FieldDiff(path="version", before=OLD, unknown=True),),
        ),
        change("models.bad", Action.UPDATE, reason(C.GATE_NOT_MET, "stages.eval.metrics.rmse is 0.9, above 0.7", 0.9)),
        change("models.gated", Action.UPDATE, reason(C.GATE_CHANGED, "stages.eval.metrics.rmse", 0.7, 0.6)),
        change(
            "endpoints.quality",
            Action.UPDATE,
            reason(C.MODEL_CHANGED, "variants.main.version", OLD, None),
            reason(C.SETTING_CHANGED, "token"),
            fields=(
                FieldDiff(path="token", before="s3cr3t", after="n3w", sensitive=True),
                FieldDiff(path="variants.main.version", before=OLD, unknown=True),
            ),
            before=before,
            after={**before, "variants": {"main": {"version": None, "weight": 100}}, "token": "n3w"},
        ),
        change("endpoints.held", Action.CREATE, reason(C.GATE_CLOSED, "models.bad"), reason(C.NOT_RECORDED)),
        change(
            "endpoints.moved",
            Action.REPLACE,
            reason(C.SETTING_CHANGED, "host", "a", "b"),
            fields=(FieldDiff(path="host", before="a", after="b", forces_replacement=True),),
            before={"host": "a", "port": 1},
            after={"host": "b", "port": 1},
        ),
        change(
            "endpoints.new",
            Action.CREATE,
            reason(C.NOT_RECORDED),
            fields=(
                FieldDiff(path="port", after=9000),
                FieldDiff(path="url", unknown=True),
                FieldDiff(path="secrets.TOKEN", after=SecretRef("env://TOKEN")),
            ),
        ),
        change("endpoints.old", Action.DELETE, reason(C.REMOVED_FROM_FILE), before={"port": 8081, "host": "box"}),
        change("endpoints.other", Action.DELETE, reason(C.DESTROY_ASKED), before={"port": 8082}),
        change("endpoints.down", Action.CREATE, reason(C.DOWN, "process 4711 is gone"), drift=True),
        change("endpoints.slow", Action.UPDATE, reason(C.NOT_READY), drift=True),
        change("endpoints.found", Action.IMPORT, reason(C.NOT_RECORDED)),
        change("endpoints.far", Action.NO_OP, reason(C.NOT_CHECKED, "it runs on host b"), not_checked="runs on host b"),
        change("endpoints.left", Action.NO_OP, reason(C.NOT_SELECTED)),
        change("stages.kept", Action.NO_OP, reason(C.KEPT)),
        scope=Scope(excludes=(Address("endpoints.left"),)),
        in_flight=("stages.train was running as process 4711 on box",),
        diagnostics=(
            Diagnostic(
                code="gate-not-met",
                summary="A gate is not met",
                detail="rmse is 0.9; the gate asks for at most 0.7.",
                address="models.bad",
                position=Position("mlstack.yaml", 12, 7, 11),
                source_line="    gate: {stages.eval.metrics.rmse: {max: 0.7}}",
            ),
            Diagnostic(code="dirty", summary="There are uncommitted changes", severity=Severity.WARNING),
        ),
    )


def matrix_plan(count: int = 163) -> Plan:
    rows = [
        change(
            f"stages.train[seed={number}]",
            Action.RUN,
            reason(C.DEP_CHANGED, "src/train.py", OLD, NEW),
            fields=(FieldDiff(path="outs.model", before=f"{number:032x}", unknown=True),),
        )
        for number in range(count)
    ]
    return plan_of(*rows)


def images_plan() -> Plan:
    old, new = "4d2f0a1b" + "c" * 12, "9c8b7a6f" + "d" * 12
    return plan_of(
        change(
            "images.python-train",
            Action.CREATE,
            reason(C.NEEDED_BY, "stages.train"),
            fields=(FieldDiff(path="tag", after=new),),
            note="docker buildx, builder default",
        ),
        change(
            "images.serve",
            Action.UPDATE,
            reason(C.CONTENTS_CHANGED),
            reason(C.NEEDED_BY, "endpoints.quality"),
            fields=(FieldDiff(path="tag", before=old, after=new),),
            not_checked="nothing here builds images: neither docker nor buildctl was found",
        ),
        change("images.mine", Action.UPDATE, reason(C.GONE, "not on the engine"), drift=True),
        change("images.other", Action.CREATE, reason(C.NOT_BUILT)),
        change("images.later", Action.NO_OP, reason(C.NOT_NEEDED)),
        change("images.before", Action.FORGET, reason(C.REMOVED_FROM_FILE)),
        change("stages.train", Action.RUN, reason(C.IMAGE_CHANGED, "base, system")),
    )


def clusters_plan() -> Plan:
    scaled = FieldDiff(path="spec.replicas", before=5, after=2)
    moved = FieldDiff(path="metadata.namespace", before="ml", after="ml-gpu", forces_replacement=True)
    token = FieldDiff(path="spec.template.metadata.annotations.token", before="a", after="b", sensitive=True)
    return plan_of(
        change(
            "compute.gpu",
            Action.UPDATE,
            reason(C.OBJECTS_CHANGED),
            parts=(
                change("compute.gpu#quota", Action.UPDATE, note="ResourceQuota ml/gpu", fields=(scaled,)),
                change("compute.gpu#policy", Action.CREATE, note="NetworkPolicy ml/gpu", fields=(moved,)),
            ),
        ),
        change(
            "endpoints.quality",
            Action.UPDATE,
            reason(C.CHANGED_OUTSIDE, "spec.replicas of Deployment ml/quality", 2, 5),
            drift=True,
            parts=(
                change("endpoints.quality#deployment", Action.UPDATE, note="Deployment ml/quality", fields=(scaled,)),
            ),
        ),
        change(
            "endpoints.price",
            Action.REPLACE,
            reason(C.SETTING_CHANGED, "namespace"),
            reason(C.GONE_OUTSIDE, "Service ml/price"),
            drift=True,
            parts=(
                change("endpoints.price#deployment", Action.REPLACE, note="Deployment ml/price", fields=(moved, token)),
                change("endpoints.price#service", Action.CREATE, note="Service ml-gpu/price"),
            ),
        ),
    )


def hostile_plan() -> Plan:
    evil = "\x1b[2J\x1b]0;owned\x07\u202egnp.exe\r\nNo changes.\x9b31m"
    return plan_of(
        change(
            "stages.evil",
            Action.RUN,
            reason(C.COMMAND_CHANGED, "", evil, evil + "2"),
            reason(C.DEP_CHANGED, evil),
            fields=(FieldDiff(path=evil, before=evil, after="x\ud800"),),
            not_checked=evil,
            drift=True,
        ),
        in_flight=(evil,),
        project="p\x1b[31m",
    )


def empty_plan() -> Plan:
    return plan_of(
        change("stages.train", Action.NO_OP, reason(C.UP_TO_DATE)),
        change("endpoints.quality", Action.NO_OP, reason(C.UP_TO_DATE)),
    )


PLANS = {
    "stages": stages_plan,
    "endpoints": endpoints_plan,
    "matrix": matrix_plan,
    "images": images_plan,
    "clusters": clusters_plan,
    "hostile": hostile_plan,
    "empty": empty_plan,
}


def made_plans() -> dict[str, Plan]:
    return {name: make() for name, make in PLANS.items()}
