# Debugging the guest kernel in QEMU: symbols, breakpoints, and the WebAssembly call stack. docs/debugging.md is a walk through it.
#
#   cd kernel && CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=full cargo build --release
#   mote qemu --gdb --kernel kernel/target/x86_64-unknown-linux-gnu/release/mote-kernel app.wasm
#   gdb -x scripts/mote.gdb KERNEL         # the same file, in another terminal
#   (gdb) mote-connect
#
# With compiled code: cargo build --release --no-default-features --features compiled, and --engine aot.

set pagination off
set confirm off
set print thread-events off
set language rust

python
import os

import gdb

# abi/src/layout.rs
MODULE = 0x1000_0000
# As many as are shown.
MOST_FRAMES = 100
# wasmi: engine/code_map/mod.rs, `state` and LEN_BUCKET0_LOG2.
COMPILED = 4
BUCKET0 = 32
# Where the kernel begins, and where it ends.
BREAKPOINTS = [
    ("mote_kernel::monitor::start", "in ring 0, when the machine is in long mode"),
    ("_start", "in ring 3"),
    ("mote_kernel::hypercall::exit", "the end of the run, a trap included"),
    ("mote_kernel::failure::abort", "a panic"),
]
# Where either engine calls a function of the host: compiled code does so by a piece of code for each type of function.
CALL_OF_INTERPRETER = "wasmi::engine::executor::handler::exec::call_imported"
CALL_OF_COMPILED = "::wasm_to_array_trampoline"
DEFAULT_KERNEL = "kernel/target/x86_64-unknown-linux-gnu/release/mote-kernel"


def memory(address, count):
    return bytes(gdb.selected_inferior().read_memory(address, count))


def word(address):
    return int.from_bytes(memory(address, 8), "little")


def half(address):
    return int.from_bytes(memory(address, 2), "little")


class Reader:
    """Numbers and strings of a module, out of the guest's memory, a page at a time."""

    def __init__(self, at):
        self.at = at
        self.pages = {}

    def bytes(self, count):
        result = bytearray()
        while len(result) < count:
            page, offset = divmod(self.at, 4096)
            if page not in self.pages:
                self.pages[page] = memory(page * 4096, 4096)
            part = self.pages[page][offset:offset + count - len(result)]
            result += part
            self.at += len(part)
        return bytes(result)

    def byte(self):
        return self.bytes(1)[0]

    def number(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or shift > 70:
                return value

    def string(self):
        return self.bytes(self.number()).decode("utf-8", "replace")


class Names:
    """Of a module's functions: those of its name section, else those by which it exports them."""

    def __init__(self, module_bytes):
        self.imports, self.exports, self.own = [], {}, {}
        reader, end = Reader(MODULE + 8), MODULE + module_bytes
        while reader.at < end:
            section, size = reader.byte(), reader.number()
            following = reader.at + size
            if section == 2:
                self.read_imports(reader)
            elif section == 7:
                for _ in range(reader.number()):
                    name, kind, index = reader.string(), reader.byte(), reader.number()
                    if kind == 0:
                        self.exports.setdefault(index, name)
            elif section == 0 and reader.string() == "name":
                self.read_names(reader, following)
            reader.at = following

    def read_imports(self, reader):
        for _ in range(reader.number()):
            name = reader.string() + "::" + reader.string()
            kind = reader.byte()
            if kind == 0:
                reader.number()
                self.imports.append(name)
            elif kind in (1, 2):
                if kind == 1:
                    reader.byte()
                flags = reader.number()
                reader.number()
                if flags & 1:
                    reader.number()
            else:
                reader.bytes(2)

    def read_names(self, reader, end):
        while reader.at < end:
            kind, size = reader.byte(), reader.number()
            following = reader.at + size
            if kind == 1:
                for _ in range(reader.number()):
                    index = reader.number()
                    self.own[index] = reader.string()
            reader.at = following

    def show(self, index):
        name = self.own.get(index) or self.exports.get(index)
        return f"{name} (function {index})" if name else f"function {index}"


class Artifact:
    """Compiled code where it is mapped, with the names of its functions (ELF-64)."""

    def __init__(self):
        sections, count = word(MODULE + 40), half(MODULE + 60)
        header = lambda index: MODULE + sections + 64 * index
        kind = lambda index: word(header(index) + 4) & 0xFFFF_FFFF
        self.functions = []
        for index in range(count):
            # SHF_EXECINSTR; SHT_SYMTAB
            if word(header(index) + 8) & 4:
                self.start = MODULE + word(header(index) + 24)
                self.end = self.start + word(header(index) + 32)
            if kind(index) == 2:
                symbols = memory(MODULE + word(header(index) + 24), word(header(index) + 32))
                strings = header(word(header(index) + 40) & 0xFFFF_FFFF)
                names = memory(MODULE + word(strings + 24), word(strings + 32))
        for at in range(0, len(symbols), 24):
            name = names[int.from_bytes(symbols[at:at + 4], "little"):].split(b"\0", 1)[0]
            value, size = (int.from_bytes(symbols[at + from_:at + from_ + 8], "little") for from_ in (8, 16))
            if size:
                self.functions.append((self.start + value, self.start + value + size, name.decode("utf-8", "replace")))

    def contains(self, address):
        return self.start <= address < self.end

    def show(self, address):
        """What is at an address; None for what only leads to and from functions."""
        for start, end, name in self.functions:
            # That behind a call which does not return is the next function's.
            if start < address <= end or start == address:
                if "::function[" not in name:
                    return None
                index, _, own = name.partition("::function[")[2].partition("]::")
                own = f"{own} (function {index})" if own else "function " + index.rstrip("]")
                return f"{own}, {address - start:#x} bytes into its code, at {address:#x}"
        return f"unknown code at {address:#x}"


def step_into(value, wanted):
    """What wrappers of one field each hold, down to a type with one of these."""
    while not any(wanted(field) for field in value.type.fields()):
        value = value[next(field for field in value.type.fields() if field.type.sizeof)]
    return value


def pointer(value):
    """The pointer in one of Rust's pointer types."""
    while value.type.strip_typedefs().code != gdb.TYPE_CODE_PTR:
        value = value[next(field for field in value.type.fields() if field.type.sizeof)]
    return value


def integer(value):
    """The number in a type that wraps one."""
    while value.type.strip_typedefs().code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        value = value[next(field for field in value.type.fields() if field.type.sizeof)]
    return int(value)


def slice_of(value):
    """Address and length in what wraps a pointer to a slice or a string."""
    value = step_into(value, lambda field: field.name == "data_ptr")
    return int(value["data_ptr"]), int(value["length"])


class Kernel:
    """What was found out on the way."""
    store = None


class Remember(gdb.Breakpoint):
    """Keeps the address of the engine's store, from which all else is found. It stays where it is while a module runs."""

    def __init__(self):
        super().__init__("mote_kernel::engine::instantiate", internal=True)
        self.silent = True

    def stop(self):
        try:
            found = gdb.selected_frame().read_var("store")
            # A number, as the value would be read anew from where it was.
            Kernel.store = gdb.Value(int(found)).cast(found.type)
        except (ValueError, gdb.error):
            # Without debug information there is none; who asks is told.
            pass
        return False


class Forget(gdb.Breakpoint):
    """The run is over, and the store is gone."""

    def __init__(self):
        super().__init__("mote_kernel::report::finish", internal=True)
        self.silent = True

    def stop(self):
        Kernel.store = None
        return False


def store():
    if Kernel.store is None:
        raise gdb.GdbError(
            "There is no module: none was instantiated yet, or its run is over. Or the kernel was built without "
            "CARGO_PROFILE_RELEASE_DEBUG=full."
        )
    return Kernel.store.dereference()


def interpreted(store):
    """Frames of the interpreter, the innermost first: wasmi has a vector of them."""
    inner = store["inner"]
    names = Names(integer(pointer(wasi(store)["boot"]).dereference()["module_bytes"]))
    code = list(translated(pointer(inner["engine"]["inner"]["ptr"]).dereference()["data"]["code_map"]["funcs"]))
    frames = inner["exec"]["stack"]["frames"]["frames"]
    kind = frames.type.template_argument(0)
    first, count = int(pointer(frames["buf"]["inner"]["ptr"])), int(frames["len"])
    for index in reversed(range(max(count - MOST_FRAMES, 0), count)):
        frame = gdb.Value(first + index * kind.sizeof).cast(kind.pointer()).dereference()
        ip = int(pointer(frame["ip"]))
        # A module's functions have numbers in its order, without those that it imports.
        found = next(((number, start) for number, start, end in code if start <= ip <= end), None)
        if found is None:
            yield f"a function that is not known, ip {ip:#x}"
        else:
            number, start = found
            yield f"{names.show(len(names.imports) + number)}, {ip - start:#x} bytes into wasmi's code for it"


def translated(functions):
    """Numbers and code of the functions that wasmi has translated, in its buckets of growing size."""
    count = integer(functions["len_funcs"])
    buckets = functions["buckets"]["value"]
    first, size, bucket = 0, BUCKET0, 0
    while first < count:
        entries = pointer(buckets[bucket]["Some"])
        for slot in range(min(size, count - first)):
            entry = (entries + slot).dereference()
            if integer(entry["state"]) == COMPILED:
                start, length = slice_of(entry["data"]["value"]["compiled"])
                yield first + slot, start, start + length
        first, size, bucket = first + size, size * 2, bucket + 1


def compiled(store):
    """Frames of compiled code, the innermost first: those of the processor, linked by frame pointers."""
    artifact = Artifact()
    pc, fp = (int(gdb.parse_and_eval(register)) for register in ("$rip", "$rbp"))
    if not artifact.contains(pc):
        # It has called the kernel, and noted where.
        context = pointer(store["inner"]).dereference()["inner"]["vm_store_context"]
        pc, trampoline = integer(context["last_wasm_exit_pc"]), integer(context["last_wasm_exit_trampoline_fp"])
        fp = word(trampoline) if trampoline else 0
    else:
        # Before a function has made its frame (push rbp; mov rbp, rsp) its caller's is the innermost.
        into = next((pc - start for start, end, _ in artifact.functions if start <= pc < end), None)
        if into in (0, 1):
            yield artifact.show(pc) or "on the way to a function of WASI"
            pc = word(int(gdb.parse_and_eval("$rsp")) + 8 * into)
    for _ in range(MOST_FRAMES):
        if not artifact.contains(pc):
            return
        text = artifact.show(pc)
        if text:
            yield text
        if not fp:
            return
        pc, fp = word(fp + 8), word(fp)


def wasi(store):
    """The state of WASI, which either engine's store owns."""
    if is_compiled():
        return step_into(pointer(store["inner"]).dereference()["data_no_provenance"], lambda field: field.name == "last_call")
    return pointer(store["typed"]["data"]).dereference()


def last_call(store):
    call = wasi(store)["last_call"]
    address, length = slice_of(call["name"])
    if not length:
        return None
    arguments = [str(int(call["arguments"][index])) for index in range(int(call["count"]))]
    return f"{memory(address, length).decode()}({', '.join(arguments)})"


class WasmBacktrace(gdb.Command):
    """The call stack of the module, the innermost function first, and its last call to WASI.

What cannot be shown: locals and operands, which wasmi keeps in slots without names and Cranelift in registers; offsets in the module,
which wasmi forgets when it translates a function. The innermost position in interpreted code is that of its last call, or its
beginning, as the interpreter has where it is in a register. What compiled code was doing when it trapped is in mote's message."""

    def __init__(self):
        super().__init__("wasm-bt", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        root = store()
        frames = list((compiled if is_compiled() else interpreted)(root))
        call = last_call(root)
        if not frames:
            print("no function of the module is being called")
        elif is_compiled() and not Artifact().contains(int(gdb.parse_and_eval("$rip"))):
            print("The kernel runs. When the module last called it, this was its call stack:")
        for number, frame in enumerate(frames):
            print(f"#{number:<3} {printable(frame)}")
        print(f"the last call to WASI: {printable(call)}" if call else "no call to WASI yet")


def is_compiled():
    """What the module is, which is mapped before the kernel is entered."""
    try:
        magic = memory(MODULE, 4)
    except gdb.MemoryError:
        magic = None
    if magic not in (b"\x7fELF", b"\0asm"):
        raise gdb.GdbError("The module is not there yet: `continue` to `_start`. Before that this is ring 0, perhaps without page tables.")
    return magic == b"\x7fELF"


def printable(text):
    """A module chooses its names: none of them moves the cursor."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def set_breakpoint(name, what=""):
    try:
        # Errors, where a command would ask whether it is to wait for a library that has it.
        gdb.decode_line(name)
        gdb.Breakpoint(name)
    except gdb.error as error:
        print(f"no breakpoint at {name}: {error}")
    else:
        if what:
            print(f"    {name}, {what}")


class WasmBreak(gdb.Command):
    """Stops where the module calls WASI, before the call is looked at. From `_start` on, when it is known what the module is."""

    def __init__(self):
        super().__init__("wasm-break", gdb.COMMAND_BREAKPOINTS)

    def invoke(self, argument, from_tty):
        if not is_compiled():
            set_breakpoint(CALL_OF_INTERPRETER)
            return
        for start, _, name in Artifact().functions:
            if name.endswith(CALL_OF_COMPILED):
                gdb.execute(f"break *{start:#x}")


class Connect(gdb.Command):
    """Connects to `mote qemu --gdb` (mote-connect [ADDRESS]) and sets breakpoints where the kernel begins and ends."""

    def __init__(self):
        super().__init__("mote-connect", gdb.COMMAND_RUNNING)

    def invoke(self, argument, from_tty):
        if not gdb.objfiles():
            if os.path.exists(DEFAULT_KERNEL):
                gdb.execute("file " + DEFAULT_KERNEL)
            else:
                print("There are no symbols: name the kernel on GDB's command line (see the head of scripts/mote.gdb).")
        gdb.execute("target remote " + (argument or "localhost:1234"))
        Remember()
        Forget()
        for name, what in BREAKPOINTS:
            set_breakpoint(name, what)
        print("`continue` starts the machine; `wasm-break` stops at calls to WASI, `wasm-bt` shows the module's call stack")


WasmBacktrace()
WasmBreak()
Connect()
end
