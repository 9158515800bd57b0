// Objects and lists: DeltaBlue, a solver of constraints of different strength that changes its solution step by step
// (Freeman-Benson, Maloney, Borning, 1990). scriptArgs[1]: variables in the chain and in the projection.

// Less is stronger.
const REQUIRED = 0, PREFERRED = 2, STRONG_DEFAULT = 3, NORMAL = 4, WEAKEST = 6;

const UNSATISFIED = 0, FORWARD = 1, BACKWARD = 2;

class Variable {
    constructor(value = 0) {
        this.value = value;
        this.constraints = [];
        this.determinedBy = null;
        this.mark = 0;
        // The strength of the weakest constraint that could be given up to change this one.
        this.walkStrength = WEAKEST;
        // Whether it has the same value in each run of a plan.
        this.stays = true;
    }

    consumers() {
        return this.constraints.filter(it => it !== this.determinedBy && it.isSatisfied());
    }
}

class Constraint {
    constructor(planner, strength, ...variables) {
        this.planner = planner;
        this.strength = strength;
        this.variables = variables;
        this.direction = UNSATISFIED;
        for (const variable of variables) variable.constraints.push(this);
        planner.add(this);
    }

    get isInput() {
        return false;
    }

    isSatisfied() {
        return this.direction !== UNSATISFIED;
    }

    destroy() {
        if (this.isSatisfied()) this.planner.remove(this);
        else this.detach();
    }

    detach() {
        for (const { constraints } of this.variables) constraints.splice(constraints.indexOf(this), 1);
        this.direction = UNSATISFIED;
    }

    // Takes its output from another constraint, which is returned, if it is stronger.
    satisfy(mark) {
        this.choose(mark);
        if (!this.isSatisfied()) {
            if (this.strength === REQUIRED) throw new Error("a required constraint cannot be satisfied");
            return null;
        }
        for (const variable of this.inputs()) variable.mark = mark;
        const output = this.output(), overridden = output.determinedBy;
        if (overridden !== null) overridden.direction = UNSATISFIED;
        output.determinedBy = this;
        if (!this.planner.propagate(this, mark)) throw new Error("there is a cycle");
        output.mark = mark;
        return overridden;
    }

    inputsKnown(mark) {
        return this.inputs().every(it => it.mark === mark || it.stays || it.determinedBy === null);
    }

    recalculate() {
        const output = this.output();
        output.walkStrength = this.flow().reduce((weakest, it) => Math.max(weakest, it.walkStrength), this.strength);
        output.stays = !this.isInput && this.inputs().every(it => it.stays);
        if (output.stays) this.execute();
    }
}

class Unary extends Constraint {
    choose(mark) {
        const variable = this.variables[0];
        this.direction = variable.mark !== mark && this.strength < variable.walkStrength ? FORWARD : UNSATISFIED;
    }

    inputs() {
        return [];
    }

    flow() {
        return [];
    }

    output() {
        return this.variables[0];
    }

    execute() {}
}

class Stay extends Unary {}

class Edit extends Unary {
    get isInput() {
        return true;
    }
}

// Of the first two variables; those behind are inputs alone.
class Binary extends Constraint {
    choose(mark) {
        const [one, two] = this.variables;
        let direction;
        if (one.mark === mark) direction = two.mark !== mark ? FORWARD : UNSATISFIED;
        else if (two.mark === mark) direction = BACKWARD;
        else direction = one.walkStrength > two.walkStrength ? BACKWARD : FORWARD;
        const changed = direction === BACKWARD ? one : two;
        this.direction = this.strength < changed.walkStrength ? direction : UNSATISFIED;
    }

    output() {
        return this.variables[this.direction === FORWARD ? 1 : 0];
    }

    flow() {
        return [this.variables[this.direction === FORWARD ? 0 : 1]];
    }

    inputs() {
        return [...this.flow(), ...this.variables.slice(2)];
    }
}

class Equal extends Binary {
    execute() {
        this.output().value = this.flow()[0].value;
    }
}

// two = one * scale + offset
class Scale extends Binary {
    execute() {
        const [one, two, scale, offset] = this.variables;
        if (this.direction === FORWARD) two.value = one.value * scale.value + offset.value;
        else one.value = Math.floor((two.value - offset.value) / scale.value);
    }
}

class Planner {
    constructor() {
        this.mark = 0;
    }

    add(constraint) {
        const mark = ++this.mark;
        while (constraint !== null) constraint = constraint.satisfy(mark);
    }

    remove(constraint) {
        const output = constraint.output();
        constraint.detach();
        for (const other of this.forget(output).sort((a, b) => a.strength - b.strength)) this.add(other);
    }

    // Tells all that depends on it its new strength and value; false if it depends on itself.
    propagate(constraint, mark) {
        const toDo = [constraint];
        while (toDo.length > 0) {
            const one = toDo.pop(), output = one.output();
            if (output.mark === mark) return false;
            one.recalculate();
            toDo.push(...output.consumers());
        }
        return true;
    }

    // Nothing determines it any more; the constraints that may do so now, or what depends on it.
    forget(output) {
        output.determinedBy = null;
        output.walkStrength = WEAKEST;
        output.stays = true;
        const unsatisfied = [], toDo = [output];
        while (toDo.length > 0) {
            const variable = toDo.pop();
            unsatisfied.push(...variable.constraints.filter(it => !it.isSatisfied()));
            for (const consumer of variable.consumers()) {
                consumer.recalculate();
                toDo.push(consumer.output());
            }
        }
        return unsatisfied;
    }

    // The satisfied constraints that have to be executed when a source has changed, in order.
    plan(sources) {
        const mark = ++this.mark, plan = [], toDo = sources.filter(it => it.isSatisfied());
        while (toDo.length > 0) {
            const constraint = toDo.pop(), output = constraint.output();
            if (output.mark === mark || !constraint.inputsKnown(mark)) continue;
            plan.push(constraint);
            output.mark = mark;
            toDo.push(...output.consumers());
        }
        return plan;
    }
}

function change(planner, variable, value) {
    const edit = new Edit(planner, PREFERRED, variable), plan = planner.plan([edit]);
    for (let round = 0; round < 10; round++) {
        variable.value = value;
        for (const constraint of plan) constraint.execute();
    }
    edit.destroy();
}

const sum = variables => variables.reduce((sum, it) => sum + it.value, 0);

// Equal variables in a row: what the first is given arrives at the last.
function chain(size) {
    const planner = new Planner(), variables = Array.from({ length: size + 1 }, () => new Variable());
    for (let i = 0; i < size; i++) new Equal(planner, REQUIRED, variables[i], variables[i + 1]);
    new Stay(planner, STRONG_DEFAULT, variables[size]);
    const edit = new Edit(planner, PREFERRED, variables[0]), plan = planner.plan([edit]);
    for (let value = 0; value < 100; value++) {
        variables[0].value = value;
        for (const constraint of plan) constraint.execute();
        if (variables[size].value !== value) throw new Error("the chain is broken");
    }
    edit.destroy();
    return sum(variables);
}

// Pairs of variables that depend on each other by the same scale and offset.
function projection(size) {
    const planner = new Planner(), scale = new Variable(10), offset = new Variable(1000);
    const sources = [], targets = [];
    for (let i = 0; i < size; i++) {
        sources.push(new Variable(i));
        targets.push(new Variable(i));
        new Stay(planner, NORMAL, sources[i]);
        new Scale(planner, REQUIRED, sources[i], targets[i], scale, offset);
    }
    const source = sources[size - 1], target = targets[size - 1], seen = [];
    change(planner, source, 17);
    seen.push(target.value);
    change(planner, target, 1050);
    seen.push(source.value);
    change(planner, scale, 5);
    seen.push(sum(targets));
    change(planner, offset, 2000);
    seen.push(sum(targets));
    return seen;
}

const size = Number(scriptArgs[1] ?? 9000);
console.log(`chain ${chain(size)}, projection [${projection(size).join(", ")}]`);
