"""Neural Ordinary Differential Equations (Chen, Rubanova, Bettencourt, Duvenaud 2018), from the command line."""

__version__ = "0.1.0"
