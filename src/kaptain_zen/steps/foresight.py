"""What a step can begin with because a later step of its pipeline will need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zenml import get_step_context

from kaptain_zen.model.models import Model

_DEPLOYING = frozenset(
    {"kaptain_zen.steps.serving.deploy_model", "kaptain_zen.steps.serving.deploy_canary"}
)


def prepare_serving(model: Model) -> None:
    """Let a model server do its imports while a training runs, if the pipeline will deploy.

    Starting a server takes seconds, most of which are imports that do not depend on the model.
    Nothing happens on a platform that cannot do this.
    """
    prepare = getattr(model.platform.server, "prepare", None)
    if prepare is None:
        return
    context = get_step_context()
    snapshot = context.pipeline_run.snapshot
    if snapshot is None:
        return
    steps = snapshot.step_configurations
    if deploys_later(
        context.step_run.name,
        upstream={name: step.spec.upstream_steps for name, step in steps.items()},
        sources={name: step.spec.source.import_path for name, step in steps.items()},
    ):
        prepare(model.spec.framework)


def deploys_later(
    current: str, *, upstream: Mapping[str, Sequence[str]], sources: Mapping[str, str]
) -> bool:
    """Whether a step that deploys comes after a step.

    Args:
        current: Name of the step.
        upstream: Of each step, the names of those that it waits for.
        sources: Of each step, what it runs.

    Returns:
        Whether one of those that wait for it, or for one of those, deploys a model.
    """
    later: set[str] = set()
    newly = {current}
    while newly:
        newly = {name for name, before in upstream.items() if newly & {*before}} - later
        later |= newly
    return any(sources.get(name) in _DEPLOYING for name in later)
