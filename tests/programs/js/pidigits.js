// Large integers: the digits of pi, one by one, by Gibbons's spigot. scriptArgs[1]: how many.

function* digits() {
    // The linear fractional transformation that has been applied so far, and the next term of the series.
    let q = 1n, r = 0n, t = 1n, k = 1n;
    for (;;) {
        const low = (3n * q + r) / t;
        if (low === (4n * q + r) / t) {
            yield low;
            r = 10n * (r - low * t);
            q *= 10n;
        } else {
            const odd = 2n * k + 1n;
            r = (2n * q + r) * odd;
            t *= odd;
            q *= k++;
        }
    }
}

const count = Number(scriptArgs[1] ?? 5000);
let text = "";
for (const digit of digits()) {
    text += digit;
    if (text.length === count) break;
}
console.log(`${text.slice(0, 10)}…${text.slice(-10)}, ${count} digits, sum ${[...text].reduce((sum, digit) => sum + Number(digit), 0)}`);
