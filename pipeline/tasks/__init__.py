"""What can be learnt: one folder for each task. Importing this imports no task, and no torch.

A recipe names its task (`task = "masa"`). A task of your own needs no line here: a recipe may also say where its class
is, as `task = "my_package.my_module:MyTask"`, see `trackmill.pipeline.tasks.base.Task`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackmill.models.outside import choose, import_object, is_outside
from trackmill.schemas.config import ConfigError
from trackmill.schemas.errors import InputError

if TYPE_CHECKING:
    from trackmill.pipeline.tasks.base import Task

TASKS: dict[str, str] = {
    "masa": "trackmill.pipeline.tasks.masa.task:MasaTask",
    "scaletrack": "trackmill.pipeline.tasks.scaletrack.task:ScaleTrackTask",
    "ipmot": "trackmill.pipeline.tasks.ipmot.task:IpMotTask",
}
"""Where the class of each task is. It is imported when a recipe names it."""


def task_class(name: str) -> type[Task]:
    """The class of a task.

    Args:
        name: a key of `TASKS`, or `package.module:Class` for a class of somebody else's. Its module is looked for as
            Python does, and in the current folder.

    Raises:
        ConfigError: there is no such task, module or class, or the class is no `Task`; says what to give.
        Exception: whatever the module raises while it is imported.
    """
    from trackmill.pipeline.tasks.base import Task

    try:
        target = name if is_outside(name) else TASKS[choose("task", name, TASKS)]
        found = import_object(target, "task")
    except InputError as error:
        raise ConfigError(str(error)) from None
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ConfigError(f"task {name}: is no class derived from trackmill.pipeline.tasks.base.Task")
    lacking = [each for each in ("name", "sections") if not hasattr(found, each)] + sorted(found.__abstractmethods__)
    if lacking:
        raise ConfigError(f"task {name}: the class lacks {', '.join(lacking)}, see trackmill.pipeline.tasks.base.Task")
    return found
