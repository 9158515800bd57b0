/* Lists and bits: regular expressions, found in generated text by running through Thompson's automaton, in all states at
   once. argv[1]: MiB of text.

   An expression has characters, `.`, classes as [a-z_] and [^ ], groups, `|`, `*`, `+`, `?`, and `\` before a character
   that stands for itself. Matches are counted from the left, the longest at each place. */
#include <string.h>
#include "workload.h"

enum { MOST_NODES = 256, MOST_STATES = 512, ABSENT = -1 };

enum kind { SET, SEQUENCE, CHOICE, REPEAT, OPTION, NOTHING };

/* What an expression is made of. REPEAT: once or more often. */
struct node {
    enum kind kind;
    int left, right;
    uint8_t set[32];
};

struct parser {
    const char *at;
    struct node nodes[MOST_NODES];
    int count;
};

static void wrong(const char *what)
{
    fprintf(stderr, "the expression is wrong: %s\n", what);
    exit(1);
}

static int add(struct parser *parser, enum kind kind, int left, int right)
{
    if (parser->count == MOST_NODES)
        wrong("it is too long");
    parser->nodes[parser->count] = (struct node){ .kind = kind, .left = left, .right = right };
    return parser->count++;
}

static void put(uint8_t set[32], int from, int to)
{
    for (int byte = from; byte <= to; byte++)
        set[byte >> 3] |= (uint8_t)(1 << (byte & 7));
}

static int class(struct parser *parser)
{
    int node = add(parser, SET, ABSENT, ABSENT);
    uint8_t *set = parser->nodes[node].set;
    int negated = *parser->at == '^';
    parser->at += negated;
    for (; *parser->at != ']'; parser->at++) {
        if (*parser->at == 0)
            wrong("a class has no end");
        int from = (uint8_t)*parser->at, to = from;
        if (parser->at[1] == '-' && parser->at[2] != ']') {
            parser->at += 2;
            to = (uint8_t)*parser->at;
        }
        put(set, from, to);
    }
    parser->at++;
    for (int i = 0; negated && i < 32; i++)
        set[i] = (uint8_t)~set[i];
    return node;
}

static int choice(struct parser *parser);

static int atom(struct parser *parser)
{
    int byte = (uint8_t)*parser->at++;
    if (byte == '(') {
        int inner = choice(parser);
        if (*parser->at++ != ')')
            wrong("a group has no end");
        return inner;
    }
    if (byte == '[')
        return class(parser);
    int node = add(parser, SET, ABSENT, ABSENT);
    if (byte == '.') {
        put(parser->nodes[node].set, 0, 255);
        return node;
    }
    if (byte == '\\')
        byte = (uint8_t)*parser->at++;
    if (byte == 0)
        wrong("it ends too early");
    put(parser->nodes[node].set, byte, byte);
    return node;
}

static int sequence(struct parser *parser)
{
    int all = ABSENT;
    while (*parser->at != 0 && *parser->at != '|' && *parser->at != ')') {
        int one = atom(parser);
        for (;; parser->at++) {
            if (*parser->at == '*')
                one = add(parser, OPTION, add(parser, REPEAT, one, ABSENT), ABSENT);
            else if (*parser->at == '+')
                one = add(parser, REPEAT, one, ABSENT);
            else if (*parser->at == '?')
                one = add(parser, OPTION, one, ABSENT);
            else
                break;
        }
        all = all == ABSENT ? one : add(parser, SEQUENCE, all, one);
    }
    return all == ABSENT ? add(parser, NOTHING, ABSENT, ABSENT) : all;
}

static int choice(struct parser *parser)
{
    int all = sequence(parser);
    while (*parser->at == '|') {
        parser->at++;
        all = add(parser, CHOICE, all, sequence(parser));
    }
    return all;
}

/* A state takes a byte of its set and goes to `next`; one without a set goes to both without taking any. */
struct state {
    const uint8_t *set;
    int next, other;
};

struct automaton {
    struct parser parser;
    struct state states[MOST_STATES];
    int count, start;
};

enum { ACCEPT = 0 };

static int state(struct automaton *automaton, const uint8_t *set, int next, int other)
{
    if (automaton->count == MOST_STATES)
        wrong("it has too many states");
    automaton->states[automaton->count] = (struct state){ set, next, other };
    return automaton->count++;
}

/* States for a node that go on to `next`; the first of them. */
static int states_of(struct automaton *automaton, int index, int next)
{
    const struct node *node = &automaton->parser.nodes[index];
    int first;
    switch (node->kind) {
    case SET:
        return state(automaton, node->set, next, ABSENT);
    case SEQUENCE:
        return states_of(automaton, node->left, states_of(automaton, node->right, next));
    case CHOICE:
        first = states_of(automaton, node->left, next);
        return state(automaton, NULL, first, states_of(automaton, node->right, next));
    case OPTION:
        return state(automaton, NULL, states_of(automaton, node->left, next), next);
    case REPEAT: {
        int again = state(automaton, NULL, ABSENT, next);
        first = states_of(automaton, node->left, again);
        automaton->states[again].next = first;
        return first;
    }
    case NOTHING:
        break;
    }
    return next;
}

static void translate(struct automaton *automaton, const char *expression)
{
    automaton->parser.at = expression;
    automaton->parser.count = 0;
    int all = choice(&automaton->parser);
    if (*automaton->parser.at != 0)
        wrong("a group has no beginning");
    automaton->count = 0;
    state(automaton, NULL, ABSENT, ABSENT);
    automaton->start = states_of(automaton, all, ACCEPT);
}

/* States without doubles: `marks` has the round in which each was added last. */
struct list {
    int states[MOST_STATES], count;
};

struct runner {
    struct list lists[2];
    uint32_t marks[MOST_STATES], round;
};

/* Adds a state, or those it leads to without taking a byte. Whether the end is among them. */
static int enter(const struct automaton *automaton, struct runner *runner, struct list *list, int index)
{
    if (index == ABSENT || runner->marks[index] == runner->round)
        return 0;
    runner->marks[index] = runner->round;
    if (index == ACCEPT)
        return 1;
    const struct state *it = &automaton->states[index];
    if (it->set != NULL) {
        list->states[list->count++] = index;
        return 0;
    }
    int left = enter(automaton, runner, list, it->next);
    return enter(automaton, runner, list, it->other) | left;
}

/* Bytes of the longest match here, ABSENT if there is none. */
static long match(const struct automaton *automaton, struct runner *runner, const uint8_t *text, const uint8_t *end)
{
    struct list *now = &runner->lists[0], *then = &runner->lists[1];
    now->count = 0;
    runner->round++;
    long longest = enter(automaton, runner, now, automaton->start) ? 0 : ABSENT;
    for (const uint8_t *at = text; at < end && now->count > 0; at++) {
        int byte = *at, accepted = 0;
        runner->round++;
        then->count = 0;
        for (int i = 0; i < now->count; i++) {
            const struct state *it = &automaton->states[now->states[i]];
            if (it->set[byte >> 3] >> (byte & 7) & 1)
                accepted |= enter(automaton, runner, then, it->next);
        }
        if (accepted)
            longest = at + 1 - text;
        struct list *other = now;
        now = then;
        then = other;
    }
    return longest;
}

static size_t word(uint32_t *random, uint8_t *to)
{
    static const char vowels[] = "aeiou", consonants[] = "bcdfghklmnprstvwxz";
    size_t length = 0;
    for (uint32_t syllables = 1 + random_below(random, 3); syllables > 0; syllables--) {
        to[length++] = (uint8_t)consonants[random_below(random, sizeof consonants - 1)];
        to[length++] = (uint8_t)vowels[random_below(random, sizeof vowels - 1)];
    }
    if (random_below(random, 4) == 0) {
        memcpy(to + length, "ing", 3);
        length += 3;
    }
    return length;
}

/* Words, names, addresses and numbers. */
static void write_text(uint8_t *text, size_t bytes)
{
    uint32_t random = 1;
    size_t at = 0;
    while (at < bytes) {
        uint8_t item[64];
        size_t length = word(&random, item);
        switch (random_below(&random, 16)) {
        case 0:
            item[length++] = '@';
            length += word(&random, item + length);
            memcpy(item + length, random_below(&random, 2) ? ".com" : ".org", 4);
            length += 4;
            break;
        case 1:
            length = (size_t)snprintf((char *)item, sizeof item, "%u.%u.%u", (unsigned)random_below(&random, 100),
                                      (unsigned)random_below(&random, 100), (unsigned)random_below(&random, 100));
            break;
        case 2:
        case 3:
        case 4:
            item[0] -= 'a' - 'A';
            break;
        }
        item[length++] = random_below(&random, 12) == 0 ? '\n' : ' ';
        for (size_t i = 0; i < length && at < bytes; i++)
            text[at++] = item[i];
    }
}

int main(int argc, char **argv)
{
    static const char *const expressions[] = {
        "[a-z]+@[a-z]+\\.(com|org|net)",
        "([0-9]+\\.)+[0-9]+",
        "(a|e|i|o|u)([a-z](a|e|i|o|u))*",
        "[A-Z][a-z]*( [A-Z][a-z]*)+",
        "([a-z]*ing|[a-z]*ba) ",
        "[^ ]*(xo|zu)?ka[^ ]* ",
    };
    static struct automaton automaton;
    static struct runner runner;
    size_t bytes = workload(argc, argv, 4) << 20;
    uint8_t *text = room_for(bytes), *end = text + bytes;
    write_text(text, bytes);
    for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++) {
        translate(&automaton, expressions[i]);
        unsigned long count = 0, matched = 0;
        uint32_t sum = FNV_START;
        for (const uint8_t *at = text; at < end;) {
            long length = match(&automaton, &runner, at, end);
            if (length > 0) {
                uint32_t place[2] = { (uint32_t)(at - text), (uint32_t)length };
                count++;
                matched += (unsigned long)length;
                sum = fnv(sum, place, sizeof place);
            }
            at += length > 0 ? length : 1;
        }
        printf("%lu matches, %lu bytes, %08x: %s\n", count, matched, (unsigned)sum, expressions[i]);
    }
    return 0;
}
