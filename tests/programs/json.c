/* Strings and trees: JSON (RFC 8259) is parsed into a tree and written again, which must give the same text. argv[1]: how
   often.

   Numbers are integers, or have up to three decimals; members of an object keep their order. */
#include <math.h>
#include <string.h>
#include "workload.h"

enum { RECORDS = 8000, TEXT_BYTES = 4 << 20, ARENA_BYTES = 32 << 20, DEEPEST = 64 };

enum kind { NULL_VALUE, FALSE_VALUE, TRUE_VALUE, NUMBER, STRING, ARRAY, OBJECT };

/* A value is one of a list, and those inside of it are another list. A member of an object has a name. */
struct value {
    struct value *next, *first, *last;
    const char *name, *string;
    double number;
    uint32_t name_bytes, string_bytes;
    enum kind kind;
};

struct arena {
    char *start;
    size_t used;
};

static void *allocate(struct arena *arena, size_t bytes)
{
    void *room = arena->start + arena->used;
    arena->used += (bytes + 7) / 8 * 8;
    if (arena->used > ARENA_BYTES) {
        fprintf(stderr, "the arena is full\n");
        exit(1);
    }
    return room;
}

static struct value *new_value(struct arena *arena, enum kind kind)
{
    struct value *value = allocate(arena, sizeof *value);
    *value = (struct value){ .kind = kind };
    return value;
}

static struct value *append(struct value *list, struct value *value)
{
    if (list->last != NULL)
        list->last->next = value;
    else
        list->first = value;
    list->last = value;
    return value;
}

/* Writing ---------------------------------------------------------------------------------------------------------- */

struct writer {
    char *text;
    size_t bytes;
};

static void put(struct writer *writer, const char *bytes, size_t count)
{
    if (writer->bytes + count > TEXT_BYTES) {
        fprintf(stderr, "the text is too long\n");
        exit(1);
    }
    memcpy(writer->text + writer->bytes, bytes, count);
    writer->bytes += count;
}

static void put_byte(struct writer *writer, char byte)
{
    put(writer, &byte, 1);
}

static void write_string(struct writer *writer, const char *string, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    put_byte(writer, '"');
    for (size_t i = 0; i < bytes; i++) {
        char byte = string[i];
        if (byte == '"' || byte == '\\') {
            char escape[] = { '\\', byte };
            put(writer, escape, sizeof escape);
        } else if (byte == '\n') {
            put(writer, "\\n", 2);
        } else if ((uint8_t)byte < 0x20) {
            char escape[] = { '\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15] };
            put(writer, escape, sizeof escape);
        } else {
            put_byte(writer, byte);
        }
    }
    put_byte(writer, '"');
}

static void write_number(struct writer *writer, double number)
{
    char digits[32];
    size_t at = sizeof digits;
    uint64_t thousandths = (uint64_t)floor(fabs(number) * 1000 + 0.5), whole = thousandths / 1000, rest = thousandths % 1000;
    if (rest != 0) {
        /* Without zeros behind the last decimal. */
        int places = 3;
        for (; rest % 10 == 0; rest /= 10)
            places--;
        for (; places > 0; places--, rest /= 10)
            digits[--at] = (char)('0' + rest % 10);
        digits[--at] = '.';
    }
    do
        digits[--at] = (char)('0' + whole % 10);
    while ((whole /= 10) != 0);
    if (number < 0)
        digits[--at] = '-';
    put(writer, digits + at, sizeof digits - at);
}

static void write_value(struct writer *writer, const struct value *value)
{
    switch (value->kind) {
    case NULL_VALUE:
        put(writer, "null", 4);
        break;
    case FALSE_VALUE:
        put(writer, "false", 5);
        break;
    case TRUE_VALUE:
        put(writer, "true", 4);
        break;
    case NUMBER:
        write_number(writer, value->number);
        break;
    case STRING:
        write_string(writer, value->string, value->string_bytes);
        break;
    case ARRAY:
    case OBJECT:
        put_byte(writer, value->kind == ARRAY ? '[' : '{');
        for (const struct value *inner = value->first; inner != NULL; inner = inner->next) {
            if (inner != value->first)
                put_byte(writer, ',');
            if (value->kind == OBJECT) {
                write_string(writer, inner->name, inner->name_bytes);
                put_byte(writer, ':');
            }
            write_value(writer, inner);
        }
        put_byte(writer, value->kind == ARRAY ? ']' : '}');
        break;
    }
}

/* Parsing ---------------------------------------------------------------------------------------------------------- */

struct parser {
    const char *start, *at, *end;
    struct arena *arena;
    int depth;
};

_Noreturn static void wrong(const struct parser *parser, const char *what)
{
    fprintf(stderr, "byte %zu: %s\n", (size_t)(parser->at - parser->start), what);
    exit(1);
}

static char peek(const struct parser *parser)
{
    return parser->at < parser->end ? *parser->at : 0;
}

static void skip_space(struct parser *parser)
{
    while (peek(parser) == ' ' || peek(parser) == '\n' || peek(parser) == '\r' || peek(parser) == '\t')
        parser->at++;
}

static void expect(struct parser *parser, char byte)
{
    skip_space(parser);
    if (peek(parser) != byte)
        wrong(parser, "another character was expected");
    parser->at++;
}

static uint32_t hexadecimal(struct parser *parser)
{
    uint32_t number = 0;
    for (int i = 0; i < 4; i++, parser->at++) {
        char byte = peek(parser);
        if (byte >= '0' && byte <= '9')
            number = number << 4 | (uint32_t)(byte - '0');
        else if ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'f')
            number = number << 4 | (uint32_t)((byte | 0x20) - 'a' + 10);
        else
            wrong(parser, "four hexadecimal digits were expected");
    }
    return number;
}

static char *put_utf8(char *to, uint32_t code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

/* Nothing gets longer by being read, so that what is left of the text is room enough. */
static const char *parse_string(struct parser *parser, uint32_t *bytes)
{
    expect(parser, '"');
    const char *end = parser->at;
    while (end < parser->end && *end != '"')
        end += 1 + (*end == '\\');
    char *string = allocate(parser->arena, (size_t)(end - parser->at) + 1), *to = string;
    while (peek(parser) != '"') {
        char byte = peek(parser);
        if ((uint8_t)byte < 0x20)
            wrong(parser, "a string has no end, or a control character");
        parser->at++;
        if (byte != '\\') {
            *to++ = byte;
            continue;
        }
        byte = peek(parser);
        parser->at++;
        switch (byte) {
        case 'n':
            *to++ = '\n';
            break;
        case 't':
            *to++ = '\t';
            break;
        case 'r':
            *to++ = '\r';
            break;
        case 'b':
            *to++ = '\b';
            break;
        case 'f':
            *to++ = '\f';
            break;
        case '"':
        case '\\':
        case '/':
            *to++ = byte;
            break;
        case 'u':
            to = put_utf8(to, hexadecimal(parser));
            break;
        default:
            wrong(parser, "no escape sequence begins so");
        }
    }
    parser->at++;
    *bytes = (uint32_t)(to - string);
    return string;
}

static double parse_number(struct parser *parser)
{
    int negative = peek(parser) == '-', places = 0;
    parser->at += negative;
    const char *start = parser->at;
    /* Up to 2^53 the quotient is the number that is nearest. */
    double mantissa = 0, scale = 1;
    for (; peek(parser) >= '0' && peek(parser) <= '9'; parser->at++)
        mantissa = mantissa * 10 + (peek(parser) - '0');
    if (parser->at == start)
        wrong(parser, "a digit was expected");
    if (peek(parser) == '.')
        for (parser->at++; peek(parser) >= '0' && peek(parser) <= '9'; parser->at++, places++) {
            mantissa = mantissa * 10 + (peek(parser) - '0');
            scale *= 10;
        }
    if (places > 3)
        wrong(parser, "there are more than three decimals");
    return (negative ? -mantissa : mantissa) / scale;
}

static void parse_word(struct parser *parser, const char *word)
{
    for (; *word != 0; word++, parser->at++)
        if (peek(parser) != *word)
            wrong(parser, "no value begins so");
}

static struct value *parse_value(struct parser *parser)
{
    skip_space(parser);
    struct value *value = new_value(parser->arena, NULL_VALUE);
    char first = peek(parser), close;
    switch (first) {
    case 'n':
        parse_word(parser, "null");
        return value;
    case 'f':
        parse_word(parser, "false");
        value->kind = FALSE_VALUE;
        return value;
    case 't':
        parse_word(parser, "true");
        value->kind = TRUE_VALUE;
        return value;
    case '"':
        value->kind = STRING;
        value->string = parse_string(parser, &value->string_bytes);
        return value;
    case '[':
    case '{':
        value->kind = first == '[' ? ARRAY : OBJECT;
        close = first == '[' ? ']' : '}';
        break;
    default:
        value->kind = NUMBER;
        value->number = parse_number(parser);
        return value;
    }
    if (++parser->depth > DEEPEST)
        wrong(parser, "it is too deep");
    parser->at++;
    skip_space(parser);
    while (peek(parser) != close) {
        const char *name = NULL;
        uint32_t name_bytes = 0;
        if (value->first != NULL)
            expect(parser, ',');
        if (value->kind == OBJECT) {
            skip_space(parser);
            name = parse_string(parser, &name_bytes);
            expect(parser, ':');
        }
        struct value *inner = append(value, parse_value(parser));
        inner->name = name;
        inner->name_bytes = name_bytes;
        skip_space(parser);
    }
    parser->at++;
    parser->depth--;
    return value;
}

/* The document ------------------------------------------------------------------------------------------------------ */

static const char *random_string(struct arena *arena, uint32_t *random, uint32_t *bytes)
{
    static const char *const pieces[] = { "an", "e", "ti", "kor", "\"", "\\", "\n", "\x01", "ž", "é", " ", "lem", "猫", "s", "u", "ra" };
    char *string = allocate(arena, 64), *to = string;
    for (uint32_t count = 1 + random_below(random, 12); count > 0; count--) {
        const char *piece = pieces[random_below(random, 16)];
        memcpy(to, piece, strlen(piece));
        to += strlen(piece);
    }
    *bytes = (uint32_t)(to - string);
    return string;
}

static void add(struct arena *arena, struct value *object, const char *name, enum kind kind, double number, uint32_t *random)
{
    struct value *value = append(object, new_value(arena, kind));
    value->name = name;
    value->name_bytes = (uint32_t)strlen(name);
    value->number = number;
    if (kind == STRING)
        value->string = random_string(arena, random, &value->string_bytes);
}

static struct value *document(struct arena *arena)
{
    uint32_t random = 1;
    struct value *records = new_value(arena, ARRAY);
    for (int i = 0; i < RECORDS; i++) {
        struct value *record = append(records, new_value(arena, OBJECT));
        add(arena, record, "number", NUMBER, i, &random);
        add(arena, record, "name", STRING, 0, &random);
        add(arena, record, "balance", NUMBER, ((double)random_below(&random, 60000) - 30000) * 37 / 1000, &random);
        add(arena, record, "active", random_below(&random, 2) ? TRUE_VALUE : FALSE_VALUE, 0, &random);
        add(arena, record, "address", OBJECT, 0, &random);
        add(arena, record->last, "city", STRING, 0, &random);
        add(arena, record->last, "note", random_below(&random, 3) ? NULL_VALUE : STRING, 0, &random);
        add(arena, record, "points", ARRAY, 0, &random);
        for (uint32_t points = random_below(&random, 10); points > 0; points--)
            append(record->last, new_value(arena, NUMBER))->number = random_below(&random, 50000) / 8.0;
    }
    return records;
}

static void count(const struct value *value, unsigned long *values, double *sum)
{
    ++*values;
    if (value->kind == NUMBER)
        *sum += value->number;
    for (const struct value *inner = value->first; inner != NULL; inner = inner->next)
        count(inner, values, sum);
}

int main(int argc, char **argv)
{
    unsigned long rounds = workload(argc, argv, 180);
    struct arena arena = { room_for(ARENA_BYTES), 0 };
    struct writer first = { room_for(TEXT_BYTES), 0 }, again = { room_for(TEXT_BYTES), 0 };
    write_value(&first, document(&arena));

    unsigned long values = 0;
    double sum = 0;
    for (unsigned long round = 0; round < rounds; round++) {
        arena.used = 0;
        again.bytes = 0;
        struct parser parser = { first.text, first.text, first.text + first.bytes, &arena, 0 };
        const struct value *root = parse_value(&parser);
        if (parser.at != parser.end)
            wrong(&parser, "there is more than a value");
        write_value(&again, root);
        if (again.bytes != first.bytes || memcmp(again.text, first.text, first.bytes) != 0) {
            fprintf(stderr, "another text came back\n");
            return 1;
        }
        count(root, &values, &sum);
    }
    printf("%lu values in %lu bytes, sum %.3f, %08x\n", values / rounds, (unsigned long)first.bytes, sum / (double)rounds,
           (unsigned)fnv(FNV_START, first.text, first.bytes));
    return 0;
}
