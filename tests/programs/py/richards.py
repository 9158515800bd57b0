"""Objects and calls: Martin Richards's simulation of the scheduler of an operating system. Six tasks of different priority
send packets to each other: one idles, one works, two handle what it sends for two devices. argv[1]: how often."""

import sys

IDLE, WORKER, HANDLER_A, HANDLER_B, DEVICE_A, DEVICE_B = range(6)
FOR_DEVICE, WORK = range(2)
BYTES, TURNS_OF_IDLE = 4, 1000


class Packet:
    def __init__(self, task, kind):
        self.next = None
        self.task = task
        self.kind = kind
        self.used = 0
        self.bytes = [0] * BYTES


def append(queue, packet):
    """A queue is its first packet."""
    packet.next = None
    if queue is None:
        return packet
    last = queue
    while last.next is not None:
        last = last.next
    last.next = packet
    return queue


def queue_of(count, task, kind):
    queue = None
    for _ in range(count):
        queue = append(queue, Packet(task, kind))
    return queue


class Task:
    def __init__(self, scheduler, id, priority, queue):
        self.scheduler = scheduler
        self.id = id
        self.priority = priority
        self.queue = queue
        self.next = scheduler.first
        self.held = False
        self.suspended = True
        scheduler.first = self
        scheduler.tasks[id] = self

    def can_run(self):
        return not self.held and not (self.suspended and self.queue is None)

    def resume(self):
        """The task that is to run next."""
        packet = None
        if self.suspended:
            packet = self.queue
            self.queue = packet.next
            self.suspended = False
        return self.work(packet)

    def receive(self, packet, sender):
        """The one that goes on after `sender` gave this one a packet."""
        was_empty = self.queue is None
        self.queue = append(self.queue, packet)
        return self if was_empty and self.priority > sender.priority else sender


class Idle(Task):
    def __init__(self, scheduler):
        super().__init__(scheduler, IDLE, 0, None)
        self.suspended = False
        self.pattern = 1
        self.left = TURNS_OF_IDLE

    def work(self, _packet):
        self.left -= 1
        if self.left == 0:
            return self.scheduler.hold()
        odd = self.pattern & 1
        self.pattern >>= 1
        if odd == 0:
            return self.scheduler.release(DEVICE_A)
        self.pattern ^= 0xD008
        return self.scheduler.release(DEVICE_B)


class Worker(Task):
    def __init__(self, scheduler):
        super().__init__(scheduler, WORKER, 1000, queue_of(2, WORKER, WORK))
        self.handler = HANDLER_A
        self.letter = 0

    def work(self, packet):
        if packet is None:
            return self.scheduler.suspend()
        self.handler = HANDLER_B if self.handler == HANDLER_A else HANDLER_A
        packet.task = self.handler
        packet.used = 0
        for i in range(BYTES):
            self.letter = self.letter % 26 + 1
            packet.bytes[i] = self.letter
        return self.scheduler.send(packet)


class Handler(Task):
    def __init__(self, scheduler, id, priority, device):
        super().__init__(scheduler, id, priority, queue_of(3, device, FOR_DEVICE))
        self.to_do = None
        self.free = None

    def work(self, packet):
        if packet is not None:
            if packet.kind == WORK:
                self.to_do = append(self.to_do, packet)
            else:
                self.free = append(self.free, packet)
        order = self.to_do
        if order is not None:
            if order.used == BYTES:
                self.to_do = order.next
                return self.scheduler.send(order)
            carrier = self.free
            if carrier is not None:
                self.free = carrier.next
                carrier.used = order.bytes[order.used]
                order.used += 1
                return self.scheduler.send(carrier)
        return self.scheduler.suspend()


class Device(Task):
    def __init__(self, scheduler, id, priority):
        super().__init__(scheduler, id, priority, None)
        self.pending = None

    def work(self, packet):
        if packet is not None:
            self.pending = packet
            return self.scheduler.hold()
        done = self.pending
        if done is None:
            return self.scheduler.suspend()
        self.pending = None
        return self.scheduler.send(done)


class Scheduler:
    def __init__(self):
        self.first = None
        self.current = None
        self.tasks = [None] * 6
        self.sent = 0
        self.holds = 0

    def run(self):
        task = self.first
        while task is not None:
            if task.can_run():
                self.current = task
                task = task.resume()
            else:
                task = task.next

    def hold(self):
        self.holds += 1
        self.current.held = True
        return self.current.next

    def release(self, id):
        task = self.tasks[id]
        task.held = False
        return task if task.priority > self.current.priority else self.current

    def suspend(self):
        self.current.suspended = True
        return self.current

    def send(self, packet):
        """Gives a packet to its task, from which it comes back to this one."""
        self.sent += 1
        task = self.tasks[packet.task]
        packet.task = self.current.id
        return task.receive(packet, self.current)


def simulate():
    scheduler = Scheduler()
    Idle(scheduler)
    Worker(scheduler)
    Handler(scheduler, HANDLER_A, 2000, DEVICE_A)
    Handler(scheduler, HANDLER_B, 3000, DEVICE_B)
    Device(scheduler, DEVICE_A, 4000)
    Device(scheduler, DEVICE_B, 5000)
    scheduler.run()
    return scheduler


rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
results = [simulate() for _ in range(rounds)]
sent, holds = sum(it.sent for it in results), sum(it.holds for it in results)
print(f"{rounds} rounds, packets {sent // rounds}, holds {holds // rounds}")
