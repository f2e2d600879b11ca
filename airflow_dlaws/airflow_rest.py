"""Asks an Airflow about its task instances, from outside: through its REST API (v2), or Amazon MWAA's door to it.

Imports no Airflow: whoever looks after jobs needs no Airflow of his own. An answer that is not certainly Airflow's own
is an error, never "there is no such task": a wrong address must not make orphans of all jobs.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from airflow_dlaws.errors import ServiceRefused, ServiceUnavailable
from airflow_dlaws.jobs.identity import TaskIdentity
from airflow_dlaws.jobs.ownership import TaskAnswer

#: An API server that has to render nothing answers in milliseconds; a proxy gives up after a minute.
_TIMEOUT_S = 30.0

#: Airflow's own words for what there is not (a task that is mapped now has no instance without an index). The 404 of a
#: proxy, of another program ("The requested URL was not found on the server"), or of a path that Airflow does not serve
#: ("Not Found") says something else.
_THERE_IS_NONE = re.compile(r"dag_id: `.* was not found|Task instance is mapped", re.S)

#: An HTTP status, and the answer's JSON document (None where it is none).
Answer = tuple[int, Any]


class AirflowDoor(Protocol):
    """A way in."""

    @property
    def address(self) -> str:
        """What the answers come from, for messages."""

    def get(self, path: str) -> Answer:
        """Ask for `/api/v2` + `path`."""


class _OwnHostOnly(urllib.request.HTTPRedirectHandler):
    """Follows a redirection within the host (from http to https), not to another one: the token is not for a login page
    somewhere else, and what that answers is not Airflow's word."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the request to follow with; None makes the redirection itself the answer."""
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class RestDoor:
    """Airflow's own REST API.

    :param url: of the API server, such as https://airflow.example.com; with the path it is served under, if any.
    :param token: a bearer token.
    :param user: for POST /auth/token, where there is no token; without one the auth manager must let everybody in.
    """

    def __init__(self, url: str, *, token: str = "", user: str = "", password: str = "") -> None:
        self._url, self._token = url.rstrip("/"), token
        self._login = {"username": user, "password": password} if user else None

    @property
    def address(self) -> str:
        """See the protocol."""
        return self._url

    def get(self, path: str) -> Answer:
        """See the protocol."""
        if not self._token:
            self._token = self._new_token()
        return self._ask("GET", f"/api/v2{path}")

    def _new_token(self) -> str:
        status, answer = self._ask("POST" if self._login else "GET", "/auth/token", self._login)
        token = answer.get("access_token") if isinstance(answer, Mapping) else None
        if status >= 300 or not token:
            raise ServiceRefused(
                f"the Airflow at {self._url} gives no token (HTTP {status}: {_words(answer)}): "
                "set DLAWS_AIRFLOW_TOKEN, or --airflow-user and DLAWS_AIRFLOW_PASSWORD"
            )
        return str(token)

    def _ask(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.build_opener(_OwnHostOnly).open(request, timeout=_TIMEOUT_S) as answer:
                return answer.status, _document(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _document(error.read())
        except ValueError as error:
            raise ServiceRefused(f"{self._url!r} is no address of an Airflow: {error}") from error
        except (OSError, HTTPException) as error:
            raise ServiceUnavailable(f"the Airflow at {self._url} cannot be asked: {error}") from error


class MwaaDoor:
    """The REST API of an Amazon MWAA environment, through InvokeRestApi: no web login, the caller's IAM role counts.

    :param client: the boto3 client of "mwaa".
    """

    def __init__(self, client: Any, environment: str) -> None:
        self._mwaa, self._environment = client, environment

    @property
    def address(self) -> str:
        """See the protocol."""
        return f"MWAA environment {self._environment}"

    def get(self, path: str) -> Answer:
        """See the protocol. MWAA puts /api/v2 before the path itself; what Airflow refuses comes as an exception."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._mwaa.invoke_rest_api(Name=self._environment, Path=path, Method="GET")
        except ClientError as error:
            told = error.response
            if told.get("Error", {}).get("Code") == "RestApiClientException" and "RestApiStatusCode" in told:
                return int(told["RestApiStatusCode"]), _parsed(told.get("RestApiResponse"))
            raise ServiceRefused(f"{self.address} cannot be asked: {error}") from error
        except BotoCoreError as error:
            raise ServiceUnavailable(f"{self.address} cannot be asked: {error}") from error
        return int(answer["RestApiStatusCode"]), _parsed(answer.get("RestApiResponse"))


class AirflowTasks:
    """The task instances of one Airflow."""

    def __init__(self, door: AirflowDoor) -> None:
        self._door = door

    def check(self) -> None:
        """Make sure that this is an Airflow in good health.

        :raises ServiceUnavailable: its database does not answer; ServiceRefused: this is no Airflow 3.
        """
        status, health = self._door.get("/monitor/health")
        database = health.get("metadatabase", {}) if isinstance(health, Mapping) else {}
        if status >= 500 or database.get("status") == "unhealthy":
            raise ServiceUnavailable(f"{self._door.address} is not healthy (HTTP {status}): {_words(health)}")
        if status != 200 or database.get("status") != "healthy":
            raise ServiceRefused(f"{self._door.address} does not answer as an Airflow 3 does (HTTP {status})")

    def ask(self, task: TaskIdentity) -> TaskAnswer:
        """Ask for one task instance as it is now.

        :raises ServiceUnavailable: or ServiceRefused, wherever the answer is neither the instance nor Airflow's own
            word that there is none.
        """
        run = f"/dags/{quote(task.dag_id, safe='')}/dagRuns/{quote(task.run_id, safe='')}"
        index = "" if task.map_index < 0 else f"/{task.map_index}"
        found = self._found(f"{run}/taskInstances/{quote(task.task_id, safe='')}{index}")
        if found is not None:
            return TaskAnswer(state=found["state"], max_tries=int(found["max_tries"]))
        missing = "run" if self._found(run) is None else "task instance"
        self.check()
        return TaskAnswer(missing=missing)

    def _found(self, path: str) -> Mapping[str, Any] | None:
        """Return what is there, None where Airflow says that nothing is."""
        status, answer = self._door.get(path)
        if status == 200 and isinstance(answer, Mapping):
            return answer
        detail = str(answer.get("detail", "")) if isinstance(answer, Mapping) else ""
        if status == 404 and _THERE_IS_NONE.search(detail):
            return None
        text = f"{self._door.address} does not say what is at {path} (HTTP {status}): {_words(answer)}"
        if status in (401, 403):
            raise ServiceRefused(f"{text}. The login must be allowed to read DAG runs and task instances")
        raise ServiceUnavailable(text) if status >= 500 or status == 429 else ServiceRefused(text)


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _parsed(answer: Any) -> Any:
    """InvokeRestApi gives a document, or the text of one."""
    return _document(answer.encode()) if isinstance(answer, str) else answer


def _words(answer: Any) -> str:
    return json.dumps(answer)[:300] if answer is not None else "no JSON"
