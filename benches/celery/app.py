"""The peer's side: tasks that hand a number on, with the settings that make Celery fast without giving up late acknowledgement.

`acks_late`: a task that a dead worker had comes again, as a step of dovetail does. Results are kept in Redis, as Celery does by default.
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
