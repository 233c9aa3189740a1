"""The Celery app that workers run: `celery -A mloc_tasks worker -Q inference`."""

from __future__ import annotations

from celery import Celery

from mloc_tasks.configuration import celery_settings
from mloc_tasks.rabbitmq import Messaging
from mloc_tasks.settings import get_settings
from mloc_tasks.worker import install

app = Celery("mloc", include=["mloc_tasks.tasks"], amqp=Messaging)
app.add_defaults(lambda: celery_settings(get_settings()))
install(app)
