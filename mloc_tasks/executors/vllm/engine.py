"""One vLLM engine and the event loop it is served from."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from mloc_tasks.errors import ExecutionError, HostCrashedError, ModelError
from mloc_tasks.executors.generation.completions import failed_item
from mloc_tasks.executors.vllm.adapters import AdapterFiles, check_width
from mloc_tasks.executors.vllm.answers import Prompt, item_of
from mloc_tasks.executors.vllm.sampling import Sampler
from mloc_tasks.executors.vllm.window import Ready, Window

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

BATCHES_IN_FLIGHT = 2  # one that the engine works on, one that waits, so that no place in the batch stays empty


class Engine:
    """A loaded engine. Its methods may be called from several threads at once.

    Attributes:
        context_length: tokens that prompt and completion may have together.
        batch: completions that the engine generates side by side.
    """

    def __init__(self, arguments: AsyncEngineArgs) -> None:
        """Load it. Raises what vLLM raises."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        try:
            # In the loop's thread: the engine's processes must not have one for their parent that ends before them.
            self._llm = self._call(_load(arguments))
        except BaseException:
            self._stop_loop()
            raise
        config: Any = self._llm.vllm_config
        self.context_length = int(config.model_config.max_model_len)
        self.batch = int(config.scheduler_config.max_num_seqs)
        self._lora_rank = config.lora_config.max_lora_rank if config.lora_config is not None else None
        self._width = int(config.model_config.get_hidden_size())
        self._request_ids = itertools.count()
        self._adapters: dict[str, LoRARequest] = {}
        self._adapters_lock = threading.Lock()

    @property
    def dead(self) -> bool:
        """Whether its processes have ended; nothing brings them back."""
        return not hasattr(self, "_llm") or bool(self._llm.errored)

    def check(self, sampler: Sampler) -> None:
        """Raise ExecutionError when no row could be answered with this sampling (a regex that does not parse, ...)."""
        from vllm.exceptions import VLLMValidationError

        config: Any = self._llm.vllm_config
        try:
            sampler.parameters(0, room=1).verify(
                config.model_config,
                config.speculative_config,
                config.structured_outputs_config,
                self._llm.get_tokenizer(),
            )
        except (VLLMValidationError, ValueError) as error:
            raise ExecutionError(f"vLLM refuses the stage's inference block: {error}") from error

    def adapter(self, files: AdapterFiles) -> LoRARequest:
        """The adapter, loaded into the engine. Raises ModelError when it does not fit the model or the engine."""
        from vllm.lora.request import LoRARequest

        identity = files.identity()
        with self._adapters_lock:
            if identity not in self._adapters:
                check_width(files, self._width)
                number = len(self._adapters) + 1
                # Cached prefixes go by the name, and another stage may give another adapter the same one.
                request = LoRARequest(f"{files.name}-{identity}", number, str(files.path))
                try:
                    self._call(self._llm.add_lora(request))
                except Exception as error:  # whatever the engine's process raised comes as a plain Exception
                    if self.dead:
                        raise died(error) from error
                    raise ModelError(f"the adapter {files.name!r} at {files.path} cannot be loaded: {error}") from error
                self._adapters[identity] = request
            return self._adapters[identity]

    def answer(
        self,
        prompts: Iterable[Prompt | Ready[dict[str, Any]]],
        *,
        samples: int,
        adapter: LoRARequest | None,
        cancelled: threading.Event,
    ) -> Iterator[tuple[list[dict[str, Any]], int]]:
        """The items of `prompts` in their order, as they become complete, and how many later ones are done as well.

        Args:
            samples: completions of each prompt.
            cancelled: when set, requests are aborted and an ExecutionError is raised.

        Raises HostCrashedError when the engine has died.
        """

        async def ask(prompt: Prompt) -> dict[str, Any]:
            return await self._ask(prompt, adapter)

        in_flight = max(BATCHES_IN_FLIGHT * self.batch // samples, 1)
        window = Window[Prompt, dict[str, Any]](self._loop, ask, in_flight=in_flight, cancelled=cancelled)
        for items in window.results(prompts):
            yield items, window.waiting

    def close(self) -> None:
        """End the engine's processes."""
        handler = self._llm.output_handler
        if handler is not None:  # it would call the end of its engine an error
            self._loop.call_soon_threadsafe(handler.cancel)
        self._llm.shutdown()
        self._stop_loop()
        del self._llm  # or its finaliser would do it again, while the interpreter ends

    async def _ask(self, prompt: Prompt, adapter: LoRARequest | None) -> dict[str, Any]:
        from vllm.exceptions import GracefulHTTPError, VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        name = str(next(self._request_ids))
        try:
            async for output in self._llm.generate(
                tokens_input(prompt.ids), prompt.sampling, name, lora_request=adapter
            ):
                if output.finished:
                    return item_of(prompt, output)
        except EngineDeadError as error:
            raise died(error) from error
        except (VLLMClientError, GracefulHTTPError) as error:
            return failed_item(prompt.index, prompt.row, f"vLLM refused the row: {error}")
        except EngineGenerateError as error:
            return failed_item(prompt.index, prompt.row, f"vLLM failed at the row: {error.__cause__ or error}")
        return failed_item(prompt.index, prompt.row, "vLLM ended the request without an output")

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def died(error: BaseException) -> HostCrashedError:
    """What is raised once the engine's processes have ended."""
    return HostCrashedError(
        f"the vLLM engine died: {error}", hint="its last words are in the worker's log; the next attempt loads it anew"
    )


async def _load(arguments: AsyncEngineArgs) -> AsyncLLM:
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    # This context has the defaults for throughput, the servers' those for latency.
    return AsyncLLM.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)
