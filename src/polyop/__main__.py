"""The command `polyop`, as `python -m polyop`."""

from polyop.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
