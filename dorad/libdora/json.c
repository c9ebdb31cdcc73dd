#define _GNU_SOURCE /* newlocale */

#include "json.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 200
#define BLOCK 4000

struct json_block {
    struct json_block *next;
    size_t used, size;
    _Alignas(16) char memory[];
};

/* -- memory ------------------------------------------------------------------------------------ */

void *json_allocate(struct json_arena *arena, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    struct json_block *block = arena->blocks;
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        block = must(malloc(sizeof *block + room));
        *block = (struct json_block){.next = arena->blocks, .size = room};
        arena->blocks = block;
    }
    void *memory = block->memory + block->used;
    block->used += size;
    return memory;
}

void json_free(struct json_arena *arena)
{
    while (arena->blocks != NULL) {
        struct json_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
}

struct json *json_new(struct json_arena *arena, enum json_type type)
{
    struct json *value = json_allocate(arena, sizeof *value);
    *value = (struct json){.type = type};
    return value;
}

void json_add(struct json *to, struct json *item)
{
    if (to->items.last == NULL)
        to->items.first = item;
    else
        to->items.last->next = item;
    to->items.last = item;
    to->items.count++;
}

/* -- read -------------------------------------------------------------------------------------- */

struct reader {
    struct json_arena *arena;
    const char *at, *end;
    int depth;
};

static struct json *read_value(struct reader *reader);

static void skip_space(struct reader *reader)
{
    while (reader->at < reader->end && memchr(" \t\n\r", *reader->at, 4) != NULL)
        reader->at++;
}

static bool skip(struct reader *reader, const char *expected)
{
    size_t size = strlen(expected);
    if ((size_t)(reader->end - reader->at) < size || memcmp(reader->at, expected, size) != 0)
        return false;
    reader->at += size;
    return true;
}

static bool read_hex(struct reader *reader, uint32_t *code)
{
    if (reader->end - reader->at < 4)
        return false;
    *code = 0;
    for (int at = 0; at < 4; at++) {
        char digit = *reader->at++;
        int value = digit >= '0' && digit <= '9'   ? digit - '0'
                    : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                    : digit >= 'A' && digit <= 'F' ? digit - 'A' + 10
                                                   : -1;
        if (value < 0)
            return false;
        *code = *code << 4 | (uint32_t)value;
    }
    return true;
}

static char *put_utf8(char *into, uint32_t code)
{
    if (code < 0x80) {
        *into++ = (char)code;
    } else if (code < 0x800) {
        *into++ = (char)(0xC0 | code >> 6);
        *into++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *into++ = (char)(0xE0 | code >> 12);
        *into++ = (char)(0x80 | (code >> 6 & 0x3F));
        *into++ = (char)(0x80 | (code & 0x3F));
    } else {
        *into++ = (char)(0xF0 | code >> 18);
        *into++ = (char)(0x80 | (code >> 12 & 0x3F));
        *into++ = (char)(0x80 | (code >> 6 & 0x3F));
        *into++ = (char)(0x80 | (code & 0x3F));
    }
    return into;
}

/* Read the code after `\u`, with that of the other half of a pair. */
static bool read_code(struct reader *reader, uint32_t *code)
{
    if (!read_hex(reader, code))
        return false;
    if (*code < 0xD800 || *code > 0xDFFF)
        return true;
    uint32_t low;
    const char *before = reader->at;
    if (*code < 0xDC00 && skip(reader, "\\u") && read_hex(reader, &low) && low >= 0xDC00 &&
        low <= 0xDFFF) {
        *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
        return true;
    }
    reader->at = before;
    *code = 0xFFFD;
    return true;
}

/* Read a string whose first quote was skipped. It is never longer than its text. */
static bool read_text(struct reader *reader, const char **text, size_t *size)
{
    const char *end = reader->at;
    while (end < reader->end && *end != '"')
        end += *end == '\\' ? 2 : 1;
    if (end >= reader->end)
        return false;
    char *into = json_allocate(reader->arena, (size_t)(end - reader->at) + 1);
    *text = into;
    while (reader->at < end) {
        char c = *reader->at++;
        if ((unsigned char)c < ' ')
            return false;
        if (c != '\\') {
            *into++ = c;
            continue;
        }
        static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
        c = *reader->at++;
        const char *name = c == 0 ? NULL : strchr(names, c);
        uint32_t code;
        if (name != NULL)
            *into++ = values[name - names];
        else if (c == 'u' && read_code(reader, &code) && reader->at <= end)
            into = put_utf8(into, code);
        else
            return false;
    }
    *into = 0;
    *size = (size_t)(into - *text);
    reader->at = end + 1;
    return true;
}

static struct json *read_number(struct reader *reader)
{
    char digits[320];
    size_t size = 0;
    bool real = false;
    while (reader->at < reader->end && memchr("+-.0123456789eE", *reader->at, 15) != NULL) {
        if (size >= sizeof digits - 1)
            return NULL;
        real |= memchr(".eE", *reader->at, 3) != NULL;
        digits[size++] = *reader->at++;
    }
    digits[size] = 0;
    if (size == 0 || digits[0] == '+' || digits[0] == '.')
        return NULL;
    char *end;
    struct json *value = json_new(reader->arena, real ? JSON_FLOAT : JSON_INT);
    errno = 0;
    if (!real)
        value->number = strtoll(digits, &end, 10);
    if (real || errno == ERANGE) {
        value->type = JSON_FLOAT;
        locale_t before = uselocale(plain_locale());
        value->real = strtod(digits, &end);
        uselocale(before);
    }
    return *end == 0 ? value : NULL;
}

static struct json *read_items(struct reader *reader, enum json_type type, char end)
{
    struct json *items = json_new(reader->arena, type);
    if (++reader->depth > MAX_DEPTH)
        return NULL;
    skip_space(reader);
    for (bool first = true;; first = false) {
        if (reader->at >= reader->end)
            return NULL;
        if (*reader->at == end && first)
            break;
        const char *key = NULL;
        size_t size;
        if (type == JSON_OBJECT) {
            skip_space(reader);
            if (!skip(reader, "\"") || !read_text(reader, &key, &size))
                return NULL;
            skip_space(reader);
            if (!skip(reader, ":"))
                return NULL;
        }
        struct json *item = read_value(reader);
        if (item == NULL)
            return NULL;
        item->key = key;
        json_add(items, item);
        skip_space(reader);
        if (reader->at < reader->end && *reader->at == end)
            break;
        if (!skip(reader, ","))
            return NULL;
    }
    reader->at++;
    reader->depth--;
    return items;
}

static struct json *constant(struct reader *reader, enum json_type type, bool truth, double real)
{
    struct json *value = json_new(reader->arena, type);
    if (type == JSON_BOOL)
        value->truth = truth;
    if (type == JSON_FLOAT)
        value->real = real;
    return value;
}

static struct json *read_value(struct reader *reader)
{
    skip_space(reader);
    if (skip(reader, "{"))
        return read_items(reader, JSON_OBJECT, '}');
    if (skip(reader, "["))
        return read_items(reader, JSON_LIST, ']');
    if (skip(reader, "\"")) {
        struct json *value = json_new(reader->arena, JSON_STRING);
        return read_text(reader, &value->string.at, &value->string.size) ? value : NULL;
    }
    if (skip(reader, "null"))
        return constant(reader, JSON_NULL, false, 0);
    if (skip(reader, "true"))
        return constant(reader, JSON_BOOL, true, 0);
    if (skip(reader, "false"))
        return constant(reader, JSON_BOOL, false, 0);
    /* As Python writes them. */
    if (skip(reader, "NaN"))
        return constant(reader, JSON_FLOAT, false, (double)NAN);
    if (skip(reader, "Infinity"))
        return constant(reader, JSON_FLOAT, false, (double)INFINITY);
    if (skip(reader, "-Infinity"))
        return constant(reader, JSON_FLOAT, false, -(double)INFINITY);
    return read_number(reader);
}

/* Return whether bytes are UTF-8, without surrogates and overlong forms. */
static bool is_utf8(const unsigned char *at, const unsigned char *end)
{
    while (at < end) {
        unsigned char c = *at++;
        if (c < 0x80)
            continue;
        int more = c >= 0xF0 && c <= 0xF4 ? 3 : c >= 0xE0 && c < 0xF0 ? 2 : c >= 0xC2 && c < 0xE0;
        if (more == 0 || end - at < more)
            return false;
        if ((c == 0xE0 && at[0] < 0xA0) || (c == 0xED && at[0] > 0x9F) ||
            (c == 0xF0 && at[0] < 0x90) || (c == 0xF4 && at[0] > 0x8F))
            return false;
        for (; more > 0; more--)
            if ((*at++ & 0xC0) != 0x80)
                return false;
    }
    return true;
}

struct json *json_read(struct json_arena *arena, const char *text, size_t size)
{
    if (!is_utf8((const unsigned char *)text, (const unsigned char *)text + size))
        return NULL;
    struct reader reader = {arena, text, text + size, 0};
    struct json *value = read_value(&reader);
    skip_space(&reader);
    return reader.at == reader.end ? value : NULL;
}

/* -- look up ----------------------------------------------------------------------------------- */

struct json *json_get(const struct json *object, const char *key)
{
    struct json *last = NULL; /* the last of a name counts, as in Python */
    if (object == NULL || object->type != JSON_OBJECT)
        return NULL;
    for (struct json *each = object->items.first; each != NULL; each = each->next)
        if (strcmp(each->key, key) == 0)
            last = each;
    return last;
}

const char *json_string(const struct json *object, const char *key)
{
    const struct json *value = json_get(object, key);
    return value != NULL && value->type == JSON_STRING ? value->string.at : NULL;
}

bool json_count(const struct json *object, const char *key, uint64_t *number)
{
    const struct json *value = json_get(object, key);
    if (value == NULL || value->type != JSON_INT || value->number < 0)
        return false;
    *number = (uint64_t)value->number;
    return true;
}

bool json_true(const struct json *object, const char *key)
{
    const struct json *value = json_get(object, key);
    return value != NULL && value->type == JSON_BOOL && value->truth;
}
