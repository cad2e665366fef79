"""Where things are in a checkout."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_models"
DATA = Path(__file__).parent / "data"
