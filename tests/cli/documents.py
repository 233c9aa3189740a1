"""The specs and the plugin that the tests of `mloc` use."""

from __future__ import annotations

ECHO = """\
apiVersion: mloc/v1
kind: EchoTask
metadata: {name: hello, owner: alice, labels: {team: search}}
spec:
  taskType: echo
  data: {type: list, items: [one, two, three, four]}
  parallel: {enabled: true, shard_size: 2}
"""

DIAMOND = """\
apiVersion: mloc/v1
kind: Workflow
metadata: {name: diamond}
spec:
  taskType: echo
  graph:
    nodes:
      - {name: top, spec: {message: hi}}
      - {name: left, dependsOn: [top], spec: {message: "${top.result.message} left"}}
      - {name: right, dependsOn: [top], spec: {message: "${top.result.message} right"}}
      - {name: bottom, dependsOn: [left, right], spec: {message: "${left.result.message}, ${right.result.message}"}}
"""

THREE_MISTAKES = """\
apiVersion: mloc/v1
kind: Workflow
metadata: {name: mistakes}
spec:
  taskType: inference
  resources: {hardware: {memory: 32Gb}}
  model: {source: {identifier: some/model}}
  inference: {max_tokns: 5, prompts: [a]}
  stages:
    - {name: a}
    - {name: b, dependsOn: [c]}
"""

# Every row takes `params.seconds`; `params.fail` makes it raise what no executor should.
PLUGIN = """\
import time
from mloc_tasks.executors import Executor

class Slow(Executor):
    name = "slow"
    needs_rows = True

    def run(self, task, out_dir):
        params = task["spec"]["params"]
        if params.get("fail"):
            raise RuntimeError("it broke")
        (out_dir / "started").touch()
        for _ in task.inputs:
            time.sleep(params["seconds"])
        return {"ok": True}
"""


def slow_spec(params: str) -> str:
    """A spec of one stage of the executor `slow`, in two shards."""
    return (
        "apiVersion: mloc/v1\nkind: Workflow\nmetadata: {name: slow}\n"
        "spec:\n  taskType: slow\n  data: {type: list, items: [a, b]}\n  parallel: {enabled: true, shard_size: 1}\n"
        f"  params: {params}\n"
    )
