"""From a request to a plan: what is decided before anything of a run is started."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from kaptain_zen.exceptions import ModelValidationException, WorkloadDeploymentError
from kaptain_zen.model.frameworks import ModelFramework
from kaptain_zen.model.ports import TrainRequest
from kaptain_zen.model.resources import Resources
from kaptain_zen.platform.local import limits
from kaptain_zen.platform.local.command import script_arguments, secret_variables
from kaptain_zen.platform.local.files import ModelFile
from kaptain_zen.platform.local.imports import leading_imports
from kaptain_zen.platform.local.runs import Plan, Rendezvous, now

_RENDEZVOUS: dict[ModelFramework, Rendezvous] = {
    ModelFramework.PYTORCH: "pytorch",
    ModelFramework.HUGGINGFACE: "pytorch",
    ModelFramework.TENSORFLOW: "tensorflow",
}
_S3_IMPORTS = ("import boto3.session", "import boto3.s3.inject", "import boto3.s3.transfer")
"""What the export of a model to S3 imports when it is called."""
_QUICK = sys.stdlib_module_names | {"kaptain_zen"}


def make_plan(request: TrainRequest, main: ModelFile, storage: Mapping[str, str]) -> Plan:
    """Decide how a request is run here.

    Args:
        request: The request.
        main: Its model's main file.
        storage: The storage's credentials; only their names are taken over.

    Raises:
        WorkloadDeploymentError: It asks for GPUs that this machine does not have.
        ModelValidationException: An argument cannot be given to a process.
    """
    _check_gpus(request)
    spec, resources = request.spec, request.resources
    plan = Plan(
        name=request.name,
        uid=uuid.uuid4().hex,
        submitted_at=now(),
        python=sys.executable,
        script=str(main.target),
        arguments=script_arguments(request.args, request.hyperparameters, request.kwargs),
        import_path=str(request.base_dir.expanduser().absolute()),
        workers=request.workers if spec.framework.distributed else 1,
        rendezvous=_RENDEZVOUS.get(spec.framework, "none"),
        upload_uri=request.upload_uri,
        timeout=request.timeout,
        cpus=limits.cpus_of(resources.cores),
        memory=resources.memory_bytes,
        secrets=secret_variables(storage),
        annotation=request.annotation,
        labels=request.labels,
    )
    for text in (*plan.arguments, plan.upload_uri):
        if "\0" in text:
            raise ModelValidationException(
                f"Run {plan.name}: {text!r} holds a NUL character, which no process can be given. "
                f"Remove it."
            )
    return plan


def wanted_gpus(resources: Resources) -> int:
    """GPUs per worker."""
    return resources.gpu_limit or resources.gpu_request or 0


def _check_gpus(request: TrainRequest) -> None:
    wanted = wanted_gpus(request.resources)
    present = limits.nvidia_devices() if wanted else 0
    if wanted > present:
        raise WorkloadDeploymentError(
            f"Run {request.name} asks for {wanted} GPU(s) per worker; this machine has {present} "
            f"NVIDIA device(s). Ask for fewer, or train where there are some."
        )


def imports_ahead(main: Path, base_dir: Path, upload_uri: str) -> tuple[str, ...]:
    """What is worth importing before a script runs.

    Args:
        main: The main file.
        base_dir: Folder that its files are relative to.
        upload_uri: Where the model goes.

    Returns:
        Import statements; none if all that the script imports is imported in no time.
    """
    statements = leading_imports(main, (main.parent, base_dir.expanduser().absolute()))
    if upload_uri.startswith("s3://"):
        statements += _S3_IMPORTS
    roots = {statement.split()[1].partition(".")[0] for statement in statements}
    return statements if roots - _QUICK else ()
