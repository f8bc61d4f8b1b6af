"""kubectl, of the same version, for people."""

from __future__ import annotations

from devcluster.component import Context, GoComponent
from devcluster.components.kubernetes import MODULE, kubernetes_command


class Kubectl(GoComponent):
    """The command, as `bin/kubectl` of the cluster's folder. It has no process."""

    name = "kubectl"
    module = MODULE
    command = kubernetes_command("kubectl")

    def prepare(self, context: Context) -> None:
        """Link it."""
        (context.folder.bin / self.name).symlink_to(self.binary)

    def start(self, context: Context) -> None:
        """There is nothing to start."""

    def ready(self, context: Context) -> str | None:
        """Whether it is linked, and to something."""
        return None if (context.folder.bin / self.name).exists() else "it is not linked"
