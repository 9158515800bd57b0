"""Large integers: the digits of pi, one by one, by Gibbons's spigot. argv[1]: how many."""

import itertools
import sys


def digits():
    # The linear fractional transformation that has been applied so far, and the next term of the series.
    q, r, t, k = 1, 0, 1, 1
    while True:
        low = (3 * q + r) // t
        if low == (4 * q + r) // t:
            yield low
            r = 10 * (r - low * t)
            q *= 10
        else:
            odd = 2 * k + 1
            r = (2 * q + r) * odd
            t *= odd
            q *= k
            k += 1


count = int(sys.argv[1]) if len(sys.argv) > 1 else 3500
text = "".join(map(str, itertools.islice(digits(), count)))
print(f"{text[:10]}…{text[-10:]}, {count} digits, sum {sum(map(int, text))}")
