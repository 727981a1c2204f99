"""``python -m upi``: the same as ``upi``."""

from upi.cli.main import main

if __name__ == "__main__":
    main()
