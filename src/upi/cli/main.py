"""The console script's first line: a clear word where the command line's packages are missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``upi``."""
    try:
        from upi.cli.front import check

        check(sys.argv[1:])
        from upi.cli.app import app
        from upi.core.allocation import keep_freed_memory
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("upi"):
            raise
        sys.stderr.write(
            f"upi: the command line needs {error.name}; install it with: pip install 'upi-xai[cli]'\n"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    keep_freed_memory()
    app()
