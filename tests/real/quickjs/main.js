import * as os from "qjs:os";
import * as std from "qjs:std";
import { primes } from "./primes.js";

os.chdir("/w");
const file = std.open("primes.txt", "w+");
for (const prime of primes(2000)) file.puts(`${prime}\n`);
file.seek(0, std.SEEK_SET);
let lines = 0;
for (let line; (line = file.getline()) !== null;) lines += Number(line) > 0;
print(lines, file.tell(), file.eof());
file.close();

print(os.mkdir("folder"), os.rename("primes.txt", "folder/list.txt"));
print(os.readdir("folder")[0].sort(), os.readdir(".")[0].sort());
const [{ size, mode }, error] = os.stat("folder/list.txt");
print(size, (mode & os.S_IFMT) === os.S_IFREG, error);
print(std.loadFile("folder/list.txt").split("\n").slice(-3), std.loadFile("absent"), os.stat("absent")[1]);
print(std.open("folder/absent/file", "w"), os.remove("folder"), os.remove("primes.js"), scriptArgs);
const bytes = std.open("bytes", "w");
bytes.write(new Uint8Array(70000).map((_, index) => index * 7).buffer, 0, 70000);
bytes.close();
std.exit(3);
