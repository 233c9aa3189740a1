"""Spec -> run: load, check, plan, record, send."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mloc_tasks.configuration import sending_app
from mloc_tasks.delivery import refusal
from mloc_tasks.errors import BrokerError, PlanError
from mloc_tasks.executors.registry import missing_reason, plugin_task_types
from mloc_tasks.ledger import Failure, Ledger, NewRun, NewStage
from mloc_tasks.queues import load_queues
from mloc_tasks.settings import Settings, get_settings
from mloc_tasks.spec import Workflow, load_workflow
from mloc_tasks.warmth import holders_of, warm_key
from mloc_tasks.worker.registry import consumers, live_workers
from scheduler.backlog import backlogs, rabbitmq_backlogs
from scheduler.canvas import build_canvas
from scheduler.plan import Plan, make_plan
from scheduler.routing import Load
from scheduler.runs import Run

Source = str | Path | Mapping[str, Any]


def submit_yaml(source: Source, *, settings: Settings | None = None) -> Run:
    """Submit a spec and return at once.

    Args:
        source: a file's path, the YAML text itself, or the document as a mapping. A `str` of one line that ends in
            `.yaml` or `.yml` is a path.

    Raises SpecError listing every problem of the document, PlanError for what this installation cannot run,
    RoutingError where no queue satisfies a stage, BrokerError where Redis does not answer.
    """
    settings = settings or get_settings()
    workflow, text = read_spec(source, settings)
    check_runnable(workflow, settings)
    return submit(workflow, text=text, ledger=_ledger(settings), settings=settings)


def read_spec(source: Source, settings: Settings) -> tuple[Workflow, str]:
    """The workflow, and the text of its document. Raises SpecError."""
    document: str | Mapping[str, Any] | Path
    if isinstance(source, Mapping):
        document, text = source, json.dumps(source, ensure_ascii=False, default=str)
    elif isinstance(source, Path) or _is_path(source):
        document = Path(source).expanduser()
        text = document.read_text(encoding="utf-8", errors="replace") if document.is_file() else ""
    else:
        document = text = source
    workflow = load_workflow(
        document,
        env=os.environ,
        env_allow=settings.env_allow,
        plugin_task_types=plugin_task_types(),
        default_models=default_models(settings),
    )
    return workflow, text


def default_models(settings: Settings) -> dict[str, str]:
    """The models of stages that name none, by task type."""
    named = {"inference": settings.vllm_model, "ppo": settings.ppo_model}
    return {task_type: model for task_type, model in named.items() if model}


def check_runnable(workflow: Workflow, settings: Settings) -> None:
    """Raise PlanError listing every stage that this installation cannot run."""
    reasons = []
    for stage in workflow.stages:
        reason = missing_reason(stage.spec.task_type, stage.document)
        destination = stage.spec.output.destination
        if reason is None and destination is not None:
            reason = refusal(destination, settings)
        if reason is not None:
            reasons.append(f"stage {stage.name!r}: {reason}")
    if reasons:
        raise PlanError("\n".join(reasons))


def submit(workflow: Workflow, *, text: str, ledger: Ledger, settings: Settings) -> Run:
    """Record a checked workflow as a new run and send its messages."""
    queues = load_queues(settings.queues_file)
    load = current_load(ledger, tuple(queue.name for queue in queues), settings)
    if settings.warm_wait_sec:
        load = replace(load, warm=warm_queues(ledger, workflow))
    plan = make_plan(workflow, queues, load)
    run = _new_run(str(uuid.uuid4()), workflow, plan, text)
    ledger.create(run)
    try:
        build_canvas(sending_app(settings), run.id, plan).apply_async()
    except Exception as error:
        # The record must not promise a run of which no message exists.
        failure = Failure(message=f"its messages could not be sent: {error}", type=type(error).__name__)
        ledger.fail_submission(run.id, failure)
        raise BrokerError(f"run {run.id}: {failure.message}", hint="submit it again") from error
    return Run(run.id, ledger=ledger, settings=settings)


def current_load(ledger: Ledger, queues: tuple[str, ...], settings: Settings | None = None) -> Load:
    """Live consumers and waiting messages of the queues."""
    settings = settings or get_settings()
    ledger.ping()
    if settings.amqp:
        backlog = rabbitmq_backlogs(sending_app(settings), queues)
    else:
        backlog = backlogs(ledger.client, ledger.keys.prefix, queues)
    return Load(consumers=consumers(live_workers(ledger.client, ledger.keys)), backlog=backlog)


def warm_queues(ledger: Ledger, workflow: Workflow) -> dict[str, frozenset[str]]:
    """For each stage, the queues of the live workers that hold its model now."""
    holding = [worker for worker in live_workers(ledger.client, ledger.keys) if worker.models]
    if not holding:
        return {}
    models = {stage.name: key for stage in workflow.stages if (key := warm_key(stage.document)) is not None}
    holders = holders_of(ledger.client, ledger.keys, frozenset(models.values()))
    return {
        stage: frozenset(queue for worker in holding if worker.id in holders[key] for queue in worker.queues)
        for stage, key in models.items()
    }


def _new_run(run_id: str, workflow: Workflow, plan: Plan, text: str) -> NewRun:
    metadata = workflow.metadata
    stages = tuple(
        NewStage(
            name=stage.name,
            depends_on=stage.depends_on,
            document=stage.document,
            queue=plan.stage(stage.name).queue,
            priority=plan.stage(stage.name).priority,
            scattered=plan.stage(stage.name).scattered,
            slo_seconds=stage.spec.slo_seconds,
        )
        for stage in workflow.stages
    )
    return NewRun(
        id=run_id,
        name=metadata.name,
        owner=metadata.owner or "",
        labels=dict(metadata.labels),
        header={
            "apiVersion": workflow.api_version,
            "kind": workflow.kind,
            "metadata": metadata.model_dump(mode="json"),
        },
        stages=stages,
        on_failure=str(workflow.on_failure),
        result_stage=plan.result_stage,
        spec_text=text,
        warnings=tuple(str(warning) for warning in workflow.warnings),
    )


def _is_path(source: str) -> bool:
    return "\n" not in source and source.strip().endswith((".yaml", ".yml"))


_ledgers: list[tuple[Settings, Ledger]] = []  # the one in use, kept connected between submissions


def _ledger(settings: Settings) -> Ledger:
    if not _ledgers or _ledgers[0][0] is not settings:
        _ledgers[:] = [(settings, Ledger.connect(settings))]
    return _ledgers[0][1]
