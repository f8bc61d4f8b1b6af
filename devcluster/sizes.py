"""What can be started."""

from __future__ import annotations

from devcluster.component import Component
from devcluster.components.apiserver import ApiServer
from devcluster.components.controller_manager import ControllerManager
from devcluster.components.etcd import Etcd
from devcluster.components.kubectl import Kubectl

# In the order in which they are started; they are stopped in the opposite one.
SIZES: dict[str, tuple[Component, ...]] = {
    "control-plane": (Etcd(), ApiServer(), ControllerManager(), Kubectl()),
}
DEFAULT_SIZE = "control-plane"
