"""ReasonRank (arXiv 2508.07050), reproducible: the thin library behind the notebooks."""

__version__ = "0.1.0"
