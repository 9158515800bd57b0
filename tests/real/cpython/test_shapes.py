import unittest

from shapes import Circle, Square


class Areas(unittest.TestCase):
    def test_circle(self):
        self.assertAlmostEqual(Circle(2).area(), 12.566370614359172)

    def test_square(self):
        for side in range(10):
            with self.subTest(side=side):
                self.assertEqual(Square(side).area(), side * side)

    def test_negative_radius(self):
        with self.assertRaisesRegex(ValueError, "not negative"):
            Circle(-1)
