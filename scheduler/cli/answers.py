"""Outputs on the screen: each prompt and its answer, cut to what one can read."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

from scheduler.cli.wording import counted, cut

if TYPE_CHECKING:
    from rich.console import Console

    from mloc_tasks.data.items import ItemReader
    from mloc_tasks.ledger import StageRecord
    from scheduler.runs import Run, RunStatus

MOST_ROWS = 20  # of all stages together
MOST_STAGES = 4  # a larger workflow shows the stages that nothing depends on
PROMPT = {"characters": 160, "lines": 2}
ANSWER = {"characters": 480, "lines": 6}
VECTOR_START = 4  # numbers shown of an embedding
DOCUMENT = {"characters": 2_000, "lines": 30}


def print_outputs(run: Run, status: RunStatus) -> None:
    """Print what the run's stages gave, at most `MOST_ROWS` rows of it."""
    from scheduler.cli.terminal import output

    console = output()
    stages = _stages_to_show(status)
    for stage in stages:
        console.print()
        print_stage(console, stage.name, reader(run, stage.name), rows=max(2, MOST_ROWS // len(stages)))


def reader(run: Run, stage: str) -> ItemReader:
    """The items of a finished stage."""
    from mloc_tasks.data.items import ItemReader

    return ItemReader(lambda name: run.open(f"{stage}/{name}"), origin=f"stage {stage!r}")


def print_stage(console: Console, name: str, result: ItemReader, *, rows: int = MOST_ROWS) -> None:
    """Print a stage's prompts and answers; of a stage without items its whole document."""
    from rich.text import Text

    document = result.document
    if not isinstance(document.get("items"), list):
        text = cut(json.dumps(document, ensure_ascii=False, indent=2), **DOCUMENT)
        console.print(Text.assemble((name, "bold"), f"  {_safe(text)}"), soft_wrap=True)
        return
    total = len(result)
    title = [counted(total, "answer"), str(document.get("model") or "")]
    if result.failed:
        title.insert(1, f"{result.failed:,} failed")
    console.print(Text.assemble((name, "bold"), f"  {', '.join(filter(None, title))}"), soft_wrap=True)
    if isinstance(metrics := document.get("metrics"), dict):
        console.print(f"  {_scores(metrics)}", style="green", soft_wrap=True)
    width = len(str(total))
    for item in islice(result.items(), rows):
        _print_item(console, item, width)
    if total > rows:
        console.print(f"  ... and {total - rows:,} more", style="dim")


def _print_item(console: Console, item: dict[str, Any], width: int) -> None:
    prompt, answer = _safe(_prompt_text(item.get("input"))), _safe(_answer_text(item))
    number = f"  {item['index'] + 1:>{width}}  "
    indent = " " * len(number)
    _print_indented(console, cut(prompt, **PROMPT), "cyan", first=number, rest=indent)
    if item.get("ok") is False:
        _print_indented(console, f"failed: {_safe(str(item.get('error', '')))}", "red", first=indent, rest=indent)
        return
    end = " (cut at max_tokens)" if item.get("finish_reason") == "length" else ""
    _print_indented(console, (cut(answer, **ANSWER) or "(empty)") + end, "", first=indent, rest=indent)


def _print_indented(console: Console, text: str, style: str, *, first: str, rest: str) -> None:
    """Print lines behind an indent, folded where a terminal ends and left alone elsewhere."""
    from rich.text import Text

    if console.is_terminal:
        lines = list(Text(text, style=style).wrap(console, max(20, console.width - len(rest))))
    else:
        lines = [Text(line, style=style) for line in text.splitlines()]
    for number, line in enumerate(lines or [Text("")]):
        line.rstrip()
        console.print(Text.assemble((first if number == 0 else rest, "dim"), line), soft_wrap=True)


def _stages_to_show(status: RunStatus) -> list[StageRecord]:
    finished = [stage for stage in status.stages if stage.result is not None]
    if len(finished) > MOST_STAGES:
        used = {name for stage in status.stages for name in stage.depends_on}
        finished = [stage for stage in finished if stage.name not in used]
    return finished[-MOST_STAGES:]


def _prompt_text(value: object) -> str:
    """A prompt as text; of a chat, its last message."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return str(value[-1].get("content", ""))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _answer_text(item: dict[str, Any]) -> str:
    outputs = item.get("outputs")
    if isinstance(outputs, list) and len(outputs) > 1:
        texts = (str(each.get("output", each)) if isinstance(each, dict) else str(each) for each in outputs)
        return "\n".join(f"- {text.strip()}" for text in texts)
    value = item.get("output")
    if isinstance(scores := item.get("scores"), dict):
        return f"{_scores(scores)}  {value if isinstance(value, str) else ''}".strip()
    if isinstance(vector := item.get("embedding"), list):
        start = ", ".join(f"{number:.3f}" for number in vector[:VECTOR_START])
        return f"[{start}, ...] ({len(vector)} dimensions)"
    if value is None and "output" not in item:
        return "(in the stage's files)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _scores(scores: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, int | float) else f"{name} {value}" for name, value in scores.items()
    )


def _safe(text: str) -> str:
    from scheduler.cli.terminal import clean

    return clean(text)
