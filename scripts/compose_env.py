"""Write .env for docker-compose.yaml: new passwords and keys, and the local AWS. Run: make compose-env.

Never overwrites: the database and the encrypted connections in it know the old values.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from pathlib import Path

ENV_FILE = Path(__file__).parent.parent / ".env"


def content() -> str:
    """Return the file's text. Passwords are hexadecimal, as they stand in URLs too."""
    fernet_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return f"""\
# For docker-compose.yaml; made by `make compose-env`. Keep it out of git and of backups that others read.
# With POSTGRES_PASSWORD or AIRFLOW_FERNET_KEY lost or changed, the database can no longer be opened or decrypted.
AIRFLOW_ADMIN_PASSWORD={secrets.token_hex(12)}
AIRFLOW_FERNET_KEY={fernet_key}
AIRFLOW_SECRET_KEY={secrets.token_hex(32)}
AIRFLOW_JWT_SECRET={secrets.token_hex(32)}
POSTGRES_PASSWORD={secrets.token_hex(24)}
REDIS_PASSWORD={secrets.token_hex(24)}

# The local AWS. For a real account: docs/install-self-hosted.md.
COMPOSE_PROFILES=local-aws
AIRFLOW_CONN_AWS_DEFAULT=aws://local:local@/?region_name=us-east-1&endpoint_url=http%3A%2F%2F127.0.0.1%3A4566
"""


def main(target: Path) -> int:
    """Write `target` for its owner alone; return the exit status."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{target} exists and was left as it is: delete it yourself if its database is gone too", file=sys.stderr)
        return 1
    with os.fdopen(descriptor, "w") as file:
        file.write(content())
    print(f"wrote {target}; next: docker compose up --build --detach")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ENV_FILE))
