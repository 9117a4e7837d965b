"""Sets up a Superset on this machine if there is none yet, and serves it on loopback, in one process, until stopped.

    .superset/venv/bin/python dashboards/superset/serve.py --data .superset

Runs in Superset's environment (`requirements.lock`), where the rest of the project is not installed. When it answers it
prints one line of JSON: its address, the administrator, and whether it is new.
"""

import argparse
import json
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import TextIO

HOST = "127.0.0.1"
ADMIN = "admin"


def main() -> int:
    """Serve until SIGTERM or SIGINT. If that is impossible, print a sentence and exit with status 2."""
    parser = argparse.ArgumentParser(description="A Superset of this machine's own, on loopback.")
    parser.add_argument("--data", type=Path, required=True, help="where it keeps everything; created if missing")
    parser.add_argument("--port", type=int, help="on loopback (0: a free one; default: as last time, or a free one)")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop when the starting process is gone")
    options = parser.parse_args()
    home = options.data.resolve()
    try:
        listener = _listen(options.port, home / "port")
    except OSError as error:
        print(
            f"Superset cannot listen on port {options.port} ({os.strerror(error.errno)}): "
            "stop what uses it, or give another port.",
            file=sys.stderr,
        )
        return 2
    if options.until_stdin_closes:
        threading.Thread(target=_stop_with_parent, daemon=True).start()
    password = _keep_secrets(home)
    os.environ["SUPERSET_HOME"] = str(home)
    os.environ["SUPERSET_CONFIG_PATH"] = str(Path(__file__).with_name("superset_config.py"))
    warnings.simplefilter("ignore")
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # migrations and Superset itself print to stdout
    app, new = _set_up(home, password)
    _serve(app, listener, answer, {"admin": ADMIN, "password": str(home / "admin_password"), "new": new})
    return 0


def _listen(port: int | None, kept: Path) -> socket.socket:
    """Listen on the port given, else on the one kept from last time, or on a free one if that is taken; keep it."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    try:
        last = int(kept.read_text()) if kept.exists() else 0
        listener = socket.create_server((HOST, last if port is None else port))
    except OSError:
        if port is not None:
            raise
        listener = socket.create_server((HOST, 0))
    kept.write_text(f"{listener.getsockname()[1]}")
    return listener


def _keep_secrets(home: Path) -> str:
    """Create the secrets once, readable only by their owner. Returns the administrator's password."""
    for name, length in (("secret_key", 42), ("admin_password", 12)):
        if not (home / name).exists():
            with open(home / name, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(secrets.token_urlsafe(length))
    return (home / "admin_password").read_text()


def _set_up(home: Path, password: str) -> tuple:
    """Return the application with its tables, roles and administrator, and whether it was set up just now."""
    from superset.app import create_app

    logging.disable(logging.INFO)  # migrations log every table
    app = create_app()
    done = home / "set_up"
    version = app.config["VERSION_STRING"]
    with app.app_context():
        if done.exists() and done.read_text() == version:
            return app, False
        import superset
        from flask_migrate import upgrade
        from superset import appbuilder, security_manager
        from superset.extensions import db

        new = not done.exists()
        upgrade(directory=str(Path(superset.__file__).parent / "migrations"))
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        if not security_manager.find_user(ADMIN):
            role = security_manager.find_role("Admin")
            security_manager.add_user(ADMIN, "Pulse", "Admin", "admin@localhost.localdomain", role, password)
        db.session.commit()
    done.write_text(version)
    return app, new


def _serve(app: object, listener: socket.socket, answer: TextIO, about: dict) -> None:
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server(HOST, 0, app, threaded=True, fd=listener.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    url = f"http://{HOST}:{listener.getsockname()[1]}"
    print(json.dumps({"url": url, **about}), file=answer, flush=True)
    server.serve_forever()


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
