"""Data from file to file: CSV, JSON, statistics, compressed and binary files."""

import array
import collections
import csv
import gzip
import json
import os
import pickle
import random
import statistics
import struct
import tarfile
import zipfile

os.chdir(os.path.dirname(__file__))
numbers = random.Random(2024)
with open("readings.csv", "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["station", "hour", "celsius", "note"])
    for station in ("Ústí", "Brno", 'so-called "Town", North'):
        for hour in range(100):
            table.writerow([station, hour, round(numbers.gauss(11, 6), 2), "" if hour % 7 else "line\nbreak"])

readings = collections.defaultdict(list)
with open("readings.csv", newline="") as file:
    for row in csv.DictReader(file):
        readings[row["station"]].append(float(row["celsius"]))
summary = {
    station: {
        "count": len(values),
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "stdev": statistics.stdev(values),
        "quantiles": statistics.quantiles(values, n=10),
    }
    for station, values in readings.items()
}
with open("summary.json", "w") as file:
    json.dump(summary, file, indent=2, sort_keys=True, ensure_ascii=False)
with open("summary.json") as file:
    assert json.load(file) == summary
print(open("summary.json").read())

with gzip.GzipFile("readings.csv.gz", "wb", mtime=0) as packed, open("readings.csv", "rb") as plain:
    packed.write(plain.read())
with gzip.open("readings.csv.gz", "rt", newline="") as packed, open("readings.csv", newline="") as plain:
    assert packed.read() == plain.read()

with zipfile.ZipFile("all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for name in ("readings.csv", "summary.json"):
        entry = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
        archive.writestr(entry, open(name, "rb").read(), zipfile.ZIP_DEFLATED)
with zipfile.ZipFile("all.zip") as archive:
    print(archive.testzip(), [(entry.filename, entry.file_size) for entry in archive.infolist()])

with tarfile.open("all.tar", "w") as archive:
    archive.add("readings.csv", filter=lambda entry: entry.replace(mtime=0, mode=0o644, uid=0, gid=0, deep=False))
with tarfile.open("all.tar") as archive:
    assert archive.extractfile("readings.csv").read() == open("readings.csv", "rb").read()

with open("numbers.bin", "w+b") as file:
    array.array("d", readings["Brno"]).tofile(file)
    file.seek(8 * 50)
    file.write(struct.pack("<d", -273.15))
    file.seek(-8 * 50, 2)
    print(struct.unpack("<2d", file.read(16)), file.tell())
    file.truncate(8 * 60)
with open("readings.pickle", "wb") as file:
    pickle.dump(dict(readings), file)
with open("readings.pickle", "rb") as file:
    assert pickle.load(file) == readings
