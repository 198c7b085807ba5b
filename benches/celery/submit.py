"""Celery's submitter: one figure, measured from the first submission until all results are here; prints the number.

    submit.py FIGURE TASKS LATENCIES

A process of its own for each figure, so that none pays for what another one has left in its memory. `warm` only makes sure that the worker
works and every process of its pool has the tasks loaded.
"""

import os
import sys
import time
from statistics import median

from app import join, noop
from celery import chain, chord, group

# Nothing here takes longer unless something is wrong.
PATIENCE = 50


def fork_join(number):
    return chain(noop.s(number), chord([noop.s(), noop.s()], join.s()))()


def all_of(results):
    return [result.get(timeout=PATIENCE) for result in results]


def a_second(count, work):
    began = time.monotonic()
    work()
    return count / (time.monotonic() - began)


def one_after_the_other(count):
    times = []
    for number in range(count):
        began = time.monotonic()
        noop.delay(number).get(timeout=PATIENCE)
        times.append(time.monotonic() - began)
    return median(times) * 1e3


def measure(figure, tasks, latencies):
    if figure == "warm":
        group(noop.s(number) for number in range(200)).apply_async().get(timeout=PATIENCE)
        return len(all_of(fork_join(number) for number in range(4)))
    if figure == "noop":
        return a_second(tasks, lambda: group(noop.s(number) for number in range(tasks)).apply_async().get(timeout=PATIENCE))
    if figure == "one_step":
        return a_second(tasks, lambda: all_of([noop.delay(number) for number in range(tasks)]))
    if figure == "fork_join":
        runs = tasks // 4
        return a_second(runs, lambda: all_of([fork_join(number) for number in range(runs)]))
    if figure == "latency":
        return one_after_the_other(latencies)
    sys.exit(f"submit.py: `{figure}` is no figure")


# Its connections are made before anything is timed.
noop.delay(0).get(timeout=PATIENCE)
print(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), flush=True)
# At once: thousands of results that are cleaned up one by one at the interpreter's end have nothing to do with it.
os._exit(0)
