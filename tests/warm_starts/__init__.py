"""Ray's processes start in a tenth of a second instead of in ten: forked from one that has imported torch."""

from pathlib import Path

SERVER = Path(__file__).with_name("server.py")
ON_PATH = Path(__file__).with_name("on_path")
"""What makes a Python start warm that has it in PYTHONPATH (and the address of the server in WARM_STARTS)."""
