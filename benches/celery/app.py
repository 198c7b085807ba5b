"""Celery's tasks, which return their number, with the settings that make Celery fast and keep late acknowledgement.

`acks_late`: a dead worker's task is delivered again, as a step of dovetail is. Results are kept in Redis, as in
Celery's defaults.
"""

import os

from celery import Celery

address = os.environ["BENCH_REDIS"]
app = Celery("app", broker=f"{address}/0", backend=f"{address}/1")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=16,
    task_ignore_result=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def noop(number):
    return number


@app.task
def join(numbers):
    return sum(numbers)
