"""A package, so that importing has to find, read and compile files."""

from .circle import Circle
from .square import Square

__all__ = ["Circle", "Square"]
