export function* primes(end) {
    const composite = new Uint8Array(end);
    for (let number = 2; number < end; number++) {
        if (composite[number]) continue;
        yield number;
        for (let multiple = number * number; multiple < end; multiple += number) composite[multiple] = 1;
    }
}
