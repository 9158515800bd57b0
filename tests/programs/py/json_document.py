"""Strings and dictionaries: a generated document, written as JSON and parsed again. argv[1]: how often."""

import json
import sys


class Generator:
    def __init__(self):
        self.state = 1

    def below(self, bound):
        self.state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
        return (self.state >> 16) * bound >> 16


PIECES = ["an", "e", "ti", "kor", '"', "\\", "\n", "\x01", "ž", "é", " ", "lem", "猫", "s", "u", "ra"]


def records(count):
    below = Generator().below

    def text():
        return "".join([PIECES[below(16)] for _ in range(1 + below(12))])

    return [
        {
            "number": number,
            "name": text(),
            "balance": (below(60000) - 30000) / 8,
            "active": below(2) == 1,
            "address": {"city": text(), "note": text() if below(3) == 0 else None},
            "points": [below(50000) / 8 for _ in range(below(10))],
        }
        for number in range(count)
    ]


rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
text = json.dumps(records(3000), ensure_ascii=False)
balance = points = 0
for _ in range(rounds):
    parsed = json.loads(text)
    for record in parsed:
        balance += record["balance"]
        points += len(record["points"])
    if json.dumps(parsed, ensure_ascii=False) != text:
        sys.exit("another text came back")
print(f"{len(text)} characters, balance {balance / rounds}, points {points // rounds}")
