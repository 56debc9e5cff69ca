"""How a person agrees to a plan: yes, typed or given; a saved plan; or the digest of what was approved."""

import msgspec

from mlstack.cli.carry_out import confirm
from mlstack.cli.settings import Settings
from mlstack.diagnostics import MlstackError
from mlstack.planner.plan import Plan
from mlstack.planner.policy import approval_required, check_approved
from mlstack.spec.spec import Spec

_QUESTION = "Do you want mlstack to carry this out?"


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What was given on the command line: `--yes`, `--approved DIGEST` ("": not), a saved plan."""

    yes: bool = False
    digest: str = ""
    is_saved: bool = False

    def obtain(self, settings: Settings, spec: Spec, plan: Plan, question: str = _QUESTION) -> str:
        """Return how the plan is agreed to, for the history; ask if need be. "": there is nothing to do.

        Raises `MlstackError` for a plan that is not the approved one, when nobody is there to ask, and where the
        environment has `require_approval` and there is only `--yes`.
        """
        if not plan.steps:
            return ""
        if self.digest:
            problem = check_approved(plan, self.digest)
            if problem is not None:
                raise MlstackError(problem)
            return "digest"
        if self.is_saved:  # handing it over is the approval
            return "plan file"
        if spec.require_approval and (self.yes or not settings.interactive):
            raise MlstackError(approval_required(plan))
        confirm(settings, question, yes=self.yes)
        return "yes" if self.yes else "typed"
