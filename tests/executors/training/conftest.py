"""These tensors are tiny."""

from tests.executors.one_thread import one_thread as one_thread
