"""`mloc validate`, `plan` and `schema`: what needs neither broker nor model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Mloc, environment
from tests.cli.documents import DIAMOND, ECHO, THREE_MISTAKES

Spec = Callable[[str], str]


def test_a_valid_spec_ends_with_zero_and_an_empty_stdout(mloc: Mloc, spec: Spec) -> None:
    done = mloc("validate", spec(ECHO))
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 spec valid" in done.stderr


def test_three_mistakes_are_three_lines_that_an_editor_can_jump_to(mloc_process: Mloc, spec: Spec) -> None:
    done = mloc_process("validate", spec(THREE_MISTAKES))
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert [re.match(r"spec\.yaml:(\d+):\d+: error: spec\.", line).group(1) for line in lines] == ["6", "8", "11"]  # type: ignore[union-attr]
    assert "did you mean `max_tokens`?" in lines[1]
    assert "3 errors in 1 spec" in done.stderr


def test_problems_as_json_carry_place_and_suggestion(mloc: Mloc, spec: Spec) -> None:
    done = mloc("validate", "--json", spec(THREE_MISTAKES))
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert len(document["problems"]) == 3
    assert document["problems"][0]["line"] == 6
    assert set(document["problems"][0]) == {"file", "line", "column", "severity", "path", "message", "suggestion"}


def test_what_no_queue_here_takes_is_a_warning(mloc: Mloc, spec: Spec) -> None:
    done = mloc("validate", spec(ECHO + "  resources: {tags: [moonlit]}\n"))
    assert done.returncode == 0
    assert "spec.yaml: warning: stage echo cannot run in this installation: no queue satisfies" in done.stdout


def test_a_spec_is_read_from_standard_input(mloc: Mloc) -> None:
    done = mloc("validate", "-", stdin=THREE_MISTAKES)
    assert done.returncode == 2
    assert done.stdout.startswith("<stdin>:6:")


def test_a_missing_file_is_named(mloc: Mloc) -> None:
    done = mloc("validate", "nowhere.yaml")
    assert (done.returncode, done.stdout) == (2, "nowhere.yaml: error: there is no such file\n")


def test_validate_imports_neither_celery_nor_redis_nor_the_settings(spec: Spec, tmp_path: Path) -> None:
    spec(ECHO)
    script = (
        "import sys; sys.argv = ['mloc', 'validate', 'spec.yaml']\n"
        "from scheduler.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'celery', 'redis', 'boto3', 'rich', 'pydantic_settings', 'torch', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plan_shows_what_runs_side_by_side(mloc: Mloc, spec: Spec) -> None:
    done = mloc("plan", spec(DIAMOND))
    assert done.returncode == 0
    assert [word for word in re.findall(r"top|left|right|bottom|in parallel", done.stdout)][:6] == [
        "bottom",  # the title: the result is bottom's
        "top",
        "in parallel",
        "left",
        "top",
        "right",
    ]


def test_plan_as_json_has_queue_shards_and_dependencies(mloc: Mloc, spec: Spec) -> None:
    plan = json.loads(mloc("plan", "--json", spec(DIAMOND)).stdout)
    assert plan["result_stage"] == "bottom"
    assert plan["stages"][3]["depends_on"] == ["left", "right"]
    assert {stage["queue"] for stage in plan["stages"]} == {"cpu"}


def test_plan_as_mermaid_has_an_arrow_for_each_dependency(mloc: Mloc, spec: Spec) -> None:
    chart = mloc("plan", "--mermaid", spec(DIAMOND)).stdout
    assert chart.startswith("flowchart LR\n")
    assert chart.count("-->") == 4


def test_plan_of_a_spec_that_no_queue_satisfies_says_what_each_lacks(mloc: Mloc, spec: Spec) -> None:
    done = mloc("plan", spec(ECHO + "  resources: {tags: [moonlit]}\n"))
    assert done.returncode == 1
    assert "cpu: needs tags moonlit, has none" in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_schema_is_json_schema(mloc: Mloc) -> None:
    assert json.loads(mloc("schema").stdout)["$schema"].startswith("https://json-schema.org/")
