"""Starts the processes of a training, kills one of them with SIGKILL, and starts them again, many times.

    python killing_bench.py FOLDER '["2 ddp", "2 ddp", "2 ddp"]' '[1, 2, 3]'

trains the seeds 1, 2 and 3, each with two processes in three attempts, of which two end by a kill. A seed chooses the
process, the step, the milliseconds after it, and how often checkpoints are made; the model is the same for all. Prints
a line of JSON for each seed: of each attempt, what was killed and from which step it went on. Instead of "ddp" an
attempt may be sharded: "fsdp2".

Each process is a fork of this one, as starting Python and torch takes longer than the training itself. It has joined
its group with gloo as under torchrun, and dies as it would there.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path

import small_training
import torch._dynamo  # noqa: F401  before the forks: making an optimizer imports it

from sm_runtime.checkpoint_file import CheckpointFolder

#: No wait below may hang a test.
DEADLINE_S = 60


class Processes:
    """The processes of one attempt."""

    def __init__(self, folder: Path, attempt: int, world: int, *options: str) -> None:
        self.folder, self.attempt = folder, attempt
        self.port = _free_port()
        words = ["--attempt", str(attempt), "--notes", str(folder), "--weights", str(folder / "weights.pt"), *options]
        self.pids = [self._fork(rank, world, words) for rank in range(world)]

    def _fork(self, rank: int, world: int, words: list[str]) -> int:
        sys.stdout.flush()
        if pid := os.fork():
            return pid
        code = 1
        try:
            log = os.open(self.log(rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            variables = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.port}
            os.environ.update({name: str(value) for name, value in variables.items()})
            code = small_training.main(words)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def log(self, rank: int) -> Path:
        return self.folder / f"log-{self.attempt}-{rank}.txt"

    def steps_done(self, rank: int) -> int:
        """How many lines a process has noted in this attempt."""
        path = self.folder / f"steps-{self.attempt}-{rank}.txt"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def kill(self, rank: int, after: int, delay: float) -> None:
        """Kill a process `delay` seconds after it has done so many steps; the others find out and end by themselves."""
        deadline = time.monotonic() + DEADLINE_S
        while self.steps_done(rank) < after:
            assert time.monotonic() < deadline, self.log(rank).read_text()
            time.sleep(0.0005)
        time.sleep(delay)
        os.kill(self.pids[rank], signal.SIGKILL)

    def wait(self) -> list[int]:
        """Return the exit code of each process; negative where a signal ended it."""
        deadline = time.monotonic() + DEADLINE_S
        codes: dict[int, int] = {}
        while len(codes) < len(self.pids):
            assert time.monotonic() < deadline, "a process hangs:\n" + "\n".join(
                self.log(rank).read_text() for rank in range(len(self.pids)) if rank not in codes
            )
            for rank in set(range(len(self.pids))) - codes.keys():
                done, status = os.waitpid(self.pids[rank], os.WNOHANG)
                if done:
                    codes[rank] = os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        return [codes[rank] for rank in range(len(self.pids))]

    def resumed_from(self) -> int:
        """Return the step that this attempt went on from; 0 where there was no checkpoint yet."""
        found = re.search(r"resumed after step (\d+) of", self.log(0).read_text())
        return int(found[1]) if found else 0


def run(folder: Path, world: int, *options: str) -> None:
    """Train without any fault."""
    folder.mkdir(parents=True)
    processes = Processes(folder, 0, world, *options)
    codes = processes.wait()
    assert set(codes) == {0}, processes.log(0).read_text()


def run_and_kill(folder: Path, seed: int, ways: list[str]) -> list[dict]:
    """Train as often as there are `ways` ("2 ddp"); kill one process in all but the last attempt.

    The moment is random: some milliseconds after a random step of a random process, wherever the others are by then.
    """
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    options = ["--checkpoint-dir", str(folder / "checkpoints"), "--pause", "0.004"]
    attempts = []
    for attempt, (world, parallel) in enumerate(map(read_way, ways)):
        options[4:] = ["--checkpoint_s", str(chance.choice([0, 0.02, 0.1])), "--parallel", parallel]
        saved = CheckpointFolder(str(folder / "checkpoints"), keep=2).newest()
        to_do = small_training.STEPS - (saved.step if saved else 0)
        processes = Processes(folder, attempt, world, *options)
        last = attempt == len(ways) - 1
        # The last steps are left, so that the kill is not too late.
        victim, after = chance.randrange(world), chance.randint(1, max(1, to_do - 8))
        if not last:
            processes.kill(victim, after, chance.uniform(0, 0.006))
        codes = processes.wait()
        killed = [rank for rank, code in enumerate(codes) if code == -signal.SIGKILL]
        assert killed == ([] if last else [victim]), (codes, [processes.log(rank).read_text() for rank in range(world)])
        assert last or all(codes), f"a process has ended with 0 though its peer was killed: {codes}"
        assert not last or set(codes) == {0}, processes.log(0).read_text()
        killed_at = None if last else [victim, after]
        attempts.append({"world": world, "from": processes.resumed_from(), "killed": killed_at})
    return attempts


def read_way(way: str) -> tuple[int, str]:
    """Return how many processes an attempt has, and what they share."""
    world, parallel = way.split()
    return int(world), parallel


def main(argv: list[str]) -> int:
    """Train without a fault in `FOLDER/whole-WORLD-PARALLEL`, and then each seed with its kills in `FOLDER/SEED`."""
    folder, ways, seeds = Path(argv[0]), json.loads(argv[1]), json.loads(argv[2])
    for world, parallel in sorted(set(map(read_way, ways))):
        run(folder / f"whole-{world}-{parallel}", world, "--parallel", parallel)
    for seed in seeds:
        print(json.dumps(run_and_kill(folder / str(seed), seed, ways)), flush=True)
    return 0


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
