"""HARP on the side of the program: `harp-run`, the `harp` command line and what both share."""

__version__ = "0.1.0"
