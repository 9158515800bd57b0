"""A script with modules of its own, which reads its arguments, its input and its environment."""

import os
import sys

import shapes
from shapes import Circle, Square

print(sys.argv, os.environ.get("UNIT"), shapes.__file__, shapes.__cached__)
total = 0
for line in sys.stdin:
    kind, size = line.split()
    area = {"circle": Circle, "square": Square}[kind](float(size)).area()
    total += area
    print(f"{kind:8}{area:10.3f}")
print(f"total   {total:10.3f}", file=sys.stderr)
sys.exit(5)
