"""Entry point of ``python -m fsd_inference``, which is the same as ``fsd``."""

from __future__ import annotations

from fsd_inference.cli.main import main

if __name__ == "__main__":
    main()
