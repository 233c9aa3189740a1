"""A vLLM engine without MLOC: what `inference.py` compares with.

Called as `bare_engine.py '{"model": ..., other engine arguments}'`. It loads the engine, prints an empty line, then
answers each line of standard input, a JSON list of a number of tokens and the prompts, with the seconds that
generating that many tokens for all of them at once took. It ends at the end of its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from mloc_tasks.executors.vllm.environment import prepare

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

_names = count()


async def main() -> None:
    prepare()
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**json.loads(sys.argv[1])))
    print(flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        tokens, prompts = json.loads(line)
        started = time.perf_counter()
        await asyncio.gather(*(answer(engine, prompt, tokens) for prompt in prompts))
        print(time.perf_counter() - started, flush=True)
    engine.shutdown()
    del engine  # or its finaliser would do it again, while the interpreter ends


async def answer(engine: AsyncLLM, prompt: str, tokens: int) -> None:
    """Generate so many tokens to a prompt in the chat template."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    tokenizer: Any = engine.get_tokenizer()
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    sampling = SamplingParams(
        temperature=0, max_tokens=tokens, ignore_eos=True, output_kind=RequestOutputKind.FINAL_ONLY
    )
    async for output in engine.generate(tokens_input(ids), sampling, str(next(_names))):
        if len(output.outputs[0].token_ids) != tokens:
            raise RuntimeError(f"{len(output.outputs[0].token_ids)} tokens were generated, not {tokens}")


if __name__ == "__main__":
    asyncio.run(main())
