"""Start the services of docker-compose.yaml as processes of this machine, without Docker.

Commands, variables, conditions of starting and health checks are the file's. What a container has and a process lacks
is translated, and only that: `Translation` has the addresses and the folders, `IMAGES` what the images do themselves.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compose_file import ROOT, HealthCheck, Service

from airflow_dlaws.local.sessions import Session, end_sessions, free_ports

#: Ports inside the containers; here each becomes a free one, as other tests and Airflows run on this machine.
PORTS = (5432, 6379, 8080, 8974, 8793, 8794, 4566)
#: Where containers find each other, and "all interfaces": nothing here listens on more than it must.
HOSTS = {"@postgres:": "@127.0.0.1:", "@redis:": "@127.0.0.1:", "0.0.0.0": "127.0.0.1"}
#: Folders inside the containers; here each lies below one folder.
FOLDERS = ("/opt/airflow", "/var/lib/postgresql", "/var/lib/dlaws", "/data")

#: Debian keeps the server's programs off the path.
POSTGRES_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
#: All services at once on two cores, with another test beside them.
START_LIMIT_S = 240.0
#: What Docker gives a service between its stop signal and SIGKILL, unless the file says more.
STOP_LIMIT_S = 10.0


def missing_programs() -> str:
    """Say what must be installed for this, or nothing."""
    found = bool(POSTGRES_PROGRAMS) and all(shutil.which(name) for name in ("redis-server", "redis-cli", "curl"))
    return "" if found else "needs Postgres, Redis and curl: apt-get install postgresql redis-server curl"


class Translation:
    """Container addresses and folders into those of this machine. `root` stands for the containers' `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        # A port stands alone, after a colon (also in its URL encoding), an equals sign or a space; never inside a key.
        numbers = "|".join(str(port) for port in PORTS)
        self._port = re.compile(rf"(?:^|(?<=[:= ])|(?<=%3A))(?:{numbers})(?!\w)")
        self._folder = re.compile(rf"(?<![\w/.])(?:{'|'.join(FOLDERS)})(?![\w-])")

    def __call__(self, text: str) -> str:
        for theirs, ours in HOSTS.items():
            text = text.replace(theirs, ours)
        text = self._port.sub(lambda match: str(self.ports[int(match[0])]), text)
        return self._folder.sub(lambda match: f"{self.root}{match[0]}", text)


@dataclass(frozen=True, kw_only=True)
class Image:
    """What an image does by itself: its entrypoint, its variables, its user and its stop signal."""

    argv: Callable[[Translation, Sequence[str]], list[str]]
    environment: Mapping[str, str]
    prepare: Callable[[Translation, Mapping[str, str]], None] = lambda *_: None
    user: str = ""
    stop_signal: str = ""


def _airflow_entrypoint(_: Translation, command: Sequence[str]) -> list[str]:
    return [*command] if command[0] in {"bash", "python"} else ["airflow", *command]


def _postgres_entrypoint(translate: Translation, command: Sequence[str]) -> list[str]:
    where = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p", str(translate.ports[5432])]
    return [str(POSTGRES_PROGRAMS[-1] / "postgres"), *command, *where]


def _redis_entrypoint(translate: Translation, command: Sequence[str]) -> list[str]:
    return [*command, "--bind", "127.0.0.1", "--port", str(translate.ports[6379])]


def _create_database(translate: Translation, environment: Mapping[str, str]) -> None:
    """Do what the image does at its first start: a cluster with one user, who has a password and a database."""
    password_file = translate.root / "tmp/postgres-password"
    password_file.write_text(environment["POSTGRES_PASSWORD"])
    _own(password_file)
    programs = POSTGRES_PROGRAMS[-1]
    _run_as_postgres(
        programs / "initdb",
        f"--username={environment['POSTGRES_USER']}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        environment["PGDATA"],
    )
    password_file.unlink()
    create = f'CREATE DATABASE "{environment["POSTGRES_DB"]}"\n'
    _run_as_postgres(programs / "postgres", "--single", "-D", environment["PGDATA"], "postgres", text=create)


def _run_as_postgres(*argv: str | Path, text: str = "") -> None:
    done = subprocess.run([*argv], input=text, text=True, capture_output=True, check=False, cwd="/", **_as("postgres"))
    if done.returncode:
        raise RuntimeError(f"{argv} failed:\n{done.stdout}\n{done.stderr}")


def _as(user: str) -> dict[str, object]:
    """Arguments for subprocess: Postgres refuses to run as root."""
    return {"user": user, "group": user, "extra_groups": []} if user and os.geteuid() == 0 else {}


def _own(path: Path) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")


#: By the name before the tag.
IMAGES = {
    "airflow-dlaws": Image(argv=_airflow_entrypoint, environment={"AIRFLOW_HOME": "/opt/airflow"}),
    "dlaws-local-aws": Image(argv=lambda _, command: [*command], environment={}),
    "postgres": Image(
        argv=_postgres_entrypoint,
        environment={},
        prepare=_create_database,
        user="postgres",
        stop_signal="SIGINT",  # the image's own; SIGTERM would wait for clients
    ),
    "redis": Image(argv=_redis_entrypoint, environment={}),
}


class NativeStack:
    """The services of one file, running. Everything lies in a new folder below /tmp, where another user may reach it.

    :param logs: what each service prints goes to `<logs>/<service>.log`.
    """

    def __init__(self, services: Mapping[str, Service], logs: Path) -> None:
        self.services, self.logs = dict(services), logs
        self.root = Path(tempfile.mkdtemp(prefix="dlaws-stack-", dir="/tmp"))
        self.translate = Translation(self.root)
        self.sessions: dict[str, Session] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._healthy: set[str] = set()
        #: Service: seconds from the start of the stack until its health check succeeded.
        self.healthy_after: dict[str, float] = {}

    def start(self) -> None:
        """Start everything in the order that the file asks for; return when every health check succeeds.

        :raises RuntimeError: a service ended that should not.
        :raises TimeoutError: a service is not healthy in time.
        """
        self._make_folders()
        began = time.monotonic()
        while waiting := [name for name in self.services if not self._done(name)]:
            for name in waiting:
                if name not in self.sessions and self._may_start(name):
                    self._launch(name)
                self._must_run(name)
                if name in self.sessions and self._check(name):
                    self.healthy_after[name] = time.monotonic() - began
            if time.monotonic() - began > START_LIMIT_S:
                raise TimeoutError(f"after {START_LIMIT_S:.0f} s not healthy: {waiting}\n{self.tail(waiting[0])}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End the services as Docker does, those first that depend on others; return when no process is left.

        Stopping twice is no error.
        """
        needed = {other for service in self.services.values() for other in service.depends_on}
        for wave in (set(self.sessions) - needed, needed & set(self.sessions)):
            for name in wave:
                self._send_stop_signal(self.services[name])
            for name in wave:
                with suppress(subprocess.TimeoutExpired):
                    self._processes[name].wait(STOP_LIMIT_S)
        end_sessions(list(self.sessions.values()), grace_s=0)
        shutil.rmtree(self.root, ignore_errors=not self.sessions)
        self.sessions.clear()

    def environment(self, service: Service) -> dict[str, str]:
        """Return the variables of a service: the file's, its image's, and what any program needs to be found."""
        own = {**IMAGES[_image_name(service)].environment, **service.environment}
        machine = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": f"{self.root}/home",
            "TMPDIR": f"{self.root}/tmp",
            "LANG": "C.UTF-8",
        }
        return {**machine, **{name: self.translate(value) for name, value in own.items()}}

    def healthy(self, name: str) -> bool:
        """Run the health check of a service once."""
        service = self.services[name]
        return service.health is None or self._passes(service, service.health)

    def tail(self, name: str, lines: int = 40) -> str:
        """Return the last lines a service printed."""
        path = self.logs / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else "(not started)"
        return "\n".join([f"{name}:", *text.splitlines()[-lines:]])

    def _make_folders(self) -> None:
        self.root.chmod(0o711)
        for folder in ("home", "tmp", *(each.lstrip("/") for each in FOLDERS)):
            (self.root / folder).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        for mount in {mount for service in self.services.values() for mount in service.mounts}:
            target = Path(self.translate(mount.target))
            if mount.named:
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.symlink_to((ROOT / mount.source).resolve(strict=True))
        for service in self.services.values():
            if service.name == "postgres":
                _own(Path(self.translate(service.environment["PGDATA"])))

    def _may_start(self, name: str) -> bool:
        met = {
            "service_started": lambda other: other in self.sessions,
            "service_healthy": lambda other: other in self._healthy,
            "service_completed_successfully": lambda other: self._completed(other),
        }
        return all(met[condition](other) for other, condition in self.services[name].depends_on.items())

    def _launch(self, name: str) -> None:
        service = self.services[name]
        image = IMAGES[_image_name(service)]
        environment = self.environment(service)
        image.prepare(self.translate, environment)
        command = [self.translate(word) for word in service.command]
        argv = [*service.entrypoint, *command] if service.entrypoint else image.argv(self.translate, command)
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                env=environment,
                cwd=self.translate(image.environment.get("AIRFLOW_HOME", "/")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **_as(image.user),  # type: ignore[call-overload]
            )
        self._processes[name], self.sessions[name] = process, Session.of(process.pid)

    def _done(self, name: str) -> bool:
        return self._completed(name) if self._must_complete(name) else name in self._healthy

    def _must_complete(self, name: str) -> bool:
        conditions = [service.depends_on.get(name) for service in self.services.values()]
        return "service_completed_successfully" in conditions

    def _completed(self, name: str) -> bool:
        return name in self._processes and self._processes[name].poll() == 0

    def _must_run(self, name: str) -> None:
        status = self._processes[name].poll() if name in self._processes else None
        if status is not None and not (status == 0 and self._must_complete(name)):
            raise RuntimeError(f"{name} ended with status {status}\n{self.tail(name)}")

    def _check(self, name: str) -> bool:
        if name in self._healthy or self._must_complete(name) or not self.healthy(name):
            return False
        self._healthy.add(name)
        return True

    def _passes(self, service: Service, check: HealthCheck) -> bool:
        argv = [self.translate(word) for word in check.argv]
        environment, place = self.environment(service), self.root
        try:
            done = subprocess.run(
                argv, env=environment, cwd=place, capture_output=True, timeout=check.timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _send_stop_signal(self, service: Service) -> None:
        chosen = IMAGES[_image_name(service)].stop_signal or service.stop_signal
        with suppress(ProcessLookupError):
            self._processes[service.name].send_signal(signal.Signals[chosen])


def _image_name(service: Service) -> str:
    return service.image.partition(":")[0]
