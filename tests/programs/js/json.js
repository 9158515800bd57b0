// Strings and objects: a generated document, written as JSON and parsed again. scriptArgs[1]: how often.

function generator() {
    let state = 1;
    return bound => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return Math.floor((state >>> 16) * bound / 65536);
    };
}

function records(count) {
    const below = generator(), pieces = ["an", "e", "ti", "kor", '"', "\\", "\n", "\u0001", "ž", "é", " ", "lem", "猫", "s", "u", "ra"];
    const text = () => Array.from({ length: 1 + below(12) }, () => pieces[below(16)]).join("");
    return Array.from({ length: count }, (_, number) => ({
        number,
        name: text(),
        balance: (below(60000) - 30000) / 8,
        active: below(2) === 1,
        address: { city: text(), note: below(3) === 0 ? text() : null },
        points: Array.from({ length: below(10) }, () => below(50000) / 8),
    }));
}

const rounds = Number(scriptArgs[1] ?? 60), text = JSON.stringify(records(3000));
let balance = 0, points = 0;
for (let round = 0; round < rounds; round++) {
    const parsed = JSON.parse(text);
    for (const record of parsed) {
        balance += record.balance;
        points += record.points.length;
    }
    if (JSON.stringify(parsed) !== text) throw new Error("another text came back");
}
console.log(`${text.length} characters, balance ${balance / rounds}, points ${points / rounds}`);
