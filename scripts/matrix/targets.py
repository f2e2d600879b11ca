"""Which environments are tested: the three of Amazon MWAA, and the newest Airflow that this repository pins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MWAA = ROOT / "mwaa"

#: What MWAA's image installs before the user's requirements (bootstrap/02-airflow in aws/amazon-mwaa-docker-images),
#: less pycurl, psycopg2 and type stubs: the first two are compiled against C libraries, and nothing here uses any.
_MWAA_BASE = (
    "apache-airflow[celery,statsd]",
    "apache-airflow-providers-amazon[aiobotocore]",
    "apache-airflow-providers-fab",
    "apache-airflow-providers-postgres",
    "apache-airflow-providers-standard",
    "celery[sqs]",
    "fluent-logger",
    "virtualenv",
    "watchtower",
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One Airflow, its Python, and what pip is told when it installs there."""

    airflow: str
    #: "3.12"
    python: str
    #: Installed before the wheel, as the platform does.
    base: tuple[str, ...]
    #: The constraints that hold for everything.
    constraints: tuple[Path, ...]
    requirements: Path | None = None

    @property
    def name(self) -> str:
        """How `--only` and the table call it."""
        return self.airflow

    @property
    def wheel_arguments(self) -> list[str]:
        """What pip installs the wheel with: MWAA's user requirements, or the package with its extra."""
        wanted = ["airflow-dlaws[validation]"] if self.requirements is None else ["-r", str(self.requirements)]
        return [*wanted, *self.constraint_arguments]

    @property
    def constraint_arguments(self) -> list[str]:
        """The constraint options of pip and uv."""
        return [word for path in self.constraints for word in ("-c", str(path))]


def all_targets() -> list[Target]:
    """Return the targets, the oldest Airflow first."""
    return [*(_mwaa(version) for version in ("3.0.6", "3.2.1", "3.3.1")), _newest()]


def _mwaa(version: str) -> Target:
    return Target(
        airflow=version,
        python="3.12",
        base=(f"apache-airflow=={version}", *_MWAA_BASE),
        # MWAA forces both where requirements.txt has no constraints of its own.
        constraints=(MWAA / "constraints" / f"{version}-essential.txt", MWAA / "constraints" / f"{version}.txt"),
        requirements=MWAA / "requirements.txt",
    )


def _newest() -> Target:
    constraints = ROOT / "constraints.txt"
    (version,) = re.findall(r"^apache-airflow==(\S+)$", constraints.read_text(), re.MULTILINE)
    return Target(
        airflow=version,
        python="3.11",
        base=(f"apache-airflow=={version}", "apache-airflow-providers-amazon"),
        constraints=(constraints,),
    )
