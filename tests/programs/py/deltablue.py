"""Objects and lists: DeltaBlue, a solver of constraints of different strength that changes its solution step by step
(Freeman-Benson, Maloney, Borning, 1990). argv[1]: variables in the chain and in the projection."""

import sys

# Less is stronger.
REQUIRED, STRONG_PREFERRED, PREFERRED, STRONG_DEFAULT, NORMAL, WEAK_DEFAULT, WEAKEST = range(7)

UNSATISFIED, FORWARD, BACKWARD = range(3)


class Variable:
    def __init__(self, value=0):
        self.value = value
        self.constraints = []
        self.determined_by = None
        self.mark = 0
        # The strength of the weakest constraint that could be given up to change this one.
        self.walk_strength = WEAKEST
        # Whether it has the same value in each run of a plan.
        self.stays = True

    def consumers(self):
        return [it for it in self.constraints if it is not self.determined_by and it.is_satisfied()]


class Constraint:
    is_input = False

    def __init__(self, planner, strength, *variables):
        self.planner = planner
        self.strength = strength
        self.variables = variables
        self.direction = UNSATISFIED
        for variable in variables:
            variable.constraints.append(self)
        planner.add(self)

    def is_satisfied(self):
        return self.direction != UNSATISFIED

    def destroy(self):
        if self.is_satisfied():
            self.planner.remove(self)
        else:
            self.detach()

    def detach(self):
        for variable in self.variables:
            variable.constraints.remove(self)
        self.direction = UNSATISFIED

    def satisfy(self, mark):
        """Takes its output from another constraint, which is returned, if it is stronger."""
        self.choose(mark)
        if not self.is_satisfied():
            if self.strength == REQUIRED:
                raise RuntimeError("a required constraint cannot be satisfied")
            return None
        for variable in self.inputs():
            variable.mark = mark
        output = self.output()
        overridden = output.determined_by
        if overridden is not None:
            overridden.direction = UNSATISFIED
        output.determined_by = self
        if not self.planner.propagate(self, mark):
            raise RuntimeError("there is a cycle")
        output.mark = mark
        return overridden

    def inputs_known(self, mark):
        return all(it.mark == mark or it.stays or it.determined_by is None for it in self.inputs())

    def recalculate(self):
        output = self.output()
        output.walk_strength = max([self.strength, *(it.walk_strength for it in self.flow())])
        output.stays = not self.is_input and all(it.stays for it in self.inputs())
        if output.stays:
            self.execute()


class Unary(Constraint):
    def choose(self, mark):
        variable = self.variables[0]
        can = variable.mark != mark and self.strength < variable.walk_strength
        self.direction = FORWARD if can else UNSATISFIED

    def inputs(self):
        return ()

    def flow(self):
        return ()

    def output(self):
        return self.variables[0]

    def execute(self):
        pass


class Stay(Unary):
    pass


class Edit(Unary):
    is_input = True


class Binary(Constraint):
    """Of the first two variables; those behind are inputs alone."""

    def choose(self, mark):
        one, two = self.variables[:2]
        if one.mark == mark:
            direction = FORWARD if two.mark != mark else UNSATISFIED
        elif two.mark == mark:
            direction = BACKWARD
        else:
            direction = BACKWARD if one.walk_strength > two.walk_strength else FORWARD
        changed = one if direction == BACKWARD else two
        self.direction = direction if self.strength < changed.walk_strength else UNSATISFIED

    def output(self):
        return self.variables[1 if self.direction == FORWARD else 0]

    def flow(self):
        return (self.variables[0 if self.direction == FORWARD else 1],)

    def inputs(self):
        return (*self.flow(), *self.variables[2:])


class Equal(Binary):
    def execute(self):
        self.output().value = self.flow()[0].value


class Scale(Binary):
    """two = one * scale + offset"""

    def execute(self):
        one, two, scale, offset = self.variables
        if self.direction == FORWARD:
            two.value = one.value * scale.value + offset.value
        else:
            one.value = (two.value - offset.value) // scale.value


class Planner:
    def __init__(self):
        self.mark = 0

    def new_mark(self):
        self.mark += 1
        return self.mark

    def add(self, constraint):
        mark = self.new_mark()
        while constraint is not None:
            constraint = constraint.satisfy(mark)

    def remove(self, constraint):
        output = constraint.output()
        constraint.detach()
        unsatisfied = self.forget(output)
        for other in sorted(unsatisfied, key=lambda it: it.strength):
            self.add(other)

    def propagate(self, constraint, mark):
        """Tells all that depends on it its new strength and value; false if it depends on itself."""
        to_do = [constraint]
        while to_do:
            one = to_do.pop()
            if one.output().mark == mark:
                return False
            one.recalculate()
            to_do += one.output().consumers()
        return True

    def forget(self, output):
        """Nothing determines it any more; the constraints that may do so now, or what depends on it."""
        output.determined_by = None
        output.walk_strength = WEAKEST
        output.stays = True
        unsatisfied, to_do = [], [output]
        while to_do:
            variable = to_do.pop()
            unsatisfied += [it for it in variable.constraints if not it.is_satisfied()]
            for consumer in variable.consumers():
                consumer.recalculate()
                to_do.append(consumer.output())
        return unsatisfied

    def plan(self, sources):
        """The satisfied constraints that have to be executed when a source has changed, in order."""
        mark, plan, to_do = self.new_mark(), [], [it for it in sources if it.is_satisfied()]
        while to_do:
            constraint = to_do.pop()
            output = constraint.output()
            if output.mark != mark and constraint.inputs_known(mark):
                plan.append(constraint)
                output.mark = mark
                to_do += output.consumers()
        return plan


def change(planner, variable, value):
    edit = Edit(planner, PREFERRED, variable)
    plan = planner.plan([edit])
    for _ in range(10):
        variable.value = value
        for constraint in plan:
            constraint.execute()
    edit.destroy()


def chain(size):
    """Equal variables in a row: what the first is given arrives at the last."""
    planner = Planner()
    variables = [Variable() for _ in range(size + 1)]
    for one, two in zip(variables, variables[1:]):
        Equal(planner, REQUIRED, one, two)
    Stay(planner, STRONG_DEFAULT, variables[-1])
    edit = Edit(planner, PREFERRED, variables[0])
    plan = planner.plan([edit])
    for value in range(100):
        variables[0].value = value
        for constraint in plan:
            constraint.execute()
        if variables[-1].value != value:
            raise RuntimeError("the chain is broken")
    edit.destroy()
    return sum(it.value for it in variables)


def projection(size):
    """Pairs of variables that depend on each other by the same scale and offset."""
    planner = Planner()
    scale, offset = Variable(10), Variable(1000)
    pairs = [(Variable(i), Variable(i)) for i in range(size)]
    for source, target in pairs:
        Stay(planner, NORMAL, source)
        Scale(planner, REQUIRED, source, target, scale, offset)
    source, target = pairs[-1]
    change(planner, source, 17)
    seen = [target.value]
    change(planner, target, 1050)
    seen.append(source.value)
    change(planner, scale, 5)
    seen.append(sum(it[1].value for it in pairs))
    change(planner, offset, 2000)
    seen.append(sum(it[1].value for it in pairs))
    return seen


size = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
print(f"chain {chain(size)}, projection {projection(size)}")
