"""Evidently's own user interface: its workspace filled, a run a window.

Runs in Evidently's child process alone: the import takes some seconds more. `evidently ui --workspace DIR`
shows what is there.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_DONE = ".windows"  # a mark for each window that stands there: one that is compared again is not added


def fill(workspace: Path, project_name: str, window_end: int, snapshot: Any) -> None:
    """Add Evidently's snapshot of the window that ends at `window_end` (epoch seconds), without its data.

    A process that is killed between the run and its mark adds the window once more.
    Raises OSError where the workspace cannot be written.
    """
    from evidently.ui.workspace import Workspace  # noqa: PLC0415  (only where it is asked for)

    name = datetime.fromtimestamp(window_end, UTC).strftime("%Y-%m-%d")
    mark = workspace / _DONE / project_name / name
    if mark.exists():
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    there = Workspace.create(str(workspace))
    found = there.search_project(project_name)
    project = found[0] if found else there.create_project(project_name)
    there.add_run(project.id, snapshot, include_data=False, name=name)
    mark.touch()
