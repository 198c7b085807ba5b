"""Runs the same work in Celery and in dovetail, by turns, with one Redis. `scripts/bench-celery` calls this program.

    compare.py DOVETAIL REDIS_URL FOLDER [--quick]

Prints the figures of both, and the ratios as JSON in its last line. The time of a rate runs from the first submission
until the submitter has the last result. No process is left running, however this program ends.
"""

import json
import os
import signal
import subprocess
import sys
from statistics import median

# The tasks at once are as many as Celery does in this time (seconds) on its slowest figure, within bounds. A fork-join
# is four tasks.
SECONDS = 5
FEWEST, MOST = 400, 4000
# The tasks of that first measurement, and of all measurements with --quick.
FEW = 400
LATENCIES = 200
ROUNDS = 3
# How often dovetail measures each figure within a round, because one measurement is short.
AGAIN = 5
# Processes use all cores; threads share Python's lock, and save the copies between processes. Every round measures both
# pools; for each figure the better pool counts.
POOLS = {
    "prefork, 2 processes": ["--pool=prefork", "--concurrency=2"],
    "threads, 10": ["--pool=threads", "--concurrency=10"],
}
# Seconds after which a measurement counts as hung. Celery's measurements take some 10 s.
PATIENCE, CELERYS_PATIENCE = 240, 60

FIGURES = ["noop", "one_step", "fork_join", "latency"]
UNITS = {"noop": "tasks/s", "one_step": "tasks/s", "fork_join": "runs/s", "latency": "ms"}
WHAT = {
    "noop": "groups of no-ops / runs of 10 independent steps",
    "one_step": "single tasks / runs of one step",
    "fork_join": "chain and chord 1 -> 2 -> join / fork-join runs",
    "latency": "one task, worker idle: submission to result, p50",
}
DOVETAIL = {
    "noop": "noop_steps_per_s",
    "one_step": "one_step_per_s",
    "fork_join": "fork_join_per_s",
    "latency": "submit_to_result_p50_ms",
}
STORE = ["metadata_inserts_per_s", "worker_idle_redis_commands_per_s", "worker_idle_mb"]


def output_of(command, what, patience=PATIENCE, **options):
    """The output of a process, which is ended if this program is ended."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)
    try:
        out, _ = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(30)
        sys.exit(f"bench-celery: {what} was not done after {patience} s")
    except BaseException:
        # `dovetail bench` ends its workers and removes its own data.
        process.terminate()
        process.wait(30)
        raise
    if process.returncode != 0:
        sys.exit(f"bench-celery: {what} ended with {process.returncode}")
    return out


class Celery:
    """A Celery worker in a session of its own, which is ended at every exit from `with`."""

    here = os.path.dirname(os.path.abspath(__file__))

    def __init__(self, pool, folder, redis):
        self.pool, self.log, self.redis = pool, os.path.join(folder, "celery.log"), redis

    def __enter__(self):
        self.start()
        try:
            self.measure("warm", 0, 0)
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        options = ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        command = [sys.executable, "-m", "celery", "-A", "app", "worker", *options, *POOLS[self.pool]]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, cwd=self.here, stdout=log, stderr=log, start_new_session=True)

    def measure(self, figure, tasks, latencies):
        def once(figure):
            command = [sys.executable, os.path.join(self.here, "submit.py"), figure, str(tasks), str(latencies)]
            with open(self.log, "ab") as log:
                return float(output_of(command, "Celery's submitter", CELERYS_PATIENCE, cwd=self.here, stderr=log))

        # Sometimes Celery's client fails by itself, or waits for ever for the result of a chord (each was seen once in
        # some hundred measurements). Such a measurement is reported and repeated, with a new worker and an empty Redis.
        for tries_left in (2, 1, 0):
            try:
                if tries_left < 2:
                    once("warm")
                return once(figure)
            except SystemExit as failed:
                if not tries_left:
                    raise
                print(f"{failed}; {figure} is measured again, by a new worker", flush=True)
                self.__exit__()
                forget(self.redis)
                self.start()

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        try:
            # Kills the remaining processes of the pool.
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Dovetail:
    def __init__(self, program, redis):
        self.program, self.redis = program, redis

    def bench(self, names, size, rounds, meta=None):
        """The figures of these names. Each has a worker process of its own, and records in SQLite or in `meta`."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("DOVETAIL_")}
        ours |= {"DOVETAIL_QUEUE": f"{self.redis}/2", "DOVETAIL_CONFIG": os.devnull}
        if meta:
            ours["DOVETAIL_META"] = meta
        only = [word for name in names for word in ("--only", name)]
        command = [self.program, "bench", "--servers", "--output", "json"]
        command += ["--size", str(size), "--rounds", str(rounds), *only]
        document = json.loads(output_of(command, "`dovetail bench`", env=ours))
        return {figure["name"]: figure["value"] for figure in document["figures"]}


def forget(redis):
    """Empties Redis, so that the data of one system does not slow down the other."""
    subprocess.run(["redis-cli", "-u", redis, "flushall"], check=True, stdout=subprocess.DEVNULL)


def tasks_at_once(folder, redis):
    """The number of tasks for which Celery takes a few seconds on its slowest figure, by a first, short measurement."""
    with Celery(next(iter(POOLS)), folder, redis) as celery:
        rates = {figure: celery.measure(figure, FEW, 0) for figure in FIGURES if figure != "latency"}
    # A fork-join run is four tasks.
    slowest = min(rate * (4 if figure == "fork_join" else 1) for figure, rate in rates.items())
    return min(max(int(slowest * SECONDS) // 100 * 100, FEWEST), MOST)


def best_of_pools(folder, redis, tasks, latencies):
    """For each figure: the value of Celery's better pool, and the pool."""
    tried = {}
    for pool in POOLS:
        with Celery(pool, folder, redis) as celery:
            tried[pool] = {figure: celery.measure(figure, tasks, latencies) for figure in FIGURES}
    best = {}
    for figure in FIGURES:
        pool = (min if figure == "latency" else max)(POOLS, key=lambda pool: tried[pool][figure])
        best[figure] = (tried[pool][figure], pool)
    return best


def main():
    program, redis, folder, *options = sys.argv[1:]
    quick = "--quick" in options
    latencies = 20 if quick else LATENCIES
    # SIGTERM also ends the processes that this program has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    dovetail, load = Dovetail(program, redis), os.getloadavg()[0]
    tasks = FEW if quick else tasks_at_once(folder, redis)
    print(f"{tasks} tasks at once in both; the system's load before it: {load:.1f}", flush=True)
    rounds = {"Celery": [], "dovetail": []}
    pools = {figure: [] for figure in FIGURES}
    for number in range(ROUNDS):
        forget(redis)
        best = best_of_pools(folder, redis, tasks, latencies)
        rounds["Celery"].append({figure: value for figure, (value, _) in best.items()})
        for figure, (_, pool) in best.items():
            pools[figure].append(pool)
        forget(redis)
        # As many steps are under way at once as there are tasks in Celery.
        found = dovetail.bench(DOVETAIL.values(), tasks, AGAIN)
        rounds["dovetail"].append({figure: found[DOVETAIL[figure]] for figure in FIGURES})
        for system, measured in rounds.items():
            shown = ", ".join(f"{figure} {measured[-1][figure]:.4g}" for figure in FIGURES)
            print(f"round {number + 1}, {system}: {shown}", flush=True)
    forget(redis)
    store = dovetail.bench(STORE, tasks, 1)
    stand_in = None
    if mongodb := os.environ.get("DOVETAIL_TEST_MONGODB"):
        stand_in = dovetail.bench([*DOVETAIL.values(), STORE[0]], tasks, 1, f"{mongodb.rstrip('/')}/bench")
    show(rounds, pools, store, stand_in)


def show(rounds, pools, store, stand_in):
    ratios = {}
    titles = ["figure", "Celery", "dovetail", "ratio", "low", "high"] + (["with MongoDB"] if stand_in else [])
    rows = [titles]
    for figure in FIGURES:
        pairs = [(theirs[figure], ours[figure]) for theirs, ours in zip(rounds["Celery"], rounds["dovetail"])]
        each = [theirs / ours if figure == "latency" else ours / theirs for theirs, ours in pairs]
        ratios[f"{figure}_ratio"] = round(median(each), 2)
        cells = [median(theirs for theirs, _ in pairs), median(ours for _, ours in pairs)]
        cells += [median(each), min(each), max(each)]
        cells += [stand_in[DOVETAIL[figure]]] if stand_in else []
        rows.append([f"{figure}, {UNITS[figure]}", *(f"{cell:.4g}" for cell in cells)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    print()
    for row in rows:
        first, *rest = zip(row, widths)
        print("  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]))
    print()
    for figure in FIGURES:
        print(f"{figure}: {WHAT[figure]}; Celery's better pool, by round: {'; '.join(pools[figure])}")
    print(
        "Medians of the rounds, with the better pool of Celery in each; each ratio is of one round. "
        "Above 1: dovetail is faster."
    )
    print(
        f"dovetail's records: SQLite, synchronous=FULL, {store[STORE[0]]:.0f} inserts/s, 500 at a time. "
        "Celery has nothing durable but Redis."
    )
    print(f"An idle worker of dovetail: {store[STORE[2]]:.1f} MB, {store[STORE[1]]:.2f} commands to Redis a second.")
    if stand_in:
        print(
            f"With MongoDB: the server that DOVETAIL_TEST_MONGODB names, {stand_in[STORE[0]]:.0f} inserts/s, "
            "500 at a time, one round."
        )
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
