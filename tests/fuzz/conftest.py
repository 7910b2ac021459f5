"""Lets the tests of this folder share what is no test."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
