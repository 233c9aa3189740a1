"""The Celery app that workers run: `celery -A mloc_tasks worker -Q inference`."""

from __future__ import annotations

from mloc_tasks.broker import BatchingCelery, install_transports
from mloc_tasks.configuration import celery_settings
from mloc_tasks.rabbitmq import Messaging
from mloc_tasks.settings import get_settings
from mloc_tasks.worker import install

# A worker waits for a broker that restarts; a client that submits (configuration.sending_app) is told soon. Not longer
# than this: the claim on sending a chord's body lasts for all the retries, also when its worker dies.
PUBLISH_RETRIES = {"max_retries": 30, "interval_start": 0, "interval_step": 0.2, "interval_max": 1.0}

app = BatchingCelery("mloc", include=["mloc_tasks.tasks"], amqp=Messaging)
app.add_defaults(lambda: celery_settings(get_settings()) | {"task_publish_retry_policy": PUBLISH_RETRIES})
install(app)
install_transports()
