"""A training's checkpoints on their way to the store and back, as a worker sees them.

    saved    those in the store: complete or invisible, fenced by attempt
    uploads  from an attempt's folder into the store, while the training goes on
    keeping  around one attempt: from the newest of an earlier one to what is left of its own

How a training makes one, and goes on from it, is `mloc_tasks/executors/training/checkpoints.py`.
"""
