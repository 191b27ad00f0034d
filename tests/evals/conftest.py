import sys
from pathlib import Path

# Evals are programs beside the packages, and import each other by their place.
sys.path.append(str(Path(__file__).resolve().parents[2] / "evals"))
