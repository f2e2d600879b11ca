"""A private Airflow on this machine: the four components as separate processes, for the demo and the tests.

Each component is a process session of its own, so that everything it forks can be found and ended: Airflow's own
`standalone` leaves orphans behind that hold the ports. Nothing here imports Airflow; it runs `python -m airflow`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

from airflow_dlaws.local.airflow_api import AirflowApi
from airflow_dlaws.local.airflow_database import keep_trigger_ids_apart
from airflow_dlaws.local.sessions import Session, end_sessions, free_ports

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
#: A cold start of the four components took 78 s on two loaded cores.
_START_LIMIT_S = 240.0
#: How long a component waits for SQLite's one writer. After Python's 5 s a scheduler ends, and nothing runs any more.
_LOCKED_LIMIT_S = 120


class LocalAirflow:
    """One Airflow with its own home, ports and SQLite database.

    :param home: AIRFLOW_HOME; everything Airflow writes lies below it.
    :param dags_folders: folders with DAG files; each becomes a bundle.
    :param environment: more variables for every component (the local AWS's addresses, DAG defaults).
    :param python: the Python whose Airflow it is; by default the one that runs this.
    """

    def __init__(
        self,
        home: Path,
        dags_folders: Mapping[str, Path],
        environment: Mapping[str, str],
        *,
        python: str = sys.executable,
    ) -> None:
        self.home = home.resolve()
        self._dags_folders = {name: folder.resolve() for name, folder in dags_folders.items()}
        self._extra = dict(environment)
        self._program = [python, "-m", "airflow"]
        self._sessions: dict[str, Session] = {}
        self._leaderless: list[Session] = []
        self.url = ""

    @property
    def api(self) -> AirflowApi:
        """The REST API of this Airflow; its calls raise RuntimeError when a component has ended by itself."""
        return AirflowApi(self.url, guard=self.check)

    @property
    def record(self) -> Path:
        """Where the running processes are written down, for `stop_recorded`."""
        return self.home / "dlaws-processes.json"

    def start(self) -> None:
        """Migrate the database, start the components, wait until all report healthy."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._environment = self._make_environment()
        self.run("db", "migrate")
        keep_trigger_ids_apart(self.home / "airflow.db")
        for component in COMPONENTS:
            self.start_component(component)
        self.wait_healthy(time.monotonic() + _START_LIMIT_S)

    def start_component(self, component: str, *, name: str = "") -> None:
        """Start (again) one of `COMPONENTS`; what one that has ended by itself left running ends first.

        :param name: of one that is to run beside the first of its kind, as all other methods take it.
        """
        name = name or component
        if name in self._sessions:
            self.kill_component(name)
        with (self.home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._program, component],
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions[name] = Session.of(process.pid)
        self._write_record()

    def kill_component(self, component: str) -> None:
        """End one component and all it forked at once, as a crash would (SIGKILL)."""
        end_sessions([self._sessions.pop(component)], grace_s=0)
        self._write_record()

    def kill_leader(self, component: str) -> None:
        """Kill a component's first process alone; what it forked lives on, as Celery's workers outlive a scheduler."""
        session = self._sessions.pop(component)
        self._leaderless.append(session)
        os.kill(session.sid, signal.SIGKILL)
        os.waitpid(session.sid, 0)
        self._write_record()

    def members(self, component: str) -> set[int]:
        """Return the process ids of a component and of all it forked."""
        return self._sessions[component].members()

    def leaderless_members(self) -> set[int]:
        """Return the process ids that `kill_leader` has left running."""
        return set[int]().union(*(session.members() for session in self._leaderless))

    def end_component(self, component: str) -> None:
        """End one component as a deployment does (SIGTERM), and wait until it is gone."""
        end_sessions([self._sessions.pop(component)], grace_s=20)
        self._write_record()

    def run(self, *arguments: str) -> str:
        """Run an `airflow` command to its end; return what it printed.

        :raises RuntimeError: it failed.
        """
        done = subprocess.run(
            [*self._program, *arguments], env=self._environment, cwd=self.home, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def stop(self) -> None:
        """End everything; return when no process of this Airflow is left."""
        end_sessions([*self._sessions.values(), *self._leaderless], grace_s=5)
        self._sessions.clear()
        self._leaderless.clear()
        self.record.unlink(missing_ok=True)

    def wait_healthy(self, deadline: float) -> None:
        """Return when every component has reported healthy.

        :raises TimeoutError: the deadline (`time.monotonic`) passed first.
        :raises RuntimeError: a component ended.
        """
        while not self.api.healthy():
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"Airflow at {self.url} is not healthy: {self.api.health()}")
            time.sleep(0.5)

    def ended(self) -> list[str]:
        """Return the components that have ended though nobody here ended them."""
        return [component for component, session in self._sessions.items() if not session.alive()]

    def check(self) -> None:
        """Return if all that was started runs: else nobody need wait for what will not come.

        :raises RuntimeError: a component has ended by itself.
        """
        for component in self.ended():
            raise RuntimeError(f"airflow {component} has ended; the last it printed:\n{self.tail(component)}")

    def tail(self, component: str, lines: int = 30) -> str:
        """Return the last lines a component printed."""
        text = (self.home / f"{component}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _write_record(self) -> None:
        self.record.write_text(
            json.dumps([session.to_json() for session in [*self._sessions.values(), *self._leaderless]])
        )

    def _make_environment(self) -> dict[str, str]:
        api_port, worker_logs_port, trigger_logs_port = free_ports(3)
        self.url = f"http://127.0.0.1:{api_port}"
        bundles = [
            {
                "name": name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(path)},
            }
            for name, path in self._dags_folders.items()
        ]
        settings = {
            "CORE__DAGS_FOLDER": str(next(iter(self._dags_folders.values()))),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__PARALLELISM": "4",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home}/airflow.db?timeout={_LOCKED_LIMIT_S}",
            "CORE__FERNET_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(api_port),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": secrets.token_hex(16),
            "API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # A file that was changed is parsed at once all the same; parsing the others again took a third of a core.
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            "LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs_port),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs_port),
            # Seconds matter here and nothing else runs: look for work twice a second.
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # A triggerer counts as dead after this many seconds, and another one takes its triggers over.
            "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
            # A task whose supervisor died is found after this many seconds (Airflow's default is 300).
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")},
            "AIRFLOW_HOME": str(self.home),
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            **self._extra,
        }


def stop_recorded(home: Path) -> bool:
    """End the Airflow that another process started in `home`; return whether one was recorded there."""
    record = home / "dlaws-processes.json"
    if not record.exists():
        return False
    end_sessions([Session.from_json(row) for row in json.loads(record.read_text())], grace_s=5)
    record.unlink()
    return True
