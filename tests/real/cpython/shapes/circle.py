import math


class Circle:
    def __init__(self, radius):
        if radius < 0:
            raise ValueError("a radius is not negative")
        self.radius = radius

    def area(self):
        return math.pi * self.radius**2
