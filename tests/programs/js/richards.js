// Objects and calls: Martin Richards's simulation of the scheduler of an operating system. Six tasks of different priority
// send packets to each other: one idles, one works, two handle what it sends for two devices. scriptArgs[1]: how often.

const IDLE = 0, WORKER = 1, HANDLER_A = 2, HANDLER_B = 3, DEVICE_A = 4, DEVICE_B = 5;
const FOR_DEVICE = 0, WORK = 1;
const BYTES = 4, TURNS_OF_IDLE = 1000;

class Packet {
    constructor(task, kind) {
        this.next = null;
        this.task = task;
        this.kind = kind;
        this.used = 0;
        this.bytes = new Array(BYTES).fill(0);
    }
}

// A queue is its first packet.
function append(queue, packet) {
    packet.next = null;
    if (queue === null) return packet;
    let last = queue;
    while (last.next !== null) last = last.next;
    last.next = packet;
    return queue;
}

function queueOf(count, task, kind) {
    let queue = null;
    for (let i = 0; i < count; i++) queue = append(queue, new Packet(task, kind));
    return queue;
}

class Task {
    constructor(scheduler, id, priority, queue) {
        this.scheduler = scheduler;
        this.id = id;
        this.priority = priority;
        this.queue = queue;
        this.next = scheduler.first;
        this.held = false;
        this.suspended = true;
        scheduler.first = this;
        scheduler.tasks[id] = this;
    }

    canRun() {
        return !this.held && !(this.suspended && this.queue === null);
    }

    // The task that is to run next.
    resume() {
        let packet = null;
        if (this.suspended) {
            packet = this.queue;
            this.queue = packet.next;
            this.suspended = false;
        }
        return this.work(packet);
    }

    // The one that goes on after `sender` gave this one a packet.
    receive(packet, sender) {
        const wasEmpty = this.queue === null;
        this.queue = append(this.queue, packet);
        return wasEmpty && this.priority > sender.priority ? this : sender;
    }
}

class Idle extends Task {
    constructor(scheduler) {
        super(scheduler, IDLE, 0, null);
        this.suspended = false;
        this.pattern = 1;
        this.left = TURNS_OF_IDLE;
    }

    work() {
        if (--this.left === 0) return this.scheduler.hold();
        const odd = this.pattern & 1;
        this.pattern >>= 1;
        if (odd === 0) return this.scheduler.release(DEVICE_A);
        this.pattern ^= 0xd008;
        return this.scheduler.release(DEVICE_B);
    }
}

class Worker extends Task {
    constructor(scheduler) {
        super(scheduler, WORKER, 1000, queueOf(2, WORKER, WORK));
        this.handler = HANDLER_A;
        this.letter = 0;
    }

    work(packet) {
        if (packet === null) return this.scheduler.suspend();
        this.handler = this.handler === HANDLER_A ? HANDLER_B : HANDLER_A;
        packet.task = this.handler;
        packet.used = 0;
        for (let i = 0; i < BYTES; i++) {
            this.letter = this.letter % 26 + 1;
            packet.bytes[i] = this.letter;
        }
        return this.scheduler.send(packet);
    }
}

class Handler extends Task {
    constructor(scheduler, id, priority, device) {
        super(scheduler, id, priority, queueOf(3, device, FOR_DEVICE));
        this.toDo = null;
        this.free = null;
    }

    work(packet) {
        if (packet !== null) {
            if (packet.kind === WORK) this.toDo = append(this.toDo, packet);
            else this.free = append(this.free, packet);
        }
        const order = this.toDo;
        if (order !== null) {
            if (order.used === BYTES) {
                this.toDo = order.next;
                return this.scheduler.send(order);
            }
            const carrier = this.free;
            if (carrier !== null) {
                this.free = carrier.next;
                carrier.used = order.bytes[order.used++];
                return this.scheduler.send(carrier);
            }
        }
        return this.scheduler.suspend();
    }
}

class Device extends Task {
    constructor(scheduler, id, priority) {
        super(scheduler, id, priority, null);
        this.pending = null;
    }

    work(packet) {
        if (packet !== null) {
            this.pending = packet;
            return this.scheduler.hold();
        }
        const done = this.pending;
        if (done === null) return this.scheduler.suspend();
        this.pending = null;
        return this.scheduler.send(done);
    }
}

class Scheduler {
    constructor() {
        this.first = null;
        this.current = null;
        this.tasks = new Array(6).fill(null);
        this.sent = 0;
        this.holds = 0;
    }

    run() {
        let task = this.first;
        while (task !== null) {
            if (task.canRun()) {
                this.current = task;
                task = task.resume();
            } else {
                task = task.next;
            }
        }
    }

    hold() {
        this.holds++;
        this.current.held = true;
        return this.current.next;
    }

    release(id) {
        const task = this.tasks[id];
        task.held = false;
        return task.priority > this.current.priority ? task : this.current;
    }

    suspend() {
        this.current.suspended = true;
        return this.current;
    }

    // Gives a packet to its task, from which it comes back to this one.
    send(packet) {
        this.sent++;
        const task = this.tasks[packet.task];
        packet.task = this.current.id;
        return task.receive(packet, this.current);
    }
}

function simulate() {
    const scheduler = new Scheduler();
    new Idle(scheduler);
    new Worker(scheduler);
    new Handler(scheduler, HANDLER_A, 2000, DEVICE_A);
    new Handler(scheduler, HANDLER_B, 3000, DEVICE_B);
    new Device(scheduler, DEVICE_A, 4000);
    new Device(scheduler, DEVICE_B, 5000);
    scheduler.run();
    return scheduler;
}

const rounds = Number(scriptArgs[1] ?? 350);
let sent = 0, holds = 0;
for (let round = 0; round < rounds; round++) {
    const scheduler = simulate();
    sent += scheduler.sent;
    holds += scheduler.holds;
}
console.log(`${rounds} rounds, packets ${sent / rounds}, holds ${holds / rounds}`);
