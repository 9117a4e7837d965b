"""Settings of the Superset that `make superset` starts. It serves this machine only, with all its data in a folder."""

import os
from pathlib import Path

HOME = Path(os.environ["SUPERSET_HOME"])

SECRET_KEY = (HOME / "secret_key").read_text()
SQLALCHEMY_DATABASE_URI = f"sqlite:///{HOME / 'superset.db'}?timeout=30"
RATELIMIT_STORAGE_URI = "memory://"
LOG_LEVEL = "WARNING"

# Superset's own policy without hosts outside this machine, one of which would learn of every page that is opened.
TALISMAN_CONFIG = {
    "content_security_policy": {
        "base-uri": ["'self'"],
        "default-src": ["'self'"],
        "img-src": ["'self'", "blob:", "data:"],
        "worker-src": ["'self'", "blob:"],
        "object-src": "'none'",
        "style-src": ["'self'", "'unsafe-inline'"],
        "script-src": ["'self'", "'strict-dynamic'"],
    },
    "content_security_policy_nonce_in": ["script-src"],
    # Loopback uses plain HTTP, over which a browser never sends a cookie marked secure.
    "force_https": False,
    "session_cookie_secure": False,
}
