"""What programs do with files and folders, errors included."""

import glob
import io
import os
import pathlib
import shutil
import stat
import tempfile


def attempt(what, *arguments, **options):
    """Says which error a call ends with."""
    try:
        result = what(*arguments, **options)
        print("no error", what.__name__, arguments, type(result).__name__)
    except OSError as error:
        print(type(error).__name__, error.errno, error.strerror, error.filename, error.filename2)
    except io.UnsupportedOperation as error:
        print("unsupported", error)


def tree(root):
    for folder, folders, files in os.walk(root):
        folders.sort()
        print(folder, sorted(folders), [(name, os.lstat(os.path.join(folder, name)).st_size) for name in sorted(files)])


os.chdir(os.path.dirname(__file__))

# Writing, reading, seeking, appending, truncating.
with open("lines.txt", "w") as file:
    for number in range(5000):
        print("line", number, "žluťoučký 猫", file=file)
with open("lines.txt") as file:
    lines = file.readlines()
print(len(lines), lines[-1], sum(map(len, lines)))
with open("lines.txt", "r+b", buffering=0) as file:
    file.seek(100)
    file.write(b"OVERWRITTEN")
    file.seek(-20, os.SEEK_END)
    print(file.read(), file.tell(), file.read())
    file.truncate(1000)
    file.seek(2000)
    file.write(b"behind a hole")
with open("lines.txt", "ab") as file:
    file.write(b" appended")
    print(file.tell())
print(len(open("lines.txt", "rb").read()), open("lines.txt", "rb").read()[990:1010])
descriptor = os.open("exclusive", os.O_CREAT | os.O_EXCL | os.O_RDWR)
print(os.write(descriptor, b"0123456789"), os.pread(descriptor, 4, 3), os.pwrite(descriptor, b"ab", 8))
os.ftruncate(descriptor, 12)
os.fsync(descriptor)
print(os.fstat(descriptor).st_size, os.lseek(descriptor, 0, os.SEEK_CUR))
os.close(descriptor)
attempt(os.close, descriptor)
attempt(os.open, "exclusive", os.O_CREAT | os.O_EXCL)

# Folders.
os.makedirs("a/b/c")
for name in ("one", "two.txt", "three.txt", ".hidden", "žluťoučký", "with space", "n" * 200):
    pathlib.Path("a/b", name).write_text(name * 3)
for number in range(300):
    pathlib.Path("a/b/c", f"{number:03}.dat").write_bytes(bytes([number % 256]) * number)
tree("a")
print(sorted(os.listdir("a/b")), len(os.listdir("a/b/c")))
print(sorted((entry.name, entry.is_dir(), entry.is_file(), entry.is_symlink()) for entry in os.scandir("a/b")))
print(sorted(glob.glob("a/**/*.txt", recursive=True)), sorted(glob.glob("a/b/c/0[12]?.dat"))[:5])
print(sorted(str(path) for path in pathlib.Path("a").rglob("29?.dat")))
shutil.copytree("a", "copy", ignore=shutil.ignore_patterns("*5.dat"))
tree("copy")

# Moving and removing.
os.rename("a/b/one", "a/b/eins")
os.replace("a/b/two.txt", "a/b/three.txt")
shutil.move("copy/b", "moved")
os.rename("a/b/c", "a/numbers")
os.rename("a/numbers/001.dat", "a/numbers/002.dat")
os.unlink("moved/.hidden")
shutil.rmtree("moved/c")
os.rmdir("copy")
tree(".")
attempt(os.rmdir, "a")
attempt(os.rmdir, "lines.txt")
attempt(os.unlink, "a")
attempt(os.mkdir, "a")
attempt(os.rename, "a", "a/inside")
attempt(os.rename, "a", "moved")
attempt(os.rename, "lines.txt", "a")
attempt(os.rename, "absent", "anything")
attempt(os.listdir, "lines.txt")
attempt(os.listdir, "absent")
attempt(open, "a")
attempt(open, "absent/file", "w")
attempt(open, "lines.txt/file")
attempt(open, "n" * 300, "w")
attempt(open, "../outside", "w")
attempt(open, "/outside", "w")
attempt(open, "")
attempt(open("lines.txt").write, "not writable")
attempt(os.stat, "absent")

# Links.
os.symlink("lines.txt", "soft")
os.symlink("a/b", "folder")
os.symlink("absent", "dangling")
os.link("lines.txt", "hard")
print(os.readlink("soft"), os.path.islink("soft"), os.path.exists("dangling"), os.path.lexists("dangling"))
print(os.stat("hard").st_nlink, os.path.samefile("soft", "hard"), sorted(os.listdir("folder")))
print([stat.S_IFMT(os.lstat(name).st_mode) for name in ("soft", "hard", "folder", ".")])
attempt(os.symlink, "lines.txt", "soft")
attempt(os.link, "a", "of-folder")
attempt(os.readlink, "hard")
attempt(open, "dangling")
with open("soft", "a") as file:
    file.write("through a link")
print(os.path.getsize("hard"))

# Times.
os.utime("lines.txt", ns=(1_600_000_000_123_456_789, 1_700_000_000_987_654_321))
status = os.stat("soft")
print(status.st_size, status.st_atime_ns, status.st_mtime_ns)
os.utime("soft", (1, 2), follow_symlinks=False)
print(os.lstat("soft").st_mtime, os.stat("soft").st_mtime)

# Temporary files.
with tempfile.TemporaryDirectory(dir=".") as folder, tempfile.NamedTemporaryFile(dir=folder) as named:
    named.write(b"temporary")
    named.flush()
    print(os.path.getsize(named.name), os.listdir(folder) == [os.path.basename(named.name)])
with tempfile.TemporaryFile(dir=".") as nameless:
    nameless.write(b"temporary")
    nameless.seek(0)
    print(nameless.read())
with tempfile.SpooledTemporaryFile(max_size=10, dir=".") as spooled:
    spooled.write(b"more than ten bytes")
    spooled.seek(5)
    print(spooled.read())
tree(".")
