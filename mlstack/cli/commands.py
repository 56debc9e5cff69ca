"""The one table of commands: what there is, what it is for, and where it lives.

A command's module is imported only when that command is invoked, so that `--help` costs nothing and a new heavy
dependency of one command cannot slow down the others.
"""

from typing import NamedTuple

MAIN = "Main commands"
STAGES = "Work on stages"
LOOK = "Look at what there is"
SHARE = "Share results"
HOUSEKEEPING = "Housekeeping"

GROUPS = (MAIN, STAGES, LOOK, SHARE, HOUSEKEEPING)


class CommandEntry(NamedTuple):
    """One command. `stream` marks those whose `--json` output is one event a line instead of one document."""

    name: str
    module: str
    function: str
    help: str
    group: str
    stream: bool = False


COMMANDS: tuple[CommandEntry, ...] = (
    CommandEntry("init", "mlstack.cli.init", "init", "Make a folder ready: Git, DVC and a first mlstack.yaml", MAIN),
    CommandEntry("validate", "mlstack.cli.validate", "validate", "Check mlstack.yaml and list every fault in it", MAIN),
    CommandEntry("plan", "mlstack.cli.plan", "plan", "Show what would change, and why", MAIN),
    CommandEntry("apply", "mlstack.cli.apply", "apply", "Make it so: carry out the plan", MAIN, stream=True),
    CommandEntry("destroy", "mlstack.cli.destroy", "destroy", "Take down what apply has made", MAIN, stream=True),
    CommandEntry("run", "mlstack.cli.run", "run", "Run stages for a try, recording nothing", STAGES, stream=True),
    CommandEntry("cancel", "mlstack.cli.cancel", "cancel", "Stop a stage's run, wherever it is", STAGES),
    CommandEntry("compare", "mlstack.cli.compare", "compare", "Compare metrics, params and data with a commit", STAGES),
    CommandEntry("reproduce", "mlstack.cli.reproduce", "reproduce", "Compute a commit again, and compare", STAGES),
    CommandEntry("shell", "mlstack.cli.shell", "shell", "Open a shell in the environment of a stage", STAGES),
    CommandEntry("explain", "mlstack.cli.explain", "explain", "Say why a stage would run, or not", STAGES),
    CommandEntry("accept", "mlstack.cli.accept", "accept", "Say that a change does not alter a result", STAGES),
    CommandEntry("status", "mlstack.cli.status", "status", "Show what is there and whether it is well", LOOK),
    CommandEntry("drift", "mlstack.cli.drift", "drift", "Show what was changed outside of mlstack", LOOK),
    CommandEntry("show", "mlstack.cli.show", "show", "Show one resource, or a saved plan", LOOK),
    CommandEntry("logs", "mlstack.cli.logs", "logs", "Show the log of a stage's run or an endpoint", LOOK),
    CommandEntry("graph", "mlstack.cli.graph", "graph", "Draw what needs what: Mermaid, DOT or SVG", LOOK),
    CommandEntry("lineage", "mlstack.cli.lineage", "lineage", "Show what comes from what, data to endpoint", LOOK),
    CommandEntry("history", "mlstack.cli.history", "history", "List what was applied, when and by whom", LOOK),
    CommandEntry("predict", "mlstack.cli.predict", "predict", "Ask an endpoint for a prediction", LOOK),
    CommandEntry("push", "mlstack.cli.push", "push", "Copy recorded results into the remote", SHARE),
    CommandEntry("pull", "mlstack.cli.pull", "pull", "Bring recorded results from the remote", SHARE),
    CommandEntry("lock", "mlstack.cli.lock", "lock", "Pin data sources and Python environments", HOUSEKEEPING),
    CommandEntry("gc", "mlstack.cli.gc", "gc", "Remove what nothing refers to any more", HOUSEKEEPING),
    CommandEntry("unlock", "mlstack.cli.unlock", "unlock", "Remove a lock whose owner is gone", HOUSEKEEPING),
    CommandEntry("doctor", "mlstack.cli.doctor", "doctor", "Check the tools and the project", HOUSEKEEPING),
    CommandEntry("eject", "mlstack.cli.eject", "eject", "Write plain Pulumi and Kubernetes files", HOUSEKEEPING),
    CommandEntry("schema", "mlstack.cli.schema", "schema", "Print the JSON Schema of mlstack.yaml", HOUSEKEEPING),
)

BY_NAME: dict[str, CommandEntry] = {entry.name: entry for entry in COMMANDS}
