"""Whoever looks after a cluster: nodes that died are started again, in a thread, while the chaos goes on elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from tests.chaos.cluster import Cluster, ClusterFailed

TRIES = 3


class Repairs:
    """Starts dead nodes again, one at a time.

    Args:
        cluster: of which it looks at the nodes.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._thread: threading.Thread | None = None
        self.failed = ""
        self.moved = time.monotonic()
        """When the last repair ended."""

    @property
    def busy(self) -> bool:
        """Whether a node is being started."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> None:
        """Begin to repair what is broken."""
        if self.busy or self.failed:
            return
        cluster = self._cluster
        if cluster.head is None or not cluster.head.alive():
            self._begin(cluster.restart)
            return
        for index, node in enumerate(cluster.raylets):
            if not node.alive():
                self._begin(lambda index=index: cluster.restart_raylet(index))
                return

    def wait(self) -> None:
        """Until nothing is being repaired."""
        if self._thread is not None:
            self._thread.join()

    def _begin(self, repair: Callable[[], None]) -> None:
        def work() -> None:
            act = repair
            for left in reversed(range(TRIES)):
                try:
                    act()
                    break
                except ClusterFailed as error:
                    # The head may have died meanwhile: who looks next starts everything anew.
                    head = self._cluster.head
                    if head is None or not head.alive():
                        act = self._cluster.restart
                    if not left:
                        self.failed = str(error)
            self.moved = time.monotonic()

        self._thread = threading.Thread(target=work, name="repairs", daemon=True)
        self._thread.start()
