"""The scripts that run on a cluster's head node, for bash. What they print is read here too: both ends in one file.

Every word that comes from outside is quoted by `shlex.quote`. What a job has asked for beyond its name
(hyperparameters, environment) never is part of a command: it travels as a file.
"""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_dlaws.jobs.reference import JobStatus
from airflow_dlaws.jobs.slurm_state import ENDED, JobFiles, QueueRow, job_status

#: Exit codes of our scripts, away from those of bash and of the programs it runs.
NO_CONTROLLER, BUSY, NOT_ACCEPTED, NO_FOLDER, NO_CODE = 101, 102, 103, 104, 105
#: What each means, for messages.
TROUBLE = {
    NO_CONTROLLER: "Slurm's controller does not answer",
    BUSY: "another submission of this job is under way",
    NOT_ACCEPTED: "sbatch refused it",
    NO_FOLDER: "work_dir cannot be written",
    NO_CODE: "the head node could not fetch the code from S3 (it needs curl, tar and a way to S3)",
}
#: Long enough for sbatch while its controller restarts.
_LOCK_LIMIT_S = 60
#: Longer than the longest grace that a cluster may be given.
_PATIENCE_S = 3660
#: What one call reads of a log; the next call reads on.
LOG_PIECE = 512 * 1024
#: The comment comes last: whoever runs the cluster may have put anything in it.
_ROW = "%A|%T|%V|%S|%e|%j|%r|%k"
_FIELDS = _ROW.count("|")
#: The job's files that say how it stands, each one line.
_FILES = ("id", "digest", "holder", "submitted", "stop", "start", "end", "output", "collected")


def prelude(work_dir: str) -> str:
    """Return what every script begins with.

    Jobs in a partition that is hidden, or is not open to the user any more, are there all the same; and what a profile
    has set to make a list shorter on a screen would make jobs of this package pass for forgotten.
    """
    return f"""\
umask 077
unset "${{!SQUEUE_@}}" "${{!SCANCEL_@}}" SBATCH_WAIT
export SLURM_TIME_FORMAT=%s
work={shlex.quote(work_dir)}
me=$(id -un)
rows() {{ squeue --noheader --all --states=all --user="$me" --name="$1" --format={shlex.quote(_ROW)}; }}
"""


def look_script(work_dir: str, names: Iterable[str]) -> str:
    """Tell how jobs stand: what their folders say, and what the controller says of them.

    In this order. A job whose id is in its folder has been handed over, and the controller knows it from then on, until
    some minutes after its end; asked the other way round, one that is submitted in between would pass for forgotten.
    """
    words = list(names)
    quoted = " ".join(shlex.quote(name) for name in words)
    return f"""{prelude(work_dir)}
for name in {quoted}; do
  job="$work/$name"
  [ -d "$job" ] || continue
  claim=$(readlink "$job/claim") && printf 'F|%s|claim|%s\\n' "$name" "$claim"
  for file in {" ".join(_FILES)}; do
    [ -f "$job/$file" ] && IFS= read -r line <"$job/$file" && printf 'F|%s|%s|%s\\n' "$name" "$file" "$line"
  done
done
queue=$(rows {shlex.quote(",".join(words))}) || exit {NO_CONTROLLER}
printf 'N|%s\\n' "$(date +%s)"
while IFS= read -r row; do [ -z "$row" ] || printf 'Q|%s\\n' "$row"; done <<<"$queue"
exit 0
"""


def scan_script(work_dir: str) -> str:
    """Print name and order, for each job of this user that the controller knows and that has a folder in `work_dir`."""
    return f"""{prelude(work_dir)}
names=$(squeue --noheader --all --states=all --user="$me" --format=%j) || exit {NO_CONTROLLER}
sort -u <<<"$names" | while IFS= read -r name; do
  case "$name" in ""|*[!a-z0-9-]*) continue ;; esac
  [ -f "$work/$name/order.json" ] && printf '%s|%s\\n' "$name" "$(base64 -w0 <"$work/$name/order.json")"
done
exit 0
"""


@dataclass(frozen=True)
class Sighting:
    """What a look has found of one job: the controller's word, and the files. Neither means there is no such job.

    :param now: the head node's time, seconds since the epoch: its clock and the controller's go together, ours may not.
    """

    row: QueueRow | None
    files: JobFiles
    now: float

    @property
    def exists(self) -> bool:
        """Whether the job was handed to Slurm."""
        return self.row is not None or bool(self.files.job_id)

    @property
    def digest(self) -> str:
        """Of what the job was made from; both places say the same unless somebody else has made it."""
        return self.files.digest or (self.row.digest if self.row else "")

    @property
    def status(self) -> JobStatus:
        """How the job stands."""
        return job_status(self.row, self.files, now=self.now)


def read_look(text: str, names: Iterable[str]) -> dict[str, Sighting]:
    """Read what `look_script` has printed."""
    rows: dict[str, list[QueueRow]] = {}
    facts: dict[str, dict[str, str]] = {}
    now = 0
    for line in text.splitlines():
        if line.startswith("N|"):
            now = _seconds(line[2:])
        elif line.startswith("Q|") and line.count("|") > _FIELDS:
            job_id, state, submitted, started, ended, name, reason, digest = line[2:].split("|", _FIELDS)
            row = QueueRow(
                job_id=job_id,
                state=state,
                reason=reason,
                submitted=_seconds(submitted),
                started=_seconds(started),
                ended=_seconds(ended),
                digest="" if digest in ("(null)", "NONE") else digest,
            )
            rows.setdefault(name, []).append(row)
        elif line.startswith("F|"):
            name, file, value = line[2:].split("|", 2)
            facts.setdefault(name, {})[file] = value
    return {name: _sighting(rows.get(name, []), facts.get(name, {}), now) for name in names}


def _sighting(rows: list[QueueRow], facts: Mapping[str, str], now: float) -> Sighting:
    job_id = facts.get("claim") or facts.get("id", "")
    files = JobFiles(
        job_id=job_id,
        digest=facts.get("digest", ""),
        holder=facts.get("holder", ""),
        submitted=_seconds(facts.get("submitted", "")),
        stop_asked=_seconds(facts.get("stop", "")),
        start=json.loads(facts.get("start", "{}")),
        end=json.loads(facts.get("end", "{}")),
        output=facts.get("output", ""),
        collected="collected" in facts,
    )
    # Two jobs of one name: the one that may run is the one that has claimed the folder, or will: the first.
    ordered = sorted(rows, key=lambda row: int(row.job_id))
    row = next((row for row in ordered if row.job_id == job_id), None if job_id else next(iter(ordered), None))
    return Sighting(row, files, now)


def _seconds(text: str) -> int:
    return int(text) if text.isdigit() else 0


@dataclass(frozen=True, kw_only=True)
class JobScript:
    """What `submit_script` needs to hand a job to Slurm.

    :param holder: of the submission; see `Submission`.
    :param code: name of the folder with the code under `work_dir/code`; `code_url` is fetched if it is not there.
    :param options: of sbatch, long names without dashes.
    :param order: what the program on the nodes reads as order.json.
    """

    name: str
    digest: str
    holder: str
    output: str
    code: str
    code_url: str
    python: str
    options: Mapping[str, str]
    order: Mapping[str, Any]


def submit_script(work_dir: str, job: JobScript) -> str:
    """Hand a job to Slurm unless it has been: prints `taken` or its id.

    It may be killed at any line. Whoever runs it holds the lock of the job's folder, sbatch included, which inherits
    it; and whoever gets the lock asks the controller first whether there is a job of that name.
    """
    options = [f"--{name}={value}" if value else f"--{name}" for name, value in job.options.items()]
    sbatch = " ".join(shlex.quote(word) for word in options)
    program = [job.python, "-u", f"{work_dir}/code/{job.code}/dlaws_slurm.py", "job", f"{work_dir}/{job.name}"]
    batch = f"#!/bin/bash\nexec {shlex.join(program)}\n"
    return f"""{prelude(work_dir)}
name={shlex.quote(job.name)}
job="$work/$name"
code="$work/code/"{shlex.quote(job.code)}
put() {{ printf '%s' "$2" >"$job/$1.partial" && mv -f "$job/$1.partial" "$job/$1" || exit {NO_FOLDER}; }}
mkdir -p "$job" "$work/code" || exit {NO_FOLDER}
exec 9>>"$job/lock" || exit {NO_FOLDER}
flock -w {_LOCK_LIMIT_S} 9 || exit {BUSY}
queue=$(rows "$name") || exit {NO_CONTROLLER}
if [ -n "$queue" ] || [ -e "$job/id" ] || [ -L "$job/claim" ]; then echo taken; exit 0; fi
if [ ! -d "$code" ]; then
  new=$(mktemp -d "$code.XXXXXXXX") || exit {NO_FOLDER}
  curl -fsS --retry 3 {shlex.quote(job.code_url)} | tar -xzf - -C "$new" || exit {NO_CODE}
  [ -f "$new/dlaws_slurm.py" ] || exit {NO_CODE}
  mv -T "$new" "$code" 2>/dev/null || [ -d "$code" ] || exit {NO_FOLDER}
fi
put order.json "$(printf '%s' {_encoded(json.dumps(job.order))} | base64 -d)"
put batch.sh "$(printf '%s' {_encoded(batch)} | base64 -d)"$'\\n'
put output {shlex.quote(job.output)}$'\\n'
put digest {shlex.quote(job.digest)}$'\\n'
put holder {shlex.quote(job.holder)}$'\\n'
put submitted "$(date +%s)"$'\\n'
id=$(sbatch --parsable --job-name="$name" --comment={shlex.quote(job.digest)} --chdir="$job" --output="$job/log" \\
  --open-mode=append --requeue {sbatch} "$job/batch.sh") || exit {NOT_ACCEPTED}
put id "${{id%%;*}}"$'\\n'
echo "${{id%%;*}}"
"""


def hold_script(work_dir: str, name: str, holder: str) -> str:
    """Note which try of the task looks after the job from now on."""
    return f"""{prelude(work_dir)}
job="$work/"{shlex.quote(name)}
new="$job/holder.$$"
printf '%s\\n' {shlex.quote(holder)} >"$new" && mv -f "$new" "$job/holder" || exit {NO_FOLDER}
"""


def stop_script(work_dir: str, name: str) -> str:
    """End a job: prints `stopped` if it had not ended.

    A running one gets SIGTERM through its own program, which sends SIGKILL after the grace that its order gives; one
    that is asked again an hour later, longer than any grace, is cancelled outright.
    """
    return f"""{prelude(work_dir)}
name={shlex.quote(name)}
job="$work/$name"
[ -d "$job" ] || exit 0
exec 9>>"$job/lock" || exit {NO_FOLDER}
flock -w {_LOCK_LIMIT_S} 9 || exit {BUSY}
queue=$(rows "$name") || exit {NO_CONTROLLER}
now=$(date +%s)
while IFS='|' read -r id state rest; do
  case "$id" in ""|*[!0-9]*) continue ;; esac
  case "$state" in
    RUNNING|SUSPENDED|SIGNALING|STOPPED|RESIZING)
      asked=$now
      [ -f "$job/stop" ] && read -r asked <"$job/stop"
      [ -f "$job/stop" ] || echo "$now" >"$job/stop"
      # The signal may come too early to be heard: the job's program looks for the file, too.
      if [ $((now - asked)) -gt {_PATIENCE_S} ]; then scancel "$id"
      else scancel --batch --signal=TERM "$id" || true
      fi ;;
    COMPLETING)
      # It may be on its way back into the queue, which this prevents; of one that is ending for good scancel complains.
      [ -f "$job/stop" ] || echo "$now" >"$job/stop"
      scancel "$id" || true ;;
    {"|".join(sorted(ENDED))}) continue ;;
    *)
      [ -f "$job/stop" ] || echo "$now" >"$job/stop"
      scancel "$id" ;;
  esac || exit {NO_CONTROLLER}
  echo stopped
done <<<"$queue"
exit 0
"""


def log_script(work_dir: str, name: str, offset: int) -> str:
    """Print whether the job has ended and how long its log is, then the log from `offset` on."""
    return f"""{prelude(work_dir)}
job="$work/"{shlex.quote(name)}
[ -f "$job/end" ] && echo ended || echo open
[ -f "$job/log" ] || exit 0
tail -c +{offset + 1} "$job/log" | head -c {LOG_PIECE}
exit 0
"""


def tail_script(work_dir: str, name: str, count: int) -> str:
    """Print the last lines of the log."""
    return f"""{prelude(work_dir)}
job="$work/"{shlex.quote(name)}
[ -f "$job/log" ] && tail -n {count} "$job/log"
exit 0
"""


def order_script(work_dir: str, name: str) -> str:
    """Print what the job was made from."""
    return f'{prelude(work_dir)}\ncat "$work/"{shlex.quote(name)}/order.json\n'


def paths_script(work_dir: str, paths: Iterable[str]) -> str:
    """Print those paths that are not there."""
    words = " ".join(shlex.quote(path) for path in paths)
    return f'{prelude(work_dir)}\nfor path in {words}; do [ -e "$path" ] || printf "%s\\n" "$path"; done\nexit 0\n'


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
