"""Celery's submitter: measures one figure from the first submission to the last result, and prints the number.

    submit.py FIGURE TASKS LATENCIES

Each figure has a process of its own, so that no figure pays for the memory of another. `warm` only checks that the
worker works, and loads the tasks into every process of its pool.
"""

import os
import sys
import time
from statistics import median

from app import join, noop
from celery import chain, chord, group

# Seconds after which a measurement counts as hung.
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
        numbers = range(tasks)
        return a_second(tasks, lambda: group(noop.s(n) for n in numbers).apply_async().get(timeout=PATIENCE))
    if figure == "one_step":
        return a_second(tasks, lambda: all_of([noop.delay(number) for number in range(tasks)]))
    if figure == "fork_join":
        runs = tasks // 4
        return a_second(runs, lambda: all_of([fork_join(number) for number in range(runs)]))
    if figure == "latency":
        return one_after_the_other(latencies)
    sys.exit(f"submit.py: `{figure}` is not a figure")


# Makes the connections before anything is timed.
noop.delay(0).get(timeout=PATIENCE)
print(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), flush=True)
# Ends at once: the interpreter would clean up thousands of results one by one, which is no part of the measurement.
os._exit(0)
