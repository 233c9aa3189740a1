"""Executor hosts: subprocesses that run executors and keep their models between attempts.

A pool child of a Celery worker may have no `multiprocessing` children, cannot be forked once CUDA is initialised, and
takes its worker's messages down with it when it dies. So whatever is not light runs in a plain subprocess:

    pool child ── frames over a socketpair ──► guard ──► host: one executor object, its model, its devices

- `pool`: which hosts this process has; reuse, eviction, idle shutdown.
- `process`: one host as its owner sees it. `frames`: what they say to each other.
- `guard`: the parent of a host, which leaves nothing of it behind, whoever dies.
- `boot`, `child`: what runs in the host itself. It imports nothing of Celery, Redis or boto3, because it may run under
  another interpreter (`interpreters`).
- `devices`: which GPUs and CPUs are this pool child's.
"""
