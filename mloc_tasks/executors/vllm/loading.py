"""From a stage to a loaded engine: arguments checked, memory looked at, and errors that say what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mloc_tasks.cpus import memory_nodes, topology, usable_cpus
from mloc_tasks.errors import ExecutionError, ModelError, RetryableExecutionError
from mloc_tasks.executors.generation.model_files import cache_dir_of
from mloc_tasks.executors.vllm import environment, memory
from mloc_tasks.executors.vllm.arguments import canonical, check_names, cpu_ranks, engine_arguments
from mloc_tasks.executors.vllm.availability import INSTALL_HINT
from mloc_tasks.executors.vllm.engine import Engine
from mloc_tasks.executors.vllm.plan import engine_rank
from mloc_tasks.executors.vllm.stderr import StderrTail
from mloc_tasks.models import ModelFiles, files_of_stage

if TYPE_CHECKING:
    from mloc_tasks.executors.base import Task

_KILLED = re.compile(r": -9\b")  # an exit code in vLLM's list of the processes that failed


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """An engine, the tokenizer for its prompts, and the files both came from."""

    engine: Engine
    tokenizer: Any
    files: ModelFiles


@dataclass(frozen=True, kw_only=True)
class Loading:
    """A load that can begin: arguments of vLLM's `AsyncEngineArgs`, checked, and the model's files."""

    arguments: dict[str, Any]
    files: ModelFiles


def prepare(task: Task) -> Loading:
    """What an engine for the stage is loaded with.

    Raises ExecutionError when vLLM is not installed or an argument does not fit, ModelError when the model is not
    there, RetryableExecutionError when the memory that the engine would claim is not free now.
    """
    environment.prepare()
    version = _version()
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform

    cpu = bool(current_platform.is_cpu())
    spec = task.spec
    given = canonical((spec.model.vllm if spec.model is not None else None) or {})
    check_names(given, known={each.name for each in fields(AsyncEngineArgs)}, version=version)
    if spec.enforce_cpu and not cpu:
        raise ExecutionError("enforce_cpu is set, but the vLLM on this worker is a GPU build", hint=INSTALL_HINT)
    files = files_of_stage(spec, cache_dir=cache_dir_of(task), log=task.report.log)
    machine = memory.machine_memory()  # asked late: what was fetched is in it
    defaults: dict[str, Any] = {}
    if cpu:
        half_precision = environment.computes_half_precision()
        defaults = environment.cpu_defaults(given, available=machine.free, half_precision=half_precision)
    rank = engine_rank(task["spec"])
    arguments = engine_arguments(spec, files, cpu=cpu, lora_rank=rank, defaults=defaults)
    if not cpu:
        asked = spec.resources.hardware.gpu is not None
        memory.check_memory(arguments, memory.visible_gpus(int(arguments["tensor_parallel_size"]), asked=asked))
        return Loading(arguments=arguments, files=files)
    if "gpu_memory_utilization" in given:
        memory.check_memory(arguments, [machine])
    ranks = cpu_ranks(arguments)
    os.environ.update(environment.cpu_placement(topology(usable_cpus()), memory=memory_nodes(), ranks=ranks))
    return Loading(arguments=arguments, files=files)


def load(loading: Loading) -> LoadedModel:
    """Start the engine. Raises as `load_errors` says."""
    files, arguments = loading.files, loading.arguments
    tokenizer = _tokenizer(files, arguments)
    with load_errors(loading):
        from vllm import AsyncEngineArgs

        return LoadedModel(engine=Engine(AsyncEngineArgs(**arguments)), tokenizer=tokenizer, files=files)


@contextmanager
def load_errors(loading: Loading) -> Iterator[None]:
    """Within the block, what vLLM raises while it loads becomes a ModelError that names the cause.

    A RetryableExecutionError where memory may be what lacked.
    """
    name, hint = loading.files.name, _hint(loading.arguments)
    tail = StderrTail()
    try:
        yield
    except (ValueError, TypeError, AssertionError, NotImplementedError, KeyError, OSError, ImportError) as error:
        raise ModelError(f"vLLM cannot load {name}: {_text(error)}", hint=hint) from error
    except RuntimeError as error:
        if _KILLED.search(str(error)):
            message = f"the process of the vLLM engine for {name} was killed while it loaded: out of memory?"
            raise RetryableExecutionError(message) from error
        raise ModelError(f"vLLM cannot load {name}: {tail.cause() or _text(error)}", hint=hint) from error
    finally:
        tail.release()


def _version() -> str:
    try:
        import vllm
    except ImportError as error:
        if error.name == "vllm":
            raise ExecutionError("vLLM is not installed on this worker", hint=INSTALL_HINT) from error
        raise ExecutionError(f"vLLM cannot be imported on this worker: {error}", hint=INSTALL_HINT) from error
    return str(vllm.__version__)


def _tokenizer(files: ModelFiles, arguments: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    identifier = arguments.get("tokenizer") or files.location
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            identifier, revision=arguments["tokenizer_revision"], trust_remote_code=files.trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the tokenizer of {files.name} cannot be loaded: {error}") from error
    tokenizer("a")  # the first call settles its state; later ones, from several threads, only read it
    return tokenizer


def _text(error: Exception) -> str:
    """A pydantic error's own words, without the address of its documentation and the values it repeats."""
    lines = [line for line in str(error).splitlines() if "For further information" not in line]
    return re.sub(r" \[type=.*$", "", " ".join(line.strip() for line in lines)) or type(error).__name__


def _hint(arguments: dict[str, Any]) -> str:
    shown = ("dtype", "max_model_len", "max_num_seqs", "tensor_parallel_size", "gpu_memory_utilization")
    given = ", ".join(f"{name} {arguments[name]}" for name in shown if name in arguments)
    return f"model.vllm is passed on to vLLM{'; it was given ' * bool(given)}{given}; its log has more"
